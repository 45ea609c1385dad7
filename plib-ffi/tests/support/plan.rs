//! What processes that are going to be killed write down about their own keys, in words of a shared page: what each holds,
//! and what it is about to hold. So whoever audits the dead knows the two things that a key may hold.

use std::sync::atomic::Ordering::SeqCst;

use plib::{Cache, Status};

use super::page::Page;
use super::record::{self, Record};

/// Keys of each worker that hold records, then keys that hold numbers.
pub const RECORD_KEYS: usize = 40;
pub const NUMBER_KEYS: usize = 8;
pub const KEYS: usize = RECORD_KEYS + NUMBER_KEYS;
/// Most small items of each worker besides; many buckets' worth.
const GROWN_MAX: u64 = 20_000;
/// Most changes that may be under way in one worker: the members of its batches.
pub const PENDING: usize = 6;

// The journal of one worker, in words of the shared page.
pub const PROGRESS: usize = 0;
const GROWN: usize = 1;
pub const BUSY: usize = 2;
const SHRINKING: usize = 3;
/// The newest seq that this worker or one before it has used.
pub const NEWEST: usize = 4;
/// A counter for the test's own use: begun, and done.
pub const BEGUN: usize = 5;
pub const DONE: usize = 6;
const STATES: usize = 8;
const PLANS: usize = STATES + KEYS;
pub const JOURNAL: usize = PLANS + PENDING * 2;

/// What a key holds, in one word: 0 nothing; else a seq and how many records were put before it and behind it, or a number
/// plus 1. Of two states of records, the later one is the larger word.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Debug)]
pub struct State(pub u64);

impl State {
    pub const ABSENT: State = State(0);

    pub fn record(seq: u64) -> State {
        State(seq << 16)
    }

    pub fn seq(self) -> u64 {
        self.0 >> 16
    }

    pub fn prepended(self) -> u64 {
        self.0 >> 8 & 0xff
    }

    pub fn appended(self) -> u64 {
        self.0 & 0xff
    }

    pub fn with_prepended(self) -> State {
        State(self.0 + 0x100)
    }

    pub fn with_appended(self) -> State {
        State(self.0 + 1)
    }
}

/// Records that were put before others are numbered from here on.
const BEFORE: u32 = 1000;

/// A worker's journal: what it has committed, and what it is about to.
pub struct Journal<'a> {
    page: &'a Page,
    base: usize,
    worker: usize,
}

impl Journal<'_> {
    pub fn new(page: &Page, worker: usize) -> Journal<'_> {
        Journal { page, base: worker * JOURNAL, worker }
    }

    pub fn get(&self, place: usize) -> u64 {
        self.page.word(self.base + place).load(SeqCst)
    }

    pub fn put(&self, place: usize, word: u64) {
        self.page.word(self.base + place).store(word, SeqCst);
    }

    pub fn count(&self, place: usize) {
        self.page.word(self.base + place).fetch_add(1, SeqCst);
    }

    pub fn state(&self, key: usize) -> State {
        State(self.get(STATES + key))
    }

    pub fn plan(&self, slot: usize, key: usize, next: State) {
        self.put(PLANS + slot * 2 + 1, next.0);
        self.put(PLANS + slot * 2, key as u64 + 1);
    }

    pub fn settle(&self, slot: usize, key: usize, now: State) {
        self.put(STATES + key, now.0);
        self.put(PLANS + slot * 2, 0);
    }

    fn planned(&self, key: usize) -> Option<State> {
        let slot = (0..PENDING).find(|slot| self.get(PLANS + slot * 2) == key as u64 + 1)?;
        Some(State(self.get(PLANS + slot * 2 + 1)))
    }

    /// Compares all keys of a dead worker with its journal; what was under way may be done or not, and with `evicting` any
    /// key may be gone. The journal then says what is so. Returns how many changes were under way.
    pub fn audit(&self, cache: &Cache, evicting: bool, when: &str) -> u64 {
        let (mut under_way, worker) = (0, self.worker);
        for key in 0..KEYS {
            let now = seen(cache, &key_name(worker, key), key >= RECORD_KEYS);
            let (old, planned) = (self.state(key), self.planned(key));
            assert!(
                now == old || Some(now) == planned || evicting && now == State::ABSENT,
                "{when}: key {key} of worker {worker} was {old:?}, planned {planned:?}, is {now:?}"
            );
            self.put(STATES + key, now.0);
            under_way += u64::from(planned.is_some());
        }
        (0..PENDING).for_each(|slot| self.put(PLANS + slot * 2, 0));
        under_way
    }

    /// One step of small items in order, up to a number and down again, so that the index grows and chains come and go.
    pub fn grow_or_shrink(&self, cache: &Cache) {
        let (n, worker) = (self.get(GROWN), self.worker);
        match self.get(SHRINKING) {
            0 if n == GROWN_MAX => self.put(SHRINKING, 1),
            1 if n == 0 => self.put(SHRINKING, 0),
            0 => {
                let name = grown_name(worker, n);
                match cache.set(&name, &piece(&name, n + 1, 0, 0), 0, 0) {
                    Ok(_) => self.put(GROWN, n + 1),
                    Err(e) => assert_eq!(e.status(), Status::Busy, "grow: {e}"),
                }
            }
            _ => {
                self.put(GROWN, n - 1);
                match cache.delete(&grown_name(worker, n - 1)) {
                    Ok(_) => {}
                    Err(e) => assert_eq!(e.status(), Status::Busy, "shrink: {e}"),
                }
            }
        }
    }

    /// Looks for a sample of the small items.
    pub fn audit_grown(&self, cache: &Cache, when: &str) {
        let grown = self.get(GROWN);
        for n in (0..grown).rev().take(50).chain((0..grown).step_by(97)) {
            let name = grown_name(self.worker, n);
            assert_eq!(seen(cache, &name, false).seq(), n + 1, "{when}: a grown item is lost");
        }
    }
}

pub fn key_name(worker: usize, key: usize) -> Vec<u8> {
    format!("worker/{worker}/{key}").into_bytes()
}

fn grown_name(worker: usize, n: u64) -> Vec<u8> {
    format!("grown/{worker}/{n}").into_bytes()
}

/// A record that says which seq it belongs to and where in the value it is.
pub fn piece(name: &[u8], seq: u64, place: u64, len: usize) -> Vec<u8> {
    record::make(name, Record { writer: place as u32, seq }, len)
}

/// The record that turns `next` into what it says, put before the value.
pub fn piece_before(name: &[u8], next: State, len: usize) -> Vec<u8> {
    piece(name, next.seq(), u64::from(BEFORE) + next.prepended(), len)
}

/// The same, put behind it.
pub fn piece_behind(name: &[u8], next: State, len: usize) -> Vec<u8> {
    piece(name, next.seq(), next.appended(), len)
}

/// What the heap holds under `name`, read back into a state.
pub fn seen(cache: &Cache, name: &[u8], is_number: bool) -> State {
    match cache.get(name).expect("get") {
        Some(item) => read_state(name, &item.value, is_number),
        None => State::ABSENT,
    }
}

/// The state that a value shows; a value that is torn, mixed or another key's fails the test.
pub fn read_state(name: &[u8], value: &[u8], is_number: bool) -> State {
    if is_number {
        let text = String::from_utf8_lossy(value).trim_end().to_string();
        return State(text.parse::<u64>().expect("a number") + 1);
    }
    let records = record::read(name, value).unwrap_or_else(|e| panic!("{e}"));
    let before = records.iter().take_while(|record| record.writer > BEFORE).count();
    for (place, record) in records.iter().enumerate() {
        assert_eq!(record.seq, records[0].seq, "{}: two stores mixed", name.escape_ascii());
        let expected = if place < before { BEFORE as usize + before - place } else { place - before };
        assert_eq!(record.writer as usize, expected, "{}: pieces out of order", name.escape_ascii());
    }
    assert!(before < records.len(), "{}: pieces around nothing", name.escape_ascii());
    State(records[0].seq << 16 | (before as u64) << 8 | (records.len() - before - 1) as u64)
}
