//! What this process, and not its parent, knows of its open heaps.
//!
//! All of it lies in one mapping that the kernel empties in a child of fork (`MADV_WIPEONFORK`), and all-zero is its
//! valid initial state. So a child starts with no attachment, no op context and an open lock, whatever its parent's
//! threads were doing, and attaches on its first operation. No pid is compared and no system call is made to notice.
//!
//! Two locks guard it. Signal handlers may need the *world's lock*, and may have interrupted malloc: so whoever holds it neither
//! allocates nor maps nor reads files. (But for a child that leaves its parent's world.) Opening, attaching, closing and
//! fork do that, and take turns by the *opening lock*, which is taken first. What both guard changes under both, and holds
//! still under either.
//!
//! A child of a signal handler's fork is special. When the handler returns, the child goes on in the middle of its *parent's*
//! operation, with its parent's op context and perhaps a bucket's lock, and must not get anywhere with it. It dies
//! of SIGSEGV, because it has neither the parent's mapping of the heap nor its world, and never gets another at the
//! addresses of either: the mapping's are fenced off, and the wiped world is left as it is, for as long as the child lives.

use crate::attach::Attachment;
use crate::claim::{self, Claim};
use crate::error::Error;
use crate::handle;
use crate::process;
use crate::quiet::Quiet;
use crate::signals;
use plib_core::gate::Tally;
use std::cell::UnsafeCell;
use std::io;
use std::mem::MaybeUninit;
use std::ptr::null_mut;
use std::sync::atomic::{AtomicBool, AtomicPtr, AtomicU32, AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

/// Most heaps that a process can have open at a time.
pub(crate) const HANDLES: usize = 1024;
/// Most (thread, heap) pairs that a process can have at a time; only those in use take memory.
const CLAIMS: usize = 1 << 16;

/// The mapping.
#[repr(C)]
pub(crate) struct World {
    lock: Lock,
    opening: Lock,
    /// Whether this process made it, or took it over: false in a child that no handler of ours was run in (`_Fork`, `clone`).
    own: AtomicBool,
    claims_used: AtomicUsize,
    free: AtomicPtr<Claim>,
    places: [Place; HANDLES],
    claims: [Claim; CLAIMS],
    /// What the session of each claim leaves to be written, in readable heaps.
    tallies: [Tally<'static>; CLAIMS],
}

/// Where the attachment of one handle is.
#[repr(C)]
pub(crate) struct Place {
    /// The handle whose attachment is here; 0 for none. Changes under both locks.
    pub key: AtomicU64,
    attachment: UnsafeCell<MaybeUninit<Attachment>>,
}

// SAFETY: the cell is written and taken only under the lock, while no claim of the handle is in an operation; claims use
// the client in it by shared reference, and it is Sync.
unsafe impl Sync for Place {}

static WORLD: AtomicPtr<World> = AtomicPtr::new(null_mut());

impl World {
    /// The world, if a heap was ever opened in this process or a parent.
    #[inline]
    pub fn get() -> Option<&'static Self> {
        // SAFETY: once published the mapping stays for ever; it consists of atomics and guarded cells.
        unsafe { WORLD.load(Ordering::Acquire).as_ref() }
    }

    /// The world, made when there is none yet.
    pub fn get_or_make() -> io::Result<&'static Self> {
        if let Some(world) = Self::get() {
            return Ok(world);
        }
        let fresh = Self::make()?;
        if WORLD.compare_exchange(null_mut(), fresh, Ordering::AcqRel, Ordering::Acquire).is_err() {
            // Another thread was first.
            // SAFETY: nobody has seen this mapping.
            unsafe { libc::munmap(fresh.cast(), size_of::<Self>()) };
        } else if !HANDLES_FORK.swap(true, Ordering::Relaxed) {
            // SAFETY: the handlers are plain functions that live as long as this library.
            unsafe { libc::pthread_atfork(Some(before_fork), Some(after_fork_in_parent), Some(after_fork_in_child)) };
        }
        Self::get().ok_or_else(|| io::ErrorKind::OutOfMemory.into())
    }

    /// A world of this process's own, which nobody sees yet.
    fn make() -> io::Result<*mut Self> {
        // SAFETY: a fresh private mapping, of zeroes, as large as the type and page-aligned.
        unsafe {
            let protection = libc::PROT_READ | libc::PROT_WRITE;
            let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE;
            let fresh = libc::mmap(null_mut(), size_of::<Self>(), protection, flags, -1, 0);
            if fresh == libc::MAP_FAILED {
                return Err(io::Error::last_os_error());
            }
            process::checked(libc::madvise(fresh, size_of::<Self>(), libc::MADV_WIPEONFORK))?;
            let fresh = fresh.cast::<Self>();
            (*fresh).own.store(true, Ordering::Relaxed);
            Ok(fresh)
        }
    }

    /// Takes the lock of this process's world, and leaves a parent's before; None if no heap was ever opened.
    pub fn lock_own() -> Option<Result<Guard, Error>> {
        loop {
            let Some(guard) = Self::get()?.lock() else { return Some(Err(Error::Interrupted)) };
            if !std::ptr::eq(guard.world, Self::get()?) {
                continue;
            }
            if guard.world.own.load(Ordering::Relaxed) {
                return Some(Ok(guard));
            }
            leave_parents_world();
        }
    }

    /// Takes the opening lock of this process's world, which must not be done under the other one; None if no heap was ever
    /// opened.
    pub fn lock_opening() -> Option<Result<Opening, Error>> {
        loop {
            // Leaves a parent's world.
            let world = match Self::lock_own()? {
                Ok(guard) => guard.world,
                Err(e) => return Some(Err(e)),
            };
            let Some(quiet) = world.opening.acquire() else { return Some(Err(Error::Interrupted)) };
            let opening = Opening { world, _quiet: quiet };
            // A handler may have forked meanwhile, and its child left this world.
            if std::ptr::eq(world, Self::get()?) {
                return Some(Ok(opening));
            }
        }
    }

    /// Takes the lock; None if this very thread holds it already (a signal handler interrupted its holder).
    pub fn lock(&'static self) -> Option<Guard> {
        self.lock.acquire().map(|quiet| Guard { world: self, _quiet: quiet })
    }

    /// Where the handle with this index keeps its attachment.
    pub fn place(&self, index: usize) -> &Place {
        &self.places[index % HANDLES]
    }
}

/// Proof that the opening lock is held, by a thread that nothing takes away from it.
pub(crate) struct Opening {
    world: &'static World,
    // Ends after the lock is released.
    _quiet: Quiet,
}

impl Opening {
    /// Takes the world's lock too.
    pub fn lock(&self) -> Result<Guard, Error> {
        self.world.lock().ok_or(Error::Interrupted)
    }
}

impl Drop for Opening {
    fn drop(&mut self) {
        self.world.opening.release();
    }
}

/// Proof that the world's lock is held, by a thread that nothing takes away from it.
pub(crate) struct Guard {
    world: &'static World,
    // Ends after the lock is released: a field goes after its struct's `drop`.
    _quiet: Quiet,
}

impl Guard {
    /// Releases the opening lock, which was taken first, before this one.
    pub fn outlive(mut self, mut opening: Opening) -> Self {
        // The stretch that began first must end last: it knows what the thread let in before.
        std::mem::swap(&mut self._quiet, &mut opening._quiet);
        drop(opening);
        self
    }

    /// Whose lock it is.
    pub fn world(&self) -> &'static World {
        self.world
    }

    /// The claims that were ever used in this process.
    pub fn claims(&self) -> &'static [Claim] {
        &self.world.claims[..self.world.claims_used.load(Ordering::Relaxed)]
    }

    /// A claim that no thread has.
    pub fn new_claim(&self) -> Option<&'static Claim> {
        let free = self.world.free.load(Ordering::Relaxed);
        // SAFETY: the list consists of claims of this world.
        if let Some(claim) = unsafe { free.as_ref() } {
            self.world.free.store(claim.next.load(Ordering::Relaxed), Ordering::Relaxed);
            return Some(claim);
        }
        let n = self.world.claims_used.load(Ordering::Relaxed);
        let claim = self.world.claims.get(n)?;
        self.world.claims_used.store(n + 1, Ordering::Relaxed);
        Some(claim)
    }

    /// Where the session of a claim may note what its reads leave to be written; the session's alone until it ends.
    pub fn tally(&self, claim: &Claim) -> &'static Tally<'static> {
        let place = (&raw const *claim as usize - &raw const self.world.claims as usize) / size_of::<Claim>();
        &self.world.tallies[place]
    }

    /// Takes back a claim that its thread will not look at again.
    pub fn free_claim(&self, claim: &'static Claim) {
        claim.thread.store(0, Ordering::Relaxed);
        claim.next.store(self.world.free.load(Ordering::Relaxed), Ordering::Relaxed);
        self.world.free.store((&raw const *claim).cast_mut(), Ordering::Relaxed);
    }

    /// The attachment of a handle in this process.
    pub fn attachment(&self, index: usize, key: u64) -> Option<&'static Attachment> {
        let place = self.world.place(index);
        // SAFETY: a key says that the cell is filled; it is emptied only under the lock that we hold, and whoever keeps the
        // reference longer is a claim that the emptier waits for.
        (place.key.load(Ordering::Relaxed) == key).then(|| unsafe { (*place.attachment.get()).assume_init_ref() })
    }

    /// Fills a handle's place.
    pub fn put_attachment(&self, _: &Opening, index: usize, key: u64, attachment: Attachment) {
        let place = self.world.place(index);
        // SAFETY: under the lock; the place is empty, and references to it are made only by holders of the lock.
        unsafe { (*place.attachment.get()).write(attachment) };
        place.key.store(key, Ordering::Release);
    }

    /// Empties a handle's place.
    pub fn take_attachment(&self, _: &Opening, index: usize, key: u64) -> Option<Attachment> {
        let place = self.world.place(index);
        if place.key.load(Ordering::Relaxed) != key {
            return None;
        }
        place.key.store(0, Ordering::Relaxed);
        // SAFETY: the key said that the cell is filled, and now says that it is empty.
        Some(unsafe { (*place.attachment.get()).assume_init_read() })
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        self.world.lock.release();
    }
}

/// A lock for rare work: opening, closing, a thread's first operation. Whoever holds it is [`Quiet`]: no handler can
/// jump away with it or wait for the thread that it interrupted. It holds its owner's thread id all the same: a handler of a
/// fault (SIGSEGV, SIGBUS) may come through.
#[repr(C)]
struct Lock(AtomicU32);

/// Tries before the waiting thread sleeps between them.
const YIELDS: u32 = 100;

impl Lock {
    /// None if this very thread holds it already. While it waits, signals are handled.
    fn acquire(&self) -> Option<Quiet> {
        let me = process::thread_id();
        let mut tries = 0;
        loop {
            let quiet = Quiet::begin();
            match self.0.compare_exchange(0, me, Ordering::Acquire, Ordering::Relaxed) {
                Ok(_) => return Some(quiet),
                Err(owner) if owner == me => return None,
                Err(_) => drop(quiet),
            }
            tries += 1;
            if tries < YIELDS {
                std::thread::yield_now();
            } else {
                process::pause(Duration::from_micros(50));
            }
        }
    }

    fn release(&self) {
        self.0.store(0, Ordering::Release);
    }
}

/// Whether the handlers below were given to libc.
static HANDLES_FORK: AtomicBool = AtomicBool::new(false);

/// The thread whose fork is under way and holds the opening lock (as pthread_self, which its child has too); 0 for none.
static FORKING: AtomicUsize = AtomicUsize::new(0);
/// What that fork holds, and whether its thread is inside an operation.
static FORK: ForkCell = ForkCell(UnsafeCell::new(None));

struct ForkCell(UnsafeCell<Option<(Opening, bool)>>);

// SAFETY: used by the thread that `FORKING` names, or was set by while it held the lock, and by its child's only thread.
unsafe impl Sync for ForkCell {}

fn this_thread() -> usize {
    // SAFETY: takes nothing and cannot fail.
    unsafe { libc::pthread_self() as usize }
}

/// What this thread's (or its parent's) fork took.
fn end_of_fork() -> Option<(Opening, bool)> {
    (FORKING.load(Ordering::Relaxed) == this_thread()).then(|| {
        FORKING.store(0, Ordering::Relaxed);
        // SAFETY: `FORKING` named this thread, so nobody else looks, and the lock is still held.
        unsafe { (*FORK.0.get()).take() }
    })?
}

/// fork waits until no thread is attaching: else the child would inherit the descriptor or mapping that keeps its
/// parent's lock byte, and the parent would look alive when it is dead. It does not keep the world's lock, which the child
/// finds open anyway: fork waits for malloc's locks next.
extern "C" fn before_fork() {
    let Some(Ok(opening)) = World::lock_opening() else { return };
    let Ok(inside) = opening.lock().map(|guard| claim::is_inside(&guard)) else { return };
    // SAFETY: whoever holds the opening lock has the cell to himself.
    unsafe { *FORK.0.get() = Some((opening, inside)) };
    FORKING.store(this_thread(), Ordering::Relaxed);
}

extern "C" fn after_fork_in_parent() {
    drop(end_of_fork());
}

extern "C" fn after_fork_in_child() {
    signals::after_fork();
    let Some((opening, inside)) = end_of_fork() else { return };
    if inside {
        leave_parents_world();
    } else {
        handle::forget_mappings();
        opening.world.own.store(true, Ordering::Relaxed);
    }
    // Its lock was wiped and is open; releasing it changes nothing.
    drop(opening);
}

/// Leaves a world that a parent made, in whose operation this thread may still be, and begins one of its own. The old one stays
/// as it was wiped: what the operation finds there leads it nowhere.
fn leave_parents_world() {
    handle::fence_mappings();
    claim::forget();
    WORLD.store(World::make().unwrap_or(null_mut()), Ordering::Release);
}
