//! The gate as a confused deputy: pointers of a caller's to where only the library may look, and to where nobody can.

use std::ffi::c_void;
use std::ptr::null_mut;

use plib_core::gate::{self, ARGUMENTS, Operation, SEATS};
use plib_core::{DeleteRequest, GetRequest, SetRequest, Status};

use crate::ground::{
    self, ACCERR, MAPERR, PKUERR, Places, Range, SECRET, UNANSWERED, alone, ask, child, guarded_heap, mapping_of,
    mappings_of, unharmed,
};
use crate::stage::{End, SIZE, map};
use crate::support::heap::TestHeap;
use crate::support::report;

pub type Handle = *mut c_void;
type Key = *const u8;

// plib.h.
unsafe extern "C" {
    pub fn plib_open(name: *const i8, options: *const [u64; 2], out: *mut Handle) -> u32;
    pub fn plib_close(cache: Handle);
    pub fn plib_get(
        cache: Handle,
        key: Key,
        key_len: usize,
        buf: *mut u8,
        len: usize,
        value_len: *mut u64,
        info: *mut u64,
    ) -> u32;
    fn plib_gat(
        cache: Handle,
        key: Key,
        key_len: usize,
        exptime: i64,
        buf: *mut u8,
        len: usize,
        value_len: *mut u64,
        info: *mut u64,
    ) -> u32;
    fn plib_set(
        cache: Handle,
        key: Key,
        key_len: usize,
        value: Key,
        len: usize,
        flags: u32,
        exptime: i64,
        cas: *mut u64,
    ) -> u32;
    fn plib_add(
        cache: Handle,
        key: Key,
        key_len: usize,
        value: Key,
        len: usize,
        flags: u32,
        exptime: i64,
        cas: *mut u64,
    ) -> u32;
    fn plib_replace(
        cache: Handle,
        key: Key,
        key_len: usize,
        value: Key,
        len: usize,
        flags: u32,
        exptime: i64,
        cas: *mut u64,
    ) -> u32;
    fn plib_append(
        cache: Handle,
        key: Key,
        key_len: usize,
        value: Key,
        len: usize,
        flags: u32,
        exptime: i64,
        cas: *mut u64,
    ) -> u32;
    fn plib_prepend(
        cache: Handle,
        key: Key,
        key_len: usize,
        value: Key,
        len: usize,
        flags: u32,
        exptime: i64,
        cas: *mut u64,
    ) -> u32;
    fn plib_cas(
        cache: Handle,
        key: Key,
        key_len: usize,
        value: Key,
        len: usize,
        flags: u32,
        exptime: i64,
        cas: u64,
        out: *mut u64,
    ) -> u32;
    fn plib_delete(cache: Handle, key: Key, key_len: usize) -> u32;
    fn plib_delete_cas(cache: Handle, key: Key, key_len: usize, cas: u64) -> u32;
    fn plib_incr(cache: Handle, key: Key, key_len: usize, delta: u64, out: *mut u64) -> u32;
    fn plib_decr(cache: Handle, key: Key, key_len: usize, delta: u64, out: *mut u64) -> u32;
    fn plib_incr_init(
        cache: Handle,
        key: Key,
        key_len: usize,
        delta: u64,
        initial: u64,
        exptime: i64,
        out: *mut u64,
    ) -> u32;
    fn plib_decr_init(
        cache: Handle,
        key: Key,
        key_len: usize,
        delta: u64,
        initial: u64,
        exptime: i64,
        out: *mut u64,
    ) -> u32;
    fn plib_touch(cache: Handle, key: Key, key_len: usize, exptime: i64) -> u32;
    fn plib_mget(cache: Handle, first: *mut GetRequest, n: usize) -> u32;
    fn plib_mset(cache: Handle, first: *mut SetRequest, n: usize) -> u32;
    fn plib_mdelete(cache: Handle, first: *mut DeleteRequest, n: usize) -> u32;
}

const INVALID: u32 = Status::Invalid as u32;

/// The pointers of a call.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Part {
    Key,
    Value,
    Buffer,
    /// Where a number goes.
    Number,
    /// Where cas, flags and expiry go.
    Info,
    /// The requests of a batch.
    Requests,
}

/// The arguments of any call: memory of the caller's, but for what an attack puts in its place.
#[derive(Clone, Copy, Debug)]
struct Arguments {
    cache: Handle,
    key: usize,
    key_len: usize,
    value: usize,
    value_len: usize,
    buffer: usize,
    buffer_len: usize,
    number: usize,
    info: usize,
    requests: usize,
}

impl Arguments {
    fn with(mut self, part: Part, at: usize) -> Self {
        match part {
            Part::Key => self.key = at,
            Part::Value => self.value = at,
            Part::Buffer => self.buffer = at,
            Part::Number => self.number = at,
            Part::Info => self.info = at,
            Part::Requests => self.requests = at,
        }
        self
    }

    /// How many bytes are meant.
    fn len(&self, part: Part) -> usize {
        match part {
            Part::Key => self.key_len,
            Part::Value => self.value_len,
            Part::Buffer => self.buffer_len,
            Part::Number => 8,
            Part::Info => 16,
            Part::Requests => size_of::<DeleteRequest>(),
        }
    }
}

type Called = unsafe fn(&Arguments) -> u32;

use Part::{Buffer, Info, Key as KeyPart, Number, Requests, Value};

macro_rules! store {
    ($function:ident) => {
        |a: &Arguments| unsafe {
            $function(a.cache, a.key as Key, a.key_len, a.value as Key, a.value_len, 7, 0, a.number as *mut u64)
        }
    };
}

macro_rules! arith {
    ($function:ident $(, $more:expr)*) => {
        |a: &Arguments| unsafe { $function(a.cache, a.key as Key, a.key_len, 1, $($more,)* a.number as *mut u64) }
    };
}

/// Every function of the C ABI that takes pointers into caller memory for an item, and which it takes.
#[allow(clippy::undocumented_unsafe_blocks, reason = "what the library makes of any pointer is what is tested")]
const CALLS: [(&str, &[Part], Called); 21] = [
    ("get", &[KeyPart, Buffer, Number, Info], |a| unsafe {
        plib_get(
            a.cache,
            a.key as Key,
            a.key_len,
            a.buffer as *mut u8,
            a.buffer_len,
            a.number as *mut u64,
            a.info as *mut u64,
        )
    }),
    ("gat", &[KeyPart, Buffer, Number, Info], |a| unsafe {
        let (number, info) = (a.number as *mut u64, a.info as *mut u64);
        plib_gat(a.cache, a.key as Key, a.key_len, 0, a.buffer as *mut u8, a.buffer_len, number, info)
    }),
    ("set", &[KeyPart, Value, Number], store!(plib_set)),
    ("add", &[KeyPart, Value, Number], store!(plib_add)),
    ("replace", &[KeyPart, Value, Number], store!(plib_replace)),
    ("append", &[KeyPart, Value, Number], store!(plib_append)),
    ("prepend", &[KeyPart, Value, Number], store!(plib_prepend)),
    ("cas", &[KeyPart, Value, Number], |a| unsafe {
        plib_cas(a.cache, a.key as Key, a.key_len, a.value as Key, a.value_len, 7, 0, 1, a.number as *mut u64)
    }),
    ("delete", &[KeyPart], |a| unsafe { plib_delete(a.cache, a.key as Key, a.key_len) }),
    ("delete_cas", &[KeyPart], |a| unsafe { plib_delete_cas(a.cache, a.key as Key, a.key_len, 1) }),
    ("incr", &[KeyPart, Number], arith!(plib_incr)),
    ("decr", &[KeyPart, Number], arith!(plib_decr)),
    ("incr_init", &[KeyPart, Number], arith!(plib_incr_init, 5, 0)),
    ("decr_init", &[KeyPart, Number], arith!(plib_decr_init, 5, 0)),
    ("touch", &[KeyPart], |a| unsafe { plib_touch(a.cache, a.key as Key, a.key_len, 0) }),
    ("mget's requests", &[Requests], |a| unsafe { plib_mget(a.cache, a.requests as *mut GetRequest, 3) }),
    ("mset's requests", &[Requests], |a| unsafe { plib_mset(a.cache, a.requests as *mut SetRequest, 3) }),
    ("mdelete's requests", &[Requests], |a| unsafe { plib_mdelete(a.cache, a.requests as *mut DeleteRequest, 3) }),
    ("mget", &[KeyPart, Buffer], |a| unsafe {
        let mut request = get_request(a);
        assert_eq!(plib_mget(a.cache, &mut request, 1), 0);
        request.status
    }),
    ("mdelete", &[KeyPart], |a| unsafe {
        let mut request = DeleteRequest { key: a.key as Key, key_len: a.key_len, status: UNANSWERED, pad: 0 };
        assert_eq!(plib_mdelete(a.cache, &mut request, 1), 0);
        request.status
    }),
    ("mset", &[KeyPart, Value], |a| unsafe {
        let mut request = set_request(a);
        assert_eq!(plib_mset(a.cache, &mut request, 1), 0);
        request.status
    }),
];

fn get_request(a: &Arguments) -> GetRequest {
    GetRequest {
        key: a.key as Key,
        key_len: a.key_len,
        buf: a.buffer as *mut u8,
        buf_len: a.buffer_len,
        value_len: 0,
        cas: 0,
        flags: 0,
        expiry: 0,
        status: UNANSWERED,
        pad: 0,
    }
}

fn set_request(a: &Arguments) -> SetRequest {
    SetRequest {
        key: a.key as Key,
        key_len: a.key_len,
        value: a.value as Key,
        value_len: a.value_len,
        exptime: 0,
        cas: 0,
        flags: 0,
        status: UNANSWERED,
    }
}

/// Caller memory for a call that is right.
struct Memory {
    key: [u8; 10],
    value: [u8; 200],
    buffer: [u8; 300],
    number: u64,
    info: [u64; 2],
}

impl Memory {
    fn new(key: &[u8; 10]) -> Self {
        Self { key: *key, value: [0x31; 200], buffer: [0; 300], number: 0, info: [0; 2] }
    }

    fn arguments(&mut self, cache: Handle) -> Arguments {
        Arguments {
            cache,
            key: self.key.as_ptr() as usize,
            key_len: self.key.len(),
            value: self.value.as_ptr() as usize,
            value_len: self.value.len(),
            buffer: self.buffer.as_mut_ptr() as usize,
            buffer_len: self.buffer.len(),
            number: (&raw mut self.number) as usize,
            info: (&raw mut self.info) as usize,
            requests: 0,
        }
    }
}

/// A guarded heap (place 0 of the vault), a second one (place 1), and a C handle on the first (place 2).
struct Deputy {
    first: TestHeap,
    second: TestHeap,
    cache: Handle,
    /// Where the C handle has the first heap.
    own: Range,
    places: Places,
    other: Places,
}

const KEY: &[u8; 10] = b"target-key";

impl Deputy {
    fn new() -> Self {
        let (first, second) = (guarded_heap(), guarded_heap());
        first.cache.set(KEY, b"17", 3, 0).unwrap();
        let (places, other) = (Places::of(&first.path), Places::of(&second.path));
        // The same heap is opened a second time by C, at another place.
        let name = std::ffi::CString::new(first.path_text()).unwrap();
        let mut cache = null_mut();
        // SAFETY: a C string, options with size 16 and isolation 1, a place for the handle.
        assert_eq!(unsafe { plib_open(name.as_ptr(), &[16, 1], &mut cache) }, 0);
        let own = mappings_of(&first.path).into_iter().map(|(range, _)| range).find(|range| *range != places.heap);
        Self { own: own.expect("a second mapping"), first, second, cache, places, other }
    }

    /// All that no pointer may touch.
    fn ranges(&self) -> [(&'static str, Range); 6] {
        [
            ("heap", self.own),
            ("other mapping", self.places.heap),
            ("other heap", self.other.heap),
            ("vault", self.places.vault),
            ("first stack", self.places.keyed_stack(0)),
            ("last stack", self.places.keyed_stack(SEATS - 1)),
        ]
    }

    /// Whether so many bytes neither touch a range nor reach round.
    fn is_clear_of(&self, at: usize, len: usize) -> bool {
        let end = at.checked_add(len);
        end.is_some_and(|end| self.ranges().iter().all(|(_, range)| end <= range.start || at >= range.end))
    }

    /// Items and vault as they are.
    fn state(&self) -> (Vec<plib::Entry>, Vec<plib::Entry>, Vec<u8>) {
        let items = |heap: &TestHeap| heap.cache.scan().map(|entry| entry.unwrap()).collect();
        (items(&self.first), items(&self.second), self.places.vault_table())
    }

    fn unharmed(&self, when: &str) {
        unharmed(&self.first.cache, when);
        unharmed(&self.second.cache, when);
    }
}

impl Drop for Deputy {
    fn drop(&mut self) {
        // SAFETY: a handle from plib_open, closed once.
        unsafe { plib_close(self.cache) };
    }
}

/// Addresses at which `len` bytes touch the range: inside, and across either end; 8-byte aligned, as outputs must be.
fn touching(range: Range, len: usize) -> Vec<usize> {
    let mut all = vec![range.start, range.start.midpoint(range.end) & !7, range.end - 8];
    if len > 8 {
        all.push((range.start - len).next_multiple_of(8).max(range.start - len + 1) & !7);
    }
    if (2..=300).contains(&len) {
        // Keys and values may begin anywhere.
        all.extend([range.start + 1 - len, range.start - 1, range.end - 1, range.end - len]);
    }
    all.retain(|at| *at < range.end && at + len > range.start);
    all
}

/// Addresses from which `len` bytes reach round the end of memory.
fn wrapping(len: usize) -> Vec<usize> {
    let all = [usize::MAX, usize::MAX - len / 2, usize::MAX - 7].map(|at| at & !7);
    all.into_iter().filter(|at| at.checked_add(len - 1).is_none()).collect()
}

fn is_output(part: Part) -> bool {
    matches!(part, Number | Info | Requests)
}

#[test]
fn every_function_refuses_every_pointer_to_what_the_key_guards() {
    let _alone = alone();
    let deputy = Deputy::new();
    let mut memory = Memory::new(KEY);
    let right = memory.arguments(deputy.cache);
    // All of them work with memory of the caller's; the item is as before at the end.
    let refused = CALLS.iter().filter(|(_, parts, _)| *parts != [Requests]);
    // SAFETY: the arguments are right.
    refused.for_each(|(what, _, call)| assert_ne!(unsafe { call(&right) }, INVALID, "{what}"));
    deputy.first.cache.set(KEY, b"17", 3, 0).unwrap();
    let before = deputy.state();
    let (mut calls, mut faults) = (0, 0);
    for (what, parts, call) in CALLS {
        for part in parts.iter().copied() {
            let len = right.len(part);
            let inside = deputy
                .ranges()
                .into_iter()
                .flat_map(|(name, range)| touching(range, len).into_iter().map(move |at| (name, at)));
            let round = wrapping(len).into_iter().map(|at| ("the end of memory", at));
            for (name, at) in inside.chain(round) {
                let wrong = right.with(part, at);
                let place = format!("{what}, {part:?} of {len} bytes at {name} {at:#x}");
                if name == "other mapping" && is_output(part) {
                    // As the other heap.
                    continue;
                }
                if name == "other heap" && is_output(part) {
                    // An answer is written by the program's own code, with the key closed: what the library does not refuse, the
                    // key does. A forked child has that heap elsewhere.
                    let end = child(|| {
                        assert!(deputy.first.cache.get(KEY).is_ok() && deputy.second.cache.get(KEY).is_ok());
                        let start = mapping_of(&deputy.second.path).0.start;
                        // SAFETY: as below.
                        unsafe { call(&right.with(part, start.wrapping_add(at.wrapping_sub(deputy.other.heap.start)))) }
                    });
                    match end {
                        End::Fault { code: PKUERR, .. } => faults += 1,
                        // Before its start and behind its end nothing is mapped.
                        End::Fault { code: MAPERR, .. } if at < deputy.other.heap.start || part == Requests => {}
                        // What fails has no answer.
                        End::Told(1..=9) => {}
                        _ => panic!("{place}: {end:?}"),
                    }
                    continue;
                }
                // SAFETY: what the library makes of a pointer that is not the caller's to give is the test.
                assert_eq!(unsafe { call(&wrong) }, INVALID, "{place}");
                calls += 1;
            }
        }
    }
    deputy.first.cache.set(KEY, b"17", 3, 0).unwrap();
    let after = deputy.state();
    let plain = |items: &[plib::Entry]| items.iter().map(|e| (e.key.clone(), e.value.clone())).collect::<Vec<_>>();
    assert_eq!((plain(&before.0), plain(&before.1)), (plain(&after.0), plain(&after.1)));
    assert!(before.2 == after.2, "the vault's table has changed");
    deputy.unharmed("after all calls");
    report(format_args!(
        "{calls} pointers refused by {} functions, {faults} answers into a second heap: {before_len} items as before",
        CALLS.len(),
        before_len = before.0.len() + before.1.len()
    ));
    assert!(calls > 500 && faults > 10, "{calls} {faults}");
}

/// Words of an argument block that are pointers, each followed by its length; and what length is right.
fn pointers(operation: Operation) -> &'static [(usize, u64)] {
    use Operation::*;
    match operation {
        Attach => &[(0, size_of::<gate::Attach>() as u64)],
        Get | GetAndTouch => &[(0, 10), (2, 300)],
        Store => &[(0, 10), (2, 200)],
        Delete | Arith | Touch | BucketOf => &[(0, 10)],
        GetMany | SetMany | DeleteMany => &[(0, 2)],
        Scan => &[(0, 250), (2, 300)],
        Stats => &[(0, size_of::<plib_core::Stats>() as u64)],
        ClassStats => &[(0, size_of::<plib_core::ClassStats>() as u64)],
        Check => &[(0, size_of::<plib_core::CheckSummary>() as u64), (2, 4)],
        ClientInfo => &[(0, size_of::<plib_core::ClientInfo>() as u64)],
        Holding => &[(0, 8 * 14)],
        TellReads => &[(0, gate::READS_SIZE as u64)],
        Detach | FlushAll | Reap | IsGone | StartReading | StopReading => &[],
    }
}

/// Bytes of a finding as the gate tells it.
const FINDING: usize = 40;

/// Bytes that a length stands for.
fn bytes(operation: Operation, len: u64) -> usize {
    use Operation::*;
    let each = match operation {
        GetMany => size_of::<GetRequest>(),
        SetMany => size_of::<SetRequest>(),
        DeleteMany => size_of::<DeleteRequest>(),
        Check if len == 4 => FINDING,
        _ => 1,
    };
    each * len as usize
}

#[test]
fn the_gate_refuses_every_such_pointer_in_a_block_made_by_hand() {
    let _alone = alone();
    let deputy = Deputy::new();
    let mut memory = Memory::new(KEY);
    let mut room = vec![0u64; 1024];
    let before = deputy.state();
    let mut calls = 0;
    for operation in Operation::ALL {
        for (word, len) in pointers(operation) {
            // All right but for one pointer.
            let mut right = [0; ARGUMENTS];
            for (word, len) in pointers(operation) {
                right[*word] =
                    if *word == 0 && *len == 10 { memory.key.as_ptr() as u64 } else { room.as_mut_ptr() as u64 };
                right[word + 1] = *len;
            }
            if operation == Operation::Holding || operation == Operation::ClientInfo {
                // Somebody who is there.
                right[2] = 0;
            }
            let heap = if operation == Operation::Attach { 7 } else { 0 };
            let len_bytes = bytes(operation, *len);
            let inside = deputy.ranges().into_iter().flat_map(|(_, range)| touching(range, len_bytes));
            for at in inside.chain(wrapping(len_bytes)) {
                let mut wrong = right;
                wrong[*word] = at as u64;
                let (seat, answer) = ask(operation as u32, heap, &wrong);
                assert!((seat as usize) < SEATS);
                let absent = operation == Operation::Holding && answer.status == Status::NotFound as u32;
                assert!(answer.status == INVALID || absent, "{operation:?} word {word} at {at:#x}: {answer:x?}");
                calls += 1;
            }
            // Lengths that reach round or over everything.
            for huge in [u64::MAX, u64::MAX / 2, 1 << 62, 1 << 47] {
                let mut wrong = right;
                wrong[word + 1] = huge;
                if deputy.is_clear_of(right[*word] as usize, bytes(operation, 1).saturating_mul(huge as usize)) {
                    // Memory above all that is guarded may be as long as it likes.
                    continue;
                }
                let (_, answer) = ask(operation as u32, heap, &wrong);
                let refused = [INVALID, Status::Key as u32, Status::TooLarge as u32, Status::NotFound as u32];
                assert!(refused.contains(&answer.status), "{operation:?} word {word} of {huge:#x} bytes: {answer:x?}");
                calls += 1;
            }
        }
    }
    assert!(deputy.state() == before, "something has changed");
    // Numbers that mean nothing.
    let mut strange = 0;
    for operation in (Operation::ALL.len() as u32..300).chain([u32::MAX, 1 << 31]) {
        assert_eq!(ask(operation, 0, &[]).1.status, INVALID, "operation {operation}");
        strange += 1;
    }
    let key = [memory.key.as_ptr() as u64, 10, memory.buffer.as_mut_ptr() as u64, 300];
    for heap in (3..200).chain([u32::MAX, 1 << 31, 64, 65]) {
        assert_eq!(ask(Operation::Get as u32, heap, &key).1.status, INVALID, "heap {heap}");
        assert_eq!(ask(Operation::Detach as u32, heap, &[]).1.status, INVALID, "heap {heap}");
        strange += 2;
    }
    // A block that lies behind the key or across its edge is neither read nor answered.
    for at in deputy
        .ranges()
        .into_iter()
        .flat_map(|(_, range)| touching(range, size_of::<gate::Block>()))
        .chain(wrapping(176))
    {
        // SAFETY: the gate must not touch it.
        let seat = unsafe { ground::gate()(at as *mut gate::Block, 0) }.seat;
        assert!((seat as usize) < SEATS, "{at:#x}");
        strange += 1;
    }
    assert!(deputy.state() == before, "something has changed");
    // The twin: the same block with the caller's own memory is answered.
    assert_eq!(ask(Operation::Get as u32, 0, &key).1.status, 0);
    assert_eq!(&memory.buffer[..2], b"17");
    deputy.unharmed("after all blocks");
    report(format_args!(
        "{calls} blocks with one wrong pointer or length, {strange} with strange numbers or in strange places"
    ));
    assert!(calls > 400 && strange > 600);
}

#[test]
fn an_attach_by_hand_to_what_is_no_mapping_of_a_heap_changes_nothing() {
    let _alone = alone();
    let deputy = Deputy::new();
    let before = deputy.state();
    let fake = map(libc::PROT_READ | libc::PROT_WRITE, false) as usize;
    let mut tried = 0;
    for (base, len) in [
        (deputy.places.vault.start, 8 << 20),
        (deputy.places.heap.start + 4096, 8 << 20),
        (deputy.places.heap.start, usize::MAX),
        (fake, SIZE),
        (deputy.places.heap.start - (4 << 20), 8 << 20),
        (fake + 1, SIZE),
    ] {
        for slot in [0, 1, u32::MAX] {
            let wanted = gate::Attach {
                base,
                len,
                boot_id: [0; 2],
                start_time: 0,
                pid_namespace: 0,
                lock_byte: 0,
                pid: 1,
                slot,
                lock_fd: -1,
                pad: 0,
            };
            let words = [(&raw const wanted) as u64, size_of::<gate::Attach>() as u64];
            let (_, answer) = ask(Operation::Attach as u32, 9, &words);
            assert!(answer.status != 0 && answer.status != UNANSWERED, "{base:#x} {len:#x} {slot}: {answer:x?}");
            // A place that is taken stays as it is.
            for place in [0, 64, u32::MAX] {
                let (_, answer) = ask(Operation::Attach as u32, place, &words);
                assert!([INVALID, Status::Full as u32].contains(&answer.status));
            }
            tried += 4;
        }
    }
    let after = deputy.state();
    assert!((before.0, before.1) == (after.0, after.1), "items have changed");
    deputy.unharmed("after attaching");
    report(format_args!("{tried} attachments by hand refused"));
}

#[test]
fn pointers_to_nothing_end_the_process_and_leave_nothing_held() {
    let _alone = alone();
    let deputy = Deputy::new();
    let mut memory = Memory::new(KEY);
    let right = memory.arguments(deputy.cache);
    // Low addresses are not given out by the kernel unless asked for.
    let nowhere = 0x20_0000;
    let closed = map(libc::PROT_NONE, false) as usize;
    let read_only = map(libc::PROT_READ, false) as usize;
    let half = map(libc::PROT_READ | libc::PROT_WRITE, false) as usize;
    // SAFETY: the pages were just mapped, and nobody knows of them.
    assert_eq!(unsafe { libc::mprotect((half + SIZE / 2) as *mut c_void, SIZE / 2, libc::PROT_NONE) }, 0);
    let mut died = 0;
    for (what, parts, call) in CALLS {
        for part in parts.iter().copied() {
            let mut places = vec![nowhere, closed, half + SIZE / 2 - 8];
            if matches!(part, Buffer | Number | Info) {
                places.push(read_only);
            }
            for at in places {
                if at == half + SIZE / 2 - 8 && part == Number {
                    // Eight bytes fit.
                    continue;
                }
                // SAFETY: what happens is what is tested.
                let end = child(|| unsafe { call(&right.with(part, at)) });
                match end {
                    // After the call in the program's own function, or in the call: then its handler is not asked.
                    End::Fault { code: MAPERR | ACCERR, .. } | End::Other(libc::SIGSEGV) => died += 1,
                    // What is not needed is not touched: an append to nothing, an answer that there is none.
                    End::Told(status) => {
                        assert!((1..=8).contains(&status) || status == 0 && part == Buffer, "{what} {part:?}: {status}")
                    }
                    _ => panic!("{what} {part:?}: {end:?}"),
                }
                // Nobody waits for the dead.
                let started = std::time::Instant::now();
                deputy.first.cache.set(KEY, b"17", 3, 0).expect("the key's bucket is free");
                assert!(started.elapsed().as_secs() < 2, "{what} {part:?}");
            }
        }
    }
    deputy.unharmed("after the deaths");
    report(format_args!("{died} processes died of their own pointers, inside the gate or after it"));
    assert!(died > 50, "{died}");
    assert_eq!(deputy.second.cache.get(b"secret").unwrap().unwrap().value, SECRET);
}
