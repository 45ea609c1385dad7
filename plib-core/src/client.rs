//! Attached processes (clients), their threads' op contexts, and who of them is alive.
//!
//! A client is alive while its lock byte is locked by an open file description that only a mapping of its own keeps open;
//! that lock ends with the address space, whatever ends it. The byte is the client's alone, and its slot word names it: so
//! nobody who comes, goes or stands still half-way makes a dead one look alive. Slots are given out by a CAS:
//!
//! ```text
//! lock a byte that nobody has -> (slot free, or its byte unlocked?) -> CAS the slot word from what was judged
//! ```
//!
//! An op context is one thread's place to work from: its hazards, its intent, its magazines, its counters. Only its owner
//! writes it; after the owner's death whoever adopts it does.
//!
//! ```text
//! owner (28 bits):   incarnation 16 | context 12        in lock words, meta words, superblock states
//! client slot word:  lock byte 39 | incarnation 24 | in use 1
//! context state:     client incarnation 24 | client slot 12 | incarnation 16 | busy 1
//! ```

use crate::hash::mix;
use crate::hazard::{HAZARDS, Hazards};
use crate::heap::{Heap, LOCK_BYTES};
use crate::layout::{CLASSES, CLIENT_SIZE, CONTEXT_SIZE, QUOTA_EIGHTHS};
use crate::mutant::{self, Mutant};
use crate::stats::Counter;
use crate::status::Status;
use crate::sync::{AtomicU64, Ordering};
use crate::sys;

/// An op context in one incarnation; 0 is nobody.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Owner(pub u32);

impl Owner {
    /// Nobody.
    pub const NOBODY: Self = Self(0);

    /// Context `number` (from 1) in its life `incarnation`.
    pub const fn new(number: u32, incarnation: u32) -> Self {
        Self(number & 0xfff | (incarnation & 0xffff) << 12)
    }

    /// Its context.
    #[inline]
    pub const fn context(self) -> u32 {
        self.0 & 0xfff
    }

    /// Its context's life.
    pub const fn incarnation(self) -> u32 {
        self.0 >> 12
    }
}

/// The word of a client slot.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct SlotState(pub u64);

impl SlotState {
    const fn free(incarnation: u32) -> Self {
        Self(((incarnation & 0xff_ffff) as u64) << 1)
    }

    const fn taken(incarnation: u32, lock_byte: u64) -> Self {
        Self(lock_byte << LOCK_AT | Self::free(incarnation).0 | 1)
    }

    pub(crate) const fn in_use(self) -> bool {
        self.0 & 1 == 1
    }

    const fn incarnation(self) -> u32 {
        (self.0 >> 1) as u32 & 0xff_ffff
    }

    const fn lock_byte(self) -> u64 {
        self.0 >> LOCK_AT
    }
}

const LOCK_AT: u32 = 25;
const _: () = assert!(LOCK_BYTES == 1 << (u64::BITS - LOCK_AT));

/// One attached process.
#[repr(C, align(64))]
pub struct ClientSlot {
    state: AtomicU64,
    pid: AtomicU64,
    start_time: AtomicU64,
    /// The inode of the pid namespace that the pid and its threads' ids are of; 0 is not known.
    pid_namespace: AtomicU64,
}

impl ClientSlot {
    pub(crate) fn load(&self) -> SlotState {
        SlotState(self.state.load(Ordering::Acquire))
    }

    /// Takes a slot that is free or whose client is dead; None if it is another's.
    fn take(&self, asker: &Asker) -> Option<SlotState> {
        let mut seen = self.load();
        for _ in 0..TAKE_TRIES {
            if seen.in_use() && !asker.finds_dead(seen) {
                return None;
            }
            // Contexts of the slot's last client name its old incarnation, so they count as dead from here on.
            let next = SlotState::taken(seen.incarnation().wrapping_add(1), asker.lock_byte);
            // From the very word that was judged: whoever has taken or freed the slot since has changed it. Releases: the byte was
            // locked before, and whoever reads the word finds it so.
            match self.state.compare_exchange(seen.0, next.0, Ordering::AcqRel, Ordering::Acquire) {
                Ok(_) => return Some(next),
                Err(now) => seen = SlotState(now),
            }
        }
        None
    }

    fn pid(&self) -> u32 {
        self.pid.load(Ordering::Relaxed) as u32
    }

    fn pid_namespace(&self) -> u64 {
        self.pid_namespace.load(Ordering::Relaxed)
    }

    /// pid, start time, pid namespace.
    pub(crate) fn identity(&self) -> (u32, u64, u64) {
        (self.pid(), self.start_time.load(Ordering::Relaxed), self.pid_namespace())
    }
}

/// How often others may change a slot while one process wants it: freed as a dead one's, taken, given back.
const TAKE_TRIES: u32 = 8;

/// The state word of an op context.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct ContextState(pub u64);

impl ContextState {
    const fn new(incarnation: u32, busy: bool, slot: u32, client: u32) -> Self {
        Self(busy as u64 | ((incarnation & 0xffff) as u64) << 1 | (slot as u64) << 17 | (client as u64) << 29)
    }

    pub(crate) const fn is_busy(self) -> bool {
        self.0 & 1 == 1
    }

    const fn incarnation(self) -> u32 {
        (self.0 >> 1) as u32 & 0xffff
    }

    /// The owner word of context `number` in this state.
    pub(crate) const fn owner(self, number: u32) -> Owner {
        Owner::new(number, self.incarnation())
    }

    pub(crate) const fn slot(self) -> u32 {
        (self.0 >> 17) as u32 & 0xfff
    }

    const fn client(self) -> u32 {
        (self.0 >> 29) as u32 & 0xff_ffff
    }
}

/// Chain lines that one operation may need: a new bucket's.
pub(crate) const SPARE_LINES: usize = 4;
/// Blocks that a magazine holds.
pub(crate) const MAGAZINE: usize = 7;

/// A word of an intent: written by its context's owner, read by who adopts the context.
pub(crate) struct Note(AtomicU64);

impl Note {
    /// Reads it.
    #[inline(always)]
    pub fn load(&self, order: Ordering) -> u64 {
        self.0.load(order)
    }

    /// Writes it. A build with `--cfg plib_no_intent` does not, to measure what writing intents costs; it survives no kill.
    #[inline(always)]
    pub fn store(&self, value: u64, order: Ordering) {
        if !cfg!(plib_no_intent) {
            self.0.store(value, order);
        }
    }
}

/// What an operation is about to do, written before it does it, so that a survivor can finish or undo it.
/// A field is cleared when there is nothing left to do about it.
#[repr(C, align(64))]
pub(crate) struct Intent {
    /// 1 + the bucket whose lock is or may be held.
    pub bucket: Note,
    /// 1 + a second bucket: the one that a split makes, or that recovery is working in.
    pub other: Note,
    /// The block being claimed for a new item, then filled, then published.
    pub new: Note,
    /// How many fragments the new item lists.
    pub parts: Note,
    /// The block that the new item replaces, or that a delete frees.
    pub old: Note,
    /// The block whose item is being evicted.
    pub victim: Note,
    /// 1 + the superblock whose use is being changed.
    pub superblock: Note,
    /// Set while the right to reserve for a large value is or may be held.
    pub large: Note,
    /// The chain line being taken out of a bucket.
    pub unlinked: Note,
    /// Chain lines being claimed and linked.
    pub lines: [Note; SPARE_LINES],
}

impl Intent {
    /// Whether it names nothing: its context holds nothing but what its magazines hint at.
    fn is_clear(&self) -> bool {
        self.notes().all(|word| word.load(Ordering::Acquire) == 0)
    }

    /// All of its words.
    fn notes(&self) -> impl Iterator<Item = &Note> {
        let Self { bucket, other, new, parts, old, victim, superblock, large, unlinked, lines } = self;
        [bucket, other, new, parts, old, victim, superblock, large, unlinked].into_iter().chain(lines)
    }
}

/// The blocks of one class that its context frees and takes first; hints.
#[repr(C, align(64))]
pub(crate) struct Magazine {
    count: AtomicU64,
    units: [AtomicU64; MAGAZINE],
}

impl Magazine {
    /// Takes the block that was put in last.
    pub fn pop(&self) -> Option<u64> {
        let n = self.count.load(Ordering::Relaxed).checked_sub(1)?;
        self.count.store(n, Ordering::Relaxed);
        self.units.get(n as usize).map(|u| u.load(Ordering::Relaxed))
    }

    /// Puts a block in; false if there is no room.
    pub fn push(&self, unit: u64) -> bool {
        let n = self.count.load(Ordering::Relaxed);
        let Some(place) = self.units.get(n as usize) else {
            return false;
        };
        place.store(unit, Ordering::Relaxed);
        self.count.store(n.wrapping_add(1), Ordering::Relaxed);
        true
    }

    /// Forgets all blocks.
    pub fn clear(&self) {
        self.count.store(0, Ordering::Relaxed);
    }

    /// Whether a block is in it.
    pub fn contains(&self, unit: u64) -> bool {
        let count = self.count.load(Ordering::Relaxed) as usize;
        self.units.iter().take(count).any(|u| u.load(Ordering::Relaxed) == unit)
    }

    /// Every block that is in it or was taken out last: its owner may have died with one in hand.
    pub fn all(&self) -> impl Iterator<Item = u64> + '_ {
        self.units.iter().map(|u| u.load(Ordering::Relaxed))
    }

    fn is_empty(&self) -> bool {
        self.count.load(Ordering::Relaxed) == 0
    }
}

/// The id of no thread: the kernel's end at 2^22.
const NO_THREAD: u32 = i32::MAX as u32;
const COUNTERS: usize = 64;

/// One op context in the heap.
#[repr(C, align(64))]
pub struct ContextMemory {
    pub(crate) state: AtomicU64,
    /// `incarnation | thread id`; believed only while the incarnation is the state's. Thread id 0 is not known.
    thread: AtomicU64,
    cas_next: AtomicU64,
    cas_end: AtomicU64,
    /// Items added less items removed since `Hot::items` was told.
    pub(crate) items_untold: AtomicU64,
    /// Bytes evicted since the classes were last compared.
    pub(crate) evicted: AtomicU64,
    unused: [AtomicU64; 2],
    pub(crate) hazards: Hazards,
    /// Not 0 while its owner reads outside of the gate, by the open hazards of this context.
    outside: AtomicU64,
    pub(crate) intent: Intent,
    counters: [AtomicU64; COUNTERS],
    magazines: [Magazine; CLASSES],
}

#[cfg(not(loom))]
const _: () = {
    assert!(size_of::<ClientSlot>() as u64 == CLIENT_SIZE);
    assert!(size_of::<ContextMemory>() as u64 <= CONTEXT_SIZE);
};

#[cfg(not(loom))]
pub(crate) const FIELDS_HASH: u64 = {
    let h = mix(size_of::<ContextMemory>() as u64, core::mem::offset_of!(ContextMemory, hazards) as u64);
    let h = mix(h, core::mem::offset_of!(ContextMemory, outside) as u64);
    let h = mix(h, core::mem::offset_of!(ContextMemory, intent) as u64);
    let h = mix(h, core::mem::offset_of!(ContextMemory, counters) as u64);
    let h = mix(h, core::mem::offset_of!(ContextMemory, magazines) as u64);
    let h = mix(h, core::mem::offset_of!(ClientSlot, start_time) as u64);
    let h = mix(h, core::mem::offset_of!(ClientSlot, pid_namespace) as u64);
    let h = mix(h, LOCK_AT as u64);
    mix(mix(h, SPARE_LINES as u64), (Counter::COUNT as u64) << 32 | MAGAZINE as u64)
};
#[cfg(loom)]
pub(crate) const FIELDS_HASH: u64 = CLIENT_SIZE ^ CONTEXT_SIZE;

const _: () = assert!(Counter::COUNT <= COUNTERS);

impl ContextMemory {
    pub(crate) fn load(&self) -> ContextState {
        ContextState(self.state.load(Ordering::Acquire))
    }

    /// The thread that works from this context in `state`, if it is known.
    pub(crate) fn thread(&self, state: ContextState) -> Option<u32> {
        let word = self.thread.load(Ordering::Acquire);
        let known = (word >> 32) as u32 == state.incarnation() && word as u32 != 0;
        known.then_some(word as u32)
    }

    fn set_thread(&self, state: ContextState, tid: u32) {
        self.thread.store(u64::from(state.incarnation()) << 32 | u64::from(tid), Ordering::Release);
    }

    /// Notes that its thread has vanished, whoever has the thread's id now.
    fn forget_thread(&self, state: ContextState, tid: u32) {
        let word = |tid: u32| u64::from(state.incarnation()) << 32 | u64::from(tid);
        // Somebody may have adopted it just now: then the word says so.
        let _ = self.thread.compare_exchange(word(tid), word(NO_THREAD), Ordering::AcqRel, Ordering::Relaxed);
    }

    pub(crate) fn magazine(&self, class: usize) -> &Magazine {
        let [first, ..] = &self.magazines;
        self.magazines.get(class).unwrap_or(first)
    }

    pub(crate) fn counter(&self, counter: Counter) -> u64 {
        self.counters.get(counter as usize).map_or(0, |c| c.load(Ordering::Relaxed))
    }

    /// A number that changes with every step of an operation that others could notice, and with the owner.
    pub(crate) fn fingerprint(&self) -> u64 {
        let first = [&self.state, &self.thread, &self.cas_next, &self.cas_end, &self.items_untold, &self.evicted];
        let words = first.into_iter().chain(&self.counters).map(|word| word.load(Ordering::Acquire));
        words
            .chain(self.hazards.words())
            .chain(self.intent.notes().map(|note| note.load(Ordering::Acquire)))
            .fold(0, mix)
    }

    /// Notes that its owner reads outside of the gate.
    pub(crate) fn set_outside(&self) {
        self.outside.store(1, Ordering::Release);
    }

    /// Whether its owner reads outside of the gate.
    pub(crate) fn reads_outside(&self) -> bool {
        self.outside.load(Ordering::Acquire) != 0
    }

    /// Whether nothing is left in it of whoever worked from it.
    pub(crate) fn is_tidy(&self) -> bool {
        let empty = |word: &AtomicU64| word.load(Ordering::Relaxed) == 0;
        self.intent.is_clear()
            && empty(&self.items_untold)
            && self.hazards.words() == [0; HAZARDS]
            && empty(&self.outside)
            && self.magazines.iter().all(Magazine::is_empty)
    }

    /// Nothing is read by it any more.
    fn clear_hazards(&self) {
        self.hazards.clear();
        self.outside.store(0, Ordering::Release);
    }
}

/// How a process presents itself.
#[derive(Clone, Copy, Debug)]
pub struct ClientParams {
    /// The slot that it wants.
    pub slot: u32,
    /// Which byte it holds locked: a number below [`LOCK_BYTES`] that no living client has.
    pub lock_byte: u64,
    /// Its pid, in its own namespace.
    pub pid: u32,
    /// Its start time in clock ticks after boot; tells it from a later process with its pid.
    pub start_time: u64,
    /// The inode of its pid namespace; 0 if that is not known.
    pub pid_namespace: u64,
    /// A descriptor of the file with the lock bytes, without locks of its own, for asking about them; -1 if there is none.
    pub lock_fd: i32,
    /// The auxiliary vector's AT_SYSINFO_EHDR, or 0.
    pub vdso: usize,
}

/// How a client asks whether others live.
#[derive(Clone, Copy)]
struct Asker {
    lock_fd: i32,
    /// Its own.
    lock_byte: u64,
}

impl Asker {
    /// Whether the client that this word of its slot speaks of is gone. Unknown counts as alive.
    fn finds_dead(&self, state: SlotState) -> bool {
        let ask = |byte| sys::byte_locked(self.lock_fd, Heap::lock_offset(byte));
        // My own byte must read as locked before and after, or the descriptor is not the file's any more.
        ask(self.lock_byte) == Some(true) && ask(state.lock_byte()) == Some(false) && ask(self.lock_byte) == Some(true)
    }
}

/// An attached process: what its threads share.
pub struct Client {
    heap: Heap,
    slot: u32,
    incarnation: u32,
    pid: u32,
    pid_namespace: u64,
    asker: Asker,
    /// Whether every reader is covered by `membarrier`; else each fences for itself.
    pub(crate) barrier: bool,
    pub(crate) clock: sys::Clock,
}

/// A claimed op context.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ContextId(pub(crate) Owner);

/// A client as seen from outside.
#[derive(Clone, Copy, Debug)]
pub struct ClientInfo {
    /// Its slot.
    pub slot: u32,
    /// Its pid, in its own namespace.
    pub pid: u32,
    /// Its start time in clock ticks after boot.
    pub start_time: u64,
    /// The inode of its pid namespace; 0 if that is not known.
    pub pid_namespace: u64,
    /// Op contexts that it holds.
    pub contexts: u32,
    /// Whether its address space still exists.
    pub alive: bool,
}

/// Words of a [`ClientInfo`] between two sides of a gate.
#[cfg(not(loom))]
pub(crate) const CLIENT_WORDS: usize = 6;

#[cfg(not(loom))]
impl ClientInfo {
    pub(crate) fn encode(&self) -> [u64; CLIENT_WORDS] {
        let Self { slot, pid, start_time, pid_namespace, contexts, alive } = *self;
        [slot.into(), pid.into(), start_time, pid_namespace, contexts.into(), alive.into()]
    }

    pub(crate) fn decode(words: &[u64; CLIENT_WORDS]) -> Self {
        let [slot, pid, start_time, pid_namespace, contexts, alive] = *words;
        let [slot, pid, contexts] = [slot, pid, contexts].map(|word| word as u32);
        Self { slot, pid, start_time, pid_namespace, contexts, alive: alive != 0 }
    }
}

impl Client {
    /// Registers a process whose lock byte is held, and recovers what the dead left. Busy if the slot is another's.
    pub fn register(heap: Heap, p: ClientParams) -> Result<Self, Status> {
        let slot = heap.client(p.slot).ok_or(Status::Invalid)?;
        let asker = Asker { lock_fd: p.lock_fd, lock_byte: p.lock_byte % LOCK_BYTES };
        let state = slot.take(&asker).ok_or(Status::Busy)?;
        slot.pid.store(u64::from(p.pid), Ordering::Relaxed);
        slot.start_time.store(p.start_time, Ordering::Relaxed);
        slot.pid_namespace.store(p.pid_namespace, Ordering::Relaxed);
        heap.set_dirty();
        // SAFETY: the caller passes what the kernel gave, or 0.
        let clock = unsafe { sys::Clock::new(p.vdso) };
        let client = Self {
            heap,
            slot: p.slot,
            incarnation: state.incarnation(),
            pid: p.pid,
            pid_namespace: p.pid_namespace,
            asker,
            barrier: sys::register_barrier(),
            clock,
        };
        if let Ok(id) = client.claim_context(0) {
            client.op(id.0).reap();
            client.release_context(id, 0);
        }
        Ok(client)
    }

    /// Leaves the heap; every context must have been released or have no thread any more.
    pub fn unregister(self) {
        for number in 1..=self.heap.geometry().contexts {
            let Some(context) = self.heap.context(number) else {
                continue;
            };
            let state = context.load();
            if state.is_busy() && self.is_mine(state) {
                self.release_context(ContextId(Owner::new(number, state.incarnation())), 0);
            }
        }
        if let Some(slot) = self.heap.client(self.slot) {
            // Before the lock ends: who reads the old word and then finds the byte unlocked fails at its CAS from that word.
            slot.state.store(SlotState::free(self.incarnation).0, Ordering::Release);
        }
        self.heap.set_clean();
    }

    /// The heap.
    pub fn heap(&self) -> Heap {
        self.heap
    }

    /// Claims a context for thread `tid`: a free one, or one whose owner is dead after recovering it.
    pub fn claim_context(&self, tid: u32) -> Result<ContextId, Status> {
        let total = self.heap.geometry().contexts;
        let quota = (total * QUOTA_EIGHTHS / 8).max(1);
        if self.contexts_of(self.slot, self.incarnation) >= quota {
            // Only one that a vanished thread of this process left may be had.
            let mine = |n: &u32| self.heap.context(*n).is_some_and(|c| self.is_mine(c.load()));
            let left = (1..=total).filter(mine).find_map(|number| self.adopt(number, tid));
            return left.map(ContextId).ok_or(Status::Busy);
        }
        let start = self.slot.wrapping_mul(7);
        let free = (0..total).find_map(|i| self.try_claim(start.wrapping_add(i) % total + 1, tid));
        let found = free.or_else(|| (1..=total).find_map(|number| self.adopt(number, tid)));
        found.map(ContextId).ok_or(Status::Busy)
    }

    /// For a thread that comes to this client for the first time: contexts under its id were left by one that had the id
    /// before it and vanished inside an operation. They count as dead from here on.
    pub fn disown_thread(&self, tid: u32) {
        for context in (1..=self.heap.geometry().contexts).filter_map(|n| self.heap.context(n)) {
            let state = context.load();
            if state.is_busy() && self.is_mine(state) && context.thread(state) == Some(tid) {
                context.forget_thread(state, tid);
            }
        }
    }

    /// How many contexts a client holds.
    fn contexts_of(&self, slot: u32, incarnation: u32) -> u32 {
        let states = (1..=self.heap.geometry().contexts).filter_map(|n| self.heap.context(n)).map(ContextMemory::load);
        states.filter(|s| s.is_busy() && s.slot() == slot && s.client() == incarnation).count() as u32
    }

    /// Whether this client may have one more context for reading outside of the gate: not more than half of what it may have at
    /// all, and none of the last quarter, which is for calls.
    pub(crate) fn may_have_a_reader(&self) -> bool {
        let total = self.heap.geometry().contexts;
        let contexts = || (1..=total).filter_map(|n| self.heap.context(n));
        let mine = contexts().filter(|context| context.reads_outside() && self.has(context)).count() as u32;
        let busy = contexts().filter(|context| context.load().is_busy()).count() as u32;
        mine < total * QUOTA_EIGHTHS / 16 && busy < total - total.div_ceil(4)
    }

    /// Whether a context is in use by this client.
    pub(crate) fn has(&self, context: &ContextMemory) -> bool {
        let state = context.load();
        state.is_busy() && self.is_mine(state)
    }

    fn try_claim(&self, number: u32, tid: u32) -> Option<Owner> {
        let context = self.heap.context(number)?;
        let seen = context.load();
        if seen.is_busy() {
            return None;
        }
        self.enter(context, seen, number, tid)
    }

    /// Makes a context mine under its next incarnation.
    fn enter(&self, context: &ContextMemory, seen: ContextState, number: u32, tid: u32) -> Option<Owner> {
        let next = ContextState::new(seen.incarnation().wrapping_add(1), true, self.slot, self.incarnation);
        context.state.compare_exchange(seen.0, next.0, Ordering::AcqRel, Ordering::Relaxed).ok()?;
        context.set_thread(next, tid);
        Some(Owner::new(number, next.incarnation()))
    }

    /// Takes over a context whose owner is dead and resolves its intent; None if it is not dead or cannot be resolved now.
    pub(crate) fn adopt(&self, number: u32, tid: u32) -> Option<Owner> {
        let context = self.heap.context(number)?;
        let seen = context.load();
        if !seen.is_busy() || !self.is_dead(context, seen) {
            return None;
        }
        self.take(context, seen, number, tid)
    }

    /// Makes a context mine whose owner will never act again, and resolves its intent.
    fn take(&self, context: &ContextMemory, seen: ContextState, number: u32, tid: u32) -> Option<Owner> {
        // From here the context is mine: if I die, the next adopter resolves the same intent again.
        let owner = self.enter(context, seen, number, tid)?;
        context.clear_hazards();
        let op = self.op(owner);
        op.count(Counter::RecoveredContexts, 1);
        // Before blocks are freed into the magazines: then the places of those that were just taken out are used again.
        op.rehint_magazines();
        if op.resolve().is_err() {
            // Somebody frozen holds what is needed; a slot that nobody has keeps it dead for the next try.
            self.abandon(context, owner);
            return None;
        }
        Some(owner)
    }

    /// Marks an adopted context as dead again.
    fn abandon(&self, context: &ContextMemory, owner: Owner) {
        let dead =
            ContextState::new(owner.incarnation(), true, self.slot, self.incarnation.wrapping_sub(1) & 0xff_ffff);
        context.state.store(dead.0, Ordering::Release);
    }

    /// Gives a context back for thread `tid` (0: unknown): its free blocks become anybody's.
    pub fn release_context(&self, id: ContextId, tid: u32) {
        let number = id.0.context();
        let Some(context) = self.heap.context(number) else { return };
        let seen = context.load();
        if !seen.is_busy() || !self.is_mine(seen) || seen.incarnation() != id.0.incarnation() {
            return;
        }
        // Made anew by a CAS in any case: its thread may have vanished, and another process be adopting it just now. A thread
        // that vanished or jumped out of an operation left an intent behind, and its locks are a dead owner's then.
        let is_clear = context.intent.is_clear();
        let taken =
            if is_clear { self.enter(context, seen, number, tid) } else { self.take(context, seen, number, tid) };
        let Some(owner) = taken else { return };
        let op = self.op(owner);
        // With what was just taken out: the thread may have ended with a block in hand.
        op.rehint_magazines();
        op.tell_items(true);
        context.clear_hazards();
        context.state.store(ContextState::new(owner.incarnation(), false, 0, 0).0, Ordering::Release);
    }

    /// Whether a context in this state belongs to this client.
    fn is_mine(&self, state: ContextState) -> bool {
        state.slot() == self.slot && state.client() == self.incarnation
    }

    /// The operations of context `id`.
    ///
    /// # Safety
    /// The context was claimed from this client by the calling thread and is not in the middle of another operation.
    #[cfg(not(loom))]
    #[inline]
    pub unsafe fn session(&self, id: ContextId) -> crate::gate::Session<'_> {
        crate::gate::Session::new(self.op(id.0))
    }

    /// Work on behalf of `me`, a context of this client.
    #[inline]
    pub(crate) fn op(&self, me: Owner) -> Op<'_> {
        // A forged number works on context 1: `session` is unsafe, and this keeps it inside the mapping.
        let context = self.heap.context(me.context()).unwrap_or_else(|| self.first_context());
        Op { client: self, heap: &self.heap, context, me }
    }

    fn first_context(&self) -> &ContextMemory {
        // SAFETY: every heap has at least two contexts (`Geometry::new`), so this is inside the mapping.
        self.heap.context(1).unwrap_or_else(|| unsafe { core::hint::unreachable_unchecked() })
    }

    /// The client in `slot`, if the slot is marked as in use.
    pub fn client_info(&self, slot: u32) -> Option<ClientInfo> {
        let memory = self.heap.client(slot)?;
        let state = memory.load();
        let (pid, start_time, pid_namespace) = memory.identity();
        state.in_use().then(|| ClientInfo {
            slot,
            pid,
            start_time,
            pid_namespace,
            contexts: self.contexts_of(slot, state.incarnation()),
            alive: self.is_alive(slot, state),
        })
    }

    /// Whether the address space behind `slot`, whose word is `state`, exists. Unknown counts as alive.
    fn is_alive(&self, slot: u32, state: SlotState) -> bool {
        slot == self.slot || mutant::is(Mutant::NoTakeOver) || !self.asker.finds_dead(state)
    }

    /// The slot of this client.
    pub fn slot(&self) -> u32 {
        self.slot
    }

    /// Whether the owner of a busy context is dead: its client is gone or replaced, or its thread vanished.
    pub(crate) fn is_dead(&self, context: &ContextMemory, state: ContextState) -> bool {
        let Some(slot) = self.heap.client(state.slot()) else {
            return true;
        };
        let client = slot.load();
        if !client.in_use() || client.incarnation() != state.client() {
            return true;
        }
        if state.slot() == self.slot {
            return context.thread(state).is_some_and(|tid| sys::thread_gone(self.pid, tid));
        }
        !self.is_alive(state.slot(), client)
            || self.thread_vanished(slot, context, state) && !mutant::is(Mutant::NoTakeOver)
    }

    /// Whether a living client's thread is gone. Only a process of the same pid namespace can ask: elsewhere the number
    /// is nobody's or somebody else's. While the client lives its pid is not given to another.
    fn thread_vanished(&self, slot: &ClientSlot, context: &ContextMemory, state: ContextState) -> bool {
        let namespace = slot.pid_namespace();
        let same = namespace != 0 && namespace == self.pid_namespace || mutant::is(Mutant::AnyNamespace);
        let gone = same && context.thread(state).is_some_and(|tid| sys::thread_gone(slot.pid(), tid));
        // The same client and the same owner after the question as before it: all words read were theirs.
        let client = slot.load();
        gone && client.in_use() && client.incarnation() == state.client() && context.load() == state
    }

    /// Whether `owner` will never act again.
    pub(crate) fn owner_is_dead(&self, owner: Owner) -> bool {
        if mutant::is(Mutant::TakeFromLiving) {
            return true;
        }
        let Some(context) = self.heap.context(owner.context()) else {
            return true;
        };
        let state = context.load();
        state.incarnation() != owner.incarnation() || !state.is_busy() || self.is_dead(context, state)
    }

    /// Whether `owner` is an operation that this very thread was interrupted in.
    pub(crate) fn is_my_thread(&self, owner: Owner, me: &ContextMemory) -> bool {
        self.heap.context(owner.context()).is_some_and(|context| {
            let state = context.load();
            let thread = context.thread(state);
            state.slot() == self.slot
                && state.client() == self.incarnation
                && thread.is_some()
                && thread == me.thread(me.load())
        })
    }

    /// Recovers all contexts of dead clients and frees their slots, on behalf of thread `tid`.
    pub(crate) fn recover_the_dead(&self, tid: u32) -> u32 {
        let mut recovered = 0;
        for number in 1..=self.heap.geometry().contexts {
            if let Some(owner) = self.adopt(number, tid) {
                self.release_context(ContextId(owner), tid);
                recovered += 1;
            }
        }
        for i in 0..self.heap.geometry().clients {
            let Some(slot) = self.heap.client(i) else {
                continue;
            };
            let state = slot.load();
            if state.in_use() && i != self.slot && !self.is_alive(i, state) {
                let free = SlotState::free(state.incarnation());
                let _ = slot.state.compare_exchange(state.0, free.0, Ordering::AcqRel, Ordering::Relaxed);
            }
        }
        recovered
    }
}

/// One operation at work: who does it, and where.
#[derive(Clone, Copy)]
pub(crate) struct Op<'c> {
    pub client: &'c Client,
    pub heap: &'c Heap,
    pub context: &'c ContextMemory,
    pub me: Owner,
}

/// Items that a context adds or removes before it tells the heap.
const TELL_AT: u64 = 32;
/// cas values that a context takes from the heap at a time.
const CAS_RANGE: u64 = 256;

impl<'c> Op<'c> {
    /// Announces that superblock `s` is being read. The caller then reloads what led it there.
    #[inline(always)]
    pub fn protect(&self, which: usize, s: u32) {
        self.context.hazards.announce(which, s, self.client.barrier);
    }

    /// Ends what `protect` announced.
    #[inline]
    pub fn unprotect(&self) {
        self.context.hazards.clear();
    }

    /// The same for an operation that used only the first.
    #[inline(always)]
    pub fn unprotect_first(&self) {
        self.context.hazards.clear_first();
    }

    /// Adds to one of this context's counters.
    #[inline(always)]
    pub fn count(&self, counter: Counter, n: u64) {
        if let Some(word) = self.context.counters.get(counter as usize) {
            word.store(word.load(Ordering::Relaxed).wrapping_add(n), Ordering::Relaxed);
        }
    }

    /// A cas value above every one that was given out before `above` was.
    pub fn next_cas(&self, above: u64) -> u64 {
        let (next, end) = (self.context.cas_next.load(Ordering::Relaxed), self.context.cas_end.load(Ordering::Relaxed));
        if next < end && next > above {
            // Advanced before use: a value is lost rather than used twice.
            let step = u64::from(!mutant::is(Mutant::ReuseCas));
            self.context.cas_next.store(next.wrapping_add(step), Ordering::Release);
            return next;
        }
        let start = self.heap.hot().cas.0.fetch_add(CAS_RANGE, Ordering::AcqRel);
        // End first: between the two stores the range is empty, not somebody else's.
        self.context.cas_end.store(0, Ordering::Release);
        self.context.cas_next.store(start.wrapping_add(1), Ordering::Release);
        self.context.cas_end.store(start.wrapping_add(CAS_RANGE), Ordering::Release);
        start
    }

    /// Counts items that came (or went, as a negative number).
    #[inline]
    pub fn items_changed(&self, by: i64) {
        let untold = &self.context.items_untold;
        untold.store(untold.load(Ordering::Relaxed).wrapping_add(by as u64), Ordering::Relaxed);
        self.tell_items(false);
    }

    /// Tells the heap about the items not told of yet; only if they are many, or `all`.
    #[inline]
    pub fn tell_items(&self, all: bool) {
        let untold = self.context.items_untold.load(Ordering::Relaxed);
        if (untold as i64).unsigned_abs() >= if all { 1 } else { TELL_AT } {
            self.context.items_untold.store(0, Ordering::Relaxed);
            self.heap.hot().items.0.fetch_add(untold, Ordering::Relaxed);
        }
    }

    /// Sets the estimate of the number of items right if it is off by more than what others may be telling just now: who
    /// is killed while he tells takes his last few dozen items with him, and without this that would add up.
    pub fn recount_items(&self) {
        let word = &self.heap.hot().items.0;
        let seen = word.load(Ordering::Acquire);
        let (told, slack) = self.told_items();
        // Twice: one who is stopped between two contexts adds up numbers of different times.
        let (again, _) = self.told_items();
        let off = |a: u64, b: u64| (a.wrapping_sub(b) as i64).unsigned_abs() > slack;
        if off(told, seen) && off(again, seen) && !off(told, again) {
            // If somebody told something meanwhile it is left for the next time.
            let _ = word.compare_exchange(seen, again, Ordering::AcqRel, Ordering::Relaxed);
        }
    }

    /// The items that all contexts have told of, by their counters; and how many others may be telling just now.
    fn told_items(&self) -> (u64, u64) {
        let (mut told, mut others) = (0u64, 0u64);
        for context in (1..=self.heap.geometry().contexts).filter_map(|n| self.heap.context(n)) {
            let untold = context.items_untold.load(Ordering::Relaxed);
            told = told.wrapping_add(context.counter(Counter::Items)).wrapping_sub(untold);
            others += u64::from(context.load().is_busy() && !core::ptr::eq(context, self.context));
        }
        (told, others * (TELL_AT + 1))
    }

    /// Clears the intent and the hazards: the operation is over.
    #[inline]
    pub fn done(&self) {
        let intent = &self.context.intent;
        for word in [&intent.new, &intent.parts, &intent.old, &intent.bucket] {
            word.store(0, Ordering::Release);
        }
        self.unprotect();
    }

    /// Recovers every dead client.
    pub fn reap(&self) -> u32 {
        let recovered = self.client.recover_the_dead(self.context.thread(self.context.load()).unwrap_or(0));
        if recovered > 0 {
            self.recount_items();
        }
        recovered
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn owner_and_state_words_round_trip() {
        let owner = Owner::new(4095, 65_535);
        assert_eq!((owner.context(), owner.incarnation()), (4095, 65_535));
        assert!(owner.0 < 1 << 28);
        let state = ContextState::new(65_535, true, 4094, 0xff_ffff);
        assert_eq!(
            (state.incarnation(), state.is_busy(), state.slot(), state.client()),
            (65_535, true, 4094, 0xff_ffff)
        );
        let slot = SlotState::taken(0x1ff_ffff, LOCK_BYTES - 1);
        assert!(slot.in_use() && slot.incarnation() == 0xff_ffff && slot.lock_byte() == LOCK_BYTES - 1);
        let free = SlotState::free(slot.incarnation());
        assert!(!free.in_use() && free.incarnation() == 0xff_ffff && free.lock_byte() == 0);
    }

    #[cfg(not(loom))]
    #[test]
    fn a_slot_whose_client_may_be_alive_is_not_given_out() {
        let arena = Arena::new();
        let there = arena.client(3);
        // Nobody can be asked (there is no file), and unknown counts as alive.
        let asker = Asker { lock_fd: -1, lock_byte: 7 };
        let slot = arena.heap.client(3).unwrap();
        let before = slot.load();
        assert!(slot.take(&asker).is_none() && slot.load() == before);
        kill(there);
        let taken = slot.take(&asker).unwrap();
        assert_eq!((taken.incarnation(), taken.lock_byte()), (before.incarnation() + 1, 7));
        assert!(taken.in_use() && slot.load() == taken);
    }

    #[cfg(not(loom))]
    use crate::arena::{Arena, set};

    /// As if the process behind a client were gone and somebody had noticed.
    #[cfg(not(loom))]
    fn kill(client: Client) {
        let slot = client.heap.client(client.slot).unwrap();
        slot.state.store(SlotState::free(client.incarnation).0, Ordering::Release);
    }

    #[cfg(not(loom))]
    #[test]
    fn incarnations_wrap() {
        let arena = Arena::new();
        let slot = arena.heap.client(0).unwrap();
        slot.state.store(SlotState::free(0xff_fffe).0, Ordering::Release);
        for expected in [0xff_ffff, 0, 1] {
            let client = arena.client(0);
            assert_eq!(client.incarnation, expected);
            let last = ContextState::new(0xfffd, false, 0, 0);
            (1..=crate::arena::CONTEXTS)
                .for_each(|n| arena.heap.context(n).unwrap().state.store(last.0, Ordering::Release));
            let ids: [ContextId; 2] = core::array::from_fn(|_| client.claim_context(0).unwrap());
            for id in ids {
                assert_eq!(id.0.incarnation(), 0xfffe);
                // Giving it back counts up once more.
                client.release_context(id, 0);
                // The next owner of the same context has incarnation 0, and is somebody all the same.
                let next = client.try_claim(id.0.context(), 0).unwrap();
                assert!(next.incarnation() == 0 && next != Owner::NOBODY);
                assert!(client.owner_is_dead(id.0) && !client.owner_is_dead(next));
                set(&client, ContextId(next), b"a key", 100);
            }
            // One that is given back as dead bears the client's incarnation before this one, also around the end.
            let owner = client.claim_context(0).unwrap().0;
            client.abandon(arena.heap.context(owner.context()).unwrap(), owner);
            assert!(client.owner_is_dead(owner));
            assert_eq!(client.recover_the_dead(0), 1);
            client.unregister();
        }
    }

    #[cfg(not(loom))]
    #[test]
    fn the_dead_take_neither_hints_nor_the_estimate_with_them() {
        let arena = Arena::new();
        let (survivor, other) = (arena.client(0), arena.client(1));
        let mine = survivor.claim_context(0).unwrap();
        let his = other.claim_context(0).unwrap();
        (0..100u32).for_each(|i| set(&other, his, &i.to_le_bytes(), 100));
        let op = other.op(his.0);
        let items = &arena.heap.hot().items.0;
        let told = items.load(Ordering::Relaxed);
        // A living one may be about to tell as much as this.
        items.store(told - 20, Ordering::Relaxed);
        survivor.op(mine.0).recount_items();
        assert_eq!(items.load(Ordering::Relaxed), told - 20);
        // Killed with a block in hand that left the magazine but was not claimed, and just before he told.
        let class = (0..CLASSES).find(|class| op.context.magazine(*class).pop().is_some());
        assert!(class.is_some(), "no block at hand");
        kill(other);
        let op = survivor.op(mine.0);
        assert_eq!(op.reap(), 1);
        assert_eq!(items.load(Ordering::Relaxed), 100);
        let sum = op.check(&mut |finding| assert_eq!(finding.kind, ""));
        assert!(sum.at_rest && sum.unhinted_blocks == 0 && sum.items_off == 0, "{sum:?}");
    }

    #[cfg(not(loom))]
    #[test]
    fn a_thread_disowns_what_stands_under_its_id() {
        let arena = Arena::new();
        let client = arena.client(0);
        // The ids of living threads, so that they are not found to be gone.
        let (tid, other) = (1, 1);
        let ids = [tid, other].map(|tid| client.claim_context(tid).unwrap());
        let dead = |id: ContextId| client.owner_is_dead(id.0);
        assert_eq!(ids.map(dead), [false, false]);
        client.disown_thread(tid + 1);
        assert_eq!(ids.map(dead), [false, false]);
        client.disown_thread(tid);
        assert_eq!(ids.map(dead), [true, true]);
        assert_eq!(client.recover_the_dead(0), 2);
    }
}
