//! Memory under pressure: a set never fails while anything can go, whatever fills the heap, and a
//! growing heap never hides an item.

mod support;

use std::sync::atomic::Ordering::{Acquire, Relaxed, Release, SeqCst};
use std::time::{Duration, Instant};

use plib::{Cache, CreateOptions, Status};
use support::child::{Link, spawn};
use support::heap::TestHeap;
use support::page::Page;
use support::record::{self, Record};
use support::rng::Rng;
use support::{report, scaled};

const MIB: u64 = 1 << 20;

/// A set that must work; `Busy` may pass only while others write.
fn must_set(cache: &Cache, key: &[u8], value: &[u8]) {
    if let Err(e) = cache.set(key, value, 0, 0) {
        panic!("set of {} bytes failed: {e} ({:?})", value.len(), e.status());
    }
}

/// Fills the heap with items of 50 bytes (header, key and value); at least `sets` of them.
fn fill_small(cache: &Cache, round: u64, sets: u64) {
    for n in 0..sets {
        let key = format!("{round:02x}/{n:07}");
        let key = &key.as_bytes()[key.len() - 10..];
        must_set(cache, key, b"8 bytes.");
        if n % 64 == 0 {
            assert!(cache.get(key).unwrap().is_some(), "an item went at once: {n} of round {round}");
        }
    }
}

/// Items of the largest size there is; each must be there right after its set.
fn fill_large(cache: &Cache, item_size_max: u64, round: u64, sets: u64) {
    for n in 0..sets {
        let key = format!("large/{n}").into_bytes();
        let len = item_size_max as usize - 32 - key.len();
        let value = record::make(&key, Record { writer: 1, seq: round }, len);
        must_set(cache, &key, &value);
        let item = cache.get(&key).unwrap().unwrap_or_else(|| panic!("large item {n} went at once"));
        assert!(item.value == value, "large item {n} of round {round} is another");
    }
}

fn fill_mixed(cache: &Cache, rng: &mut Rng, round: u64, sets: u64) {
    for n in 0..sets {
        let key = format!("mixed/{n}").into_bytes();
        let value = record::make(&key, Record { writer: 2, seq: round }, rng.size(400_000));
        must_set(cache, &key, &value);
    }
}

#[test]
fn a_set_never_fails_whatever_fills_the_heap() {
    let flips = scaled(24, 3_000);
    let heap = TestHeap::new(8 * MIB);
    let (cache, mut rng) = (&heap.cache, Rng::new(3));
    let mut held = Vec::new();
    for flip in 0..flips {
        fill_small(cache, flip, 140_000);
        held.push(cache.stats().unwrap().curr_items);
        fill_large(cache, MIB, flip, 12);
        if flip % 3 == 0 {
            fill_mixed(cache, &mut rng, flip, 300);
        }
        if flip % 4 == 0 {
            heap.check(&format!("flip {flip}"));
        }
    }
    let (first, least) = (held[0], held.iter().copied().min().unwrap_or(0));
    // Nothing is lost for good: as small items go on, all of the heap comes back to them.
    let mut extra = 0;
    while cache.stats().unwrap().curr_items * 10 < first * 9 && extra < 20 {
        fill_small(cache, 0xff, 140_000);
        extra += 1;
    }
    let last = cache.stats().unwrap().curr_items;
    let stats = cache.stats().unwrap();
    heap.check("after the flips");
    report(format_args!(
        "{flips} flips: {first} small items held at first, {least} at least, {last} at last (after {extra} more fills); {} evictions, {} superblocks moved",
        stats.evictions, stats.superblocks_moved
    ));
    assert!(first > 50_000, "{first} items of 50 bytes are too few for 8 MiB");
    assert!(last * 10 >= first * 9, "the heap holds less and less: {held:?}, then {last}");
    assert!(least * 5 >= first * 2, "small items hardly get memory: {held:?}");
    assert!(stats.superblocks_moved > flips, "superblocks did not move");
}

/// One kind of value again and again, until told to stop.
fn filler(link: &mut Link, args: &[String]) {
    let cache = Cache::open(&args[0]).expect("open");
    let page = Page::open(args[1].as_ref());
    let (me, len): (usize, usize) = (args[2].parse().unwrap(), args[3].parse().unwrap());
    link.signal();
    let mut n = 0u64;
    while page.word(0).load(Relaxed) == 0 {
        let key = format!("fill/{me}/{}", n % 200_000).into_bytes();
        let value = record::make(&key, Record { writer: me as u32, seq: n }, len);
        match cache.set(&key, &value, 0, 0) {
            Ok(_) => page.word(8 * (me + 1)).fetch_add(1, Relaxed),
            Err(e) if e.status() == Status::Busy => page.word(8 * (me + 1) + 1).fetch_add(1, Relaxed),
            Err(e) => panic!("set {n} of {len} bytes: {e} ({:?})", e.status()),
        };
        if let Some(item) = cache.get(&key).expect("get") {
            record::read(&key, &item.value).unwrap_or_else(|e| panic!("{e}"));
        }
        n += 1;
    }
}

#[test]
fn sizes_that_fight_for_memory_all_get_some() {
    let heap = TestHeap::new(8 * MIB);
    let page_path = heap.beside("page");
    let lens = [40u64, 3_000, 60_000, MIB - 100];
    let page = Page::create(&page_path, 8 * (lens.len() + 1));
    let mut children: Vec<_> = lens
        .iter()
        .enumerate()
        .map(|(me, len)| {
            let args = [me.to_string(), len.to_string()];
            spawn("filler", &[heap.path_text(), page_path.to_str().unwrap(), &args[0], &args[1]])
        })
        .collect();
    children.iter_mut().for_each(|child| child.link.await_signal());
    let (start, limit) = (Instant::now(), Duration::from_secs(scaled(4, 300)));
    while start.elapsed() < limit && children.iter_mut().all(|child| child.is_running()) {
        std::thread::sleep(Duration::from_millis(20));
    }
    page.word(0).store(1, SeqCst);
    children.into_iter().for_each(|child| child.finish(60));
    let count = |me: usize, what: usize| page.word(8 * (me + 1) + what).load(SeqCst);
    let sets: Vec<_> = (0..lens.len()).map(|me| count(me, 0)).collect();
    let busy: Vec<_> = (0..lens.len()).map(|me| count(me, 1)).collect();
    heap.check("after the fight");
    report(format_args!("sets by size {lens:?}: {sets:?}, busy {busy:?}"));
    assert!(sets.iter().all(|&n| n > 20), "some size got next to nothing: {sets:?}");
    assert!(busy.iter().zip(&sets).all(|(busy, sets)| busy * 10 <= *sets), "too often busy");
}

fn grown_key(n: u64) -> String {
    format!("growth/{n:09}")
}

/// Reads keys at random below the published number; every one must be there.
fn reader(link: &mut Link, args: &[String]) {
    let cache = Cache::open(&args[0]).expect("open");
    let page = Page::open(args[1].as_ref());
    let me: u64 = args[2].parse().unwrap();
    let mut rng = Rng::new(me + 90);
    link.signal();
    while page.word(0).load(Relaxed) == 0 {
        let published = page.word(1).load(Acquire);
        for _ in 0..200 {
            let n = match rng.once_in(2) {
                true => rng.below(published),
                false => published - 1 - rng.below(published.min(500)),
            };
            let key = grown_key(n);
            let item = cache.get(key.as_bytes()).expect("get");
            let item = item.unwrap_or_else(|| panic!("{key} of {published} is missing"));
            assert_eq!(item.value, n.to_le_bytes(), "{key} has another value");
        }
        let keys: Vec<_> = (0..32).map(|_| grown_key(rng.below(published))).collect();
        for (key, item) in keys.iter().zip(cache.get_many(&keys).expect("get_many")) {
            assert!(item.is_some(), "{key} of {published} is missing in a batch");
        }
        page.word(8 + me as usize).fetch_add(232, Relaxed);
    }
}

#[test]
fn a_growing_heap_never_hides_an_item() {
    let items = scaled(1_000_000, 10_000_000);
    let heap = TestHeap::with(&CreateOptions::new(items * 160 + 64 * MIB));
    let page_path = heap.beside("page");
    let page = Page::create(&page_path, 16);
    let insert = |n: u64| {
        must_set(&heap.cache, grown_key(n).as_bytes(), &n.to_le_bytes());
        page.word(1).store(n + 1, Release);
    };
    (0..1_000).for_each(insert);
    let splits = heap.cache.stats().unwrap().splits;
    let mut readers: Vec<_> = (0..2)
        .map(|me: u64| spawn("reader", &[heap.path_text(), page_path.to_str().unwrap(), &me.to_string()]))
        .collect();
    readers.iter_mut().for_each(|child| child.link.await_signal());
    for n in 1_000..items {
        insert(n);
        if n % 65_536 == 0 {
            assert!(readers.iter_mut().all(|child| child.is_running()), "a reader failed at {n}");
        }
    }
    page.word(0).store(1, SeqCst);
    readers.into_iter().for_each(|child| child.finish(60));
    let reads = page.word(8).load(SeqCst) + page.word(9).load(SeqCst);
    let stats = heap.cache.stats().unwrap();
    assert_eq!((stats.curr_items, stats.evictions), (items, 0));
    let scanned = heap.cache.scan().filter(|entry| entry.is_ok()).count() as u64;
    assert_eq!(scanned, items, "a scan of the grown heap");
    heap.check("after the growth");
    report(format_args!("1000 -> {items} items, {} splits, {reads} reads, none missed", stats.splits - splits));
    assert!(stats.splits > splits + 100 && reads > 10_000, "too little was done");
}

#[test]
#[ignore = "entry point of the child processes"]
fn child() {
    support::child::enter(&[("filler", filler), ("reader", reader)]);
}
