//! Hazards: nobody reads or claims in memory that a mover has cut anew.
//!
//! | here | mirrors |
//! | --- | --- |
//! | `Model::protect` | `hazard.rs` `Hazards::announce`; under loom its compiler fence is a full one, as `membarrier` makes it |
//! | `Model::read` | `cache/read.rs` `Reading::find` and `probe`, `get_copied`'s mark |
//! | `Model::claim` | `claim.rs` `Op::try_claim` |
//! | `Model::empty` | `evict.rs` `Op::drain`, `drain_block`, `evict_locked`, `readers_gone` |
//!
//! The descriptor is a plain word here: the shipped one has 22 words of free hints behind it.

use crate::explore;
use crate::table::*;
use loom::cell::UnsafeCell;
use loom::thread;
use plib_core::heap::block::{self, Meta, State};
use plib_core::index::{self, Found, Probe, Slot};
use plib_core::sync::{AtomicU64, Ordering, compiler_fence, fence, relax};
use std::sync::Arc;

const KEY: Key = Key::low(1);
const LIVE: usize = 0;
const FREE: usize = 1;
/// 1 + the superblock that both blocks are in.
const HERE: u64 = 1;
const CLASS: u64 = 0;
const DRAINING: u64 = 1;
const RECUT: u64 = 2;
/// How often the mover looks at a block that somebody holds.
const PATIENCE: usize = 2;

struct Model {
    table: Table,
    descriptor: AtomicU64,
    /// The hazards of the reader and of the claimer.
    hazards: [AtomicU64; 2],
    /// How the superblock is cut: read by whoever touches a block, written by who cuts (loom finds out if they meet).
    cut: UnsafeCell<u32>,
}

// SAFETY: `cut` is guarded by the protocol under test; loom reports a violation instead of running into it.
unsafe impl Sync for Model {}

/// Which step is broken.
#[derive(Clone, Copy, PartialEq)]
enum Broken {
    Nothing,
    NoHazard,
    NoReload,
    NoServesCheck,
    NoReaderFence,
    NoBarrier,
    ScannedBeforeUnlinked,
    MarkedAfterwards,
}

impl Model {
    fn new() -> Arc<Self> {
        let table = Table::new(0, 2);
        table.put(LOW, KEY, LIVE, whole(1));
        let hazards = [AtomicU64::new(0), AtomicU64::new(0)];
        Arc::new(Self { table, descriptor: AtomicU64::new(CLASS), hazards, cut: UnsafeCell::new(0) })
    }

    /// Touches a block of the superblock as it was cut first.
    fn touch(&self) {
        // SAFETY: as for `Sync`.
        let cut = self.cut.with(|cut| unsafe { *cut });
        assert_eq!(cut, 0, "read in a superblock that was cut anew");
    }

    fn protect(&self, who: usize, broken: Broken) {
        if broken != Broken::NoHazard {
            self.hazards[who].store(HERE, Ordering::Release);
        }
        if broken != Broken::NoReaderFence {
            compiler_fence(Ordering::SeqCst);
        }
    }

    fn unprotect(&self, who: usize) {
        self.hazards[who].store(0, Ordering::Release);
    }

    fn read(&self, broken: Broken) {
        let mut seen = Meta(0);
        let found = index::lookup(&self.table, KEY.hash, |slot, word| {
            self.protect(0, broken);
            if broken != Broken::NoReload && word.load(Ordering::Acquire) != slot.0 {
                return Probe::Retry;
            }
            self.touch();
            seen = block::load(&self.table.cell(LIVE).meta);
            let probed = self.table.probe(slot, word, KEY, ALL);
            self.touch();
            probed
        });
        if broken == Broken::MarkedAfterwards {
            self.unprotect(0);
        }
        if let Found::Hit(value) = found {
            assert_eq!(value, whole(1));
            self.touch();
            block::mark(&self.table.cell(LIVE).meta, seen);
        }
        self.unprotect(0);
    }

    fn claim(&self, broken: Broken) {
        self.protect(1, broken);
        let mut mine = None;
        if broken == Broken::NoServesCheck || self.descriptor.load(Ordering::Acquire) == CLASS {
            self.touch();
            mine = self.table.claim(FREE, owner(2));
        }
        self.unprotect(1);
        // What is claimed needs no hazard: a mover that finds it gives up.
        if let Some(mine) = mine {
            self.touch();
            block::release(&self.table.cell(FREE).meta, mine).expect("nobody takes what I claimed");
        }
    }

    /// Whether no hazard names the superblock.
    fn readers_gone(&self, broken: Broken) -> bool {
        if broken != Broken::NoBarrier {
            fence(Ordering::SeqCst);
        }
        self.hazards.iter().all(|hazard| hazard.load(Ordering::Acquire) != HERE)
    }

    /// Makes a block the mover's.
    fn take(&self, i: usize) -> bool {
        let (word, me) = (&self.table.cell(i).meta, owner(3));
        for _ in 0..PATIENCE {
            let meta = block::load(word);
            let taken = match meta.state() {
                State::Free => block::claim(word, meta, me),
                State::Live => {
                    let bucket = self.table.lock(&self.table, LOW, me);
                    if let Some((place, _)) = bucket.place_of(unit_of(i)) {
                        bucket.commit(place, Slot::EMPTY);
                    }
                    let taken = block::seize(word, meta, me);
                    bucket.unlock();
                    taken
                }
                _ => None,
            };
            if taken.is_some() {
                return true;
            }
            relax();
        }
        false
    }

    fn empty(&self, broken: Broken) {
        let drained = self.descriptor.compare_exchange(CLASS, DRAINING, Ordering::AcqRel, Ordering::Acquire);
        assert_eq!(drained, Ok(CLASS), "there is one mover");
        let scanned_early = broken == Broken::ScannedBeforeUnlinked;
        let early = scanned_early && self.readers_gone(broken);
        let taken = (0..2).take_while(|i| self.take(*i)).count();
        if taken == 2 && if scanned_early { early } else { self.readers_gone(broken) } {
            // SAFETY: as for `Sync`.
            self.cut.with_mut(|cut| unsafe { *cut += 1 });
            self.descriptor.store(RECUT, Ordering::Release);
            return;
        }
        for i in 0..taken {
            let word = &self.table.cell(i).meta;
            block::release(word, block::load(word)).expect("nobody takes what I claimed");
        }
        self.descriptor.store(CLASS, Ordering::Release);
    }
}

fn spawn(model: &Arc<Model>, work: impl FnOnce(&Model) + 'static) -> thread::JoinHandle<()> {
    let model = Arc::clone(model);
    thread::spawn(move || work(&model))
}

/// A reader, a mover, and a claimer if `claims`.
fn model(preemptions: usize, claims: bool, broken: Broken) {
    explore(Some(preemptions), move || {
        let model = Model::new();
        let mover = spawn(&model, move |m| m.empty(broken));
        let claimer = claims.then(|| spawn(&model, move |m| m.claim(broken)));
        model.read(broken);
        mover.join().unwrap();
        claimer.into_iter().for_each(|t| t.join().unwrap());
        let states = [LIVE, FREE].map(|i| block::load(&model.table.cell(i).meta).state());
        match model.descriptor.load(Ordering::Acquire) {
            RECUT => assert_eq!(states, [State::Claimed; 2]),
            word => assert!(word == CLASS && !states.contains(&State::Claimed), "{word} {states:?}"),
        }
    });
}

#[test]
fn a_reader_never_reads_what_is_cut_anew() {
    model(4, false, Broken::Nothing);
}

#[test]
fn neither_does_a_claimer() {
    model(2, true, Broken::Nothing);
}

#[test]
#[should_panic(expected = "Causality violation")]
fn mutant_reader_without_a_hazard() {
    model(3, false, Broken::NoHazard);
}

#[test]
#[should_panic(expected = "Causality violation")]
fn mutant_reader_that_does_not_reload_the_slot() {
    model(3, false, Broken::NoReload);
}

#[test]
#[should_panic(expected = "Causality violation")]
fn mutant_reader_without_the_fence_that_membarrier_makes() {
    model(3, false, Broken::NoReaderFence);
}

#[test]
#[should_panic(expected = "Causality violation")]
fn mutant_mover_without_a_barrier() {
    model(3, false, Broken::NoBarrier);
}

#[test]
#[should_panic(expected = "Causality violation")]
fn mutant_mover_that_scans_before_it_unlinks() {
    model(3, false, Broken::ScannedBeforeUnlinked);
}

#[test]
#[should_panic(expected = "Causality violation")]
fn mutant_mark_after_the_hazard_is_gone() {
    model(3, false, Broken::MarkedAfterwards);
}

#[test]
#[should_panic(expected = "Causality violation")]
fn mutant_claimer_that_does_not_ask_the_descriptor() {
    model(2, true, Broken::NoServesCheck);
}
