//! What an operation answers.

/// The outcome of an operation, with the same numbers as `plib_status_t` of the C ABI.
#[repr(u32)]
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Status {
    /// Done.
    Ok = 0,
    /// No live item has this key.
    NotFound = 1,
    /// The item has another cas value than the one given.
    Exists = 2,
    /// The condition of add, replace, append or prepend did not hold.
    NotStored = 3,
    /// Header, key and value together are more than the heap's `item_size_max`.
    TooLarge = 4,
    /// The key is empty or longer than 250 bytes.
    Key = 5,
    /// incr or decr on a value that is not a decimal number of at most 64 bits.
    NotNumeric = 6,
    /// Another process holds what is needed and does not run; nothing was changed.
    Busy = 7,
    /// The buffer is smaller than the value.
    TooSmall = 8,
    /// An argument is null, overlaps the heap, or has no meaning.
    Invalid = 9,
    /// There is no heap of that name.
    NoHeap = 10,
    /// No block is free and nothing can be evicted.
    NoMemory = 11,
    /// The file's mode does not allow it.
    Permission = 12,
    /// The file system has not the space.
    NoSpace = 13,
    /// The file is not a plib heap.
    NotAHeap = 14,
    /// The heap was made by a build with another layout.
    Layout = 15,
    /// The heap's header or tables contradict themselves.
    Damaged = 16,
    /// The machine stopped while the heap was in use on a disk file.
    Dirty = 17,
    /// The table of clients is full.
    Full = 18,
    /// The operating system refused.
    Io = 19,
    /// The wanted isolation tier is not to be had.
    Isolation = 20,
}

impl Status {
    /// The status of a number, if it is one's.
    pub fn of(number: u32) -> Option<Self> {
        use Status::*;
        let all = [
            Ok, NotFound, Exists, NotStored, TooLarge, Key, NotNumeric, Busy, TooSmall, Invalid, NoHeap, NoMemory,
            Permission, NoSpace, NotAHeap, Layout, Damaged, Dirty, Full, Io, Isolation,
        ];
        all.get(number as usize).copied().filter(|status| *status as u32 == number)
    }
}

/// What was wrong with a heap file or a parameter.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Fault {
    /// The kind of fault.
    pub status: Status,
    /// The field that did not hold.
    pub field: &'static str,
    /// What was expected of it (or the limit it broke).
    pub expected: u64,
    /// What was found.
    pub found: u64,
}

impl Fault {
    pub(crate) const fn new(status: Status, field: &'static str, expected: u64, found: u64) -> Self {
        Self { status, field, expected, found }
    }
}
