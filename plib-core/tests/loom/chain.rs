//! Chain lines: they come (extend) and go (shrink) under a reader, who never misses an item that only moves.

use crate::explore;
use crate::table::*;
use loom::thread;
use plib_core::client::Owner;
use plib_core::heap::block::{self, Meta, State};
use plib_core::index::{Found, Lines, Probe, Slot};
use plib_core::sync::Ordering;
use std::sync::Arc;

const KEYS: [Key; 6] = [Key::low(1), Key::low(2), Key::low(3), Key::low(4), Key::low(5), Key::low(6)];
const HIGH_KEYS: [Key; 4] = [Key::high(11), Key::high(12), Key::high(13), Key::high(14)];
/// The item that shrinking puts in the link's place, and the one that it moves up.
const STAYS: Key = KEYS[4];
const MOVES: Key = KEYS[5];
const FIRST: Owner = owner(1);
const SECOND: Owner = owner(2);

/// The steps of taking a chain line out, in the order that a broken writer does them.
#[derive(Clone, Copy, PartialEq, Debug)]
enum Step {
    Copy,
    Count,
    Unlink,
    Free,
}
use Step::{Copy as CopyUp, Count, Free, Unlink};

fn spawn(table: &Arc<Table>, work: impl FnOnce(&Table) + 'static) -> thread::JoinHandle<()> {
    let table = Arc::clone(table);
    thread::spawn(move || work(&table))
}

/// `[1, 2, ->] [3, 4, ->] [5, 6, -]` in LOW and, if `full`, three items in HIGH.
fn chained(full: bool) -> Table {
    let table = Table::new(2, 10).split_already();
    for (i, key) in KEYS.iter().enumerate() {
        table.put(LOW, *key, i, whole(key.id));
    }
    for (i, key) in HIGH_KEYS.iter().take(if full { 3 } else { 0 }).enumerate() {
        table.put(HIGH, *key, 6 + i, whole(key.id));
    }
    table
}

/// Deletes the first item: MOVES takes its place, STAYS that of the second link, and the last chain line is free.
fn delete_first(table: &Table, order: Option<[Step; 4]>) {
    let Some(order) = order else {
        return table.delete(table, KEYS[0], FIRST);
    };
    let bucket = table.lock_key(table, KEYS[0].hash, FIRST, true);
    let (gap, old) = table.search(&bucket, KEYS[0]).hit.expect("the item to delete");
    bucket.commit(gap, Slot::EMPTY);
    table.free(old);
    let (before, unit) = (table.chain_line(0), line_unit(1));
    let [stays, moves, _] = table.chain_line(1).slots();
    let (stays, moves) = (stays.load(Ordering::Relaxed), moves.load(Ordering::Relaxed));
    for step in order {
        match step {
            CopyUp => gap.store(moves, Ordering::Release),
            Count => bucket.line().count_move(),
            Unlink => before.last().store(stays, Ordering::Release),
            Free => {
                let word = table.chain(unit).expect("a chain line").meta();
                block::release(word, block::load(word));
            }
        }
    }
    bucket.unlock();
}

/// Adds an item to the full bucket HIGH, in the chain line that was LOW's if it is free by now.
fn reuse_line(table: &Table) {
    let word = table.chain_line(1).meta();
    let seen = block::load(word);
    if seen.state() != State::Free || block::claim(word, seen, SECOND).is_none() {
        return;
    }
    let new = table.claim(9, SECOND).expect("nobody else wants it");
    table.cell(9).fill(HIGH_KEYS[3], whole(14));
    table.set(table, HIGH_KEYS[3], 9, new, Some(1), true);
}

/// A reader of `key` while LOW shrinks and its chain line goes to HIGH.
fn shrinks(preemptions: usize, key: Key, order: Option<[Step; 4]>) {
    explore(Some(preemptions), move || {
        let table = Arc::new(chained(true));
        let first = spawn(&table, move |t| delete_first(t, order));
        let second = spawn(&table, reuse_line);
        table.must_see(key, key.id);
        first.join().unwrap();
        second.join().unwrap();
        for key in &KEYS[1..] {
            assert_eq!(table.get(*key), Some(whole(key.id)));
        }
        assert_eq!(table.get(KEYS[0]), None);
        assert_eq!((table.census(LOW), table.census(HIGH).1), ((5, 0), 0));
    });
}

/// A reader of `key` while LOW grows a chain line. `linked_first`: the link is stored before the line is filled.
fn extends(key: Key, linked_first: bool) {
    explore(Some(3), move || {
        let table = Table::new(1, 4);
        for (i, key) in KEYS.iter().take(3).enumerate() {
            table.put(LOW, *key, i, whole(key.id));
        }
        let table = Arc::new(table);
        let writer = spawn(&table, move |t| {
            let new = t.claim(3, FIRST).expect("nobody else wants it");
            t.cell(3).fill(KEYS[3], whole(4));
            let line = t.chain_line(0);
            block::claim(line.meta(), block::load(line.meta()), FIRST).expect("nobody else wants it");
            if linked_first {
                let _locked = t.lock(t, LOW, FIRST);
                block::publish(&t.cell(3).meta, Meta::live(0, new.version()));
                let moved = t.line(LOW).last().load(Ordering::Relaxed);
                t.line(LOW).last().store(Slot::link(line_unit(0)).0, Ordering::Release);
                line.slots()[0].store(moved, Ordering::Release);
                line.slots()[1].store(Slot::new(KEYS[3].hash, unit_of(3)).0, Ordering::Release);
                return t.line(LOW).unlock();
            }
            t.set(t, KEYS[3], 3, new, Some(0), true);
        });
        table.must_see(key, key.id);
        writer.join().unwrap();
        for key in &KEYS[..4] {
            assert_eq!(table.get(*key), Some(whole(key.id)));
        }
    });
}

/// How a survivor cleans the bucket of a dead mover.
#[derive(Clone, Copy, PartialEq)]
enum Scrub {
    Shipped,
    /// Drops the second copy without counting.
    Uncounted,
}

/// Somebody deletes the first item and dies after `steps` steps; a survivor comes to do something else, while a third reads.
fn dies(preemptions: usize, steps: usize, scrub: Scrub) {
    explore(Some(preemptions), move || {
        let table = Arc::new(chained(false));
        let mover = spawn(&table, move |t| {
            mortal(t, FIRST, steps, |lines| t.delete(lines, KEYS[0], FIRST));
        });
        let survivor = spawn(&table, move |t| {
            if scrub == Scrub::Uncounted {
                return scrub_badly(t);
            }
            t.lock(t, LOW, SECOND).unlock();
        });
        table.must_see(MOVES, MOVES.id);
        mover.join().unwrap();
        survivor.join().unwrap();
        table.lock(&*table, LOW, owner(3)).unlock();
        for key in &KEYS[1..] {
            assert_eq!(table.get(*key), Some(whole(key.id)));
        }
        assert_eq!(table.census(LOW).1, 0);
    });
}

/// LOW shrinks, MOVES is replaced in its new place, and its block taken for another that is never committed; the line that
/// left still names the block. `read` looks for MOVES all the while.
fn leftover(read: fn(&Table) -> Found<Value>) {
    const OLD: usize = 5;
    const NEW: usize = 6;
    explore(Some(2), move || {
        let table = Arc::new(chained(false));
        let writer = spawn(&table, |t| {
            t.delete(t, KEYS[0], FIRST);
            let new = t.claim(NEW, FIRST).expect("nobody else wants it");
            t.cell(NEW).fill(MOVES, whole(20));
            t.set(t, MOVES, NEW, new, None, true);
            let never = t.claim(OLD, FIRST).expect("it was just freed");
            t.cell(OLD).fill(MOVES, whole(30));
            let _locked = t.lock(t, LOW, FIRST);
            block::publish(&t.cell(OLD).meta, Meta::live(0, never.version()));
        });
        match read(&table) {
            Found::Hit(value) => assert!(value == whole(MOVES.id) || value == whole(20), "uncommitted value"),
            Found::Miss => panic!("missed a key that is present"),
            Found::Retry => {}
        }
        writer.join().unwrap();
        assert_eq!(table.get(MOVES), Some(whole(20)));
    });
}

/// A lookup that does not ask for moves after a hit.
fn look_badly(table: &Table) -> Found<Value> {
    let mut line = table.line(LOW);
    loop {
        for word in line.slots() {
            let slot = Slot(word.load(Ordering::Acquire));
            if slot.may_be(MOVES.hash) {
                match table.probe(slot, word, MOVES, ALL) {
                    Probe::Hit(value) => return Found::Hit(value),
                    _ => return Found::Retry,
                }
            }
        }
        match line.next().and_then(|unit| table.chain(unit)) {
            Some(next) => line = next,
            None => return Found::Retry,
        }
    }
}

/// The deaths of somebody who deletes the first item.
fn all_deaths() -> Vec<(usize, bool)> {
    deaths(FIRST, || chained(false), |table, lines| table.delete(lines, KEYS[0], FIRST))
}

/// Takes the lock of a dead mover over, if he is dead, and drops the second of two copies.
fn scrub_badly(table: &Table) {
    let line = table.line(LOW);
    if !table.is_dead(FIRST) || !line.take_over(FIRST, SECOND) {
        return;
    }
    // The only item that can be there twice.
    let (up, down) = (&line.slots()[0], &table.chain_line(1).slots()[1]);
    if up.load(Ordering::Relaxed) == down.load(Ordering::Relaxed) {
        down.store(0, Ordering::Release);
    }
    line.unlock();
}

#[test]
fn a_shrinking_chain_hides_no_item() {
    for key in [KEYS[1], KEYS[2], STAYS, MOVES] {
        shrinks(2, key, None);
    }
}

#[test]
fn a_growing_chain_hides_no_item() {
    for key in &KEYS[1..3] {
        extends(*key, false);
    }
}

#[test]
fn a_dead_mover_hides_no_item() {
    for (steps, twice) in all_deaths() {
        dies(if twice { 2 } else { 1 }, steps, Scrub::Shipped);
    }
}

#[test]
fn a_reader_in_a_line_that_left_trusts_no_leftover() {
    leftover(|table| table.lookup(MOVES, ALL));
}

#[test]
#[should_panic(expected = "uncommitted value")]
fn mutant_hit_without_a_look_at_the_moves() {
    leftover(look_badly);
}

#[test]
#[should_panic(expected = "missed a key")]
fn mutant_unlinked_before_it_is_counted() {
    shrinks(2, MOVES, Some([CopyUp, Unlink, Count, Free]));
}

#[test]
#[should_panic(expected = "missed a key")]
fn mutant_counted_before_it_is_copied() {
    shrinks(2, MOVES, Some([Count, CopyUp, Unlink, Free]));
}

#[test]
#[should_panic(expected = "missed a key")]
fn mutant_freed_before_it_is_unlinked() {
    shrinks(2, STAYS, Some([CopyUp, Count, Free, Unlink]));
}

#[test]
#[should_panic(expected = "missed a key")]
fn mutant_linked_before_it_is_filled() {
    extends(KEYS[2], true);
}

#[test]
#[should_panic(expected = "missed a key")]
fn mutant_scrub_that_does_not_count() {
    for (steps, _) in all_deaths().iter().filter(|(_, twice)| *twice) {
        dies(2, *steps, Scrub::Uncounted);
    }
}
