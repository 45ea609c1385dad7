//! The boundary between the program and the core: every call enters here, opens the domain, and closes it on the way out.
//!
//! In tier `none` opening is nothing and the call stays on the caller's stack; the tiers with a key put their
//! trampolines behind the same functions. What a call gets is copied and checked inside.

use crate::batch::{DeleteRequest, GetRequest, SetRequest};
use crate::cache::{Got, Mode};
use crate::check::{CheckSummary, Finding};
use crate::client::Op;
use crate::scan::Scanned;
use crate::stats::{ClassStats, Stats};
use crate::status::Status;
use crate::user::{In, Out};

/// One thread's way into a heap.
pub struct Session<'c> {
    op: Op<'c>,
}

impl<'c> Session<'c> {
    #[inline]
    pub(crate) fn new(op: Op<'c>) -> Self {
        Self { op }
    }

    #[inline(always)]
    fn enter<T>(&mut self, work: impl FnOnce(&Op<'c>) -> T) -> T {
        self.op.client.domain.open();
        let result = work(&self.op);
        self.op.client.domain.close();
        result
    }

    /// Copies the value of `key` to `out`. NotFound, Key, Invalid, Busy.
    ///
    /// # Safety
    /// `key` is readable and `out` writable.
    #[inline]
    pub unsafe fn get(&mut self, key: In, out: Out) -> Result<Got, Status> {
        // SAFETY: passed on.
        self.enter(|op| unsafe { op.get(key, out) })
    }

    /// get, if all is as usual (see `cache::fast`); else None, and `get` tells. In a function of its own so that a caller who
    /// returns at once from here builds his answer in registers.
    ///
    /// # Safety
    /// As for `get`.
    #[inline(always)]
    pub unsafe fn get_usual(&mut self, key: In, out: Out) -> Option<Got> {
        // SAFETY: passed on.
        self.enter(|op| unsafe { op.get_usual(key, out) })
    }

    /// The same as `get`, and gives the item a new expiry.
    ///
    /// # Safety
    /// As for `get`.
    pub unsafe fn get_and_touch(&mut self, key: In, exptime: i64, out: Out) -> Result<Got, Status> {
        // SAFETY: passed on.
        self.enter(|op| unsafe { op.get_and_touch(key, exptime, out) })
    }

    /// Stores an item; its cas. NotStored, Exists, NotFound, TooLarge, Key, Invalid, NoMemory, Busy.
    ///
    /// # Safety
    /// `key` and `value` are readable.
    #[inline]
    pub unsafe fn store(&mut self, mode: Mode, key: In, value: In, flags: u32, exptime: i64) -> Result<u64, Status> {
        // SAFETY: passed on.
        self.enter(|op| unsafe { op.store(mode, key, value, flags, exptime) })
    }

    /// Deletes an item, with `cas` only that very one. NotFound, Exists, Key, Invalid, Busy.
    ///
    /// # Safety
    /// `key` is readable.
    #[inline]
    pub unsafe fn delete(&mut self, key: In, cas: Option<u64>) -> Result<(), Status> {
        // SAFETY: passed on.
        self.enter(|op| unsafe { op.delete(key, cas) })
    }

    /// incr or decr; the number and its cas. A missing key is NotFound, or starts as `initial` (number, exptime).
    ///
    /// # Safety
    /// `key` is readable.
    #[inline]
    pub unsafe fn arith(
        &mut self,
        key: In,
        delta: u64,
        decrement: bool,
        initial: Option<(u64, i64)>,
    ) -> Result<(u64, u64), Status> {
        // SAFETY: passed on.
        self.enter(|op| unsafe { op.arith(key, delta, decrement, initial) })
    }

    /// Gives an item a new expiry. NotFound, Key, Invalid, Busy.
    ///
    /// # Safety
    /// `key` is readable.
    pub unsafe fn touch(&mut self, key: In, exptime: i64) -> Result<(), Status> {
        // SAFETY: passed on.
        self.enter(|op| unsafe { op.touch(key, exptime) })
    }

    /// Makes everything stored up to now (or up to `delay` seconds from now) disappear.
    pub fn flush_all(&mut self, delay: i64) -> Result<(), Status> {
        self.enter(|op| op.flush_all(delay))
    }

    /// Many gets; each request has its own status.
    ///
    /// # Safety
    /// Every request's key is readable and its buffer writable.
    pub unsafe fn get_many(&mut self, requests: &mut [GetRequest]) {
        // SAFETY: passed on.
        self.enter(|op| unsafe { op.get_many(requests) });
    }

    /// Many sets; each request has its own status.
    ///
    /// # Safety
    /// Every request's key and value are readable.
    pub unsafe fn set_many(&mut self, requests: &mut [SetRequest]) {
        // SAFETY: passed on.
        self.enter(|op| unsafe { op.set_many(requests) });
    }

    /// Many deletes; each request has its own status.
    ///
    /// # Safety
    /// Every request's key is readable.
    pub unsafe fn delete_many(&mut self, requests: &mut [DeleteRequest]) {
        // SAFETY: passed on.
        self.enter(|op| unsafe { op.delete_many(requests) });
    }

    /// The first item past `cursor`; None at the end.
    ///
    /// # Safety
    /// `key` (250 bytes or more) and `out` are writable.
    pub unsafe fn scan(&mut self, cursor: u64, key: Out, out: Out) -> Result<Option<Scanned>, Status> {
        // SAFETY: passed on.
        self.enter(|op| unsafe { op.scan(cursor, key, out) })
    }

    /// Which bucket a key belongs to at the moment. Key, Invalid.
    ///
    /// # Safety
    /// `key` is readable.
    pub unsafe fn bucket_of(&mut self, key: In) -> Result<u32, Status> {
        // SAFETY: passed on.
        self.enter(|op| unsafe { op.bucket_of(key) })
    }

    /// Sums of all counters, and gauges.
    pub fn stats(&self) -> Stats {
        self.op.stats()
    }

    /// What the blocks of a class are used for.
    pub fn class_stats(&mut self, class: usize) -> ClassStats {
        self.enter(|op| op.class_stats(class))
    }

    /// Recovers every dead client; the number of contexts recovered.
    pub fn reap(&mut self) -> u32 {
        self.enter(Op::reap)
    }

    /// Checks every invariant of the heap while others go on working.
    pub fn check(&mut self, report: &mut dyn FnMut(Finding)) -> CheckSummary {
        self.enter(|op| op.check(report))
    }
}
