//! Publish, read, retire: a reader gets an old value or a new one, whatever becomes of the block that it reads in.

use crate::explore;
use crate::table::*;
use loom::thread;
use plib_core::heap::block::{self, Meta};
use plib_core::index::{Found, Slot};
use plib_core::sync::{AtomicU64, Ordering};
use std::sync::Arc;

const KEY: Key = Key::low(1);
/// The same bucket, the same tag.
const OTHER: Key = KEY.twin(2);
const OLD: usize = 0;
const NEW: usize = 1;

/// What the second writer makes of the block that the first one freed.
#[derive(Clone, Copy, PartialEq)]
enum Second {
    StoresOther,
    StoresSame,
    /// Fills it for the same key and dies before the slot store.
    DiesUncommitted,
}

/// Which step is broken.
#[derive(Clone, Copy, PartialEq)]
enum Broken {
    Nothing,
    ReaderTrustsMeta,
    ReaderTrustsSlot,
    FreedBeforeCommit,
    LiveBeforeFilled,
    VersionKept,
    ClaimNotFenced,
}

/// The first writer: replaces the item of KEY.
fn replace(table: &Table, broken: Broken) {
    let me = owner(1);
    let new = table.claim(NEW, me).expect("nobody else wants it");
    let cell = table.cell(NEW);
    if broken == Broken::LiveBeforeFilled {
        block::publish(&cell.meta, Meta::live(0, new.version()));
        let bucket = table.lock_key(table, KEY.hash, me, true);
        let (word, old) = table.search(&bucket, KEY).hit.expect("the old item");
        bucket.commit(word, Slot::new(KEY.hash, unit_of(NEW)));
        cell.fill(KEY, whole(2));
        table.free(old);
        return bucket.unlock();
    }
    cell.fill(KEY, whole(2));
    if broken == Broken::FreedBeforeCommit {
        let bucket = table.lock_key(table, KEY.hash, me, true);
        let (word, old) = table.search(&bucket, KEY).hit.expect("the old item");
        block::publish(&cell.meta, Meta::live(0, new.version()));
        table.free(old);
        bucket.commit(word, Slot::new(KEY.hash, unit_of(NEW)));
        return bucket.unlock();
    }
    table.set(table, KEY, NEW, new, None, true);
}

/// A claim that forgets to make a new version, or that orders the claim but not what is written after it.
fn claim_badly(word: &AtomicU64, version: u32, order: Ordering) -> Option<Meta> {
    let seen = block::load(word);
    let next = Meta::claimed(owner(2), version);
    let free = Meta::free(seen.version());
    word.compare_exchange(free.0, next.0, order, Ordering::Relaxed).ok().map(|_| next)
}

/// The second writer: takes the freed block if it comes in time.
fn reuse(table: &Table, second: Second, broken: Broken) {
    let cell = table.cell(OLD);
    let claimed = match broken {
        Broken::VersionKept => claim_badly(&cell.meta, 1, Ordering::AcqRel),
        Broken::ClaimNotFenced => claim_badly(&cell.meta, 2, Ordering::AcqRel),
        _ => table.claim(OLD, owner(2)),
    };
    let Some(new) = claimed else { return };
    let key = if second == Second::StoresOther { OTHER } else { KEY };
    cell.fill(key, whole(3));
    if second == Second::DiesUncommitted {
        let _locked = table.lock_key(table, key.hash, owner(2), true);
        return block::publish(&cell.meta, Meta::live(0, new.version()));
    }
    table.set(table, key, OLD, new, None, true);
}

fn model(second: Second, broken: Broken) {
    explore(None, move || {
        let table = Arc::new(Table::new(0, 2));
        table.put(LOW, KEY, OLD, whole(1));
        let first = thread::spawn({
            let table = Arc::clone(&table);
            move || replace(&table, broken)
        });
        let other = thread::spawn({
            let table = Arc::clone(&table);
            move || reuse(&table, second, broken)
        });
        let checks = Checks { slot: broken != Broken::ReaderTrustsMeta, meta: broken != Broken::ReaderTrustsSlot };
        match table.lookup(KEY, checks) {
            Found::Hit([a, b]) => {
                assert_eq!(a, b, "torn value");
                assert_ne!((a, second), (3, Second::StoresOther), "foreign value");
                assert_ne!((a, second), (3, Second::DiesUncommitted), "uncommitted value");
            }
            Found::Miss => panic!("missed a key that is present"),
            Found::Retry => {}
        }
        first.join().unwrap();
        other.join().unwrap();
        let value = table.get(KEY).expect("the key is there");
        assert!(value == whole(2) || second == Second::StoresSame && value == whole(3), "{value:?}");
    });
}

impl std::fmt::Debug for Second {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::StoresOther => "another key",
            Self::StoresSame => "the same key",
            Self::DiesUncommitted => "uncommitted",
        })
    }
}

#[test]
fn a_reader_survives_reuse_for_another_key() {
    model(Second::StoresOther, Broken::Nothing);
}

#[test]
fn a_reader_survives_reuse_for_the_same_key() {
    model(Second::StoresSame, Broken::Nothing);
}

#[test]
fn a_reader_never_sees_an_uncommitted_item() {
    model(Second::DiesUncommitted, Broken::Nothing);
}

#[test]
#[should_panic(expected = "uncommitted value")]
fn mutant_reader_without_the_slot_check() {
    model(Second::DiesUncommitted, Broken::ReaderTrustsMeta);
}

#[test]
#[should_panic(expected = "torn value")]
fn mutant_reader_without_the_meta_check() {
    model(Second::StoresSame, Broken::ReaderTrustsSlot);
}

#[test]
#[should_panic(expected = "missed a key")]
fn mutant_old_block_freed_before_the_commit() {
    model(Second::StoresOther, Broken::FreedBeforeCommit);
}

#[test]
#[should_panic(expected = "torn value")]
fn mutant_live_before_it_is_filled() {
    model(Second::StoresOther, Broken::LiveBeforeFilled);
}

#[test]
#[should_panic(expected = "torn value")]
fn mutant_claim_that_keeps_the_version() {
    model(Second::StoresSame, Broken::VersionKept);
}

#[test]
#[should_panic(expected = "torn value")]
fn mutant_claim_without_its_fence() {
    model(Second::StoresSame, Broken::ClaimNotFenced);
}
