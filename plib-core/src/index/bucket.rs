//! A locked bucket: finding, storing, removing and moving slot words.
//!
//! Whoever has a [`Bucket`] holds its lock. All changes are single stores that leave the bucket right for readers and
//! for whoever takes the lock over if the holder dies.

use super::{CHAIN_MAX, Growth, Line, Lines, Slot, candidates, growth};
use crate::hash::Hash;
use crate::sync::{AtomicU64, Ordering};

/// A bucket whose lock the caller holds.
pub struct Bucket<'l, L> {
    lines: &'l L,
    line: &'l Line,
    number: u32,
    growth: Growth,
}

/// What a search through a locked bucket came upon.
pub struct Search<'l> {
    /// The wanted item's place.
    pub hit: Option<(&'l AtomicU64, Slot)>,
    /// A place for a new item, if the item is not there.
    pub vacant: Option<&'l AtomicU64>,
    /// The last line of the chain.
    pub last: &'l Line,
    /// Chain lines behind the bucket.
    pub chain: usize,
}

impl<'l, L: Lines> Bucket<'l, L> {
    /// The bucket `number`, which the caller has locked.
    pub fn locked(lines: &'l L, line: &'l Line, number: u32) -> Self {
        Self { lines, line, number, growth: growth(lines) }
    }

    /// Its number.
    pub fn number(&self) -> u32 {
        self.number
    }

    /// Its first line.
    pub fn line(&self) -> &'l Line {
        self.line
    }

    /// Releases the lock.
    #[inline]
    pub fn unlock(self) {
        self.line.unlock();
    }

    /// Whether a slot word holds an item of this bucket; what a dead splitter left behind does not count.
    #[inline]
    fn holds(&self, slot: Slot) -> bool {
        slot.is_item() && self.growth.bucket(slot.hash_in(self.number)) == self.number
    }

    /// Calls `visit` for every slot word of the chain that is not a link, with its line's number.
    fn each(&self, mut visit: impl FnMut(usize, &'l AtomicU64, Slot)) -> (&'l Line, usize) {
        let (mut line, mut depth) = (self.line, 0);
        loop {
            for word in line.slots() {
                let slot = Slot(word.load(Ordering::Relaxed));
                if !slot.is_link() {
                    visit(depth, word, slot);
                }
            }
            match line.next().and_then(|unit| self.lines.chain(unit)) {
                Some(next) if depth < CHAIN_MAX => {
                    line = next;
                    depth += 1;
                }
                _ => return (line, depth),
            }
        }
    }

    /// Looks for the item that `is_it` recognises among those whose tag fits; if there is none, for a place to put it.
    #[inline]
    pub fn search(&self, hash: Hash, mut is_it: impl FnMut(Slot) -> bool) -> Search<'l> {
        let (mut line, mut chain) = (self.line, 0);
        let mut hit = None;
        loop {
            for word in candidates(line, hash) {
                let slot = Slot(word.load(Ordering::Relaxed));
                if hit.is_none() && slot.may_be(hash) && self.holds(slot) && is_it(slot) {
                    hit = Some((word, slot));
                }
            }
            match line.next().and_then(|unit| self.lines.chain(unit)) {
                Some(next) if chain < CHAIN_MAX => {
                    line = next;
                    chain += 1;
                }
                _ => break,
            }
        }
        let vacant = if hit.is_none() { self.vacant() } else { None };
        Search { hit, vacant, last: line, chain }
    }

    /// The first place without an item.
    fn vacant(&self) -> Option<&'l AtomicU64> {
        let mut vacant = None;
        self.each(|_, word, slot| {
            if vacant.is_none() && !self.holds(slot) {
                vacant = Some(word);
            }
        });
        vacant
    }

    /// The place that names the block at `unit`.
    pub fn place_of(&self, unit: u64) -> Option<(&'l AtomicU64, Slot)> {
        let mut found = None;
        self.each(|_, word, slot| {
            if slot.unit() == unit && self.holds(slot) {
                found = Some((word, slot));
            }
        });
        found
    }

    /// Calls `visit` for every item.
    pub fn items(&self, mut visit: impl FnMut(&'l AtomicU64, Slot)) {
        self.each(|_, word, slot| {
            if self.holds(slot) {
                visit(word, slot);
            }
        });
    }

    /// Calls `visit` for the unit of every chain line.
    pub fn chain_lines(&self, mut visit: impl FnMut(u64)) {
        let mut line = self.line;
        for _ in 0..CHAIN_MAX {
            let Some(unit) = line.next() else { return };
            visit(unit);
            let Some(next) = self.lines.chain(unit) else {
                return;
            };
            line = next;
        }
    }

    /// Commits: the place now holds `slot`. Release: whoever sees it sees the filled block.
    #[inline]
    pub fn commit(&self, place: &AtomicU64, slot: Slot) {
        place.store(slot.0, Ordering::Release);
    }

    /// Commits a new item into a full bucket by adding a filled chain line behind `last`.
    /// `fresh` is the caller's claimed line at `unit`; `publish` makes it Live before the link is stored.
    pub fn extend(&self, last: &Line, fresh: &Line, unit: u64, slot: Slot, publish: impl FnOnce()) {
        fresh.clear();
        let [first, second, ..] = fresh.slots();
        first.store(last.last().load(Ordering::Relaxed), Ordering::Relaxed);
        second.store(slot.0, Ordering::Relaxed);
        publish();
        // One store adds the item and moves the one that stood here; a reader finds that one behind either word.
        last.last().store(Slot::link(unit).0, Ordering::Release);
    }

    /// Makes the bucket clean after a take-over: drops what a dead splitter or mover left twice.
    pub fn scrub(&self) {
        self.each(|depth, word, slot| {
            if slot.is_empty() {
                return;
            }
            if !self.holds(slot) {
                word.store(0, Ordering::Release);
            } else if self.stands_before(depth, word, slot) {
                self.line.count_move();
                word.store(0, Ordering::Release);
            }
        });
    }

    /// Whether the chain names the same block before `word`.
    fn stands_before(&self, depth: usize, word: &AtomicU64, slot: Slot) -> bool {
        let (mut before, mut seen) = (true, false);
        self.each(|d, other, s| {
            if core::ptr::eq(other, word) {
                before = false;
            }
            seen |= before && d <= depth && s.is_item() && s.unit() == slot.unit();
        });
        seen
    }

    /// Takes the last chain line out if what it holds fits elsewhere: `leave` learns its unit before it is unlinked,
    /// `retire` frees it after. Repeats while it can.
    pub fn shrink(&self, mut leave: impl FnMut(u64), mut retire: impl FnMut(u64)) {
        for _ in 0..CHAIN_MAX {
            let Some((before, unit, last)) = self.last_link() else {
                return;
            };
            let Some(stays) = self.move_up(last) else {
                return;
            };
            leave(unit);
            // A reader that passed the new places before they were filled, and then finds the link gone, sees this count.
            self.line.count_move();
            before.last().store(stays.0, Ordering::Release);
            // One that came after it and is inside the line sees this count before the line can be reused.
            self.line.count_move();
            retire(unit);
        }
    }

    /// The last chain line, its unit, and the line before it.
    fn last_link(&self) -> Option<(&'l Line, u64, &'l Line)> {
        let mut found = None;
        let mut line = self.line;
        for _ in 0..CHAIN_MAX {
            let Some(unit) = line.next() else { break };
            let next = self.lines.chain(unit)?;
            found = Some((line, unit, next));
            line = next;
        }
        found
    }

    /// Copies all items but one of the last line to earlier vacant places, if there are enough; the one left, or EMPTY.
    fn move_up(&self, last: &'l Line) -> Option<Slot> {
        let is_last = |word: &AtomicU64| last.slots().iter().any(|w| core::ptr::eq(w, word));
        let (mut vacant, mut items) = (0, 0);
        self.each(|_, word, slot| match (is_last(word), self.holds(slot)) {
            (true, true) => items += 1,
            (false, false) => vacant += 1,
            _ => {}
        });
        if items > vacant + 1 {
            return None;
        }
        let mut stays = Slot::EMPTY;
        for word in last.slots() {
            let slot = Slot(word.load(Ordering::Relaxed));
            if !self.holds(slot) {
                continue;
            }
            if stays.is_empty() {
                stays = slot;
                continue;
            }
            let mut place = None;
            self.each(|_, to, there| {
                if place.is_none() && !is_last(to) && !self.holds(there) {
                    place = Some(to);
                }
            });
            place?.store(slot.0, Ordering::Release);
        }
        Some(stays)
    }
}
