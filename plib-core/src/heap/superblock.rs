//! Descriptors of superblocks: what each 64 KiB is used for.
//!
//! ```text
//! state word:  63        39 38        11 10      3 2    0
//!             +------------+------------+---------+------+
//!             | changes    | owner      | class   | kind |
//!             +------------+------------+---------+------+
//! ```
//!
//! Only a CAS on the state word changes the use. Draining and Converting belong to one op context, which alone may
//! claim the blocks inside (Draining) or write the bytes (Converting).

use super::class;
use crate::client::Owner;
use crate::sync::{AtomicU64, Ordering};

/// Words of free hints: enough for the 1365 blocks of the smallest class.
pub const FREE_WORDS: usize = 22;

/// A superblock's descriptor. The state words of all superblocks lie side by side, since every claim reads one: those of
/// a gigabyte fit the second-level cache.
#[derive(Clone, Copy)]
pub struct Descriptor<'h> {
    pub(crate) state: &'h AtomicU64,
    pub(crate) rest: &'h Hints,
}

/// What is rarely needed of a superblock.
#[repr(C)]
pub struct Hints {
    /// Versions that blocks of a next life start from; written by the owner while Draining.
    floor: AtomicU64,
    /// Bit i: block i may be free. A hint.
    free: [AtomicU64; FREE_WORDS],
    unused: AtomicU64,
}

#[cfg(not(loom))]
const _: () = assert!(size_of::<Hints>() as u64 == crate::layout::DESCRIPTOR_SIZE);

pub(crate) const FIELDS_HASH: u64 = crate::hash::mix(FREE_WORDS as u64, 0x0001_0308_1c19);

/// What a superblock is used for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Use {
    /// Nothing.
    Free,
    /// Blocks of a class.
    Class(usize),
    /// Blocks of a class that its owner is emptying.
    Draining(usize),
    /// Being made into something else by its owner.
    Converting,
    /// Buckets of the index.
    Index,
}

/// A descriptor's state word.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct SuperState(pub u64);

impl SuperState {
    /// What it is used for.
    pub const fn usage(self) -> Use {
        let class = (self.0 >> 3 & 0xff) as usize;
        match self.0 & 7 {
            1 => Use::Class(class),
            2 => Use::Draining(class),
            3 => Use::Converting,
            4 => Use::Index,
            _ => Use::Free,
        }
    }

    /// Whether the word says one of these uses.
    pub const fn is_known(self) -> bool {
        self.0 & 7 <= 4
    }

    /// Who drains or converts it.
    pub const fn owner(self) -> Owner {
        Owner((self.0 >> 11 & 0x0fff_ffff) as u32)
    }

    /// How often the use changed, modulo 2^25.
    pub const fn changes(self) -> u64 {
        self.0 >> 39
    }

    const fn to(self, usage: Use, owner: Owner) -> Self {
        let (kind, class) = match usage {
            Use::Free => (0, 0),
            Use::Class(c) => (1, c as u64),
            Use::Draining(c) => (2, c as u64),
            Use::Converting => (3, 0),
            Use::Index => (4, 0),
        };
        let changes = self.changes().wrapping_add(1) << 39;
        Self(kind | class << 3 | (owner.0 as u64) << 11 | changes)
    }
}

impl Descriptor<'_> {
    /// The state word.
    #[inline]
    pub fn state(&self) -> SuperState {
        SuperState(self.state.load(Ordering::Acquire))
    }

    /// Whether blocks of `class` may be claimed here.
    #[inline]
    pub fn serves(&self, class: usize) -> bool {
        self.state().usage() == Use::Class(class)
    }

    /// Changes the use from what was `seen`.
    pub fn change(&self, seen: SuperState, usage: Use, owner: Owner) -> Option<SuperState> {
        let next = seen.to(usage, owner);
        self.state.compare_exchange(seen.0, next.0, Ordering::AcqRel, Ordering::Acquire).ok().map(|_| next)
    }

    /// The version that new blocks start from.
    pub fn floor(&self) -> u32 {
        self.rest.floor.load(Ordering::Relaxed) as u32
    }

    /// Raises it; by the owner of a draining superblock.
    pub fn set_floor(&self, floor: u32) {
        self.rest.floor.store(u64::from(floor), Ordering::Relaxed);
    }

    /// Notes that block `i` may be free.
    pub fn hint_free(&self, i: u32) {
        if let Some(word) = self.rest.free.get(i as usize / 64) {
            word.fetch_or(1 << (i % 64), Ordering::AcqRel);
        }
    }

    /// Notes that all blocks of `class` may be free.
    pub fn hint_all_free(&self, class: usize) {
        let mut left = class::per_superblock(class);
        for word in &self.rest.free {
            let here = left.min(64);
            word.store(if here == 64 { u64::MAX } else { (1 << here) - 1 }, Ordering::Release);
            left -= here;
        }
    }

    /// Takes up to `most` hinted blocks out of one word. `note` learns the number of the word's first block and the bits
    /// before they are taken (again if somebody else was faster). False if there are none.
    pub fn take_free(&self, most: u32, mut note: impl FnMut(u32, u64)) -> bool {
        for (i, word) in self.rest.free.iter().enumerate() {
            let mut seen = word.load(Ordering::Relaxed);
            while seen != 0 {
                let taken = lowest_bits(seen, most);
                note(i as u32 * 64, taken);
                match word.compare_exchange(seen, seen & !taken, Ordering::AcqRel, Ordering::Relaxed) {
                    Ok(_) => return true,
                    Err(now) => seen = now,
                }
            }
        }
        false
    }

    /// Whether block `i` is hinted free.
    pub fn is_hinted(&self, i: u32) -> bool {
        self.rest.free.get(i as usize / 64).is_some_and(|word| word.load(Ordering::Relaxed) >> (i % 64) & 1 == 1)
    }

    /// Whether any block is hinted free.
    pub fn has_free_hint(&self) -> bool {
        self.rest.free.iter().any(|w| w.load(Ordering::Relaxed) != 0)
    }
}

/// The lowest `most` bits that are set in `word`.
fn lowest_bits(word: u64, most: u32) -> u64 {
    let mut rest = word;
    for _ in 0..most {
        rest &= rest.wrapping_sub(1);
    }
    word & !rest
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn state_words_round_trip() {
        let owner = Owner::new(77, 0xabcd);
        let mut state = SuperState(0);
        for usage in [Use::Class(66), Use::Draining(66), Use::Converting, Use::Index, Use::Free] {
            let next = state.to(usage, owner);
            assert_eq!((next.usage(), next.owner()), (usage, owner));
            assert_eq!(next.changes(), state.changes() + 1);
            state = next;
        }
    }

    #[test]
    fn lowest_bits_are_the_lowest() {
        assert_eq!(lowest_bits(0b1011_0110, 3), 0b0001_0110);
        assert_eq!(lowest_bits(0b1000, 3), 0b1000);
        assert_eq!(lowest_bits(0, 3), 0);
    }
}
