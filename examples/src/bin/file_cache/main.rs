//! Caches real files: path -> content, shared by processes that are started separately.
//!
//! `file_cache run` does the whole job: a loader, then readers that compare every byte with the disk while
//! writers keep replacing, and a SIGKILL for one of them on the way; first in a heap that holds all files,
//! then in one a tenth of that size. The roles can also be started by hand, in different terminals.

mod failure;
mod files;
mod heaps;
mod job;
mod latency;
mod report;
mod role;
mod text;

use std::{path::PathBuf, process::ExitCode};

use clap::{Parser, Subcommand};

use failure::{Failure, Result};

/// Caches real files in a heap that several processes share.
#[derive(Parser)]
#[command(
    version,
    after_help = "\
Examples:
  file_cache run /usr/share /usr/include          the whole job, with 4 processes
  file_cache run --seconds 30 --json /usr/share   longer, figures for programs

  plib create files --size 2g --item-size-max 16m the same by hand, in several terminals:
  file_cache load  --heap files /usr/share
  file_cache read  --heap files /usr/share
  file_cache write --heap files /usr/share

Exit status: 0 all as it must be, 1 a wrong byte, a miss where none may be, or another failure, 2 wrong arguments."
)]
struct Arguments {
    /// Print JSON instead of text.
    #[arg(long, global = true)]
    json: bool,
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// The whole job: starts the roles below as processes of their own and kills one of them.
    Run(job::JobArguments),
    /// Stores every file.
    Load(role::RoleArguments),
    /// Reads items and compares them with the disk.
    Read(role::RoleArguments),
    /// Keeps replacing items with what is on the disk.
    Write(role::RoleArguments),
}

/// The folders whose files are cached.
#[derive(clap::Args, Clone)]
struct Folders {
    /// Folders whose regular files are cached.
    #[arg(required = true, value_name = "FOLDER")]
    folders: Vec<PathBuf>,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let json = arguments.json;
    let outcome = match &arguments.command {
        Command::Run(job) => job::run(job).and_then(|report| finish(json, &report, text::job(&report), report.good())),
        Command::Load(role) => role::load(role).and_then(|report| finish_role(json, &report)),
        Command::Read(role) => role::read(role).and_then(|report| finish_role(json, &report)),
        Command::Write(role) => role::write(role).and_then(|report| finish_role(json, &report)),
    };
    outcome.unwrap_or_else(|failure| {
        eprintln!("file_cache: {failure}");
        ExitCode::FAILURE
    })
}

fn finish_role(json: bool, report: &report::RoleReport) -> Result<ExitCode> {
    finish(json, report, text::roles(std::slice::from_ref(report)), report.wrong.is_empty())
}

fn finish(json: bool, report: &impl serde::Serialize, text: String, good: bool) -> Result<ExitCode> {
    if json {
        println!("{}", serde_json::to_string(report).map_err(Failure::during("cannot make JSON"))?);
    } else {
        print!("{text}");
    }
    Ok(if good { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
