//! Linear hashing: which bucket a hash belongs to while the table grows one bucket at a time.
//!
//! With `level` L and `split` S the buckets are 0 .. 2^L + S. Buckets below S have been split: their items and those
//! of bucket `b + 2^L` are told apart by hash bit L. One store of this word commits a split.

use crate::hash::Hash;

/// The `{level, split}` word.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Growth(pub u64);

/// The first segment's buckets.
pub const LEVEL_MIN: u32 = 10;
/// Items keep 28 bits of their hash.
pub const LEVEL_MAX: u32 = 28;

impl Growth {
    /// A table of one segment.
    pub const START: Self = Self::new(LEVEL_MIN, 0);

    /// The word for a level and the next bucket to split.
    pub const fn new(level: u32, split: u32) -> Self {
        Self((level as u64) << 32 | split as u64)
    }

    /// L.
    #[inline]
    pub const fn level(self) -> u32 {
        (self.0 >> 32) as u32 & 31
    }

    /// The next bucket to be split.
    #[inline]
    pub const fn split(self) -> u32 {
        self.0 as u32
    }

    /// How many buckets there are.
    #[inline]
    pub const fn buckets(self) -> u32 {
        (1u32 << self.level()).wrapping_add(self.split())
    }

    /// The bucket that the next split adds.
    pub const fn target(self) -> u32 {
        self.buckets()
    }

    /// The bucket of a hash.
    #[inline]
    pub const fn bucket(self, hash: Hash) -> u32 {
        let mask = (1u32 << self.level()).wrapping_sub(1);
        let low = hash.0 as u32 & mask;
        if low < self.split() { hash.0 as u32 & (mask << 1 | 1) } else { low }
    }

    /// How many low bits of the hash say that an item is in `bucket`.
    pub const fn bits_of(self, bucket: u32) -> u32 {
        let low = bucket & (1u32 << self.level()).wrapping_sub(1);
        if low < self.split() { self.level() + 1 } else { self.level() }
    }

    /// The word after the next split; None at the largest table.
    pub const fn next(self) -> Option<Self> {
        if self.split().wrapping_add(1) < 1 << self.level() {
            Some(Self::new(self.level(), self.split().wrapping_add(1)))
        } else if self.level() + 1 < LEVEL_MAX {
            Some(Self::new(self.level() + 1, 0))
        } else {
            None
        }
    }

    /// Whether this can be the growth word of a heap with `segments` directory entries.
    pub const fn is_sane(self, segments: u32) -> bool {
        let level = self.0 >> 32;
        level >= LEVEL_MIN as u64
            && level < LEVEL_MAX as u64
            && self.split() < 1 << level
            && self.buckets().div_ceil(crate::layout::SEGMENT_BUCKETS) <= segments
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_split_moves_only_its_own_bucket() {
        let mut growth = Growth::START;
        for _ in 0..5000 {
            let next = growth.next().unwrap();
            assert_eq!(next.buckets(), growth.buckets() + 1);
            for h in (0..200_000u64).step_by(37) {
                let (old, new) = (growth.bucket(Hash(h)), next.bucket(Hash(h)));
                assert!(new < next.buckets());
                assert!(old == new || (old == growth.split() && new == growth.target()));
                let mask = (1u64 << next.bits_of(new)) - 1;
                assert_eq!(u64::from(new), h & mask);
            }
            growth = next;
        }
    }

    #[test]
    fn growth_stops_at_the_bits_an_item_keeps() {
        assert_eq!(Growth::new(LEVEL_MAX - 1, (1 << (LEVEL_MAX - 1)) - 1).next(), None);
    }
}
