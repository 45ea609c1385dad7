//! Which frames of a thread's stack are gone.
//!
//! A signal handler may jump out of an operation (`longjmp`), and nobody tells the operation. But a stack is used from its
//! top downwards: what runs now at a higher address than an operation did was not called by it, and neither by a signal
//! handler that interrupted it. So the operation's frame was left for good.
//!
//! ```text
//! high |  main ...      |             |  main ...      |
//!      |  plib_set      | <- then     |  plib_get      | <- now: not below `then`, so plib_set is gone
//!      |  signal frame  |             |                |
//!      |  handler       |             :                :
//!      |  plib_get      | <- now: may return through the handler into plib_set
//! low  :                :
//! ```
//! This holds on one stack only. A handler on an alternate stack, and coroutines on stacks that the program made, prove
//! nothing: there every operation counts as waiting.

use std::arch::asm;
use std::mem::MaybeUninit;

/// How much lower `now` may be than `then` and the frame of `then` still be gone: different functions of the API have frames of
/// different size (50 to 400 bytes) under the same caller.
///
/// An interrupted operation's handler is always lower than this. Below the frame that it interrupts the kernel leaves a
/// red zone of 128 bytes and writes a `struct rt_sigframe` of 440 (return address 8, ucontext 304, siginfo 128) and the
/// processor's floating-point state of at least 512 (FXSAVE; more with AVX): 1080 bytes without the handler's own frame.
const FRAME_SLACK: usize = 768;
/// Stacks are believed to be at most this large. The limit of the main thread's may be "unlimited", and other memory may
/// lie below what it uses.
const STACK_MAX: usize = 16 << 20;

/// A thread's own stack; none of it is known at first.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Stack {
    low: usize,
    high: usize,
}

impl Stack {
    /// Nothing is on it.
    pub const UNKNOWN: Self = Self { low: 0, high: 0 };

    /// The calling thread's. May read files and allocate: not for signal handlers.
    pub fn of_this_thread() -> Self {
        let mut attributes = MaybeUninit::<libc::pthread_attr_t>::uninit();
        let (mut start, mut size) = (std::ptr::null_mut(), 0);
        // SAFETY: the attributes are filled in by the first call, used by the second, and destroyed by the third.
        unsafe {
            if libc::pthread_getattr_np(libc::pthread_self(), attributes.as_mut_ptr()) != 0 {
                return Self::UNKNOWN;
            }
            let known = libc::pthread_attr_getstack(attributes.as_ptr(), &mut start, &mut size) == 0;
            libc::pthread_attr_destroy(attributes.as_mut_ptr());
            if !known {
                return Self::UNKNOWN;
            }
        }
        let high = start as usize + size;
        Self { low: high - size.min(STACK_MAX), high }
    }

    fn holds(self, place: usize) -> bool {
        (self.low..self.high).contains(&place)
    }

    /// Whether the frame that was at `then` is gone, as seen from one at `now`, both taken by [`pointer`] in the same function.
    /// False where that cannot be told.
    pub fn has_left(self, then: usize, now: usize) -> bool {
        self.holds(then) && self.holds(now) && now + FRAME_SLACK > then && !on_alternate_stack()
    }
}

/// The stack pointer.
#[inline(always)]
pub(crate) fn pointer() -> usize {
    let pointer: usize;
    // SAFETY: copies a register.
    unsafe { asm!("mov {}, rsp", out(reg) pointer, options(nomem, nostack, preserves_flags)) };
    pointer
}

/// Whether this code runs on the thread's alternate signal stack. (That stack may be a part of the thread's own.)
fn on_alternate_stack() -> bool {
    let mut now = MaybeUninit::<libc::stack_t>::uninit();
    // SAFETY: only asks; the kernel fills the record in when it answers 0.
    unsafe {
        libc::sigaltstack(std::ptr::null(), now.as_mut_ptr()) != 0 || now.assume_init().ss_flags & libc::SS_ONSTACK != 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_lower_frames_of_the_same_stack_are_gone() {
        let (stack, here) = (Stack::of_this_thread(), pointer());
        assert!(stack.holds(here) && !Stack::UNKNOWN.holds(here));
        assert!(stack.has_left(here, here) && stack.has_left(here - 4096, here));
        assert!(stack.has_left(here, here - FRAME_SLACK + 1) && !stack.has_left(here, here - FRAME_SLACK));
        let elsewhere = &raw const *Box::new(0) as usize;
        assert!(!stack.has_left(elsewhere, here) && !stack.has_left(here, elsewhere));
        assert!(!Stack::UNKNOWN.has_left(here, here));
    }
}
