//! The boundary between the program and the core. There are two ways across it.
//!
//! *Direct*: the heap is mapped open (tier `none`), and a call is a call of a function on the caller's stack.
//!
//! *Gated*: the heap lies behind a protection key. The call is put into an argument block, and the gate opens the key, does
//! it on a stack of the library's own, and closes the key again. What a call gets is copied and checked inside. Where the heap is
//! readable, reads need no call.
//!
//! | file | what it holds |
//! | --- | --- |
//! | `mod` | [`Session`]: a thread's operations, by either way |
//! | `call` | the argument block |
//! | `entry` | the gate: the only instructions that open and close the key |
//! | `dispatch` | what happens behind it |
//! | `image` | what a trusted image of all this tells who maps it |
//! | `launched` | heaps that were mapped before the program began |
//! | `signal` | signals that come during a call |
//! | `vault` | what the library remembers between calls, and its stacks |
//! | `visit` | reading without a call, where a heap is readable |

mod call;
mod dispatch;
mod entry;
mod image;
mod launched;
mod signal;
mod vault;
mod visit;

pub use call::{ARGUMENTS, Answer, Attach, Block, Call, Operation};
pub use entry::{CONSTANTS, Constants, Entry, Left, Settings, enter};
pub use image::{ABI, IMAGE_MAGIC, ImageTable};
pub use launched::Launched;
pub use signal::{HANDLERS, Handlers, SIGNALS, insert_stub, last_place, on_signal, wrap_handlers};
pub use vault::{HEAPS, SEATS, STACKS, STRIDE, VAULT_SIZE, Vault};
pub use visit::{READS_SIZE, Tally, Window};

use crate::batch::{DeleteRequest, GetRequest, SetRequest};
use crate::cache::{Got, Mode};
use crate::check::{CheckSummary, Finding, SUMMARY_WORDS};
use crate::client::{CLIENT_WORDS, ClientInfo, Op};
use crate::frozen::{HOLDING_WORDS, Holding};
use crate::scan::Scanned;
use crate::stats::{CLASS_WORDS, ClassStats, Stats};
use crate::status::{Fault, Status};
use crate::sys;
use crate::user::{In, Out};
use call::{RESULTS, got, mode_words, words};
use core::mem::MaybeUninit;
use dispatch::RawFinding;
use visit::{Reads, Visitor};

/// One thread's way into a heap.
pub struct Session<'c> {
    way: Way<'c>,
}

enum Way<'c> {
    Direct(Op<'c>),
    /// With where to note what reads without a call leave to be written, if the heap is readable.
    Gated(Gated, Option<&'c Tally<'c>>),
}

// A claim of plib-ffi has it in its first cache line.
const _: () = assert!(size_of::<Session<'_>>() == 32);

/// A place in a vault, and the gate that leads there.
#[derive(Clone, Copy)]
pub struct Gated {
    entry: Entry,
    heap: u32,
    /// The seat of the last call, which is likely to be free.
    seat: u32,
}

/// Gets of a batch between which a tally can be told.
const VISITS: usize = 16;
/// Findings that are told singly.
const FINDINGS: usize = 64;
/// How long a call waits for a seat and an op context.
const SEAT_MS: u64 = 100;
const FULL: u32 = Status::Full as u32;

impl Gated {
    /// Place `heap` behind the gate `entry`.
    ///
    /// # Safety
    /// `entry` is a gate that is ready to be used, and stays so.
    pub unsafe fn new(entry: Entry, heap: u32) -> Self {
        Self { entry, heap, seat: 0 }
    }

    /// Takes a heap that is mapped behind the key into use, in this place.
    pub fn attach(&mut self, wanted: &Attach) -> Result<(), Fault> {
        let arguments = [(&raw const *wanted) as u64, size_of::<Attach>() as u64];
        let answer = self.call(Operation::Attach, arguments);
        let [at, len, expected, found, _] = answer.words;
        match status(answer.status) {
            Status::Ok => Ok(()),
            // SAFETY: the gate's answer to an attach that failed; see `dispatch`.
            status => Err(Fault { status, field: unsafe { static_text(at, len) }, expected, found }),
        }
    }

    /// Leaves the heap. No call on it may be under way.
    pub fn detach(&mut self) -> Result<(), Status> {
        self.ask(Operation::Detach, []).map(|_| ())
    }

    #[inline]
    fn call<const N: usize>(&mut self, operation: Operation, arguments: [u64; N]) -> Answer {
        const { assert!(N <= ARGUMENTS) };
        let call = Call { operation: operation as u32, heap: self.heap, words: words(arguments) };
        let mut block = Block { call, answer: Answer::NONE, late: 0 };
        if self.pass(&mut block) && block.answer.status != FULL { block.answer } else { self.call_later(block) }
    }

    /// Goes through the gate once; false if all seats are taken.
    #[inline]
    fn pass(&mut self, block: &mut Block) -> bool {
        // SAFETY: by the contract of `new`; the gate writes nothing but the answer of this block, and what arguments name.
        let Left { seat, signals } = unsafe { (self.entry)(&raw mut *block, self.seat) };
        let signals = signals | core::mem::take(&mut block.late);
        if signals != 0 {
            sys::unblock(signals);
        }
        let had_one = (seat as usize) < SEATS;
        if had_one {
            self.seat = seat as u32;
        }
        had_one
    }

    /// All seats are taken, or all op contexts: waits outside for one, as a thread without a gate does. Busy when it takes too long.
    #[cold]
    #[inline(never)]
    fn call_later(&mut self, mut block: Block) -> Answer {
        let deadline = sys::monotonic_ms().wrapping_add(SEAT_MS);
        loop {
            // A heap that is attached has no place, which is no matter of time.
            if block.call.operation == Operation::Attach as u32 && block.answer.status == FULL {
                return block.answer;
            }
            if sys::monotonic_ms() > deadline {
                return Answer::of(Status::Busy);
            }
            sys::yield_now();
            block.answer = Answer::NONE;
            if self.pass(&mut block) && block.answer.status != FULL {
                return block.answer;
            }
        }
    }

    #[inline]
    fn ask<const N: usize>(&mut self, operation: Operation, arguments: [u64; N]) -> Result<[u64; RESULTS], Status> {
        let answer = self.call(operation, arguments);
        match status(answer.status) {
            Status::Ok => Ok(answer.words),
            status => Err(status),
        }
    }

    /// Has each request of an array answered in its place.
    fn batch<T>(&mut self, operation: Operation, requests: &mut [T]) -> Result<(), Status> {
        self.ask(operation, [requests.as_mut_ptr() as u64, requests.len() as u64]).map(|_| ())
    }

    /// Asks for a value of a type that the other side knows as well.
    ///
    /// # Safety
    /// The operation's answer is a `T`.
    unsafe fn fetch<T>(&mut self, operation: Operation, which: u64) -> Result<T, Status> {
        let mut value = MaybeUninit::<T>::uninit();
        self.ask(operation, [value.as_mut_ptr() as u64, size_of::<T>() as u64, which])?;
        // SAFETY: it was filled in, as the call succeeded.
        Ok(unsafe { value.assume_init() })
    }

    /// Reads without a call, if this thread can just now and finds a plain answer. None: the gate is to be asked.
    #[inline(always)]
    fn visit<T>(
        &mut self,
        tally: &Tally<'_>,
        read: impl FnOnce(&Visitor<'_>) -> Result<T, Status>,
    ) -> Option<Result<T, Status>> {
        let claim = || self.ask(Operation::StartReading, []).ok().map(|[reader, ..]| reader as u32);
        let answer = read(&tally.visitor(claim)?);
        if let Some(reads) = tally.full() {
            self.tell(tally, reads);
        }
        if matches!(answer, Err(Status::Busy)) { None } else { Some(answer) }
    }

    /// Hands over what a tally notes. When no seat is free that has time.
    #[cold]
    #[inline(never)]
    fn tell(&mut self, tally: &Tally<'_>, reads: &Reads) {
        let arguments = [(&raw const *reads) as u64, size_of::<Reads>() as u64];
        let call = Call { operation: Operation::TellReads as u32, heap: self.heap, words: words(arguments) };
        let mut block = Block { call, answer: Answer::NONE, late: 0 };
        let there = self.pass(&mut block);
        tally.told(!there || block.answer.status == FULL);
    }

    /// Ends reading without calls: tells the rest, and gives the op context back.
    fn end_visits(&mut self, tally: &Tally<'_>) {
        if let Some(reads) = tally.rest() {
            self.tell(tally, reads);
        }
        if let Some(reader) = tally.end() {
            // If it cannot be given back now, it is when the process leaves the heap.
            let _ = self.ask(Operation::StopReading, [reader.into()]);
        }
    }

    /// A get that is not usual.
    ///
    /// # Safety
    /// As for `Session::get`.
    #[inline(never)]
    unsafe fn get_any(&mut self, tally: &Tally<'_>, key: In, out: Out) -> Result<Got, Status> {
        // SAFETY: passed on.
        let visited = self.visit(tally, |visitor| unsafe { visitor.reading().get(key, out) });
        visited.unwrap_or_else(|| self.get(key, out))
    }

    /// Many gets without a call, but for those without a plain answer.
    ///
    /// # Safety
    /// Every request's key is readable and its buffer writable.
    unsafe fn get_many(&mut self, tally: &Tally<'_>, requests: &mut [GetRequest]) {
        let mut gated = false;
        for part in requests.chunks_mut(VISITS) {
            if !gated {
                let visited = self.visit(tally, |visitor| {
                    // SAFETY: passed on.
                    unsafe { visitor.reading().get_many(part) };
                    Ok(())
                });
                gated = visited.is_none();
            }
            if gated {
                self.ask_many(part);
                continue;
            }
            for unsure in part.iter_mut().filter(|request| request.status == Status::Busy as u32) {
                self.ask_many(core::slice::from_mut(unsure));
            }
        }
    }

    fn ask_many(&mut self, requests: &mut [GetRequest]) {
        if let Err(status) = self.batch(Operation::GetMany, requests) {
            requests.iter_mut().for_each(|request| request.status = status as u32);
        }
    }

    fn get(&mut self, key: In, out: Out) -> Result<Got, Status> {
        let ([k, k_len], [o, o_len]) = (input(key), output(out));
        self.ask(Operation::Get, [k, k_len, o, o_len]).map(|words| got(&words))
    }

    fn check(&mut self, report: &mut dyn FnMut(Finding)) -> Result<CheckSummary, Status> {
        let mut summary = [0u64; SUMMARY_WORDS];
        let mut findings = [RawFinding::default(); FINDINGS];
        let to = [summary.as_mut_ptr() as u64, size_of_val(&summary) as u64];
        let [told, ..] = self.ask(Operation::Check, [to[0], to[1], findings.as_mut_ptr() as u64, FINDINGS as u64])?;
        for raw in findings.iter().take(told as usize) {
            // SAFETY: the gate filled in as many.
            report(unsafe { raw.finding() });
        }
        Ok(CheckSummary::decode(&summary))
    }
}

/// What a number of the gate's means.
fn status(number: u32) -> Status {
    Status::of(number).unwrap_or(Status::Invalid)
}

/// A text of the library's that the gate names by address and length.
///
/// # Safety
/// It does.
unsafe fn static_text(at: u64, len: u64) -> &'static str {
    if at == 0 {
        return "";
    }
    // SAFETY: the caller says that it is a `&'static str` of the library that the gate belongs to, which is never unmapped.
    unsafe {
        let bytes = core::slice::from_raw_parts(core::ptr::with_exposed_provenance(at as usize), len as usize);
        core::str::from_utf8_unchecked(bytes)
    }
}

fn input(memory: In) -> [u64; 2] {
    [memory.ptr as u64, memory.len as u64]
}

fn output(memory: Out) -> [u64; 2] {
    [memory.ptr as u64, memory.len as u64]
}

impl<'c> Session<'c> {
    #[inline]
    pub(crate) fn new(op: Op<'c>) -> Self {
        Self { way: Way::Direct(op) }
    }

    /// A session of a heap behind a gate.
    pub fn gated(gated: Gated) -> Self {
        Self { way: Way::Gated(gated, None) }
    }

    /// The same of one that is readable. The tally is this session's alone until `end`.
    pub fn readable(gated: Gated, window: &'c Window, tally: &'c Tally<'c>) -> Self {
        tally.begin(window);
        Self { way: Way::Gated(gated, Some(tally)) }
    }

    /// Tells what was noted, and gives back what the session has taken for itself.
    pub fn end(&mut self) {
        if let Way::Gated(gated, Some(tally)) = &mut self.way {
            gated.end_visits(tally);
        }
    }

    /// Copies the value of `key` to `out`. NotFound, Key, Invalid, Busy.
    ///
    /// # Safety
    /// `key` is readable and `out` writable.
    #[inline]
    pub unsafe fn get(&mut self, key: In, out: Out) -> Result<Got, Status> {
        match &mut self.way {
            // SAFETY: passed on.
            Way::Direct(op) => unsafe { op.reading().get(key, out) },
            // SAFETY: passed on.
            Way::Gated(gated, Some(tally)) => match unsafe { tally.get_usual(key, out) } {
                Some(got) => Ok(got),
                // SAFETY: passed on.
                None => unsafe { gated.get_any(tally, key, out) },
            },
            Way::Gated(gated, None) => gated.get(key, out),
        }
    }

    /// get, if all is as usual (see `cache::fast`); else None, and `get` tells. In a function of its own so that a caller who
    /// returns at once from here builds his answer in registers.
    ///
    /// # Safety
    /// As for `get`.
    #[inline(always)]
    pub unsafe fn get_usual(&mut self, key: In, out: Out) -> Option<Got> {
        match &self.way {
            // SAFETY: passed on.
            Way::Direct(op) => unsafe { op.reading().get_usual(key, out) },
            // SAFETY: passed on.
            Way::Gated(_, Some(tally)) => unsafe { tally.get_usual(key, out) },
            Way::Gated(_, None) => None,
        }
    }

    /// The same as `get`, and gives the item a new expiry.
    ///
    /// # Safety
    /// As for `get`.
    pub unsafe fn get_and_touch(&mut self, key: In, exptime: i64, out: Out) -> Result<Got, Status> {
        match &mut self.way {
            // SAFETY: passed on.
            Way::Direct(op) => unsafe { op.get_and_touch(key, exptime, out) },
            Way::Gated(gated, _) => {
                let ([k, k_len], [o, o_len]) = (input(key), output(out));
                let answer = gated.ask(Operation::GetAndTouch, [k, k_len, o, o_len, exptime as u64]);
                answer.map(|words| got(&words))
            }
        }
    }

    /// Stores an item; its cas. NotStored, Exists, NotFound, TooLarge, Key, Invalid, NoMemory, Busy.
    ///
    /// # Safety
    /// `key` and `value` are readable.
    #[inline]
    pub unsafe fn store(&mut self, mode: Mode, key: In, value: In, flags: u32, exptime: i64) -> Result<u64, Status> {
        match &mut self.way {
            // SAFETY: passed on.
            Way::Direct(op) => unsafe { op.store(mode, key, value, flags, exptime) },
            Way::Gated(gated, _) => {
                let ([k, k_len], [v, v_len], [mode, cas]) = (input(key), input(value), mode_words(mode));
                let arguments = [k, k_len, v, v_len, mode, cas, flags.into(), exptime as u64];
                gated.ask(Operation::Store, arguments).map(|[cas, ..]| cas)
            }
        }
    }

    /// Deletes an item, with `cas` only that very one. NotFound, Exists, Key, Invalid, Busy.
    ///
    /// # Safety
    /// `key` is readable.
    #[inline]
    pub unsafe fn delete(&mut self, key: In, cas: Option<u64>) -> Result<(), Status> {
        match &mut self.way {
            // SAFETY: passed on.
            Way::Direct(op) => unsafe { op.delete(key, cas) },
            Way::Gated(gated, _) => {
                let [k, k_len] = input(key);
                gated.ask(Operation::Delete, [k, k_len, cas.is_some().into(), cas.unwrap_or(0)]).map(|_| ())
            }
        }
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
        match &mut self.way {
            // SAFETY: passed on.
            Way::Direct(op) => unsafe { op.arith(key, delta, decrement, initial) },
            Way::Gated(gated, _) => {
                let ([k, k_len], (number, exptime)) = (input(key), initial.unwrap_or_default());
                let first = [k, k_len, delta, decrement.into(), initial.is_some().into(), number, exptime as u64];
                gated.ask(Operation::Arith, first).map(|[number, cas, ..]| (number, cas))
            }
        }
    }

    /// Gives an item a new expiry. NotFound, Key, Invalid, Busy.
    ///
    /// # Safety
    /// `key` is readable.
    pub unsafe fn touch(&mut self, key: In, exptime: i64) -> Result<(), Status> {
        match &mut self.way {
            // SAFETY: passed on.
            Way::Direct(op) => unsafe { op.touch(key, exptime) },
            Way::Gated(gated, _) => {
                let [k, k_len] = input(key);
                gated.ask(Operation::Touch, [k, k_len, exptime as u64]).map(|_| ())
            }
        }
    }

    /// Makes everything stored up to now (or up to `delay` seconds from now) disappear.
    pub fn flush_all(&mut self, delay: i64) -> Result<(), Status> {
        match &mut self.way {
            Way::Direct(op) => op.flush_all(delay),
            Way::Gated(gated, _) => gated.ask(Operation::FlushAll, [delay as u64]).map(|_| ()),
        }
    }

    /// Many gets; each request has its own status.
    ///
    /// # Safety
    /// Every request's key is readable and its buffer writable.
    pub unsafe fn get_many(&mut self, requests: &mut [GetRequest]) {
        match &mut self.way {
            // SAFETY: passed on.
            Way::Direct(op) => unsafe { op.reading().get_many(requests) },
            // SAFETY: passed on.
            Way::Gated(gated, Some(tally)) => unsafe { gated.get_many(tally, requests) },
            Way::Gated(gated, None) => gated.ask_many(requests),
        }
    }

    /// Many sets; each request has its own status.
    ///
    /// # Safety
    /// Every request's key and value are readable.
    pub unsafe fn set_many(&mut self, requests: &mut [SetRequest]) {
        match &mut self.way {
            // SAFETY: passed on.
            Way::Direct(op) => unsafe { op.set_many(requests) },
            Way::Gated(gated, _) => {
                if let Err(status) = gated.batch(Operation::SetMany, requests) {
                    requests.iter_mut().for_each(|request| request.status = status as u32);
                }
            }
        }
    }

    /// Many deletes; each request has its own status.
    ///
    /// # Safety
    /// Every request's key is readable.
    pub unsafe fn delete_many(&mut self, requests: &mut [DeleteRequest]) {
        match &mut self.way {
            // SAFETY: passed on.
            Way::Direct(op) => unsafe { op.delete_many(requests) },
            Way::Gated(gated, _) => {
                if let Err(status) = gated.batch(Operation::DeleteMany, requests) {
                    requests.iter_mut().for_each(|request| request.status = status as u32);
                }
            }
        }
    }

    /// The first item past `cursor`; None at the end.
    ///
    /// # Safety
    /// `key` (250 bytes or more) and `out` are writable.
    pub unsafe fn scan(&mut self, cursor: u64, key: Out, out: Out) -> Result<Option<Scanned>, Status> {
        match &mut self.way {
            // SAFETY: passed on.
            Way::Direct(op) => unsafe { op.reading().scan(cursor, key, out) },
            Way::Gated(gated, tally) => {
                // SAFETY: passed on.
                let scan = |visitor: &Visitor<'_>| unsafe { visitor.reading().scan(cursor, key, out) };
                if let Some(answer) = tally.and_then(|tally| gated.visit(tally, scan)) {
                    return answer;
                }
                let ([k, k_len], [o, o_len]) = (output(key), output(out));
                match gated.ask(Operation::Scan, [k, k_len, o, o_len, cursor]) {
                    Ok([times, cas, value_len, both, next]) => {
                        let got = got(&[times, cas, value_len, both & 1, 0]);
                        Ok(Some(Scanned { key_len: (both >> 1) as usize, got, next }))
                    }
                    Err(Status::NotFound) => Ok(None),
                    Err(status) => Err(status),
                }
            }
        }
    }

    /// Which bucket a key belongs to at the moment. Key, Invalid.
    ///
    /// # Safety
    /// `key` is readable.
    pub unsafe fn bucket_of(&mut self, key: In) -> Result<u32, Status> {
        match &mut self.way {
            // SAFETY: passed on.
            Way::Direct(op) => unsafe { op.bucket_of(key) },
            Way::Gated(gated, _) => gated.ask(Operation::BucketOf, input(key)).map(|[bucket, ..]| bucket as u32),
        }
    }

    /// Sums of all counters, and gauges. Busy.
    pub fn stats(&mut self) -> Result<Stats, Status> {
        match &mut self.way {
            Way::Direct(op) => Ok(op.stats()),
            Way::Gated(gated, tally) => {
                // What this session knows of is counted.
                if let Some((tally, reads)) = tally.and_then(|tally| Some((tally, tally.rest()?))) {
                    gated.tell(tally, reads);
                }
                // SAFETY: that is its answer.
                unsafe { gated.fetch(Operation::Stats, 0) }
            }
        }
    }

    /// What the blocks of a class are used for. Busy.
    pub fn class_stats(&mut self, class: usize) -> Result<ClassStats, Status> {
        match &mut self.way {
            Way::Direct(op) => Ok(op.class_stats(class)),
            Way::Gated(gated, _) => {
                // SAFETY: that is its answer.
                let words = unsafe { gated.fetch::<[u64; CLASS_WORDS]>(Operation::ClassStats, class as u64) };
                words.map(|words| ClassStats::decode(&words))
            }
        }
    }

    /// Recovers every dead client; the number of contexts recovered. Busy.
    pub fn reap(&mut self) -> Result<u32, Status> {
        match &mut self.way {
            Way::Direct(op) => Ok(op.reap()),
            Way::Gated(gated, _) => gated.ask(Operation::Reap, []).map(|[recovered, ..]| recovered as u32),
        }
    }

    /// Checks every invariant of the heap while others go on working. Behind a gate only the first findings are told singly.
    /// Busy.
    pub fn check(&mut self, report: &mut dyn FnMut(Finding)) -> Result<CheckSummary, Status> {
        match &mut self.way {
            Way::Direct(op) => Ok(op.check(report)),
            Way::Gated(gated, _) => gated.check(report),
        }
    }

    /// The client in `slot`, if the slot is marked as in use. Busy.
    pub fn client_info(&mut self, slot: u32) -> Result<Option<ClientInfo>, Status> {
        match &mut self.way {
            Way::Direct(op) => Ok(op.client.client_info(slot)),
            Way::Gated(gated, _) => {
                // SAFETY: that is its answer.
                let words = unsafe { gated.fetch::<[u64; CLIENT_WORDS]>(Operation::ClientInfo, slot.into()) };
                found(words.map(|words| ClientInfo::decode(&words)))
            }
        }
    }

    /// What op context `number` (from 1) holds; None if it holds nothing, was just at work, or has a dead owner. Busy.
    pub fn holding(&mut self, number: u32) -> Result<Option<Holding>, Status> {
        match &mut self.way {
            Way::Direct(op) => Ok(op.client.holding(number)),
            Way::Gated(gated, _) => {
                // SAFETY: that is its answer.
                let words = unsafe { gated.fetch::<[u64; HOLDING_WORDS]>(Operation::Holding, number.into()) };
                found(words.map(|words| Holding::decode(&words)))
            }
        }
    }

    /// Whether the owner of what was found will never act again. Busy.
    pub fn is_gone(&mut self, holding: &Holding) -> Result<bool, Status> {
        let owner = holding.owner();
        match &mut self.way {
            Way::Direct(op) => Ok(op.client.owner_is_dead(owner)),
            Way::Gated(gated, _) => gated.ask(Operation::IsGone, [owner.0.into()]).map(|[gone, ..]| gone != 0),
        }
    }
}

/// None where the answer was that there is none.
fn found<T>(answer: Result<T, Status>) -> Result<Option<T>, Status> {
    match answer {
        Ok(value) => Ok(Some(value)),
        Err(Status::NotFound) => Ok(None),
        Err(status) => Err(status),
    }
}
