//! The memory routines that a compiler may call for, of the image's own: libc's lie behind tables that the program can write, and use
//! registers that the gate does not know of.

use core::arch::asm;
use plib_core::user;

/// memcpy(3).
///
/// # Safety
/// As C's.
#[cfg_attr(plib_image, unsafe(no_mangle))]
pub unsafe extern "C" fn memcpy(to: *mut u8, from: *const u8, len: usize) -> *mut u8 {
    // SAFETY: passed on.
    unsafe { user::copy(to, from, len) };
    to
}

/// memmove(3).
///
/// # Safety
/// As C's.
#[cfg_attr(plib_image, unsafe(no_mangle))]
pub unsafe extern "C" fn memmove(to: *mut u8, from: *const u8, len: usize) -> *mut u8 {
    if (to as usize).wrapping_sub(from as usize) >= len {
        // Forwards, byte for byte: nothing is written that is still to be read.
        // SAFETY: passed on; the direction flag is clear, as the ABI has it.
        unsafe {
            asm!("rep movsb", inout("rcx") len => _, inout("rsi") from => _, inout("rdi") to => _,
                 options(nostack, preserves_flags));
        }
    } else {
        // SAFETY: backwards from the last byte; `len` is not 0 here. The flag is clear again afterwards.
        unsafe {
            asm!("std", "rep movsb", "cld", inout("rcx") len => _, inout("rsi") from.add(len - 1) => _,
                 inout("rdi") to.add(len - 1) => _, options(nostack));
        }
    }
    to
}

/// memset(3).
///
/// # Safety
/// As C's.
#[cfg_attr(plib_image, unsafe(no_mangle))]
pub unsafe extern "C" fn memset(to: *mut u8, byte: i32, len: usize) -> *mut u8 {
    // SAFETY: passed on.
    unsafe {
        asm!("rep stosb", inout("rcx") len => _, inout("rdi") to => _, in("al") byte as u8, options(nostack, preserves_flags));
    }
    to
}

/// memcmp(3).
///
/// # Safety
/// As C's.
#[cfg_attr(plib_image, unsafe(no_mangle))]
pub unsafe extern "C" fn memcmp(a: *const u8, b: *const u8, len: usize) -> i32 {
    let mut at = 0;
    while at < len {
        // SAFETY: `at < len`.
        let (x, y) = unsafe { (a.add(at).read_volatile(), b.add(at).read_volatile()) };
        if x != y {
            return i32::from(x) - i32::from(y);
        }
        at += 1;
    }
    0
}

/// bcmp(3).
///
/// # Safety
/// As C's.
#[cfg_attr(plib_image, unsafe(no_mangle))]
pub unsafe extern "C" fn bcmp(a: *const u8, b: *const u8, len: usize) -> i32 {
    // SAFETY: passed on.
    i32::from(!unsafe { user::equal(a, b, len) })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::vec::Vec;

    /// A kilobyte and a half of bytes that differ from their neighbours.
    fn bytes() -> Vec<u8> {
        (0..1500).map(|i: u32| (i * 7 + i / 256) as u8).collect()
    }

    #[test]
    fn bytes_are_moved_and_set_as_the_standard_library_does() {
        let from = bytes();
        for len in (0..=70).chain([255, 256, 257, 1000, 1030]) {
            for (source, target) in [(0, 40), (40, 0), (0, 0), (3, 4), (4, 3), (0, 1100 % (len + 1))] {
                let (mut is, mut must) = (from.clone(), from.clone());
                must.copy_within(source..source + len, target);
                // SAFETY: all lie within the vector.
                unsafe { memmove(is.as_mut_ptr().add(target), is.as_ptr().add(source), len) };
                assert_eq!(is, must, "{len} bytes from {source} to {target}");
            }
            let (mut is, mut must) = (from.clone(), from.clone());
            must[9..9 + len].copy_from_slice(&from[100..100 + len]);
            // SAFETY: two vectors.
            unsafe { memcpy(is.as_mut_ptr().add(9), from.as_ptr().add(100), len) };
            assert_eq!(is, must, "{len} bytes");
            must[5..5 + len].fill(0xa5);
            // SAFETY: as above; only the lowest byte counts.
            unsafe { memset(is.as_mut_ptr().add(5), 0x7ff_ffa5, len) };
            assert_eq!(is, must, "{len} bytes");
        }
    }

    #[test]
    fn bytes_are_compared_as_the_standard_library_does() {
        let a = bytes();
        for len in (0..=40_usize).chain([1000]) {
            for at in [0, len / 2, len.saturating_sub(1), len] {
                let mut b = a.clone();
                b[at] = b[at].wrapping_add(100);
                let must = a[..len].cmp(&b[..len]) as i32;
                // SAFETY: both vectors are longer than `len`.
                let (order, differ) =
                    unsafe { (memcmp(a.as_ptr(), b.as_ptr(), len), bcmp(a.as_ptr(), b.as_ptr(), len)) };
                assert_eq!((order.signum(), differ != 0), (must, must != 0), "{len} bytes, other at {at}");
            }
        }
    }
}
