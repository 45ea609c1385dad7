//! A fold over all items while others read and write.
//!
//! Items are visited in the order of their bit-reversed hash. A bucket owns one interval of that order, and a split cuts
//! the interval in two, so a cursor stays right while the table grows: an item that is there all the time is shown
//! exactly once (two keys with the same 64-bit hash count as one), one that comes or goes meanwhile at most once.

use crate::cache::{Got, Life, Patience, Reader, Reading, Times};
use crate::hash::{Hash, hash};
use crate::heap::block;
use crate::index::{self, Slot};
use crate::layout::{ITEM_HEADER, KEY_MAX};
use crate::status::Status;
use crate::sync::{AtomicU64, Ordering, fence};
use crate::user::{self, In, Out};

/// One item of a scan.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Scanned {
    /// Bytes of the key, which was copied.
    pub key_len: usize,
    /// The item, as get gives it.
    pub got: Got,
    /// Where to go on; the old cursor if the value did not fit.
    pub next: u64,
}

/// The item with the least place past the cursor so far.
struct Best {
    place: u64,
    key: [u8; KEY_MAX],
    key_len: usize,
}

impl<R: Reader> Reading<'_, R> {
    /// The first live item at or past `cursor` in the order of places.
    ///
    /// # Safety
    /// `key` (250 bytes or more) and `out` are writable.
    pub unsafe fn scan(self, cursor: u64, key: Out, out: Out) -> Result<Option<Scanned>, Status> {
        let protected = self.heap().protected();
        if key.len < KEY_MAX || !protected.admits(key.ptr, key.len) || !protected.admits(out.ptr, out.len) {
            return Err(Status::Invalid);
        }
        let (mut at, mut patience) = (cursor, Patience::new());
        loop {
            let growth = index::growth(self.heap());
            let number = growth.bucket(Hash(at.reverse_bits()));
            let mut best = Best { place: u64::MAX, key: [0; KEY_MAX], key_len: 0 };
            let mut times = self.0.times();
            let whole = index::walk(self.heap(), number, |slot, word| {
                self.consider(slot, word, number, at, &mut best, &mut times)
            });
            self.unprotect();
            if !whole || index::growth(self.heap()).bits_of(number) != growth.bits_of(number) {
                patience.wait()?;
                continue;
            }
            if best.key_len == 0 {
                let width = 64 - growth.bits_of(number);
                match (u64::from(number).reverse_bits() >> width).wrapping_add(1).checked_shl(width) {
                    Some(next) if next != 0 => at = next,
                    _ => return Ok(None),
                }
                continue;
            }
            let name = best.key.get(..best.key_len).unwrap_or(&[]);
            // SAFETY: `name` is a slice of ours; `out` was checked.
            match unsafe { self.read_scanned(name, out) } {
                Ok(got) => {
                    // SAFETY: `key` has room for the longest key.
                    unsafe { user::copy(key.ptr, name.as_ptr(), name.len()) };
                    let next = if got.copied { best.place.saturating_add(1) } else { cursor };
                    return Ok(Some(Scanned { key_len: name.len(), got, next }));
                }
                // It went between the two looks.
                Err(Status::NotFound) => patience.wait()?,
                Err(status) => return Err(status),
            }
        }
    }

    /// Keeps the item of a slot word if its place is the least one not before `from`. False if it changed meanwhile.
    fn consider(
        self,
        slot: Slot,
        word: &AtomicU64,
        number: u32,
        from: u64,
        best: &mut Best,
        times: &mut Times<'_>,
    ) -> bool {
        // The tag tells the place's first 37 bits.
        let coarse = slot.hash_in(number).0.reverse_bits() >> 27;
        if coarse < from >> 27 || coarse > best.place >> 27 {
            return true;
        }
        let Some(block) = self.heap().block(slot.unit()) else {
            return false;
        };
        self.protect(0, block.superblock);
        if word.load(Ordering::Acquire) != slot.0 {
            return false;
        }
        let meta = block::load(self.heap().meta(block));
        let info = self.heap().info(block);
        if !meta.is_live() || info.key_len() > KEY_MAX || !info.fits(self.heap().room(block)) {
            // Damaged, if it is named all the same: left out. Otherwise it has just gone.
            return word.load(Ordering::Acquire) == slot.0
                && block::load(self.heap().meta(block)).identity() == meta.identity();
        }
        let mut key = [0u8; KEY_MAX];
        // SAFETY: the item fits its block, its key fits ours.
        unsafe { user::copy(key.as_mut_ptr(), self.heap().bytes(block, ITEM_HEADER), info.key_len()) };
        let Some((life, _)) = times.life_unlocked(self.heap(), block, meta) else { return false };
        fence(Ordering::Acquire);
        if block::load(self.heap().meta(block)).identity() != meta.identity() || word.load(Ordering::Acquire) != slot.0
        {
            return false;
        }
        let place = hash(self.heap().secret(), key.get(..info.key_len()).unwrap_or(&[])).0.reverse_bits();
        if life == Life::Alive && place >= from && (place < best.place || best.key_len == 0) {
            *best = Best { place, key, key_len: info.key_len() };
        }
        true
    }

    /// Reads an item by its key without marking it as used.
    ///
    /// # Safety
    /// `out` is writable.
    unsafe fn read_scanned(self, name: &[u8], out: Out) -> Result<Got, Status> {
        let mut key = crate::cache::Key::blank();
        // SAFETY: `name` is a slice of ours, and was a stored item's key.
        unsafe { key.copy(self.heap(), In::new(name)) };
        let mut times = self.0.times();
        let mut seen = crate::cache::Seen::NOTHING;
        let found = self.find(key.hash, key.bytes(), |view| self.take_out(view, out, &mut times, &mut seen))?;
        self.unprotect();
        if found == Some(Life::Alive) { Ok(seen.got) } else { Err(Status::NotFound) }
    }
}
