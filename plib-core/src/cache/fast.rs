//! The usual get in as few instructions as it takes: one candidate slot, a live inline item without expiry, no flush
//! pending. It checks all that the general way checks; whatever is unusual goes that way from the start.

use super::*;
use crate::index::{self, Lines};
use crate::layout::ITEM_HEADER;
use crate::stats::Counter;
use crate::sync::fence;
use crate::user::Out;

impl<'c> Op<'c> {
    /// Gets a key's item if all is as usual.
    #[inline(always)]
    pub(super) fn get_fast(&self, key: &Key, out: Out) -> Option<Got> {
        let heap = self.heap;
        let growth = index::growth(heap);
        let line = heap.bucket(growth.bucket(key.hash))?;
        // In the bucket's own line the control word's moves do not matter for a hit.
        let word = line.slots().get(line.matching(key.hash).trailing_zeros() as usize)?;
        let slot = Slot(word.load(Ordering::Acquire));
        let block = heap.block(slot.unit()).filter(|_| slot.may_be(key.hash))?;
        // Where the value starts is only known from the header: ask for what follows it meanwhile.
        prefetch(heap.bytes(block, 64));
        prefetch(heap.bytes(block, 128));
        self.protect(0, block.superblock);
        if word.load(Ordering::Acquire) != slot.0 {
            return None;
        }
        let meta_word = heap.meta(block);
        let meta = block::load(meta_word);
        let info = heap.info(block);
        let flush = heap.hot().flush.0.load(Ordering::Acquire);
        let (flags, expiry) = item::times(heap.times_word(block).load(Ordering::Relaxed));
        let cas = heap.cas_word(block).load(Ordering::Relaxed);
        let (key_len, value_len) = (info.key_len(), info.value_len());
        let usual = meta.is_live()
            && u64::from(meta.epoch()) == flush
            && expiry == 0
            && info.is_plain_inline(heap.room(block))
            && key_len == key.len
            && value_len <= out.len;
        // SAFETY: `is_plain_inline`: header, key and value lie within the room of the block.
        if !usual || !unsafe { user::equal(key.bytes().as_ptr(), heap.bytes_unclamped(block, ITEM_HEADER), key_len) } {
            return None;
        }
        // SAFETY: as above; the caller granted `out`.
        unsafe { user::copy_value(out.ptr, heap.bytes_unclamped(block, ITEM_HEADER + key_len), value_len) };
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
