//! The program's signal handlers, in a process whose heaps are guarded: none of them may run in the middle of a call (see
//! `plib_core::gate`). So those that there are get wrapped when the first heap is guarded and when a thread makes its first
//! call, and those that come later by the functions below, which stand in the place of the C library's.
//!
//! They do so where the program is linked with this library or has it preloaded. In one that loads it later, handlers may come
//! that nobody wraps; there the stacks of calls carry no key, so that such a handler finds a stack that it can run on.

use crate::image::Image;
use crate::process;
use libc::{c_int, sighandler_t};
use plib_core::gate::{Handlers, insert_stub, last_place, wrap_handlers};
use plib_core::sys;
use std::ffi::CStr;
use std::mem::{MaybeUninit, transmute};
use std::ptr::{null, null_mut};
use std::sync::atomic::{AtomicPtr, AtomicU32, AtomicU64, AtomicUsize, Ordering};

/// What the kernel is given in the place of handlers: the `on_signal` of the first image of this library's.
static STUB: AtomicUsize = AtomicUsize::new(0);
/// That one's table, where the chain of images begins. Null while handlers are not wrapped.
static FIRST: AtomicPtr<Handlers> = AtomicPtr::new(null_mut());
/// The process that wraps. A vfork()ed child is another, with this one's memory.
static OWNER: AtomicU32 = AtomicU32::new(0);
/// Signals that interrupt system calls for good, as `siginterrupt` was told, and as a kernel's signal set.
static INTERRUPTING: AtomicU64 = AtomicU64::new(0);

/// What the kernel is given in the place of handlers in a process with this image: the stub of the first one.
pub(crate) fn stub_with(image: Image) -> usize {
    match STUB.load(Ordering::SeqCst) {
        0 => image.stub(),
        first => first,
    }
}

/// Begins to wrap handlers for an image. (One that comes second stands behind the first: the kernel calls the first's stub, that one
/// the second's, and that the program's handler, so each is asked whether it is one of its calls that was interrupted.)
pub(crate) fn begin(image: Image) {
    make_libc_set_its_own();
    OWNER.store(process::process_id(), Ordering::SeqCst);
    let (stub, table) = (image.stub(), image.handlers());
    match first() {
        None => {
            STUB.store(stub, Ordering::SeqCst);
            FIRST.store((&raw const *table).cast_mut(), Ordering::SeqCst);
        }
        Some(first) => (1..table.len()).for_each(|signal| insert_stub(first, stub, table, signal)),
    }
    wrap_handlers(stub_with(image), first().unwrap_or(table));
}

fn first() -> Option<&'static Handlers> {
    // SAFETY: null, or those of an image, which stays mapped.
    unsafe { FIRST.load(Ordering::SeqCst).as_ref() }
}

/// After a fork, in the child.
pub(crate) fn after_fork() {
    OWNER.store(process::process_id(), Ordering::SeqCst);
}

/// The C library sets its handlers of cancellation and of setuid in all threads when the first thread is made and cancelled, past
/// everybody. So that happens now.
fn make_libc_set_its_own() {
    extern "C" fn sleeper(_: *mut libc::c_void) -> *mut libc::c_void {
        loop {
            // SAFETY: a cancellation point, which ends the loop. This frame has nothing to drop.
            unsafe { libc::pause() };
        }
    }
    /// SIGCANCEL and SIGSETXID.
    const LIBCS_OWN: u64 = 0b11 << 31;
    let mut thread = MaybeUninit::uninit();
    // The caller keeps all signals out, and older C libraries would hand that on to the thread, which then could not be cancelled.
    sys::unblock(LIBCS_OWN);
    // SAFETY: the thread's id is written if the answer is 0, and the thread is joined.
    unsafe {
        if libc::pthread_create(thread.as_mut_ptr(), null(), sleeper, null_mut()) == 0 {
            libc::pthread_cancel(thread.assume_init());
            libc::pthread_join(thread.assume_init(), null_mut());
        }
    }
    sys::block(LIBCS_OWN);
}

/// Wraps handlers that came without our knowledge. For a thread's first call.
pub(crate) fn look_again() {
    if let Some(first) = first() {
        wrap_handlers(STUB.load(Ordering::SeqCst), first);
    }
}

/// Linux before this one cannot write a signal's frame onto a stack behind a closed key, as it must when a second signal comes
/// before the first one's stub has opened it.
const FRAMES_BEHIND_KEYS: (u32, u32) = (6, 12);

/// Whether calls can work on stacks that carry the key: every handler that the program sets through the C library comes by here, the
/// kernel can write its frames, and no other image's stub stands before ours, which would look at a frame that is behind our key.
pub(crate) fn allow_keyed_stacks() -> bool {
    kernel_allows_keyed_stacks() && sees_all() && first().is_none()
}

/// The kernel's part in that.
pub(crate) fn kernel_allows_keyed_stacks() -> bool {
    process::kernel_version() >= FRAMES_BEHIND_KEYS
}

fn sees_all() -> bool {
    // SAFETY: a C string; the answer is only looked up.
    let first = unsafe { libc::dlsym(libc::RTLD_DEFAULT, SIGACTION.name.as_ptr()) };
    // By the module and not by `sigaction`'s address: in a library that is loaded late that name means the C library's.
    module_of(first as usize).is_some_and(|module| Some(module) == module_of(set as *const () as usize))
}

/// Where the module is loaded that an address belongs to.
fn module_of(address: usize) -> Option<usize> {
    // SAFETY: zeroes are a valid record, which is filled in if the answer is not 0.
    unsafe {
        let mut found: libc::Dl_info = std::mem::zeroed();
        (libc::dladdr(address as *const _, &raw mut found) != 0).then_some(found.dli_fbase as usize)
    }
}

/// A function of the C library's that one of ours stands before.
struct Real {
    name: &'static CStr,
    address: AtomicUsize,
}

impl Real {
    const fn new(name: &'static CStr) -> Self {
        Self { name, address: AtomicUsize::new(0) }
    }

    /// Its address; 0 if there is none.
    fn get(&self) -> usize {
        if self.address.load(Ordering::Relaxed) == 0 {
            // SAFETY: a C string. What comes next after this library is the C library's.
            let found = unsafe { libc::dlsym(libc::RTLD_NEXT, self.name.as_ptr()) };
            self.address.store(found as usize, Ordering::Relaxed);
        }
        self.address.load(Ordering::Relaxed)
    }
}

static SIGACTION: Real = Real::new(c"sigaction");
static SIGNAL: Real = Real::new(c"signal");
static SYSV_SIGNAL: Real = Real::new(c"__sysv_signal");
static SIGSET: Real = Real::new(c"sigset");
static SIGINTERRUPT: Real = Real::new(c"siginterrupt");

/// Looks the C library's functions up as soon as the library is loaded: later they may be asked for by a signal handler.
#[used]
#[unsafe(link_section = ".init_array")]
static LOOK_UP: extern "C" fn() = look_up;

extern "C" fn look_up() {
    for real in [&SIGACTION, &SIGNAL, &SYSV_SIGNAL, &SIGSET, &SIGINTERRUPT] {
        real.get();
    }
}

type Sigaction = unsafe extern "C" fn(c_int, *const libc::sigaction, *mut libc::sigaction) -> c_int;
type Signal = unsafe extern "C" fn(c_int, sighandler_t) -> sighandler_t;
type Siginterrupt = unsafe extern "C" fn(c_int, c_int) -> c_int;

fn fail<T>(number: c_int, answer: T) -> T {
    // SAFETY: the thread's own errno.
    unsafe { *libc::__errno_location() = number };
    answer
}

/// Where the program's handler for a signal belongs, if it is to be wrapped: not while nothing is, and not in a vfork()ed child,
/// whose handlers are its own.
fn place_of(signal: c_int) -> Option<&'static AtomicUsize> {
    let place = last_place(first()?, usize::try_from(signal).ok().filter(|number| *number > 0)?)?;
    (OWNER.load(Ordering::SeqCst) == process::process_id()).then_some(place)
}

unsafe fn set(signal: c_int, new: *const libc::sigaction, old: *mut libc::sigaction) -> c_int {
    // SAFETY: null, or the function of that name.
    let Some(real) = (unsafe { transmute::<usize, Option<Sigaction>>(SIGACTION.get()) }) else {
        return fail(libc::ENOSYS, -1);
    };
    let Some(place) = place_of(signal) else {
        // SAFETY: passed on.
        return unsafe { real(signal, new, old) };
    };
    let stub = STUB.load(Ordering::SeqCst) as sighandler_t;
    let before = place.load(Ordering::SeqCst);
    // SAFETY: passed on; the caller's structs are read and written as the C library does.
    unsafe {
        let mut wrapped;
        let mut given = new;
        if !new.is_null() && (*new).sa_sigaction > libc::SIG_IGN && (*new).sa_sigaction != stub {
            wrapped = *new;
            place.store(wrapped.sa_sigaction, Ordering::SeqCst);
            wrapped.sa_sigaction = stub;
            wrapped.sa_flags |= libc::SA_SIGINFO;
            given = &raw const wrapped;
        }
        let result = real(signal, given, old);
        if result != 0 {
            place.store(before, Ordering::SeqCst);
        } else if !old.is_null() && (*old).sa_sigaction == stub {
            (*old).sa_sigaction = before;
        }
        result
    }
}

/// Sets a handler with these flags and nothing else blocked but, if wanted, its own signal; the handler before.
unsafe fn set_simply(signal: c_int, handler: sighandler_t, flags: c_int, blocks_itself: bool) -> sighandler_t {
    if handler == libc::SIG_ERR {
        return fail(libc::EINVAL, libc::SIG_ERR);
    }
    // SAFETY: zeroes are a valid struct; handlers are passed on.
    unsafe {
        let mut new: libc::sigaction = std::mem::zeroed();
        let mut old: libc::sigaction = std::mem::zeroed();
        new.sa_sigaction = handler;
        new.sa_flags = flags;
        libc::sigemptyset(&raw mut new.sa_mask);
        if blocks_itself && libc::sigaddset(&raw mut new.sa_mask, signal) != 0 {
            return libc::SIG_ERR;
        }
        if set(signal, &raw const new, &raw mut old) == 0 { old.sa_sigaction } else { libc::SIG_ERR }
    }
}

/// Calls the C library's function, if it is wanted: while nothing is wrapped.
unsafe fn pass_on(real: &Real, signal: c_int, handler: sighandler_t) -> Option<sighandler_t> {
    if first().is_some() {
        return None;
    }
    // SAFETY: null, or the function of that name; passed on.
    unsafe { transmute::<usize, Option<Signal>>(real.get()).map(|real| real(signal, handler)) }
}

unsafe fn set_bsd(signal: c_int, handler: sighandler_t) -> sighandler_t {
    let bit = 1 << (signal.wrapping_sub(1) as u32 % 64);
    let interrupts = INTERRUPTING.load(Ordering::Relaxed) & bit != 0;
    // SAFETY: passed on.
    unsafe {
        pass_on(&SIGNAL, signal, handler)
            .unwrap_or_else(|| set_simply(signal, handler, if interrupts { 0 } else { libc::SA_RESTART }, true))
    }
}

unsafe fn set_sysv(signal: c_int, handler: sighandler_t) -> sighandler_t {
    // SAFETY: passed on.
    unsafe {
        pass_on(&SYSV_SIGNAL, signal, handler)
            .unwrap_or_else(|| set_simply(signal, handler, libc::SA_RESETHAND | libc::SA_NODEFER, false))
    }
}

/// The C library's function, but for handlers in a process with guarded heaps: those are called after a call of ours, not during one.
/// (A program that has the C library within itself keeps that one's.)
///
/// # Safety
/// As the C library's.
#[cfg_attr(not(target_feature = "crt-static"), unsafe(no_mangle))]
pub unsafe extern "C" fn sigaction(signal: c_int, new: *const libc::sigaction, old: *mut libc::sigaction) -> c_int {
    // SAFETY: passed on.
    unsafe { set(signal, new, old) }
}

/// Functions that stand before the C library's of the same names, which set handlers without `sigaction`.
macro_rules! stand_before {
    ($($name:ident => $set:ident,)*) => { $(
        #[doc = concat!("The C library's `", stringify!($name), "`, likewise.")]
        ///
        /// # Safety
        /// As the C library's.
        #[cfg_attr(not(target_feature = "crt-static"), unsafe(no_mangle))]
        pub unsafe extern "C" fn $name(signal: c_int, handler: sighandler_t) -> sighandler_t {
            // SAFETY: passed on.
            unsafe { $set(signal, handler) }
        }
    )* };
}

stand_before! {
    signal => set_bsd,
    bsd_signal => set_bsd,
    ssignal => set_bsd,
    __sysv_signal => set_sysv,
    sysv_signal => set_sysv,
    sigset => set_xsi,
}

/// sigset(3): a handler that does not restart system calls, and the signal let in; or the signal kept out.
unsafe fn set_xsi(signal: c_int, handler: sighandler_t) -> sighandler_t {
    const SIG_HOLD: sighandler_t = 2;
    // SAFETY: passed on; sets are this function's own.
    unsafe {
        if let Some(answer) = pass_on(&SIGSET, signal, handler) {
            return answer;
        }
        let (mut one, mut before) = (MaybeUninit::uninit(), MaybeUninit::uninit());
        libc::sigemptyset(one.as_mut_ptr());
        if libc::sigaddset(one.as_mut_ptr(), signal) != 0 {
            return libc::SIG_ERR;
        }
        let held = |set: &MaybeUninit<libc::sigset_t>| libc::sigismember(set.as_ptr(), signal) == 1;
        if handler == SIG_HOLD {
            let mut now: libc::sigaction = std::mem::zeroed();
            libc::pthread_sigmask(libc::SIG_BLOCK, one.as_ptr(), before.as_mut_ptr());
            if held(&before) {
                return SIG_HOLD;
            }
            return if set(signal, null(), &raw mut now) == 0 { now.sa_sigaction } else { libc::SIG_ERR };
        }
        let old = set_simply(signal, handler, 0, false);
        if old == libc::SIG_ERR {
            return old;
        }
        libc::pthread_sigmask(libc::SIG_UNBLOCK, one.as_ptr(), before.as_mut_ptr());
        if held(&before) { SIG_HOLD } else { old }
    }
}

/// The C library's function, whose effect on later handlers is remembered.
///
/// # Safety
/// As the C library's.
#[cfg_attr(not(target_feature = "crt-static"), unsafe(no_mangle))]
pub unsafe extern "C" fn siginterrupt(signal: c_int, interrupt: c_int) -> c_int {
    // SAFETY: null, or the function of that name.
    let Some(real) = (unsafe { transmute::<usize, Option<Siginterrupt>>(SIGINTERRUPT.get()) }) else {
        return fail(libc::ENOSYS, -1);
    };
    // SAFETY: passed on.
    let result = unsafe { real(signal, interrupt) };
    if result == 0 {
        let bit = 1 << (signal.wrapping_sub(1) as u32 % 64);
        if interrupt != 0 {
            INTERRUPTING.fetch_or(bit, Ordering::Relaxed);
        } else {
            INTERRUPTING.fetch_and(!bit, Ordering::Relaxed);
        }
    }
    result
}
