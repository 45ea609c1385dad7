//! Making a heap file: complete, with its space reserved, before its name appears.

use crate::error::Error;
use crate::mapping::Mapping;
use crate::room::Room;
use crate::{name, pages, process};
use plib_core::Heap;
use plib_core::layout::{CreateParams, Geometry, ITEM_SIZE_MAX_DEFAULT};
use std::ffi::{CString, OsStr};
use std::fs::{self, File, Permissions};
use std::io;
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
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

/// Readable and writable for the owner alone.
const DEFAULT_MODE: u32 = 0o600;
const PERMISSION_BITS: u32 = 0o777;

impl CreateOptions {
    /// A heap of `size` bytes (8 MiB to 1 TiB, index and tables included), for its owner alone, with items of up to
    /// 1 MiB (or a quarter of a heap too small for that).
    pub fn new(size: u64) -> Self {
        // A heap may give at most a quarter of itself to one item; a small one takes less than the default.
        let item_size_max = ITEM_SIZE_MAX_DEFAULT.min(u32::try_from(size / 4).unwrap_or(u32::MAX)).max(1024);
        Self { size, item_size_max, contexts: 0, mode: DEFAULT_MODE, group: None, huge: false, readable: false }
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

    /// The file's permission bits, as of chmod; whoever can read and write the file can use the heap.
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
}

/// Makes the file of a heap and gives its path.
pub(crate) fn create(name: &OsStr, options: &CreateOptions) -> Result<PathBuf, Error> {
    let path = name::checked_path(name)?;
    if options.mode & !PERMISSION_BITS != 0 {
        return Err(Error::OutOfRange {
            field: "mode",
            limit: u64::from(PERMISSION_BITS),
            found: u64::from(options.mode),
        });
    }
    let group = options.group.as_deref().map(group_id).transpose()?;
    let geometry = Geometry::new(&params(options)).map_err(|fault| Error::fault(&path, fault))?;
    name::prepare_directory(name)?;
    if fs::symlink_metadata(&path).is_ok() {
        return Err(Error::AlreadyExists(path));
    }
    let draft = Draft::new(&path)?;
    reserve(&draft.file, geometry.size, &path)?;
    fill(&draft.file, &geometry, options, &path)?;
    if let Some(group) = group {
        std::os::unix::fs::fchown(&draft.file, None, Some(group))
            .map_err(|e| Error::io("set the group of", &path, e))?;
    }
    draft
        .file
        .set_permissions(Permissions::from_mode(options.mode))
        .map_err(|e| Error::io("set the mode of", &path, e))?;
    draft.publish(&path)?;
    Ok(path)
}

fn params(options: &CreateOptions) -> CreateParams {
    CreateParams {
        size: options.size,
        item_size_max: options.item_size_max,
        contexts: options.contexts,
        secret: [0; 4],
        boot_id: [0; 2],
        created: process::unix_now(),
        readable: options.readable,
    }
}

/// Writes the empty heap into the reserved file.
fn fill(file: &File, geometry: &Geometry, options: &CreateOptions, path: &Path) -> Result<(), Error> {
    let io = |doing| move |e| Error::io(doing, path, e);
    let params = CreateParams {
        secret: process::secret().map_err(io("get random numbers for"))?,
        boot_id: process::boot_id().map_err(io("read the boot id for"))?,
        ..params(options)
    };
    let mapping = Mapping::new(file.as_fd(), geometry.size as usize, None).map_err(io("map"))?;
    if options.huge {
        pages::ask(&mapping);
    }
    // SAFETY: the mapping is fresh, zero-filled by fallocate, 2 MiB-aligned, and the file has no name yet.
    unsafe { Heap::format(mapping.base(), mapping.len(), &params) }.map_err(|fault| Error::fault(path, fault))
}

/// Reserves the space, so that running out of it is an error here and not a signal later.
fn reserve(file: &File, size: u64, path: &Path) -> Result<(), Error> {
    let Room { free, block } = Room::beside(file.as_fd()).map_err(|e| Error::io("ask about the room for", path, e))?;
    let wanted = size.next_multiple_of(block.max(1));
    let no_space = || Error::NoSpace { path: path.to_path_buf(), wanted, free };
    if wanted > free {
        return Err(no_space());
    }
    loop {
        // SAFETY: takes a descriptor and numbers only.
        match process::checked(unsafe { libc::fallocate(file.as_raw_fd(), 0, 0, wanted as i64) }) {
            Ok(_) => return Ok(()),
            Err(e) => match e.raw_os_error() {
                Some(libc::EINTR) => {}
                Some(libc::ENOSPC | libc::EDQUOT | libc::EFBIG | libc::ENOMEM) => return Err(no_space()),
                _ => return Err(Error::io("reserve the space of", path, e)),
            },
        }
    }
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

/// A file that has no name yet, or, where the file system cannot do that, a hidden one.
struct Draft {
    file: File,
    hidden: Option<PathBuf>,
}

impl Draft {
    fn new(path: &Path) -> Result<Self, Error> {
        let dir = match path.parent() {
            Some(dir) if dir != Path::new("") => dir,
            _ => Path::new("."),
        };
        let open = |flags, at: &Path, new| {
            File::options().read(true).write(true).create_new(new).mode(DEFAULT_MODE).custom_flags(flags).open(at)
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

    /// Gives the file its name; an error if there is a file of that name.
    fn publish(self, path: &Path) -> Result<(), Error> {
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
            // Its name was never the heap's; a failure leaves a file that `ls -a` shows.
            let _ = fs::remove_file(hidden);
        }
    }
}
