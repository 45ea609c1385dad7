//! Reading without a lock.

use super::*;
use crate::index::{self, Found, Probe};
use crate::item::{DIGITS_MAX, PART_HEADER};
use crate::stats::Counter;
use crate::sync::fence;
use crate::user::Out;

/// What a reader took from an item.
pub(crate) struct Seen {
    pub got: Got,
    block: Option<Block>,
    meta: Meta,
}

impl Seen {
    /// Nothing yet.
    pub const NOTHING: Self = Self {
        got: Got { info: ItemInfo { flags: 0, expiry: 0, cas: 0, value_len: 0 }, copied: false },
        block: None,
        meta: Meta(0),
    };
}

impl<'r, R: Reader> Reading<'r, R> {
    /// Finds a key's item and lets `take` read it; `take` gives None when it notices that the item changed under it.
    /// On a hit the hazard stays until the caller is done with the item and calls `unprotect`.
    /// Lock-free: a try fails only if another operation on this bucket took effect meanwhile.
    #[inline(always)]
    pub fn find<T>(
        self,
        hash: Hash,
        key: &[u8],
        mut take: impl FnMut(&View<'r>) -> Option<T>,
    ) -> Result<Option<T>, Status> {
        let mut patience = Patience::new();
        loop {
            let found = index::lookup(self.heap(), hash, |slot, word| self.probe(slot, word, key, &mut take));
            match found {
                Found::Hit(taken) => return Ok(Some(taken)),
                Found::Miss => {
                    self.unprotect();
                    return Ok(None);
                }
                Found::Retry => {
                    // A try fails only because another operation took effect.
                    patience.progress();
                    if let Err(status) = patience.wait() {
                        self.unprotect();
                        self.0.count(Counter::BusyReturns, 1);
                        return Err(status);
                    }
                }
            }
        }
    }

    /// Reads the item behind one slot word. `word` belongs to a line, and lines stay lines for ever.
    #[inline(always)]
    pub(super) fn probe<T>(
        self,
        slot: Slot,
        word: &AtomicU64,
        key: &[u8],
        take: &mut impl FnMut(&View<'r>) -> Option<T>,
    ) -> Probe<T> {
        let Some(block) = self.heap().block(slot.unit()) else {
            return Probe::Retry;
        };
        self.protect(0, block.superblock);
        // Named after the hazard was set: nobody cuts this superblock anew before the hazard goes.
        if word.load(Ordering::Acquire) != slot.0 {
            return Probe::Retry;
        }
        let meta_word = self.heap().meta(block);
        let meta = block::load(meta_word);
        if !meta.is_live() {
            // A slot word names only live blocks: if it still does and the block is still the same, it is damaged. (The
            // word alone may be back for a later life of the block.)
            let same = word.load(Ordering::Acquire) == slot.0 && block::load(meta_word).identity() == meta.identity();
            return if same { Probe::Other } else { Probe::Retry };
        }
        let info = self.heap().info(block);
        let unchanged = || {
            // All that was read of the item was read before these loads.
            fence(Ordering::Acquire);
            block::load(meta_word).identity() == meta.identity() && word.load(Ordering::Acquire) == slot.0
        };
        if !self.heap().key_is(block, info, key) {
            return if unchanged() { Probe::Other } else { Probe::Retry };
        }
        // SAFETY: index lines live in superblocks that never change their use, inside a mapping that outlives the reader.
        let word: &'r AtomicU64 = unsafe { &*core::ptr::from_ref(word) };
        let Some(taken) = take(&View { block, meta, info, slot, word }) else {
            return Probe::Retry;
        };
        if unchanged() { Probe::Hit(taken) } else { Probe::Retry }
    }

    /// Copies an item's value out; its length, and whether it fitted. None when the item changed under the reader.
    #[inline(always)]
    pub(super) fn read_value(self, view: &View<'_>, out: Out) -> Option<(usize, bool, u64)> {
        let len = view.info.value_len();
        if view.info.is_numeric() {
            return self.read_number(view, out);
        }
        let cas = self.heap().cas_word(view.block).load(Ordering::Relaxed);
        if len > out.len {
            return Some((len, false, cas));
        }
        if view.info.is_large() {
            self.each_part(view, |first, from, bytes| {
                // SAFETY: `first + bytes <= len <= out.len`; the fragment has `bytes` bytes.
                unsafe { user::copy(out.ptr.add(first), from, bytes) };
            })?;
        } else {
            // SAFETY: `key_is` found that header, key and value fit the room of the block; out has room.
            unsafe { user::copy(out.ptr, self.heap().bytes(view.block, view.info.value_at()), len) };
        }
        Some((len, true, cas))
    }

    #[inline(never)]
    pub(super) fn read_number(self, view: &View<'_>, out: Out) -> Option<(usize, bool, u64)> {
        let pair = self.heap().load_pair(view.block, view.info)?;
        let mut text = [0; 2 * DIGITS_MAX];
        let text = number_text(pair.number, view.info.value_len(), &mut text);
        let fits = text.len() <= out.len;
        if fits {
            // SAFETY: out has room for the text.
            unsafe { user::copy(out.ptr, text.as_ptr(), text.len()) };
        }
        Some((text.len(), fits, pair.cas))
    }

    /// Calls `take` with each fragment's first byte in the value, its address and its length.
    pub(super) fn each_part(self, view: &View<'_>, mut take: impl FnMut(usize, *const u8, usize)) -> Option<()> {
        for i in 0..view.info.parts() {
            let unit = self.heap().part_word(view.block, view.info, i)?.load(Ordering::Relaxed);
            let part = self.heap().block(unit)?;
            self.protect(1, part.superblock);
            // The head still lives after the hazard was set, so its fragment is one until the hazard goes.
            if block::load(self.heap().meta(view.block)).identity() != view.meta.identity() {
                return None;
            }
            let (first, bytes) = item::part(view.info.value_len(), i);
            if bytes + PART_HEADER > self.heap().room(part) {
                return None;
            }
            take(first, self.heap().bytes(part, PART_HEADER), bytes);
        }
        Some(())
    }

    /// get: copies the item's value to `out`.
    ///
    /// # Safety
    /// `name` (the key) is readable, `out` writable.
    #[inline]
    pub unsafe fn get(self, name: In, out: Out) -> Result<Got, Status> {
        // SAFETY: passed on.
        match unsafe { self.get_usual(name, out) } {
            Some(got) => Ok(got),
            // SAFETY: passed on.
            None => unsafe { self.get_named(name, out) },
        }
    }

    /// get for a key of 8 to 16 bytes and a usual item.
    ///
    /// # Safety
    /// As for `get`.
    #[inline(always)]
    pub unsafe fn get_usual(self, name: In, out: Out) -> Option<Got> {
        let protected = self.heap().protected();
        if mutant::is(Mutant::ReadersLock)
            || !Words::hold(name.len)
            || !protected.admits_short(name.ptr)
            || !protected.admits(out.ptr, out.len)
        {
            return None;
        }
        // SAFETY: the caller grants the key, whose length two words hold.
        let words = unsafe { Words::read(name.ptr, name.len) };
        let hash = hash_words(self.heap().secret(), words.first, words.last, name.len);
        // SAFETY: `get_fast` shows as many readable bytes as the key has.
        self.get_fast(hash, name.len, out, |at| unsafe { words.are_at(at, name.len) })
    }

    /// The same for any key.
    #[inline(never)]
    unsafe fn get_named(self, name: In, out: Out) -> Result<Got, Status> {
        let mut key = Key::blank();
        // SAFETY: passed on.
        unsafe { key.read(self.heap(), name)? };
        if !self.heap().protected().admits(out.ptr, out.len) {
            return Err(Status::Invalid);
        }
        self.get_copied(&key, out)
    }

    /// get with a private key and a checked buffer.
    #[inline(always)]
    pub fn get_copied(self, key: &Key, out: Out) -> Result<Got, Status> {
        if mutant::is(Mutant::ReadersLock) {
            self.0.lock_first(key.hash)?;
        }
        // SAFETY: `get_fast` shows as many readable bytes as the key has.
        match self.get_fast(key.hash, key.bytes().len(), out, |at| unsafe { key.is_at(at) }) {
            Some(got) => Ok(got),
            None => self.get_any(key, out),
        }
    }

    /// The same for whatever item it may be.
    #[inline(never)]
    fn get_any(self, key: &Key, out: Out) -> Result<Got, Status> {
        let mut times = self.0.times();
        let mut seen = Seen::NOTHING;
        let found = self.find(key.hash, key.bytes(), |view| self.take_out(view, out, &mut times, &mut seen))?;
        match found {
            Some(Life::Alive) => {
                if let Some(block) = seen.block {
                    self.0.mark(block, seen.meta);
                }
                self.unprotect();
                // One that did not fit is asked for again.
                self.0.count(Counter::GetHits, u64::from(seen.got.copied));
                Ok(seen.got)
            }
            None => {
                self.0.count(Counter::GetMisses, 1);
                Err(Status::NotFound)
            }
            Some(life) => self.get_dead(life),
        }
    }

    #[cold]
    fn get_dead(self, life: Life) -> Result<Got, Status> {
        self.unprotect();
        Err(self.0.bury(life))
    }

    /// Copies a viewed item out if it is alive.
    #[inline(always)]
    pub(crate) fn take_out(self, view: &View<'_>, out: Out, times: &mut Times<'_>, seen: &mut Seen) -> Option<Life> {
        let (life, word) = times.life_unlocked(self.heap(), view.block, view.meta)?;
        if life != Life::Alive {
            return Some(life);
        }
        let (value_len, copied, cas) = self.read_value(view, out)?;
        let (flags, expiry) = item::times(word);
        seen.got = Got { info: ItemInfo { flags, expiry, cas, value_len }, copied };
        seen.block = Some(view.block);
        seen.meta = view.meta;
        Some(Life::Alive)
    }
}

impl Op<'_> {
    /// gat: reads the item and gives it a new expiry, as one operation.
    ///
    /// # Safety
    /// `name` (the key) is readable, `out` writable.
    pub unsafe fn get_and_touch(&self, name: In, exptime: i64, out: Out) -> Result<Got, Status> {
        let mut key = Key::blank();
        // SAFETY: passed on.
        unsafe { key.read(self.heap, name)? };
        if !self.heap.protected().admits(out.ptr, out.len) {
            return Err(Status::Invalid);
        }
        let mut patience = Patience::new();
        loop {
            let got = self.reading().get_copied(&key, out);
            let touched = match got {
                Ok(got) if !got.copied => return Ok(got),
                Ok(got) => self.touch_if(&key, exptime, Some(got.info.cas)),
                Err(status) => {
                    self.count(Counter::CmdTouch, 1);
                    self.count(Counter::TouchMisses, 1);
                    return Err(status);
                }
            };
            match (touched, got) {
                (Ok(expiry), Ok(got)) => {
                    return Ok(Got { info: ItemInfo { expiry, ..got.info }, ..got });
                }
                (Err(Status::Exists | Status::NotFound), _) => {
                    patience.progress();
                    patience.wait()?;
                }
                (Err(status), _) | (_, Err(status)) => return Err(status),
            }
        }
    }
}

/// A number as text, padded with spaces to the width that memcached's in-place incr would leave.
pub(super) fn number_text(number: u64, width: usize, text: &mut [u8; 2 * DIGITS_MAX]) -> &[u8] {
    let mut digits = [0; DIGITS_MAX];
    let digits = item::format_number(number, &mut digits);
    text.fill(b' ');
    for (to, from) in text.iter_mut().zip(digits) {
        *to = *from;
    }
    text.get(..digits.len().max(width.min(DIGITS_MAX))).unwrap_or(&[])
}
