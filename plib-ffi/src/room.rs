//! How much room there is for a new heap: on its file system and, where that is memory, in memory.

use crate::process;
use std::fs;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::path::{Path, PathBuf};

/// A file system's room.
pub(crate) struct Room {
    /// Bytes that this user can still have.
    pub free: u64,
    /// Bytes of its unit of allocation.
    pub block: u64,
}

impl Room {
    /// The room for more of an open file.
    pub fn beside(file: BorrowedFd<'_>) -> io::Result<Self> {
        let fs = file_system(file)?;
        let block = fs.f_bsize as u64;
        // A tmpfs without a size limit has no blocks at all and is bounded by memory alone.
        let mut free = if fs.f_blocks == 0 { u64::MAX } else { (fs.f_bavail as u64).saturating_mul(block) };
        if fs.f_type == libc::TMPFS_MAGIC {
            // Its pages are reserved at once; what is not there ends some process instead of this call.
            free = free.min(memory()).min(cgroup_memory());
        }
        if fs.f_type == libc::HUGETLBFS_MAGIC {
            free = free.min(huge_pages().saturating_mul(block));
        }
        Ok(Self { free, block })
    }
}

fn file_system(file: BorrowedFd<'_>) -> io::Result<libc::statfs> {
    // SAFETY: zeroes are a valid statfs, and the kernel fills it in.
    unsafe {
        let mut fs: libc::statfs = std::mem::zeroed();
        process::checked(libc::fstatfs(file.as_raw_fd(), &mut fs))?;
        Ok(fs)
    }
}

/// Bytes of the huge pages that an open file consists of; None if it is not on hugetlbfs.
pub(crate) fn huge_page(file: BorrowedFd<'_>) -> io::Result<Option<usize>> {
    let fs = file_system(file)?;
    Ok((fs.f_type == libc::HUGETLBFS_MAGIC).then_some(fs.f_bsize as usize))
}

/// A number behind a name in a file of names and numbers.
fn number(text: &str, name: &str) -> Option<u64> {
    text.lines().find_map(|line| line.strip_prefix(name)?.split_ascii_whitespace().next()?.parse().ok())
}

/// What the kernel thinks can be used without harm; without limit where it does not say.
fn memory() -> u64 {
    let text = fs::read_to_string("/proc/meminfo").unwrap_or_default();
    number(&text, "MemAvailable:").map_or(u64::MAX, |kb| (kb + number(&text, "SwapFree:").unwrap_or(0)) * 1024)
}

/// Huge pages that nobody has; without limit where the kernel does not say.
fn huge_pages() -> u64 {
    number(&fs::read_to_string("/proc/meminfo").unwrap_or_default(), "HugePages_Free:").unwrap_or(u64::MAX)
}

/// What this process's control groups (version 2) leave it; without limit where there are none.
fn cgroup_memory() -> u64 {
    let text = fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
    let Some(path) = text.lines().find_map(|line| line.strip_prefix("0::/")) else { return u64::MAX };
    let root = Path::new("/sys/fs/cgroup");
    let own = root.join(path);
    own.ancestors()
        .take_while(|dir| dir.starts_with(root))
        .map(|dir| left_in(dir.to_path_buf()))
        .min()
        .unwrap_or(u64::MAX)
}

/// What one control group leaves.
fn left_in(dir: PathBuf) -> u64 {
    let read = |name: &str| fs::read_to_string(dir.join(name)).unwrap_or_default();
    // "max" is no number.
    let Ok(limit) = read("memory.max").trim().parse::<u64>() else { return u64::MAX };
    let Ok(used) = read("memory.current").trim().parse::<u64>() else { return u64::MAX };
    // Cached files count as used but give way.
    let cached = number(&read("memory.stat"), "inactive_file ").unwrap_or(0);
    limit.saturating_sub(used.saturating_sub(cached))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::fd::AsFd;

    #[test]
    fn room_is_known_and_limited() {
        let file = tempfile::tempfile_in("/dev/shm").expect("a file");
        let room = Room::beside(file.as_fd()).expect("statfs");
        assert!(room.block >= 4096 && room.free > 0 && room.free <= memory());
    }

    #[test]
    fn a_control_group_limits() {
        let dir = tempfile::tempdir().expect("a directory");
        let write = |name: &str, text: &str| fs::write(dir.path().join(name), text).expect("write");
        let left = || left_in(dir.path().to_path_buf());
        assert_eq!(left(), u64::MAX);
        write("memory.max", "max\n");
        write("memory.current", "300\n");
        assert_eq!(left(), u64::MAX);
        write("memory.max", "1000\n");
        assert_eq!(left(), 700);
        write("memory.stat", "anon 5\ninactive_file 100\n");
        assert_eq!(left(), 800);
        write("memory.current", "5000\n");
        assert_eq!(left(), 0);
    }
}
