//! The bytes of an item.
//!
//! ```text
//! word 0  meta        state, frequency, epoch, version          (heap::block)
//! word 1  cas         unique for the heap's life
//! word 2  flags | expiry                                        one store changes the expiry
//! word 3  info        hash 28 | key length 8 | numeric 1 | value length 27
//! 32      key
//!         inline:     value
//!         numeric:    to 16, { number, cas }                    one 16-byte store changes both
//!         large:      to 8, units of the fragments, 8 bytes each
//! ```
//!
//! A fragment is `meta | back word | up to 65520 bytes`; the back word names the head block in its life.
//! Words 1..3 and the bytes are written while the block is Claimed and read by anybody while it is Live, who then checks
//! that the meta word has not changed.

use crate::hash::Hash;
use crate::heap::block::{self, Meta};
use crate::heap::{Block, Heap, class};
use crate::layout::{ITEM_HEADER, SUPERBLOCK};
use crate::sync::{AtomicU64, Ordering};
use crate::user;
use core::arch::asm;

/// Bytes of a fragment before its part of the value.
pub const PART_HEADER: usize = 16;
const PART_MAX: usize = SUPERBLOCK - PART_HEADER;
/// A last fragment with more than this is given a whole superblock; a smaller one is cut in two to waste less.
const PART_WHOLE_FROM: usize = 57_344;
const HALF: usize = class::size(class::INLINE_MAX) as usize - PART_HEADER;
/// Most digits of a 64-bit number.
pub const DIGITS_MAX: usize = 20;

const VALUE_BITS: u32 = 27;
const NUMERIC: u64 = 1 << VALUE_BITS;
const KEY_SHIFT: u32 = 28;
const HASH_SHIFT: u32 = 36;

/// Word 3 of an item: everything about its shape.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Info(pub u64);

impl Info {
    /// For a value of `value_len` bytes under a key of `key_len`.
    pub const fn new(hash: Hash, key_len: usize, value_len: usize, numeric: bool) -> Self {
        Self(
            hash.0 << HASH_SHIFT
                | (key_len as u64 & 0xff) << KEY_SHIFT
                | if numeric { NUMERIC } else { 0 }
                | value_len as u64 & (NUMERIC - 1),
        )
    }

    /// The low 28 bits of the key's hash.
    #[inline]
    pub const fn hash(self) -> Hash {
        Hash(self.0 >> HASH_SHIFT)
    }

    /// Bytes of the key.
    #[inline]
    pub const fn key_len(self) -> usize {
        (self.0 >> KEY_SHIFT & 0xff) as usize
    }

    /// Bytes of the value (of a numeric item: the fewest digits it is shown with).
    #[inline]
    pub const fn value_len(self) -> usize {
        (self.0 & (NUMERIC - 1)) as usize
    }

    /// Whether the value is a `{number, cas}` pair.
    #[inline]
    pub const fn is_numeric(self) -> bool {
        self.0 & NUMERIC != 0
    }

    /// Whether the value is in fragments.
    #[inline]
    pub const fn is_large(self) -> bool {
        !self.is_numeric() && ITEM_HEADER + self.key_len() + self.value_len() > class::size(class::INLINE_MAX) as usize
    }

    /// How many fragments.
    pub const fn parts(self) -> usize {
        if self.is_large() { part_count(self.value_len()) } else { 0 }
    }

    /// Where an inline value starts.
    #[inline]
    pub const fn value_at(self) -> usize {
        ITEM_HEADER + self.key_len()
    }

    /// Where a numeric item's pair is.
    pub const fn pair_at(self) -> usize {
        (ITEM_HEADER + self.key_len()).next_multiple_of(16)
    }

    /// Where a large item's list is.
    pub const fn list_at(self) -> usize {
        (ITEM_HEADER + self.key_len()).next_multiple_of(8)
    }

    /// Bytes that the item's own block must have.
    #[inline]
    pub const fn block_size(self) -> usize {
        if self.is_numeric() {
            self.pair_at() + 16
        } else if self.is_large() {
            self.list_at() + 8 * self.parts()
        } else {
            self.value_at() + self.value_len()
        }
    }

    /// Header, key and value: what `item_size_max` bounds and statistics count.
    pub const fn item_size(self) -> usize {
        ITEM_HEADER + self.key_len() + self.value_len()
    }

    /// The value's length if the key may be one of this hash and length and the value is bytes (a number's is not; whether
    /// a long one is in fragments is for the caller to see).
    #[inline(always)]
    pub const fn usual_value_len(self, hash: Hash, key_len: usize) -> Option<usize> {
        let wanted = Self::new(hash, key_len, 0, false).0;
        let rest = self.0 ^ wanted;
        if rest < NUMERIC { Some(rest as usize) } else { None }
    }

    /// Whether a block in which `room` bytes are left can hold this; false for what a racing reader may come upon.
    #[inline(always)]
    pub const fn fits(self, room: usize) -> bool {
        // An inline item is the common case, and needs no more than this.
        !self.is_numeric() && self.value_at() + self.value_len() <= room || self.block_size() <= room
    }
}

/// The bit positions that two builds must agree on.
pub(crate) const SHAPE: u64 = Info::new(Hash(1), 2, 3, true).0 ^ (PART_WHOLE_FROM as u64) << 8;

const fn part_count(value_len: usize) -> usize {
    let rest = value_len % PART_MAX;
    let tail = if rest == 0 {
        0
    } else if rest > HALF && rest < PART_WHOLE_FROM {
        2
    } else {
        1
    };
    value_len / PART_MAX + tail
}

/// Which bytes of a value of `value_len` bytes fragment `i` holds: `(first, how many)`.
pub const fn part(value_len: usize, i: usize) -> (usize, usize) {
    let whole = value_len / PART_MAX;
    let rest = value_len % PART_MAX;
    if i < whole {
        (i * PART_MAX, PART_MAX)
    } else if rest > HALF && rest < PART_WHOLE_FROM {
        if i == whole { (whole * PART_MAX, HALF) } else { (whole * PART_MAX + HALF, rest - HALF) }
    } else {
        (whole * PART_MAX, rest)
    }
}

/// The words of an item or of a fragment, by what they mean.
impl Heap {
    #[inline]
    pub(crate) fn cas_word(&self, block: Block) -> &AtomicU64 {
        self.word(block, 1)
    }

    /// A fragment's back word.
    pub(crate) fn back_word(&self, part: Block) -> &AtomicU64 {
        self.word(part, 1)
    }

    #[inline]
    pub(crate) fn times_word(&self, block: Block) -> &AtomicU64 {
        self.word(block, 2)
    }

    #[inline]
    pub(crate) fn info(&self, block: Block) -> Info {
        Info(self.word(block, 3).load(Ordering::Relaxed))
    }

    pub(crate) fn set_info(&self, block: Block, info: Info) {
        self.word(block, 3).store(info.0, Ordering::Relaxed);
    }

    /// Where fragment `i`'s unit stands in a head.
    pub(crate) fn part_word(&self, head: Block, info: Info, i: usize) -> Option<&AtomicU64> {
        let at = info.list_at() + 8 * i;
        if at + 8 > self.room(head) {
            return None;
        }
        // SAFETY: inside the head's superblock (just checked), 8-byte aligned as `list_at` and blocks are; only ever used
        // as an atomic word while the block is a large head, and a stale reader validates.
        Some(unsafe { &*self.bytes(head, at).cast::<AtomicU64>() })
    }

    /// Whether the item's key is `key` (private bytes). Reads racing bytes; validate after.
    #[inline]
    pub(crate) fn key_is(&self, block: Block, info: Info, key: &[u8]) -> bool {
        info.key_len() == key.len()
            && info.fits(self.room(block))
            // SAFETY: key and item bytes are readable for `key.len()`: the item fits the room of its block.
            && unsafe { user::equal(key.as_ptr(), self.bytes(block, ITEM_HEADER), key.len()) }
    }
}

/// Splits word 2.
#[inline]
pub const fn times(word: u64) -> (u32, u32) {
    ((word >> 32) as u32, word as u32)
}

/// Makes word 2 from flags and expiry.
#[inline]
pub const fn times_word(flags: u32, expiry: u32) -> u64 {
    (flags as u64) << 32 | expiry as u64
}

/// A numeric item's value with its cas.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Pair {
    /// The number.
    pub number: u64,
    /// The item's cas since that number.
    pub cas: u64,
}

impl Heap {
    /// Where a numeric item's pair is; None for what is not a numeric item that fits where it is.
    fn pair_place(&self, block: Block, info: Info) -> Option<*mut u8> {
        (info.is_numeric() && info.fits(self.room(block))).then(|| self.bytes(block, info.pair_at()))
    }

    fn pair_words(&self, block: Block, info: Info) -> Option<(&AtomicU64, &AtomicU64)> {
        let at = self.pair_place(block, info)?;
        // SAFETY: 16-byte aligned words inside the block's superblock (`pair_place`), only used as atomics.
        Some(unsafe { (&*at.cast(), &*at.add(8).cast()) })
    }

    /// Reads a pair as one: every change has a new cas, so equal ones around the number vouch for it.
    pub(crate) fn load_pair(&self, block: Block, info: Info) -> Option<Pair> {
        let (number, cas) = self.pair_words(block, info)?;
        for _ in 0..16 {
            let before = cas.load(Ordering::Acquire);
            let n = number.load(Ordering::Acquire);
            if cas.load(Ordering::Acquire) == before {
                return Some(Pair { number: n, cas: before });
            }
        }
        None
    }

    /// Fills the pair of a block that is still claimed.
    pub(crate) fn init_pair(&self, block: Block, info: Info, pair: Pair) {
        if let Some((number, cas)) = self.pair_words(block, info) {
            number.store(pair.number, Ordering::Relaxed);
            cas.store(pair.cas, Ordering::Relaxed);
        }
    }

    /// Changes number and cas in one 16-byte store; the bucket's lock is held, so it never has to repeat.
    pub(crate) fn swap_pair(&self, block: Block, info: Info, old: Pair, new: Pair) -> bool {
        let Some(at) = self.pair_place(block, info) else { return false };
        let done: u8;
        // SAFETY: `at` is 16-byte aligned and inside the block; rbx, which the compiler keeps for itself, is put back.
        unsafe {
            asm!(
                "xchg rsi, rbx",
                "lock cmpxchg16b [rdi]",
                "sete r8b",
                "mov rbx, rsi",
                in("rdi") at,
                inout("rsi") new.number => _,
                out("r8b") done,
                inout("rax") old.number => _,
                inout("rdx") old.cas => _,
                in("rcx") new.cas,
                options(nostack)
            );
        }
        done != 0
    }
}

/// Writes a number's digits to the end of `text`; the digits.
#[inline]
pub fn format_number(number: u64, text: &mut [u8; DIGITS_MAX]) -> &[u8] {
    let mut rest = number;
    let mut first = DIGITS_MAX;
    for place in text.iter_mut().rev() {
        *place = b'0' + (rest % 10) as u8;
        first -= 1;
        rest /= 10;
        if rest == 0 {
            break;
        }
    }
    text.get(first..).unwrap_or(&[])
}

/// Whether a number has no more digits than `width`.
#[inline]
pub fn fits_width(number: u64, width: usize) -> bool {
    // From 20 digits on every 64-bit number fits.
    TENS.get(width).is_none_or(|least| number < *least)
}

/// The powers of ten below 2^64: the least number with one digit more than its index.
const TENS: [u64; DIGITS_MAX] = {
    let mut tens = [1; DIGITS_MAX];
    let mut i = 1;
    #[allow(clippy::indexing_slicing, reason = "evaluated by the compiler")]
    while i < DIGITS_MAX {
        tens[i] = tens[i - 1] * 10;
        i += 1;
    }
    tens
};

/// Reads a value as memcached does: decimal digits, then nothing but spaces; None for anything else or over 64 bits.
pub fn parse_number(text: &[u8]) -> Option<u64> {
    let digits = text.iter().take_while(|b| b.is_ascii_digit()).count();
    let (number, rest) = text.split_at_checked(digits)?;
    if number.is_empty() || rest.iter().any(|b| *b != b' ') {
        return None;
    }
    number.iter().try_fold(0u64, |n, b| n.checked_mul(10)?.checked_add(u64::from(b - b'0')))
}

/// Whether a live item's `meta` and `epoch now` say that no flush has come between.
#[inline]
pub fn unflushed(meta: Meta, epoch: u32) -> bool {
    meta.epoch() == epoch & block::EPOCH_MASK
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn info_words_round_trip() {
        let info = Info::new(Hash(0xfff_ffff), 250, (1 << 27) - 1, true);
        assert_eq!((info.hash().0, info.key_len(), info.value_len()), (0xfff_ffff, 250, (1 << 27) - 1));
        assert!(info.is_numeric() && !info.is_large());
        assert!(!Info::new(Hash(0), 1, 1, false).is_numeric());
    }

    #[test]
    fn fragments_cover_the_value_once() {
        for len in [32_737, 32_752, 40_000, 57_343, 57_344, 65_519, 65_520, 65_521, 98_272, 1 << 20, (1 << 27) - 300] {
            let info = Info::new(Hash(0), 16, len, false);
            assert!(info.is_large());
            let mut next = 0;
            for i in 0..info.parts() {
                let (first, bytes) = part(len, i);
                assert_eq!(first, next);
                assert!(bytes > 0 && bytes <= PART_MAX && class::for_size(bytes + PART_HEADER).is_some());
                next += bytes;
            }
            assert_eq!(next, len);
            assert!(info.block_size() <= class::size(class::INLINE_MAX) as usize);
        }
    }

    #[test]
    fn numbers_are_those_of_memcached() {
        for (text, number) in
            [("0", Some(0)), ("18446744073709551615", Some(u64::MAX)), ("9 ", Some(9)), ("007", Some(7))]
        {
            assert_eq!(parse_number(text.as_bytes()), number);
        }
        for text in ["", " 1", "-1", "1a", "18446744073709551616", "1 2", "99999999999999999999999"] {
            assert_eq!(parse_number(text.as_bytes()), None, "{text}");
        }
        for number in [0, 9, 10, 99, 100, 10u64.pow(19) - 1, 10u64.pow(19), u64::MAX] {
            for width in 1..=20 {
                let digits = format_number(number, &mut [0; DIGITS_MAX]).len();
                assert_eq!(fits_width(number, width), digits <= width, "{number} {width}");
            }
        }
        for number in [0, 7, 10, u64::MAX] {
            let mut text = [0; DIGITS_MAX];
            assert_eq!(parse_number(format_number(number, &mut text)), Some(number));
        }
    }
}
