//! The heaps and sockets of one run: in a folder of their own that goes away with the run, however it ends.

use std::{
    env, fs,
    path::{Path, PathBuf},
    process,
    sync::Mutex,
};

use plib::{Cache, CreateOptions};

use crate::failure::{Failure, Result};

/// The folder of this run, for the signal thread.
static FOLDER: Mutex<Option<PathBuf>> = Mutex::new(None);

/// The folder of this run; it is removed when this goes out of scope, and on SIGINT, SIGTERM and SIGHUP.
pub struct Folder(PathBuf);

impl Folder {
    /// A new folder under `$PLIB_DIR`, or in shared memory where that is not set.
    pub fn create() -> Result<Self> {
        let parent = env::var_os("PLIB_DIR").map_or_else(|| PathBuf::from("/dev/shm"), PathBuf::from);
        let path = parent.join(format!("plib-bench-{}", process::id()));
        fs::create_dir_all(&path).map_err(Failure::during(format!("cannot create {}", path.display())))?;
        *FOLDER.lock().expect("no holder of this lock panics") = Some(path.clone());
        remove_on_signals()?;
        Ok(Self(path))
    }

    /// The path of a file in it.
    pub fn file(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }

    /// Creates a heap in it, if memory and the file system have room for it.
    pub fn heap(&self, name: &str, size: u64, huge: bool) -> Result<Heap> {
        let free = free_bytes(&self.0)?;
        if free < size {
            return Err(Failure::new(format!(
                "the heap {name} needs {} MiB, and {} has {} MiB free; measure fewer items (--items) or set PLIB_DIR",
                size >> 20,
                self.0.display(),
                free >> 20
            )));
        }
        let path = self.file(name);
        let cache = Cache::create(&path, &CreateOptions::new(size).huge(huge))?;
        Ok(Heap { cache, path })
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        // Nothing to be done where it is gone already.
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// A heap that goes away with this.
pub struct Heap {
    /// This process's handle.
    pub cache: Cache,
    path: PathBuf,
}

impl Heap {
    /// Where it lies, for other processes.
    pub fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for Heap {
    fn drop(&mut self) {
        // The folder is removed in the end anyway; this frees the memory for the next measurement.
        let _ = Cache::destroy(&self.path);
    }
}

/// Bytes that the file system of a folder has free.
fn free_bytes(folder: &Path) -> Result<u64> {
    let name =
        std::ffi::CString::new(folder.as_os_str().as_encoded_bytes()).map_err(Failure::during(folder.display()))?;
    // SAFETY: an all-zero statvfs is a valid value to be overwritten.
    let mut stat: libc::statvfs = unsafe { std::mem::zeroed() };
    // SAFETY: the name ends in NUL and the struct is ours.
    if unsafe { libc::statvfs(name.as_ptr(), &mut stat) } != 0 {
        let error = std::io::Error::last_os_error();
        return Err(Failure::new(format!("statvfs {}: {error}", folder.display())));
    }
    Ok(stat.f_bavail * stat.f_frsize)
}

/// Starts a thread that takes the ending signals, removes the folder and ends the process.
fn remove_on_signals() -> Result<()> {
    // SAFETY: an all-zero sigset_t is valid storage for sigemptyset.
    let mut set: libc::sigset_t = unsafe { std::mem::zeroed() };
    // SAFETY: the set is ours; blocking in this thread makes every later thread block them too, so that
    // only the thread below takes them.
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
        if let Some(folder) = FOLDER.lock().expect("no holder of this lock panics").take() {
            let _ = fs::remove_dir_all(folder);
        }
        process::exit(128 + signal);
    });
    Ok(())
}
