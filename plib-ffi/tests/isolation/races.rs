//! What is checked is what is used: another thread changes argument blocks, requests and bytes while calls read them.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

use plib_core::gate::{Block, Operation};
use plib_core::{GetRequest, SetRequest, Status};

use crate::ground::{Places, alone, block, gate, guarded_heap, unharmed};
use crate::support::heap::TestHeap;
use crate::support::rng::Rng;
use crate::support::{report, scaled};

/// Bytes that a buffer may be used for; a canary follows.
const ROOM: usize = 40_000;
const CANARY: u64 = 0x0123_4567_89ab_cdef;
/// Lengths of values that the attacker names; behind them are some of keys.
const LENGTHS: [u64; 4] = [60, 100, 5_000, ROOM as u64];
const KEY_LENGTHS: [u64; 5] = [10, 1, 250, 8, 16];
/// All bytes of the attacker's values have this high half, those of keys `k`.
const MARK: u8 = 0xa0;

fn time() -> Duration {
    Duration::from_secs(scaled(2, 10))
}

/// Memory of the attacker's: values, which others' calls also write to, and keys. Every word of it is an atomic.
struct Buffers {
    values: Vec<Vec<AtomicU64>>,
    keys: Vec<Vec<AtomicU64>>,
}

impl Buffers {
    fn new() -> Self {
        let value = |n: usize| {
            let word = u64::from_ne_bytes([MARK + n as u8; 8]);
            (0..ROOM / 8).map(|_| AtomicU64::new(word)).chain([AtomicU64::new(CANARY)]).collect()
        };
        let key = |n: usize| (0..40).map(|_| AtomicU64::new(u64::from_ne_bytes([b'k' + n as u8; 8]))).collect();
        Self { values: (0..4).map(value).collect(), keys: (0..2).map(key).collect() }
    }

    fn value(&self, n: u64) -> u64 {
        self.values[n as usize % 4].as_ptr() as u64
    }

    fn key(&self, n: u64) -> u64 {
        self.keys[n as usize % 2].as_ptr() as u64
    }

    /// Changes some bytes.
    fn stir(&self, rng: &mut Rng) {
        let value = &self.values[rng.below(4) as usize];
        value[rng.below(ROOM as u64 / 8) as usize].store(u64::from_ne_bytes([MARK + rng.below(16) as u8; 8]), Relaxed);
        let key = &self.keys[rng.below(2) as usize];
        key[rng.below(3) as usize].store(u64::from_ne_bytes([b'k' + rng.below(3) as u8; 8]), Relaxed);
    }

    fn canaries_live(&self) -> bool {
        self.values.iter().all(|value| value[ROOM / 8].load(Relaxed) == CANARY)
    }
}

/// Places that no pointer may lead to.
fn forbidden(places: &Places, n: u64) -> u64 {
    let all =
        [places.heap.start + (1 << 20), places.vault.start, places.keyed_stack(0).end - 4096, places.heap.end - 50];
    all[n as usize % 4] as u64
}

/// Writes a word that somebody else is using.
fn flip(word: *const u64, value: u64) {
    // SAFETY: aligned words of memory that outlives both threads, which the other side reads by racing copies only.
    unsafe { AtomicU64::from_ptr(word.cast_mut()) }.store(value, Relaxed);
}

/// Every item but the secret is the attacker's bytes in the attacker's lengths.
fn items_are_whole(heap: &TestHeap) -> usize {
    let mut seen = 0;
    for item in heap.cache.scan().map(|item| item.unwrap()).filter(|item| item.key != b"secret") {
        assert!(KEY_LENGTHS.contains(&(item.key.len() as u64)), "a key of {} bytes", item.key.len());
        assert!(item.key.iter().all(|byte| (b'k'..b'n').contains(byte)), "{:x?}", item.key);
        assert!(LENGTHS.contains(&(item.value.len() as u64)), "a value of {} bytes", item.value.len());
        assert!(item.value.iter().all(|byte| byte & 0xf0 == MARK), "bytes of another's");
        // It is found where it was put, under the key that it has.
        assert_eq!(heap.cache.get(&item.key).unwrap().expect("the item").value, item.value);
        seen += 1;
    }
    seen
}

/// Runs `attack` in a thread again and again while `call` is made here; how often both were.
fn race(attack: impl Fn(&mut Rng) + Send + Sync, mut call: impl FnMut(u64)) -> (u64, u64) {
    let (stop, flips) = (AtomicBool::new(false), AtomicU64::new(0));
    let mut calls = 0;
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let mut rng = Rng::new(1);
            while !stop.load(Relaxed) {
                (0..64).for_each(|_| attack(&mut rng));
                flips.fetch_add(64, Relaxed);
            }
        });
        let start = Instant::now();
        while start.elapsed() < time() {
            (0..16).for_each(|n| call(calls + n));
            calls += 16;
        }
        stop.store(true, Relaxed);
    });
    (calls, flips.into_inner())
}

/// An address that threads may share.
#[derive(Clone, Copy)]
struct Shared(*mut u64);
// SAFETY: it is used by `flip` and by the gate, both of which race as they should.
unsafe impl Send for Shared {}
// SAFETY: as above.
unsafe impl Sync for Shared {}

impl Shared {
    fn word(self, n: usize) -> *const u64 {
        self.0.wrapping_add(n)
    }
}

#[test]
fn a_block_that_changes_under_a_call_is_read_once() {
    let _alone = alone();
    let heap = guarded_heap();
    let places = Places::of(&heap.path);
    let buffers = Buffers::new();
    let words = [buffers.key(0), 10, buffers.value(0), 100, 0, 0, 0, 0];
    let mut shared = Box::new(block(Operation::Store as u32, 0, &words));
    let shared = Shared((&raw mut *shared).cast());
    // The first word is operation and heap, eight arguments follow.
    let operation = |operation: Operation| operation as u64;
    let attack = |rng: &mut Rng| {
        let n = rng.next() >> 33;
        match rng.below(8) {
            0 => flip(
                shared.word(0),
                [
                    operation(Operation::Store),
                    operation(Operation::Store),
                    operation(Operation::Get),
                    operation(Operation::Delete),
                ][n as usize % 4],
            ),
            1 => flip(shared.word(1), if n.is_multiple_of(16) { forbidden(&places, n / 16) } else { buffers.key(n) }),
            2 => flip(shared.word(2), if n.is_multiple_of(16) { 251 + n } else { KEY_LENGTHS[n as usize % 5] }),
            3 => flip(shared.word(3), if n.is_multiple_of(8) { forbidden(&places, n / 8) } else { buffers.value(n) }),
            4 => flip(shared.word(4), if n.is_multiple_of(16) { u64::MAX - n } else { LENGTHS[n as usize % 4] }),
            // Set, add, replace: what is appended would add up.
            5 => flip(shared.word(5), n % 3),
            _ => buffers.stir(rng),
        }
    };
    let mut seen = [0u64; 32];
    let call = |_| {
        let block: *mut Block = shared.0.cast();
        // SAFETY: the block is ours, though it changes; what it says is the test's matter.
        let status = unsafe {
            gate()(block, 0);
            (&raw const (*block).answer.status).read_volatile()
        };
        seen[status as usize % 32] += 1;
    };
    let (calls, flips) = race(attack, call);
    let items = items_are_whole(&heap);
    assert!(buffers.canaries_live());
    unharmed(&heap.cache, "after the race");
    let (done, refused) = (seen[0], seen[Status::Invalid as usize]);
    report(format_args!(
        "{calls} calls ({done} done, {refused} refused) while {flips} words were changed; {items} items whole"
    ));
    assert!(done > 500 && refused > 50 && flips > 10_000 && items > 0, "{seen:?}");
}

#[test]
fn requests_that_change_under_a_batch_are_read_once() {
    let _alone = alone();
    let heap = guarded_heap();
    let places = Places::of(&heap.path);
    let buffers = Buffers::new();
    const COUNT: usize = 8;
    let set = SetRequest {
        key: buffers.key(0) as *const u8,
        key_len: 10,
        value: buffers.value(0) as *const u8,
        value_len: 100,
        exptime: 0,
        cas: 0,
        flags: 0,
        status: 0,
    };
    let get = GetRequest {
        key: set.key,
        key_len: 10,
        buf: buffers.value(1) as *mut u8,
        buf_len: ROOM,
        value_len: 0,
        cas: 0,
        flags: 0,
        expiry: 0,
        status: 0,
        pad: 0,
    };
    let (mut sets, mut gets) = (vec![set; COUNT], vec![get; COUNT]);
    let (sets, gets) = (Shared(sets.as_mut_ptr().cast()), Shared(gets.as_mut_ptr().cast()));
    const SET_WORDS: usize = size_of::<SetRequest>() / 8;
    const GET_WORDS: usize = size_of::<GetRequest>() / 8;
    // Both begin with key, its length, value or buffer, its length.
    let attack = |rng: &mut Rng| {
        let n = rng.next() >> 33;
        let which = rng.below(COUNT as u64) as usize;
        let at = if rng.once_in(3) { gets.word(which * GET_WORDS) } else { sets.word(which * SET_WORDS) };
        match rng.below(6) {
            0 => flip(at, if n.is_multiple_of(16) { forbidden(&places, n / 16) } else { buffers.key(n) }),
            1 => flip(at.wrapping_add(1), if n.is_multiple_of(16) { 251 + n } else { KEY_LENGTHS[n as usize % 5] }),
            2 => {
                flip(at.wrapping_add(2), if n.is_multiple_of(8) { forbidden(&places, n / 8) } else { buffers.value(n) })
            }
            3 => flip(at.wrapping_add(3), if n.is_multiple_of(16) { u64::MAX - n } else { LENGTHS[n as usize % 4] }),
            _ => buffers.stir(rng),
        }
    };
    let (mut done, mut refused) = (0u64, 0u64);
    let call = |n: u64| {
        let (operation, requests, words, status) = match n % 3 {
            0 => (Operation::GetMany, gets, GET_WORDS, size_of::<GetRequest>() - 8),
            _ => (Operation::SetMany, sets, SET_WORDS, size_of::<SetRequest>() - 4),
        };
        let mut block = block(operation as u32, 0, &[requests.0 as u64, COUNT as u64]);
        // SAFETY: block and requests are ours, though the latter change.
        unsafe { gate()(&mut block, 0) };
        assert_eq!(block.answer.status, 0);
        for request in 0..COUNT {
            // SAFETY: the status of a request, which only calls write.
            let status =
                unsafe { requests.word(request * words).cast::<u8>().add(status).cast::<u32>().read_volatile() };
            done += u64::from(status == 0);
            refused += u64::from(status == Status::Invalid as u32);
        }
    };
    let (calls, flips) = race(attack, call);
    let items = items_are_whole(&heap);
    assert!(buffers.canaries_live());
    unharmed(&heap.cache, "after the race");
    report(format_args!(
        "{calls} batches of {COUNT} ({done} done, {refused} refused) while {flips} words were changed; {items} items whole"
    ));
    assert!(done > 500 && refused > 50 && flips > 10_000 && items > 0);
}

#[test]
fn the_race_is_real_for_who_reads_twice() {
    let len = AtomicU64::new(8);
    let mut torn = 0;
    let attack = |rng: &mut Rng| len.store([8, u64::MAX][rng.below(2) as usize], Relaxed);
    let naive = |_| {
        if len.load(Relaxed) <= 64 {
            // The copy that would follow takes the length from the caller's memory again.
            (0..20).for_each(|_| std::hint::spin_loop());
            torn += u64::from(len.load(Relaxed) > 64);
        }
    };
    let (calls, flips) = race(attack, naive);
    report(format_args!("{torn} of {calls} checks by a naive reader were for nothing, {flips} changes"));
    assert!(torn > 10);
}
