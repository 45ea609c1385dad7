//! What each process did to which key and when, in shared memory: so it is known of the killed as well.
//!
//! A journal is a list of entries. An operation is written down before it is called, and its answer afterwards:
//! ```text
//! state | start ns | end ns | seconds before, after | key, process | asked, 6 words | answer, 5 words
//! ```

use std::sync::atomic::Ordering::{Acquire, Relaxed, Release, SeqCst};
use std::sync::atomic::fence;

use plib_model::Window;
use plib_model::history::{Answer, Asked, Event};
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::page::Page;

// Places in an entry.
const STATE: usize = 0;
const START: usize = 1;
const END: usize = 2;
const SECONDS: usize = 3;
const WHO: usize = 4;
const ASKED: usize = 5;
const ANSWER: usize = 11;
const ENTRY: usize = 16;

// States of an entry.
const CALLED: u64 = 1;
const ANSWERED: u64 = 2;
const NOTHING_DONE: u64 = 3;
const DIED: u64 = 4;

/// The journal of one place in the crew; one process at a time writes it.
#[derive(Clone, Copy)]
pub struct Journal<'a> {
    page: &'a Page,
    base: usize,
    entries: usize,
}

/// Words that a journal of so many entries takes: one says how many are done.
pub const fn words(entries: usize) -> usize {
    1 + entries * ENTRY
}

/// Nanoseconds of a clock that all processes share, and the seconds that expiry goes by. Between fences: a store may stay in
/// the processor's store buffer for some 100 ns after its operation returned. Nobody but a clock can tell, since what the
/// process says to others by memory waits in the same buffer.
pub fn clocks() -> (u64, u32) {
    fence(SeqCst);
    let (now, coarse) = (read(libc::CLOCK_MONOTONIC), read(libc::CLOCK_REALTIME_COARSE));
    fence(SeqCst);
    (now.tv_sec as u64 * 1_000_000_000 + now.tv_nsec as u64, coarse.tv_sec as u32)
}

fn read(clock: libc::clockid_t) -> libc::timespec {
    let mut now = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: `now` is a place for the time.
    assert_eq!(unsafe { libc::clock_gettime(clock, &mut now) }, 0);
    now
}

impl<'a> Journal<'a> {
    /// The journal that starts at word `base` of the page.
    pub fn new(page: &'a Page, base: usize, entries: usize) -> Journal<'a> {
        Journal { page, base, entries }
    }

    /// How many entries are done.
    pub fn done(&self) -> usize {
        self.page.word(self.base).load(Acquire) as usize
    }

    /// Stores become visible in order, which is all that is asked of them.
    fn put(&self, entry: usize, place: usize, word: u64) {
        self.page.word(self.base + 1 + entry * ENTRY + place).store(word, Release);
    }

    fn get(&self, entry: usize, place: usize) -> u64 {
        self.page.word(self.base + 1 + entry * ENTRY + place).load(Acquire)
    }

    /// Whether there is no room for another entry.
    pub fn is_full(&self) -> bool {
        self.done() >= self.entries
    }

    /// Notes what is asked, does it, and notes the answer that the outcome is; none if it says that nothing was done.
    pub fn note<T>(
        &self,
        key: usize,
        who: u32,
        asked: Asked,
        act: impl FnOnce() -> T,
        answer: impl FnOnce(T) -> Option<Answer>,
    ) -> Option<Answer> {
        let entry = self.done();
        self.write(entry, ASKED, ANSWER, &asked);
        self.put(entry, WHO, (key as u64) << 32 | u64::from(who));
        let (start, earliest) = clocks();
        self.put(entry, START, start);
        self.put(entry, SECONDS, u64::from(earliest) << 32);
        self.put(entry, STATE, CALLED);
        let outcome = act();
        let (end, latest) = clocks();
        let answer = answer(outcome);
        self.put(entry, END, end);
        self.put(entry, SECONDS, u64::from(earliest) << 32 | u64::from(latest));
        if let Some(answer) = answer {
            self.write(entry, ANSWER, ENTRY, &answer);
        }
        self.put(entry, STATE, if answer.is_some() { ANSWERED } else { NOTHING_DONE });
        self.page.word(self.base).store(entry as u64 + 1, Release);
        answer
    }

    /// Ends the entry that a killed process left, if it was in an operation; the key of that. Its death must be known already.
    pub fn bury(&self) -> Option<usize> {
        let entry = self.done();
        let state = if entry < self.entries { self.get(entry, STATE) } else { 0 };
        if state == 0 {
            return None;
        }
        if state == CALLED {
            let (end, latest) = clocks();
            self.put(entry, END, end);
            self.put(entry, SECONDS, self.get(entry, SECONDS) >> 32 << 32 | u64::from(latest));
            self.put(entry, STATE, DIED);
        }
        self.page.word(self.base).store(entry as u64 + 1, Release);
        (state == CALLED).then(|| (self.get(entry, WHO) >> 32) as usize)
    }

    /// All events, each with its key; those that did nothing are left out.
    pub fn events(&self) -> Vec<(usize, Event)> {
        let entries = (0..self.done()).filter(|entry| self.get(*entry, STATE) != NOTHING_DONE);
        entries.map(|entry| self.event(entry)).collect()
    }

    fn event(&self, entry: usize) -> (usize, Event) {
        let answer = match self.get(entry, STATE) {
            ANSWERED => self.parse(entry, ANSWER, ENTRY),
            DIED => Answer::Died,
            state => panic!("entry {entry} of the journal is in state {state}"),
        };
        let (seconds, who) = (self.get(entry, SECONDS), self.get(entry, WHO));
        let event = Event {
            start: self.get(entry, START),
            end: self.get(entry, END),
            now: Window { earliest: (seconds >> 32) as u32, latest: seconds as u32 },
            who: who as u32,
            asked: self.parse(entry, ASKED, ANSWER),
            answer,
        };
        ((who >> 32) as usize, event)
    }

    fn write<T: Serialize>(&self, entry: usize, from: usize, to: usize, what: &T) {
        let mut bytes = [0; ENTRY * 8];
        let bytes = &mut bytes[..(to - from) * 8];
        postcard::to_slice(what, bytes).expect("an entry has room for it");
        for (place, word) in bytes.chunks_exact(8).enumerate() {
            let word = u64::from_le_bytes(word.try_into().unwrap());
            self.page.word(self.base + 1 + entry * ENTRY + from + place).store(word, Relaxed);
        }
    }

    fn parse<T: DeserializeOwned>(&self, entry: usize, from: usize, to: usize) -> T {
        let bytes: Vec<u8> = (from..to).flat_map(|place| self.get(entry, place).to_le_bytes()).collect();
        postcard::from_bytes(&bytes).expect("what was written")
    }
}
