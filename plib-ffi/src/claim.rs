//! Which op context the calling thread works from.
//!
//! A *claim* ties a thread to a context of one handle. Each thread finds its claims by thread-local words. A known thread
//! enters an operation by a handful of loads and one plain store, and leaves by another:
//!
//! ```text
//! owner:   busy = 1; (compiler fence) key still the handle's? -> operate -> busy = 0
//! closer:  key = 0;  heavy barrier (membarrier)               -> wait until busy is 0
//! ```
//! The barrier makes the closer's store visible before it looks at `busy`: either the owner sees that the handle is
//! closed, or the closer sees the owner inside. Nobody counts references.
//!
//! A claim belongs to its thread until that thread ends, so what thread-local words point to is never another's by
//! surprise; after fork the world is wiped, and `thread` and `key` no longer match.

use crate::error::Error;
use crate::handle;
use crate::process;
use crate::world::{Guard, World};
use plib_core::{Client, ContextId, Session, Status};
use std::cell::{Cell, UnsafeCell};
use std::mem::MaybeUninit;
use std::ptr::{null, null_mut};
use std::sync::atomic::{AtomicPtr, AtomicU32, AtomicU64, AtomicUsize, Ordering, compiler_fence};
use std::time::{Duration, Instant};

/// One thread's op context of one handle.
#[repr(C, align(64))]
pub(crate) struct Claim {
    /// The handle; 0 once it is closed. Written under the world's lock.
    pub key: AtomicU64,
    /// The address of its thread's `Local`; 0 while no thread has it. Written under the world's lock.
    pub thread: AtomicUsize,
    /// Whether its thread is inside an operation. Written by that thread.
    pub busy: AtomicU32,
    /// 1 + the index of the handle whose context it holds; 0 while it holds none. Written under the world's lock.
    pub holds: AtomicU32,
    /// The thread's way into the heap, made once.
    session: UnsafeCell<MaybeUninit<Session<'static>>>,
    client: AtomicPtr<Client>,
    // What the Rust API's fast path needs ends here, with the first cache line.
    base: AtomicUsize,
    len: AtomicUsize,
    /// The next claim of the same thread, or of the list of free ones.
    pub next: AtomicPtr<Claim>,
    context: UnsafeCell<MaybeUninit<ContextId>>,
}

const _: () = assert!(std::mem::offset_of!(Claim, base) == 64);

// SAFETY: the cells are written under the world's lock before `key` is published, and used by the claim's thread while it
// is inside, or under the lock while it is not.
unsafe impl Sync for Claim {}

impl Claim {
    /// Whether its thread may use it for another handle.
    fn is_spare(&self) -> bool {
        [&self.holds, &self.busy].iter().all(|word| word.load(Ordering::Relaxed) == 0)
            && self.key.load(Ordering::Relaxed) == 0
    }
}

/// Handles whose claims a thread finds at once.
const SLOTS: usize = 8;

/// What a thread knows.
struct Local {
    /// By handle index: the claim that was used last.
    slots: [Cell<*const Claim>; SLOTS],
    /// The first of this thread's claims.
    first: Cell<*const Claim>,
}

thread_local! {
    // No destructor: its address and words stay usable to the thread's very end, and access needs no check.
    static LOCAL: Local = const { Local { slots: [const { Cell::new(null()) }; SLOTS], first: Cell::new(null()) } };
    static EXIT: Exit = const { Exit };
}

/// Gives a thread's contexts back when it ends.
struct Exit;

impl Drop for Exit {
    fn drop(&mut self) {
        LOCAL.with(|local| {
            let me = local.address();
            local.forget();
            let Some(guard) = World::get().and_then(World::lock) else { return };
            for claim in guard.claims().iter().filter(|claim| claim.thread.load(Ordering::Relaxed) == me) {
                release(&guard, claim);
                claim.key.store(0, Ordering::Relaxed);
                claim.busy.store(0, Ordering::Relaxed);
                guard.free_claim(claim);
            }
        });
    }
}

/// An operation under way: no other thread uses its context, and the handle stays attached until it is dropped.
pub(crate) struct Inside {
    claim: &'static Claim,
}

/// Values of `Claim::busy`: outside, inside, inside by a claim that is only for this operation.
const IDLE: u32 = 0;
const BUSY: u32 = 1;
const BUSY_ONCE: u32 = 2;

/// Why an operation did not begin: an [`Error`] small enough to travel in registers, and made without memory where a
/// signal handler may meet it.
#[derive(Debug)]
pub(crate) enum Refused {
    Closed,
    Interrupted,
    NoContext(u32),
    Other(Box<Error>),
}

const _: () = assert!(size_of::<Result<Inside, Refused>>() == 16);

impl From<Refused> for Error {
    #[cold]
    fn from(refused: Refused) -> Self {
        match refused {
            Refused::Closed => Self::Closed,
            Refused::Interrupted => Self::Interrupted,
            Refused::NoContext(contexts) => Self::NoContext { contexts },
            Refused::Other(error) => *error,
        }
    }
}

impl From<Error> for Refused {
    #[cold]
    fn from(error: Error) -> Self {
        match error {
            Error::Closed => Self::Closed,
            Error::Interrupted => Self::Interrupted,
            Error::NoContext { contexts } => Self::NoContext(contexts),
            error => Self::Other(Box::new(error)),
        }
    }
}

/// Begins an operation on the handle `key`.
#[inline]
pub(crate) fn enter(key: u64) -> Result<Inside, Refused> {
    LOCAL.with(|local| match local.known(key) {
        Some(inside) => Ok(inside),
        None => enter_slowly(key, local),
    })
}

impl Local {
    fn address(&self) -> usize {
        (&raw const *self) as usize
    }

    fn slot(&self, key: u64) -> &Cell<*const Claim> {
        &self.slots[key as usize % SLOTS]
    }

    /// The fast path.
    #[inline]
    fn known(&self, key: u64) -> Option<Inside> {
        // SAFETY: null, or a claim; those are never unmapped.
        let claim: &'static Claim = unsafe { self.slot(key).get().as_ref() }?;
        if claim.thread.load(Ordering::Relaxed) != self.address() || claim.busy.load(Ordering::Relaxed) != IDLE {
            return None;
        }
        claim.busy.store(BUSY, Ordering::Relaxed);
        // Pairs with the heavy barrier of `retire`.
        compiler_fence(Ordering::SeqCst);
        if claim.key.load(Ordering::Acquire) == key {
            return Some(Inside { claim });
        }
        claim.busy.store(IDLE, Ordering::Release);
        None
    }

    /// This thread's claims in this process.
    fn claims(&self) -> impl Iterator<Item = &'static Claim> {
        let me = self.address();
        // SAFETY: null, or a claim; those are never unmapped.
        let next = move |at: *const Claim| unsafe { at.as_ref() }.filter(|c| c.thread.load(Ordering::Relaxed) == me);
        std::iter::successors(next(self.first.get()), move |c| next(c.next.load(Ordering::Relaxed)))
    }

    /// Enters by one of this thread's idle claims, and puts it at hand.
    fn find(&self, key: u64) -> Option<Inside> {
        let fits = |c: &&Claim| c.key.load(Ordering::Relaxed) == key && c.busy.load(Ordering::Relaxed) == 0;
        self.slot(key).set(self.claims().find(fits)?);
        self.known(key)
    }

    /// Puts a claim at hand, and a new one at the head of the list. (Before the claim is marked as this thread's: in a
    /// forked child the list's old head may be this very claim.)
    fn keep(&self, key: u64, claim: &'static Claim, new: bool) {
        if new {
            let head = self.claims().next().map_or(null_mut(), |head| (&raw const *head).cast_mut());
            claim.next.store(head, Ordering::Relaxed);
            self.first.set(claim);
        }
        self.slot(key).set(claim);
    }

    fn forget(&self) {
        self.slots.iter().chain([&self.first]).for_each(|cell| cell.set(null()));
    }
}

/// The first operation of a thread, of a forked child, inside a signal handler, or by a handle that is none.
#[cold]
#[inline(never)]
fn enter_slowly(key: u64, local: &Local) -> Result<Inside, Refused> {
    enter_anew(key, local).map_err(Refused::from)
}

fn enter_anew(key: u64, local: &Local) -> Result<Inside, Error> {
    // More handles than slots: this thread has a claim, only not at hand.
    if let Some(inside) = local.find(key) {
        return Ok(inside);
    }
    let world = World::get().ok_or(Error::Closed)?;
    let guard = world.lock().ok_or(Error::Interrupted)?;
    let index = handle::attached(&guard, key)?;
    // Again: another thread may have wanted this one's context and given it up while we waited for the lock.
    if let Some(inside) = local.find(key) {
        return Ok(inside);
    }
    // A busy claim of the same handle: a signal handler interrupted one of its operations. And a thread whose
    // destructors have run can keep nothing.
    let interrupted = local.claims().any(|claim| claim.key.load(Ordering::Relaxed) == key);
    let temporary = interrupted || EXIT.try_with(|_| ()).is_err();
    let spare = local.claims().filter(|_| !temporary).find(|claim| claim.is_spare());
    let claim = spare.or_else(|| guard.new_claim()).ok_or(TOO_MANY_CLAIMS)?;
    if !temporary && let Some(attachment) = guard.attachment(index, key) {
        attachment.client.disown_thread(process::thread_id());
    }
    if let Err(e) = fill(&guard, claim, index, key) {
        if spare.is_none() {
            guard.free_claim(claim);
        }
        return Err(e);
    }
    claim.busy.store(if temporary { BUSY_ONCE } else { BUSY }, Ordering::Relaxed);
    if !temporary {
        local.keep(key, claim, spare.is_none());
    }
    claim.thread.store(local.address(), Ordering::Relaxed);
    claim.key.store(key, Ordering::Release);
    Ok(Inside { claim })
}

const TOO_MANY_CLAIMS: Error = Error::Full {
    what: "pairs of a thread and a heap can be in use in a process",
    limit: 1 << 16,
    remedy: "let threads end, or close heaps",
};

/// Ties a claim to a fresh op context.
fn fill(guard: &Guard, claim: &Claim, index: usize, key: u64) -> Result<(), Error> {
    let attachment = guard.attachment(index, key).ok_or(Error::Closed)?;
    let context = context_for(guard, index, key, &attachment.client)?;
    claim.client.store((&raw const attachment.client).cast_mut(), Ordering::Relaxed);
    claim.base.store(attachment.mapping.base() as usize, Ordering::Relaxed);
    claim.len.store(attachment.mapping.len(), Ordering::Relaxed);
    // SAFETY: under the lock, and the claim has no key yet. The context was claimed for this thread, and the attachment
    // stays until the claim is released.
    unsafe {
        (*claim.session.get()).write(attachment.client.session(context));
        (*claim.context.get()).write(context);
    }
    claim.holds.store(index as u32 + 1, Ordering::Relaxed);
    Ok(())
}

/// How long a thread waits for an op context when all of them are in use.
const CONTEXT_PATIENCE: Duration = Duration::from_millis(100);

/// Claims a context for this thread; when there is none left, one that another thread of this process holds idle.
fn context_for(guard: &Guard, index: usize, key: u64, client: &Client) -> Result<ContextId, Error> {
    let started = Instant::now();
    loop {
        match client.claim_context(process::thread_id()) {
            Ok(context) => return Ok(context),
            Err(Status::Busy) => {}
            Err(status) => return Err(Error::of_operation(status, 0, 0, 0)),
        }
        let held = |c: &&Claim| c.holds.load(Ordering::Relaxed) == index as u32 + 1;
        let idle = |c: &&Claim| c.busy.load(Ordering::Relaxed) == 0;
        let taken = guard.claims().iter().filter(held).filter(idle).any(|claim| {
            retire(claim);
            if claim.busy.load(Ordering::Acquire) == 0 {
                release(guard, claim);
                return true;
            }
            // Its thread came back in time.
            claim.key.store(key, Ordering::Release);
            false
        });
        if !taken && started.elapsed() > CONTEXT_PATIENCE {
            return Err(Error::NoContext { contexts: client.heap().geometry().contexts });
        }
        if !taken {
            std::thread::yield_now();
        }
    }
}

/// Keeps a claim's thread from entering; after this, `busy` tells whether it is inside.
fn retire(claim: &Claim) {
    claim.key.store(0, Ordering::Relaxed);
    process::heavy_barrier();
}

/// Gives a claim's context back, under the world's lock and with its thread not inside.
fn release(_: &Guard, claim: &Claim) {
    if claim.holds.swap(0, Ordering::Relaxed) != 0 {
        // SAFETY: `holds` said that the context and the client are there: a client is taken from its place only after all
        // its claims were released.
        unsafe { (*claim.client.load(Ordering::Relaxed)).release_context((*claim.context.get()).assume_init()) };
    }
}

/// How long closing waits for threads that are inside an operation.
const CLOSE_PATIENCE: Duration = Duration::from_secs(5);

/// Takes every thread's claim on a handle that no table names any more. False if a thread stays inside (it is
/// stopped, or is the caller's own, interrupted by a signal handler): the attachment must then stay too.
pub(crate) fn retire_all(world: &'static World, guard: Guard, index: usize) -> bool {
    let of_handle = |c: &&Claim| c.holds.load(Ordering::Relaxed) == index as u32 + 1;
    let claims = guard.claims();
    claims.iter().filter(of_handle).for_each(|claim| claim.key.store(0, Ordering::Relaxed));
    // Threads leave without the lock.
    drop(guard);
    process::heavy_barrier();
    let me = LOCAL.with(Local::address);
    let started = Instant::now();
    let inside = |c: &&Claim| c.busy.load(Ordering::Acquire) != 0;
    while let Some(claim) = claims.iter().filter(of_handle).find(inside) {
        if claim.thread.load(Ordering::Relaxed) == me || started.elapsed() > CLOSE_PATIENCE {
            return false;
        }
        std::thread::sleep(Duration::from_micros(50));
    }
    let Some(guard) = world.lock() else { return false };
    claims.iter().filter(of_handle).for_each(|claim| release(&guard, claim));
    true
}

impl Inside {
    /// The operations.
    #[inline]
    pub fn session(&mut self) -> &mut Session<'static> {
        // SAFETY: the claim is this thread's, busy, and its key was the handle's after that: session, client and context stay
        // until `self` is dropped. `&mut self` keeps it to one user at a time.
        unsafe { (*self.claim.session.get()).assume_init_mut() }
    }

    /// This process's client.
    pub fn client(&self) -> &Client {
        // SAFETY: as in `session`; the client is its attachment's.
        unsafe { &*self.claim.client.load(Ordering::Relaxed) }
    }

    /// Where the heap is mapped.
    pub fn base(&self) -> usize {
        self.claim.base.load(Ordering::Relaxed)
    }

    /// Whether `len` bytes at `ptr` may be written for the caller: not null, not wrapping, outside the heap.
    #[inline]
    pub fn admits(&self, ptr: *const u8, len: usize) -> bool {
        let (start, base) = (ptr as usize, self.claim.base.load(Ordering::Relaxed));
        let Some(end) = start.checked_add(len) else { return false };
        start != 0 && (end <= base || start >= base + self.claim.len.load(Ordering::Relaxed))
    }

    /// The error for a status of an operation on a key and a value of these lengths.
    #[cold]
    pub fn error(&self, status: Status, key_len: usize, value_len: usize) -> Error {
        Error::of_operation(status, key_len, value_len, self.client().heap().geometry().item_size_max)
    }
}

impl Drop for Inside {
    #[inline]
    fn drop(&mut self) {
        let temporary = self.claim.busy.load(Ordering::Relaxed) == BUSY_ONCE;
        self.claim.busy.store(IDLE, Ordering::Release);
        if temporary {
            free_temporary(self.claim);
        }
    }
}

#[cold]
fn free_temporary(claim: &'static Claim) {
    // The lock cannot be this thread's own: it was free when the operation began, and nothing below this frame took it.
    if let Some(guard) = World::get().and_then(World::lock) {
        release(&guard, claim);
        claim.key.store(0, Ordering::Relaxed);
        guard.free_claim(claim);
    }
}
