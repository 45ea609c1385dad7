//! Opening, closing, creating and destroying heaps.

use super::options::{plib_create_options_t, plib_isolation_t, plib_options_t, read};
use super::status::{fail, plib_status_t};
use crate::cache::{Cache, OpenOptions};
use crate::claim::enter;
use crate::create::CreateOptions;
use crate::error::Error;
use crate::handle;
use crate::quiet::Quiet;
use plib_core::domain::Isolation;
use std::ffi::{CStr, OsStr, c_char};
use std::os::unix::ffi::OsStrExt;

/// A handle on an open heap, for all threads, and after fork for the child too. It is a number, not a pointer: nothing is
/// read through it, and a closed, forged or NULL one gives PLIB_E_INVALID.
pub struct plib_t {
    _opaque: (),
}

/// The bytes of a C string.
///
/// # Safety
/// `text` is null or a C string that lives through the call.
unsafe fn os_str<'a>(text: *const c_char, what: &'static str) -> Result<&'a OsStr, Error> {
    if text.is_null() {
        return Err(Error::Invalid(what));
    }
    // SAFETY: the caller's promise.
    Ok(OsStr::from_bytes(unsafe { CStr::from_ptr(text) }.to_bytes()))
}

/// Runs something that opens and maps files, as a whole: a thread cannot be made to leave it half done, nor to end in it,
/// which would unwind the standard library and so abort the process.
fn whole(work: impl FnOnce() -> Result<(), Error>) -> plib_status_t {
    let _quiet = Quiet::begin();
    work().map_or_else(fail, |()| plib_status_t::PLIB_OK)
}

/// Opens a heap. `name` is looked up in $PLIB_DIR (default /dev/shm/plib); one with a '/' is a path. `options` may be NULL.
/// On failure *out is NULL.
///
/// # Safety
/// `name` is a C string, `options` NULL or as large as its `size` says, `out` writable.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn plib_open(
    name: *const c_char,
    options: *const plib_options_t,
    out: *mut *mut plib_t,
) -> plib_status_t {
    // SAFETY: passed on from the caller.
    whole(|| unsafe { give(out, || Cache::open_with(os_str(name, "the name is NULL")?, &open_options(options)?)) })
}

/// Closes a handle. Threads inside a call on it finish first; later calls get PLIB_E_INVALID. NULL and closed handles are
/// left alone. Not for signal handlers.
#[unsafe(no_mangle)]
pub extern "C" fn plib_close(cache: *mut plib_t) {
    let _quiet = Quiet::begin();
    handle::close(cache as u64);
}

/// Makes a heap, and opens it unless `out` is NULL. The file appears complete, with its space reserved, or not at all.
/// PLIB_E_EXISTS if there is one of that name.
///
/// # Safety
/// `name` is a C string, `options` as large as its `size` says, `out` NULL or writable.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn plib_create(
    name: *const c_char,
    options: *const plib_create_options_t,
    out: *mut *mut plib_t,
) -> plib_status_t {
    // SAFETY: passed on from the caller.
    let create = || unsafe { Cache::create(os_str(name, "the name is NULL")?, &create_options(options)?) };
    if out.is_null() {
        return whole(|| create().map(drop));
    }
    // SAFETY: passed on from the caller.
    whole(|| unsafe { give(out, create) })
}

/// Removes a heap's file, and its lock file if it has one. Who has it open keeps it until closing it. A file that is no heap is
/// left alone.
///
/// # Safety
/// `name` is a C string.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn plib_destroy(name: *const c_char) -> plib_status_t {
    // SAFETY: passed on from the caller.
    whole(|| unsafe { os_str(name, "the name is NULL") }.and_then(Cache::destroy))
}

/// What keeps the program out of the heap between calls. For a handle that is not open: PLIB_ISOLATION_NONE.
#[unsafe(no_mangle)]
pub extern "C" fn plib_isolation(cache: *const plib_t) -> plib_isolation_t {
    match enter(cache as u64) {
        Ok(inside) => inside.isolation().into(),
        Err(refused) => {
            fail(refused.into());
            plib_isolation_t::PLIB_ISOLATION_NONE
        }
    }
}

/// This library's version, "major.minor.patch".
#[unsafe(no_mangle)]
pub extern "C" fn plib_version() -> *const c_char {
    const VERSION: &CStr = match CStr::from_bytes_with_nul(concat!(env!("CARGO_PKG_VERSION"), "\0").as_bytes()) {
        Ok(version) => version,
        Err(_) => c"",
    };
    VERSION.as_ptr()
}

/// Gives an opened cache away as a handle.
///
/// # Safety
/// `out` is null or writable.
unsafe fn give(out: *mut *mut plib_t, open: impl FnOnce() -> Result<Cache, Error>) -> Result<(), Error> {
    if out.is_null() || !out.is_aligned() {
        return Err(Error::Invalid("out is NULL or misaligned"));
    }
    let opened = open();
    let handle = opened.as_ref().map_or(std::ptr::null_mut(), |cache| cache.key() as usize as *mut plib_t);
    // SAFETY: not null, aligned, and the caller's to write.
    unsafe { out.write(handle) };
    opened.map(Cache::into_key).map(drop)
}

unsafe fn open_options(options: *const plib_options_t) -> Result<OpenOptions, Error> {
    if options.is_null() {
        return Ok(OpenOptions::new());
    }
    // SAFETY: passed on from the caller.
    let options = unsafe { read(options)? };
    let least = match options {
        plib_options_t { reserved: 1.., .. } => return Err(Error::Invalid("plib_options_t.reserved is not 0")),
        plib_options_t { isolation: 0, .. } => Isolation::None,
        plib_options_t { isolation: 1, .. } => Isolation::Guarded,
        plib_options_t { isolation: 2, .. } => Isolation::Sealed,
        _ => return Err(Error::Invalid("plib_options_t.isolation is no plib_isolation_t")),
    };
    Ok(OpenOptions::new().isolation(least))
}

unsafe fn create_options(options: *const plib_create_options_t) -> Result<CreateOptions, Error> {
    // SAFETY: passed on from the caller.
    let given = unsafe { read(options)? };
    let flag = |value, wrong| match value {
        0 => Ok(false),
        1 => Ok(true),
        _ => Err(Error::Invalid(wrong)),
    };
    let huge = flag(given.huge, "plib_create_options_t.huge is neither 0 nor 1")?;
    let readable = flag(given.readable, "plib_create_options_t.readable is neither 0 nor 1")?;
    if given.reserved != 0 {
        return Err(Error::Invalid("plib_create_options_t.reserved is not 0"));
    }
    let mut options = CreateOptions::new(given.heap_size).contexts(given.contexts).huge(huge).readable(readable);
    if given.item_size_max != 0 {
        options = options.item_size_max(given.item_size_max);
    }
    if given.mode != 0 {
        options = options.mode(given.mode);
    }
    if !given.group.is_null() {
        // SAFETY: passed on from the caller.
        let group = unsafe { os_str(given.group, "the group is NULL")? };
        options = options.group(group.to_string_lossy().into_owned());
    }
    Ok(options)
}
