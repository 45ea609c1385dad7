//! Caller memory and racing copies.
//!
//! Law: memory that another thread or process may write is moved only by the assembly below, never through a
//! slice or reference. What was copied may be torn; whoever reads from the heap validates afterwards.

use core::arch::asm;
use core::sync::atomic::{AtomicUsize, Ordering};

/// Caller memory to read.
#[derive(Clone, Copy, Debug)]
pub struct In {
    /// First byte.
    pub ptr: *const u8,
    /// Number of bytes.
    pub len: usize,
}

/// Caller memory to write.
#[derive(Clone, Copy, Debug)]
pub struct Out {
    /// First byte.
    pub ptr: *mut u8,
    /// Number of bytes.
    pub len: usize,
}

impl In {
    /// The bytes of a slice.
    pub fn new(bytes: &[u8]) -> Self {
        Self { ptr: bytes.as_ptr(), len: bytes.len() }
    }
}

impl Out {
    /// The bytes of a slice.
    pub fn new(bytes: &mut [u8]) -> Self {
        Self { ptr: bytes.as_mut_ptr(), len: bytes.len() }
    }
}

/// Addresses that a caller's pointer must not touch.
#[derive(Clone, Copy, Debug)]
pub struct Range {
    pub(crate) start: usize,
    pub(crate) len: usize,
}

impl Range {
    /// Whether `len` bytes at `ptr` are memory that a caller may hand in: not null when not empty, not wrapping,
    /// wholly outside the range.
    #[inline]
    pub fn admits(&self, ptr: *const u8, len: usize) -> bool {
        if len == 0 {
            return true;
        }
        // Counted from the range's start, one below it must not reach round to 0, and one above it must not wrap.
        let offset = (ptr as usize).wrapping_sub(self.start);
        !ptr.is_null()
            && offset >= self.len
            && offset.checked_add(len - 1).is_some()
            && (ptr as usize).checked_add(len - 1).is_some()
    }

    /// The same for at most 16 bytes, in two comparisons; it may refuse what `admits` would not.
    #[inline(always)]
    fn admits_short(&self, ptr: *const u8) -> bool {
        let offset = (ptr as usize).wrapping_sub(self.start).wrapping_add(16);
        offset >= self.len.wrapping_add(16) && (ptr as usize).wrapping_sub(1) < usize::MAX - 16
    }
}

/// All addresses that a caller's pointer must not touch: the heap's or, behind a key, everything that the key guards.
#[derive(Clone, Copy)]
pub struct Protected {
    pub(crate) heap: Range,
    pub(crate) others: Option<&'static Ranges>,
}

impl Protected {
    /// Whether `len` bytes at `ptr` are memory that a caller may hand in.
    #[inline]
    pub fn admits(&self, ptr: *const u8, len: usize) -> bool {
        self.others.map_or_else(|| self.heap.admits(ptr, len), |all| all.admit(ptr, len))
    }

    /// The same for at most 16 bytes; it may refuse what `admits` would not.
    #[inline(always)]
    pub fn admits_short(&self, ptr: *const u8) -> bool {
        self.others.map_or_else(|| self.heap.admits_short(ptr), |all| all.admit(ptr, 16))
    }
}

/// Ranges that a caller's pointers must not touch, of which the first begins with this very list.
#[repr(C)]
pub struct Ranges {
    /// Bytes of that one.
    own: AtomicUsize,
    /// How many there are, gaps included.
    count: AtomicUsize,
    /// Start and length; length 0 for a gap.
    words: [[AtomicUsize; 2]; RANGES],
}

/// Ranges at most, besides the list's own.
pub const RANGES: usize = 64;

impl Ranges {
    /// Whether `len` bytes at `ptr` lie outside of all.
    #[inline]
    pub fn admit(&self, ptr: *const u8, len: usize) -> bool {
        let own = Range { start: (&raw const *self) as usize, len: self.own.load(Ordering::Relaxed) };
        let count = self.count.load(Ordering::Acquire);
        own.admits(ptr, len)
            && self.words.iter().take(count).all(|[start, bytes]| {
                // The length first: a range that is just being made is there once its length is.
                let there = bytes.load(Ordering::Acquire);
                Range { start: start.load(Ordering::Relaxed), len: there }.admits(ptr, len)
            })
    }

    /// Sets how long the list's own range is.
    pub fn set_own(&self, len: usize) {
        self.own.store(len, Ordering::Relaxed);
    }

    /// How many there are, gaps included.
    #[inline]
    pub(crate) fn count(&self) -> usize {
        self.count.load(Ordering::Acquire)
    }

    /// Puts a range in a place that only ever has this one. Several may do so at a time: no call finds it missing that has done so.
    pub(crate) fn set_once(&self, index: usize, range: Range) {
        let Some([start, len]) = self.words.get(index) else { return };
        start.store(range.start, Ordering::Relaxed);
        len.store(range.len, Ordering::Release);
        self.count.fetch_max(index + 1, Ordering::AcqRel);
    }

    /// Puts a range in a place that is a gap, or makes it one by a length of 0.
    pub fn set(&self, index: usize, range: Range) {
        let Some([start, len]) = self.words.get(index) else { return };
        len.store(0, Ordering::Release);
        start.store(range.start, Ordering::Release);
        len.store(range.len, Ordering::Release);
        self.count.fetch_max(index + 1, Ordering::AcqRel);
    }
}

/// From here on the string instructions beat a vector loop on every x86-64 of the last ten years.
const REP_FROM: usize = 1024;

/// Copies `len` bytes between memory that may change meanwhile.
///
/// # Safety
/// `src` is readable and `dst` writable for `len` bytes, and they do not overlap.
#[inline(never)]
pub unsafe fn copy(dst: *mut u8, src: *const u8, len: usize) {
    // SAFETY: every access is within [0, len) of both ranges, which the caller grants; the assembly tells the compiler
    // of its memory effects, so racing bytes are torn at worst.
    unsafe {
        if len > 256 {
            if len >= REP_FROM {
                // lfence: the later validating loads stay behind the string instruction's loads.
                asm!("rep movsb", "lfence", inout("rcx") len => _, inout("rsi") src => _, inout("rdi") dst => _,
                     options(nostack, preserves_flags));
            } else {
                copy_blocks(dst, src, len);
            }
        } else if len >= 16 {
            copy_vectors(dst, src, len);
        } else {
            copy_small(dst, src, len);
        }
    }
}

/// The same where the length is most often 64 to 256: those are copied in line, by one computed jump's worth of moves.
///
/// # Safety
/// As for `copy`.
#[inline(always)]
pub unsafe fn copy_value(dst: *mut u8, src: *const u8, len: usize) {
    if (64..=256).contains(&len) {
        // SAFETY: the loop ends 64 bytes before the end, and the last 64 bytes are copied as such.
        unsafe {
            asm!(
                "2:",
                "movups {a}, [{s}]",
                "movups {b}, [{s} + 16]",
                "movups {c}, [{s} + 32]",
                "movups {e}, [{s} + 48]",
                "movups [{d}], {a}",
                "movups [{d} + 16], {b}",
                "movups [{d} + 32], {c}",
                "movups [{d} + 48], {e}",
                "add {s}, 64",
                "add {d}, 64",
                "cmp {s}, {last}",
                "jb 2b",
                "sub {d}, {s}",
                "add {d}, {last}",
                "movups {a}, [{last}]",
                "movups {b}, [{last} + 16]",
                "movups {c}, [{last} + 32]",
                "movups {e}, [{last} + 48]",
                "movups [{d}], {a}",
                "movups [{d} + 16], {b}",
                "movups [{d} + 32], {c}",
                "movups [{d} + 48], {e}",
                s = inout(reg) src => _,
                d = inout(reg) dst => _,
                last = in(reg) src.add(len - 64),
                a = out(xmm_reg) _,
                b = out(xmm_reg) _,
                c = out(xmm_reg) _,
                e = out(xmm_reg) _,
                options(nostack)
            );
        }
    } else {
        // SAFETY: passed on.
        unsafe { copy(dst, src, len) }
    }
}

/// 16..=256 bytes: 16 at a time, the last ones overlapping.
#[inline]
unsafe fn copy_vectors(dst: *mut u8, src: *const u8, len: usize) {
    // SAFETY: as for `copy`, with 16 <= len; the loop stops before its 16 bytes would pass len - 16.
    unsafe {
        let last = len - 16;
        if len > 64 {
            let mut at = 0;
            while at + 64 <= len {
                asm!(
                    "movups {a}, [{s}]", "movups {b}, [{s} + 16]", "movups {c}, [{s} + 32]", "movups {e}, [{s} + 48]",
                    "movups [{d}], {a}", "movups [{d} + 16], {b}", "movups [{d} + 32], {c}", "movups [{d} + 48], {e}",
                    s = in(reg) src.add(at), d = in(reg) dst.add(at),
                    a = out(xmm_reg) _, b = out(xmm_reg) _, c = out(xmm_reg) _, e = out(xmm_reg) _,
                    options(nostack, preserves_flags)
                );
                at += 64;
            }
            while at < last {
                copy16(dst.add(at), src.add(at));
                at += 16;
            }
        } else {
            copy16(dst, src);
            if len > 32 {
                copy16(dst.add(16), src.add(16));
                if len > 48 {
                    copy16(dst.add(32), src.add(32));
                }
            }
        }
        copy16(dst.add(last), src.add(last));
    }
}

/// 257..1024 bytes: 64 at a time and an overlapping tail.
#[inline(never)]
unsafe fn copy_blocks(dst: *mut u8, src: *const u8, len: usize) {
    // SAFETY: as for `copy_vectors`.
    unsafe { copy_vectors(dst, src, len) }
}

#[inline]
unsafe fn copy16(dst: *mut u8, src: *const u8) {
    // SAFETY: the caller grants 16 bytes at each.
    unsafe {
        asm!("movups {x}, [{s}]", "movups [{d}], {x}", s = in(reg) src, d = in(reg) dst, x = out(xmm_reg) _,
             options(nostack, preserves_flags));
    }
}

/// 0..16 bytes.
#[inline]
unsafe fn copy_small(dst: *mut u8, src: *const u8, len: usize) {
    // SAFETY: each branch reads and writes the first and last words of `len` bytes only.
    unsafe {
        if len >= 8 {
            let (a, b) = (load8(src), load8(src.add(len - 8)));
            store8(dst, a);
            store8(dst.add(len - 8), b);
        } else if len >= 4 {
            let (a, b) = (load4(src), load4(src.add(len - 4)));
            store4(dst, a);
            store4(dst.add(len - 4), b);
        } else {
            let mut at = 0;
            while at < len {
                dst.add(at).write_volatile(src.add(at).read_volatile());
                at += 1;
            }
        }
    }
}

/// Whether `len` bytes at `a` (private) equal those at `b` (may change meanwhile).
///
/// # Safety
/// Both are readable for `len` bytes.
#[inline]
pub unsafe fn equal(a: *const u8, b: *const u8, len: usize) -> bool {
    // SAFETY: each branch reads within [0, len) of both, which the caller grants.
    unsafe {
        if len >= 8 {
            let mut at = 0;
            while at + 8 < len {
                if load8(a.add(at)) != load8(b.add(at)) {
                    return false;
                }
                at += 8;
            }
            load8(a.add(len - 8)) == load8(b.add(len - 8))
        } else if len >= 4 {
            load4(a) == load4(b) && load4(a.add(len - 4)) == load4(b.add(len - 4))
        } else {
            let mut at = 0;
            while at < len {
                if a.add(at).read_volatile() != b.add(at).read_volatile() {
                    return false;
                }
                at += 1;
            }
            true
        }
    }
}

macro_rules! word_access {
    ($load:ident, $store:ident, $type:ty, $reg:literal) => {
        #[inline]
        pub(crate) unsafe fn $load(at: *const u8) -> $type {
            let word: $type;
            // SAFETY: the caller grants the bytes of one word at `at`; x86-64 loads need no alignment.
            unsafe {
                asm!(concat!("mov {w", $reg, "}, [{p}]"), p = in(reg) at, w = lateout(reg) word,
                     options(nostack, preserves_flags, readonly));
            }
            word
        }
        #[inline]
        pub(crate) unsafe fn $store(at: *mut u8, word: $type) {
            // SAFETY: the caller grants the bytes of one word at `at`; x86-64 stores need no alignment.
            unsafe {
                asm!(concat!("mov [{p}], {w", $reg, "}"), p = in(reg) at, w = in(reg) word,
                     options(nostack, preserves_flags));
            }
        }
    };
}
word_access!(load8, store8, u64, ":r");
word_access!(load4, store4, u32, ":e");

#[cfg(all(test, not(loom)))]
mod tests {
    extern crate std;
    use super::*;
    use std::vec::Vec;

    #[test]
    fn copies_move_exactly_their_bytes() {
        let from: Vec<u8> = (0..2100).map(|i| (i * 7 + i / 256) as u8).collect();
        for len in (0..=300).chain([511, 1000, 1023, 1024, 1025, 2000]) {
            for copy in [copy as unsafe fn(*mut u8, *const u8, usize), copy_value] {
                let mut to = std::vec![0xaa; len + 32];
                // SAFETY: both vectors are longer than `len`.
                unsafe { copy(to[16..].as_mut_ptr(), from[3..].as_ptr(), len) };
                assert_eq!(&to[16..16 + len], &from[3..3 + len], "{len}");
                assert!(to[..16].iter().chain(&to[16 + len..]).all(|b| *b == 0xaa), "{len}");
            }
        }
    }

    #[test]
    fn equality_looks_at_every_byte() {
        for len in 0..=64 {
            let a: Vec<u8> = (0..len as u8).collect();
            // SAFETY: both are `len` bytes.
            assert!(unsafe { equal(a.as_ptr(), a.clone().as_ptr(), len) });
            for i in 0..len {
                let mut b = a.clone();
                b[i] ^= 1;
                // SAFETY: both are `len` bytes.
                assert!(!unsafe { equal(a.as_ptr(), b.as_ptr(), len) }, "{len} {i}");
            }
        }
    }

    #[test]
    fn protected_ranges_admit_only_what_is_outside() {
        let p = Range { start: 0x10000, len: 0x1000 };
        let at = |a: usize| core::ptr::without_provenance::<u8>(a);
        for (start, len, ok) in [
            (0xf000, 0x1000, true),
            (0xf000, 0x1001, false),
            (0x11000, 1, true),
            (0x10fff, 1, false),
            (0x10800, 1, false),
            (0, 1, false),
            (0, 0, true),
            (usize::MAX - 3, 8, false),
            (0x11000, usize::MAX, false),
            (0x1000, usize::MAX, false),
        ] {
            assert_eq!(p.admits(at(start), len), ok, "{start:#x} {len:#x}");
        }
        for start in (0xff00..0x11100).chain([0, 1, usize::MAX, usize::MAX - 15, usize::MAX - 16]) {
            if p.admits_short(at(start)) {
                assert!(p.admits(at(start), 16), "{start:#x}");
            }
        }
        assert!(p.admits_short(at(0xffe0)) && p.admits_short(at(0x11000)) && p.admits_short(at(0x7fff_0000_0000)));
    }
}
