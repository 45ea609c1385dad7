//! Growth: whoever stores an item splits a bucket when the index is too full.

use super::*;
use crate::claim::Claimed;
use crate::heap::class;
use crate::index::bucket::Bucket;
use crate::index::{self, CHAIN_MAX};
use crate::stats::Counter;

impl<'c> Op<'c> {
    /// Splits a bucket or two if there are more items than the index is made for.
    #[inline]
    pub(super) fn grow(&self) {
        for _ in 0..2 {
            let growth = index::growth(self.heap);
            let items = self.heap.hot().items.0.load(Ordering::Relaxed);
            if (items as i64) <= (u64::from(growth.buckets()) * LOAD) as i64 || !self.split_one(growth) {
                return;
            }
        }
    }

    /// Splits the next bucket. False if that is not possible now; nothing is lost then, chains only get longer.
    #[cold]
    #[inline(never)]
    pub(super) fn split_one(&self, growth: index::Growth) -> bool {
        if growth.next().is_none() || !self.segment_ready(growth.target()) {
            return false;
        }
        let mut spare: [Option<Claimed>; CHAIN_MAX] = [None; CHAIN_MAX];
        let mut outcome = self.split_with(growth, &spare);
        if let index::split::Outcome::Needs(lines) = outcome {
            for (place, word) in spare.iter_mut().zip(&self.context.intent.lines).take(lines) {
                *place = self.claim(class::CHAIN, word).ok();
            }
            outcome = self.split_with(growth, &spare);
        }
        let used = if let index::split::Outcome::Done(used) = outcome { used } else { 0 };
        for (i, (place, word)) in spare.iter().zip(&self.context.intent.lines).enumerate() {
            match place {
                Some(line) if i >= used => self.unclaim(*line, word),
                _ => word.store(0, Ordering::Release),
            }
        }
        matches!(outcome, index::split::Outcome::Done(_))
    }

    /// One try under the bucket's lock.
    pub(super) fn split_with(
        &self,
        growth: index::Growth,
        spare: &[Option<Claimed>; CHAIN_MAX],
    ) -> index::split::Outcome {
        let intent = &self.context.intent;
        intent.other.store(u64::from(growth.target()) + 1, Ordering::Release);
        let bucket = self.try_lock_key(Hash(u64::from(growth.split())));
        let Some(bucket) = bucket else {
            intent.other.store(0, Ordering::Release);
            return index::split::Outcome::Lost;
        };
        let mut units = [0u64; CHAIN_MAX];
        let mut count = 0;
        for (unit, line) in units.iter_mut().zip(spare.iter().map_while(|line| *line)) {
            *unit = line.block.unit;
            count += 1;
        }
        let outcome = index::split::split(self.heap, &bucket, growth, units.get(..count).unwrap_or(&[]), |unit| {
            if let Some(line) = spare.iter().flatten().find(|line| line.block.unit == unit) {
                block::publish(self.heap.meta(line.block), line.live_line(self.me));
            }
        });
        if let index::split::Outcome::Done(used) = outcome {
            self.count(Counter::Splits, 1);
            for word in intent.lines.iter().take(used) {
                word.store(0, Ordering::Release);
            }
            // Seen anew: what moved to the other bucket no longer belongs to this one.
            self.shrink(&Bucket::locked(self.heap, bucket.line(), bucket.number()));
        }
        bucket.unlock();
        intent.bucket.store(0, Ordering::Release);
        intent.other.store(0, Ordering::Release);
        outcome
    }

    /// Makes sure that the segment of bucket `number` exists.
    pub(super) fn segment_ready(&self, number: u32) -> bool {
        let segment = number / crate::layout::SEGMENT_BUCKETS;
        let Some(entry) = self.heap.directory(segment) else {
            return false;
        };
        if entry.load(Ordering::Acquire) != 0 {
            return true;
        }
        // The index may have a quarter of the heap: the rest is for items, whatever their size. Segments are made in order,
        // so this one's number is how many there are.
        if segment > self.heap.geometry().superblocks / 4 {
            return false;
        }
        let Some(s) = self.take_superblock() else {
            return false;
        };
        let Some(descriptor) = self.heap.descriptor(s) else {
            return false;
        };
        let state = descriptor.state();
        if descriptor.floor() != 0 || state.changes() > 1 {
            self.clear_superblock(s);
        }
        // Release: whoever follows the directory sees empty buckets.
        if entry.compare_exchange(0, s + 1, Ordering::AcqRel, Ordering::Relaxed).is_ok() {
            descriptor.change(state, crate::heap::superblock::Use::Index, crate::client::Owner::NOBODY);
        } else if descriptor.change(state, crate::heap::superblock::Use::Free, crate::client::Owner::NOBODY).is_some() {
            self.heap.pool().insert(s);
        }
        self.context.intent.superblock.store(0, Ordering::Release);
        true
    }

    /// Writes zeros over a superblock that is mine.
    pub(super) fn clear_superblock(&self, s: u32) {
        for i in 0..crate::layout::SEGMENT_BUCKETS {
            if let Some(line) = self.heap.line_in(s, i) {
                line.meta().store(0, Ordering::Relaxed);
                line.clear();
            }
        }
    }
}
