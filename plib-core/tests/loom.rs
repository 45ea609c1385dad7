//! Models of the lock-free protocols, searched exhaustively: `RUSTFLAGS='--cfg loom' cargo test -p plib-core --release --test loom`.
//!
//! Each model runs the shipped code (`index`, `heap::block`, `heap::hints`) over a few words. What the operations do around
//! it (`cache/read.rs`, `cache/store.rs`, `cache/lock.rs`, `claim.rs`, `evict.rs`) is written once more in `table` and
//! `hazard`, step for step, because a heap of loom's words cannot be mapped. Every model takes a broken variant of
//! such a step too, and a test shows that the search finds out: a model that cannot fail proves nothing.
//!
//! loom knows no total order of stores and RMWs as x86 has it, so what passes here leans on no more than the C11 orderings.
#![cfg(loom)]

#[path = "loom/block.rs"]
mod block;
#[path = "loom/chain.rs"]
mod chain;
#[path = "loom/hazard.rs"]
mod hazard;
#[path = "loom/hints.rs"]
mod hints;
#[path = "loom/lock.rs"]
mod lock;
#[path = "loom/publish.rs"]
mod publish;
#[path = "loom/split.rs"]
mod split;
#[path = "loom/table.rs"]
mod table;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// Runs `model` in every order of its threads' steps and with every value that a load may give; `preemptions` bounds how often
/// a thread is interrupted where it need not be (None: no bound). Says how many executions that were.
fn explore(preemptions: Option<usize>, model: impl Fn() + Send + Sync + 'static) {
    let start = std::time::Instant::now();
    let runs = Arc::new(AtomicUsize::new(0));
    let counter = Arc::clone(&runs);
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = preemptions;
    builder.max_branches = 20_000;
    builder.check(move || {
        counter.fetch_add(1, Ordering::Relaxed);
        model();
    });
    let runs = runs.load(Ordering::Relaxed);
    let thread = std::thread::current();
    println!("{}: {runs} executions in {:?}", thread.name().unwrap_or("model"), start.elapsed());
    assert!(runs > 1, "the threads of this model do not meet");
}
