//! Hint sets: when all is quiet, whatever was inserted and not removed is found through the summary.

use crate::explore;
use loom::thread;
use plib_core::heap::hints::HintSet;
use plib_core::sync::{AtomicU64, Ordering};
use std::sync::Arc;

/// The words of a set of one leaf.
struct Words {
    leaves: [AtomicU64; 1],
    summary: [AtomicU64; 1],
}

impl Words {
    fn new(members: &[u32]) -> Arc<Self> {
        let words = Arc::new(Self { leaves: [AtomicU64::new(0)], summary: [AtomicU64::new(0)] });
        members.iter().for_each(|i| words.set().insert(*i));
        words
    }

    fn set(&self) -> HintSet<'_> {
        HintSet::new(&self.leaves, &self.summary)
    }

    /// `HintSet::remove` without its second look at the leaf.
    fn remove_badly(&self, i: u32) {
        let ([leaf], [summary]) = (&self.leaves, &self.summary);
        if leaf.fetch_and(!(1 << i), Ordering::AcqRel) == 1 << i {
            summary.fetch_and(!1, Ordering::AcqRel);
        }
    }

    /// `HintSet::insert` and `remove` with the orderings alone, no fence between one word and the other.
    fn insert_unfenced(&self, i: u32) {
        let ([leaf], [summary]) = (&self.leaves, &self.summary);
        leaf.fetch_or(1 << i, Ordering::AcqRel);
        if summary.load(Ordering::Relaxed) & 1 == 0 {
            summary.fetch_or(1, Ordering::AcqRel);
        }
    }
}

/// Which step is broken.
#[derive(Clone, Copy, PartialEq)]
enum Broken {
    Nothing,
    NoSecondLook,
    NoFence,
}

fn spawn(words: &Arc<Words>, work: impl FnOnce(&Words) + 'static) -> thread::JoinHandle<()> {
    let words = Arc::clone(words);
    thread::spawn(move || work(&words))
}

/// 1 is removed while 2 is inserted, and while a third thread does `third`.
fn model(broken: Broken, third: fn(HintSet<'_>), expected: Option<u32>) {
    explore(Some(3), move || {
        let words = Words::new(&[1]);
        let remover = spawn(&words, move |w| match broken {
            Broken::NoSecondLook => w.remove_badly(1),
            _ => {
                w.set().remove(1);
            }
        });
        let inserter = spawn(&words, move |w| match broken {
            Broken::NoFence => w.insert_unfenced(2),
            _ => w.set().insert(2),
        });
        third(words.set());
        remover.join().unwrap();
        inserter.join().unwrap();
        assert_eq!(words.set().next(0), expected, "the summary lost a member");
    });
}

#[test]
fn an_insert_survives_the_removal_of_the_last_member() {
    model(Broken::Nothing, |_| {}, Some(2));
}

#[test]
fn an_insert_survives_two_removals() {
    // 3 comes and goes; 2 stays whoever empties the leaf.
    model(
        Broken::Nothing,
        |set| {
            set.insert(3);
            assert!(set.remove(3));
        },
        Some(2),
    );
}

#[test]
fn a_member_that_is_taken_is_taken_once() {
    explore(None, || {
        let words = Words::new(&[1]);
        let other = loom::thread::spawn({
            let words = Arc::clone(&words);
            move || words.set().remove(1)
        });
        let mine = words.set().remove(1);
        assert!(mine != other.join().unwrap(), "taken twice, or by nobody");
        assert_eq!(words.set().next(0), None);
    });
}

#[test]
#[should_panic(expected = "the summary lost a member")]
fn mutant_remove_without_a_second_look() {
    model(Broken::NoSecondLook, |_| {}, Some(2));
}

#[test]
#[should_panic(expected = "the summary lost a member")]
fn mutant_insert_without_its_fence() {
    model(Broken::NoFence, |_| {}, Some(2));
}
