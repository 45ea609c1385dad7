//! Atomics: the core's, or loom's under `--cfg loom`, so that the models run the shipped protocol code.

#[cfg(not(loom))]
pub use core::sync::atomic::{AtomicU32, AtomicU64, Ordering, compiler_fence, fence};

#[cfg(loom)]
pub use loom::sync::atomic::{AtomicU32, AtomicU64, Ordering, fence};

/// loom has no compiler fence; the full fence is what the model stands in for `membarrier` with.
#[cfg(loom)]
pub fn compiler_fence(_: Ordering) {
    fence(Ordering::SeqCst);
}

/// Hints to the processor that this is a spin loop.
#[inline]
pub fn relax() {
    #[cfg(not(loom))]
    core::hint::spin_loop();
    #[cfg(loom)]
    loom::thread::yield_now();
}
