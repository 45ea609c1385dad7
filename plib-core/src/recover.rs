//! What a survivor does for the dead: finish or undo what an intent names.
//!
//! Whoever resolves an intent has adopted the context (nobody else acts on it), and may die himself at any
//! instruction: the next adopter starts again. So every step is harmless when repeated, and a field is cleared only
//! after nothing is left to do about it.

use crate::client::{Note, Op, Owner};
use crate::heap::Block;
use crate::heap::block::{self, BlockRef, Meta, State};
use crate::heap::class;
use crate::heap::superblock::Use;
use crate::index::bucket::Bucket;
use crate::index::{self, Lines};
use crate::mutant::{self, Mutant};
use crate::status::Status;
use crate::sync::Ordering;

fn clear(word: &Note) {
    word.store(0, Ordering::Release);
}

impl Op<'_> {
    /// Resolves the intent of my own context, which a dead owner (or an abandoned operation) left.
    pub fn resolve(&self) -> Result<(), Status> {
        let resolved = self.resolve_all();
        self.unprotect();
        resolved
    }

    fn resolve_all(&self) -> Result<(), Status> {
        let intent = &self.context.intent;
        self.unlock_left(&intent.bucket)?;
        self.resolve_lines()?;
        self.unlock_left(&intent.other)?;
        let parts = intent.parts.load(Ordering::Relaxed) as usize;
        self.resolve_block(&intent.victim, 0)?;
        self.resolve_block(&intent.new, parts)?;
        clear(&intent.parts);
        self.resolve_block(&intent.old, 0)?;
        self.resolve_superblock();
        self.resolve_large();
        clear(&intent.other);
        clear(&intent.bucket);
        Ok(())
    }

    /// Releases a bucket lock that a dead incarnation of this context may hold. Taking it over cleans the bucket.
    fn unlock_left(&self, word: &Note) -> Result<(), Status> {
        let Some(number) = word.load(Ordering::Acquire).checked_sub(1) else {
            return Ok(());
        };
        let Some(line) = self.heap.bucket(number as u32) else {
            return Ok(());
        };
        if line.holder().context() == self.me.context() {
            self.lock(number as u32)?.unlock();
        }
        Ok(())
    }

    /// Frees the chain lines that no bucket links to.
    fn resolve_lines(&self) -> Result<(), Status> {
        let intent = &self.context.intent;
        for word in intent.lines.iter().chain([&intent.unlinked]) {
            let life = BlockRef(word.load(Ordering::Acquire));
            let Some(line) = self.heap.resolve(life).filter(|line| self.class_of(*line) == Some(class::CHAIN)) else {
                clear(word);
                continue;
            };
            let meta = block::load(self.heap.meta(line));
            // One that was claimed and linked is the dead's own; one that was being taken out may be anybody's.
            let dead_linked = Owner(meta.epoch()).context() == self.me.context();
            match meta.state() {
                State::Claimed if meta.owner().context() == self.me.context() => {
                    self.free(line, meta);
                }
                State::Live if life.is_life(meta) && (dead_linked || core::ptr::eq(word, &intent.unlinked)) => {
                    let linked = self.links_to(&intent.bucket, line)? || self.links_to(&intent.other, line)?;
                    if !linked {
                        self.free(line, meta);
                    }
                }
                State::Free => self.rehint(line),
                _ => {}
            }
            clear(word);
        }
        Ok(())
    }

    /// Whether the bucket that an intent names links to a chain line. Counts a move, in case the dead had just unlinked it.
    fn links_to(&self, word: &Note, line: Block) -> Result<bool, Status> {
        let Some(number) = word.load(Ordering::Acquire).checked_sub(1) else {
            return Ok(false);
        };
        if number >= u64::from(index::growth(self.heap).buckets()) {
            return Ok(false); // the split that was making this bucket did not commit
        }
        let bucket = self.lock(number as u32)?;
        let mut linked = false;
        bucket.chain_lines(|unit| linked |= unit == line.unit);
        if !linked {
            bucket.line().count_move();
        }
        bucket.unlock();
        Ok(linked)
    }

    /// Frees a block that an intent names unless it holds an item of the index. `parts` for one that is still being filled.
    fn resolve_block(&self, word: &Note, parts: usize) -> Result<(), Status> {
        let life = BlockRef(word.load(Ordering::Acquire));
        let Some(block) = self.heap.resolve(life) else {
            clear(word);
            return Ok(());
        };
        if mutant::is(Mutant::ClearFirst) {
            clear(word);
        }
        // It may be anybody's by now, and its superblock must not be cut anew while it is looked at: what stands there then
        // is another block's value.
        self.protect(0, block.superblock);
        let on_boundary = self.class_of(block).is_some_and(|class| self.heap.number_of(block, class).is_some());
        if on_boundary {
            let meta = block::load(self.heap.meta(block));
            match meta.state() {
                State::Claimed if meta.owner().context() == self.me.context() => self.bury(block, life, parts),
                State::Live if life.is_life(meta) => self.bury_unnamed(block, life, meta)?,
                State::Free => self.rehint(block),
                _ => {}
            }
        }
        clear(word);
        Ok(())
    }

    /// Frees a block that this context holds, and the fragments of the life `life`.
    fn bury(&self, block: Block, life: BlockRef, parts: usize) {
        let meta = block::load(self.heap.meta(block));
        let info = self.heap.info(block);
        // Claimed in this very life: it was being filled. One version later: its item was being taken apart.
        let listed = if life.is_life(meta) { parts } else { info.parts() };
        self.free_parts(block, info, listed, life);
        self.free(block, meta);
    }

    /// Frees a block that was live as `meta` says unless a slot word names it. Not a later life of it: what is not named then
    /// may be a block that somebody is filling.
    fn bury_unnamed(&self, block: Block, life: BlockRef, meta: Meta) -> Result<(), Status> {
        let info = self.heap.info(block);
        let bucket = self.lock_key_recovering(info.hash())?;
        let named = bucket.place_of(block.unit).is_some() && !mutant::is(Mutant::RecoverBlindly);
        let seized = if named { None } else { block::seize(self.heap.meta(block), meta, self.me) };
        bucket.unlock();
        if seized.is_some() {
            self.bury(block, life, 0);
        }
        Ok(())
    }

    /// Locks a key's bucket and notes it as the other bucket: the first may still be needed.
    fn lock_key_recovering(&self, hash: crate::hash::Hash) -> Result<Bucket<'_, crate::Heap>, Status> {
        loop {
            let number = index::growth(self.heap).bucket(hash);
            self.context.intent.other.store(u64::from(number) + 1, Ordering::Release);
            let bucket = self.lock(number)?;
            if index::growth(self.heap).bucket(hash) == number {
                return Ok(bucket);
            }
            bucket.unlock();
        }
    }

    /// Puts a superblock back to where its last owner took it from, or to the pool.
    fn resolve_superblock(&self) {
        let word = &self.context.intent.superblock;
        let Some(s) = word.load(Ordering::Acquire).checked_sub(1).map(|s| s as u32) else {
            return;
        };
        let Some(descriptor) = self.heap.descriptor(s) else {
            return clear(word);
        };
        let state = descriptor.state();
        let mine = state.owner().context() == self.me.context();
        match state.usage() {
            Use::Free => self.heap.pool().insert(s),
            Use::Draining(donor) if mine => {
                self.release_drained(s, donor);
                if descriptor.change(state, Use::Class(donor), Owner::NOBODY).is_some() {
                    self.hint_class(s, donor);
                }
            }
            Use::Converting if mine => {
                self.forget_members(s);
                if self.is_segment(s) {
                    descriptor.change(state, Use::Index, Owner::NOBODY);
                } else if descriptor.change(state, Use::Free, Owner::NOBODY).is_some() {
                    self.heap.pool().insert(s);
                }
            }
            // Published; its maker may have died before all hints were set.
            Use::Class(class) => self.hint_class(s, class),
            _ => {}
        }
        clear(word);
    }

    fn release_drained(&self, s: u32, donor: usize) {
        for i in 0..class::per_superblock(donor) {
            let word = self.heap.meta(self.heap.block_in(s, donor, i));
            let meta = block::load(word);
            if meta.state() == State::Claimed && meta.owner().context() == self.me.context() {
                block::release(word, meta);
            }
        }
    }

    /// Drops a superblock that left its class from the hints of all classes.
    fn forget_members(&self, s: u32) {
        for class in 0..crate::layout::CLASSES {
            self.heap.members(class).remove(s);
            self.heap.partial(class).remove(s);
        }
    }

    /// Whether the directory names superblock `s`.
    fn is_segment(&self, s: u32) -> bool {
        (0..self.heap.geometry().segments)
            .any(|i| self.heap.directory(i).is_some_and(|e| e.load(Ordering::Acquire) == s + 1))
    }

    /// Releases the right to reserve for large values.
    fn resolve_large(&self) {
        if self.context.intent.large.load(Ordering::Acquire) != 0 {
            let word = &self.heap.hot().large.0;
            let holder = word.load(Ordering::Acquire);
            if holder != 0 && Owner(holder as u32).context() == self.me.context() {
                let _ = word.compare_exchange(holder, 0, Ordering::AcqRel, Ordering::Relaxed);
            }
            clear(&self.context.intent.large);
        }
    }
}
