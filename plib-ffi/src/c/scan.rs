//! All items.

use super::handle::plib_t;
use super::status::{fail, plib_status_t};
use super::{Output, call};
use crate::error::Error;
use crate::scan::Walk;
use std::ffi::{c_int, c_void};

/// An item as a scan finds it. Key and value are the callback's until it returns.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct plib_entry_t {
    /// The key.
    pub key: *const c_void,
    /// Its length.
    pub key_len: usize,
    /// The value.
    pub value: *const c_void,
    /// Its length.
    pub value_len: usize,
    /// The item's cas value.
    pub cas: u64,
    /// The item's flags.
    pub flags: u32,
    /// When it expires, in unix seconds; 0 is never.
    pub expiry: u32,
}

/// What a scan calls for each item; any other answer than 0 ends the scan. It may use the cache, and close it.
pub type plib_scan_fn = Option<unsafe extern "C" fn(context: *mut c_void, entry: *const plib_entry_t) -> c_int>;

/// The cursor behind the last item.
pub const PLIB_SCAN_END: u64 = u64::MAX;

/// Calls `fn` for every item. Others may read and write meanwhile: an item that is there all the time is given.
///
/// # Safety
/// `fn` does not let an exception or longjmp out.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn plib_scan(cache: *mut plib_t, r#fn: plib_scan_fn, context: *mut c_void) -> plib_status_t {
    let mut cursor = 0;
    // SAFETY: passed on from the caller.
    unsafe { walk(cache, &mut cursor, r#fn, context) }.map_or_else(fail, |()| plib_status_t::PLIB_OK)
}

/// Calls `fn` for the items behind *cursor, and leaves there where to go on: after a stop behind the last item given, at
/// the end PLIB_SCAN_END. Begin with 0. A cursor may be kept and used by another process.
///
/// # Safety
/// As plib_scan, and `cursor` is writable.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn plib_scan_from(
    cache: *mut plib_t,
    cursor: *mut u64,
    r#fn: plib_scan_fn,
    context: *mut c_void,
) -> plib_status_t {
    let checked = call(cache, |inside| Output::required(inside, cursor).map(drop));
    if checked != plib_status_t::PLIB_OK {
        return checked;
    }
    // SAFETY: checked above, and the caller's to use.
    let mut at = unsafe { cursor.read() };
    // SAFETY: passed on from the caller.
    let result = unsafe { walk(cache, &mut at, r#fn, context) };
    // SAFETY: as above.
    unsafe { cursor.write(at) };
    result.map_or_else(fail, |()| plib_status_t::PLIB_OK)
}

unsafe fn walk(
    cache: *mut plib_t,
    cursor: &mut u64,
    call_back: plib_scan_fn,
    context: *mut c_void,
) -> Result<(), Error> {
    let call_back = call_back.ok_or(Error::Invalid("the function is NULL"))?;
    let mut walk = Walk::new(*cursor);
    if *cursor == PLIB_SCAN_END {
        return Ok(crate::claim::enter(cache as u64).map(drop)?);
    }
    while let Some(info) = walk.step(cache as u64)? {
        let entry = plib_entry_t {
            key: walk.key().as_ptr().cast(),
            key_len: walk.key().len(),
            value: walk.value().as_ptr().cast(),
            value_len: walk.value().len(),
            cas: info.cas,
            flags: info.flags,
            expiry: info.expiry,
        };
        *cursor = walk.cursor();
        // SAFETY: the caller's function; no operation is under way, so it may do as it likes.
        if unsafe { call_back(context, &entry) } != 0 {
            return Ok(());
        }
    }
    *cursor = PLIB_SCAN_END;
    Ok(())
}
