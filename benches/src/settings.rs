//! What to measure and how long, as the command line says it.

use std::path::PathBuf;

use clap::{Parser, Subcommand, ValueEnum};
use serde::Serialize;

/// Measures plib beside memcached and quick_cache, all in one run on this machine.
#[derive(Parser, Debug)]
#[command(
    version,
    after_help = "\
Examples:
  plib-bench                                  everything, 1 thousand and 8 million items (under 10 minutes)
  plib-bench --quick                          everything in small, to see that all works (under a minute)
  plib-bench --only cells --items 1000000     in process, beside quick_cache, at one size
  plib-bench --only trips                     each operation beside memcached over unix socket and TCP
  plib-bench --json > figures.json            the same figures for programs

memcached and strace must be installed (scripts/setup does that). Heaps are made in $PLIB_DIR, or in /dev/shm,
and removed at the end.

Exit status: 0 all was measured, 1 something could not be measured or gave a wrong result, 2 wrong arguments;
with --strict also 3, where a target was missed."
)]
pub struct Arguments {
    /// Measure only these parts.
    #[arg(long, value_enum, value_delimiter = ',', global = true)]
    pub only: Vec<Part>,
    /// Items in the in-process measurements; may be given several times [default: 1000 8000000].
    #[arg(long, value_delimiter = ',', value_parser = clap::value_parser!(u64).range(1000..=100_000_000))]
    pub items: Vec<u64>,
    /// Measure only these operations in process: get, batch, set, replace, delete, incr.
    #[arg(long, value_delimiter = ',', value_parser = ["get", "batch", "set", "replace", "delete", "incr"])]
    pub operation: Vec<String>,
    /// Few and short rounds, 200 thousand items instead of 8 million, a 64 MiB cache instead of 1 GiB.
    #[arg(long)]
    pub quick: bool,
    /// Ask for huge pages for plib's heap.
    #[arg(long)]
    pub huge: bool,
    /// Print JSON instead of tables.
    #[arg(long)]
    pub json: bool,
    /// Write the JSON to this file too.
    #[arg(long, value_name = "FILE")]
    pub save: Option<PathBuf>,
    /// Say nothing on the way.
    #[arg(long)]
    pub quiet: bool,
    /// Exit with status 3 where a target is missed.
    #[arg(long)]
    pub strict: bool,
    /// What the program starts of itself.
    #[command(subcommand)]
    pub role: Option<Role>,
}

/// A part of the measurements.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Part {
    /// One thread in process, beside quick_cache.
    Cells,
    /// Each operation beside memcached's round trip.
    Trips,
    /// Items that a cache of 1 GiB holds, beside memcached.
    Capacity,
    /// Two processes beside one.
    Processes,
    /// System calls on the fast path.
    Syscalls,
}

impl Part {
    /// All of them, in the order in which they run.
    pub const ALL: [Part; 5] = [Part::Cells, Part::Trips, Part::Capacity, Part::Processes, Part::Syscalls];
}

/// Processes that the program starts of itself; not for people.
#[derive(Subcommand, Debug)]
pub enum Role {
    /// Works on a heap when told to on standard input.
    #[command(hide = true)]
    Worker(crate::processes::WorkerArguments),
    /// Runs each operation between markers, under strace.
    #[command(hide = true)]
    Marked(crate::syscalls::MarkedArguments),
}

/// How much is measured.
#[derive(Clone, Debug, Serialize)]
pub struct Settings {
    /// The parts to measure.
    pub parts: Vec<Part>,
    /// Items in the in-process measurements.
    pub items: Vec<u64>,
    /// The operations to measure in process; all, if none is named.
    pub operations: Vec<String>,
    /// Rounds of each peer.
    pub rounds: usize,
    /// Seconds of one round.
    pub round_seconds: f64,
    /// Round trips of each operation and round.
    pub trips: usize,
    /// Bytes of the caches whose items are counted.
    pub capacity_bytes: u64,
    /// Items that the processes share.
    pub shared_items: u64,
    /// Operations of each kind under strace.
    pub marked_operations: u64,
    /// Huge pages were asked for.
    pub huge: bool,
    /// Everything in small.
    pub quick: bool,
}

impl Settings {
    /// The settings that the arguments mean.
    pub fn of(arguments: &Arguments) -> Self {
        let quick = arguments.quick;
        let items = match (arguments.items.as_slice(), quick) {
            ([], false) => vec![1000, 8_000_000],
            ([], true) => vec![1000, 200_000],
            (given, _) => given.to_vec(),
        };
        let parts = if arguments.only.is_empty() { Part::ALL.to_vec() } else { arguments.only.clone() };
        Self {
            parts,
            items,
            operations: arguments.operation.clone(),
            rounds: if quick { 3 } else { 7 },
            round_seconds: if quick { 0.05 } else { 0.3 },
            trips: if quick { 1000 } else { 12_000 },
            capacity_bytes: if quick { 64 << 20 } else { 1 << 30 },
            shared_items: if quick { 100_000 } else { 1_000_000 },
            marked_operations: if quick { 10_000 } else { 100_000 },
            huge: arguments.huge,
            quick,
        }
    }

    /// Whether an operation is measured in process.
    pub fn measures(&self, operation: &str) -> bool {
        self.operations.is_empty() || self.operations.iter().any(|wanted| wanted == operation)
    }
}
