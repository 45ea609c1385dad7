//! The vault: what the library remembers between calls, and where it works, all of it behind the key.
//!
//! ```text
//! vault: | seats | ranges | heaps | guard page | stack 0 | guard page | stack 1 | ...
//! ```
//! A *seat* is one call's place to work: a stack, and an op context of each heap. A call takes a free one by a CAS, which is
//! all that entitles it: neither the caller's stack pointer nor its thread id nor anything else that it can write is
//! believed. Which seat is tried first is the caller's wish. So a process needs as many op contexts as it has calls under way at
//! a time, however many threads it has.
//!
//! A fresh vault is all zeroes, and so is a forked child's: no heap, every seat free.

use super::call::Attach;
use crate::client::{Client, ContextId, Op, Owner};
use crate::heap::Heap;
use crate::layout::{HEAP_SIZE_MAX, HEAP_SIZE_MIN, SUPERBLOCK};
use crate::status::{Fault, Status};
use crate::sys;
use crate::user::{RANGES, Range, Ranges};
use core::cell::UnsafeCell;
use core::mem::{MaybeUninit, offset_of};
use core::sync::atomic::{AtomicU32, Ordering};

/// Heaps that a process can have open behind the key.
pub const HEAPS: usize = RANGES - 1;
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
    seats: [Seat; SEATS],
    ranges: Ranges,
    heaps: [Place; HEAPS],
}

const _: () = assert!(size_of::<Vault>() <= STACKS);

// SAFETY: a seat's cells are used by who took the seat by a CAS, a place's cell is written by who took the place, and read
// while it is open.
unsafe impl Sync for Vault {}

/// One call's place to work.
#[repr(C, align(64))]
struct Seat {
    /// Whether a call has it. Taken and freed by the entry's assembly.
    taken: AtomicU32,
    /// By heap: the op context for calls from here, as an owner word; 0 for none.
    contexts: [UnsafeCell<u32>; HEAPS],
}

/// Where the entry's assembly finds the seats.
pub(super) const SEAT_SIZE: usize = size_of::<Seat>();
pub(super) const TAKEN_AT: usize = offset_of!(Vault, seats) + offset_of!(Seat, taken);

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

/// How long closing waits for calls on other heaps that have a seat.
const CLOSE_MS: u64 = 5000;

impl Vault {
    /// What no pointer of a caller may touch.
    pub(super) fn ranges(&'static self) -> &'static Ranges {
        &self.ranges
    }

    /// Puts the vault itself among the ranges. Costs nothing when it is there, so every call does it: a child's was wiped.
    pub(super) fn guard_itself(&'static self) {
        if self.ranges.is_gap(HEAPS) {
            self.ranges.set(HEAPS, Range { start: (&raw const *self) as usize, len: VAULT_SIZE });
        }
    }

    /// Takes a heap that is mapped behind the key into use, in place `index`.
    pub(super) fn attach(&'static self, index: u32, wanted: &Attach, vdso: usize) -> Result<(), Fault> {
        let taken = Fault::new(Status::Full, "place in the vault", HEAPS as u64, index.into());
        let place = self.heaps.get(index as usize).ok_or(taken)?;
        self.check_mapping(wanted)?;
        place.state.compare_exchange(EMPTY, CHANGING, Ordering::Acquire, Ordering::Relaxed).map_err(|_| taken)?;
        self.ranges.set(index as usize, Range { start: wanted.base, len: wanted.len });
        // SAFETY: the process that gives the mapping vouches for it; it is taken away only after `detach`.
        let heap = unsafe { Heap::attach(wanted.base as *mut u8, wanted.len, wanted.boot_id) };
        let registered = heap.and_then(|heap| {
            let clients = heap.geometry().clients.into();
            let refused = |status| Fault::new(status, "client slot", clients, wanted.slot.into());
            Client::register(heap.among(&self.ranges), wanted.params(vdso)).map_err(refused)
        });
        match registered {
            Ok(client) => {
                // SAFETY: the place is ours until it is open.
                unsafe { (*place.client.get()).write(client) };
                place.state.store(OPEN, Ordering::Release);
                Ok(())
            }
            Err(fault) => {
                self.ranges.set(index as usize, Range { start: 0, len: 0 });
                place.state.store(EMPTY, Ordering::Release);
                Err(fault)
            }
        }
    }

    /// A mapping must be one that a heap can have, and nothing of what the key guards already.
    fn check_mapping(&'static self, wanted: &Attach) -> Result<(), Fault> {
        let Attach { base, len, .. } = *wanted;
        let sizes = HEAP_SIZE_MIN..=HEAP_SIZE_MAX;
        if !base.is_multiple_of(SUPERBLOCK) || !self.ranges.admit(core::ptr::without_provenance(base), len) {
            return Err(Fault::new(Status::Invalid, "mapping's address", 0, base as u64));
        }
        if !sizes.contains(&(len as u64)) {
            return Err(Fault::new(Status::Invalid, "mapping's length", HEAP_SIZE_MIN, len as u64));
        }
        Ok(())
    }

    /// Leaves a heap, on behalf of a call that has seat `mine`. Busy if a call keeps a seat for too long.
    pub(super) fn detach(&'static self, mine: u32, index: u32) -> Result<(), Status> {
        let place = self.heaps.get(index as usize).ok_or(Status::Invalid)?;
        place
            .state
            .compare_exchange(OPEN, CHANGING, Ordering::AcqRel, Ordering::Relaxed)
            .map_err(|_| Status::Invalid)?;
        // SAFETY: it was open, and nobody but us makes it empty.
        let client = unsafe { (*place.client.get()).assume_init_ref() };
        for (number, seat) in self.seats.iter().enumerate() {
            let is_mine = number == mine as usize;
            // Whoever takes the seat after us finds the place not open.
            if !is_mine && !take_patiently(seat) {
                place.state.store(OPEN, Ordering::Release);
                return Err(Status::Busy);
            }
            if let Some(owner) = seat.context(index as usize) {
                client.release_context(ContextId(owner), 0);
                seat.set_context(index as usize, Owner::NOBODY);
            }
            if !is_mine {
                seat.free();
            }
        }
        // SAFETY: as above; nobody has a reference, since no seat's call is in this heap.
        unsafe { (*place.client.get()).assume_init_read() }.unregister();
        self.ranges.set(index as usize, Range { start: 0, len: 0 });
        place.state.store(EMPTY, Ordering::Release);
        Ok(())
    }

    /// The client of an open place. The caller has a seat, which keeps the place from being emptied.
    pub(super) fn client(&'static self, index: u32) -> Result<&'static Client, Status> {
        let place = self.heaps.get(index as usize).ok_or(Status::Invalid)?;
        if place.state.load(Ordering::Acquire) != OPEN {
            return Err(Status::Invalid);
        }
        // SAFETY: it is open.
        Ok(unsafe { (*place.client.get()).assume_init_ref() })
    }

    /// The work of a call that has seat `number`, in an open place.
    pub(super) fn op(&'static self, number: u32, index: u32) -> Result<Op<'static>, Status> {
        let client = self.client(index)?;
        let seat = self.seats.get(number as usize).ok_or(Status::Invalid)?;
        let index = index as usize;
        let owner = match seat.context(index) {
            Some(owner) => owner,
            None => self.new_context(seat, index, client)?,
        };
        Ok(client.op(owner))
    }

    /// A context for a seat: one that nobody has, or one that a free seat holds.
    #[cold]
    fn new_context(&self, seat: &Seat, index: usize, client: &Client) -> Result<Owner, Status> {
        let owner = match client.claim_context(0) {
            Ok(ContextId(owner)) => owner,
            Err(Status::Busy) => self.idle_context(index).ok_or(Status::Busy)?,
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
    /// Its context of a heap. The caller has the seat.
    fn context(&self, index: usize) -> Option<Owner> {
        // SAFETY: whoever has the seat has its cells to himself.
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

/// Waits for a seat whose call is under way.
fn take_patiently(seat: &Seat) -> bool {
    let deadline = sys::monotonic_ms().wrapping_add(CLOSE_MS);
    while !seat.try_take() {
        if sys::monotonic_ms() > deadline {
            return false;
        }
        sys::yield_now();
    }
    true
}
