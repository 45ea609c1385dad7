//! Who stands still in the middle of an operation: several looks at the same owners, some time apart.
//!
//! A look costs some microseconds; on a heap in good order the first finds nobody who holds anything, or the second finds
//! that he got on. Time counts only in small steps between looks. So if this process is itself stopped for an hour, with the
//! whole container perhaps, it does not take the others for frozen when all of them go on again.

use crate::claim::{Refused, enter};
use crate::other_process::{Activity, Lookup};
use plib_core::Holding;
use std::time::{Duration, Instant};

/// Looks at an owner before it counts as frozen.
const LOOKS: u32 = 20;
/// Time between two looks, at least.
const SLICE_MIN: Duration = Duration::from_millis(1);
/// The least patience: an owner is never judged by one look.
const PATIENCE_MIN: Duration = Duration::from_millis(10);

/// An owner that has not moved since the first look at it. (Tests watch something simpler than a `Holding`.)
#[derive(Clone, Debug)]
pub(crate) struct Still<H = Holding> {
    pub holding: H,
    /// The first look.
    pub since: Instant,
    /// How long it has been seen not to move.
    pub time: Duration,
    /// What its thread did at the second look, or when it was last found to starve.
    activity: Option<Activity>,
    /// Whether it could run and did not get a processor: busy neighbours are no reason to kill.
    starved: bool,
}

/// The looks so far.
pub(crate) struct Watch<H = Holding> {
    patience: Duration,
    last: Option<Instant>,
    /// The first look of the sweep under way. Who came to stand still after it is left to the next sweep: on a busy heap
    /// somebody is new at every look.
    begun: Option<Instant>,
    still: Vec<Still<H>>,
}

impl Watch {
    /// Looks at all op contexts. The operation ends before any process is looked for, which may take long.
    pub fn look(&mut self, key: u64) -> Result<(), Refused> {
        let mut inside = enter(key)?;
        let now = Instant::now();
        let numbers = 1..=inside.geometry().contexts;
        let holdings: Result<Vec<_>, _> = numbers.map(|number| inside.session().holding(number)).collect();
        let holdings = holdings.map_err(|status| Refused::from(inside.error(status, 0, 0)))?;
        let mut holdings: Vec<Holding> = holdings.into_iter().flatten().collect();
        drop(inside);
        // Each process is looked for once.
        holdings.sort_by_key(Lookup::order);
        let mut lookup = Lookup::new(key);
        self.note(now, holdings, |holding| lookup.process_of(holding).ok()?.activity(holding.thread));
        Ok(())
    }

    /// The owners that did not move for as long as was asked, and hold something that others wait for; those of one process
    /// one after the other.
    pub fn frozen(&self) -> impl Iterator<Item = &Still> {
        self.ripe().filter(|still| still.holding.holds_up())
    }

    /// How many readers did not move. They hold back the superblocks that they read in, and nobody else.
    pub fn readers(&self) -> usize {
        self.ripe().filter(|still| !still.holding.holds_up()).count()
    }
}

impl<H: Clone + PartialEq> Watch<H> {
    pub fn new(patience: Duration) -> Self {
        Self { patience: patience.max(PATIENCE_MIN), last: None, begun: None, still: Vec::new() }
    }

    /// The time to wait between two looks.
    pub fn slice(&self) -> Duration {
        (self.patience / LOOKS).max(SLICE_MIN)
    }

    /// Takes down what a look at `now` found.
    fn note(&mut self, now: Instant, holdings: Vec<H>, mut activity: impl FnMut(&H) -> Option<Activity>) {
        self.begun.get_or_insert(now);
        let passed = self.last.replace(now).map_or(Duration::ZERO, |last| (now - last).min(self.slice() * 2));
        let still =
            holdings.into_iter().map(|holding| match self.still.iter().find(|still| still.holding == holding) {
                Some(still) => still.longer(passed, self.patience, &mut activity),
                None => Still { holding, since: now, time: Duration::ZERO, activity: None, starved: false },
            });
        self.still = still.collect();
    }

    /// Whether another look may tell more of those who stood still at the first.
    pub fn is_undecided(&self) -> bool {
        let from_the_first = |still: &&Still<H>| self.begun.is_some_and(|begun| still.since <= begun);
        self.still.iter().filter(from_the_first).any(|still| still.time < self.patience && !still.starved)
    }

    /// The sweep is over, and the next look is the first of another.
    pub fn end_sweep(&mut self) {
        self.begun = None;
    }

    fn ripe(&self) -> impl Iterator<Item = &Still<H>> {
        self.still.iter().filter(|still| still.time >= self.patience && !still.starved)
    }
}

impl<H: Clone> Still<H> {
    /// The same after another look that found it where it was.
    fn longer(&self, passed: Duration, patience: Duration, activity: impl FnOnce(&H) -> Option<Activity>) -> Self {
        let mut next = Self { time: self.time + passed, ..self.clone() };
        let decides = next.time >= patience && (self.time < patience || self.starved);
        if decides {
            let now = activity(&self.holding);
            next.starved = starves(self.activity, now);
            if next.starved {
                (next.time, next.activity) = (Duration::ZERO, now);
            }
        } else if self.time.is_zero() {
            next.activity = activity(&self.holding);
        }
        next
    }

    /// Whether its thread, which does `now` what is given, can go on and has not yet had the time to.
    pub fn goes_on(&self, now: Option<Activity>) -> bool {
        starves(self.activity, now)
    }
}

/// Whether a thread could run and got no processor between two looks. One that runs without getting on is stuck.
fn starves(before: Option<Activity>, now: Option<Activity>) -> bool {
    now.is_some_and(|now| now.state == 'R' && before.is_some_and(|before| before.ticks == now.ticks))
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

    /// A watch whose owners are pairs of a number and the steps that it took, all asleep, and the time.
    struct Fake {
        watch: Watch<(u32, u32)>,
        now: Instant,
    }

    impl Fake {
        const PATIENCE: Duration = Duration::from_secs(2);

        fn new() -> Self {
            Self { watch: Watch::new(Self::PATIENCE), now: Instant::now() }
        }

        /// Looks until the sweep is decided; how long that took, in what the fake clock shows.
        fn sweep(&mut self, mut holdings: impl FnMut(u32) -> Vec<(u32, u32)>) -> Duration {
            let begin = self.now;
            for look in 0..LOOKS * 10 {
                self.watch.note(self.now, holdings(look), |_| Some(Activity { state: 'S', ticks: 7 }));
                if !self.watch.is_undecided() {
                    self.watch.end_sweep();
                    return self.now - begin;
                }
                self.now += self.watch.slice();
            }
            panic!("still undecided after {:?}", self.now - begin);
        }

        fn ripe(&self) -> Vec<(u32, u32)> {
            self.watch.ripe().map(|still| still.holding).collect()
        }
    }

    #[test]
    fn newcomers_at_every_look_do_not_put_a_sweep_off() {
        let mut fake = Fake::new();
        // A busy heap: whoever is inside at a look is another at the next.
        assert_eq!(fake.sweep(|look| vec![(1, look), (2, look)]), fake.watch.slice());
        // One stands still beside them from the first look on.
        let took = fake.sweep(|look| vec![(1, 100 + look), (3, 0), (2, look)]);
        assert!(took <= Fake::PATIENCE, "{took:?}");
        assert_eq!(fake.ripe(), [(3, 0)]);
        // A client moves only just before it would be ripe, again and again.
        let took = fake.sweep(|look| vec![(4, 200 + look / (LOOKS - 1))]);
        assert!(took <= Fake::PATIENCE && fake.ripe().is_empty(), "{took:?}");
    }

    #[test]
    fn a_newcomer_is_watched_by_the_next_sweep() {
        let mut fake = Fake::new();
        let came = |look: u32| if look < 5 { vec![(1, 0)] } else { vec![(1, 0), (2, 0)] };
        assert_eq!(fake.sweep(came), Fake::PATIENCE);
        assert_eq!(fake.ripe(), [(1, 0)]);
        // The time that the first sweep saw it counts.
        let took = fake.sweep(|_| vec![(1, 0), (2, 0)]);
        assert!(took > Duration::ZERO && took < Fake::PATIENCE / 2, "{took:?}");
        assert_eq!(fake.ripe(), [(1, 0), (2, 0)]);
        assert_eq!(fake.sweep(|_| Vec::new()), Duration::ZERO);
    }

    #[test]
    fn one_that_was_just_woken_goes_on() {
        let mut fake = Fake::new();
        fake.sweep(|_| vec![(1, 0)]);
        let still = fake.watch.ripe().next().expect("one stands still");
        let at = |state, ticks| Some(Activity { state, ticks });
        assert!(still.goes_on(at('R', 7)));
        assert!(!still.goes_on(at('S', 7)) && !still.goes_on(at('T', 7)) && !still.goes_on(at('R', 8)));
        assert!(!still.goes_on(None));
    }
}
