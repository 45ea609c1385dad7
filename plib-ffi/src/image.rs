//! The trusted image: the core and its gate, made by the build from `plib-image`. Whoever guards heaps maps it: the library into its own
//! process, `plib run` into the program that it starts.
//!
//! Its code is mapped from a file in memory and never writable, so it can also be had where a process may not make memory
//! executable that it has written (systemd's MemoryDenyWriteExecute).

use crate::process::checked;
use plib_core::domain::Protection::{self, Read, ReadExecute, ReadWrite};
use plib_core::gate::{Constants, Entry, Handlers, Settings};
use std::fs::File;
use std::io::{self, Write};
use std::mem::{offset_of, transmute};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::ptr::null_mut;

/// Pages of an image with one protection.
#[derive(Clone, Copy, Debug)]
pub struct Part {
    /// Where they start, in bytes from the image's start.
    pub offset: usize,
    /// How many bytes they are.
    pub len: usize,
    /// What they allow once everything has been written. None of them is ever writable and executable.
    pub protection: Protection,
}

/// Begins at a page.
#[repr(C, align(4096))]
struct Pages<T>(T);

const _: () = assert!(offset_of!(Pages<[u8; 1]>, 0) == 0);

include!(concat!(env!("OUT_DIR"), "/image.rs"));

// The image is of the same source, built alone: if both do not see the same types there, the build is broken.
const _: () = assert!(IMAGE_ABI == plib_core::gate::ABI);

/// Bytes of address space that an image takes.
pub const LEN: usize = BYTES.0.len();

/// All of it, in order.
pub const fn parts() -> &'static [Part] {
    PARTS
}

/// Words that hold the image's address and a number more: where they are, and the number.
pub const fn words() -> &'static [(usize, usize)] {
    WORDS
}

/// Where the gate begins, in bytes from the image's start.
pub const fn enter() -> usize {
    ENTER
}

/// Where the function is that the kernel is to call for signals.
pub const fn on_signal() -> usize {
    ON_SIGNAL
}

/// Where the program's handlers are, a [`Handlers`].
pub const fn handlers() -> usize {
    HANDLERS
}

/// Where its constants are, [`Constants`] that fill a page: a part of its own.
pub const fn constants() -> usize {
    CONSTANTS
}

/// A file with the image as it lies in memory, for private mappings of its parts. It stays as it is.
pub fn file() -> io::Result<OwnedFd> {
    // Newer kernels want to be told that nobody will execve it; older ones do not know the word.
    const MFD_NOEXEC_SEAL: libc::c_uint = 8;
    let flags = libc::MFD_CLOEXEC | libc::MFD_ALLOW_SEALING;
    // SAFETY: a C string and flags; the descriptor is ours if it is one.
    let file = unsafe {
        let create = |flags| checked(libc::memfd_create(c"plib-image".as_ptr(), flags));
        File::from_raw_fd(create(flags | MFD_NOEXEC_SEAL).or_else(|_| create(flags))?)
    };
    if !may_write(LEN) {
        // Not by trying: that would be a signal that ends the process.
        return Err(io::Error::from_raw_os_error(libc::EFBIG));
    }
    (&file).write_all(&BYTES.0)?;
    let seals = libc::F_SEAL_WRITE | libc::F_SEAL_GROW | libc::F_SEAL_SHRINK | libc::F_SEAL_SEAL;
    // SAFETY: takes a descriptor and numbers only.
    checked(unsafe { libc::fcntl(file.as_raw_fd(), libc::F_ADD_SEALS, seals) })?;
    Ok(file.into())
}

/// The bytes of an image at `base` with these constants: what a mapper has to put there who can write to pages as they are.
pub(crate) fn bytes_at(base: usize, constants: &Constants) -> Vec<u8> {
    let mut bytes = BYTES.0.to_vec();
    for (at, number) in WORDS {
        bytes[*at..*at + size_of::<usize>()].copy_from_slice(&(base + number).to_ne_bytes());
    }
    // SAFETY: they are integers without padding in front, and the rest of their page is zeroes that `Pages` begins with.
    let constants = unsafe { std::slice::from_raw_parts((&raw const *constants).cast::<u8>(), size_of::<Constants>()) };
    bytes[CONSTANTS..CONSTANTS + constants.len()].copy_from_slice(constants);
    bytes
}

/// Whether this process may make a file of `len` bytes (RLIMIT_FSIZE).
fn may_write(len: usize) -> bool {
    // SAFETY: zeroes are a valid record, which is filled in if the answer is 0.
    unsafe {
        let mut limit: libc::rlimit = std::mem::zeroed();
        libc::getrlimit(libc::RLIMIT_FSIZE, &raw mut limit) != 0 || limit.rlim_cur >= len as u64
    }
}

/// An image that is mapped in this process, for good.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Image {
    base: usize,
}

impl Image {
    /// Maps it, with the settings that `of` gives for it.
    pub fn map(of: impl FnOnce(Self) -> Settings) -> io::Result<Self> {
        let file = file()?;
        let failed = |at| if at == libc::MAP_FAILED { Err(io::Error::last_os_error()) } else { Ok(at) };
        let reserve = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE;
        // SAFETY: reserves fresh addresses.
        let base = failed(unsafe { libc::mmap(null_mut(), LEN, libc::PROT_NONE, reserve, -1, 0) })?;
        let image = Self { base: base as usize };
        image.fill(&file, &Constants::new(of(image))).inspect_err(|_| {
            // SAFETY: the reservation, which nobody else knows of.
            unsafe { libc::munmap(base, LEN) };
        })?;
        Ok(image)
    }

    /// One that is mapped at `base`.
    ///
    /// # Safety
    /// It is, of this build, with its constants, for good.
    pub unsafe fn at(base: usize) -> Self {
        Self { base }
    }

    /// Maps the parts over the reservation, writes what is to be written, and protects them.
    fn fill(self, file: &OwnedFd, constants: &Constants) -> io::Result<()> {
        let flags = libc::MAP_PRIVATE | libc::MAP_FIXED;
        for part in PARTS {
            let protection = match part.protection {
                ReadExecute => libc::PROT_READ | libc::PROT_EXEC,
                Read | ReadWrite => libc::PROT_READ | libc::PROT_WRITE,
            };
            let at = (self.base + part.offset) as *mut libc::c_void;
            // SAFETY: within the reservation of `map`, which is as long as all parts.
            let mapped = unsafe { libc::mmap(at, part.len, protection, flags, file.as_raw_fd(), part.offset as i64) };
            if mapped == libc::MAP_FAILED {
                return Err(io::Error::last_os_error());
            }
        }
        // SAFETY: the build placed words and constants in parts that are not executable, and those are writable still.
        unsafe {
            for (at, number) in WORDS {
                ((self.base + at) as *mut usize).write(self.base + number);
            }
            ((self.base + CONSTANTS) as *mut Constants).copy_from(constants, 1);
        }
        for part in PARTS.iter().filter(|part| part.protection == Read) {
            let at = (self.base + part.offset) as *mut libc::c_void;
            // SAFETY: a part of ours, to which nothing is written any more.
            checked(unsafe { libc::mprotect(at, part.len, libc::PROT_READ) })?;
        }
        Ok(())
    }

    /// The gate.
    pub fn entry(self) -> Entry {
        // SAFETY: a function of this type begins there, in an image that stays mapped.
        unsafe { transmute::<usize, Entry>(self.base + ENTER) }
    }

    /// The function that the kernel is to call for signals.
    pub fn stub(self) -> usize {
        self.base + ON_SIGNAL
    }

    /// What that one jumps to outside of calls.
    pub fn handlers(self) -> &'static Handlers {
        // SAFETY: they lie there, writable, and only ever used as atomics.
        unsafe { &*((self.base + HANDLERS) as *const Handlers) }
    }
}
