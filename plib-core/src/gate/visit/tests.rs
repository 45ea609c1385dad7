//! Readers that may not write: one file mapped twice, here for the operations and there read-only but for the open hazards, so
//! that every write of a visitor ends the test. The calls that are left pass a gate without a key, and are counted.

#![allow(clippy::expect_used, clippy::panic, reason = "a test panics when it fails")]

extern crate std;

use super::super::call::{Attach, Block, Operation};
use super::super::dispatch::dispatch;
use super::super::vault::{HEAPS, Vault};
use super::super::{Gated, Left, Session};
use super::*;
use crate::batch::GetRequest;
use crate::cache::{Got, Mode};
use crate::client::ClientParams;
use crate::layout::CreateParams;
use crate::user::{In, Out};
use core::ptr::null_mut;
use std::boxed::Box;
use std::time::{Duration, Instant};
use std::vec::Vec;
use std::{eprintln, format, thread, thread_local, vec};

const SIZE: usize = 8 << 20;
const CONTEXTS: u32 = 32;
/// The slot of the client behind the gate; the others are direct ones'.
const SLOT: u32 = 0;

static VAULT: Vault = Vault::empty();

thread_local! {
    static PASSES: Cell<u32> = const { Cell::new(0) };
}

/// Calls of this thread so far.
fn passes() -> u32 {
    PASSES.get()
}

unsafe extern "sysv64" fn no_gate(block: *mut Block, _: u32) -> Left {
    PASSES.set(PASSES.get() + 1);
    // SAFETY: the block is the caller's.
    let seat = VAULT.with_seat(|seat| unsafe { dispatch(&VAULT, seat, block) });
    Left { seat: seat as u64, signals: 0 }
}

/// A readable heap: mapped for operations, behind the gate that is none, and for reading.
struct Ground {
    inside: *mut u8,
    outside: *mut u8,
    gated: Gated,
    window: Window,
}

// SAFETY: the mappings are shared, and written as heaps are.
unsafe impl Sync for Ground {}

fn map(fd: i32) -> *mut u8 {
    const ALIGNMENT: usize = 64 << 10;
    // SAFETY: fresh addresses, of which a part is mapped anew; the rest stays reserved.
    unsafe {
        let start = libc::mmap(null_mut(), SIZE + ALIGNMENT, 0, libc::MAP_PRIVATE | libc::MAP_ANONYMOUS, -1, 0);
        assert_ne!(start, libc::MAP_FAILED);
        let base = (start as usize).next_multiple_of(ALIGNMENT) as *mut libc::c_void;
        let open = libc::PROT_READ | libc::PROT_WRITE;
        assert_eq!(libc::mmap(base, SIZE, open, libc::MAP_SHARED | libc::MAP_FIXED, fd, 0), base);
        base.cast()
    }
}

impl Ground {
    fn new() -> &'static Self {
        // SAFETY: a fresh file of memory, mapped twice and formatted before anybody knows of it.
        unsafe {
            let fd = libc::memfd_create(c"readable".as_ptr(), libc::MFD_CLOEXEC);
            assert!(fd >= 0 && libc::ftruncate(fd, SIZE as i64) == 0);
            let (inside, outside) = (map(fd), map(fd));
            libc::close(fd);
            let params = CreateParams {
                size: SIZE as u64,
                item_size_max: 1 << 20,
                contexts: CONTEXTS,
                secret: [1, 2, 3, 4],
                boot_id: [5, 6],
                created: 7,
                lock_id: [0; 2],
                readable: true,
            };
            Heap::format(inside, SIZE, &params).unwrap();
            let (open_at, open_len) = crate::layout::Geometry::new(&params).unwrap().open_hazards().unwrap();
            assert_eq!((open_at % 4096, open_len), (0, 4096));
            assert_eq!(libc::mprotect(outside.cast(), SIZE, libc::PROT_READ), 0);
            let open = libc::PROT_READ | libc::PROT_WRITE;
            assert_eq!(libc::mprotect(outside.add(open_at as usize).cast(), open_len as usize, open), 0);
            let gated = attached(inside);
            let window = Window::new(outside, SIZE, 0, None).unwrap();
            // Other tests' threads may still be in it when this one ends: it stays.
            Box::leak(Box::new(Self { inside, outside, gated, window }))
        }
    }

    /// A thread's session that reads without calls.
    fn session<'c>(&'c self, tally: &'c Tally<'c>) -> Session<'c> {
        Session::readable(self.gated, &self.window, tally)
    }

    /// One that has its op context by now.
    fn visiting<'c>(&'c self, tally: &'c Tally<'c>) -> Session<'c> {
        let mut session = self.session(tally);
        (0..FIRST).for_each(|_| assert_eq!(get(&mut session, b"nothing of this name"), None));
        assert!(tally.hazards.get().is_some());
        session
    }

    /// A client of its own, that works directly.
    fn client(&self, slot: u32) -> Client {
        // SAFETY: mapped writable for good.
        let heap = unsafe { Heap::attach(self.inside, SIZE, [5, 6]).unwrap() };
        let params = ClientParams {
            slot,
            lock_byte: slot.into(),
            pid: 1,
            pid_namespace: 0,
            start_time: 0,
            lock_fd: -1,
            vdso: 0,
        };
        Client::register(heap, params).unwrap()
    }
}

fn attached(inside: *mut u8) -> Gated {
    let wanted = Attach { base: inside as usize, len: SIZE, boot_id: [5, 6], pid: 1, slot: SLOT, ..Attach::NONE };
    let free = (0..HEAPS as u32).find_map(|place| {
        // SAFETY: it is a gate, if one that keeps nobody out.
        let mut gated = unsafe { Gated::new(no_gate, place) };
        match gated.attach(&wanted) {
            Ok(()) => Some(gated),
            Err(Fault { status: Status::Full, .. }) => None,
            Err(fault) => panic!("{fault:?}"),
        }
    });
    free.expect("a place in the vault")
}

fn try_store(s: &mut Session<'_>, key: &[u8], value: &[u8], exptime: i64) -> Result<u64, Status> {
    // SAFETY: both are slices.
    unsafe { s.store(Mode::Set, In::new(key), In::new(value), 9, exptime) }
}

fn store(s: &mut Session<'_>, key: &[u8], value: &[u8], exptime: i64) -> u64 {
    try_store(s, key, value, exptime).unwrap()
}

fn get_into(s: &mut Session<'_>, key: &[u8], buf: &mut [u8]) -> Result<Got, Status> {
    // SAFETY: both are slices.
    unsafe { s.get(In::new(key), Out::new(buf)) }
}

fn get(s: &mut Session<'_>, key: &[u8]) -> Option<Vec<u8>> {
    let mut buf = vec![0; 64];
    loop {
        match get_into(s, key, &mut buf) {
            Ok(got) if got.copied => {
                buf.truncate(got.info.value_len);
                return Some(buf);
            }
            Ok(got) => buf.resize(got.info.value_len, 0),
            Err(Status::NotFound) => return None,
            Err(status) => panic!("{status:?}"),
        }
    }
}

fn value(seed: usize, len: usize) -> Vec<u8> {
    (0..len).map(|i| (seed.wrapping_mul(31) ^ i ^ (i >> 8)) as u8).collect()
}

/// Nothing in the heap is wrong.
fn assert_clean(s: &mut Session<'_>) {
    let mut findings = Vec::new();
    let sum = s.check(&mut |finding| findings.push(finding)).unwrap();
    assert!(findings.is_empty(), "{findings:?} {sum:?}");
}

/// How long a stress runs.
fn span() -> Duration {
    Duration::from_millis(if std::env::var_os("PLIB_EXHAUSTIVE").is_some() { 30_000 } else { 1_000 })
}

#[test]
fn what_is_read_is_what_an_operation_reads_and_takes_no_call() {
    let ground = Ground::new();
    let client = ground.client(1);
    let id = client.claim_context(0).unwrap();
    // SAFETY: the context is this thread's.
    let mut direct = unsafe { client.session(id) };
    let tally = Tally::unused();
    let mut visitor = ground.visiting(&tally);

    let mut keys = Vec::new();
    for len in (0..300).step_by(7).chain([4096, 32_700, 32_736, 57_400, 65_520, 70_000, 300_000, 1_000_000]) {
        let mut key = format!("{len}").into_bytes();
        key.resize(key.len().max(1 + len % 250), b'k');
        store(&mut direct, &key, &value(len, len), 0);
        keys.push(key);
    }
    for number in [0, 7, u64::MAX - 9] {
        let key = format!("number {number}").into_bytes();
        store(&mut direct, &key, format!("{number}").as_bytes(), 0);
        // SAFETY: the key is a slice.
        unsafe { direct.arith(In::new(&key), 3, false, None) }.unwrap();
        keys.push(key);
    }
    keys.extend([b"not there".to_vec(), vec![b'n'; 250]]);

    let (mut buf, mut right) = (vec![0; 1 << 20], vec![0; 1 << 20]);
    let before = passes();
    let mut reads = 0;
    for key in &keys {
        for room in [0, 10, 1 << 20] {
            let (found, expected) =
                (get_into(&mut visitor, key, &mut buf[..room]), get_into(&mut direct, key, &mut right[..room]));
            assert_eq!(found, expected, "{key:?} into {room} bytes");
            assert_eq!(buf[..room], right[..room]);
            reads += 1;
        }
    }
    for (key, status) in [(&b""[..], Status::Key), (&[1; 251], Status::Key)] {
        assert_eq!(get_into(&mut visitor, key, &mut buf), Err(status));
    }
    // What lies in the heap is no place for keys and values.
    // SAFETY: the heap's own bytes are readable.
    let own = unsafe { core::slice::from_raw_parts(ground.outside, 10) };
    assert_eq!(get_into(&mut visitor, own, &mut buf), Err(Status::Invalid));
    // Only full tallies were told.
    let told = passes() - before;
    eprintln!("{reads} reads, {told} calls");
    assert!(reads > 150 && told <= reads / 16, "{told} calls for {reads} reads");
    assert_clean(&mut direct);
}

#[test]
fn batches_and_scans_take_no_call_either() {
    let ground = Ground::new();
    let tally = Tally::unused();
    let mut visitor = ground.visiting(&tally);
    let names: Vec<_> = (0..1000).map(|i| format!("key {i}")).collect();
    names.iter().for_each(|name| _ = store(&mut visitor, name.as_bytes(), name.as_bytes(), 0));
    let before = passes();

    let mut values = vec![[0u8; 16]; 1200];
    let asked: Vec<_> = names.iter().cloned().chain((0..200).map(|i| format!("none {i}"))).collect();
    let mut requests: Vec<_> = asked
        .iter()
        .zip(&mut values)
        .map(|(name, value)| GetRequest {
            key: name.as_ptr(),
            key_len: name.len(),
            buf: value.as_mut_ptr(),
            buf_len: value.len(),
            value_len: 0,
            cas: 0,
            flags: 0,
            expiry: 0,
            status: 77,
            pad: 0,
        })
        .collect();
    // SAFETY: all of them name slices.
    unsafe { visitor.get_many(&mut requests) };
    for (i, request) in requests.iter().enumerate() {
        let status = if i < 1000 { Status::Ok } else { Status::NotFound };
        assert_eq!(request.status, status as u32, "{i}");
    }
    assert!(names.iter().zip(&values).all(|(name, value)| value.starts_with(name.as_bytes())));
    let of_batch = passes() - before;

    let (mut cursor, mut seen) = (0, 0);
    let (mut key, mut buf) = ([0; 250], [0; 64]);
    // SAFETY: both are arrays.
    while let Some(item) = unsafe { visitor.scan(cursor, Out::new(&mut key), Out::new(&mut buf)) }.unwrap() {
        assert_eq!(key[..item.key_len], buf[..item.got.info.value_len]);
        (cursor, seen) = (item.next, seen + 1);
    }
    let of_scan = passes() - before - of_batch;
    eprintln!("1200 gets in a batch: {of_batch} calls; a scan of {seen}: {of_scan}");
    assert_eq!((seen, of_scan), (1000, 0));
    // A call for each 32 marks, and one for the number of reads.
    assert!(of_batch <= 1000 / 16 + 2);
}

#[test]
fn reads_are_counted_and_nothing_is_counted_twice() {
    let ground = Ground::new();
    let tally = Tally::unused();
    let mut visitor = ground.session(&tally);
    (0..100u32).for_each(|i| _ = store(&mut visitor, &i.to_le_bytes(), b"value", 0));
    let mut wanted = (0, 0);
    for i in 0..10_000u32 {
        let hit = get(&mut visitor, &(i % 130).to_le_bytes()).is_some();
        assert_eq!(hit, i % 130 < 100);
        wanted = (wanted.0 + u64::from(hit), wanted.1 + u64::from(!hit));
        if i % 1000 == 0 {
            let stats = visitor.stats().unwrap();
            assert_eq!((stats.get_hits, stats.get_misses), wanted, "after {i}");
        }
    }
    // Those of an ended session too, asked from elsewhere.
    visitor.end();
    let stats = ground.session(&Tally::unused()).stats().unwrap();
    assert_eq!((stats.get_hits, stats.get_misses), wanted);
    assert_eq!(stats.contexts, 1, "but for the seat's");
}

#[test]
fn what_is_read_stays_and_its_twin_goes() {
    let ground = Ground::new();
    let tally = Tally::unused();
    let mut visitor = ground.visiting(&tally);
    let client = ground.client(1);
    // SAFETY: the context is this thread's.
    let mut writer = unsafe { client.session(client.claim_context(0).unwrap()) };
    // As long as what fills the heap: of one class with it.
    let names = |kind: &str| (0..64).map(|i| format!("{kind} {i:07}").into_bytes()).collect::<Vec<_>>();
    let (read, twins) = (names("read"), names("twin"));
    let mut stored = 0u32;
    let mut fill = |writer: &mut Session<'_>, evictions: u64| {
        let wanted = writer.stats().unwrap().evictions + evictions;
        while writer.stats().unwrap().evictions < wanted {
            for _ in 0..100 {
                store(writer, format!("fill {stored:07}").as_bytes(), &[2; 200], 0);
                stored += 1;
            }
        }
    };
    // The index has grown by then, and takes no superblocks from items any more.
    fill(&mut writer, 60_000);
    for (name, twin) in read.iter().zip(&twins) {
        store(&mut writer, name, &[1; 200], 0);
        store(&mut writer, twin, &[1; 200], 0);
        fill(&mut writer, 100);
    }
    for _ in 0..40 {
        read.iter().for_each(|name| _ = get(&mut visitor, name));
        fill(&mut writer, 2000);
    }
    let left = |s: &mut Session<'_>, names: &[Vec<u8>]| names.iter().filter(|name| get(s, name).is_some()).count();
    let (of_read, of_twins) = (left(&mut writer, &read), left(&mut writer, &twins));
    eprintln!("{stored} stored; of 64 that were read {of_read} are left, of 64 twins {of_twins}");
    assert!(of_read >= 60 && of_twins == 0);
    assert_clean(&mut writer);
}

#[test]
fn the_dead_are_left_to_the_gate() {
    let ground = Ground::new();
    let tally = Tally::unused();
    let mut visitor = ground.visiting(&tally);
    let calls = |s: &mut Session<'_>, key: &[u8]| {
        let before = passes();
        (get(s, key).is_some(), passes() - before)
    };
    let now = i64::from(ground.window.clock.now());
    store(&mut visitor, b"lives long", b"v", now + 1000);
    store(&mut visitor, b"dies soon", b"v", now + 2);
    assert_eq!(calls(&mut visitor, b"lives long"), (true, 0));
    assert_eq!(calls(&mut visitor, b"dies soon"), (true, 0));
    thread::sleep(Duration::from_millis(3100));
    assert_eq!(calls(&mut visitor, b"lives long"), (true, 0));
    assert_eq!(calls(&mut visitor, b"dies soon"), (false, 1));
    // A flush whose time comes: the gate writes down that it has come.
    visitor.flush_all(2).unwrap();
    assert_eq!(calls(&mut visitor, b"lives long"), (true, 0));
    thread::sleep(Duration::from_millis(3100));
    assert_eq!(calls(&mut visitor, b"lives long"), (false, 1));
    store(&mut visitor, b"after it", b"v", 0);
    assert_eq!(calls(&mut visitor, b"after it"), (true, 0));
    visitor.flush_all(0).unwrap();
    assert_eq!(calls(&mut visitor, b"after it"), (false, 1));
    let stats = visitor.stats().unwrap();
    assert_eq!((stats.get_expired, stats.get_flushed), (1, 2));
    eprintln!("one expired item and two flushed ones asked of the gate");
}

/// A value that says whether it is whole, and whose.
fn telling(key: u32, round: u32, len: usize) -> Vec<u8> {
    let mut value = vec![(key ^ round) as u8; len.max(12)];
    value[..4].copy_from_slice(&key.to_le_bytes());
    value[4..8].copy_from_slice(&round.to_le_bytes());
    value[8..12].copy_from_slice(&(len as u32).to_le_bytes());
    value
}

fn assert_whole(key: u32, value: &[u8]) {
    let word = |i: usize| u32::from_le_bytes(value[i..i + 4].try_into().unwrap());
    assert_eq!((word(0), word(8) as usize), (key, value.len()));
    assert!(value[12..].iter().all(|byte| *byte == (key ^ word(4)) as u8));
}

#[test]
fn no_value_is_torn_while_others_write_and_superblocks_move() {
    const KEYS: u32 = 3000;
    let ground = Ground::new();
    let until = Instant::now() + span();
    let lens = [20, 120, 700, 3000, 9000, 40_000, 200_000];
    let write = |slot: u32| {
        let client = ground.client(slot);
        // SAFETY: the context is this thread's.
        let mut s = unsafe { client.session(client.claim_context(0).unwrap()) };
        let (mut seed, mut sets) = (slot, 0u64);
        while Instant::now() < until {
            // The sizes change with time, so that classes take superblocks from each other.
            let common = lens[sets as usize / 2000 % lens.len()];
            for _ in 0..50 {
                seed = seed.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                let (key, len) = (seed >> 8 & 0xffff, if seed >> 28 == 0 { lens[seed as usize % 7] } else { common });
                match try_store(&mut s, &(key % KEYS).to_le_bytes(), &telling(key % KEYS, seed, len), 0) {
                    Ok(_) => sets += 1,
                    // The other was not run for long, with the right to reserve for a large value.
                    Err(status) => assert_eq!(status, Status::Busy),
                }
            }
        }
        sets
    };
    let read = |seed: u32| {
        let tally = Tally::unused();
        let mut s = ground.visiting(&tally);
        let (mut seed, mut hits, before) = (seed, 0u64, passes());
        let mut reads = 0;
        while Instant::now() < until || hits <= 1000 {
            for _ in 0..100 {
                seed = seed.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                let key = (seed >> 8) % KEYS;
                if let Some(value) = get(&mut s, &key.to_le_bytes()) {
                    assert_whole(key, &value);
                    hits += 1;
                }
                reads += 1;
            }
        }
        s.end();
        (hits, reads, u64::from(passes() - before))
    };
    let (sets, read) = thread::scope(|scope| {
        let writers = [1, 2].map(|slot| scope.spawn(move || write(slot)));
        let readers = [11, 12].map(|seed| scope.spawn(move || read(seed)));
        (writers.map(|w| w.join().unwrap()), readers.map(|r| r.join().unwrap()))
    });
    let tally = Tally::unused();
    let mut s = ground.session(&tally);
    let stats = s.stats().unwrap();
    eprintln!(
        "{sets:?} sets; (hits, reads, calls) {read:?}; {} superblocks moved, {} evictions",
        stats.superblocks_moved, stats.evictions
    );
    assert!(sets.iter().all(|n| *n > 1000) && stats.superblocks_moved > 50);
    assert!(read.iter().all(|(hits, reads, calls)| *hits > 1000 && calls * 10 < *reads));
    assert_clean(&mut s);
}

#[test]
fn a_superblock_is_not_moved_under_a_visitor_and_others_hazards_are_not_believed() {
    let ground = Ground::new();
    let tally = Tally::unused();
    let mut visitor = ground.visiting(&tally);
    let client = ground.client(1);
    let id = client.claim_context(0).unwrap();
    let op = client.op(id.0);
    // SAFETY: the context is this thread's.
    let mut direct = unsafe { client.session(id) };
    store(&mut direct, b"an item", &[1; 100], 0);
    let class = class::for_size(32 + 7 + 100).unwrap();
    let s = op.heap.members(class).next(0).unwrap();
    let hazards = tally.hazards.get().unwrap();
    hazards.announce(1, s, false);
    assert!(op.heap.is_read(s) && op.drain_one(class, true).is_none());
    assert!(get(&mut direct, b"an item").is_some(), "it was evicted for nothing");
    // By the lines of contexts that no visitor has, nothing is read.
    hazards.clear();
    let reader = Owner(tally.reader.get()).context();
    let others = (1..=CONTEXTS).filter(|n| *n != reader);
    others.for_each(|n| ground.window.heap.open_hazards(n).unwrap().announce(0, s, false));
    assert!(!op.heap.is_read(s));
    // Nor by a visitor's line once it has ended.
    hazards.announce(0, s, false);
    assert!(op.heap.is_read(s));
    visitor.end();
    assert!(!op.heap.is_read(s));
    assert_eq!(op.drain_one(class, true), Some(s));
    op.convert(s, class);
    assert!(get(&mut direct, b"an item").is_none());
    eprintln!("superblock {s} held by one line and by no other of {CONTEXTS}");
    assert_clean(&mut direct);
}

/// Every block's meta word.
fn metas(heap: &Heap) -> Vec<u64> {
    let first = heap.block_in(0, 1, 0).unit;
    let units = u64::from(heap.geometry().superblocks) * 4096;
    (first..first + units - 3)
        .filter_map(|unit| heap.block(unit))
        .map(|block| block::load(heap.meta(block)).0)
        .collect()
}

#[test]
fn nothing_that_a_tally_says_is_believed() {
    let ground = Ground::new();
    let client = ground.client(1);
    // SAFETY: the context is this thread's.
    let mut direct = unsafe { client.session(client.claim_context(0).unwrap()) };
    // Values that look like meta words of live items; numbers; large ones; chains.
    let bait: Vec<u8> = (0..100).flat_map(|i| Meta::live(0, i).0.to_le_bytes()).collect();
    for i in 0..20_000u32 {
        store(&mut direct, &i.to_le_bytes(), &bait[..(i as usize * 13) % bait.len()], 0);
    }
    store(&mut direct, b"large", &value(1, 300_000), 0);
    let mut gated = ground.gated;
    let heap = client.heap();
    let before = metas(&heap);
    let first = heap.block_in(0, 1, 0).unit;
    let reads = Tally::unused().reads;
    let (mut tell, mut wrong, mut right) = (0u32, 0u32, 0u32);
    let mut put = |marks: &[Mark]| {
        marks.iter().zip(&reads.marks).for_each(|(mark, place)| place.set(*mark));
        reads.count.set(marks.len() as u32);
        gated.ask(Operation::TellReads, [(&raw const reads) as u64, size_of::<Reads>() as u64]).unwrap();
        tell += 1;
    };
    // Every place, with the word that stands there: only live items of a class may change, and by their frequency alone.
    for (i, chunk) in before.chunks(MARKS).enumerate() {
        let marks: Vec<_> = chunk
            .iter()
            .enumerate()
            .map(|(j, meta)| Mark { unit: first + (i * MARKS + j) as u64, meta: *meta })
            .collect();
        put(&marks);
    }
    // Places that are none, words that stand nowhere.
    for unit in [0, 1, first - 1, first + before.len() as u64, 1 << 35, u64::MAX] {
        put(&[Mark { unit, meta: u64::MAX }, Mark { unit, meta: 2 }, Mark { unit, meta: 0 }]);
    }
    for (i, (was, is)) in before.iter().zip(metas(&heap)).enumerate() {
        if *was == is {
            continue;
        }
        let block = heap.block(first + i as u64).unwrap();
        let usage = heap.descriptor(block.superblock).unwrap().state().usage();
        let Use::Class(class) = usage else { panic!("{usage:?}") };
        let fair = class != class::CHAIN && heap.number_of(block, class).is_some() && Meta(*was).is_live();
        assert!(fair && Meta(*was).identity() == Meta(is).identity() && Meta(is).is_recent(), "{was:x} became {is:x}");
        right += 1;
        wrong += u32::from(!fair);
    }
    // Numbers beyond what can have been counted, and records of another length.
    let hits = direct.stats().unwrap().get_hits;
    for (number, len) in [(u32::MAX, 0), (COUNT_MAX + 1, 0), (1, 1), (1, usize::MAX)] {
        reads.hits.set(number);
        let len = size_of::<Reads>().wrapping_add(len) as u64;
        assert_eq!(gated.ask(Operation::TellReads, [(&raw const reads) as u64, len]), Err(Status::Invalid));
    }
    reads.hits.set(1);
    reads.count.set(u32::MAX);
    assert!(gated.ask(Operation::TellReads, [(&raw const reads) as u64, size_of::<Reads>() as u64]).is_ok());
    assert_eq!(
        gated.ask(Operation::TellReads, [ground.inside as u64, size_of::<Reads>() as u64]),
        Err(Status::Invalid)
    );
    assert_eq!(direct.stats().unwrap().get_hits, hits + 1);
    eprintln!("{tell} tallies named {} places; {right} items were marked, {wrong} places wrongly", before.len());
    assert!(right > 10_000);
    assert_clean(&mut direct);
}

#[test]
fn op_contexts_are_had_by_share_and_given_back_by_their_own_process() {
    let ground = Ground::new();
    let mut gated = ground.gated;
    let mut start = || gated.ask(Operation::StartReading, []).map(|[reader, ..]| reader);
    let mut readers = Vec::new();
    while let Ok(reader) = start() {
        readers.push(reader);
    }
    // Three eighths; the gate's own calls still find one.
    assert_eq!((readers.len() as u32, start()), (CONTEXTS * 3 / 8, Err(Status::Busy)));
    // Who gets none has the gate read.
    let tally = Tally::unused();
    let mut without = ground.session(&tally);
    store(&mut without, b"a key", b"a value", 0);
    let before = passes();
    (0..100).for_each(|_| assert_eq!(get(&mut without, b"a key").unwrap(), b"a value"));
    assert_eq!(passes() - before, 100 + 1, "with one question for a context");
    assert!(tally.hazards.get().is_none());

    // Of the last quarter nobody gets any: calls find one at all times.
    let client = ground.client(1);
    let others = client.claim_reader().unwrap();
    let more: Vec<_> = core::iter::from_fn(|| client.claim_reader().ok()).collect();
    let busy = (1..=CONTEXTS).filter(|n| client.heap().context(*n).unwrap().load().is_busy()).count() as u32;
    assert_eq!((busy, client.claim_reader()), (CONTEXTS * 3 / 4, Err(Status::Busy)));
    assert!(client.claim_context(0).is_ok() && more.len() > 5);
    more.iter().for_each(|reader| client.release_reader((*reader).into()).unwrap());
    let seats = (1..=CONTEXTS).filter_map(|n| Some((n, client.heap().context(n)?.load())));
    let seats: Vec<_> =
        seats.filter(|(_, state)| state.is_busy()).map(|(n, state)| u64::from(state.owner(n).0)).collect();
    let mut stop = |word| gated.ask(Operation::StopReading, [word]).map(|_| ());
    let mut refused = 0;
    for word in seats.iter().filter(|word| !readers.contains(word)).copied().chain([
        others.into(),
        0,
        1,
        u64::MAX,
        readers[0] + 4096,
    ]) {
        assert_eq!(stop(word), Err(Status::Invalid), "{word:x}");
        refused += 1;
    }
    assert!(client.heap().context(Owner(others).context()).unwrap().reads_outside());
    readers.iter().for_each(|reader| assert_eq!(stop(*reader), Ok(())));
    readers.iter().for_each(|reader| assert_eq!(stop(*reader), Err(Status::Invalid)));
    // Those of a client that is gone are recovered with all else.
    client.release_reader(others.into()).unwrap();
    let lost: Vec<_> = (0..3).map(|_| client.claim_reader().unwrap()).collect();
    client.unregister();
    let heap = ground.window.heap;
    assert!(lost.iter().all(|word| !heap.context(Owner(*word).context()).unwrap().reads_outside()));
    eprintln!("{} of {CONTEXTS} contexts had, {refused} words refused", readers.len());
    assert!(refused >= 6);
    assert_clean(&mut without);
}

#[test]
fn an_unreadable_heap_has_no_visitors() {
    let arena = crate::arena::Arena::new();
    let client = arena.client(0);
    assert_eq!(client.claim_reader(), Err(Status::Invalid));
    assert!(arena.heap.open_hazards(1).is_none() && arena.heap.geometry().open_hazards().is_none());
    eprintln!("neither hazards nor contexts for it");
}

#[test]
fn hazards_that_somebody_overwrites_do_the_heap_no_harm() {
    const KEYS: u32 = 500;
    let ground = Ground::new();
    let until = Instant::now() + span();
    let (at, len) = ground.window.heap.geometry().open_hazards().unwrap();
    let table = ground.outside as usize + at as usize;
    let scribble = || {
        let (mut seed, mut written) = (1u32, 0u64);
        while Instant::now() < until {
            for _ in 0..200 {
                seed = seed.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                let place = (table as *mut u64).wrapping_add((seed >> 8) as usize % (len as usize / 8));
                // Mostly nothing, else some superblock.
                let word = if seed >> 29 != 0 { 0 } else { u64::from(seed >> 20) % 130 };
                // SAFETY: in the open hazards, which anybody may write.
                unsafe { place.write_volatile(word) };
                written += 1;
            }
            thread::yield_now();
        }
        written
    };
    let write = |slot: u32| {
        let client = ground.client(slot);
        // SAFETY: the context is this thread's.
        let mut s = unsafe { client.session(client.claim_context(0).unwrap()) };
        let (mut seed, mut sets, mut refused) = (slot, 0u64, 0u64);
        while Instant::now() < until {
            seed = seed.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            let (key, len) = ((seed >> 8) % KEYS, [20, 300, 5000, 30_000][(sets / 1000 % 4) as usize]);
            let value = telling(key, seed, len);
            let stored = try_store(&mut s, &key.to_le_bytes(), &value, 0);
            sets += 1;
            // What keeps superblocks from being moved may leave a set without memory, or waiting for one who gets none.
            refused += u64::from(stored.is_err());
            assert!(matches!(stored, Ok(_) | Err(Status::NoMemory | Status::Busy)), "{stored:?}");
        }
        (sets, refused)
    };
    let read = |seed: u32| {
        let tally = Tally::unused();
        let mut s = ground.visiting(&tally);
        let (mut seed, mut hits) = (seed, 0u64);
        while Instant::now() < until || hits < 1000 {
            seed = seed.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            let key = (seed >> 8) % KEYS;
            if let Some(value) = get(&mut s, &key.to_le_bytes()) {
                assert_whole(key, &value);
                hits += 1;
            }
        }
        s.end();
        hits
    };
    let (written, sets, hits) = thread::scope(|scope| {
        let scribbler = scope.spawn(scribble);
        let writers = [1, 2].map(|slot| scope.spawn(move || write(slot)));
        let readers = [11, 12].map(|seed| scope.spawn(move || read(seed)));
        (scribbler.join().unwrap(), writers.map(|w| w.join().unwrap()), readers.map(|r| r.join().unwrap()))
    });
    let tally = Tally::unused();
    let mut s = ground.session(&tally);
    let moved = s.stats().unwrap().superblocks_moved;
    eprintln!(
        "{written} words written over hazards; (sets, refused) {sets:?}, hits {hits:?}, {moved} superblocks moved"
    );
    assert!(written > 5000 && moved > 20 && sets.iter().all(|(sets, _)| *sets > 1000));
    assert_clean(&mut s);
}
