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
const OWN: usize = 2;

/// What the second writer does.
#[derive(Clone, Copy, PartialEq, Debug)]
enum Second {
    /// Stores another key in the block that the first one freed.
    Other,
    /// Stores the same key in it.
    Same,
    /// Fills it for the same key and dies before the slot store.
    DiesUncommitted,
    /// Stores the same key in a block of its own.
    Contends,
}

/// Which step is broken.
#[derive(Clone, Copy, PartialEq)]
enum Broken {
    Nothing,
    ReaderTrustsMeta,
    ReaderTrustsSlot,
    LiveBeforeFilled,
    UnlockedBeforeCommit,
    FreedBeforeDeath,
    VersionKept,
    ClaimNotFenced,
}

/// The first writer: replaces the item of KEY, or dies just before.
fn replace(table: &Table, dies: bool, broken: Broken) {
    let me = owner(1);
    let new = table.claim(NEW, me).expect("nobody else wants it");
    let cell = table.cell(NEW);
    if broken != Broken::LiveBeforeFilled {
        cell.fill(KEY, whole(2));
    }
    if !dies && !matches!(broken, Broken::LiveBeforeFilled | Broken::UnlockedBeforeCommit) {
        return table.set(table, KEY, NEW, new, None, true);
    }
    let bucket = table.lock_key(table, KEY.hash, me, true);
    let (word, old) = table.search(&bucket, KEY).hit.expect("the old item");
    block::publish(&cell.meta, Meta::live(0, new.version()));
    if dies {
        if broken == Broken::FreedBeforeDeath {
            table.free(old);
        }
        return table.bury(me);
    }
    let line = bucket.line();
    if broken == Broken::UnlockedBeforeCommit {
        line.unlock();
    }
    bucket.commit(word, Slot::new(KEY.hash, unit_of(NEW)));
    if broken == Broken::LiveBeforeFilled {
        cell.fill(KEY, whole(2));
    }
    table.free(old);
    if broken != Broken::UnlockedBeforeCommit {
        line.unlock();
    }
}

/// A claim without the shipped one's fence, and with the version that it is told.
fn claim_badly(word: &AtomicU64, version: u32) -> Option<Meta> {
    let seen = block::load(word);
    let (free, next) = (Meta::free(seen.version()), Meta::claimed(owner(2), version));
    word.compare_exchange(free.0, next.0, Ordering::AcqRel, Ordering::Relaxed).ok().map(|_| next)
}

/// The second writer: takes its block if that is free by now.
fn follow(table: &Table, second: Second, broken: Broken) {
    let place = if second == Second::Contends { OWN } else { OLD };
    let cell = table.cell(place);
    let claimed = match broken {
        Broken::VersionKept => claim_badly(&cell.meta, 1),
        Broken::ClaimNotFenced => claim_badly(&cell.meta, 2),
        _ => table.claim(place, owner(2)),
    };
    let Some(new) = claimed else { return };
    let key = if second == Second::Other { OTHER } else { KEY };
    cell.fill(key, whole(3));
    if second == Second::DiesUncommitted {
        let _locked = table.lock_key(table, key.hash, owner(2), true);
        return block::publish(&cell.meta, Meta::live(0, new.version()));
    }
    table.set(table, key, place, new, None, true);
}

/// A reader, the first writer and the second one.
fn model(dies: bool, second: Second, broken: Broken) {
    model_with(false, dies, second, broken);
}

/// The same; the reader goes the fast way if `fast`.
fn model_with(fast: bool, dies: bool, second: Second, broken: Broken) {
    explore(Some(2), move || {
        let table = Arc::new(Table::new(0, 3));
        table.put(LOW, KEY, OLD, whole(1));
        let first = thread::spawn({
            let table = Arc::clone(&table);
            move || replace(&table, dies, broken)
        });
        let other = thread::spawn({
            let table = Arc::clone(&table);
            move || follow(&table, second, broken)
        });
        let checks =
            Checks { slot: broken != Broken::ReaderTrustsMeta, meta: broken != Broken::ReaderTrustsSlot, growth: true };
        let found = if fast { table.get_fast(KEY, checks) } else { table.lookup(KEY, checks) };
        match found {
            Found::Hit([a, b]) => {
                assert_eq!(a, b, "torn value");
                assert!(a != 2 || !dies, "uncommitted value");
                assert!(a != 3 || matches!(second, Second::Same | Second::Contends), "foreign or uncommitted value");
            }
            Found::Miss => panic!("missed a key that is present"),
            Found::Retry => {}
        }
        first.join().unwrap();
        other.join().unwrap();
        check_rest(&table, dies, second);
    });
}

/// What must hold when all is done.
fn check_rest(table: &Table, dies: bool, second: Second) {
    let value = table.get(KEY).expect("missed a key that is present");
    let allowed = match (dies, second) {
        (true, _) => value == whole(1),
        (false, Second::Same | Second::Contends) => value == whole(2) || value == whole(3),
        (false, _) => value == whole(2),
    };
    assert!(allowed, "{value:?}");
    if second == Second::Contends {
        let live = [OLD, NEW, OWN].iter().filter(|i| block::load(&table.cell(**i).meta).is_live());
        assert_eq!(live.count(), 1, "a block leaked");
    }
}

#[test]
fn a_reader_survives_reuse_for_another_key() {
    model(false, Second::Other, Broken::Nothing);
}

#[test]
fn a_reader_survives_reuse_for_the_same_key() {
    model(false, Second::Same, Broken::Nothing);
}

#[test]
fn a_reader_never_sees_an_uncommitted_item() {
    model(false, Second::DiesUncommitted, Broken::Nothing);
}

#[test]
fn a_fast_reader_survives_all_that() {
    for second in [Second::Other, Second::Same, Second::DiesUncommitted, Second::Contends] {
        model_with(true, false, second, Broken::Nothing);
    }
}

#[test]
fn two_writers_of_a_key_free_all_but_one_item() {
    model(false, Second::Contends, Broken::Nothing);
}

#[test]
fn a_writer_that_dies_before_its_commit_changes_nothing() {
    model(true, Second::Other, Broken::Nothing);
}

#[test]
#[should_panic(expected = "uncommitted value")]
fn mutant_reader_without_the_slot_check() {
    model(false, Second::DiesUncommitted, Broken::ReaderTrustsMeta);
}

#[test]
#[should_panic(expected = "torn value")]
fn mutant_reader_without_the_meta_check() {
    model(false, Second::Same, Broken::ReaderTrustsSlot);
}

#[test]
#[should_panic(expected = "uncommitted value")]
fn mutant_fast_reader_without_the_slot_check() {
    model_with(true, false, Second::DiesUncommitted, Broken::ReaderTrustsMeta);
}

#[test]
#[should_panic(expected = "torn value")]
fn mutant_fast_reader_without_the_meta_check() {
    model_with(true, false, Second::Same, Broken::ReaderTrustsSlot);
}

#[test]
#[should_panic(expected = "missed a key")]
fn mutant_live_before_it_is_filled() {
    model(false, Second::Other, Broken::LiveBeforeFilled);
}

#[test]
#[should_panic(expected = "somebody else freed an item")]
fn mutant_lock_released_before_the_commit() {
    model(false, Second::Contends, Broken::UnlockedBeforeCommit);
}

#[test]
#[should_panic(expected = "retry in a quiet table")]
fn mutant_old_block_freed_before_the_commit() {
    model(true, Second::Other, Broken::FreedBeforeDeath);
}

#[test]
#[should_panic(expected = "torn value")]
fn mutant_claim_that_keeps_the_version() {
    model(false, Second::Same, Broken::VersionKept);
}

#[test]
#[should_panic(expected = "torn value")]
fn mutant_claim_without_its_fence() {
    model(false, Second::Same, Broken::ClaimNotFenced);
}
