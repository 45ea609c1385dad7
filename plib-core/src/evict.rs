//! The hands: what goes when there is no room.
//!
//! Each class has a hand that walks its superblocks like a clock's. An item read since the last round loses a step
//! of frequency and stays; one without any goes; expired items, flushed items and leftovers of the dead go first. A class
//! with little memory evicts young items, one with much evicts old ones: superblocks move to the former from the class whose
//! next victims are oldest, until the ages agree (I8). Age is counted in cas values: how many stores ago an item was stored.

use crate::cache::{Life, Times};
use crate::claim::Claimed;
use crate::client::{Note, Op, Owner};
use crate::heap::block::{self, BlockRef, Meta, State};
use crate::heap::superblock::{SuperState, Use};
use crate::heap::{Block, class};
use crate::index::bucket::Bucket;
use crate::item::Info;
use crate::layout::{CLASSES, SUPERBLOCK};
use crate::stats::Counter;
use crate::sync::Ordering;
use crate::sys;

const _: () = assert!(CLASSES <= 128, "a set of classes is a u128");
/// Ages that differ by less are the same.
const AGE_SLACK: u64 = 64;
/// Classes that a mover looks at before it decides.
const DONOR_TRIES: u32 = 4;
/// Blocks that a look at a class takes in.
const SAMPLES: u32 = 8;
/// Steps of a hand that one set pays for looking at frequencies; after them any item will do.
const PATIENT_STEPS: u64 = 1024;
/// Free fragments that other classes leave alone: two values of 1 MiB.
const SPARE_WHOLE: u32 = 34;
/// Superblocks that a mover tries to empty before it gives up.
const MOVE_TRIES: u32 = 16;
/// How often a mover looks again at a block that is in use for the moment.
const DRAIN_PATIENCE: u32 = 200;

const fn hand_word(superblock: u32, i: u32) -> u64 {
    (superblock as u64) << 32 | i as u64
}

impl<'c> Op<'c> {
    /// Makes room in `class`: a block, or None after which blocks may be free (a superblock moved) or nothing was to be had.
    pub fn make_room(&self, class: usize, round: u32, record: &Note) -> Option<Claimed> {
        let forced = class == class::CHAIN || round > 0 || !self.has_superblocks(class);
        if (self.turned_over(class) || forced) && self.move_superblock(class, forced) {
            return None;
        }
        if class == class::CHAIN { None } else { self.advance_hand(class, record) }
    }

    /// Walks the hand of `class` until it finds a block that can be had; three rounds at most.
    fn advance_hand(&self, class: usize, record: &Note) -> Option<Claimed> {
        let rounds = u64::from(class::per_superblock(class)) * 3;
        let least = rounds + 64;
        let (mut limit, mut times) = (least, Times::new(self.client));
        for step in 0.. {
            // How many superblocks the class has is counted only by a hand that goes on for long.
            if step == least {
                limit += rounds * self.heap.members(class).count();
            }
            if step >= limit {
                break;
            }
            let (s, i) = self.step(class)?;
            // Enough looked for one without frequency: a set does not pay for ageing a whole class.
            let ruthless = step >= PATIENT_STEPS;
            self.protect(0, s);
            if !self.heap.descriptor(s).is_some_and(|d| d.serves(class)) {
                continue;
            }
            let block = self.heap.block_in(s, class, i);
            let claimed = match block::load(self.heap.meta(block)) {
                meta if meta.state() == State::Free => self.try_claim_protected(block, class, record),
                meta if meta.state() == State::Live => self.take_live(block, class, meta, &mut times, record, ruthless),
                meta if meta.state() == State::Part => self.take_part(block, class, meta, &mut times, record),
                _ => None,
            };
            if claimed.is_some() {
                return claimed;
            }
        }
        None
    }

    /// Moves the hand by one block; where it stood. None if the class has no superblock.
    fn step(&self, class: usize) -> Option<(u32, u32)> {
        let line = self.heap.class_line(class);
        let members = self.heap.members(class);
        loop {
            let seen = line.hand.load(Ordering::Relaxed);
            let (mut s, mut i) = ((seen >> 32) as u32, seen as u32);
            if i >= class::per_superblock(class) || !members.contains(s) {
                (s, i) = (members.next(s.wrapping_add(1))?, 0);
            }
            let next = hand_word(s, i + 1);
            if line.hand.compare_exchange(seen, next, Ordering::AcqRel, Ordering::Relaxed).is_ok() {
                self.prefetch_ahead(s, class, i);
                return Some((s, i));
            }
        }
    }

    /// The walk touches one cache line a block, and the bucket of the one that goes: asks for those that come next.
    #[inline]
    fn prefetch_ahead(&self, s: u32, class: usize, i: u32) {
        crate::cache::prefetch(self.heap.bytes(self.heap.block_in(s, class, i + 8), 0));
        // A guess from bytes that may be anything.
        let near = self.heap.info(self.heap.block_in(s, class, i + 3));
        self.reading().prefetch_bucket(near.hash());
    }

    /// Counts an eviction. True whenever this context has evicted another superblock's worth: the time to compare its class
    /// with the others.
    fn turned_over(&self, class: usize) -> bool {
        let bytes = self.context.evicted.load(Ordering::Relaxed).wrapping_add(u64::from(class::size(class)));
        let full = bytes >= SUPERBLOCK as u64;
        self.context.evicted.store(if full { 0 } else { bytes }, Ordering::Relaxed);
        full
    }

    /// Takes the block of a live item that is dead by now or has no frequency left.
    fn take_live(
        &self,
        block: Block,
        class: usize,
        meta: Meta,
        times: &mut Times<'_>,
        record: &Note,
        ruthless: bool,
    ) -> Option<Claimed> {
        let dead = times.life(self.heap, meta, self.heap.times_word(block).load(Ordering::Relaxed)) != Life::Alive;
        if !dead && block::age(self.heap.meta(block), meta) && !ruthless {
            return None;
        }
        let cas = self.heap.cas_word(block).load(Ordering::Relaxed);
        let meta = self.evict(block, meta, dead.then_some(times))?;
        if !dead {
            self.heap.class_line(class).typical.store(cas, Ordering::Relaxed);
        }
        record.store(BlockRef::new(block.unit, meta.version()).0, Ordering::Release);
        self.context.intent.victim.store(0, Ordering::Release);
        Some(Claimed { block, class, meta })
    }

    /// Takes a fragment by evicting its whole item, if that has no frequency left.
    fn take_part(
        &self,
        part: Block,
        class: usize,
        meta: Meta,
        times: &mut Times<'_>,
        record: &Note,
    ) -> Option<Claimed> {
        let back = BlockRef(self.heap.back_word(part).load(Ordering::Acquire));
        match self.head_of(part, meta, back) {
            Head::Live(head, head_meta) => {
                let info = self.heap.info(head);
                let first = self.heap.part_word(head, info, 0).is_some_and(|w| w.load(Ordering::Relaxed) == part.unit);
                let dead =
                    times.life(self.heap, head_meta, self.heap.times_word(head).load(Ordering::Relaxed)) != Life::Alive;
                // One step of frequency a round: only the first fragment takes it.
                let spared = head_meta.is_recent() && !first || first && block::age(self.heap.meta(head), head_meta);
                if spared && !dead {
                    return None;
                }
                let cas = self.heap.cas_word(head).load(Ordering::Relaxed);
                let claimed = self.evict(head, head_meta, dead.then_some(times))?;
                self.heap.class_line(class).typical.store(cas, Ordering::Relaxed);
                self.free(head, claimed);
                self.context.intent.victim.store(0, Ordering::Release);
                self.protect(0, part.superblock);
                let serves = self.heap.descriptor(part.superblock).is_some_and(|d| d.serves(class));
                if serves { self.try_claim_protected(part, class, record) } else { None }
            }
            Head::InUse => None,
            Head::Gone => {
                record.store(BlockRef::new(part.unit, meta.version().wrapping_add(1)).0, Ordering::Release);
                let meta = block::seize(self.heap.meta(part), meta, self.me)?;
                Some(Claimed { block: part, class, meta })
            }
        }
    }

    /// Whose fragment this is. The head's superblock is protected when it is Live.
    fn head_of(&self, part: Block, meta: Meta, back: BlockRef) -> Head {
        let Some(head) = self.heap.resolve(back) else {
            return Head::Gone;
        };
        self.protect(1, head.superblock);
        // Still the same fragment: then its head's superblock has not been cut anew before the hazard was seen.
        if block::load(self.heap.meta(part)).identity() != meta.identity() {
            return Head::InUse;
        }
        let on_boundary = self.class_of(head).is_some_and(|class| self.heap.number_of(head, class).is_some());
        if !on_boundary {
            return Head::Gone;
        }
        let head_meta = block::load(self.heap.meta(head));
        match head_meta.state() {
            State::Live if back.is_life(head_meta) => Head::Live(head, head_meta),
            // Being filled, or (one version later) being buried.
            State::Claimed => Head::InUse,
            _ => Head::Gone,
        }
    }

    /// Takes a live item out of the index and makes its block mine; its fragments are freed. With `only_dead` it is left
    /// alone if it turns out to be alive. The intent's victim names the block until the caller says what becomes of it.
    pub fn evict(&self, block: Block, meta: Meta, only_dead: Option<&mut Times<'_>>) -> Option<Meta> {
        let intent = &self.context.intent;
        let info = self.heap.info(block);
        let life = BlockRef::new(block.unit, meta.version());
        intent.victim.store(life.0, Ordering::Release);
        let Some(bucket) = self.try_lock_key(info.hash()) else {
            intent.victim.store(0, Ordering::Release);
            return None;
        };
        let claimed = self.evict_locked(&bucket, block, meta, info, only_dead);
        if claimed.is_some() {
            self.shrink(&bucket);
        }
        bucket.unlock();
        intent.bucket.store(0, Ordering::Release);
        if claimed.is_some() && info.is_large() {
            self.free_parts(block, info, info.parts(), life);
        }
        if claimed.is_none() {
            intent.victim.store(0, Ordering::Release);
        }
        claimed
    }

    fn evict_locked(
        &self,
        bucket: &Bucket<'_, crate::Heap>,
        block: Block,
        meta: Meta,
        info: Info,
        only_dead: Option<&mut Times<'_>>,
    ) -> Option<Meta> {
        // Under the lock the item cannot change any more: is it still the one that was looked at?
        let word = self.heap.meta(block);
        if block::load(word).identity() != meta.identity() || self.heap.info(block) != info {
            return None;
        }
        let dead = only_dead.is_some();
        if let Some(times) = only_dead
            && times.life(self.heap, meta, self.heap.times_word(block).load(Ordering::Relaxed)) == Life::Alive
        {
            return None;
        }
        if let Some((place, _)) = bucket.place_of(block.unit) {
            // The commit: from here on nobody finds the item.
            bucket.commit(place, crate::index::Slot::EMPTY);
            self.count(if dead { Counter::Reclaimed } else { Counter::Evictions }, 1);
            self.count_removed(info);
        }
        block::seize(word, meta, self.me)
    }

    /// Frees the fragments that a head lists, those that are its own and those that I claimed for it.
    pub fn free_parts(&self, head: Block, info: Info, parts: usize, life: BlockRef) {
        for i in 0..parts {
            let Some(unit) = self.heap.part_word(head, info, i).map(|w| w.load(Ordering::Relaxed)) else {
                return;
            };
            let Some(part) = self.heap.block(unit) else {
                continue;
            };
            let on_boundary = self.class_of(part).is_some_and(|class| self.heap.number_of(part, class).is_some());
            if !on_boundary {
                continue;
            }
            let meta = block::load(self.heap.meta(part));
            let mine = match meta.state() {
                State::Part => self.heap.back_word(part).load(Ordering::Acquire) == life.0,
                State::Claimed => meta.owner().context() == self.me.context(),
                State::Free => {
                    // Whoever freed it may have died before he could tell.
                    self.rehint(part);
                    false
                }
                State::Live => false,
            };
            if mine {
                self.free(part, meta);
            }
        }
    }

    /// Moves a superblock to `class` from the class whose items are idle longest. False if none was to be had.
    fn move_superblock(&self, class: usize, forced: bool) -> bool {
        let Some(s) = self.drain_any(class, forced) else { return false };
        self.convert(s, class);
        true
    }

    /// Empties a superblock of another class than `class`. Forced: tries the next idlest class when one cannot give any, as
    /// when its superblocks hold nothing but what this very operation has claimed.
    fn drain_any(&self, class: usize, forced: bool) -> Option<u32> {
        let mut refused = 0u128;
        while let Some(donor) = self.idlest(class, forced, refused) {
            if let Some(s) = self.drain_one(donor, forced) {
                self.count(Counter::SuperblocksMoved, 1);
                return Some(s);
            }
            if !forced {
                return None;
            }
            refused |= 1 << donor;
        }
        None
    }

    /// The heap's time: how many cas values were given out.
    fn now(&self) -> u64 {
        self.heap.hot().cas.0.load(Ordering::Relaxed)
    }

    /// How old the last known victim of a class is by now.
    fn age_of(&self, class: usize) -> u64 {
        self.now().saturating_sub(self.heap.class_line(class).typical.load(Ordering::Relaxed))
    }

    /// The class to take a superblock from: the one whose next victims are oldest; unless forced, only if they are much older
    /// than those of `class`. What is remembered of a class is checked by a look at its hand before it is believed.
    fn idlest(&self, class: usize, forced: bool, refused: u128) -> Option<usize> {
        let least = if forced { 0 } else { self.age_of(class).saturating_mul(3) / 2 + AGE_SLACK };
        let mut last = None;
        for _ in 0..DONOR_TRIES {
            let donor = self.oldest_but(class, refused)?;
            if last == Some(donor) && forced {
                return last;
            }
            if self.age_of(donor) <= least && !forced {
                return None;
            }
            let age = self.sample(donor);
            if age > least && !forced {
                return Some(donor);
            }
            last = Some(donor);
        }
        if forced { last } else { None }
    }

    /// Whether a class has superblocks, as far as the hints know. (One is likely to be where its hand is.)
    pub fn has_superblocks(&self, class: usize) -> bool {
        let hand = (self.heap.class_line(class).hand.load(Ordering::Relaxed) >> 32) as u32;
        self.heap.members(class).next(hand).is_some()
    }

    /// The class with superblocks, neither `class` nor one of `refused` (a bit each), whose remembered victim is oldest.
    fn oldest_but(&self, class: usize, refused: u128) -> Option<usize> {
        (0..CLASSES)
            .filter(|d| *d != class::CHAIN && *d != class && refused >> d & 1 == 0)
            .filter(|d| self.has_superblocks(*d))
            .max_by_key(|d| self.age_of(*d))
    }

    /// Looks at some of the blocks that the hand comes to next; their mean age, which is remembered.
    /// Free blocks count as oldest, items read lately as new (they lose a step of frequency by this look).
    fn sample(&self, class: usize) -> u64 {
        let line = self.heap.class_line(class);
        let now = self.now();
        let hand = (line.hand.load(Ordering::Relaxed) >> 32) as u32;
        let Some(s) = self.heap.members(class).next(hand) else {
            return 0; // it lost its last one meanwhile
        };
        let total = class::per_superblock(class);
        let count = total.min(SAMPLES);
        let mut ages = 0u64;
        for i in 0..count {
            self.protect(0, s);
            if !self.heap.descriptor(s).is_some_and(|d| d.serves(class)) {
                break;
            }
            ages = ages.saturating_add(self.age_in(self.heap.block_in(s, class, i * total / count), now));
        }
        self.unprotect();
        let age = ages / u64::from(count.max(1));
        line.typical.store(now.saturating_sub(age), Ordering::Relaxed);
        age
    }

    /// The age of what is in a block whose superblock is protected.
    fn age_in(&self, block: Block, now: u64) -> u64 {
        let meta = block::load(self.heap.meta(block));
        let (item, meta) = match meta.state() {
            State::Free => return now,
            State::Claimed => return 0,
            State::Live => (block, meta),
            State::Part => {
                match self.head_of(block, meta, BlockRef(self.heap.back_word(block).load(Ordering::Acquire))) {
                    Head::Live(head, meta) => (head, meta),
                    Head::InUse => return 0,
                    Head::Gone => return now,
                }
            }
        };
        // What nobody can see any more goes before anything that lives.
        let word = self.heap.times_word(item).load(Ordering::Relaxed);
        if Times::new(self.client).life(self.heap, meta, word) != Life::Alive {
            return now;
        }
        if block::age(self.heap.meta(item), meta) {
            return 0;
        }
        now.saturating_sub(self.heap.cas_word(item).load(Ordering::Relaxed))
    }

    /// Empties one superblock of `donor`; it is then Converting and mine.
    pub fn drain_one(&self, donor: usize, forced: bool) -> Option<u32> {
        let members = self.heap.members(donor);
        let mut s = (self.heap.class_line(donor).hand.load(Ordering::Relaxed) >> 32) as u32;
        let most = self.heap.geometry().superblocks;
        for attempt in 0..if forced { most } else { MOVE_TRIES.min(most) } {
            let Some(next) = members.next(s) else { break };
            s = next;
            let spare_hot = !forced && attempt < MOVE_TRIES / 2;
            let spared = spare_hot && self.is_hot(s, donor) || self.is_in_use(s, donor);
            if !spared && self.drain(s, donor) {
                return Some(s);
            }
            s = s.wrapping_add(1);
        }
        self.unprotect();
        None
    }

    /// Gives `class` a superblock that is one free block of the class of whole superblocks: nothing has to be evicted.
    /// Some are left for the next large value, so that it and small ones do not take them from each other in turn.
    pub fn take_whole(&self, class: usize) -> bool {
        let partial = self.heap.partial(class::WHOLE);
        if !partial.has(SPARE_WHOLE) {
            return false;
        }
        for _ in 0..MOVE_TRIES {
            let Some(s) = partial.next(0).filter(|_| class != class::WHOLE) else { return false };
            partial.remove(s);
            // After the removal: a block that is freed from here on is hinted again by who frees it.
            let word = self.heap.meta(self.heap.block_in(s, class::WHOLE, 0));
            if block::load(word).state() == State::Free && self.drain(s, class::WHOLE) {
                self.convert(s, class);
                self.count(Counter::SuperblocksMoved, 1);
                return true;
            }
            if block::load(word).state() == State::Free
                && self.heap.descriptor(s).is_some_and(|d| d.serves(class::WHOLE))
            {
                partial.insert(s);
                return false;
            }
        }
        false
    }

    /// A superblock for the index: unused, or taken from whichever class is idle longest.
    pub fn take_superblock(&self) -> Option<u32> {
        self.take_from_pool().or_else(|| self.drain_any(class::CHAIN, true))
    }

    /// Whether a quarter of the items were read since the hand last passed.
    fn is_hot(&self, s: u32, class: usize) -> bool {
        let n = class::per_superblock(class);
        self.protect(0, s);
        if !self.heap.descriptor(s).is_some_and(|d| d.serves(class)) {
            return false;
        }
        let recent = (0..n).filter(|i| {
            let meta = block::load(self.heap.meta(self.heap.block_in(s, class, *i)));
            meta.is_live() && meta.is_recent()
        });
        recent.count() as u32 * 4 > n
    }

    /// Whether an operation holds a block there; then emptying it would fail half-way, after evicting for nothing.
    fn is_in_use(&self, s: u32, class: usize) -> bool {
        self.protect(0, s);
        if !self.heap.descriptor(s).is_some_and(|d| d.serves(class)) {
            return false;
        }
        (0..class::per_superblock(class)).any(|i| {
            let meta = block::load(self.heap.meta(self.heap.block_in(s, class, i)));
            match meta.state() {
                State::Claimed => true,
                State::Part => {
                    let head = BlockRef(self.heap.word(self.heap.block_in(s, class, i), 1).load(Ordering::Acquire));
                    matches!(self.head_of(self.heap.block_in(s, class, i), meta, head), Head::InUse)
                }
                _ => false,
            }
        })
    }

    /// Claims every block of a superblock, waits for its readers, and makes it Converting; else leaves it as it was.
    fn drain(&self, s: u32, donor: usize) -> bool {
        let Some(descriptor) = self.heap.descriptor(s) else {
            return false;
        };
        let intent = &self.context.intent.superblock;
        intent.store(u64::from(s) + 1, Ordering::Release);
        let seen = descriptor.state();
        if seen.usage() != Use::Class(donor) {
            if seen.usage() != Use::Draining(donor) {
                self.heap.members(donor).remove(s);
                // It may have come back between the two.
                if descriptor.serves(donor) {
                    self.heap.members(donor).insert(s);
                }
            }
            intent.store(0, Ordering::Release);
            return false;
        }
        // Readers that are there already would make it fail at the end, after evicting for nothing.
        self.unprotect();
        if self.heap.is_read(s) {
            intent.store(0, Ordering::Release);
            return false;
        }
        self.unprotect();
        let Some(draining) = descriptor.change(seen, Use::Draining(donor), self.me) else {
            intent.store(0, Ordering::Release);
            return false;
        };
        let mut floor = descriptor.floor();
        let total = class::per_superblock(donor);
        for i in 0..total {
            match self.drain_block(self.heap.block_in(s, donor, i)) {
                Some(meta) => floor = floor.max(meta.version().wrapping_add(1)),
                None => return self.undo_drain(s, donor, draining, i),
            }
        }
        if !self.readers_gone(s) {
            return self.undo_drain(s, donor, draining, total);
        }
        descriptor.set_floor(floor);
        if descriptor.change(draining, Use::Converting, self.me).is_none() {
            return false;
        }
        self.heap.members(donor).remove(s);
        self.heap.partial(donor).remove(s);
        true
    }

    /// Makes one block of a draining superblock mine. None if somebody holds it.
    fn drain_block(&self, block: Block) -> Option<Meta> {
        let word = self.heap.meta(block);
        for _ in 0..DRAIN_PATIENCE {
            let meta = block::load(word);
            let claimed = match meta.state() {
                State::Free => block::claim(word, meta, self.me),
                State::Live => self.evict(block, meta, None),
                State::Part => {
                    let back = BlockRef(self.heap.back_word(block).load(Ordering::Acquire));
                    match self.head_of(block, meta, back) {
                        Head::Live(head, head_meta) => {
                            if let Some(claimed) = self.evict(head, head_meta, None) {
                                self.free(head, claimed);
                                self.context.intent.victim.store(0, Ordering::Release);
                            }
                            None
                        }
                        Head::InUse => None,
                        Head::Gone => block::seize(word, meta, self.me),
                    }
                }
                State::Claimed if meta.owner() == self.me => return None,
                State::Claimed => None,
            };
            self.unprotect();
            if claimed.is_some() {
                self.context.intent.victim.store(0, Ordering::Release);
                return claimed;
            }
            crate::sync::relax();
        }
        None
    }

    /// Whether no context is reading in superblock `s`, now that nothing leads there any more.
    fn readers_gone(&self, s: u32) -> bool {
        self.unprotect();
        // Partner of `protect`: after it every reader's hazard is visible, or the reader sees the emptied slots.
        sys::barrier() && !self.heap.is_read(s)
    }

    /// Gives back the first `claimed` blocks of a superblock that could not be emptied.
    fn undo_drain(&self, s: u32, donor: usize, draining: SuperState, claimed: u32) -> bool {
        for i in 0..claimed {
            let word = self.heap.meta(self.heap.block_in(s, donor, i));
            let meta = block::load(word);
            if meta.state() == State::Claimed && meta.owner() == self.me {
                block::release(word, meta);
            }
        }
        if let Some(descriptor) = self.heap.descriptor(s)
            && descriptor.change(draining, Use::Class(donor), Owner::NOBODY).is_some()
        {
            self.hint_class(s, donor);
        }
        self.context.intent.superblock.store(0, Ordering::Release);
        false
    }
}

/// What a fragment's back word leads to.
enum Head {
    /// Its item, which can be evicted.
    Live(Block, Meta),
    /// A head that somebody is filling or burying.
    InUse,
    /// Nothing: the fragment is a leftover.
    Gone,
}
