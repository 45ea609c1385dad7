//! fsck: every invariant of a heap, checked while others go on working.
//!
//! What a bucket's lock protects is checked under that lock. What can only be told of a heap at rest (that every block,
//! superblock, chain line and fragment is accounted for, and that nobody left anything in a context) is checked when no other
//! client is registered. Then the check also sets right what deaths leave a little off: counters, and hints at free blocks.

use crate::client::{Op, Owner};
use crate::hash::hash;
use crate::heap::block::{self, BlockRef, Meta, State};
use crate::heap::superblock::Use;
use crate::heap::{Block, Heap, class};
use crate::index::bucket::Bucket;
use crate::index::{self, Lines, Slot};
use crate::item::{self, Info, PART_HEADER};
use crate::layout::{ITEM_HEADER, KEY_MAX};
use crate::stats::{Counter, Stats};
use crate::status::Status;
use crate::sync::Ordering;
use crate::user;

/// Something that is not as it should be.
#[derive(Clone, Copy, Debug)]
pub struct Finding {
    /// Which rule does not hold.
    pub kind: &'static str,
    /// Where: a bucket, unit, superblock or context, as the kind says.
    pub place: u64,
    /// What was there.
    pub detail: u64,
    /// Whether data may be wrong; otherwise something is only lost until it is found again.
    pub severe: bool,
}

/// What a check saw.
#[derive(Clone, Copy, Default, Debug)]
pub struct CheckSummary {
    /// Items in the index.
    pub items: u64,
    /// Bytes of their headers, keys and values.
    pub bytes: u64,
    /// Buckets.
    pub buckets: u64,
    /// Chain lines linked to buckets.
    pub chain_lines: u64,
    /// Free blocks of all classes.
    pub free_blocks: u64,
    /// Blocks that operations hold at the moment.
    pub claimed_blocks: u64,
    /// Fragments of large values.
    pub fragments: u64,
    /// Whether the heap was at rest: no other client, no other thread.
    pub at_rest: bool,
    /// At rest: by how many items the counter of items was too low. It is right from now on.
    pub items_off: i64,
    /// At rest: the same for the counter of their bytes.
    pub bytes_off: i64,
    /// At rest: by how many the estimate that decides when the index grows was too low, which is right from now on.
    pub estimate_off: i64,
    /// At rest: free blocks that no hint led to, so that only their class's hand would have found them; hinted from now on.
    pub unhinted_blocks: u64,
    /// Findings.
    pub findings: u64,
    /// Severe ones among them.
    pub severe: u64,
}

/// Words of a [`CheckSummary`] between two sides of a gate.
#[cfg(not(loom))]
pub(crate) const SUMMARY_WORDS: usize = 14;

#[cfg(not(loom))]
impl CheckSummary {
    pub(crate) fn encode(&self) -> [u64; SUMMARY_WORDS] {
        let Self { items, bytes, buckets, chain_lines, free_blocks, claimed_blocks, fragments, .. } = *self;
        let Self { at_rest, unhinted_blocks, findings, severe, .. } = *self;
        let [items_off, bytes_off, estimate_off] =
            [self.items_off, self.bytes_off, self.estimate_off].map(|n| n as u64);
        let (first, rest) =
            ([items, bytes, buckets, chain_lines, free_blocks, claimed_blocks, fragments], at_rest.into());
        let [a, b, c, d, e, f, g] = first;
        [a, b, c, d, e, f, g, rest, items_off, bytes_off, estimate_off, unhinted_blocks, findings, severe]
    }

    pub(crate) fn decode(words: &[u64; SUMMARY_WORDS]) -> Self {
        let [items, bytes, buckets, chain_lines, free_blocks, claimed_blocks, fragments, rest, off @ ..] = *words;
        let [items_off, bytes_off, estimate_off, unhinted_blocks, findings, severe] = off;
        let [items_off, bytes_off, estimate_off] = [items_off, bytes_off, estimate_off].map(|word| word as i64);
        let at_rest = rest != 0;
        Self {
            items,
            bytes,
            buckets,
            chain_lines,
            free_blocks,
            claimed_blocks,
            fragments,
            at_rest,
            items_off,
            bytes_off,
            estimate_off,
            unhinted_blocks,
            findings,
            severe,
        }
    }
}

/// One check under way.
struct Check<'a, 'c> {
    op: &'a Op<'c>,
    report: &'a mut dyn FnMut(Finding),
    sum: CheckSummary,
    live_chain: u64,
    /// Fragments that items list.
    listed: u64,
    /// Superblocks of buckets.
    index: u64,
    /// Whether every bucket was seen.
    whole: bool,
    /// Findings of a locked bucket, told after it is unlocked: the report may do what it likes.
    held: [Option<Finding>; HELD],
}

/// Findings of one bucket that are told singly; more of them are only counted.
const HELD: usize = 32;

impl Op<'_> {
    /// Checks the whole heap.
    pub fn check(&self, report: &mut dyn FnMut(Finding)) -> CheckSummary {
        let sum = CheckSummary::default();
        let mut check =
            Check { op: self, report, sum, live_chain: 0, listed: 0, index: 0, whole: true, held: [None; HELD] };
        let before = self.stats();
        check.sum.at_rest = is_at_rest(&before);
        check.contexts();
        check.index();
        check.superblocks();
        let after = self.stats();
        // Somebody may have come and gone: then he stored or removed something, or all is as it was.
        let moved = |s: &Stats| (s.total_items, s.items_balance, s.bytes_balance);
        check.sum.at_rest &= is_at_rest(&after) && moved(&before) == moved(&after);
        if check.sum.at_rest {
            check.totals();
            // Numbers from a walk that could not see everything are not better than those that are there.
            if check.sum.severe == 0 && check.whole {
                check.set_right(&after);
            }
        }
        self.unprotect();
        self.context.intent.bucket.store(0, Ordering::Release);
        check.sum
    }
}

impl Check<'_, '_> {
    fn found(&mut self, kind: &'static str, place: u64, detail: u64, severe: bool) {
        self.sum.findings += 1;
        self.sum.severe += u64::from(severe);
        (self.report)(Finding { kind, place, detail, severe });
    }

    /// The same for a bucket that is locked.
    fn found_locked(&mut self, kind: &'static str, place: u64, detail: u64) {
        self.sum.findings += 1;
        self.sum.severe += 1;
        if let Some(free) = self.held.iter_mut().find(|f| f.is_none()) {
            *free = Some(Finding { kind, place, detail, severe: true });
        }
    }

    fn heap(&self) -> &Heap {
        self.op.heap
    }

    /// Contexts of dead clients wait for recovery.
    fn contexts(&mut self) {
        for number in 1..=self.heap().geometry().contexts {
            let Some(context) = self.op.heap.context(number) else {
                continue;
            };
            let state = context.load();
            if state.is_busy() && self.op.client.owner_is_dead(state.owner(number)) {
                self.found("op context of a dead client", u64::from(number), 0, false);
            }
            if !state.is_busy() && !context.is_tidy() && context.load() == state {
                self.found("op context left untidy", u64::from(number), 0, false);
            }
        }
    }

    fn index(&mut self) {
        if let Err(fault) = index::check_tables(self.heap()) {
            // Nothing can be looked up by such tables.
            self.whole = false;
            return self.found(fault.field, fault.expected, fault.found, true);
        }
        let mut number = 0;
        while number < index::growth(self.heap()).buckets() {
            let holder = self.op.heap.bucket(number).map_or(Owner::NOBODY, |line| line.holder());
            if holder != Owner::NOBODY && self.op.client.owner_is_dead(holder) {
                self.found("bucket locked by the dead", u64::from(number), u64::from(holder.0), false);
            }
            self.op.context.intent.bucket.store(u64::from(number) + 1, Ordering::Release);
            match self.op.lock(number) {
                Ok(bucket) => {
                    self.bucket(&bucket);
                    bucket.unlock();
                    for finding in core::mem::replace(&mut self.held, [None; HELD]).into_iter().flatten() {
                        (self.report)(finding);
                    }
                }
                Err(_) => {
                    self.whole = false;
                    self.found("bucket locked by a client that does not run", u64::from(number), 0, false);
                }
            }
            number += 1;
        }
        self.sum.buckets = u64::from(number);
    }

    fn bucket(&mut self, bucket: &Bucket<'_, Heap>) {
        let mut slots = [Slot::EMPTY; 64];
        let mut count = 0;
        bucket.items(|_, slot| {
            if let Some(place) = slots.get_mut(count) {
                *place = slot;
                count += 1;
            }
        });
        let slots = slots.get(..count).unwrap_or(&[]);
        let mut good = [false; 64];
        for (i, slot) in slots.iter().enumerate() {
            let fine = self.item(*slot, bucket.number());
            for (other, other_fine) in slots.iter().zip(good).take(i) {
                if other.unit() == slot.unit() {
                    self.found_locked("block named by two slots", slot.unit(), u64::from(bucket.number()));
                } else if fine && other_fine && self.same_key(*slot, *other) {
                    self.found_locked("key stored twice", slot.unit(), other.unit());
                }
            }
            if let Some(place) = good.get_mut(i) {
                *place = fine;
            }
        }
        let mut lines = 0;
        let mut odd = None;
        bucket.chain_lines(|unit| {
            lines += 1;
            let live = self.op.heap.line_at(unit).is_some_and(|l| block::load(l.meta()).is_live());
            let chain = self.op.heap.block(unit).and_then(|b| self.op.class_of(b)) == Some(class::CHAIN);
            if !live || !chain {
                odd = Some(unit);
            }
        });
        self.sum.chain_lines += lines;
        if let Some(unit) = odd {
            self.found_locked("chain line that is not one", unit, u64::from(bucket.number()));
        }
    }

    /// An item's key as a private copy.
    fn key_of(&self, block: Block, info: Info) -> ([u8; KEY_MAX], usize) {
        let mut key = [0; KEY_MAX];
        let len = info.key_len().min(KEY_MAX);
        // SAFETY: the block was checked to hold the item; at most 250 bytes are copied into 250.
        unsafe { user::copy(key.as_mut_ptr(), self.op.heap.bytes(block, ITEM_HEADER), len) };
        (key, len)
    }

    fn same_key(&self, a: Slot, b: Slot) -> bool {
        let of = |slot: Slot| self.op.heap.block(slot.unit()).map(|block| self.key_of(block, self.op.heap.info(block)));
        of(a).is_some() && of(a) == of(b)
    }

    /// One item of a locked bucket; whether its key may be read.
    fn item(&mut self, slot: Slot, number: u32) -> bool {
        let unit = slot.unit();
        let Some((block, class)) = self.placed(unit) else {
            self.found_locked("slot word that names no block", unit, u64::from(number));
            return false;
        };
        let meta = block::load(self.op.heap.meta(block));
        let info = self.op.heap.info(block);
        if !meta.is_live() {
            self.found_locked("slot word that names a block without an item", unit, meta.0);
            return false;
        }
        if info.key_len() == 0 || info.key_len() > KEY_MAX || info.block_size() > class::size(class) as usize {
            self.found_locked("item that does not fit its block", unit, info.0);
            return false;
        }
        let (key, len) = self.key_of(block, info);
        let full = hash(self.op.heap.secret(), key.get(..len).unwrap_or(&[]));
        if !slot.may_be(full) || Info::new(full, len, info.value_len(), info.is_numeric()) != info {
            self.found_locked("item whose hash is not its key's", unit, full.0);
        }
        self.sum.items += 1;
        self.sum.bytes += info.item_size() as u64;
        for i in 0..info.parts() {
            self.part(block, meta, info, i);
        }
        true
    }

    /// The block at a unit, if some class's superblock has one there.
    fn placed(&self, unit: u64) -> Option<(Block, usize)> {
        let block = self.op.heap.block(unit)?;
        let class = self.op.class_of(block)?;
        self.op.heap.number_of(block, class)?;
        Some((block, class))
    }

    fn part(&mut self, head: Block, meta: Meta, info: Info, i: usize) {
        let unit = self.op.heap.part_word(head, info, i).map_or(0, |w| w.load(Ordering::Relaxed));
        let good = self.placed(unit).is_some_and(|(part, class)| {
            block::load(self.op.heap.meta(part)).state() == State::Part
                && self.op.heap.back_word(part).load(Ordering::Relaxed) == BlockRef::new(head.unit, meta.version()).0
                && item::part(info.value_len(), i).1 + PART_HEADER <= class::size(class) as usize
        });
        if good {
            self.listed += 1;
        } else {
            self.found_locked("fragment that is not its item's", head.unit, unit);
        }
    }

    fn superblocks(&mut self) {
        for s in 0..self.heap().geometry().superblocks {
            let Some(descriptor) = self.op.heap.descriptor(s) else {
                continue;
            };
            let state = descriptor.state();
            let hinted = match state.usage() {
                Use::Free => self.op.heap.pool().contains(s),
                Use::Class(class) => self.op.heap.members(class).contains(s),
                _ => true,
            };
            if self.sum.at_rest && !hinted {
                self.found("superblock that no hint leads to", u64::from(s), state.0, false);
            }
            match state.usage() {
                _ if !state.is_known() => self.found("superblock of an unknown use", u64::from(s), state.0, true),
                Use::Class(class) if class >= class::COUNT => {
                    self.found("superblock of an unknown class", u64::from(s), state.0, true)
                }
                Use::Class(class) => self.blocks(s, class),
                Use::Draining(_) | Use::Converting => {
                    if self.op.client.owner_is_dead(state.owner()) {
                        self.found("superblock left half-moved", u64::from(s), state.0, false);
                    }
                }
                Use::Index => self.index += 1,
                Use::Free => {}
            }
        }
    }

    fn blocks(&mut self, s: u32, class: usize) {
        for i in 0..class::per_superblock(class) {
            self.op.protect(0, s);
            if !self.op.heap.descriptor(s).is_some_and(|d| d.serves(class)) {
                return; // moved meanwhile
            }
            let block = self.op.heap.block_in(s, class, i);
            let meta = block::load(self.op.heap.meta(block));
            match meta.state() {
                State::Free => {
                    self.sum.free_blocks += 1;
                    if self.sum.at_rest {
                        self.hint_at(block, s, class, i);
                    }
                }
                State::Claimed => {
                    self.sum.claimed_blocks += 1;
                    if self.op.client.owner_is_dead(meta.owner()) {
                        self.found("block held by the dead", block.unit, meta.0, false);
                    }
                }
                State::Live if class == class::CHAIN => self.live_chain += 1,
                State::Live => self.live(block, meta),
                State::Part => {
                    self.sum.fragments += 1;
                    self.orphan(block, meta);
                }
            }
        }
    }

    /// Sees to it that something leads to a free block of a heap at rest.
    fn hint_at(&mut self, block: Block, s: u32, class: usize, i: u32) {
        let hinted = self.op.heap.partial(class).contains(s)
            && self.op.heap.descriptor(s).is_some_and(|descriptor| descriptor.is_hinted(i));
        if !hinted && !self.op.context.magazine(class).contains(block.unit) {
            self.sum.unhinted_blocks += 1;
            self.op.spill(block, class);
        }
    }

    /// A live block must be named by its bucket; between the look and the lock it may have gone.
    fn live(&mut self, block: Block, meta: Meta) {
        let info = self.op.heap.info(block);
        let Ok(bucket) = self.op.lock_key(info.hash()) else {
            return;
        };
        let same =
            block::load(self.op.heap.meta(block)).identity() == meta.identity() && self.op.heap.info(block) == info;
        let named = bucket.place_of(block.unit).is_some();
        bucket.unlock();
        if same && !named {
            self.found("live block that no slot names", block.unit, meta.0, false);
        }
    }

    fn orphan(&mut self, part: Block, meta: Meta) {
        let back = BlockRef(self.op.heap.back_word(part).load(Ordering::Acquire));
        let head = self.placed(back.unit()).map(|(head, _)| block::load(self.op.heap.meta(head)));
        let owned = head.is_some_and(|head| match head.state() {
            State::Live => back.is_life(head),
            State::Claimed => !self.op.client.owner_is_dead(head.owner()),
            _ => false,
        });
        if !owned && block::load(self.op.heap.meta(part)).identity() == meta.identity() {
            self.found("fragment without an item", part.unit, back.0, false);
        }
    }

    fn totals(&mut self) {
        if self.live_chain != self.sum.chain_lines {
            self.found("chain lines that no bucket links", self.live_chain, self.sum.chain_lines, false);
        }
        if self.sum.fragments != self.listed {
            self.found("fragments that no item lists", self.sum.fragments, self.listed, false);
        }
        let entries = (0..self.heap().geometry().segments).filter_map(|i| self.op.heap.directory(i));
        let segments = entries.filter(|entry| entry.load(Ordering::Acquire) != 0).count() as u64;
        if self.index != segments {
            self.found("superblocks of buckets that the directory does not name", self.index, segments, false);
        }
        let leftover = self.op.heap.hot().large.0.load(Ordering::Relaxed);
        if leftover != 0 {
            self.found("right to reserve held by nobody", leftover, Status::Busy as u64, false);
        }
    }

    /// Who is killed between a commit and its counting leaves the counters off by one item; here is what they should say.
    fn set_right(&mut self, stats: &Stats) {
        let (items, bytes) =
            (self.sum.items.wrapping_sub(stats.items_balance), self.sum.bytes.wrapping_sub(stats.bytes_balance));
        (self.sum.items_off, self.sum.bytes_off) = (items as i64, bytes as i64);
        self.op.count(Counter::Items, items);
        self.op.count(Counter::Bytes, bytes);
        let estimate = || self.op.heap.hot().items.0.load(Ordering::Relaxed);
        let before = estimate();
        self.op.tell_items(true);
        self.op.recount_items();
        self.sum.estimate_off = estimate().wrapping_sub(before) as i64;
    }
}

/// Whether nobody but the caller can be at work.
fn is_at_rest(stats: &Stats) -> bool {
    stats.clients <= 1 && stats.contexts <= 1
}

#[cfg(all(test, not(loom)))]
mod tests {
    extern crate std;
    use super::*;
    use crate::arena::{Arena, set};
    use crate::heap::superblock::Use;
    use std::vec::Vec;

    /// A heap with items of some sizes, chains not needed, in which `harm` was done; what a check of it says.
    fn after(harm: impl FnOnce(&Op<'_>)) -> (Vec<&'static str>, CheckSummary) {
        let arena = Arena::new();
        let client = arena.client(0);
        let id = client.claim_context(0).unwrap();
        for i in 0..200u32 {
            set(&client, id, &i.to_le_bytes(), 10 + i as usize * 30);
        }
        set(&client, id, b"large", 200_000);
        let op = client.op(id.0);
        harm(&op);
        let mut kinds = Vec::new();
        let sum = op.check(&mut |finding| kinds.push(finding.kind));
        (kinds, sum)
    }

    fn used(op: &Op<'_>, usage: impl Fn(Use) -> bool) -> u32 {
        let superblocks = 0..op.heap.geometry().superblocks;
        superblocks.into_iter().find(|s| usage(op.heap.descriptor(*s).unwrap().state().usage())).unwrap()
    }

    /// A context that nobody has.
    fn last<'c>(op: &Op<'c>) -> &'c crate::client::ContextMemory {
        op.heap.context(crate::arena::CONTEXTS).unwrap()
    }

    #[test]
    fn a_sound_heap_at_rest_has_nothing_to_find() {
        let (kinds, sum) = after(|_| ());
        assert!(kinds.is_empty() && sum.at_rest, "{kinds:?}");
        assert_eq!((sum.items, sum.items_off, sum.bytes_off, sum.unhinted_blocks), (201, 0, 0, 0));
    }

    #[test]
    fn what_no_table_leads_to_is_found() {
        let lost = ["superblock that no hint leads to"];
        let (kinds, _) = after(|op| assert!(op.heap.pool().remove(used(op, |u| u == Use::Free))));
        assert_eq!(kinds, lost);
        let (kinds, _) = after(|op| {
            let s = used(op, |u| matches!(u, Use::Class(_)));
            assert!((0..crate::layout::CLASSES).any(|class| op.heap.members(class).remove(s)));
        });
        assert_eq!(kinds, lost);
        let (kinds, _) = after(|op| {
            let descriptor = op.heap.descriptor(used(op, |u| u == Use::Free)).unwrap();
            descriptor.change(descriptor.state(), Use::Index, Owner::NOBODY).unwrap();
        });
        assert_eq!(kinds, ["superblocks of buckets that the directory does not name"]);
    }

    #[test]
    fn what_nobody_holds_any_more_is_found() {
        let dead = u64::from(Owner::new(crate::arena::CONTEXTS, 77).0);
        let untidy = ["op context left untidy"];
        assert_eq!(after(|op| last(op).intent.victim.store(5, Ordering::Relaxed)).0, untidy);
        assert_eq!(after(|op| last(op).items_untold.store(5, Ordering::Relaxed)).0, untidy);
        assert_eq!(after(|op| assert!(last(op).magazine(3).push(4096))).0, untidy);
        let (kinds, _) = after(|op| op.heap.hot().large.0.store(dead, Ordering::Relaxed));
        assert_eq!(kinds, ["right to reserve held by nobody"]);
        let (kinds, _) = after(|op| op.heap.bucket(9).unwrap().try_lock(Owner(dead as u32)).unwrap());
        assert_eq!(kinds, ["bucket locked by the dead"]);
        let (kinds, _) = after(|op| {
            let class = class::for_size(200).unwrap();
            op.claim(class, &op.context.intent.old).unwrap();
            op.context.intent.old.store(0, Ordering::Relaxed);
            // Its context goes on under another name: the block is nobody's.
            let block = op.heap.block(op.context.magazine(class).all().next().unwrap()).unwrap();
            let word = op.heap.meta(block);
            word.store(Meta::claimed(Owner(dead as u32), block::load(word).version()).0, Ordering::Relaxed);
        });
        assert!(kinds.contains(&"block held by the dead"), "{kinds:?}");
    }

    #[test]
    fn counters_and_hints_are_set_right() {
        let lose = |op: &Op<'_>| {
            op.count(Counter::Items, 3);
            op.count(Counter::Bytes, 1000);
            op.heap.hot().items.0.fetch_add(40, Ordering::Relaxed);
            let class = class::for_size(200).unwrap();
            let s = used(op, |u| u == Use::Class(class));
            assert!(op.heap.descriptor(s).unwrap().take_free(5, |_, _| ()));
            let mut again = CheckSummary::default();
            for _ in 0..2 {
                again = op.check(&mut |finding| assert_eq!(finding.kind, ""));
                assert!(again.at_rest);
                if again.items_off != 0 {
                    assert_eq!((again.items_off, again.bytes_off, again.unhinted_blocks), (-3, -1000, 5));
                    assert!(again.estimate_off < 0);
                }
            }
            assert_eq!((again.items_off, again.bytes_off, again.unhinted_blocks), (0, 0, 0));
            assert_eq!(op.heap.hot().items.0.load(Ordering::Relaxed), again.items);
        };
        let (kinds, sum) = after(lose);
        assert!(kinds.is_empty());
        assert_eq!((sum.items_off, sum.estimate_off), (0, 0));
    }
}
