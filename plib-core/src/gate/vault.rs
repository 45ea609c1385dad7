//! The vault: what the library remembers between calls, and where it works, all of it behind the key.
//!
//! ```text
//! vault: | ranges | seats | heaps | guard page | stack 0 | guard page | stack 1 | ...
//! ```
//! A *seat* is one call's place to work: a stack, and an op context of each heap. A call takes a free one by a CAS, which is
//! all that entitles it: neither the caller's stack pointer nor its thread id nor anything else that it can write is
//! believed. Which seat is tried first is the caller's wish. So a process needs as many op contexts as it has calls under way at
//! a time, however many threads it has.
//!
//! A fresh vault is all zeroes, and so is a forked child's: no heap, every seat free.

use super::call::Attach;
use super::entry::Constants;
use super::launched::LaunchedHeaps;
use crate::client::{Client, ContextId, Op, Owner};
use crate::heap::Heap;
use crate::layout::{HEAP_SIZE_MAX, HEAP_SIZE_MIN, SUPERBLOCK};
use crate::status::{Fault, Status};
use crate::sys;
use crate::user::{RANGES, Range, Ranges};
use core::cell::UnsafeCell;
use core::mem::{MaybeUninit, offset_of};
use core::sync::atomic::{AtomicU32, AtomicU64, Ordering};

/// Heaps that a process can have open behind the key.
pub const HEAPS: usize = RANGES;
/// Calls that a process can have under way behind the key.
pub const SEATS: usize = 128;
/// From one stack to the next; the lowest page of each is never accessible.
pub const STRIDE: usize = 64 << 10;
/// Where the stacks begin.
pub const STACKS: usize = 64 << 10;
/// Bytes of the whole vault.
pub const VAULT_SIZE: usize = STACKS + SEATS * STRIDE;

/// The memory of the vault before the stacks.
#[repr(C, align(4096))]
pub struct Vault {
    // First: the list knows by this what the vault is.
    ranges: Ranges,
    seats: [Seat; SEATS],
    heaps: [Place; HEAPS],
}

const _: () = assert!(size_of::<Vault>() <= STACKS && offset_of!(Vault, ranges) == 0);

// SAFETY: a seat's cells are used by who took the seat by a CAS, a place's cell is written by who took the place, and read
// while it is open.
unsafe impl Sync for Vault {}

/// One call's place to work.
#[repr(C, align(64))]
struct Seat {
    /// Whether a call has it. Taken and freed by the entry's assembly.
    taken: AtomicU32,
    /// Signals that came during the call, which its caller is to let in when it has left. Emptied by the entry's assembly.
    signals: AtomicU64,
    /// One more than the place of the heap that its call is in; 0 for none.
    inside: AtomicU32,
    /// By heap: the op context for calls from here, as an owner word; 0 for none.
    contexts: [UnsafeCell<u32>; HEAPS],
}

/// Where the entry's assembly finds the seats.
pub(super) const SEAT_SIZE: usize = size_of::<Seat>();
pub(super) const TAKEN_AT: usize = offset_of!(Vault, seats) + offset_of!(Seat, taken);
pub(super) const SIGNALS_AT: usize = offset_of!(Vault, seats) + offset_of!(Seat, signals);

impl Seat {
    fn try_take(&self) -> bool {
        self.taken.compare_exchange(0, 1, Ordering::Acquire, Ordering::Relaxed).is_ok()
    }

    fn free(&self) {
        self.taken.store(0, Ordering::Release);
    }
}

/// One heap that this process has open.
#[repr(C)]
struct Place {
    state: AtomicU32,
    client: UnsafeCell<MaybeUninit<Client>>,
}

/// A place's states.
const EMPTY: u32 = 0;
const CHANGING: u32 = 1;
const OPEN: u32 = 2;

/// How long closing waits for a call that is under way.
const CLOSE_MS: u64 = 5000;

impl Vault {
    /// What no pointer of a caller may touch.
    pub(super) fn ranges(&'static self) -> &'static Ranges {
        &self.ranges
    }

    /// Keeps callers' pointers out of the heaps of a launcher, which are behind the key whether they are open or not.
    #[inline]
    pub(super) fn guard_launched(&self, launched: &LaunchedHeaps) {
        if self.ranges.count() < launched.count() {
            launched.ranges().enumerate().for_each(|(index, range)| self.ranges.set_once(index, range));
        }
    }

    /// Takes a heap that is mapped behind the key into use, in place `index`.
    pub(super) fn attach(&'static self, index: u32, wanted: &Attach, constants: &Constants) -> Result<(), Fault> {
        let taken = Fault::new(Status::Full, "place in the vault", HEAPS as u64, index.into());
        let range = Range { start: wanted.base, len: wanted.len };
        let place = self.heaps.get(index as usize).ok_or(taken)?;
        let launched = constants.launched();
        self.check_mapping(wanted, launched)?;
        place.state.compare_exchange(EMPTY, CHANGING, Ordering::Acquire, Ordering::Relaxed).map_err(|_| taken)?;
        // The ranges of a launcher's heaps are set before every call, and stay.
        let set_range = |range| {
            if launched.count() == 0 {
                self.ranges.set(index as usize, range)
            }
        };
        set_range(range);
        // SAFETY: the process that gives the mapping vouches for it; it is taken away only after `detach`.
        let heap = unsafe { Heap::attach(wanted.base as *mut u8, wanted.len, wanted.boot_id) };
        let registered = heap.and_then(|heap| {
            let clients = heap.geometry().clients.into();
            let refused = |status| Fault::new(status, "client slot", clients, wanted.slot.into());
            Client::register(heap.among(&self.ranges), wanted.params(constants.vdso())).map_err(refused)
        });
        match registered {
            Ok(client) => {
                // SAFETY: the place is ours until it is open.
                unsafe { (*place.client.get()).write(client) };
                place.state.store(OPEN, Ordering::Release);
                Ok(())
            }
            Err(fault) => {
                set_range(Range { start: 0, len: 0 });
                place.state.store(EMPTY, Ordering::Release);
                Err(fault)
            }
        }
    }

    /// A mapping must be one that a heap can have, and nothing of what the key guards already; or one of a launcher's.
    fn check_mapping(&'static self, wanted: &Attach, launched: &LaunchedHeaps) -> Result<(), Fault> {
        let Attach { base, len, .. } = *wanted;
        if launched.count() > 0 {
            let none = Fault::new(Status::Invalid, "mapping's launcher", 0, base as u64);
            return if launched.has(base, len) { Ok(()) } else { Err(none) };
        }
        let sizes = HEAP_SIZE_MIN..=HEAP_SIZE_MAX;
        if !base.is_multiple_of(SUPERBLOCK) || !self.ranges.admit(core::ptr::without_provenance(base), len) {
            return Err(Fault::new(Status::Invalid, "mapping's address", 0, base as u64));
        }
        if !sizes.contains(&(len as u64)) {
            return Err(Fault::new(Status::Invalid, "mapping's length", HEAP_SIZE_MIN, len as u64));
        }
        Ok(())
    }

    /// Leaves a heap. Busy if a call on it does not end for long.
    pub(super) fn detach(&'static self, index: u32, constants: &Constants) -> Result<(), Status> {
        let place = self.heaps.get(index as usize).ok_or(Status::Invalid)?;
        place
            .state
            .compare_exchange(OPEN, CHANGING, Ordering::SeqCst, Ordering::Relaxed)
            .map_err(|_| Status::Invalid)?;
        // A call that came before the state changed is seen here; one that comes later sees the state.
        if !self.seats.iter().all(|seat| wait_until_out(seat, index)) {
            place.state.store(OPEN, Ordering::Release);
            return Err(Status::Busy);
        }
        // SAFETY: it was open, and nobody but us makes it empty; no seat's call is in this heap.
        let client = unsafe { (*place.client.get()).assume_init_read() };
        for seat in &self.seats {
            if let Some(owner) = seat.context(index as usize) {
                client.release_context(ContextId(owner), 0);
                seat.set_context(index as usize, Owner::NOBODY);
            }
        }
        client.unregister();
        if constants.launched().count() == 0 {
            self.ranges.set(index as usize, Range { start: 0, len: 0 });
        }
        place.state.store(EMPTY, Ordering::Release);
        Ok(())
    }

    /// Notes that a signal came during the call whose stack `address` is in.
    pub(super) fn note_signal(&self, address: usize, bit: u64) {
        let offset = address.wrapping_sub((&raw const *self) as usize).wrapping_sub(STACKS);
        if let Some(seat) = self.seats.get(offset / STRIDE) {
            seat.signals.fetch_or(bit, Ordering::Relaxed);
        }
    }

    /// Begins the work of a call that has seat `number`, in an open place. `end` ends it.
    pub(super) fn begin(&'static self, number: u32, index: u32) -> Result<Op<'static>, Status> {
        let seat = self.seats.get(number as usize).ok_or(Status::Invalid)?;
        let place = self.heaps.get(index as usize).ok_or(Status::Invalid)?;
        // Said before the state is looked at, while `detach` changes the state before it looks who is inside.
        seat.inside.store(index + 1, Ordering::SeqCst);
        if place.state.load(Ordering::SeqCst) != OPEN {
            return Err(Status::Invalid);
        }
        // SAFETY: it is open, and stays so while we are inside.
        let client = unsafe { (*place.client.get()).assume_init_ref() };
        let owner = match seat.context(index as usize) {
            Some(owner) => owner,
            None => self.new_context(seat, index as usize, client)?,
        };
        Ok(client.op(owner))
    }

    /// Ends what `begin` began, or tried to.
    pub(super) fn end(&'static self, number: u32) {
        if let Some(seat) = self.seats.get(number as usize) {
            seat.inside.store(0, Ordering::Release);
        }
    }

    /// A context for a seat: one that nobody has, or one that a free seat holds.
    #[cold]
    fn new_context(&self, seat: &Seat, index: usize, client: &Client) -> Result<Owner, Status> {
        let owner = match client.claim_context(0) {
            Ok(ContextId(owner)) => owner,
            // Full, for the caller to wait outside.
            Err(Status::Busy) => self.idle_context(index).ok_or(Status::Full)?,
            Err(status) => return Err(status),
        };
        seat.set_context(index, owner);
        Ok(owner)
    }

    fn idle_context(&self, index: usize) -> Option<Owner> {
        self.seats.iter().filter(|seat| seat.try_take()).find_map(|seat| {
            let owner = seat.context(index);
            if owner.is_some() {
                seat.set_context(index, Owner::NOBODY);
            }
            seat.free();
            owner
        })
    }
}

impl Seat {
    /// Its context of a heap.
    fn context(&self, index: usize) -> Option<Owner> {
        // SAFETY: who has the seat has its cells to himself, and of a heap that is being closed, who closes it.
        let word = self.contexts.get(index).map_or(0, |cell| unsafe { *cell.get() });
        (word != 0).then_some(Owner(word))
    }

    fn set_context(&self, index: usize, owner: Owner) {
        if let Some(cell) = self.contexts.get(index) {
            // SAFETY: as in `context`.
            unsafe { *cell.get() = owner.0 };
        }
    }
}

/// Waits until a seat's call is not in the heap of place `index`; false if that takes too long.
fn wait_until_out(seat: &Seat, index: u32) -> bool {
    let deadline = sys::monotonic_ms().wrapping_add(CLOSE_MS);
    while seat.inside.load(Ordering::SeqCst) == index + 1 {
        if sys::monotonic_ms() > deadline {
            return false;
        }
        sys::yield_now();
    }
    true
}

#[cfg(test)]
impl Vault {
    /// A vault with nothing in it.
    pub(super) const fn empty() -> Self {
        // SAFETY: all zeroes is what a fresh mapping holds.
        unsafe { MaybeUninit::zeroed().assume_init() }
    }

    /// Does a call's work with a seat, as the entry does but for the key; the number of the seat.
    pub(super) fn with_seat(&'static self, work: impl FnOnce(u32)) -> usize {
        let Some((number, seat)) = self.seats.iter().enumerate().find(|(_, seat)| seat.try_take()) else {
            return SEATS;
        };
        work(number as u32);
        seat.free();
        number
    }
}
