//! A heap with known items, and the names that the operations and the survivor use.

use plib::{Cache, CreateOptions, Error};
use std::cell::RefCell;
use std::path::PathBuf;

/// What a scenario wants of its heap.
#[derive(Clone, Copy)]
pub struct HeapShape {
    /// Bytes.
    pub size: u64,
    /// Largest item.
    pub item_size_max: u32,
}

impl HeapShape {
    /// The smallest heap there is.
    pub const SMALL: Self = Self { size: plib::HEAP_SIZE_MIN, item_size_max: 1 << 20 };
}

/// The heap and everything in it that is watched.
pub struct Stage {
    /// This process's handle.
    pub cache: Cache,
    /// The heap's file.
    pub path: PathBuf,
    /// All keys whose items are compared after each death.
    pub keys: Vec<Vec<u8>>,
    /// The key that operations work on.
    pub target: Vec<u8>,
    /// An item of the target's bucket that the survivor replaces.
    pub near: Vec<u8>,
    /// One that it deletes and adds again.
    pub near_gone: Vec<u8>,
    /// A number of the target's bucket.
    pub near_number: Vec<u8>,
    /// More keys that belong to the target's bucket; none of them is stored unless the scenario does.
    pub same_bucket: Vec<Vec<u8>>,
    /// Keys elsewhere that are stored.
    pub others: Vec<Vec<u8>>,
    /// A key that is not stored and belongs elsewhere.
    pub fresh: Vec<u8>,
    /// The bytes of new values, made beforehand.
    pub new: Vec<u8>,
    /// Where values are read to.
    pub buf: RefCell<Vec<u8>>,
}

/// Bytes of the usual value.
pub const VALUE: usize = 100;
/// Which value is the new one, and how long it may be.
const NEW: u64 = 9_000_000;
const NEW_MAX: usize = 200_000;
const OTHERS: usize = 24;
const SAME_BUCKET: usize = 40;
const CONTEXTS: u32 = 8;

/// `len` bytes that tell which of `n` values they are.
pub fn value(n: u64, len: usize) -> Vec<u8> {
    let mut state = n.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut bytes = Vec::with_capacity(len + 8);
    while bytes.len() < len {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        bytes.extend_from_slice(&state.to_le_bytes());
    }
    bytes.truncate(len);
    bytes
}

impl Stage {
    /// Makes a heap in `folder` with a few items. The target is not stored.
    pub fn new(folder: &std::path::Path, shape: HeapShape) -> Result<Self, Error> {
        let path = folder.join("heap");
        let options = CreateOptions::new(shape.size).item_size_max(shape.item_size_max).contexts(CONTEXTS);
        let cache = Cache::create(&path, &options)?;
        let target = b"the-target".to_vec();
        let bucket = cache.bucket_of(&target)?;
        let mut here = Vec::new();
        let mut others = Vec::new();
        for n in 0.. {
            let key = format!("key-{n:06}").into_bytes();
            if cache.bucket_of(&key)? == bucket {
                here.push(key);
            } else if others.len() <= OTHERS {
                others.push(key);
            }
            if here.len() == SAME_BUCKET + 3 {
                break;
            }
        }
        let [near, near_gone, near_number] = [0; 3].map(|_| here.pop().unwrap_or_default());
        let fresh = others.pop().unwrap_or_default();
        let (keys, same_bucket, new) = (Vec::new(), here, value(NEW, NEW_MAX));
        let buf = RefCell::new(vec![0; shape.item_size_max as usize]);
        let mut stage =
            Self { cache, path, keys, target, near, near_gone, near_number, same_bucket, others, fresh, new, buf };
        stage.put_usual_items()?;
        Ok(stage)
    }

    fn put_usual_items(&mut self) -> Result<(), Error> {
        for (n, key) in [&self.near, &self.near_gone].into_iter().chain(&self.others).enumerate() {
            self.cache.set(key, &value(n as u64, VALUE), n as u32, 0)?;
        }
        self.cache.increment_or(&self.near_number, 1, 41, 0)?;
        self.keys = [&self.target, &self.near, &self.near_gone, &self.near_number].map(Clone::clone).to_vec();
        self.keys.extend_from_slice(&self.others);
        Ok(())
    }

    /// Stores an item and watches it.
    pub fn put(&mut self, key: Vec<u8>, value: &[u8], flags: u32) -> Result<(), Error> {
        self.cache.set(&key, value, flags, 0)?;
        self.watch(key);
        Ok(())
    }

    /// Watches a key.
    pub fn watch(&mut self, key: Vec<u8>) {
        if !self.keys.contains(&key) {
            self.keys.push(key);
        }
    }

    /// Stores items `fill-N` of `len` bytes from `first` on until `enough`.
    pub fn fill(
        &mut self,
        len: usize,
        mut enough: impl FnMut(&Cache, usize) -> Result<bool, Error>,
    ) -> Result<(), Error> {
        for n in 0.. {
            if enough(&self.cache, n)? {
                return Ok(());
            }
            let key = format!("fill-{len}-{n:06}").into_bytes();
            self.cache.set(&key, &value(n as u64, len), 0, 0)?;
            self.keys.push(key);
        }
        Ok(())
    }
}
