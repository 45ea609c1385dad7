//! The file beside a launcher heap that has the lock bytes of its clients: `NAME.lock`.
//!
//! A heap that only root may open is used by processes that a launcher starts with the heap mapped, and that cannot open it
//! themselves. So their locks are on another file, which everybody may open for reading; a read lock needs no more. It is tied
//! to its heap by an id that both carry.
//!
//! ```text
//! magic "pliblock" 8 | id 16 | zeros
//! ```
//! It is there, and complete, before its heap has a name, and nothing ever replaces it: a second creator takes the one that
//! it finds, be it of another creator at work or left behind. (Clients' lock bytes are drawn at random, so those who still use
//! a removed heap do not disturb.) It goes before its heap goes. So whoever links a heap while another removes one of the same
//! name finds out by looking for the lock file once more.

use crate::draft::Draft;
use crate::error::Error;
use crate::kept::KeptFile;
use crate::mapping::Mapping;
use crate::{name, process};
use std::ffi::OsStr;
use std::fs::{self, File, Metadata, Permissions};
use std::io;
use std::os::fd::AsFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

const MAGIC: [u8; 8] = *b"pliblock";
const SUFFIX: &str = ".lock";
/// Readable for everybody: a client under any user locks its byte.
const MODE: u32 = 0o444;
/// Bytes of the file; the file system may round them up (hugetlbfs to a huge page, which its mapping needs anyway).
const SIZE: usize = 4096;
const HEAD: usize = 24;
/// Others may make and remove a lock file of the name while one is looked for.
const TRIES: u32 = 100;

/// The lock file of the heap at `heap`.
pub(crate) fn path_of(heap: &Path) -> PathBuf {
    let mut path = heap.as_os_str().to_owned();
    path.push(SUFFIX);
    path.into()
}

/// Whether a heap's lock file could be named so.
pub(crate) fn is_name(name: &OsStr) -> bool {
    name.as_bytes().ends_with(SUFFIX.as_bytes())
}

/// Whether the file starts as lock files do.
pub(crate) fn has_magic(file: &File) -> bool {
    read(file).is_some()
}

/// Its id, if it is a lock file.
fn read(file: &File) -> Option<[u64; 2]> {
    let mut head = [0; HEAD];
    file.read_exact_at(&mut head, 0).ok()?;
    let ([magic, id @ ..], _) = head.as_chunks::<8>() else { return None };
    (*magic == MAGIC).then(|| [u64::from_le_bytes(id[0]), u64::from_le_bytes(id[1])])
}

/// Opens and checks the lock file of a heap that belongs to user `owner`.
pub(crate) fn open(heap: &Path, owner: u32, id: [u64; 2]) -> Result<KeptFile, Error> {
    let path = path_of(heap);
    let wrong = |what: String| Error::LockFile { path: path.clone(), what };
    let (file, metadata) = match name::open_regular(&path, false) {
        Err(Error::NoHeap(_)) => return Err(wrong("it is missing".into())),
        Err(Error::NotAHeap { what, .. }) => return Err(wrong(what)),
        other => other?,
    };
    if metadata.uid() != owner {
        return Err(wrong(format!("it belongs to user {}, its heap to user {owner}", metadata.uid())));
    }
    match read(&file) {
        None => Err(wrong("it does not start with a lock file's magic".into())),
        Some(found) if found != id => Err(wrong("it was made for another heap".into())),
        Some(_) => Ok(KeptFile::new(&path, false, file, &metadata)),
    }
}

/// A lock file that is there for a heap to be made.
pub(crate) struct Provided {
    path: PathBuf,
    device: u64,
    inode: u64,
    /// What the heap has to carry.
    pub id: [u64; 2],
}

/// Makes the lock file for the heap at `heap`, or takes the one that is there.
pub(crate) fn provide(heap: &Path) -> Result<Provided, Error> {
    let path = path_of(heap);
    for _ in 0..TRIES {
        if let Some(provided) = find(heap, &path)? {
            return Ok(provided);
        }
        match make(&path) {
            Err(Error::AlreadyExists(_)) => {}
            other => return other,
        }
    }
    Err(Error::AlreadyExists(path))
}

/// The lock file that is there; None if nothing is.
fn find(heap: &Path, path: &Path) -> Result<Option<Provided>, Error> {
    let taken = || Error::Name {
        name: heap.display().to_string(),
        why: "its lock file would be that with '.lock' behind it, and something else has that name",
    };
    let (file, metadata) = match name::open_regular(path, false) {
        Err(Error::NoHeap(_)) => return Ok(None),
        Err(Error::NotAHeap { .. }) => return Err(taken()),
        other => other?,
    };
    let id = read(&file).filter(|_| metadata.uid() == process::user()).ok_or_else(taken)?;
    Ok(Some(Provided::new(path, &metadata, id)))
}

fn make(path: &Path) -> Result<Provided, Error> {
    let io = |doing| move |e| Error::io(doing, path, e);
    let draft = Draft::new(path)?;
    draft.reserve(SIZE as u64, path)?;
    let [a, b, ..] = process::secret().map_err(io("get random numbers for"))?;
    let id = [a | 1, b];
    write(&draft.file, id).map_err(io("write"))?;
    draft.file.set_permissions(Permissions::from_mode(MODE)).map_err(io("set the mode of"))?;
    let metadata = draft.file.metadata().map_err(io("look at"))?;
    // Where files outlive the machine's fall, this one does not outlive it empty.
    draft.file.sync_all().map_err(io("write back"))?;
    draft.publish(path)?;
    Ok(Provided::new(path, &metadata, id))
}

/// Through a mapping: files of hugetlbfs cannot be written otherwise.
fn write(file: &File, [a, b]: [u64; 2]) -> io::Result<()> {
    let mapping = Mapping::new(file.as_fd(), SIZE, None)?;
    let head = [MAGIC, a.to_le_bytes(), b.to_le_bytes()];
    // SAFETY: the mapping is fresh, writable, backed by reserved space, and longer than that.
    unsafe { mapping.base().copy_from(head.as_ptr().cast(), HEAD) };
    Ok(())
}

impl Provided {
    fn new(path: &Path, metadata: &Metadata, id: [u64; 2]) -> Self {
        Self { path: path.to_path_buf(), device: metadata.dev(), inode: metadata.ino(), id }
    }

    /// Whether it still has its name.
    pub fn is_there(&self) -> bool {
        fs::symlink_metadata(&self.path).is_ok_and(|now| (now.dev(), now.ino()) == (self.device, self.inode))
    }
}

/// Removes the lock file of a heap that belongs to user `owner`, if there is one. What is something else stays.
pub(crate) fn remove(heap: &Path, owner: u32) -> Result<(), Error> {
    let path = path_of(heap);
    let is_ours = |(file, metadata): (File, Metadata)| metadata.uid() == owner && has_magic(&file);
    if !name::open_regular(&path, false).is_ok_and(is_ours) {
        return Ok(());
    }
    match fs::remove_file(&path) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => Err(Error::io("remove", &path, e)),
        _ => Ok(()),
    }
}
