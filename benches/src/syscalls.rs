//! System calls on the fast path, counted by strace: a program runs each operation many times between two
//! calls of getppid, and whatever stands between these two in strace's record was made by the operation.

use std::{fs, path::PathBuf, process::Command};

use clap::Args;
use plib::{Cache, CreateOptions};
use serde::Serialize;

use crate::{
    cells::BATCH,
    failure::{Failure, Result},
    heap::Folder,
    key::{Key, key},
    op::{Actor, Op, Step},
    progress::Progress,
    settings::Settings,
    trips::InProcess,
};

/// Items of the traced program.
const KEYS: u64 = 1024;
/// The first counter's number.
const COUNTERS: u64 = 1 << 40;

/// The count of one operation.
#[derive(Clone, Debug, Serialize)]
pub struct Calls {
    /// The operation.
    pub operation: &'static str,
    /// How often it ran.
    pub operations: u64,
    /// System calls that it made, all together.
    pub system_calls: u64,
    /// The first of them, as strace shows it.
    pub first: Option<String>,
}

/// The command line of the traced program.
#[derive(Args, Debug)]
pub struct MarkedArguments {
    /// The path of the heap to create.
    #[arg(long)]
    heap: PathBuf,
    /// How often each operation runs.
    #[arg(long)]
    count: u64,
}

/// Runs the marked program under strace and counts.
pub fn measure(settings: &Settings, folder: &Folder, progress: &Progress) -> Result<Vec<Calls>> {
    progress.say("system calls: running every operation under strace");
    let program = std::env::current_exe().map_err(Failure::during("cannot find this program"))?;
    let record = folder.file("strace");
    let output = Command::new("strace")
        .args(["-f", "-qq", "-o"])
        .arg(&record)
        .arg(program)
        .arg("marked")
        .arg("--heap")
        .arg(folder.file("marked"))
        .args(["--count", &settings.marked_operations.to_string()])
        .output()
        .map_err(Failure::during("cannot run strace (scripts/setup installs it)"))?;
    if !output.status.success() {
        let message = String::from_utf8_lossy(&output.stderr);
        return Err(Failure::new(format!("strace or the traced program failed: {}", message.trim())));
    }
    let text = fs::read_to_string(&record).map_err(Failure::during(record.display()))?;
    count(&text, settings.marked_operations)
}

/// Reads strace's record: segments between marks are steps and operations in turn.
fn count(record: &str, operations: u64) -> Result<Vec<Calls>> {
    let mut segments: Vec<Vec<&str>> = vec![Vec::new()];
    for line in record.lines() {
        if line.contains("getppid(") {
            segments.push(Vec::new());
        } else if let Some(segment) = segments.last_mut() {
            segment.push(line);
        }
    }
    if segments.len() != 2 * Op::ALL.len() + 1 {
        let marks = segments.len() - 1;
        return Err(Failure::new(format!("strace saw {marks} marks instead of {}", 2 * Op::ALL.len())));
    }
    // Segment 0 is the start-up; then an operation, what lies between, an operation, ...
    let of_operations = segments.iter().skip(1).step_by(2);
    let calls = Op::ALL.iter().zip(of_operations).map(|(op, lines)| Calls {
        operation: op.name(),
        operations,
        system_calls: lines.len() as u64,
        first: lines.first().map(|&line| line.to_owned()),
    });
    Ok(calls.collect())
}

/// The program that strace runs.
pub fn run_marked(arguments: &MarkedArguments) -> Result<()> {
    let cache = Cache::create(&arguments.heap, &CreateOptions::new(64 << 20))?;
    let mut actor = InProcess::new(&cache);
    let rounds = arguments.count.div_ceil(KEYS);
    for op in Op::ALL {
        let first = if op.counts() { COUNTERS } else { 0 };
        let items: Vec<u64> = (first..first + KEYS).collect();
        let keys: Vec<Key> = items.iter().map(|&item| key(item)).collect();
        for (&item, key) in items.iter().zip(&keys) {
            if op.counts() { actor.set_counter(key)? } else { actor.step(Step::Set, item, key)? }
        }
        mark();
        for _ in 0..rounds {
            all(&mut actor, op, &items, &keys)?;
        }
        mark();
    }
    Ok(())
}

/// The operation on all items. What must be done before and after it is an operation too and may as well be
/// watched: put-backs stay between the marks.
fn all(actor: &mut InProcess<'_>, op: Op, items: &[u64], keys: &[Key]) -> Result<()> {
    if op == Op::Batch {
        let mut batches = items.chunks_exact(BATCH).zip(keys.chunks_exact(BATCH));
        return batches.try_for_each(|(items, keys)| actor.batch(items, keys));
    }
    for (&item, key) in items.iter().zip(keys) {
        actor.step(op.before(), item, key)?;
        actor.one(op, item, key)?;
        actor.step(op.after(), item, key)?;
    }
    Ok(())
}

/// A system call that nothing else makes here.
fn mark() {
    // SAFETY: takes nothing, changes nothing and cannot fail.
    unsafe { libc::getppid() };
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn calls_between_marks_are_counted_for_the_right_operation() {
        let mut record = String::from("1 execve(...) = 0\n");
        for op in Op::ALL {
            record += "1 getppid() = 7\n";
            if op == Op::Delete {
                record += "1 futex(...) = 0\n1 futex(...) = 0\n";
            }
            record += "1 getppid() = 7\n1 brk(0) = 0\n";
        }
        let calls = count(&record, 10).expect("all marks are there");
        let of = |op: Op| calls.iter().find(|calls| calls.operation == op.name()).map(|calls| calls.system_calls);
        assert_eq!(of(Op::Delete), Some(2));
        assert_eq!(of(Op::Get), Some(0));
    }

    #[test]
    fn a_record_without_all_marks_is_refused() {
        assert!(count("1 getppid() = 7\n", 10).is_err());
    }
}
