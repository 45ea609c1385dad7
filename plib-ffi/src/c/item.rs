//! Operations on one item.

use super::handle::plib_t;
use super::status::plib_status_t;
use super::{Output, call};
use crate::claim::Inside;
use crate::error::Error;
use plib_core::user::{In, Out};
use plib_core::{Got, ItemInfo, Mode, Status};
use std::ffi::c_void;

/// What is kept with a value.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct plib_item_t {
    /// The value that plib_cas wants; another after each change.
    pub cas: u64,
    /// The number that the program stored with it.
    pub flags: u32,
    /// When it expires, in unix seconds; 0 is never.
    pub expiry: u32,
}

impl plib_item_t {
    pub(super) fn new(info: &ItemInfo) -> Self {
        Self { cas: info.cas, flags: info.flags, expiry: info.expiry }
    }
}

const fn input(ptr: *const c_void, len: usize) -> In {
    In { ptr: ptr.cast(), len }
}

/// Copies the value of `key` to `buf`. *value_len gets its length, also with PLIB_E_TOO_SMALL; `info` may be NULL.
///
/// # Safety
/// Each pointer is readable or writable for its length.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn plib_get(
    cache: *mut plib_t,
    key: *const c_void,
    key_len: usize,
    buf: *mut c_void,
    buf_len: usize,
    value_len: *mut usize,
    info: *mut plib_item_t,
) -> plib_status_t {
    call(cache, |inside| {
        let out = Out { ptr: buf.cast(), len: buf_len };
        // SAFETY: passed on from the caller.
        received(inside, (value_len, info), key_len, buf_len, |i| unsafe { i.session().get(input(key, key_len), out) })
    })
}

/// Copies the value of `key` to `buf` as plib_get, and sets when it expires.
///
/// # Safety
/// As plib_get.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn plib_gat(
    cache: *mut plib_t,
    key: *const c_void,
    key_len: usize,
    exptime: i64,
    buf: *mut c_void,
    buf_len: usize,
    value_len: *mut usize,
    info: *mut plib_item_t,
) -> plib_status_t {
    call(cache, |inside| {
        let out = Out { ptr: buf.cast(), len: buf_len };
        received(inside, (value_len, info), key_len, buf_len, |i| {
            // SAFETY: passed on from the caller.
            unsafe { i.session().get_and_touch(input(key, key_len), exptime, out) }
        })
    })
}

/// Runs a get and hands out what it says.
#[inline]
fn received(
    inside: &mut Inside,
    (value_len, info): (*mut usize, *mut plib_item_t),
    key_len: usize,
    buf_len: usize,
    get: impl FnOnce(&mut Inside) -> Result<Got, Status>,
) -> Result<(), Error> {
    let value_len = Output::required(inside, value_len)?;
    let item = Output::optional(inside, info)?;
    match get(inside) {
        Ok(Got { info, copied }) => {
            value_len.put(info.value_len);
            item.put(plib_item_t::new(&info));
            if copied { Ok(()) } else { Err(Error::TooSmall { needed: info.value_len, given: buf_len }) }
        }
        Err(Status::NotFound) => Err(Error::NotFound),
        Err(status) => Err(inside.error(status, key_len, 0)),
    }
}

/// Key and value of a storage command.
#[derive(Clone, Copy)]
struct Pair {
    key: In,
    value: In,
}

impl Pair {
    #[inline]
    fn new(key: *const c_void, key_len: usize, value: *const c_void, value_len: usize) -> Self {
        Self { key: input(key, key_len), value: input(value, value_len) }
    }
}

/// Runs a storage command.
///
/// # Safety
/// Key and value are readable, `cas_out` is null or writable.
#[inline]
unsafe fn store(
    cache: *mut plib_t,
    mode: Mode,
    pair: Pair,
    flags: u32,
    exptime: i64,
    cas_out: *mut u64,
) -> plib_status_t {
    call(cache, |inside| {
        let cas_out = Output::optional(inside, cas_out)?;
        // SAFETY: passed on from the caller.
        match unsafe { inside.session().store(mode, pair.key, pair.value, flags, exptime) } {
            Ok(cas) => {
                cas_out.put(cas);
                Ok(())
            }
            Err(status) => Err(inside.error(status, pair.key.len, pair.value.len)),
        }
    })
}

/// Stores a value, whether or not the key is there. `cas_out` may be NULL.
///
/// `exptime` is memcached's: 0 never expires, negative is expired already, up to 30 days is relative to now, anything
/// larger is absolute unix time in seconds.
///
/// # Safety
/// Each pointer is readable or writable for its length.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn plib_set(
    cache: *mut plib_t,
    key: *const c_void,
    key_len: usize,
    value: *const c_void,
    value_len: usize,
    flags: u32,
    exptime: i64,
    cas_out: *mut u64,
) -> plib_status_t {
    // SAFETY: passed on from the caller.
    unsafe { store(cache, Mode::Set, Pair::new(key, key_len, value, value_len), flags, exptime, cas_out) }
}

/// Stores a value if the key is not there; else PLIB_E_NOT_STORED.
///
/// # Safety
/// As plib_set.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn plib_add(
    cache: *mut plib_t,
    key: *const c_void,
    key_len: usize,
    value: *const c_void,
    value_len: usize,
    flags: u32,
    exptime: i64,
    cas_out: *mut u64,
) -> plib_status_t {
    // SAFETY: passed on from the caller.
    unsafe { store(cache, Mode::Add, Pair::new(key, key_len, value, value_len), flags, exptime, cas_out) }
}

/// Stores a value if the key is there; else PLIB_E_NOT_STORED.
///
/// # Safety
/// As plib_set.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn plib_replace(
    cache: *mut plib_t,
    key: *const c_void,
    key_len: usize,
    value: *const c_void,
    value_len: usize,
    flags: u32,
    exptime: i64,
    cas_out: *mut u64,
) -> plib_status_t {
    // SAFETY: passed on from the caller.
    unsafe { store(cache, Mode::Replace, Pair::new(key, key_len, value, value_len), flags, exptime, cas_out) }
}

/// Puts bytes behind a value that is there, else PLIB_E_NOT_STORED. The item keeps its own flags and expiry: `flags` and
/// `exptime` are there for the common shape, as in memcached, and change nothing.
///
/// # Safety
/// As plib_set.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn plib_append(
    cache: *mut plib_t,
    key: *const c_void,
    key_len: usize,
    value: *const c_void,
    value_len: usize,
    flags: u32,
    exptime: i64,
    cas_out: *mut u64,
) -> plib_status_t {
    // SAFETY: passed on from the caller.
    unsafe { store(cache, Mode::Append, Pair::new(key, key_len, value, value_len), flags, exptime, cas_out) }
}

/// Puts bytes before a value that is there, else PLIB_E_NOT_STORED. `flags` and `exptime` as for plib_append.
///
/// # Safety
/// As plib_set.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn plib_prepend(
    cache: *mut plib_t,
    key: *const c_void,
    key_len: usize,
    value: *const c_void,
    value_len: usize,
    flags: u32,
    exptime: i64,
    cas_out: *mut u64,
) -> plib_status_t {
    // SAFETY: passed on from the caller.
    unsafe { store(cache, Mode::Prepend, Pair::new(key, key_len, value, value_len), flags, exptime, cas_out) }
}

/// Stores a value if the item still has the cas value `cas`: PLIB_E_EXISTS if it has another, PLIB_E_NOT_FOUND if there
/// is none. `cas_out` gets the new one.
///
/// # Safety
/// As plib_set.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn plib_cas(
    cache: *mut plib_t,
    key: *const c_void,
    key_len: usize,
    value: *const c_void,
    value_len: usize,
    flags: u32,
    exptime: i64,
    cas: u64,
    cas_out: *mut u64,
) -> plib_status_t {
    // SAFETY: passed on from the caller.
    unsafe { store(cache, Mode::Cas(cas), Pair::new(key, key_len, value, value_len), flags, exptime, cas_out) }
}

/// Removes an item; PLIB_E_NOT_FOUND if there is none.
///
/// # Safety
/// `key` is readable for its length.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn plib_delete(cache: *mut plib_t, key: *const c_void, key_len: usize) -> plib_status_t {
    call(cache, |inside| {
        // SAFETY: passed on from the caller.
        let deleted = unsafe { inside.session().delete(input(key, key_len), None) };
        deleted.map_err(|status| inside.error(status, key_len, 0))
    })
}

/// Removes an item if it has the cas value `cas`; PLIB_E_EXISTS if it has another.
///
/// # Safety
/// `key` is readable for its length.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn plib_delete_cas(
    cache: *mut plib_t,
    key: *const c_void,
    key_len: usize,
    cas: u64,
) -> plib_status_t {
    call(cache, |inside| {
        // SAFETY: passed on from the caller.
        let deleted = unsafe { inside.session().delete(input(key, key_len), Some(cas)) };
        deleted.map_err(|status| inside.error(status, key_len, 0))
    })
}

/// A change of a number.
#[derive(Clone, Copy)]
struct Change {
    delta: u64,
    down: bool,
    initial: Option<(u64, i64)>,
}

/// Runs a change of a number.
///
/// # Safety
/// `key` is readable, `value_out` null or writable.
#[inline]
unsafe fn arith(
    cache: *mut plib_t,
    key: *const c_void,
    key_len: usize,
    change: Change,
    value_out: *mut u64,
) -> plib_status_t {
    call(cache, |inside| {
        let value_out = Output::optional(inside, value_out)?;
        // SAFETY: passed on from the caller.
        match unsafe { inside.session().arith(input(key, key_len), change.delta, change.down, change.initial) } {
            Ok((value, _)) => {
                value_out.put(value);
                Ok(())
            }
            Err(status) => Err(inside.error(status, key_len, 0)),
        }
    })
}

/// Adds to a decimal number, wrapping at 64 bits. PLIB_E_NOT_FOUND, PLIB_E_NOT_NUMERIC. `value_out` (may be NULL) gets the sum.
///
/// # Safety
/// `key` is readable for its length, `value_out` NULL or writable.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn plib_incr(
    cache: *mut plib_t,
    key: *const c_void,
    key_len: usize,
    delta: u64,
    value_out: *mut u64,
) -> plib_status_t {
    // SAFETY: passed on from the caller.
    unsafe { arith(cache, key, key_len, Change { delta, down: false, initial: None }, value_out) }
}

/// Subtracts from a decimal number, stopping at 0. Else as plib_incr.
///
/// # Safety
/// As plib_incr.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn plib_decr(
    cache: *mut plib_t,
    key: *const c_void,
    key_len: usize,
    delta: u64,
    value_out: *mut u64,
) -> plib_status_t {
    // SAFETY: passed on from the caller.
    unsafe { arith(cache, key, key_len, Change { delta, down: true, initial: None }, value_out) }
}

/// Adds to a number, or stores `initial` (with `exptime`) where the key is not there.
///
/// # Safety
/// As plib_incr.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn plib_incr_init(
    cache: *mut plib_t,
    key: *const c_void,
    key_len: usize,
    delta: u64,
    initial: u64,
    exptime: i64,
    value_out: *mut u64,
) -> plib_status_t {
    // SAFETY: passed on from the caller.
    unsafe { arith(cache, key, key_len, Change { delta, down: false, initial: Some((initial, exptime)) }, value_out) }
}

/// Subtracts from a number, or stores `initial` (with `exptime`) where the key is not there.
///
/// # Safety
/// As plib_incr.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn plib_decr_init(
    cache: *mut plib_t,
    key: *const c_void,
    key_len: usize,
    delta: u64,
    initial: u64,
    exptime: i64,
    value_out: *mut u64,
) -> plib_status_t {
    // SAFETY: passed on from the caller.
    unsafe { arith(cache, key, key_len, Change { delta, down: true, initial: Some((initial, exptime)) }, value_out) }
}

/// Sets when an item expires; PLIB_E_NOT_FOUND if there is none.
///
/// # Safety
/// `key` is readable for its length.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn plib_touch(
    cache: *mut plib_t,
    key: *const c_void,
    key_len: usize,
    exptime: i64,
) -> plib_status_t {
    call(cache, |inside| {
        // SAFETY: passed on from the caller.
        let touched = unsafe { inside.session().touch(input(key, key_len), exptime) };
        touched.map_err(|status| inside.error(status, key_len, 0))
    })
}

/// Makes every item vanish that is stored before now, or before `delay` seconds from now (above 30 days: that unix time).
///
/// Until then the items stay; a later call replaces a delay that has not passed.
#[unsafe(no_mangle)]
pub extern "C" fn plib_flush_all(cache: *mut plib_t, delay: i64) -> plib_status_t {
    call(cache, |inside| {
        let flushed = inside.session().flush_all(delay);
        flushed.map_err(|status| inside.error(status, 0, 0))
    })
}
