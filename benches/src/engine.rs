//! The in-process peers behind one face.

use std::{hash::Hash, sync::Arc};

use plib::{Cache, Error};
use quick_cache::Equivalent;

use crate::{
    failure::{Failure, Result},
    key::Key,
    value::Value,
};

/// A cache in this process, as its users would call it.
pub trait Engine {
    /// Copies the value out; false where the key is not there.
    fn get(&self, key: &Key, out: &mut Value) -> Result<bool>;
    /// Stores a fresh copy of the value.
    fn set(&self, key: &Key, value: &Value) -> Result<()>;
    /// Stores a fresh copy where the key is there; false where it is not.
    fn replace(&self, key: &Key, value: &Value) -> Result<bool>;
    /// Removes the key; false where it was not there.
    fn delete(&self, key: &Key) -> Result<bool>;
}

/// plib: the heap's code runs in the caller.
pub struct Plib<'a>(pub &'a Cache);

impl Engine for Plib<'_> {
    #[inline]
    fn get(&self, key: &Key, out: &mut Value) -> Result<bool> {
        let Some(info) = self.0.get_into(key, out)? else { return Ok(false) };
        if info.value_len == out.len() { Ok(true) } else { Err(wrong_length(info.value_len)) }
    }

    #[inline]
    fn set(&self, key: &Key, value: &Value) -> Result<()> {
        self.0.set(key, value, 0, 0)?;
        Ok(())
    }

    #[inline]
    fn replace(&self, key: &Key, value: &Value) -> Result<bool> {
        match self.0.replace(key, value, 0, 0) {
            Ok(_) => Ok(true),
            Err(Error::NotStored) => Ok(false),
            Err(error) => Err(error.into()),
        }
    }

    #[inline]
    fn delete(&self, key: &Key) -> Result<bool> {
        Ok(self.0.delete(key)?)
    }
}

/// quick_cache at its best: values behind an `Arc` (a get is then a count and a copy; with a `Box` each get would
/// allocate), its own hasher, and room for all items in every shard.
pub struct Quick<K>(quick_cache::sync::Cache<K, Arc<[u8]>>);

/// Keys of one length that is known at compile time, stored in place: the quickest that quick_cache can be.
pub type QuickArray = Quick<Key>;
/// Keys of any length, as plib and memcached take them.
pub type QuickBytes = Quick<Box<[u8]>>;

/// A kind of key that quick_cache can hold.
pub trait QuickKey: Clone + Eq + Hash {
    /// What it is looked up by.
    type Lookup: Hash + Equivalent<Self> + ?Sized;
    /// The key to store.
    fn stored(key: &Key) -> Self;
    /// The key to look up.
    fn lookup(key: &Key) -> &Self::Lookup;
}

impl QuickKey for Key {
    type Lookup = Key;

    #[inline]
    fn stored(key: &Key) -> Self {
        *key
    }

    #[inline]
    fn lookup(key: &Key) -> &Key {
        key
    }
}

impl QuickKey for Box<[u8]> {
    type Lookup = [u8];

    #[inline]
    fn stored(key: &Key) -> Self {
        Box::from(key.as_slice())
    }

    #[inline]
    fn lookup(key: &Key) -> &[u8] {
        key
    }
}

impl<K: QuickKey> Quick<K> {
    /// A cache that holds `items` without evicting.
    pub fn new(items: u64) -> Self {
        // Shards fill unevenly: as much again for small caches, an eighth for large ones.
        let room = items + (items / 8).max(1000);
        Self(quick_cache::sync::Cache::new(room as usize))
    }
}

impl<K: QuickKey> Engine for Quick<K> {
    #[inline]
    fn get(&self, key: &Key, out: &mut Value) -> Result<bool> {
        let Some(value) = self.0.get(K::lookup(key)) else { return Ok(false) };
        if value.len() != out.len() {
            return Err(wrong_length(value.len()));
        }
        out.copy_from_slice(&value);
        Ok(true)
    }

    #[inline]
    fn set(&self, key: &Key, value: &Value) -> Result<()> {
        self.0.insert(K::stored(key), Arc::from(value.as_slice()));
        Ok(())
    }

    #[inline]
    fn replace(&self, key: &Key, value: &Value) -> Result<bool> {
        Ok(self.0.replace(K::stored(key), Arc::from(value.as_slice()), false).is_ok())
    }

    #[inline]
    fn delete(&self, key: &Key) -> Result<bool> {
        Ok(self.0.remove(K::lookup(key)).is_some())
    }
}

#[cold]
fn wrong_length(found: usize) -> Failure {
    Failure::new(format!("a value of {} bytes came back as one of {found}", crate::value::VALUE))
}
