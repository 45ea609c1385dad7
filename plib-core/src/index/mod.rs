//! The index: from a key's hash to the block that holds the item.
//!
//! It knows nothing of items: whether a slot word names the wanted one is asked of the caller. It reaches its lines
//! through [`Lines`], so that the same code runs on a heap and in the models.
//!
//! | rule | where |
//! | --- | --- |
//! | a reader takes no lock and validates what it found | [`lookup`] |
//! | every change of a slot word holds its bucket's lock | [`bucket::Bucket`] |
//! | growth commits by one store and repairs nothing | [`split`] |

pub mod bucket;
pub mod growth;
pub mod line;
pub mod slot;
pub mod split;

use crate::hash::Hash;
use crate::heap::Heap;
use crate::heap::superblock::Use;
use crate::layout::SEGMENT_BUCKETS;
use crate::status::{Fault, Status};
use crate::sync::{AtomicU64, Ordering, fence};
pub use growth::Growth;
pub use line::Line;
pub use slot::Slot;

/// The last slot in a mask of slots.
const LAST: u32 = 1 << (line::SLOTS - 1);

/// Chain lines behind a bucket at most; a fuller bucket evicts inside itself.
pub const CHAIN_MAX: usize = 4;

/// The bit positions and bounds that two builds must agree on.
pub(crate) const SHAPE: u64 =
    Slot::new(Hash(u64::MAX), 1).0 ^ Slot::link(2).0 ^ (CHAIN_MAX as u64) << 8 ^ (line::SLOTS as u64) << 16;

/// Where the index's lines are.
pub trait Lines {
    /// The growth word.
    fn growth(&self) -> &AtomicU64;
    /// The first line of a bucket.
    fn bucket(&self, number: u32) -> Option<&Line>;
    /// The chain line at `unit`.
    fn chain(&self, unit: u64) -> Option<&Line>;
}

impl Lines for Heap {
    #[inline]
    fn growth(&self) -> &AtomicU64 {
        &self.hot().growth.0
    }

    #[inline]
    fn bucket(&self, number: u32) -> Option<&Line> {
        let segment = self.directory(number / SEGMENT_BUCKETS)?.load(Ordering::Acquire);
        self.line_in(segment.wrapping_sub(1), number % SEGMENT_BUCKETS)
    }

    #[inline]
    fn chain(&self, unit: u64) -> Option<&Line> {
        self.line_at(unit)
    }
}

/// What a caller makes of a slot word whose tag fits.
pub enum Probe<T> {
    /// It names the wanted item, and what was read of it was valid when the slot word was read again.
    Hit(T),
    /// It names another item.
    Other,
    /// It changed under the reader.
    Retry,
}

/// What a lookup found.
pub enum Found<T> {
    /// The item.
    Hit(T),
    /// No item of that key was in the index at some moment during the lookup.
    Miss,
    /// The bucket changed meanwhile; look again.
    Retry,
}

/// Loads the growth word.
#[inline]
pub fn growth(lines: &impl Lines) -> Growth {
    Growth(lines.growth().load(Ordering::Acquire))
}

/// The slot words of a line whose tags may fit.
#[inline(always)]
pub(crate) fn candidates(line: &Line, hash: Hash) -> impl Iterator<Item = &AtomicU64> {
    let mut mask = line.matching(hash);
    core::iter::from_fn(move || {
        let word = line.slots().get(mask.trailing_zeros() as usize)?;
        mask &= mask.wrapping_sub(1);
        Some(word)
    })
}

/// Looks for an item without a lock.
#[inline(always)]
pub fn lookup<L: Lines, T>(lines: &L, hash: Hash, mut probe: impl FnMut(Slot, &AtomicU64) -> Probe<T>) -> Found<T> {
    let before = growth(lines);
    let number = before.bucket(hash);
    let Some(bucket) = lines.bucket(number) else { return Found::Retry };
    let moves = bucket.moves();
    let mut line = bucket;
    let mut hit = None;
    'chain: for _ in 0..=CHAIN_MAX {
        // The last word is read once: an item or a link, whichever it was, leads to all that was behind it then.
        let last = Slot(line.last().load(Ordering::Acquire));
        let mut mask = line.matching(hash) & !LAST | if last.may_be(hash) { LAST } else { 0 };
        while let Some(word) = line.slots().get(mask.trailing_zeros() as usize) {
            let slot = if mask & !LAST == 0 { last } else { Slot(word.load(Ordering::Acquire)) };
            mask &= mask.wrapping_sub(1);
            if !slot.may_be(hash) {
                continue;
            }
            match probe(slot, word) {
                Probe::Hit(found) => {
                    hit = Some(found);
                    break 'chain;
                }
                Probe::Other => {}
                Probe::Retry => return Found::Retry,
            }
        }
        if !last.is_link() {
            break;
        }
        match lines.chain(last.unit()) {
            Some(next) => line = next,
            None => return Found::Retry,
        }
    }
    // The item's bytes were read before these loads, as the slot words were.
    fence(Ordering::Acquire);
    let after = growth(lines);
    if after != before && after.bucket(hash) != number {
        return Found::Retry;
    }
    // A miss may have been overtaken by a move, and a chain line may have left the bucket under the reader.
    let in_bucket = core::ptr::eq(line, bucket);
    match hit {
        Some(found) if in_bucket || bucket.moves() == moves => Found::Hit(found),
        None if bucket.moves() == moves => Found::Miss,
        _ => Found::Retry,
    }
}

/// Shows every slot word that names an item of bucket `number` to `visit`, without a lock. False if the bucket changed
/// meanwhile (or `visit` said so): then items may have been missed.
pub fn walk<L: Lines>(lines: &L, number: u32, mut visit: impl FnMut(Slot, &AtomicU64) -> bool) -> bool {
    let before = growth(lines);
    let Some(bucket) = lines.bucket(number) else {
        return false;
    };
    let moves = bucket.moves();
    let mut line = bucket;
    for _ in 0..=CHAIN_MAX {
        let last = Slot(line.last().load(Ordering::Acquire));
        for word in line.slots() {
            let slot = if core::ptr::eq(word, line.last()) { last } else { Slot(word.load(Ordering::Acquire)) };
            if slot.is_item() && before.bucket(slot.hash_in(number)) == number && !visit(slot, word) {
                return false;
            }
        }
        if !last.is_link() {
            break;
        }
        match lines.chain(last.unit()) {
            Some(next) => line = next,
            None => return false,
        }
    }
    fence(Ordering::Acquire);
    growth(lines).bits_of(number) == before.bits_of(number) && bucket.moves() == moves
}

/// Gives a fresh heap its first segment.
pub(crate) fn format(heap: &Heap) -> Result<(), Fault> {
    let damaged = Fault::new(Status::Damaged, "first segment", 1, 0);
    let descriptor = heap.descriptor(0).ok_or(damaged)?;
    heap.pool().remove(0);
    descriptor.change(descriptor.state(), Use::Index, crate::client::Owner::NOBODY).ok_or(damaged)?;
    heap.directory(0).ok_or(damaged)?.store(1, Ordering::Release);
    Ok(())
}

/// Checks what every lookup relies on: the growth word and the directory.
pub(crate) fn check_tables(heap: &Heap) -> Result<(), Fault> {
    let word = growth(heap);
    if !word.is_sane(heap.geometry().segments) {
        return Err(Fault::new(Status::Damaged, "growth word", Growth::START.0, word.0));
    }
    for i in 0..word.buckets().div_ceil(SEGMENT_BUCKETS) {
        let entry = heap.directory(i).map_or(0, |e| e.load(Ordering::Acquire));
        let usage = heap.descriptor(entry.wrapping_sub(1)).map(|d| d.state().usage());
        // Converting: its maker was killed between the directory's store and the descriptor's.
        if !matches!(usage, Some(Use::Index | Use::Converting)) {
            return Err(Fault::new(Status::Damaged, "index directory", u64::from(i), u64::from(entry)));
        }
    }
    Ok(())
}
