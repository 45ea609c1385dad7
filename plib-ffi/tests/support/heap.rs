//! A heap for one test, in a folder of its own that goes when the test ends.

use std::path::PathBuf;

use plib::{Cache, CheckReport, CreateOptions};

/// Modes of heaps whose clients' locks are in different places: in a file beside if root makes them, and in the heap's own.
pub const MODES: [u32; 2] = [0o600, 0o660];

/// A heap file in memory; dropped, its folder is gone.
pub struct TestHeap {
    folder: tempfile::TempDir,
    pub path: PathBuf,
    pub cache: Cache,
}

/// Where heaps of tests live: where `PLIB_DIR` says, else in memory, as real ones do, unless the machine has no such place.
pub fn folder() -> tempfile::TempDir {
    let asked = std::env::var_os("PLIB_DIR").map(PathBuf::from).filter(|place| place.is_dir());
    let memory = Some(PathBuf::from("/dev/shm")).filter(|place| place.is_dir());
    let place = asked.or(memory).unwrap_or_else(std::env::temp_dir);
    tempfile::Builder::new().prefix("plib-test-").tempdir_in(place).expect("a folder for the test")
}

impl TestHeap {
    pub fn new(size: u64) -> TestHeap {
        TestHeap::with(&CreateOptions::new(size))
    }

    pub fn with_item_max(size: u64, item_size_max: u32) -> TestHeap {
        TestHeap::with(&CreateOptions::new(size).item_size_max(item_size_max))
    }

    /// With PLIB_TEST_READABLE=1 any test runs on readable heaps.
    pub fn with(options: &CreateOptions) -> TestHeap {
        let folder = folder();
        let path = folder.path().join("heap");
        let readable = std::env::var_os("PLIB_TEST_READABLE").is_some_and(|v| v == "1");
        let options = if readable { options.clone().readable(true) } else { options.clone() };
        let cache = Cache::create(&path, &options).expect("create a heap");
        TestHeap { folder, path, cache }
    }

    /// A file name beside the heap.
    pub fn beside(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    pub fn path_text(&self) -> &str {
        self.path.to_str().expect("a readable path")
    }

    /// Checks every invariant; a severe finding fails the test.
    pub fn check(&self, when: &str) -> CheckReport {
        check(&self.cache, when)
    }
}

pub fn check(cache: &Cache, when: &str) -> CheckReport {
    let report = cache.check().expect("check");
    assert!(!report.severe, "{when}: the heap is damaged: {:?}", report.findings);
    report
}
