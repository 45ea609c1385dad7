//! The directory of heaps and its file system.

use std::ffi::CString;
use std::fs::{self, File};
use std::os::fd::AsRawFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use plib::Cache;

use super::{Check, trial};
use crate::{owner, size};

/// A heap of the smallest useful size should fit.
const SPACE_WANTED: u64 = 64 << 20;

pub(super) fn checks() -> Vec<Check> {
    let dir = Cache::path_of("").components().collect::<PathBuf>();
    let (exists, place) = nearest(&dir);
    let mut checks = vec![directory(&dir, &place, exists), file_system(&place), space(&place)];
    if writable(&place) {
        checks.push(locks(&place));
        checks.extend(trial::checks(&place));
    }
    checks
}

/// The directory itself, or the first parent of it that is there.
fn nearest(dir: &Path) -> (bool, PathBuf) {
    let there = dir.ancestors().find(|d| d.is_dir()).unwrap_or(Path::new("/"));
    (there == dir, there.to_path_buf())
}

fn c_path(path: &Path) -> CString {
    // A path that comes from the system or the environment has no zero byte.
    CString::new(path.as_os_str().as_bytes()).unwrap_or_default()
}

fn writable(path: &Path) -> bool {
    // SAFETY: the path is a string that ends with zero; faccessat only reads it.
    unsafe { libc::faccessat(libc::AT_FDCWD, c_path(path).as_ptr(), libc::W_OK | libc::X_OK, libc::AT_EACCESS) == 0 }
}

fn directory(dir: &Path, place: &Path, exists: bool) -> Check {
    let what = "PLIB_DIR";
    let shown = dir.display();
    if exists {
        let described =
            fs::metadata(dir).map_or_else(|e| e.to_string(), |m| format!("{} {}", owner::mode(&m), owner::of(&m)));
        let found = format!("{shown}, {described}");
        if writable(dir) {
            return Check::ok(what, found);
        }
        return Check::problem(
            what,
            found,
            "you cannot create heaps there (those of others may open); use a directory of your own",
        )
        .fix("export PLIB_DIR=/dev/shm/$USER && mkdir -p -m 700 $PLIB_DIR");
    }
    let makes_it = dir.parent() == Some(place) && writable(place);
    if makes_it {
        return Check::ok(what, format!("{shown} is not there yet; the first `plib create` makes it"));
    }
    Check::problem(what, format!("{shown} is not there and will not be made"), "make it")
        .fix(format!("mkdir -p {shown}"))
}

fn stat_fs(path: &Path) -> Option<libc::statfs> {
    // SAFETY: statfs is plain numbers, for which zeros are a value.
    let mut stat: libc::statfs = unsafe { std::mem::zeroed() };
    // SAFETY: the path ends with zero and is only read; the structure is ours to be written.
    let done = unsafe { libc::statfs(c_path(path).as_ptr(), &mut stat) } == 0;
    done.then_some(stat)
}

/// Mount point, file system and options of a path, from the text of /proc/self/mountinfo (proc(5)).
fn mount_of<'a>(mountinfo: &'a str, path: &Path) -> Option<(&'a str, &'a str, String)> {
    let mounts = mountinfo.lines().filter_map(|line| {
        let (mount, fs) = line.split_once(" - ")?;
        let mut fields = mount.split(' ').skip(4);
        let (point, options) = (fields.next()?, fields.next()?);
        let mut fs_fields = fs.split(' ');
        let kind = fs_fields.next()?;
        path.starts_with(point).then(|| (point, kind, format!("{options},{}", fs_fields.nth(1).unwrap_or_default())))
    });
    // The longest mount point is the innermost; of equal ones the last covers the others.
    mounts.max_by_key(|(point, ..)| point.len())
}

fn file_system(place: &Path) -> Check {
    let what = "file system";
    let table = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    let real = place.canonicalize().unwrap_or_else(|_| place.to_path_buf());
    let Some((point, kind, options)) = mount_of(&table, &real) else {
        return Check::note(what, "unknown", "cannot read /proc/self/mountinfo: mount /proc");
    };
    let found = format!("{kind} at {point} ({options})");
    if options.split(',').any(|option| option == "ro") {
        return Check::problem(what, found, "it is mounted read-only").fix(format!("sudo mount -o remount,rw {point}"));
    }
    if kind == "tmpfs" || kind == "hugetlbfs" {
        return Check::ok(what, found);
    }
    Check::note(
        what,
        found,
        "heaps on a disk file system are written back to disk, which costs time; tmpfs is memory only",
    )
    .fix("export PLIB_DIR=/dev/shm/plib")
}

fn space(place: &Path) -> Check {
    let what = "space";
    let Some(stat) = stat_fs(place) else {
        return Check::problem(what, "unknown", format!("cannot ask the file system of {}", place.display()));
    };
    let block = stat.f_bsize as u64;
    let (free, total) = (stat.f_bavail * block, stat.f_blocks * block);
    let found = format!("{} free of {}", size::format(free), size::format(total));
    if free >= SPACE_WANTED {
        return Check::ok(what, found);
    }
    let enough = size::format(total + (1 << 30)).replace([' ', 'i', 'B'], "");
    Check::problem(what, found, "too little for a heap: destroy one (`plib list`), or make the file system larger")
        .fix(format!("sudo mount -o remount,size={enough} {}", mount_point(place)))
}

fn mount_point(place: &Path) -> String {
    let table = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    mount_of(&table, place).map_or_else(|| place.display().to_string(), |(point, ..)| point.to_owned())
}

/// A file that goes away by itself.
pub(super) fn unnamed_file(place: &Path) -> std::io::Result<File> {
    File::options().read(true).write(true).custom_flags(libc::O_TMPFILE).mode(0o600).open(place)
}

/// Takes the lock by which survivors know who is alive, on a file that has no name.
fn locks(place: &Path) -> Check {
    let what = "file locks";
    let taken = unnamed_file(place).and_then(|file| {
        // SAFETY: flock is plain numbers, for which zeros are a value.
        let mut lock: libc::flock = unsafe { std::mem::zeroed() };
        lock.l_type = libc::F_WRLCK as libc::c_short;
        lock.l_len = 1;
        // SAFETY: the descriptor is open and the structure lives through the call.
        match unsafe { libc::fcntl(file.as_raw_fd(), libc::F_OFD_SETLK, &lock) } {
            0 => Ok(()),
            _ => Err(std::io::Error::last_os_error()),
        }
    });
    match taken {
        Ok(()) => Check::ok(what, "locks of open file descriptions work"),
        // hugetlbfs has no unnamed files; the lock is the kernel's, not the file system's.
        Err(e) if matches!(e.raw_os_error(), Some(libc::EOPNOTSUPP | libc::EISDIR)) => {
            Check::ok(what, "not tried: no unnamed files here")
        }
        Err(e) => Check::problem(what, e.to_string(), "dead processes are found by them: use another file system")
            .fix("export PLIB_DIR=/dev/shm/plib"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MOUNTS: &str = "21 1 0:20 / / rw,relatime shared:1 - ext4 /dev/sda rw,errors=continue\n\
        22 21 0:21 / /dev rw,nosuid - devtmpfs dev rw\n\
        23 22 0:22 / /dev/shm rw,nosuid,nodev shared:2 - tmpfs tmpfs rw,size=64k,huge=never\n";

    #[test]
    fn the_innermost_mount_is_taken() {
        let (point, kind, options) = mount_of(MOUNTS, Path::new("/dev/shm/plib")).unwrap();
        assert_eq!((point, kind, options.as_str()), ("/dev/shm", "tmpfs", "rw,nosuid,nodev,rw,size=64k,huge=never"));
        assert_eq!(mount_of(MOUNTS, Path::new("/dev/shmem")).unwrap().0, "/dev");
        assert_eq!(mount_of(MOUNTS, Path::new("/home")).unwrap().0, "/");
    }

    #[test]
    fn a_missing_directory_has_a_nearest_parent() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(nearest(&dir.path().join("a/b")), (false, dir.path().to_path_buf()));
        assert_eq!(nearest(dir.path()), (true, dir.path().to_path_buf()));
    }
}
