//! Owners that are frozen in the middle of an operation: others do not wait for them, they are named, and by policy
//! killed and recovered; nobody else is ever taken for one. Threads that vanish are found dead by other processes.
//!
//! A process is brought to an exact place by stepping it instruction by instruction and looking at the heap.

mod support;

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, AtomicI32, Ordering::SeqCst};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use plib::{Cache, CreateOptions, Error, Fate, FrozenOwner, Status, SweepPolicy, Sweeper};
use plib_core::Holding;
use plib_core::user::In;
use support::child::{Child, Link, spawn, spawn_through};
use support::front::core::CoreFront;
use support::heap::{TestHeap, check};
use support::rng::Rng;
use support::tracer::{Tracer, await_stop, holdings, state_of};
use support::{report, scaled, wait_until};

const PATIENCE: Duration = Duration::from_millis(300);
const OLD: &[u8] = b"the value from before";
const NEW: &[u8] = b"the value of the child";
const LARGE: usize = 900_000;

/// What a worker is asked to do: an operation, a key, and how many bytes the value has (0: `NEW`).
type Ask = (String, Vec<u8>, usize);

/// Operations on request, each by the thread whose id came first. Answers are the names of statuses, or a value.
fn worker(link: &mut Link, args: &[String]) {
    let (path, group) = (args[0].clone(), args.get(1).is_some_and(|a| a == "leave-group"));
    if group {
        // A thread of its own: in a new pid namespace its number is one that is somebody else's, or nobody's, outside.
        std::thread::scope(|scope| scope.spawn(|| serve(link, &path)).join().unwrap());
    } else {
        serve(link, &path);
    }
}

fn serve(link: &mut Link, path: &str) {
    let cache = Cache::open(path).expect("open");
    let filling = vec![b'x'; LARGE];
    cache.get(b"nothing").expect("get");
    // SAFETY: takes nothing.
    link.send(&(unsafe { libc::gettid() }, std::process::id()));
    while let Some((operation, key, len)) = link.receive::<Ask>() {
        let value = if len == 0 { NEW } else { filling.get(..len).unwrap_or(NEW) };
        let done = |result: Result<(), Error>| result.map_or_else(|e| format!("{:?}", e.status()), |()| "Ok".into());
        let answer = match operation.as_str() {
            "set" => done(cache.set(&key, value, 0, 0).map(drop)),
            "sets" => done((0..len).try_for_each(|_| cache.set(&key, NEW, 0, 0).map(drop))),
            "get" => cache.get(&key).map_or_else(|e| format!("{:?}", e.status()), |item| format!("{}", item.is_some())),
            other => panic!("{other}?"),
        };
        link.send(&answer);
    }
}

/// Sweeps once by the policy "kill", as the user given or the one it is; says what became of whom.
fn sweeper(link: &mut Link, args: &[String]) {
    let cache = Cache::open(&args[0]).expect("open");
    if let Some(uid) = args.get(1).and_then(|a| a.parse().ok()) {
        // SAFETY: plain system calls of a process with one thread that matters.
        unsafe { assert!(libc::setgid(uid) == 0 && libc::setuid(uid) == 0) };
    }
    let found = cache.sweep(&SweepPolicy::new().kill(true).patience(PATIENCE)).expect("sweep");
    link.send(&found.frozen.iter().map(|owner| format!("{:?}", owner.fate)).collect::<Vec<_>>());
}

/// Hard work of all kinds until it is killed.
fn grinder(link: &mut Link, args: &[String]) {
    let cache = Cache::open(&args[0]).expect("open");
    let mut rng = Rng::new(args[1].parse().unwrap());
    let filling = vec![b'y'; LARGE];
    link.signal();
    loop {
        let key = format!("k{}", rng.below(500));
        let done = match rng.below(100) {
            0 if rng.below(20) == 0 => cache.set(b"large", &filling, 0, 0).map(drop),
            0..40 => cache.set(key.as_bytes(), &filling[..rng.below(3000) as usize], 0, 0).map(drop),
            40..50 => cache.delete(key.as_bytes()).map(drop),
            50..60 => cache.increment_or(b"n", 1, 1, 0).map(drop),
            60..70 => cache.set(b"hot", NEW, 0, 0).map(drop),
            _ => cache.get(key.as_bytes()).map(drop),
        };
        done.unwrap_or_else(|e| panic!("{e}"));
    }
}

/// A client that gives a pid, a start time and a pid namespace that are not its own.
fn impostor(link: &mut Link, args: &[String]) {
    let number = |i: usize| args[i].parse::<u64>().unwrap();
    let front = CoreFront::open_as(args[0].as_ref(), 1 << 20, (number(1) as u32, number(2), number(3)), 0);
    // SAFETY: takes nothing.
    link.send(&(unsafe { libc::gettid() }, std::process::id()));
    while let Some((_, key, _)) = link.receive::<Ask>() {
        // SAFETY: both are slices.
        let done = unsafe { front.session().store(plib_core::Mode::Set, In::new(&key), In::new(NEW), 0, 0) };
        link.send(&format!("{done:?}"));
    }
}

/// A worker whose thread ends, without a word, at SIGUSR1.
fn vanisher(link: &mut Link, args: &[String]) {
    extern "C" fn end_thread(_: i32) {
        // SAFETY: ends this thread and nothing else; nothing of it is used again.
        unsafe { libc::syscall(libc::SYS_exit, 0) };
    }
    // SAFETY: a handler that makes one system call.
    unsafe { libc::signal(libc::SIGUSR1, end_thread as extern "C" fn(i32) as usize) };
    let path = args[0].clone();
    let (tid_to, tid) = mpsc::channel();
    let (go, going) = mpsc::channel::<Vec<u8>>();
    std::thread::spawn({
        let path = path.clone();
        move || {
            let cache = Cache::open(&path).expect("open");
            cache.get(b"nothing").expect("get");
            // SAFETY: takes nothing.
            tid_to.send(unsafe { libc::gettid() }).unwrap();
            let key = going.recv().unwrap();
            let _ = cache.set(&key, NEW, 0, 0);
            panic!("the thread lives on");
        }
    });
    let cache = Cache::open(&path).expect("open");
    link.send(&(tid.recv().unwrap(), std::process::id()));
    let (_, key, _) = link.receive::<Ask>().unwrap();
    go.send(key).unwrap();
    while let Some((_, key, _)) = link.receive::<Ask>() {
        link.send(&format!("{:?}", cache.set(&key, NEW, 0, 0).map(drop).map_err(|e| e.status())));
    }
}

/// A worker whose first thread ended before the others, so that it is a process without a leader.
fn leaderless(link: &mut Link, args: &[String]) {
    let path = args[0].clone();
    let leader = std::process::id() as i32;
    std::thread::scope(|scope| {
        scope.spawn(|| {
            end_leader(leader);
            wait_until("the first thread ends", 10, || state_of(leader) == Some('Z'));
            serve(link, &path);
        });
    });
}

/// Ends the first thread of this process by the bare system call, from a handler.
fn end_leader(leader: i32) {
    extern "C" fn end_thread(_: i32) {
        // SAFETY: ends this thread and nothing else; nothing of it is used again, and its stack stays.
        unsafe { libc::syscall(libc::SYS_exit, 0) };
    }
    // SAFETY: a handler that makes one system call, and a signal to a thread of this process.
    unsafe {
        libc::signal(libc::SIGUSR1, end_thread as extern "C" fn(i32) as usize);
        libc::syscall(libc::SYS_tgkill, leader, leader, libc::SIGUSR1);
    }
}

#[test]
#[ignore = "entry point of the child processes"]
fn child() {
    support::child::enter(&[
        ("worker", worker),
        ("sweeper", sweeper),
        ("grinder", grinder),
        ("impostor", impostor),
        ("vanisher", vanisher),
        ("leaderless", leaderless),
    ]);
}

/// A heap, one who looks at it without touching it, and a child at work in it.
struct Scene {
    heap: TestHeap,
    observer: CoreFront,
}

/// A child that answers to asks.
struct Worker {
    child: Child,
    tid: i32,
    pid: i32,
}

impl Scene {
    fn new(size: u64) -> Scene {
        Scene::with(&CreateOptions::new(size))
    }

    fn with(options: &CreateOptions) -> Scene {
        let heap = TestHeap::with(options);
        heap.cache.set(b"victim", OLD, 0, 0).expect("set");
        let observer = CoreFront::open(&heap.path, 1 << 20);
        Scene { heap, observer }
    }

    fn worker(&self) -> Worker {
        Worker::of(spawn("worker", &[self.heap.path_text()]))
    }

    /// Steps a worker through an operation to where `seen` is true, then `further` instructions, and stops its process there.
    /// None if it is not there any more after those.
    fn stop(&self, worker: &mut Worker, ask: Ask, further: u64, seen: fn(&Holding) -> bool) -> Option<Holding> {
        let mut tracer = Tracer::attach(worker.tid);
        worker.child.link.send(&ask);
        let first = tracer.step_until(&self.observer, seen);
        (0..further).for_each(|_| tracer.step());
        let there = holdings(&self.observer).find(|h| h.context == first.context).filter(seen);
        if there.is_some() {
            tracer.leave(libc::SIGSTOP);
            await_stop(worker.pid);
        }
        there
    }

    fn frozen(&self) -> Vec<FrozenOwner> {
        self.heap.cache.frozen_owners(PATIENCE).expect("frozen_owners")
    }

    /// Checks the heap in all its parts, minor findings too: nobody is at work, and the dead are recovered.
    fn check(&self, when: &str) {
        self.heap.cache.reap().expect("reap");
        let found = self.heap.check(when);
        assert!(found.findings.is_empty(), "{when}: {:?}", found.findings);
    }

    fn value(&self, key: &[u8]) -> Vec<u8> {
        self.heap.cache.get(key).expect("get").expect("present").value
    }
}

impl Worker {
    fn of(mut child: Child) -> Worker {
        let (tid, pid): (i32, u32) = child.link.receive().expect("a worker");
        Worker { child, tid, pid: pid as i32 }
    }

    fn ask(&mut self, ask: Ask) -> String {
        self.child.link.send(&ask);
        self.answer()
    }

    fn answer(&mut self) -> String {
        self.child.link.receive().expect("an answer")
    }

    fn goes_on(&mut self) -> String {
        // SAFETY: a process of ours that has not been waited for.
        assert_eq!(unsafe { libc::kill(self.pid, libc::SIGCONT) }, 0);
        self.answer()
    }
}

fn locks_bucket(h: &Holding) -> bool {
    h.buckets[0].is_some()
}

fn has_large(h: &Holding) -> bool {
    h.large
}

fn moves_superblock(h: &Holding) -> bool {
    h.superblock.is_some()
}

fn reads(h: &Holding) -> bool {
    h.reads[0].is_some() && h.buckets == [None, None] && !h.large && h.superblock.is_none()
}

fn set(key: &[u8]) -> Ask {
    ("set".into(), key.to_vec(), 0)
}

fn set_large(key: &[u8]) -> Ask {
    ("set".into(), key.to_vec(), LARGE)
}

/// An operation's outcome and how long it took; one that takes 5 s fails the test instead of holding it up.
fn timed(cache: &Cache, work: impl FnOnce(&Cache) -> Result<(), Error> + Send + 'static) -> (Status, Duration) {
    let (done, outcome) = mpsc::channel();
    let cache = cache.clone();
    std::thread::spawn(move || {
        cache.get(b"nothing").expect("get"); // the thread's first operation takes its place among the contexts
        let begin = Instant::now();
        let status = work(&cache).map_or_else(|e| e.status(), |()| Status::Ok);
        let _ = done.send((status, begin.elapsed()));
    });
    outcome.recv_timeout(Duration::from_secs(5)).expect("an operation that waits for a stopped process")
}

/// A few writers, one after the other, who all must be told BUSY in time.
fn writers_get_busy(cache: &Cache, work: impl Fn(&Cache) -> Result<(), Error> + Clone + Send + 'static) -> Duration {
    let mut times: Vec<Duration> = Vec::new();
    for _ in 0..3 {
        let (status, time) = timed(cache, work.clone());
        assert_eq!(status, Status::Busy, "after {time:?}");
        times.push(time);
    }
    times.sort();
    // The machine may be busy with other things: the median counts.
    assert!(times[0] >= Duration::from_millis(100) && times[1] <= Duration::from_millis(400), "{times:?}");
    times[1]
}

/// The time of a get in the fastest of some batches.
fn get_time(cache: &Cache, key: &[u8]) -> Duration {
    let mut buf = [0; 64];
    let mut batch = || {
        let begin = Instant::now();
        for _ in 0..1000 {
            assert!(cache.get_into(key, &mut buf).expect("get").is_some());
        }
        begin.elapsed() / 1000
    };
    (0..20).map(|_| batch()).min().unwrap()
}

impl Scene {
    /// Places inside the lock of a store, in instructions from its taking: some, or all of them. A worker's first store goes
    /// the general way, later ones the usual way.
    fn places(&self, first: bool) -> Vec<u64> {
        let mut worker = self.worker();
        assert!(first || worker.ask(set(b"victim")) == "Ok");
        let mut tracer = Tracer::attach(worker.tid);
        worker.child.link.send(&set(b"victim"));
        let context = tracer.step_until(&self.observer, locks_bucket).context;
        let mut length = 0;
        while holdings(&self.observer).any(|h| h.context == context && locks_bucket(&h)) {
            tracer.step();
            length += 1;
        }
        drop(tracer);
        assert_eq!(worker.answer(), "Ok");
        if support::exhaustive() {
            (0..length).collect()
        } else {
            (0..6).map(|i| length * i / 6).chain([length - 4]).collect()
        }
    }
}

#[test]
fn others_go_on_beside_a_stopped_owner_and_it_is_named() {
    let scene = Scene::new(64 << 20);
    let cache = &scene.heap.cache;
    (0..300).for_each(|n| _ = cache.set(format!("other{n}").as_bytes(), OLD, 0, 0).expect("set"));
    let mut worker = scene.worker();
    assert_eq!(worker.ask(set(b"victim")), "Ok");
    let (mut stops, mut slowest, mut ratio) = (0, Duration::ZERO, 0.0f64);
    for further in scene.places(false) {
        cache.set(b"victim", OLD, 0, 0).expect("set");
        let Some(held) = scene.stop(&mut worker, set(b"victim"), further, locks_bucket) else {
            assert_eq!(worker.answer(), "Ok");
            continue;
        };
        stops += 1;
        // Readers of the bucket.
        let (theirs, usual) = (get_time(cache, b"victim"), get_time(cache, b"other7"));
        ratio = ratio.max(theirs.as_secs_f64() / usual.as_secs_f64());
        assert!(theirs < usual * 3 + Duration::from_micros(1), "get beside a stopped owner {theirs:?}, else {usual:?}");
        let seen = scene.value(b"victim");
        assert!(seen == OLD || seen == NEW);
        // Writers of the bucket.
        slowest = slowest.max(writers_get_busy(cache, |cache| cache.set(b"victim", b"no", 0, 0).map(drop)));
        assert_eq!(scene.value(b"victim"), seen, "BUSY changed something");
        // Writers of the others. (A few of the 300 keys may share the bucket, by a chance of 1 in 1024 each.)
        let busy = (0..300).filter(|n| cache.touch(format!("other{n}").as_bytes(), 0).is_err()).count();
        assert!(busy <= 4, "{busy} of 300 other keys are busy");
        // It is named.
        let found = scene.frozen();
        let [owner] = &found[..] else { panic!("one owner is frozen: {found:?}") };
        assert_eq!((owner.pid, owner.thread), (worker.pid as u32, Some(worker.tid as u32)));
        assert_eq!((&owner.buckets[..], owner.large), (&[held.buckets[0].unwrap()][..], false));
        assert!(owner.still_for >= PATIENCE && owner.fate == Fate::Reported);
        let process = owner.process.as_ref().expect("its process");
        assert_eq!((process.pid, process.state), (worker.pid as u32, 'T'));
        assert!(process.name.starts_with("frozen"), "{process:?}");
        // SAFETY: takes nothing.
        assert_eq!(process.uid, unsafe { libc::getuid() });
        // It goes on where it was.
        assert_eq!(worker.goes_on(), "Ok");
        assert_eq!(scene.value(b"victim"), NEW);
        assert!(scene.frozen().is_empty());
    }
    scene.check("at the end");
    report(format_args!(
        "{stops} stops inside the lock: writers got BUSY after {slowest:?} at most, gets took {ratio:.2} times the usual at most"
    ));
    assert!(stops >= 5, "the lock was hardly ever held");
}

/// Sweeps by the policy "kill" and tells how long that took beyond the patience.
fn kill_frozen(cache: &Cache) -> (plib::SweepReport, Duration) {
    let begin = Instant::now();
    let found = cache.sweep(&SweepPolicy::new().kill(true).patience(PATIENCE)).expect("sweep");
    (found, begin.elapsed().saturating_sub(PATIENCE))
}

#[test]
fn a_frozen_owner_is_killed_and_its_lock_taken_over() {
    let scene = Scene::new(64 << 20);
    let cache = &scene.heap.cache;
    let (mut kills, mut slowest, mut new) = (0, Duration::ZERO, 0);
    for further in scene.places(true) {
        cache.set(b"victim", OLD, 0, 0).expect("set");
        let mut worker = scene.worker();
        if scene.stop(&mut worker, set(b"victim"), further, locks_bucket).is_none() {
            continue;
        }
        kills += 1;
        let (found, time) = kill_frozen(cache);
        let [owner] = &found.frozen[..] else { panic!("one owner is frozen: {found:?}") };
        assert_eq!((owner.pid, owner.fate), (worker.pid as u32, Fate::Killed));
        assert!(time < Duration::from_secs(1), "it took {time:?}");
        slowest = slowest.max(time);
        assert!(worker.child.wait_for(1).is_some_and(|status| !status.success()), "the process is still there");
        let seen = scene.value(b"victim");
        assert!(seen == OLD || seen == NEW, "{seen:?}");
        new += u64::from(seen == NEW);
        let (status, time) = timed(cache, |cache| cache.set(b"victim", b"ours", 0, 0).map(drop));
        assert!(status == Status::Ok && time < Duration::from_millis(100), "{status:?} after {time:?}");
        scene.check(&format!("killed {further} instructions after the lock"));
        assert_eq!(scene.observer.client().heap().hot().large.0.load(SeqCst), 0);
        assert!(scene.frozen().is_empty());
    }
    report(format_args!(
        "{kills} owners killed and recovered within {slowest:?} after the patience; {new} had committed"
    ));
    assert!(kills >= 5 && new > 0 && new < kills, "not on both sides of the commit");
}

#[test]
fn the_right_to_large_values_is_taken_from_the_frozen() {
    let scene = Scene::new(64 << 20);
    let cache = &scene.heap.cache;
    let mut worker = scene.worker();
    // Stopped, told, and let go on.
    scene.stop(&mut worker, set_large(b"large"), 500, has_large).expect("still reserving");
    let time = writers_get_busy(cache, |cache| cache.set(b"mine", &vec![b'z'; LARGE], 0, 0).map(drop));
    (0..100).for_each(|n| _ = cache.set(format!("small{n}").as_bytes(), OLD, 0, 0).expect("small ones go on"));
    let found = scene.frozen();
    assert!(matches!(&found[..], [owner] if owner.pid == worker.pid as u32 && owner.large), "{found:?}");
    assert_eq!(worker.goes_on(), "Ok");
    assert_eq!(scene.value(b"large").len(), LARGE);
    // Stopped and killed.
    scene.stop(&mut worker, set_large(b"large"), 500, has_large).expect("still reserving");
    let (found, after) = kill_frozen(cache);
    assert!(matches!(&found.frozen[..], [owner] if owner.fate == Fate::Killed), "{found:?}");
    assert!(after < Duration::from_secs(1) && found.recovered >= 1);
    assert_eq!(scene.value(b"large").len(), LARGE);
    let (status, _) = timed(cache, |cache| cache.set(b"mine", &vec![b'z'; LARGE], 0, 0).map(drop));
    assert_eq!(status, Status::Ok);
    scene.check("after the kill");
    assert_eq!(cache.check().expect("check").summary.claimed_blocks, 0);
    report(format_args!("large stores got BUSY after {time:?}; killed and recovered within {after:?}"));
}

#[test]
fn a_superblock_on_the_move_comes_back() {
    let mut stops = 0;
    for further in [0, 4000] {
        let scene = Scene::new(8 << 20);
        let cache = &scene.heap.cache;
        // Full of small items: the first larger one must take a superblock from them.
        (0..200_000).for_each(|n| _ = cache.set(format!("{n:07}").as_bytes(), b"small", 0, 0).expect("set"));
        let mut worker = scene.worker();
        let ask: Ask = ("set".into(), b"middle".to_vec(), 2000);
        let Some(held) = scene.stop(&mut worker, ask, further, moves_superblock) else { continue };
        stops += 1;
        let found = scene.frozen();
        assert!(matches!(&found[..], [owner] if owner.superblock == held.superblock), "{held:?} {found:?}");
        // Others do without it: all sizes, nobody is told BUSY.
        let begin = Instant::now();
        for n in 0..2000 {
            cache.set(format!("{n:07}").as_bytes(), b"again", 0, 0).expect("small");
            cache.set(b"other", &vec![b'o'; 500 + n * 7], 0, 0).expect("other sizes");
        }
        assert!(begin.elapsed() < Duration::from_secs(10));
        let (found, _) = kill_frozen(cache);
        assert!(matches!(&found.frozen[..], [owner] if owner.fate == Fate::Killed), "{found:?}");
        scene.heap.check("after the kill");
        assert_eq!(cache.check().expect("check").summary.claimed_blocks, 0, "its blocks are still claimed");
        assert!(scene.frozen().is_empty());
    }
    report(format_args!("{stops} owners were stopped while they moved a superblock"));
    assert!(stops >= 1, "no superblock was on the move");
}

#[test]
fn who_holds_nothing_is_not_frozen() {
    let scene = Scene::new(64 << 20);
    let cache = &scene.heap.cache;
    let mut idle = scene.worker();
    assert_eq!(idle.ask(set(b"idle")), "Ok");
    idle.child.send_signal(libc::SIGSTOP);
    await_stop(idle.pid);
    let (found, _) = kill_frozen(cache);
    assert!(found.frozen.is_empty() && found.readers == 0, "{found:?}");
    // A reader in the middle of a get.
    let mut reader = scene.worker();
    scene.stop(&mut reader, ("get".into(), b"victim".to_vec(), 0), 3, reads).expect("reading");
    let begin = Instant::now();
    let (found, _) = kill_frozen(cache);
    assert!(found.frozen.is_empty() && found.readers == 1, "{found:?}");
    assert!(begin.elapsed() >= PATIENCE, "it was not watched");
    assert!(scene.frozen().is_empty());
    assert!(idle.child.is_running() && reader.child.is_running(), "killed for nothing");
    assert_eq!(reader.goes_on(), "true");
    report(format_args!("a stopped process and a stopped reader were let live"));
}

#[test]
fn who_gets_on_between_looks_is_not_frozen() {
    let scene = Scene::new(64 << 20);
    let mut worker = scene.worker();
    let mut sweeper = Sweeper::new(SweepPolicy::new().kill(true).patience(PATIENCE));
    let mut tracer = Tracer::attach(worker.tid);
    worker.child.link.send(&("sets".to_string(), b"victim".to_vec(), 1_000_000));
    let (begin, mut looks, mut last) = (Instant::now(), 0, None);
    // At each look the same thread has the same bucket locked, for another operation each time.
    while begin.elapsed() < PATIENCE * 4 || looks < 60 {
        let held = tracer.step_until(&scene.observer, locks_bucket);
        assert!(last.is_none_or(|last| last != held.fingerprint), "the same operation again");
        last = Some(held.fingerprint);
        std::thread::sleep(sweeper.pause());
        let found = sweeper.step(&scene.heap.cache).expect("step");
        assert!(found.is_none_or(|found| found.frozen.is_empty()), "taken for frozen at look {looks}");
        looks += 1;
        while holdings(&scene.observer).any(|h| locks_bucket(&h)) {
            tracer.step();
        }
    }
    assert!(worker.child.is_running(), "killed for nothing");
    report(format_args!(
        "{looks} looks in {:?}, always in the lock, {} instructions between",
        begin.elapsed(),
        tracer.steps
    ));
}

#[test]
fn who_works_hard_is_never_taken_for_frozen() {
    let seconds = scaled(8, 600);
    let heap = TestHeap::new(16 << 20);
    let observer = CoreFront::open(&heap.path, 1 << 20);
    let mut crew: Vec<Child> = (0..4).map(|n| spawn("grinder", &[heap.path_text(), &n.to_string()])).collect();
    crew.iter_mut().for_each(|child| child.link.await_signal());
    let begin = Instant::now();
    let (mut sweeps, mut held) = (0u64, 0u64);
    while begin.elapsed() < Duration::from_secs(seconds) {
        // Some are preempted in the middle of something. (A sweep ends when nobody is, so the look comes before it.)
        held += holdings(&observer).filter(Holding::holds_up).count() as u64;
        let policy = SweepPolicy::new().kill(true).patience(Duration::from_millis(500));
        let found = heap.cache.sweep(&policy).expect("sweep");
        assert!(found.frozen.is_empty() && found.recovered == 0, "sweep {sweeps}: {found:?}");
        sweeps += 1;
        std::thread::sleep(Duration::from_millis(2));
    }
    assert!(crew.iter_mut().all(Child::is_running), "one was killed");
    let operations = heap.cache.stats().expect("stats").cmd_set;
    crew.iter_mut().for_each(Child::kill);
    heap.cache.reap().expect("reap");
    check(&heap.cache, "at the end");
    report(format_args!(
        "{sweeps} sweeps beside {operations} stores, {held} times somebody held something: nobody reported"
    ));
    assert!(sweeps > 100 && operations > 10_000 && held > 0, "too little was done");
}

#[test]
fn a_vanished_thread_of_another_process_is_found_dead() {
    let scene = Scene::new(64 << 20);
    let cache = &scene.heap.cache;
    let rounds = scaled(6, 100);
    let (mut recovered, mut taken) = (0, 0);
    for round in 0..rounds {
        cache.set(b"victim", OLD, 0, 0).expect("set");
        let mut worker = Worker::of(spawn("vanisher", &[scene.heap.path_text()]));
        let mut tracer = Tracer::attach(worker.tid);
        worker.child.link.send(&set(b"victim"));
        tracer.step_until(&scene.observer, locks_bucket);
        (0..round * 9 % 50).for_each(|_| tracer.step());
        let before = cache.stats().expect("stats").locks_taken_over;
        tracer.leave(libc::SIGUSR1);
        wait_until("the thread ends", 10, || state_of(worker.tid).is_none());
        let (status, time) = timed(cache, |cache| cache.set(b"victim", b"ours", 0, 0).map(drop));
        assert!(status == Status::Ok && time < Duration::from_millis(100), "{status:?} after {time:?}");
        taken += cache.stats().expect("stats").locks_taken_over - before;
        recovered += cache.reap().expect("reap");
        scene.check("after a thread vanished");
        // Its process lives on, and is the client that it was.
        assert_eq!(worker.ask(set(b"victim")), "Ok(())");
        let found = scene.frozen();
        assert!(found.is_empty() && worker.child.is_running(), "{found:?}");
    }
    report(format_args!(
        "{rounds} threads vanished inside a set: {taken} locks taken over, {recovered} contexts recovered"
    ));
    assert!(u64::from(recovered) >= rounds && taken > 0, "they were not inside");
}

#[test]
fn a_frozen_process_whose_first_thread_ended_is_killed() {
    let scene = Scene::new(64 << 20);
    let mut worker = Worker::of(spawn("leaderless", &[scene.heap.path_text()]));
    assert!(worker.tid != worker.pid && state_of(worker.pid) == Some('Z'), "its first thread is there");
    let mut tracer = Tracer::attach(worker.tid);
    worker.child.link.send(&set(b"victim"));
    tracer.step_until(&scene.observer, locks_bucket);
    tracer.leave(libc::SIGSTOP);
    await_stop(worker.tid);
    let (found, time) = kill_frozen(&scene.heap.cache);
    let [owner] = &found.frozen[..] else { panic!("one owner is frozen: {found:?}") };
    assert_eq!((owner.pid, owner.thread, owner.fate), (worker.pid as u32, Some(worker.tid as u32), Fate::Killed));
    assert_eq!(owner.process.as_ref().map(|p| (p.pid, p.state)), Some((worker.pid as u32, 'T')));
    assert!(worker.child.wait_for(2).is_some(), "the process is still there");
    scene.check("after the kill");
    report(format_args!("found by what thread {} has mapped, and killed within {time:?}", worker.tid));
}

/// The command that runs another in a pid namespace of its own.
fn unshare() -> &'static [&'static str] {
    // SAFETY: takes nothing.
    if unsafe { libc::geteuid() } == 0 {
        &["unshare", "-pf", "--kill-child"]
    } else {
        &["unshare", "-Urpf", "--kill-child"]
    }
}

/// The number here of a child that `unshare` started.
fn number_here(of: &Child) -> i32 {
    let children = format!("/proc/{0}/task/{0}/children", of.pid());
    let text = std::fs::read_to_string(children).expect("the child of unshare");
    text.trim().parse().expect("one child")
}

#[test]
fn in_another_pid_namespace_the_right_one_is_hit() {
    let scene = Scene::new(64 << 20);
    let cache = &scene.heap.cache;
    let new = || spawn_through(unshare(), "worker", &[scene.heap.path_text(), "leave-group"]);
    // Both are number 1 where they live, and have the heap open.
    let (mut victim, mut bystander) = (Worker::of(new()), Worker::of(new()));
    assert_eq!((victim.pid, bystander.pid), (1, 1));
    let here = (number_here(&victim.child), number_here(&bystander.child));
    let threads: BTreeSet<i32> = std::fs::read_dir(format!("/proc/{}/task", here.0))
        .expect("threads")
        .map(|entry| entry.unwrap().file_name().to_str().unwrap().parse().unwrap())
        .collect();
    let inner = victim.tid;
    (victim.tid, victim.pid) = (*threads.last().unwrap(), here.0);
    scene.stop(&mut victim, set(b"victim"), 5, locks_bucket).expect("in the lock");
    // Its thread's number says nothing here: it must not be found dead.
    writers_get_busy(cache, |cache| cache.set(b"victim", b"no", 0, 0).map(drop));
    let found = scene.frozen();
    let [owner] = &found[..] else { panic!("one owner is frozen: {found:?}") };
    assert_eq!((owner.pid, owner.thread), (1, Some(inner as u32)));
    assert_eq!(owner.process.as_ref().map(|p| (p.pid as i32, p.state)), Some((here.0, 'T')));
    // One that cannot see it leaves it alone, with its own view of /proc or with ours.
    for more in [&["--mount-proc"][..], &[]] {
        let wrapper: Vec<&str> = unshare().iter().chain(more).copied().collect();
        let mut blind = spawn_through(&wrapper, "sweeper", &[scene.heap.path_text()]);
        assert_eq!(blind.link.receive::<Vec<String>>().expect("a report"), ["NotFound"], "{more:?}");
        blind.finish(10);
    }
    assert_eq!(state_of(here.0), Some('T'), "killed by one that could not be sure");
    let (found, time) = kill_frozen(cache);
    assert!(matches!(&found.frozen[..], [owner] if owner.fate == Fate::Killed), "{found:?}");
    assert!(time < Duration::from_secs(1) && victim.child.wait_for(2).is_some());
    assert_eq!(bystander.ask(set(b"victim")), "Ok");
    assert_eq!(state_of(here.1).is_some(), bystander.child.is_running());
    scene.check("at the end");
    report(format_args!("process {} was killed and not {}; both are number 1 to themselves", here.0, here.1));
}

#[test]
fn a_pid_alone_hits_nobody() {
    let scene = Scene::new(64 << 20);
    let cache = &scene.heap.cache;
    let stat = |pid: i32| std::fs::read_to_string(format!("/proc/{pid}/stat")).expect("stat");
    let start_time = |pid: i32| -> u64 {
        stat(pid).rsplit_once(')').unwrap().1.split_ascii_whitespace().nth(19).unwrap().parse().unwrap()
    };
    let namespace = std::os::unix::fs::MetadataExt::ino(&std::fs::metadata("/proc/self/ns/pid").expect("namespace"));
    let mut attached = scene.worker();
    let mut stranger = std::process::Command::new("sleep").arg("60").spawn().expect("sleep");
    let id = stranger.id() as i32;
    // The heap's user with another start time, as if the pid had been given again; one with its own who has not the heap;
    // the first process; one of another namespace; nobody.
    let claims = [
        (attached.pid, start_time(attached.pid) + 1, namespace),
        (id, start_time(id), namespace),
        (1, start_time(1), namespace),
        (attached.pid, start_time(attached.pid), namespace + 1),
        (attached.pid, start_time(attached.pid), 0),
        (0, start_time(attached.pid), namespace),
    ];
    for (pid, start, namespace) in &claims {
        let numbers = (pid.to_string(), start.to_string(), namespace.to_string());
        let mut impostor = Worker::of(spawn("impostor", &[scene.heap.path_text(), &numbers.0, &numbers.1, &numbers.2]));
        let mut tracer = Tracer::attach(impostor.tid);
        impostor.child.link.send(&set(b"victim"));
        tracer.step_until(&scene.observer, locks_bucket);
        tracer.leave(libc::SIGSTOP);
        await_stop(impostor.pid);
        let (found, _) = kill_frozen(cache);
        let [owner] = &found.frozen[..] else { panic!("one owner is frozen: {found:?}") };
        // Not even root may look at everybody's first process.
        let denied = *pid == 1 && owner.fate == Fate::PermissionDenied;
        assert!(owner.fate == Fate::NotFound || denied, "{pid} {start}: {owner:?}");
        assert!(impostor.child.is_running(), "the wrong process was killed");
        impostor.child.kill();
        cache.reap().expect("reap");
    }
    assert!(attached.child.is_running() && stranger.try_wait().expect("wait").is_none());
    stranger.kill().expect("kill");
    stranger.wait().expect("wait");
    scene.check("at the end");
    report(format_args!("{} made-up identities hit nobody", claims.len()));
}

#[test]
fn who_has_no_permission_is_told_so() {
    // SAFETY: takes nothing.
    if unsafe { libc::geteuid() } != 0 {
        return report(format_args!("SKIPPED: needs root to become another user"));
    }
    let scene = Scene::with(&CreateOptions::new(64 << 20).mode(0o666));
    let open = std::os::unix::fs::PermissionsExt::from_mode(0o755);
    std::fs::set_permissions(scene.heap.path.parent().unwrap(), open).expect("a folder for all");
    let mut worker = scene.worker();
    scene.stop(&mut worker, set(b"victim"), 5, locks_bucket).expect("in the lock");
    let mut nobody = spawn("sweeper", &[scene.heap.path_text(), "65534"]);
    assert_eq!(nobody.link.receive::<Vec<String>>().expect("a report"), ["PermissionDenied"]);
    nobody.finish(10);
    assert_eq!(state_of(worker.pid), Some('T'));
    assert_eq!(worker.goes_on(), "Ok");
    report(format_args!("another user's process was named and let live"));
}

/// Whether a thread of this process is to stay in its signal handler, and how often one was there.
static STUCK: AtomicBool = AtomicBool::new(false);
static STUCK_TID: AtomicI32 = AtomicI32::new(0);

extern "C" fn stay(_: i32) {
    // Busy, not asleep: a thread that runs and does not get on.
    while STUCK.load(SeqCst) {
        std::hint::spin_loop();
    }
}

#[test]
fn a_stuck_thread_is_named_and_its_own_process_is_not_killed() {
    let scene = Scene::new(64 << 20);
    let cache = scene.heap.cache.clone();
    let stop = &*Box::leak(Box::new(AtomicBool::new(false)));
    // SAFETY: a handler that only reads an atomic.
    unsafe { libc::signal(libc::SIGUSR2, stay as extern "C" fn(i32) as usize) };
    let busy = cache.clone();
    let thread = std::thread::spawn(move || {
        // SAFETY: takes nothing.
        STUCK_TID.store(unsafe { libc::gettid() }, SeqCst);
        while !stop.load(SeqCst) {
            busy.set(b"victim", OLD, 0, 0).expect("set");
        }
    });
    wait_until("the thread", 10, || STUCK_TID.load(SeqCst) != 0);
    let mut tries = 0;
    let found = loop {
        tries += 1;
        assert!(tries < 5000, "the handler never came inside an operation");
        STUCK.store(true, SeqCst);
        // SAFETY: a thread of this process, which is not joined yet.
        unsafe { libc::syscall(libc::SYS_tgkill, std::process::id(), STUCK_TID.load(SeqCst), libc::SIGUSR2) };
        std::thread::sleep(Duration::from_millis(2));
        if holdings(&scene.observer).any(|h| locks_bucket(&h)) {
            break kill_frozen(&cache).0;
        }
        STUCK.store(false, SeqCst);
        std::thread::sleep(Duration::from_micros(100));
    };
    let fates: Vec<_> = found.frozen.iter().map(|owner| (owner.pid, owner.fate)).collect();
    assert_eq!(fates, [(std::process::id(), Fate::ThisProcess)]);
    assert_eq!(found.frozen[0].process.as_ref().map(|p| p.state), Some('R'), "it runs");
    STUCK.store(false, SeqCst);
    stop.store(true, SeqCst);
    thread.join().expect("the thread goes on");
    assert!(scene.frozen().is_empty());
    report(format_args!("stuck inside the lock at try {tries}"));
}

/// A control group of the freezer, version 1, with its word file; None where there is none to be had.
fn freezer() -> Option<tempfile::TempDir> {
    tempfile::Builder::new().prefix("plib-test-").tempdir_in("/sys/fs/cgroup/freezer").ok()
}

#[test]
fn one_that_sigkill_cannot_end_yet_is_said_to_linger() {
    let Some(group) = freezer() else {
        return report(format_args!("SKIPPED: needs a freezer control group (version 1) that this user may make"));
    };
    let word = |name: &str, text: &str| std::fs::write(group.path().join(name), text).expect(name);
    let scene = Scene::new(64 << 20);
    let cache = &scene.heap.cache;
    let mut worker = scene.worker();
    scene.stop(&mut worker, set(b"victim"), 5, locks_bucket).expect("in the lock");
    word("cgroup.procs", &worker.pid.to_string());
    word("freezer.state", "FROZEN");
    worker.child.send_signal(libc::SIGCONT);
    let policy = SweepPolicy::new().kill(true).patience(PATIENCE).wait(Duration::from_millis(200));
    let found = cache.sweep(&policy).expect("sweep");
    assert!(matches!(&found.frozen[..], [owner] if owner.fate == Fate::Lingers), "{found:?}");
    assert_eq!(timed(cache, |cache| cache.set(b"victim", b"no", 0, 0).map(drop)).0, Status::Busy);
    // Thawed, it dies of the signal before it does anything else.
    word("freezer.state", "THAWED");
    assert!(worker.child.wait_for(2).is_some());
    assert_eq!(timed(cache, |cache| cache.set(b"victim", b"ours", 0, 0).map(drop)).0, Status::Ok);
    cache.reap().expect("reap");
    scene.check("at the end");
    drop(worker);
    // The kernel removes a control group's files with it.
    std::fs::remove_dir(group.path()).expect("remove the group");
    std::mem::forget(group);
    report(format_args!("killed while frozen, gone when thawed"));
}
