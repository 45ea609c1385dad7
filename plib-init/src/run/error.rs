//! Why `plib run` did not start a program: one error for each thing that was refused, and each system call that failed.

use std::ffi::OsString;
use std::io;
use std::path::PathBuf;

/// Exit code: `plib run` itself failed. (As of `env` and `timeout`, so that it is told from most programs' own.)
pub const FAILED: u8 = 125;
/// Exit code: the program is there and cannot be started.
pub const NOT_STARTED: u8 = 126;
/// Exit code: there is no such program.
pub const NOT_FOUND: u8 = 127;

/// Why there is no program running.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// It is not to be done: what is in the way, and what would help.
    #[error("{what} {why}; {fix}")]
    Refused {
        /// What is in the way.
        what: String,
        /// What is wrong with it.
        why: String,
        /// What would help.
        fix: String,
    },
    /// A system call failed.
    #[error("{call}: {source}")]
    System {
        /// The call, with the arguments that tell it from its like.
        call: &'static str,
        /// What the kernel said.
        source: io::Error,
    },
    /// A system call on a file failed.
    #[error("{}: {call}: {source}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// The call.
        call: &'static str,
        /// What the kernel said.
        source: io::Error,
    },
    /// A system call in the new program failed.
    #[error("{call} in the new program: {source}")]
    Remote {
        /// The call.
        call: &'static str,
        /// What the kernel said.
        source: io::Error,
    },
    /// The new program did something else than it was made to do.
    #[error("the new program was to stop {wanted}, and the kernel says {found:#x} of it")]
    Unexpected {
        /// Where it was to stop.
        wanted: &'static str,
        /// The status that came instead.
        found: i32,
    },
    /// The new program has ended, which its parent is told by the kernel.
    #[error("the new program was killed before it began")]
    Gone,
    /// Privileges are left that should be gone.
    #[error("the new program would keep a privilege: {0}")]
    Kept(String),
    /// The program cannot be executed.
    #[error("cannot execute '{}': {source}", name.display())]
    Program {
        /// Its name.
        name: OsString,
        /// What the kernel said.
        source: io::Error,
    },
    /// The library refused.
    #[error(transparent)]
    Plib(#[from] plib::Error),
}

impl RunError {
    /// What is in the way, what is wrong with it, what would help.
    pub fn refused(what: impl Into<String>, why: impl Into<String>, fix: impl Into<String>) -> Self {
        Self::Refused { what: what.into(), why: why.into(), fix: fix.into() }
    }

    /// An error of a system call.
    pub(super) fn system<E: Into<io::Error>>(call: &'static str) -> impl FnOnce(E) -> Self {
        move |e| Self::System { call, source: e.into() }
    }

    /// The exit code.
    pub fn exit(&self) -> u8 {
        match self {
            Self::Program { source, .. } if source.raw_os_error() == Some(libc::ENOENT) => NOT_FOUND,
            Self::Program { .. } => NOT_STARTED,
            _ => FAILED,
        }
    }
}
