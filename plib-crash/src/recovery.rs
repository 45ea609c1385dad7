//! Kills who recovers: a first child dies in an operation, a second one while it deals with what the first left.

use crate::death::{Deaths, Role, Tally, kill_all};
use crate::scenario::{Answer, Changes, Scenario};
use crate::stage::{Stage, VALUE, value};
use crate::survivor::Order;
use plib::Cache;
use std::path::Path;

/// The ways to meet the dead.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum By {
    /// `reap`, by a process that is attached.
    Reap,
    /// Attaching.
    Attach,
    /// A store into the bucket in which the first one died.
    Store,
}

impl By {
    /// All of them, by name.
    pub const ALL: [(&'static str, Self); 3] = [("reap", Self::Reap), ("attach", Self::Attach), ("store", Self::Store)];

    fn role(self) -> Role {
        match self {
            Self::Reap => Role { warm: attached, act: |s| s.cache.reap().map(drop) },
            Self::Attach => Role {
                warm: |_| Ok(()),
                act: |s| {
                    std::mem::forget(Cache::open(&s.path)?);
                    Ok(())
                },
            },
            Self::Store => Role { warm: attached, act: |s| s.cache.set(&s.near, &s.new[..VALUE], 9, 0).map(drop) },
        }
    }

    fn changes(self) -> Changes {
        if self == Self::Store { Changes::One } else { Changes::Nothing }
    }
}

/// Attached, and with a block at hand.
fn attached(s: &Stage) -> Answer {
    s.cache.set(&s.others[6], &value(6, VALUE), 6, 0)?;
    s.cache.set(&s.others[7], &value(7, VALUE), 7, 0).map(drop)
}

/// A look at the whole heap takes as long as a hundred steps: of long operations not every state is needed.
const LOOKS: usize = 3000;

/// After `firsts` of the states in which the scenario's operation can leave the heap, kills the recoverer after each of its
/// instructions.
pub fn kill_recoverers(
    scenario: &Scenario,
    by: By,
    folder: &Path,
    firsts: usize,
    every: usize,
    mut tell: impl FnMut(u64, u64),
) -> Result<Tally, String> {
    let mut deaths = Deaths::new(scenario, folder)?.beside(by.role());
    let route = deaths.route()?;
    let states = deaths.states(&route, route.len().div_ceil(LOOKS))?;
    if states.is_empty() {
        return Err("the operation leaves the heap as it was".into());
    }
    let mut deaths = deaths.then(by.changes(), route);
    let firsts = firsts.min(states.len());
    let mut all = Tally::default();
    for i in 0..firsts {
        let first = states[(2 * i + 1) * states.len() / (2 * firsts)];
        deaths.set_first(first);
        let one =
            kill_all(&mut deaths, every, &[Order::ReapFirst], |done, of| tell(all.points + done, of * firsts as u64))
                .map_err(|e| format!("first death after instruction {first}: {e}"))?;
        all.add(one, first);
    }
    Ok(all)
}

impl Tally {
    fn add(&mut self, one: Self, first: usize) {
        self.instructions += one.instructions;
        self.points += one.points;
        self.failed += one.failed;
        self.strayed += one.strayed;
        self.retried += one.retried;
        self.counted.exact += one.counted.exact;
        self.counted.between += one.counted.between;
        self.longest = self.longest.max(one.longest);
        self.slowest = self.slowest.max(one.slowest);
        self.failures.extend(one.failures.into_iter().map(|f| format!("first death after instruction {first}; {f}")));
    }
}
