//! A file that this process and its forked children come back to: by a descriptor that is kept, or by the path where the
//! program has closed that.

use crate::error::Error;
use crate::{name, process};
use std::fs::{File, Metadata};
use std::os::fd::{AsRawFd, FromRawFd, IntoRawFd, OwnedFd, RawFd};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

/// The kept descriptor goes to a number that programs seldom reach, so that code which closes or dup2()s low numbers
/// misses it.
const FROM: libc::c_int = 200;

/// A file, known by its device and inode.
#[derive(Debug)]
pub(crate) struct KeptFile {
    path: PathBuf,
    device: u64,
    inode: u64,
    fd: RawFd,
    write: bool,
}

impl KeptFile {
    /// Keeps an open file (readable; writable if `write` says so) that `path` led to.
    pub fn new(path: &Path, write: bool, file: File, metadata: &Metadata) -> Self {
        let path = std::path::absolute(path).unwrap_or_else(|_| path.to_path_buf());
        Self { path, device: metadata.dev(), inode: metadata.ino(), fd: move_up(file), write }
    }

    /// Where it was.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The kept descriptor; it may be something else's by now.
    pub fn fd(&self) -> RawFd {
        self.fd
    }

    /// A new open file description of the file. NoHeap if it is not to be found any more.
    pub fn reopen(&self) -> Result<(File, Metadata), Error> {
        let by_descriptor = || {
            let flags = libc::O_NONBLOCK | libc::O_NOCTTY;
            let path = format!("/proc/self/fd/{}", self.fd);
            File::options().read(true).write(self.write).custom_flags(flags).open(path)
        };
        let (file, metadata) = match self.status().and_then(|_| by_descriptor().ok()) {
            Some(file) => {
                let metadata = file.metadata().map_err(|e| Error::io("look at", &self.path, e))?;
                (file, metadata)
            }
            None => name::open_regular(&self.path, self.write)?,
        };
        if (metadata.dev(), metadata.ino()) != (self.device, self.inode) {
            return Err(Error::NoHeap(self.path.clone()));
        }
        Ok((file, metadata))
    }

    /// What the file is now; None if the program closed the kept descriptor.
    pub fn status(&self) -> Option<libc::stat> {
        // SAFETY: zeroes are a valid stat, and the kernel fills it in; a closed descriptor is an error.
        let (known, stat) = unsafe {
            let mut stat: libc::stat = std::mem::zeroed();
            (libc::fstat(self.fd, &mut stat) == 0, stat)
        };
        (known && (stat.st_dev, stat.st_ino) == (self.device, self.inode)).then_some(stat)
    }
}

impl Drop for KeptFile {
    fn drop(&mut self) {
        if self.status().is_some() {
            // SAFETY: it is the descriptor that `new` made and that only this value owns.
            drop(unsafe { OwnedFd::from_raw_fd(self.fd) });
        }
    }
}

/// Moves a descriptor out of the way of the program's own.
fn move_up(file: File) -> RawFd {
    // SAFETY: takes a descriptor and numbers only.
    match process::checked(unsafe { libc::fcntl(file.as_raw_fd(), libc::F_DUPFD_CLOEXEC, FROM) }) {
        Ok(high) => high,
        // The limit of open files is lower than that; any number works.
        Err(_) => file.into_raw_fd(),
    }
}
