//! Words that all processes of a test share: plans, progress, totals. No part of the cache.

use std::fs::File;
use std::os::fd::AsRawFd;
use std::path::Path;
use std::sync::atomic::AtomicU64;

/// A mapped file of words.
pub struct Page {
    words: *const AtomicU64,
    len: usize,
}

// SAFETY: the words are atomics in memory that stays mapped for the life of the process.
unsafe impl Send for Page {}
// SAFETY: as above.
unsafe impl Sync for Page {}

impl Page {
    /// Makes a file of `len` zero words and maps it.
    pub fn create(path: &Path, len: usize) -> Page {
        let file = File::options().read(true).write(true).create_new(true).open(path).unwrap();
        file.set_len(len as u64 * 8).unwrap();
        Page::map(&file, len)
    }

    /// Maps a file that another process made.
    pub fn open(path: &Path) -> Page {
        let file = File::options().read(true).write(true).open(path).unwrap();
        let len = file.metadata().unwrap().len() as usize / 8;
        Page::map(&file, len)
    }

    fn map(file: &File, len: usize) -> Page {
        // SAFETY: a new mapping of a file that has this length; nothing else is at its address.
        let at = unsafe {
            libc::mmap(
                std::ptr::null_mut(),
                len * 8,
                libc::PROT_READ | libc::PROT_WRITE,
                libc::MAP_SHARED,
                file.as_raw_fd(),
                0,
            )
        };
        assert_ne!(at, libc::MAP_FAILED, "{}", std::io::Error::last_os_error());
        Page { words: at.cast(), len }
    }

    /// The word at `place`.
    pub fn word(&self, place: usize) -> &AtomicU64 {
        assert!(place < self.len, "word {place} of {}", self.len);
        // SAFETY: within the mapping, which is never taken away; all access is atomic.
        unsafe { &*self.words.add(place) }
    }
}
