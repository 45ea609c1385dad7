//! What a launched program can do.

use crate::role::{end_of, fork, in_child, open};
use crate::stage::{by_root, done, file, is_whole, own, play, plib, refusal, run, told, unlaunched};
use plib::{Cache, CreateOptions, GetInto};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

pub fn a_program_uses_a_heap_that_it_cannot_open() {
    // The twin: without the launcher the same program cannot open it, and is told what would help.
    let alone = refusal(unlaunched(&["use", "a"]), 101);
    assert!(alone.contains("no permission") && alone.contains("plib run"), "{alone}");
    assert!(done(play(&["a"], &["use", "a"])).contains("used a"));
    // By its path, too, and with another heap beside it.
    assert!(done(play(&["a", "b"], &["use", "/dev/shm/plib/b"])).contains("used"));
    // Root gives it to a user.
    let program = [own(), "role".into(), "use".into(), "a".into()];
    let mut command = by_root(&["run", "--user", "user", "--heap", "a", "--env", "COLOUR=green", "--"]);
    command.args(&program);
    assert!(done(command).contains("used a by 1000, COLOUR=green"));
    // PLIB_HEAP names it as well.
    let mut named = run(&[], &[&own(), "role", "use", "a"]);
    assert!(
        done({
            named.env("PLIB_HEAP", "a");
            named
        })
        .contains("used a")
    );
    is_whole("a");
    eprintln!("uses: 4 launched programs, and 1 that was not");
}

pub fn use_it(heap: &str) {
    let cache = open(heap);
    let begin = Instant::now();
    let mut operations = 0;
    // Threads made before and after; each key is its thread's own.
    std::thread::scope(|scope| {
        for thread in 0..6 {
            let cache = &cache;
            scope.spawn(move || {
                for round in 0..50 {
                    let (key, value) = (format!("{thread}-{round}"), vec![thread as u8; 10 + round * 40]);
                    cache.set(key.as_bytes(), &value, 7, 0).expect("set");
                    let item = cache.get(key.as_bytes()).expect("get").expect("there");
                    assert!(item.value == value && item.flags == 7);
                    assert!(cache.delete(key.as_bytes()).expect("delete"));
                }
            });
            operations += 150;
        }
    });
    cache.set(b"n", b"1", 0, 0).expect("set");
    assert_eq!(cache.increment(b"n", 4).expect("incr"), Some(5));
    let (mut one, mut other) = ([0; 8], [0; 8]);
    let mut gets = [GetInto::new(b"n", &mut one), GetInto::new(b"no", &mut other)];
    cache.get_many_into(&mut gets).expect("mget");
    assert!(cache.scan().count() >= 1 && cache.stats().expect("stats").cmd_get > 0);
    let info = cache.info();
    assert_eq!((info.mode, info.uid), (0o600, 0));
    let me = cache.clients().expect("clients").iter().filter(|client| client.pid == std::process::id()).count();
    assert_eq!(me, 1);
    // SAFETY: takes nothing.
    let user = unsafe { libc::getuid() };
    let colour = std::env::var("COLOUR").unwrap_or_default();
    println!("used {heap} by {user}, COLOUR={colour}, {operations} operations in {:?}", begin.elapsed());
}

pub fn commands_of_plib_work_in_it() {
    let plib = plib();
    let in_it = |arguments: &[&str]| done(run(&["a"], &[&[plib.as_str()], arguments].concat()));
    in_it(&["set", "-H", "a", "greeting", "hello"]);
    assert_eq!(in_it(&["get", "-H", "a", "greeting"]).trim_end(), "hello");
    let info = in_it(&["info", "a", "--json"]);
    assert!(info.contains("\"isolation\":\"guarded\"") && info.contains("\"mode\":\"0600\""), "{info}");
    in_it(&["check", "a"]);
    // Exit codes are the program's.
    assert!(refusal(run(&["a"], &[&plib, "get", "-H", "a", "no such"]), 1).contains("no such"));
    assert!(refusal(run(&["a"], &["/no/such/program"]), 127).contains("/no/such/program"));
    eprintln!("uses: 6 commands");
}

pub const CHILDREN: usize = 100;

pub fn a_hundred_children_use_the_cache() {
    let text = done(play(&["a", "b"], &["children", "a"]));
    assert!(text.contains(&format!("{CHILDREN} children")), "{text}");
    is_whole("a");
    eprint!("uses: {text}");
}

pub fn children(heap: &str) {
    let cache = open(heap);
    cache.set(b"counter", b"0", 0, 0).expect("set");
    // Before they use it all are there at a time: each holds on until it has read what its parent writes at last.
    let children: Vec<i32> = (0..CHILDREN)
        .map(|child| {
            fork(|| {
                let key = format!("child {child}");
                cache.set(key.as_bytes(), &[child as u8; 100], 0, 0).expect("set");
                cache.increment(b"counter", 1).expect("incr").expect("there");
                let deadline = Instant::now() + Duration::from_secs(100);
                while cache.get(b"go").expect("get").is_none() {
                    assert!(Instant::now() < deadline, "nobody says go");
                    std::thread::sleep(Duration::from_millis(50));
                }
                i32::from(cache.get(key.as_bytes()).expect("get").expect("there").value != [child as u8; 100])
            })
        })
        .collect();
    let deadline = Instant::now() + Duration::from_secs(100);
    while cache.get(b"counter").expect("get").expect("there").value != CHILDREN.to_string().as_bytes() {
        assert!(Instant::now() < deadline, "children do not count");
        std::thread::sleep(Duration::from_millis(50));
    }
    let alive = cache.clients().expect("clients").iter().filter(|client| client.alive).count();
    assert!(alive > CHILDREN, "{alive} clients");
    cache.set(b"go", b"", 0, 0).expect("set");
    assert!(children.into_iter().all(|child| end_of(child) == 0));
    cache.reap().expect("reap");
    let left = cache.clients().expect("clients").iter().filter(|client| client.alive).count();
    println!("{CHILDREN} children, {alive} clients alive at a time, {left} at the end");
    assert!(left < 5, "{left}");
}

pub fn children_killed_in_the_gate_hurt_nobody() {
    let text = done(play(&["a"], &["killed", "a"]));
    is_whole("a");
    eprint!("uses: {text}");
}

pub fn killed(heap: &str) {
    const MINE: &[u8] = b"mine";
    let cache = open(heap);
    let kills = if std::env::var_os("PLIB_EXHAUSTIVE").is_some_and(|value| !value.is_empty()) { 200 } else { 25 };
    let inside = AtomicUsize::new(0);
    for kill in 0..kills {
        let child = fork(|| {
            loop {
                for size in [100, 5_000, 60_000] {
                    cache.set(b"victim", &vec![kill as u8; size], 0, 0).expect("set");
                }
            }
        });
        std::thread::sleep(Duration::from_millis(40 + kill % 17));
        // SAFETY: takes numbers.
        unsafe { libc::kill(child, libc::SIGKILL) };
        assert_eq!(end_of(child), -libc::SIGKILL);
        // Survivors go on with the very key, and whole values.
        if let Some(item) = cache.get(b"victim").expect("get") {
            let whole = item.value == MINE || item.value.iter().all(|byte| *byte == kill as u8);
            assert!(whole, "a torn value of {} bytes", item.value.len());
        }
        cache.set(b"victim", MINE, 0, 0).expect("set");
        inside.fetch_add(cache.reap().expect("reap") as usize, Ordering::Relaxed);
    }
    println!("{kills} children killed, {} op contexts recovered by hand", inside.into_inner());
}

pub fn heaps_of_its_own_and_signals_go_with_it() {
    let own = std::path::Path::new("/tmp/own-heaps");
    let _ = std::fs::create_dir(own);
    std::os::unix::fs::chown(own, Some(1000), Some(1000)).expect("chown");
    for first in ["launched", "own"] {
        let text = done(play(&["a"], &["own", "a", first]));
        eprint!("uses: {text}");
    }
    is_whole("a");
}

static SIGNALS: AtomicUsize = AtomicUsize::new(0);

extern "C" fn count(_: i32) {
    SIGNALS.fetch_add(1, Ordering::Relaxed);
}

/// A heap of its own behind a key of its own, opened before or after the launcher's; signals come during calls on both.
pub fn own_heap(heap: &str, first: &str) {
    let make = || {
        let path = format!("/tmp/own-heaps/{first}");
        Cache::create(&path, &CreateOptions::new(16 << 20)).expect("create").info();
        open(&path)
    };
    let (launched, own) = if first == "own" {
        let own = make();
        (open(heap), own)
    } else {
        let launched = open(heap);
        (launched, make())
    };
    // SAFETY: a handler that counts, and a timer.
    unsafe {
        let mut action: libc::sigaction = std::mem::zeroed();
        action.sa_sigaction = count as *const () as usize;
        action.sa_flags = libc::SA_RESTART;
        assert_eq!(libc::sigaction(libc::SIGALRM, &raw const action, std::ptr::null_mut()), 0);
        let every = libc::timeval { tv_sec: 0, tv_usec: 7_000 };
        let timer = libc::itimerval { it_interval: every, it_value: every };
        assert_eq!(libc::setitimer(libc::ITIMER_REAL, &raw const timer, std::ptr::null_mut()), 0);
    }
    let (begin, mut calls) = (Instant::now(), 0);
    let value = vec![3; 100_000];
    while begin.elapsed() < Duration::from_secs(4) {
        for cache in [&launched, &own] {
            cache.set(b"k", &value, 0, 0).expect("set");
            assert_eq!(cache.get(b"k").expect("get").expect("there").value, value);
            calls += 2;
        }
    }
    // SAFETY: zeroes end the timer.
    unsafe { libc::setitimer(libc::ITIMER_REAL, &std::mem::zeroed(), std::ptr::null_mut()) };
    let signals = SIGNALS.load(Ordering::Relaxed);
    println!("{calls} calls on a launcher's heap and an own one ({first} first), {signals} signals meanwhile");
    assert!(signals > 50 && calls > 50);
    // A child has the launcher's at once, and its own by opening it again.
    assert_eq!(
        in_child(|| i32::from(launched.get(b"k").expect("get").is_none() || own.get(b"k").expect("get").is_none())),
        0
    );
    launched.delete(b"k").expect("delete");
}

pub fn a_heap_removed_meanwhile_stays_with_who_has_it() {
    done(by_root(&["create", "gone", "--size", "16m"]));
    let mut child = play(&["gone"], &["removed", "gone"]).spawn().expect("run");
    let deadline = Instant::now() + Duration::from_secs(60);
    while done(by_root(&["stats", "-H", "gone", "clients", "--json"])).matches("\"pid\"").count() < 2 {
        assert!(Instant::now() < deadline, "nobody opened it");
        std::thread::sleep(Duration::from_millis(100));
    }
    done(by_root(&["destroy", "gone", "--yes"]));
    assert!(child.wait().expect("wait").success());
    // Nobody gets it any more.
    let text = refusal(play(&["gone"], &["use", "gone"]), 125);
    assert!(text.contains("is not there"), "{text}");
}

pub fn removed(heap: &str) {
    let cache = open(heap);
    cache.set(b"k", b"before", 0, 0).expect("set");
    let deadline = Instant::now() + Duration::from_secs(60);
    while file(heap).exists() {
        assert!(Instant::now() < deadline, "nobody removes it");
        std::thread::sleep(Duration::from_millis(50));
    }
    cache.set(b"j", b"after", 0, 0).expect("set");
    assert_eq!(cache.get(b"k").expect("get").expect("there").value, b"before");
    // A child, which attaches after that.
    assert_eq!(in_child(|| i32::from(cache.get(b"j").expect("get").expect("there").value != b"after")), 0);
    let e = Cache::open(heap).expect_err("there is no such heap any more").to_string();
    println!("a heap that is gone: {e}");
}

pub fn a_program_that_it_executes_has_nothing() {
    let text = done(play(&["a"], &["execute", "a"]));
    eprint!("uses: {text}");
}

pub fn execute(heap: &str) {
    drop(open(heap));
    let output = std::process::Command::new(plib()).args(["get", "-H", heap, "k"]).output().expect("run");
    let text = told(&output);
    assert!(output.status.code() == Some(3) && text.contains("plib run"), "{text}");
    // This process itself, executed anew.
    let again = std::process::Command::new(own()).args(["role", "use", heap]).output().expect("run");
    assert!(!again.status.success() && told(&again).contains("no permission"), "{}", told(&again));
    println!("a program that was executed: {}", String::from_utf8_lossy(&output.stderr).trim_end());
}
