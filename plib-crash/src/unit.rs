//! A piece of work for one process: one operation, and what is done to who is inside it.

use crate::death::{Deaths, Tally, kill_all};
use crate::freeze::stop_all;
use crate::recovery::{By, kill_recoverers};
use crate::report::Report;
use crate::scenario::{self, Changes, Scenario};
use crate::survivor::Order;
use std::fmt;
use std::path::Path;
use std::time::Instant;

/// What is done.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Deed {
    /// Kill who does the operation.
    Kill,
    /// Kill who recovers from a death in the operation.
    Recover(By),
    /// Stop who does the operation.
    Stop,
}

/// A deed in a scenario.
#[derive(Clone, Copy)]
pub struct Unit {
    /// What.
    pub deed: Deed,
    /// Where.
    pub scenario: &'static Scenario,
}

/// Operations that leave different kinds of leftovers: a claimed block, a locked bucket, an item that no slot names,
/// fragments and the right to reserve, chain lines on their way in and out, a split bucket, a victim, a superblock.
const RECOVERED: &[(&str, By)] = &[
    ("set-same-size", By::Reap),
    ("set-same-size", By::Store),
    ("set-same-size", By::Attach),
    ("set-large", By::Reap),
    ("set-chain", By::Reap),
    ("delete-shrinks", By::Reap),
    ("delete-shrinks", By::Store),
    ("delete-large", By::Reap),
    ("incr-text", By::Reap),
    ("evict", By::Reap),
    ("superblock-new", By::Reap),
    ("superblock-moved", By::Reap),
    ("split-segment", By::Reap),
    ("split-chains", By::Reap),
];

impl fmt::Display for Unit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = self.scenario.name;
        match self.deed {
            Deed::Kill => write!(f, "kill:{name}"),
            Deed::Stop => write!(f, "stop:{name}"),
            Deed::Recover(by) => {
                let by = By::ALL.iter().find(|(_, b)| *b == by).map_or("", |(text, _)| text);
                write!(f, "recover:{name}:{by}")
            }
        }
    }
}

impl Unit {
    /// Every unit.
    pub fn all() -> Vec<Self> {
        let each = |deed| scenario::ALL.iter().map(move |scenario| Self { deed, scenario });
        let find = |name: &str| scenario::ALL.iter().find(|s| s.name == name);
        let recovered =
            RECOVERED.iter().filter_map(|(name, by)| Some(Self { deed: Deed::Recover(*by), scenario: find(name)? }));
        each(Deed::Kill).chain(recovered).chain(each(Deed::Stop)).collect()
    }

    /// The unit of this name.
    pub fn named(name: &str) -> Option<Self> {
        Self::all().into_iter().find(|unit| unit.to_string() == name)
    }

    /// Does it, after every `every`-th instruction; `firsts` is for recoveries.
    pub fn run(&self, folder: &Path, every: usize, firsts: usize, tell: impl FnMut(u64, u64)) -> Report {
        let since = Instant::now();
        let mut stopped = None;
        let done = match self.deed {
            Deed::Kill => {
                // When the survivor stores the key matters only if something may be left under it.
                let all = self.scenario.changes != Changes::Nothing;
                let orders = if all { &Order::ALL[..] } else { &Order::ALL[1..] };
                Deaths::new(self.scenario, folder).and_then(|mut deaths| kill_all(&mut deaths, every, orders, tell))
            }
            Deed::Recover(by) => kill_recoverers(self.scenario, by, folder, firsts, every, tell),
            Deed::Stop => stop_all(self.scenario, folder, every, tell).map(|(tally, seen)| {
                stopped = Some(seen);
                tally
            }),
        };
        let tally = done.unwrap_or_else(|e| {
            let mut tally = Tally::default();
            tally.fail(0, format!("cannot run: {e}"));
            tally
        });
        Report::new(self, tally, stopped, since.elapsed())
    }
}
