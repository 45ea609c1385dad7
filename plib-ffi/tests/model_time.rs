//! Expiry and delayed flush on the real clock; the few seconds of sleep are shared by all of it.

mod support;

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use plib::Cache;
use support::heap::TestHeap;
use support::report;

fn now() -> i64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs() as i64
}

/// Sleeps until a fresh second has begun: what follows happens within it.
fn start_of_second() -> i64 {
    let before = now();
    while now() == before {
        std::thread::sleep(Duration::from_millis(2));
    }
    // The core may read a coarse clock, which is a few milliseconds late.
    std::thread::sleep(Duration::from_millis(30));
    now()
}

fn sleep_until(second: i64) {
    while now() < second {
        std::thread::sleep(Duration::from_millis(5));
    }
    std::thread::sleep(Duration::from_millis(30));
}

fn present(cache: &Cache, key: &str) -> bool {
    cache.get(key.as_bytes()).unwrap().is_some()
}

fn stored(cache: &Cache, key: &str, exptime: i64) {
    cache.set(key.as_bytes(), key.as_bytes(), 0, exptime).unwrap();
}

#[test]
fn items_expire_at_their_second() {
    let heap = TestHeap::new(16 << 20);
    let cache = &heap.cache;
    let start = start_of_second();
    stored(cache, "in two", 2);
    stored(cache, "at date", start + 2);
    stored(cache, "in four", 4);
    stored(cache, "never", 0);
    stored(cache, "touched on", 2);
    stored(cache, "appended", 2);
    stored(cache, "large", 2);
    cache.set(b"large", &vec![7; 500_000], 0, 2).unwrap();
    stored(cache, "counted", 0);
    cache.set(b"counted", b"5", 0, 2).unwrap();
    assert!(cache.touch(b"touched on", 100).unwrap());
    cache.append(b"appended", b"!").unwrap();
    assert_eq!(cache.increment(b"counted", 1).unwrap(), Some(6));
    let gat = cache.get_and_touch(b"in four", 2).unwrap().expect("present");
    assert_eq!(i64::from(gat.expiry), start + 2);
    assert_eq!(i64::from(cache.get(b"at date").unwrap().unwrap().expiry), start + 2);
    assert_eq!(cache.get(b"never").unwrap().unwrap().expiry, 0);

    sleep_until(start + 1);
    let all = ["in two", "at date", "in four", "touched on", "appended", "large", "counted"];
    for key in all {
        assert!(present(cache, key), "{key} went too early");
    }
    sleep_until(start + 2);
    for key in ["in two", "at date", "in four", "appended", "large", "counted"] {
        assert!(!present(cache, key), "{key} stayed too long");
        assert!(!cache.touch(key.as_bytes(), 0).unwrap(), "{key} came back by touch");
    }
    assert!(present(cache, "never") && present(cache, "touched on"));
    let scanned: Vec<_> = cache.scan().map(|entry| entry.unwrap().key).collect();
    assert_eq!(scanned.len(), 2, "a scan shows only what lives: {scanned:?}");
    stored(cache, "in two", 0);
    assert!(cache.add(b"at date", b"again", 0, 0).is_ok(), "add takes the place of what expired");
    assert_eq!(cache.increment_or(b"counted", 9, 1, 0).unwrap(), 1, "an expired number starts anew");
    heap.check("after expiry");
    report(format_args!("expiry: {} items through their second", all.len()));
}

#[test]
fn a_delayed_flush_takes_effect_at_its_second() {
    let heap = TestHeap::new(16 << 20);
    let other = Cache::open(&heap.path).unwrap();
    let start = start_of_second();
    stored(&heap.cache, "before", 0);
    other.flush_all(2).unwrap();
    stored(&heap.cache, "between", 0);
    assert!(present(&heap.cache, "before"), "the flush came too early");
    sleep_until(start + 2);
    assert!(!present(&other, "before") && !present(&heap.cache, "between"), "not flushed");
    assert_eq!(heap.cache.scan().count(), 0);
    stored(&heap.cache, "after", 0);
    std::thread::sleep(Duration::from_millis(1100));
    assert!(present(&other, "after"), "the flush took an item that was set after it");
    heap.check("after the flush");
    report(format_args!("delayed flush: 3 items"));
}

#[test]
fn a_flush_takes_exactly_what_is_there() {
    let heap = TestHeap::new(16 << 20);
    let mut seen = 0;
    for round in 0..200u32 {
        let key = format!("key{}", round % 7);
        stored(&heap.cache, &key, 0);
        heap.cache.flush_all(if round % 2 == 0 { 0 } else { -1 }).unwrap();
        assert!(!present(&heap.cache, &key), "round {round}: the flush left an item");
        stored(&heap.cache, &key, 0);
        assert!(present(&heap.cache, &key), "round {round}: the flush took a later item");
        seen += 2;
    }
    report(format_args!("flush: {seen} items, none of it waiting for a second"));
}

#[test]
fn the_longest_items_fit_and_one_byte_more_does_not() {
    let limit = 16u32 << 20;
    let heap = TestHeap::with_item_max(64 << 20, limit);
    let key = b"the longest";
    let most = limit as usize - 32 - key.len();
    let value: Vec<u8> = (0..most).map(|i| ((i * 31) >> 3) as u8).collect();
    heap.cache.set(key, &value, 1, 0).unwrap();
    assert!(heap.cache.get(key).unwrap().unwrap().value == value, "the longest value came back changed");
    let error = heap.cache.set(key, &[&value[..], b"x"].concat(), 2, 0).unwrap_err();
    assert_eq!(error.status(), plib::Status::TooLarge, "{error}");
    assert!(heap.cache.append(key, b"x").is_err());
    let item = heap.cache.get(key).unwrap().unwrap();
    assert!(item.value == value && item.flags == 1, "a refused store changed the item");
    heap.check("after the longest item");
}
