//! Sweeping: recovering the dead, finding owners that are frozen, and, where the policy says so, killing their processes.
//!
//! Nothing here runs by itself. Whoever has the permission calls it: a supervisor, `plib sweep`, a program's own timer.

use crate::cache::Cache;
use crate::claim::{Refused, enter};
use crate::error::Error;
use crate::other_process::{Identity, Lookup};
use crate::process;
use crate::quiet::Quiet;
use crate::watch::{Still, Watch};
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

    /// Recovers the dead and looks at the living once. None while one who stood still at the first look of this sweep has not
    /// been watched for long enough; then the next step is due after [`Sweeper::pause`]. A sweeper that goes on after a report
    /// remembers who was frozen.
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
        // It allocates and reads files, and holds processes by descriptors.
        let _quiet = Quiet::begin();
        self.recovered += reap(key)?;
        self.watch.look(key)?;
        if self.watch.is_undecided() {
            return Ok(None);
        }
        let mut visit = Visit::new(key, &self.policy);
        let frozen: Vec<FrozenOwner> = self.watch.frozen().map(|still| visit.owner(still)).collect();
        self.watch.end_sweep();
        // If this is refused, others recover them; what was done is told in any case.
        if frozen.iter().any(|owner| owner.fate.is_over())
            && let Ok(recovered) = reap(key)
        {
            self.recovered += recovered;
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
        process::pause(sweeper.pause());
    }
}

fn describe(still: &Still, lookup: &mut Lookup) -> FrozenOwner {
    let holding = &still.holding;
    let process = lookup.process_of(holding).ok().and_then(|process| {
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

/// What is done about the frozen owners at the end of a sweep.
struct Visit<'a> {
    key: u64,
    policy: &'a SweepPolicy,
    lookup: Lookup,
    /// What became of clients as a whole, by slot.
    fates: Vec<(u32, Fate)>,
    /// The last process that was killed, and until when it is waited for: once, however many owners name it.
    waited: Option<(Identity, Instant)>,
}

impl<'a> Visit<'a> {
    fn new(key: u64, policy: &'a SweepPolicy) -> Self {
        Self { key, policy, lookup: Lookup::new(key), fates: Vec::new(), waited: None }
    }

    fn owner(&mut self, still: &Still) -> FrozenOwner {
        let mut owner = describe(still, &mut self.lookup);
        if self.policy.kill {
            let known = self.fates.iter().find(|(slot, _)| *slot == owner.slot).map(|(_, fate)| *fate);
            owner.fate = known.unwrap_or_else(|| self.kill(still));
            // These two are said of a thread; another of its process may stand still for good.
            if known.is_none() && !matches!(owner.fate, Fate::Gone | Fate::Resumed) {
                self.fates.push((owner.slot, owner.fate));
            }
        }
        owner
    }

    /// Kills the process of a frozen owner and waits until it is gone.
    fn kill(&mut self, still: &Still) -> Fate {
        match self.send_kill(still) {
            Ok(Some(fate)) => fate,
            Ok(None) => self.wait_for(&still.holding),
            // One that ended meanwhile is waited for like one that was killed.
            Err(e) if e.raw_os_error() == Some(libc::ESRCH) => self.wait_for(&still.holding),
            // EINVAL: it can be seen in this /proc, but is in no pid namespace of ours or below.
            Err(e) if e.kind() == io::ErrorKind::NotFound || e.raw_os_error() == Some(libc::EINVAL) => Fate::NotFound,
            Err(e) if e.kind() == io::ErrorKind::PermissionDenied => Fate::PermissionDenied,
            Err(e) => Fate::Failed(e.raw_os_error().unwrap_or(libc::EIO)),
        }
    }

    /// None if the signal was sent.
    fn send_kill(&mut self, still: &Still) -> io::Result<Option<Fate>> {
        let holding = &still.holding;
        let found = self.lookup.process_of(holding);
        let mut inside = enter(self.key).map_err(number_of)?;
        if holding.slot == inside.slot() {
            return Ok(Some(Fate::ThisProcess));
        }
        // Looked at again now that the process is held: what follows is only for one that still stands where it stood.
        let session = inside.session();
        if session.holding(holding.context).map_err(|_| busy())?.as_ref() != Some(holding) {
            let gone = session.is_gone(holding).map_err(|_| busy())?;
            return Ok(Some(if gone { Fate::Gone } else { Fate::Resumed }));
        }
        drop(inside);
        match found {
            // The same process may have opened the heap twice.
            Ok(process) if process.is_this() => Ok(Some(Fate::ThisProcess)),
            Ok(process) if process.pid() == 1 => Ok(Some(Fate::Init)),
            // It was woken just now, and only has to get a processor.
            Ok(process) if still.goes_on(process.activity(holding.thread)) => Ok(Some(Fate::Resumed)),
            Ok(process) => process.kill().map(|()| None),
            Err(e) => Err(e.raw_os_error().map_or_else(|| e.kind().into(), io::Error::from_raw_os_error)),
        }
    }

    /// Waits until the kernel says that the owner's address space is gone.
    fn wait_for(&mut self, holding: &Holding) -> Fate {
        let identity = Lookup::order(holding);
        let begun = self.waited.filter(|(last, _)| *last == identity);
        let (_, end) = *self.waited.insert(begun.unwrap_or_else(|| (identity, Instant::now() + self.policy.wait)));
        loop {
            match enter(self.key).map(|mut inside| inside.session().is_gone(holding)) {
                Ok(Ok(true)) => return Fate::Killed,
                // No op context or no seat at the moment: asked again.
                Ok(_) | Err(Refused::NoContext(_)) => {}
                // The handle was closed meanwhile, and nobody can say.
                Err(_) => return Fate::Lingers,
            }
            if Instant::now() >= end {
                return Fate::Lingers;
            }
            process::pause(Duration::from_millis(1));
        }
    }
}

/// Recovers what the dead held.
fn reap(key: u64) -> Result<u32, Error> {
    let mut inside = enter(key)?;
    inside.session().reap().map_err(|status| inside.error(status, 0, 0))
}

/// Too many calls are under way.
fn busy() -> io::Error {
    io::Error::from_raw_os_error(libc::EBUSY)
}

/// Why an operation did not begin, by the system's nearest number.
fn number_of(refused: Refused) -> io::Error {
    io::Error::from_raw_os_error(match refused {
        Refused::Closed => libc::EBADF,
        Refused::Interrupted | Refused::NoContext(_) => libc::EBUSY,
        Refused::Other(_) => libc::EIO,
    })
}

impl Cache {
    /// Recovers what the dead held, as [`Cache::reap`], and reports (or kills, by the policy) the owners that are frozen:
    /// inside an operation, holding what others wait for, and not moving for as long as the policy's patience. A process
    /// that is merely preempted or slow is none. It takes that long only if somebody stands still from its first look on;
    /// who comes to stand still later is left to the next sweep.
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
    /// [`Error::Busy`] when no op context is free; nothing was killed then. What went wrong with one owner is its [`Fate`].
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
            let quiet = Quiet::begin();
            watch.look(self.key())?;
            if !watch.is_undecided() {
                let mut lookup = Lookup::new(self.key());
                return Ok(watch.frozen().map(|still| describe(still, &mut lookup)).collect());
            }
            drop(quiet);
            process::pause(watch.slice());
        }
    }

    /// Whether pids of a client mean the same to this process; false if either's pid namespace is not known.
    pub fn shares_pids_with(&self, client: &plib_core::ClientInfo) -> bool {
        client.pid_namespace != 0 && client.pid_namespace == process::pid_namespace()
    }
}
