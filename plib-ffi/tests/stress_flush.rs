//! flush_all against stores that look at an item before they replace it.

mod support;

use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::SeqCst;
use std::time::{Duration, Instant};

use plib::{Cache, Error};
use support::heap::TestHeap;
use support::{report, scaled};

/// A store that needs an item: what it does to the one that it finds.
type Second = fn(&Cache, &[u8], u64) -> Result<u64, Error>;

/// What a store took from an item or replaced is gone if a flush came before it, and so is the new item if one came after it.
/// If the store says that it stored, and a whole flush lay between the first item and a get, the get must find nothing.
///
/// Once the new item was stamped with an epoch that had begun after the old one was found alive: such an item outlived the flush.
#[test]
fn a_flush_takes_the_item_or_its_successor() {
    let seconds: &[(&str, Second)] = &[
        ("replace", |cache, key, _| cache.replace(key, b"2", 0, 1_000)),
        ("append", |cache, key, _| cache.append(key, b"2")),
        ("cas", |cache, key, cas| cache.compare_and_swap(key, b"2", 0, 0, cas)),
        ("incr", |cache, key, _| cache.increment(key, 1).map(|number| number.unwrap_or(0))),
    ];
    let heap = TestHeap::new(16 << 20);
    let cache = &heap.cache;
    let (started, ended, over) = (AtomicU64::new(0), AtomicU64::new(0), AtomicU64::new(0));
    let (mut met, mut wrong) = (0, 0);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while over.load(SeqCst) == 0 {
                started.fetch_add(1, SeqCst);
                cache.flush_all(0).expect("flush");
                ended.fetch_add(1, SeqCst);
                for _ in 0..50 {
                    std::hint::spin_loop();
                }
            }
        });
        for (name, second) in seconds {
            let (mut stored, mut flushed, mut outlived) = (0u64, 0u64, 0u64);
            let begin = Instant::now();
            while begin.elapsed() < Duration::from_millis(scaled(1_500, 60_000)) {
                let cas = cache.set(b"key", b"1", 0, 1_000).expect("set");
                let before = started.load(SeqCst);
                let is_stored = second(cache, b"key", cas).is_ok_and(|n| n > 0);
                let after = ended.load(SeqCst);
                let seen = cache.get(b"key").expect("get");
                stored += u64::from(is_stored);
                if is_stored && after > before {
                    flushed += 1;
                    outlived += u64::from(seen.is_some());
                }
            }
            report(format_args!(
                "{name}: {stored} stored, a flush came between for {flushed} of them, {outlived} outlived it"
            ));
            wrong += outlived;
            met += flushed;
        }
        over.store(1, SeqCst);
    });
    assert_eq!(wrong, 0, "items outlived a flush");
    assert!(met > 100, "flushes hardly met a store");
}
