//! Asking the memory for what an operation will need, before it needs it.

use super::*;
use crate::index::{self, Lines};

/// Cache lines of a block that are asked for: header, key and a small value.
const LINES_AHEAD: usize = 3;

impl<R: Reader> Reading<'_, R> {
    /// Asks for the first line of a key's bucket.
    #[inline(always)]
    pub fn prefetch_bucket(self, hash: Hash) {
        if let Some(line) = self.heap().bucket(index::growth(self.heap()).bucket(hash)) {
            prefetch(core::ptr::from_ref(line).cast());
        }
    }

    /// Asks for the block that the key's bucket seems to name. A guess: it is looked up properly afterwards.
    #[inline(always)]
    pub fn prefetch_block(self, hash: Hash) {
        let Some(line) = self.heap().bucket(index::growth(self.heap()).bucket(hash)) else {
            return;
        };
        for word in index::candidates(line, hash) {
            let slot = Slot(word.load(Ordering::Relaxed));
            if slot.may_be(hash)
                && let Some(block) = self.heap().block(slot.unit())
            {
                for i in 0..LINES_AHEAD {
                    prefetch(self.heap().bytes(block, i * 64));
                }
                return;
            }
        }
    }
}

impl Op<'_> {
    /// Asks for the free hints of a block's superblock.
    #[inline(always)]
    pub fn prefetch_hints(&self, block: Block) {
        if let Some(descriptor) = self.heap.descriptor(block.superblock) {
            let hints: *const u8 = core::ptr::from_ref(descriptor.rest).cast();
            for i in 0..3 {
                prefetch(hints.wrapping_add(i * 64));
            }
        }
    }
}
