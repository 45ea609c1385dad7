//! The machine's own latency: loads of which each waits for the one before it.

use std::{hint::black_box, ptr};

use serde::Serialize;

use crate::{machine::Work, order::Order, rounds::Rounds};

/// Bytes between two loads: about what an item takes.
const STEP: usize = 192;

/// Nanoseconds a dependent load takes, over as many places as there are items.
#[derive(Clone, Debug, Serialize)]
pub struct Chase {
    /// In pages of 4 KiB.
    pub small_pages_ns: f64,
    /// In pages of 2 MiB, where the kernel gives them.
    pub huge_pages_ns: Option<f64>,
}

impl Chase {
    /// Measures with as many places as there are items.
    pub fn measure(items: u64, rounds: usize) -> Self {
        Self {
            small_pages_ns: walk(items, rounds, libc::MADV_NOHUGEPAGE).unwrap_or(f64::NAN),
            huge_pages_ns: walk(items, rounds, libc::MADV_HUGEPAGE),
        }
    }
}

/// Links all places to one ring in random order and follows it.
fn walk(items: u64, rounds: usize, advice: i32) -> Option<f64> {
    let arena = Arena::new(items as usize * STEP, advice)?;
    let place = |item: u64| arena.0.wrapping_add(item as usize * STEP).cast::<u64>();
    let mut order = Order::new(0, items, 1);
    let first = order.next_item();
    let mut at = first;
    for _ in 1..items {
        let next = order.next_item();
        // SAFETY: items are below the count the arena was made for, and STEP keeps the word aligned.
        unsafe { place(at).write(next) };
        at = next;
    }
    // SAFETY: as above; this closes the ring.
    unsafe { place(at).write(first) };
    let steps = 1_000_000;
    let samples = (0..rounds).map(|_| {
        let work = Work::start();
        for _ in 0..steps {
            // SAFETY: the ring only holds numbers of places in the arena.
            at = unsafe { place(at).read_volatile() };
        }
        black_box(at);
        work.seconds() * 1e9 / f64::from(steps)
    });
    Some(Rounds::of(samples.collect()).median)
}

/// Anonymous memory with the pages that were asked for.
struct Arena(*mut u8, usize);

impl Arena {
    fn new(len: usize, advice: i32) -> Option<Self> {
        let len = len.next_multiple_of(2 << 20);
        let (protection, flags) = (libc::PROT_READ | libc::PROT_WRITE, libc::MAP_PRIVATE | libc::MAP_ANONYMOUS);
        // SAFETY: a fresh anonymous mapping disturbs nothing.
        let base = unsafe { libc::mmap(ptr::null_mut(), len, protection, flags, -1, 0) };
        if base == libc::MAP_FAILED {
            return None;
        }
        let arena = Self(base.cast(), len);
        // SAFETY: the mapping is ours, of that length, and not yet touched.
        (unsafe { libc::madvise(base, len, advice) } == 0).then_some(arena)
    }
}

impl Drop for Arena {
    fn drop(&mut self) {
        // SAFETY: the mapping is ours and nothing points into it any more.
        unsafe { libc::munmap(self.0.cast(), self.1) };
    }
}
