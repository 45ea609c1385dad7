//! Who stands still in the middle of an operation: several looks at the same owners, some time apart.
//!
//! A look costs some microseconds; on a heap in good order the first finds nobody who holds anything, or the second finds
//! that he got on. Time counts only in small steps between looks. So if this process is itself stopped for an hour, with the
//! whole container perhaps, it does not take the others for frozen when all of them go on again.

use crate::claim::Inside;
use crate::other_process::{Activity, MappedFile, OtherProcess, Wanted};
use plib_core::Holding;
use std::io;
use std::time::{Duration, Instant};

/// Looks at an owner before it counts as frozen.
const LOOKS: u32 = 20;
/// Time between two looks, at least.
const SLICE_MIN: Duration = Duration::from_millis(1);
/// The least patience: an owner is never judged by one look.
const PATIENCE_MIN: Duration = Duration::from_millis(10);

/// An owner that has not moved since the first look at it.
#[derive(Clone, Debug)]
pub(crate) struct Still {
    pub holding: Holding,
    /// The first look.
    pub since: Instant,
    /// How long it has been seen not to move.
    pub time: Duration,
    /// What its thread did at the second look.
    activity: Option<Activity>,
    /// Whether it could run and did not get a processor: busy neighbours are no reason to kill.
    starved: bool,
}

/// The looks so far.
pub(crate) struct Watch {
    patience: Duration,
    last: Option<Instant>,
    still: Vec<Still>,
}

impl Watch {
    pub fn new(patience: Duration) -> Self {
        Self { patience: patience.max(PATIENCE_MIN), last: None, still: Vec::new() }
    }

    /// The time to wait between two looks.
    pub fn slice(&self) -> Duration {
        (self.patience / LOOKS).max(SLICE_MIN)
    }

    /// Looks at all op contexts.
    pub fn look(&mut self, inside: &Inside) {
        let now = Instant::now();
        let passed = self.last.replace(now).map_or(Duration::ZERO, |last| (now - last).min(self.slice() * 2));
        let client = inside.client();
        let holdings = (1..=client.heap().geometry().contexts).filter_map(|number| client.holding(number));
        let still = holdings.map(|holding| match self.still.iter().find(|still| still.holding == holding) {
            Some(still) => still.longer(passed, self.patience, inside),
            None => Still { holding, since: now, time: Duration::ZERO, activity: None, starved: false },
        });
        self.still = still.collect();
    }

    /// Whether another look may tell more.
    pub fn is_undecided(&self) -> bool {
        self.still.iter().any(|still| still.time < self.patience && !still.starved)
    }

    /// The owners that did not move for as long as was asked, and hold something that others wait for.
    pub fn frozen(&self) -> impl Iterator<Item = &Still> {
        self.ripe().filter(|still| still.holding.holds_up())
    }

    /// How many readers did not move. They hold back the superblocks that they read in, and nobody else.
    pub fn readers(&self) -> usize {
        self.ripe().filter(|still| !still.holding.holds_up()).count()
    }

    fn ripe(&self) -> impl Iterator<Item = &Still> {
        self.still.iter().filter(|still| still.time >= self.patience && !still.starved)
    }
}

impl Still {
    /// The same after another look that found it where it was.
    fn longer(&self, passed: Duration, patience: Duration, inside: &Inside) -> Self {
        let mut next = Self { time: self.time + passed, ..self.clone() };
        let decides = next.time >= patience && (self.time < patience || self.starved);
        if self.time.is_zero() || decides {
            let now = process_of(&self.holding, inside).ok().and_then(|process| process.activity(self.holding.thread));
            next.starved = decides && starves(self.activity, now);
            if next.starved {
                next.time = Duration::ZERO;
            }
            next.activity = now;
        }
        next
    }
}

/// Whether a thread could run and got no processor between two looks. One that runs without getting on is stuck.
fn starves(before: Option<Activity>, now: Option<Activity>) -> bool {
    now.is_some_and(|now| now.state == 'R' && before.is_some_and(|before| before.ticks == now.ticks))
}

/// The process that an owner belongs to.
pub(crate) fn process_of(holding: &Holding, inside: &Inside) -> io::Result<OtherProcess> {
    let file = MappedFile::at(inside.base())?;
    let Holding { pid, start_time, pid_namespace, .. } = *holding;
    OtherProcess::find(&Wanted { pid, start_time, pid_namespace, file: &file })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_who_could_run_and_did_not_starves() {
        let at = |state, ticks| Some(Activity { state, ticks });
        assert!(starves(at('R', 7), at('R', 7)) && starves(at('S', 7), at('R', 7)));
        let frozen = [(at('T', 7), at('T', 7)), (at('R', 7), at('R', 8)), (at('R', 7), at('T', 7)), (at('R', 7), None)];
        assert!(frozen.into_iter().all(|(before, now)| !starves(before, now)));
        // Of one that nobody could look at, nothing is known.
        assert!(!starves(None, at('R', 7)));
    }
}
