//! Heaps that are removed when the job ends, also by SIGINT, SIGTERM or SIGHUP.

use std::{path::PathBuf, process, sync::Mutex};

use plib::{Cache, CreateOptions};

use crate::failure::{Failure, Result};

/// The heaps that exist now, for the signal thread.
static HEAPS: Mutex<Vec<PathBuf>> = Mutex::new(Vec::new());

/// A heap that is removed with this.
pub struct OwnHeap {
    pub cache: Cache,
    pub path: PathBuf,
}

impl OwnHeap {
    /// Creates one.
    pub fn create(name: &str, size: u64, item_size_max: u32) -> Result<Self> {
        let path = Cache::path_of(name);
        HEAPS.lock().expect("no holder of this lock panics").push(path.clone());
        let cache = Cache::create(name, &CreateOptions::new(size).item_size_max(item_size_max))?;
        Ok(Self { cache, path })
    }
}

impl Drop for OwnHeap {
    fn drop(&mut self) {
        // Gone already if a signal came at the same time.
        let _ = Cache::destroy(&self.path);
        HEAPS.lock().expect("no holder of this lock panics").retain(|path| *path != self.path);
    }
}

/// Starts a thread that takes the ending signals, removes the heaps and ends the process.
pub fn remove_on_signals() -> Result<()> {
    // SAFETY: an all-zero sigset_t is valid storage for sigemptyset.
    let mut set: libc::sigset_t = unsafe { std::mem::zeroed() };
    // SAFETY: the set is ours; blocked here, the signals are blocked in all later threads, and only the one
    // below takes them.
    let rc = unsafe {
        libc::sigemptyset(&mut set);
        for signal in [libc::SIGINT, libc::SIGTERM, libc::SIGHUP] {
            libc::sigaddset(&mut set, signal);
        }
        libc::pthread_sigmask(libc::SIG_BLOCK, &set, std::ptr::null_mut())
    };
    if rc != 0 {
        return Err(Failure::new("pthread_sigmask failed"));
    }
    std::thread::spawn(move || {
        let mut signal = 0;
        // SAFETY: the set and the number are this thread's own.
        unsafe { libc::sigwait(&set, &mut signal) };
        for path in HEAPS.lock().expect("no holder of this lock panics").drain(..) {
            let _ = Cache::destroy(path);
        }
        process::exit(128 + signal);
    });
    Ok(())
}
