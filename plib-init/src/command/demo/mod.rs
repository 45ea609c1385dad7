//! `plib demo`: real processes share a heap, one is killed in the middle of writing, nothing is lost.
//!
//! The parent makes a heap and starts children of its own program. They obey one-line orders on stdin and answer
//! with one line of JSON on stdout ([`worker`]); what they read and write goes through the heap alone.

mod data;
mod team;
mod worker;

use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use clap::Args;
use plib::{Cache, CreateOptions};
use serde::Serialize;

use crate::context::Context;
use crate::error::{CliError, ExitKind};
use crate::output::Paint;
use team::Team;
pub(crate) use worker::{WorkerArgs, run_worker};

const EXAMPLES: &str = "\
Examples:
  plib demo
  plib demo --processes 6 --items 50000
  plib demo --json

Takes a few seconds; the heap is temporary. Exit code 0: every value was right; 1: one was not, or the check had findings.";

/// How long all write at once; the kill comes in the middle.
const CHURN: Duration = Duration::from_millis(1200);

/// The arguments of `plib demo`.
#[derive(Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct DemoArgs {
    /// Child processes
    #[arg(short, long, default_value_t = 3, value_parser = clap::value_parser!(u32).range(2..=64))]
    processes: u32,
    /// Items that each of them writes
    #[arg(short, long, default_value_t = 20_000, value_parser = clap::value_parser!(u64).range(1..=10_000_000))]
    items: u64,
}

/// What happened.
#[derive(Default, Serialize)]
struct Story {
    processes: u32,
    heap_size: u64,
    items_written: u64,
    set_ns: u64,
    items_read: u64,
    get_ns: u64,
    missing: u64,
    wrong: u64,
    killed_pid: u32,
    writes_before_kill: u64,
    writes_after_kill: u64,
    longest_wait_ms: f64,
    items_of_killed: u64,
    items_of_killed_found: u64,
    recovered_contexts: u32,
    items: u64,
    findings: usize,
    seconds: f64,
}

impl Story {
    /// Whether everything was as promised.
    fn good(&self) -> bool {
        self.missing == 0 && self.wrong == 0 && self.findings == 0 && self.items_of_killed == self.items_of_killed_found
    }
}

/// Room for all items several times over, so that none has to be evicted.
fn heap_size(args: &DemoArgs) -> u64 {
    let items = u64::from(args.processes) * args.items + data::SHARED_KEYS;
    (items * (data::LONGEST as u64 + 128) * 2 + (64 << 20)).next_multiple_of(1 << 20)
}

/// A name that no heap has, in memory where possible.
fn temporary_path() -> PathBuf {
    let name = format!("plib-demo-{}.heap", std::process::id());
    let shm = Path::new("/dev/shm").join(&name);
    let usable = std::fs::File::create_new(&shm).is_ok() && std::fs::remove_file(&shm).is_ok();
    if usable { shm } else { std::env::temp_dir().join(name) }
}

/// The heap's file; removed when this goes out of scope, whatever went wrong.
struct TemporaryHeap {
    cache: Cache,
    path: PathBuf,
}

impl TemporaryHeap {
    fn create(size: u64) -> Result<Self, CliError> {
        let path = temporary_path();
        let cache = Cache::create(&path, &CreateOptions::new(size).mode(0o600))?;
        Ok(Self { cache, path })
    }

    /// Takes the name away; those who have it open keep it, and nothing is left behind even if all of us are killed.
    fn unname(&self) {
        // Gone already is as good.
        let _ = Cache::destroy(&self.path);
    }
}

impl Drop for TemporaryHeap {
    fn drop(&mut self) {
        self.unname();
    }
}

/// Plays the demo and tells what happened.
pub(crate) fn run(context: &Context, args: &DemoArgs) -> Result<ExitKind, CliError> {
    let start = Instant::now();
    let heap = TemporaryHeap::create(heap_size(args))?;
    let team = Team::start(&heap.path, args.processes)?;
    heap.unname();
    let mut story = Story { processes: args.processes, heap_size: heap.cache.info().size, ..Story::default() };
    play(&heap.cache, team, args, &mut story)?;
    story.seconds = start.elapsed().as_secs_f64();
    context.output.answer(&story, |w, paint| write(w, paint, &story))?;
    Ok(if story.good() { ExitKind::Done } else { ExitKind::No })
}

fn play(cache: &Cache, mut team: Team, args: &DemoArgs, story: &mut Story) -> Result<(), CliError> {
    let written = team.all(&format!("write {}", args.items))?;
    story.items_written = written.iter().map(|r| r.operations).sum();
    story.set_ns = typical_ns(&written);

    let read = team.all(&format!("read {} {}", args.processes, args.items))?;
    story.items_read = read.iter().map(|r| r.operations).sum();
    story.get_ns = typical_ns(&read);
    count_faults(&read, story);

    let order = format!("churn {}", CHURN.as_millis());
    team.tell(&order)?;
    std::thread::sleep(CHURN / 2);
    story.killed_pid = team.kill_one()?;
    let churned = team.answers()?;
    story.writes_before_kill = churned.iter().map(|r| r.first_half).sum();
    story.writes_after_kill = churned.iter().map(|r| r.operations - r.first_half).sum();
    story.longest_wait_ms = churned.iter().map(|r| r.longest_ns).max().unwrap_or(0) as f64 / 1e6;
    count_faults(&churned, story);

    let victim = team.victim();
    let theirs = worker::read_items(cache, victim..victim + 1, args.items)?;
    story.items_of_killed = args.items;
    story.items_of_killed_found = theirs.operations - theirs.missing;
    story.wrong += theirs.wrong;
    team.finish()?;
    story.recovered_contexts = cache.reap()?;
    let report = cache.check()?;
    story.findings = report.findings.len();
    story.items = cache.stats()?.curr_items;
    Ok(())
}

/// The median of the children's medians.
fn typical_ns(reports: &[worker::Report]) -> u64 {
    worker::median(reports.iter().map(|r| r.median_ns).collect())
}

fn count_faults(reports: &[worker::Report], story: &mut Story) {
    story.missing += reports.iter().map(|r| r.missing).sum::<u64>();
    story.wrong += reports.iter().map(|r| r.wrong).sum::<u64>();
}

fn write(w: &mut dyn Write, paint: Paint, s: &Story) -> io::Result<()> {
    let n = s.processes;
    let heap = crate::size::format(s.heap_size);
    writeln!(w, "{n} processes share a heap of {heap}; there is no server.")?;
    writeln!(w, "They wrote {} items; a set took {} ns (median).", s.items_written, s.set_ns)?;
    writeln!(
        w,
        "Each read the items of all, {} gets; a get took {} ns (median); {} missing, {} wrong.",
        s.items_read, s.get_ns, s.missing, s.wrong
    )?;
    let before = format!("Then all rewrote and read the same {} keys at once, and", data::SHARED_KEYS);
    writeln!(w, "{before} {} (pid {}).", paint.bad("one was killed with SIGKILL"), s.killed_pid)?;
    writeln!(
        w,
        "The others went on: {} writes before, {} in the same time after; the longest wait was {:.1} ms.",
        s.writes_before_kill, s.writes_after_kill, s.longest_wait_ms
    )?;
    writeln!(w, "Of the {} items of the dead process {} are there.", s.items_of_killed, s.items_of_killed_found)?;
    let verdict = if s.good() { paint.good("everything was right") } else { paint.bad("NOT everything was right") };
    writeln!(
        w,
        "Recovered {} op contexts of the dead; the check of {} items has {} findings: {verdict}. ({:.1} s, the heap is gone.)",
        s.recovered_contexts, s.items, s.findings, s.seconds
    )
}
