//! What is told: a line a unit, totals, or JSON.

use crate::death::Tally;
use crate::freeze::Stopped;
use crate::unit::Unit;
use serde::{Deserialize, Serialize};
use std::io::{self, Write};
use std::time::Duration;

/// The outcome of one unit.
#[derive(Clone, Serialize, Deserialize, Debug)]
pub struct Report {
    /// `kill:`, `recover:` or `stop:` and the operation.
    pub unit: String,
    /// What the operation is.
    pub about: String,
    /// Instructions of the operation (of all recoveries together).
    pub instructions: u64,
    /// Deaths or stops.
    pub points: u64,
    /// Those after which something was wrong.
    pub failed: u64,
    /// The first of these in words.
    pub failures: Vec<String>,
    /// Children that did not take the recorded way and were stepped from the start.
    pub strayed: u64,
    /// Tries repeated because the survivor was slow.
    pub retried: u64,
    /// After which memory was used exactly as before or after the operation.
    pub exact: u64,
    /// After which a superblock had changed its use already, or a part of several items was stored.
    pub between: u64,
    /// Longest time of all that the survivor did, microseconds.
    pub longest_us: u64,
    /// Longest single operation of the survivor, microseconds.
    pub slowest_us: u64,
    /// Stops: BUSY answers, completed and refused operations.
    pub busy: u64,
    pub completed: u64,
    pub refused: u64,
    /// Seconds that it took.
    pub seconds: f64,
}

fn us(duration: Duration) -> u64 {
    duration.as_micros() as u64
}

impl Report {
    /// Of a unit that came to its end.
    pub fn new(unit: &Unit, tally: Tally, stopped: Option<Stopped>, took: Duration) -> Self {
        let stopped = stopped.unwrap_or_default();
        Self {
            unit: unit.to_string(),
            about: unit.scenario.about.into(),
            instructions: tally.instructions as u64,
            points: tally.points,
            failed: tally.failed,
            failures: tally.failures,
            strayed: tally.strayed,
            retried: tally.retried,
            exact: tally.counted.exact,
            between: tally.counted.between,
            longest_us: us(tally.longest.max(stopped.longest_wait)),
            slowest_us: us(tally.slowest.max(stopped.longest_read)),
            busy: stopped.busy,
            completed: stopped.completed,
            refused: stopped.refused,
            seconds: took.as_secs_f64(),
        }
    }

    /// Of one that did not.
    pub fn of_lost(unit: &Unit, how: String) -> Self {
        let mut tally = Tally::default();
        tally.fail(0, how);
        Self::new(unit, tally, None, Duration::ZERO)
    }
}

const HEAD: &str =
    "operation                           instr.   points  failed    exact  between   longest  time  strayed";

/// The line above those of the units.
pub fn head(out: &mut impl Write) -> io::Result<()> {
    writeln!(out, "{HEAD}")
}

/// One unit.
pub fn line(out: &mut impl Write, r: &Report) -> io::Result<()> {
    let longest = r.longest_us as f64 / 1000.0;
    writeln!(
        out,
        "{:34} {:>7} {:>8} {:>7} {:>8} {:>8} {:>6.1} ms {:>4.0} s {:>8}",
        r.unit, r.instructions, r.points, r.failed, r.exact, r.between, longest, r.seconds, r.strayed
    )?;
    r.failures.iter().try_for_each(|failure| writeln!(out, "    {failure}"))
}

/// All of them together.
#[derive(Clone, Default, Serialize, Debug)]
pub struct Totals {
    /// Units.
    pub units: usize,
    /// Deaths of those who do an operation.
    pub kills: u64,
    /// Deaths of those who recover.
    pub recoveries: u64,
    /// Stops.
    pub stops: u64,
    /// BUSY answers beside stops.
    pub busy: u64,
    /// Of all of them, those after which something was wrong.
    pub failed: u64,
    /// Longest time of a survivor after a death, microseconds.
    pub longest_us: u64,
}

impl Totals {
    /// Adds up.
    pub fn of(reports: &[Report]) -> Self {
        let points = |deed: &str| reports.iter().filter(|r| r.unit.starts_with(deed)).map(|r| r.points).sum();
        Self {
            units: reports.len(),
            kills: points("kill:"),
            recoveries: points("recover:"),
            stops: points("stop:"),
            busy: reports.iter().map(|r| r.busy).sum(),
            failed: reports.iter().map(|r| r.failed).sum(),
            longest_us: reports
                .iter()
                .filter(|r| !r.unit.starts_with("stop:"))
                .map(|r| r.longest_us)
                .max()
                .unwrap_or(0),
        }
    }

    /// In a sentence.
    pub fn sentence(&self) -> String {
        format!(
            "{} deaths in operations, {} deaths in recoveries, {} stops ({} BUSY answers): {} failures; the slowest survivor took {:.1} ms",
            self.kills,
            self.recoveries,
            self.stops,
            self.busy,
            self.failed,
            self.longest_us as f64 / 1000.0
        )
    }
}
