//! The sign that this address space exists: a lock that ends with it, whatever ends it, and with nothing else.
//!
//! ```text
//! open -> lock a byte that nobody has -> map a page -> MADV_DONTFORK -> close
//! ```
//! From then on the mapping alone keeps the open file description, and with it the lock. The lock is a read lock, which a
//! descriptor for reading suffices for; it keeps nobody out, so every client draws a byte of its own.

use crate::kept::KeptFile;
use crate::{process, room};
use plib_core::Heap;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd, RawFd};
use std::ptr::null_mut;

const PAGE: usize = 4096;
/// Bytes that are drawn before it counts as a fault that all are locked: there are 2^39.
const DRAWS: u32 = 16;

/// A held lock byte. It does not survive fork.
#[derive(Debug)]
pub(crate) struct Liveness {
    page: *mut libc::c_void,
    len: usize,
    /// Which byte.
    pub lock_byte: u64,
    /// A descriptor without locks, by which others are asked after.
    pub lock_fd: RawFd,
}

impl Liveness {
    /// Begins to be alive for who looks at `locks`; `file` is a new open file description of that.
    pub fn begin(locks: &KeptFile, file: File) -> io::Result<Self> {
        let lock_byte = lock_a_byte(&file)?;
        let len = room::huge_page(file.as_fd())?.unwrap_or(PAGE);
        // Inaccessible: nobody has anything to read there.
        // SAFETY: a fresh mapping.
        let page = unsafe { libc::mmap(null_mut(), len, libc::PROT_NONE, libc::MAP_SHARED, file.as_raw_fd(), 0) };
        if page == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        let liveness = Self { page, len, lock_byte, lock_fd: locks.fd() };
        // SAFETY: the range is this mapping.
        process::checked(unsafe { libc::madvise(page, len, libc::MADV_DONTFORK) })?;
        Ok(liveness)
    }
}

impl Drop for Liveness {
    fn drop(&mut self) {
        // SAFETY: the mapping is ours, and nothing points into it.
        unsafe { libc::munmap(self.page, self.len) };
    }
}

/// Locks a byte that nobody has locked.
fn lock_a_byte(file: &File) -> io::Result<u64> {
    for _ in 0..DRAWS {
        let [drawn, ..] = process::secret()?;
        let offset = Heap::lock_offset(drawn);
        match plib_core::sys::byte_locked(file.as_raw_fd(), offset) {
            // Two who draw the same at the same time, once in 2^39, seem alive until both are dead.
            Some(false) => return lock_byte(file, offset).map(|()| drawn % plib_core::LOCK_BYTES),
            Some(true) => {}
            None => return Err(io::ErrorKind::Unsupported.into()),
        }
    }
    Err(io::ErrorKind::ResourceBusy.into())
}

/// A read lock for the file's open file description.
fn lock_byte(file: &File, offset: u64) -> io::Result<()> {
    let lock = libc::flock {
        l_type: libc::F_RDLCK as libc::c_short,
        l_whence: libc::SEEK_SET as libc::c_short,
        l_start: offset as libc::off_t,
        l_len: 1,
        // Must be 0 for these locks.
        l_pid: 0,
    };
    // SAFETY: `lock` is a valid struct flock.
    process::checked(unsafe { libc::fcntl(file.as_raw_fd(), libc::F_OFD_SETLK, &raw const lock) }).map(drop)
}
