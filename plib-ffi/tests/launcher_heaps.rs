//! Heaps that root makes for root alone, and the lock files beside them: when there is one, what it must be, what becomes of it;
//! and that client slots go to one process each, whichever file the locks are in.

mod support;

use plib::{Cache, CreateOptions, Error, Status};
use std::fs::{self, File, Permissions};
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown, symlink};
use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering::SeqCst;
use std::sync::atomic::{AtomicBool, AtomicU64};
use std::time::{Duration, Instant};
use support::fork::{fork, wait_for};
use support::heap::{MODES, TestHeap};
use support::page::Page;
use support::rng::Rng;
use support::{report, scaled};

const SIZE: u64 = 8 << 20;
/// By then there was enough of everything, even on a busy machine.
const LIMIT: Duration = Duration::from_secs(200);
const NOBODY: u32 = 65534;

fn options() -> CreateOptions {
    CreateOptions::new(SIZE)
}

fn lock_of(heap: &Path) -> PathBuf {
    heap.with_added_extension("lock")
}

/// A folder for launcher heaps; None, and said, where this is not root.
fn folder() -> Option<tempfile::TempDir> {
    // SAFETY: takes nothing and cannot fail.
    if unsafe { libc::geteuid() } != 0 {
        report(format_args!("left out: launcher heaps want root to make them"));
        return None;
    }
    let folder = support::heap::folder();
    fs::set_permissions(folder.path(), Permissions::from_mode(0o777)).expect("chmod");
    Some(folder)
}

/// Runs `act` in a child that is nobody.
fn as_nobody(act: impl FnOnce()) {
    wait_for(fork(|| {
        // SAFETY: only the child changes.
        let gone = unsafe { libc::setgroups(0, std::ptr::null()) | libc::setgid(NOBODY) | libc::setuid(NOBODY) };
        assert_eq!(gone, 0);
        act();
    }));
}

fn names_in(folder: &Path) -> Vec<String> {
    let entries = fs::read_dir(folder).expect("list");
    let mut names: Vec<_> = entries.map(|entry| entry.expect("entry").file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

fn identity(path: &Path) -> (u64, u64) {
    let metadata = fs::symlink_metadata(path).expect("stat");
    (metadata.dev(), metadata.ino())
}

fn is_usable(cache: &Cache) -> bool {
    cache.set(b"k", b"v", 0, 0).is_ok() && cache.get(b"k").is_ok_and(|item| item.is_some_and(|item| item.value == b"v"))
}

#[test]
fn only_what_root_makes_for_itself_has_a_lock_file() {
    let Some(folder) = folder() else { return };
    let path = |name: &str| folder.path().join(name);
    for (name, mode, beside) in [("a", 0o600, true), ("b", 0o660, false), ("c", 0o604, false), ("d", 0o700, true)] {
        let cache = Cache::create(path(name), &options().mode(mode)).expect("create");
        assert_eq!(cache.info().lock_file, beside.then(|| lock_of(&path(name))), "mode {mode:o}");
        assert_eq!(lock_of(&path(name)).exists(), beside, "mode {mode:o}");
        assert!(is_usable(&cache));
        if beside {
            let lock = fs::metadata(lock_of(&path(name))).expect("stat");
            assert_eq!((lock.uid(), lock.mode(), lock.nlink()), (0, libc::S_IFREG | 0o444, 1));
        }
    }
    as_nobody(|| {
        let cache = Cache::create(path("e"), &options()).expect("create");
        assert!(cache.info().lock_file.is_none() && is_usable(&cache));
        assert!(matches!(Cache::open(path("a")), Err(Error::Permission { .. })));
        File::open(lock_of(&path("a"))).expect("anybody may open a lock file");
    });
    assert_eq!(names_in(folder.path()), ["a", "a.lock", "b", "c", "d", "d.lock", "e"]);
    // What is decided stays, whatever becomes of the mode.
    fs::set_permissions(path("a"), Permissions::from_mode(0o666)).expect("chmod");
    as_nobody(|| assert!(is_usable(&Cache::open(path("a")).expect("open"))));
    fs::set_permissions(path("b"), Permissions::from_mode(0o600)).expect("chmod");
    assert!(Cache::open(path("b")).expect("open").info().lock_file.is_none());
    for name in ["a", "b", "c", "d", "e"] {
        Cache::destroy(path(name)).expect("destroy");
    }
    assert!(names_in(folder.path()).is_empty());
}

#[test]
fn a_lock_file_that_is_not_the_heaps_is_refused() {
    let Some(folder) = folder() else { return };
    let (heap, other) = (folder.path().join("heap"), folder.path().join("other"));
    let cache = Cache::create(&heap, &options()).expect("create");
    Cache::create(&other, &options()).expect("create");
    let (lock, kept) = (lock_of(&heap), folder.path().join("kept"));
    let good = fs::read(&lock).expect("read");
    fs::rename(&lock, &kept).expect("rename");
    let spoilers: [(&str, &dyn Fn()); 8] = [
        ("missing", &|| ()),
        ("another heap", &|| assert!(fs::copy(lock_of(&other), &lock).is_ok())),
        ("belongs to user 65534", &|| {
            fs::copy(&kept, &lock).expect("copy");
            chown(&lock, Some(NOBODY), None).expect("chown");
        }),
        ("symbolic link", &|| symlink(&kept, &lock).expect("symlink")),
        ("directory", &|| fs::create_dir(&lock).expect("mkdir")),
        ("magic", &|| fs::write(&lock, "").expect("write")),
        ("magic", &|| fs::write(&lock, &good[..23]).expect("write")),
        ("magic", &|| fs::write(&lock, [&[good[0] ^ 1], &good[1..]].concat()).expect("write")),
    ];
    let count = spoilers.len();
    for (words, spoil) in spoilers {
        spoil();
        let begin = Instant::now();
        match Cache::open(&heap) {
            Err(e @ Error::LockFile { .. }) => {
                let text = e.to_string();
                assert!(text.contains(words) && text.contains("heap.lock"), "{words}: {text}");
                assert_eq!(e.status(), Status::Damaged);
            }
            other => panic!("{words}: {other:?}"),
        }
        assert!(begin.elapsed() < Duration::from_secs(5), "{words}: {:?}", begin.elapsed());
        // Who is in already goes on, and so does a child of its.
        assert!(is_usable(&cache), "{words}");
        wait_for(fork(|| assert!(is_usable(&cache), "{words}")));
        let _ = fs::remove_file(&lock).or_else(|_| fs::remove_dir(&lock));
    }
    // A copy is as good as the file that was made, as long as nobody is in by that one.
    fs::rename(&kept, &lock).expect("rename");
    assert!(is_usable(&Cache::open(&heap).expect("open")));
    // Without it the heap can still be removed.
    fs::remove_file(&lock).expect("remove");
    Cache::destroy(&heap).expect("destroy");
    assert_eq!(names_in(folder.path()), ["other", "other.lock"]);
    report(format_args!("{count} lock files that were not the heap's were refused"));
}

#[test]
fn heaps_and_lock_files_keep_out_of_each_others_way() {
    let Some(folder) = folder() else { return };
    let (heap, lock) = (folder.path().join("x"), folder.path().join("x.lock"));
    let refused = |path: &Path, words: &str| match Cache::create(path, &options()) {
        Err(e @ Error::Name { .. }) => assert!(e.to_string().contains(words), "{e}"),
        other => panic!("{}: {other:?}", path.display()),
    };
    refused(&lock, "ends with '.lock'");
    refused(&folder.path().join("n".repeat(251)), "250 bytes");
    assert!(names_in(folder.path()).is_empty());
    Cache::create(folder.path().join("n".repeat(250)), &options()).expect("create");
    Cache::destroy(folder.path().join("n".repeat(250))).expect("destroy");
    // A user's files, of that name by chance or on purpose.
    let user_heap = folder.path().join("user's");
    as_nobody(|| drop(Cache::create(&user_heap, &options()).expect("create")));
    let in_the_way: [&dyn Fn(); 5] = [
        &|| fs::rename(&user_heap, &lock).expect("rename"),
        &|| as_nobody(|| fs::write(&lock, "mine").expect("write")),
        &|| symlink("/dev/shm", &lock).expect("symlink"),
        &|| fs::create_dir(&lock).expect("mkdir"),
        &|| fs::write(&lock, "root's, but no lock file").expect("write"),
    ];
    for put in in_the_way {
        put();
        let before = identity(&lock);
        refused(&heap, "something else has that name");
        assert_eq!((names_in(folder.path()).contains(&"x".to_string()), identity(&lock)), (false, before));
        let _ = fs::remove_file(&lock).or_else(|_| fs::remove_dir(&lock));
    }
    // A lock file is no heap, and goes with its own alone.
    Cache::create(&heap, &options()).expect("create");
    assert!(matches!(Cache::open(&lock), Err(Error::NotAHeap { .. })));
    let destroyed = Cache::destroy(&lock).expect_err("destroyed a lock file");
    assert!(destroyed.to_string().contains("lock file"), "{destroyed}");
    assert!(is_usable(&Cache::open(&heap).expect("open")));
}

#[test]
fn a_lock_file_that_was_left_behind_is_taken_and_a_living_one_is_left_alone() {
    let Some(folder) = folder() else { return };
    let path = folder.path().join("heap");
    let old = Cache::create(&path, &options()).expect("create");
    let lock = identity(&lock_of(&path));
    for _ in 0..3 {
        assert!(matches!(Cache::create(&path, &options()), Err(Error::AlreadyExists(_))));
        assert_eq!(identity(&lock_of(&path)), lock);
    }
    // As after a death between the removal of one and the other; its clients go on.
    fs::remove_file(&path).expect("remove");
    let new = Cache::create(&path, &options()).expect("create");
    assert_eq!(identity(&lock_of(&path)), lock, "it is still in use by the clients of the old heap");
    let mut dead = 0;
    for (cache, name) in [(&old, "old"), (&new, "new")] {
        let child = fork(|| {
            cache.set(b"k", b"child's", 0, 0).expect("set");
            std::thread::sleep(Duration::from_secs(50));
        });
        let there = |alive: bool| {
            let clients = cache.clients().expect("clients");
            clients.iter().any(|client| client.pid == child as u32 && client.alive == alive)
        };
        support::wait_until("the child is a client", 20, || there(true));
        assert_eq!(old.reap().expect("reap") + new.reap().expect("reap"), 0, "{name}: all are alive");
        // SAFETY: a child of ours.
        unsafe { libc::kill(child, libc::SIGKILL) };
        support::wait_until("the child's death is seen", 20, || there(false));
        assert_eq!(cache.reap().expect("reap"), 1);
        dead += 1;
    }
    assert_eq!(dead, 2);
    Cache::destroy(&path).expect("destroy");
    assert!(is_usable(&old) && is_usable(&new) && names_in(folder.path()).is_empty());
    let newest = Cache::create(&path, &options()).expect("create");
    assert!(is_usable(&newest) && lock_of(&path).exists());
}

/// Makers, removers and users of one name: whoever opens finds a heap with its lock file, or none.
#[test]
fn makers_and_removers_of_one_name_leave_no_heap_without_its_lock_file() {
    let Some(folder) = folder() else { return };
    let path = folder.path().join("heap");
    let done = AtomicBool::new(false);
    let count = |name: &'static str| (name, AtomicU64::new(0));
    let counts = [count("made"), count("removed"), count("opened"), count("made in vain"), count("unfit when opened")];
    let [made, removed, opened, vain, unfit] = &counts;
    let add = |(_, number): &(_, AtomicU64)| number.fetch_add(1, SeqCst);
    let until_done = |work: &dyn Fn()| {
        while !done.load(SeqCst) {
            work();
        }
    };
    std::thread::scope(|scope| {
        for _ in 0..3 {
            scope.spawn(|| {
                until_done(&|| match Cache::create(&path, &options()) {
                    Ok(cache) => {
                        assert!(is_usable(&cache));
                        add(made);
                    }
                    Err(Error::AlreadyExists(_)) => {}
                    // Removed before it was opened, or with its lock file gone before that.
                    Err(Error::NoHeap(_) | Error::LockFile { .. }) => drop(add(vain)),
                    Err(e) => panic!("create: {e}"),
                });
            });
        }
        for _ in 0..2 {
            scope.spawn(|| {
                until_done(&|| match Cache::destroy(&path) {
                    Ok(()) => drop(add(removed)),
                    Err(Error::NoHeap(_)) => {}
                    Err(e) => panic!("destroy: {e}"),
                });
            });
        }
        scope.spawn(|| {
            until_done(&|| match Cache::open(&path) {
                Ok(cache) => {
                    assert!(is_usable(&cache));
                    add(opened);
                }
                Err(Error::NoHeap(_)) => {}
                Err(Error::LockFile { .. }) => drop(add(unfit)),
                Err(e) => panic!("open: {e}"),
            });
        });
        let begin = Instant::now();
        let enough = || [(made, 50), (removed, 50), (opened, 20)].iter().all(|(c, least)| c.1.load(SeqCst) >= *least);
        while begin.elapsed() < Duration::from_secs(scaled(2, 120)) || !enough() {
            if begin.elapsed() > LIMIT {
                break;
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        done.store(true, SeqCst);
    });
    let told =
        counts.iter().map(|(name, number)| format!("{} {name}", number.load(SeqCst))).collect::<Vec<_>>().join(", ");
    report(format_args!("of one name: {told}"));
    let [made, removed, opened, _, unfit] = counts.map(|(_, number)| number.into_inner());
    assert!(made >= 50 && removed >= 50 && opened >= 20, "too little happened");
    // For as long as an opening looks (100 ms), a maker or remover can be kept off its processor on a busy machine.
    assert!(unfit * 20 <= opened, "openings saw heaps without their lock files");
    match Cache::open(&path) {
        Ok(cache) => assert!(is_usable(&cache)),
        Err(Error::NoHeap(_)) => assert!(is_usable(&Cache::create(&path, &options()).expect("create"))),
        Err(e) => panic!("at the end: {e}"),
    }
}

const VISITORS: usize = 12;
const SLOTS: u32 = 8;
// Places of the page: a word a slot, then counters.
const VISITS: usize = 100;
const FULL: usize = 101;
const BUSY: usize = 102;

/// Comes and goes; while it is in, nobody else who lives has its slot.
fn visit(path: &Path, page: &Page) {
    let me = std::process::id();
    loop {
        let cache = match Cache::open(path) {
            Ok(cache) => cache,
            Err(Error::Full { .. }) => {
                page.word(FULL).fetch_add(1, SeqCst);
                continue;
            }
            Err(e) => panic!("open: {e}"),
        };
        match cache.clients() {
            Err(Error::Busy | Error::NoContext { .. }) => drop(page.word(BUSY).fetch_add(1, SeqCst)),
            Err(e) => panic!("clients: {e}"),
            Ok(clients) => {
                let mine: Vec<_> = clients.iter().filter(|client| client.pid == me && client.alive).collect();
                assert_eq!(mine.len(), 1, "my slots: {clients:?}");
                let word = page.word(mine[0].slot as usize);
                let before = word.swap(u64::from(me), SeqCst);
                assert!(before == 0 || !is_running(before as i32), "slot {} is {before}'s and mine", mine[0].slot);
                std::thread::yield_now();
                assert_eq!(word.swap(0, SeqCst), u64::from(me), "slot {} became another's", mine[0].slot);
                page.word(VISITS).fetch_add(1, SeqCst);
            }
        }
    }
}

fn is_running(pid: i32) -> bool {
    support::stopped::state_of(pid).is_some_and(|state| state != 'Z' && state != 'X')
}

fn visitor(path: &Path, page: &Page) -> i32 {
    fork(|| visit(path, page))
}

/// More processes than slots come and go, are killed and stopped anywhere, on the way in and out above all. No slot is ever
/// two living processes', and none is lost.
#[test]
fn a_slot_is_one_process_s() {
    for mode in MODES {
        let heap = TestHeap::with(&options().contexts(SLOTS).mode(mode));
        let TestHeap { path, .. } = &heap;
        // As one of the visitors could, this process would hold a slot for the whole test.
        let page = Page::create(&heap.beside("page"), 128);
        let mut rng = Rng::new(71);
        let mut visitors: Vec<i32> = (0..VISITORS).map(|_| visitor(path, &page)).collect();
        let (begin, mut kills, mut stops) = (Instant::now(), 0, 0);
        let happened = |word| page.word(word).load(SeqCst);
        while begin.elapsed() < Duration::from_secs(scaled(2, 300))
            || begin.elapsed() < LIMIT && (kills < 100 || stops < 50 || happened(VISITS) < 500 || happened(FULL) < 10)
        {
            std::thread::sleep(Duration::from_micros(rng.below(2_000)));
            let place = rng.below(VISITORS as u64) as usize;
            let pid = visitors[place];
            let send = |signal| {
                // SAFETY: a child of ours that nobody has waited for.
                assert_eq!(unsafe { libc::kill(pid, signal) }, 0);
            };
            if rng.below(3) == 0 {
                send(libc::SIGSTOP);
                std::thread::sleep(Duration::from_micros(rng.below(3_000)));
                send(libc::SIGCONT);
                stops += 1;
            } else {
                send(libc::SIGKILL);
                let mut status = 0;
                // SAFETY: as above.
                assert_eq!(unsafe { libc::waitpid(pid, &mut status, 0) }, pid);
                assert!(libc::WIFSIGNALED(status), "a visitor found something wrong");
                visitors[place] = visitor(path, &page);
                kills += 1;
            }
        }
        for pid in visitors {
            // SAFETY: as above.
            unsafe { libc::kill(pid, libc::SIGKILL) };
            let mut status = 0;
            // SAFETY: as above.
            unsafe { libc::waitpid(pid, &mut status, 0) };
            assert!(libc::WIFSIGNALED(status), "a visitor found something wrong");
        }
        heap.cache.reap().expect("reap");
        let left = heap.cache.clients().expect("clients");
        assert_eq!(left.len(), 1, "slots of the dead are left: {left:?}");
        assert!(heap.check("after all visitors").findings.is_empty());
        let all: Vec<_> = (1..SLOTS).map(|_| Cache::open(path).expect("every slot can be had")).collect();
        drop(all);
        let [visits, full, busy] = [VISITS, FULL, BUSY].map(|word| page.word(word).load(SeqCst));
        report(format_args!(
            "mode {mode:o}: {visits} visits of {VISITORS} processes to {SLOTS} slots, {full} found all taken, {busy} no context; \
             {kills} killed, {stops} stopped"
        ));
        assert!(visits >= 500 && full >= 10 && kills >= 100 && stops >= 50, "too little happened");
    }
}
