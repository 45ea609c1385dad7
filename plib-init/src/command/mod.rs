//! One command a file: its arguments, and `run`.

pub(crate) mod arith;
pub(crate) mod check;
pub(crate) mod create;
pub(crate) mod delete;
pub(crate) mod demo;
pub(crate) mod destroy;
pub(crate) mod doctor;
pub(crate) mod dump;
pub(crate) mod flush_all;
pub(crate) mod get;
pub(crate) mod info;
pub(crate) mod list;
pub(crate) mod load;
pub(crate) mod mget;
pub(crate) mod reap;
pub(crate) mod run;
pub(crate) mod scan;
pub(crate) mod stats;
pub(crate) mod store;
pub(crate) mod sweep;
pub(crate) mod touch;

use crate::cli::{Cli, Command};
use crate::context::Context;
use crate::error::{CliError, ExitKind};
use crate::run::caller::Caller;

/// Runs the command that the arguments name. What its file gave this process beyond its user's rights is for `run` alone.
pub(crate) fn run(cli: Cli, caller: &Caller) -> Result<ExitKind, CliError> {
    let context = Context::new(cli.common);
    if let Command::Run(args) = cli.command {
        return run::run(&context, args, caller);
    }
    caller.give_up()?;
    match cli.command {
        Command::Create(args) => create::run(&context, &args),
        Command::Info(args) => info::run(&context, &args),
        Command::List(args) => list::run(&context, &args),
        Command::Destroy(args) => destroy::run(&context, &args),
        Command::Get(args) => get::run_get(&context, &args),
        Command::Mget(args) => mget::run(&context, &args),
        Command::Gat(args) => get::run_gat(&context, &args),
        Command::Set(args) => store::run_set(&context, &args),
        Command::Add(args) => store::run_add(&context, &args),
        Command::Replace(args) => store::run_replace(&context, &args),
        Command::Append(args) => store::run_append(&context, &args),
        Command::Prepend(args) => store::run_prepend(&context, &args),
        Command::Cas(args) => store::run_cas(&context, &args),
        Command::Incr(args) => arith::run_incr(&context, &args),
        Command::Decr(args) => arith::run_decr(&context, &args),
        Command::Touch(args) => touch::run(&context, &args),
        Command::Delete(args) => delete::run(&context, &args),
        Command::FlushAll(args) => flush_all::run(&context, &args),
        Command::Scan(args) => scan::run(&context, &args),
        Command::Stats(args) => stats::run(&context, &args),
        Command::Dump(args) => dump::run(&context, &args),
        Command::Load(args) => load::run(&context, &args),
        Command::Check(args) => check::run(&context, &args),
        Command::Reap(args) => reap::run(&context, &args),
        Command::Sweep(args) => sweep::run(&context, &args),
        Command::Doctor(args) => doctor::run(&context, &args, caller),
        Command::Run(_) => unreachable!("done above"),
        Command::Demo(args) => demo::run(&context, &args),
        Command::DemoWorker(args) => demo::run_worker(&args),
    }
}
