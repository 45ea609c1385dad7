//! The `plib` command: creates, inspects, uses, checks, saves and destroys heaps.
//!
//! ```text
//! main -> run -> cli (arguments) -> command/* (one file a command) -> plib (the library)
//!                                       |-> output, table, progress   what the user sees
//!                                       |-> bytes, size, exptime, span, stop   what the user gives
//!                                       |-> archive                   the format of `plib dump`
//!                                       '-> run                       what `plib run` does with privileges
//! ```
//!
//! Every command answers in words or, with `--json`, as one JSON document. Exit codes are in [`ExitKind`].

mod archive;
mod bytes;
mod cli;
mod command;
mod context;
mod error;
mod exptime;
mod output;
mod owner;
mod progress;
#[doc(hidden)]
pub mod run;
mod size;
mod span;
mod stop;
mod table;
mod when;

use std::ffi::OsString;
use std::process::ExitCode;

use clap::Parser;

pub use error::ExitKind;
use run::caller::Caller;

/// Runs the command with these arguments (the first is the program's name) and says how the process should exit.
pub fn run(args: impl IntoIterator<Item = OsString>) -> ExitCode {
    let caller = match Caller::begin() {
        Ok(caller) => caller,
        Err(e) => return error::report(&e.into(), false),
    };
    refuse_large_files_by_error();
    let args: Vec<OsString> = args.into_iter().collect();
    let cli = match cli::Cli::try_parse_from(&args) {
        Ok(cli) => cli,
        Err(refused) => return error::report_refused_arguments(&refused, asks_for_json(&args)),
    };
    let json = cli.common.json;
    match command::run(cli, &caller) {
        Ok(kind) => kind.into(),
        Err(error) => error::report(&error, json),
    }
}

/// A file beyond the process's limit (RLIMIT_FSIZE) is then an error with a name, where the signal would end us without.
fn refuse_large_files_by_error() {
    // SAFETY: ignoring a signal installs no code; called once, before anything else runs.
    unsafe { libc::signal(libc::SIGXFSZ, libc::SIG_IGN) };
}

/// Whether `--json` was given; for arguments that could not be parsed.
fn asks_for_json(args: &[OsString]) -> bool {
    args.iter().skip(1).take_while(|a| *a != "--").any(|a| a == "--json")
}
