//! Scans while other processes write: items that stay are seen exactly once.

mod support;

use std::collections::HashMap;
use std::sync::atomic::Ordering::{Relaxed, SeqCst};

use plib::{Cache, Entry};
use support::child::{Link, spawn};
use support::heap::TestHeap;
use support::page::Page;
use support::record::{self, Record};
use support::rng::Rng;
use support::{report, scaled};

const STABLE: u64 = 20_000;
/// Most other items of one writer: all together stay well within the heap.
const MOST_CHURN: u64 = 30_000;

fn stable_key(n: u64) -> Vec<u8> {
    format!("stable/{n}").into_bytes()
}

/// Sets, replaces and deletes keys of its own, ever more of them, so that buckets split as well.
fn churner(link: &mut Link, args: &[String]) {
    let cache = Cache::open(&args[0]).expect("open");
    let page = Page::open(args[1].as_ref());
    let me: u64 = args[2].parse().unwrap();
    let mut rng = Rng::new(me + 5);
    link.signal();
    let mut n = 0;
    while page.word(0).load(Relaxed) == 0 {
        n += 1;
        let key = format!("churn/{me}/{}", rng.below((1_000 + n).min(MOST_CHURN))).into_bytes();
        match rng.once_in(3) {
            true => drop(cache.delete(&key).expect("delete")),
            false => {
                let len = rng.size(5_000);
                let value = record::make(&key, Record { writer: 1, seq: n }, len);
                cache.set(&key, &value, 0, 0).expect("set");
            }
        }
        page.word(8 + me as usize).store(n, Relaxed);
    }
}

#[test]
#[ignore = "entry point of the child processes"]
fn child() {
    support::child::enter(&[("churner", churner)]);
}

/// A whole scan; now and then it is given up and resumed at its cursor.
fn scan_in_pieces(cache: &Cache, rng: &mut Rng, mut visit: impl FnMut(Entry)) -> u64 {
    let (mut cursor, mut pieces) = (0, 0);
    loop {
        let mut scan = if pieces == 0 { cache.scan() } else { cache.scan_from(cursor) };
        let most = 1 + rng.below(STABLE) as usize;
        let mut came = 0;
        for entry in scan.by_ref().take(most) {
            visit(entry.expect("scan"));
            came += 1;
        }
        cursor = scan.cursor();
        pieces += 1;
        if came < most {
            return pieces;
        }
    }
}

#[test]
fn what_stays_is_seen_exactly_once() {
    let scans = scaled(12, 1_000);
    let heap = TestHeap::new(192 << 20);
    for n in 0..STABLE {
        let key = stable_key(n);
        let value = record::make(&key, Record { writer: 0, seq: n }, (n % 300) as usize);
        heap.cache.set(&key, &value, n as u32, 0).unwrap();
    }
    let page_path = heap.beside("page");
    let page = Page::create(&page_path, 16);
    let mut churners: Vec<_> = (0..2)
        .map(|me: u64| spawn("churner", &[heap.path_text(), page_path.to_str().unwrap(), &me.to_string()]))
        .collect();
    churners.iter_mut().for_each(|child| child.link.await_signal());
    let (mut rng, mut pieces, mut others) = (Rng::new(21), 0, 0u64);
    let splits = heap.cache.stats().unwrap().splits;
    for scan in 0..scans {
        let mut times: HashMap<Vec<u8>, u32> = HashMap::new();
        pieces += scan_in_pieces(&heap.cache, &mut rng, |entry| {
            record::read(&entry.key, &entry.value).unwrap_or_else(|e| panic!("scan {scan}: {e}"));
            match entry.key.starts_with(b"stable/") {
                true => *times.entry(entry.key).or_default() += 1,
                false => others += 1,
            }
        });
        assert!(churners.iter_mut().all(|child| child.is_running()), "a writer failed");
        let evictions = heap.cache.stats().unwrap().evictions;
        assert_eq!(evictions, 0, "the heap is too small for this test");
        let wrong: Vec<_> = (0..STABLE)
            .map(stable_key)
            .filter(|key| times.get(key) != Some(&1))
            .map(|key| (key.escape_ascii().to_string(), times.get(&key).copied()))
            .take(5)
            .collect();
        assert!(wrong.is_empty(), "scan {scan}: not seen exactly once: {wrong:?} ...");
    }
    page.word(0).store(1, SeqCst);
    churners.into_iter().for_each(|child| child.finish(60));
    let writes = page.word(8).load(SeqCst) + page.word(9).load(SeqCst);
    let stats = heap.cache.stats().unwrap();
    heap.check("after the scans");
    report(format_args!(
        "{scans} scans in {pieces} pieces of {STABLE} stable items, {others} others seen, {writes} writes, {} splits meanwhile",
        stats.splits - splits
    ));
    assert!(writes > 1_000 && pieces > scans && others > 0, "too little was done");
}
