//! Batches.

use super::handle::plib_t;
use super::status::plib_status_t;
use super::{call, requests};
use plib_core::{DeleteRequest, GetRequest, SetRequest};
use std::ffi::c_void;
use std::mem::offset_of;

/// One get of a batch. The first four fields are the program's, the others the answer.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct plib_get_request_t {
    /// In: the key.
    pub key: *const c_void,
    /// In: its length.
    pub key_len: usize,
    /// In: where the value goes.
    pub buf: *mut c_void,
    /// In: how much fits there.
    pub buf_len: usize,
    /// Out: the value's length, also with PLIB_E_TOO_SMALL.
    pub value_len: usize,
    /// Out: the item's cas value.
    pub cas: u64,
    /// Out: the item's flags.
    pub flags: u32,
    /// Out: when it expires, in unix seconds; 0 is never.
    pub expiry: u32,
    /// Out: a plib_status_t.
    pub status: u32,
    /// Unused.
    pub pad: u32,
}

/// One set of a batch. `cas` and `status` are the answer, the others the program's.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct plib_set_request_t {
    /// In: the key.
    pub key: *const c_void,
    /// In: its length.
    pub key_len: usize,
    /// In: the value.
    pub value: *const c_void,
    /// In: its length.
    pub value_len: usize,
    /// In: as for plib_set.
    pub exptime: i64,
    /// Out: the item's cas value.
    pub cas: u64,
    /// In: the item's flags.
    pub flags: u32,
    /// Out: a plib_status_t.
    pub status: u32,
}

/// One delete of a batch.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct plib_delete_request_t {
    /// In: the key.
    pub key: *const c_void,
    /// In: its length.
    pub key_len: usize,
    /// Out: a plib_status_t.
    pub status: u32,
    /// Unused.
    pub pad: u32,
}

// The C structs are the core's, so that a batch is handed on as it is.
macro_rules! same_layout {
    ($c:ty, $core:ty: $($field:ident),*) => {
        const _: () = {
            assert!(size_of::<$c>() == size_of::<$core>() && align_of::<$c>() == align_of::<$core>());
            $(assert!(offset_of!($c, $field) == offset_of!($core, $field));)*
        };
    };
}
same_layout!(plib_get_request_t, GetRequest: key, key_len, buf, buf_len, value_len, cas, flags, expiry, status, pad);
same_layout!(plib_set_request_t, SetRequest: key, key_len, value, value_len, exptime, cas, flags, status);
same_layout!(plib_delete_request_t, DeleteRequest: key, key_len, status, pad);

/// Many gets, each with its own status. Faster than one by one: all their memory is asked for at once.
///
/// # Safety
/// There are `n` requests, each with a readable key and a writable buffer.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn plib_mget(cache: *mut plib_t, first: *mut plib_get_request_t, n: usize) -> plib_status_t {
    call(cache, |inside| {
        // SAFETY: passed on from the caller; the layouts are the same.
        unsafe {
            let requests = requests(inside, first.cast::<GetRequest>(), n)?;
            inside.session().get_many(requests);
        }
        Ok(())
    })
}

/// Many sets, each with its own status.
///
/// # Safety
/// There are `n` requests, each with a readable key and value.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn plib_mset(cache: *mut plib_t, first: *mut plib_set_request_t, n: usize) -> plib_status_t {
    call(cache, |inside| {
        // SAFETY: passed on from the caller; the layouts are the same.
        unsafe {
            let requests = requests(inside, first.cast::<SetRequest>(), n)?;
            inside.session().set_many(requests);
        }
        Ok(())
    })
}

/// Many deletes, each with its own status.
///
/// # Safety
/// There are `n` requests, each with a readable key.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn plib_mdelete(
    cache: *mut plib_t,
    first: *mut plib_delete_request_t,
    n: usize,
) -> plib_status_t {
    call(cache, |inside| {
        // SAFETY: passed on from the caller; the layouts are the same.
        unsafe {
            let requests = requests(inside, first.cast::<DeleteRequest>(), n)?;
            inside.session().delete_many(requests);
        }
        Ok(())
    })
}
