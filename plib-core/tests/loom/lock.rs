//! The bucket lock: one holder at a time, one survivor takes over from the dead, and the bucket is clean when he has.

use crate::explore;
use crate::table::*;
use loom::cell::UnsafeCell;
use loom::thread;
use plib_core::client::Owner;
use plib_core::heap::block::{self, Meta};
use plib_core::index::bucket::Bucket;
use plib_core::sync::relax;
use std::sync::Arc;

const KEYS: [Key; 4] = [Key::low(1), Key::low(2), Key::low(3), Key::low(4)];
const DEAD: Owner = owner(1);

/// A table, and something that only the lock's holder may touch (loom finds out about any other).
struct Model {
    table: Table,
    inside: UnsafeCell<u32>,
}

// SAFETY: `inside` is guarded by the lock under test; loom reports a violation instead of running into it.
unsafe impl Sync for Model {}

/// Which step is broken.
#[derive(Clone, Copy, PartialEq)]
enum Broken {
    Nothing,
    /// Takes over by a plain store.
    BlindTakeOver,
    /// Asks whether the holder that it first saw is dead, and takes over from whoever holds the lock by then.
    TakesFromAnybody,
    /// Leaves the bucket as the dead left it.
    NoScrub,
}

/// Four items in a line and a chain line.
fn build() -> Table {
    let table = Table::new(1, 4);
    for (i, key) in KEYS.iter().enumerate() {
        table.put(LOW, *key, i, whole(key.id));
    }
    table
}

fn delete_first(table: &Table, lines: &Mortal<'_>) {
    table.delete(lines, KEYS[0], DEAD);
}

impl Model {
    /// What DEAD left who died after `steps` steps.
    fn new(steps: usize) -> Arc<Self> {
        let table = build();
        mortal(&table, DEAD, steps, |lines| delete_first(&table, lines));
        Arc::new(Self { table, inside: UnsafeCell::new(0) })
    }

    fn lock(&self, me: Owner, broken: Broken) -> Bucket<'_, Table> {
        if matches!(broken, Broken::Nothing) {
            return self.table.lock(&self.table, LOW, me);
        }
        let line = self.table.line(LOW);
        while let Err(holder) = line.try_lock(me) {
            let taken = holder.0 != 0
                && self.table.is_dead(holder)
                && match broken {
                    Broken::BlindTakeOver => {
                        // The control word is where a chain line has its meta word.
                        block::publish(line.meta(), Meta(u64::from(me.0)));
                        true
                    }
                    Broken::TakesFromAnybody => line.take_over(line.holder(), me),
                    _ => line.take_over(holder, me),
                };
            if taken {
                if broken != Broken::NoScrub {
                    Bucket::locked(&self.table, line, LOW).scrub();
                }
                break;
            }
            relax();
        }
        Bucket::locked(&self.table, line, LOW)
    }

    fn enter(&self, me: Owner, broken: Broken) {
        let bucket = self.lock(me, broken);
        // SAFETY: as for `Sync`.
        self.inside.with_mut(|inside| unsafe { *inside += 1 });
        assert_eq!(self.table.census(LOW).1, 0, "the bucket is not clean");
        assert_eq!(bucket.line().holder(), me, "somebody else holds my lock");
        bucket.unlock();
    }
}

/// Two survivors and a reader, after a death at step `steps`.
fn model(preemptions: Option<usize>, steps: usize, broken: Broken) {
    explore(preemptions, move || {
        let model = Model::new(steps);
        let locked = model.table.line(LOW).holder() == DEAD;
        let threads = [2, 3].map(|n| {
            let model = Arc::clone(&model);
            thread::spawn(move || model.enter(owner(n), broken))
        });
        // KEYS[0] may or may not be deleted; the others are there all the time.
        model.table.must_see(KEYS[3], KEYS[3].id);
        for thread in threads {
            thread.join().unwrap();
        }
        if broken == Broken::Nothing {
            assert_eq!(model.table.takeovers(), usize::from(locked), "a dead owner's lock is taken over once");
        }
        for key in &KEYS[1..] {
            assert_eq!(model.table.get(*key), Some(whole(key.id)));
        }
    });
}

/// The same after every death that leaves something to clean up.
fn unclean(broken: Broken) {
    for (steps, _) in deaths(DEAD, build, delete_first).iter().filter(|(_, twice)| *twice) {
        model(Some(2), *steps, broken);
    }
}

#[test]
fn one_survivor_takes_over_wherever_the_holder_died() {
    for (steps, _) in deaths(DEAD, build, delete_first) {
        model(Some(1), steps, Broken::Nothing);
    }
}

#[test]
fn one_survivor_cleans_what_the_holder_left_twice() {
    unclean(Broken::Nothing);
}

#[test]
#[should_panic(expected = "Causality violation")]
fn mutant_take_over_by_a_plain_store() {
    unclean(Broken::BlindTakeOver);
}

#[test]
#[should_panic(expected = "Causality violation")]
fn mutant_take_over_from_whoever_holds_it() {
    unclean(Broken::TakesFromAnybody);
}

#[test]
#[should_panic(expected = "the bucket is not clean")]
fn mutant_take_over_without_a_scrub() {
    unclean(Broken::NoScrub);
}
