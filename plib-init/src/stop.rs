//! Ending a command that runs until it is told to: SIGINT and SIGTERM are taken between steps, never in the middle of one.

use std::time::Duration;

/// Says when to stop. While it lives the signals wait for it.
pub(crate) struct Stop {
    signals: libc::sigset_t,
    before: libc::sigset_t,
}

impl Stop {
    /// To be called while the process has one thread.
    pub(crate) fn listen() -> Self {
        // SAFETY: both sets are ours and are filled in by the calls; zeroes are a value of theirs.
        unsafe {
            let mut stop = Self { signals: std::mem::zeroed(), before: std::mem::zeroed() };
            libc::sigemptyset(&mut stop.signals);
            libc::sigaddset(&mut stop.signals, libc::SIGINT);
            libc::sigaddset(&mut stop.signals, libc::SIGTERM);
            libc::sigprocmask(libc::SIG_BLOCK, &stop.signals, &mut stop.before);
            stop
        }
    }

    /// Waits that long; true at once when told to stop.
    pub(crate) fn within(&self, time: Duration) -> bool {
        let time =
            libc::timespec { tv_sec: time.as_secs() as libc::time_t, tv_nsec: time.subsec_nanos() as libc::c_long };
        // SAFETY: the set and the time are ours; nothing is wanted to know about the signal.
        unsafe { libc::sigtimedwait(&self.signals, std::ptr::null_mut(), &time) > 0 }
    }
}

impl Drop for Stop {
    fn drop(&mut self) {
        // SAFETY: the set is what the kernel gave.
        unsafe { libc::sigprocmask(libc::SIG_SETMASK, &self.before, std::ptr::null_mut()) };
    }
}
