//! Storing: build, fill, lock, decide, commit, free what was replaced.

use super::read::number_text;
use super::*;
use crate::claim::Claimed;
use crate::client::Owner;
use crate::heap::block::BlockRef;
use crate::heap::class;
use crate::index::CHAIN_MAX;
use crate::index::bucket::{Bucket, Search};
use crate::item::{DIGITS_MAX, PART_HEADER, Pair};
use crate::layout::ITEM_HEADER;
use crate::stats::Counter;
use crate::user::Out;

/// What a writer wants done with the item that it found under the lock.
pub(super) enum Decision {
    Store,
    Refuse(Status),
}

/// The live item under a key, as its locked bucket shows it.
pub(super) struct Existing {
    pub block: Block,
    pub meta: Meta,
    pub cas: u64,
}

impl Existing {
    /// Whether it is still what was read: the same life of the same block with the same cas.
    pub fn is_life_of(&self, block: Block, meta: Meta, cas: u64) -> bool {
        let same = self.block == block && self.meta.identity() == meta.identity() && self.cas == cas;
        same || mutant::is(Mutant::NoRecheck)
    }
}

/// A new item: filled, not yet visible.
pub(super) struct Fresh {
    pub claimed: Claimed,
    pub info: Info,
}

impl<'c> Op<'c> {
    /// Stores an item; its cas.
    ///
    /// # Safety
    /// `name` (the key) and `value` are readable.
    pub unsafe fn store(&self, mode: Mode, name: In, value: In, flags: u32, exptime: i64) -> Result<u64, Status> {
        let mut key = Key::blank();
        // SAFETY: passed on.
        unsafe { key.read(self.heap, name)? };
        // SAFETY: passed on.
        unsafe { self.store_copied(mode, &key, value, flags, exptime) }
    }

    /// store with a private key.
    ///
    /// # Safety
    /// `value` is readable.
    pub unsafe fn store_copied(
        &self,
        mode: Mode,
        key: &Key,
        value: In,
        flags: u32,
        exptime: i64,
    ) -> Result<u64, Status> {
        self.check_value(key, value)?;
        if exptime == 0 && matches!(mode, Mode::Set | Mode::Add | Mode::Replace) {
            self.reading().prefetch_bucket(key.hash);
            // SAFETY: passed on; just checked.
            if let Some(cas) = unsafe { self.store_usual(mode, key, value, flags) } {
                return Ok(cas);
            }
        }
        // SAFETY: passed on.
        unsafe { self.store_any(mode, key, value, flags, exptime) }
    }

    /// The same for whatever is not usual.
    ///
    /// # Safety
    /// `value` is readable, and was checked.
    #[inline(never)]
    unsafe fn store_any(&self, mode: Mode, key: &Key, value: In, flags: u32, exptime: i64) -> Result<u64, Status> {
        let result = match mode {
            Mode::Append => self.concat(key, value, false),
            Mode::Prepend => self.concat(key, value, true),
            _ => self.store_new(mode, key, value, flags, exptime),
        };
        if result.is_err() {
            self.count(Counter::StoreRefused, 1);
        }
        if let Mode::Cas(_) = mode {
            match result {
                Ok(_) => self.count(Counter::CasHits, 1),
                Err(Status::NotFound) => self.count(Counter::CasMisses, 1),
                Err(Status::Exists) => self.count(Counter::CasBadval, 1),
                Err(_) => {}
            }
        }
        result
    }

    pub(super) fn check_value(&self, key: &Key, value: In) -> Result<(), Status> {
        let limit = self.heap.geometry().item_size_max as usize;
        if value.len > limit || ITEM_HEADER + key.bytes().len() + value.len > limit {
            return Err(Status::TooLarge);
        }
        if self.heap.protected().admits(value.ptr, value.len) { Ok(()) } else { Err(Status::Invalid) }
    }

    pub(super) fn store_new(&self, mode: Mode, key: &Key, value: In, flags: u32, exptime: i64) -> Result<u64, Status> {
        self.reading().prefetch_bucket(key.hash);
        let mut times = Times::new(self.client);
        let word = item::times_word(flags, times.expiry(exptime));
        let info = Info::new(key.hash, key.bytes().len(), value.len, false);
        let fresh = self.build(key, info, word)?;
        // The item that this one may replace: looked at under the lock.
        self.reading().prefetch_block(key.hash);
        // SAFETY: the caller of `store` grants the value; `build` made room for it.
        unsafe { self.fill(&fresh, 0, value.ptr, value.len) };
        self.commit(key, &fresh, &mut times, |existing| match (mode, existing) {
            (Mode::Add, Some(_)) | (Mode::Replace, None) => Decision::Refuse(Status::NotStored),
            (Mode::Cas(_), None) => Decision::Refuse(Status::NotFound),
            (Mode::Cas(cas), Some(item)) if item.cas != cas => Decision::Refuse(Status::Exists),
            _ => Decision::Store,
        })
    }

    /// Claims a block (and fragments) for an item and writes all but its value.
    pub(super) fn build(&self, key: &Key, info: Info, times: u64) -> Result<Fresh, Status> {
        let class = class::for_size(info.block_size()).ok_or(Status::TooLarge)?;
        let large = info.is_large();
        if large {
            self.enter_large()?;
        }
        let built = self.claim(class, &self.context.intent.new).map(|claimed| Fresh { claimed, info });
        let built = built.and_then(|fresh| {
            self.heap.set_info(fresh.claimed.block, info);
            self.heap.times_word(fresh.claimed.block).store(times, Ordering::Relaxed);
            // SAFETY: the block is mine and holds header and key; the key is private.
            unsafe {
                user::copy(self.heap.bytes(fresh.claimed.block, ITEM_HEADER), key.bytes().as_ptr(), key.bytes().len())
            };
            match if large { self.claim_parts(&fresh) } else { Ok(()) } {
                Ok(()) => Ok(fresh),
                Err(status) => {
                    self.discard(&fresh);
                    Err(status)
                }
            }
        });
        if large {
            self.leave_large();
        }
        built
    }

    /// Waits for the right to reserve memory for a large value: two that each hold half of what they need must not meet.
    pub(super) fn enter_large(&self) -> Result<(), Status> {
        let word = &self.heap.hot().large.0;
        self.context.intent.large.store(1, Ordering::Release);
        let mut patience = Patience::new();
        let mut last = 0;
        loop {
            let holder = word.load(Ordering::Acquire);
            if holder != last {
                last = holder;
                patience.progress();
            }
            let free = holder == 0 || patience.tries >= SPINS && self.client.owner_is_dead(Owner(holder as u32));
            if free && word.compare_exchange(holder, u64::from(self.me.0), Ordering::AcqRel, Ordering::Relaxed).is_ok()
            {
                return Ok(());
            }
            // Held by what a signal handler interrupted: its own thread waits for it, not it for its thread.
            let mine = patience.tries >= SPINS && self.client.is_my_thread(Owner(holder as u32), self.context);
            if let Err(status) = if mine { Err(Status::Busy) } else { patience.wait() } {
                self.context.intent.large.store(0, Ordering::Release);
                self.count(Counter::BusyReturns, 1);
                return Err(status);
            }
        }
    }

    pub(super) fn leave_large(&self) {
        self.heap.hot().large.0.store(0, Ordering::Release);
        self.context.intent.large.store(0, Ordering::Release);
    }

    /// Claims the fragments of a large item; each is listed in the head before it is claimed.
    pub(super) fn claim_parts(&self, fresh: &Fresh) -> Result<(), Status> {
        let head = fresh.claimed.block;
        let count = fresh.info.parts();
        for i in 0..count {
            self.heap.part_word(head, fresh.info, i).ok_or(Status::Damaged)?.store(0, Ordering::Relaxed);
        }
        self.context.intent.parts.store(count as u64, Ordering::Release);
        let scratch = &self.context.intent.old;
        for i in 0..count {
            let (_, bytes) = item::part(fresh.info.value_len(), i);
            let class = class::for_size(bytes + PART_HEADER).ok_or(Status::TooLarge)?;
            // `old` has no other use before the commit; it names the fragment until the list does.
            let part = self.claim(class, scratch)?;
            self.heap.part_word(head, fresh.info, i).ok_or(Status::Damaged)?.store(part.block.unit, Ordering::Release);
            self.heap.back_word(part.block).store(fresh.claimed.reference().0, Ordering::Relaxed);
            block::publish(self.heap.meta(part.block), Meta::part(part.meta.version()));
            scratch.store(0, Ordering::Release);
        }
        Ok(())
    }

    /// Gives up an item that was not stored.
    pub(super) fn discard(&self, fresh: &Fresh) {
        let claimed = fresh.claimed;
        if fresh.info.is_large() {
            self.free_parts(claimed.block, fresh.info, fresh.info.parts(), claimed.reference());
        }
        self.unclaim(claimed, &self.context.intent.new);
        self.done();
    }

    /// Copies `len` bytes from `from` to the value of a new item, from byte `at` on.
    ///
    /// # Safety
    /// `from` is readable for `len` bytes, and `at + len` is within the value.
    pub(super) unsafe fn fill(&self, fresh: &Fresh, at: usize, from: *const u8, len: usize) {
        let (head, info) = (fresh.claimed.block, fresh.info);
        if !info.is_large() {
            // SAFETY: the block is mine and was claimed for this size.
            return unsafe { user::copy(self.heap.bytes(head, info.value_at() + at), from, len) };
        }
        for i in 0..info.parts() {
            let (first, bytes) = item::part(info.value_len(), i);
            let (start, end) = (first.max(at), (first + bytes).min(at + len));
            let unit = self.heap.part_word(head, info, i).map_or(0, |w| w.load(Ordering::Relaxed));
            let part = self.heap.block(unit).filter(|part| start < end && bytes + PART_HEADER <= self.heap.room(*part));
            let Some(part) = part else { continue };
            // SAFETY: [start, end) lies in this fragment and in [at, at + len).
            unsafe {
                user::copy(self.heap.bytes(part, PART_HEADER + start - first), from.add(start - at), end - start)
            };
        }
    }

    /// append and prepend: a new item from the old value and the caller's bytes.
    pub(super) fn concat(&self, key: &Key, value: In, before: bool) -> Result<u64, Status> {
        let mut patience = Patience::new();
        loop {
            let mut times = Times::new(self.client);
            let found = self.reading().find(key.hash, key.bytes(), |view| {
                let (life, word) = times.life_unlocked(self.heap, view.block, view.meta)?;
                let alive = life == Life::Alive;
                let (len, _, cas) = self.reading().read_value(view, Out { ptr: core::ptr::null_mut(), len: 0 })?;
                let len = if view.info.is_numeric() { len } else { view.info.value_len() };
                Some(alive.then_some((View { ..*view }, word, len, cas)))
            })?;
            self.unprotect();
            let Some((view, word, len, cas)) = found.flatten() else {
                return Err(Status::NotStored);
            };
            let total = In { ptr: value.ptr, len: len.saturating_add(value.len) };
            if ITEM_HEADER + key.bytes().len() + total.len > self.heap.geometry().item_size_max as usize {
                return Err(Status::TooLarge);
            }
            let fresh = self.build(key, Info::new(key.hash, key.bytes().len(), total.len, false), word)?;
            let (old_at, new_at) = if before { (value.len, 0) } else { (0, len) };
            // SAFETY: the caller grants the value, and the new item was built for both lengths.
            unsafe { self.fill(&fresh, new_at, value.ptr, value.len) };
            if self.copy_old(&view, &fresh, old_at).is_some() {
                let stored = self.commit(key, &fresh, &mut times, |existing| match existing {
                    // The same life of the same block with the same cas: what was copied is the whole old value.
                    Some(e) if e.is_life_of(view.block, view.meta, cas) => {
                        // A touch in between keeps its expiry.
                        let now = self.heap.times_word(e.block).load(Ordering::Relaxed);
                        self.heap.times_word(fresh.claimed.block).store(now, Ordering::Relaxed);
                        Decision::Store
                    }
                    Some(_) => Decision::Refuse(Status::Exists),
                    None => Decision::Refuse(Status::NotFound),
                });
                match stored {
                    Err(Status::Exists | Status::NotFound) => {}
                    other => return other,
                }
            } else {
                self.discard(&fresh);
            }
            patience.progress();
            patience.wait()?;
        }
    }

    /// Copies a viewed item's value into a new item. None if it changed meanwhile; the commit checks once more.
    pub(super) fn copy_old(&self, view: &View<'_>, fresh: &Fresh, at: usize) -> Option<()> {
        self.protect(0, view.block.superblock);
        let same = view.word.load(Ordering::Acquire) == view.slot.0
            && block::load(self.heap.meta(view.block)).identity() == view.meta.identity();
        let copied = if !same {
            None
        } else if view.info.is_large() {
            self.reading().each_part(view, |first, from, bytes| {
                // SAFETY: the fragment has `bytes` bytes, and the new value is as long as old and added bytes together.
                unsafe { self.fill(fresh, at + first, from, bytes) };
            })
        } else if view.info.is_numeric() {
            let mut text = [0; 2 * DIGITS_MAX];
            self.heap.load_pair(view.block, view.info).map(|pair| {
                let text = number_text(pair.number, view.info.value_len(), &mut text);
                let room = fresh.info.value_len().saturating_sub(at).min(text.len());
                // SAFETY: at most the room that the new value has from `at` on; if the number's length changed, so did
                // its cas, and the commit refuses.
                unsafe { self.fill(fresh, at, text.as_ptr(), room) };
            })
        } else {
            // SAFETY: the item fits its block (`key_is`), and the new value is as long as old and added bytes together.
            unsafe { self.fill(fresh, at, self.heap.bytes(view.block, view.info.value_at()), view.info.value_len()) };
            Some(())
        };
        self.unprotect();
        copied
    }

    /// Makes a filled item visible if `decide` agrees, and frees the one it replaces. Gives the item up otherwise.
    pub(super) fn commit(
        &self,
        key: &Key,
        fresh: &Fresh,
        times: &mut Times<'_>,
        mut decide: impl FnMut(Option<&Existing>) -> Decision,
    ) -> Result<u64, Status> {
        let mut spare = None;
        let result = loop {
            let bucket = match self.lock_key(key.hash) {
                Ok(bucket) => bucket,
                Err(status) => break Err(status),
            };
            let search = self.search(&bucket, key);
            let existing = search.hit.and_then(|(_, slot)| self.existing(slot));
            times.anew();
            let epoch = times.epoch(self.heap);
            let alive = existing.as_ref().filter(|e| self.is_alive_under(epoch, e, times));
            if let Decision::Refuse(status) = decide(alive) {
                bucket.unlock();
                break Err(status);
            }
            if search.hit.is_none() && search.vacant.is_none() && search.chain < CHAIN_MAX && spare.is_none() {
                // A chain line is wanted; it must be claimed without a lock.
                bucket.unlock();
                let [word, ..] = &self.context.intent.lines;
                match self.claim(class::CHAIN, word) {
                    Ok(line) => spare = Some(line),
                    Err(_) => break self.commit_locked(key, fresh, times, &mut None, &mut decide),
                }
                continue;
            }
            break self.publish(bucket, &search, existing, key, fresh, epoch, &mut spare);
        };
        self.give_back(spare);
        match result {
            Ok(cas) => {
                self.done();
                self.grow();
                Ok(cas)
            }
            Err(status) => {
                self.discard(fresh);
                Err(status)
            }
        }
    }

    /// The same when no chain line is to be had: a full bucket evicts inside itself.
    #[cold]
    pub(super) fn commit_locked(
        &self,
        key: &Key,
        fresh: &Fresh,
        times: &mut Times<'_>,
        spare: &mut Option<Claimed>,
        decide: &mut impl FnMut(Option<&Existing>) -> Decision,
    ) -> Result<u64, Status> {
        let bucket = self.lock_key(key.hash)?;
        let search = self.search(&bucket, key);
        let existing = search.hit.and_then(|(_, slot)| self.existing(slot));
        times.anew();
        let epoch = times.epoch(self.heap);
        let alive = existing.as_ref().filter(|e| self.is_alive_under(epoch, e, times));
        if let Decision::Refuse(status) = decide(alive) {
            bucket.unlock();
            return Err(status);
        }
        self.publish(bucket, &search, existing, key, fresh, epoch, spare)
    }

    /// Whether an item of a locked bucket is alive under `epoch`. What replaces it must be stamped with that very epoch: if a
    /// flush comes after this look, it takes the new item as it would have taken this one.
    fn is_alive_under(&self, epoch: u32, item: &Existing, times: &mut Times<'_>) -> bool {
        let word = self.heap.times_word(item.block).load(Ordering::Relaxed);
        times.life_under(epoch, item.meta, word) == Life::Alive
    }

    pub(super) fn give_back(&self, spare: Option<Claimed>) {
        if let Some(line) = spare {
            let [word, ..] = &self.context.intent.lines;
            self.unclaim(line, word);
        }
    }

    /// The item that a slot word of a locked bucket names.
    pub(super) fn existing(&self, slot: Slot) -> Option<Existing> {
        let block = self.heap.block(slot.unit())?;
        let info = self.heap.info(block);
        let cas = if info.is_numeric() {
            self.heap.load_pair(block, info)?.cas
        } else {
            self.heap.cas_word(block).load(Ordering::Relaxed)
        };
        Some(Existing { block, meta: block::load(self.heap.meta(block)), cas })
    }

    /// The part of a store that is done under the lock. `epoch` was read under it.
    #[allow(clippy::too_many_arguments, reason = "the state of one commit")]
    pub(super) fn publish(
        &self,
        bucket: Bucket<'c, Heap>,
        search: &Search<'c>,
        existing: Option<Existing>,
        key: &Key,
        fresh: &Fresh,
        epoch: u32,
        spare: &mut Option<Claimed>,
    ) -> Result<u64, Status> {
        let (new, info) = (fresh.claimed, fresh.info);
        // A full chain that may not grow gives up one of its own.
        let (place, replaced) = match (search.hit, search.vacant) {
            (Some((word, _)), _) => (Some(word), existing),
            (None, Some(word)) => (Some(word), None),
            // While no lock was held, others may have added the last line that is allowed.
            (None, None) if spare.is_some() && search.chain < CHAIN_MAX => (None, None),
            (None, None) => match self.chain_victim(&bucket) {
                Some((word, victim)) => {
                    self.count(Counter::ChainEvictions, 1);
                    self.count(Counter::Evictions, 1);
                    (Some(word), Some(victim))
                }
                None => {
                    bucket.unlock();
                    return Err(Status::Busy);
                }
            },
        };
        let cas = self.next_cas(replaced.as_ref().map_or(0, |e| e.cas));
        self.heap.cas_word(new.block).store(cas, Ordering::Relaxed);
        if info.is_numeric()
            && let Some(pair) = self.heap.load_pair(new.block, info)
        {
            self.heap.init_pair(new.block, info, Pair { cas, ..pair });
        }
        if let Some(old) = &replaced {
            self.context.intent.old.store(BlockRef::new(old.block.unit, old.meta.version()).0, Ordering::Release);
        }
        let epoch = if mutant::is(Mutant::LateEpoch) { Times::new(self.client).epoch(self.heap) } else { epoch };
        block::publish(self.heap.meta(new.block), Meta::live(epoch, new.meta.version()));
        let slot = Slot::new(key.hash, new.block.unit);
        match place {
            Some(word) => bucket.commit(word, slot),
            None => self.extend(&bucket, search, slot, spare),
        }
        let buried = replaced.as_ref().map(|old| (old.block, self.heap.info(old.block), self.dispose(old)));
        bucket.unlock();
        self.count(Counter::TotalItems, 1);
        match buried {
            Some((block, old_info, seized)) => {
                self.count(Counter::Bytes, (info.item_size() as u64).wrapping_sub(old_info.item_size() as u64));
                self.finish_dispose(block, old_info, seized);
            }
            None => {
                self.count(Counter::Items, 1);
                self.count(Counter::Bytes, info.item_size() as u64);
                self.items_changed(1);
            }
        }
        Ok(cas)
    }

    /// Adds the spare chain line behind the bucket.
    pub(super) fn extend(
        &self,
        bucket: &Bucket<'c, Heap>,
        search: &Search<'c>,
        slot: Slot,
        spare: &mut Option<Claimed>,
    ) {
        let Some(line) = spare.take() else { return };
        let Some(fresh) = self.heap.line_at(line.block.unit) else {
            return;
        };
        bucket.extend(search.last, fresh, line.block.unit, slot, || {
            block::publish(fresh.meta(), line.live_line(self.me));
        });
        let [word, ..] = &self.context.intent.lines;
        word.store(0, Ordering::Release);
    }

    /// Who leaves a full chain: somebody not read lately, else whoever comes first.
    pub(super) fn chain_victim(&self, bucket: &Bucket<'c, Heap>) -> Option<(&'c AtomicU64, Existing)> {
        let (mut first, mut idle) = (None, None);
        bucket.items(|word, slot| {
            if first.is_none() {
                first = Some((word, slot));
            }
            let recent = self.heap.block(slot.unit()).is_some_and(|b| block::load(self.heap.meta(b)).is_recent());
            if idle.is_none() && !recent {
                idle = Some((word, slot));
            }
        });
        let (word, slot) = idle.or(first)?;
        Some((word, self.existing(slot)?))
    }

    /// Frees an item's block that no slot names any more; a large one is only made mine. Under its bucket's lock.
    #[inline]
    pub(super) fn dispose(&self, old: &Existing) -> Option<Meta> {
        let info = self.heap.info(old.block);
        match class::for_size(info.block_size()) {
            Some(class) if !info.is_large() => {
                self.free_in(old.block, old.meta, class);
                None
            }
            _ => block::seize(self.heap.meta(old.block), old.meta, self.me),
        }
    }

    /// Frees the fragments and the head of a large item that was made mine.
    pub(super) fn finish_dispose(&self, block: Block, info: Info, seized: Option<Meta>) {
        if let Some(meta) = seized {
            let life = BlockRef::new(block.unit, meta.version().wrapping_sub(1));
            self.free_parts(block, info, info.parts(), life);
            self.free(block, meta);
        }
    }

    /// Counts an item that went.
    pub fn count_removed(&self, info: Info) {
        self.count(Counter::Items, u64::MAX);
        self.count(Counter::Bytes, (info.item_size() as u64).wrapping_neg());
        self.items_changed(-1);
    }
}
