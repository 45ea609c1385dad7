//! What the roles and the whole job tell.

use std::{collections::BTreeMap, path::PathBuf};

use serde::{Deserialize, Serialize};

use crate::latency::Latency;

/// What one process did.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct RoleReport {
    pub role: String,
    pub pid: u32,
    pub seconds: f64,
    /// Files found in the folders.
    pub files: u64,
    /// Reads that found an item.
    pub hits: u64,
    /// Reads that found none.
    pub misses: u64,
    /// Items stored.
    pub stored: u64,
    /// Items compared with the disk, byte for byte.
    pub compared: u64,
    /// Bytes compared.
    pub compared_bytes: u64,
    /// Whole passes over all files.
    pub passes: u64,
    /// Files larger than the heap takes.
    pub too_large: u64,
    /// Files that changed on the disk meanwhile and cannot be compared.
    pub changed: u64,
    /// Stores that a full or busy heap refused.
    pub refused: BTreeMap<String, u64>,
    /// What must not be: wrong bytes, or misses where nothing may miss.
    pub wrong: Vec<String>,
    /// The calls, in nanoseconds.
    pub latencies: BTreeMap<String, Latency>,
}

/// One heap's part of the job.
#[derive(Clone, Debug, Serialize)]
pub struct Phase {
    pub name: String,
    pub heap: PathBuf,
    pub heap_bytes: u64,
    pub item_size_max: u32,
    pub loader: RoleReport,
    /// The processes that lived to the end.
    pub roles: Vec<RoleReport>,
    pub killed: Option<Killed>,
    /// Items at the end, bytes in them, and how many were evicted.
    pub items: u64,
    pub item_bytes: u64,
    pub evictions: u64,
    /// The smallest part of the superblocks that was in use at any moment after loading.
    pub least_used: f64,
    /// What a check of the whole heap found.
    pub findings: Vec<String>,
    /// What must not be.
    pub wrong: Vec<String>,
}

/// The process that was killed, and how the others went on.
#[derive(Clone, Debug, Serialize)]
pub struct Killed {
    pub role: String,
    pub pid: i32,
    pub after_seconds: f64,
    /// What the others did after it.
    pub gets_after: u64,
    pub sets_after: u64,
    /// Op contexts that were recovered, by the others on the way or by a reap at the end.
    pub recovered_contexts: u64,
}

/// The whole job.
#[derive(Clone, Debug, Serialize)]
pub struct JobReport {
    pub folders: Vec<PathBuf>,
    pub files: u64,
    pub bytes: u64,
    pub largest: u64,
    pub hashed_keys: u64,
    pub unreadable: u64,
    pub phases: Vec<Phase>,
    pub seconds: f64,
}

impl JobReport {
    /// Whether all is as it must be.
    pub fn good(&self) -> bool {
        self.phases.iter().all(|phase| phase.wrong.is_empty())
    }
}
