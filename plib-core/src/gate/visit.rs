//! Reading a readable heap without a call. Its key lets the program read at all times, so the program's own code does what the
//! gate's would: a *visitor*. All it writes are its hazards, which lie apart (see `hazard`).
//!
//! | what a read leaves to be written | where it goes |
//! | --- | --- |
//! | which items were used, hits and misses | into the visitor's tally, and through the gate when that is full |
//! | an item that is dead, a bucket that never holds still | the gate is asked instead, and does all of it |
//!
//! The gate believes nothing of a tally. A mark becomes one CAS on the meta word of a live item, from the very word that the tally
//! names; a number has a limit. What the program writes over hazards, tally and window can make it read wrong bytes or
//! keep superblocks from being moved, and nothing worse: nobody writes to the heap by any of them.

use crate::cache::{Got, Life, Reader, Reading, Times};
use crate::client::{Client, ContextId, Op, Owner};
use crate::domain::{Access, KeysOn, Pkru, ProtectionKey};
use crate::hazard::Hazards;
use crate::heap::block::{self, Meta};
use crate::heap::superblock::Use;
use crate::heap::{Block, Heap, class};
use crate::stats::Counter;
use crate::status::{Fault, Status};
use crate::sys::{self, Clock};
use crate::user::{In, Out};
use core::cell::Cell;

/// Marks that a tally holds.
const MARKS: usize = 32;
/// Reads after which a tally is told at the latest.
const TELL_AT: u32 = 1024;
/// What a tally may count at most.
const COUNT_MAX: u32 = 1 << 20;
/// Reads that a thread has the gate do before it takes an op context for its own; many threads read once or twice.
const FIRST: u32 = 4;
/// Reads before it asks again when there was none.
const AGAIN: u32 = 256;

/// What a process sees of a readable heap.
pub struct Window {
    heap: Heap,
    clock: Clock,
    barrier: bool,
    /// The key that must not be closed for a thread that reads; None where nothing guards.
    key: Option<(KeysOn, ProtectionKey)>,
}

impl Window {
    /// A window on a mapping of a heap that this process has attached to behind the gate.
    ///
    /// # Safety
    /// `base` is a 64 KiB-aligned shared mapping of the whole file, `len` bytes, which stays while the window is used, readable for
    /// every thread for which `key` is not closed and for this one. Its open hazards can be written. `vdso` is 0 or what the kernel gave.
    pub unsafe fn new(
        base: *mut u8,
        len: usize,
        vdso: usize,
        key: Option<(KeysOn, ProtectionKey)>,
    ) -> Result<Self, Fault> {
        // SAFETY: passed on.
        let (heap, clock) = unsafe { (Heap::look_at(base, len)?, Clock::new(vdso)) };
        if !heap.geometry().readable {
            return Err(Fault::new(Status::Invalid, "readable", 1, 0));
        }
        Ok(Self { heap, clock, barrier: sys::register_barrier(), key })
    }

    /// Whether this thread may read. Signal handlers may not, and threads that are older than the key, until they made a call.
    #[inline(always)]
    fn is_open(&self) -> bool {
        self.key.is_none_or(|(on, key)| Pkru::read(on).access(key) != Access::Closed)
    }
}

/// An item that was read, and its meta word then.
#[repr(C)]
#[derive(Clone, Copy)]
struct Mark {
    unit: u64,
    meta: u64,
}

/// What reads leave to be written down.
#[repr(C)]
pub(super) struct Reads {
    count: Cell<u32>,
    hits: Cell<u32>,
    misses: Cell<u32>,
    /// At how many reads it is told next.
    due: Cell<u32>,
    marks: [Cell<Mark>; MARKS],
}

/// Bytes of what a tally hands over.
pub const READS_SIZE: usize = size_of::<Reads>();

impl Reads {
    fn clear(&self) {
        self.count.set(0);
        self.hits.set(0);
        self.misses.set(0);
        self.due.set(TELL_AT);
    }

    /// Whether it should be told.
    #[inline]
    fn is_full(&self) -> bool {
        self.count.get() as usize >= MARKS || self.reads() >= self.due.get()
    }

    fn reads(&self) -> u32 {
        self.hits.get().wrapping_add(self.misses.get())
    }

    fn push(&self, mark: Mark) {
        let n = self.count.get();
        // What is read again at once is noted once; what does not fit is no more than a hint lost.
        let again = n
            .checked_sub(1)
            .and_then(|last| self.marks.get(last as usize))
            .is_some_and(|last| last.get().unit == mark.unit);
        if let Some(place) = self.marks.get(n as usize).filter(|_| !again) {
            place.set(mark);
            self.count.set(n + 1);
        }
    }
}

/// A session's memory for reading without a gate. All zeroes is one that is not in use.
pub struct Tally<'c> {
    window: Cell<Option<&'c Window>>,
    hazards: Cell<Option<&'c Hazards>>,
    /// The op context whose hazards they are, as an owner word.
    reader: Cell<u32>,
    /// Reads to go until an op context is asked for.
    wait: Cell<u32>,
    reads: Reads,
}

impl<'c> Tally<'c> {
    /// One that is not in use.
    pub const fn unused() -> Self {
        let reads = Reads {
            count: Cell::new(0),
            hits: Cell::new(0),
            misses: Cell::new(0),
            due: Cell::new(0),
            marks: [const { Cell::new(Mark { unit: 0, meta: 0 }) }; MARKS],
        };
        Self { window: Cell::new(None), hazards: Cell::new(None), reader: Cell::new(0), wait: Cell::new(0), reads }
    }

    /// Begins anew, with a window.
    pub(super) fn begin(&self, window: &'c Window) {
        self.window.set(Some(window));
        self.hazards.set(None);
        self.reader.set(0);
        self.wait.set(FIRST);
        self.reads.clear();
    }

    /// What is to be told, if that is much.
    #[inline]
    pub(super) fn full(&self) -> Option<&Reads> {
        Some(&self.reads).filter(|reads| reads.is_full())
    }

    /// What is to be told, if there is any.
    pub(super) fn rest(&self) -> Option<&Reads> {
        Some(&self.reads).filter(|reads| reads.count.get() != 0 || reads.reads() != 0)
    }

    /// It was told, or (`later`) could not be: then marks, which are hints, are forgotten.
    pub(super) fn told(&self, later: bool) {
        match later {
            true => {
                self.reads.count.set(0);
                self.reads.due.set(self.reads.reads().saturating_add(TELL_AT).min(COUNT_MAX));
            }
            false => self.reads.clear(),
        }
    }

    /// The visitor, if this thread may read and has hazards; `claim` gets it an op context, as an owner word.
    #[inline(always)]
    pub(super) fn visitor(&self, claim: impl FnOnce() -> Option<u32>) -> Option<Visitor<'_>> {
        let window = self.window.get().filter(|window| window.is_open())?;
        let hazards = match self.hazards.get() {
            Some(hazards) => hazards,
            None => self.claim(window, claim)?,
        };
        Some(Visitor { window, hazards, reads: &self.reads })
    }

    /// get, if all is as usual (see `cache::fast`), and nothing is to be claimed before or told.
    ///
    /// # Safety
    /// As for `Session::get`.
    #[inline(never)]
    pub(super) unsafe fn get_usual(&self, key: In, out: Out) -> Option<Got> {
        let window = self.window.get().filter(|window| window.is_open())?;
        let visitor = Visitor { window, hazards: self.hazards.get()?, reads: &self.reads };
        if self.reads.is_full() {
            return None;
        }
        // SAFETY: passed on.
        unsafe { visitor.reading().get_usual(key, out) }
    }

    #[cold]
    #[inline(never)]
    fn claim(&self, window: &'c Window, claim: impl FnOnce() -> Option<u32>) -> Option<&'c Hazards> {
        let wait = self.wait.get().saturating_sub(1);
        self.wait.set(wait);
        if wait > 0 {
            return None;
        }
        self.wait.set(AGAIN);
        let reader = claim()?;
        let hazards = window.heap.open_hazards(Owner(reader).context())?;
        self.reader.set(reader);
        self.hazards.set(Some(hazards));
        Some(hazards)
    }

    /// Ends its visits: the op context to give back.
    pub(super) fn end(&self) -> Option<u32> {
        self.window.set(None);
        self.hazards.set(None);
        let reader = self.reader.replace(0);
        (reader != 0).then_some(reader)
    }
}

/// A reader outside of the gate.
pub(super) struct Visitor<'t> {
    window: &'t Window,
    hazards: &'t Hazards,
    reads: &'t Reads,
}

impl Visitor<'_> {
    /// The ways to read. Busy then means: ask the gate.
    #[inline(always)]
    pub fn reading(&self) -> Reading<'_, Self> {
        Reading(self)
    }
}

impl Reader for Visitor<'_> {
    #[inline(always)]
    fn heap(&self) -> &Heap {
        &self.window.heap
    }

    fn times(&self) -> Times<'_> {
        Times::looked_up(&self.window.clock)
    }

    #[inline(always)]
    fn hazards(&self) -> &Hazards {
        self.hazards
    }

    #[inline(always)]
    fn barrier(&self) -> bool {
        self.window.barrier
    }

    #[inline(always)]
    fn count(&self, counter: Counter, n: u64) {
        let number = match counter {
            Counter::GetHits => &self.reads.hits,
            Counter::GetMisses => &self.reads.misses,
            // What else there is to count is the gate's.
            _ => return,
        };
        number.set(number.get().wrapping_add(n as u32));
    }

    #[inline(always)]
    fn mark(&self, block: Block, seen: Meta) {
        if !seen.is_recent() {
            self.reads.push(Mark { unit: block.unit, meta: seen.0 });
        }
    }

    fn bury(&self, _: Life) -> Status {
        Status::Busy
    }
}

impl Client {
    /// Claims an op context for reading outside of the gate. Busy when none is free or this client has its share for that.
    pub(super) fn claim_reader(&self) -> Result<u32, Status> {
        let (heap, geometry) = (self.heap(), self.heap().geometry());
        if !geometry.readable {
            return Err(Status::Invalid);
        }
        if !self.may_have_a_reader() {
            return Err(Status::Busy);
        }
        let ContextId(owner) = self.claim_context(0)?;
        if let (Some(context), Some(hazards)) = (heap.context(owner.context()), heap.open_hazards(owner.context())) {
            // Whoever had the line before may have left anything in it.
            hazards.clear();
            context.set_outside();
        }
        Ok(owner.0)
    }

    /// Gives one back that `claim_reader` gave. Invalid if it is none.
    pub(super) fn release_reader(&self, word: u64) -> Result<(), Status> {
        let owner = Owner(u32::try_from(word).map_err(|_| Status::Invalid)?);
        let heap = self.heap();
        let context = heap.context(owner.context()).filter(|context| context.reads_outside()).ok_or(Status::Invalid)?;
        if context.load().owner(owner.context()) != owner || !self.has(context) {
            return Err(Status::Invalid);
        }
        self.release_context(ContextId(owner), 0);
        Ok(())
    }
}

impl Op<'_> {
    /// Writes down what a visitor noted.
    pub(super) fn take_reads(&self, reads: &Reads) -> Result<(), Status> {
        let [hits, misses] = [&reads.hits, &reads.misses].map(Cell::get);
        if hits.max(misses) > COUNT_MAX {
            return Err(Status::Invalid);
        }
        self.count(Counter::GetHits, hits.into());
        self.count(Counter::GetMisses, misses.into());
        for mark in reads.marks.iter().take(reads.count.get() as usize).map(Cell::get) {
            self.mark_visited(mark);
        }
        self.unprotect();
        Ok(())
    }

    /// Marks an item as read if the place named is a block with an item of that meta word. Anything may be named.
    fn mark_visited(&self, Mark { unit, meta }: Mark) {
        let Some(block) = self.heap.block(unit) else { return };
        self.protect(0, block.superblock);
        // After the hazard: what serves a class now is not cut anew before the hazard goes.
        let usage = self.heap.descriptor(block.superblock).map(|descriptor| descriptor.state().usage());
        let Some(Use::Class(class)) = usage else { return };
        let holds_items = class != class::CHAIN && self.heap.number_of(block, class).is_some();
        if holds_items && Meta(meta).is_live() {
            block::mark(self.heap.meta(block), Meta(meta));
        }
    }
}

#[cfg(test)]
mod tests;
