//! Sweeping: recovering the dead, finding owners that are frozen, and, where the policy says so, killing their processes.
//!
//! Nothing here runs by itself. Whoever has the permission calls it: a supervisor, `plib sweep`, a program's own timer.

use crate::cache::Cache;
use crate::claim::{Inside, enter};
use crate::error::Error;
use crate::process;
use crate::watch::{Still, Watch, process_of};
use plib_core::Holding;
use std::io;
use std::time::{Duration, Instant};

/// What a sweep does about owners that are frozen in the middle of an operation.
#[derive(Clone, Debug)]
pub struct SweepPolicy {
    kill: bool,
    patience: Duration,
    wait: Duration,
}

impl SweepPolicy {
    /// Frozen owners are reported, and count as frozen after 2 s.
    pub fn new() -> Self {
        Self { kill: false, patience: Duration::from_secs(2), wait: Duration::from_secs(5) }
    }

    /// Whether the processes of frozen owners get SIGKILL, and what they held is taken back. Off unless asked for: a
    /// process under a debugger is frozen too.
    pub fn kill(mut self, kill: bool) -> Self {
        self.kill = kill;
        self
    }

    /// How long an owner must not have moved at all to count as frozen; 10 ms at least.
    pub fn patience(mut self, patience: Duration) -> Self {
        self.patience = patience;
        self
    }

    /// How long a sweep waits for a killed process to be gone.
    pub fn wait(mut self, wait: Duration) -> Self {
        self.wait = wait;
        self
    }
}

impl Default for SweepPolicy {
    fn default() -> Self {
        Self::new()
    }
}

/// What became of a frozen owner.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum Fate {
    /// It was reported, as the policy wants.
    Reported,
    /// Its process was killed, and what it held was taken back.
    Killed,
    /// Its process or thread ended by itself, and what it held was taken back.
    Gone,
    /// It went on just before it would have been killed, and was let live.
    Resumed,
    /// This process may not look at it or may not kill it.
    PermissionDenied,
    /// No process that can be seen from here is surely the one: it is in a pid namespace that is not ours or below ours.
    NotFound,
    /// It is a thread of this very process.
    ThisProcess,
    /// It is the first process of this pid namespace.
    Init,
    /// It was killed and is not gone yet: it is in a frozen control group (v1) or waits in the kernel.
    Lingers,
    /// The operating system refused, with this error number.
    Failed(i32),
}

impl Fate {
    /// Whether nobody waits for this owner any more.
    pub fn is_over(self) -> bool {
        matches!(self, Self::Killed | Self::Gone | Self::Resumed)
    }
}

/// A process as it is seen from here.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ProcessInfo {
    /// Its pid here.
    pub pid: u32,
    /// The name of its program, up to 15 bytes.
    pub name: String,
    /// The user that runs it.
    pub uid: u32,
    /// What the owner's thread does, by the kernel's letter: T stopped, t traced, S or D asleep, R runnable.
    pub state: char,
}

/// An owner that is inside an operation, holds what others wait for, and does not get on.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct FrozenOwner {
    /// Its client's slot, as in [`Cache::clients`].
    pub slot: u32,
    /// Its pid as it knows itself, in its own pid namespace.
    pub pid: u32,
    /// The inode of that namespace; 0 if it is not known.
    pub pid_namespace: u64,
    /// The thread that is inside the operation, numbered in that namespace, if it is known.
    pub thread: Option<u32>,
    /// Its op context.
    pub context: u32,
    /// The buckets whose locks it holds: writers of these get BUSY.
    pub buckets: Vec<u32>,
    /// Whether it holds the right to reserve for a large value: large stores get BUSY.
    pub large: bool,
    /// The superblock whose use it is changing: others do without it.
    pub superblock: Option<u32>,
    /// How long it has been seen not to move.
    pub still_for: Duration,
    /// Its process, where it can be seen.
    pub process: Option<ProcessInfo>,
    /// What became of it.
    pub fate: Fate,
}

/// What a sweep found and did.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct SweepReport {
    /// Op contexts of the dead that were recovered, those of killed processes among them.
    pub recovered: u32,
    /// Owners that are frozen, or were.
    pub frozen: Vec<FrozenOwner>,
    /// Readers that do not get on. Nobody waits for them; the one or two superblocks that each reads in keep their use.
    pub readers: u32,
}

/// Sweeps step by step, for a program with a loop of its own.
///
/// ```
/// # let dir = tempfile::tempdir()?;
/// # let cache = plib::Cache::create(dir.path().join("heap"), &plib::CreateOptions::new(16 << 20))?;
/// let mut sweeper = plib::Sweeper::new(plib::SweepPolicy::new());
/// let report = loop {
///     match sweeper.step(&cache)? {
///         Some(report) => break report,
///         None => std::thread::sleep(sweeper.pause()), // or whatever else there is to do
///     }
/// };
/// assert!(report.frozen.is_empty());
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct Sweeper {
    policy: SweepPolicy,
    watch: Watch,
    recovered: u32,
}

impl Sweeper {
    /// Nothing has been looked at yet.
    pub fn new(policy: SweepPolicy) -> Self {
        let watch = Watch::new(policy.patience);
        Self { policy, watch, recovered: 0 }
    }

    /// Recovers the dead and looks at the living once. None while an owner has not been watched for long enough; then the
    /// next step is due after [`Sweeper::pause`]. A sweeper that goes on after a report remembers who was frozen.
    ///
    /// # Errors
    /// [`Error::Busy`] when no op context is free.
    pub fn step(&mut self, cache: &Cache) -> Result<Option<SweepReport>, Error> {
        self.step_on(cache.key())
    }

    /// The time until the next step is due.
    pub fn pause(&self) -> Duration {
        self.watch.slice()
    }

    fn step_on(&mut self, key: u64) -> Result<Option<SweepReport>, Error> {
        let mut inside = enter(key)?;
        self.recovered += inside.session().reap();
        self.watch.look(&inside);
        drop(inside);
        if self.watch.is_undecided() {
            return Ok(None);
        }
        let mut frozen: Vec<FrozenOwner> = Vec::new();
        for still in self.watch.frozen() {
            let killed = frozen.iter().any(|f| f.slot == still.holding.slot && f.fate == Fate::Killed);
            let mut owner = describe(still, &enter(key)?);
            if self.policy.kill {
                owner.fate = if killed { Fate::Killed } else { kill(key, &still.holding, self.policy.wait)? };
            }
            frozen.push(owner);
        }
        if frozen.iter().any(|owner| owner.fate.is_over()) {
            self.recovered += enter(key)?.session().reap();
        }
        let readers = self.watch.readers() as u32;
        Ok(Some(SweepReport { recovered: std::mem::take(&mut self.recovered), frozen, readers }))
    }
}

/// A whole sweep on the handle `key`. It is inside an operation only for single looks, so that the handle can be closed.
pub(crate) fn sweep(key: u64, policy: &SweepPolicy) -> Result<SweepReport, Error> {
    let mut sweeper = Sweeper::new(policy.clone());
    loop {
        if let Some(report) = sweeper.step_on(key)? {
            return Ok(report);
        }
        std::thread::sleep(sweeper.pause());
    }
}

fn describe(still: &Still, inside: &Inside) -> FrozenOwner {
    let holding = &still.holding;
    let process = process_of(holding, inside).ok().and_then(|process| {
        let state = process.activity(holding.thread)?.state;
        Some(ProcessInfo { pid: process.pid(), name: process.name(), uid: process.uid()?, state })
    });
    FrozenOwner {
        slot: holding.slot,
        pid: holding.pid,
        pid_namespace: holding.pid_namespace,
        thread: holding.thread,
        context: holding.context,
        buckets: holding.buckets.iter().copied().flatten().collect(),
        large: holding.large,
        superblock: holding.superblock,
        still_for: still.since.elapsed(),
        process,
        fate: Fate::Reported,
    }
}

/// Kills the process of a frozen owner and waits until it is gone.
fn kill(key: u64, holding: &Holding, wait: Duration) -> Result<Fate, Error> {
    let inside = enter(key)?;
    if holding.slot == inside.client().slot() {
        return Ok(Fate::ThisProcess);
    }
    let found = process_of(holding, &inside);
    // Looked at again now that the process is held: what follows is only for one that still stands where it stood.
    if inside.client().holding(holding.context).as_ref() != Some(holding) {
        return Ok(if inside.client().is_gone(holding) { Fate::Gone } else { Fate::Resumed });
    }
    let killed = match found {
        // The same process may have opened the heap twice.
        Ok(process) if process.is_this() => return Ok(Fate::ThisProcess),
        Ok(process) if process.pid() == 1 => return Ok(Fate::Init),
        Ok(process) => process.kill(),
        Err(e) => Err(e),
    };
    drop(inside);
    match killed {
        // EINVAL: it can be seen in this /proc, but is in no pid namespace of ours or below.
        Err(e) if e.kind() == io::ErrorKind::NotFound || e.raw_os_error() == Some(libc::EINVAL) => Ok(Fate::NotFound),
        Err(e) if e.kind() == io::ErrorKind::PermissionDenied => Ok(Fate::PermissionDenied),
        Err(e) if e.raw_os_error() != Some(libc::ESRCH) => Ok(Fate::Failed(e.raw_os_error().unwrap_or(libc::EIO))),
        // One that ended meanwhile is waited for like one that was killed.
        _ => Ok(if is_gone_within(key, holding, wait)? { Fate::Killed } else { Fate::Lingers }),
    }
}

/// Whether the kernel says, in time, that the owner's address space is gone.
fn is_gone_within(key: u64, holding: &Holding, wait: Duration) -> Result<bool, Error> {
    let started = Instant::now();
    loop {
        if enter(key)?.client().is_gone(holding) {
            return Ok(true);
        }
        if started.elapsed() >= wait {
            return Ok(false);
        }
        std::thread::sleep(Duration::from_millis(1));
    }
}

impl Cache {
    /// Recovers what the dead held, as [`Cache::reap`], and reports (or kills, by the policy) the owners that are frozen:
    /// inside an operation, holding what others wait for, and not moving for as long as the policy's patience. A process
    /// that is merely preempted or slow is none. It takes that long only if somebody stands still.
    ///
    /// ```
    /// # let dir = tempfile::tempdir()?;
    /// # let cache = plib::Cache::create(dir.path().join("heap"), &plib::CreateOptions::new(16 << 20))?;
    /// use std::time::Duration;
    /// let report = cache.sweep(&plib::SweepPolicy::new().patience(Duration::from_millis(500)))?;
    /// for owner in &report.frozen {
    ///     eprintln!("process {} does not run and holds bucket {:?}", owner.pid, owner.buckets);
    /// }
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// [`Error::Busy`] when no op context is free. What went wrong with one owner is its [`Fate`].
    pub fn sweep(&self, policy: &SweepPolicy) -> Result<SweepReport, Error> {
        sweep(self.key(), policy)
    }

    /// The owners that are frozen, without changing anything; see [`Cache::sweep`].
    ///
    /// # Errors
    /// [`Error::Busy`] when no op context is free.
    pub fn frozen_owners(&self, patience: Duration) -> Result<Vec<FrozenOwner>, Error> {
        let mut watch = Watch::new(patience);
        loop {
            let inside = enter(self.key())?;
            watch.look(&inside);
            if !watch.is_undecided() {
                return Ok(watch.frozen().map(|still| describe(still, &inside)).collect());
            }
            drop(inside);
            std::thread::sleep(watch.slice());
        }
    }

    /// Whether pids of a client mean the same to this process; false if either's pid namespace is not known.
    pub fn shares_pids_with(&self, client: &plib_core::ClientInfo) -> bool {
        client.pid_namespace != 0 && client.pid_namespace == process::pid_namespace()
    }
}
