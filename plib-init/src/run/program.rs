//! The program to be started, and what this process must take back before it becomes that.

use super::error::RunError;
use std::ffi::{CString, OsString, c_int};
use std::io;
use std::os::unix::ffi::OsStringExt;
use std::sync::atomic::{AtomicUsize, Ordering};

/// A program with its arguments, and variables to be set in its environment.
#[derive(Debug)]
pub struct Program {
    /// What to look for in PATH, or a path; and the arguments.
    pub command: Vec<OsString>,
    /// Variables more.
    pub environment: Vec<(OsString, OsString)>,
}

impl Program {
    /// The command as the system call wants it.
    pub(super) fn arguments(&self) -> Result<Vec<CString>, RunError> {
        let c_string = |argument: &OsString| {
            let refused = |_| RunError::Program { name: argument.clone(), source: io::ErrorKind::InvalidInput.into() };
            CString::new(argument.clone().into_vec()).map_err(refused)
        };
        self.command.iter().map(c_string).collect()
    }

    /// Becomes it. Returns only if that fails.
    pub(super) fn execute(&self, arguments: &[CString]) -> RunError {
        for (name, value) in &self.environment {
            // SAFETY: this process has one thread.
            unsafe { std::env::set_var(name, value) };
        }
        signals_as_they_were();
        let mut pointers: Vec<_> = arguments.iter().map(|argument| argument.as_ptr()).collect();
        pointers.push(std::ptr::null());
        if let [first, ..] = *pointers
            && !first.is_null()
        {
            // SAFETY: C strings that live through the call, and a null pointer behind them.
            unsafe { libc::execvp(first, pointers.as_ptr()) };
        }
        RunError::Program {
            name: self.command.first().cloned().unwrap_or_default(),
            source: io::Error::last_os_error(),
        }
    }
}

/// Signals that the Rust runtime or `plib` ignores, and what they were before: programs inherit what is ignored.
static BEFORE: [(c_int, AtomicUsize); 2] =
    [(libc::SIGPIPE, AtomicUsize::new(libc::SIG_DFL)), (libc::SIGXFSZ, AtomicUsize::new(libc::SIG_DFL))];

/// Looks before the Rust runtime begins.
#[used]
#[unsafe(link_section = ".init_array")]
static LOOK: extern "C" fn() = look;

extern "C" fn look() {
    for (signal, before) in &BEFORE {
        // SAFETY: zeroes are a valid action, which is filled in.
        let action = unsafe {
            let mut action: libc::sigaction = std::mem::zeroed();
            libc::sigaction(*signal, std::ptr::null(), &raw mut action);
            action
        };
        before.store(action.sa_sigaction, Ordering::Relaxed);
    }
}

fn signals_as_they_were() {
    for (signal, before) in &BEFORE {
        // SAFETY: it was default or ignored when the process began; this installs no code.
        unsafe { libc::signal(*signal, before.load(Ordering::Relaxed)) };
    }
}
