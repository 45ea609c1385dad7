//! The usual operations in as few instructions as they take: inline items without expiry, no flush pending, a bucket
//! without a chain that nobody has locked. They check all that the general ways check, in the same order; whatever is
//! unusual is left as it was and goes the general way from the start.
//!
//! Few instructions matter for more than their own time: the processor looks ahead a few hundred of them, so the
//! next get's cache misses overlap with this one's if both fit.

use super::*;
use crate::heap::block::BlockRef;
use crate::heap::class;
use crate::index::{self, Line, Lines};
use crate::item::Pair;
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

    /// The same words for a key that is to be stored. The two loads overlap where it has fewer than 16 bytes, and the key may have changed
    /// between them: then the words would be no key's, hashed as one thing and stored as another.
    #[inline(always)]
    pub const fn agreed(self, len: usize) -> Self {
        let Self { first, last } = self;
        if len >= 16 {
            return self;
        }
        // The lowest bytes of `last` are the highest of `first`.
        let shared = 8 * (16 - len) as u32;
        let own = if shared >= 64 { 0 } else { last >> shared << shared };
        Self { first, last: own | first >> (64 - shared) }
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

impl<R: Reader> Reading<'_, R> {
    /// Gets the item of a key with this hash and length if all is as usual. `is_key` compares `len` bytes that it is shown
    /// inside the heap with the key.
    /// `out` is outside the heap.
    #[inline(always)]
    pub(super) fn get_fast(
        self,
        hash: Hash,
        len: usize,
        out: Out,
        is_key: impl FnOnce(*const u8) -> bool,
    ) -> Option<Got> {
        let heap = self.heap();
        let growth = index::growth(heap);
        let line = heap.bucket(growth.bucket(hash))?;
        let word = line.slots().get(line.matching(hash).trailing_zeros() as usize)?;
        let slot = Slot(word.load(Ordering::Acquire));
        // Whether the tag still fits does not matter: the key is compared, and the slot word read again.
        let block = heap.block(slot.unit()).filter(|_| slot.is_item())?;
        let at = heap.start_of(block);
        // Where the value starts is only known from the header: ask for what follows it meanwhile.
        prefetch(at.wrapping_add(64));
        prefetch(at.wrapping_add(128));
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
        let end = value_at + value_len;
        let fits = end <= INLINE_MAX && end <= heap.room(block);
        let usual = meta.is_live_under(flush) && expiry == 0 && fits && value_len <= out.len;
        if !usual || !is_key(at.wrapping_add(ITEM_HEADER)) {
            return None;
        }
        mutant::widen(Mutant::NoSecondLook);
        // SAFETY: header, key and value lie within the room of the block; the caller granted `out`.
        unsafe { user::copy_value(out.ptr, at.wrapping_add(value_at), value_len) };
        // All that was read of the item was read before these loads.
        fence(Ordering::Acquire);
        let unchanged = block::load(meta_word).identity() == meta.identity()
            && word.load(Ordering::Acquire) == slot.0
            && index::growth(heap) == growth;
        if !unchanged && !mutant::is(Mutant::NoSecondLook) {
            return None;
        }
        self.0.mark(block, meta);
        self.unprotect_first();
        self.0.count(Counter::GetHits, 1);
        Some(Got { info: ItemInfo { flags, expiry, cas, value_len }, copied: true })
    }
}

/// The item under a key in a locked bucket.
struct Hit<'c> {
    word: &'c AtomicU64,
    block: Block,
    meta: Meta,
    info: Info,
}

impl<'c> Op<'c> {
    /// Locks a key's bucket if nobody holds it, no split has come between, and it has no chain.
    #[inline(always)]
    fn lock_usual(&self, hash: Hash) -> Option<&'c Line> {
        let growth = index::growth(self.heap);
        let number = growth.bucket(hash);
        let line = self.heap.bucket(number)?;
        self.context.intent.bucket.store(u64::from(number) + 1, Ordering::Release);
        if line.try_lock(self.me).is_ok() {
            if index::growth(self.heap) == growth && line.next().is_none() {
                return Some(line);
            }
            line.unlock();
        }
        self.context.intent.bucket.store(0, Ordering::Release);
        None
    }

    /// Finds a key's item in a locked line. `ahead` may ask for what goes with its block while the header comes.
    #[inline(always)]
    fn hit_in(&self, line: &'c Line, key: &Key, ahead: impl Fn(Block)) -> Option<Hit<'c>> {
        let mut mask = line.matching(key.hash);
        while let Some(word) = line.slots().get(mask.trailing_zeros() as usize) {
            mask &= mask.wrapping_sub(1);
            let slot = Slot(word.load(Ordering::Relaxed));
            let Some(block) = self.heap.block(slot.unit()).filter(|_| slot.may_be(key.hash)) else { continue };
            ahead(block);
            let info = self.heap.info(block);
            let fits = info.key_len() == key.len && info.fits(self.heap.room(block));
            // SAFETY: the item fits the room of its block.
            if fits && unsafe { key.is_at(self.heap.bytes_unclamped(block, ITEM_HEADER)) } {
                return Some(Hit { word, block, meta: block::load(self.heap.meta(block)), info });
            }
        }
        None
    }

    /// Releases a bucket and clears what a usual operation put into its intent.
    #[inline(always)]
    fn leave_usual(&self, line: &Line) {
        line.unlock();
        let intent = &self.context.intent;
        intent.old.store(0, Ordering::Release);
        intent.new.store(0, Ordering::Release);
        intent.bucket.store(0, Ordering::Release);
    }

    /// Frees the block of an item that no slot names any more; under its bucket's lock.
    #[inline(always)]
    fn free_hit(&self, hit: &Hit<'_>) {
        if let Some(class) = class::for_size(hit.info.block_size()) {
            self.free_in(hit.block, hit.meta, class);
        }
    }

    /// set, replace of an item that is there, add of one that is not; of an item that never expires.
    ///
    /// # Safety
    /// `value` is readable, and outside the heap.
    #[inline(always)]
    pub(super) unsafe fn store_usual(&self, mode: Mode, key: &Key, value: In, flags: u32) -> Option<u64> {
        let info = Info::new(key.hash, key.len, value.len, false);
        let size = ITEM_HEADER + key.len + value.len;
        if size > INLINE_MAX {
            return None;
        }
        let class = class::for_size(size)?;
        let intent = &self.context.intent;
        let new = self.claim_at_hand(class, &intent.new)?;
        if !mutant::is(Mutant::FlagsLate) {
            self.heap.times_word(new.block).store(item::times_word(flags, 0), Ordering::Relaxed);
        }
        self.heap.set_info(new.block, info);
        // SAFETY: the block is mine and of a class that holds `size` bytes; the caller grants the value.
        unsafe {
            key.write_to(self.heap.bytes_unclamped(new.block, ITEM_HEADER));
            user::copy_value(self.heap.bytes_unclamped(new.block, ITEM_HEADER + key.len), value.ptr, value.len);
        }
        let Some(line) = self.lock_usual(key.hash) else {
            self.unclaim(new, &intent.new);
            return None;
        };
        let hit = self.hit_in(line, key, |_| ());
        // Under the lock: an item that replaces another must not be of an older epoch than that one.
        let flush = self.heap.hot().flush.0.load(Ordering::Acquire);
        let agreed = match (mode, &hit) {
            (Mode::Set, _) | (Mode::Add, None) => true,
            (Mode::Replace, Some(hit)) => self.is_usual(hit, flush),
            _ => false,
        };
        let (place, old_cas) = match &hit {
            _ if !agreed => (None, 0),
            Some(hit) if hit.info.is_numeric() || hit.info.is_large() => (None, 0),
            Some(hit) => (Some(hit.word), self.heap.cas_word(hit.block).load(Ordering::Relaxed)),
            None => (line.slots().iter().find(|word| word.load(Ordering::Relaxed) == 0), 0),
        };
        let Some(place) = place.filter(|_| flush <= u64::from(block::EPOCH_MASK)) else {
            line.unlock();
            self.unclaim(new, &intent.new);
            intent.bucket.store(0, Ordering::Release);
            return None;
        };
        let cas = self.next_cas(old_cas);
        self.heap.cas_word(new.block).store(cas, Ordering::Relaxed);
        if let Some(hit) = &hit
            && !mutant::is(Mutant::ForgetOld)
        {
            intent.old.store(BlockRef::new(hit.block.unit, hit.meta.version()).0, Ordering::Release);
        }
        block::publish(self.heap.meta(new.block), Meta::live(flush as u32, new.meta.version()));
        if mutant::is(Mutant::EarlyUnlock) {
            line.unlock();
            mutant::widen(Mutant::EarlyUnlock);
        }
        if let Some(hit) = &hit
            && mutant::is(Mutant::FreeEarly)
        {
            self.free_hit(hit);
            mutant::widen(Mutant::FreeEarly);
        }
        // The commit.
        place.store(Slot::new(key.hash, new.block.unit).0, Ordering::Release);
        if mutant::is(Mutant::FlagsLate) {
            mutant::widen(Mutant::FlagsLate);
            self.heap.times_word(new.block).store(item::times_word(flags, 0), Ordering::Relaxed);
        }
        match &hit {
            Some(hit) => {
                self.free_hit(hit);
                self.count(Counter::Bytes, (size as u64).wrapping_sub(hit.info.item_size() as u64));
                self.leave_usual(line);
            }
            None => {
                self.leave_usual(line);
                self.count(Counter::Items, 1);
                self.count(Counter::Bytes, size as u64);
                self.items_changed(1);
                self.grow();
            }
        }
        self.count(Counter::TotalItems, 1);
        Some(cas)
    }

    /// Deletes an item.
    #[inline(always)]
    pub(super) fn delete_usual(&self, key: &Key) -> Option<()> {
        let flush = self.heap.hot().flush.0.load(Ordering::Acquire);
        let line = self.lock_usual(key.hash)?;
        // A block that does not go to the magazine is noted with its superblock, which is asked for along with the item.
        let hit = self.hit_in(line, key, |block| self.prefetch_hints(block)).filter(|hit| self.is_usual(hit, flush));
        let Some(hit) = hit else {
            self.leave_usual(line);
            return None;
        };
        self.context.intent.old.store(BlockRef::new(hit.block.unit, hit.meta.version()).0, Ordering::Release);
        // The commit.
        hit.word.store(Slot::EMPTY.0, Ordering::Release);
        self.free_hit(&hit);
        self.leave_usual(line);
        self.count_removed(hit.info);
        self.count(Counter::DeleteHits, 1);
        Some(())
    }

    /// Whether an item is alive without a look at the clock, and in one block.
    #[inline(always)]
    fn is_usual(&self, hit: &Hit<'_>, flush: u64) -> bool {
        let (_, expiry) = item::times(self.heap.times_word(hit.block).load(Ordering::Relaxed));
        hit.meta.is_live_under(flush) && expiry == 0 && !hit.info.is_large()
    }

    /// Changes a numeric item in place; the number and its cas.
    #[inline(always)]
    pub(super) fn arith_usual(&self, key: &Key, of: impl FnOnce(u64) -> u64) -> Option<(u64, u64)> {
        let flush = self.heap.hot().flush.0.load(Ordering::Acquire);
        let line = self.lock_usual(key.hash)?;
        let changed = self
            .hit_in(line, key, |_| ())
            .filter(|hit| hit.info.is_numeric() && self.is_usual(hit, flush))
            .and_then(|hit| {
                let old = self.heap.load_pair(hit.block, hit.info)?;
                let number = of(old.number);
                if !item::fits_width(number, hit.info.value_len()) {
                    return None;
                }
                let cas = self.next_cas(old.cas);
                // The commit: number and cas together.
                let done = self.heap.swap_pair(hit.block, hit.info, old, Pair { number, cas });
                block::mark(self.heap.meta(hit.block), hit.meta);
                done.then_some((number, cas))
            });
        line.unlock();
        self.context.intent.bucket.store(0, Ordering::Release);
        changed
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn words_of_a_key_that_changed_between_the_loads_are_one_keys() {
        let (first, last) = (0x0807_0605_0403_0201, 0xf8f7_f6f5_f4f3_f2f1);
        let mut changed = 0;
        for len in 8..=16 {
            let words = Words { first, last }.agreed(len);
            let mut stored = [0u8; 16];
            // SAFETY: `len` bytes of 16, in the order in which a key is stored.
            let again = unsafe {
                user::store8(stored.as_mut_ptr(), words.first);
                user::store8(stored.as_mut_ptr().add(len - 8), words.last);
                Words::read(stored.as_ptr(), len)
            };
            assert_eq!((again.first, again.last), (words.first, words.last), "{len}");
            assert_eq!(stored[..8], first.to_le_bytes(), "{len}");
            assert_eq!(stored[8..len], last.to_le_bytes()[16 - len..], "{len}");
            changed += usize::from(words.last != last);
            // One that did not change stays as it is.
            assert_eq!(again.agreed(len).last, again.last, "{len}");
        }
        assert_eq!(changed, 8);
    }
}

/// No inline item ends further from its block's start.
const INLINE_MAX: usize = class::size(class::INLINE_MAX) as usize;
