//! Heap names and where their files are.

use crate::error::Error;
use crate::lock_file;
use plib_core::layout::MAGIC;
use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::{self, Read};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

/// Where heaps are when `PLIB_DIR` does not say: a tmpfs on every Linux distribution.
pub(crate) const DEFAULT_DIR: &str = "/dev/shm/plib";
/// Longest file name (NAME_MAX of linux/limits.h).
const NAME_MAX: usize = 255;

/// The directory of heaps that are given by name.
pub(crate) fn directory() -> PathBuf {
    match std::env::var_os("PLIB_DIR") {
        Some(dir) if !dir.is_empty() => PathBuf::from(dir),
        _ => PathBuf::from(DEFAULT_DIR),
    }
}

fn is_path(name: &OsStr) -> bool {
    name.as_bytes().contains(&b'/')
}

/// The file of a heap, whether or not it exists.
pub(crate) fn path_of(name: &OsStr) -> PathBuf {
    if is_path(name) { PathBuf::from(name) } else { directory().join(name) }
}

/// The file of a heap, or why this cannot be one.
pub(crate) fn checked_path(name: &OsStr) -> Result<PathBuf, Error> {
    let bytes = name.as_bytes();
    let last = bytes.rsplit(|b| *b == b'/').next().unwrap_or_default();
    let why = if last.is_empty() {
        "it is empty"
    } else if bytes.contains(&0) {
        "it contains a zero byte"
    } else if last == b"." || last == b".." {
        "it is a directory"
    } else if last.starts_with(b".") && !is_path(name) {
        "it starts with '.' (give a path, ./NAME, if you mean it)"
    } else if last.len() > NAME_MAX {
        "it is longer than 255 bytes"
    } else {
        return Ok(path_of(name));
    };
    Err(Error::Name { name: name.to_string_lossy().into_owned(), why })
}

/// Makes the directory of named heaps when it is missing. Root makes it as /tmp is, so that every user can create
/// heaps of their own there.
pub(crate) fn prepare_directory(name: &OsStr) -> Result<(), Error> {
    let dir = directory();
    if is_path(name) || dir.is_dir() {
        return Ok(());
    }
    match fs::DirBuilder::new().mode(0o755).create(&dir) {
        Err(e) if e.kind() == io::ErrorKind::AlreadyExists => return Ok(()),
        Err(e) => return Err(Error::io("make the directory", &dir, e)),
        Ok(()) => {}
    }
    // SAFETY: takes nothing and cannot fail.
    let root = unsafe { libc::geteuid() } == 0;
    // Set again after the umask has had its say.
    let mode = if root { 0o1777 } else { 0o755 };
    fs::set_permissions(&dir, fs::Permissions::from_mode(mode)).map_err(|e| Error::io("set the mode of", &dir, e))
}

/// Opens what must be a regular file, without following a link or waiting for a pipe.
pub(crate) fn open_regular(path: &Path, write: bool) -> Result<(File, fs::Metadata), Error> {
    let seen = fs::symlink_metadata(path).map_err(|e| missing("look at", path, e))?;
    regular(path, &seen)?;
    let file = File::options()
        .read(true)
        .write(write)
        .custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK | libc::O_NOCTTY)
        .open(path)
        .map_err(|e| missing("open", path, e))?;
    // Looked at again: the name may mean another file by now.
    let opened = file.metadata().map_err(|e| Error::io("look at", path, e))?;
    regular(path, &opened)?;
    Ok((file, opened))
}

fn missing(doing: &'static str, path: &Path, e: io::Error) -> Error {
    match e.raw_os_error() {
        Some(libc::ENOENT | libc::ENOTDIR) => Error::NoHeap(path.to_path_buf()),
        Some(libc::ELOOP) => Error::NotAHeap { path: path.to_path_buf(), what: "it is a symbolic link".into() },
        _ => Error::io(doing, path, e),
    }
}

fn regular(path: &Path, metadata: &fs::Metadata) -> Result<(), Error> {
    let what = match metadata.mode() & libc::S_IFMT {
        libc::S_IFREG => return Ok(()),
        libc::S_IFDIR => "it is a directory",
        libc::S_IFLNK => "it is a symbolic link",
        _ => "it is a device, pipe or socket",
    };
    Err(Error::NotAHeap { path: path.to_path_buf(), what: what.into() })
}

/// Whether the file starts as heaps do.
pub(crate) fn has_magic(mut file: &File) -> bool {
    let mut magic = [0; 8];
    file.read_exact(&mut magic).is_ok() && u64::from_le_bytes(magic) == MAGIC
}

/// The heaps of the directory that this user may read, sorted by name.
pub(crate) fn list() -> Result<Vec<PathBuf>, Error> {
    let dir = directory();
    let entries = match fs::read_dir(&dir) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(e) => return Err(Error::io("list", &dir, e)),
        Ok(entries) => entries,
    };
    let mut heaps: Vec<PathBuf> = entries
        .filter_map(|entry| Some(entry.ok()?.path()))
        .filter(|path| open_regular(path, false).is_ok_and(|(file, _)| has_magic(&file)))
        .collect();
    heaps.sort();
    Ok(heaps)
}

/// Removes a heap's file, and its lock file before (see there). Processes that have it open keep it until they close it.
pub(crate) fn destroy(name: &OsStr) -> Result<(), Error> {
    let path = checked_path(name)?;
    let (file, metadata) = open_regular(&path, false)?;
    if !has_magic(&file) {
        let what = if lock_file::has_magic(&file) {
            "it is the lock file of one, and goes with its heap"
        } else {
            "it does not start with a heap's magic; remove it yourself if you mean it"
        };
        return Err(Error::NotAHeap { path, what: what.into() });
    }
    lock_file::remove(&path, metadata.uid())?;
    fs::remove_file(&path).map_err(|e| missing("remove", &path, e))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_paths() {
        assert_eq!(path_of(OsStr::new("./a")), Path::new("./a"));
        assert!(path_of(OsStr::new("a")).ends_with("a"));
        for bad in ["", "/", "a/", ".", "..", "x/..", ".hidden", "a\0b"] {
            assert!(matches!(checked_path(OsStr::new(bad)), Err(Error::Name { .. })), "{bad:?}");
        }
        assert!(checked_path(OsStr::new("./.hidden")).is_ok());
        assert!(checked_path(OsStr::new(&"x".repeat(256))).is_err());
        assert!(checked_path(OsStr::new(&"x".repeat(255))).is_ok());
    }
}
