//! Totals that must match exactly: increments, compare-and-swap counters, and a counter that is
//! guarded by a lock made of `add` and `delete`.

mod support;

use plib::{Cache, Error, Status};
use support::child::{Link, spawn};
use support::heap::TestHeap;
use support::rng::Rng;
use support::{report, scaled};

const PROCESSES: u64 = 3;
const COUNTERS: u64 = 8;

/// Repeats an operation while another writer holds its bucket.
fn patiently<T>(mut op: impl FnMut() -> Result<T, Error>) -> Result<T, Error> {
    for _ in 0..100 {
        match op() {
            Err(e) if e.status() == Status::Busy => {}
            other => return other,
        }
    }
    op()
}

fn open(args: &[String]) -> (Cache, u64, Rng) {
    let cache = Cache::open(&args[0]).expect("open");
    let rounds = args[1].parse().unwrap();
    (cache, rounds, Rng::new(args[2].parse().unwrap()))
}

/// Adds 1 to a random counter, `rounds` times, with other stores in between.
fn incrementer(link: &mut Link, args: &[String]) {
    let (cache, rounds, mut rng) = open(args);
    link.signal();
    link.await_signal();
    for round in 0..rounds {
        let key = format!("counter/{}", rng.below(COUNTERS));
        patiently(|| cache.increment_or(key.as_bytes(), 1, 1, 0)).expect("increment");
        if round % 8 == 0 {
            let noise = vec![round as u8; rng.size(100_000)];
            let key = format!("noise/{}", rng.below(40));
            patiently(|| cache.set(key.as_bytes(), &noise, 0, 0)).expect("set");
        }
    }
}

/// Adds 2 and takes 1, so that lengths change both ways around powers of ten.
fn seesaw(link: &mut Link, args: &[String]) {
    let (cache, rounds, mut rng) = open(args);
    link.signal();
    link.await_signal();
    for _ in 0..rounds {
        let key = format!("seesaw/{}", rng.below(COUNTERS));
        patiently(|| cache.increment(key.as_bytes(), 2)).expect("incr").expect("present");
        patiently(|| cache.decrement(key.as_bytes(), 1)).expect("decr").expect("present");
    }
}

/// Read, add 1, compare and swap; again if somebody else was first.
fn swapper(link: &mut Link, args: &[String]) {
    let (cache, rounds, mut rng) = open(args);
    link.signal();
    link.await_signal();
    for _ in 0..rounds {
        let key = format!("swapped/{}", rng.below(COUNTERS));
        loop {
            let item = cache.get(key.as_bytes()).expect("get").expect("present");
            let next = (number(&item.value) + 1).to_string();
            match patiently(|| cache.compare_and_swap(key.as_bytes(), next.as_bytes(), 0, 0, item.cas)) {
                Ok(_) => break,
                Err(e) if e.status() == Status::Exists => {}
                Err(e) => panic!("cas: {e}"),
            }
        }
    }
}

/// `add` takes the lock, `delete` gives it back; in between the counter is read and set plainly.
fn guarded(link: &mut Link, args: &[String]) {
    let (cache, rounds, _) = open(args);
    let me = args[2].clone();
    link.signal();
    link.await_signal();
    for _ in 0..rounds {
        while let Err(e) = patiently(|| cache.add(b"lock", me.as_bytes(), 0, 0)) {
            assert_eq!(e.status(), Status::NotStored, "{e}");
            std::thread::yield_now();
        }
        let count = number(&cache.get(b"guarded").expect("get").expect("present").value) + 1;
        patiently(|| cache.set(b"guarded", count.to_string().as_bytes(), 0, 0)).expect("set");
        let owner = cache.get(b"lock").expect("get").expect("the lock is held").value;
        assert_eq!(owner, me.as_bytes(), "two processes hold the lock");
        assert!(patiently(|| cache.delete(b"lock")).expect("delete"), "the lock was lost");
    }
}

fn number(value: &[u8]) -> u64 {
    String::from_utf8_lossy(value).trim_end().parse().expect("a number")
}

#[test]
#[ignore = "entry point of the child processes"]
fn child() {
    support::child::enter(&[
        ("incrementer", incrementer),
        ("seesaw", seesaw),
        ("swapper", swapper),
        ("guarded", guarded),
    ]);
}

fn all(heap: &TestHeap, role: &str, rounds: u64) {
    let mut children: Vec<_> =
        (1..=PROCESSES).map(|me| spawn(role, &[heap.path_text(), &rounds.to_string(), &me.to_string()])).collect();
    children.iter_mut().for_each(|child| child.link.await_signal());
    children.iter_mut().for_each(|child| child.link.signal());
    children.into_iter().for_each(|child| child.finish(scaled(120, 3600)));
    heap.check(role);
}

fn prepared(prefix: &str, start: &str) -> TestHeap {
    let heap = TestHeap::new(64 << 20);
    for n in 0..COUNTERS {
        heap.cache.set(format!("{prefix}/{n}").as_bytes(), start.as_bytes(), 0, 0).unwrap();
    }
    heap
}

fn total(heap: &TestHeap, prefix: &str) -> u64 {
    let key = |n| format!("{prefix}/{n}").into_bytes();
    (0..COUNTERS).map(|n| number(&heap.cache.get(&key(n)).unwrap().expect("present").value)).sum()
}

#[test]
fn no_increment_is_lost() {
    let rounds = scaled(60_000, 5_000_000);
    let heap = TestHeap::new(64 << 20);
    all(&heap, "incrementer", rounds);
    assert_eq!(total(&heap, "counter"), PROCESSES * rounds);
    report(format_args!("increments: {} by {PROCESSES} processes, none lost", PROCESSES * rounds));
}

#[test]
fn increments_and_decrements_balance() {
    let rounds = scaled(30_000, 2_000_000);
    let heap = prepared("seesaw", "95");
    all(&heap, "seesaw", rounds);
    assert_eq!(total(&heap, "seesaw"), COUNTERS * 95 + PROCESSES * rounds);
    report(format_args!("seesaw: {} up and down", PROCESSES * rounds));
}

#[test]
fn compare_and_swap_loses_nothing() {
    let rounds = scaled(20_000, 2_000_000);
    let heap = prepared("swapped", "0");
    all(&heap, "swapper", rounds);
    assert_eq!(total(&heap, "swapped"), PROCESSES * rounds);
    report(format_args!("swaps: {}", PROCESSES * rounds));
}

#[test]
fn add_and_delete_make_a_lock() {
    let rounds = scaled(1_000, 100_000);
    let heap = TestHeap::new(16 << 20);
    heap.cache.set(b"guarded", b"0", 0, 0).unwrap();
    all(&heap, "guarded", rounds);
    assert_eq!(number(&heap.cache.get(b"guarded").unwrap().unwrap().value), PROCESSES * rounds);
    report(format_args!("lock: {} critical sections", PROCESSES * rounds));
}
