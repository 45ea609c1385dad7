//! Many processes and threads: more than the tables hold, and what the dead leave of them.

mod support;

use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::SeqCst;

use plib::{Cache, CreateOptions, Error, Status};
use support::child::{Child, Link, spawn};
use support::heap::TestHeap;
use support::{report, scaled};

/// Opens the heap, does one operation, and stays until its parent lets it go.
fn sitter(link: &mut Link, args: &[String]) {
    let outcome = Cache::open(&args[0]).and_then(|cache| cache.set(args[1].as_bytes(), b"here", 0, 0).map(|_| cache));
    link.send(&outcome.as_ref().map(|_| ()).map_err(|e| (e.status() as u32, e.to_string())));
    let _: Option<()> = link.receive();
}

#[test]
#[ignore = "entry point of the child processes"]
fn child() {
    support::child::enter(&[("sitter", sitter)]);
}

fn patiently<T>(busy: &AtomicU64, mut op: impl FnMut() -> Result<T, Error>) -> T {
    for _ in 0..1_000 {
        match op() {
            Err(e) if e.status() == Status::Busy => {
                busy.fetch_add(1, SeqCst);
                std::thread::yield_now();
            }
            other => return other.expect("operation"),
        }
    }
    panic!("busy a thousand times")
}

#[test]
fn more_threads_than_contexts_all_get_their_turn() {
    let (threads, rounds) = (48, scaled(400, 20_000));
    let heap = TestHeap::with(&CreateOptions::new(16 << 20).contexts(8));
    let busy = AtomicU64::new(0);
    std::thread::scope(|scope| {
        for t in 0..threads {
            let (cache, busy) = (heap.cache.clone(), &busy);
            scope.spawn(move || {
                let key = format!("thread/{t}").into_bytes();
                for n in 0..rounds {
                    patiently(busy, || cache.set(&key, &n.to_le_bytes(), 0, 0));
                    let item = patiently(busy, || cache.get(&key)).expect("present");
                    assert_eq!(item.value, n.to_le_bytes());
                    patiently(busy, || cache.increment_or(b"all", 1, 1, 0));
                }
            });
        }
    });
    let all = heap.cache.get(b"all").unwrap().expect("counted").value;
    assert_eq!(String::from_utf8_lossy(&all).trim_end(), (threads * rounds).to_string());
    heap.check("after the threads");
    report(format_args!(
        "{threads} threads with 8 contexts: {} operations, {} busy",
        threads * rounds * 3,
        busy.into_inner()
    ));
}

#[test]
fn threads_that_end_give_their_contexts_back() {
    let heap = TestHeap::with(&CreateOptions::new(16 << 20).contexts(8));
    for n in 0..scaled(500, 20_000) {
        let cache = heap.cache.clone();
        let thread = std::thread::spawn(move || cache.set(&n.to_le_bytes(), b"v", 0, 0).map(drop));
        thread.join().expect("thread").unwrap_or_else(|e| panic!("thread {n}: {e}"));
    }
    heap.check("after the threads");
}

#[test]
fn a_full_table_is_told_and_the_dead_make_room() {
    let heap = TestHeap::with(&CreateOptions::new(16 << 20).contexts(6));
    let clients = heap.cache.info().clients;
    let mut taken = 0;
    for round in 0..3 {
        let mut sitters: Vec<Child> = Vec::new();
        let refusal = loop {
            let name = format!("sitter/{round}/{}", sitters.len());
            let mut sitter = spawn("sitter", &[heap.path_text(), &name]);
            let outcome: Result<(), (u32, String)> = sitter.link.receive().expect("the sitter died");
            match outcome {
                Ok(()) => sitters.push(sitter),
                Err(refusal) => break refusal,
            }
            assert!(sitters.len() <= clients as usize, "more clients than the table holds");
        };
        let (status, message) = refusal;
        let fits = [Status::Full as u32, Status::Busy as u32].contains(&status);
        assert!(fits, "round {round}: refused by {status}: {message}");
        assert!(sitters.len() >= 3, "round {round}: only {} processes got in", sitters.len());
        taken += sitters.len();
        // Nobody reaps: the next round's processes must see for themselves that these are dead.
        sitters.iter_mut().for_each(Child::kill);
    }
    heap.check("after the sitters");
    report(format_args!("{taken} processes in 3 rounds through a table of {clients}"));
}

#[test]
fn many_heaps_in_one_process_do_not_meet() {
    let heaps: Vec<_> = (0..12).map(|_| TestHeap::new(8 << 20)).collect();
    for (n, heap) in heaps.iter().enumerate() {
        heap.cache.set(b"who", format!("heap {n}").as_bytes(), n as u32, 0).unwrap();
    }
    for (n, heap) in heaps.iter().enumerate() {
        let item = heap.cache.get(b"who").unwrap().expect("present");
        assert_eq!((item.value, item.flags), (format!("heap {n}").into_bytes(), n as u32));
        assert_eq!(heap.cache.stats().unwrap().curr_items, 1);
    }
    // Opening and closing leaves nothing behind.
    for _ in 0..scaled(300, 10_000) {
        let again = Cache::open(&heaps[0].path).expect("open");
        assert!(again.get(b"who").unwrap().is_some());
    }
    let alive = heaps[0].cache.clients().unwrap().iter().filter(|c| c.alive).count();
    assert!(alive <= 2, "{alive} clients of one process");
}
