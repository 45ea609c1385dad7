//! Heap files that are not what they should be: damaged, cut, foreign, of another version, not to
//! be opened. Each gives an error that names the file, or works; none crashes or hangs anyone.

mod support;

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::os::unix::fs::{FileExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use plib::{Cache, CreateOptions, Status};
use serde::{Deserialize, Serialize};
use support::child::{Child, Link, spawn};
use support::rng::Rng;
use support::{report, scaled};

const SIZE: u64 = 8 << 20;
const HEADER: u64 = 4096;
/// How long the operations on one damaged heap go on.
const PATIENCE: Duration = Duration::from_secs(4);
/// An attempt that takes longer than this hangs.
const HANG: Duration = Duration::from_secs(120);

/// What became of one attempt.
#[derive(Serialize, Deserialize, Debug)]
enum Outcome {
    /// Opened and used; nothing crashed. Whether a check found anything, before that.
    Works(bool),
    /// Refused: the status and the message.
    Refused(u32, String),
    /// The process died of this signal (14 is the alarm: it hung).
    Signal(i32),
    /// The process panicked.
    Panic(String),
}

/// Opens what it is told to open, each time in a forked process, and says what became of it.
fn prober(link: &mut Link, _: &[String]) {
    while let Some((path, user, thorough)) = link.receive::<(String, u32, bool)>() {
        let outcome = probe(Path::new(&path), user, thorough);
        link.send(&outcome);
    }
}

fn probe(path: &Path, user: u32, thorough: bool) -> Outcome {
    let (mut reading, writing) = std::io::pipe().expect("a pipe");
    // SAFETY: this process has one thread besides the idle main one; the child ends by _exit.
    let pid = unsafe { libc::fork() };
    if pid == 0 {
        probe_in_child(path, user, thorough, writing);
    }
    drop(writing);
    let mut told = Vec::new();
    std::io::Read::read_to_end(&mut reading, &mut told).expect("read");
    let mut status = 0;
    // SAFETY: `status` is a place for the status of our own child.
    assert_eq!(unsafe { libc::waitpid(pid, &mut status, 0) }, pid);
    match libc::WIFSIGNALED(status) {
        true => Outcome::Signal(libc::WTERMSIG(status)),
        false => postcard::from_bytes(&told).expect("an outcome"),
    }
}

fn probe_in_child(path: &Path, user: u32, thorough: bool, mut writing: std::io::PipeWriter) -> ! {
    // SAFETY: plain system calls; the alarm's default action ends a process that hangs.
    unsafe {
        libc::alarm(HANG.as_secs() as u32);
        if user != 0 {
            libc::setgroups(0, std::ptr::null());
            libc::setgid(user);
            libc::setuid(user);
        }
    }
    let attempt = std::panic::catch_unwind(|| match Cache::open(path) {
        Err(e) => Outcome::Refused(e.status() as u32, e.to_string()),
        Ok(cache) if !thorough => {
            let _ = (cache.get(&key(1)), cache.set(&key(1), b"new", 0, 0), cache.delete(&key(2)));
            Outcome::Works(false)
        }
        Ok(cache) => {
            let found = cache.check().is_ok_and(|report| !report.findings.is_empty());
            exercise(&cache);
            Outcome::Works(found)
        }
    });
    let outcome = attempt.unwrap_or_else(|panic| {
        let text = panic.downcast_ref::<String>().cloned();
        Outcome::Panic(text.unwrap_or_else(|| "a panic".into()))
    });
    let bytes = postcard::to_stdvec(&outcome).expect("encode");
    std::io::Write::write_all(&mut writing, &bytes).expect("tell");
    drop(writing);
    // SAFETY: ends this process and nothing else.
    unsafe { libc::_exit(0) }
}

/// Every kind of operation, with no matter what result: the heap may be damaged.
///
/// A damaged place may make each operation on it wait as long as for a stopped process, so this ends
/// early where many do.
fn exercise(cache: &Cache) {
    let start = Instant::now();
    for n in (0..40).take_while(|_| start.elapsed() < PATIENCE) {
        let key = key(n);
        let _ = cache.get(&key);
        let _ = cache.set(&key, &vec![n as u8; 1 << (n % 18)], 0, 0);
        let _ = cache.append(&key, b"more");
        let _ = cache.increment_or(b"number", 1, 1, 0);
        let _ = cache.get_and_touch(&key, 100);
        if n % 3 == 0 {
            let _ = cache.delete(&key);
        }
    }
    let slow = start.elapsed() >= PATIENCE;
    let keys: Vec<_> = (0..if slow { 2 } else { 20 }).map(key).collect();
    let _ = cache.get_many(&keys);
    let _ = cache.set(b"large", &vec![1; 1_000_000], 0, 0);
    let _ = cache.get(b"large");
    let _ = cache.scan().take(20_000).filter(|entry| entry.is_ok()).count();
    let _ = (cache.stats().is_ok(), cache.class_stats().is_ok(), cache.clients().is_ok());
    let _ = (cache.reap(), cache.check().is_ok(), cache.info());
    let _ = cache.flush_all(0);
    let _ = cache.set(b"after", b"all", 0, 0);
}

fn key(n: u32) -> Vec<u8> {
    format!("key/{n}").into_bytes()
}

#[test]
#[ignore = "entry point of the child processes"]
fn child() {
    support::child::enter(&[("prober", prober)]);
}

/// A good heap file to spoil, its bytes to restore it, and the prober.
struct Bench {
    folder: tempfile::TempDir,
    path: PathBuf,
    good: Vec<u8>,
    prober: Child,
    /// Whether every kind of operation is tried on what opens.
    thorough: bool,
    works: u64,
    found: u64,
    refused: u64,
}

impl Bench {
    fn new() -> Bench {
        let folder = support::heap::folder();
        // Other users must get through to the file itself.
        fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o755)).unwrap();
        let path = folder.path().join("heap");
        let cache = Cache::create(&path, &CreateOptions::new(SIZE)).expect("create");
        for n in 0..2_000 {
            cache.set(&key(n), &vec![n as u8; (n % 700) as usize], 0, 0).unwrap();
        }
        cache.set(b"large", &vec![7; 700_000], 0, 0).unwrap();
        cache.set(b"number", b"41", 0, 0).unwrap();
        drop(cache);
        let good = fs::read(&path).unwrap();
        Bench { folder, path, good, prober: spawn("prober", &[]), thorough: true, works: 0, found: 0, refused: 0 }
    }

    fn beside(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn restore(&self) {
        fs::write(&self.path, &self.good).unwrap();
    }

    fn try_path(&mut self, path: &Path, user: u32, what: &str) -> Outcome {
        self.prober.link.send(&(path.to_str().unwrap(), user, self.thorough));
        let outcome: Outcome = self.prober.link.receive().expect("the prober died");
        match &outcome {
            Outcome::Works(found) => {
                self.works += 1;
                self.found += u64::from(*found);
            }
            Outcome::Refused(status, message) => {
                self.refused += 1;
                assert_ne!(*status, Status::Ok as u32, "{what}: {message}");
                let name = path.file_name().unwrap().to_str().unwrap();
                assert!(message.contains(name), "{what}: the message names no file: {message}");
            }
            bad => panic!("{what}: {bad:?}"),
        }
        outcome
    }

    /// Opens the spoilt heap file; a file that was refused must be as it was.
    fn try_spoilt(&mut self, what: &str) -> Outcome {
        let spoilt = fs::read(&self.path).unwrap();
        let outcome = self.try_path(&self.path.clone(), 0, what);
        if matches!(outcome, Outcome::Refused(..)) {
            assert!(fs::read(&self.path).unwrap() == spoilt, "{what}: refused, yet changed");
        }
        self.restore();
        outcome
    }

    fn must_refuse(&mut self, path: &Path, user: u32, what: &str, allowed: &[Status]) -> String {
        match self.try_path(path, user, what) {
            Outcome::Refused(status, message) => {
                let fits = allowed.iter().any(|s| *s as u32 == status);
                assert!(fits, "{what}: status {status} ({message}), not one of {allowed:?}");
                message
            }
            other => panic!("{what}: {other:?}"),
        }
    }

    fn tell(&self, what: &str) {
        report(format_args!("{what}: {} refused, {} worked, a check found {}", self.refused, self.works, self.found));
    }
}

#[test]
fn the_bench_itself_works() {
    let mut bench = Bench::new();
    assert!(matches!(bench.try_spoilt("a good file"), Outcome::Works(false)));
}

#[test]
fn every_byte_of_the_header_may_be_wrong() {
    let mut bench = Bench::new();
    let flips: &[u8] = if support::exhaustive() { &[0xff, 1, 2, 4, 8, 16, 32, 64, 128] } else { &[0xff] };
    let mut refused = BTreeSet::new();
    // The fields come first; of the zeros behind them CI tries a part.
    let stride = scaled(7, 1) as usize;
    for at in (0..512).chain((512..HEADER).step_by(stride)) {
        // The heap is used in between and stays a good one; only its header is put right each time.
        if at % 64 == 0 || at >= 512 && at % 128 < stride as u64 {
            bench.restore();
        }
        bench.thorough = at < 512 || support::exhaustive();
        for flip in flips {
            let file = File::options().write(true).open(&bench.path).unwrap();
            file.write_all_at(&[bench.good[at as usize] ^ flip], at).unwrap();
            drop(file);
            let path = bench.path.clone();
            let outcome = bench.try_path(&path, 0, &format!("header byte {at} ^ {flip:#x}"));
            let file = File::options().write(true).open(&bench.path).unwrap();
            file.write_all_at(&bench.good[at as usize..][..1], at).unwrap();
            if matches!(outcome, Outcome::Refused(..)) {
                refused.insert(at);
            }
        }
    }
    report(format_args!("header bytes that must be right: {refused:?}"));
    bench.tell("header bytes");
    assert!(bench.refused > 40, "a header whose bytes hardly matter");
    // The id that the lock file repeats: words 11 and 12.
    assert!((88..104).all(|at| refused.contains(&at)), "an id that may be wrong: {refused:?}");
    assert!(matches!(bench.try_spoilt("the good file again"), Outcome::Works(false)));
}

#[test]
fn a_cut_file_is_refused() {
    let mut bench = Bench::new();
    let mut lengths = vec![0, 1, 7, 8, 63, 64, 511, 4095, 4096, 4097, 8192, 65_535, 65_536, 65_537];
    lengths.extend((1..scaled(32, 512)).map(|n| SIZE * n / scaled(32, 512)));
    lengths.extend([SIZE - 65_536, SIZE - 4096, SIZE - 1]);
    for len in lengths {
        File::options().write(true).open(&bench.path).unwrap().set_len(len).unwrap();
        let what = format!("cut to {len} bytes");
        let outcome = bench.try_spoilt(&what);
        assert!(matches!(outcome, Outcome::Refused(..)), "{what}: {outcome:?}");
    }
    bench.tell("cut files");
}

#[test]
fn garbage_in_the_tables_crashes_nobody() {
    let mut bench = Bench::new();
    let mut rng = Rng::new(17);
    for round in 0..scaled(150, 20_000) {
        let file = File::options().write(true).open(&bench.path).unwrap();
        let places = 1 + rng.below(40);
        // The tables come first in the file; half of the garbage goes there.
        let end = if round % 2 == 0 { SIZE / 8 } else { SIZE };
        for _ in 0..places {
            let at = HEADER + rng.below(end - HEADER - 64);
            let garbage: Vec<u8> = match rng.below(3) {
                0 => vec![0xff; 1 + rng.below(64) as usize],
                1 => vec![0; 1 + rng.below(64) as usize],
                _ => (0..1 + rng.below(64)).map(|_| rng.next() as u8).collect(),
            };
            file.write_all_at(&garbage, at).unwrap();
        }
        drop(file);
        bench.try_spoilt(&format!("garbage, round {round}"));
    }
    bench.tell("garbage");
}

#[test]
fn whole_regions_of_garbage_crash_nobody() {
    let mut bench = Bench::new();
    let mut rng = Rng::new(18);
    for round in 0..scaled(48, 2_000) {
        let file = File::options().write(true).open(&bench.path).unwrap();
        let len = 4096 << rng.below(9);
        let at = HEADER + rng.below(SIZE - HEADER - len);
        let garbage: Vec<u8> = (0..len).map(|_| rng.next() as u8).collect();
        file.write_all_at(&garbage, at).unwrap();
        drop(file);
        bench.try_spoilt(&format!("{len} bytes of garbage at {at}, round {round}"));
    }
    bench.tell("regions of garbage");
}

#[test]
fn foreign_files_are_refused() {
    let mut bench = Bench::new();
    let foreign = bench.beside("foreign");
    let mut rng = Rng::new(19);
    let program = fs::read(std::env::current_exe().unwrap()).unwrap();
    let mut contents: Vec<(&str, Vec<u8>)> = vec![
        ("a text", b"just some text\n".repeat(600_000)),
        ("zeros", vec![0; SIZE as usize]),
        ("ones", vec![0xff; SIZE as usize]),
        ("random", (0..SIZE).map(|_| rng.next() as u8).collect()),
        ("a program", program),
        ("only a header", bench.good[..HEADER as usize].to_vec()),
    ];
    contents.push(("a heap moved by one page", [&vec![0; 4096], &bench.good[..]].concat()));
    for (what, bytes) in contents {
        fs::write(&foreign, bytes).unwrap();
        let allowed = [Status::NotAHeap, Status::Layout, Status::Damaged];
        bench.must_refuse(&foreign, 0, what, &allowed);
        if what == "only a header" {
            // A heap once: whoever finds it damaged may remove it.
            Cache::destroy(&foreign).expect("destroy a damaged heap");
            continue;
        }
        let error = Cache::destroy(&foreign).expect_err("destroyed a file that is no heap");
        assert!(error.to_string().contains("foreign") && foreign.exists(), "{what}: {error}");
    }
    bench.tell("foreign files");
}

#[test]
fn what_is_no_file_is_refused() {
    let mut bench = Bench::new();
    let folder = bench.beside("folder");
    fs::create_dir(&folder).unwrap();
    let fifo = bench.beside("fifo");
    let name = std::ffi::CString::new(fifo.to_str().unwrap()).unwrap();
    // SAFETY: a zero-terminated path.
    assert_eq!(unsafe { libc::mkfifo(name.as_ptr(), 0o600) }, 0);
    let (link, dangling, circle) = (bench.beside("link"), bench.beside("dangling"), bench.beside("circle"));
    symlink(&bench.path, &link).unwrap();
    symlink(bench.beside("nothing"), &dangling).unwrap();
    symlink(&circle, &circle).unwrap();
    let socket = bench.beside("socket");
    let _listener = std::os::unix::net::UnixListener::bind(&socket).unwrap();
    let any = [Status::NotAHeap, Status::NoHeap, Status::Io, Status::Permission, Status::Invalid];
    for (path, what) in [
        (&folder, "a folder"),
        (&fifo, "a fifo"),
        (&dangling, "a dangling link"),
        (&circle, "a circular link"),
        (&socket, "a socket"),
        (&PathBuf::from("/dev/null"), "a device"),
        (&PathBuf::from("/dev/zero"), "an endless device"),
    ] {
        bench.must_refuse(path, 0, what, &any);
    }
    bench.must_refuse(&bench.beside("missing"), 0, "no file", &[Status::NoHeap]);
    bench.must_refuse(&bench.beside("no/such/folder"), 0, "no folder", &[Status::NoHeap]);
    bench.must_refuse(&bench.path.join("below"), 0, "below a file", &any);
    let long = bench.beside(&"x".repeat(300));
    bench.must_refuse(&long, 0, "too long a name", &any);
    bench.try_path(&link, 0, "a link to a heap");
    bench.tell("no files");
}

#[test]
fn without_permission_there_is_a_clear_error() {
    let mut bench = Bench::new();
    // SAFETY: a plain system call.
    let user = if unsafe { libc::getuid() } == 0 { 65_534 } else { 0 };
    for mode in [0o000, 0o200, 0o400] {
        fs::set_permissions(&bench.path, fs::Permissions::from_mode(mode)).unwrap();
        if user == 0 || mode != 0o400 {
            let path = bench.path.clone();
            let what = format!("mode {mode:o}");
            bench.must_refuse(&path, user, &what, &[Status::Permission]);
        }
    }
    fs::set_permissions(&bench.path, fs::Permissions::from_mode(0o444)).unwrap();
    let path = bench.path.clone();
    bench.must_refuse(&path, user, "read only", &[Status::Permission]);
    fs::set_permissions(&bench.path, fs::Permissions::from_mode(0o666)).unwrap();
    assert!(matches!(bench.try_path(&path, user, "for everyone"), Outcome::Works(false)));
    bench.tell("permissions");
}

#[test]
fn creation_refuses_what_cannot_be() {
    let bench = Bench::new();
    let options = CreateOptions::new(SIZE);
    let fresh = bench.beside("fresh");
    let status = |path: &Path, options: &CreateOptions| match Cache::create(path, options) {
        Ok(_) => panic!("created {} with {options:?}", path.display()),
        Err(e) => {
            assert!(!fresh.exists(), "a refused creation left a file");
            (e.status(), e.to_string())
        }
    };
    let (taken, message) = status(&bench.path, &options);
    assert!(message.contains("heap"), "{message}");
    assert_ne!(taken, Status::Ok);
    assert!(fs::read(&bench.path).unwrap() == bench.good, "the heap that was there has changed");
    for size in [0, 1, SIZE - 1, 1 << 41, u64::MAX] {
        let (refused, message) = status(&fresh, &CreateOptions::new(size));
        assert_eq!(refused, Status::Invalid, "size {size}: {message}");
    }
    for max in [0, 1, (SIZE / 4 + 1) as u32, (128 << 20) + 1, u32::MAX] {
        let (refused, message) = status(&fresh, &CreateOptions::new(SIZE).item_size_max(max));
        assert_eq!(refused, Status::Invalid, "item_size_max {max}: {message}");
    }
    let (refused, message) = status(&fresh, &CreateOptions::new(1 << 40));
    assert_eq!(refused, Status::NoSpace, "a heap larger than memory: {message}");
    let (refused, _) = status(&bench.beside("no/such/folder"), &options);
    assert_ne!(refused, Status::Ok);
    let names = fs::read_dir(bench.folder.path()).unwrap().map(|entry| entry.unwrap().file_name());
    let others: Vec<_> = names.filter(|name| name != "heap" && name != "heap.lock").collect();
    assert!(others.is_empty(), "refused creations left files behind: {others:?}");
}

#[test]
fn a_heap_that_is_removed_lives_on_for_its_users() {
    let bench = Bench::new();
    let cache = Cache::open(&bench.path).unwrap();
    Cache::destroy(&bench.path).expect("destroy");
    assert!(!bench.path.exists());
    assert_eq!(cache.get(b"number").unwrap().unwrap().value, b"41");
    cache.set(b"still", b"works", 0, 0).unwrap();
    assert_eq!(Cache::open(&bench.path).err().map(|e| e.status()), Some(Status::NoHeap));
    let anew = Cache::create(&bench.path, &CreateOptions::new(SIZE)).unwrap();
    assert!(anew.get(b"still").unwrap().is_none());
    assert_eq!(cache.get(b"still").unwrap().unwrap().value, b"works");
}
