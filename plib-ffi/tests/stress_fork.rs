//! fork, with and without exec, while the handle is in use, wherever the clients' locks are.

mod support;

use std::os::unix::process::CommandExt;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering::{Relaxed, SeqCst};
use std::time::Duration;

use plib::{Cache, CreateOptions, Error, Status};
use support::child::{Link, spawn};
use support::fork::{fork, wait_for};
use support::heap::{MODES, TestHeap, check};
use support::page::Page;
use support::record::{self, Record};
use support::rng::Rng;
use support::{report, scaled, wait_until};

/// Operations of each forked child.
const CHILD_OPS: u64 = 300;

fn patiently<T>(mut op: impl FnMut() -> Result<T, Error>) -> T {
    for _ in 0..100 {
        match op() {
            Err(e) if e.status() == Status::Busy => {}
            other => return other.expect("operation"),
        }
    }
    panic!("busy a hundred times")
}

/// Sets, reads and counts with the handle it has.
fn use_cache(cache: &Cache, who: u64, ops: u64, rng: &mut Rng) {
    for n in 0..ops {
        let key = format!("fork/{}", rng.below(64)).into_bytes();
        let value = record::make(&key, Record { writer: who as u32, seq: n }, rng.size(100_000));
        patiently(|| cache.set(&key, &value, 0, 0));
        if let Some(item) = cache.get(&key).expect("get") {
            record::read(&key, &item.value).unwrap_or_else(|e| panic!("{e}"));
        }
        patiently(|| cache.increment_or(b"ops", 1, 1, 0));
    }
}

/// Forks again and again while other threads are inside operations; children fork too.
fn forker(link: &mut Link, args: &[String]) {
    let cache = Cache::open(&args[0]).expect("open");
    let forks: u64 = args[1].parse().unwrap();
    let stop = Arc::new(AtomicBool::new(false));
    let threads: Vec<_> = (0..2)
        .map(|t| {
            let (cache, stop) = (cache.clone(), stop.clone());
            std::thread::spawn(move || {
                let (mut rng, mut ops) = (Rng::new(t + 70), 0);
                while !stop.load(Relaxed) {
                    use_cache(&cache, t, 10, &mut rng);
                    ops += 10;
                }
                ops
            })
        })
        .collect();
    let mut ops = 0;
    for round in 0..forks {
        let grandchild = round % 3 == 0;
        let child = fork(|| {
            let mut rng = Rng::new(round);
            use_cache(&cache, round, CHILD_OPS, &mut rng);
            if grandchild {
                wait_for(fork(|| use_cache(&cache, round, CHILD_OPS, &mut Rng::new(round + 1))));
            }
        });
        use_cache(&cache, 99, 20, &mut Rng::new(round + 2));
        wait_for(child);
        ops += 20 + CHILD_OPS * (1 + u64::from(grandchild));
    }
    stop.store(true, SeqCst);
    ops += threads.into_iter().map(|thread| thread.join().expect("thread")).sum::<u64>();
    link.send(&ops);
    link.await_signal();
}

/// Opens, forks a child that goes on for ever, and waits to be killed.
fn short_lived_parent(link: &mut Link, args: &[String]) {
    let cache = Cache::open(&args[0]).expect("open");
    let page = Page::open(args[1].as_ref());
    use_cache(&cache, 1, 50, &mut Rng::new(1));
    let child = fork(|| {
        let mut rng = Rng::new(2);
        while page.word(0).load(Relaxed) == 0 {
            use_cache(&cache, 2, 10, &mut rng);
            page.word(1).fetch_add(10, SeqCst);
        }
    });
    link.send(&child);
    use_cache(&cache, 3, u64::MAX, &mut Rng::new(3));
}

/// Opens, uses the heap, and becomes another program without closing anything.
fn execer(link: &mut Link, args: &[String]) {
    let cache = Cache::open(&args[0]).expect("open");
    use_cache(&cache, 1, 50, &mut Rng::new(1));
    let before = cache.clients().expect("clients").iter().filter(|c| is_me(c.pid)).count();
    assert_eq!(before, 1, "one client before exec");
    link.signal();
    let error = std::process::Command::new(std::env::current_exe().unwrap())
        .args(["child", "--exact", "--ignored", "--nocapture", "--test-threads=1"])
        .env("PLIB_TEST_ROLE", "after exec")
        .exec();
    panic!("exec: {error}");
}

fn after_exec(link: &mut Link, args: &[String]) {
    let cache = Cache::open(&args[0]).expect("open after exec");
    use_cache(&cache, 2, 50, &mut Rng::new(2));
    cache.reap().expect("reap");
    let alive = cache.clients().expect("clients").iter().filter(|c| is_me(c.pid) && c.alive).count();
    assert_eq!(alive, 1, "the client from before exec must be gone");
    link.signal();
}

fn is_me(pid: u32) -> bool {
    pid == std::process::id()
}

/// Forks a child that execs another program, with the handle in use all along.
fn spawner(link: &mut Link, args: &[String]) {
    let cache = Cache::open(&args[0]).expect("open");
    for round in 0..30 {
        use_cache(&cache, round, 20, &mut Rng::new(round));
        let status = std::process::Command::new("true").status().expect("run true");
        assert!(status.success());
        // By fork and exec proper too: Command may use vfork.
        wait_for(fork(|| panic!("exec: {}", std::process::Command::new("true").exec())));
    }
    let mine = cache.clients().expect("clients").iter().filter(|c| is_me(c.pid) && c.alive).count();
    assert_eq!(mine, 1, "forks that never used the heap are no clients");
    link.signal();
}

/// A forked child that drops its handle takes nothing from its parent.
fn dropper(link: &mut Link, args: &[String]) {
    let cache = Cache::open(&args[0]).expect("open");
    use_cache(&cache, 1, 20, &mut Rng::new(1));
    let mut kept = Some(cache.clone());
    drop(cache);
    for round in 0..20 {
        wait_for(fork(|| {
            if round % 2 == 0 {
                use_cache(kept.as_ref().unwrap(), 2, 20, &mut Rng::new(2));
            }
            drop(kept.take());
        }));
        let cache = kept.as_ref().unwrap();
        use_cache(cache, 3, 20, &mut Rng::new(3));
        let clients = cache.clients().expect("clients");
        assert!(clients.iter().any(|c| is_me(c.pid) && c.alive), "round {round}: lost its client");
    }
    link.signal();
}

#[test]
#[ignore = "entry point of the child processes"]
fn child() {
    support::child::enter(&[
        ("forker", forker),
        ("short-lived parent", short_lived_parent),
        ("execer", execer),
        ("after exec", after_exec),
        ("spawner", spawner),
        ("dropper", dropper),
    ]);
}

#[test]
fn forked_children_use_the_handle() {
    MODES.into_iter().for_each(forked_children_use_the_handle_by);
}

fn forked_children_use_the_handle_by(mode: u32) {
    let forks = scaled(40, 5_000);
    let heap = TestHeap::with(&CreateOptions::new(64 << 20).mode(mode));
    let mut child = spawn("forker", &[heap.path_text(), &forks.to_string()]);
    let ops: u64 = child.link.receive().expect("the forker failed");
    let counted = heap.cache.get(b"ops").unwrap().expect("the count");
    let counted: u64 = String::from_utf8_lossy(&counted.value).trim_end().parse().unwrap();
    assert_eq!(counted, ops, "every increment of every process and thread, once");
    heap.check("after the forks");
    child.link.signal();
    child.finish(30);
    report(format_args!("{forks} forks, {ops} operations, all counted"));
}

#[test]
fn a_child_outlives_its_parent() {
    MODES.into_iter().for_each(a_child_outlives_its_parent_by);
}

fn a_child_outlives_its_parent_by(mode: u32) {
    let heap = TestHeap::with(&CreateOptions::new(64 << 20).mode(mode));
    let page_path = heap.beside("page");
    let page = Page::create(&page_path, 8);
    let mut parent = spawn("short-lived parent", &[heap.path_text(), page_path.to_str().unwrap()]);
    let orphan: i32 = parent.link.receive().expect("the child's pid");
    wait_until("the forked child works", 20, || page.word(1).load(SeqCst) > 50);
    let parent_pid = parent.pid() as u32;
    parent.kill();
    heap.cache.reap().expect("reap");
    let clients = heap.cache.clients().expect("clients");
    let alive = |pid: u32| clients.iter().any(|c| c.pid == pid && c.alive);
    assert!(!alive(parent_pid), "the killed parent still counts as alive: {clients:?}");
    assert!(alive(orphan as u32), "its living child does not: {clients:?}");
    let before = page.word(1).load(SeqCst);
    wait_until("the orphan goes on", 20, || page.word(1).load(SeqCst) > before + 50);
    heap.check("with the orphan at work");
    page.word(0).store(1, SeqCst);
    wait_until("the orphan ends", 20, || {
        std::thread::sleep(Duration::from_millis(5));
        heap.cache.reap().expect("reap");
        !heap.cache.clients().unwrap().iter().any(|c| c.pid == orphan as u32 && c.alive)
    });
    check(&heap.cache, "after the orphan");
    report(format_args!("orphan: {} operations", page.word(1).load(SeqCst)));
}

#[test]
fn exec_ends_the_client() {
    MODES.into_iter().for_each(exec_ends_the_client_by);
}

fn exec_ends_the_client_by(mode: u32) {
    let heap = TestHeap::with(&CreateOptions::new(64 << 20).mode(mode));
    for _ in 0..scaled(5, 200) {
        let mut child = spawn("execer", &[heap.path_text()]);
        child.link.await_signal();
        child.link.await_signal();
        child.finish(30);
    }
    heap.check("after the execs");
}

#[test]
fn forks_that_exec_disturb_nothing() {
    MODES.into_iter().for_each(forks_that_exec_disturb_nothing_by);
}

fn forks_that_exec_disturb_nothing_by(mode: u32) {
    let heap = TestHeap::with(&CreateOptions::new(64 << 20).mode(mode));
    let mut child = spawn("spawner", &[heap.path_text()]);
    child.link.await_signal();
    child.finish(30);
    heap.check("after the programs");
}

#[test]
fn a_childs_drop_leaves_the_parent_attached() {
    MODES.into_iter().for_each(a_childs_drop_leaves_the_parent_attached_by);
}

fn a_childs_drop_leaves_the_parent_attached_by(mode: u32) {
    let heap = TestHeap::with(&CreateOptions::new(64 << 20).mode(mode));
    let mut child = spawn("dropper", &[heap.path_text()]);
    child.link.await_signal();
    child.finish(30);
    heap.check("after the drops");
}
