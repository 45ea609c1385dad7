//! What can go wrong, with the operands that a person needs to put it right.

use plib_core::domain::Isolation;
use plib_core::layout::{ITEM_HEADER, KEY_MAX};
use plib_core::{Fault, Status};
use std::io;
use std::path::{Path, PathBuf};

/// Why an operation did not do what was asked. Nothing was changed, unless the variant says otherwise.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// No live item has this key (compare-and-swap only; other operations answer `None` or `false`).
    #[error("no item has this key")]
    NotFound,
    /// The item has another cas value than the one given.
    #[error("the item's cas value is not the one given: it was stored again since; get it and try again")]
    Exists,
    /// add found an item; replace, append or prepend found none.
    #[error("not stored: add wants a key that is not there, replace, append and prepend one that is")]
    NotStored,
    /// The item is larger than this heap admits.
    #[error(
        "the item takes {size} bytes ({ITEM_HEADER} of header, its key and its value) but this heap's item_size_max is \
         {limit}; store less, or create the heap with a larger item_size_max"
    )]
    TooLarge {
        /// Bytes of header, key and value (of what was given, for append and prepend).
        size: u64,
        /// The heap's `item_size_max`.
        limit: u32,
    },
    /// The key is empty or too long.
    #[error("the key has {len} bytes; a key has 1 to {KEY_MAX}")]
    Key {
        /// Its length.
        len: usize,
    },
    /// Increment or decrement of a value that is not a number.
    #[error("the value is not a decimal number of at most 64 bits, so it cannot be counted up or down")]
    NotNumeric,
    /// What is needed is held by a process or thread that does not run.
    #[error(
        "busy: a process that does not run holds what this needs; try again, and look for stopped clients (`plib stats clients`)"
    )]
    Busy,
    /// All op contexts that this process may hold are inside operations.
    #[error(
        "busy: every op context of the heap's {contexts} that this process may hold is in use; try again, work with \
         fewer threads at a time, or create the heap with more contexts"
    )]
    NoContext {
        /// Op contexts of the heap; one process may hold three quarters of them.
        contexts: u32,
    },
    /// A signal handler interrupted this thread while it was opening or closing a handle, or claiming an op context.
    #[error(
        "busy: this signal handler interrupted its own thread at opening, closing or first using a heap; try again later"
    )]
    Interrupted,
    /// The buffer is smaller than the value.
    #[error("the value has {needed} bytes, the buffer {given}")]
    TooSmall {
        /// Bytes of the value.
        needed: usize,
        /// Bytes of the buffer.
        given: usize,
    },
    /// An argument has no meaning.
    #[error("invalid argument: {0}")]
    Invalid(&'static str),
    /// The handle was closed, or never was one.
    #[error("the handle is not an open heap: it is null, closed, or no handle at all")]
    Closed,
    /// A number is outside its limits.
    #[error("{field} is {found} but must be {} {limit}", if found < limit { "at least" } else { "at most" })]
    OutOfRange {
        /// Which number.
        field: &'static str,
        /// The limit that it broke.
        limit: u64,
        /// What was given.
        found: u64,
    },
    /// A heap name that cannot be one.
    #[error("'{name}' cannot be the name of a heap: {why}")]
    Name {
        /// The name.
        name: String,
        /// What is wrong with it.
        why: &'static str,
    },
    /// There is no such group.
    #[error("there is no group '{0}' on this machine")]
    NoGroup(String),
    /// There is no heap file.
    #[error("there is no heap {}; make one with `plib create`, or set PLIB_DIR to where it is", .0.display())]
    NoHeap(PathBuf),
    /// A file of that name exists.
    #[error("{} exists already; open it, or destroy it first", .0.display())]
    AlreadyExists(PathBuf),
    /// Nothing can be evicted to make room for an item of this size.
    #[error("no room for an item of {size} bytes and nothing can be evicted for it; use a larger heap")]
    NoMemory {
        /// Bytes of header, key and value.
        size: u64,
    },
    /// The file's mode does not allow it.
    #[error("no permission to {doing} {}: {remedy}", path.display())]
    Permission {
        /// What was tried.
        doing: &'static str,
        /// On which file.
        path: PathBuf,
        /// What would help.
        remedy: &'static str,
    },
    /// The file system or memory has not the space.
    #[error(
        "no space for {}: {wanted} bytes wanted, {free} free; create a smaller heap, remove others (`plib destroy`), or \
         set PLIB_DIR to a file system with more room", path.display()
    )]
    NoSpace {
        /// The file that should have been made.
        path: PathBuf,
        /// Bytes wanted.
        wanted: u64,
        /// Bytes free.
        free: u64,
    },
    /// The file is something else.
    #[error("{} is not a plib heap: {what}", path.display())]
    NotAHeap {
        /// The file.
        path: PathBuf,
        /// What shows it.
        what: String,
    },
    /// The file beside a heap in which its clients' locks are is not the one that was made for it.
    #[error(
        "{} is not the lock file that its heap needs: {what}; put it back as it was, or destroy the heap and create it \
         again", path.display()
    )]
    LockFile {
        /// The lock file.
        path: PathBuf,
        /// What shows it.
        what: String,
    },
    /// The heap was made by a build with another layout.
    #[error(
        "{} has another layout: {field} is {found:#x}, this build needs {expected:#x}; use the plib that made it, or \
         destroy and create it again", path.display()
    )]
    Layout {
        /// The file.
        path: PathBuf,
        /// The field of the header.
        field: &'static str,
        /// What this build needs.
        expected: u64,
        /// What the file says.
        found: u64,
    },
    /// The heap contradicts itself.
    #[error(
        "{} is damaged: {field} is {found}, expected {expected}; destroy it and create it again", path.display()
    )]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What does not hold.
        field: &'static str,
        /// What was expected of it.
        expected: u64,
        /// What was found.
        found: u64,
    },
    /// An operation met something in the heap that cannot be.
    #[error("the heap is damaged; run `plib check`, then destroy it and create it again")]
    DamagedWithin,
    /// The machine stopped while a heap on a disk file was in use.
    #[error(
        "{} was in use when the machine stopped, so its pages may be of different age; destroy it and create it again",
        .0.display()
    )]
    Dirty(PathBuf),
    /// A table is full.
    #[error("no more than {limit} {what}; {remedy}")]
    Full {
        /// What there are too many of.
        what: &'static str,
        /// How many there can be.
        limit: u64,
        /// The way out.
        remedy: &'static str,
    },
    /// The operating system refused.
    #[error("cannot {doing} {}: {source}", path.display())]
    Io {
        /// What was tried.
        doing: &'static str,
        /// On which file.
        path: PathBuf,
        /// What it said.
        source: io::Error,
    },
    /// The wanted isolation is not to be had.
    #[error(
        "isolation '{wanted}' is wanted (by the program or PLIB_ISOLATION) but {why}; ask for less if the programs that share the \
         heap trust each other (`plib doctor` says what this machine offers)"
    )]
    Isolation {
        /// The least tier wanted.
        wanted: &'static str,
        /// Why it is not to be had.
        why: &'static str,
    },
}

impl Error {
    /// The number that the C ABI gives for it.
    pub fn status(&self) -> Status {
        match self {
            Self::NotFound => Status::NotFound,
            Self::Exists => Status::Exists,
            Self::NotStored => Status::NotStored,
            Self::TooLarge { .. } => Status::TooLarge,
            Self::Key { .. } => Status::Key,
            Self::NotNumeric => Status::NotNumeric,
            Self::Busy | Self::NoContext { .. } | Self::Interrupted => Status::Busy,
            Self::TooSmall { .. } => Status::TooSmall,
            Self::Invalid(_) | Self::Closed | Self::OutOfRange { .. } | Self::Name { .. } | Self::NoGroup(_) => {
                Status::Invalid
            }
            Self::NoHeap(_) => Status::NoHeap,
            Self::AlreadyExists(_) => Status::Exists,
            Self::NoMemory { .. } => Status::NoMemory,
            Self::Permission { .. } => Status::Permission,
            Self::NoSpace { .. } => Status::NoSpace,
            Self::NotAHeap { .. } => Status::NotAHeap,
            Self::Layout { .. } => Status::Layout,
            Self::Damaged { .. } | Self::DamagedWithin | Self::LockFile { .. } => Status::Damaged,
            Self::Dirty(_) => Status::Dirty,
            Self::Full { .. } => Status::Full,
            Self::Io { .. } => Status::Io,
            Self::Isolation { .. } => Status::Isolation,
        }
    }

    /// Whether dropping it frees memory.
    pub(crate) fn owns_memory(&self) -> bool {
        match self {
            Self::NotFound
            | Self::Exists
            | Self::NotStored
            | Self::TooLarge { .. }
            | Self::Key { .. }
            | Self::NotNumeric
            | Self::Busy
            | Self::NoContext { .. }
            | Self::Interrupted
            | Self::TooSmall { .. }
            | Self::Invalid(_)
            | Self::Closed
            | Self::OutOfRange { .. }
            | Self::NoMemory { .. }
            | Self::DamagedWithin
            | Self::Full { .. }
            | Self::Isolation { .. } => false,
            Self::Name { .. }
            | Self::NoGroup(_)
            | Self::NoHeap(_)
            | Self::AlreadyExists(_)
            | Self::Permission { .. }
            | Self::NoSpace { .. }
            | Self::NotAHeap { .. }
            | Self::LockFile { .. }
            | Self::Layout { .. }
            | Self::Damaged { .. }
            | Self::Dirty(_)
            | Self::Io { .. } => true,
        }
    }

    /// A failed system call on a file.
    pub(crate) fn io(doing: &'static str, path: &Path, source: io::Error) -> Self {
        let path = path.to_path_buf();
        match source.raw_os_error() {
            Some(libc::EACCES | libc::EPERM | libc::EROFS) => {
                Self::Permission { doing, path, remedy: "its owner can allow it by the heap's mode and group" }
            }
            Some(libc::EEXIST) => Self::AlreadyExists(path),
            _ => Self::Io { doing, path, source },
        }
    }

    /// What the core found wrong with the file at `path`.
    pub(crate) fn fault(path: &Path, fault: Fault) -> Self {
        let Fault { status, field, expected, found } = fault;
        let path = path.to_path_buf();
        match status {
            Status::NotAHeap => {
                Self::NotAHeap { path, what: format!("its {field} is {found:#x}, a heap's is {expected:#x}") }
            }
            Status::Layout => Self::Layout { path, field, expected, found },
            Status::Dirty => Self::Dirty(path),
            Status::Invalid => Self::OutOfRange { field, limit: expected, found },
            _ => Self::Damaged { path, field, expected, found },
        }
    }

    /// The answer of an operation on an item with a key and a value of these lengths.
    #[cold]
    pub(crate) fn of_operation(status: Status, key_len: usize, value_len: usize, item_size_max: u32) -> Self {
        let size = (ITEM_HEADER as u64).saturating_add(key_len as u64).saturating_add(value_len as u64);
        match status {
            Status::NotFound => Self::NotFound,
            Status::Exists => Self::Exists,
            Status::NotStored => Self::NotStored,
            Status::TooLarge => Self::TooLarge { size, limit: item_size_max },
            Status::Key => Self::Key { len: key_len },
            Status::NotNumeric => Self::NotNumeric,
            Status::Busy => Self::Busy,
            Status::NoMemory => Self::NoMemory { size },
            Status::Damaged => Self::DamagedWithin,
            _ => Self::Invalid("a pointer is null, wraps around, or points into the heap"),
        }
    }
}

/// The tier's name as in `PLIB_ISOLATION`.
pub(crate) const fn isolation_name(isolation: Isolation) -> &'static str {
    match isolation {
        Isolation::None => "none",
        Isolation::Guarded => "guarded",
        Isolation::Sealed => "sealed",
    }
}
