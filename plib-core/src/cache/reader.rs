//! Who reads: an operation, which writes down in the heap what it counts and which items it used; or a visitor outside of the
//! gate, which can write nothing there but its hazards (see `gate/visit`). How they read is the same.

use super::*;
use crate::hazard::Hazards;
use crate::stats::Counter;

/// What reading asks of a reader.
pub(crate) trait Reader {
    /// The heap that it reads.
    fn heap(&self) -> &Heap;
    /// The present.
    fn times(&self) -> Times<'_>;
    /// Its hazards.
    fn hazards(&self) -> &Hazards;
    /// Whether every reader of its process is covered by `membarrier`.
    fn barrier(&self) -> bool;
    /// Counts something.
    fn count(&self, counter: Counter, n: u64);
    /// Has an item marked as read, from the validated `seen`.
    fn mark(&self, block: Block, seen: Meta);
    /// What becomes of an item that is there and dead.
    fn bury(&self, life: Life) -> Status;
    /// Locks the bucket first, as a planted bug has it.
    fn lock_first(&self, _: Hash) -> Result<(), Status> {
        Ok(())
    }
}

/// The ways to read, for a reader.
pub(crate) struct Reading<'r, R>(pub &'r R);

impl<R> Clone for Reading<'_, R> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<R> Copy for Reading<'_, R> {}

impl<'r, R: Reader> Reading<'r, R> {
    #[inline(always)]
    pub fn heap(self) -> &'r Heap {
        self.0.heap()
    }

    /// Announces that superblock `s` is being read. The caller then reloads what led it there.
    #[inline(always)]
    pub fn protect(self, which: usize, s: u32) {
        self.0.hazards().announce(which, s, self.0.barrier());
    }

    /// Ends what `protect` announced.
    #[inline]
    pub fn unprotect(self) {
        self.0.hazards().clear();
    }

    /// The same for a read that used only the first.
    #[inline(always)]
    pub fn unprotect_first(self) {
        self.0.hazards().clear_first();
    }
}

impl<'c> Op<'c> {
    /// The ways to read.
    #[inline(always)]
    pub fn reading(&self) -> Reading<'_, Self> {
        Reading(self)
    }
}

impl Reader for Op<'_> {
    #[inline(always)]
    fn heap(&self) -> &Heap {
        self.heap
    }

    #[inline(always)]
    fn times(&self) -> Times<'_> {
        Times::new(self.client)
    }

    #[inline(always)]
    fn hazards(&self) -> &Hazards {
        &self.context.hazards
    }

    #[inline(always)]
    fn barrier(&self) -> bool {
        self.client.barrier
    }

    #[inline(always)]
    fn count(&self, counter: Counter, n: u64) {
        Op::count(self, counter, n);
    }

    #[inline(always)]
    fn mark(&self, block: Block, seen: Meta) {
        block::mark(self.heap.meta(block), seen);
    }

    #[inline(always)]
    fn bury(&self, life: Life) -> Status {
        self.count(if life == Life::Expired { Counter::GetExpired } else { Counter::GetFlushed }, 1);
        self.count(Counter::GetMisses, 1);
        Status::NotFound
    }

    fn lock_first(&self, hash: Hash) -> Result<(), Status> {
        self.lock_key(hash)?.unlock();
        self.done();
        Ok(())
    }
}
