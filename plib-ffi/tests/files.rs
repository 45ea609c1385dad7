//! Heap files: how they appear, who may use them, what is refused and with which words.

use plib::{Cache, CreateOptions, Error, Isolation, OpenOptions, ProtectionKeys, Status};
use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Barrier, Mutex};
use tempfile::TempDir;

const SIZE: u64 = 16 << 20;
/// A user and group that own nothing here.
const NOBODY: u32 = 65534;

fn dir() -> TempDir {
    tempfile::Builder::new().prefix("plib-files-").tempdir_in("/dev/shm").expect("a directory")
}

fn root() -> bool {
    // SAFETY: takes nothing and cannot fail.
    unsafe { libc::geteuid() == 0 }
}

/// Runs `work` in a child of fork, as nobody when this is root; gives its exit status.
fn as_other_user(work: impl FnOnce() -> i32) -> i32 {
    // SAFETY: the child only runs `work` and exits.
    unsafe {
        let child = libc::fork();
        assert!(child >= 0);
        if child == 0 {
            let gone =
                !root() || (libc::setgroups(0, std::ptr::null()) | libc::setgid(NOBODY) | libc::setuid(NOBODY)) == 0;
            libc::_exit(if gone { work() } else { 99 });
        }
        let mut status = 0;
        assert_eq!(libc::waitpid(child, &mut status, 0), child);
        assert!(libc::WIFEXITED(status), "the child died: {status:#x}");
        libc::WEXITSTATUS(status)
    }
}

#[test]
fn a_heap_appears_once_and_complete() {
    let dir = dir();
    let path = dir.path().join("heap");
    let (made, opened, done) = (AtomicU32::new(0), AtomicU32::new(0), AtomicBool::new(false));
    let start = Barrier::new(5);
    let cache = Mutex::new(None);
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                start.wait();
                match Cache::create(&path, &CreateOptions::new(SIZE)) {
                    Ok(made_cache) => {
                        made.fetch_add(1, Ordering::Relaxed);
                        *cache.lock().expect("lock") = Some(made_cache);
                    }
                    Err(Error::AlreadyExists(at)) => assert_eq!(at, path),
                    Err(e) => panic!("{e}"),
                }
                done.store(true, Ordering::Relaxed);
            });
        }
        scope.spawn(|| {
            start.wait();
            // Whoever sees the name sees a heap.
            while opened.load(Ordering::Relaxed) == 0 {
                match Cache::open(&path) {
                    Ok(_) => drop(opened.fetch_add(1, Ordering::Relaxed)),
                    Err(Error::NoHeap(_)) => assert!(!done.load(Ordering::Relaxed) || path.exists()),
                    Err(e) => panic!("half-made: {e}"),
                }
            }
        });
    });
    assert_eq!(made.into_inner(), 1);
    let left: Vec<_> = fs::read_dir(dir.path()).expect("list").map(|e| e.expect("entry").file_name()).collect();
    let beside: &[&str] = if root() { &["heap", "heap.lock"] } else { &["heap"] };
    let sorted = BTreeSet::from_iter(&left);
    assert!(sorted.iter().copied().eq(beside), "nothing but the heap is left: {left:?}");
    assert_eq!(fs::metadata(&path).expect("stat").blocks() * 512, SIZE, "all its space is reserved");
}

#[test]
fn mode_and_group_are_what_was_asked() {
    let dir = dir();
    for (mode, name) in [(0o600, "own"), (0o660, "shared"), (0o666, "open")] {
        let path = dir.path().join(name);
        // SAFETY: takes a number only.
        let umask = unsafe { libc::umask(0o077) };
        let cache = Cache::create(&path, &CreateOptions::new(SIZE).mode(mode)).expect("create");
        // SAFETY: as above.
        unsafe { libc::umask(umask) };
        assert_eq!(fs::metadata(&path).expect("stat").permissions().mode() & 0o7777, mode);
        assert_eq!(cache.info().mode, mode);
    }
    // SAFETY: takes nothing.
    let gid = if root() { 12345 } else { unsafe { libc::getegid() } };
    let path = dir.path().join("grouped");
    let cache = Cache::create(&path, &CreateOptions::new(SIZE).group(gid.to_string())).expect("create");
    assert_eq!(cache.info().gid, gid);
    let wrong = Cache::create(dir.path().join("x"), &CreateOptions::new(SIZE).group("no such group".into()));
    assert!(matches!(wrong, Err(Error::NoGroup(group)) if group == "no such group"));
    let wrong = Cache::create(dir.path().join("x"), &CreateOptions::new(SIZE).mode(0o4755));
    assert!(matches!(wrong, Err(Error::OutOfRange { field: "mode", .. })));
    assert!(!dir.path().join("x").exists());
}

#[test]
fn too_large_a_heap_leaves_no_trace_and_says_what_is_free() {
    let dir = dir();
    let path = dir.path().join("huge");
    let size = 1 << 40;
    match Cache::create(&path, &CreateOptions::new(size)) {
        Err(e @ Error::NoSpace { wanted, free, .. }) => {
            assert!(wanted == size && free < size);
            let words = e.to_string();
            assert!(
                words.contains("huge") && words.contains(&free.to_string()) && words.contains("PLIB_DIR"),
                "{words}"
            );
            assert_eq!(e.status(), Status::NoSpace);
        }
        other => panic!("{other:?}"),
    }
    assert_eq!(fs::read_dir(dir.path()).expect("list").count(), 0);
}

#[test]
fn a_full_file_system_is_an_error_at_creation() {
    if !root() {
        // Mounting wants root; CI runs as root, and a user's run says what it left out.
        println!("left out: mounting a small tmpfs wants root");
        return;
    }
    let dir = dir();
    let small = dir.path().join("small");
    fs::create_dir(&small).expect("mkdir");
    let status = std::process::Command::new("mount")
        .args(["-t", "tmpfs", "-o", "size=20m", "none"])
        .arg(&small)
        .status()
        .expect("mount must be installed for this test");
    assert!(status.success(), "mount a tmpfs of 20 MiB");
    let result = std::panic::catch_unwind(|| {
        Cache::create(small.join("a"), &CreateOptions::new(12 << 20)).expect("the first fits");
        let second = Cache::create(small.join("b"), &CreateOptions::new(12 << 20));
        assert!(matches!(second, Err(Error::NoSpace { free, .. }) if free <= 8 << 20), "{second:?}");
        assert!(!small.join("b").exists());
        // The first is untouched by it.
        let cache = Cache::open(small.join("a")).expect("open");
        cache.set(b"k", b"v", 0, 0).expect("set");
    });
    let unmounted = std::process::Command::new("umount").arg("-l").arg(&small).status().expect("umount");
    assert!(unmounted.success());
    result.expect("the checks above");
}

#[test]
fn what_is_no_heap_is_refused_and_left_alone() {
    let dir = dir();
    let heap = dir.path().join("heap");
    drop(Cache::create(&heap, &CreateOptions::new(SIZE)).expect("create"));
    let link = dir.path().join("link");
    symlink(&heap, &link).expect("symlink");
    let text = dir.path().join("text");
    fs::write(&text, "x".repeat(10_000)).expect("write");
    let empty = dir.path().join("empty");
    File::create(&empty).expect("create");
    let fifo = dir.path().join("fifo");
    let status = std::process::Command::new("mkfifo").arg(&fifo).status().expect("mkfifo");
    assert!(status.success());
    for path in [&link, &text, &empty, &fifo, &dir.path().to_path_buf()] {
        for result in [Cache::open(path).map(drop), Cache::destroy(path)] {
            match result {
                Err(e @ Error::NotAHeap { .. }) => {
                    assert!(e.to_string().contains(&path.display().to_string()), "{e}");
                    assert_eq!(e.status(), Status::NotAHeap);
                }
                other => panic!("{}: {other:?}", path.display()),
            }
        }
        assert!(fs::symlink_metadata(path).is_ok(), "{} is still there", path.display());
    }
    assert!(matches!(Cache::open(dir.path().join("none")), Err(Error::NoHeap(_))));
    assert!(matches!(Cache::open(heap.join("below")), Err(Error::NoHeap(_))));
    assert!(matches!(Cache::destroy(dir.path().join("none")), Err(Error::NoHeap(_))));
    assert_eq!(fs::read_to_string(&text).expect("read").len(), 10_000);
}

#[test]
fn a_shortened_file_is_an_error_and_no_signal() {
    let dir = dir();
    let path = dir.path().join("heap");
    drop(Cache::create(&path, &CreateOptions::new(SIZE)).expect("create"));
    let file = File::options().write(true).open(&path).expect("open");
    for len in [SIZE - 1, SIZE / 2, 8192, 4096] {
        file.set_len(len).expect("truncate");
        match Cache::open(&path) {
            Err(Error::Damaged { field: "file size", expected, found, .. }) => {
                assert_eq!((expected, found), (SIZE, len))
            }
            other => panic!("{len}: {other:?}"),
        }
    }
    for len in [4095, 100, 0] {
        file.set_len(len).expect("truncate");
        assert!(matches!(Cache::open(&path), Err(Error::NotAHeap { .. })), "{len}");
    }
}

#[test]
fn names_are_looked_up_in_plib_dir() {
    let dir = dir();
    let inner = dir.path().join("plib");
    // The variable is the process's, so the rest of this test runs in a process of its own.
    let status = std::process::Command::new(std::env::current_exe().expect("this test"))
        .args(["--exact", "child_by_name", "--ignored", "--nocapture"])
        .env("PLIB_DIR", &inner)
        .status()
        .expect("run");
    assert!(status.success());
    assert!(!inner.join("one").exists() && inner.join("two").exists());
}

#[test]
#[ignore = "run by names_are_looked_up_in_plib_dir with a PLIB_DIR of its own"]
fn child_by_name() {
    let dir = PathBuf::from(std::env::var_os("PLIB_DIR").expect("PLIB_DIR"));
    assert_eq!(Cache::list().expect("a missing directory holds nothing"), Vec::<PathBuf>::new());
    assert_eq!(Cache::path_of("one"), dir.join("one"));
    assert_eq!(Cache::path_of("./one"), Path::new("./one"));
    assert!(matches!(Cache::open("one"), Err(Error::NoHeap(path)) if path == dir.join("one")));
    Cache::create("two", &CreateOptions::new(SIZE)).expect("create");
    let one = Cache::create("one", &CreateOptions::new(SIZE)).expect("create");
    fs::write(dir.join("three"), "no heap").expect("write");
    assert_eq!(Cache::list().expect("list"), [dir.join("one"), dir.join("two")]);
    let mode = fs::metadata(&dir).expect("stat").permissions().mode() & 0o7777;
    assert_eq!(mode, if root() { 0o1777 } else { 0o755 });
    one.set(b"k", b"v", 0, 0).expect("set");
    Cache::destroy("one").expect("destroy");
    assert!(matches!(Cache::open("one"), Err(Error::NoHeap(_))));
    assert_eq!(one.get(b"k").expect("get").expect("still there for its holders").value, b"v");
    for bad in ["", ".", "..", ".one", "a\0b"] {
        assert!(matches!(Cache::open(bad), Err(Error::Name { .. })), "{bad:?}");
    }
    if root() {
        // Any user can make heaps of their own there, and not touch others'.
        let status = as_other_user(|| match Cache::create("theirs", &CreateOptions::new(SIZE)) {
            Ok(cache) if cache.set(b"k", b"v", 0, 0).is_ok() && cache.info().uid == NOBODY => {
                match Cache::destroy("two") {
                    Err(Error::Permission { .. }) => 0,
                    _ => 2,
                }
            }
            _ => 1,
        });
        assert_eq!(status, 0);
        assert!(dir.join("theirs").exists());
    }
}

#[test]
fn no_permission_says_so() {
    if !root() {
        println!("left out: another user's heap wants root to make it");
        return;
    }
    let dir = dir();
    fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755)).expect("chmod");
    let path = dir.path().join("heap");
    let private = Cache::create(&path, &CreateOptions::new(SIZE)).expect("create");
    private.set(b"k", b"v", 0, 0).expect("set");
    let status = as_other_user(|| {
        let opened = Cache::open(&path);
        let words = opened.as_ref().err().map(ToString::to_string).unwrap_or_default();
        let refused =
            matches!(opened, Err(Error::Permission { .. })) && words.contains("heap") && words.contains("mode");
        let created = Cache::create(dir.path().join("new"), &CreateOptions::new(SIZE));
        let denied = matches!(created, Err(Error::Permission { .. }));
        // A child that may not open the file any more cannot become a client, and says why.
        let inherited = matches!(private.get(b"k"), Err(Error::Permission { .. }));
        i32::from(!refused) | i32::from(!denied) << 1 | i32::from(!inherited) << 2
    });
    assert_eq!(status, 0);
    fs::set_permissions(&path, fs::Permissions::from_mode(0o666)).expect("chmod");
    let status = as_other_user(|| match Cache::open(&path).and_then(|cache| cache.get(b"k")) {
        Ok(Some(item)) if item.value == b"v" => 0,
        _ => 1,
    });
    assert_eq!(status, 0, "the mode is the policy");
}

#[test]
fn more_isolation_than_there_is_is_refused() {
    let dir = dir();
    let path = dir.path().join("heap");
    let cache = Cache::create(&path, &CreateOptions::new(SIZE)).expect("create");
    assert_eq!(cache.isolation(), Isolation::None);
    // What a machine with protection keys gives is shown by scripts/protection-test.
    let has_keys = ProtectionKeys::detect().on().is_some();
    for wanted in
        [Isolation::Guarded, Isolation::Sealed].into_iter().filter(|tier| !has_keys || *tier == Isolation::Sealed)
    {
        match Cache::open_with(&path, &OpenOptions::new().isolation(wanted)) {
            Err(e @ Error::Isolation { .. }) => {
                assert!(e.to_string().contains("doctor") && e.status() == Status::Isolation)
            }
            other => panic!("{other:?}"),
        }
    }
    assert!(Cache::open_with(&path, &OpenOptions::new().isolation(Isolation::None)).is_ok());
}

#[test]
fn as_many_clients_as_the_heap_has_slots() {
    let dir = dir();
    let path = dir.path().join("heap");
    let first = Cache::create(&path, &CreateOptions::new(SIZE).contexts(4)).expect("create");
    let more: Vec<Cache> = (1..first.info().clients).map(|_| Cache::open(&path).expect("open")).collect();
    match Cache::open(&path) {
        Err(e @ Error::Full { limit: 4, .. }) => assert!(e.to_string().contains("contexts"), "{e}"),
        other => panic!("{other:?}"),
    }
    assert_eq!(first.clients().expect("clients").iter().filter(|c| c.alive).count(), 4);
    drop(more);
    assert_eq!(first.clients().expect("clients").len(), 1);
    assert!(Cache::open(&path).is_ok());
}

#[test]
fn clones_share_a_handle_and_the_last_one_closes_it() {
    let dir = dir();
    let path = dir.path().join("heap");
    let mapped = || fs::read_to_string("/proc/self/maps").expect("maps").contains(&path.display().to_string());
    let cache = Cache::create(&path, &CreateOptions::new(SIZE)).expect("create");
    let clone = cache.clone();
    cache.set(b"k", b"v", 0, 0).expect("set");
    drop(cache);
    let sent =
        std::thread::spawn(move || (clone.get(b"k").expect("get").expect("item").value, clone)).join().expect("join");
    assert_eq!(sent.0, b"v");
    assert!(mapped());
    drop(sent.1);
    assert!(!mapped());
}

/// Files of hugetlbfs cannot be written by write(2), and their mappings are whole huge pages, whatever is asked for.
#[test]
fn a_heap_can_be_on_hugetlbfs() {
    let meminfo = fs::read_to_string("/proc/meminfo").expect("meminfo");
    let number = |name: &str| -> Option<u64> {
        let line = meminfo.lines().find_map(|line| line.strip_prefix(name))?;
        line.trim().trim_end_matches(" kB").parse().ok()
    };
    let (free, size) = (number("HugePages_Free:").unwrap_or(0), number("Hugepagesize:").unwrap_or(0) * 1024);
    // Both heaps, each with an odd end, and their lock files.
    let wanted = |len: u64| len.div_ceil(size.max(1)) + 1;
    let sizes = [SIZE, SIZE + (1 << 20) + 65_536];
    let pages: u64 = sizes.iter().map(|size| wanted(*size)).sum();
    if !root() || free < pages {
        eprintln!("    left out: hugetlbfs wants root and {pages} free huge pages (vm.nr_hugepages), here are {free}");
        return;
    }
    let dir = dir();
    let mount = |args: &[&str]| std::process::Command::new(args[0]).args(&args[1..]).arg(dir.path()).status();
    assert!(mount(&["mount", "-t", "hugetlbfs", "none"]).expect("mount must be installed for this test").success());
    let result = std::panic::catch_unwind(|| {
        for (n, size) in sizes.into_iter().enumerate() {
            let path = dir.path().join(format!("heap{n}"));
            let is_mapped = || {
                let maps = fs::read_to_string("/proc/self/maps").expect("maps");
                maps.contains(path.to_str().expect("a readable path"))
            };
            // Closed and opened again: nothing stays mapped.
            for round in 0..5 {
                let cache = match round {
                    0 => Cache::create(&path, &CreateOptions::new(size)).expect("create"),
                    _ => Cache::open(&path).expect("open"),
                };
                cache.set(b"k", &vec![7; 1 << 20], 0, 0).or_else(|_| cache.set(b"k", b"v", 0, 0)).expect("set");
                assert_eq!(cache.clients().expect("clients").len(), 1);
                let child = as_other_user(|| i32::from(!matches!(cache.get(b"k"), Err(Error::Permission { .. }))));
                assert_eq!(child, 0);
                assert!(is_mapped());
                drop(cache);
                assert!(!is_mapped(), "something stays mapped");
            }
            let lock = path.with_added_extension("lock");
            assert!(fs::read(&lock).expect("read").starts_with(b"pliblock"));
            Cache::destroy(&path).expect("destroy");
            assert!(!lock.exists());
        }
    });
    assert!(mount(&["umount", "-l"]).expect("umount").success());
    result.expect("the checks above");
    eprintln!("    two heaps on hugetlbfs, with lock files, in {pages} huge pages");
}

#[test]
fn huge_pages_are_asked_for_and_told_of() -> io::Result<()> {
    let dir = dir();
    let plain = Cache::create(dir.path().join("plain"), &CreateOptions::new(SIZE)).expect("create");
    assert!(["4 KiB", "2 MiB"].iter().any(|pages| plain.info().pages.starts_with(pages)));
    let huge = Cache::create(dir.path().join("huge"), &CreateOptions::new(32 << 20).huge(true)).expect("create");
    for i in 0..100_000u32 {
        huge.set(&i.to_le_bytes(), &[1; 200], 0, 0).expect("set");
    }
    let pages = huge.info().pages;
    println!("pages of a heap with huge(true): {pages}");
    // What the kernel grants is its own affair; what is said must be what smaps says.
    let smaps = fs::read_to_string("/proc/self/smaps")?;
    let path = dir.path().join("huge").display().to_string();
    let of_heap: Vec<&str> = smaps.lines().skip_while(|line| !line.ends_with(&path)).skip(1).take(25).collect();
    let kb = |name: &str| -> u64 {
        let line = of_heap.iter().find(|line| line.starts_with(name)).expect(name);
        line.split_ascii_whitespace().nth(1).and_then(|n| n.parse().ok()).expect("a number")
    };
    let granted = kb("ShmemPmdMapped:") + kb("FilePmdMapped:");
    let share = granted * 100 / kb("Rss:");
    let expected = if granted > 0 { format!("2 MiB ({share} % of the heap)") } else { "4 KiB".to_string() };
    assert_eq!(pages, expected);
    Ok(())
}
