//! A file that is made whole before it gets its name.

use crate::error::Error;
use crate::process;
use crate::room::Room;
use std::fs::{self, File};
use std::io;
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

/// Readable and writable for the owner alone.
pub(crate) const OWNER_ONLY: u32 = 0o600;

/// A file that has no name yet, or, where the file system cannot do that, a hidden one.
pub(crate) struct Draft {
    pub file: File,
    hidden: Option<PathBuf>,
}

impl Draft {
    /// For a file that is to be at `path`.
    pub fn new(path: &Path) -> Result<Self, Error> {
        let dir = match path.parent() {
            Some(dir) if dir != Path::new("") => dir,
            _ => Path::new("."),
        };
        let open = |flags, at: &Path, new| {
            File::options().read(true).write(true).create_new(new).mode(OWNER_ONLY).custom_flags(flags).open(at)
        };
        match open(libc::O_TMPFILE, dir, false) {
            Ok(file) => Ok(Self { file, hidden: None }),
            Err(e) if matches!(e.raw_os_error(), Some(libc::EOPNOTSUPP | libc::EISDIR)) => {
                let random = process::secret().map_err(|e| Error::io("get random numbers for", path, e))?;
                let hidden = dir.join(format!(".plib-new-{:016x}", random[0]));
                let file = open(libc::O_NOFOLLOW, &hidden, true).map_err(|e| Error::io("create", &hidden, e))?;
                Ok(Self { file, hidden: Some(hidden) })
            }
            Err(e) => Err(Error::io("create a file for", path, e)),
        }
    }

    /// Reserves the space, so that running out of it is an error here and not a signal later.
    pub fn reserve(&self, size: u64, path: &Path) -> Result<(), Error> {
        let room = Room::beside(self.file.as_fd()).map_err(|e| Error::io("ask about the room for", path, e))?;
        let Room { free, block } = room;
        let wanted = size.next_multiple_of(block.max(1));
        let no_space = || Error::NoSpace { path: path.to_path_buf(), wanted, free };
        if wanted > free {
            return Err(no_space());
        }
        loop {
            // SAFETY: takes a descriptor and numbers only.
            match process::checked(unsafe { libc::fallocate(self.file.as_raw_fd(), 0, 0, wanted as i64) }) {
                Ok(_) => return Ok(()),
                Err(e) => match e.raw_os_error() {
                    Some(libc::EINTR) => {}
                    Some(libc::ENOSPC | libc::EDQUOT | libc::EFBIG | libc::ENOMEM) => return Err(no_space()),
                    _ => return Err(Error::io("reserve the space of", path, e)),
                },
            }
        }
    }

    /// Gives the file its name; an error if there is a file of that name.
    pub fn publish(&self, path: &Path) -> Result<(), Error> {
        let linked = match &self.hidden {
            Some(hidden) => fs::hard_link(hidden, path),
            None => self.link_open_file(path),
        };
        linked.map_err(|e| Error::io("give its name to", path, e))
    }

    fn link_open_file(&self, path: &Path) -> io::Result<()> {
        let from = process::c_path(Path::new(&format!("/proc/self/fd/{}", self.file.as_raw_fd())))?;
        let to = process::c_path(path)?;
        // SAFETY: both are C strings that live through the call.
        let result = unsafe {
            libc::linkat(libc::AT_FDCWD, from.as_ptr(), libc::AT_FDCWD, to.as_ptr(), libc::AT_SYMLINK_FOLLOW)
        };
        process::checked(result).map(drop)
    }
}

impl Drop for Draft {
    fn drop(&mut self) {
        if let Some(hidden) = &self.hidden {
            // Its name was never the file's; a failure leaves a file that `ls -a` shows.
            let _ = fs::remove_file(hidden);
        }
    }
}
