//! What each process does: load, read or write.

use std::{
    process,
    time::{Duration, Instant},
};

use clap::Args;
use plib::{Cache, Error};

use crate::{
    Folders,
    failure::{Failure, Result},
    files::{CachedFile, Files, Random, changed_since, read_into},
    latency::Latencies,
    report::RoleReport,
};

/// Bytes of an item beside its key and value.
const ITEM_HEADER: u64 = 32;
/// Wrong items that are named; more are only counted.
const NAMED: usize = 10;

/// The command line of a role.
#[derive(Args, Clone)]
pub struct RoleArguments {
    /// The heap: its name, or a path.
    #[arg(long)]
    heap: String,
    /// How long to work (reading a heap that holds all files goes on until every file was compared).
    #[arg(long, default_value_t = 10.0)]
    seconds: f64,
    /// The heap cannot hold all files: a miss is no error, but reads the file and stores it.
    #[arg(long)]
    may_miss: bool,
    #[command(flatten)]
    folders: Folders,
}

/// A process at work.
struct Role<'a> {
    arguments: &'a RoleArguments,
    cache: Cache,
    files: Files,
    random: Random,
    latencies: Latencies,
    report: RoleReport,
    content: Vec<u8>,
    created: u64,
    item_size_max: u64,
    start: Instant,
}

impl<'a> Role<'a> {
    fn new(name: &str, arguments: &'a RoleArguments) -> Result<Self> {
        let cache = Cache::open(&arguments.heap)?;
        let files = Files::find(&arguments.folders.folders)?;
        let (role, pid) = (name.to_owned(), process::id());
        let report = RoleReport { role, pid, files: files.all.len() as u64, ..RoleReport::default() };
        let random = Random::new(u64::from(pid));
        let info = cache.info();
        let (created, item_size_max) = (info.created, u64::from(info.item_size_max));
        let (latencies, content, start) = (Latencies::default(), Vec::new(), Instant::now());
        Ok(Self { arguments, cache, files, random, latencies, report, content, created, item_size_max, start })
    }

    fn has_time(&self) -> bool {
        self.start.elapsed() < Duration::from_secs_f64(self.arguments.seconds)
    }

    fn finish(mut self) -> RoleReport {
        self.report.seconds = self.start.elapsed().as_secs_f64();
        self.report.latencies = self.latencies.summary();
        self.report
    }

    /// A file to work on: some are asked for much more often than others, where not all can be in the cache.
    fn draw(&mut self) -> usize {
        let count = self.files.all.len() as u64;
        let drawn = if self.arguments.may_miss { self.random.skewed(count) } else { self.random.below(count) };
        drawn as usize
    }

    /// Stores what the disk has; its length goes into the flags.
    fn store(&mut self, at: usize) -> Result<()> {
        let CachedFile { path, key, .. } = &self.files.all[at];
        if read_into(path, &mut self.content).is_err() {
            self.report.changed += 1;
            return Ok(());
        }
        let (cache, content) = (&self.cache, &self.content);
        match self.latencies.time("set", || cache.set(key, content, content.len() as u32, 0)) {
            Ok(_) => self.report.stored += 1,
            Err(Error::TooLarge { .. }) => self.report.too_large += 1,
            Err(error @ (Error::NoMemory { .. } | Error::Busy)) => {
                *self.report.refused.entry(error.to_string()).or_default() += 1;
            }
            Err(error) => return Err(error.into()),
        }
        Ok(())
    }

    /// Remembers what must not be.
    fn wrong(&mut self, what: String) {
        if self.report.wrong.len() < NAMED {
            self.report.wrong.push(what);
        } else if self.report.wrong.len() == NAMED {
            self.report.wrong.push("... and more".into());
        }
    }

    /// Reads one item and compares it with the disk.
    fn compare(&mut self, at: usize, value: &mut [u8]) -> Result<()> {
        let CachedFile { path, key, len } = &self.files.all[at];
        let cache = &self.cache;
        let found = match self.latencies.time("get", || cache.get_into(key, value)) {
            Err(Error::TooSmall { .. }) => {
                self.report.changed += 1;
                return Ok(());
            }
            found => found?,
        };
        let Some(info) = found else { return self.missed(at) };
        self.report.hits += 1;
        if read_into(path, &mut self.content).is_err() {
            self.report.changed += 1;
            return Ok(());
        }
        self.report.compared += 1;
        self.report.compared_bytes += info.value_len as u64;
        let same = value[..info.value_len] == self.content[..] && info.flags == info.value_len as u32;
        if same {
            return Ok(());
        }
        if changed_since(path, self.created) {
            self.report.changed += 1;
            return Ok(());
        }
        let what =
            format!("{}: {} bytes in the cache are not the {len} bytes on the disk", path.display(), info.value_len);
        self.wrong(what);
        Ok(())
    }

    fn missed(&mut self, at: usize) -> Result<()> {
        let CachedFile { path, key, len } = &self.files.all[at];
        if ITEM_HEADER + key.len() as u64 + len > self.item_size_max {
            self.report.too_large += 1;
            return Ok(());
        }
        self.report.misses += 1;
        if self.arguments.may_miss {
            return self.store(at);
        }
        if !changed_since(path, self.created) {
            let what = format!("{}: not in the cache, which has room for all files", path.display());
            self.wrong(what);
        }
        Ok(())
    }
}

/// Stores every file once.
pub fn load(arguments: &RoleArguments) -> Result<RoleReport> {
    let mut role = Role::new("loader", arguments)?;
    for at in 0..role.files.all.len() {
        role.store(at)?;
    }
    role.report.passes = 1;
    Ok(role.finish())
}

/// Reads and compares: file by file where all must be there, else as real requests would come.
pub fn read(arguments: &RoleArguments) -> Result<RoleReport> {
    let mut role = Role::new("reader", arguments)?;
    // A file that grew meanwhile does not fit and is counted as changed.
    let mut value = vec![0; role.files.largest() as usize + 1];
    let count = role.files.all.len();
    if arguments.may_miss {
        while role.has_time() {
            let at = role.draw();
            role.compare(at, &mut value)?;
        }
        return Ok(role.finish());
    }
    // Readers begin at different files, so that they do not walk in step.
    let first = role.draw();
    while role.has_time() || role.report.passes == 0 {
        for at in 0..count {
            role.compare((first + at) % count, &mut value)?;
            if !role.has_time() && role.report.passes > 0 {
                break;
            }
        }
        role.report.passes += 1;
    }
    Ok(role.finish())
}

/// Keeps replacing items with what the disk has.
pub fn write(arguments: &RoleArguments) -> Result<RoleReport> {
    let mut role = Role::new("writer", arguments)?;
    while role.has_time() {
        let at = role.draw();
        role.store(at)?;
    }
    if role.report.stored == 0 {
        return Err(Failure::new("the writer stored nothing"));
    }
    Ok(role.finish())
}
