//! Which files may be given to a program: heaps that nobody but root can have tampered with, by name, content or place.
//!
//! The file is opened from the root directory down, one directory at a time, each of which is looked at when it is open; so what
//! is refused here cannot be slipped in afterwards.

use super::error::RunError;
use rustix::fs::{Mode, OFlags, Stat, fstat, openat};
use rustix::io::Errno;
use std::ffi::OsStr;
use std::fs::File;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Component, Path, PathBuf};

/// A heap that only the launcher can open.
#[derive(Debug)]
pub struct HeapFile {
    /// Its path, absolute and without links.
    pub path: PathBuf,
    /// The file, open for reading and writing.
    pub file: File,
    /// Its device.
    pub device: u64,
    /// Its inode.
    pub inode: u64,
}

/// What a heap's mode must be.
const MODE: u32 = 0o600;
/// May be written by group or others; the sticky bit.
const OPEN_TO_OTHERS: u32 = 0o022;
const STICKY: u32 = 0o1000;

impl HeapFile {
    /// Opens the heap at an absolute path.
    pub fn open(path: &Path) -> Result<Self, RunError> {
        let (Some(directory), Some(name)) = (path.parent(), path.file_name()) else {
            return Err(RunError::refused(path.display().to_string(), "is no file", "give the name of a heap"));
        };
        let directory = walk(directory)?;
        let flags = OFlags::RDWR | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
        let file = openat(&directory, name, flags, Mode::empty()).map_err(|errno| not_opened(path, errno))?;
        let stat = look_at(&file, path)?;
        check_file(path, &stat)?;
        Ok(Self { path: path.to_path_buf(), file: file.into(), device: stat.st_dev, inode: stat.st_ino })
    }

    /// Looks at the lock file beside the heap, which everybody may read and nobody but root write.
    pub fn check_locks(&self, path: &Path) -> Result<(), RunError> {
        let (Some(directory), Some(name)) = (path.parent(), path.file_name()) else {
            return Err(no_locks(path));
        };
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
        let file = openat(walk(directory)?, name, flags, Mode::empty()).map_err(|errno| match errno {
            Errno::NOENT => no_locks(path),
            errno => not_opened(path, errno),
        })?;
        let stat = look_at(&file, path)?;
        let is_roots = kind(&stat) == libc::S_IFREG && stat.st_uid == 0 && stat.st_nlink == 1;
        if !is_roots || stat.st_mode & OPEN_TO_OTHERS != 0 {
            let why = "is not root's alone: a file without links that only root may write";
            return Err(RunError::refused(path.display().to_string(), why, "destroy the heap and create it again"));
        }
        Ok(())
    }
}

fn no_locks(path: &Path) -> RunError {
    let why = "is not there, by which the heap's clients know of each other";
    RunError::refused(path.display().to_string(), why, "create the heap as root with mode 0600, which makes it")
}

/// Opens a directory in which nobody but root can put another file in the place of one of root's.
fn walk(path: &Path) -> Result<OwnedFd, RunError> {
    let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let mut seen = PathBuf::from("/");
    let opened = rustix::fs::open("/", flags, Mode::empty()).map_err(|errno| not_opened(&seen, errno))?;
    check_directory(&seen, &look_at(&opened, &seen)?)?;
    path.components().try_fold(opened, |within, component| {
        match component {
            Component::RootDir | Component::CurDir => return Ok(within),
            Component::Normal(name) => seen.push(name),
            Component::ParentDir | Component::Prefix(_) => {
                let fix = "give the path without '..'";
                return Err(RunError::refused(path.display().to_string(), "leads up again", fix));
            }
        }
        let name = seen.file_name().unwrap_or(OsStr::new("."));
        let next = openat(&within, name, flags, Mode::empty()).map_err(|errno| not_opened(&seen, errno))?;
        check_directory(&seen, &look_at(&next, &seen)?)?;
        Ok(next)
    })
}

fn look_at(file: impl AsFd, path: &Path) -> Result<Stat, RunError> {
    fstat(file).map_err(|errno| RunError::File { path: path.to_path_buf(), call: "fstat", source: errno.into() })
}

fn not_opened(path: &Path, errno: Errno) -> RunError {
    let shown = || path.display().to_string();
    match errno {
        Errno::NOENT | Errno::NOTDIR => {
            RunError::refused(shown(), "is not there", "make the heap as root: `plib create NAME`")
        }
        Errno::LOOP => RunError::refused(shown(), "is a symbolic link", "give the heap's own path"),
        errno => RunError::File { path: path.to_path_buf(), call: "open", source: errno.into() },
    }
}

fn kind(stat: &Stat) -> u32 {
    stat.st_mode & libc::S_IFMT
}

fn check_directory(path: &Path, stat: &Stat) -> Result<(), RunError> {
    let shown = path.display();
    let refused = |why: &str, fix: String| Err(RunError::refused(shown.to_string(), why, fix));
    let mode = stat.st_mode & 0o7777;
    match kind(stat) {
        libc::S_IFDIR => {}
        libc::S_IFLNK => return refused("is a symbolic link", "give the heap's path without links".into()),
        _ => return refused("is not a directory", "give the path of a heap".into()),
    }
    if stat.st_uid != 0 {
        return refused("belongs to another than root, who can exchange what is in it", format!("chown root {shown}"));
    }
    if mode & OPEN_TO_OTHERS != 0 && mode & STICKY == 0 {
        let why = format!("has mode {mode:04o}: others can exchange what is in it");
        return refused(&why, format!("chmod 0755 {shown} (or 1777: with the sticky bit)"));
    }
    Ok(())
}

fn check_file(path: &Path, stat: &Stat) -> Result<(), RunError> {
    let shown = path.display();
    let refused = |why: String, fix: &str| Err(RunError::refused(shown.to_string(), why, fix));
    let mode = stat.st_mode & 0o7777;
    if kind(stat) != libc::S_IFREG {
        return refused("is not a regular file".into(), "give the name of a heap");
    }
    if stat.st_uid != 0 {
        let fix = "heaps for `plib run` are root's: create it as root";
        return refused(format!("belongs to user {}, who can open it himself", stat.st_uid), fix);
    }
    if mode & 0o077 != 0 {
        let fix = "let them open it directly, without `plib run`, or: chmod 0600";
        return refused(format!("has mode {mode:04o}: others than root may open it"), fix);
    }
    if mode != MODE {
        return refused(format!("has mode {mode:04o}, not {MODE:04o}"), "chmod 0600");
    }
    if stat.st_nlink != 1 {
        let why = format!("has {} names", stat.st_nlink);
        return refused(why, "find the others (find -samefile) and remove them");
    }
    Ok(())
}
