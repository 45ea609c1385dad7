//! Bucket locks: waiting for a live owner, taking over from a dead one.

use super::*;
use crate::client::Owner;
use crate::heap::block::BlockRef;
use crate::index::bucket::{Bucket, Search};
use crate::index::{self, Line, Lines};
use crate::stats::Counter;

impl<'c> Op<'c> {
    /// Locks bucket `number`, waiting for a live owner and taking over from a dead one.
    pub fn lock(&self, number: u32) -> Result<Bucket<'c, Heap>, Status> {
        let line = self.heap.bucket(number).ok_or(Status::Damaged)?;
        if line.try_lock(self.me).is_err() {
            self.wait_for(line, number)?;
        }
        Ok(Bucket::locked(self.heap, line, number))
    }

    #[cold]
    #[inline(never)]
    pub(super) fn wait_for(&self, line: &Line, number: u32) -> Result<(), Status> {
        let mut patience = Patience::new();
        loop {
            let Err(holder) = line.try_lock(self.me) else {
                return Ok(());
            };
            if patience.tries >= SPINS {
                if self.take_over(line, number, holder) {
                    return Ok(());
                }
                if self.client.is_my_thread(holder, self.context) && line.holder() == holder {
                    return Err(self.busy()); // a signal handler in the middle of this very bucket's operation
                }
            }
            if let Err(status) = patience.wait() {
                self.count(Counter::BusyReturns, 1);
                return Err(status);
            }
        }
    }

    pub(super) fn busy(&self) -> Status {
        self.count(Counter::BusyReturns, 1);
        Status::Busy
    }

    /// Takes the lock of a dead holder and cleans the bucket (rule: there is nothing else to repair in it).
    pub(super) fn take_over(&self, line: &'c Line, number: u32, holder: Owner) -> bool {
        let taken = holder.0 != 0 && self.client.owner_is_dead(holder) && line.take_over(holder, self.me);
        if taken {
            if !mutant::is(Mutant::NoScrub) {
                Bucket::locked(self.heap, line, number).scrub();
            }
            self.count(Counter::LocksTakenOver, 1);
        }
        taken
    }

    /// Which bucket a key belongs to at the moment.
    ///
    /// # Safety
    /// `name` (the key) is readable.
    pub unsafe fn bucket_of(&self, name: In) -> Result<u32, Status> {
        let mut key = Key::blank();
        // SAFETY: passed on.
        unsafe { key.read(self.heap, name)? };
        Ok(index::growth(self.heap).bucket(key.hash))
    }

    /// Locks the bucket of a hash; the intent names it first.
    #[inline]
    pub fn lock_key(&self, hash: Hash) -> Result<Bucket<'c, Heap>, Status> {
        loop {
            let number = index::growth(self.heap).bucket(hash);
            self.context.intent.bucket.store(u64::from(number) + 1, Ordering::Release);
            let bucket = match self.lock(number) {
                Ok(bucket) => bucket,
                Err(status) => {
                    self.context.intent.bucket.store(0, Ordering::Release);
                    return Err(status);
                }
            };
            if index::growth(self.heap).bucket(hash) == number {
                return Ok(bucket);
            }
            bucket.unlock();
        }
    }

    /// The same without waiting for a live owner.
    pub fn try_lock_key(&self, hash: Hash) -> Option<Bucket<'c, Heap>> {
        let number = index::growth(self.heap).bucket(hash);
        let intent = &self.context.intent.bucket;
        intent.store(u64::from(number) + 1, Ordering::Release);
        let line = self.heap.bucket(number)?;
        let locked = match line.try_lock(self.me) {
            Ok(()) => true,
            Err(holder) => holder.0 != 0 && self.take_over(line, number, holder),
        };
        if locked {
            let bucket = Bucket::locked(self.heap, line, number);
            if index::growth(self.heap).bucket(hash) == number {
                return Some(bucket);
            }
            bucket.unlock();
        }
        intent.store(0, Ordering::Release);
        None
    }

    /// Searches a locked bucket for a key.
    #[inline]
    pub(super) fn search(&self, bucket: &Bucket<'c, Heap>, key: &Key) -> Search<'c> {
        bucket.search(key.hash, |slot| {
            self.heap
                .block(slot.unit())
                .is_some_and(|block| self.heap.key_is(block, self.heap.info(block), key.bytes()))
        })
    }

    /// Takes chain lines out of a bucket that became sparse.
    pub fn shrink(&self, bucket: &Bucket<'_, Heap>) {
        if bucket.line().next().is_none() {
            return;
        }
        let word = &self.context.intent.unlinked;
        let meta_of = |unit: u64| self.heap.block(unit).map(|b| (b, block::load(self.heap.meta(b))));
        bucket.shrink(
            |unit| {
                if let Some((_, meta)) = meta_of(unit) {
                    word.store(BlockRef::new(unit, meta.version()).0, Ordering::Release);
                }
            },
            |unit| {
                if let Some((block, meta)) = meta_of(unit) {
                    self.free(block, meta);
                }
                word.store(0, Ordering::Release);
            },
        );
    }
}
