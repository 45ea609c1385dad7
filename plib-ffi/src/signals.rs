//! The program's signal handlers, in a process whose heaps are guarded: none of them may run in the middle of a call (see
//! `plib_core::gate`). So those that there are get wrapped when the first heap is guarded and when a thread makes its first
//! call, and those that come later by the functions below, which stand in the place of the C library's.
//!
//! They do so where the program is linked with this library or has it preloaded. In one that loads it later, handlers may come
//! that nobody wraps; there the stacks of calls carry no key, so that such a handler finds a stack that it can run on.

use crate::image::Image;
use libc::{c_int, sighandler_t};
use plib_core::gate::{Handlers, wrap_handlers};
use std::ffi::CStr;
use std::mem::MaybeUninit;
use std::ptr::{null, null_mut};
use std::sync::atomic::{AtomicPtr, AtomicUsize, Ordering};

type Sigaction = unsafe extern "C" fn(c_int, *const libc::sigaction, *mut libc::sigaction) -> c_int;

/// The C library's `sigaction`; 0 while it was not looked up.
static REAL: AtomicUsize = AtomicUsize::new(0);
/// What the kernel is given in the place of handlers: the `on_signal` of the first image.
static STUB: AtomicUsize = AtomicUsize::new(0);
/// Where the program's handlers are: in the last image. Null while handlers are not wrapped.
static INNERMOST: AtomicPtr<Handlers> = AtomicPtr::new(null_mut());

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
    real();
    make_libc_set_its_own();
    let handlers = image.handlers();
    match innermost() {
        None => {
            STUB.store(image.stub(), Ordering::SeqCst);
            INNERMOST.store((&raw const *handlers).cast_mut(), Ordering::SeqCst);
            wrap_handlers(image.stub(), handlers);
        }
        Some(before) => {
            for (new, old) in handlers.iter().zip(before) {
                new.store(old.load(Ordering::SeqCst), Ordering::SeqCst);
            }
            INNERMOST.store((&raw const *handlers).cast_mut(), Ordering::SeqCst);
            for (new, old) in handlers.iter().zip(before) {
                // What was set in between is not lost.
                new.store(old.swap(image.stub(), Ordering::SeqCst), Ordering::SeqCst);
            }
        }
    }
}

fn innermost() -> Option<&'static Handlers> {
    // SAFETY: null, or those of an image, which stays mapped.
    unsafe { INNERMOST.load(Ordering::SeqCst).as_ref() }
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
    let mut thread = MaybeUninit::uninit();
    // SAFETY: the thread's id is written if the answer is 0, and the thread is joined.
    unsafe {
        if libc::pthread_create(thread.as_mut_ptr(), null(), sleeper, null_mut()) == 0 {
            libc::pthread_cancel(thread.assume_init());
            libc::pthread_join(thread.assume_init(), null_mut());
        }
    }
}

/// Wraps handlers that came without our knowledge. For a thread's first call.
pub(crate) fn look_again() {
    if let Some(handlers) = innermost() {
        wrap_handlers(STUB.load(Ordering::SeqCst), handlers);
    }
}

/// Whether every handler that the program sets through the C library comes by here.
pub(crate) fn sees_all() -> bool {
    // SAFETY: a C string; the answer is only looked up.
    let first = unsafe { libc::dlsym(libc::RTLD_DEFAULT, NAME.as_ptr()) };
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

const NAME: &CStr = c"sigaction";

/// Looks the C library's function up as soon as the library is loaded: later it may be asked for by a signal handler.
#[used]
#[unsafe(link_section = ".init_array")]
static LOOK_UP: extern "C" fn() = look_up;

extern "C" fn look_up() {
    // SAFETY: a C string. What comes next after this library is the C library's.
    let real = unsafe { libc::dlsym(libc::RTLD_NEXT, NAME.as_ptr()) };
    REAL.store(real as usize, Ordering::Relaxed);
}

fn real() -> Option<Sigaction> {
    if REAL.load(Ordering::Relaxed) == 0 {
        // Another library's beginning came before ours.
        look_up();
    }
    // SAFETY: null, or the function of that name.
    unsafe { std::mem::transmute::<usize, Option<Sigaction>>(REAL.load(Ordering::Relaxed)) }
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

unsafe fn set(signal: c_int, new: *const libc::sigaction, old: *mut libc::sigaction) -> c_int {
    let Some(real) = real() else {
        // SAFETY: the thread's own errno.
        unsafe { *libc::__errno_location() = libc::ENOSYS };
        return -1;
    };
    let number = usize::try_from(signal).unwrap_or(0);
    let Some(place) = innermost().and_then(|handlers| handlers.get(number)) else {
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

/// The C library's function, likewise.
///
/// # Safety
/// As the C library's.
#[cfg_attr(not(target_feature = "crt-static"), unsafe(no_mangle))]
pub unsafe extern "C" fn signal(signal: c_int, handler: sighandler_t) -> sighandler_t {
    // SAFETY: zeroes are a valid struct; handlers are passed on.
    unsafe {
        let mut new: libc::sigaction = std::mem::zeroed();
        let mut old: libc::sigaction = std::mem::zeroed();
        new.sa_sigaction = handler;
        new.sa_flags = libc::SA_RESTART;
        libc::sigemptyset(&raw mut new.sa_mask);
        libc::sigaddset(&raw mut new.sa_mask, signal);
        if set(signal, &raw const new, &raw mut old) == 0 { old.sa_sigaction } else { libc::SIG_ERR }
    }
}
