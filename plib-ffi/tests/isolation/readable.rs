//! Readable heaps: reading takes no gate, writing none but the gate's.

use std::path::Path;
use std::ptr::null_mut;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::sync::{OnceLock, mpsc};
use std::time::Instant;

use plib::{Cache, Error, GetInto, Status};
use plib_core::domain::{Access, Pkru, ProtectionKey};

use crate::ground::{
    PKUERR, Range, SECRET, alone, child, guarded_heap, image_mappings, mappings_of, open_guarded, readable_heap,
    unguarded_heap, unharmed,
};
use crate::stage::{End, handle, keys, read, write};
use crate::support::child::{Link, spawn};
use crate::support::fork::{fork, wait_for};
use crate::support::heap::TestHeap;
use crate::support::rng::Rng;
use crate::support::{report, scaled};

/// Where a readable heap lies: its key, all of it, and the hazards.
#[derive(Clone, Copy, Debug)]
struct Place {
    key: ProtectionKey,
    heap: Range,
    hazards: Range,
}

impl Place {
    fn of(path: &Path) -> Self {
        let parts = mappings_of(path);
        let [(before, number), (hazards, 0), (after, same)] = parts[..] else { panic!("{parts:x?}") };
        assert!(number == same && before.end == hazards.start && hazards.end == after.start);
        let key = ProtectionKey::new(number).expect("the heap carries a key");
        Self { key, heap: Range { start: before.start, end: after.end }, hazards }
    }

    /// Places that nobody may write.
    fn guarded(&self) -> [usize; 5] {
        let Range { start, end } = self.heap;
        [start, self.hazards.start - 1, self.hazards.end, start + (end - start) / 2, end - 1]
    }

    fn access(&self) -> Access {
        Pkru::read(keys()).access(self.key)
    }
}

fn secret(cache: &Cache) -> Vec<u8> {
    cache.get(b"secret").expect("get").expect("the secret").value
}

/// Reads until the thread reads by itself: the first few reads are the gate's.
fn settle(cache: &Cache) {
    (0..8).for_each(|_| assert_eq!(secret(cache), SECRET));
}

#[test]
fn reads_take_no_gate() {
    let _alone = alone();
    let heap = readable_heap();
    let names: Vec<_> = (0..100).map(|i| format!("item {i}").into_bytes()).collect();
    names.iter().for_each(|name| _ = heap.cache.set(name, &[7; 300], 0, 0).unwrap());
    heap.cache.set(b"large", &[8; 300_000], 0, 0).unwrap();
    // What the gate is: without it nothing can be called. Reads are then made until one calls it, which ends the process.
    let reads = shared();
    let without_gate = |cache: &Cache, most: u32| {
        settle(cache);
        names.iter().for_each(|name| _ = cache.get(name).unwrap());
        // Tells what was counted.
        cache.stats().unwrap();
        for range in image_mappings() {
            // SAFETY: the image is mapped there; the child knows what it does.
            assert_eq!(unsafe { libc::mprotect(range.start as *mut _, range.end - range.start, libc::PROT_NONE) }, 0);
        }
        let mut buf = [0; 512];
        while reads.load(Relaxed) < most {
            for name in &names {
                assert_eq!(cache.get_into(name, &mut buf).unwrap().unwrap().value_len, 300);
                reads.fetch_add(1, Relaxed);
            }
            assert!(cache.get(b"not there").unwrap().is_none());
            assert_eq!(cache.get(b"large").unwrap().unwrap().value.len(), 300_000);
            let mut bufs = [[0; 512]; 4];
            let mut many: Vec<_> = names.iter().zip(&mut bufs).map(|(name, buf)| GetInto::new(name, buf)).collect();
            cache.get_many_into(&mut many).unwrap();
            assert!(many.iter().all(|one| one.result().unwrap().is_some()));
            reads.fetch_add(6, Relaxed);
        }
        1
    };
    assert_eq!(child(|| without_gate(&heap.cache, 900)), End::Told(1));
    let scanned = child(|| {
        settle(&heap.cache);
        for range in image_mappings() {
            // SAFETY: as above.
            unsafe { libc::mprotect(range.start as *mut _, range.end - range.start, libc::PROT_NONE) };
        }
        heap.cache.scan().map(|entry| entry.expect("scan").key.len()).filter(|len| *len > 0).count() as u32
    });
    assert_eq!(scanned, End::Told(102));
    // The twins: a set, the call that hands over what was counted, and a heap that is not readable.
    let dies = |act: &dyn Fn() -> u32| {
        let end = child(act);
        assert!(matches!(end, End::Other(status) if libc::WTERMSIG(status) == libc::SIGSEGV), "{end:?}");
    };
    reads.store(0, Relaxed);
    dies(&|| without_gate(&heap.cache, 1_000_000));
    let until = reads.swap(0, Relaxed);
    assert!((900..=1300).contains(&until), "{until}");
    dies(&|| {
        without_gate(&heap.cache, 1);
        heap.cache.set(b"a key", b"a value", 0, 0).map_or(0, |_| 1)
    });
    let closed = guarded_heap();
    dies(&|| {
        (0..100).for_each(|_| assert_eq!(secret(&closed.cache), SECRET));
        without_gate(&heap.cache, 1);
        secret(&closed.cache).len() as u32
    });
    unharmed(&heap.cache, "after reads without a gate");
    report(format_args!(
        "reads, batches and a scan with the gate out of reach; {until} until one had to be handed over"
    ));
}

/// Nanoseconds of a get, the least of a few rounds.
fn cost(cache: &Cache) -> u64 {
    const GETS: u32 = 2000;
    let mut buf = [0; 64];
    let mut round = || {
        let start = Instant::now();
        (0..GETS).for_each(|_| assert!(cache.get_into(b"secret", &mut buf).expect("get").is_some()));
        start.elapsed().as_nanos() as u64 / u64::from(GETS)
    };
    (0..10).map(|_| round()).min().expect("ten rounds")
}

#[test]
fn a_read_costs_less_than_a_call() {
    let _alone = alone();
    let heaps = [unguarded_heap(), readable_heap(), guarded_heap()];
    heaps.iter().for_each(|heap| settle(&heap.cache));
    let [none, readable, guarded] = heaps.map(|heap| cost(&heap.cache));
    report(format_args!(
        "a get where nothing guards {none} ns, in a readable heap {readable} ns, through the gate {guarded} ns"
    ));
    assert!(readable < guarded);
}

/// A word that children share.
fn shared() -> &'static AtomicU32 {
    // SAFETY: fresh zeroed pages, never unmapped.
    unsafe { &*crate::stage::map(libc::PROT_READ | libc::PROT_WRITE, true).cast() }
}

/// What is done at one of the guarded places.
type Act = fn(&Place, usize) -> u32;

fn read_one(place: &Place, n: usize) -> u32 {
    read(place.guarded()[n] as *const u8);
    1
}

fn write_one(place: &Place, n: usize) -> u32 {
    write(place.guarded()[n] as *mut u8, 0);
    1
}

fn write_hazard(place: &Place, n: usize) -> u32 {
    write((place.hazards.end - 1 - n) as *mut u8, 0);
    1
}

/// When it is done.
type Moment = fn(&TestHeap, Act, usize) -> u32;

const MOMENTS: [(&str, Moment, bool); 3] = [
    ("after calls", |heap, act, n| act(&Place::of(&heap.path), n), true),
    (
        "in a younger thread",
        |heap, act, n| {
            let place = Place::of(&heap.path);
            std::thread::spawn(move || act(&place, n)).join().unwrap()
        },
        true,
    ),
    ("in a handler", |heap, act, n| in_handler(&|| act(&Place::of(&heap.path), n)), false),
];

#[test]
fn whoever_may_read_may_not_write() {
    let _alone = alone();
    let heap = readable_heap();
    let (mut faults, mut reads) = (0, 0);
    let attempt = |moment: Moment, act: Act, n: usize| {
        child(|| {
            settle(&heap.cache);
            moment(&heap, act, n)
        })
    };
    for (when, moment, may_read) in MOMENTS {
        for n in 0..5 {
            let end = attempt(moment, write_one, n);
            assert!(matches!(end, End::Fault { code: PKUERR, .. }), "{when}, place {n}: {end:?}");
            faults += 1;
            let end = attempt(moment, read_one, n);
            let right = if may_read { end == End::Told(1) } else { matches!(end, End::Fault { code: PKUERR, .. }) };
            assert!(right, "{when}, place {n}: {end:?}");
            reads += 1;
        }
        // The hazards are the program's to write.
        assert_eq!(attempt(moment, write_hazard, 0), End::Told(1), "{when}");
    }
    unharmed(&heap.cache, "after the attacks");
    report(format_args!("{faults} writes faulted, {reads} reads did as they may"));
}

static ACT: AtomicUsize = AtomicUsize::new(0);
static TOLD: AtomicU32 = AtomicU32::new(0);

extern "C" fn on_signal(_: i32) {
    // SAFETY: `in_handler` put the address of a closure's reference there, and waits.
    let act = unsafe { &*(ACT.load(Relaxed) as *const &dyn Fn() -> u32) };
    TOLD.store(act(), Relaxed);
}

/// Runs it in a signal handler of this thread.
fn in_handler(act: &dyn Fn() -> u32) -> u32 {
    ACT.store((&raw const act) as usize, Relaxed);
    handle(libc::SIGUSR1, on_signal as *const () as usize, libc::SA_ONSTACK);
    // SAFETY: the handler runs what is given.
    unsafe { libc::raise(libc::SIGUSR1) };
    TOLD.load(Relaxed)
}

#[test]
fn handlers_and_older_threads_read_right_though_the_key_is_closed_for_them() {
    let _alone = alone();
    let heap = readable_heap();
    settle(&heap.cache);
    let place = Place::of(&heap.path);
    assert_eq!(place.access(), Access::ReadOnly);
    let told = in_handler(&|| {
        let before = place.access();
        let right = (0..20).filter(|_| secret(&heap.cache) == SECRET).count() as u32;
        right << 8 | u32::from(before == Access::Closed) << 1 | u32::from(place.access() == Access::ReadOnly)
    });
    assert_eq!(told, 20 << 8 | 3);
    assert_eq!(place.access(), Access::ReadOnly);
    // A thread that is older than the key, in a process that has none yet.
    spawn(ROLE, &[heap.path_text()]).finish(60);
    unharmed(&heap.cache, "after handlers and threads");
    report(format_args!("20 reads in a handler, and a thread that is older than the key"));
}

pub const ROLE: &str = "readable";

/// A process with a thread that is older than its key.
pub fn older_thread(_: &mut Link, args: &[String]) {
    let path = std::path::PathBuf::from(&args[0]);
    let (tell, told) = mpsc::channel::<Cache>();
    let for_it = path.clone();
    let older = std::thread::spawn(move || {
        let cache = told.recv().unwrap();
        let place = Place::of(&for_it);
        let before = place.access();
        settle(&cache);
        (before, place.access())
    });
    let cache = open_guarded(&path);
    settle(&cache);
    tell.send(cache).unwrap();
    assert_eq!(older.join().unwrap(), (Access::Closed, Access::ReadOnly));
}

#[test]
fn forked_children_read_and_everything_is_counted_once() {
    let _alone = alone();
    let heap = readable_heap();
    settle(&heap.cache);
    let before = heap.cache.stats().unwrap();
    let (children, each) = (30, 50);
    for ten in 0..3 {
        // A few that are not told yet when the children come.
        (0..7).for_each(|_| assert_eq!(secret(&heap.cache), SECRET));
        let some: Vec<_> = (0..10)
            .map(|n| {
                fork(|| {
                    // Its thread ends by itself, and gives back and tells.
                    let cache = heap.cache.clone();
                    std::thread::spawn(move || (0..each).for_each(|_| assert_eq!(secret(&cache), SECRET)))
                        .join()
                        .unwrap();
                    assert!(heap.cache.get(format!("none {ten} {n}").as_bytes()).unwrap().is_none());
                    heap.cache.stats().unwrap();
                })
            })
            .collect();
        some.into_iter().for_each(wait_for);
    }
    let after = heap.cache.stats().unwrap();
    assert_eq!(after.get_hits - before.get_hits, children * each + 21);
    assert_eq!(after.get_misses - before.get_misses, children);
    heap.cache.reap().unwrap();
    // Ours: one to read by, those of seats.
    let contexts = heap.cache.stats().unwrap().contexts;
    assert!(contexts <= 4, "{contexts}");
    unharmed(&heap.cache, "after the children");
    report(format_args!("{children} children of {each} reads each; {contexts} op contexts left"));
}

#[test]
fn processes_killed_while_they_read_leave_nothing() {
    let _alone = alone();
    let heap = readable_heap();
    settle(&heap.cache);
    let contexts = heap.cache.stats().unwrap().contexts;
    for _ in 0..20 {
        let mut child = [0; 2];
        // SAFETY: an array of two.
        assert_eq!(unsafe { libc::pipe(child.as_mut_ptr()) }, 0);
        // SAFETY: the child reads until it is killed.
        let pid = unsafe { libc::fork() };
        if pid == 0 {
            settle(&heap.cache);
            // SAFETY: one byte to the parent.
            unsafe { libc::write(child[1], [1u8].as_ptr().cast(), 1) };
            loop {
                secret(&heap.cache);
            }
        }
        let mut byte = 0u8;
        // SAFETY: a byte from the child, which is ours to kill and to wait for.
        unsafe {
            assert_eq!(libc::read(child[0], (&raw mut byte).cast(), 1), 1);
            libc::usleep(2000);
            libc::kill(pid, libc::SIGKILL);
            libc::waitpid(pid, null_mut(), 0);
            libc::close(child[0]);
            libc::close(child[1]);
        }
        heap.cache.reap().unwrap();
    }
    assert!(heap.cache.stats().unwrap().contexts <= contexts);
    unharmed(&heap.cache, "after twenty killed readers");
    report(format_args!("20 processes killed while they read"));
}

/// Stores and reads items that say whether they are whole; how many of each.
fn work(heap: &TestHeap, who: u64, ops: u64) -> (u64, u64) {
    let mut rng = Rng::new(who + 1);
    let (mut stored, mut found) = (0, 0);
    for _ in 0..ops {
        let n = rng.below(300);
        let key = format!("item {n}");
        if rng.below(3) == 0 {
            match heap.cache.set(key.as_bytes(), &vec![n as u8; rng.size(30_000)], 0, 0) {
                Ok(_) => stored += 1,
                // Superblocks that cannot be moved for false hazards.
                Err(e) => assert!(matches!(e.status(), Status::NoMemory | Status::Busy), "{e}"),
            }
        } else {
            match heap.cache.get(key.as_bytes()) {
                Ok(Some(item)) => {
                    assert!(item.value.iter().all(|byte| *byte == n as u8), "{key} is torn");
                    found += 1;
                }
                Ok(None) | Err(Error::Busy) => {}
                Err(e) => panic!("{e}"),
            }
        }
    }
    (stored, found)
}

#[test]
fn hazards_that_the_program_overwrites_do_the_heap_no_harm() {
    let _alone = alone();
    let heap = readable_heap();
    settle(&heap.cache);
    let place = Place::of(&heap.path);
    let stop = AtomicBool::new(false);
    let written = AtomicU64::new(0);
    let ops = scaled(3000, 100_000);
    let counts: OnceLock<Vec<(u64, u64)>> = OnceLock::new();
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let mut rng = Rng::new(99);
            let words = (place.hazards.end - place.hazards.start) / 8;
            while !stop.load(Relaxed) {
                for _ in 0..500 {
                    let at = (place.hazards.start as *mut u64).wrapping_add(rng.below(words as u64) as usize);
                    let word = if rng.below(2) == 0 { 0 } else { rng.below(260) };
                    // SAFETY: the program's to write, which is the attack.
                    unsafe { at.write_volatile(word) };
                    written.fetch_add(1, Relaxed);
                }
                std::thread::yield_now();
            }
        });
        let workers: Vec<_> = (0..3)
            .map(|who| {
                scope.spawn({
                    let heap = &heap;
                    move || work(heap, who, ops)
                })
            })
            .collect();
        let _ = counts.set(workers.into_iter().map(|worker| worker.join().unwrap()).collect());
        stop.store(true, Relaxed);
    });
    let counts = counts.into_inner().unwrap();
    let (stored, found) = counts.iter().fold((0, 0), |sum, one| (sum.0 + one.0, sum.1 + one.1));
    let written = written.into_inner();
    // SAFETY: as above: nothing false stays.
    (place.hazards.start..place.hazards.end).for_each(|at| unsafe { (at as *mut u8).write_volatile(0) });
    if heap.cache.get(b"secret").unwrap().is_none() {
        heap.cache.set(b"secret", SECRET, 0, 0).unwrap();
    }
    unharmed(&heap.cache, "after false hazards");
    report(format_args!("{written} words written over hazards during {stored} sets and {found} hits"));
    assert!(written > 1000 && stored > ops / 4 && found > ops / 4);
}

#[test]
fn heaps_that_come_and_go_give_their_readers_back() {
    let _alone = alone();
    let heap = readable_heap();
    settle(&heap.cache);
    let mut opened = 0;
    for _ in 0..30 {
        let again = open_guarded(&heap.path);
        std::thread::scope(|scope| {
            (0..3).for_each(|_| _ = scope.spawn(|| settle(&again)));
        });
        settle(&again);
        opened += 1;
    }
    let stats = heap.cache.stats().unwrap();
    assert!(stats.clients == 1 && stats.contexts <= 6, "{stats:?}");
    unharmed(&heap.cache, "after handles came and went");
    report(format_args!("{opened} handles, four reading threads each; {} op contexts left", stats.contexts));
}
