//! A guarded heap through a process's life: threads, forks, other heaps, closing, exec and sudden death.

use std::ffi::CString;
use std::path::Path;
use std::ptr::null_mut;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::sync::{Barrier, mpsc};
use std::time::Duration;

use plib::{Cache, Error, Status};
use plib_core::gate::SEATS;

use crate::deputy::{plib_close, plib_get, plib_open};
use crate::ground::{SECRET, alone, guarded_heap, mappings_of, open_guarded, unharmed};
use crate::support::child::{Link, die_in, spawn};
use crate::support::fork::{fork, wait_for};
use crate::support::rng::Rng;
use crate::support::{report, scaled};

pub const ROLE: &str = "life";

/// All seats or contexts may be in use for a moment.
fn patiently<T>(mut op: impl FnMut() -> Result<T, Error>) -> (T, u64) {
    for busy in 0..100_000 {
        match op() {
            Err(e) if e.status() == Status::Busy => std::thread::yield_now(),
            other => return (other.expect("operation"), busy),
        }
    }
    panic!("busy a hundred thousand times")
}

/// Stores, reads and counts.
fn use_it(cache: &Cache, who: u64, ops: u64) -> u64 {
    let mut rng = Rng::new(who + 1);
    let mut busy = 0;
    for _ in 0..ops {
        let key = format!("item-{}", rng.below(50));
        let value = vec![key.len() as u8; rng.size(20_000)];
        busy += patiently(|| cache.set(key.as_bytes(), &value, 0, 0)).1;
        let (found, again) = patiently(|| cache.get(key.as_bytes()));
        if let Some(item) = found {
            assert!(item.value.iter().all(|byte| *byte == key.len() as u8));
        }
        busy += again + patiently(|| cache.increment_or(b"count", 1, 1, 0)).1;
    }
    busy
}

fn count(cache: &Cache) -> u64 {
    String::from_utf8(cache.get(b"count").unwrap().unwrap().value).unwrap().trim().parse().unwrap()
}

#[test]
fn threads_from_before_and_after_the_opening_use_the_heap() {
    let _alone = alone();
    let (tell, told) = mpsc::channel::<Cache>();
    let older = std::thread::spawn(move || use_it(&told.recv().unwrap(), 1, 200));
    let heap = guarded_heap();
    tell.send(heap.cache.clone()).unwrap();
    let cache = heap.cache.clone();
    let younger = std::thread::spawn(move || use_it(&cache, 2, 200));
    use_it(&heap.cache, 3, 200);
    older.join().unwrap();
    younger.join().unwrap();
    assert_eq!(count(&heap.cache), 600);
    unharmed(&heap.cache, "after the threads");
}

#[test]
fn a_hundred_forked_children_use_the_heap() {
    let _alone = alone();
    let heap = guarded_heap();
    // As many at a time as there can be clients, and a few less.
    for ten in 0..10 {
        let children: Vec<_> = (0..10)
            .map(|n| {
                fork(|| {
                    assert_eq!(heap.cache.get(b"secret").unwrap().unwrap().value, SECRET);
                    use_it(&heap.cache, ten * 10 + n, 5);
                })
            })
            .collect();
        children.into_iter().for_each(wait_for);
    }
    assert_eq!(count(&heap.cache), 500);
    unharmed(&heap.cache, "after the children");
}

#[test]
fn forks_while_other_threads_are_inside() {
    let _alone = alone();
    let heap = guarded_heap();
    let (stop, ops) = (AtomicBool::new(false), AtomicU64::new(0));
    std::thread::scope(|scope| {
        for who in 0..2 {
            let (heap, stop, ops) = (&heap, &stop, &ops);
            scope.spawn(move || {
                while !stop.load(Relaxed) {
                    use_it(&heap.cache, who, 2);
                    ops.fetch_add(2, Relaxed);
                }
            });
        }
        for n in 0..25 {
            wait_for(fork(|| _ = use_it(&heap.cache, 100 + n, 3)));
        }
        stop.store(true, Relaxed);
    });
    let ops = ops.into_inner();
    assert_eq!(count(&heap.cache), ops + 25 * 3);
    unharmed(&heap.cache, "after the forks");
    report(format_args!("25 forks during {ops} operations of two other threads"));
    assert!(ops > 40);
}

#[test]
fn heaps_come_and_go_while_threads_use_others() {
    let _alone = alone();
    let heap = guarded_heap();
    let others = [guarded_heap(), guarded_heap(), guarded_heap()];
    let (stop, ops, rounds) = (AtomicBool::new(false), AtomicU64::new(0), 25);
    std::thread::scope(|scope| {
        for who in 0..2 {
            let (heap, stop, ops) = (&heap, &stop, &ops);
            scope.spawn(move || {
                while !stop.load(Relaxed) {
                    use_it(&heap.cache, who, 2);
                    ops.fetch_add(2, Relaxed);
                }
            });
        }
        for round in 0..rounds {
            // Two mappings of one heap, and two more heaps.
            let open: Vec<_> = others.iter().chain([&heap]).map(|other| open_guarded(&other.path)).collect();
            open.iter().take(3).for_each(|cache| _ = use_it(cache, round, 1));
            assert_eq!(open[3].get(b"secret").unwrap().unwrap().value, SECRET);
        }
        stop.store(true, Relaxed);
    });
    let ops = ops.into_inner();
    assert_eq!(count(&heap.cache), ops);
    assert_eq!(mappings_of(&heap.path).len(), 1, "what was closed is not mapped any more");
    others.iter().chain([&heap]).for_each(|heap| unharmed(&heap.cache, "after all came and went"));
    report(format_args!("{} openings and closings during {ops} operations", rounds * 4));
    assert!(ops > 40);
}

#[test]
fn a_handle_is_closed_while_calls_are_under_way() {
    let _alone = alone();
    let heap = guarded_heap();
    let name = CString::new(heap.path_text()).unwrap();
    let mut calls = 0;
    for round in 0..20 {
        let mut cache = null_mut();
        // SAFETY: a C string, options with size 16 and isolation 1, a place for the handle.
        assert_eq!(unsafe { plib_open(name.as_ptr(), &[16, 1], &mut cache) }, 0);
        let handle = cache as usize;
        calls += std::thread::scope(|scope| {
            let get = move || {
                let (mut buf, mut len, mut done) = ([0u8; 64], 0, 0u64);
                loop {
                    // SAFETY: all is memory of this frame's; a handle that is closed is refused.
                    let status = unsafe {
                        plib_get(handle as _, b"secret".as_ptr(), 6, buf.as_mut_ptr(), 64, &mut len, null_mut())
                    };
                    match status {
                        0 => assert_eq!(buf, SECRET),
                        9 => return done,
                        7 => continue,
                        other => panic!("status {other}"),
                    }
                    done += 1;
                }
            };
            let threads: Vec<_> = (0..3).map(|_| scope.spawn(get)).collect();
            std::thread::sleep(Duration::from_millis(round));
            // SAFETY: a handle from plib_open, closed once.
            unsafe { plib_close(handle as _) };
            threads.into_iter().map(|thread| thread.join().unwrap()).sum::<u64>()
        });
        assert_eq!(mappings_of(&heap.path).len(), 1, "closed is unmapped");
    }
    unharmed(&heap.cache, "after closing");
    report(format_args!("20 handles closed under {calls} calls"));
    assert!(calls > 20);
}

#[test]
fn more_threads_than_seats_work_at_once() {
    let _alone = alone();
    let heap = guarded_heap();
    let threads = SEATS as u64 + 40;
    let (start, busy) = (Barrier::new(threads as usize), AtomicU64::new(0));
    std::thread::scope(|scope| {
        for who in 0..threads {
            let (heap, start, busy) = (&heap, &start, &busy);
            scope.spawn(move || {
                start.wait();
                busy.fetch_add(use_it(&heap.cache, who, 5), Relaxed);
            });
        }
    });
    assert_eq!(count(&heap.cache), threads * 5);
    unharmed(&heap.cache, "after all threads");
    report(format_args!("{threads} threads, {SEATS} seats, {} times busy", busy.into_inner()));
}

/// A program that comes of an exec in a process that had the heap open: it has neither key nor mapping, and opens its own.
pub fn use_after_exec(_: &mut Link, args: &[String]) {
    let path = Path::new(&args[0]);
    assert!(mappings_of(path).is_empty());
    let cache = open_guarded(path);
    assert_eq!(cache.get(b"secret").unwrap().unwrap().value, SECRET);
    use_it(&cache, 1, 20);
}

#[test]
fn a_program_after_exec_opens_the_heap_anew() {
    let _alone = alone();
    let heap = guarded_heap();
    use_it(&heap.cache, 1, 20);
    spawn(ROLE, &[heap.path_text()]).finish(30);
    assert_eq!(count(&heap.cache), 40);
    unharmed(&heap.cache, "after exec");
}

#[test]
fn a_process_killed_inside_the_gate_leaves_a_whole_heap() {
    let _alone = alone();
    let heap = guarded_heap();
    let mut rng = Rng::new(5);
    let kills = scaled(50, 500);
    let mut recovered = 0;
    for n in 0..kills {
        let nanoseconds = rng.below(4_000_000);
        let pid = fork(|| {
            // Attached; then it dies in the middle of something.
            use_it(&heap.cache, n, 1);
            die_in(nanoseconds);
            loop {
                use_it(&heap.cache, n, 1);
            }
        });
        let mut status = 0;
        // SAFETY: a child of ours, not yet waited for.
        assert_eq!(unsafe { libc::waitpid(pid, &mut status, 0) }, pid);
        assert!(libc::WIFSIGNALED(status) && libc::WTERMSIG(status) == libc::SIGKILL, "{status}");
        recovered += u64::from(heap.cache.reap().expect("reap"));
        unharmed(&heap.cache, "after a death");
        // Every bucket that it may have held is free.
        use_it(&heap.cache, n, 2);
    }
    report(format_args!("{kills} processes killed, {recovered} contexts recovered"));
    assert!(recovered > kills / 4);
}
