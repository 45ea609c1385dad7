//! The table of open handles.
//!
//! A handle is a number, `1 | generation | index`, with bit 62 set: as a pointer it is not canonical, so it cannot be
//! mistaken for one, and a program that follows it faults at once. Nothing is ever read through it; a closed or made-up handle
//! matches no key in the table and is refused.
//!
//! ```text
//! bit 63  62   61 ............... 10   9 ....... 0
//!     0    1   generation              index
//! ```

use crate::attach::Record;
use crate::claim;
use crate::error::Error;
use crate::protection::Wanted;
use crate::stack;
use crate::world::{Guard, HANDLES, Opening, World};
use std::path::PathBuf;
use std::ptr::null_mut;
use std::sync::atomic::{AtomicPtr, AtomicU32, AtomicU64, Ordering};

const INDEX_BITS: u32 = HANDLES.trailing_zeros();
const MARK: u64 = 1 << 62;
const _: () = assert!(HANDLES.is_power_of_two());

/// One handle. Unlike the world it survives fork: a child's handles are its parent's.
struct Entry {
    /// The handle's number; 0 while it is not open. Changed under both of the world's locks.
    key: AtomicU64,
    /// How many `Cache` values share it.
    references: AtomicU32,
    /// What is needed to attach; null while the entry is free. Changed under both locks, used under either.
    record: AtomicPtr<Record>,
}

static TABLE: [Entry; HANDLES] =
    [const { Entry { key: AtomicU64::new(0), references: AtomicU32::new(0), record: AtomicPtr::new(null_mut()) } };
        HANDLES];
static GENERATION: AtomicU64 = AtomicU64::new(1);

const fn index_of(key: u64) -> usize {
    key as usize % HANDLES
}

/// Opens the heap at `path` in this process.
pub(crate) fn open(path: PathBuf, isolation: Wanted) -> Result<u64, Error> {
    let record = Record::open(&path, isolation)?;
    World::get_or_make().map_err(|e| Error::io("get memory for", record.path(), e))?;
    let opening = World::lock_opening().ok_or(Error::Interrupted)??;
    let free = TABLE.iter().position(|e| e.record.load(Ordering::Relaxed).is_null());
    let remedy = "close some";
    let index = free.ok_or(Error::Full { what: "heaps can be open in a process", limit: HANDLES as u64, remedy })?;
    let attachment = record.attach()?;
    record.set_mapped(attachment.mapping.base() as usize);
    let record = Box::into_raw(Box::new(record));
    let generation = GENERATION.fetch_add(1, Ordering::Relaxed);
    let key = MARK | (generation << INDEX_BITS & (MARK - 1)) | index as u64;
    // Never refused: the world's lock was free to this thread a moment ago, and no handler runs here.
    let guard = opening.lock()?;
    guard.put_attachment(&opening, index, key, attachment);
    let entry = &TABLE[index];
    entry.references.store(1, Ordering::Relaxed);
    entry.record.store(record, Ordering::Release);
    entry.key.store(key, Ordering::Release);
    Ok(key)
}

fn entry_of(key: u64) -> Option<&'static Entry> {
    let entry = &TABLE[index_of(key)];
    (key != 0 && entry.key.load(Ordering::Acquire) == key).then_some(entry)
}

/// Whether it is the number of an open handle.
pub(crate) fn is_open(key: u64) -> bool {
    entry_of(key).is_some()
}

/// The record of a handle that cannot be closed meanwhile; None if it is not open.
///
/// # Safety
/// The caller holds a `Cache` of this handle, or is inside an operation on it, for as long as it uses the record.
pub(crate) unsafe fn record_of_held<'a>(key: u64) -> Option<&'a Record> {
    // SAFETY: the record is freed after the entry's last reference is gone and no operation is under way.
    unsafe { TABLE[index_of(key)].record.load(Ordering::Acquire).as_ref() }
}

/// Sees to it that this process is attached, which a forked child is not yet, and gives the world's lock and the handle's index.
pub(crate) fn attached(key: u64) -> Result<(Guard, usize), Error> {
    loop {
        let guard = World::lock_own().ok_or(Error::Closed)??;
        entry_of(key).ok_or(Error::Closed)?;
        let index = index_of(key);
        if guard.attachment(index, key).is_some() {
            return Ok((guard, index));
        }
        drop(guard);
        attach(key)?;
    }
}

/// Attaches this process, unless another thread was first.
fn attach(key: u64) -> Result<(), Error> {
    let opening = World::lock_opening().ok_or(Error::Closed)??;
    let entry = entry_of(key).ok_or(Error::Closed)?;
    let index = index_of(key);
    if opening.lock()?.attachment(index, key).is_some() {
        return Ok(());
    }
    // SAFETY: an open entry's record is there, and is freed only under the opening lock, which we hold.
    let record = unsafe { entry.record.load(Ordering::Relaxed).as_ref() }.ok_or(Error::Closed)?;
    let attachment = record.attach()?;
    record.set_mapped(attachment.mapping.base() as usize);
    // Never refused, as in `open`.
    opening.lock()?.put_attachment(&opening, index, key, attachment);
    Ok(())
}

/// The records of all handles. (In a child of fork, or under the world's lock.)
fn records() -> impl Iterator<Item = &'static Record> {
    // SAFETY: records are taken from here under the world's lock, and freed after that, and no caller keeps one.
    TABLE.iter().filter_map(|entry| unsafe { entry.record.load(Ordering::Relaxed).as_ref() })
}

/// Fences off, in a child of fork, where its parent had heaps mapped.
pub(crate) fn fence_mappings() {
    records().for_each(Record::fence);
}

/// Forgets, in a child of fork, where its parent had heaps mapped: nothing in the child still points there.
pub(crate) fn forget_mappings() {
    records().for_each(|record| record.set_mapped(0));
}

/// One more `Cache` shares the handle.
pub(crate) fn share(key: u64) {
    TABLE[index_of(key)].references.fetch_add(1, Ordering::Relaxed);
}

/// One `Cache` less does; the last closes it.
pub(crate) fn unshare(key: u64) {
    if TABLE[index_of(key)].references.fetch_sub(1, Ordering::AcqRel) == 1 {
        close(key);
    }
}

/// Closes a handle: threads inside an operation finish it, later ones are refused. False if it is not open.
pub(crate) fn close(key: u64) -> bool {
    let sp = stack::pointer();
    if !is_open(key) {
        return false;
    }
    claim::prepare();
    let Some(Ok(opening)) = World::lock_opening() else { return false };
    let Ok(guard) = opening.lock() else { return false };
    let Some(entry) = entry_of(key) else { return false };
    let index = index_of(key);
    entry.key.store(0, Ordering::Release);
    // A forked child that never used the handle has nothing to wait for.
    if guard.attachment(index, key).is_none() {
        drop(guard);
        free_record(&opening, entry);
        return true;
    }
    // Nobody who opens or forks need wait for those who are inside.
    let guard = guard.outlive(opening);
    if !claim::retire_all(guard, index, sp) {
        // A thread is stuck inside: file, mapping and table entry stay as they are until the process ends.
        return true;
    }
    // All or nothing from here on, and no fork between.
    let Some(Ok(opening)) = World::lock_opening() else { return true };
    let attachment = opening.lock().ok().and_then(|guard| guard.take_attachment(&opening, index, key));
    if let Some(attachment) = attachment {
        attachment.detach();
    }
    free_record(&opening, entry);
    true
}

/// Makes the entry of a closed handle free again.
fn free_record(opening: &Opening, entry: &Entry) {
    let Ok(guard) = opening.lock() else { return };
    let record = entry.record.swap(null_mut(), Ordering::Relaxed);
    drop(guard);
    if !record.is_null() {
        // SAFETY: it came from Box::into_raw in `open`, and nobody finds it in the table any more.
        drop(unsafe { Box::from_raw(record) });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn forged_handles_are_refused() {
        for key in [0, 1, MARK, MARK | 5, u64::MAX, (&raw const TABLE) as u64] {
            assert!(entry_of(key).is_none() && !close(key));
            assert!(matches!(claim::enter(key), Err(claim::Refused::Closed)));
        }
    }
}
