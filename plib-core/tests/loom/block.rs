//! The meta word alone: whoever gets a block has it alone, every life has its own version, and frequency bits change nothing.

use crate::explore;
use crate::table::owner;
use loom::cell::UnsafeCell;
use loom::thread;
use plib_core::heap::block::{self, Meta, State};
use plib_core::sync::{AtomicU64, Ordering};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};

/// A block: its meta word, and bytes that only its owner may touch (loom finds out about any other).
struct Model {
    meta: AtomicU64,
    bytes: UnsafeCell<u32>,
    /// Lives begun so far; a loom-free count, so that it orders nothing.
    lives: AtomicU32,
}

// SAFETY: `bytes` is guarded by the protocol under test; loom reports a violation instead of running into it.
unsafe impl Sync for Model {}

/// Which step is broken.
#[derive(Clone, Copy, PartialEq)]
enum Broken {
    Nothing,
    /// Claims without looking whether somebody else did.
    BlindClaim,
    /// Claims without a new version.
    VersionKept,
    /// Marks by a plain store.
    BlindMark,
    /// Seizes by the exact word, frequency bits and all.
    ExactSeize,
    /// Frees whatever life it finds.
    BlindRelease,
}

const FIRST: u32 = 7;

impl Model {
    fn new(meta: Meta) -> Arc<Self> {
        Arc::new(Self { meta: AtomicU64::new(meta.0), bytes: UnsafeCell::new(0), lives: AtomicU32::new(0) })
    }

    /// What an owner does with a block: fills it, then gives it up.
    fn own(&self, mine: Meta) {
        self.lives.fetch_add(1, Relaxed);
        // SAFETY: as for `Sync`.
        self.bytes.with_mut(|bytes| unsafe { *bytes += 1 });
        assert!(block::release(&self.meta, mine).is_some(), "a claimed block was taken from its owner");
    }

    fn claim_and_free(&self, n: u32, broken: Broken) {
        let seen = block::load(&self.meta);
        if seen.state() != State::Free {
            return;
        }
        let mine = match broken {
            Broken::BlindClaim => {
                let next = Meta::claimed(owner(n), seen.version().wrapping_add(1));
                self.meta.store(next.0, Ordering::Release);
                Some(next)
            }
            Broken::VersionKept => {
                let next = Meta::claimed(owner(n), seen.version());
                let done = self.meta.compare_exchange(seen.0, next.0, Ordering::AcqRel, Ordering::Relaxed);
                done.ok().map(|_| next)
            }
            _ => block::claim(&self.meta, seen, owner(n)),
        };
        if let Some(mine) = mine {
            self.own(mine);
        }
    }

    /// Every life raised the version by one.
    fn check_versions(&self) {
        let lives = self.lives.load(Relaxed);
        let meta = block::load(&self.meta);
        assert_eq!(meta.version(), FIRST + lives, "two lives have one version");
    }
}

fn spawn(model: &Arc<Model>, work: impl FnOnce(&Model) + 'static) -> thread::JoinHandle<()> {
    let model = Arc::clone(model);
    thread::spawn(move || work(&model))
}

/// Two claimers of a block that a third frees meanwhile.
fn claimers(broken: Broken) {
    explore(None, move || {
        let model = Model::new(Meta::live(0, FIRST));
        let threads = [1, 2].map(|n| spawn(&model, move |m| m.claim_and_free(n, broken)));
        let freed = block::release(&model.meta, Meta::live(0, FIRST));
        assert_eq!(freed.map(|m| m.state()), Some(State::Free), "only I may free a live item");
        for thread in threads {
            thread.join().unwrap();
        }
        model.check_versions();
        assert_eq!(block::load(&model.meta).state(), State::Free);
    });
}

/// A deleter and the hand want the same live item, while a reader marks it and somebody claims what becomes free.
fn one_takes_it(broken: Broken) {
    explore(Some(3), move || {
        let seen = Meta::live(0, FIRST);
        let model = Model::new(seen);
        let hand = spawn(&model, move |m| {
            let mine = match broken {
                Broken::ExactSeize => {
                    let next = Meta::claimed(owner(1), FIRST + 1);
                    let done = m.meta.compare_exchange(seen.0, next.0, Ordering::AcqRel, Ordering::Relaxed);
                    done.ok().map(|_| next)
                }
                _ => block::seize(&m.meta, seen, owner(1)),
            };
            if let Some(mine) = mine {
                m.own(mine);
            }
        });
        let claimer = spawn(&model, move |m| m.claim_and_free(2, broken));
        match broken {
            // A reader that was long asleep: it says what it saw.
            Broken::BlindMark => model.meta.store(seen.0 | 1 << 2, Ordering::Relaxed),
            _ => block::mark(&model.meta, seen),
        }
        hand.join().unwrap();
        claimer.join().unwrap();
        let meta = block::load(&model.meta);
        assert_eq!(meta.state(), State::Free, "the hand did not get the block, or not for good");
        model.check_versions();
    });
}

/// Two that both think the item is theirs to take: the one seizes, the other frees; a reader ages it.
fn seize_or_free(broken: Broken) {
    explore(Some(3), move || {
        let seen = Meta::live(0, FIRST);
        let model = Model::new(Meta(seen.0 | 1 << 2));
        let taken = Arc::new(AtomicU32::new(0));
        let hand = spawn(&model, {
            let taken = Arc::clone(&taken);
            move |m| {
                if let Some(mine) = block::seize(&m.meta, seen, owner(1)) {
                    taken.fetch_add(1, Relaxed);
                    m.own(mine);
                }
            }
        });
        let other = spawn(&model, {
            let taken = Arc::clone(&taken);
            move |m| {
                let freed = match broken {
                    Broken::BlindRelease => {
                        let now = block::load(&m.meta);
                        m.meta.store(Meta::free(now.version()).0, Ordering::Release);
                        true
                    }
                    _ => block::release(&m.meta, seen).is_some(),
                };
                taken.fetch_add(u32::from(freed), Relaxed);
            }
        });
        let now = block::load(&model.meta);
        if now.is_live() {
            block::age(&model.meta, now);
        }
        hand.join().unwrap();
        other.join().unwrap();
        assert_eq!(taken.load(Relaxed), 1, "one life was ended twice, or never");
        assert_eq!(block::load(&model.meta).state(), State::Free);
        model.check_versions();
    });
}

#[test]
fn a_free_block_has_one_claimer_and_each_life_its_version() {
    claimers(Broken::Nothing);
}

#[test]
fn a_seized_block_stays_seized_whatever_readers_mark() {
    one_takes_it(Broken::Nothing);
}

#[test]
fn a_life_ends_once() {
    seize_or_free(Broken::Nothing);
}

#[test]
#[should_panic(expected = "Causality violation")]
fn mutant_claim_without_a_compare() {
    claimers(Broken::BlindClaim);
}

#[test]
#[should_panic(expected = "two lives have one version")]
fn mutant_claim_without_a_version() {
    claimers(Broken::VersionKept);
}

#[test]
#[should_panic(expected = "the hand did not get the block")]
fn mutant_mark_by_a_plain_store() {
    one_takes_it(Broken::BlindMark);
}

#[test]
#[should_panic(expected = "the hand did not get the block")]
fn mutant_seize_by_the_exact_word() {
    one_takes_it(Broken::ExactSeize);
}

#[test]
#[should_panic(expected = "one life was ended twice")]
fn mutant_release_of_any_life() {
    seize_or_free(Broken::BlindRelease);
}
