//! Making a heap file: complete, with its space reserved, before its name appears.
//!
//! A heap that root makes for root alone is a *launcher heap*: its clients' lock bytes are in a file beside it (see
//! [`crate::lock_file`]), so that processes can be its clients which are given its mapping and cannot open it. The header says so,
//! whatever becomes of the file's mode later.

use crate::draft::{Draft, OWNER_ONLY};
use crate::error::Error;
use crate::mapping::Mapping;
use crate::{lock_file, name, pages, process};
use plib_core::Heap;
use plib_core::layout::{CreateParams, Geometry, ITEM_SIZE_MAX_DEFAULT};
use std::ffi::{CString, OsStr};
use std::fs::{self, File, Permissions};
use std::os::fd::AsFd;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

/// How a heap is to be made.
///
/// ```
/// use plib::CreateOptions;
/// let options = CreateOptions::new(64 << 20).item_size_max(4 << 20).mode(0o660).group("users".to_string());
/// # let _ = options;
/// ```
#[derive(Clone, Debug)]
pub struct CreateOptions {
    size: u64,
    item_size_max: u32,
    contexts: u32,
    mode: u32,
    group: Option<String>,
    huge: bool,
    readable: bool,
}

/// Those of group and others.
const OTHERS: u32 = 0o077;
const PERMISSION_BITS: u32 = 0o777;

impl CreateOptions {
    /// A heap of `size` bytes (8 MiB to 1 TiB, index and tables included), for its owner alone, with items of up to
    /// 1 MiB (or a quarter of a heap too small for that).
    pub fn new(size: u64) -> Self {
        // A heap may give at most a quarter of itself to one item; a small one takes less than the default.
        let item_size_max = ITEM_SIZE_MAX_DEFAULT.min(u32::try_from(size / 4).unwrap_or(u32::MAX)).max(1024);
        Self { size, item_size_max, contexts: 0, mode: OWNER_ONLY, group: None, huge: false, readable: false }
    }

    /// The largest item (32 bytes of header, key and value), 1 KiB to 128 MiB and at most a quarter of the heap.
    pub fn item_size_max(mut self, bytes: u32) -> Self {
        self.item_size_max = bytes;
        self
    }

    /// How many threads of all processes may work at a time; 0 (the default) chooses by the heap's size.
    pub fn contexts(mut self, contexts: u32) -> Self {
        self.contexts = contexts;
        self
    }

    /// The file's permission bits, as of chmod; whoever can read and write the file can use the heap. A heap that root makes for
    /// itself alone (0600, the default) has its clients' locks in a file `NAME.lock` beside it, which everybody may read.
    pub fn mode(mut self, mode: u32) -> Self {
        self.mode = mode;
        self
    }

    /// The file's group, by name or number.
    pub fn group(mut self, group: String) -> Self {
        self.group = Some(group);
        self
    }

    /// Whether to ask the kernel for 2 MiB pages. [`HeapInfo::pages`](crate::HeapInfo) says what it gave.
    pub fn huge(mut self, huge: bool) -> Self {
        self.huge = huge;
        self
    }

    /// Whether programs read the heap without a gate where it is guarded: get, batches of gets and scans are then as fast as where
    /// nothing guards. Programs may read all of it, and still write nothing.
    pub fn readable(mut self, readable: bool) -> Self {
        self.readable = readable;
        self
    }

    fn is_for_launcher(&self) -> bool {
        process::user() == 0 && self.mode & OTHERS == 0
    }
}

/// Makes the file of a heap and gives its path.
pub(crate) fn create(name: &OsStr, options: &CreateOptions) -> Result<PathBuf, Error> {
    let path = name::checked_path(name)?;
    check_lock_name(name, options)?;
    if options.mode & !PERMISSION_BITS != 0 {
        return Err(Error::OutOfRange {
            field: "mode",
            limit: u64::from(PERMISSION_BITS),
            found: u64::from(options.mode),
        });
    }
    let group = options.group.as_deref().map(group_id).transpose()?;
    let geometry = Geometry::new(&params(options, [0; 2])).map_err(|fault| Error::fault(&path, fault))?;
    name::prepare_directory(name)?;
    if fs::symlink_metadata(&path).is_ok() {
        return Err(Error::AlreadyExists(path));
    }
    let draft = Draft::new(&path)?;
    draft.reserve(geometry.size, &path)?;
    if let Some(group) = group {
        std::os::unix::fs::fchown(&draft.file, None, Some(group))
            .map_err(|e| Error::io("set the group of", &path, e))?;
    }
    draft
        .file
        .set_permissions(Permissions::from_mode(options.mode))
        .map_err(|e| Error::io("set the mode of", &path, e))?;
    let lock = options.is_for_launcher().then(|| lock_file::provide(&path)).transpose()?;
    fill(&draft.file, &geometry, options, lock.as_ref().map_or([0; 2], |lock| lock.id), &path)?;
    draft.publish(&path)?;
    match lock {
        // Whoever removed a heap of this name meanwhile took the lock file with it; so this one is removed, too.
        Some(lock) if !lock.is_there() => {
            take_back(&draft.file, &path);
            Err(Error::NoHeap(path))
        }
        _ => Ok(path),
    }
}

/// A heap and a lock file must not get into each other's way.
fn check_lock_name(name: &OsStr, options: &CreateOptions) -> Result<(), Error> {
    let refused = |why| Err(Error::Name { name: name.to_string_lossy().into_owned(), why });
    if lock_file::is_name(name) {
        return refused("it ends with '.lock', as the lock files of heaps do");
    }
    if options.is_for_launcher() && name::checked_path(lock_file::path_of(name.as_ref()).as_os_str()).is_err() {
        return refused("it is longer than 250 bytes, and with '.lock' behind it it must be the name of a file, too");
    }
    Ok(())
}

/// Removes a heap that nobody can open.
fn take_back(file: &File, path: &Path) {
    let is = |a: fs::Metadata, b: fs::Metadata| (a.dev(), a.ino()) == (b.dev(), b.ino());
    if let (Ok(ours), Ok(there)) = (file.metadata(), fs::symlink_metadata(path))
        && is(ours, there)
    {
        // If it cannot be removed, `plib destroy` says why.
        let _ = fs::remove_file(path);
    }
}

fn params(options: &CreateOptions, lock_id: [u64; 2]) -> CreateParams {
    CreateParams {
        size: options.size,
        item_size_max: options.item_size_max,
        contexts: options.contexts,
        secret: [0; 4],
        boot_id: [0; 2],
        created: process::unix_now(),
        lock_id,
        readable: options.readable,
    }
}

/// Writes the empty heap into the reserved file.
fn fill(
    file: &File,
    geometry: &Geometry,
    options: &CreateOptions,
    lock_id: [u64; 2],
    path: &Path,
) -> Result<(), Error> {
    let io = |doing| move |e| Error::io(doing, path, e);
    let params = CreateParams {
        secret: process::secret().map_err(io("get random numbers for"))?,
        boot_id: process::boot_id().map_err(io("read the boot id for"))?,
        ..params(options, lock_id)
    };
    let mapping = Mapping::new(file.as_fd(), geometry.size as usize, None).map_err(io("map"))?;
    if options.huge {
        pages::ask(&mapping);
    }
    // SAFETY: the mapping is fresh, zero-filled by fallocate, 2 MiB-aligned, and the file has no name yet.
    unsafe { Heap::format(mapping.base(), mapping.len(), &params) }.map_err(|fault| Error::fault(path, fault))
}

/// The number of a group given by name or number.
fn group_id(group: &str) -> Result<u32, Error> {
    if let Ok(number) = group.parse() {
        return Ok(number);
    }
    let unknown = || Error::NoGroup(group.to_string());
    let name = CString::new(group).map_err(|_| unknown())?;
    let mut text = vec![0 as libc::c_char; 1024];
    loop {
        let mut found = std::ptr::null_mut();
        // SAFETY: zeroes are a valid group record; all pointers are to memory of the given lengths.
        let (result, record) = unsafe {
            let mut record: libc::group = std::mem::zeroed();
            (libc::getgrnam_r(name.as_ptr(), &mut record, text.as_mut_ptr(), text.len(), &mut found), record)
        };
        match result {
            // A group with many members needs more room for their names.
            libc::ERANGE => text.resize(text.len() * 2, 0),
            0 if !found.is_null() => return Ok(record.gr_gid),
            _ => return Err(unknown()),
        }
    }
}
