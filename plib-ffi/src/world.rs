//! What this process, and not its parent, knows of its open heaps.
//!
//! All of it lies in one mapping that the kernel empties in a child of fork (`MADV_WIPEONFORK`), and all-zero is its
//! valid initial state. So a child starts with no attachment, no op context and an open lock, whatever its parent's
//! threads were doing, and attaches on its first operation. No pid is compared and no system call is made to notice.

use crate::attach::Attachment;
use crate::claim::Claim;
use crate::process;
use std::cell::UnsafeCell;
use std::io;
use std::mem::MaybeUninit;
use std::ptr::null_mut;
use std::sync::atomic::{AtomicBool, AtomicPtr, AtomicU32, AtomicU64, AtomicUsize, Ordering};

/// Most heaps that a process can have open at a time.
pub(crate) const HANDLES: usize = 1024;
/// Most (thread, heap) pairs that a process can have at a time; only those in use take memory.
const CLAIMS: usize = 1 << 16;

/// The mapping.
#[repr(C)]
pub(crate) struct World {
    lock: Lock,
    claims_used: AtomicUsize,
    free: AtomicPtr<Claim>,
    places: [Place; HANDLES],
    claims: [Claim; CLAIMS],
}

/// Where the attachment of one handle is.
#[repr(C)]
pub(crate) struct Place {
    /// The handle whose attachment is here; 0 for none. Changes under the lock.
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
        // SAFETY: a fresh private mapping, of zeroes, as large as the type and page-aligned.
        let fresh = unsafe {
            let protection = libc::PROT_READ | libc::PROT_WRITE;
            let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE;
            let fresh = libc::mmap(null_mut(), size_of::<Self>(), protection, flags, -1, 0);
            if fresh == libc::MAP_FAILED {
                return Err(io::Error::last_os_error());
            }
            process::checked(libc::madvise(fresh, size_of::<Self>(), libc::MADV_WIPEONFORK))?;
            fresh.cast::<Self>()
        };
        if WORLD.compare_exchange(null_mut(), fresh, Ordering::AcqRel, Ordering::Acquire).is_err() {
            // Another thread was first.
            // SAFETY: nobody has seen this mapping.
            unsafe { libc::munmap(fresh.cast(), size_of::<Self>()) };
        } else {
            // SAFETY: the handlers are plain functions that live as long as this library.
            unsafe { libc::pthread_atfork(Some(before_fork), Some(after_fork_in_parent), Some(after_fork_in_child)) };
        }
        Self::get().ok_or_else(|| io::ErrorKind::OutOfMemory.into())
    }

    /// Takes the lock; None if this very thread holds it already (a signal handler interrupted its holder).
    pub fn lock(&'static self) -> Option<Guard> {
        self.lock.acquire().then_some(Guard { world: self })
    }

    /// Where the handle with this index keeps its attachment.
    pub fn place(&self, index: usize) -> &Place {
        &self.places[index % HANDLES]
    }
}

/// Proof that the world's lock is held.
pub(crate) struct Guard {
    world: &'static World,
}

impl Guard {
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
    pub fn put_attachment(&self, index: usize, key: u64, attachment: Attachment) {
        let place = self.world.place(index);
        // SAFETY: under the lock; the place is empty, and references to it are made only by holders of the lock.
        unsafe { (*place.attachment.get()).write(attachment) };
        place.key.store(key, Ordering::Release);
    }

    /// Empties a handle's place.
    pub fn take_attachment(&self, index: usize, key: u64) -> Option<Attachment> {
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

/// A lock for rare and short work: opening, closing, a thread's first operation. It holds its owner's thread id, so that
/// a signal handler can tell that it interrupted the owner.
#[repr(C)]
struct Lock(AtomicU32);

/// Tries before the waiting thread sleeps between them.
const YIELDS: u32 = 100;

impl Lock {
    fn acquire(&self) -> bool {
        let me = process::thread_id();
        let mut tries = 0;
        while let Err(owner) = self.0.compare_exchange_weak(0, me, Ordering::Acquire, Ordering::Relaxed) {
            if owner == me {
                return false;
            }
            tries += 1;
            if tries < YIELDS {
                std::thread::yield_now();
            } else {
                std::thread::sleep(std::time::Duration::from_micros(50));
            }
        }
        true
    }

    fn release(&self) {
        self.0.store(0, Ordering::Release);
    }
}

/// Whether the fork under way took the lock. Written under it.
static FORK_HOLDS: AtomicBool = AtomicBool::new(false);

/// fork waits until no thread is attaching: else the child would inherit the descriptor or mapping that keeps its
/// parent's lock byte, and the parent would look alive when it is dead.
extern "C" fn before_fork() {
    if let Some(world) = World::get()
        && world.lock.acquire()
    {
        FORK_HOLDS.store(true, Ordering::Relaxed);
    }
}

extern "C" fn after_fork_in_parent() {
    if FORK_HOLDS.swap(false, Ordering::Relaxed)
        && let Some(world) = World::get()
    {
        world.lock.release();
    }
}

extern "C" fn after_fork_in_child() {
    // The lock itself was wiped.
    FORK_HOLDS.store(false, Ordering::Relaxed);
}
