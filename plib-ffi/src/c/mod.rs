//! The C ABI: `libplib.so` and `plib.h`, which cbindgen makes from these files.
//!
//! One file a type. Each function checks the handle against the table of open ones, checks its own output pointers, and
//! leaves keys, values and buffers to the core, which checks them against the heap.
#![allow(non_camel_case_types, reason = "these are C's names")]

pub(crate) mod batch;
pub(crate) mod check;
pub(crate) mod handle;
pub(crate) mod info;
pub(crate) mod item;
pub(crate) mod options;
pub(crate) mod scan;
pub(crate) mod stats;
pub(crate) mod status;
pub(crate) mod sweep;

use crate::claim::{Inside, enter};
use crate::error::Error;
use handle::plib_t;
use status::{fail, plib_status_t};

/// Runs an operation on a handle.
#[inline]
fn call(cache: *const plib_t, work: impl FnOnce(&mut Inside) -> Result<(), Error>) -> plib_status_t {
    match enter(cache as u64) {
        Ok(mut inside) => match work(&mut inside) {
            Ok(()) => plib_status_t::PLIB_OK,
            Err(e) => fail(e),
        },
        Err(refused) => fail(refused.into()),
    }
}

/// Where a result goes.
struct Output<T>(*mut T);

impl<T> Output<T> {
    /// Checks a pointer that the caller must give.
    #[inline]
    fn required(inside: &Inside, to: *mut T) -> Result<Self, Error> {
        if inside.admits(to.cast(), size_of::<T>()) && to.is_aligned() {
            Ok(Self(to))
        } else {
            Err(Error::Invalid("an output pointer is null, misaligned, or points into the heap"))
        }
    }

    /// Checks a pointer that may be null.
    #[inline]
    fn optional(inside: &Inside, to: *mut T) -> Result<Self, Error> {
        if to.is_null() { Ok(Self(to)) } else { Self::required(inside, to) }
    }

    /// Writes the result.
    #[inline]
    fn put(&self, result: T) {
        if !self.0.is_null() {
            // SAFETY: aligned, not null, outside the heap; that it is writable memory of the caller's is the C
            // function's contract.
            unsafe { self.0.write(result) };
        }
    }
}

/// The `n` requests at `first`.
///
/// # Safety
/// They are memory of the caller's that nobody else uses during the call.
#[inline]
unsafe fn requests<'a, T>(inside: &Inside, first: *mut T, n: usize) -> Result<&'a mut [T], Error> {
    if n == 0 {
        return Ok(&mut []);
    }
    let bytes = n.checked_mul(size_of::<T>()).filter(|bytes| *bytes <= isize::MAX as usize);
    if first.is_aligned() && bytes.is_some_and(|bytes| inside.admits(first.cast(), bytes)) {
        // SAFETY: not null, aligned, no overflow, outside the heap; the rest is the caller's promise.
        Ok(unsafe { std::slice::from_raw_parts_mut(first, n) })
    } else {
        Err(Error::Invalid("the requests are null, misaligned, too many, or inside the heap"))
    }
}
