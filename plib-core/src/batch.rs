//! Batches: all buckets are asked for first, then all blocks, then the work is done, so that the memory answers in parallel.

use crate::cache::{Key, Mode, Reader, Reading};
use crate::client::Op;
use crate::status::Status;
use crate::user::{In, Out};

/// Keys in flight at a time: enough to cover the memory's latency, few enough for the stack.
const WIDTH: usize = 16;

/// One get of a batch.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct GetRequest {
    /// In: the key.
    pub key: *const u8,
    /// In: its length.
    pub key_len: usize,
    /// In: where the value goes.
    pub buf: *mut u8,
    /// In: how much fits there.
    pub buf_len: usize,
    /// Out: the value's length.
    pub value_len: usize,
    /// Out: the item's cas.
    pub cas: u64,
    /// Out: the item's flags.
    pub flags: u32,
    /// Out: the item's expiry.
    pub expiry: u32,
    /// Out: a [`Status`].
    pub status: u32,
    /// Unused.
    pub pad: u32,
}

/// One set of a batch.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct SetRequest {
    /// In: the key.
    pub key: *const u8,
    /// In: its length.
    pub key_len: usize,
    /// In: the value.
    pub value: *const u8,
    /// In: its length.
    pub value_len: usize,
    /// In: as memcached's exptime.
    pub exptime: i64,
    /// Out: the item's cas.
    pub cas: u64,
    /// In: the item's flags.
    pub flags: u32,
    /// Out: a [`Status`].
    pub status: u32,
}

/// One delete of a batch.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct DeleteRequest {
    /// In: the key.
    pub key: *const u8,
    /// In: its length.
    pub key_len: usize,
    /// Out: a [`Status`].
    pub status: u32,
    /// Unused.
    pub pad: u32,
}

impl<R: Reader> Reading<'_, R> {
    /// Copies the keys of a part of a batch, and has their buckets and blocks brought near.
    ///
    /// # Safety
    /// The keys are readable.
    #[inline(always)]
    unsafe fn approach(self, names: impl Iterator<Item = In>, keys: &mut [(Key, Result<(), Status>); WIDTH]) {
        let mut count = 0;
        for ((key, checked), name) in keys.iter_mut().zip(names) {
            // SAFETY: passed on.
            *checked = unsafe { key.read(self.heap(), name) };
            if checked.is_ok() {
                self.prefetch_bucket(key.hash);
            }
            count += 1;
        }
        for (key, checked) in keys.iter().take(count) {
            if checked.is_ok() {
                self.prefetch_block(key.hash);
            }
        }
    }

    /// Many gets.
    ///
    /// # Safety
    /// Every request's key is readable and its buffer writable.
    pub unsafe fn get_many(self, requests: &mut [GetRequest]) {
        for part in requests.chunks_mut(WIDTH) {
            let mut keys = [const { (Key::blank(), Err(Status::Key)) }; WIDTH];
            // SAFETY: passed on.
            unsafe { self.approach(part.iter().map(|r| In { ptr: r.key, len: r.key_len }), &mut keys) };
            for (request, (key, checked)) in part.iter_mut().zip(&keys) {
                let result = checked.and_then(|()| {
                    let out = Out { ptr: request.buf, len: request.buf_len };
                    if !self.heap().protected().admits(out.ptr, out.len) {
                        return Err(Status::Invalid);
                    }
                    self.get_copied(key, out)
                });
                request.status = match result {
                    Ok(got) => {
                        request.value_len = got.info.value_len;
                        request.cas = got.info.cas;
                        request.flags = got.info.flags;
                        request.expiry = got.info.expiry;
                        if got.copied { Status::Ok as u32 } else { Status::TooSmall as u32 }
                    }
                    Err(status) => status as u32,
                };
            }
        }
    }
}

impl Op<'_> {
    /// Many sets.
    ///
    /// # Safety
    /// Every request's key and value are readable.
    pub unsafe fn set_many(&self, requests: &mut [SetRequest]) {
        for part in requests.chunks_mut(WIDTH) {
            let mut keys = [const { (Key::blank(), Err(Status::Key)) }; WIDTH];
            // SAFETY: passed on.
            unsafe { self.reading().approach(part.iter().map(|r| In { ptr: r.key, len: r.key_len }), &mut keys) };
            for (request, (key, checked)) in part.iter_mut().zip(&keys) {
                let value = In { ptr: request.value, len: request.value_len };
                let result = checked.and_then(|()| {
                    // SAFETY: passed on.
                    unsafe { self.store_copied(Mode::Set, key, value, request.flags, request.exptime) }
                });
                request.status = match result {
                    Ok(cas) => {
                        request.cas = cas;
                        Status::Ok as u32
                    }
                    Err(status) => status as u32,
                };
            }
        }
    }

    /// Many deletes.
    ///
    /// # Safety
    /// Every request's key is readable.
    pub unsafe fn delete_many(&self, requests: &mut [DeleteRequest]) {
        for part in requests.chunks_mut(WIDTH) {
            let mut keys = [const { (Key::blank(), Err(Status::Key)) }; WIDTH];
            // SAFETY: passed on.
            unsafe { self.reading().approach(part.iter().map(|r| In { ptr: r.key, len: r.key_len }), &mut keys) };
            for (request, (key, checked)) in part.iter_mut().zip(&keys) {
                let result = checked.and_then(|()| self.delete_copied(key, None));
                request.status = result.err().unwrap_or(Status::Ok) as u32;
            }
        }
    }
}
