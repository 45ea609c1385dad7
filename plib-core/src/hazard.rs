//! Hazards: which superblocks are being read, so that nobody cuts them anew meanwhile.
//!
//! Each op context has two lines of them. By the one in [`ContextMemory`] operations read and claim; in a readable heap that lies
//! behind the key as all else does. By the other, in a region of its own that the program may write, a thread reads outside of
//! the gate. Movers look at both, but believe the second only while the first says that there is such a reader.
//!
//! Nothing that is written to the heap depends on the second: who claims, marks or evicts does it inside, by the first.

use crate::client::ContextMemory;
use crate::heap::Heap;
use crate::sync::{AtomicU64, Ordering, compiler_fence, fence};

/// Hazards a line holds: the block (or head), and the fragment being read.
pub(crate) const HAZARDS: usize = 2;

/// 1 + the superblocks whose blocks are being read; 0 for none.
#[repr(C)]
pub(crate) struct Hazards([AtomicU64; HAZARDS]);

impl Hazards {
    /// Announces that superblock `s` is being read. The caller then reloads what led it there.
    #[inline(always)]
    pub fn announce(&self, which: usize, s: u32, barrier: bool) {
        if let Some(hazard) = self.0.get(which) {
            hazard.store(u64::from(s) + 1, Ordering::Release);
        }
        // The reload must not be moved before the store: `membarrier` on the other side makes a compiler fence enough.
        if barrier {
            compiler_fence(Ordering::SeqCst);
        } else {
            fence(Ordering::SeqCst);
        }
    }

    /// Ends what was announced.
    #[inline]
    pub fn clear(&self) {
        for hazard in &self.0 {
            hazard.store(0, Ordering::Release);
        }
    }

    /// The same where only the first was.
    #[inline(always)]
    pub fn clear_first(&self) {
        let [first, ..] = &self.0;
        first.store(0, Ordering::Release);
    }

    /// Whether one names superblock `s`.
    pub fn name(&self, s: u32) -> bool {
        self.words().contains(&(u64::from(s) + 1))
    }

    /// The words.
    pub fn words(&self) -> [u64; HAZARDS] {
        self.0.each_ref().map(|hazard| hazard.load(Ordering::Acquire))
    }
}

impl Heap {
    /// Whether a context is known to be reading in superblock `s`.
    pub(crate) fn is_read(&self, s: u32) -> bool {
        let read_outside =
            |n, context: &ContextMemory| context.reads_outside() && self.open_hazards(n).is_some_and(|h| h.name(s));
        let read_by = |(n, context): (u32, &ContextMemory)| context.hazards.name(s) || read_outside(n, context);
        (1..=self.geometry().contexts).filter_map(|n| Some((n, self.context(n)?))).any(read_by)
    }
}
