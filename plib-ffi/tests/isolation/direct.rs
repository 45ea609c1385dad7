//! Reading and writing what the key guards, without any call: at every moment of a process's life.

use std::path::Path;
use std::sync::atomic::{AtomicU32, AtomicUsize, Ordering::SeqCst};
use std::sync::mpsc;

use plib::Cache;
use plib_core::domain::{Access, Pkru};

use crate::ground::{self, ACCERR, MAPERR, PKUERR, Places, alone, child, mapping_of, open_guarded, unguarded_heap};
use crate::stage::{End, handle, keys, map, read, set_pkru, write};
use crate::support::child::{Link, spawn};
use crate::support::report;

pub const ROLE: &str = "direct";

/// A place behind the key.
type Target = fn(&Places) -> usize;

const TARGETS: [(&str, Target); 7] = [
    ("the heap's first byte", |places| places.heap.start),
    ("the heap's middle", |places| places.heap.start + (places.heap.end - places.heap.start) / 2),
    ("the heap's last byte", |places| places.heap.end - 1),
    ("the first seat", |places| places.vault.start),
    ("the heaps' table", |places| places.vault.start + 0x3000),
    ("the first stack", |places| places.keyed_stack(0).end - 64),
    ("the last stack", |places| places.keyed_stack(127).start),
];

/// A read or write of one place.
#[derive(Clone, Copy)]
struct Attack {
    target: Target,
    write: bool,
}

impl Attack {
    fn run(self, places: &Places) -> u32 {
        let at = (self.target)(places) as *mut u8;
        match self.write {
            true => write(at, 0),
            false => _ = read(at),
        }
        1
    }
}

/// What the child does, told by its key's number.
type Moment = fn(&Path, Attack, &AtomicU32) -> u32;

const MOMENTS: [(&str, Moment); 8] = [
    ("before any call", |path, attack, key| {
        let _cache = open_guarded(path);
        attack.run(&found(path, key))
    }),
    ("after a call", |path, attack, key| {
        let cache = open_guarded(path);
        used(&cache);
        attack.run(&found(path, key))
    }),
    ("in a thread from before the opening", |path, attack, key| in_older_thread(path, attack, key, false)),
    ("in a thread from before the opening, after a call of its own", |path, attack, key| {
        in_older_thread(path, attack, key, true)
    }),
    ("in a thread from after the opening", |path, attack, key| {
        let cache = open_guarded(path);
        used(&cache);
        let places = found(path, key);
        std::thread::spawn(move || attack.run(&places)).join().unwrap()
    }),
    ("in a signal handler", |path, attack, key| {
        let cache = open_guarded(path);
        used(&cache);
        let places = found(path, key);
        AT.store((attack.target)(&places), SeqCst);
        let handler = if attack.write { on_signal_write as *const () } else { on_signal_read as *const () };
        handle(libc::SIGUSR1, handler as usize, libc::SA_ONSTACK);
        // SAFETY: the handler reads or writes one byte, which is the attack.
        unsafe { libc::raise(libc::SIGUSR1) };
        1
    }),
    ("in a forked child before its first operation", |path, attack, key| {
        let cache = open_guarded(path);
        used(&cache);
        let places = found(path, key);
        in_grandchild(|| attack.run(&places))
    }),
    ("in a forked child after its first operation", |path, attack, key| {
        let cache = open_guarded(path);
        used(&cache);
        in_grandchild(|| {
            used(&cache);
            attack.run(&found(path, key))
        })
    }),
];

fn used(cache: &Cache) {
    assert_eq!(cache.get(b"secret").expect("get").expect("there").value, ground::SECRET);
}

/// Where things are; the parent hears of the key.
fn found(path: &Path, key: &AtomicU32) -> Places {
    let places = Places::of(path);
    key.store(places.key.number().into(), SeqCst);
    assert!(places.is_closed());
    places
}

fn in_older_thread(path: &Path, attack: Attack, key: &AtomicU32, uses: bool) -> u32 {
    let (tell, told) = mpsc::channel::<(Cache, Places)>();
    let older = std::thread::spawn(move || {
        let (cache, places) = told.recv().unwrap();
        if uses {
            used(&cache);
        }
        attack.run(&places)
    });
    let cache = open_guarded(path);
    used(&cache);
    tell.send((cache.clone(), found(path, key))).unwrap();
    older.join().unwrap()
}

/// A fork of the child, which ends as the fork does.
fn in_grandchild(act: impl FnOnce() -> u32) -> u32 {
    // SAFETY: the fork uses the handle, which is made for this, and ends by _exit, as this process does.
    unsafe {
        let pid = libc::fork();
        if pid == 0 {
            act();
            libc::_exit(0);
        }
        let mut status = 0;
        assert_eq!(libc::waitpid(pid, &mut status, 0), pid);
        if status == 0 { 1 } else { libc::_exit(libc::WEXITSTATUS(status)) }
    }
}

static AT: AtomicUsize = AtomicUsize::new(0);

extern "C" fn on_signal_read(_: i32) {
    read(AT.load(SeqCst) as *const u8);
}

extern "C" fn on_signal_write(_: i32) {
    write(AT.load(SeqCst) as *mut u8, 0);
}

/// All moments and targets, in a process that has no key before its children open the heap.
pub fn attack(_: &mut Link, args: &[String]) {
    let path = Path::new(&args[0]);
    // SAFETY: fresh zeroed pages, shared with the children, never unmapped.
    let key = unsafe { &*map(libc::PROT_READ | libc::PROT_WRITE, true).cast::<AtomicU32>() };
    let mut faults = 0;
    for (when, moment) in MOMENTS {
        for (what, target) in TARGETS {
            for write in [false, true] {
                let attack = Attack { target, write };
                let end = child(|| moment(path, attack, key));
                let heap_is_gone = when.ends_with("before its first operation") && what.contains("heap's");
                let (code, pkey) = if heap_is_gone { (MAPERR, 0) } else { (PKUERR, key.load(SeqCst)) };
                let right =
                    matches!(end, End::Fault { code: c, pkey: k, .. } if c == code && (k == pkey || heap_is_gone));
                assert!(right, "{when}, {what}, write {write}: {end:?}");
                faults += 1;
            }
        }
    }
    assert_eq!(faults, 8 * 7 * 2);
    report(format_args!(
        "{faults} reads and writes at {} moments: each a fault of the key, or nothing mapped",
        MOMENTS.len()
    ));
}

#[test]
fn reading_and_writing_without_a_call_faults_at_every_moment() {
    let _alone = alone();
    let heap = unguarded_heap();
    spawn(ROLE, &[heap.path_text()]).finish(100);
    ground::unharmed(&heap.cache, "after the attacks");
}

#[test]
fn the_same_attacks_succeed_on_tier_none_and_with_the_key_open() {
    let _alone = alone();
    let open = unguarded_heap();
    let mut successes = 0;
    // On tier none the heap lies open. (Written is what was read, so that it stays whole.)
    for at in [0, 8 << 20, (16 << 20) - 1] {
        let end = child(|| {
            used(&open.cache);
            let (range, key) = mapping_of(&open.path);
            assert_eq!(key, 0);
            let at = (range.start + at) as *mut u8;
            write(at, read(at));
            1
        });
        assert_eq!(end, End::Told(1));
        successes += 1;
    }
    // Behind a key that somebody opened, all targets are real.
    let heap = ground::guarded_heap();
    for (what, target) in TARGETS {
        let end = child(|| {
            used(&heap.cache);
            let places = Places::of(&heap.path);
            set_pkru(keys(), Pkru::read(keys()).with(places.key, Access::Open));
            let at = target(&places) as *mut u8;
            write(at, read(at));
            1
        });
        assert_eq!(end, End::Told(1), "{what}");
        successes += 1;
    }
    ground::unharmed(&heap.cache, "after reading and writing the same");
    report(format_args!("{successes} places read and written where nothing guards"));
}

#[test]
fn nothing_behind_the_key_is_executed() {
    let _alone = alone();
    let heap = ground::guarded_heap();
    for (what, target) in TARGETS {
        let end = child(|| {
            used(&heap.cache);
            let at = target(&Places::of(&heap.path)) as *const ();
            // SAFETY: none of it is a function: the fault is what the test wants.
            unsafe { std::mem::transmute::<*const (), extern "C" fn()>(at)() };
            1
        });
        // No page there may be executed, which comes before any key.
        assert!(matches!(end, End::Fault { code: ACCERR | PKUERR, .. }), "{what}: {end:?}");
    }
    ground::unharmed(&heap.cache, "after jumps into data");
}

#[test]
fn what_the_gate_goes_by_cannot_be_written() {
    let _alone = alone();
    let heap = ground::guarded_heap();
    let constants = ground::constants();
    for at in [0, 4, 8, 16, 4095] {
        let at = constants.wrapping_add(at);
        assert!(matches!(child(|| read(at).into()), End::Told(_)), "it is there to be read");
        let end = child(|| {
            write(at, 0);
            1
        });
        assert!(matches!(end, End::Fault { code: ACCERR, .. }), "{end:?}");
    }
    ground::unharmed(&heap.cache, "after the attacks");
}
