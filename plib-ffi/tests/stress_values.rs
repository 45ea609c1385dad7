//! Several processes read and write the same keys with every operation; each value shows by itself
//! whether it is whole and belongs to its key.

mod support;

use std::sync::atomic::Ordering::{Relaxed, SeqCst};
use std::time::{Duration, Instant};

use plib::{Cache, Error, Status};
use support::child::{Link, spawn};
use support::heap::TestHeap;
use support::page::Page;
use support::record::{self, Record};
use support::rng::Rng;
use support::{report, scaled};

const PROCESSES: usize = 4;
/// Keys that everyone changes.
const SHARED_KEYS: u64 = 48;
/// Keys of each writer that only it changes and everyone reads.
const OWN_KEYS: u64 = 8;

// Words of the shared page: one group a process.
const STOP: usize = 0;
const GROUP: usize = 16;
const READS: usize = 0;
const HITS: usize = 1;
const STORES: usize = 2;
const BUSY: usize = 3;
const APPENDS: usize = 4;
const DELETES: usize = 5;
const SWAPS: usize = 6;

/// One process of the crowd.
struct Worker {
    cache: Cache,
    rng: Rng,
    me: u32,
    most: u64,
    /// Whether the heap is so small that items go.
    tight: bool,
    seq: u64,
    /// The newest seq seen of each process's own keys.
    newest: Vec<u64>,
    counts: [u64; GROUP],
}

fn shared_key(n: u64) -> Vec<u8> {
    format!("shared/{n}").into_bytes()
}

fn own_key(owner: u32, n: u64) -> Vec<u8> {
    format!("own/{owner}/{n}").into_bytes()
}

impl Worker {
    /// A value that this worker never made before, now and then a large one.
    fn value(&mut self, key: &[u8]) -> Vec<u8> {
        self.seq += 1;
        let len = self.rng.size(self.most);
        record::make(key, Record { writer: self.me, seq: self.seq }, len)
    }

    fn count(&mut self, what: usize) {
        self.counts[what] += 1;
    }

    /// A store's outcome: refusals that the operation allows are fine, all else is a failure.
    fn stored(&mut self, what: &str, outcome: Result<u64, Error>, allowed: &[Status]) -> bool {
        match outcome {
            Ok(_) => {
                self.count(STORES);
                true
            }
            Err(e) if e.status() == Status::Busy => {
                self.count(BUSY);
                false
            }
            Err(e) if allowed.contains(&e.status()) => false,
            Err(e) => panic!("{what}: {e} ({:?})", e.status()),
        }
    }

    fn read_shared(&mut self) {
        let key = shared_key(self.rng.below(SHARED_KEYS));
        let found = self.cache.get(&key).expect("get");
        self.count(READS);
        if let Some(item) = found {
            self.count(HITS);
            record::read(&key, &item.value).unwrap_or_else(|e| panic!("get: {e}"));
        }
    }

    fn read_many(&mut self) {
        let keys: Vec<_> = (0..16).map(|_| shared_key(self.rng.below(SHARED_KEYS))).collect();
        for (key, found) in keys.iter().zip(self.cache.get_many(&keys).expect("get_many")) {
            self.count(READS);
            if let Some(item) = found {
                self.count(HITS);
                record::read(key, &item.value).unwrap_or_else(|e| panic!("get_many: {e}"));
            }
        }
    }

    /// Another process's own keys only move forward, and miss only where items go.
    fn read_other(&mut self) {
        let owner = self.rng.below(PROCESSES as u64) as u32;
        let n = self.rng.below(OWN_KEYS);
        let key = own_key(owner, n);
        let newest = (u64::from(owner) * OWN_KEYS + n) as usize;
        self.count(READS);
        match self.cache.get(&key).expect("get") {
            None => assert!(self.tight || self.newest[newest] == 0, "{} is gone", key.escape_ascii()),
            Some(item) => {
                self.count(HITS);
                let records = record::read(&key, &item.value).unwrap_or_else(|e| panic!("get: {e}"));
                assert_eq!((records.len(), records[0].writer), (1, owner));
                let seen = records[0].seq;
                assert!(seen >= self.newest[newest], "{} went back", key.escape_ascii());
                self.newest[newest] = seen;
            }
        }
    }

    fn store_own(&mut self) {
        let key = own_key(self.me, self.rng.below(OWN_KEYS));
        let value = self.value(&key);
        let outcome = self.cache.set(&key, &value, self.me, 0);
        self.stored("set", outcome, &[]);
    }

    fn store_shared(&mut self) {
        let key = shared_key(self.rng.below(SHARED_KEYS));
        let value = self.value(&key);
        let flags = self.me;
        match self.rng.below(4) {
            0 => {
                let outcome = self.cache.add(&key, &value, flags, 0);
                self.stored("add", outcome, &[Status::NotStored]);
            }
            1 => {
                let outcome = self.cache.replace(&key, &value, flags, 0);
                self.stored("replace", outcome, &[Status::NotStored]);
            }
            _ => {
                let outcome = self.cache.set(&key, &value, flags, 0);
                self.stored("set", outcome, &[]);
            }
        }
    }

    /// Appends and prepends stay whole records; a value that got long is set anew.
    fn extend_shared(&mut self) {
        let key = shared_key(self.rng.below(SHARED_KEYS));
        let value = self.value(&key);
        let outcome = match self.rng.once_in(2) {
            true => self.cache.append(&key, &value),
            false => self.cache.prepend(&key, &value),
        };
        if self.stored("append", outcome, &[Status::NotStored, Status::TooLarge]) {
            self.count(APPENDS);
        }
        if self.rng.once_in(4) {
            let value = self.value(&key);
            let outcome = self.cache.set(&key, &value, 0, 0);
            self.stored("set", outcome, &[]);
        }
    }

    fn swap_shared(&mut self) {
        let key = shared_key(self.rng.below(SHARED_KEYS));
        let Some(item) = self.cache.get(&key).expect("get") else { return };
        record::read(&key, &item.value).unwrap_or_else(|e| panic!("get: {e}"));
        let value = self.value(&key);
        let outcome = self.cache.compare_and_swap(&key, &value, self.me, 0, item.cas);
        if self.stored("cas", outcome, &[Status::Exists, Status::NotFound]) {
            self.count(SWAPS);
        }
    }

    fn delete_shared(&mut self) {
        let key = shared_key(self.rng.below(SHARED_KEYS));
        match self.cache.delete(&key) {
            Ok(true) => self.count(DELETES),
            Ok(false) => {}
            Err(e) if e.status() == Status::Busy => self.count(BUSY),
            Err(e) => panic!("delete: {e}"),
        }
    }

    fn touch_shared(&mut self) {
        let key = shared_key(self.rng.below(SHARED_KEYS));
        match self.cache.get_and_touch(&key, 1000) {
            Ok(Some(item)) => {
                record::read(&key, &item.value).unwrap_or_else(|e| panic!("gat: {e}"));
            }
            Ok(None) => {}
            Err(e) if e.status() == Status::Busy => self.count(BUSY),
            Err(e) => panic!("gat: {e}"),
        }
    }

    fn store_many(&mut self) {
        let keys: Vec<_> = (0..8).map(|_| shared_key(self.rng.below(SHARED_KEYS))).collect();
        let items: Vec<_> = keys.iter().map(|key| (key, self.value(key))).collect();
        for outcome in self.cache.set_many(&items, 0, 0).expect("set_many") {
            self.stored("set_many", outcome, &[]);
        }
    }

    fn step(&mut self) {
        match self.rng.below(100) {
            0..30 => self.read_shared(),
            30..38 => self.read_many(),
            38..58 => self.read_other(),
            58..68 => self.store_own(),
            68..80 => self.store_shared(),
            80..86 => self.extend_shared(),
            86..91 => self.swap_shared(),
            91..95 => self.delete_shared(),
            95..97 => self.touch_shared(),
            _ => self.store_many(),
        }
    }
}

fn worker(link: &mut Link, args: &[String]) {
    let page = Page::open(args[1].as_ref());
    let me: u32 = args[2].parse().unwrap();
    let mut worker = Worker {
        cache: Cache::open(&args[0]).expect("open"),
        rng: Rng::new(u64::from(me) + 1),
        me,
        most: args[3].parse().unwrap(),
        tight: args[4] == "tight",
        seq: 0,
        newest: vec![0; PROCESSES * OWN_KEYS as usize],
        counts: [0; GROUP],
    };
    link.signal();
    link.await_signal();
    while page.word(STOP).load(Relaxed) == 0 {
        for _ in 0..50 {
            worker.step();
        }
        for (place, count) in worker.counts.iter().enumerate() {
            page.word(GROUP * (1 + me as usize) + place).store(*count, SeqCst);
        }
    }
}

#[test]
#[ignore = "entry point of the child processes"]
fn child() {
    support::child::enter(&[("worker", worker)]);
}

/// Items of 40,000 bytes: most of 8 MiB.
const BALLAST: u64 = 200;

fn crowd(name: &str, heap: &TestHeap, most: u64, tight: bool, seconds: u64) {
    let page_path = heap.beside("page");
    let page = Page::create(&page_path, GROUP * (1 + PROCESSES));
    // What the workers store would just fit: let there be something in its place.
    for n in 0..if tight { BALLAST } else { 0 } {
        heap.cache.set(format!("ballast/{n}").as_bytes(), &[0; 40_000], 0, 0).expect("ballast");
    }
    let (most, kind) = (most.to_string(), if tight { "tight" } else { "ample" });
    let mut children: Vec<_> = (0..PROCESSES)
        .map(|me| {
            let args = [heap.path_text(), page_path.to_str().unwrap(), &me.to_string(), &most, kind];
            spawn("worker", &args)
        })
        .collect();
    children.iter_mut().for_each(|child| child.link.await_signal());
    children.iter_mut().for_each(|child| child.link.signal());
    let start = Instant::now();
    while start.elapsed() < Duration::from_secs(seconds) {
        std::thread::sleep(Duration::from_millis(50));
        if children.iter_mut().any(|child| !child.is_running()) {
            break;
        }
    }
    page.word(STOP).store(1, SeqCst);
    children.into_iter().for_each(|child| child.finish(60));
    let total = |what| -> u64 { (1..=PROCESSES).map(|p| page.word(GROUP * p + what).load(SeqCst)).sum() };
    let summary = heap.check(name);
    let evictions = heap.cache.stats().unwrap().evictions;
    report(format_args!(
        "{name}: {} reads ({} hits), {} stores, {} appends, {} swaps, {} deletes, {} busy, {} evictions, {} items left",
        total(READS),
        total(HITS),
        total(STORES),
        total(APPENDS),
        total(SWAPS),
        total(DELETES),
        total(BUSY),
        evictions,
        summary.summary.items,
    ));
    for what in [READS, HITS, STORES, APPENDS, DELETES, SWAPS] {
        assert!(total(what) > 100, "count {what} is only {}: nothing was tested", total(what));
    }
    assert!(total(BUSY) * 100 < total(STORES), "too often busy with nobody stopped");
    assert_eq!(evictions > 0, tight, "evictions only, and surely, where memory is short");
}

#[test]
fn values_stay_whole_with_ample_memory() {
    crowd("ample memory", &TestHeap::new(192 << 20), 300_000, false, scaled(5, 120));
}

#[test]
fn values_stay_whole_when_memory_is_short() {
    crowd("little memory", &TestHeap::new(8 << 20), 300_000, true, scaled(5, 120));
}

#[test]
fn values_stay_whole_when_all_are_small() {
    crowd("small values", &TestHeap::new(64 << 20), 600, false, scaled(3, 60));
}
