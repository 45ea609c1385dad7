//! A child of the demo: reads orders, works on the heap, reports.

use std::ffi::OsString;
use std::io::{self, BufRead, Write};
use std::ops::Range;
use std::time::{Duration, Instant};

use clap::Args;
use plib::{Cache, Status};
use serde::{Deserialize, Serialize};

use super::data;
use crate::error::{CliError, ExitKind};

/// The arguments of a child.
#[derive(Args)]
pub(crate) struct WorkerArgs {
    /// The heap's path
    #[arg(long)]
    path: OsString,
    /// The child's number
    #[arg(long)]
    number: u32,
}

/// What one order came to.
#[derive(Clone, Copy, Default, Serialize, Deserialize)]
pub(super) struct Report {
    pub(super) operations: u64,
    /// Half of the operations took at most this long.
    pub(super) median_ns: u64,
    pub(super) missing: u64,
    pub(super) wrong: u64,
    /// Writes in the first half of a churn.
    pub(super) first_half: u64,
    pub(super) longest_ns: u64,
}

/// Opens the heap, says so, and obeys until the parent closes our stdin.
pub(crate) fn run_worker(args: &WorkerArgs) -> Result<ExitKind, CliError> {
    end_with_parent();
    let cache = Cache::open(&args.path)?;
    answer(&Report::default())?;
    for order in io::stdin().lock().lines() {
        let order = order.map_err(CliError::Output)?;
        answer(&obey(&cache, args.number, &order)?)?;
    }
    Ok(ExitKind::Done)
}

/// Has the kernel kill us when the demo is killed, however far the order at hand is.
fn end_with_parent() {
    // SAFETY: sets a number of this process and touches no memory. If it fails, the closed pipes still end us.
    unsafe { libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL) };
}

fn answer(report: &Report) -> Result<(), CliError> {
    let line = serde_json::to_string(report).map_err(|e| CliError::Output(e.into()))?;
    let mut stdout = io::stdout().lock();
    writeln!(stdout, "{line}").and_then(|()| stdout.flush()).map_err(CliError::Output)
}

fn obey(cache: &Cache, number: u32, order: &str) -> Result<Report, CliError> {
    let mut words = order.split(' ');
    let verb = words.next();
    let numbers: Vec<u64> = words.filter_map(|word| word.parse().ok()).collect();
    match (verb, numbers.as_slice()) {
        (Some("write"), [items]) => write_items(cache, number, *items),
        (Some("read"), [processes, items]) => read_items(cache, 0..*processes as u32, *items),
        (Some("churn"), [ms]) => churn(cache, number, Duration::from_millis(*ms)),
        _ => Err(CliError::Usage(format!("demo-worker: unknown order '{order}'"))),
    }
}

fn write_items(cache: &Cache, number: u32, items: u64) -> Result<Report, CliError> {
    let mut report = Report::default();
    let (mut value, mut times) = (Vec::new(), Vec::new());
    for item in 0..items {
        let key = data::own_key(number, item);
        data::make(&mut value, &key, item ^ u64::from(number) << 40);
        let start = Instant::now();
        cache.set(key.as_bytes(), &value, number, 0)?;
        times.push(nanoseconds(start));
        report.operations += 1;
    }
    report.median_ns = median(times);
    Ok(report)
}

/// Reads the items of the given processes and judges each.
pub(super) fn read_items(cache: &Cache, processes: Range<u32>, items: u64) -> Result<Report, CliError> {
    let mut report = Report::default();
    let (mut buffer, mut times) = (vec![0; data::LONGEST], Vec::new());
    for process in processes {
        for item in 0..items {
            let key = data::own_key(process, item);
            let start = Instant::now();
            let found = cache.get_into(key.as_bytes(), &mut buffer)?;
            times.push(nanoseconds(start));
            report.operations += 1;
            match found {
                None => report.missing += 1,
                Some(info) if info.flags != process || !data::right(&buffer[..info.value_len], &key) => {
                    report.wrong += 1
                }
                Some(_) => {}
            }
        }
    }
    report.median_ns = median(times);
    Ok(report)
}

/// Rewrites and reads the keys that all rewrite, for a while.
fn churn(cache: &Cache, number: u32, span: Duration) -> Result<Report, CliError> {
    let mut report = Report::default();
    let (mut value, mut buffer) = (Vec::new(), vec![0; data::LONGEST]);
    let begin = Instant::now();
    for turn in 0.. {
        let elapsed = begin.elapsed();
        if elapsed >= span {
            break;
        }
        let key = data::shared_key(turn * 7 + u64::from(number));
        data::make(&mut value, &key, turn);
        let start = Instant::now();
        write_patiently(cache, &key, &value)?;
        let read = cache.get_into(key.as_bytes(), &mut buffer)?;
        report.longest_ns = report.longest_ns.max(nanoseconds(start));
        match read {
            None => report.missing += 1,
            Some(info) if !data::right(&buffer[..info.value_len], &key) => report.wrong += 1,
            Some(_) => {}
        }
        report.operations += 1;
        report.first_half += u64::from(elapsed < span / 2);
    }
    Ok(report)
}

/// Busy is an answer that asks for another try.
fn write_patiently(cache: &Cache, key: &str, value: &[u8]) -> Result<(), CliError> {
    loop {
        match cache.set(key.as_bytes(), value, 0, 0) {
            Ok(_) => return Ok(()),
            Err(e) if e.status() == Status::Busy => std::thread::yield_now(),
            Err(e) => return Err(e.into()),
        }
    }
}

/// The median: the pauses of a busy machine say nothing of the operation.
pub(super) fn median(mut times: Vec<u64>) -> u64 {
    let middle = times.len() / 2;
    if times.is_empty() { 0 } else { *times.select_nth_unstable(middle).1 }
}

fn nanoseconds(start: Instant) -> u64 {
    u64::try_from(start.elapsed().as_nanos()).unwrap_or(u64::MAX)
}
