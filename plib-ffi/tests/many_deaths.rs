//! Eight processes that do all operations at once are killed at random, one or several at a moment, hundreds of times. What is
//! checked on the way and, more closely, whenever all of them are dead: each value belongs to its key, each key holds what
//! its owner's journal says or what was under way, no reader ever goes back in time, and every block, superblock, lock and
//! counter is accounted for.

mod support;

use std::path::PathBuf;
use std::sync::atomic::Ordering::{Relaxed, SeqCst};
use std::time::{Duration, Instant};

use plib::{Cache, CreateOptions, Error, Status};
use support::child::{Child, Link, spawn};
use support::heap::{MODES, TestHeap};
use support::page::Page;
use support::plan::{
    BEGUN, BUSY, DONE, JOURNAL, Journal, KEYS, NEWEST, NUMBER_KEYS, PENDING, PROGRESS, RECORD_KEYS, State, key_name,
    piece, piece_before, piece_behind, read_state, seen,
};
use support::record::{self, RECORD_MIN};
use support::rng::Rng;
use support::{exhaustive, report, scaled, wait_until};

const WRITERS: usize = 4;
const CREW: usize = 8;
/// What each place in the crew does.
const ROLES: [&str; CREW] = ["writer", "writer", "writer", "writer", "setter", "setter", "reader", "visitor"];
/// Keys that all writers write; in a heap that is too small many more, which fill it.
const COMMON_KEYS: u64 = 24;
const FILLING_KEYS: u64 = 4_000;
/// A number that only goes up, by all writers.
const SUM: &[u8] = b"sum";

/// The words of the page behind the journals.
const FLUSH_WANTED: usize = CREW * JOURNAL;
const PAGE: usize = FLUSH_WANTED + 8;

/// What all members of the crew have.
struct Member<'a> {
    cache: Cache,
    page: &'a Page,
    journal: Journal<'a>,
    me: usize,
    rng: Rng,
    /// Whether the heap is too small, so that anything may be gone.
    evicting: bool,
}

/// Whether a condition held; None for BUSY, when nothing was changed.
fn held(outcome: Result<bool, Error>) -> Option<bool> {
    match outcome {
        Ok(held) => Some(held),
        Err(e) => match e.status() {
            Status::Busy => None,
            Status::NotStored | Status::NotFound => Some(false),
            _ => panic!("{e}"),
        },
    }
}

impl Member<'_> {
    fn common_key(&mut self) -> Vec<u8> {
        let keys = if self.evicting { FILLING_KEYS } else { COMMON_KEYS };
        format!("common/{}", self.rng.below(keys)).into_bytes()
    }

    fn own_record(&mut self) -> (usize, Vec<u8>, State) {
        let key = self.rng.below(RECORD_KEYS as u64) as usize;
        (key, key_name(self.me, key), self.journal.state(key))
    }

    /// Mostly small, at times of several fragments.
    fn len(&mut self) -> usize {
        let most = if self.rng.once_in(6) { 200_000 } else { 600 };
        self.rng.size(most).max(RECORD_MIN)
    }

    /// The state after a store that begins anew.
    fn fresh(&self) -> State {
        let seq = self.journal.get(NEWEST) + 1;
        self.journal.put(NEWEST, seq);
        State::record(seq)
    }

    /// Notes the plan, acts, notes the outcome. The condition holds exactly if `expected`, except that in a heap that
    /// evicts a key may be gone.
    fn change(&self, key: usize, next: State, expected: bool, act: impl FnOnce() -> Result<bool, Error>) {
        let old = self.journal.state(key);
        self.journal.plan(0, key, next);
        let now = match held(act()) {
            None => {
                self.journal.count(BUSY);
                old
            }
            Some(true) => {
                assert!(expected || self.evicting, "key {key}: {old:?} became {next:?}");
                next
            }
            Some(false) => {
                assert!(!expected || self.evicting, "key {key}: {old:?} was refused {next:?}");
                // Refused because it is gone, or (add) because it is there.
                if expected { State::ABSENT } else { old }
            }
        };
        self.journal.settle(0, key, now);
    }

    /// One key's item must be what the journal says.
    fn compare(&self, key: usize, now: State) {
        let old = self.journal.state(key);
        assert!(now == old || self.evicting && now == State::ABSENT, "key {key}: journal {old:?}, heap {now:?}");
    }

    fn change_record(&mut self) {
        let (key, name, state) = self.own_record();
        let (there, len) = (state != State::ABSENT, self.len());
        let cache = &self.cache;
        let fresh = self.fresh();
        let value = piece(&name, fresh.seq(), 0, len);
        match self.rng.below(16) {
            0 => self.add(key, &name, &value, fresh, there),
            1 => self.change(key, fresh, there, || cache.replace(&name, &value, 0, 0).map(|_| true)),
            2..4 if there && state.appended() < 4 => {
                let next = state.with_appended();
                let more = piece_behind(&name, next, len.min(20_000));
                self.change(key, next, true, || cache.append(&name, &more).map(|_| true));
            }
            4..6 if there && state.prepended() < 4 => {
                let next = state.with_prepended();
                let more = piece_before(&name, next, len.min(20_000));
                self.change(key, next, true, || cache.prepend(&name, &more).map(|_| true));
            }
            6 => self.change(key, State::ABSENT, there, || cache.delete(&name)),
            7 => self.change(key, State::ABSENT, there, || cache.touch(&name, -1)),
            8 => self.change(key, state, there, || cache.touch(&name, 100_000)),
            9 => self.change(key, state, there, || {
                let item = cache.get_and_touch(&name, 0)?;
                if let Some(item) = &item {
                    self.compare(key, read_state(&name, &item.value, false));
                }
                Ok(item.is_some())
            }),
            10 | 11 if there => {
                let Some(item) = cache.get(&name).expect("get") else {
                    return self.compare(key, State::ABSENT);
                };
                self.compare(key, read_state(&name, &item.value, false));
                match self.rng.once_in(3) {
                    true => self.change(key, State::ABSENT, true, || cache.delete_if(&name, item.cas)),
                    false => self.change(key, fresh, true, || {
                        cache.compare_and_swap(&name, &value, 0, 0, item.cas).map(|_| true)
                    }),
                }
            }
            _ => self.change(key, fresh, true, || cache.set(&name, &value, 0, 0).map(|_| true)),
        }
    }

    /// add is refused if the key is there.
    fn add(&self, key: usize, name: &[u8], value: &[u8], fresh: State, there: bool) {
        if !there {
            return self.change(key, fresh, true, || self.cache.add(name, value, 0, 0).map(|_| true));
        }
        self.journal.plan(0, key, fresh);
        let added = held(self.cache.add(name, value, 0, 0).map(|_| true)) == Some(true);
        assert!(!added || self.evicting, "key {key}: added although it was there");
        self.journal.settle(0, key, if added { fresh } else { self.journal.state(key) });
    }

    fn change_number(&mut self) {
        let key = RECORD_KEYS + self.rng.below(NUMBER_KEYS as u64) as usize;
        let (name, state) = (key_name(self.me, key), self.journal.state(key));
        let cache = &self.cache;
        if state == State::ABSENT {
            return self.add(key, &name, b"97", State(98), false);
        }
        let down = self.rng.once_in(4);
        let next = State(if down { (state.0 - 1).max(1) } else { state.0 + 1 });
        self.change(key, next, true, || {
            let counted = if down { cache.decrement(&name, 1)? } else { cache.increment(&name, 1)? };
            if let Some(number) = counted {
                assert_eq!(number + 1, next.0, "a number of mine");
            }
            Ok(counted.is_some())
        });
    }

    /// Every member of a batch is old or new, each for itself.
    fn change_batch(&mut self) {
        let first = self.rng.below((RECORD_KEYS - PENDING) as u64) as usize;
        let names: Vec<_> = (0..PENDING).map(|m| key_name(self.me, first + m)).collect();
        if self.rng.once_in(4) {
            (0..PENDING).for_each(|m| self.journal.plan(m, first + m, State::ABSENT));
            let removed = self.cache.delete_many(&names);
            for m in 0..PENDING {
                let old = self.journal.state(first + m);
                let now = match &removed {
                    Ok(removed) => {
                        assert!(removed[m] == (old != State::ABSENT) || self.evicting, "delete_many of {old:?}");
                        State::ABSENT
                    }
                    // Some were busy; which, the heap says.
                    Err(e) if e.status() == Status::Busy => seen(&self.cache, &names[m], false),
                    Err(e) => panic!("delete_many: {e}"),
                };
                assert!(now == State::ABSENT || now == old);
                self.journal.settle(m, first + m, now);
            }
            return;
        }
        let next = self.fresh();
        let items: Vec<_> = names.iter().map(|n| (n, piece(n, next.seq(), 0, self.rng.size(3_000)))).collect();
        (0..PENDING).for_each(|m| self.journal.plan(m, first + m, next));
        let stored = self.cache.set_many(&items, 0, 0).expect("set_many");
        for (m, outcome) in stored.into_iter().enumerate() {
            let stored = held(outcome.map(|_| true)) == Some(true);
            self.journal.settle(m, first + m, if stored { next } else { self.journal.state(first + m) });
        }
    }

    fn read_batch(&mut self) {
        let keys: Vec<_> = (0..16).map(|_| self.rng.below(RECORD_KEYS as u64) as usize).collect();
        let names: Vec<_> = keys.iter().map(|key| key_name(self.me, *key)).collect();
        let items = self.cache.get_many(&names).expect("get_many");
        for ((key, name), item) in keys.iter().zip(&names).zip(items) {
            self.compare(*key, item.map_or(State::ABSENT, |item| read_state(name, &item.value, false)));
        }
    }

    /// Keys that everybody writes: any whole value will do.
    fn change_common(&mut self) {
        let name = self.common_key();
        let len = if self.evicting { self.rng.size(300_000) } else { self.len() };
        let value = piece(&name, self.rng.next() >> 20, 0, len);
        let cache = &self.cache;
        held(match self.rng.below(8) {
            0 => cache.add(&name, &value, 0, 0).map(|_| true),
            1 => cache.replace(&name, &value, 0, 1_000).map(|_| true),
            2 => cache.delete(&name),
            3 => cache.touch(&name, 0),
            4 => cache.append(&name, &piece(&name, 7, 1, RECORD_MIN)).map(|_| true),
            _ => cache.set(&name, &value, 0, 0).map(|_| true),
        });
    }

    fn count_together(&mut self) {
        self.journal.count(BEGUN);
        while self.cache.increment_or(SUM, 1, 1, 0).is_err_and(|e| e.status() == Status::Busy) {}
        self.journal.count(DONE);
    }

    /// A flush whose time never comes: it removes nothing, but from then on nothing takes the fast path.
    fn flush_nothing(&self) {
        if self.page.word(FLUSH_WANTED).swap(0, SeqCst) != 0 {
            self.cache.flush_all(2_000_000).expect("flush_all");
        }
    }

    fn write_something(&mut self) {
        match self.rng.below(32) {
            0..12 if self.evicting => self.change_common(),
            0..16 => self.change_record(),
            16..20 => self.change_number(),
            20 | 21 => self.change_batch(),
            22 => self.read_batch(),
            23..26 if !self.evicting => self.journal.grow_or_shrink(&self.cache),
            26..29 => self.change_common(),
            29 => self.count_together(),
            30 => self.flush_nothing(),
            _ => {
                let (key, name, _) = self.own_record();
                self.compare(key, seen(&self.cache, &name, false));
            }
        }
    }

    /// A value that somebody else owns or all do.
    fn examine(&self, name: &[u8], value: &[u8], newest: &mut [State]) {
        let text = String::from_utf8_lossy(name);
        let mut parts = text.split('/');
        let (Some("worker"), Some(worker), Some(key)) = (parts.next(), parts.next(), parts.next()) else {
            if name != SUM {
                record::read(name, value).unwrap_or_else(|e| panic!("{e}"));
            }
            return;
        };
        let (worker, key): (usize, usize) = (worker.parse().unwrap(), key.parse().unwrap());
        let now = read_state(name, value, key >= RECORD_KEYS);
        if key < RECORD_KEYS {
            let last = &mut newest[worker * KEYS + key];
            assert!(now >= *last, "{text}: {now:?} was read after {last:?}");
            *last = now;
        }
    }

    fn read_something(&mut self, newest: &mut [State], cursor: &mut u64) {
        match self.rng.below(8) {
            0 => {
                let mut scan = self.cache.scan_from(*cursor);
                for entry in scan.by_ref().take(20) {
                    let entry = entry.expect("scan");
                    self.examine(&entry.key, &entry.value, newest);
                }
                *cursor = scan.cursor();
                *cursor = if scan.next().is_none() { 0 } else { *cursor };
            }
            1 => {
                let worker = self.rng.below(WRITERS as u64) as usize;
                let names: Vec<_> = (0..RECORD_KEYS).step_by(3).map(|key| key_name(worker, key)).collect();
                for (name, item) in names.iter().zip(self.cache.get_many(&names).expect("get_many")) {
                    if let Some(item) = item {
                        self.examine(name, &item.value, newest);
                    }
                }
            }
            2 => {
                let name = self.common_key();
                if let Some(item) = self.cache.get(&name).expect("get") {
                    self.examine(&name, &item.value, newest);
                }
            }
            n => {
                let worker = self.rng.below(WRITERS as u64) as usize;
                let name = key_name(worker, self.rng.below(KEYS as u64) as usize);
                let item = match n {
                    3 => match self.cache.get_and_touch(&name, 0) {
                        Err(e) if e.status() == Status::Busy => None,
                        other => other.expect("get_and_touch"),
                    },
                    _ => self.cache.get(&name).expect("get"),
                };
                if let Some(item) = item {
                    self.examine(&name, &item.value, newest);
                }
            }
        }
    }
}

fn member<'a>(page: &'a Page, args: &[String]) -> Member<'a> {
    let me: usize = args[2].parse().unwrap();
    let cache = Cache::open(&args[0]).expect("open");
    let (rng, evicting) = (Rng::new(args[3].parse().unwrap()), args[4] == "evicting");
    Member { cache, page, journal: Journal::new(page, me), me, rng, evicting }
}

fn writer(link: &mut Link, args: &[String]) {
    let page = Page::open(args[1].as_ref());
    let mut member = member(&page, args);
    link.signal();
    loop {
        member.write_something();
        member.journal.count(PROGRESS);
    }
}

/// Does nothing but replace small items in the fastest way, so that it mostly dies inside a store.
fn setter(link: &mut Link, args: &[String]) {
    let page = Page::open(args[1].as_ref());
    let mut member = member(&page, args);
    let names: Vec<_> = (0..16).map(|n| format!("setter/{}/{n}", member.me).into_bytes()).collect();
    let values: Vec<_> = names.iter().map(|name| piece(name, 1, 0, 200)).collect();
    link.signal();
    loop {
        for _ in 0..200 {
            let n = member.rng.below(names.len() as u64) as usize;
            held(member.cache.set(&names[n], &values[n], 0, 0).map(|_| true));
        }
        let name = &names[member.rng.below(names.len() as u64) as usize];
        if let Some(item) = member.cache.get(name).expect("get") {
            read_state(name, &item.value, false);
        }
        member.journal.count(PROGRESS);
    }
}

fn reader(link: &mut Link, args: &[String]) {
    let page = Page::open(args[1].as_ref());
    let mut member = member(&page, args);
    let (mut newest, mut cursor) = (vec![State::ABSENT; WRITERS * KEYS], 0);
    link.signal();
    loop {
        member.read_something(&mut newest, &mut cursor);
        member.journal.count(PROGRESS);
    }
}

/// Comes, recovers whom it finds dead, does something, and goes, so that the deaths of those who do that are tried too.
fn visitor(link: &mut Link, args: &[String]) {
    let page = Page::open(args[1].as_ref());
    link.signal();
    loop {
        let mut member = member(&page, args);
        (0..4).for_each(|_| member.change_common());
        member.cache.reap().expect("reap");
        member.journal.count(PROGRESS);
    }
}

#[test]
#[ignore = "entry point of the child processes"]
fn child() {
    support::child::enter(&[("writer", writer), ("setter", setter), ("reader", reader), ("visitor", visitor)]);
}

/// One soak: a heap, its crew, and what has happened so far.
struct Soak {
    heap: TestHeap,
    page: Page,
    page_path: PathBuf,
    evicting: bool,
    rng: Rng,
    crew: Vec<Child>,
    /// How far each had come when it started.
    began: [u64; CREW],
    kills: u64,
    /// Kills since the heap was last found at rest.
    unsettled: u64,
    under_way: u64,
    recovered: u64,
    /// The largest differences between counters and what is there, and how many kills had come before them.
    worst: Drift,
}

#[derive(Default)]
struct Drift {
    items: u64,
    estimate: u64,
    unhinted: u64,
    rests: u64,
}

impl Soak {
    fn new(size: u64, evicting: bool, seed: u64) -> Soak {
        // One of the two soaks has the clients' locks in a file beside the heap, if this is root, the other in the heap's own.
        let [beside, inside] = MODES;
        let mode = if evicting { inside } else { beside };
        let heap = TestHeap::with(&CreateOptions::new(size).contexts(24).mode(mode));
        let page_path = heap.beside("page");
        let page = Page::create(&page_path, PAGE);
        let (rng, worst) = (Rng::new(seed), Drift::default());
        let (kills, unsettled, under_way, recovered) = (0, 0, 0, 0);
        let (crew, began) = (vec![], [0; CREW]);
        Soak { heap, page, page_path, evicting, rng, crew, began, kills, unsettled, under_way, recovered, worst }
    }

    fn start(&mut self, me: usize) -> Child {
        let text = |path: &PathBuf| path.to_str().unwrap().to_string();
        let (seed, mode) = (self.rng.next().to_string(), if self.evicting { "evicting" } else { "roomy" });
        let args = [&text(&self.heap.path), &text(&self.page_path), &me.to_string(), &seed, mode];
        self.began[me] = self.progress(me);
        let child = spawn(ROLES[me], &args);
        // Others run first: this process, and whoever is just starting.
        child.renice(5);
        child
    }

    fn start_all(&mut self) {
        self.crew = (0..CREW).map(|me| self.start(me)).collect();
    }

    fn progress(&self, me: usize) -> u64 {
        Journal::new(&self.page, me).get(PROGRESS)
    }

    /// Kills some at the same moment; none of them may have died before.
    fn kill(&mut self, victims: &[usize], when: &str) {
        for victim in victims {
            assert!(self.crew[*victim].is_running(), "{when}: {} {victim} died by itself", ROLES[*victim]);
        }
        victims.iter().for_each(|victim| self.crew[*victim].send_signal(libc::SIGKILL));
        victims.iter().for_each(|victim| self.crew[*victim].kill());
        self.kills += victims.len() as u64;
        self.unsettled += victims.len() as u64;
    }

    fn audit(&mut self, me: usize, when: &str) {
        if me < WRITERS {
            let journal = Journal::new(&self.page, me);
            self.under_way += journal.audit(&self.heap.cache, self.evicting, when);
            if !self.evicting {
                journal.audit_grown(&self.heap.cache, when);
            }
        }
    }

    fn round(&mut self, round: u64) {
        std::thread::sleep(Duration::from_micros(300 + self.rng.below(6_000)));
        let count = match self.rng.below(10) {
            0..7 => 1,
            7 | 8 => 2,
            _ => 4,
        };
        let first = self.rng.below(CREW as u64) as usize;
        // Mostly those that are at work; at times one that is just coming.
        let ready = |me: &usize| self.progress(*me) > self.began[*me];
        let order = (0..CREW).map(|n| (first + n * 3) % CREW);
        let mut victims: Vec<_> = order.clone().filter(ready).take(count).collect();
        if victims.is_empty() || self.rng.once_in(10) {
            victims = order.take(1).collect();
        }
        let when = format!("round {round}, {victims:?} killed");
        self.kill(&victims, &when);
        let before: Vec<_> = (0..CREW).map(|me| self.progress(me)).collect();
        // Half of the time nobody reaps on purpose: those who come and those who need something do.
        if self.rng.once_in(2) {
            self.recovered += u64::from(self.heap.cache.reap().expect("reap"));
        }
        if round.is_multiple_of(5) {
            self.heap.check(&when);
        }
        victims.iter().for_each(|victim| self.audit(*victim, &when));
        if !self.evicting {
            assert_eq!(self.heap.cache.stats().expect("stats").evictions, 0, "{when}: the heap is too small");
        }
        let others = (0..CREW).filter(|me| !victims.contains(me));
        for other in others.filter(|_| round.is_multiple_of(10)) {
            wait_until(&format!("{when}: {} {other} goes on", ROLES[other]), 10, || {
                assert!(self.crew[other].is_running(), "{when}: {} {other} died too", ROLES[other]);
                self.progress(other) > before[other]
            });
        }
        for victim in victims {
            self.crew[victim] = self.start(victim);
        }
    }

    /// Kills all that are left at one moment, and looks for whatever they may have left behind.
    fn rest(&mut self, when: &str) {
        self.kill(&Vec::from_iter(0..CREW), when);
        self.crew.clear();
        self.recovered += u64::from(self.heap.cache.reap().expect("reap"));
        (0..WRITERS).for_each(|me| self.audit(me, when));
        self.account(when);
        self.unsettled = 0;
        if !self.evicting {
            let sum = |place| (0..WRITERS).map(|me| Journal::new(&self.page, me).get(place)).sum::<u64>();
            let number = seen(&self.heap.cache, SUM, true).0.saturating_sub(1);
            assert!((sum(DONE)..=sum(BEGUN)).contains(&number), "{when}: {} of {number} counted", sum(DONE));
        }
    }

    /// At rest after a reap nothing is lost, nothing is held, and the numbers add up.
    fn account(&mut self, when: &str) {
        let (cache, kills) = (&self.heap.cache, self.unsettled);
        let told = cache.stats().expect("stats");
        let found = cache.check().expect("check");
        let sum = found.summary;
        assert!(found.findings.is_empty(), "{when}: after {kills} kills and a reap: {:?}", found.findings);
        assert!(sum.at_rest, "{when}: somebody is still there: {:?}", cache.clients());
        assert_eq!(sum.claimed_blocks, 0, "{when}: nobody can hold a block");
        let classes = cache.class_stats().expect("class_stats");
        let (mut superblocks, mut blocks, mut live, mut free) = (0, 0, 0, 0);
        for class in &classes {
            let all = u64::from(class.superblocks) * u64::from(class.per_superblock);
            assert_eq!(class.free + class.live + class.claimed + class.fragments, all, "{when}: {class:?}");
            superblocks += u64::from(class.superblocks);
            (blocks, live, free) = (blocks + all, live + class.live, free + class.free);
        }
        assert_eq!(superblocks + told.superblocks_free + told.superblocks_index, told.superblocks, "{when}: {told:?}");
        assert_eq!(sum.items + sum.chain_lines, live, "{when}: every live block is an item or a chain line");
        assert_eq!((sum.free_blocks, sum.free_blocks + live + sum.fragments), (free, blocks), "{when}: {sum:?}");
        // As documented: off by one item for each kill at most.
        assert!(sum.items_off.unsigned_abs() <= kills, "{when}: items off by {} after {kills} kills", sum.items_off);
        assert!(sum.estimate_off.unsigned_abs() <= kills + 33 * CREW as u64, "{when}: {sum:?} after {kills} kills");
        assert!(sum.unhinted_blocks <= kills, "{when}: {} blocks without a hint", sum.unhinted_blocks);
        self.worst.items = self.worst.items.max(sum.items_off.unsigned_abs());
        self.worst.estimate = self.worst.estimate.max(sum.estimate_off.unsigned_abs());
        self.worst.unhinted = self.worst.unhinted.max(sum.unhinted_blocks);
        self.worst.rests += 1;
        let (again, told) = (cache.check().expect("check").summary, cache.stats().expect("stats"));
        assert_eq!((again.items_off, again.bytes_off, again.estimate_off, again.unhinted_blocks), (0, 0, 0, 0));
        assert_eq!((told.curr_items, told.bytes), (again.items, again.bytes), "{when}: counters set right");
    }
}

/// Rounds until there were enough kills, and enough of them with a lock held; `seconds` at most.
fn soak(mut soak: Soak, kills: u64, locks: u64, seconds: u64) {
    let begin = Instant::now();
    soak.start_all();
    for round in 1.. {
        soak.round(round);
        if round.is_multiple_of(25) {
            soak.rest(&format!("all killed in round {round}"));
            let told = soak.heap.cache.stats().expect("stats");
            if soak.kills >= kills && told.locks_taken_over >= locks {
                break;
            }
            assert!(
                begin.elapsed().as_secs() < seconds,
                "{seconds} s: {} kills, {} with a lock held",
                soak.kills,
                told.locks_taken_over
            );
            if round.is_multiple_of(1_000) {
                report(format_args!("{} kills so far", soak.kills));
            }
            soak.page.word(FLUSH_WANTED).store(u64::from(soak.kills > kills / 2), Relaxed);
            soak.start_all();
        }
    }
    let told = soak.heap.cache.stats().expect("stats");
    let steps: u64 = (0..CREW).map(|me| soak.progress(me)).sum();
    let busy: u64 = (0..WRITERS).map(|me| Journal::new(&soak.page, me).get(BUSY)).sum();
    let worst = &soak.worst;
    report(format_args!(
        "{} kills in {steps} steps and {} s: {} changes under way, {} contexts recovered ({} by this process), {} locks taken over, {busy} busy",
        soak.kills,
        begin.elapsed().as_secs(),
        soak.under_way,
        told.recovered_contexts,
        soak.recovered,
        told.locks_taken_over
    ));
    report(format_args!(
        "{} evictions, {} superblocks moved, {} buckets split; at {} rests at most {} items miscounted, estimate off by {}, {} blocks without a hint",
        told.evictions, told.superblocks_moved, told.splits, worst.rests, worst.items, worst.estimate, worst.unhinted
    ));
    assert!(soak.under_way > kills / 25 && told.recovered_contexts > kills / 2, "too few died at work");
    assert_eq!(soak.evicting, told.evictions > 10_000 && told.superblocks_moved > 100, "the wrong size of heap");
}

fn limit() -> u64 {
    if exhaustive() { 4 * 3600 } else { 150 }
}

#[test]
fn a_heap_with_room_survives_many_deaths() {
    soak(Soak::new(96 << 20, false, 31), scaled(250, 30_000), scaled(3, 400), limit());
}

#[test]
fn a_heap_that_is_too_small_survives_many_deaths() {
    soak(Soak::new(8 << 20, true, 32), scaled(250, 30_000), scaled(3, 400), limit());
}
