//! One step of growth: bucket `b` gives a part of its items to `b + 2^level`.
//!
//! Under b's lock: fill the target, which nobody can reach yet; store the growth word (commit); drop the moved items from
//! b. A splitter that dies before the commit leaves a target that the next one overwrites; one that dies after it leaves
//! slot words in b that do not belong there and count as empty.

use super::bucket::Bucket;
use super::line::SLOTS;
use super::{CHAIN_MAX, Growth, Line, Lines, Slot, growth};
use crate::mutant::{self, Mutant};
use crate::sync::Ordering;

/// How a split went.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Outcome {
    /// Committed; this many of the spare chain lines were used.
    Done(usize),
    /// The target needs this many chain lines first; nothing was changed.
    Needs(usize),
    /// Somebody else split meanwhile; nothing was changed.
    Lost,
}

/// Splits `bucket`, which must be `seen.split()` and locked by the caller. `spare` are units of claimed chain lines,
/// `publish(unit)` makes one Live.
pub fn split<L: Lines>(
    lines: &L,
    bucket: &Bucket<'_, L>,
    seen: Growth,
    spare: &[u64],
    mut publish: impl FnMut(u64),
) -> Outcome {
    let (Some(next), Some(target)) = (seen.next(), lines.bucket(seen.target())) else {
        return Outcome::Lost;
    };
    if growth(lines) != seen || bucket.number() != seen.split() {
        return Outcome::Lost;
    }
    let moves = |slot: Slot| next.bucket(slot.hash_in(bucket.number())) == seen.target();
    let mut moving = 0usize;
    bucket.items(|_, slot| moving += usize::from(moves(slot)));
    let needed = chain_for(moving);
    if needed > spare.len() {
        return Outcome::Needs(needed);
    }
    target.reset();
    let mut filler = Filler { lines, line: target, place: 0, spare, used: 0 };
    bucket.items(|_, slot| {
        if moves(slot) {
            filler.add(slot, moving);
            moving -= 1;
        }
    });
    let used = filler.used;
    for unit in spare.iter().take(used) {
        publish(*unit);
    }
    let leave = || {
        bucket.items(|word, slot| {
            if moves(slot) {
                word.store(0, Ordering::Release);
            }
        });
    };
    if mutant::is(Mutant::SplitScrubsEarly) {
        leave();
    }
    // The commit. Release: whoever sees the new bucket sees it filled.
    if lines.growth().compare_exchange(seen.0, next.0, Ordering::AcqRel, Ordering::Relaxed).is_err() {
        return Outcome::Lost;
    }
    leave();
    Outcome::Done(used)
}

/// Chain lines for `items` items: every line but the last gives up a slot for its link.
const fn chain_for(items: usize) -> usize {
    items.saturating_sub(SLOTS).div_ceil(SLOTS - 1)
}

/// Appends slot words to a bucket that nobody can reach.
struct Filler<'l, L> {
    lines: &'l L,
    line: &'l Line,
    place: usize,
    spare: &'l [u64],
    used: usize,
}

impl<L: Lines> Filler<'_, L> {
    /// Adds an item while `left` (this one included) are still to come.
    fn add(&mut self, slot: Slot, left: usize) {
        if self.place + 1 == SLOTS && left > 1 && self.used < CHAIN_MAX {
            let Some(unit) = self.spare.get(self.used).copied() else {
                return;
            };
            let Some(next) = self.lines.chain(unit) else {
                return;
            };
            next.clear();
            self.line.last().store(Slot::link(unit).0, Ordering::Relaxed);
            self.line = next;
            self.place = 0;
            self.used += 1;
        }
        if let Some(word) = self.line.slots().get(self.place) {
            word.store(slot.0, Ordering::Relaxed);
        }
        self.place += 1;
    }
}
