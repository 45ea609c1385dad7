//! One split of bucket LOW, with readers and writers in it, and with a splitter who dies at any step.

use crate::explore;
use crate::table::*;
use loom::thread;
use plib_core::client::Owner;
use plib_core::heap::block::{self, Meta, State};
use plib_core::index::bucket::Bucket;
use plib_core::index::growth::Growth;
use plib_core::index::split::{Outcome, split};
use plib_core::index::{self, Found, Lines};
use plib_core::sync::Ordering;
use std::sync::Arc;

const SPLITTER: Owner = owner(1);
const WRITER: Owner = owner(2);
const LOW_KEYS: [Key; 2] = [Key::low(1), Key::low(2)];
const HIGH_KEYS: [Key; 4] = [Key::high(5), Key::high(6), Key::high(7), Key::high(8)];
const NEW_KEY: Key = Key::high(9);
const NEW_BLOCK: usize = 6;
/// The item that `stale` is about: in the first line of `mixed`.
const STALE: Key = HIGH_KEYS[0];

/// Which step is broken.
#[derive(Clone, Copy, PartialEq)]
enum Broken {
    Nothing,
    /// The growth word is stored before the new bucket is filled.
    CommittedUnfilled,
    /// What moves is dropped from the old bucket before the growth word is stored.
    DroppedBeforeCommit,
    /// A writer does not look again which bucket his key belongs to once he has the lock.
    NoRecheck,
    /// The splitter holds no lock.
    Unlocked,
    /// Nothing; the splitter dies before he drops what moved.
    DiesAfterCommit,
}

/// `[low, high, ->] [high, low, -]`.
fn mixed() -> Table {
    let table = Table::new(2, 7);
    for (i, key) in [LOW_KEYS[0], HIGH_KEYS[0], HIGH_KEYS[1], LOW_KEYS[1]].iter().enumerate() {
        table.put(LOW, *key, i, whole(key.id));
    }
    table
}

/// `[high, high, ->] [high, high, -]`: the new bucket needs a chain line.
fn all_move() -> Table {
    let table = Table::new(2, 7);
    for (i, key) in HIGH_KEYS.iter().enumerate() {
        table.put(LOW, *key, i, whole(key.id));
    }
    table
}

/// Mirrors `cache/grow.rs` `Op::split_with` with one spare chain line, claimed if the split needs it.
fn split_once<L: Lines>(table: &Table, lines: &L, me: Owner) -> Outcome {
    let line = table.chain_line(1);
    let try_split = |spare: &[u64]| {
        let bucket = table.lock(lines, LOW, me);
        let seen = Growth::START;
        let outcome = split(lines, &bucket, seen, spare, |_| {
            lines.growth(); // a moment to die in
            block::publish(line.meta(), Meta::live(0, block::load(line.meta()).version()));
        });
        if let Outcome::Done(_) = outcome {
            table.shrink(lines, &Bucket::locked(lines, bucket.line(), bucket.number()));
        }
        bucket.unlock();
        outcome
    };
    match try_split(&[]) {
        Outcome::Needs(1) => {
            let seen = block::load(line.meta());
            let claimed = match seen.state() {
                State::Free => block::claim(line.meta(), seen, me),
                // A dead splitter's: recovery has given it to me.
                _ => block::seize(line.meta(), seen, me),
            };
            claimed.expect("nobody else wants it");
            try_split(&[line_unit(1)])
        }
        outcome => outcome,
    }
}

/// The split of `mixed` by a broken splitter.
fn split_badly(table: &Table, broken: Broken) {
    let (low, high, chain) = (table.line(LOW), table.line(HIGH), table.chain_line(0));
    let bucket =
        if broken == Broken::Unlocked { Bucket::locked(table, low, LOW) } else { table.lock(table, LOW, SPLITTER) };
    let next = Growth::START.next().expect("the next split");
    let moving = [&low.slots()[1], &chain.slots()[0]];
    let fill = || {
        for (to, from) in high.slots().iter().zip(moving) {
            to.store(from.load(Ordering::Relaxed), Ordering::Relaxed);
        }
    };
    let commit = || table.growth().store(next.0, Ordering::Release);
    let drop_moved = || moving.iter().for_each(|word| word.store(0, Ordering::Release));
    match broken {
        Broken::CommittedUnfilled => (commit(), fill(), drop_moved()).0,
        Broken::DroppedBeforeCommit => (fill(), drop_moved(), commit()).0,
        Broken::DiesAfterCommit => return (fill(), commit(), table.bury(SPLITTER)).0,
        _ => (fill(), commit(), drop_moved()).0,
    }
    if broken != Broken::Unlocked {
        bucket.unlock();
    }
}

fn spawn(table: &Arc<Table>, work: impl FnOnce(&Table) + 'static) -> thread::JoinHandle<()> {
    let table = Arc::clone(table);
    thread::spawn(move || work(&table))
}

/// What a second thread does to the bucket that is being split.
#[derive(Clone, Copy, PartialEq)]
enum Writer {
    /// Nothing.
    Rests,
    /// Locks the bucket, which cleans up after a dead splitter.
    Passes,
    /// Stores NEW_KEY.
    Inserts,
    /// Deletes a key.
    Deletes(Key),
}

impl Writer {
    fn run(self, table: &Table, broken: Broken) {
        match self {
            Self::Rests => {}
            Self::Passes => table.lock(table, LOW, WRITER).unlock(),
            Self::Inserts => {
                let new = table.claim(NEW_BLOCK, WRITER).expect("nobody else wants it");
                table.cell(NEW_BLOCK).fill(NEW_KEY, whole(NEW_KEY.id));
                table.set(table, NEW_KEY, NEW_BLOCK, new, None, broken != Broken::NoRecheck);
            }
            Self::Deletes(key) => table.delete(table, key, WRITER),
        }
    }

    /// Which of `keys` are there afterwards, with NEW_KEY.
    fn check(self, table: &Table, keys: &[Key]) {
        for key in keys {
            let expected = if self == Self::Deletes(*key) { None } else { Some(whole(key.id)) };
            assert_eq!(table.get(*key), expected, "lost or undead: {key:?}");
        }
        if self == Self::Inserts {
            assert_eq!(table.get(NEW_KEY), Some(whole(NEW_KEY.id)), "the new item is lost");
        }
    }
}

const MIXED: [Key; 4] = [LOW_KEYS[0], HIGH_KEYS[0], HIGH_KEYS[1], LOW_KEYS[1]];

/// A splitter, a writer, and a reader of `key` if there is one.
fn model(preemptions: usize, build: fn() -> Table, keys: [Key; 4], key: Option<Key>, writer: Writer, broken: Broken) {
    explore(Some(preemptions), move || {
        let table = Arc::new(build());
        let splitter = spawn(&table, move |t| match broken {
            Broken::Nothing | Broken::NoRecheck => assert!(matches!(split_once(t, t, SPLITTER), Outcome::Done(_))),
            _ => split_badly(t, broken),
        });
        let other = (writer != Writer::Rests).then(|| spawn(&table, move |t| writer.run(t, broken)));
        key.into_iter().for_each(|key| table.must_see(key, key.id));
        splitter.join().unwrap();
        other.into_iter().for_each(|t| t.join().unwrap());
        writer.check(&table, &keys);
        assert_eq!((table.census(LOW).1, table.census(HIGH).1), (0, 0), "something is left where it does not belong");
    });
}

/// A splitter who dies after `steps` steps, a writer who comes upon his lock, and a reader of `key` if there is one. Then the
/// split is done again if need be.
fn dies(preemptions: usize, build: fn() -> Table, keys: [Key; 4], key: Option<Key>, writer: Writer, steps: usize) {
    explore(Some(preemptions), move || {
        let table = Arc::new(build());
        let splitter = spawn(&table, move |t| {
            mortal(t, SPLITTER, steps, |lines| {
                split_once(t, lines, SPLITTER);
            });
        });
        let other = (writer != Writer::Rests).then(|| spawn(&table, move |t| writer.run(t, Broken::Nothing)));
        key.into_iter().for_each(|key| table.must_see(key, key.id));
        splitter.join().unwrap();
        other.into_iter().for_each(|t| t.join().unwrap());
        if index::growth(&*table) == Growth::START {
            assert!(
                matches!(split_once(&table, &*table, owner(3)), Outcome::Done(_)),
                "the split cannot be done again"
            );
        }
        table.lock(&*table, LOW, owner(3)).unlock();
        writer.check(&table, &keys);
        assert_eq!((table.census(LOW).1, table.census(HIGH).1), (0, 0), "something is left where it does not belong");
    });
}

/// Somebody splits and dies right after the commit; an item that the old bucket still names is replaced in the new bucket,
/// and its block taken for another that is never committed. `read` looks for it all the while.
fn stale(read: fn(&Table) -> Found<Value>) {
    const OLD: usize = 1;
    explore(Some(3), move || {
        let table = Arc::new(mixed());
        let writer = spawn(&table, |t| {
            split_badly(t, Broken::DiesAfterCommit);
            let new = t.claim(NEW_BLOCK, WRITER).expect("nobody else wants it");
            t.cell(NEW_BLOCK).fill(STALE, whole(20));
            t.set(t, STALE, NEW_BLOCK, new, None, true);
            let never = t.claim(OLD, WRITER).expect("it was just freed");
            t.cell(OLD).fill(STALE, whole(30));
            let _locked = t.lock(t, HIGH, WRITER);
            block::publish(&t.cell(OLD).meta, Meta::live(0, never.version()));
        });
        match read(&table) {
            Found::Hit(value) => assert!(value == whole(STALE.id) || value == whole(20), "uncommitted value"),
            Found::Miss => panic!("missed a key that is present"),
            Found::Retry => {}
        }
        writer.join().unwrap();
        assert_eq!(table.get(STALE), Some(whole(20)));
    });
}

fn deaths_of(build: fn() -> Table) -> Vec<(usize, bool)> {
    deaths(SPLITTER, build, |table, lines| {
        split_once(table, lines, SPLITTER);
    })
}

#[test]
fn a_split_hides_no_item() {
    for key in MIXED {
        model(3, mixed, MIXED, Some(key), Writer::Rests, Broken::Nothing);
    }
}

#[test]
fn a_split_that_needs_a_chain_line_hides_no_item() {
    for key in HIGH_KEYS {
        model(2, all_move, HIGH_KEYS, Some(key), Writer::Rests, Broken::Nothing);
    }
}

#[test]
fn an_insert_during_a_split_goes_where_it_is_found() {
    model(3, mixed, MIXED, None, Writer::Inserts, Broken::Nothing);
    model(1, mixed, MIXED, Some(HIGH_KEYS[0]), Writer::Inserts, Broken::Nothing);
}

#[test]
fn a_delete_during_a_split_is_not_undone() {
    for key in [HIGH_KEYS[0], LOW_KEYS[0]] {
        model(2, mixed, MIXED, None, Writer::Deletes(key), Broken::Nothing);
        model(1, mixed, MIXED, Some(HIGH_KEYS[1]), Writer::Deletes(key), Broken::Nothing);
    }
}

#[test]
fn a_splitter_may_die_anywhere() {
    for (steps, left) in deaths_of(mixed) {
        dies(2, mixed, MIXED, None, Writer::Inserts, steps);
        dies(if left { 2 } else { 1 }, mixed, MIXED, Some(HIGH_KEYS[1]), Writer::Inserts, steps);
    }
}

#[test]
fn a_splitter_may_die_anywhere_with_a_chain_line() {
    for (steps, _) in deaths_of(all_move) {
        dies(2, all_move, HIGH_KEYS, None, Writer::Deletes(HIGH_KEYS[0]), steps);
        dies(1, all_move, HIGH_KEYS, Some(HIGH_KEYS[3]), Writer::Passes, steps);
    }
}

#[test]
fn a_reader_that_comes_before_the_commit_trusts_no_leftover() {
    stale(|table| table.lookup(STALE, ALL));
    stale(|table| table.get_fast(STALE, ALL));
}

#[test]
#[should_panic(expected = "uncommitted value")]
fn mutant_fast_reader_without_the_growth_check() {
    stale(|table| table.get_fast(STALE, Checks { growth: false, ..ALL }));
}

#[test]
#[should_panic(expected = "missed a key")]
fn mutant_committed_before_it_is_filled() {
    model(2, mixed, MIXED, Some(HIGH_KEYS[0]), Writer::Rests, Broken::CommittedUnfilled);
}

#[test]
#[should_panic(expected = "missed a key")]
fn mutant_dropped_before_the_commit() {
    model(2, mixed, MIXED, Some(HIGH_KEYS[1]), Writer::Rests, Broken::DroppedBeforeCommit);
}

#[test]
#[should_panic(expected = "the new item is lost")]
fn mutant_insert_that_does_not_look_again() {
    model(2, mixed, MIXED, Some(LOW_KEYS[0]), Writer::Inserts, Broken::NoRecheck);
}

#[test]
#[should_panic(expected = "retry in a quiet table")]
fn mutant_split_without_the_lock() {
    model(2, mixed, MIXED, Some(LOW_KEYS[0]), Writer::Deletes(HIGH_KEYS[0]), Broken::Unlocked);
}
