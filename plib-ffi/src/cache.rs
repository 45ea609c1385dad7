//! The handle that programs use, and the operations on one item.

use crate::claim::{Inside, enter};
use crate::create::{self, CreateOptions};
use crate::error::Error;
use crate::protection::Wanted;
use crate::{handle, name};
use plib_core::domain::Isolation;
use plib_core::user::{In, Out};
use plib_core::{Got, ItemInfo, Mode, Session, Status};
use std::ffi::OsStr;
use std::mem::MaybeUninit;
use std::path::PathBuf;

/// A handle on one heap.
///
/// Clones share it; the last one dropped closes it. Any number of threads can use it at a time. A forked child can go
/// on using its parent's: it attaches as a client of its own on its first operation.
#[derive(Debug)]
pub struct Cache {
    key: u64,
}

/// What a program wants of a heap that it opens.
#[derive(Clone, Debug)]
pub struct OpenOptions {
    least: Isolation,
    most: Isolation,
}

impl OpenOptions {
    /// Whatever isolation this machine can give, none if need be.
    pub fn new() -> Self {
        Self { least: Isolation::None, most: Isolation::Sealed }
    }

    /// The least isolation that the program accepts.
    pub fn isolation(mut self, least: Isolation) -> Self {
        self.least = least;
        self
    }

    /// The most that it has use for: isolation costs time. What it accepts at least, or `PLIB_ISOLATION` asks for, it gets all the
    /// same.
    pub fn isolation_at_most(mut self, most: Isolation) -> Self {
        self.most = most;
        self
    }
}

impl Default for OpenOptions {
    fn default() -> Self {
        Self::new()
    }
}

/// An item's value, and what is kept with it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Item {
    /// The value.
    pub value: Vec<u8>,
    /// The number that the program stored with it.
    pub flags: u32,
    /// The value that [`Cache::compare_and_swap`] wants; another after each change.
    pub cas: u64,
    /// When it expires, in unix seconds; 0 is never.
    pub expiry: u32,
}

/// Values up to this come by way of the stack: one look-up, one allocation of the right size.
pub(crate) const STACK_VALUE: usize = 1024;

impl Cache {
    /// Makes a heap and opens it. `name` is looked up in `$PLIB_DIR` (default `/dev/shm/plib`); one with a '/' is a path.
    ///
    /// The file appears complete, with all its space reserved, or not at all.
    ///
    /// # Errors
    /// [`Error::AlreadyExists`], [`Error::NoSpace`], [`Error::OutOfRange`], [`Error::Permission`] and others.
    pub fn create(name: impl AsRef<OsStr>, options: &CreateOptions) -> Result<Self, Error> {
        let isolation = Wanted::new(Isolation::None, Isolation::Sealed)?;
        let path = create::create(name.as_ref(), options)?;
        Ok(Self { key: handle::open(path, isolation)? })
    }

    /// Opens a heap.
    ///
    /// # Errors
    /// [`Error::NoHeap`], [`Error::NotAHeap`], [`Error::Layout`], [`Error::Permission`], [`Error::Full`] and others; the
    /// file is checked before it is mapped, and never changed by a failed opening.
    pub fn open(name: impl AsRef<OsStr>) -> Result<Self, Error> {
        Self::open_with(name, &OpenOptions::new())
    }

    /// Opens a heap, with conditions.
    ///
    /// # Errors
    /// As [`Cache::open`], and [`Error::Isolation`].
    pub fn open_with(name: impl AsRef<OsStr>, options: &OpenOptions) -> Result<Self, Error> {
        let isolation = Wanted::new(options.least, options.most)?;
        let path = name::checked_path(name.as_ref())?;
        Ok(Self { key: handle::open(path, isolation)? })
    }

    /// Removes a heap's file, and its lock file if it has one. Who has it open keeps it until closing it.
    ///
    /// # Errors
    /// [`Error::NotAHeap`] for any other file, [`Error::NoHeap`], [`Error::Permission`].
    pub fn destroy(name: impl AsRef<OsStr>) -> Result<(), Error> {
        name::destroy(name.as_ref())
    }

    /// The heaps in `$PLIB_DIR` that this user may read.
    ///
    /// # Errors
    /// When the directory cannot be read.
    pub fn list() -> Result<Vec<PathBuf>, Error> {
        name::list()
    }

    /// The file that a heap of this name has or would have.
    pub fn path_of(name: impl AsRef<OsStr>) -> PathBuf {
        name::path_of(name.as_ref())
    }

    /// Looks a key up.
    ///
    /// ```
    /// # let dir = tempfile::tempdir()?;
    /// # let cache = plib::Cache::create(dir.path().join("heap"), &plib::CreateOptions::new(16 << 20))?;
    /// cache.set(b"colour", b"blue", 7, 0)?;
    /// let item = cache.get(b"colour")?.unwrap();
    /// assert_eq!((item.value.as_slice(), item.flags), (&b"blue"[..], 7));
    /// assert_eq!(cache.get(b"shape")?, None);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// [`Error::Key`], [`Error::Busy`].
    pub fn get(&self, key: &[u8]) -> Result<Option<Item>, Error> {
        // SAFETY: `In` and `Out` are memory of this frame or the caller's.
        self.take(key, |session, key, out| unsafe { session.get(key, out) })
    }

    /// Looks a key up and copies its value into `buf`.
    ///
    /// ```
    /// # let dir = tempfile::tempdir()?;
    /// # let cache = plib::Cache::create(dir.path().join("heap"), &plib::CreateOptions::new(16 << 20))?;
    /// cache.set(b"colour", b"blue", 0, 0)?;
    /// let mut buf = [0; 64];
    /// let info = cache.get_into(b"colour", &mut buf)?.unwrap();
    /// assert_eq!(&buf[..info.value_len], b"blue");
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// [`Error::TooSmall`] says how many bytes are needed; `buf` then holds nothing of use.
    #[inline(always)]
    pub fn get_into(&self, key: &[u8], buf: &mut [u8]) -> Result<Option<ItemInfo>, Error> {
        let mut inside = self.enter()?;
        // Returned from here, and not together with the other answers below: those come through memory.
        // SAFETY: both are slices.
        if let Some(Got { info, .. }) = unsafe { inside.session().get_usual(In::new(key), Out::new(buf)) } {
            return Ok(Some(info));
        }
        Self::get_unusual(inside, key, buf)
    }

    #[inline(never)]
    fn get_unusual(mut inside: Inside, key: &[u8], buf: &mut [u8]) -> Result<Option<ItemInfo>, Error> {
        // SAFETY: both are slices.
        match unsafe { inside.session().get(In::new(key), Out::new(buf)) } {
            Ok(Got { info, copied: true }) => Ok(Some(info)),
            Ok(Got { info, .. }) => Err(Error::TooSmall { needed: info.value_len, given: buf.len() }),
            Err(Status::NotFound) => Ok(None),
            Err(status) => Err(inside.error(status, key.len(), 0)),
        }
    }

    /// Looks a key up and sets when it expires.
    ///
    /// # Errors
    /// [`Error::Key`], [`Error::Busy`].
    pub fn get_and_touch(&self, key: &[u8], exptime: i64) -> Result<Option<Item>, Error> {
        // SAFETY: as in `get`.
        self.take(key, |session, key, out| unsafe { session.get_and_touch(key, exptime, out) })
    }

    /// Gets a value of unknown size.
    fn take(
        &self,
        key: &[u8],
        get: impl Fn(&mut Session<'_>, In, Out) -> Result<Got, Status>,
    ) -> Result<Option<Item>, Error> {
        let mut inside = self.enter()?;
        let mut small = [MaybeUninit::<u8>::uninit(); STACK_VALUE];
        let out = Out { ptr: small.as_mut_ptr().cast(), len: small.len() };
        let mut got = get(inside.session(), In::new(key), out);
        let mut value = Vec::new();
        if let Ok(Got { info, copied: true }) = got {
            // SAFETY: the core wrote that many bytes, and never more than it was given room for.
            value.extend_from_slice(unsafe { std::slice::from_raw_parts(small.as_ptr().cast(), info.value_len) });
        }
        // Another process may store a longer value before the next try.
        while let Ok(Got { info, copied: false }) = got {
            value.reserve_exact(info.value_len);
            got = get(inside.session(), In::new(key), Out { ptr: value.as_mut_ptr(), len: value.capacity() });
            if let Ok(Got { info, copied: true }) = got {
                // SAFETY: as above.
                unsafe { value.set_len(info.value_len) };
            }
        }
        match got {
            Ok(Got { info, .. }) => Ok(Some(Item { value, flags: info.flags, cas: info.cas, expiry: info.expiry })),
            Err(Status::NotFound) => Ok(None),
            Err(status) => Err(inside.error(status, key.len(), 0)),
        }
    }

    /// Stores a value, whether or not the key is there, and gives its cas value.
    ///
    /// # Errors
    /// [`Error::TooLarge`], [`Error::NoMemory`], [`Error::Key`], [`Error::Busy`].
    #[inline]
    pub fn set(&self, key: &[u8], value: &[u8], flags: u32, exptime: i64) -> Result<u64, Error> {
        self.store(Mode::Set, key, value, flags, exptime)
    }

    /// Stores a value if the key is not there.
    ///
    /// # Errors
    /// [`Error::NotStored`] if it is; else as [`Cache::set`].
    pub fn add(&self, key: &[u8], value: &[u8], flags: u32, exptime: i64) -> Result<u64, Error> {
        self.store(Mode::Add, key, value, flags, exptime)
    }

    /// Stores a value if the key is there.
    ///
    /// # Errors
    /// [`Error::NotStored`] if it is not; else as [`Cache::set`].
    pub fn replace(&self, key: &[u8], value: &[u8], flags: u32, exptime: i64) -> Result<u64, Error> {
        self.store(Mode::Replace, key, value, flags, exptime)
    }

    /// Puts bytes behind a value that is there; its flags and expiry stay.
    ///
    /// # Errors
    /// [`Error::NotStored`] if it is not; else as [`Cache::set`].
    pub fn append(&self, key: &[u8], value: &[u8]) -> Result<u64, Error> {
        self.store(Mode::Append, key, value, 0, 0)
    }

    /// Puts bytes before a value that is there; its flags and expiry stay.
    ///
    /// # Errors
    /// [`Error::NotStored`] if it is not; else as [`Cache::set`].
    pub fn prepend(&self, key: &[u8], value: &[u8]) -> Result<u64, Error> {
        self.store(Mode::Prepend, key, value, 0, 0)
    }

    /// Stores a value if the item still has the cas value `cas`.
    ///
    /// ```
    /// # let dir = tempfile::tempdir()?;
    /// # let cache = plib::Cache::create(dir.path().join("heap"), &plib::CreateOptions::new(16 << 20))?;
    /// use plib::Error;
    /// let first = cache.set(b"count", b"1", 0, 0)?;
    /// let second = cache.compare_and_swap(b"count", b"2", 0, 0, first)?;
    /// assert!(matches!(cache.compare_and_swap(b"count", b"3", 0, 0, first), Err(Error::Exists)));
    /// assert_eq!(cache.get(b"count")?.unwrap().cas, second);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// [`Error::Exists`] if it has another, [`Error::NotFound`] if there is none; else as [`Cache::set`].
    pub fn compare_and_swap(&self, key: &[u8], value: &[u8], flags: u32, exptime: i64, cas: u64) -> Result<u64, Error> {
        self.store(Mode::Cas(cas), key, value, flags, exptime)
    }

    #[inline]
    fn store(&self, mode: Mode, key: &[u8], value: &[u8], flags: u32, exptime: i64) -> Result<u64, Error> {
        let mut inside = self.enter()?;
        // SAFETY: both are slices.
        let stored = unsafe { inside.session().store(mode, In::new(key), In::new(value), flags, exptime) };
        stored.map_err(|status| inside.error(status, key.len(), value.len()))
    }

    /// Removes an item; false if there is none.
    ///
    /// # Errors
    /// [`Error::Key`], [`Error::Busy`].
    #[inline]
    pub fn delete(&self, key: &[u8]) -> Result<bool, Error> {
        self.remove(key, None)
    }

    /// Removes an item if it has the cas value `cas`; false if there is none.
    ///
    /// # Errors
    /// [`Error::Exists`] if it has another; else as [`Cache::delete`].
    pub fn delete_if(&self, key: &[u8], cas: u64) -> Result<bool, Error> {
        self.remove(key, Some(cas))
    }

    #[inline]
    fn remove(&self, key: &[u8], cas: Option<u64>) -> Result<bool, Error> {
        let mut inside = self.enter()?;
        // SAFETY: a slice.
        let removed = unsafe { inside.session().delete(In::new(key), cas) };
        found(removed.map_err(|status| (status, inside, key)))
    }

    /// Adds to a decimal number, wrapping at 64 bits; None if the key is not there.
    ///
    /// ```
    /// # let dir = tempfile::tempdir()?;
    /// # let cache = plib::Cache::create(dir.path().join("heap"), &plib::CreateOptions::new(16 << 20))?;
    /// cache.set(b"hits", b"41", 0, 0)?;
    /// assert_eq!(cache.increment(b"hits", 1)?, Some(42));
    /// assert_eq!(cache.decrement(b"hits", 100)?, Some(0));
    /// assert_eq!(cache.increment_or(b"visits", 1, 10, 0)?, 10);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// [`Error::NotNumeric`], [`Error::Key`], [`Error::Busy`].
    #[inline]
    pub fn increment(&self, key: &[u8], delta: u64) -> Result<Option<u64>, Error> {
        self.count(key, delta, false, None)
    }

    /// Subtracts from a decimal number, stopping at 0; None if the key is not there.
    ///
    /// # Errors
    /// As [`Cache::increment`].
    pub fn decrement(&self, key: &[u8], delta: u64) -> Result<Option<u64>, Error> {
        self.count(key, delta, true, None)
    }

    /// Adds to a number, or stores `initial` (with `exptime`) where there is none.
    ///
    /// # Errors
    /// As [`Cache::increment`] and [`Cache::set`].
    pub fn increment_or(&self, key: &[u8], delta: u64, initial: u64, exptime: i64) -> Result<u64, Error> {
        Ok(self.count(key, delta, false, Some((initial, exptime)))?.unwrap_or(initial))
    }

    /// Subtracts from a number, or stores `initial` (with `exptime`) where there is none.
    ///
    /// # Errors
    /// As [`Cache::increment`] and [`Cache::set`].
    pub fn decrement_or(&self, key: &[u8], delta: u64, initial: u64, exptime: i64) -> Result<u64, Error> {
        Ok(self.count(key, delta, true, Some((initial, exptime)))?.unwrap_or(initial))
    }

    #[inline]
    fn count(&self, key: &[u8], delta: u64, down: bool, initial: Option<(u64, i64)>) -> Result<Option<u64>, Error> {
        let mut inside = self.enter()?;
        // SAFETY: a slice.
        match unsafe { inside.session().arith(In::new(key), delta, down, initial) } {
            Ok((value, _)) => Ok(Some(value)),
            Err(Status::NotFound) => Ok(None),
            Err(status) => Err(inside.error(status, key.len(), 0)),
        }
    }

    /// Sets when an item expires; false if there is none.
    ///
    /// # Errors
    /// [`Error::Key`], [`Error::Busy`].
    pub fn touch(&self, key: &[u8], exptime: i64) -> Result<bool, Error> {
        let mut inside = self.enter()?;
        // SAFETY: a slice.
        let touched = unsafe { inside.session().touch(In::new(key), exptime) };
        found(touched.map_err(|status| (status, inside, key)))
    }

    /// Makes every item vanish that is stored before now, or before `delay` seconds from now (an exptime: above 30 days it
    /// is an absolute time). Until then the items stay; a later call replaces a delay that has not passed.
    ///
    /// # Errors
    /// [`Error::Busy`].
    pub fn flush_all(&self, delay: i64) -> Result<(), Error> {
        let mut inside = self.enter()?;
        let flushed = inside.session().flush_all(delay);
        flushed.map_err(|status| inside.error(status, 0, 0))
    }

    /// What keeps the program out of the heap between calls.
    pub fn isolation(&self) -> Isolation {
        // A handle that cannot be entered protects nothing.
        self.enter().map_or(Isolation::None, |inside| inside.isolation())
    }

    #[inline]
    pub(crate) fn enter(&self) -> Result<Inside, Error> {
        Ok(enter(self.key)?)
    }

    pub(crate) fn key(&self) -> u64 {
        self.key
    }

    /// Gives the handle's number away, open.
    pub(crate) fn into_key(self) -> u64 {
        std::mem::ManuallyDrop::new(self).key
    }
}

impl Clone for Cache {
    fn clone(&self) -> Self {
        handle::share(self.key);
        Self { key: self.key }
    }
}

impl Drop for Cache {
    fn drop(&mut self) {
        handle::unshare(self.key);
    }
}

/// True for done, false for no such key.
#[inline]
fn found(result: Result<(), (Status, Inside, &[u8])>) -> Result<bool, Error> {
    match result {
        Ok(()) => Ok(true),
        Err((Status::NotFound, ..)) => Ok(false),
        Err((status, inside, key)) => Err(inside.error(status, key.len(), 0)),
    }
}
