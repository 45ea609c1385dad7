//! A process that does everything to a few keys and writes it down.

use plib::{Cache, Error, Item, Status};
use plib_model::history::{Answer, Asked, Content, New, Seen, pieces};

use super::child::die_in;
use super::journal::Journal;
use super::rng::Rng;

/// What is stored under a key.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Kind {
    /// Values of one size class or another, at random numbers too.
    Small,
    /// Mostly numbers.
    Counter,
    /// Up to the longest that are in one block.
    Medium,
    /// Values of fragments.
    Large,
    /// Values of many fragments.
    Huge,
}

impl Kind {
    /// Bytes of a value, from and to.
    fn sizes(self) -> (u64, u64) {
        match self {
            Kind::Small | Kind::Counter => (16, 200),
            Kind::Medium => (200, 30_000),
            Kind::Large => (33_000, 140_000),
            Kind::Huge => (70_000, 330_000),
        }
    }
}

/// What a recorder does.
#[derive(Clone, Copy, Debug)]
pub struct Habits {
    /// The keys: one of each kind.
    pub kinds: &'static [Kind],
    /// Whether items expire within the test.
    pub expiry: bool,
    /// One operation in so many is flush_all; 0 for none.
    pub flush: u64,
}

/// A death that is to come.
#[derive(Clone, Copy, Debug)]
pub struct Doom {
    /// In how many nanoseconds from the start of the next operation.
    pub nanoseconds: u64,
    /// Whether that operation's answer is not told if there is one: as if death came just before that.
    pub untold: bool,
}

/// The name of a key: of 8 to 16 bytes, or of more.
pub fn key_name(key: usize) -> Vec<u8> {
    match key % 3 {
        0 => format!("key/{key:05}").into_bytes(),
        1 => format!("a key with a longer name/{key}").into_bytes(),
        _ => format!("k{key}").into_bytes(),
    }
}

/// One process at work.
pub struct Recorder<'a> {
    pub cache: &'a Cache,
    pub journal: Journal<'a>,
    pub habits: Habits,
    pub who: u32,
    /// When the process is to be killed.
    pub doom: Option<Doom>,
    rng: Rng,
    pieces: u64,
    /// The cas seen last of each key, and the pieces of its value.
    seen: Vec<(u64, u32)>,
}

impl<'a> Recorder<'a> {
    pub fn new(cache: &'a Cache, journal: Journal<'a>, habits: Habits, who: u32, seed: u64) -> Recorder<'a> {
        let rng = Rng::new(seed.wrapping_mul(1_000_003) + u64::from(who));
        Recorder { cache, journal, habits, who, doom: None, rng, pieces: 0, seen: vec![(0, 0); habits.kinds.len()] }
    }

    /// Some operation on some key.
    pub fn work(&mut self) {
        // The first keys most: there processes meet.
        let keys = self.habits.kinds.len() as u64;
        let key = self.rng.below(keys).min(self.rng.below(keys)).min(self.rng.below(keys)) as usize;
        if self.habits.flush > 0 && self.rng.once_in(self.habits.flush) {
            return self.act(key, Asked::Flush, &[]);
        }
        let (asked, bytes) = self.choose(key);
        self.act(key, asked, &bytes);
    }

    /// Reads one key.
    pub fn read(&mut self, key: usize) {
        self.act(key, Asked::Get, &[]);
    }

    fn choose(&mut self, key: usize) -> (Asked, Vec<u8>) {
        let (cas, parts) = self.seen[key];
        // Long values are replaced rather than made longer.
        let roll = if parts > 10 { 8 + self.rng.below(6) } else { self.rng.below(40) };
        let counter = self.habits.kinds[key] == Kind::Counter;
        let count = counter && self.rng.once_in(2);
        match roll {
            _ if count => (self.count(), Vec::new()),
            0..8 => (Asked::Get, Vec::new()),
            8..14 => self.fresh(key, Asked::Set),
            14..17 => self.fresh(key, Asked::Add),
            17..19 => self.fresh(key, Asked::Replace),
            19..23 => {
                let (id, len) = (self.piece(), 16 + self.rng.below(300) as usize);
                let asked = if roll < 21 { Asked::Append } else { Asked::Prepend };
                (asked(Content::piece(id)), pieces::piece(id, len))
            }
            23..28 => self.fresh(key, |new| Asked::Swap(new, cas)),
            28..30 => (Asked::Delete(None), Vec::new()),
            30..32 => (Asked::Delete(Some(cas)), Vec::new()),
            32..35 => (self.count(), Vec::new()),
            35..37 => (Asked::Touch(self.exptime()), Vec::new()),
            37..39 => (Asked::GetAndTouch(self.exptime()), Vec::new()),
            _ => (Asked::Get, Vec::new()),
        }
    }

    fn count(&mut self) -> Asked {
        let initial = self.rng.once_in(2).then(|| (self.rng.below(200), self.exptime()));
        Asked::Count { delta: self.rng.below(120), down: self.rng.once_in(3), initial }
    }

    fn piece(&mut self) -> u64 {
        self.pieces += 1;
        u64::from(self.who) << 32 | self.pieces
    }

    /// A new value for `key`: a number now and then.
    fn fresh(&mut self, key: usize, asked: impl FnOnce(New) -> Asked) -> (Asked, Vec<u8>) {
        let kind = self.habits.kinds[key];
        let (from, to) = kind.sizes();
        let number = kind == Kind::Counter && !self.rng.once_in(4) || kind == Kind::Small && self.rng.once_in(8);
        let (content, bytes) = if number {
            let number = self.rng.below(1_200);
            (Content::number(number), number.to_string().into_bytes())
        } else {
            let (id, len) = (self.piece(), (from + self.rng.below(to - from)) as usize);
            (Content::piece(id), pieces::piece(id, len))
        };
        let new = New { content, flags: self.rng.next() as u32, exptime: self.exptime() };
        (asked(new), bytes)
    }

    /// Never, mostly; far off, which goes the general way; or soon.
    fn exptime(&mut self) -> i64 {
        match self.rng.below(4) {
            0 => 1_000,
            1 if self.habits.expiry => 1 + self.rng.below(2) as i64,
            _ => 0,
        }
    }

    /// Does it and writes it down.
    fn act(&mut self, key: usize, asked: Asked, bytes: &[u8]) {
        let name = key_name(key);
        let doom = self.doom.take();
        let act = || {
            if let Some(doom) = &doom {
                die_in(doom.nanoseconds);
            }
            let outcome = act(self.cache, &name, asked, bytes);
            while doom.as_ref().is_some_and(|doom| doom.untold) {
                std::hint::spin_loop();
            }
            outcome
        };
        let answer = self.journal.note(key, self.who, asked, act, |outcome| answer(asked, outcome));
        if let Some(Answer::Found(seen)) = answer {
            let parts = if let Content::Pieces { count, .. } = seen.content { count } else { 1 };
            self.seen[key] = (seen.cas, parts);
        }
    }
}

/// What an operation gave, before anybody looked at the value.
enum Outcome {
    Answer(Answer),
    Item(Option<Item>),
}

/// Does what is asked.
fn act(cache: &Cache, key: &[u8], asked: Asked, bytes: &[u8]) -> Result<Outcome, Error> {
    let outcome = match asked {
        Asked::Get => return cache.get(key).map(Outcome::Item),
        Asked::GetAndTouch(exptime) => return cache.get_and_touch(key, exptime).map(Outcome::Item),
        Asked::Set(new) => cache.set(key, bytes, new.flags, new.exptime).map(Answer::Stored),
        Asked::Add(new) => cache.add(key, bytes, new.flags, new.exptime).map(Answer::Stored),
        Asked::Replace(new) => cache.replace(key, bytes, new.flags, new.exptime).map(Answer::Stored),
        Asked::Append(_) => cache.append(key, bytes).map(Answer::Stored),
        Asked::Prepend(_) => cache.prepend(key, bytes).map(Answer::Stored),
        Asked::Swap(new, cas) => cache.compare_and_swap(key, bytes, new.flags, new.exptime, cas).map(Answer::Stored),
        Asked::Delete(None) => cache.delete(key).map(done),
        Asked::Delete(Some(cas)) => cache.delete_if(key, cas).map(done),
        Asked::Touch(exptime) => cache.touch(key, exptime).map(done),
        Asked::Flush => cache.flush_all(0).map(|()| Answer::Done),
        Asked::Count { delta, down: false, initial: None } => cache.increment(key, delta).map(number),
        Asked::Count { delta, down: true, initial: None } => cache.decrement(key, delta).map(number),
        Asked::Count { delta, down: false, initial: Some((first, exptime)) } => {
            cache.increment_or(key, delta, first, exptime).map(Answer::Number)
        }
        Asked::Count { delta, down: true, initial: Some((first, exptime)) } => {
            cache.decrement_or(key, delta, first, exptime).map(Answer::Number)
        }
    };
    outcome.map(Outcome::Answer)
}

fn done(is_done: bool) -> Answer {
    if is_done { Answer::Done } else { Answer::Missing }
}

fn number(number: Option<u64>) -> Answer {
    number.map_or(Answer::Missing, Answer::Number)
}

/// The answer that an outcome is; none if it says that nothing was done.
fn answer(asked: Asked, outcome: Result<Outcome, Error>) -> Option<Answer> {
    let status = match outcome {
        Ok(Outcome::Answer(answer)) => return Some(answer),
        Ok(Outcome::Item(None)) => return Some(Answer::Missing),
        Ok(Outcome::Item(Some(item))) => {
            let content = pieces::read(&item.value);
            return Some(Answer::Found(Seen { content, flags: item.flags, expiry: item.expiry, cas: item.cas }));
        }
        Err(e) => e.status(),
    };
    match status {
        Status::NotStored => Some(Answer::NotStored),
        Status::NotFound => Some(Answer::Missing),
        Status::Exists => Some(Answer::Other),
        Status::NotNumeric => Some(Answer::NotNumeric),
        Status::Busy | Status::NoMemory | Status::TooLarge => None,
        _ => panic!("{asked:?}: {status:?}"),
    }
}
