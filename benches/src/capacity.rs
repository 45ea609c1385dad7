//! How many items a cache of 1 GiB holds, beside `memcached -m 1024`.
//!
//! Both get new items until they have evicted a twentieth of what they hold, and are then asked for
//! `curr_items`. A heap's size is everything, its index included; memcached's -m leaves the hash table out.

use plib::Cache;
use serde::Serialize;

use crate::{
    failure::{Failure, Result},
    heap::Folder,
    key::key,
    machine::Machine,
    memcached::{Address, Client, Server},
    progress::Progress,
    settings::Settings,
    value::{is_right, put_stamp, template},
};

/// Bytes of the values.
pub const VALUES: [usize; 3] = [32, 128, 1000];
/// Items between two looks at the statistics.
const STEP: u64 = 50_000;
/// Of how many of the newest items a sample is read back.
const SAMPLE: u64 = 1000;

/// What one cache held.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Held {
    /// Items at the end.
    pub items: u64,
    /// Items evicted until then.
    pub evictions: u64,
}

/// Both caches at one length of values.
#[derive(Clone, Debug, Serialize)]
pub struct Capacity {
    /// Bytes of a value.
    pub value: usize,
    /// Bytes of each cache.
    pub bytes: u64,
    /// plib.
    pub plib: Held,
    /// memcached with its defaults.
    pub memcached: Held,
}

/// Fills both with values of each length.
pub fn measure(settings: &Settings, folder: &Folder, machine: &Machine, progress: &Progress) -> Result<Vec<Capacity>> {
    let bytes = settings.capacity_bytes;
    VALUES
        .iter()
        .map(|&value| {
            progress.say(format_args!("capacity: {value}-byte values into a heap of {} MiB", bytes >> 20));
            let heap = folder.heap("capacity", bytes, settings.huge)?;
            let plib = fill_plib(&heap.cache, value)?;
            drop(heap);
            progress.say(format_args!("capacity: {value}-byte values into memcached -m {}", bytes >> 20));
            let server = Server::start(Address::Unix(folder.file("capacity.sock")), bytes >> 20, machine.core())?;
            let memcached = fill_memcached(&mut server.connect()?, value)?;
            Ok(Capacity { value, bytes, plib, memcached })
        })
        .collect()
}

/// Whether enough was evicted to call it full.
fn is_full(held: Held) -> bool {
    held.evictions > held.items / 20
}

fn fill_plib(cache: &Cache, len: usize) -> Result<Held> {
    let mut value = template(len);
    let mut next = 0;
    let held = loop {
        for item in next..next + STEP {
            put_stamp(&mut value, item);
            cache.set(&key(item), &value, 0, 0)?;
        }
        next += STEP;
        let stats = cache.stats()?;
        let held = Held { items: stats.curr_items, evictions: stats.evictions };
        if is_full(held) {
            break held;
        }
    };
    for item in next - SAMPLE..next {
        // The newest may have been evicted already, but what is there must be right.
        if cache.get(&key(item))?.is_some_and(|found| !is_right(&found.value, len, item)) {
            return Err(Failure::new(format!("plib gave wrong bytes for item {item}")));
        }
    }
    let scanned = count(cache)?;
    if scanned != held.items {
        return Err(Failure::new(format!("plib says it holds {} items, a scan finds {scanned}", held.items)));
    }
    Ok(held)
}

/// Counts the items themselves.
fn count(cache: &Cache) -> Result<u64> {
    let mut count = 0;
    for entry in cache.scan() {
        entry?;
        count += 1;
    }
    Ok(count)
}

fn fill_memcached(client: &mut Client, len: usize) -> Result<Held> {
    let mut next = 0;
    let held = loop {
        client.fill(next..next + STEP, len)?;
        next += STEP;
        let stats = client.stats()?;
        let field = |name: &str| {
            stats.get(name).copied().ok_or_else(|| Failure::new(format!("memcached's statistics lack {name}")))
        };
        let held = Held { items: field("curr_items")?, evictions: field("evictions")? };
        if is_full(held) {
            break held;
        }
    };
    for item in next - 10..next {
        if !client.holds(item, len)? {
            return Err(Failure::new(format!("memcached lost item {item} at once")));
        }
    }
    Ok(held)
}
