//! What a heap says about itself.

use crate::attach::Record;
use crate::cache::Cache;
use crate::claim::Inside;
use crate::error::Error;
use crate::{handle, pages};
use plib_core::domain::Isolation;
use plib_core::layout::CLASSES;
use plib_core::user::In;
use plib_core::{CheckSummary, ClassStats, ClientInfo, Finding, Stats};
use std::path::PathBuf;

/// A heap's file and limits.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct HeapInfo {
    /// The file.
    pub path: PathBuf,
    /// The file beside it in which its clients' locks are; None if they are in the heap's own.
    pub lock_file: Option<PathBuf>,
    /// Bytes of the heap.
    pub size: u64,
    /// Superblocks of 64 KiB for items and index.
    pub superblocks: u32,
    /// Op contexts: how many threads of all processes can work at a time.
    pub contexts: u32,
    /// How many processes can have it open.
    pub clients: u32,
    /// Largest item (32 bytes of header, key and value).
    pub item_size_max: u32,
    /// When it was created, in unix seconds.
    pub created: u64,
    /// Whether programs may read it without a gate ([`CreateOptions::readable`](crate::CreateOptions::readable)).
    pub readable: bool,
    /// The file's permission bits.
    pub mode: u32,
    /// Its owner.
    pub uid: u32,
    /// Its group.
    pub gid: u32,
    /// The pages that this process has it in: `4 KiB`, or `2 MiB (97 % of the heap)`, counting what was touched so far.
    pub pages: String,
    /// What keeps programs out between calls.
    pub isolation: Isolation,
}

/// What a check of a whole heap found.
#[derive(Clone, Debug)]
pub struct CheckReport {
    /// Everything that is not as it should be, up to a thousand.
    pub findings: Vec<Finding>,
    /// What was counted on the way.
    pub summary: CheckSummary,
    /// Whether anything found is more than a leak.
    pub severe: bool,
}

/// Findings that are kept; a thoroughly broken heap has millions.
const FINDINGS_MAX: usize = 1000;

/// What a record and a mapping say.
pub(crate) fn describe(record: &Record, inside: Option<&Inside>) -> HeapInfo {
    let geometry = record.geometry();
    // A program that closed the kept descriptor gets no owner and no mode.
    let (uid, gid, mode) = record.owner().unwrap_or_default();
    HeapInfo {
        path: record.path().to_path_buf(),
        lock_file: record.lock_file(),
        size: geometry.size,
        superblocks: geometry.superblocks,
        contexts: geometry.contexts,
        clients: geometry.clients,
        item_size_max: geometry.item_size_max,
        created: geometry.created,
        readable: geometry.readable,
        mode: mode & 0o7777,
        uid,
        gid,
        pages: inside.map(|inside| pages::describe(inside.base(), inside.len())).unwrap_or_default(),
        isolation: inside.map_or(Isolation::None, |inside| inside.isolation()),
    }
}

impl Default for HeapInfo {
    fn default() -> Self {
        Self {
            path: PathBuf::new(),
            lock_file: None,
            size: 0,
            superblocks: 0,
            contexts: 0,
            clients: 0,
            item_size_max: 0,
            created: 0,
            readable: false,
            mode: 0,
            uid: 0,
            gid: 0,
            pages: String::new(),
            isolation: Isolation::None,
        }
    }
}

impl Cache {
    /// The heap's file and limits.
    pub fn info(&self) -> HeapInfo {
        // SAFETY: `self` holds the handle.
        let record = unsafe { handle::record_of_held(self.key()) };
        let inside = self.enter().ok();
        record.map(|record| describe(record, inside.as_ref())).unwrap_or_default()
    }

    /// Counters since the heap was created, and gauges of the moment.
    ///
    /// # Errors
    /// [`Error::Busy`] when no op context is free.
    pub fn stats(&self) -> Result<Stats, Error> {
        let mut inside = self.enter()?;
        inside.session().stats().map_err(|status| inside.error(status, 0, 0))
    }

    /// How each size class is used; walks the whole heap.
    ///
    /// # Errors
    /// [`Error::Busy`] when no op context is free.
    pub fn class_stats(&self) -> Result<Vec<ClassStats>, Error> {
        let mut inside = self.enter()?;
        let all: Result<_, _> = (0..CLASSES).map(|class| inside.session().class_stats(class)).collect();
        all.map_err(|status| inside.error(status, 0, 0))
    }

    /// Which bucket of the index a key belongs to at the moment: for tools, and tests that want keys to meet.
    ///
    /// # Errors
    /// [`Error::Key`] for a key of a wrong length, [`Error::Busy`] when no op context is free.
    pub fn bucket_of(&self, key: &[u8]) -> Result<u32, Error> {
        let mut inside = self.enter()?;
        // SAFETY: the slice is readable.
        unsafe { inside.session().bucket_of(In::new(key)) }.map_err(|status| inside.error(status, key.len(), 0))
    }

    /// The processes that have the heap open, and the dead that nobody has recovered yet.
    ///
    /// # Errors
    /// [`Error::Busy`] when no op context is free.
    pub fn clients(&self) -> Result<Vec<ClientInfo>, Error> {
        let mut inside = self.enter()?;
        let slots = 0..inside.geometry().clients;
        let all: Result<Vec<_>, _> = slots.map(|slot| inside.session().client_info(slot)).collect();
        all.map(|all| all.into_iter().flatten().collect()).map_err(|status| inside.error(status, 0, 0))
    }

    /// Recovers what dead clients held, and says how many op contexts that were. Operations do it too when they meet one.
    ///
    /// # Errors
    /// [`Error::Busy`] when no op context is free.
    pub fn reap(&self) -> Result<u32, Error> {
        let mut inside = self.enter()?;
        inside.session().reap().map_err(|status| inside.error(status, 0, 0))
    }

    /// Checks every invariant of the heap. On one that others write to, what they are just doing may show up as
    /// findings that are not severe.
    ///
    /// ```
    /// # let dir = tempfile::tempdir()?;
    /// # let cache = plib::Cache::create(dir.path().join("heap"), &plib::CreateOptions::new(16 << 20))?;
    /// cache.set(b"a", b"1", 0, 0)?;
    /// let report = cache.check()?;
    /// assert!(!report.severe && report.findings.is_empty());
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// [`Error::Busy`] when no op context is free.
    pub fn check(&self) -> Result<CheckReport, Error> {
        let mut inside = self.enter()?;
        let mut findings = Vec::new();
        let summary = inside.session().check(&mut |finding: Finding| {
            if findings.len() < FINDINGS_MAX {
                findings.push(finding);
            }
        });
        let summary = summary.map_err(|status| inside.error(status, 0, 0))?;
        Ok(CheckReport { findings, summary, severe: summary.severe > 0 })
    }
}
