//! The search for an order, by just-in-time linearization (Lowe, "Testing for linearizability", 2017).
//!
//! Calls and returns are walked in the order of time. At each moment there is a set of *configurations*: what the key may
//! hold, and which of the open operations have taken effect to bring that about. A call adds an open operation. A return
//! keeps the configurations in which that operation has taken effect or can do so now, perhaps after others that are open.
//! The first return that leaves none ends the shortest prefix that has no explanation. As long as few operations are open at
//! a time, and what they did is soon seen, there are few configurations, and the walk is linear in the events.

use std::collections::HashMap;
use std::collections::HashSet;
use std::fmt::{self, Write};
use std::hash::{BuildHasherDefault, Hasher};
use std::rc::Rc;

use super::content::Item;
use super::event::{Answer, Asked, Event};
use super::rules::outcomes;

/// Most operations that are open at one moment.
pub const OPEN_MAX: usize = 64;
/// Configurations after which the search gives up.
const CONFIGURATIONS_MAX: usize = 1 << 20;

/// What an explanation may use.
#[derive(Clone, Default, Debug)]
pub struct Rules {
    /// What the key holds at first.
    pub start: Option<Item>,
    /// Whether the heap may have evicted the item.
    pub evictions: bool,
    /// The cas values that stores of the whole heap were answered: no item whose cas is not known has one of these.
    pub told: HashSet<u64>,
}

/// How a history was explained.
#[derive(Clone, Copy, Default, PartialEq, Eq, Debug)]
pub struct Explained {
    /// Operations.
    pub events: usize,
    /// The least number of evictions that explains all.
    pub evictions: u64,
    /// Operations of the dead that happened in every explanation.
    pub happened: usize,
    /// Operations of the dead that happened in none.
    pub not_happened: usize,
    /// Operations of the dead of which nobody saw whether they happened.
    pub unseen: usize,
    /// Most configurations at a time.
    pub configurations: usize,
}

/// Why a history has no explanation: readable, with the events around.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Unexplained(pub(super) String);

impl fmt::Display for Unexplained {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Looks for an order that explains all events of one key.
pub fn explain(events: &[Event], rules: &Rules) -> Result<Explained, Unexplained> {
    let mut search = Search::new(events, rules);
    for (step, &moment) in search.moments().iter().enumerate() {
        match moment {
            Moment::Call(event) => search.call(event),
            Moment::Return(event) => search.end(event, step)?,
        }
    }
    Ok(search.explained())
}

/// A call or a return, by the place of its event.
#[derive(Clone, Copy)]
enum Moment {
    Call(usize),
    Return(usize),
}

/// What the key may hold, and which open operations have taken effect: a bit for each place in `Search::open`.
type Configuration = (Option<Item>, u64);

/// How a configuration came about.
#[derive(Clone)]
struct Way {
    /// The least evictions.
    evictions: u64,
    /// What became of the operations of the dead.
    fates: Rc<Fates>,
}

/// Of each operation of the dead so far: whether there is a way in which it happened, and one in which it did not.
#[derive(Clone, Default)]
struct Fates(Vec<(bool, bool)>);

impl Fates {
    fn with(&self, happened: bool) -> Rc<Fates> {
        let mut fates = self.clone();
        fates.0.push((happened, !happened));
        Rc::new(fates)
    }

    fn covers(&self, other: &Fates) -> bool {
        self.0.iter().zip(&other.0).all(|(a, b)| (a.0 || !b.0) && (a.1 || !b.1))
    }

    fn or(&self, other: &Fates) -> Rc<Fates> {
        Rc::new(Fates(self.0.iter().zip(&other.0).map(|(a, b)| (a.0 || b.0, a.1 || b.1)).collect()))
    }
}

#[derive(Clone, Default)]
struct Configurations(HashMap<Configuration, Way, BuildHasherDefault<Quick>>);

/// A hash for few entries, which nobody chooses to collide.
#[derive(Default)]
struct Quick(u64);

impl Hasher for Quick {
    fn write(&mut self, bytes: &[u8]) {
        bytes.iter().for_each(|byte| self.write_u64(u64::from(*byte)));
    }

    fn write_u32(&mut self, word: u32) {
        self.write_u64(u64::from(word));
    }

    fn write_u64(&mut self, word: u64) {
        self.0 = (self.0.rotate_left(5) ^ word).wrapping_mul(0x9E37_79B9_7F4A_7C15);
    }

    fn write_isize(&mut self, word: isize) {
        self.write_u64(word as u64);
    }

    fn finish(&self) -> u64 {
        self.0 ^ self.0 >> 32
    }
}

impl Configurations {
    /// Adds a configuration. The way to it as known now, if this one told anything new.
    fn add(&mut self, configuration: Configuration, way: Way) -> Option<Way> {
        let Some(known) = self.0.get_mut(&configuration) else {
            self.0.insert(configuration, way.clone());
            return Some(way);
        };
        let mut news = way.evictions < known.evictions;
        known.evictions = known.evictions.min(way.evictions);
        if !Rc::ptr_eq(&known.fates, &way.fates) && !known.fates.covers(&way.fates) {
            known.fates = known.fates.or(&way.fates);
            news = true;
        }
        news.then(|| known.clone())
    }
}

struct Search<'a> {
    events: &'a [Event],
    rules: &'a Rules,
    /// The open operations, by the place of their event.
    open: [Option<usize>; OPEN_MAX],
    /// After everything up to now.
    configurations: Configurations,
    most: usize,
}

impl<'a> Search<'a> {
    fn new(events: &'a [Event], rules: &'a Rules) -> Search<'a> {
        let mut configurations = Configurations::default();
        configurations.add((rules.start, 0), Way { evictions: 0, fates: Rc::default() });
        Search { events, rules, open: [None; OPEN_MAX], configurations, most: 1 }
    }

    /// All calls and returns in the order of time; of one instant the calls first, as the operations then overlap.
    fn moments(&self) -> Vec<Moment> {
        let mut moments = Vec::with_capacity(self.events.len() * 2);
        for (place, event) in self.events.iter().enumerate() {
            assert!(event.start <= event.end, "{event:?} ends before it starts");
            // A get without an answer says nothing and does nothing.
            if (event.asked, event.answer) != (Asked::Get, Answer::Died) {
                moments.push((event.start, 0, place));
                moments.push((event.end, 1, place));
            }
        }
        moments.sort_unstable();
        let moment = |(_, kind, place)| if kind == 0 { Moment::Call(place) } else { Moment::Return(place) };
        moments.into_iter().map(moment).collect()
    }

    fn call(&mut self, event: usize) {
        let place = self.open.iter().position(Option::is_none);
        let place = place.unwrap_or_else(|| panic!("more than {OPEN_MAX} operations at a time"));
        self.open[place] = Some(event);
        let configurations = std::mem::take(&mut self.configurations.0);
        for ((there, done), way) in configurations {
            let done = self.settled(there, done);
            self.configurations.add((there, done), way);
        }
    }

    /// The operation is over: it has taken effect, or its process died and it may have.
    fn end(&mut self, event: usize, step: usize) -> Result<(), Unexplained> {
        let place = self.open.iter().position(|open| *open == Some(event)).expect("it was called");
        let died = self.events[event].answer == Answer::Died;
        let bit = 1 << place;
        let mut after = Configurations::default();
        // Where it has not taken effect yet: tried until it has.
        let (mut seen, mut left) = (Configurations::default(), Vec::new());
        let happened = |after: &mut Configurations, (there, done): Configuration, way: Way| {
            let fates = if died { way.fates.with(true) } else { way.fates };
            after.add((there, done & !bit), Way { fates, ..way });
        };
        for (configuration, way) in &self.configurations.0 {
            if configuration.1 & bit != 0 {
                happened(&mut after, *configuration, way.clone());
                continue;
            }
            if died {
                after.add(*configuration, Way { fates: way.fates.with(false), ..*way });
            }
            seen.add(*configuration, way.clone());
            left.push((*configuration, way.clone()));
        }
        while let Some(((there, done), way)) = left.pop() {
            self.each_next(there, done, |there, done, evictions| {
                let way = Way { evictions: way.evictions + evictions, fates: Rc::clone(&way.fates) };
                if done & bit != 0 {
                    happened(&mut after, (there, done), way);
                } else if let Some(way) = seen.add((there, done), way) {
                    left.push(((there, done), way));
                }
            });
            if seen.0.len() > CONFIGURATIONS_MAX {
                return Err(self.gave_up(event));
            }
        }
        self.most = self.most.max(seen.0.len()).max(after.0.len());
        if after.0.is_empty() {
            return Err(self.told(event, step));
        }
        self.open[place] = None;
        self.configurations = after;
        Ok(())
    }

    /// Every configuration that follows when one more open operation takes effect, and the evictions before it.
    fn each_next(&self, there: Option<Item>, done: u64, mut next: impl FnMut(Option<Item>, u64, u64)) {
        for (place, event) in self.open_but(done) {
            let event = &self.events[event];
            let done = done | 1 << place;
            for after in outcomes(event, there, &self.rules.told) {
                next(after, self.settled(after, done), 0);
            }
            if self.rules.evictions && there.is_some() {
                for after in outcomes(event, None, &self.rules.told) {
                    next(after, self.settled(after, done), 1);
                }
            }
        }
    }

    /// The open operations that have not taken effect.
    fn open_but(&self, done: u64) -> impl Iterator<Item = (usize, usize)> {
        let open = self.open.iter().enumerate().filter_map(|(place, event)| Some((place, (*event)?)));
        open.filter(move |(place, _)| done >> place & 1 == 0)
    }

    /// `done`, and the open operations that never change anything and whose answer fits now: to wait would gain them nothing.
    fn settled(&self, there: Option<Item>, done: u64) -> u64 {
        let settles = |event: usize| {
            let event = &self.events[event];
            event.only_looked() && outcomes(event, there, &self.rules.told).any(|after| after == there)
        };
        let settled = self.open_but(done).filter(|(_, event)| settles(*event));
        settled.fold(done, |done, (place, _)| done | 1 << place)
    }

    fn explained(&self) -> Explained {
        let ways = || self.configurations.0.values();
        let fates = ways().map(|way| Rc::clone(&way.fates)).reduce(|a, b| a.or(&b)).unwrap_or_default();
        let count = |fate: (bool, bool)| fates.0.iter().filter(|f| **f == fate).count();
        Explained {
            events: self.events.len(),
            evictions: ways().map(|way| way.evictions).min().unwrap_or(0),
            happened: count((true, false)),
            not_happened: count((false, true)),
            unseen: count((true, true)),
            configurations: self.most,
        }
    }

    fn gave_up(&self, event: usize) -> Unexplained {
        Unexplained(format!(
            "gave up: more than {CONFIGURATIONS_MAX} configurations at event {event}: {:?}",
            self.events[event]
        ))
    }

    /// The operation that cannot have happened, those around it, and what there was before.
    fn told(&self, wrong: usize, step: usize) -> Unexplained {
        let zero = self.events.iter().map(|event| event.start).min().unwrap_or(0);
        let line = |place: usize| {
            let Event { start, end, who, asked, answer, .. } = self.events[place];
            format!("{:>12} .. {:<12} process {who}: {asked:x?} -> {answer:x?}", start - zero, end - zero)
        };
        let mut text =
            format!("no order explains this answer ({step} of {} calls and returns have one):\n", self.moments().len());
        let _ = writeln!(text, "  {}", line(wrong));
        let _ = writeln!(text, " open at its end, which may have taken effect before it:");
        for (_, place) in self.open_but(0).filter(|(_, place)| *place != wrong) {
            let _ = writeln!(text, "  {}", line(place));
        }
        let end = self.events[wrong].end;
        let mut before: Vec<usize> = (0..self.events.len()).filter(|place| self.events[*place].end < end).collect();
        before.sort_unstable_by_key(|place| self.events[*place].end);
        let _ = writeln!(text, " the last that ended before:");
        for place in before.iter().skip(before.len().saturating_sub(16)) {
            let _ = writeln!(text, "  {}", line(*place));
        }
        let left = &self.configurations.0;
        let _ = writeln!(text, " what the key may have held then ({} configurations):", left.len());
        for (there, done) in left.keys().take(8) {
            let whom: Vec<_> = self.open_but(!done).map(|(_, place)| self.events[place].who.to_string()).collect();
            let _ = match there {
                None => write!(text, "  nothing"),
                Some(item) => write!(text, "  {item:x?}"),
            };
            let _ = match whom.is_empty() {
                true => writeln!(text),
                false => writeln!(text, ", after what processes {} were doing", whom.join(", ")),
            };
        }
        Unexplained(text)
    }
}
