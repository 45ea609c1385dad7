//! Caller memory and racing copies.
//!
//! Law: memory that another thread or process may write is moved only by the assembly below, never through a
//! slice or reference. What was copied may be torn; whoever reads from the heap validates afterwards.

use core::arch::asm;

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

/// The address range that a caller's pointer must not touch.
#[derive(Clone, Copy, Debug)]
pub struct Protected {
    pub(crate) start: usize,
    pub(crate) len: usize,
}

impl Protected {
    /// Whether `len` bytes at `ptr` are memory that a caller may hand in: not null when not empty, not wrapping,
    /// wholly outside the heap.
    #[inline]
    pub fn admits(&self, ptr: *const u8, len: usize) -> bool {
        if len == 0 {
            return true;
        }
        // Counted from the heap's start, a range below it must not reach round to 0, and one above it must not wrap.
        let offset = (ptr as usize).wrapping_sub(self.start);
        !ptr.is_null()
            && offset >= self.len
            && offset.checked_add(len - 1).is_some()
            && (ptr as usize).checked_add(len - 1).is_some()
    }
}

/// From here on the string instructions beat a vector loop on every x86-64 of the last ten years.
const REP_FROM: usize = 1024;

/// Copies `len` bytes between memory that may change meanwhile.
///
/// # Safety
/// `src` is readable and `dst` writable for `len` bytes, and they do not overlap.
#[inline]
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
