//! Deaths that are easily mistaken for life, and lives that look like death: reused pids and thread ids, zombies, leaders that
//! ended before their threads, foreign pid namespaces, full tables, whole families, and a death that takes long. All of it with the
//! clients' locks in the heap file, and in the file beside.

mod support;

use std::sync::atomic::Ordering::SeqCst;
use std::time::{Duration, Instant};

use plib::{Cache, CreateOptions, Error, Status};
use support::child::{Child, Link, spawn};
use support::fork::fork;
use support::heap::{MODES, TestHeap};
use support::namespace::{self, Namespace};
use support::page::Page;
use support::rng::Rng;
use support::stopped::{signal, state_of, stop_with_lock, thread_states};
use support::{report, scaled, wait_until};

/// The key that everybody works on.
const KEY: &[u8] = b"everybody's";

// The words of each place of a page.
const GO: usize = 0;
const PROGRESS: usize = 1;
const SAID: usize = 2;
const PLACE: usize = 4;
const PLACES: usize = 64;

// What GO says.
const WORK: u64 = 1;
const END: u64 = 2;

fn word(page: &Page, place: usize, which: usize) -> &std::sync::atomic::AtomicU64 {
    page.word(place * PLACE + which)
}

fn progress(page: &Page, place: usize) -> u64 {
    word(page, place, PROGRESS).load(SeqCst)
}

/// Waits until whoever works in this place has got on.
fn await_progress(page: &Page, place: usize, what: &str) {
    let before = progress(page, place);
    wait_until(what, 20, || progress(page, place) > before + 3);
}

/// True if done, false if BUSY.
fn done<T>(outcome: Result<T, Error>) -> bool {
    match outcome {
        Ok(_) => true,
        Err(e) if e.status() == Status::Busy => false,
        Err(e) => panic!("{e}"),
    }
}

/// Works on the key of all until it is told to end.
fn hammer(cache: &Cache, page: &Page, place: usize) {
    let value = [place as u8; 40];
    while word(page, place, GO).load(SeqCst) != END {
        for _ in 0..20 {
            let fine = done(cache.set(KEY, &value, 0, 0)) & done(cache.touch(KEY, 0));
            word(page, place, PROGRESS).fetch_add(u64::from(fine), SeqCst);
        }
    }
}

/// A process that works on the key from the start.
fn hammerer(link: &mut Link, args: &[String]) {
    let page = Page::open(args[1].as_ref());
    let cache = Cache::open(&args[0]).expect("open");
    link.signal();
    hammer(&cache, &page, args[2].parse().unwrap());
}

/// Places from here on lose /proc once they have the heap open.
const WITHOUT_PROC: usize = 32;

/// The first process of a namespace whose children open the heap once they may, and work on the key.
fn country(link: &mut Link, args: &[String]) {
    namespace::serve(link, |place| {
        let page = Page::open(args[1].as_ref());
        while word(&page, place, GO).load(SeqCst) == 0 {
            std::thread::sleep(Duration::from_micros(100));
        }
        let cache = Cache::open(&args[0]).expect("open");
        if place >= WITHOUT_PROC {
            namespace::hide_proc();
            assert!(std::fs::read_link("/proc/self").is_err(), "/proc is still there");
            // Nobody comes in without it (the boot id is read there), and that is said.
            let refused = Cache::open(&args[0]).expect_err("opened without /proc").to_string();
            assert!(refused.contains("boot id"), "refused without /proc: {refused}");
            word(&page, place, SAID).store(1, SeqCst);
        }
        hammer(&cache, &page, place);
    });
}

/// A heap and a page, and the key in it.
fn stage(options: &CreateOptions) -> (TestHeap, Page, [String; 2]) {
    let heap = TestHeap::with(options);
    let path = heap.beside("page");
    let page = Page::create(&path, PLACES * PLACE);
    heap.cache.set(KEY, b"at first", 0, 0).unwrap();
    let args = [heap.path_text().to_string(), path.to_str().unwrap().to_string()];
    (heap, page, args)
}

fn start(args: &[String; 2], page: &Page, place: usize) -> Child {
    word(page, place, GO).store(WORK, SeqCst);
    let mut child = spawn("hammerer", &[&args[0], &args[1], &place.to_string()]);
    child.link.await_signal();
    await_progress(page, place, "the process works");
    child
}

/// Sets the key as soon as that is possible; how long it took, and how often it was BUSY.
fn set_at_last(cache: &Cache, limit: Duration, meanwhile: impl Fn()) -> (Duration, u64) {
    let (begin, mut busy) = (Instant::now(), 0);
    while !done(cache.set(KEY, b"a survivor's", 0, 0)) {
        busy += 1;
        assert!(begin.elapsed() < limit, "still BUSY after {limit:?}");
        meanwhile();
    }
    (begin.elapsed(), busy)
}

/// Waits until every thread of a killed process is gone, and only the entry in the process table is left.
fn await_zombie(child: &Child) {
    wait_until("it becomes a zombie", 10, || {
        state_of(child.pid()) == Some('Z') && thread_states(child.pid()).chars().all(|state| state == 'Z')
    });
}

/// Everybody else is dead: nothing is left of them.
fn assert_clean(heap: &TestHeap, when: &str) {
    heap.cache.reap().expect("reap");
    let found = heap.check(when);
    assert!(found.findings.is_empty() && found.summary.at_rest, "{when}: {found:?}");
}

fn is_alive(cache: &Cache, pid: u32) -> bool {
    cache.clients().expect("clients").iter().any(|client| client.pid == pid && client.alive)
}

fn locks_taken_over(cache: &Cache) -> u64 {
    cache.stats().expect("stats").locks_taken_over
}

#[test]
fn the_new_owner_of_a_pid_is_not_the_dead_one() {
    MODES.into_iter().for_each(the_new_owner_of_a_pid_is_not_the_dead_one_by);
}

fn the_new_owner_of_a_pid_is_not_the_dead_one_by(mode: u32) {
    let (heap, page, args) = stage(&CreateOptions::new(16 << 20).mode(mode));
    let mut land = Namespace::new("country", &[&args[0], &args[1]]);
    let (mut rng, mut tries, mut slowest) = (Rng::new(61), 0, Duration::ZERO);
    let rounds = scaled(8, 300);
    for round in 0..rounds {
        let (a, b) = (round as usize % 8 * 2, round as usize % 8 * 2 + 1);
        word(&page, a, GO).store(WORK, SeqCst);
        word(&page, b, GO).store(0, SeqCst);
        let old = land.start(0, a);
        await_progress(&page, a, "the first owner of the pid works");
        tries += stop_with_lock(&heap.cache, KEY, old.outer, &mut rng);
        signal(old.outer, libc::SIGKILL);
        land.reap(old);
        // A process with the dead one's pid is there before anybody looks.
        let new = land.start(old.inner, b);
        assert_eq!(new.inner, old.inner, "round {round}: the pid was not reused");
        let (took, busy) = set_at_last(&heap.cache, Duration::from_secs(5), || ());
        assert_eq!(busy, 0, "round {round}: the dead one is taken for the living one");
        slowest = slowest.max(took);
        word(&page, b, GO).store(WORK, SeqCst);
        await_progress(&page, b, "the second owner of the pid works");
        // The second one is alive: stopped with the lock, it keeps it.
        tries += stop_with_lock(&heap.cache, KEY, new.outer, &mut rng);
        let before = locks_taken_over(&heap.cache);
        heap.cache.reap().expect("reap");
        assert!(!done(heap.cache.set(KEY, b"not now", 0, 0)), "round {round}: the living one lost its lock");
        assert!(is_alive(&heap.cache, new.inner), "round {round}: the living one counts as dead");
        assert_eq!(locks_taken_over(&heap.cache), before);
        signal(new.outer, libc::SIGCONT);
        await_progress(&page, b, "the second owner of the pid goes on");
        signal(new.outer, libc::SIGKILL);
        land.reap(new);
    }
    drop(land);
    assert_clean(&heap, "after all owners of the pid");
    report(format_args!(
        "{rounds} pids reused after a death with a lock held ({tries} stops to see {} locks); slowest take-over {slowest:?}",
        rounds * 2
    ));
}

extern "C" fn end_this_thread(_: libc::c_int) {
    // SAFETY: ends the thread, wherever it is, without running anything.
    unsafe { libc::syscall(libc::SYS_exit, 0) };
}

fn on_usr1_end_the_thread() {
    let handler: extern "C" fn(libc::c_int) = end_this_thread;
    // SAFETY: the handler makes one system call.
    assert_ne!(unsafe { libc::signal(libc::SIGUSR1, handler as libc::sighandler_t) }, libc::SIG_ERR);
}

fn thread_id() -> u32 {
    // SAFETY: takes nothing and cannot fail.
    unsafe { libc::gettid() as u32 }
}

fn signal_thread(tid: u32, signal: i32) -> i32 {
    // SAFETY: takes numbers only; the id is that of a thread of this process, or of none.
    unsafe { libc::syscall(libc::SYS_tgkill, libc::getpid(), tid, signal) as i32 }
}

/// Makes a thread that works on the key vanish, and gives its id to a new one, until a lock was held `wanted` times.
fn reuse_thread_ids(cache: &'static Cache, page: &'static Page, wanted: u64) -> (u64, u64) {
    on_usr1_end_the_thread();
    let (mut rng, mut held) = (Rng::new(62), 0);
    for tries in 1..=20_000 {
        let (told, tid) = std::sync::mpsc::channel();
        word(page, 0, GO).store(WORK, SeqCst);
        start_thread(cache, page, told);
        let tid = tid.recv().expect("its id");
        await_progress(page, 0, "the thread works");
        std::thread::sleep(Duration::from_micros(rng.below(300)));
        assert_eq!(signal_thread(tid, libc::SIGUSR1), 0);
        wait_until("the thread vanishes", 10, || signal_thread(tid, 0) != 0);
        let before = locks_taken_over(cache);
        namespace::next_pid(tid);
        let second = cache.clone();
        let thread = std::thread::spawn(move || (thread_id(), second.set(KEY, b"by the new thread", 0, 0).map(drop)));
        let (new, outcome) = thread.join().expect("the new thread");
        assert_eq!(new, tid, "try {tries}: the thread id was not reused");
        outcome.unwrap_or_else(|e| panic!("try {tries}: the new thread is taken for the one that vanished: {e}"));
        held += locks_taken_over(cache) - before;
        if held >= wanted {
            return (tries, held);
        }
    }
    panic!("only {held} threads vanished with a lock held")
}

/// Starts a thread that works on the key for ever and tells its id. It is never joined: one that vanishes cannot say that it
/// ended.
fn start_thread(cache: &'static Cache, page: &'static Page, told: std::sync::mpsc::Sender<u32>) {
    std::mem::forget(std::thread::spawn(move || {
        cache.touch(KEY, 0).expect("touch");
        told.send(thread_id()).expect("tell");
        hammer(cache, page, 0);
    }));
}

/// The first process of a namespace, whose threads vanish.
fn threads_vanish(link: &mut Link, args: &[String]) {
    let wanted: u64 = args[2].parse().unwrap();
    namespace::inside(|| {
        let page: &'static Page = Box::leak(Box::new(Page::open(args[1].as_ref())));
        let cache: &'static Cache = Box::leak(Box::new(Cache::open(&args[0]).expect("open")));
        let (tries, held) = reuse_thread_ids(cache, page, wanted);
        word(page, 0, SAID).store(tries, SeqCst);
        word(page, 1, SAID).store(held, SeqCst);
        // Without closing: that waits for the threads that vanished inside.
        // SAFETY: ends this process.
        unsafe { libc::_exit(0) }
    });
    link.signal();
}

/// A thread ended in the middle of an operation (by a signal handler that never returns), and the next thread of the process
/// was given its id. The first one's op context then belonged to a thread that was there, so nobody ever recovered it, and
/// the new thread even took the lock for one that it held itself, and was told BUSY for good. A thread that comes to a heap
/// for the first time now knows that contexts under its id are not its own.
#[test]
fn a_new_thread_is_not_the_one_that_had_its_id() {
    MODES.into_iter().for_each(a_new_thread_is_not_the_one_that_had_its_id_by);
}

fn a_new_thread_is_not_the_one_that_had_its_id_by(mode: u32) {
    let (heap, page, args) = stage(&CreateOptions::new(64 << 20).mode(mode));
    let wanted = scaled(5, 500);
    let mut child = spawn("threads vanish", &[&args[0], &args[1], &wanted.to_string()]);
    child.link.await_signal();
    child.finish(30);
    assert_clean(&heap, "after the threads");
    let said = |place| word(&page, place, SAID).load(SeqCst);
    report(format_args!("{} threads vanished and their ids were reused, {} of them held a lock", said(0), said(1)));
    assert!(said(1) >= wanted);
}

#[test]
fn nobody_waits_for_a_zombie_that_nobody_reaps() {
    MODES.into_iter().for_each(nobody_waits_for_a_zombie_that_nobody_reaps_by);
}

fn nobody_waits_for_a_zombie_that_nobody_reaps_by(mode: u32) {
    let (heap, page, args) = stage(&CreateOptions::new(64 << 20).mode(mode));
    let (mut rng, mut tries, mut times, mut zombies) = (Rng::new(63), 0, vec![], vec![]);
    let rounds = scaled(20, 1_000);
    for round in 0..rounds {
        let child = start(&args, &page, 0);
        tries += stop_with_lock(&heap.cache, KEY, child.pid(), &mut rng);
        let begin = Instant::now();
        child.send_signal(libc::SIGKILL);
        set_at_last(&heap.cache, Duration::from_secs(5), || ());
        times.push(begin.elapsed());
        await_zombie(&child);
        zombies.push(child);
        assert!(done(heap.cache.set(KEY, b"again", 0, 0)), "round {round}");
        if zombies.len() == 50 {
            zombies.clear();
        }
    }
    heap.cache.reap().expect("reap");
    let alive = heap.cache.clients().expect("clients").iter().filter(|c| c.alive).count();
    assert_eq!(alive, 1, "zombies count as alive");
    assert_clean(&heap, "with the zombies still there");
    times.sort();
    let (median, slowest) = (times[times.len() / 2], times[times.len() - 1]);
    report(format_args!(
        "{rounds} zombies that died with a lock held ({tries} stops); from SIGKILL to a survivor's set: median {median:?}, slowest {slowest:?}"
    ));
    assert!(slowest < Duration::from_secs(3), "others waited {slowest:?} for a zombie");
}

const LEADER_THREADS: usize = 3;

/// A process whose first thread ends at once while the others work.
fn leader(link: &mut Link, args: &[String]) {
    on_usr1_end_the_thread();
    let cache: &'static Cache = Box::leak(Box::new(Cache::open(&args[0]).expect("open")));
    let page: &'static Page = Box::leak(Box::new(Page::open(args[1].as_ref())));
    cache.touch(KEY, 0).expect("the leader works, too");
    for place in 0..LEADER_THREADS {
        std::mem::forget(std::thread::spawn(move || {
            hammer(cache, page, place);
            // SAFETY: ends this thread without a word to anybody.
            unsafe { libc::syscall(libc::SYS_exit, 0) };
        }));
    }
    link.signal();
    signal_thread(std::process::id(), libc::SIGUSR1);
    // This thread, too, if it is another one.
    end_this_thread(0);
}

#[test]
fn a_zombie_leader_with_living_threads_is_alive() {
    MODES.into_iter().for_each(a_zombie_leader_with_living_threads_is_alive_by);
}

fn a_zombie_leader_with_living_threads_is_alive_by(mode: u32) {
    let (heap, page, args) = stage(&CreateOptions::new(64 << 20).mode(mode));
    let (mut rng, rounds) = (Rng::new(64), scaled(6, 300));
    for round in 0..rounds {
        (0..LEADER_THREADS).for_each(|place| word(&page, place, GO).store(WORK, SeqCst));
        let mut child = spawn("leader", &[&args[0], &args[1]]);
        child.link.await_signal();
        let pid = child.pid();
        wait_until("the leader is a zombie", 20, || state_of(pid) == Some('Z'));
        for place in 0..LEADER_THREADS {
            await_progress(&page, place, "threads work on without their leader");
        }
        let working = thread_states(pid).chars().filter(|state| *state != 'Z').count();
        assert!(working >= LEADER_THREADS, "round {round}: threads {}", thread_states(pid));
        assert!(is_alive(&heap.cache, pid as u32), "round {round}: counts as dead");
        // The thread that touched the key has ended without a word: its idle context is nobody's.
        let ended = heap.cache.reap().expect("reap");
        assert!(ended <= 1, "round {round}: {ended} contexts were taken, and one thread has ended");
        stop_with_lock(&heap.cache, KEY, pid, &mut rng);
        let before = locks_taken_over(&heap.cache);
        assert_eq!(heap.cache.reap().expect("reap"), 0, "round {round}: something was taken from the living");
        assert!(!done(heap.cache.set(KEY, b"not now", 0, 0)), "round {round}: a lock was taken from the living");
        assert_eq!(locks_taken_over(&heap.cache), before);
        if round % 2 == 0 {
            signal(pid, libc::SIGCONT);
            for place in 0..LEADER_THREADS {
                await_progress(&page, place, "threads go on");
                word(&page, place, GO).store(END, SeqCst);
            }
        } else {
            signal(pid, libc::SIGKILL);
        }
        wait_until("dead with its last thread", 20, || !is_alive(&heap.cache, pid as u32));
        assert!(done(heap.cache.set(KEY, b"after its death", 0, 0)), "round {round}: BUSY after its death");
    }
    assert_clean(&heap, "after the leaders");
    report(format_args!("{rounds} processes worked on, stopped with a lock held, and died without their leader"));
}

#[test]
fn processes_of_several_pid_namespaces_share_a_heap() {
    MODES.into_iter().for_each(processes_of_several_pid_namespaces_share_a_heap_by);
}

fn processes_of_several_pid_namespaces_share_a_heap_by(mode: u32) {
    let (heap, page, args) = stage(&CreateOptions::new(64 << 20).mode(mode));
    let mut lands = [0, 1].map(|_| Namespace::new("country", &[&args[0], &args[1]]));
    let (mut rng, rounds, mut tries) = (Rng::new(65), scaled(8, 300), 0);
    let places = [0, WITHOUT_PROC];
    let mut inhabitants = [0, 1].map(|land| {
        word(&page, places[land], GO).store(WORK, SeqCst);
        lands[land].start(0, places[land])
    });
    for round in 0..rounds {
        let (victim, other) = (round as usize % 2, (round as usize + 1) % 2);
        assert_eq!(inhabitants[0].inner, inhabitants[1].inner, "the same pid in both namespaces");
        places.iter().for_each(|place| await_progress(&page, *place, "both work"));
        let same = heap.cache.clients().expect("clients");
        let same = same.iter().filter(|c| c.alive && c.pid == inhabitants[0].inner).count();
        assert_eq!(same, 2, "round {round}: two clients of one pid");
        let said = word(&page, WITHOUT_PROC, SAID).load(SeqCst);
        assert_eq!(said, 1, "round {round}: one of them has lost its /proc");
        tries += stop_with_lock(&heap.cache, KEY, inhabitants[victim].outer, &mut rng);
        signal(inhabitants[victim].outer, libc::SIGKILL);
        await_progress(&page, places[other], "the one in the other namespace goes on");
        set_at_last(&heap.cache, Duration::from_secs(5), || ());
        lands[victim].reap(inhabitants[victim]);
        // With /proc or without, the survivor finds the dead one dead and not itself.
        assert!(is_alive(&heap.cache, inhabitants[other].inner), "round {round}");
        inhabitants[victim] = lands[victim].start(inhabitants[victim].inner, places[victim]);
    }
    drop(lands);
    for who in inhabitants {
        wait_until("the namespaces end", 20, || thread_states(who.outer).chars().all(|state| state == 'Z'));
    }
    assert_clean(&heap, "after the namespaces");
    report(format_args!("{rounds} deaths with a lock held in two namespaces, one without /proc ({tries} stops)"));
}

/// Opens the heap, does one operation, and stays.
fn sitter(link: &mut Link, args: &[String]) {
    let outcome = Cache::open(&args[0]).and_then(|cache| cache.set(KEY, b"here", 0, 0).map(|_| cache));
    link.send(&outcome.as_ref().map(|_| ()).map_err(|e| (e.status() as u32, e.to_string())));
    let _: Option<()> = link.receive();
}

fn sit(args: &[String; 2]) -> Result<Child, (u32, String)> {
    let mut child = spawn("sitter", &[&args[0]]);
    let outcome: Result<(), (u32, String)> = child.link.receive().expect("the sitter died");
    outcome.map(|()| child)
}

#[test]
fn one_zombie_makes_room_in_a_full_table() {
    MODES.into_iter().for_each(one_zombie_makes_room_in_a_full_table_by);
}

fn one_zombie_makes_room_in_a_full_table_by(mode: u32) {
    let (heap, _, args) = stage(&CreateOptions::new(16 << 20).contexts(6).mode(mode));
    let clients = heap.cache.info().clients as usize;
    let mut sitters: Vec<Child> =
        (1..clients).map(|n| sit(&args).unwrap_or_else(|e| panic!("sitter {n}: {e:?}"))).collect();
    let (mut rng, mut zombies, mut refusals) = (Rng::new(66), vec![], 0);
    let rounds = scaled(120, 5_000);
    for round in 0..rounds {
        if round.is_multiple_of(10) {
            let (status, text) = sit(&args).err().expect("one more than the table holds");
            assert_eq!(status, Status::Full as u32, "{text}");
            assert!(text.contains("processes can have this heap open"), "{text}");
            refusals += 1;
        }
        let victim = sitters.swap_remove(rng.below(sitters.len() as u64) as usize);
        victim.send_signal(libc::SIGKILL);
        await_zombie(&victim);
        zombies.push(victim);
        sitters.push(sit(&args).unwrap_or_else(|e| panic!("round {round}: refused although one is dead: {e:?}")));
        if zombies.len() == 100 {
            zombies.clear();
        }
    }
    assert!(sitters.iter_mut().all(Child::is_running), "a sitter died by itself");
    drop(sitters);
    assert_clean(&heap, "after the sitters");
    report(format_args!(
        "{rounds} times a zombie's place in a table of {clients} was taken; {refusals} refusals before"
    ));
}

const CROWD: usize = 12;

/// Many threads of one process, each on keys of its own.
fn crowd(link: &mut Link, args: &[String]) {
    let page = Page::open(args[1].as_ref());
    let cache = Cache::open(&args[0]).expect("open");
    let first: usize = args[2].parse().unwrap();
    link.signal();
    std::thread::scope(|scope| {
        for place in first..first + CROWD {
            let (cache, page) = (&cache, &page);
            scope.spawn(move || {
                let mut rng = Rng::new(place as u64);
                loop {
                    let key = format!("crowd/{place}/{}", rng.below(20)).into_bytes();
                    let value = support::plan::piece(&key, 1, 0, rng.size(80_000));
                    done(cache.set(&key, &value, 0, 0));
                    match cache.get(&key) {
                        Ok(item) => drop(item.map(|i| support::record::read(&key, &i.value).expect("a whole value"))),
                        Err(e) => assert_eq!(e.status(), Status::Busy, "get: {e}"),
                    }
                    word(page, place, PROGRESS).fetch_add(1, SeqCst);
                }
            });
        }
    });
}

#[test]
fn contexts_of_the_dead_come_back_to_a_crowd() {
    let (heap, page, args) = stage(&CreateOptions::new(64 << 20).contexts(8));
    let quota = 6;
    let start = |n: usize| {
        let mut child = spawn("crowd", &[&args[0], &args[1], &(n * CROWD).to_string()]);
        child.link.await_signal();
        child
    };
    let before = heap.cache.stats().expect("stats").contexts;
    let mut crowds = [start(0), start(1)];
    let (mut rng, rounds, mut most) = (Rng::new(67), scaled(40, 2_000), 0);
    for round in 0..rounds {
        std::thread::sleep(Duration::from_micros(rng.below(12_000)));
        for client in heap.cache.clients().expect("clients") {
            assert!(client.contexts <= quota, "round {round}: more contexts than the quota: {client:?}");
            most = most.max(client.contexts);
        }
        let victim = rng.below(2) as usize;
        assert!(crowds[victim].is_running(), "round {round}: a crowd died by itself");
        crowds[victim].kill();
        let other = 1 - victim;
        for place in other * CROWD..(other + 1) * CROWD {
            let last = progress(&page, place);
            wait_until("every thread that lives gets its turn", 30, || progress(&page, place) > last);
        }
        crowds[victim] = start(victim);
        if round.is_multiple_of(10) {
            heap.check(&format!("round {round}"));
        }
    }
    crowds.iter_mut().for_each(Child::kill);
    assert_clean(&heap, "after the crowds");
    let told = heap.cache.stats().expect("stats");
    assert_eq!(told.contexts, before, "contexts were lost");
    report(format_args!(
        "{rounds} crowds of {CROWD} threads killed on 8 contexts; at most {most} held by one, {} recovered",
        told.recovered_contexts
    ));
    assert!(told.recovered_contexts >= rounds, "too few died with contexts");
}

// Words of a family, in place 0 and 1 of its page.
const BORN: usize = GO;
const GROWN_UP: usize = PROGRESS;

/// A process that forks children, who fork their own, all of them at work; it is the head of a process group.
fn family(link: &mut Link, args: &[String]) {
    // SAFETY: a plain system call.
    assert_eq!(unsafe { libc::setpgid(0, 0) }, 0);
    let page = Page::open(args[1].as_ref());
    let cache = Cache::open(&args[0]).expect("open");
    cache.touch(KEY, 0).expect("touch");
    link.signal();
    let work = |ops: u64| {
        for _ in 0..ops {
            done(cache.set(KEY, b"a child's", 0, 0));
            word(&page, 1, PROGRESS).fetch_add(1, SeqCst);
        }
    };
    for n in 0.. {
        word(&page, 0, BORN).fetch_add(1, SeqCst);
        fork(|| {
            // The first operation makes it a client of its own.
            while !done(cache.touch(KEY, 0)) {}
            word(&page, 0, GROWN_UP).fetch_add(1, SeqCst);
            if n % 3 == 0 {
                fork(|| work(u64::MAX));
            }
            work(if n % 2 == 0 { u64::MAX } else { 2_000 });
        });
        work(50);
        // SAFETY: takes no status; leaves the others alone.
        while unsafe { libc::waitpid(-1, std::ptr::null_mut(), libc::WNOHANG) } > 0 {}
        while n > 3 && word(&page, 0, SAID).load(SeqCst) == 0 {
            work(50);
        }
    }
}

#[test]
fn families_die_as_a_whole_or_leave_orphans() {
    MODES.into_iter().for_each(families_die_as_a_whole_or_leave_orphans_by);
}

fn families_die_as_a_whole_or_leave_orphans_by(mode: u32) {
    // SAFETY: a plain system call: orphans come to this process, which then knows when they are gone.
    assert_eq!(unsafe { libc::prctl(libc::PR_SET_CHILD_SUBREAPER, 1) }, 0);
    let (heap, page, args) = stage(&CreateOptions::new(64 << 20).mode(mode));
    let (mut rng, wanted) = (Rng::new(68), scaled(6, 200));
    let (mut rounds, mut unborn, mut orphans) = (0, 0, 0);
    while rounds < wanted * 5 || unborn < wanted {
        assert!(rounds < wanted * 100, "only {unborn} died in their first operation");
        [BORN, GROWN_UP].iter().for_each(|which| word(&page, 0, *which).store(0, SeqCst));
        let mut head = spawn("family", &[&args[0], &args[1]]);
        head.link.await_signal();
        let group = head.pid();
        std::thread::sleep(Duration::from_micros(rng.below(15_000)));
        if rng.once_in(3) {
            head.kill();
            let grown_up = word(&page, 0, GROWN_UP).load(SeqCst);
            heap.check("with orphans");
            if grown_up > 2 {
                await_progress(&page, 1, "orphans go on without their parent");
                orphans += 1;
            }
            signal_group(group);
        } else {
            signal_group(group);
            head.kill();
        }
        // SAFETY: takes no status.
        while unsafe { libc::waitpid(-group, std::ptr::null_mut(), 0) } > 0 {}
        unborn += word(&page, 0, BORN).load(SeqCst) - word(&page, 0, GROWN_UP).load(SeqCst);
        heap.check("after a family");
        let (_, busy) = set_at_last(&heap.cache, Duration::from_secs(5), || ());
        assert_eq!(busy, 0, "round {rounds}: a dead family holds a lock");
        rounds += 1;
    }
    assert_clean(&heap, "after all families");
    report(format_args!(
        "{rounds} families killed, {orphans} of them left orphans at work first; {unborn} children died before their first operation was done"
    ));
}

fn signal_group(group: i32) {
    // SAFETY: takes numbers only; the group is that of a child of ours. It may have ended by itself.
    unsafe { libc::kill(-group, libc::SIGKILL) };
}

// What a visitor is doing.
const COMING: u64 = 1;
const STAYING: u64 = 2;
const GOING: u64 = 3;

/// Comes and goes.
fn visitor(link: &mut Link, args: &[String]) {
    let page = Page::open(args[1].as_ref());
    let phase = |now| word(&page, 0, SAID).store(now, SeqCst);
    link.signal();
    loop {
        phase(COMING);
        let cache = Cache::open(&args[0]).expect("open");
        phase(STAYING);
        done(cache.set(KEY, b"a visitor's", 0, 0));
        phase(GOING);
        drop(cache);
        word(&page, 0, PROGRESS).fetch_add(1, SeqCst);
    }
}

#[test]
fn killed_while_coming_and_going() {
    MODES.into_iter().for_each(killed_while_coming_and_going_by);
}

fn killed_while_coming_and_going_by(mode: u32) {
    let (heap, page, args) = stage(&CreateOptions::new(16 << 20).contexts(4).mode(mode));
    let (mut rng, wanted) = (Rng::new(69), scaled(12, 1_000));
    let mut died = [0u64; 4];
    let mut kills = 0;
    while died[COMING as usize] < wanted || died[GOING as usize] < wanted {
        assert!(kills < wanted * 200, "died while coming, staying, going: {died:?}");
        let mut child = spawn("visitor", &[&args[0], &args[1]]);
        child.link.await_signal();
        if !rng.once_in(4) {
            // The first visit takes longest.
            let before = progress(&page, 0);
            wait_until("the visitor has been there", 10, || progress(&page, 0) > before);
        }
        std::thread::sleep(Duration::from_micros(rng.below(2_000)));
        assert!(child.is_running(), "a visitor died by itself after {kills} kills");
        child.kill();
        died[word(&page, 0, SAID).load(SeqCst) as usize] += 1;
        kills += 1;
        assert!(done(heap.cache.set(KEY, b"mine", 0, 0)), "kill {kills}: BUSY");
        if kills.is_multiple_of(10) {
            assert_clean(&heap, "after a visitor");
            let clients = heap.cache.clients().expect("clients");
            assert_eq!(clients.len(), 1, "the dead keep their slots: {clients:?}");
        }
    }
    assert_clean(&heap, "after the visitors");
    report(format_args!(
        "{kills} visitors killed: {} while coming, {} at work, {} while going",
        died[COMING as usize], died[STAYING as usize], died[GOING as usize]
    ));
}

/// Works on the key with much memory of its own, which a core dump has to write.
fn heavy(link: &mut Link, args: &[String]) {
    let unlimited = libc::rlimit { rlim_cur: libc::RLIM_INFINITY, rlim_max: libc::RLIM_INFINITY };
    // SAFETY: a valid limit.
    let set = unsafe { libc::setrlimit(libc::RLIMIT_CORE, &unlimited) };
    assert_eq!(set, 0, "this test needs a hard limit that allows core dumps");
    std::env::set_current_dir(&args[3]).expect("a folder for the core");
    // SAFETY: the runtime has a handler for this one, which would take the first for one of its own.
    unsafe { libc::signal(libc::SIGSEGV, libc::SIG_DFL) };
    let ballast = vec![7u8; 256 << 20];
    hammerer(link, args);
    drop(ballast);
}

#[test]
fn a_death_that_takes_long_is_a_life_until_it_ends() {
    MODES.into_iter().for_each(a_death_that_takes_long_is_a_life_until_it_ends_by);
}

fn a_death_that_takes_long_is_a_life_until_it_ends_by(mode: u32) {
    let (heap, page, args) = stage(&CreateOptions::new(64 << 20).mode(mode));
    let (mut rng, mut dumps, mut texts) = (Rng::new(70), 0, vec![]);
    for (round, fatal) in [libc::SIGABRT, libc::SIGSEGV].into_iter().enumerate() {
        word(&page, 0, GO).store(WORK, SeqCst);
        let folder = heap.beside(&format!("core-{round}"));
        std::fs::create_dir(&folder).unwrap();
        let mut child = spawn("heavy", &[&args[0], &args[1], "0", folder.to_str().unwrap()]);
        child.link.await_signal();
        await_progress(&page, 0, "the process works");
        stop_with_lock(&heap.cache, KEY, child.pid(), &mut rng);
        child.send_signal(fatal);
        child.send_signal(libc::SIGCONT);
        // Readers and other keys go on meanwhile; the key's bucket is BUSY as long as the address space is there.
        let (took, busy) = set_at_last(&heap.cache, Duration::from_secs(60), || {
            let begin = Instant::now();
            assert!(heap.cache.get(KEY).expect("get").is_some());
            heap.cache.set(format!("other {round}").as_bytes(), b"v", 0, 0).expect("another key");
            assert!(begin.elapsed() < Duration::from_secs(2), "others waited {:?}", begin.elapsed());
        });
        let status = child.wait_for(60).expect("dead");
        let dumped = std::os::unix::process::ExitStatusExt::core_dumped(&status);
        assert_eq!(std::os::unix::process::ExitStatusExt::signal(&status), Some(fatal), "{status}");
        dumps += u64::from(dumped);
        texts.push(format!("signal {fatal}: {took:?}, {busy} times BUSY, core dumped: {dumped}"));
        std::fs::remove_dir_all(folder).unwrap();
    }
    assert_clean(&heap, "after the dumps");
    let note = if dumps == 0 { "; THIS MACHINE WRITES NO CORES, so only the deaths themselves were seen" } else { "" };
    report(format_args!("from the signal to a survivor's set: {}{note}", texts.join("; ")));
}

#[test]
#[ignore = "entry point of the child processes"]
fn child() {
    support::child::enter(&[
        ("hammerer", hammerer),
        ("country", country),
        ("threads vanish", threads_vanish),
        ("leader", leader),
        ("sitter", sitter),
        ("crowd", crowd),
        ("family", family),
        ("visitor", visitor),
        ("heavy", heavy),
    ]);
}
