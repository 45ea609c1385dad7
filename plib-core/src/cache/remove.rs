//! delete, touch and flush_all.

use super::*;
use crate::heap::block::BlockRef;
use crate::stats::Counter;

impl<'c> Op<'c> {
    /// delete; with `cas` only that very item.
    ///
    /// # Safety
    /// `name` (the key) is readable.
    pub unsafe fn delete(&self, name: In, cas: Option<u64>) -> Result<(), Status> {
        let mut key = Key::blank();
        // SAFETY: passed on.
        unsafe { key.read(self.heap, name)? };
        self.delete_copied(&key, cas)
    }

    /// delete with a private key.
    #[inline]
    pub fn delete_copied(&self, key: &Key, cas: Option<u64>) -> Result<(), Status> {
        if cas.is_none() && self.delete_usual(key).is_some() {
            return Ok(());
        }
        self.delete_any(key, cas)
    }

    /// The same for whatever is not usual.
    #[inline(never)]
    fn delete_any(&self, key: &Key, cas: Option<u64>) -> Result<(), Status> {
        let bucket = self.lock_key(key.hash)?;
        let search = self.search(&bucket, key);
        let found = search.hit.and_then(|(word, slot)| Some((word, self.existing(slot)?)));
        let Some((word, item)) = found else {
            bucket.unlock();
            return self.missed(Counter::DeleteMisses);
        };
        let mut times = Times::new(self.client);
        let life = times.life(self.heap, item.meta, self.heap.times_word(item.block).load(Ordering::Relaxed));
        if life == Life::Alive && cas.is_some_and(|cas| cas != item.cas) {
            bucket.unlock();
            self.done();
            return Err(Status::Exists);
        }
        let info = self.heap.info(item.block);
        self.context.intent.old.store(BlockRef::new(item.block.unit, item.meta.version()).0, Ordering::Release);
        bucket.commit(word, Slot::EMPTY);
        let seized = self.dispose(&item);
        if search.chain > 0 {
            self.shrink(&bucket);
        }
        bucket.unlock();
        self.count_removed(info);
        self.finish_dispose(item.block, info, seized);
        self.done();
        if life != Life::Alive {
            self.count(Counter::Reclaimed, 1);
            return self.missed(Counter::DeleteMisses);
        }
        self.count(Counter::DeleteHits, 1);
        Ok(())
    }

    pub(super) fn missed(&self, counter: Counter) -> Result<(), Status> {
        self.done();
        self.count(counter, 1);
        Err(Status::NotFound)
    }

    /// touch: a new expiry.
    ///
    /// # Safety
    /// `name` (the key) is readable.
    pub unsafe fn touch(&self, name: In, exptime: i64) -> Result<(), Status> {
        let mut key = Key::blank();
        // SAFETY: passed on.
        unsafe { key.read(self.heap, name)? };
        self.touch_if(&key, exptime, None).map(|_| ())
    }

    /// Gives a live item a new expiry, if its cas is `cas`; the expiry.
    pub(super) fn touch_if(&self, key: &Key, exptime: i64, cas: Option<u64>) -> Result<u32, Status> {
        let mut times = Times::new(self.client);
        let expiry = times.expiry(exptime);
        let bucket = self.lock_key(key.hash)?;
        times.anew();
        let found = self.search(&bucket, key).hit.and_then(|(_, slot)| self.existing(slot));
        let word = found.as_ref().map_or(0, |e| self.heap.times_word(e.block).load(Ordering::Relaxed));
        let alive = found.filter(|e| times.life(self.heap, e.meta, word) == Life::Alive);
        let result = match &alive {
            None => Err(Status::NotFound),
            Some(e) if cas.is_some_and(|cas| cas != e.cas) => Err(Status::Exists),
            Some(e) => {
                // The commit: one store of flags and expiry together.
                self.heap.times_word(e.block).store(item::times_word(item::times(word).0, expiry), Ordering::Release);
                Ok(expiry)
            }
        };
        bucket.unlock();
        self.done();
        if result != Err(Status::Exists) {
            self.count(Counter::CmdTouch, 1);
            self.count(if result.is_ok() { Counter::TouchHits } else { Counter::TouchMisses }, 1);
        }
        result
    }

    /// flush_all: everything stored before now, or before `delay` seconds from now, is gone.
    pub fn flush_all(&self, delay: i64) -> Result<(), Status> {
        self.count(Counter::CmdFlush, 1);
        let mut times = Times::new(self.client);
        let deadline = if delay > 0 { times.expiry(delay) } else { 0 };
        let word = &self.heap.hot().flush.0;
        loop {
            let seen = word.load(Ordering::Acquire);
            let epoch = Flush(seen).epoch_at(times.now());
            let next = match deadline {
                0 => Flush::new(epoch.wrapping_add(1), 0),
                at => Flush::new(epoch, at),
            };
            if word.compare_exchange(seen, next.0, Ordering::AcqRel, Ordering::Relaxed).is_ok() {
                return Ok(());
            }
        }
    }
}
