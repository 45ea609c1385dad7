//! A stretch of work that nothing takes a thread out of: no signal handler runs that might jump away, exit the thread or call
//! us again, and no cancellation unwinds it.

use std::ffi::c_int;

unsafe extern "C" {
    // POSIX; the libc crate does not have it for Linux.
    fn pthread_setcancelstate(state: c_int, old: *mut c_int) -> c_int;
}

/// glibc's and musl's number.
const CANCEL_DISABLE: c_int = 1;

/// A kernel's signal set.
type SignalSet = u64;

/// All signals but those that a thread raises by what it does itself: blocked, they would kill the process, and sandboxes
/// (SIGSYS), debuggers (SIGTRAP) and collectors that write-protect memory (SIGSEGV) answer them and go on. The two that libc
/// keeps to itself, for cancellation and for setuid in all threads, are blocked too.
const FROM_OUTSIDE: SignalSet = {
    let own = [libc::SIGILL, libc::SIGTRAP, libc::SIGBUS, libc::SIGFPE, libc::SIGSEGV, libc::SIGSYS];
    let (mut set, mut i) = (SignalSet::MAX, 0);
    while i < own.len() {
        set &= !(1 << (own[i] - 1));
        i += 1;
    }
    set
};

/// Keeps the thread at its work until it is dropped. Signals that come meanwhile are handled then.
#[derive(Debug)]
pub(crate) struct Quiet {
    signals: SignalSet,
    cancelling: c_int,
}

impl Quiet {
    /// Begins the stretch. Signals first: a handler that jumps away in between must not leave the thread uncancellable.
    pub fn begin() -> Self {
        let signals = exchange_mask(FROM_OUTSIDE);
        Self { signals, cancelling: exchange_cancelling(CANCEL_DISABLE) }
    }
}

impl Drop for Quiet {
    /// Signals last, for the same reason. A cancellation that waited and is asynchronous happens in the first line: that
    /// thread ends with its signals blocked.
    fn drop(&mut self) {
        exchange_cancelling(self.cancelling);
        exchange_mask(self.signals);
    }
}

fn exchange_mask(set: SignalSet) -> SignalSet {
    let mut old = set;
    // SAFETY: both sets are ours and as large as said. By the system call: libc's function leaves its own signals out.
    unsafe {
        libc::syscall(libc::SYS_rt_sigprocmask, libc::SIG_SETMASK, &raw const set, &raw mut old, size_of::<SignalSet>())
    };
    old
}

fn exchange_cancelling(state: c_int) -> c_int {
    let mut old = state;
    // SAFETY: takes a state and a place for the old one.
    unsafe { pthread_setcancelstate(state, &mut old) };
    old
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stretches_nest_and_give_back_what_they_found() {
        let now = || {
            let set = exchange_mask(FROM_OUTSIDE);
            exchange_mask(set);
            set
        };
        let before = now();
        let outer = Quiet::begin();
        // The kernel never blocks SIGKILL and SIGSTOP.
        let never = 1 << (libc::SIGKILL - 1) | 1 << (libc::SIGSTOP - 1);
        assert_eq!(now(), FROM_OUTSIDE & !never);
        drop(Quiet::begin());
        assert_eq!(now(), FROM_OUTSIDE & !never);
        drop(outer);
        assert_eq!(now(), before);
    }
}
