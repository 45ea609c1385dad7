//! Processes killed or stopped at random moments: what they had committed stays, what they were
//! doing is done or not done, and all others go on.

mod support;

use std::path::Path;
use std::sync::atomic::Ordering::{Relaxed, SeqCst};
use std::time::{Duration, Instant};

use plib::{Cache, CreateOptions, Error, Status};
use support::child::{Child, Link, spawn};
use support::heap::{TestHeap, check};
use support::page::Page;
use support::plan::{
    BUSY, JOURNAL, Journal, KEYS, NEWEST, NUMBER_KEYS, PENDING, PROGRESS, RECORD_KEYS, State, key_name, piece,
    piece_behind, seen,
};
use support::record;
use support::rng::Rng;
use support::{report, scaled, wait_until};

/// One process that is going to be killed.
struct Worker<'a> {
    cache: Cache,
    journal: Journal<'a>,
    me: usize,
    rng: Rng,
    seq: u64,
}

impl Worker<'_> {
    /// Notes the plan, acts, notes the outcome. Busy means that nothing was done.
    fn change(&self, key: usize, next: State, act: impl FnOnce() -> Result<(), Error>) {
        self.journal.plan(0, key, next);
        match act() {
            Ok(()) => self.journal.settle(0, key, next),
            Err(e) if e.status() == Status::Busy => {
                self.journal.settle(0, key, self.journal.state(key));
                self.journal.put(BUSY, self.journal.get(BUSY) + 1);
            }
            Err(e) => panic!("{:?} -> {next:?}: {e}", self.journal.state(key)),
        }
    }

    fn change_record(&mut self) {
        let key = self.rng.below(RECORD_KEYS as u64) as usize;
        let name = key_name(self.me, key);
        let state = self.journal.state(key);
        let len = self.rng.size(150_000);
        self.seq += 1;
        self.journal.put(NEWEST, self.seq);
        let fresh = State::record(self.seq);
        let value = piece(&name, self.seq, 0, len);
        match self.rng.below(10) {
            0..2 if state != State::ABSENT && state.appended() < 4 => {
                let next = state.with_appended();
                let more = piece_behind(&name, next, len.min(20_000));
                self.change(key, next, || self.cache.append(&name, &more).map(drop));
            }
            2 if state != State::ABSENT => {
                let delete = || self.cache.delete(&name).map(|found| assert!(found, "not there"));
                self.change(key, State::ABSENT, delete);
            }
            3 if state != State::ABSENT => {
                let cas = self.cache.get(&name).expect("get").expect("present").cas;
                let swap = || self.cache.compare_and_swap(&name, &value, 0, 0, cas).map(drop);
                self.change(key, fresh, swap);
            }
            4 if state == State::ABSENT => {
                self.change(key, fresh, || self.cache.add(&name, &value, 0, 0).map(drop));
            }
            _ => self.change(key, fresh, || self.cache.set(&name, &value, 0, 0).map(drop)),
        }
    }

    fn change_number(&mut self) {
        let key = RECORD_KEYS + self.rng.below(NUMBER_KEYS as u64) as usize;
        let name = key_name(self.me, key);
        let next = match self.journal.state(key) {
            State::ABSENT => State(98),
            State(word) => State(word + 1),
        };
        self.change(key, next, || {
            let number = self.cache.increment_or(&name, 1, 97, 0)?;
            assert_eq!(number + 1, next.0);
            Ok(())
        });
    }

    /// Every member of a batch is old or new, each for itself.
    fn change_batch(&mut self) {
        let first = self.rng.below((RECORD_KEYS - PENDING) as u64) as usize;
        let names: Vec<_> = (0..PENDING).map(|m| key_name(self.me, first + m)).collect();
        self.seq += 1;
        self.journal.put(NEWEST, self.seq);
        let next = State::record(self.seq);
        let value = |name: &Vec<u8>, rng: &mut Rng| piece(name, next.seq(), 0, rng.size(20_000));
        let items: Vec<_> = names.iter().map(|n| (n, value(n, &mut self.rng))).collect();
        (0..PENDING).for_each(|m| self.journal.plan(m, first + m, next));
        let stored = self.cache.set_many(&items, 0, 0).expect("set_many");
        for (m, outcome) in stored.into_iter().enumerate() {
            let now = match outcome {
                Ok(_) => next,
                Err(e) if e.status() == Status::Busy => self.journal.state(first + m),
                Err(e) => panic!("set_many: {e}"),
            };
            self.journal.settle(m, first + m, now);
        }
    }

    fn read_someone(&mut self, workers: usize) {
        let worker = self.rng.below(workers as u64) as usize;
        let key = self.rng.below(KEYS as u64) as usize;
        seen(&self.cache, &key_name(worker, key), key >= RECORD_KEYS);
    }
}

/// Fills a heap that is much too small with values of all sizes, by all kinds of stores.
fn filler(link: &mut Link, args: &[String]) {
    let cache = Cache::open(&args[0]).expect("open");
    let mut rng = Rng::new(args[1].parse().unwrap());
    link.signal();
    for n in 0.. {
        let name = format!("full/{}", rng.below(3_000)).into_bytes();
        let value = piece(&name, n, 0, rng.size(600_000));
        let outcome = match rng.below(12) {
            0 => cache.append(&name, &piece(&name, n, 1, 100)).map(drop),
            1 => cache.delete(&name).map(drop),
            2 => cache.add(&name, &value, 0, 0).map(drop),
            3 => cache.increment_or(b"full/number", 1, 1, 0).map(drop),
            4 => cache.touch(&name, -1).map(drop),
            _ => cache.set(&name, &value, 0, 0).map(drop),
        };
        match outcome.map_err(|e| (e.status(), e)) {
            Ok(()) | Err((Status::NotStored | Status::Busy | Status::TooLarge, _)) => {}
            Err((_, e)) => panic!("operation {n}, {} bytes: {e}", value.len()),
        }
        if let Some(item) = cache.get(&name).expect("get") {
            record::read(&name, &item.value).unwrap_or_else(|e| panic!("{e}"));
        }
    }
}

fn worker(link: &mut Link, args: &[String]) {
    let page = Page::open(args[1].as_ref());
    let me: usize = args[2].parse().unwrap();
    let workers: usize = args[3].parse().unwrap();
    let journal = Journal::new(&page, me);
    let newest = journal.get(NEWEST);
    let seed = args[4].parse().unwrap();
    let cache = Cache::open(&args[0]).expect("open");
    let mut worker = Worker { cache, journal, me, rng: Rng::new(seed), seq: newest + 1 };
    link.signal();
    loop {
        match worker.rng.below(20) {
            0..10 => worker.change_record(),
            10..13 => worker.change_number(),
            13 => worker.change_batch(),
            14..16 => worker.journal.grow_or_shrink(&worker.cache),
            _ => worker.read_someone(workers),
        }
        page.word(me * JOURNAL + PROGRESS).fetch_add(1, Relaxed);
    }
}

#[test]
#[ignore = "entry point of the child processes"]
fn child() {
    support::child::enter(&[("worker", worker), ("filler", filler)]);
}

fn start(heap: &Path, page: &Path, me: usize, workers: usize, seed: u64) -> Child {
    let text = |path: &Path| path.to_str().unwrap().to_string();
    let numbers = (me.to_string(), workers.to_string(), seed.to_string());
    let mut child = spawn("worker", &[&text(heap), &text(page), &numbers.0, &numbers.1, &numbers.2]);
    child.link.await_signal();
    child
}

/// Compares all that a dead worker wrote with its journal. Returns how many changes were under way.
fn audit(cache: &Cache, page: &Page, worker: usize, when: &str) -> u64 {
    let evictions = cache.stats().expect("stats").evictions;
    assert_eq!(evictions, 0, "{when}: the heap is too small for this test");
    let journal = Journal::new(page, worker);
    let under_way = journal.audit(cache, false, when);
    journal.audit_grown(cache, when);
    under_way
}

fn audit_all(cache: &Cache, page: &Page, workers: usize, when: &str) -> u64 {
    (0..workers).map(|worker| audit(cache, page, worker, when)).sum()
}

fn progress(page: &Page, worker: usize) -> u64 {
    page.word(worker * JOURNAL + PROGRESS).load(SeqCst)
}

#[test]
fn survivors_go_on_after_a_kill() {
    let kills = scaled(100, 10_000);
    let workers = 3;
    let heap = TestHeap::new(96 << 20);
    let page_path = heap.beside("page");
    let page = Page::create(&page_path, workers * JOURNAL);
    let mut rng = Rng::new(7);
    let mut crew: Vec<_> = (0..workers).map(|me| start(&heap.path, &page_path, me, workers, me as u64)).collect();
    let (mut under_way, mut recovered) = (0, 0);
    for round in 0..kills {
        std::thread::sleep(Duration::from_micros(500 + rng.below(12_000)));
        let victim = rng.below(workers as u64) as usize;
        assert!(crew[victim].is_running(), "worker {victim} died by itself in round {round}");
        crew[victim].kill();
        let when = format!("round {round}, worker {victim} killed");
        let before: Vec<_> = (0..workers).map(|w| progress(&page, w)).collect();
        recovered += u64::from(heap.cache.reap().expect("reap"));
        heap.check(&when);
        under_way += audit(&heap.cache, &page, victim, &when);
        for other in (0..workers).filter(|&w| w != victim) {
            wait_until(&format!("{when}: worker {other} goes on"), 10, || {
                assert!(crew[other].is_running(), "{when}: worker {other} died too");
                progress(&page, other) > before[other] + 5
            });
        }
        crew[victim] = start(&heap.path, &page_path, victim, workers, round + 100);
        if round % 1_000 == 999 {
            report(format_args!("{} kills so far, {recovered} contexts recovered", round + 1));
        }
    }
    let steps: u64 = (0..workers).map(|w| progress(&page, w)).sum();
    let busy: u64 = (0..workers).map(|w| Journal::new(&page, w).get(BUSY)).sum();
    drop(crew);
    heap.cache.reap().expect("reap");
    heap.check("at the end");
    audit_all(&heap.cache, &page, workers, "at the end");
    report(format_args!(
        "{kills} kills in {steps} operations: {under_way} changes under way, {recovered} contexts recovered, {busy} busy"
    ));
    assert!(steps > kills * 20, "too little was done");
}

#[test]
fn a_restart_finds_everything() {
    let rounds = scaled(12, 1_000);
    let workers = 2;
    let folder = support::heap::folder();
    let (path, page_path) = (folder.path().join("heap"), folder.path().join("page"));
    let page = Page::create(&page_path, workers * JOURNAL);
    let mut rng = Rng::new(11);
    // Dropped at once: nobody but the crew is attached while it runs.
    let created = Cache::create(&path, &CreateOptions::new(96 << 20)).expect("create");
    created.set(b"from the first day", b"still here", 5, 0).unwrap();
    drop(created);
    let mut under_way = 0;
    for round in 0..rounds {
        let mut crew: Vec<_> =
            (0..workers).map(|me| start(&path, &page_path, me, workers, round * 7 + me as u64)).collect();
        std::thread::sleep(Duration::from_millis(20 + rng.below(100)));
        crew.iter_mut().for_each(Child::kill);
        let cache = Cache::open(&path).expect("open after all were killed");
        let when = format!("restart {round}");
        cache.reap().expect("reap");
        check(&cache, &when);
        under_way += audit_all(&cache, &page, workers, &when);
        let old = cache.get(b"from the first day").unwrap().expect("the first item");
        assert_eq!((&old.value[..], old.flags), (&b"still here"[..], 5));
    }
    let items = Cache::open(&path).unwrap().check().unwrap().summary.items;
    report(format_args!("{rounds} restarts, {under_way} changes under way, {items} items at the end"));
}

#[test]
fn nobody_waits_for_a_stopped_process() {
    let stops = scaled(25, 1_000);
    let workers = 2;
    let heap = TestHeap::new(64 << 20);
    let page_path = heap.beside("page");
    let page = Page::create(&page_path, workers * JOURNAL);
    let mut rng = Rng::new(13);
    let mut crew: Vec<_> = (0..workers).map(|me| start(&heap.path, &page_path, me, workers, 50 + me as u64)).collect();
    let (mut slowest, mut busy) = (Duration::ZERO, 0);
    for round in 0..stops {
        std::thread::sleep(Duration::from_micros(rng.below(8_000)));
        crew.iter().for_each(|child| child.send_signal(libc::SIGSTOP));
        for (worker, key) in (0..workers).flat_map(|w| (0..KEYS).map(move |k| (w, k))) {
            let begin = Instant::now();
            seen(&heap.cache, &key_name(worker, key), key >= RECORD_KEYS);
            match heap.cache.touch(&key_name(worker, key), 0) {
                Ok(_) => {}
                Err(e) if e.status() == Status::Busy => busy += 1,
                Err(e) => panic!("touch: {e}"),
            }
            slowest = slowest.max(begin.elapsed());
            assert!(begin.elapsed() < Duration::from_secs(3), "waited {:?}", begin.elapsed());
        }
        let before: Vec<_> = (0..workers).map(|w| progress(&page, w)).collect();
        crew.iter().for_each(|child| child.send_signal(libc::SIGCONT));
        for worker in 0..workers {
            wait_until(&format!("stop {round}: worker {worker} goes on"), 10, || {
                assert!(crew[worker].is_running(), "worker {worker} died");
                progress(&page, worker) > before[worker] + 2
            });
        }
    }
    crew.iter_mut().for_each(Child::kill);
    heap.cache.reap().expect("reap");
    heap.check("at the end");
    audit_all(&heap.cache, &page, workers, "at the end");
    report(format_args!("{stops} stops: slowest read and touch {slowest:?}, {busy} busy"));
}

/// Flushes, then stores the smallest items over and over until the heap holds `wanted` of them, as
/// memory moves to their class; how many it holds then, and after how many stores.
fn refill(cache: &Cache, wanted: u64) -> (u64, u64) {
    cache.flush_all(0).expect("flush");
    let mut held = 0;
    for round in 1..=40 {
        for n in 0..200_000 {
            cache.set(format!("{n:08}").as_bytes(), b"8 bytes.", 0, 0).expect("set");
        }
        held = cache.stats().expect("stats").curr_items;
        if held >= wanted {
            return (held, round * 200_000);
        }
    }
    (held, 40 * 200_000)
}

#[test]
fn the_dead_leave_no_memory_behind() {
    let kills = scaled(80, 10_000);
    let heap = TestHeap::new(8 << 20);
    let (fresh, _) = refill(&TestHeap::new(8 << 20).cache, 1);
    let mut rng = Rng::new(17);
    let mut seed = 0;
    let mut next = || {
        seed += 1;
        let mut child = spawn("filler", &[heap.path_text(), &format!("{seed}")]);
        child.link.await_signal();
        child
    };
    let mut crew = [next(), next()];
    let mut recovered = 0;
    for round in 0..kills {
        std::thread::sleep(Duration::from_micros(500 + rng.below(15_000)));
        let victim = rng.below(2) as usize;
        assert!(crew[victim].is_running(), "a worker died by itself in round {round}");
        crew[victim].kill();
        recovered += u64::from(heap.cache.reap().expect("reap"));
        heap.check(&format!("round {round}"));
        crew[victim] = next();
    }
    crew.iter_mut().for_each(Child::kill);
    recovered += u64::from(heap.cache.reap().expect("reap"));
    heap.check("at the end");
    let (after, stores) = refill(&heap.cache, fresh * 9 / 10);
    let found = heap.check("after filling it again");
    report(format_args!(
        "{kills} kills in a full heap, {recovered} contexts recovered; of {fresh} small items it holds {after} after {stores} stores"
    ));
    assert_eq!(found.summary.claimed_blocks, 0, "the dead still hold blocks");
    assert!(after * 10 >= fresh * 9, "memory was lost: {after} of {fresh} items");
}
