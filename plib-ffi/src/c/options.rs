//! Structs with a leading `size` field: a program built against an older or newer header still fits.

use crate::error::Error;
use plib_core::domain::Isolation;
use std::ffi::c_char;

/// What keeps a program out of the heap between calls.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum plib_isolation_t {
    /// Nothing: the heap is mapped readable and writable.
    PLIB_ISOLATION_NONE = 0,
    /// The heap is inaccessible outside calls.
    PLIB_ISOLATION_GUARDED = 1,
    /// As guarded, against a program that means harm.
    PLIB_ISOLATION_SEALED = 2,
}

impl From<Isolation> for plib_isolation_t {
    fn from(tier: Isolation) -> Self {
        match tier {
            Isolation::None => Self::PLIB_ISOLATION_NONE,
            Isolation::Guarded => Self::PLIB_ISOLATION_GUARDED,
            Isolation::Sealed => Self::PLIB_ISOLATION_SEALED,
        }
    }
}

/// What a program wants of a heap that it opens. Set all to zero, then `size`, then what is wanted.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct plib_options_t {
    /// sizeof(plib_options_t).
    pub size: usize,
    /// The least isolation accepted, a plib_isolation_t. More is given where it can be had (see PLIB_ISOLATION).
    pub isolation: u32,
    /// Must be 0.
    pub reserved: u32,
}

/// How a heap is to be made. Set all to zero, then `size` and `heap_size`, then what is wanted.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct plib_create_options_t {
    /// sizeof(plib_create_options_t).
    pub size: usize,
    /// Bytes of the heap, 8 MiB to 1 TiB.
    pub heap_size: u64,
    /// Largest item, bytes of header (32), key and value; 0 is 1 MiB, or a quarter of a smaller heap.
    pub item_size_max: u32,
    /// How many threads of all processes can work at a time; 0 chooses by the heap's size.
    pub contexts: u32,
    /// The file's permission bits; 0 is 0600.
    pub mode: u32,
    /// 1 to ask for 2 MiB pages.
    pub huge: u32,
    /// The file's group, by name or number; NULL leaves it to the system.
    pub group: *const c_char,
    /// 1 to let programs read the heap without a gate where it is guarded: they may read all of it, and still write nothing.
    pub readable: u32,
    /// Must be 0.
    pub reserved: u32,
}

/// Structs of which C hands in one that may be shorter or longer than ours.
///
/// # Safety
/// `repr(C)`, a leading `usize` that counts bytes, and every pattern of bits a value.
pub(super) unsafe trait Sized0: Copy {
    /// Bytes of the first release's struct.
    const FIRST: usize;
}

// SAFETY: repr(C) of numbers, `size` first.
unsafe impl Sized0 for plib_options_t {
    const FIRST: usize = 16;
}
// SAFETY: repr(C) of numbers and a pointer, `size` first.
unsafe impl Sized0 for plib_create_options_t {
    const FIRST: usize = 40;
}

const BAD_SIZE: Error =
    Error::Invalid("the struct's size field is not its size, or it has fields that this plib does not know");

/// Bytes that the caller's struct has.
///
/// # Safety
/// `from` points to at least a `usize`.
pub(super) unsafe fn caller_size<T: Sized0>(from: *const T) -> Result<usize, Error> {
    if from.is_null() || !from.is_aligned() {
        return Err(Error::Invalid("a struct pointer is null or misaligned"));
    }
    // SAFETY: the caller's promise.
    let size = unsafe { from.cast::<usize>().read() };
    // A page is more than any future struct; it keeps garbage from being followed.
    if (T::FIRST..=4096 * 2).contains(&size) { Ok(size) } else { Err(BAD_SIZE) }
}

/// Copies the caller's struct. Fields that it lacks are zero; fields that we lack must be.
///
/// # Safety
/// `from` is null or points to as many readable bytes as its `size` field says.
pub(super) unsafe fn read<T: Sized0>(from: *const T) -> Result<T, Error> {
    // SAFETY: the caller's promise.
    let size = unsafe { caller_size(from)? };
    let known = size.min(size_of::<T>());
    let mut ours = std::mem::MaybeUninit::<T>::zeroed();
    // SAFETY: both have that many bytes; every pattern of bits is a value (the trait).
    unsafe {
        std::ptr::copy_nonoverlapping(from.cast::<u8>(), ours.as_mut_ptr().cast(), known);
        let more = std::slice::from_raw_parts(from.cast::<u8>().add(known), size - known);
        if more.iter().any(|byte| *byte != 0) { Err(BAD_SIZE) } else { Ok(ours.assume_init()) }
    }
}

/// Fills the caller's struct as far as it goes.
///
/// # Safety
/// `to` points to as many writable bytes as `size` says.
pub(super) unsafe fn write<T: Sized0>(ours: &T, to: *mut T, size: usize) {
    // SAFETY: the caller's promise; the leading `size` stays the caller's.
    unsafe {
        let skip = size_of::<usize>();
        let known = size.min(size_of::<T>()) - skip;
        std::ptr::copy_nonoverlapping((&raw const *ours).cast::<u8>().add(skip), to.cast::<u8>().add(skip), known);
    }
}
