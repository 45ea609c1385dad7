//! Sets of superblocks as two-level bitmaps: where to look first, never the truth (I2).
//!
//! Inserting twice is harmless, and a member that is lost (its remover died) is found again by a walk over the
//! descriptors. A summary bit says that a leaf word may have members.

use crate::sync::{AtomicU64, Ordering, fence_after_rmw};

/// A set over `0..64 * leaves.len()`.
#[derive(Clone, Copy)]
pub struct HintSet<'h> {
    leaves: &'h [AtomicU64],
    summary: &'h [AtomicU64],
}

#[inline]
const fn bit(i: u32) -> u64 {
    1 << (i % 64)
}

impl<'h> HintSet<'h> {
    /// A set over these words.
    pub const fn new(leaves: &'h [AtomicU64], summary: &'h [AtomicU64]) -> Self {
        Self { leaves, summary }
    }

    fn leaf(&self, i: u32) -> Option<&'h AtomicU64> {
        self.leaves.get(i as usize / 64)
    }

    fn summary_of(&self, leaf: u32) -> Option<&'h AtomicU64> {
        self.summary.get(leaf as usize / 64)
    }

    /// Whether `i` is in the set.
    pub fn contains(&self, i: u32) -> bool {
        self.leaf(i).is_some_and(|w| w.load(Ordering::Relaxed) & bit(i) != 0)
    }

    /// Adds `i`.
    pub fn insert(&self, i: u32) {
        let Some(leaf) = self.leaf(i) else { return };
        if leaf.load(Ordering::Relaxed) & bit(i) == 0 {
            leaf.fetch_or(bit(i), Ordering::AcqRel);
            // Leaf before summary here, summary before leaf in `remove`: one of the two sees the other.
            fence_after_rmw();
        }
        let Some(summary) = self.summary_of(i / 64) else {
            return;
        };
        if summary.load(Ordering::Relaxed) & bit(i / 64) == 0 {
            summary.fetch_or(bit(i / 64), Ordering::AcqRel);
        }
    }

    /// Takes `i` out; whether it was in.
    pub fn remove(&self, i: u32) -> bool {
        let Some(leaf) = self.leaf(i) else {
            return false;
        };
        let before = leaf.fetch_and(!bit(i), Ordering::AcqRel);
        if before == bit(i)
            && let Some(summary) = self.summary_of(i / 64)
        {
            summary.fetch_and(!bit(i / 64), Ordering::AcqRel);
            fence_after_rmw();
            // Somebody may have inserted between the two: put the summary bit back then.
            if leaf.load(Ordering::Acquire) != 0 {
                summary.fetch_or(bit(i / 64), Ordering::AcqRel);
            }
        }
        before & bit(i) != 0
    }

    /// Whether there are `n` members or more.
    pub fn has(&self, n: u32) -> bool {
        let (mut from, mut seen) = (0, 0);
        while let Some(i) = self.at_or_after(from) {
            let word = self.leaf(i).map_or(0, |leaf| leaf.load(Ordering::Relaxed));
            seen += word.count_ones();
            if seen >= n {
                return true;
            }
            from = (i / 64 + 1) * 64;
        }
        false
    }

    /// How many members there are; looks at every word.
    pub fn count(&self) -> u64 {
        self.leaves.iter().map(|leaf| u64::from(leaf.load(Ordering::Relaxed).count_ones())).sum()
    }

    /// The first member at or after `from`, or the first of all; None when the set looks empty.
    pub fn next(&self, from: u32) -> Option<u32> {
        self.at_or_after(from).or_else(|| self.at_or_after(0))
    }

    /// The first member at or after `from`.
    pub fn at_or_after(&self, from: u32) -> Option<u32> {
        let mut leaf = from / 64;
        let mut mask = u64::MAX << (from % 64);
        loop {
            if mask != u64::MAX || self.summary_has(leaf) {
                let word = self.leaves.get(leaf as usize)?.load(Ordering::Relaxed) & mask;
                if word != 0 {
                    return Some(leaf * 64 + word.trailing_zeros());
                }
            }
            mask = u64::MAX;
            leaf = self.next_leaf(leaf + 1)?;
        }
    }

    fn summary_has(&self, leaf: u32) -> bool {
        self.summary_of(leaf).is_some_and(|w| w.load(Ordering::Relaxed) & bit(leaf) != 0)
    }

    fn next_leaf(&self, from: u32) -> Option<u32> {
        let mut at = from / 64;
        let mut mask = u64::MAX << (from % 64);
        loop {
            let word = self.summary.get(at as usize)?.load(Ordering::Relaxed) & mask;
            if word != 0 {
                return Some(at * 64 + word.trailing_zeros());
            }
            mask = u64::MAX;
            at += 1;
        }
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    extern crate std;
    use super::*;
    use std::vec::Vec;

    #[test]
    fn members_are_found_in_order_and_around() {
        let leaves: Vec<AtomicU64> = (0..200).map(|_| AtomicU64::new(0)).collect();
        let summary: Vec<AtomicU64> = (0..4).map(|_| AtomicU64::new(0)).collect();
        let set = HintSet::new(&leaves, &summary);
        assert_eq!(set.next(5), None);
        for i in [3, 64, 4095, 4096, 12_799] {
            set.insert(i);
            set.insert(i);
        }
        set.insert(12_800); // outside: ignored
        let mut found = Vec::new();
        let mut from = 0;
        while let Some(i) = set.at_or_after(from) {
            found.push(i);
            from = i + 1;
        }
        assert_eq!(found, [3, 64, 4095, 4096, 12_799]);
        assert!(set.has(5) && !set.has(6) && set.count() == 5);
        assert_eq!(set.next(12_800), Some(3));
        assert!(set.remove(3) && !set.remove(3));
        assert_eq!(set.next(12_800), Some(64));
        assert!(set.contains(64) && !set.contains(3));
    }
}
