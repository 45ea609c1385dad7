//! Which op context the calling thread works from.
//!
//! A *claim* ties a thread to a context of one handle. Each thread finds its claims by thread-local words. A known thread
//! enters an operation by a handful of loads and one plain store, and leaves by another:
//!
//! ```text
//! owner:   busy = stack pointer; (compiler fence) key still the handle's? -> operate -> busy = 0
//! closer:  key = 0;  heavy barrier (membarrier)                           -> wait until busy is 0
//! ```
//! The barrier makes the closer's store visible before it looks at `busy`: either the owner sees that the handle is
//! closed, or the closer sees the owner inside. Nobody counts references.
//!
//! A claim belongs to its thread until that thread ends, so what thread-local words point to is never another's by
//! surprise; after fork the world is wiped, and `thread` and `key` no longer match.
//!
//! A thread that finds its own claim busy is in a signal handler that interrupted the operation, or a handler has jumped out of
//! it. `busy` tells which (see [`crate::stack`]). In a handler the call works by a claim of its own, for this once. An
//! operation that was left is recovered as that of a dead thread is, and the call goes on as usual.

use crate::attach::{Attachment, Way};
use crate::error::Error;
use crate::handle;
use crate::process;
use crate::quiet::Quiet;
use crate::signals;
use crate::stack::{self, Stack};
use crate::world::{Guard, World};
use plib_core::domain::Isolation;
use plib_core::layout::Geometry;
use plib_core::{Client, ContextId, Session, Status};
use std::arch::asm;
use std::cell::{Cell, UnsafeCell};
use std::mem::{MaybeUninit, offset_of};
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
    /// Where the stack pointer was when its thread entered an operation, with `ONCE` if the claim ends with it; `IDLE`
    /// outside. Written by that thread, or under the world's lock when it is gone.
    pub busy: AtomicUsize,
    /// The thread's way into the heap, made once.
    session: UnsafeCell<MaybeUninit<Session<'static>>>,
    attachment: AtomicPtr<Attachment>,
    // What the Rust API's fast path needs ends here, with the first cache line.
    base: AtomicUsize,
    len: AtomicUsize,
    /// 1 + the index of the handle whose context it holds; 0 while it holds none. Written under the world's lock.
    pub holds: AtomicU32,
    /// Its thread's id. Written under the world's lock.
    tid: AtomicU32,
    /// The next claim of the same thread, or of the list of free ones.
    pub next: AtomicPtr<Claim>,
    /// What to give back; None behind a gate, where seats have the contexts.
    context: UnsafeCell<MaybeUninit<Option<ContextId>>>,
}

const _: () = assert!(offset_of!(Claim, base) == 64 && size_of::<Claim>() == 128);

// SAFETY: the cells are written under the world's lock before `key` is published, and used by the claim's thread while it
// is inside, or under the lock while it is not.
unsafe impl Sync for Claim {}

impl Claim {
    /// Whether its thread may use it for another handle.
    fn is_spare(&self) -> bool {
        self.holds.load(Ordering::Relaxed) == 0
            && self.busy.load(Ordering::Relaxed) == IDLE
            && self.key.load(Ordering::Relaxed) == 0
    }

    /// Marks it as inside an operation, by the stack pointer of the function that this becomes a part of.
    #[inline(always)]
    fn begin(&self) {
        // SAFETY: one plain store to a word that is ours, as a relaxed store of an atomic is on this processor; the compiler
        // knows of it, since nothing says that memory is not written. `self.busy` is a cell, so writing it is allowed.
        unsafe {
            asm!("mov [{claim} + {busy}], rsp", claim = in(reg) self, busy = const offset_of!(Claim, busy),
                 options(nostack, preserves_flags));
        }
        // Pairs with the heavy barrier of `retire`.
        compiler_fence(Ordering::SeqCst);
    }

    /// The operation that has begun, if the handle is still open.
    #[inline(always)]
    fn admit(&'static self, key: u64) -> Option<Inside> {
        if self.key.load(Ordering::Acquire) == key {
            return Some(Inside { claim: self });
        }
        self.busy.store(IDLE, Ordering::Release);
        None
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
    /// The thread's stack, as far as it could be told.
    stack: Cell<Stack>,
    /// Whether that was asked, and `Exit` registered.
    prepared: Cell<bool>,
}

thread_local! {
    // No destructor: its address and words stay usable to the thread's very end, and access needs no check.
    static LOCAL: Local = const {
        Local {
            slots: [const { Cell::new(null()) }; SLOTS],
            first: Cell::new(null()),
            stack: Cell::new(Stack::UNKNOWN),
            prepared: Cell::new(false),
        }
    };
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
            guard
                .claims()
                .iter()
                .filter(|claim| claim.thread.load(Ordering::Relaxed) == me)
                .for_each(|c| end(&guard, c));
        });
    }
}

/// An operation under way: no other thread uses its context, and the handle stays attached until it is dropped.
pub(crate) struct Inside {
    claim: &'static Claim,
}

/// The value of `Claim::busy` outside of operations.
const IDLE: usize = 0;
/// The bit in it that says that the claim is only for this operation. Stack pointers are multiples of 8.
const ONCE: usize = 1;

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
        // The stack pointer that `known` would have noted: it is compared with such ones.
        None => enter_slowly(key, local, stack::pointer()),
    })
}

impl Local {
    fn address(&self) -> usize {
        (&raw const *self) as usize
    }

    fn slot(&self, key: u64) -> &Cell<*const Claim> {
        &self.slots[key as usize % SLOTS]
    }

    /// The fast path. A part of `enter` in every build, since the stack pointer is noted here.
    #[inline(always)]
    fn known(&self, key: u64) -> Option<Inside> {
        // SAFETY: null, or a claim; those are never unmapped.
        let claim: &'static Claim = unsafe { self.slot(key).get().as_ref() }?;
        if claim.thread.load(Ordering::Relaxed) != self.address() || claim.busy.load(Ordering::Relaxed) != IDLE {
            return None;
        }
        claim.begin();
        claim.admit(key)
    }

    /// This thread's claims in this process.
    fn claims(&self) -> impl Iterator<Item = &'static Claim> {
        let me = self.address();
        // SAFETY: null, or a claim; those are never unmapped.
        let next = move |at: *const Claim| unsafe { at.as_ref() }.filter(|c| c.thread.load(Ordering::Relaxed) == me);
        std::iter::successors(next(self.first.get()), move |c| next(c.next.load(Ordering::Relaxed)))
    }

    /// Enters by one of this thread's idle claims, and puts it at hand.
    fn find(&self, key: u64, sp: usize) -> Option<Inside> {
        let fits = |c: &&Claim| c.key.load(Ordering::Relaxed) == key && c.busy.load(Ordering::Relaxed) == IDLE;
        let claim = self.claims().find(fits)?;
        self.slot(key).set(claim);
        claim.busy.store(sp, Ordering::Relaxed);
        compiler_fence(Ordering::SeqCst);
        claim.admit(key)
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

    /// Asks and registers what a thread needs for its first claim, once. Both allocate, so no lock is held that a handler may
    /// want which interrupted malloc.
    fn prepare(&self) {
        if !self.prepared.get() {
            let _quiet = Quiet::begin();
            self.stack.set(Stack::of_this_thread());
            // A thread whose destructors have run is told so again when it matters.
            let _ = EXIT.try_with(|_| ());
            self.prepared.set(true);
        }
    }

    fn forget(&self) {
        self.slots.iter().chain([&self.first]).for_each(|cell| cell.set(null()));
    }
}

/// The first operation of a thread, of a forked child, inside a signal handler, after a jump out of one, or by a handle that
/// is none.
#[cold]
#[inline(never)]
fn enter_slowly(key: u64, local: &Local, sp: usize) -> Result<Inside, Refused> {
    enter_anew(key, local, sp).map_err(Refused::from)
}

fn enter_anew(key: u64, local: &Local, sp: usize) -> Result<Inside, Error> {
    // More handles than slots: this thread has a claim, only not at hand.
    if let Some(inside) = local.find(key, sp) {
        return Ok(inside);
    }
    // For no handle nothing is prepared: that answer allocates nothing, whoever asks.
    if !handle::is_open(key) {
        return Err(Error::Closed);
    }
    local.prepare();
    let (guard, index) = handle::attached(key)?;
    recover_left(&guard, local, sp);
    // Again: another thread may have wanted this one's context and given it up while we waited for the lock.
    if let Some(inside) = local.find(key, sp) {
        return Ok(inside);
    }
    // A busy claim of the same handle: this is a signal handler that interrupted one of its operations. And a thread whose
    // destructors have run can keep nothing. (`EXIT` is registered by now, which allocates.)
    let interrupted = local.claims().any(|claim| claim.key.load(Ordering::Relaxed) == key);
    let once = interrupted || EXIT.try_with(|_| ()).is_err();
    let spare = local.claims().filter(|_| !once).find(|claim| claim.is_spare());
    let claim = spare.or_else(|| guard.new_claim()).ok_or(TOO_MANY_CLAIMS)?;
    if !once && let Some(attachment) = guard.attachment(index, key) {
        attachment.disown_thread(process::thread_id());
    }
    if let Err(e) = fill(&guard, claim, index, key) {
        if spare.is_none() {
            guard.free_claim(claim);
        }
        return Err(e);
    }
    claim.busy.store(if once { sp | ONCE } else { sp }, Ordering::Relaxed);
    if !once {
        local.keep(key, claim, spare.is_none());
    }
    claim.tid.store(process::thread_id(), Ordering::Relaxed);
    claim.thread.store(local.address(), Ordering::Relaxed);
    claim.key.store(key, Ordering::Release);
    Ok(Inside { claim })
}

/// Ends what this thread jumped out of, and what threads left that ended without a word (by the system call itself).
fn recover_left(guard: &Guard, local: &Local, sp: usize) {
    let (me, tid) = (local.address(), process::thread_id());
    let is_left = |claim: &&Claim| {
        let (busy, thread) = (claim.busy.load(Ordering::Relaxed) & !ONCE, claim.thread.load(Ordering::Relaxed));
        let (my_words, my_id) = (thread == me, claim.tid.load(Ordering::Relaxed) == tid);
        match thread {
            0 => false,
            _ if my_words && my_id => busy != IDLE && local.stack.get().has_left(busy, sp),
            // Its words, or its id, became mine.
            _ if my_words || my_id => true,
            _ => busy != IDLE && process::thread_gone(claim.tid.load(Ordering::Relaxed)),
        }
    };
    for claim in guard.claims().iter().filter(is_left) {
        let kept = local.claims().any(|mine| std::ptr::eq(mine, claim));
        if kept { vacate(guard, claim) } else { end(guard, claim) }
    }
}

const TOO_MANY_CLAIMS: Error = Error::Full {
    what: "pairs of a thread and a heap can be in use in a process",
    limit: 1 << 16,
    remedy: "let threads end, or close heaps",
};

/// Ties a claim to a fresh op context.
fn fill(guard: &Guard, claim: &Claim, index: usize, key: u64) -> Result<(), Error> {
    let attachment = guard.attachment(index, key).ok_or(Error::Closed)?;
    let (session, context) = match &attachment.way {
        Way::Direct(client) => {
            let context = context_for(guard, index, key, client)?;
            // SAFETY: the context was claimed for this thread, and the attachment stays until the claim is released.
            (unsafe { client.session(context) }, Some(context))
        }
        Way::Gated(gated, _, window) => {
            signals::look_again();
            let session = match window {
                Some(window) => Session::readable(*gated, window, guard.tally(claim)),
                None => Session::gated(*gated),
            };
            (session, None)
        }
    };
    claim.attachment.store((&raw const *attachment).cast_mut(), Ordering::Relaxed);
    claim.base.store(attachment.mapping.base() as usize, Ordering::Relaxed);
    claim.len.store(attachment.mapping.len(), Ordering::Relaxed);
    // SAFETY: under the lock, and the claim has no key yet.
    unsafe {
        (*claim.session.get()).write(session);
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
        let idle = |c: &&Claim| c.busy.load(Ordering::Relaxed) == IDLE;
        let taken = guard.claims().iter().filter(held).filter(idle).any(|claim| {
            retire(claim);
            if claim.busy.load(Ordering::Acquire) == IDLE {
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
        // SAFETY: `holds` said that the context and the attachment are there: an attachment is taken from its place only after
        // all its claims were released.
        let (attachment, context) =
            unsafe { (&*claim.attachment.load(Ordering::Relaxed), (*claim.context.get()).assume_init()) };
        match (&attachment.way, context) {
            (Way::Direct(client), Some(context)) => client.release_context(context, process::thread_id()),
            // SAFETY: nobody is inside, and what is ended is the session of that attachment.
            _ => unsafe { (*claim.session.get()).assume_init_mut() }.end(),
        }
    }
}

/// Takes everything from a claim whose thread is not inside, or never will be again: its thread may use it for any handle.
fn vacate(guard: &Guard, claim: &Claim) {
    release(guard, claim);
    claim.key.store(0, Ordering::Relaxed);
    claim.busy.store(IDLE, Ordering::Release);
}

/// The same when its thread will not look at it again either.
fn end(guard: &Guard, claim: &'static Claim) {
    vacate(guard, claim);
    guard.free_claim(claim);
}

/// To be called before the world's lock is taken for `retire_all`.
pub(crate) fn prepare() {
    LOCAL.with(Local::prepare);
}

/// How long closing waits for threads that are inside an operation.
const CLOSE_PATIENCE: Duration = Duration::from_secs(5);

/// Takes every thread's claim on a handle that no table names any more. False if a thread stays inside (it is
/// stopped, or is the caller's own, interrupted by a signal handler): the attachment must then stay too. `sp` is the stack
/// pointer of the function that closes.
pub(crate) fn retire_all(guard: Guard, index: usize, sp: usize) -> bool {
    LOCAL.with(|local| recover_left(&guard, local, sp));
    let of_handle = |c: &&Claim| c.holds.load(Ordering::Relaxed) == index as u32 + 1;
    let (world, claims) = (guard.world(), guard.claims());
    claims.iter().filter(of_handle).for_each(|claim| claim.key.store(0, Ordering::Relaxed));
    // Threads leave without the lock.
    drop(guard);
    process::heavy_barrier();
    let me = LOCAL.with(Local::address);
    let started = Instant::now();
    let inside = |c: &&Claim| c.busy.load(Ordering::Acquire) != IDLE;
    while let Some(claim) = claims.iter().filter(of_handle).find(inside) {
        if claim.thread.load(Ordering::Relaxed) == me || started.elapsed() > CLOSE_PATIENCE {
            return false;
        }
        process::pause(Duration::from_micros(50));
    }
    let Some(guard) = world.lock() else { return false };
    claims.iter().filter(of_handle).for_each(|claim| release(&guard, claim));
    true
}

/// Whether the calling thread is inside an operation (on any handle): then it is in a signal handler that interrupted it.
pub(crate) fn is_inside(guard: &Guard) -> bool {
    let me = LOCAL.with(Local::address);
    let inside = |c: &Claim| c.busy.load(Ordering::Relaxed) != IDLE && c.thread.load(Ordering::Relaxed) == me;
    guard.claims().iter().any(inside)
}

/// Makes the calling thread forget its claims; they are its parent's, in a world that this process left.
pub(crate) fn forget() {
    LOCAL.with(Local::forget);
}

impl Inside {
    /// The operations.
    #[inline]
    pub fn session(&mut self) -> &mut Session<'static> {
        // SAFETY: the claim is this thread's, busy, and its key was the handle's after that: session, client and context stay
        // until `self` is dropped. `&mut self` keeps it to one user at a time.
        unsafe { (*self.claim.session.get()).assume_init_mut() }
    }

    fn attachment(&self) -> &Attachment {
        // SAFETY: as in `session`.
        unsafe { &*self.claim.attachment.load(Ordering::Relaxed) }
    }

    /// The heap's map.
    pub fn geometry(&self) -> &Geometry {
        &self.attachment().geometry
    }

    /// This process's client slot.
    pub fn slot(&self) -> u32 {
        self.attachment().slot
    }

    /// What keeps the program out of the heap between calls.
    pub fn isolation(&self) -> Isolation {
        self.attachment().isolation()
    }

    /// Bytes of the mapping.
    pub fn len(&self) -> usize {
        self.claim.len.load(Ordering::Relaxed)
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
        let outside = end <= base || start >= base + self.claim.len.load(Ordering::Relaxed);
        start != 0 && outside && self.attachment().admits(start, len)
    }

    /// The error for a status of an operation on a key and a value of these lengths.
    #[cold]
    pub fn error(&self, status: Status, key_len: usize, value_len: usize) -> Error {
        Error::of_operation(status, key_len, value_len, self.geometry().item_size_max)
    }
}

impl Drop for Inside {
    #[inline]
    fn drop(&mut self) {
        if self.claim.busy.load(Ordering::Relaxed) & ONCE != 0 {
            return end_once(self.claim);
        }
        self.claim.busy.store(IDLE, Ordering::Release);
    }
}

#[cold]
#[inline(never)]
fn end_once(claim: &'static Claim) {
    // The lock cannot be this thread's own: it was free when the operation began, and nothing below this frame took it.
    if let Some(guard) = World::get().and_then(World::lock) {
        end(&guard, claim);
    }
}
