//! Size classes: which block sizes there are.
//!
//! 16-byte steps to 256, eight steps a doubling to 1024, then sizes that divide a superblock: at most 13 % apart up
//! to 8 KiB and the divisors of 64 KiB above. Class 0 is for the index's chain lines and never holds an item.

use crate::layout::{SUPERBLOCK, UNIT};

/// How many blocks of each larger class a superblock holds.
const LARGE: [u32; LARGE_COUNT] = [
    60, 56, 52, 48, 45, 42, 39, 36, 34, 32, 30, 28, 26, 24, 22, 20, 19, 18, 17, 16, 15, 14, 13, 12, 11, 10, 9, 8, 7, 6,
    5, 4, 3, 2, 1,
];
const LARGE_COUNT: usize = 35;
const SMALL_FIRST: u32 = 48;
const SMALL_COUNT: usize = 14; // 48, 64 .. 256
const MIDDLE_COUNT: usize = 16; // 288 .. 512 by 32, 576 .. 1024 by 64

/// The class of the index's chain lines: 64-byte blocks on 64-byte boundaries.
pub const CHAIN: usize = 0;
/// Number of classes.
pub const COUNT: usize = 1 + SMALL_COUNT + MIDDLE_COUNT + LARGE_COUNT;
/// The class of whole superblocks.
pub const WHOLE: usize = COUNT - 1;
/// The largest class that an item's own block may have: two in a superblock, just under 32 KiB.
pub const INLINE_MAX: usize = COUNT - 2;

const SIZES: [u32; COUNT] = sizes();

#[allow(clippy::indexing_slicing, reason = "evaluated by the compiler")]
const fn sizes() -> [u32; COUNT] {
    let mut table = [0; COUNT];
    table[CHAIN] = 64;
    let mut i = 0;
    while i < SMALL_COUNT {
        table[1 + i] = SMALL_FIRST + 16 * i as u32;
        i += 1;
    }
    i = 0;
    while i < 8 {
        table[1 + SMALL_COUNT + i] = 288 + 32 * i as u32;
        table[1 + SMALL_COUNT + 8 + i] = 576 + 64 * i as u32;
        i += 1;
    }
    i = 0;
    while i < LARGE_COUNT {
        table[1 + SMALL_COUNT + MIDDLE_COUNT + i] = SUPERBLOCK as u32 / LARGE[i] / 16 * 16;
        i += 1;
    }
    table
}

/// The smallest class for each number of 16-byte units: finding one is a load.
const FOR_UNITS: [u8; SUPERBLOCK / UNIT + 1] = for_units();

#[allow(clippy::indexing_slicing, reason = "evaluated by the compiler")]
const fn for_units() -> [u8; SUPERBLOCK / UNIT + 1] {
    let mut table = [0u8; SUPERBLOCK / UNIT + 1];
    let mut class = 1;
    let mut i = 0;
    while i < table.len() {
        while class < WHOLE && (SIZES[class] as usize) < i * UNIT {
            class += 1;
        }
        table[i] = class as u8;
        i += 1;
    }
    table
}

/// Bytes in a block of the class; 0 for a number that is none.
#[inline]
pub const fn size(class: usize) -> u32 {
    if class < COUNT {
        #[allow(clippy::indexing_slicing, reason = "just checked")]
        SIZES[class]
    } else {
        0
    }
}

/// Blocks of the class in a superblock.
#[inline]
pub const fn per_superblock(class: usize) -> u32 {
    match size(class) {
        0 => 0,
        bytes => SUPERBLOCK as u32 / bytes,
    }
}

/// The smallest item class with room for `bytes`; None above 64 KiB.
#[inline(always)]
pub fn for_size(bytes: usize) -> Option<usize> {
    FOR_UNITS.get(bytes.div_ceil(UNIT)).map(|class| usize::from(*class))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn classes_ascend_in_steps_of_at_most_13_percent_up_to_8_kib() {
        for class in 2..COUNT {
            let (small, big) = (size(class - 1), size(class));
            assert!(small < big, "class {class}");
            if small >= 128 && big <= 8192 {
                assert!((big - small) * 100 <= small * 13, "class {class}: {small} -> {big}");
            }
            assert_eq!(big % 16, 0);
        }
        assert_eq!(size(WHOLE), 65536);
        assert_eq!(size(INLINE_MAX), 32768);
    }

    #[test]
    fn every_size_gets_the_smallest_class_that_holds_it() {
        for bytes in 1..=SUPERBLOCK {
            let class = for_size(bytes).unwrap();
            assert!(size(class) as usize >= bytes);
            assert!(class == 1 || (size(class - 1) as usize) < bytes, "{bytes} in class {class}");
        }
        assert_eq!(for_size(SUPERBLOCK + 1), None);
    }
}
