//! What plib asks the kernel about this process and machine.

use crate::other_process::Stat;
use std::ffi::CString;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

/// A path as the system calls want it.
pub(crate) fn c_path(path: &Path) -> io::Result<CString> {
    CString::new(path.as_os_str().as_bytes()).map_err(|_| io::Error::from_raw_os_error(libc::EINVAL))
}

/// The result of a system call that answers -1 on failure.
pub(crate) fn checked(result: libc::c_int) -> io::Result<libc::c_int> {
    if result == -1 { Err(io::Error::last_os_error()) } else { Ok(result) }
}

/// The calling thread's id.
pub(crate) fn thread_id() -> u32 {
    // SAFETY: takes nothing and cannot fail.
    unsafe { libc::gettid() as u32 }
}

/// Whether a thread of this process has vanished. One that cannot be asked about counts as there.
pub(crate) fn thread_gone(tid: u32) -> bool {
    plib_core::sys::thread_gone(process_id(), tid)
}

/// Lets some time pass. By the system call: libc's function is a place where threads are cancelled.
pub(crate) fn pause(time: Duration) {
    let time = libc::timespec { tv_sec: time.as_secs() as i64, tv_nsec: i64::from(time.subsec_nanos()) };
    // SAFETY: reads a timespec of ours; what is left after a signal is not asked for.
    unsafe { libc::syscall(libc::SYS_nanosleep, &raw const time, 0) };
}

/// The user whose rights this process has.
pub(crate) fn user() -> u32 {
    // SAFETY: takes nothing and cannot fail.
    unsafe { libc::geteuid() }
}

/// The kernel's version.
pub(crate) fn kernel_version() -> (u32, u32) {
    // SAFETY: zeroes are a valid record, which the kernel fills in.
    let release = unsafe {
        let mut name: libc::utsname = std::mem::zeroed();
        libc::uname(&raw mut name);
        std::ffi::CStr::from_ptr(name.release.as_ptr()).to_string_lossy().into_owned()
    };
    let mut numbers = release.split(|c: char| !c.is_ascii_digit()).map(|number| number.parse().unwrap_or(0));
    (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0))
}

/// This process's id.
pub(crate) fn process_id() -> u32 {
    // SAFETY: takes nothing and cannot fail.
    unsafe { libc::getpid() as u32 }
}

/// When this process started, in clock ticks after boot; 0 where /proc does not say.
pub(crate) fn start_time() -> u64 {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    Stat::parse(&stat).map_or(0, |stat| stat.start_time)
}

/// The inode of the pid namespace that this process's ids are of; 0 where /proc does not say. Asked each time: a forked
/// child's may be another than its parent's.
pub(crate) fn pid_namespace() -> u64 {
    use std::os::unix::fs::MetadataExt;
    std::fs::metadata("/proc/self/ns/pid").map_or(0, |namespace| namespace.ino())
}

/// The running system's boot id.
pub(crate) fn boot_id() -> io::Result<[u64; 2]> {
    let text = std::fs::read_to_string("/proc/sys/kernel/random/boot_id")?;
    let digits: String = text.chars().filter(char::is_ascii_hexdigit).collect();
    let id = u128::from_str_radix(&digits, 16).map_err(|e| io::Error::new(io::ErrorKind::InvalidData, e))?;
    Ok([(id >> 64) as u64, id as u64])
}

/// Random words for a hash's key.
pub(crate) fn secret() -> io::Result<[u64; 4]> {
    let mut words = [0u64; 4];
    // SAFETY: the words are ours and 32 bytes long; up to 256 bytes come whole or not at all.
    let got = unsafe { libc::getrandom(words.as_mut_ptr().cast(), size_of_val(&words), 0) };
    if got == size_of_val(&words) as isize { Ok(words) } else { Err(io::Error::last_os_error()) }
}

/// Seconds since 1970.
pub(crate) fn unix_now() -> u64 {
    std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).map_or(0, |d| d.as_secs())
}

/// Where the vDSO is mapped; 0 if nowhere.
pub(crate) fn vdso() -> usize {
    // SAFETY: reads the auxiliary vector.
    unsafe { libc::getauxval(libc::AT_SYSINFO_EHDR) as usize }
}

const MEMBARRIER_PRIVATE_EXPEDITED: libc::c_int = 1 << 3;
const MEMBARRIER_REGISTER_PRIVATE_EXPEDITED: libc::c_int = 1 << 4;
static HAS_MEMBARRIER: AtomicBool = AtomicBool::new(false);

fn membarrier(command: libc::c_int) -> bool {
    // SAFETY: takes a command, flags and a CPU number only.
    unsafe { libc::syscall(libc::SYS_membarrier, command, 0, 0) == 0 }
}

/// Prepares this process for [`heavy_barrier`]; to be called in each process that opens a heap.
pub(crate) fn register_barrier() {
    HAS_MEMBARRIER.store(membarrier(MEMBARRIER_REGISTER_PRIVATE_EXPEDITED), Ordering::Release);
}

/// A full memory barrier on every running thread of this process. It pairs with the compiler fence of
/// [`crate::claim::enter`]: what the fast path saves, closing a handle pays.
pub(crate) fn heavy_barrier() {
    if HAS_MEMBARRIER.load(Ordering::Acquire) && membarrier(MEMBARRIER_PRIVATE_EXPEDITED) {
        return;
    }
    // Without membarrier: taking write permission from a page that is in use makes the kernel interrupt every processor
    // that runs a thread of this process, to flush its translation; the interrupt is the barrier.
    // SAFETY: the page is private to this function.
    unsafe {
        let page = libc::mmap(
            std::ptr::null_mut(),
            4096,
            libc::PROT_READ | libc::PROT_WRITE,
            libc::MAP_PRIVATE | libc::MAP_ANONYMOUS,
            -1,
            0,
        );
        if page != libc::MAP_FAILED {
            page.cast::<u8>().write_volatile(1);
            libc::mprotect(page, 4096, libc::PROT_NONE);
            libc::munmap(page, 4096);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernel_answers() {
        assert_ne!(boot_id().expect("boot id"), [0, 0]);
        assert_ne!(secret().expect("random"), secret().expect("random"));
        assert!(start_time() > 0 && pid_namespace() > 0 && vdso() != 0 && unix_now() > 1_600_000_000);
        register_barrier();
        heavy_barrier();
    }
}
