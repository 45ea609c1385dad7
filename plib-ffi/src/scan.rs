//! All items of a heap, one after the other, while others read and write.

use crate::cache::Cache;
use crate::claim::enter;
use crate::error::Error;
use plib_core::layout::KEY_MAX;
use plib_core::user::Out;
use plib_core::{ItemInfo, Scanned};

/// An item as a scan finds it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Entry {
    /// The key.
    pub key: Vec<u8>,
    /// The value.
    pub value: Vec<u8>,
    /// The number that the program stored with it.
    pub flags: u32,
    /// When it expires, in unix seconds; 0 is never.
    pub expiry: u32,
    /// Its cas value.
    pub cas: u64,
}

/// An iterator over a heap's items.
///
/// An item that is there from before the scan to its end is given once; one that comes or goes meanwhile may be
/// given or not. No lock is held between items.
#[derive(Debug)]
pub struct Scan<'c> {
    cache: &'c Cache,
    walk: Walk,
    ended: bool,
}

/// A scan's place and buffers, also for the C ABI.
#[derive(Debug)]
pub(crate) struct Walk {
    cursor: u64,
    key: [u8; KEY_MAX],
    key_len: usize,
    value: Vec<u8>,
}

/// Room for a value before the first larger one is met.
const FIRST_ROOM: usize = 4096;

impl Walk {
    /// A scan that begins behind `cursor`.
    pub fn new(cursor: u64) -> Self {
        Self { cursor, key: [0; KEY_MAX], key_len: 0, value: Vec::with_capacity(FIRST_ROOM) }
    }

    /// Where to go on.
    pub fn cursor(&self) -> u64 {
        self.cursor
    }

    /// The item that `step` stopped at.
    pub fn key(&self) -> &[u8] {
        &self.key[..self.key_len]
    }

    /// Its value.
    pub fn value(&self) -> &[u8] {
        &self.value
    }

    /// Goes on to the next item.
    pub fn step(&mut self, handle: u64) -> Result<Option<ItemInfo>, Error> {
        loop {
            self.value.clear();
            let mut inside = enter(handle)?;
            let out = Out { ptr: self.value.as_mut_ptr(), len: self.value.capacity() };
            // SAFETY: key and value are buffers of our own.
            let found = unsafe { inside.session().scan(self.cursor, Out::new(&mut self.key), out) };
            let Some(Scanned { key_len, got, next }) = found.map_err(|status| inside.error(status, 0, 0))? else {
                return Ok(None);
            };
            if !got.copied {
                // The cursor stays: the same item again, with room for it.
                self.value.reserve_exact(got.info.value_len);
                continue;
            }
            // SAFETY: the core wrote that many bytes, which fitted.
            unsafe { self.value.set_len(got.info.value_len) };
            self.key_len = key_len.min(KEY_MAX);
            self.cursor = next;
            return Ok(Some(got.info));
        }
    }
}

impl Cache {
    /// All items.
    ///
    /// ```
    /// # let dir = tempfile::tempdir()?;
    /// # let cache = plib::Cache::create(dir.path().join("heap"), &plib::CreateOptions::new(16 << 20))?;
    /// cache.set(b"a", b"1", 0, 0)?;
    /// cache.set(b"b", b"2", 0, 0)?;
    /// let mut keys = cache.scan().map(|entry| Ok(entry?.key)).collect::<Result<Vec<_>, plib::Error>>()?;
    /// keys.sort();
    /// assert_eq!(keys, [b"a", b"b"]);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn scan(&self) -> Scan<'_> {
        self.scan_from(0)
    }

    /// The items behind a [`Scan::cursor`], which may come from another process.
    pub fn scan_from(&self, cursor: u64) -> Scan<'_> {
        Scan { cache: self, walk: Walk::new(cursor), ended: false }
    }
}

impl Scan<'_> {
    /// Where to go on later, behind the last entry that was given.
    pub fn cursor(&self) -> u64 {
        self.walk.cursor()
    }
}

impl Iterator for Scan<'_> {
    type Item = Result<Entry, Error>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.ended {
            return None;
        }
        let found = self.walk.step(self.cache.key());
        self.ended = !matches!(found, Ok(Some(_)));
        let entry = |info: ItemInfo| Entry {
            key: self.walk.key().to_vec(),
            value: self.walk.value().to_vec(),
            flags: info.flags,
            expiry: info.expiry,
            cas: info.cas,
        };
        found.transpose().map(|info| info.map(entry))
    }
}

impl std::iter::FusedIterator for Scan<'_> {}
