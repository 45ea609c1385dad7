//! The in-process peers behind one face.

use std::sync::Arc;

use plib::{Cache, Error};

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

/// quick_cache at its best: keys in place, values behind an `Arc` (a get is then a count and a copy; with a
/// `Box` each get would allocate), its own hasher, and room for all items in every shard.
pub struct Quick(quick_cache::sync::Cache<Key, Arc<[u8]>>);

impl Quick {
    /// A cache that holds `items` without evicting.
    pub fn new(items: u64) -> Self {
        // Shards fill unevenly: half as much again for small caches, an eighth for large ones.
        let room = items + (items / 8).max(1000);
        Self(quick_cache::sync::Cache::new(room as usize))
    }
}

impl Engine for Quick {
    #[inline]
    fn get(&self, key: &Key, out: &mut Value) -> Result<bool> {
        let Some(value) = self.0.get(key) else { return Ok(false) };
        if value.len() != out.len() {
            return Err(wrong_length(value.len()));
        }
        out.copy_from_slice(&value);
        Ok(true)
    }

    #[inline]
    fn set(&self, key: &Key, value: &Value) -> Result<()> {
        self.0.insert(*key, Arc::from(value.as_slice()));
        Ok(())
    }

    #[inline]
    fn replace(&self, key: &Key, value: &Value) -> Result<bool> {
        Ok(self.0.replace(*key, Arc::from(value.as_slice()), false).is_ok())
    }

    #[inline]
    fn delete(&self, key: &Key) -> Result<bool> {
        Ok(self.0.remove(key).is_some())
    }
}

#[cold]
fn wrong_length(found: usize) -> Failure {
    Failure::new(format!("a value of {} bytes came back as one of {found}", crate::value::VALUE))
}
