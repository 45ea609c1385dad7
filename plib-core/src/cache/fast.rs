//! The usual get in as few instructions as it takes: one candidate slot, a live inline item without expiry, no flush
//! pending. It checks all that the general way checks; whatever is unusual goes that way from the start.
//!
//! Few instructions matter for more than their own time: the processor looks ahead a few hundred of them, so the
//! next get's cache misses overlap with this one's if both fit.

use super::*;
use crate::index::{self, Lines};
use crate::layout::ITEM_HEADER;
use crate::stats::Counter;
use crate::sync::fence;
use crate::user::Out;

/// The first and the last eight bytes of a key of 8 to 16 bytes, read once.
#[derive(Clone, Copy)]
pub(crate) struct Words {
    pub first: u64,
    pub last: u64,
}

impl Words {
    /// Key lengths that two words hold.
    #[inline(always)]
    pub const fn hold(len: usize) -> bool {
        len.wrapping_sub(8) <= 8
    }

    /// Reads a key.
    ///
    /// # Safety
    /// `len` bytes at `key` are readable, and `hold(len)`.
    #[inline(always)]
    pub unsafe fn read(key: *const u8, len: usize) -> Self {
        // SAFETY: 8 <= len.
        unsafe { Self { first: user::load8(key), last: user::load8(key.add(len - 8)) } }
    }

    /// Whether these are the words of the `len` bytes at `at`, which may change meanwhile.
    ///
    /// # Safety
    /// As for `read`.
    #[inline(always)]
    pub unsafe fn are_at(self, at: *const u8, len: usize) -> bool {
        // SAFETY: passed on.
        let there = unsafe { Self::read(at, len) };
        (self.first ^ there.first) | (self.last ^ there.last) == 0
    }
}

impl<'c> Op<'c> {
    /// Gets the item of a key with this hash and length if all is as usual. `is_key` compares `len` bytes with the key.
    /// `out` is outside the heap.
    #[inline(always)]
    pub(super) fn get_fast(
        &self,
        hash: Hash,
        len: usize,
        out: Out,
        is_key: impl FnOnce(*const u8) -> bool,
    ) -> Option<Got> {
        let heap = self.heap;
        let growth = index::growth(heap);
        let line = heap.bucket(growth.bucket(hash))?;
        let word = line.slots().get(line.matching(hash).trailing_zeros() as usize)?;
        let slot = Slot(word.load(Ordering::Acquire));
        let block = heap.block(slot.unit()).filter(|_| slot.may_be(hash))?;
        // Where the value starts is only known from the header: ask for what follows it meanwhile.
        prefetch(heap.bytes(block, 64));
        prefetch(heap.bytes(block, 128));
        self.protect(0, block.superblock);
        if word.load(Ordering::Acquire) != slot.0 {
            return None;
        }
        let meta_word = heap.meta(block);
        let meta = block::load(meta_word);
        let value_len = heap.info(block).usual_value_len(hash, len)?;
        let times = heap.times_word(block).load(Ordering::Relaxed);
        let cas = heap.cas_word(block).load(Ordering::Relaxed);
        let (flags, expiry) = item::times(times);
        let flush = heap.hot().flush.0.load(Ordering::Acquire);
        let value_at = ITEM_HEADER + len;
        let room = heap.room(block).min(INLINE_MAX);
        let usual = meta.is_live_under(flush) && expiry == 0 && value_at + value_len <= room && value_len <= out.len;
        // SAFETY: header, key and value lie within the room of the block.
        if !usual || !is_key(unsafe { heap.bytes_unclamped(block, ITEM_HEADER) }) {
            return None;
        }
        // SAFETY: as above; the caller granted `out`.
        unsafe { user::copy_value(out.ptr, heap.bytes_unclamped(block, value_at), value_len) };
        // All that was read of the item was read before these loads.
        fence(Ordering::Acquire);
        let unchanged = block::load(meta_word).identity() == meta.identity()
            && word.load(Ordering::Acquire) == slot.0
            && index::growth(heap) == growth;
        if !unchanged {
            return None;
        }
        block::mark(meta_word, meta);
        self.unprotect_first();
        self.count(Counter::GetHits, 1);
        Some(Got { info: ItemInfo { flags, expiry, cas, value_len }, copied: true })
    }
}

/// No inline item ends further from its block's start.
const INLINE_MAX: usize = crate::heap::class::size(crate::heap::class::INLINE_MAX) as usize;
