//! Attacks on a guarded heap: each is first shown to succeed where nothing guards, then to fail.
//!
//! Needs a machine with protection keys: `scripts/protection-test isolation` runs it in emulated ones, under each kernel, one test
//! at a time (keys, and what lies behind them, are the process's).
#![cfg(not(loom))]
#![allow(missing_docs, reason = "a test")]
#![allow(clashing_extern_declarations, reason = "what is a pointer in plib.h is a number to put there in an attack")]

#[path = "isolation/deputy.rs"]
mod deputy;
#[path = "isolation/direct.rs"]
mod direct;
#[path = "isolation/ground.rs"]
mod ground;
#[path = "isolation/jumps.rs"]
mod jumps;
#[path = "isolation/life.rs"]
mod life;
#[path = "isolation/races.rs"]
mod races;
#[path = "isolation/readable.rs"]
mod readable;
#[path = "isolation/refusals.rs"]
mod refusals;
#[path = "isolation/registers.rs"]
mod registers;
#[allow(dead_code, reason = "shared with plib-core's tests")]
#[path = "../../plib-core/tests/protection/stage.rs"]
mod stage;
mod support;

#[test]
#[ignore = "entry point of the child processes"]
fn child() {
    support::child::enter(&[
        (direct::ROLE, direct::attack),
        (life::ROLE, life::use_after_exec),
        (refusals::ROLE, refusals::meet),
        (readable::ROLE, readable::older_thread),
    ]);
}
