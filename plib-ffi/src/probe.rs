//! Whether a policy on system calls (seccomp) kills whoever makes those that guarding a heap needs. A service that is told to use
//! none but certain ones dies of them, where it could do without the guard.
//!
//! So where there is a policy, a child makes them first. It shares nothing with the program, runs no handlers of its, and is no
//! child that the program's own waiting finds (it sends no signal when it ends).

use std::io;
use std::ptr::null;
use std::sync::atomic::{AtomicBool, Ordering};

/// Whether a child was killed. Policies never become laxer, so that is not tried again.
static KILLS: AtomicBool = AtomicBool::new(false);

/// Whether this process may make those system calls, or be refused, and live.
pub(crate) fn survives() -> bool {
    if KILLS.load(Ordering::Relaxed) {
        return false;
    }
    let survives = !has_policy() || child_survives();
    KILLS.store(!survives, Ordering::Relaxed);
    survives
}

/// Whether system calls are filtered, as far as /proc tells.
fn has_policy() -> bool {
    let status = std::fs::read_to_string("/proc/thread-self/status").unwrap_or_default();
    status.lines().any(|line| line.strip_prefix("Seccomp:").is_some_and(|mode| mode.trim() != "0"))
}

fn child_survives() -> bool {
    // SAFETY: a fork without the C library's part in it: the child, which has its own copy of everything, makes system calls on
    // memory of its own and ends by one.
    unsafe {
        match libc::syscall(libc::SYS_clone, 0, 0, 0, 0, 0) {
            -1 => false,
            0 => {
                make_calls();
                libc::syscall(libc::SYS_exit_group, 0);
                unreachable!("the process has ended")
            }
            child => {
                let mut status = 0;
                while libc::waitpid(child as libc::pid_t, &raw mut status, libc::__WCLONE) == -1 {
                    if io::Error::last_os_error().raw_os_error() != Some(libc::EINTR) {
                        return false;
                    }
                }
                libc::WIFEXITED(status) && libc::WEXITSTATUS(status) == 0
            }
        }
    }
}

/// Those that a process makes to guard a heap, and later when signals come into a call. What they answer does not matter.
///
/// # Safety
/// Only for a child that ends right after it.
unsafe fn make_calls() {
    let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS;
    // SAFETY: a page of the child's own, and numbers; null is refused by the kernel.
    unsafe {
        let page = libc::syscall(libc::SYS_mmap, 0, 4096, libc::PROT_NONE, flags, -1, 0);
        let key = libc::syscall(libc::SYS_pkey_alloc, 0, 0);
        libc::syscall(libc::SYS_pkey_mprotect, page, 4096, libc::PROT_READ | libc::PROT_WRITE, key.max(0));
        libc::syscall(libc::SYS_pkey_free, key);
        libc::syscall(libc::SYS_memfd_create, c"plib-image".as_ptr(), libc::MFD_CLOEXEC);
        libc::syscall(libc::SYS_rt_sigaction, 0, null::<u8>(), null::<u8>(), 8);
        libc::syscall(libc::SYS_rt_tgsigqueueinfo, 0, 0, 0, null::<u8>());
    }
}
