//! Children of a plain fork, which go on in the same program.

/// Forks; the child runs `act` and ends. A child that hangs is ended by its alarm.
pub fn fork(act: impl FnOnce()) -> i32 {
    // SAFETY: the child uses the handle, which is made for this, and libc's allocator, which libc
    // keeps usable in the child; it then ends without running anything of the parent's.
    match unsafe { libc::fork() } {
        0 => {
            // SAFETY: a plain system call.
            unsafe { libc::alarm(60) };
            let outcome = std::panic::catch_unwind(std::panic::AssertUnwindSafe(act));
            // SAFETY: ends this process and nothing else.
            unsafe { libc::_exit(if outcome.is_ok() { 0 } else { 1 }) }
        }
        pid => {
            assert!(pid > 0, "fork: {}", std::io::Error::last_os_error());
            pid
        }
    }
}

/// Waits for the good end of a forked child.
pub fn wait_for(pid: i32) {
    let mut status = 0;
    // SAFETY: `status` is a place for the status of a child of ours.
    assert_eq!(unsafe { libc::waitpid(pid, &mut status, 0) }, pid);
    assert!(libc::WIFEXITED(status), "the forked child died of signal {}", libc::WTERMSIG(status));
    assert_eq!(libc::WEXITSTATUS(status), 0, "the forked child failed");
}
