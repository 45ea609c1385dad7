//! A heap's file and limits.

use super::call;
use super::handle::plib_t;
use super::options::{Sized0, caller_size, plib_isolation_t, write};
use super::status::plib_status_t;
use crate::error::Error;
use crate::handle;
use crate::info::describe;
use crate::quiet::Quiet;
use std::ffi::c_char;
use std::mem::offset_of;
use std::os::unix::ffi::OsStrExt;

/// Bytes of the text fields of plib_info_t, with their final zero.
pub const PLIB_PATH_SIZE: usize = 4096;
/// Bytes of plib_info_t.pages.
pub const PLIB_PAGES_SIZE: usize = 64;

/// A heap's file and limits. Set `size` before the call.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct plib_info_t {
    /// sizeof(plib_info_t).
    pub size: usize,
    /// Bytes of the heap.
    pub heap_size: u64,
    /// When it was created, in unix seconds.
    pub created: u64,
    /// Superblocks of 64 KiB for items and index.
    pub superblocks: u32,
    /// How many threads of all processes can work at a time.
    pub contexts: u32,
    /// How many processes can have it open.
    pub clients: u32,
    /// Largest item, bytes of header (32), key and value.
    pub item_size_max: u32,
    /// The file's permission bits.
    pub mode: u32,
    /// Its owner.
    pub uid: u32,
    /// Its group.
    pub gid: u32,
    /// A plib_isolation_t.
    pub isolation: u32,
    /// The pages that this process has it in, for people to read.
    pub pages: [c_char; PLIB_PAGES_SIZE],
    /// The file.
    pub path: [c_char; PLIB_PATH_SIZE],
    /// 1 if programs may read it without a gate.
    pub readable: u32,
    /// 0.
    pub reserved: u32,
}

// SAFETY: repr(C) of numbers, `size` first.
unsafe impl Sized0 for plib_info_t {
    const FIRST: usize = offset_of!(Self, readable);
}

/// Says what a heap is.
///
/// # Safety
/// `out` is as large as its `size` says, and writable.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn plib_info(cache: *mut plib_t, out: *mut plib_info_t) -> plib_status_t {
    call(cache, |inside| {
        if !out.is_null() && !inside.admits(out.cast(), size_of::<plib_info_t>()) {
            return Err(Error::Invalid("out points into the heap"));
        }
        // SAFETY: passed on from the caller.
        let size = unsafe { caller_size(out)? };
        // SAFETY: this operation keeps the handle open.
        let record = unsafe { handle::record_of_held(cache as u64) }.ok_or(Error::Closed)?;
        // It reads files, which are places where threads are cancelled.
        let quiet = Quiet::begin();
        let info = describe(record, Some(inside));
        drop(quiet);
        let ours = plib_info_t {
            size,
            heap_size: info.size,
            created: info.created,
            superblocks: info.superblocks,
            contexts: info.contexts,
            clients: info.clients,
            item_size_max: info.item_size_max,
            mode: info.mode,
            uid: info.uid,
            gid: info.gid,
            isolation: plib_isolation_t::from(info.isolation) as u32,
            pages: text(info.pages.as_bytes()),
            path: text(info.path.as_os_str().as_bytes()),
            readable: info.readable.into(),
            reserved: 0,
        };
        // SAFETY: passed on from the caller.
        unsafe { write(&ours, out, size) };
        Ok(())
    })
}

/// A C string in an array, cut where it does not fit.
fn text<const N: usize>(bytes: &[u8]) -> [c_char; N] {
    let mut array = [0; N];
    for (to, from) in array.iter_mut().take(N - 1).zip(bytes) {
        *to = *from as c_char;
    }
    array
}
