//! The ways into a cache, and how a sequence runs through one of them.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use crate::checker::Checker;
use crate::command::{Command, Reply};
use crate::model::{Limits, Model};
use crate::time::Window;

/// A way into a cache.
pub trait Front {
    /// Does what the command says; [`crate::Token::Exact`] is the only token that comes here.
    fn execute(&mut self, command: &Command) -> Reply;

    /// How many items the cache evicted so far; each may be missed once.
    fn evictions(&mut self) -> u64;

    /// Faults of the heap that a check of every invariant finds.
    fn faults(&mut self) -> Vec<String>;

    /// The least that the cache may take the time for: it reads the kernel's coarse clock, which is up to a timer tick late.
    fn earliest(&mut self) -> u32 {
        SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.saturating_sub(TICK).as_secs() as u32)
    }

    /// The most.
    fn latest(&mut self) -> u32 {
        SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_secs() as u32)
    }
}

/// A timer tick of the slowest kernels (HZ = 100), twice.
const TICK: Duration = Duration::from_millis(20);

/// The model as a front: what the others are compared with, and a test of the checker.
pub struct ModelFront {
    model: Model,
    now: u32,
}

impl ModelFront {
    /// An empty cache whose clock stands at `now`.
    pub fn new(limits: Limits, now: u32) -> ModelFront {
        ModelFront { model: Model::new(limits), now }
    }
}

impl Front for ModelFront {
    fn execute(&mut self, command: &Command) -> Reply {
        self.model.execute(Window::at(self.now), command)
    }

    fn evictions(&mut self) -> u64 {
        0
    }

    fn faults(&mut self) -> Vec<String> {
        Vec::new()
    }

    fn earliest(&mut self) -> u32 {
        self.now
    }

    fn latest(&mut self) -> u32 {
        self.now
    }
}

/// Runs a sequence through a front and the checker; what went wrong, if anything did.
///
/// After the last command all items are read once more, and the heap is checked.
pub fn run(front: &mut dyn Front, checker: &mut Checker, commands: &[Command]) -> Result<(), String> {
    for (place, command) in commands.iter().enumerate() {
        step(front, checker, command).map_err(|e| format!("command {place}: {e}"))?;
    }
    let keys = checker.model().keys();
    step(front, checker, &Command::GetMany(keys)).map_err(|e| format!("reading all back: {e}"))?;
    step(front, checker, &Command::Scan).map_err(|e| format!("last scan: {e}"))?;
    match front.faults() {
        faults if faults.is_empty() => Ok(()),
        faults => Err(format!("the heap is damaged: {faults:?}")),
    }
}

/// One command: its cas is made exact (by a get, where it is not known), it runs, and is judged.
pub fn step(front: &mut dyn Front, checker: &mut Checker, command: &Command) -> Result<(), String> {
    if let Some(key) = checker.needs_cas_of(command) {
        step(front, checker, &Command::Get(key))?;
    }
    let exact = checker.with_exact_cas(command);
    let earliest = front.earliest();
    let reply = front.execute(&exact);
    let now = Window { earliest, latest: front.latest() };
    checker.judge(now, &exact, &reply, &mut || front.evictions())
}
