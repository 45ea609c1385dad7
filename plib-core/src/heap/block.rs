//! The meta word that every block starts with, and the only ways to change it.
//!
//! ```text
//!  63           32 31                      4 3   2 1   0
//! +---------------+-------------------------+-----+-----+
//! | version       | owner (Claimed)         | fre | sta |
//! |               | flush epoch (Live)      | que | te  |
//! +---------------+-------------------------+-----+-----+
//! ```
//!
//! Whether a block is free is decided by this word alone (I2). The version goes up whenever a block is claimed, and
//! never restarts: a superblock that changes class starts its new blocks above all its old versions.

use crate::client::Owner;
use crate::mutant::{self, Mutant};
use crate::sync::{AtomicU64, Ordering, fence};

/// What a block is at the moment.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum State {
    /// Nobody's.
    Free,
    /// An op context's, being filled, emptied or moved.
    Claimed,
    /// An item (or chain line) that a slot word (or link) may name.
    Live,
    /// A fragment of a large value; its second word names the head.
    Part,
}

/// A meta word.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Meta(pub u64);

const STATE: u64 = 0b11;
const FREQUENCY: u64 = 0b1100;
const RECENT: u64 = 0b0100;
const OLDER: u64 = 0b1000;
const TAIL_SHIFT: u32 = 4;
const TAIL_MASK: u64 = (1 << 28) - 1;
/// Flush epochs count modulo this.
pub const EPOCH_MASK: u32 = TAIL_MASK as u32;

impl Meta {
    const fn pack(state: u64, tail: u32, version: u32) -> Self {
        Self(state | (tail as u64 & TAIL_MASK) << TAIL_SHIFT | (version as u64) << 32)
    }

    /// A free block.
    pub const fn free(version: u32) -> Self {
        Self::pack(0, 0, version)
    }

    /// A block that `owner` holds.
    pub const fn claimed(owner: Owner, version: u32) -> Self {
        Self::pack(1, owner.0, version)
    }

    /// A live item stored under flush epoch `epoch`.
    pub const fn live(epoch: u32, version: u32) -> Self {
        Self::pack(2, epoch, version)
    }

    /// A fragment.
    pub const fn part(version: u32) -> Self {
        Self::pack(3, 0, version)
    }

    /// The block's state.
    #[inline]
    pub const fn state(self) -> State {
        match self.0 & STATE {
            0 => State::Free,
            1 => State::Claimed,
            2 => State::Live,
            _ => State::Part,
        }
    }

    /// Whether the block is live.
    #[inline]
    pub const fn is_live(self) -> bool {
        self.0 & STATE == 2
    }

    /// Whether the block is live and was stored under the flush word `flush`, which has no deadline.
    #[inline(always)]
    pub const fn is_live_under(self, flush: u64) -> bool {
        // A flush word with a deadline is larger than any epoch.
        self.is_live() && self.epoch() as u64 == flush
    }

    /// Whose a claimed block is.
    #[inline]
    pub const fn owner(self) -> Owner {
        Owner((self.0 >> TAIL_SHIFT & TAIL_MASK) as u32)
    }

    /// The flush epoch that a live item was stored under.
    #[inline]
    pub const fn epoch(self) -> u32 {
        (self.0 >> TAIL_SHIFT & TAIL_MASK) as u32
    }

    /// How often the block was claimed, modulo 2^32.
    #[inline]
    pub const fn version(self) -> u32 {
        (self.0 >> 32) as u32
    }

    /// The word without its frequency bits, which anybody may change.
    #[inline]
    pub const fn identity(self) -> u64 {
        self.0 & !FREQUENCY
    }

    /// Whether the item was read since a hand last passed.
    #[inline]
    pub const fn is_recent(self) -> bool {
        self.0 & RECENT != 0
    }

    /// The word once read.
    #[inline]
    const fn marked(self) -> Self {
        Self(self.0 | RECENT)
    }

    /// The word once a hand has passed: recent becomes older, older becomes nothing. None if there was nothing.
    const fn aged(self) -> Option<Self> {
        match self.0 & FREQUENCY {
            0 => None,
            bits => Some(Self(self.0 & !FREQUENCY | if bits & RECENT != 0 { OLDER } else { 0 })),
        }
    }
}

/// Reads a meta word; pairs with the release of whoever filled the block.
#[inline]
pub fn load(word: &AtomicU64) -> Meta {
    Meta(word.load(Ordering::Acquire))
}

/// Free -> Claimed(owner). The only way to get hold of a free block.
pub fn claim(word: &AtomicU64, seen: Meta, owner: Owner) -> Option<Meta> {
    let step = u32::from(!mutant::is(Mutant::NoVersion));
    let next = Meta::claimed(owner, seen.version().wrapping_add(step));
    exchange(word, seen, next).inspect(|_| before_writing())
}

/// Live or Part -> Claimed(owner), whatever readers do to the frequency bits meanwhile. None if it is another life.
pub fn seize(word: &AtomicU64, seen: Meta, owner: Owner) -> Option<Meta> {
    let next = Meta::claimed(owner, seen.version().wrapping_add(1));
    change(word, seen, next).inspect(|_| before_writing())
}

/// Whoever reads what is written into a claimed block finds it claimed when he checks: partner of the readers' acquire
/// fence. Costs nothing on x86, where stores stay in order.
#[inline]
fn before_writing() {
    fence(Ordering::Release);
}

/// Live, Part or Claimed -> Free, keeping the version. None if it is another life.
pub fn release(word: &AtomicU64, seen: Meta) -> Option<Meta> {
    change(word, seen, Meta::free(seen.version()))
}

/// Claimed -> Live or Part, by the owner. Release: whoever sees the new state sees the filled block.
pub fn publish(word: &AtomicU64, next: Meta) {
    word.store(next.0, Ordering::Release);
}

/// Marks an item as read, from the validated `seen`. Failure means that somebody else marked, aged or freed it.
#[inline]
pub fn mark(word: &AtomicU64, seen: Meta) {
    if !seen.is_recent() {
        let _ = exchange(word, seen, seen.marked());
    }
}

/// Takes one step of frequency from an item. False if it had none left: then it may go.
pub fn age(word: &AtomicU64, seen: Meta) -> bool {
    match seen.aged() {
        None => false,
        Some(next) => {
            let _ = exchange(word, seen, next);
            true
        }
    }
}

fn exchange(word: &AtomicU64, seen: Meta, next: Meta) -> Option<Meta> {
    word.compare_exchange(seen.0, next.0, Ordering::AcqRel, Ordering::Relaxed).ok().map(|_| next)
}

/// Exchanges regardless of frequency bits; bounded, since each failure means that one bit was newly set or cleared.
fn change(word: &AtomicU64, seen: Meta, next: Meta) -> Option<Meta> {
    let mut seen = seen;
    for _ in 0..64 {
        match word.compare_exchange(seen.0, next.0, Ordering::AcqRel, Ordering::Relaxed) {
            Ok(_) => return Some(next),
            Err(now) if Meta(now).identity() == seen.identity() => seen = Meta(now),
            Err(_) => return None,
        }
    }
    None
}

/// A block of one life: `version low 28 | unit 36`. Names a block in intents and in the back word of fragments.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct BlockRef(pub u64);

const UNIT_BITS: u32 = 36;

impl BlockRef {
    /// No block.
    pub const NONE: Self = Self(0);

    /// The block at `unit` in its life `version`.
    #[inline]
    pub const fn new(unit: u64, version: u32) -> Self {
        Self(unit & ((1 << UNIT_BITS) - 1) | (version as u64) << UNIT_BITS)
    }

    /// Where it is.
    #[inline]
    pub const fn unit(self) -> u64 {
        self.0 & ((1 << UNIT_BITS) - 1)
    }

    /// Whether `meta` is of the same life.
    #[inline]
    pub const fn is_life(self, meta: Meta) -> bool {
        (meta.version() as u64) << UNIT_BITS == self.0 & !((1 << UNIT_BITS) - 1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn meta_words_round_trip() {
        let owner = Owner::new(4095, 0xffff);
        let m = Meta::claimed(owner, u32::MAX);
        assert_eq!((m.state(), m.owner(), m.version()), (State::Claimed, owner, u32::MAX));
        let m = Meta::live(EPOCH_MASK, 7);
        assert_eq!((m.state(), m.epoch(), m.version(), m.is_recent()), (State::Live, EPOCH_MASK, 7, false));
        assert_eq!(m.marked().identity(), m.0);
        assert_eq!(m.marked().aged().unwrap().aged().unwrap(), m);
        assert_eq!(m.aged(), None);
        assert_eq!(Meta::part(9).state(), State::Part);
        assert_eq!(Meta::free(9).state(), State::Free);
    }

    #[test]
    fn block_refs_tell_lives_apart() {
        let r = BlockRef::new((1 << 36) - 1, 0xffff_fff1);
        assert_eq!(r.unit(), (1 << 36) - 1);
        assert!(r.is_life(Meta::free(0xffff_fff1)));
        assert!(!r.is_life(Meta::free(0xffff_fff2)));
    }
}
