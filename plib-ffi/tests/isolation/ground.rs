//! Where the attacks happen: a guarded heap, where it and the vault lie, children that may die, and the gate by hand.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::{Mutex, MutexGuard, OnceLock};

use plib::image;
use plib::{Cache, CreateOptions, Isolation, OpenOptions};
use plib_core::domain::{Access, Pkru, ProtectionKey};
use plib_core::gate::{ARGUMENTS, Answer, Block, Call, Entry, Operation, STACKS, STRIDE, VAULT_SIZE};

use crate::stage::{self, End, in_child, keys, set_pkru};
use crate::support::heap::{TestHeap, check};

/// si_code of a fault that a key caused, of one on pages that do not allow it, and of one where nothing is mapped.
pub const PKUERR: i32 = 4;
pub const ACCERR: i32 = 2;
pub const MAPERR: i32 = 1;

/// What an item holds that no attacker may see.
pub const SECRET: &[u8] = &[0x5e; 64];

/// Keys, vault and places in it are the process's, so one test at a time.
pub fn alone() -> MutexGuard<'static, ()> {
    static ALONE: Mutex<()> = Mutex::new(());
    ALONE.lock().unwrap_or_else(|failed| failed.into_inner())
}

/// A heap behind the key, in a folder of its own, with one secret.
pub fn guarded_heap() -> TestHeap {
    let heap = TestHeap::with(&CreateOptions::new(16 << 20).contexts(256));
    assert_eq!(heap.cache.isolation(), Isolation::Guarded, "run by scripts/protection-test, without PLIB_ISOLATION");
    heap.cache.set(b"secret", SECRET, 0, 0).expect("set");
    heap
}

/// The same on tier `none`: what attacks are shown to succeed on.
pub fn unguarded_heap() -> TestHeap {
    let mut heap = TestHeap::with(&CreateOptions::new(16 << 20).contexts(256));
    heap.cache = open_unguarded(&heap.path);
    heap.cache.set(b"secret", SECRET, 0, 0).expect("set");
    heap
}

pub fn open_guarded(path: &Path) -> Cache {
    let cache = Cache::open_with(path, &OpenOptions::new().isolation(Isolation::Guarded))
        .unwrap_or_else(|e| panic!("{e}: run scripts/protection-test"));
    assert_eq!(cache.isolation(), Isolation::Guarded);
    cache
}

pub fn open_unguarded(path: &Path) -> Cache {
    let cache = Cache::open_with(path, &OpenOptions::new().isolation_at_most(Isolation::None)).expect("open");
    assert_eq!(cache.isolation(), Isolation::None, "run without PLIB_ISOLATION");
    cache
}

/// A heap behind the key that lets reads through, with one secret.
pub fn readable_heap() -> TestHeap {
    let heap = TestHeap::with(&CreateOptions::new(16 << 20).contexts(256).readable(true));
    assert_eq!(heap.cache.isolation(), Isolation::Guarded, "run by scripts/protection-test, without PLIB_ISOLATION");
    heap.cache.set(b"secret", SECRET, 0, 0).expect("set");
    heap
}

/// All mappings of the trusted image, the only code that opens a key.
pub fn image_mappings() -> Vec<Range> {
    regions()
        .into_iter()
        .filter(|region| region.name.starts_with("/memfd:plib-image"))
        .map(|region| region.range)
        .collect()
}

/// Where the trusted image is mapped; only in a process that has guarded a heap.
fn image() -> usize {
    let is_image = |region: &&Region| region.name.starts_with("/memfd:plib-image");
    regions().iter().find(is_image).expect("the image is mapped").range.start
}

/// The gate.
pub fn gate() -> Entry {
    static GATE: OnceLock<Entry> = OnceLock::new();
    // SAFETY: a function of this type begins there.
    *GATE.get_or_init(|| unsafe { std::mem::transmute::<usize, Entry>(image() + image::enter()) })
}

/// The gate's page of constants.
pub fn constants() -> *mut u8 {
    (image() + image::constants()) as *mut u8
}

/// The bits of PKRU that the gate changes, and what it leaves in them: the first two words of its constants.
pub fn gate_bits() -> (u32, u32) {
    let words: *const u32 = constants().cast();
    // SAFETY: the page is mapped readable for good.
    unsafe { (words.read(), words.add(1).read()) }
}

/// Addresses from `start` to before `end`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Range {
    pub start: usize,
    pub end: usize,
}

/// Where things are in this process, by /proc/self/smaps.
#[derive(Clone, Copy, Debug)]
pub struct Places {
    pub key: ProtectionKey,
    pub heap: Range,
    /// As far as it carries the key.
    pub vault: Range,
}

struct Region {
    range: Range,
    key: u8,
    name: String,
}

/// Every mapping of this process.
fn regions() -> Vec<Region> {
    let smaps = std::fs::read_to_string("/proc/self/smaps").expect("smaps");
    let mut regions: Vec<Region> = Vec::new();
    for line in smaps.lines() {
        let mut words = line.split_whitespace();
        let first = words.next().unwrap_or("");
        let hex = |text: &str| usize::from_str_radix(text, 16).ok();
        if let Some((start, end)) = first.split_once('-').and_then(|(a, b)| Some((hex(a)?, hex(b)?))) {
            let name = words.nth(4).unwrap_or("").to_string();
            regions.push(Region { range: Range { start, end }, key: 0, name });
        } else if first == "ProtectionKey:" {
            regions.last_mut().expect("a mapping").key = words.next().unwrap().parse().expect("a key");
        }
    }
    regions
}

/// Where the file is mapped, and by which key each.
pub fn mappings_of(path: &Path) -> Vec<(Range, u8)> {
    let of_file = |region: &Region| Path::new(&region.name) == path;
    regions().into_iter().filter(of_file).map(|region| (region.range, region.key)).collect()
}

/// The same for a file that is mapped once.
pub fn mapping_of(path: &Path) -> (Range, u8) {
    let all = mappings_of(path);
    assert_eq!(all.len(), 1, "{all:x?}");
    all[0]
}

impl Places {
    /// Of a heap that this process has behind the key.
    pub fn of(path: &Path) -> Self {
        let (heap, number) = mapping_of(path);
        let key = ProtectionKey::new(number).expect("the heap carries a key");
        let anonymous = |region: &&Region| region.key == number && region.name.is_empty();
        let start = regions().iter().find(anonymous).expect("the vault").range.start;
        let keyed = if Self::stacks_are_keyed() { VAULT_SIZE } else { STACKS };
        Self { key, heap, vault: Range { start, end: start + keyed } }
    }

    fn stacks_are_keyed() -> bool {
        stage::kernel() >= (6, 12)
    }

    /// The stack of a seat, without the inaccessible page below it.
    pub fn stack(&self, seat: usize) -> Range {
        let start = self.vault.start + STACKS + seat * STRIDE;
        Range { start: start + 4096, end: start + STRIDE }
    }

    /// The same, if stacks carry the key, as they do since Linux 6.12; else a page of the vault.
    pub fn keyed_stack(&self, seat: usize) -> Range {
        let stack = self.stack(seat);
        match Self::stacks_are_keyed() {
            true => stack,
            false => Range { start: self.vault.start + 0x2000, end: self.vault.start + 0x3000 },
        }
    }

    /// What is in the vault before the stacks, as only somebody sees who opens the key himself.
    pub fn vault_table(&self) -> Vec<u8> {
        let before = Pkru::read(keys());
        set_pkru(keys(), before.with(self.key, Access::Open));
        // SAFETY: mapped, aligned, and open for this thread now.
        let table = (0..STACKS).map(|at| unsafe { ((self.vault.start + at) as *const u8).read_volatile() }).collect();
        set_pkru(keys(), before);
        table
    }

    /// Whether the key is closed for this thread.
    pub fn is_closed(&self) -> bool {
        Pkru::read(keys()).access(self.key) == Access::Closed
    }
}

const PANICKED: u32 = 0xdead;

/// `in_child`, for code that may fail or hang: a panic is told as a number of its own, a child that hangs is ended by its alarm.
pub fn child(act: impl FnOnce() -> u32) -> End {
    let end = in_child(|| {
        // SAFETY: a plain system call.
        unsafe { libc::alarm(30) };
        catch_unwind(AssertUnwindSafe(act)).unwrap_or(PANICKED)
    });
    assert_ne!(end, End::Told(PANICKED), "the child panicked");
    end
}

/// Asks the gate by hand: the number of the seat and the answer.
pub fn ask(operation: u32, heap: u32, words: &[u64]) -> (u32, Answer) {
    let mut block = block(operation, heap, words);
    // SAFETY: a guarded heap is open, so the gate is ready; the block is ours. What the words say is the test's matter.
    let seat = unsafe { gate()(&mut block, 0) }.seat;
    (seat as u32, block.answer)
}

pub fn block(operation: u32, heap: u32, words: &[u64]) -> Block {
    let mut all = [0; ARGUMENTS];
    all[..words.len()].copy_from_slice(words);
    // What is there if nothing was answered.
    let answer = Answer { status: UNANSWERED, ..Answer::NONE };
    Block { call: Call { operation, heap, words: all }, answer, late: 0 }
}

pub const UNANSWERED: u32 = 0xffff;

/// The words of a get that copies to `buf`.
pub fn get_block(key: &[u8], buf: &mut [u8]) -> Block {
    let words = [key.as_ptr() as u64, key.len() as u64, buf.as_mut_ptr() as u64, buf.len() as u64];
    block(Operation::Get as u32, 0, &words)
}

/// Nothing in the heap is wrong, nothing is held, and the secret is as it was.
pub fn unharmed(cache: &Cache, when: &str) {
    cache.reap().expect("reap");
    let report = check(cache, when);
    assert_eq!(report.summary.claimed_blocks, 0, "{when}");
    assert_eq!(cache.get(b"secret").expect("get").expect("the secret").value, SECRET, "{when}");
}
