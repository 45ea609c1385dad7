//! `plib-crash`: kills and stops processes after each instruction of each operation, and looks whether the others go on.
//!
//! | module | what it holds |
//! | --- | --- |
//! | `tracee`, `arena` | a child that is run one instruction at a time, and its memory |
//! | `route` | an operation's instructions, and how to come to the n-th |
//! | `image` | a heap's bytes, to begin each try alike |
//! | `stage`, `scenario` | heaps, keys and operations |
//! | `facts`, `survivor` | what must be so, and what must work, after each death |
//! | `death`, `recovery`, `freeze` | killing, killing who recovers, stopping |
//! | `unit`, `team`, `report` | the work in pieces, in processes, in figures |
//! | `mutant` | planted bugs that must be found |

mod arena;
mod death;
mod facts;
mod freeze;
mod image;
mod mutant;
mod recovery;
mod report;
mod route;
mod scenario;
mod stage;
mod survivor;
mod team;
mod tracee;
mod unit;

use clap::{Args, Parser, Subcommand};
use death::Deaths;
use indicatif::{ProgressBar, ProgressStyle};
use nix::sched::{CpuSet, sched_setaffinity};
use nix::unistd::{Pid, alarm};
use report::{Report, Totals};
use std::io::{self, Write};
use std::process::ExitCode;
use team::{Manner, Told};
use unit::{Deed, Unit};

const EXAMPLES: &str = "\
Examples:
  plib-crash run                          every operation, after every instruction; half an hour on 2 cores
  plib-crash run --every 50               after every 50th
  plib-crash run --only kill:set-large    one unit; --only stop: runs all whose names begin so
  plib-crash run --json > deaths.json     for programs
  plib-crash list                         the units

Exit status: 0 nothing was wrong; 1 something was; 2 wrong arguments.";

/// Kills and stops processes after each instruction of each operation, and looks whether the others go on
#[derive(Parser)]
#[command(version, after_help = EXAMPLES)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Runs units
    Run(Run),
    /// Lists the units
    List,
    /// Counts the instructions of each operation, from the call to its return
    Count(Run),
    /// Runs with bugs planted one after the other, and says which are found (a build with --features mutants)
    Mutants(Run),
    /// Runs one unit in this process
    #[command(hide = true)]
    Worker(Worker),
}

#[derive(Args, Clone)]
struct Run {
    /// Only units whose names begin so; several with commas
    #[arg(long, value_delimiter = ',', value_name = "UNIT")]
    only: Vec<String>,
    /// Kill or stop only after every N-th instruction
    #[arg(long, default_value_t = 1, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    every: u32,
    /// From how many states of each operation recovery is killed
    #[arg(long, default_value_t = 2, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    firsts: u32,
    /// Processes at a time; default one a processor
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    jobs: Option<u32>,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

#[derive(Args)]
struct Worker {
    unit: String,
    #[arg(long)]
    every: usize,
    #[arg(long)]
    firsts: usize,
    #[arg(long)]
    cpu: usize,
    #[arg(long)]
    folder: std::path::PathBuf,
}

/// Seconds without progress after which a worker is taken for hung.
const HUNG: u32 = 60;

fn main() -> ExitCode {
    match Cli::parse().command {
        Command::Run(run) => done(run.all()),
        Command::List => {
            Unit::all().iter().for_each(|unit| println!("{:34} {}", unit.to_string(), unit.scenario.about));
            ExitCode::SUCCESS
        }
        Command::Count(run) => done(run.count()),
        Command::Mutants(run) => done(mutant::hunt(run.manner())),
        Command::Worker(worker) => done(worker.work()),
    }
}

fn done(outcome: Result<bool, String>) -> ExitCode {
    match outcome {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(e) => {
            eprintln!("plib-crash: {e}");
            ExitCode::from(2)
        }
    }
}

impl Run {
    fn manner(&self) -> Manner {
        let cpus = std::thread::available_parallelism().map_or(1, |n| n.get());
        Manner {
            jobs: self.jobs.map_or(cpus, |n| n as usize),
            every: self.every as usize,
            firsts: self.firsts as usize,
        }
    }

    fn units(&self) -> Result<Vec<Unit>, String> {
        let wanted = |unit: &Unit| {
            let name = unit.to_string();
            self.only.is_empty() || self.only.iter().any(|only| name.starts_with(only.as_str()))
        };
        let units: Vec<_> = Unit::all().into_iter().filter(wanted).collect();
        if units.is_empty() {
            return Err(format!("no unit's name begins with {}; see plib-crash list", self.only.join(" or ")));
        }
        Ok(units)
    }

    fn all(&self) -> Result<bool, String> {
        let units = self.units()?;
        let bar = ProgressBar::new(units.len() as u64);
        let style = ProgressStyle::with_template("{bar:30} {pos}/{len} units, {elapsed}  {msg}");
        bar.set_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()));
        let mut out = io::stdout();
        let io = |e: io::Error| format!("cannot write: {e}");
        if !self.json {
            report::head(&mut out).map_err(io)?;
        }
        let reports = team::run(units, self.manner(), |unit, told| match told {
            Told::Progress(done, of) => bar.set_message(format!("{unit} {done}/{of}")),
            Told::Done(report) => {
                bar.inc(1);
                if !self.json {
                    bar.suspend(|| drop(report::line(&mut io::stdout(), report)));
                }
            }
        });
        bar.finish_and_clear();
        let totals = Totals::of(&reports);
        match self.json {
            true => serde_json::to_writer_pretty(&mut out, &(&totals, &reports)).map_err(|e| e.to_string())?,
            false => writeln!(out, "{}", totals.sentence()).map_err(io)?,
        }
        Ok(totals.failed == 0 && reports.iter().all(Report::did_something))
    }
}

impl Run {
    /// Steps through each wanted operation once.
    fn count(&self) -> Result<bool, String> {
        let mut counts = Vec::new();
        for unit in self.units()?.iter().filter(|unit| unit.deed == Deed::Kill) {
            let folder = scratch()?;
            let route = Deaths::new(unit.scenario, folder.path())?.route()?;
            let rounds = (0..route.len()).filter(|n| route.is_round(*n)).count();
            counts.push((unit.scenario.name, route.len() - rounds));
        }
        if self.json {
            let counts: std::collections::BTreeMap<_, _> = counts.into_iter().collect();
            println!("{}", serde_json::to_string_pretty(&counts).map_err(|e| e.to_string())?);
        } else {
            println!("{:24} instructions, a string instruction counted once", "operation");
            counts.iter().for_each(|(name, count)| println!("{name:24} {count:>7}"));
        }
        Ok(true)
    }
}

impl Report {
    fn did_something(&self) -> bool {
        self.points > 0
    }
}

/// A folder for heaps: in `$PLIB_DIR`, or in memory if there is such a place.
fn scratch() -> Result<tempfile::TempDir, String> {
    let memory = std::path::PathBuf::from("/dev/shm");
    let usual = if memory.is_dir() { memory } else { std::env::temp_dir() };
    let place = std::env::var_os("PLIB_DIR").map_or(usual, Into::into);
    let folder = tempfile::Builder::new().prefix("plib-crash-").tempdir_in(&place);
    folder.map_err(|e| format!("cannot make a folder in {}: {e}", place.display()))
}

impl Worker {
    fn work(&self) -> Result<bool, String> {
        let unit = Unit::named(&self.unit).ok_or_else(|| format!("no unit {}", self.unit))?;
        // Stepping is quickest when tracer and child share a processor.
        let mut set = CpuSet::new();
        let cpus = std::thread::available_parallelism().map_or(1, |n| n.get());
        let _ = set.set(self.cpu % cpus).and_then(|()| sched_setaffinity(Pid::from_raw(0), &set));
        alarm::set(HUNG);
        let report = unit.run(&self.folder, self.every, self.firsts, |done, of| {
            alarm::set(HUNG);
            if done % 64 == 0 {
                Told::Progress(done, of).send();
            }
        });
        alarm::cancel();
        Told::Done(Box::new(report)).send();
        Ok(true)
    }
}
