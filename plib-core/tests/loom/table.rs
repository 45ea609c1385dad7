//! A small table: the shipped index over a few lines and blocks, and the steps that operations do around it.
//!
//! | here | mirrors |
//! | --- | --- |
//! | `Table::probe` | `cache/read.rs` `Reading::probe` with `take_out`; key and value are a word each and a pair of words |
//! | `Table::get_fast` | `cache/fast.rs` `Reading::get_fast`; None means that the shipped reader then goes the general way |
//! | `Table::lock`, `lock_key` | `cache/lock.rs` `Op::lock`, `wait_for`, `take_over`, `lock_key` |
//! | `Table::claim` | `claim.rs` `Op::try_claim_protected` |
//! | `Table::set` | `cache/store.rs` `Op::commit`, `publish`, `dispose` |
//! | `Table::delete` | `cache/remove.rs` `Op::delete_copied`, `cache/lock.rs` `Op::shrink` |

use plib_core::client::Owner;
use plib_core::hash::Hash;
use plib_core::heap::block::{self, Meta, State};
use plib_core::index::bucket::{Bucket, Search};
use plib_core::index::growth::LEVEL_MIN;
use plib_core::index::{self, Found, Growth, Line, Lines, Probe, Slot};
use plib_core::sync::{AtomicU64, Ordering, fence, relax};
use std::cell::Cell as Private;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::atomic::AtomicUsize;
use std::sync::{Arc, Mutex};

/// The bucket that is split.
pub const LOW: u32 = 0;
/// The bucket that the split makes.
pub const HIGH: u32 = 1 << LEVEL_MIN;

/// A key: who it is, and the bucket that it belongs to once both exist.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Key {
    pub id: u64,
    pub hash: Hash,
}

impl Key {
    /// A key that stays in bucket LOW.
    pub const fn low(id: u64) -> Self {
        Self { id, hash: Hash(id << (LEVEL_MIN + 1)) }
    }

    /// A key that moves to bucket HIGH.
    pub const fn high(id: u64) -> Self {
        Self { id, hash: Hash(id << (LEVEL_MIN + 1) | 1 << LEVEL_MIN) }
    }

    /// Another key of the same hash.
    pub const fn twin(self, id: u64) -> Self {
        Self { id, hash: self.hash }
    }
}

/// An item's value: a torn one has unequal halves.
pub type Value = [u64; 2];

/// A whole value.
pub const fn whole(n: u64) -> Value {
    [n, n]
}

/// A block.
pub struct Cell {
    pub meta: AtomicU64,
    pub key: AtomicU64,
    pub value: [AtomicU64; 2],
}

impl Cell {
    fn new() -> Self {
        Self { meta: AtomicU64::new(0), key: AtomicU64::new(0), value: [AtomicU64::new(0), AtomicU64::new(0)] }
    }

    /// Writes key and value as the racing copy does: in no order.
    pub fn fill(&self, key: Key, value: Value) {
        self.key.store(key.id, Ordering::Relaxed);
        for (word, half) in self.value.iter().zip(value) {
            word.store(half, Ordering::Relaxed);
        }
    }

    /// Reads the value the same way.
    pub fn read(&self) -> Value {
        let [a, b] = &self.value;
        [a.load(Ordering::Relaxed), b.load(Ordering::Relaxed)]
    }
}

const CHAIN_UNITS: u64 = 64;

/// Lines, blocks, and who is dead.
pub struct Table {
    growth: AtomicU64,
    buckets: [Line; 2],
    chain: Vec<Line>,
    blocks: Vec<Cell>,
    dead: AtomicU64,
    takeovers: AtomicUsize,
}

impl Lines for Table {
    fn growth(&self) -> &AtomicU64 {
        &self.growth
    }

    fn bucket(&self, number: u32) -> Option<&Line> {
        let [low, high] = &self.buckets;
        match number {
            LOW => Some(low),
            HIGH => Some(high),
            _ => None,
        }
    }

    fn chain(&self, unit: u64) -> Option<&Line> {
        self.chain.get(unit.checked_sub(CHAIN_UNITS)? as usize)
    }
}

/// What a reader checks; all of it in the shipped probe.
#[derive(Clone, Copy)]
pub struct Checks {
    /// That the slot word is still the same.
    pub slot: bool,
    /// That the block is still in the same life.
    pub meta: bool,
    /// That the growth word is still the same; the general way is the shipped code and always looks.
    pub growth: bool,
}

/// As `cache/read.rs` does it.
pub const ALL: Checks = Checks { slot: true, meta: true, growth: true };

/// The unit of block `i`.
pub const fn unit_of(block: usize) -> u64 {
    block as u64 + 1
}

/// The unit of chain line `i`.
pub const fn line_unit(line: usize) -> u64 {
    line as u64 + CHAIN_UNITS
}

/// Context `n` in its first life.
pub const fn owner(n: u32) -> Owner {
    Owner::new(n, 1)
}

impl Table {
    /// An empty table with this many chain lines and blocks.
    pub fn new(chain: usize, blocks: usize) -> Self {
        Self {
            growth: AtomicU64::new(Growth::START.0),
            buckets: [Line::new(), Line::new()],
            chain: (0..chain).map(|_| Line::new()).collect(),
            blocks: (0..blocks).map(|_| Cell::new()).collect(),
            dead: AtomicU64::new(0),
            takeovers: AtomicUsize::new(0),
        }
    }

    /// The same after the split of LOW.
    pub fn split_already(self) -> Self {
        self.growth.store(Growth::START.next().unwrap().0, Ordering::Relaxed);
        self
    }

    pub fn cell(&self, block: usize) -> &Cell {
        &self.blocks[block]
    }

    pub fn line(&self, number: u32) -> &Line {
        self.bucket(number).unwrap()
    }

    pub fn chain_line(&self, i: usize) -> &Line {
        &self.chain[i]
    }

    fn cell_at(&self, unit: u64) -> Option<&Cell> {
        self.blocks.get(unit.checked_sub(1)? as usize)
    }

    /// Says that `who` will never act again. As the kernel's release of a lock: who learns of it sees all that `who` did.
    pub fn bury(&self, who: Owner) {
        self.dead.fetch_or(1 << who.context(), Ordering::AcqRel);
    }

    pub fn is_dead(&self, who: Owner) -> bool {
        self.dead.load(Ordering::Acquire) >> who.context() & 1 == 1
    }

    /// Puts an item into a table that nobody else uses yet. A chain line is linked when the bucket is full.
    pub fn put(&self, number: u32, key: Key, block: usize, value: Value) {
        let cell = self.cell(block);
        cell.fill(key, value);
        block::publish(&cell.meta, Meta::live(0, 1));
        let slot = Slot::new(key.hash, unit_of(block));
        let bucket = Bucket::locked(self, self.line(number), number);
        let search = self.search(&bucket, key);
        match search.vacant {
            Some(word) => bucket.commit(word, slot),
            None => {
                let i = self.chain.iter().position(|l| block::load(l.meta()).state() == State::Free).unwrap();
                let line = self.chain_line(i);
                bucket.extend(search.last, line, line_unit(i), slot, || {
                    block::publish(line.meta(), Meta::live(0, 1));
                });
            }
        }
    }

    /// Looks a key up once.
    pub fn lookup(&self, key: Key, checks: Checks) -> Found<Value> {
        index::lookup(self, key.hash, |slot, word| self.probe(slot, word, key, checks))
    }

    /// Looks a key up once, in the first line only; Retry if that does not do.
    pub fn get_fast(&self, key: Key, checks: Checks) -> Found<Value> {
        let growth = index::growth(self);
        let line = self.line(growth.bucket(key.hash));
        // The shipped filter compares all tags at once, here one after the other.
        let fits = |word: &&AtomicU64| Slot(word.load(Ordering::Relaxed)).may_be(key.hash);
        let Some(word) = line.slots().iter().find(fits) else { return Found::Retry };
        let slot = Slot(word.load(Ordering::Acquire));
        if !slot.may_be(key.hash) {
            return Found::Retry;
        }
        match self.probe(slot, word, key, checks) {
            Probe::Hit(value) if !checks.growth || index::growth(self) == growth => Found::Hit(value),
            _ => Found::Retry,
        }
    }

    /// Looks a key up in a table that nobody else uses any more.
    pub fn get(&self, key: Key) -> Option<Value> {
        match self.lookup(key, ALL) {
            Found::Hit(value) => Some(value),
            Found::Miss => None,
            Found::Retry => panic!("retry in a quiet table"),
        }
    }

    /// Looks up a key that is present all the time with the value `n`: a reader may have to try again, but never misses.
    pub fn must_see(&self, key: Key, n: u64) {
        match self.lookup(key, ALL) {
            Found::Hit(value) => assert_eq!(value, whole(n), "wrong value"),
            Found::Miss => panic!("missed a key that is present"),
            Found::Retry => {}
        }
    }

    pub fn probe(&self, slot: Slot, word: &AtomicU64, key: Key, checks: Checks) -> Probe<Value> {
        let Some(cell) = self.cell_at(slot.unit()) else { return Probe::Retry };
        if checks.slot && word.load(Ordering::Acquire) != slot.0 {
            return Probe::Retry;
        }
        let meta = block::load(&cell.meta);
        if !meta.is_live() {
            return Probe::Retry;
        }
        let unchanged = || {
            fence(Ordering::Acquire);
            (!checks.meta || block::load(&cell.meta).identity() == meta.identity())
                && (!checks.slot || word.load(Ordering::Acquire) == slot.0)
        };
        if cell.key.load(Ordering::Relaxed) != key.id {
            return if unchanged() { Probe::Other } else { Probe::Retry };
        }
        let value = cell.read();
        if unchanged() { Probe::Hit(value) } else { Probe::Retry }
    }

    /// Claims a block if it is free.
    pub fn claim(&self, block: usize, me: Owner) -> Option<Meta> {
        let word = &self.cell(block).meta;
        let seen = block::load(word);
        if seen.state() == State::Free { block::claim(word, seen, me) } else { None }
    }

    /// Locks bucket `number`; the lock of a dead owner is taken over, and the bucket scrubbed.
    pub fn lock<'l, L: Lines>(&self, lines: &'l L, number: u32, me: Owner) -> Bucket<'l, L> {
        let line = lines.bucket(number).unwrap();
        loop {
            let Err(holder) = line.try_lock(me) else {
                return Bucket::locked(lines, line, number);
            };
            if holder.0 != 0 && self.is_dead(holder) && line.take_over(holder, me) {
                self.takeovers.fetch_add(1, Ordering::Relaxed);
                Bucket::locked(lines, line, number).scrub();
                return Bucket::locked(lines, line, number);
            }
            relax();
        }
    }

    /// Locks the bucket that `hash` belongs to; without `recheck` the one that it belonged to before the wait.
    pub fn lock_key<'l, L: Lines>(&self, lines: &'l L, hash: Hash, me: Owner, recheck: bool) -> Bucket<'l, L> {
        loop {
            let number = index::growth(lines).bucket(hash);
            let bucket = self.lock(lines, number, me);
            if !recheck || index::growth(lines).bucket(hash) == number {
                return bucket;
            }
            bucket.unlock();
        }
    }

    pub fn search<'l, L: Lines>(&self, bucket: &Bucket<'l, L>, key: Key) -> Search<'l> {
        bucket.search(key.hash, |slot| {
            self.cell_at(slot.unit()).is_some_and(|cell| cell.key.load(Ordering::Relaxed) == key.id)
        })
    }

    /// Stores the item that was filled into `block`, claimed as `new`; into a chain line `spare` if the bucket is full.
    /// `place` as in `lock_key`'s recheck.
    pub fn set<L: Lines>(&self, lines: &L, key: Key, block: usize, new: Meta, spare: Option<usize>, recheck: bool) {
        let bucket = self.lock_key(lines, key.hash, new.owner(), recheck);
        let search = self.search(&bucket, key);
        let cell = self.cell(block);
        block::publish(&cell.meta, Meta::live(0, new.version()));
        let slot = Slot::new(key.hash, unit_of(block));
        match search.hit.map(|(word, _)| word).or(search.vacant) {
            Some(word) => bucket.commit(word, slot),
            None => {
                let i = spare.expect("a spare line");
                let line = lines.chain(line_unit(i)).unwrap();
                let claimed = block::load(line.meta());
                bucket.extend(search.last, line, line_unit(i), slot, || {
                    block::publish(line.meta(), Meta::live(0, claimed.version()));
                });
            }
        }
        if let Some((_, old)) = search.hit {
            self.free(old);
        }
        bucket.unlock();
    }

    /// Frees the block that a slot word named; under the bucket's lock.
    pub fn free(&self, old: Slot) {
        let cell = self.cell_at(old.unit()).unwrap();
        assert!(block::release(&cell.meta, block::load(&cell.meta)).is_some(), "somebody else freed an item");
    }

    /// Takes an item out of its bucket, and chain lines that are not needed any more.
    pub fn delete<L: Lines>(&self, lines: &L, key: Key, me: Owner) {
        let bucket = self.lock_key(lines, key.hash, me, true);
        let search = self.search(&bucket, key);
        let (word, slot) = search.hit.expect("the item to delete");
        bucket.commit(word, Slot::EMPTY);
        self.free(slot);
        if search.chain > 0 {
            self.shrink(lines, &bucket);
        }
        bucket.unlock();
    }

    pub fn shrink<L: Lines>(&self, lines: &L, bucket: &Bucket<'_, L>) {
        bucket.shrink(
            // Here the intent learns of the line; a moment to die in.
            |_| {
                lines.growth();
            },
            |unit| {
                let word = lines.chain(unit).unwrap().meta();
                assert!(block::release(word, block::load(word)).is_some(), "somebody else freed a chain line");
            },
        );
    }

    /// How often a lock was taken over.
    pub fn takeovers(&self) -> usize {
        self.takeovers.load(Ordering::Relaxed)
    }

    /// How many slot words of bucket `number`'s chain name an item, and how much is wrong: items that belong elsewhere or stand
    /// twice, linked lines that recovery would take for free.
    pub fn census(&self, number: u32) -> (usize, usize) {
        let mut line = self.line(number);
        let (mut units, mut wrong) = (Vec::new(), 0);
        loop {
            for word in line.slots() {
                let slot = Slot(word.load(Ordering::Acquire));
                if slot.is_item() {
                    let here = index::growth(self).bucket(slot.hash_in(number)) == number;
                    wrong += usize::from(!here || units.contains(&slot.unit()));
                    units.push(slot.unit());
                }
            }
            match line.next() {
                Some(unit) => {
                    line = self.chain(unit).unwrap();
                    wrong += usize::from(!block::load(line.meta()).is_live());
                }
                None => return (units.len(), wrong),
            }
        }
    }
}

/// What unwinds a thread that dies. Nothing in the core has a destructor, so it leaves all as it stands.
struct Death;

/// The table as seen by somebody who dies at the `n`th time that he looks for a line or the growth word.
pub struct Mortal<'t> {
    table: &'t Table,
    left: Private<usize>,
}

impl Mortal<'_> {
    /// One more step towards death.
    pub fn step(&self) {
        match self.left.get().checked_sub(1) {
            Some(left) => self.left.set(left),
            None => resume_unwind(Box::new(Death)),
        }
    }
}

impl Lines for Mortal<'_> {
    fn growth(&self) -> &AtomicU64 {
        self.step();
        self.table.growth()
    }

    fn bucket(&self, number: u32) -> Option<&Line> {
        self.step();
        self.table.bucket(number)
    }

    fn chain(&self, unit: u64) -> Option<&Line> {
        self.step();
        self.table.chain(unit)
    }
}

/// Every step that `me` may die at in his `work` on bucket LOW, and whether an item then stands where it does not belong.
pub fn deaths(me: Owner, build: fn() -> Table, work: fn(&Table, &Mortal<'_>)) -> Vec<(usize, bool)> {
    let found = Arc::new(Mutex::new(Vec::new()));
    let list = Arc::clone(&found);
    let mut builder = loom::model::Builder::new();
    builder.max_branches = 100_000;
    builder.check(move || {
        let mut list = list.lock().unwrap();
        for steps in 0.. {
            let table = build();
            if mortal(&table, me, steps, |lines| work(&table, lines)) {
                return;
            }
            list.push((steps, table.census(LOW).1 != 0));
        }
    });
    let list = found.lock().unwrap().clone();
    assert!(list.iter().any(|(_, twice)| *twice), "no death leaves anything to clean up");
    list
}

/// Lets `me` do `work` until it has done `steps` steps; then it is dead. Whether it survived.
pub fn mortal(table: &Table, me: Owner, steps: usize, work: impl FnOnce(&Mortal<'_>)) -> bool {
    let lines = Mortal { table, left: Private::new(steps) };
    match catch_unwind(AssertUnwindSafe(|| work(&lines))) {
        Ok(()) => true,
        Err(cause) if cause.is::<Death>() => {
            table.bury(me);
            false
        }
        Err(cause) => resume_unwind(cause),
    }
}
