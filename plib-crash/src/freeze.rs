//! Stops a child after each instruction of an operation (SIGSTOP), and looks whether readers notice, writers get BUSY in
//! time, everybody else goes on, and the child after SIGCONT finishes or is refused.

use crate::death::{Deaths, EXIT_STATUS, Tally};
use crate::facts::{self, Facts};
use crate::scenario::{Changes, Scenario};
use crate::stage::{Stage, VALUE, value};
use plib::{Error, Status};
use std::path::Path;
use std::time::{Duration, Instant};

/// How long all reads of the bucket may take together. (They take microseconds; a busy machine takes its time.)
const READS: Duration = Duration::from_millis(50);
/// How long work on other buckets may take.
const OTHERS: Duration = Duration::from_millis(100);
/// How long a writer of the bucket may wait before it is told BUSY, and how long it must (a preempted owner is no frozen one).
const PATIENCE: std::ops::Range<Duration> = Duration::from_millis(100)..Duration::from_millis(1000);
const TRIES: usize = 3;
/// Beside every so many-th stop somebody stores a large value too. (The right to do so is held for most of such an operation.)
const LARGE_EACH: u64 = 32;
const MINE: u64 = 1 << 41;

/// What was seen beside stopped children.
#[derive(Default)]
pub struct Stopped {
    /// Stops at which a writer of the bucket got BUSY.
    pub busy: u64,
    /// Stops after which the operation was completed, and was refused.
    pub completed: u64,
    pub refused: u64,
    pub longest_read: Duration,
    pub longest_wait: Duration,
}

/// Stops after each planned instruction.
pub fn stop_all(
    scenario: &Scenario,
    folder: &Path,
    every: usize,
    mut tell: impl FnMut(u64, u64),
) -> Result<(Tally, Stopped), String> {
    let mut deaths = Deaths::new(scenario, folder)?;
    let route = deaths.route()?;
    let (old, new) = (deaths.untouched()?, deaths.completed()?);
    let mut tally = Tally { instructions: route.len(), ..Tally::default() };
    let mut stopped = Stopped::default();
    let plan = Deaths::plan(&route, every);
    // Writers that were told BUSY beside the very same heap, byte by byte, need not wait for it once more.
    let states = if every == 1 { deaths.states(&route, 1)? } else { plan.clone() };
    let mut waited = false;
    for n in &plan {
        let same = states.binary_search(n).is_err();
        let mut tries = 0;
        loop {
            let (mut child, straight) = deaths.bring(Some((&route, *n)))?;
            tally.strayed += u64::from(!straight);
            child.freeze().map_err(|e| e.to_string())?;
            let write = !same || !waited || tries > 0;
            let busy = stopped.busy;
            let large = scenario.large && tally.points.is_multiple_of(LARGE_EACH);
            let beside = beside(&deaths.stage, (&old, &new), write, large, &mut stopped);
            waited = if write { stopped.busy > busy } else { waited };
            let status = child.thaw().map_err(|e| e.to_string())?;
            tries += 1;
            match beside.and_then(|()| after(&deaths, scenario, status, &old, &new, &mut stopped)) {
                Ok(()) => {
                    tally.retried += u64::from(tries > 1);
                    break;
                }
                // Too slow, perhaps only because the machine is.
                Err(Wrong::Slow(_)) if tries < TRIES => {}
                Err(Wrong::Slow(e) | Wrong::Wrong(e)) => {
                    tally.fail(*n, e);
                    break;
                }
            }
        }
        tally.points += 1;
        tell(tally.points, plan.len() as u64);
    }
    Ok((tally, stopped))
}

/// What did not hold.
enum Wrong {
    Slow(String),
    Wrong(String),
}

fn wrong(e: impl std::fmt::Display) -> Wrong {
    Wrong::Wrong(e.to_string())
}

impl Deaths<'_> {
    /// What the watched keys hold when the child dies at the operation's start.
    fn untouched(&mut self) -> Result<Facts, String> {
        drop(self.fresh()?);
        facts::read(&self.stage).map_err(|e| e.to_string())
    }

    /// What they hold when it does its operation undisturbed.
    fn completed(&mut self) -> Result<Facts, String> {
        let mut child = self.fresh()?;
        let status = child.freeze().and_then(|()| child.thaw()).map_err(|e| e.to_string())?;
        if status != 0 {
            return Err(format!("the operation ends with status {}", status - EXIT_STATUS));
        }
        facts::read(&self.stage).map_err(|e| e.to_string())
    }
}

fn timed<T>(act: impl FnOnce() -> Result<T, Error>) -> (Result<T, Error>, Duration) {
    let since = Instant::now();
    (act(), since.elapsed())
}

/// What others see, and do if `write` (with a `large` value too), while the child is stopped.
fn beside(
    stage: &Stage,
    (old, new): (&Facts, &Facts),
    write: bool,
    large: bool,
    stopped: &mut Stopped,
) -> Result<(), Wrong> {
    let bucket = [&stage.target, &stage.near, &stage.near_gone, &stage.near_number];
    let (read, took) = timed(|| bucket.iter().try_for_each(|key| stage.cache.get(key).map(drop)));
    read.map_err(|e| wrong(format!("a reader noticed: {e}")))?;
    stopped.longest_read = stopped.longest_read.max(took);
    if took > READS {
        return Err(Wrong::Slow(format!("reading the bucket took {took:?}")));
    }
    for (i, fact) in facts::read(stage).map_err(wrong)?.iter().enumerate() {
        if *fact != old[i] && *fact != new[i] {
            let key = stage.keys[i].escape_ascii();
            return Err(wrong(format!("{key} holds {}, which is neither old nor new", facts::show(fact))));
        }
    }
    if !write {
        return Ok(());
    }
    let busy_before = stopped.busy;
    let (wrote, took) = timed(|| stage.cache.set(&stage.near, &value(MINE, VALUE), 1, 0));
    bounded("a writer of the bucket", wrote.map(drop), took, stopped)?;
    for (n, key) in [(1, &stage.fresh), (2, &stage.others[0])] {
        let (wrote, took) = timed(|| stage.cache.set(key, &value(MINE + n, VALUE), 1, 0));
        bounded("a writer of another bucket", wrote.map(drop), took, stopped)?;
    }
    // Who makes room or splits holds another bucket than its key's; nobody ever holds two.
    let busy = stopped.busy - busy_before;
    let elsewhere =
        stage.cache.bucket_of(&stage.near).map_err(wrong)? != stage.cache.bucket_of(&stage.others[0]).map_err(wrong)?;
    if busy > 1 && elsewhere {
        return Err(wrong(format!("{busy} buckets are held by one who is stopped")));
    }
    if large {
        let (wrote, took) = timed(|| stage.cache.set(&stage.others[12], &value(MINE + 3, 100_000), 1, 0));
        bounded("a writer of a large value", wrote.map(drop), took, stopped)?;
    }
    Ok(())
}

/// Done at once, or BUSY after some time and not too much of it.
fn bounded(who: &str, outcome: Result<(), Error>, took: Duration, stopped: &mut Stopped) -> Result<(), Wrong> {
    match outcome {
        Ok(()) if took <= OTHERS => Ok(()),
        Ok(()) => Err(Wrong::Slow(format!("{who} waited {took:?}"))),
        Err(e) if e.status() == Status::Busy => {
            stopped.busy += 1;
            stopped.longest_wait = stopped.longest_wait.max(took);
            match PATIENCE.contains(&took) {
                true => Ok(()),
                false if took < PATIENCE.start => Err(wrong(format!("{who} was told BUSY after {took:?} already"))),
                false => Err(Wrong::Slow(format!("{who} was told BUSY after {took:?}"))),
            }
        }
        Err(e) => Err(wrong(format!("{who} failed: {e}"))),
    }
}

/// What is so when the child has gone on and ended with `status`.
fn after(
    deaths: &Deaths<'_>,
    scenario: &Scenario,
    status: i32,
    old: &Facts,
    new: &Facts,
    stopped: &mut Stopped,
) -> Result<(), Wrong> {
    let stage = &deaths.stage;
    let done = match status {
        0 => true,
        s if s == EXIT_STATUS + Status::Busy as i32 => false,
        s => return Err(wrong(format!("the operation ended with status {}", s - EXIT_STATUS))),
    };
    stopped.completed += u64::from(done);
    stopped.refused += u64::from(!done);
    let touched = [&stage.near, &stage.fresh, &stage.others[0], &stage.others[12]];
    for (i, fact) in facts::read(stage).map_err(wrong)?.iter().enumerate() {
        if touched.contains(&&stage.keys[i]) {
            continue;
        }
        let is = |other: &Option<facts::Fact>| facts::same_but_for_cas(fact, other);
        let gone = scenario.evicts && fact.is_none();
        // Of a batch that was refused some may be done; what would have made room may be spared where others made it.
        let partly = scenario.changes == Changes::Each && !done && is(&new[i]);
        let spared = scenario.evicts && stage.keys[i] != stage.target && is(&old[i]);
        if !(gone || partly || spared || is(if done { &new[i] } else { &old[i] })) {
            let key = stage.keys[i].escape_ascii();
            return Err(wrong(format!("completed: {done}, and {key} holds {}", facts::show(fact))));
        }
    }
    deaths.at_rest().map(drop).map_err(wrong)
}
