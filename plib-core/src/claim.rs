//! Where a block for a new item comes from, and where blocks go.
//!
//! In this order: the context's magazine, a superblock that is hinted to have free blocks, an unused superblock, the
//! class's hand (eviction), a superblock of another class. Every step ends in a CAS on the block's own meta word, and every
//! block is named in the intent before that CAS.

use crate::client::{MAGAZINE, Note, Op, Owner};
use crate::heap::block::{self, BlockRef, Meta, State};
use crate::heap::superblock::Use;
use crate::heap::{Block, class};
use crate::mutant::{self, Mutant};
use crate::status::Status;
use crate::sync::Ordering;

/// A block that this operation holds.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Claimed {
    pub block: Block,
    pub class: usize,
    pub meta: Meta,
}

impl Claimed {
    pub fn reference(&self) -> BlockRef {
        BlockRef::new(self.block.unit, self.meta.version())
    }

    /// The meta word of a chain line in use. Where an item has its flush epoch it keeps who linked it: a survivor then
    /// knows the lines of the dead from those that the dead only tried to claim.
    pub fn live_line(&self, owner: Owner) -> Meta {
        Meta::live(owner.0, self.meta.version())
    }
}

impl<'c> Op<'c> {
    /// Claims a block of `class`. `record` is the intent word that names it before it is claimed.
    #[inline]
    pub fn claim(&self, class: usize, record: &Note) -> Result<Claimed, Status> {
        while let Some(unit) = self.context.magazine(class).pop() {
            if let Some(claimed) = self.try_claim(unit, class, record) {
                self.unprotect();
                return Ok(claimed);
            }
        }
        let claimed = self.claim_slowly(class, record);
        // What I hold needs no hazard: a mover that finds a claimed block gives up.
        self.unprotect();
        claimed
    }

    /// Claims the block that the magazine gives first, if it can be had.
    #[inline(always)]
    pub fn claim_at_hand(&self, class: usize, record: &Note) -> Option<Claimed> {
        let claimed = self.try_claim(self.context.magazine(class).pop()?, class, record);
        self.unprotect_first();
        claimed
    }

    /// Claims the block at `unit` if it is a free one of `class`.
    #[inline(always)]
    fn try_claim(&self, unit: u64, class: usize, record: &Note) -> Option<Claimed> {
        let block = self.heap.block(unit)?;
        // From the hazard on, a mover that empties the superblock sees me, or I see that it is being emptied.
        self.protect(0, block.superblock);
        // What a magazine or hint of this class names is a boundary of this class for ever; in a damaged heap, at least
        // nothing is written outside the superblock.
        let fits = self.heap.room(block) >= class::size(class) as usize;
        if !fits || !self.heap.descriptor(block.superblock)?.serves(class) {
            return None;
        }
        self.try_claim_protected(block, class, record)
    }

    /// The same for a block whose superblock is known to be of the class and protected.
    #[inline(always)]
    pub fn try_claim_protected(&self, block: Block, class: usize, record: &Note) -> Option<Claimed> {
        let word = self.heap.meta(block);
        let seen = block::load(word);
        if seen.state() != State::Free {
            return None;
        }
        if !mutant::is(Mutant::ForgetNew) {
            record.store(BlockRef::new(block.unit, seen.version().wrapping_add(1)).0, Ordering::Release);
        }
        let Some(meta) = block::claim(word, seen, self.me) else {
            // Whoever was first now owns exactly the life that the record names.
            record.store(0, Ordering::Release);
            return None;
        };
        Some(Claimed { block, class, meta })
    }

    #[cold]
    #[inline(never)]
    fn claim_slowly(&self, class: usize, record: &Note) -> Result<Claimed, Status> {
        for round in 0..4 {
            if let Some(claimed) = self.claim_partial(class, record) {
                return Ok(claimed);
            }
            if self.take_unused(class) || self.take_whole(class) {
                continue;
            }
            if let Some(claimed) = self.make_room(class, round, record) {
                return Ok(claimed);
            }
            // Somebody died with blocks in hand, or holds all of them; see whether the dead left any.
            if round == 1 {
                self.reap();
                self.refresh_hints();
            }
            if round == 2 {
                crate::sys::yield_now();
            }
        }
        let last = self.claim_partial(class, record);
        if last.is_none() {
            record.store(0, Ordering::Release);
        }
        last.ok_or(Status::NoMemory)
    }

    /// Refills the magazine from a superblock that is hinted to have free blocks, and claims one of them.
    fn claim_partial(&self, class: usize, record: &Note) -> Option<Claimed> {
        let (partial, magazine) = (self.heap.partial(class), self.context.magazine(class));
        let line = self.heap.class_line(class);
        loop {
            while let Some(unit) = magazine.pop() {
                if let Some(claimed) = self.try_claim(unit, class, record) {
                    return Some(claimed);
                }
            }
            let s = partial.next(line.partial.load(Ordering::Relaxed) as u32)?;
            let Some(descriptor) = self.heap.descriptor(s).filter(|d| d.serves(class)) else {
                partial.remove(s);
                // It may have come to the class between the two.
                if self.heap.descriptor(s).is_some_and(|d| d.serves(class)) {
                    partial.insert(s);
                }
                continue;
            };
            // In the magazine before they leave the hints: if I die between, whoever adopts it finds them.
            let taken = descriptor.take_free(MAGAZINE as u32, |first, bits| {
                magazine.clear();
                // Highest first, so that blocks are handed out in address order.
                for bit in (0..64).rev().filter(|bit| bits >> bit & 1 == 1) {
                    magazine.push(self.heap.block_in(s, class, first + bit).unit);
                }
            });
            if !taken {
                magazine.clear();
                partial.remove(s);
                // A block freed between the two is hinted again here.
                if descriptor.has_free_hint() {
                    partial.insert(s);
                }
                continue;
            }
            line.partial.store(u64::from(s), Ordering::Relaxed);
        }
    }

    /// Gives an unused superblock to `class`. False if there is none.
    fn take_unused(&self, class: usize) -> bool {
        let Some(s) = self.take_from_pool() else {
            return false;
        };
        self.convert(s, class);
        true
    }

    /// Takes an unused superblock; it is Converting, mine, and named in the intent.
    pub fn take_from_pool(&self) -> Option<u32> {
        let pool = self.heap.pool();
        let start = &self.heap.hot().pool.0;
        loop {
            let Some(s) = pool.next(start.load(Ordering::Relaxed) as u32) else {
                self.context.intent.superblock.store(0, Ordering::Release);
                return None;
            };
            if !mutant::is(Mutant::ForgetSuperblock) {
                self.context.intent.superblock.store(u64::from(s) + 1, Ordering::Release);
            }
            pool.remove(s);
            let Some(descriptor) = self.heap.descriptor(s) else {
                continue;
            };
            let seen = descriptor.state();
            if seen.usage() == Use::Free && descriptor.change(seen, Use::Converting, self.me).is_some() {
                start.store(u64::from(s), Ordering::Relaxed);
                return Some(s);
            }
        }
    }

    /// Cuts a superblock that is Converting and mine into blocks of `class`.
    pub fn convert(&self, s: u32, class: usize) {
        let Some(descriptor) = self.heap.descriptor(s) else {
            return;
        };
        let floor = descriptor.floor();
        // Changed once means: taken from the pool for the first time. All its bytes are 0, which are free blocks.
        if floor != 0 || descriptor.state().changes() > 1 {
            for i in 0..class::per_superblock(class) {
                self.heap.meta(self.heap.block_in(s, class, i)).store(Meta::free(floor).0, Ordering::Relaxed);
            }
        }
        descriptor.change(descriptor.state(), Use::Class(class), Owner::NOBODY);
        if !self.has_superblocks(class) {
            // The first one: what comes into it is new.
            let now = self.heap.hot().cas.0.load(Ordering::Relaxed);
            self.heap.class_line(class).typical.store(now, Ordering::Relaxed);
        }
        self.hint_class(s, class);
        self.context.intent.superblock.store(0, Ordering::Release);
    }

    /// Puts a superblock of `class` into all hints.
    pub fn hint_class(&self, s: u32, class: usize) {
        self.heap.members(class).insert(s);
        if let Some(descriptor) = self.heap.descriptor(s) {
            descriptor.hint_all_free(class);
        }
        self.heap.partial(class).insert(s);
    }

    /// Rebuilds the hints from the descriptors; rare, after deaths.
    fn refresh_hints(&self) {
        for s in 0..self.heap.geometry().superblocks {
            match self.heap.descriptor(s).map(|d| d.state().usage()) {
                Some(Use::Free) => self.heap.pool().insert(s),
                Some(Use::Class(class) | Use::Draining(class)) => self.heap.members(class).insert(s),
                _ => {}
            }
        }
    }

    /// Gives up a claimed block that nothing names.
    pub fn unclaim(&self, claimed: Claimed, record: &Note) {
        block::release(self.heap.meta(claimed.block), claimed.meta);
        // Offered while the record names it, so that one who dies between takes no hint with him.
        self.offer(claimed.block, claimed.class);
        record.store(0, Ordering::Release);
    }

    /// Offers a block that was just freed to the next claimer.
    #[inline]
    pub fn offer(&self, block: Block, class: usize) {
        if !self.context.magazine(class).push(block.unit) {
            self.spill(block, class);
        }
    }

    /// Notes a free block where every context finds it.
    #[inline(never)]
    pub fn spill(&self, block: Block, class: usize) {
        if let (Some(descriptor), Some(i)) = (self.heap.descriptor(block.superblock), self.heap.number_of(block, class))
        {
            descriptor.hint_free(i);
            self.heap.partial(class).insert(block.superblock);
        }
    }

    /// Notes every free block that this context's magazines name where every context finds it, those included that were just
    /// taken out, and empties them.
    pub fn rehint_magazines(&self) {
        for class in 0..crate::layout::CLASSES {
            let magazine = self.context.magazine(class);
            for block in magazine.all().filter_map(|unit| self.heap.block(unit)) {
                if self.class_of(block) == Some(class) {
                    self.rehint(block);
                }
            }
            magazine.clear();
        }
    }

    /// Notes a block where every context finds it, if it is free: whoever freed it may have died before he could.
    pub fn rehint(&self, block: Block) {
        let Some(class) = self.class_of(block).filter(|class| self.heap.number_of(block, *class).is_some()) else {
            return;
        };
        if block::load(self.heap.meta(block)).state() == State::Free {
            self.spill(block, class);
        }
    }

    /// The class that a block's superblock is cut into (also while it is being emptied).
    #[inline]
    pub fn class_of(&self, block: Block) -> Option<usize> {
        match self.heap.descriptor(block.superblock)?.state().usage() {
            Use::Class(class) | Use::Draining(class) => Some(class),
            _ => None,
        }
    }

    /// Frees an item's block of a known class, which is likely to be the next one to be filled.
    #[inline]
    pub fn free_in(&self, block: Block, seen: Meta, class: usize) {
        if block::release(self.heap.meta(block), seen).is_some() {
            // The header is near; the rest will be written.
            for i in 1..(class::size(class) as usize / 64).min(4) {
                crate::cache::prefetch(self.heap.bytes(block, i * 64));
            }
            self.offer(block, class);
        }
    }

    /// Frees a block in the life `seen` and offers it; false if it is another life by now.
    pub fn free(&self, block: Block, seen: Meta) -> bool {
        let class = self.class_of(block);
        let freed = block::release(self.heap.meta(block), seen).is_some();
        if freed && let Some(class) = class {
            self.offer(block, class);
        }
        freed
    }
}
