//! What the tests share: heaps of their own, child processes, checksummed values, journals, fronts.

// Each test file is a program of its own and uses a part of this.
#![allow(dead_code)]

pub mod child;
pub mod fork;
pub mod front;
pub mod heap;
pub mod journal;
pub mod namespace;
pub mod page;
pub mod plan;
pub mod record;
pub mod recorder;
pub mod rng;
pub mod stopped;
pub mod tracer;

/// Whether the long variants were asked for (`PLIB_EXHAUSTIVE=1`); CI runs sampled ones.
pub fn exhaustive() -> bool {
    std::env::var_os("PLIB_EXHAUSTIVE").is_some_and(|v| v == "1")
}

/// A count for CI, or the one of the exhaustive variant.
pub fn scaled(sampled: u64, exhaustive_count: u64) -> u64 {
    if exhaustive() { exhaustive_count } else { sampled }
}

/// Waits until `done` says so; a test that waits longer than `seconds` fails by name.
pub fn wait_until(what: &str, seconds: u64, mut done: impl FnMut() -> bool) {
    let start = std::time::Instant::now();
    while !done() {
        assert!(start.elapsed().as_secs() < seconds, "{what}: not within {seconds} s");
        std::thread::sleep(std::time::Duration::from_millis(1));
    }
}

/// Says what was done, past the capture of test output, so that an empty test is seen.
pub fn report(text: std::fmt::Arguments<'_>) {
    use std::io::Write;
    let _ = writeln!(std::io::stderr(), "    {text}");
}
