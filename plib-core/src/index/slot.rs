//! A slot word: which block an item is in, and enough of its hash to know where it belongs.
//!
//! ```text
//!   63    62              36 35              0
//! +------+------------------+-----------------+
//! | link | tag: hash 10..37 | unit            |
//! +------+------------------+-----------------+
//! ```
//!
//! 0 is an empty slot. The last word of a line may be a link to a chain line instead. The tag has every hash bit
//! that a split may ask for above the first 1024 buckets, so a split reads no item.

use crate::hash::Hash;

/// One of the seven slot words of a line.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Slot(pub u64);

const UNIT_BITS: u32 = 36;
const UNIT_MASK: u64 = (1 << UNIT_BITS) - 1;
const TAG_FROM: u32 = 10;
const TAG_MASK: u64 = (1 << 27) - 1;
const LINK: u64 = 1 << 63;

impl Slot {
    /// No item.
    pub const EMPTY: Self = Self(0);

    /// The item of hash `hash` in the block at `unit`.
    #[inline]
    pub const fn new(hash: Hash, unit: u64) -> Self {
        Self((hash.0 >> TAG_FROM & TAG_MASK) << UNIT_BITS | unit & UNIT_MASK)
    }

    /// A link to the chain line at `unit`.
    pub const fn link(unit: u64) -> Self {
        Self(LINK | unit & UNIT_MASK)
    }

    /// Whether there is nothing here.
    #[inline]
    pub const fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// Whether this is a link.
    #[inline]
    pub const fn is_link(self) -> bool {
        self.0 & LINK != 0
    }

    /// Whether this names an item.
    #[inline]
    pub const fn is_item(self) -> bool {
        self.0 != 0 && self.0 & LINK == 0
    }

    /// Whether the item may be one of hash `hash`.
    #[inline]
    pub const fn may_be(self, hash: Hash) -> bool {
        (self.0 ^ Self::new(hash, 0).0) >> UNIT_BITS == 0 && self.0 & UNIT_MASK != 0
    }

    /// Where the block or line is.
    #[inline]
    pub const fn unit(self) -> u64 {
        self.0 & UNIT_MASK
    }

    /// The hash bits 0..37 of an item found in bucket `bucket`.
    #[inline]
    pub const fn hash_in(self, bucket: u32) -> Hash {
        Hash((self.0 >> UNIT_BITS & TAG_MASK) << TAG_FROM | bucket as u64 & ((1 << TAG_FROM) - 1))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slot_words_round_trip() {
        let hash = Hash(0x1f_ffff_fabc);
        let slot = Slot::new(hash, (1 << 36) - 1);
        assert!(slot.is_item() && !slot.is_link() && !slot.is_empty());
        assert_eq!(slot.unit(), (1 << 36) - 1);
        assert_eq!(slot.hash_in(0x2bc), hash);
        assert!(slot.may_be(hash) && !slot.may_be(Hash(hash.0 ^ 1 << 36)) && slot.may_be(Hash(hash.0 ^ 1 << 37)));
        assert!(Slot::link(5).is_link() && !Slot::link(5).is_item() && Slot::link(5).unit() == 5);
        assert!(!Slot::EMPTY.may_be(Hash(0)));
    }
}
