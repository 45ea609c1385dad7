//! The heaps that a launcher mapped before the program began. Where there are some, the gate takes no other mapping for a heap; and no
//! caller's pointer may touch them, whether they are open or not.

use super::vault::HEAPS;
use crate::user::Range;
use core::sync::atomic::{AtomicUsize, Ordering};

/// One of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Mapping {
    base: usize,
    /// Bytes of the heap.
    len: usize,
    /// Bytes of its mapping: huge pages round it up.
    mapped: usize,
}

/// All of them, as the launcher knows them.
#[derive(Clone, Copy, Debug)]
pub struct Launched {
    mappings: [Mapping; HEAPS],
    count: usize,
}

impl Launched {
    /// None: heaps are mapped by the program.
    pub const NONE: Self = Self { mappings: [Mapping { base: 0, len: 0, mapped: 0 }; HEAPS], count: 0 };

    /// One more, of `len` bytes in a mapping of `mapped`. False if there are too many.
    pub fn add(&mut self, base: usize, len: usize, mapped: usize) -> bool {
        let Some(place) = self.mappings.get_mut(self.count) else { return false };
        *place = Mapping { base, len, mapped };
        self.count += 1;
        true
    }
}

/// All of them, in the gate's constants.
pub(super) struct LaunchedHeaps {
    count: AtomicUsize,
    words: [[AtomicUsize; 3]; HEAPS],
}

impl LaunchedHeaps {
    /// Constants of these.
    pub const fn new(launched: &Launched) -> Self {
        let mut words = [const { [const { AtomicUsize::new(0) }; 3] }; HEAPS];
        let mut i = 0;
        #[allow(clippy::indexing_slicing, reason = "both have HEAPS elements")]
        while i < HEAPS {
            let Mapping { base, len, mapped } = launched.mappings[i];
            words[i] = [AtomicUsize::new(base), AtomicUsize::new(len), AtomicUsize::new(mapped)];
            i += 1;
        }
        Self { count: AtomicUsize::new(launched.count), words }
    }

    /// How many there are.
    #[inline]
    pub fn count(&self) -> usize {
        self.count.load(Ordering::Relaxed)
    }

    fn mappings(&self) -> impl Iterator<Item = Mapping> {
        let load = |word: &AtomicUsize| word.load(Ordering::Relaxed);
        let mapping =
            move |[base, len, mapped]: &[_; 3]| Mapping { base: load(base), len: load(len), mapped: load(mapped) };
        self.words.iter().take(self.count()).map(mapping)
    }

    /// Whether `len` bytes at `base` are just one of them.
    pub fn has(&self, base: usize, len: usize) -> bool {
        self.mappings().any(|mapping| (mapping.base, mapping.len) == (base, len))
    }

    /// What they take of the address space.
    pub fn ranges(&self) -> impl Iterator<Item = Range> {
        self.mappings().map(|mapping| Range { start: mapping.base, len: mapping.mapped })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn constants_have_what_was_added() {
        let mut launched = Launched::NONE;
        assert!(launched.add(0x20_0000, 100, 200) && launched.add(0x40_0000, 300, 300));
        let heaps = LaunchedHeaps::new(&launched);
        assert!(heaps.has(0x20_0000, 100) && heaps.has(0x40_0000, 300) && heaps.count() == 2);
        assert!(!heaps.has(0x20_0000, 200) && !heaps.has(0x20_0001, 100) && !heaps.has(0, 0));
        assert!(heaps.ranges().map(|range| range.len).eq([200, 300]));
        while launched.add(1, 1, 1) {}
        assert_eq!((launched.count, LaunchedHeaps::new(&launched).count()), (HEAPS, HEAPS));
    }
}
