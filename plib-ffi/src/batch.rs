//! Many keys at a time: the core asks for all their memory first, so that it comes in parallel.

use crate::cache::{Cache, Item, STACK_VALUE};
use crate::claim::Inside;
use crate::error::Error;
use plib_core::{DeleteRequest, GetRequest, ItemInfo, SetRequest, Status};
use std::marker::PhantomData;
use std::ptr::{null, null_mut};

/// Keys whose requests are prepared at a time, so that a batch of any size takes little memory.
const PART: usize = 64;

/// What a request says before it was run.
const NOT_RUN: u32 = u32::MAX;

/// One get of [`Cache::get_many_into`].
#[repr(transparent)]
#[derive(Debug)]
pub struct GetInto<'a> {
    request: GetRequest,
    borrowed: PhantomData<(&'a [u8], &'a mut [u8])>,
}

// SAFETY: its pointers stand for the two slices that it borrows.
unsafe impl Send for GetInto<'_> {}
// SAFETY: as above; a shared one only gives numbers out.
unsafe impl Sync for GetInto<'_> {}

impl<'a> GetInto<'a> {
    /// Looks `key` up and copies its value into `buf`.
    pub fn new(key: &'a [u8], buf: &'a mut [u8]) -> Self {
        let request = GetRequest {
            key: key.as_ptr(),
            key_len: key.len(),
            buf: buf.as_mut_ptr(),
            buf_len: buf.len(),
            value_len: 0,
            cas: 0,
            flags: 0,
            expiry: 0,
            status: NOT_RUN,
            pad: 0,
        };
        Self { request, borrowed: PhantomData }
    }

    /// What came of it: the value is in the first `value_len` bytes of the buffer.
    ///
    /// # Errors
    /// As [`Cache::get_into`].
    #[inline]
    pub fn result(&self) -> Result<Option<ItemInfo>, Error> {
        let GetRequest { flags, expiry, cas, value_len, status, .. } = self.request;
        match status {
            OK => Ok(Some(ItemInfo { flags, expiry, cas, value_len })),
            NOT_FOUND => Ok(None),
            TOO_SMALL => Err(Error::TooSmall { needed: value_len, given: self.request.buf_len }),
            NOT_RUN => Err(Error::Invalid("the request was not handed to get_many_into yet")),
            _ => Err(Error::of_operation(status_of(status), self.request.key_len, 0, 0)),
        }
    }
}

const OK: u32 = Status::Ok as u32;
const NOT_FOUND: u32 = Status::NotFound as u32;
const TOO_SMALL: u32 = Status::TooSmall as u32;

/// The status that a request carries as a number.
pub(crate) fn status_of(number: u32) -> Status {
    Status::of(number).unwrap_or(Status::Invalid)
}

/// Room for a part of a batch: a request and a buffer a key.
struct GetPart {
    requests: Vec<GetRequest>,
    room: Vec<u8>,
}

impl GetPart {
    fn prepare<K: AsRef<[u8]>>(&mut self, keys: &[K]) {
        self.requests.clear();
        for (i, key) in keys.iter().enumerate() {
            let key = key.as_ref();
            let room = self.room.spare_capacity_mut();
            self.requests.push(GetRequest {
                key: key.as_ptr(),
                key_len: key.len(),
                buf: room[i * STACK_VALUE..(i + 1) * STACK_VALUE].as_mut_ptr().cast(),
                buf_len: STACK_VALUE,
                value_len: 0,
                cas: 0,
                flags: 0,
                expiry: 0,
                status: NOT_RUN,
                pad: 0,
            });
        }
    }
}

impl Cache {
    /// Looks many keys up; the answers are in the keys' order.
    ///
    /// ```
    /// # let dir = tempfile::tempdir()?;
    /// # let cache = plib::Cache::create(dir.path().join("heap"), &plib::CreateOptions::new(16 << 20))?;
    /// cache.set_many(&[("a", "1"), ("b", "2")], 0, 0)?;
    /// let items = cache.get_many(&["a", "x", "b"])?;
    /// assert_eq!(items[0].as_ref().unwrap().value, b"1");
    /// assert!(items[1].is_none());
    /// assert_eq!(items[2].as_ref().unwrap().value, b"2");
    /// assert_eq!(cache.delete_many(&["a", "x"])?, [true, false]);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// The first error of any key; [`Cache::get_many_into`] tells them apart.
    pub fn get_many<K: AsRef<[u8]>>(&self, keys: &[K]) -> Result<Vec<Option<Item>>, Error> {
        let part_len = keys.len().min(PART);
        let mut part =
            GetPart { requests: Vec::with_capacity(part_len), room: Vec::with_capacity(part_len * STACK_VALUE) };
        let mut items = Vec::with_capacity(keys.len());
        for keys in keys.chunks(PART) {
            part.prepare(keys);
            let mut inside = self.enter()?;
            // SAFETY: the keys are slices, and each buffer is a part of `room` of its own.
            unsafe { inside.session().get_many(&mut part.requests) };
            for (key, request) in keys.iter().zip(&part.requests) {
                items.push(self.taken(&inside, key.as_ref(), request)?);
            }
        }
        Ok(items)
    }

    /// The item that a request found.
    fn taken(&self, inside: &Inside, key: &[u8], request: &GetRequest) -> Result<Option<Item>, Error> {
        match request.status {
            OK => {
                // SAFETY: the core wrote that many bytes.
                let value = unsafe { std::slice::from_raw_parts(request.buf, request.value_len) }.to_vec();
                Ok(Some(Item { value, flags: request.flags, cas: request.cas, expiry: request.expiry }))
            }
            NOT_FOUND => Ok(None),
            TOO_SMALL => self.get_large(key, request.value_len),
            status => Err(inside.error(status_of(status), key.len(), 0)),
        }
    }

    /// Gets a value that was `len` bytes long a moment ago.
    fn get_large(&self, key: &[u8], len: usize) -> Result<Option<Item>, Error> {
        let mut value = vec![0; len];
        loop {
            match self.get_into(key, &mut value) {
                Ok(Some(info)) => {
                    value.truncate(info.value_len);
                    return Ok(Some(Item { value, flags: info.flags, cas: info.cas, expiry: info.expiry }));
                }
                Ok(None) => return Ok(None),
                Err(Error::TooSmall { needed, .. }) => value.resize(needed, 0),
                Err(e) => return Err(e),
            }
        }
    }

    /// Looks many keys up, each into its own buffer, without allocating.
    ///
    /// ```
    /// # let dir = tempfile::tempdir()?;
    /// # let cache = plib::Cache::create(dir.path().join("heap"), &plib::CreateOptions::new(16 << 20))?;
    /// use plib::GetInto;
    /// cache.set(b"a", b"one", 0, 0)?;
    /// let (mut a, mut b) = ([0; 16], [0; 16]);
    /// let mut requests = [GetInto::new(b"a", &mut a), GetInto::new(b"b", &mut b)];
    /// cache.get_many_into(&mut requests)?;
    /// let [len, none] = requests.map(|r| r.result().map(|found| found.map(|info| info.value_len)));
    /// assert_eq!((len?, none?), (Some(3), None));
    /// assert_eq!(&a[..3], b"one");
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// Only if the heap cannot be entered; each request has its own [`GetInto::result`].
    #[inline]
    pub fn get_many_into(&self, requests: &mut [GetInto<'_>]) -> Result<(), Error> {
        let mut inside = self.enter()?;
        // SAFETY: GetInto is a transparent wrapper of GetRequest.
        let requests = unsafe { &mut *(requests as *mut [GetInto<'_>] as *mut [GetRequest]) };
        // SAFETY: each request borrows its key and buffer.
        unsafe { inside.session().get_many(requests) };
        Ok(())
    }

    /// Stores many values; each has its own result.
    ///
    /// # Errors
    /// Only if the heap cannot be entered.
    pub fn set_many<K, V>(&self, items: &[(K, V)], flags: u32, exptime: i64) -> Result<Vec<Result<u64, Error>>, Error>
    where
        K: AsRef<[u8]>,
        V: AsRef<[u8]>,
    {
        let mut results = Vec::with_capacity(items.len());
        let blank = SetRequest {
            key: null(),
            key_len: 0,
            value: null(),
            value_len: 0,
            exptime,
            cas: 0,
            flags,
            status: NOT_RUN,
        };
        let mut requests = [blank; PART];
        for items in items.chunks(PART) {
            let requests = &mut requests[..items.len()];
            for (request, (key, value)) in requests.iter_mut().zip(items) {
                let (key, value) = (key.as_ref(), value.as_ref());
                (request.key, request.key_len) = (key.as_ptr(), key.len());
                (request.value, request.value_len) = (value.as_ptr(), value.len());
            }
            let mut inside = self.enter()?;
            // SAFETY: keys and values are slices.
            unsafe { inside.session().set_many(requests) };
            results.extend(requests.iter().map(|r| match r.status {
                OK => Ok(r.cas),
                status => Err(inside.error(status_of(status), r.key_len, r.value_len)),
            }));
        }
        Ok(results)
    }

    /// Removes many items; false for each that was not there.
    ///
    /// # Errors
    /// The first error of any key, after all of them were tried.
    pub fn delete_many<K: AsRef<[u8]>>(&self, keys: &[K]) -> Result<Vec<bool>, Error> {
        let mut removed = Vec::with_capacity(keys.len());
        let mut failed = None;
        let mut requests = [DeleteRequest { key: null_mut(), key_len: 0, status: NOT_RUN, pad: 0 }; PART];
        for keys in keys.chunks(PART) {
            let requests = &mut requests[..keys.len()];
            for (request, key) in requests.iter_mut().zip(keys) {
                (request.key, request.key_len) = (key.as_ref().as_ptr(), key.as_ref().len());
            }
            let mut inside = self.enter()?;
            // SAFETY: keys are slices.
            unsafe { inside.session().delete_many(requests) };
            for request in requests.iter() {
                removed.push(request.status == OK);
                if !matches!(request.status, OK | NOT_FOUND) && failed.is_none() {
                    failed = Some(inside.error(status_of(request.status), request.key_len, 0));
                }
            }
        }
        failed.map_or(Ok(removed), Err)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_number_has_its_status() {
        for number in 0..=Status::Isolation as u32 {
            assert_eq!(status_of(number) as u32, number);
        }
        assert_eq!(status_of(NOT_RUN), Status::Invalid);
    }
}
