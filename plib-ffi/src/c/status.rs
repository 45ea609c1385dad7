//! What functions answer, and the words for it.

use crate::error::Error;
use crate::quiet::Quiet;
use plib_core::Status;
use std::cell::{Cell, RefCell, UnsafeCell};
use std::ffi::{CString, c_char};
use std::mem::MaybeUninit;
use std::sync::atomic::{Ordering, compiler_fence};

/// What a function answers. Any but PLIB_OK means that nothing was changed or written, unless said otherwise.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum plib_status_t {
    /// Done.
    PLIB_OK = 0,
    /// No live item has this key.
    PLIB_E_NOT_FOUND = 1,
    /// The item has another cas value than the one given; or a heap of this name exists.
    PLIB_E_EXISTS = 2,
    /// The condition of add, replace, append or prepend did not hold.
    PLIB_E_NOT_STORED = 3,
    /// 32 bytes of header, key and value together are more than the heap's item_size_max.
    PLIB_E_TOO_LARGE = 4,
    /// The key is empty or longer than 250 bytes.
    PLIB_E_KEY = 5,
    /// incr or decr on a value that is not a decimal number of at most 64 bits.
    PLIB_E_NOT_NUMERIC = 6,
    /// A stopped process holds what is needed, or all op contexts are in use; try again.
    PLIB_E_BUSY = 7,
    /// The buffer is smaller than the value; *value_len says what is needed.
    PLIB_E_TOO_SMALL = 8,
    /// A pointer is null, misaligned or into the heap, the handle is closed or none, or a number has no meaning.
    PLIB_E_INVALID = 9,
    /// There is no heap of that name.
    PLIB_E_NO_HEAP = 10,
    /// No block is free and nothing can be evicted.
    PLIB_E_NO_MEMORY = 11,
    /// The file's mode does not allow it.
    PLIB_E_PERMISSION = 12,
    /// The file system has not the space.
    PLIB_E_NO_SPACE = 13,
    /// The file is not a plib heap.
    PLIB_E_NOT_A_HEAP = 14,
    /// The heap was made by a build with another layout.
    PLIB_E_LAYOUT = 15,
    /// The heap's header or tables contradict themselves.
    PLIB_E_DAMAGED = 16,
    /// The machine stopped while the heap was in use on a disk file.
    PLIB_E_DIRTY = 17,
    /// A table is full: clients of the heap, or open handles of the process.
    PLIB_E_FULL = 18,
    /// The operating system refused.
    PLIB_E_IO = 19,
    /// The wanted isolation is not to be had.
    PLIB_E_ISOLATION = 20,
}

use plib_status_t::*;

/// Every status with its words.
const ALL: [(plib_status_t, Status, &std::ffi::CStr); 21] = [
    (PLIB_OK, Status::Ok, c"done"),
    (PLIB_E_NOT_FOUND, Status::NotFound, c"no item has this key"),
    (PLIB_E_EXISTS, Status::Exists, c"the item has another cas value, or the heap exists already"),
    (PLIB_E_NOT_STORED, Status::NotStored, c"not stored: the key is there (add) or is not (replace, append, prepend)"),
    (PLIB_E_TOO_LARGE, Status::TooLarge, c"the item is larger than the heap's item_size_max"),
    (PLIB_E_KEY, Status::Key, c"a key has 1 to 250 bytes"),
    (PLIB_E_NOT_NUMERIC, Status::NotNumeric, c"the value is not a decimal number of at most 64 bits"),
    (PLIB_E_BUSY, Status::Busy, c"a stopped process holds what is needed, or all op contexts are in use; try again"),
    (PLIB_E_TOO_SMALL, Status::TooSmall, c"the buffer is smaller than the value"),
    (PLIB_E_INVALID, Status::Invalid, c"invalid argument: null, into the heap, closed handle, or without meaning"),
    (PLIB_E_NO_HEAP, Status::NoHeap, c"there is no heap of that name"),
    (PLIB_E_NO_MEMORY, Status::NoMemory, c"no room, and nothing can be evicted"),
    (PLIB_E_PERMISSION, Status::Permission, c"the file's mode does not allow it"),
    (PLIB_E_NO_SPACE, Status::NoSpace, c"the file system has not the space"),
    (PLIB_E_NOT_A_HEAP, Status::NotAHeap, c"the file is not a plib heap"),
    (PLIB_E_LAYOUT, Status::Layout, c"the heap was made by a build with another layout"),
    (PLIB_E_DAMAGED, Status::Damaged, c"the heap is damaged"),
    (PLIB_E_DIRTY, Status::Dirty, c"the machine stopped while the heap was in use"),
    (PLIB_E_FULL, Status::Full, c"too many processes have the heap open, or this process too many heaps"),
    (PLIB_E_IO, Status::Io, c"the operating system refused"),
    (PLIB_E_ISOLATION, Status::Isolation, c"the wanted isolation is not to be had"),
];

impl plib_status_t {
    /// The C name of a status.
    fn of(status: Status) -> Self {
        ALL.iter().find(|(_, s, _)| *s == status).map_or(PLIB_E_INVALID, |(c, ..)| *c)
    }
}

/// A status as a caller gives it: any number.
pub type StatusNumber = u32;

thread_local! {
    /// The status of this thread's last failure, and where there is more to say about it.
    static LAST: Cell<u32> = const { Cell::new(0) };
    /// The failure itself, if it owns no memory: words are made of it only when they are asked for, so that failing is
    /// cheap, and allowed in a signal handler.
    static PLAIN: PlainError = const { PlainError { taken: Cell::new(false), error: UnsafeCell::new(MaybeUninit::uninit()) } };
    /// The words for any other, or for the one that was asked about.
    static WORDS: RefCell<Option<CString>> = const { RefCell::new(None) };
}

/// An error that has nothing to drop. A signal handler may fail while it is written, or jump out of that for good.
struct PlainError {
    /// Whether a frame of this thread is writing it, or was when it was jumped out of.
    taken: Cell<bool>,
    error: UnsafeCell<MaybeUninit<Error>>,
}

impl PlainError {
    /// Writes it and has `LAST` vouch for it: `IN_PLAIN` is there only while the error is whole. A handler that interrupts this
    /// leaves it alone. So does whoever comes after a jump out of it, until somebody asks.
    fn put(&self, status: plib_status_t, error: Error) {
        if self.taken.replace(true) {
            last(status, 0);
            return;
        }
        // Each of these is seen by a handler before the next, and by whoever runs after a jump out of here.
        compiler_fence(Ordering::SeqCst);
        last(status, 0);
        compiler_fence(Ordering::SeqCst);
        // SAFETY: this thread's own, and no other frame of it writes. What was there owns nothing.
        unsafe { (*self.error.get()).write(error) };
        compiler_fence(Ordering::SeqCst);
        last(status, IN_PLAIN);
        compiler_fence(Ordering::SeqCst);
        self.taken.set(false);
    }

    /// The error that `LAST` vouches for. Handlers are kept away, and the caller is none: so nobody is writing it.
    fn get(&self, _: &Quiet) -> Option<&Error> {
        self.taken.set(false);
        // SAFETY: `IN_PLAIN` says that the whole error was written, and nobody writes while the thread is quiet.
        (LAST.get() & IN_PLAIN != 0).then(|| unsafe { (*self.error.get()).assume_init_ref() })
    }
}

/// Bits of `LAST` beside the status.
const IN_PLAIN: u32 = 1 << 30;
const IN_WORDS: u32 = 1 << 31;

/// Remembers a failure for `plib_last_error_message`.
#[inline]
pub(super) fn fail(error: Error) -> plib_status_t {
    match error {
        // Everyday answers, which must cost nothing.
        Error::NotFound => last(PLIB_E_NOT_FOUND, 0),
        Error::NotStored => last(PLIB_E_NOT_STORED, 0),
        Error::Exists => last(PLIB_E_EXISTS, 0),
        error => fail_in_detail(error),
    }
}

#[inline]
fn last(status: plib_status_t, place: u32) -> plib_status_t {
    LAST.set(status as u32 | place);
    status
}

#[cold]
#[inline(never)]
fn fail_in_detail(error: Error) -> plib_status_t {
    let status = plib_status_t::of(error.status());
    if error.owns_memory() {
        keep_words(&Quiet::begin(), &error);
        return last(status, IN_WORDS);
    }
    PLAIN.with(|plain| plain.put(status, error));
    status
}

/// Makes the words. A jump away would lose memory and leave them locked; ending the thread would unwind the standard library.
fn keep_words(_: &Quiet, error: &Error) {
    let words = CString::new(error.to_string().replace('\0', "\\0")).ok();
    // A thread that is ending has no place for words any more.
    let _ = WORDS.try_with(|kept| kept.try_borrow_mut().map(|mut kept| *kept = words));
}

/// The words for a status; never NULL, never to be freed.
#[unsafe(no_mangle)]
pub extern "C" fn plib_strerror(status: StatusNumber) -> *const c_char {
    let known = ALL.iter().find(|(c, ..)| *c as u32 == status);
    known.map_or(c"unknown status", |(_, _, words)| words).as_ptr()
}

/// What this thread's last failed call had to say: the name, the limit, the way out. Valid until its next call that
/// fails or asks; "" before the first failure. Successful calls do not change it. Not for signal handlers.
#[unsafe(no_mangle)]
pub extern "C" fn plib_last_error_message() -> *const c_char {
    let quiet = Quiet::begin();
    let last = LAST.get();
    let status = last & !(IN_PLAIN | IN_WORDS);
    PLAIN.with(|plain| plain.get(&quiet).into_iter().for_each(|error| keep_words(&quiet, error)));
    let words = || WORDS.try_with(|kept| kept.try_borrow().ok()?.as_ref().map(|words| words.as_ptr())).ok().flatten();
    match last {
        0 => c"".as_ptr(),
        _ if status == last => plib_strerror(status),
        _ => words().unwrap_or_else(|| plib_strerror(status)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn c_and_core_agree_on_every_number() {
        for (i, (c, core, _)) in ALL.iter().enumerate() {
            assert_eq!((*c as usize, *core as usize), (i, i));
        }
    }
}
