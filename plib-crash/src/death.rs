//! Kills a child after each instruction of an operation, and looks each time whether the others go on and nothing is lost.

use crate::facts::{self, Census, Facts, Picture};
use crate::image::Image;
use crate::route::Route;
use crate::scenario::{Answer, Changes, Scenario};
use crate::stage::Stage;
use crate::survivor::{self, Order, There, Took};
use crate::tracee::{self, Tracee, Trouble};
use plib::Error;
use std::path::Path;
use std::time::Duration;

/// How long the survivor may take for all that it does, the discovery of the death included.
pub const BOUND: Duration = Duration::from_millis(100);
/// Tries before a machine that is busy with something else is taken for a survivor that waits.
const TRIES: usize = 3;
/// Of the rounds of one string instruction, which copies, these are places to die.
const ROUNDS: [usize; 5] = [1, 2, 10, 100, 1000];

/// Which operation a child dies in.
#[derive(Clone, Copy)]
pub struct Role {
    /// What it does before.
    pub warm: fn(&Stage) -> Answer,
    /// The operation.
    pub act: fn(&Stage) -> Answer,
}

/// Who else is there.
enum Others {
    /// Nobody but the survivor.
    Nobody,
    /// Somebody who attached before and does nothing.
    Waiting(Role, Option<Tracee>),
    /// Somebody who attached after the one to die, and died at this instruction of this operation.
    Died { role: Role, route: Route, at: usize },
}

/// A way to bring a child to an instruction of its route.
type Bring = fn(&Route, &mut Tracee, usize) -> Result<bool, Trouble>;

/// What was found after one death.
pub struct Seen {
    facts: Facts,
    census: Census,
    took: Took,
}

/// All that is needed to kill in one scenario.
pub struct Deaths<'s> {
    scenario: &'s Scenario,
    role: Role,
    pub stage: Stage,
    pub image: Image,
    others: Others,
    changes: Changes,
}

/// What became of the heap after a death.
#[derive(Clone, Copy, Default)]
pub struct Counted {
    /// Memory is used exactly as if the operation had not happened, or as if it had been completed.
    pub exact: u64,
    /// Nothing is lost, but a superblock had changed its use, or some of several items were stored.
    pub between: u64,
}

fn text(e: impl std::fmt::Display) -> String {
    e.to_string()
}

/// Starts a child that comes to its operation.
pub fn start(stage: &Stage, role: Role) -> Result<Tracee, Trouble> {
    let mut child = Tracee::fork(|| {
        if let Err(e) = (role.warm)(stage) {
            eprintln!("the child cannot prepare: {e}");
            return EXIT_UNPREPARED;
        }
        tracee::begin();
        let answer = (role.act)(stage);
        tracee::end();
        answer.map_or_else(|e| EXIT_STATUS + e.status() as i32, |()| 0)
    })?;
    child.await_begin()?;
    Ok(child)
}

const EXIT_UNPREPARED: i32 = 98;
/// What a child's exit status is above the operation's status.
pub const EXIT_STATUS: i32 = 100;

impl<'s> Deaths<'s> {
    /// Makes the heap of a scenario in `folder`.
    pub fn new(scenario: &'s Scenario, folder: &Path) -> Result<Self, String> {
        let mut stage = Stage::new(folder, scenario.shape).map_err(text)?;
        (scenario.prepare)(&mut stage).map_err(text)?;
        let target = stage.target.clone();
        stage.watch(target);
        let image = Image::take(&stage.path).map_err(text)?;
        let role = Role { warm: scenario.warm, act: scenario.act };
        Ok(Self { scenario, role, stage, image, others: Others::Nobody, changes: scenario.changes })
    }

    /// The same beside somebody who is attached and does nothing.
    pub fn beside(mut self, other: Role) -> Self {
        self.others = Others::Waiting(other, None);
        self
    }

    /// Now the one who waited is the one to die, after a death in the scenario's operation.
    pub fn then(mut self, changes: Changes, route: Route) -> Self {
        let role = self.role;
        if let Others::Waiting(waiting, _) = self.others {
            self.role = waiting;
        }
        self.others = Others::Died { role, route, at: 0 };
        self.changes = changes;
        self
    }

    /// Chooses the instruction of the first death.
    pub fn set_first(&mut self, first: usize) {
        if let Others::Died { at, .. } = &mut self.others {
            *at = first;
        }
    }

    /// A child that stands at its operation, in a heap as it was.
    pub fn fresh(&mut self) -> Result<Tracee, String> {
        match self.fresh_by(Route::follow)? {
            Some(child) => Ok(child),
            // The first one to die strayed, and may have done anything to the heap: all from the start, step by step.
            None => self.fresh_by(Route::walk)?.ok_or_else(|| "the first child strays".into()),
        }
    }

    /// The same; None if the first one to die could not be brought to its place in this way.
    fn fresh_by(&mut self, bring: Bring) -> Result<Option<Tracee>, String> {
        if let Others::Waiting(_, child) = &mut self.others {
            *child = None;
        }
        self.image.restore();
        if let Others::Waiting(other, child) = &mut self.others {
            *child = Some(start(&self.stage, *other).map_err(text)?);
        }
        let child = start(&self.stage, self.role).map_err(text)?;
        if let Others::Died { role, route, at } = &self.others {
            let mut first = start(&self.stage, *role).map_err(text)?;
            if !matches!(bring(route, &mut first, *at), Ok(true)) {
                return Ok(None);
            }
            first.kill().and_then(|()| first.bury()).map_err(text)?;
        }
        Ok(Some(child))
    }

    /// The operation's way.
    pub fn route(&mut self) -> Result<Route, String> {
        Route::record(&mut self.fresh()?).map_err(text)
    }

    /// Numbers of instructions after which the heap is not what it was at the last look; it is looked at after every
    /// `every`-th instruction.
    pub fn states(&mut self, route: &Route, every: usize) -> Result<Vec<usize>, String> {
        let mut states = Vec::new();
        let mut child = self.fresh()?;
        self.image.changed();
        for n in 1..=route.len() {
            child.step().map_err(text)?;
            if !route.is_round(n) && n % every == 0 && self.image.changed() {
                states.push(n);
            }
        }
        Ok(states)
    }

    /// Which instructions to kill after: all, but of a copy's rounds only some; or every `every`-th of those.
    pub fn plan(route: &Route, every: usize) -> Vec<usize> {
        let mut rounds = 0usize;
        let mut wanted = |n: &usize| {
            rounds = if route.is_round(*n) { rounds + 1 } else { 0 };
            rounds == 0 || ROUNDS.contains(&rounds)
        };
        let all: Vec<_> = (0..=route.len()).filter(|n| wanted(n)).collect();
        let last = all.len() - 1;
        all.iter().enumerate().filter(|(i, _)| i % every == 0 || *i == last).map(|(_, n)| *n).collect()
    }

    /// A child that has done `n` instructions of its route (None: that stands at its start), and whether it took that route.
    pub fn bring(&mut self, place: Option<(&Route, usize)>) -> Result<(Tracee, bool), String> {
        let mut child = self.fresh()?;
        let Some((route, n)) = place else { return Ok((child, true)) };
        let straight = matches!(route.follow(&mut child, n), Ok(true));
        if !straight {
            drop(child);
            child = self.fresh()?;
            route.walk(&mut child, n).map_err(text)?;
        }
        Ok((child, straight))
    }

    /// The same, killed. Nobody waits for it: whether it is dead yet, and a zombie, is for others to find out.
    fn kill(&mut self, place: Option<(&Route, usize)>) -> Result<(Tracee, bool), String> {
        let (mut child, straight) = self.bring(place)?;
        child.kill().map_err(text)?;
        Ok((child, straight))
    }

    /// Kills a child and examines what it left.
    pub fn die(&mut self, place: Option<(&Route, usize)>, order: Order) -> Result<(Seen, bool), String> {
        let (child, straight) = self.kill(place)?;
        let worked = self.examine(order);
        child.bury().map_err(text)?;
        let (facts, took) = worked?;
        let census = self.at_rest()?;
        if order == Order::ReapFirst {
            self.recovery_changed_nothing(&facts)?;
            survivor::store_key(&self.stage)?;
        }
        Ok((Seen { facts, census, took }, straight))
    }

    /// What the survivor finds, and how long its work takes.
    fn examine(&self, order: Order) -> Result<(Facts, Took), String> {
        let stage = &self.stage;
        let facts = facts::read(stage).map_err(|e| format!("the survivor cannot read: {e}"))?;
        let has = |key: &[u8]| stage.keys.iter().position(|k| k == key).is_some_and(|i| facts[i].is_some());
        let there =
            There { number: has(&stage.near_number), gone: has(&stage.near_gone), evicts: self.scenario.evicts };
        Ok((facts, survivor::work(stage, self.scenario.large, order, there)?))
    }

    /// What was read after the death, and nobody has stored since, is the same after the recovery.
    fn recovery_changed_nothing(&self, before: &Facts) -> Result<(), String> {
        let (stage, touched) = (&self.stage, survivor::touched(&self.stage));
        let after = facts::read(stage).map_err(text)?;
        for (i, key) in stage.keys.iter().enumerate() {
            let gone = self.scenario.evicts && after[i].is_none();
            if after[i] != before[i] && !gone && !touched.contains(&key) {
                let (was, is) = (facts::show(&before[i]), facts::show(&after[i]));
                return Err(format!("{} held {was}, and after the recovery {is}", key.escape_ascii()));
            }
        }
        Ok(())
    }

    /// Recovers the dead; then nothing may be held, lost or unexplained.
    pub fn at_rest(&self) -> Result<Census, String> {
        let stage = &self.stage;
        stage.cache.reap().map_err(text)?;
        let report = stage.cache.check().map_err(text)?;
        if let Some(f) = report.findings.first() {
            let (kind, place, detail) = (f.kind, f.place, f.detail);
            return Err(format!("check finds: {kind} (place {place}, detail {detail:#x})"));
        }
        let extra = [&stage.fresh, &stage.same_bucket[survivor::SPARE]];
        let items = facts::count(stage, stage.keys.iter().chain(extra)).map_err(text)?;
        // What is expired or flushed and not yet removed is in the index and in no answer.
        let hidden = report.summary.items.saturating_sub(items);
        if hidden > 0 && !self.scenario.hides {
            return Err(format!("the index has {hidden} items that no key leads to"));
        }
        Census::take(&stage.cache, report.summary.items)
    }

    /// Compares what was found after a death with what would be, had the operation not begun and had it been completed.
    pub fn judge(&self, seen: &Seen, old: &Seen, new: &Seen, late: &mut [bool]) -> Result<bool, String> {
        let (mut is_old, mut is_new) = (true, true);
        for (i, key) in self.stage.keys.iter().enumerate() {
            let (now, before, after) = (&seen.facts[i], &old.facts[i], &new.facts[i]);
            if now != before && now != after {
                return Err(format!(
                    "{} holds {}; before the operation {}, after it {}",
                    key.escape_ascii(),
                    facts::show(now),
                    facts::show(before),
                    facts::show(after)
                ));
            }
            if before != after {
                is_old &= now == before;
                is_new &= now == after;
                if late[i] && now == before {
                    return Err(format!("{} had its new value after an earlier instruction", key.escape_ascii()));
                }
                late[i] |= now == after;
            }
        }
        if self.changes != Changes::Each && !is_old && !is_new {
            return Err("some of what changes at one moment has changed".into());
        }
        let exact = seen.census.compare(&old.census, &new.census, is_old, is_new);
        if self.scenario.in_steps { Ok(exact.unwrap_or(false)) } else { exact }
    }
}

/// The outcome of killing in one operation.
#[derive(Default)]
pub struct Tally {
    /// Instructions of the operation.
    pub instructions: usize,
    /// Deaths.
    pub points: u64,
    /// Deaths after which something was wrong, and the first few of them in words.
    pub failed: u64,
    pub failures: Vec<String>,
    /// Children that had to be stepped from the start.
    pub strayed: u64,
    /// Survivors that were slow at first, and in time when tried again.
    pub retried: u64,
    pub counted: Counted,
    pub longest: Duration,
    pub slowest: Duration,
}

const FAILURES_TOLD: usize = 10;

impl Tally {
    /// Notes a failure.
    pub fn fail(&mut self, n: usize, what: String) {
        self.failed += 1;
        if self.failures.len() < FAILURES_TOLD {
            self.failures.push(format!("after instruction {n}: {what}"));
        }
    }
}

/// Kills after each planned instruction, once for each order of the survivor's work. `tell` hears how far it has come.
pub fn kill_all(
    deaths: &mut Deaths<'_>,
    every: usize,
    orders: &[Order],
    mut tell: impl FnMut(u64, u64),
) -> Result<Tally, String> {
    let route = deaths.route()?;
    deaths.is_what_it_says(&route)?;
    let mut tally = Tally { instructions: route.len(), ..Tally::default() };
    let plan = Deaths::plan(&route, every);
    let all = (plan.len() * orders.len()) as u64;
    for order in orders {
        let (old, _) = deaths.die(None, *order)?;
        let (new, _) = deaths.die(Some((&route, route.len())), *order)?;
        deaths.changes_what_it_says(&old, &new)?;
        let mut late = vec![false; deaths.stage.keys.len()];
        for n in &plan {
            match deaths.die_in_time(&route, *n, *order, &mut tally) {
                Err(e) => tally.fail(*n, e),
                Ok(seen) => match deaths.judge(&seen, &old, &new, &mut late) {
                    Err(e) => tally.fail(*n, e),
                    Ok(true) => tally.counted.exact += 1,
                    Ok(false) => tally.counted.between += 1,
                },
            }
            tally.points += 1;
            tell(tally.points, all);
        }
    }
    Ok(tally)
}

impl Deaths<'_> {
    /// One death; a survivor that is too slow because the machine is busy may try again.
    fn die_in_time(&mut self, route: &Route, n: usize, order: Order, tally: &mut Tally) -> Result<Seen, String> {
        let mut tries = 0;
        loop {
            tries += 1;
            let (seen, straight) = match self.die(Some((route, n)), order) {
                // Longer than the bound as well: on a machine that has no time for the dying.
                Err(e) if tries < TRIES && e.contains(&Error::Busy.to_string()) => continue,
                other => other?,
            };
            tally.strayed += u64::from(!straight);
            if seen.took.total <= BOUND {
                tally.retried += u64::from(tries > 1);
                tally.longest = tally.longest.max(seen.took.total);
                tally.slowest = tally.slowest.max(seen.took.slowest);
                return Ok(seen);
            }
            if tries == TRIES {
                return Err(format!("the survivor took {:?}, more than {BOUND:?}", seen.took.total));
            }
        }
    }

    /// A scenario that does not do what it is for shows nothing.
    fn is_what_it_says(&mut self, route: &Route) -> Result<(), String> {
        if !matches!(self.others, Others::Nobody) {
            return Ok(());
        }
        let mut picture = |place| {
            self.kill(place)?.0.bury().map_err(text)?;
            Picture::take(&self.stage.cache).map_err(text)
        };
        let (before, after) = (picture(None)?, picture(Some((route, route.len())))?);
        if (self.scenario.happened)(&before, &after) {
            return Ok(());
        }
        Err("the operation does not do what the scenario is for".into())
    }

    /// One that changes what it must not, or nothing, is another operation.
    fn changes_what_it_says(&self, old: &Seen, new: &Seen) -> Result<(), String> {
        let changed = old.facts.iter().zip(&new.facts).any(|(a, b)| a != b);
        if changed == (self.changes == Changes::Nothing) {
            return Err(format!("the operation is to change {:?}, and something changed: {changed}", self.changes));
        }
        Ok(())
    }
}
