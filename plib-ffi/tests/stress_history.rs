//! What several processes do to the same keys at the same time is recorded, while some of them are killed; each key's history
//! must have an explanation as a sequence (linearizability). `plib_model::history` says what an explanation is.

mod support;

use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::sync::atomic::Ordering::SeqCst;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use plib::{Cache, Status};
use plib_model::history::{Asked, Event, explain_all};
use support::child::{self, Child, Link, spawn};
use support::heap::TestHeap;
use support::journal::{self, Journal};
use support::page::Page;
use support::recorder::{Doom, Habits, Kind, Recorder, key_name};
use support::rng::Rng;
use support::{report, scaled};

/// Processes that record, at any time.
const CREW: usize = 8;
/// Of those, how many are killed in one round.
const KILLED: usize = 5;

/// One kind of run.
struct Variant {
    name: &'static str,
    habits: Habits,
    heap: u64,
    /// Items that another process stores meanwhile, so that the index grows; 0 for none.
    neighbours: u64,
    /// Microseconds of work between two kills, at most.
    pause: u64,
    /// How many powers of two of nanoseconds, from 2048 on, a process may have left from the start of its last operation.
    doom: u64,
}

const SMALL: &[Kind] = {
    use Kind::*;
    &[Small, Medium, Counter, Small, Large, Small, Counter, Small]
};
const HUGE: &[Kind] = &[Kind::Huge; 40];
const PLAIN: Habits = Habits { kinds: SMALL, expiry: false, flush: 0 };
const EXPIRING: Habits = Habits { expiry: true, ..PLAIN };
const CROWDED: Habits = Habits { kinds: HUGE, ..PLAIN };
const FLUSHED: Habits = Habits { flush: 30, ..PLAIN };

const VARIANTS: &[Variant] = &[
    Variant { name: "nobody killed", habits: PLAIN, heap: 128 << 20, neighbours: 150_000, pause: 0, doom: 0 },
    Variant { name: "kills", habits: PLAIN, heap: 128 << 20, neighbours: 150_000, pause: 500, doom: 6 },
    Variant { name: "kills and expiry", habits: EXPIRING, heap: 64 << 20, neighbours: 0, pause: 500, doom: 6 },
    Variant { name: "kills and evictions", habits: CROWDED, heap: 8 << 20, neighbours: 0, pause: 5_000, doom: 9 },
    Variant { name: "kills and flushes", habits: FLUSHED, heap: 64 << 20, neighbours: 0, pause: 500, doom: 6 },
];

/// The shared page: the gate, when each of the crew is to die, then a journal for each and one for the parent.
const GATE: usize = 0;
const DOOMS: usize = 8;
const JOURNALS: usize = DOOMS + CREW;

// What the gate says: how many entries each journal may have by now, or one of these.
const SHUT: u64 = 0;
const OVER: u64 = u64::MAX;

fn journal(page: &Page, place: usize, entries: usize) -> Journal<'_> {
    Journal::new(page, JOURNALS + place * journal::words(entries), entries)
}

/// A process of the crew: works while the gate is open for it and its journal has room.
fn worker(link: &mut Link, args: &[String]) {
    let number = |place: usize| args[place].parse::<usize>().unwrap();
    let page = Page::open(args[1].as_ref());
    let cache = Cache::open(&args[0]).expect("open");
    let journal = journal(&page, number(2), number(3));
    let mut recorder = Recorder::new(&cache, journal, VARIANTS[number(5)].habits, number(4) as u32, number(6) as u64);
    link.signal();
    while !journal.is_full() {
        let doom = page.word(DOOMS + number(2)).load(SeqCst);
        if doom != 0 {
            // It dies soon, at any instruction, and works until then.
            recorder.doom = Some(Doom { nanoseconds: doom >> 1, untold: doom & 1 == 1 });
            loop {
                recorder.work();
            }
        }
        match page.word(GATE).load(SeqCst) {
            OVER => return,
            limit if (journal.done() as u64) < limit => recorder.work(),
            _ => std::thread::sleep(Duration::from_micros(50)),
        }
    }
}

/// Stores items beside the hot keys, so that their buckets are split; and takes some away and puts them back, so that chains
/// behind their buckets come and go.
fn neighbour(link: &mut Link, args: &[String]) {
    let (page, count): (_, u64) = (Page::open(args[1].as_ref()), args[2].parse().unwrap());
    let cache = Cache::open(&args[0]).expect("open");
    let mut rng = Rng::new(3);
    let name = |n: u64| format!("neighbour/{n:08}").into_bytes();
    link.signal();
    let mut stored = 0;
    loop {
        match page.word(GATE).load(SeqCst) {
            OVER => return,
            SHUT => {
                std::thread::sleep(Duration::from_micros(100));
                continue;
            }
            _ => {}
        }
        if stored < count {
            cache.set(&name(stored), b"beside", 0, 0).expect("set");
            stored += 1;
        }
        let n = rng.below(stored);
        match cache.delete(&name(n)).and_then(|_| cache.set(&name(n), b"beside again", 0, 0)) {
            Err(e) if e.status() != Status::Busy => panic!("{e}"),
            _ => {}
        }
    }
}

#[test]
#[ignore = "entry point of the child processes"]
fn child() {
    child::enter(&[("worker", worker), ("neighbour", neighbour)]);
}

/// A run of one variant: the crew, and what the parent does to it.
struct Run<'a> {
    variant: usize,
    heap: &'a TestHeap,
    page: &'a Page,
    page_path: &'a Path,
    entries: usize,
    /// How many entries each journal may have by now, and how many more with each opening of the gate.
    limit: u64,
    share: u64,
    /// How many processes were started.
    started: u32,
    seed: u64,
}

impl Run<'_> {
    fn variant(&self) -> &'static Variant {
        &VARIANTS[self.variant]
    }

    fn start(&mut self, place: usize) -> Child {
        self.started += 1;
        let page = self.page_path.to_str().unwrap();
        let numbers = [place as u64, self.entries as u64, self.started.into(), self.variant as u64, self.seed];
        let numbers = numbers.map(|n| n.to_string());
        let [place, entries, who, variant, seed] = numbers.each_ref().map(String::as_str);
        spawn("worker", &[self.heap.path_text(), page, place, entries, who, variant, seed])
    }

    fn start_all(&mut self, places: impl Iterator<Item = usize>) -> Vec<(usize, Child)> {
        let mut crew: Vec<_> = places.map(|place| (place, self.start(place))).collect();
        crew.iter_mut().for_each(|(_, child)| child.link.await_signal());
        crew
    }

    fn start_neighbour(&self) -> Option<Child> {
        (self.variant().neighbours > 0).then(|| {
            let count = self.variant().neighbours.to_string();
            let mut child = spawn("neighbour", &[self.heap.path_text(), self.page_path.to_str().unwrap(), &count]);
            child.link.await_signal();
            child
        })
    }

    fn gate(&self, to: u64) {
        self.page.word(GATE).store(to, SeqCst);
    }

    /// Opens the gate for another `share` of entries each, so that the journals last for all rounds.
    fn open(&mut self) {
        self.limit += self.share;
        self.gate(self.limit);
    }

    fn journal(&self, place: usize) -> Journal<'_> {
        journal(self.page, place, self.entries)
    }

    /// Lets the crew work, and kills some of it meanwhile. Puts others in their places while the gate is shut.
    fn round(&mut self, crew: &mut [Child], reader: &mut Recorder<'_>, rng: &mut Rng) {
        let mut dead = Vec::new();
        let pause = self.variant().pause;
        // While nobody else works, what became of the last operation is seen.
        let quiet = rng.once_in(2);
        let first = rng.below(CREW as u64) as usize;
        for victim in (0..KILLED).map(|n| (first + n * 3) % CREW) {
            if !quiet {
                self.open();
                std::thread::sleep(Duration::from_micros(rng.below(pause)));
            }
            // As often in a short operation as in a long one.
            let scale = 1u64 << (11 + rng.below(self.variant().doom));
            self.doom(victim, (scale + rng.below(scale)) << 1 | u64::from(rng.once_in(4)));
            assert!(crew[victim].wait_for(60).is_some_and(|status| status.signal() == Some(libc::SIGKILL)));
            self.doom(victim, 0);
            if let Some(key) = self.journal(victim).bury() {
                reader.read(key);
            }
            dead.push(victim);
        }
        self.open();
        if rng.once_in(2) {
            self.heap.cache.reap().expect("reap");
        }
        std::thread::sleep(Duration::from_micros(100 + rng.below(pause)));
        self.gate(SHUT);
        for (place, child) in crew.iter_mut().enumerate().filter(|(place, _)| !dead.contains(place)) {
            assert!(self.journal(place).is_full() || child.is_running(), "process {place} of the crew ended by itself");
        }
        for (place, child) in self.start_all(dead.into_iter()) {
            crew[place] = child;
        }
    }

    /// Says when one of the crew is to die: twice the nanoseconds, and 1 if untold (`Doom`); 0 for not at all.
    fn doom(&self, place: usize, doom: u64) {
        self.page.word(DOOMS + place).store(doom, SeqCst);
    }

    /// All events of all journals, by key. flush_all is in each key's history.
    fn histories(&self) -> Vec<(String, Vec<Event>)> {
        let keys = self.variant().habits.kinds.len();
        let mut histories = vec![Vec::new(); keys];
        for (key, event) in (0..=CREW).flat_map(|place| self.journal(place).events()) {
            match event.asked {
                Asked::Flush => histories.iter_mut().for_each(|history| history.push(event)),
                _ => histories[key].push(event),
            }
        }
        let names = (0..keys).map(|key| String::from_utf8(key_name(key)).unwrap());
        names.zip(histories).collect()
    }
}

/// Variants run one after the other: each has more processes than the machine has processors.
static TURN: Mutex<()> = Mutex::new(());

/// Records a run with so many kills, or until the journals are full if there are none; and explains it.
fn record(variant: usize, kills: u64, entries: usize) {
    let _turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
    let Variant { habits, heap: size, .. } = &VARIANTS[variant];
    let heap = TestHeap::new(*size);
    let page_path = heap.beside("page");
    let page = Page::create(&page_path, JOURNALS + (CREW + 1) * journal::words(entries));
    let rounds = kills.div_ceil(KILLED as u64);
    let share = entries as u64 / (rounds * (KILLED as u64 + 1) + 1);
    let mut run =
        Run { variant, heap: &heap, page: &page, page_path: &page_path, entries, limit: 0, share, started: 0, seed: 1 };
    let mut rng = Rng::new(variant as u64 + 40);
    let mut reader = Recorder::new(&heap.cache, journal(&page, CREW, entries), *habits, 0, 0);
    let read_all = |reader: &mut Recorder<'_>| (0..habits.kinds.len()).for_each(|key| reader.read(key));

    read_all(&mut reader);
    let mut crew: Vec<Child> = run.start_all(0..CREW).into_iter().map(|(_, child)| child).collect();

    let neighbour = run.start_neighbour();
    for _ in 0..rounds {
        run.round(&mut crew, &mut reader, &mut rng);
        read_all(&mut reader);
    }

    run.gate(if rounds == 0 { entries as u64 } else { OVER });
    crew.into_iter().for_each(|child| child.finish(300));
    run.gate(OVER);
    if let Some(neighbour) = neighbour {
        neighbour.finish(60);
    }
    read_all(&mut reader);
    heap.cache.reap().expect("reap");

    let killed = rounds * KILLED as u64;
    explain(&run, killed);
}

/// Explains what was recorded, and says how much that was.
fn explain(run: &Run<'_>, killed: u64) {
    let Variant { name, habits, .. } = run.variant();
    let stats = run.heap.cache.stats().expect("stats");
    let evicting = stats.evictions > 0;
    // The dead may have evicted an item each that they had not counted yet.
    let evictions = if evicting { stats.evictions + killed } else { 0 };
    let histories = run.histories();
    let explained = explain_all(&histories, evictions).unwrap_or_else(|e| panic!("{name}: {e}"));
    let sum = explained.sum;
    report(format_args!(
        "{name}: {} operations in {} histories explained, the longest of {}; {} began while another was open; {:?} for the check",
        sum.events, explained.histories, explained.longest, explained.overlaps, explained.took
    ));
    report(format_args!(
        "    {killed} killed, {} of them in what may be a change: {} had happened, {} had not, {} unseen; {} evictions for {} missed; \
         at most {} configurations; {} splits, {} superblocks of chains, {} busy",
        sum.happened + sum.not_happened + sum.unseen,
        sum.happened,
        sum.not_happened,
        sum.unseen,
        stats.evictions,
        sum.evictions,
        sum.configurations,
        stats.splits,
        stats.superblocks_chain,
        stats.busy
    ));
    run.heap.check(name);
    let tiny = habits.kinds == HUGE;
    assert_eq!(evicting, tiny, "{} evictions", stats.evictions);
    assert!(!tiny || sum.evictions > 20, "too little: hardly any eviction was noticed");
    assert!(explained.overlaps * 100 > sum.events, "too little: the processes hardly met");
    // With values this long nearly all time is spent before the commit.
    assert!(
        killed == 0 || tiny || sum.happened > 0 && sum.not_happened > 0,
        "too little: the dead had all done the same"
    );
}

#[test]
fn histories_without_kills() {
    record(0, 0, scaled(30_000, 400_000) as usize);
}

#[test]
fn histories_with_kills() {
    record(1, scaled(250, 3_000), scaled(40_000, 400_000) as usize);
}

#[test]
fn histories_with_kills_and_expiry() {
    record(2, scaled(200, 3_000), scaled(40_000, 400_000) as usize);
}

#[test]
fn histories_with_kills_and_evictions() {
    record(3, scaled(120, 3_000), scaled(40_000, 400_000) as usize);
}

#[test]
fn histories_with_kills_and_flushes() {
    record(4, scaled(200, 3_000), scaled(40_000, 400_000) as usize);
}
