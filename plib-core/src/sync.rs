//! Atomics: the core's, or loom's under `--cfg loom`, so that the models run the shipped protocol code.

#[cfg(not(loom))]
pub use core::sync::atomic::{AtomicU32, AtomicU64, Ordering, compiler_fence, fence};

#[cfg(loom)]
pub use {
    loom::sync::atomic::{AtomicU32, Ordering, fence},
    model::AtomicU64,
};

/// loom has no compiler fence; the full fence is what the model stands in for `membarrier` with.
#[cfg(loom)]
pub fn compiler_fence(_: Ordering) {
    fence(Ordering::SeqCst);
}

/// A full fence for who has just done a read-modify-write: on x86 that was one, so nothing is left to do but to keep
/// the compiler from moving what follows.
#[inline]
pub fn fence_after_rmw() {
    if cfg!(all(target_arch = "x86_64", not(loom))) {
        compiler_fence(Ordering::SeqCst);
    } else {
        fence(Ordering::SeqCst);
    }
}

/// Hints to the processor that this is a spin loop.
#[inline]
pub fn relax() {
    #[cfg(not(loom))]
    core::hint::spin_loop();
    #[cfg(loom)]
    loom::thread::yield_now();
}

/// loom's atomics, with a remedy for what its search would leave out.
///
/// loom 0.7 remembers one last access of each word. When thread A loads a word, then B loads it and then stores to it,
/// the store is held against B's own load, and "B's store comes first" is never tried. So each word has a mark per thread:
/// a load touches the mark of its thread, a store those of all others that loaded. Marks carry no values.
#[cfg(loom)]
mod model {
    use super::Ordering;
    use core::cell::Cell;
    use loom::sync::atomic::{AtomicBool, AtomicU64 as Inner};
    use std::sync::atomic::AtomicU8;

    /// Threads of a model at most.
    const THREADS: usize = 4;

    loom::thread_local! {
        static ME: usize = NEXT.with(|next| next.replace((next.get() + 1) % THREADS));
    }
    std::thread_local! {
        static NEXT: Cell<usize> = const { Cell::new(0) };
    }

    /// A word of a model, with the methods of core's that the crate uses.
    #[derive(Debug)]
    pub struct AtomicU64 {
        word: Inner,
        loaded: AtomicU8,
        marks: [AtomicBool; THREADS],
    }

    #[allow(missing_docs, reason = "they are core's")]
    impl AtomicU64 {
        pub fn new(value: u64) -> Self {
            Self {
                word: Inner::new(value),
                loaded: AtomicU8::new(0),
                marks: core::array::from_fn(|_| AtomicBool::new(false)),
            }
        }

        fn loads(&self) {
            let me = ME.with(|me| *me);
            self.loaded.fetch_or(1 << me, Ordering::Relaxed);
            if let Some(mark) = self.marks.get(me) {
                mark.store(true, Ordering::Relaxed);
            }
        }

        fn stores(&self) {
            let me = ME.with(|me| *me);
            let loaded = self.loaded.load(Ordering::Relaxed) & !(1 << me);
            for (_, mark) in self.marks.iter().enumerate().filter(|(i, _)| loaded >> i & 1 == 1) {
                mark.store(true, Ordering::Relaxed);
            }
        }

        pub fn load(&self, order: Ordering) -> u64 {
            self.loads();
            self.word.load(order)
        }

        pub fn store(&self, value: u64, order: Ordering) {
            self.stores();
            self.word.store(value, order);
        }

        pub fn compare_exchange(&self, old: u64, new: u64, done: Ordering, failed: Ordering) -> Result<u64, u64> {
            self.stores();
            self.word.compare_exchange(old, new, done, failed)
        }

        pub fn fetch_add(&self, n: u64, order: Ordering) -> u64 {
            self.stores();
            self.word.fetch_add(n, order)
        }

        pub fn fetch_and(&self, bits: u64, order: Ordering) -> u64 {
            self.stores();
            self.word.fetch_and(bits, order)
        }

        pub fn fetch_or(&self, bits: u64, order: Ordering) -> u64 {
            self.stores();
            self.word.fetch_or(bits, order)
        }

        pub fn fetch_sub(&self, n: u64, order: Ordering) -> u64 {
            self.stores();
            self.word.fetch_sub(n, order)
        }

        pub fn swap(&self, value: u64, order: Ordering) -> u64 {
            self.stores();
            self.word.swap(value, order)
        }

        pub fn fetch_update(
            &self,
            done: Ordering,
            failed: Ordering,
            next: impl FnMut(u64) -> Option<u64>,
        ) -> Result<u64, u64> {
            self.stores();
            self.word.fetch_update(done, failed, next)
        }
    }
}
