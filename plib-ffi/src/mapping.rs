//! Shared mappings of heap files.

use crate::protection::guard;
use crate::room;
use plib_core::domain::ProtectionKey;
use std::io;
use std::os::fd::AsRawFd;
use std::os::fd::BorrowedFd;
use std::ptr::null_mut;

/// Mappings start at a multiple of this, so that huge pages fit.
pub(crate) const ALIGNMENT: usize = 2 << 20;
const PAGE: usize = 4096;

/// The key that a mapping gets.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Keyed {
    pub key: ProtectionKey,
    /// Offset and length of whole pages that are left without it.
    pub but: Option<(usize, usize)>,
}

/// A shared mapping of a whole file, readable and writable (behind a key for who has it open), taken away again on drop.
#[derive(Debug)]
pub(crate) struct Mapping {
    base: *mut u8,
    len: usize,
    /// Bytes that are mapped: whole pages. 0 for a mapping that is not ours to take away.
    mapped: usize,
}

impl Mapping {
    /// Maps `len` bytes of the file, which must have as many, behind a key if one is given.
    pub fn new(file: BorrowedFd<'_>, len: usize, keyed: Option<Keyed>) -> io::Result<Self> {
        // hugetlbfs maps whole pages of its size, at multiples of it.
        let unit = room::huge_page(file)?.unwrap_or(PAGE);
        let alignment = unit.max(ALIGNMENT);
        let wanted = len.checked_next_multiple_of(unit).ok_or(io::ErrorKind::InvalidInput)?;
        let reserved = wanted.checked_add(alignment).ok_or(io::ErrorKind::InvalidInput)?;
        let failed = |at| if at == libc::MAP_FAILED { Err(io::Error::last_os_error()) } else { Ok(at as usize) };
        // SAFETY: reserves fresh addresses.
        let start = failed(unsafe {
            libc::mmap(
                null_mut(),
                reserved,
                libc::PROT_NONE,
                libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE,
                -1,
                0,
            )
        })?;
        let base = start.next_multiple_of(alignment);
        // SAFETY: the range lies within the one just reserved, which nobody else knows of.
        let mapped = failed(unsafe {
            let open = libc::PROT_READ | libc::PROT_WRITE;
            // Inaccessible until it has its key.
            let protection = if keyed.is_some() { libc::PROT_NONE } else { open };
            libc::mmap(base as *mut _, len, protection, libc::MAP_SHARED | libc::MAP_FIXED, file.as_raw_fd(), 0)
        });
        let end = base + wanted;
        // SAFETY: what remains of the reservation on both sides (or all of it, after a failure).
        unsafe {
            if mapped.is_err() {
                libc::munmap(start as *mut _, reserved);
            } else {
                if base > start {
                    libc::munmap(start as *mut _, base - start);
                }
                if start + reserved > end {
                    libc::munmap(end as *mut _, start + reserved - end);
                }
            }
        }
        let mapping = mapped.map(|base| Self { base: base as *mut u8, len, mapped: wanted })?;
        if let Some(keyed) = keyed {
            mapping.guard(keyed)?;
        }
        Ok(mapping)
    }

    /// One that a launcher made, and that stays until the process ends.
    pub fn of_launcher(base: usize, len: usize) -> Self {
        Self { base: std::ptr::with_exposed_provenance_mut(base), len, mapped: 0 }
    }

    /// Gives the fresh mapping its key.
    fn guard(&self, Keyed { key, but }: Keyed) -> io::Result<()> {
        let (from, to) = but.map_or((self.mapped, self.mapped), |(start, bytes)| (start, start + bytes));
        // SAFETY: the mapping is ours, and nobody knows of it. What is left out keeps key 0.
        unsafe {
            guard(key, self.base, from)?;
            if from < to {
                let open = libc::PROT_READ | libc::PROT_WRITE;
                crate::process::checked(libc::mprotect(self.base.add(from).cast(), to - from, open))?;
                guard(key, self.base.add(to), self.mapped - to)?;
            }
        }
        Ok(())
    }

    /// Keeps the mapping out of children of fork.
    pub fn keep_from_children(&self) -> io::Result<()> {
        self.advise(libc::MADV_DONTFORK)
    }

    /// madvise on the whole mapping.
    pub fn advise(&self, advice: libc::c_int) -> io::Result<()> {
        // SAFETY: the range is this mapping, and no advice used here changes its contents.
        let result = unsafe { libc::madvise(self.base.cast(), self.mapped, advice) };
        crate::process::checked(result).map(drop)
    }

    /// Its first byte.
    pub fn base(&self) -> *mut u8 {
        self.base
    }

    /// Its length.
    pub fn len(&self) -> usize {
        self.len
    }
}

/// Makes `len` bytes at `base`, as far as nothing is mapped there, inaccessible for ever.
pub(crate) fn fence(base: usize, len: usize) {
    let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE | libc::MAP_FIXED_NOREPLACE;
    // SAFETY: takes addresses that nobody has; never replaces what is there.
    let at = unsafe { libc::mmap(base as *mut _, len, libc::PROT_NONE, flags, -1, 0) };
    if at as usize == base {
        return;
    }
    if at != libc::MAP_FAILED {
        // A kernel before 4.17 takes the address for a wish.
        // SAFETY: it was mapped just now, and nobody knows of it.
        unsafe { libc::munmap(at, len) };
    } else if io::Error::last_os_error().raw_os_error() != Some(libc::EEXIST) {
        // Out of memory or of mappings: halves would get none either.
        return;
    }
    // Something is there already: fence what is before and behind it.
    let half = (len / 2).next_multiple_of(PAGE);
    if half < len {
        fence(base, half);
        fence(base + half, len - half);
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        if self.mapped > 0 {
            // SAFETY: the mapping is ours, and whoever drops it has no pointers into it left.
            unsafe { libc::munmap(self.base.cast(), self.mapped) };
        }
    }
}
