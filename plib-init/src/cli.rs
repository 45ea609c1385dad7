//! The arguments.

use std::ffi::OsString;

use clap::{Args, Parser, Subcommand};

use crate::command;

const ABOUT: &str = "A memcached-like cache that processes on one machine share by running its code themselves";

const LONG_HELP: &str = "\
Names: a heap is a file. A name without '/' is looked up in $PLIB_DIR (default /dev/shm/plib), a name with '/' is a path.
Sizes: bytes, or a number with k, m, g or t (powers of 1024): 512k, 1g, 1.5GiB.
Expiry: as in memcached (0 never, up to 30 days in seconds from now, larger a Unix time, negative already expired),
or `never`, or a span: 90s, 10m, 2h, 45d.

Exit codes: 0 done; 1 the answer is no (not found, not stored, changed by someone else, findings of a check);
2 wrong arguments; 3 the heap cannot be opened; 4 another error; 5 the dump given to load is damaged;
141 whoever read the output went away. `plib run` ends as its program does, or with 125 to 127 (`plib run --help`).

Environment: PLIB_HEAP (the heap where --heap is not given), PLIB_DIR, PLIB_ISOLATION, NO_COLOR.

Examples:
  plib create demo --size 1g
  export PLIB_HEAP=demo
  plib set greeting hello
  plib get greeting
  plib stats
  plib demo";

/// All arguments.
#[derive(Parser)]
#[command(name = "plib", version, about = ABOUT, after_help = LONG_HELP, subcommand_required = true, arg_required_else_help = true)]
pub(crate) struct Cli {
    #[command(flatten)]
    pub(crate) common: Common,
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// What every command takes.
#[derive(Args)]
pub(crate) struct Common {
    /// The heap: a name, or a path if it contains '/'
    #[arg(short = 'H', long, global = true, env = "PLIB_HEAP", hide_env_values = true, value_name = "NAME")]
    pub(crate) heap: Option<OsString>,
    /// Answer with one JSON document on stdout, errors as JSON on stderr
    #[arg(long, global = true)]
    pub(crate) json: bool,
}

/// The commands, in the order in which help shows them.
#[derive(Subcommand)]
pub(crate) enum Command {
    /// Make a heap
    Create(command::create::CreateArgs),
    /// Show what a heap is: size, limits, owner, pages, isolation
    Info(command::info::InfoArgs),
    /// List the heaps in $PLIB_DIR
    List(command::list::ListArgs),
    /// Remove a heap and everything in it
    Destroy(command::destroy::DestroyArgs),
    /// Start a program with heaps that it cannot open itself
    Run(command::run::RunArgs),
    /// Get one value
    Get(command::get::GetArgs),
    /// Get many values at once
    Mget(command::mget::MgetArgs),
    /// Get one value and give it a new expiry
    Gat(command::get::GatArgs),
    /// Store a value, whether the key exists or not
    Set(command::store::SetArgs),
    /// Store a value if the key does not exist
    Add(command::store::AddArgs),
    /// Store a value if the key exists
    Replace(command::store::ReplaceArgs),
    /// Put bytes after an existing value
    Append(command::store::AppendArgs),
    /// Put bytes before an existing value
    Prepend(command::store::PrependArgs),
    /// Store a value if the item still has a given cas value
    Cas(command::store::CasArgs),
    /// Add to a number
    Incr(command::arith::IncrArgs),
    /// Subtract from a number, not below 0
    Decr(command::arith::DecrArgs),
    /// Give an item a new expiry
    Touch(command::touch::TouchArgs),
    /// Delete items
    Delete(command::delete::DeleteArgs),
    /// Make every item that is there now expire
    FlushAll(command::flush_all::FlushAllArgs),
    /// Go through all items
    Scan(command::scan::ScanArgs),
    /// Show counters, size classes, sizes of items or clients
    Stats(command::stats::StatsArgs),
    /// Save all items to a file
    Dump(command::dump::DumpArgs),
    /// Store the items of a dump
    Load(command::load::LoadArgs),
    /// Check every invariant of a heap (fsck)
    Check(command::check::CheckArgs),
    /// Take back what dead clients held
    Reap(command::reap::ReapArgs),
    /// Take back what dead clients held, and report or kill frozen ones
    Sweep(command::sweep::SweepArgs),
    /// Show what this machine offers and what to change
    Doctor(command::doctor::DoctorArgs),
    /// Show plib at work: processes share a heap, one is killed, nothing is lost
    Demo(command::demo::DemoArgs),
    /// A child process of `plib demo`
    #[command(hide = true)]
    DemoWorker(command::demo::WorkerArgs),
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    #[test]
    fn the_arguments_are_consistent() {
        super::Cli::command().debug_assert();
    }

    #[test]
    fn every_command_shows_examples() {
        for command in super::Cli::command().get_subcommands().filter(|c| !c.is_hide_set()) {
            let help = command.get_after_help().map(ToString::to_string).unwrap_or_default();
            assert!(help.contains("plib "), "`plib {} --help` has no example", command.get_name());
        }
    }
}
