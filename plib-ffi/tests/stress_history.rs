//! What several processes do to the same keys at the same time is recorded; each key's history must
//! have an explanation as a sequence (linearizability).

mod support;

use std::sync::atomic::Ordering::SeqCst;
use std::sync::atomic::fence;

use plib::{Cache, Error, Status};
use plib_model::history::{Content, Did, Event, Swapped, appended, explain};
use support::child::{Link, spawn};
use support::heap::TestHeap;
use support::page::Page;
use support::rng::Rng;
use support::{report, scaled};

const PROCESSES: usize = 3;
/// Operations of one process on one key.
const OPS: usize = 24;
/// Keys of one round; each is new, so that a history begins with nothing.
const KEYS: usize = 2;

/// A clock that all processes share, in ns, read between fences: a store may stay in the processor's
/// store buffer for some 100 ns after its operation returned. Nobody but a clock can tell, since what
/// the process says to others by memory waits in the same buffer.
fn clock() -> u64 {
    fence(SeqCst);
    let now = read_clock();
    fence(SeqCst);
    now
}

fn read_clock() -> u64 {
    let mut now = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: `now` is a place for the time.
    assert_eq!(unsafe { libc::clock_gettime(libc::CLOCK_MONOTONIC, &mut now) }, 0);
    now.tv_sec as u64 * 1_000_000_000 + now.tv_nsec as u64
}

/// Values are numbered pieces of 8 bytes, then filler that depends on the number; a value that is
/// torn shows as content that nobody stored.
fn value(piece: u64, words: usize) -> Vec<u8> {
    (0..=words as u64).flat_map(|w| (piece ^ w << 48).to_le_bytes()).collect()
}

/// The content that a value stands for: all of its words count.
fn content(value: &[u8], words: usize) -> Content {
    assert_eq!(value.len() % (8 * (words + 1)), 0, "a value of {} bytes", value.len());
    let pieces = value.chunks(8 * (words + 1)).map(|piece| {
        let word = |w: usize| u64::from_le_bytes(piece[w * 8..w * 8 + 8].try_into().unwrap());
        let number = word(0);
        assert!((0..=words).all(|w| word(w) == number ^ (w as u64) << 48), "a torn piece");
        number
    });
    pieces.reduce(appended).unwrap_or(0)
}

struct Recorder {
    cache: Cache,
    rng: Rng,
    me: u64,
    pieces: u64,
    words: usize,
    /// The last content seen of each key, and its cas.
    seen: [(Content, u64); KEYS],
}

impl Recorder {
    fn operate(&mut self, key: &[u8], place: usize) -> Result<Did, Error> {
        self.pieces += 1;
        let piece = (self.me + 1) << 32 | self.pieces;
        let bytes = value(piece, self.words);
        let stored = |outcome: Result<u64, Error>| match outcome {
            Ok(_) => Ok(true),
            Err(e) if e.status() == Status::NotStored => Ok(false),
            Err(e) => Err(e),
        };
        Ok(match self.rng.below(16) {
            0..6 => {
                let item = self.cache.get(key)?;
                let seen = item.map_or((0, 0), |i| (content(&i.value, self.words), i.cas));
                self.seen[place] = seen;
                Did::Get(seen.0)
            }
            6..9 => {
                self.cache.set(key, &bytes, 0, 0)?;
                Did::Set(piece)
            }
            9 => Did::Add(piece, stored(self.cache.add(key, &bytes, 0, 0))?),
            10 => Did::Replace(piece, stored(self.cache.replace(key, &bytes, 0, 0))?),
            11..13 => Did::Append(piece, stored(self.cache.append(key, &bytes))?),
            13 => Did::Delete(self.cache.delete(key)?),
            _ if self.seen[place].0 == 0 => return self.operate(key, place),
            _ => {
                let (old, cas) = self.seen[place];
                let swapped = match self.cache.compare_and_swap(key, &bytes, 0, 0, cas) {
                    Ok(_) => Swapped::Yes,
                    Err(e) if e.status() == Status::Exists => Swapped::Other,
                    Err(e) if e.status() == Status::NotFound => Swapped::Nothing,
                    Err(e) => return Err(e),
                };
                Did::Swap(old, piece, swapped)
            }
        })
    }
}

/// Waits until all processes are at this round.
fn meet(page: &Page, round: u64) {
    page.word(0).fetch_add(1, SeqCst);
    while page.word(0).load(SeqCst) < (round + 1) * PROCESSES as u64 {
        std::thread::yield_now();
    }
}

fn recorder(link: &mut Link, args: &[String]) {
    let page = Page::open(args[1].as_ref());
    let (me, rounds): (u64, u64) = (args[2].parse().unwrap(), args[3].parse().unwrap());
    let mut recorder = Recorder {
        cache: Cache::open(&args[0]).expect("open"),
        rng: Rng::new(me + 30),
        me,
        pieces: 0,
        words: args[4].parse().unwrap(),
        seen: [(0, 0); KEYS],
    };
    for round in 0..rounds {
        let keys: Vec<_> = (0..KEYS).map(|k| format!("{round}/{k}").into_bytes()).collect();
        recorder.seen = [(0, 0); KEYS];
        let mut events = vec![Vec::new(); KEYS];
        if me == 0 && round > 1 {
            // Nobody uses these keys any more; an eviction would have no explanation.
            let old: Vec<_> = (0..KEYS).map(|k| format!("{}/{k}", round - 2)).collect();
            recorder.cache.delete_many(&old).expect("delete");
        }
        meet(&page, round);
        while events.iter().any(|events| events.len() < OPS) {
            let place = recorder.rng.below(KEYS as u64) as usize;
            if events[place].len() == OPS {
                continue;
            }
            let start = clock();
            match recorder.operate(&keys[place], place) {
                Ok(did) => events[place].push(Event { start, end: clock(), did }),
                Err(e) => assert_eq!(e.status(), Status::Busy, "{e}"),
            }
        }
        link.send(&events);
    }
}

#[test]
#[ignore = "entry point of the child processes"]
fn child() {
    support::child::enter(&[("recorder", recorder)]);
}

fn histories(name: &str, rounds: u64, words: usize) {
    let heap = TestHeap::new(64 << 20);
    let page_path = heap.beside("page");
    Page::create(&page_path, 8);
    let mut children: Vec<_> = (0..PROCESSES)
        .map(|me| {
            let args = [me.to_string(), rounds.to_string(), words.to_string()];
            let page = page_path.to_str().unwrap();
            spawn("recorder", &[heap.path_text(), page, &args[0], &args[1], &args[2]])
        })
        .collect();
    let mut overlaps = 0;
    for round in 0..rounds {
        let mut histories = vec![Vec::new(); KEYS];
        for child in &mut children {
            let events: Vec<Vec<Event>> = child.link.receive().expect("a recorder failed");
            histories.iter_mut().zip(events).for_each(|(all, events)| all.extend(events));
        }
        for (key, mut history) in histories.into_iter().enumerate() {
            history.sort_by_key(|event| event.start);
            overlaps += history.windows(2).filter(|pair| pair[1].start < pair[0].end).count();
            explain(&history).unwrap_or_else(|e| {
                let evictions = heap.cache.stats().unwrap().evictions;
                panic!("{name}: key {round}/{key}, {evictions} evictions: {e}")
            });
        }
    }
    children.into_iter().for_each(|child| child.finish(60));
    heap.check(name);
    assert_eq!(heap.cache.stats().unwrap().evictions, 0, "the heap is too small for this test");
    let histories = rounds * KEYS as u64;
    report(format_args!("{name}: {histories} histories explained, {overlaps} overlapping pairs"));
    assert!(overlaps > 100, "the processes hardly met");
}

#[test]
fn small_values_have_linear_histories() {
    histories("small values", scaled(1_500, 200_000), 1);
}

#[test]
fn large_values_have_linear_histories() {
    histories("values of fragments", scaled(60, 10_000), 9_000);
}
