//! The operations that processes die in: what is there before, what is done up to the first instruction that counts, and
//! the operation itself.

use crate::facts::Picture;
use crate::stage::{HeapShape, Stage, VALUE, value};
use plib::{Cache, Error, Status};

/// What an operation answered to the child that ran it.
pub type Answer = Result<(), Error>;

/// One operation in one situation.
pub struct Scenario {
    /// Its name.
    pub name: &'static str,
    /// What it is, in a line.
    pub about: &'static str,
    /// The heap.
    pub shape: HeapShape,
    /// Fills the heap; by the survivor, once.
    pub prepare: fn(&mut Stage) -> Result<(), Error>,
    /// What the child does before the instructions count.
    pub warm: fn(&Stage) -> Answer,
    /// The operation.
    pub act: fn(&Stage) -> Answer,
    /// What watched keys it may change.
    pub changes: Changes,
    /// Whether the counters before and after say that the operation did what this scenario is for.
    pub happened: fn(&Picture, &Picture) -> bool,
    /// Whether other items may go to make room for it.
    pub evicts: bool,
    /// Whether some items are there and not seen: expired, or flushed.
    pub hides: bool,
    /// Whether it does more than what the items show, so that after a death in the middle others do the rest another way
    /// and memory is used neither as before nor as after.
    pub in_steps: bool,
    /// Whether the survivor stores a large value too.
    pub large: bool,
}

/// What watched keys an operation changes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Changes {
    /// None.
    Nothing,
    /// One, or several at one moment.
    One,
    /// Several, each by itself: the members of a batch, or the item and those that made room for it.
    Each,
    /// All at one moment.
    All,
}

const FLAGS: u32 = 77;
/// An absolute expiry time, far away: it does not depend on when it is given.
const FAR: i64 = 4_000_000_000;
const LARGE: usize = 200_000;

fn nothing(_: &mut Stage) -> Result<(), Error> {
    Ok(())
}

/// The child attaches, gets an op context and some blocks at hand.
fn warm(s: &Stage) -> Answer {
    s.cache.set(&s.others[5], &value(5, VALUE + 10), 0, 0)?;
    s.cache.set(&s.others[1], &value(1, VALUE), 0, 0)?;
    s.cache.get(&s.others[1]).map(drop)
}

fn warm_all_sizes(s: &Stage) -> Answer {
    for (n, len) in [VALUE, 900, LARGE].into_iter().enumerate() {
        s.cache.set(&s.others[2 + n], &value(n as u64, len), 0, 0)?;
    }
    warm(s)
}

fn cold(_: &Stage) -> Answer {
    Ok(())
}

fn target_here(s: &mut Stage) -> Result<(), Error> {
    s.put(s.target.clone(), &value(1, VALUE), 5)
}

fn target_large(s: &mut Stage) -> Result<(), Error> {
    s.put(s.target.clone(), &value(1, LARGE), 5)
}

fn target_number(s: &mut Stage) -> Result<(), Error> {
    s.cache.increment_or(&s.target, 1, 1234, 0).map(drop)
}

fn target_text_number(s: &mut Stage) -> Result<(), Error> {
    s.put(s.target.clone(), b"1234", 5)
}

fn target_nine(s: &mut Stage) -> Result<(), Error> {
    s.cache.increment_or(&s.target, 1, 9, 0).map(drop)
}

fn target_expired(s: &mut Stage) -> Result<(), Error> {
    s.cache.set(&s.target, &value(1, VALUE), 5, -1).map(drop)
}

/// Fills the target's bucket with `n` items beside the three that are there.
fn crowd(s: &mut Stage, n: usize) -> Result<(), Error> {
    for i in 0..n {
        s.put(s.same_bucket[i].clone(), &value(i as u64, VALUE), i as u32)?;
    }
    Ok(())
}

/// Up to the number of items at which the next 32nd store of a context makes the index grow.
fn before_growth(s: &mut Stage) -> Result<(), Error> {
    let there = s.cache.stats()?.curr_items as usize;
    // Contexts tell of their items 32 at a time; the fill ends as this one has told of all.
    s.fill(20, |_, n| Ok(there + n == 4096))
}

/// The child has 31 items to tell of: its next new one tells, and finds the index too small.
fn warm_growth(s: &Stage) -> Answer {
    for n in 0..31u64 {
        s.cache.set(format!("warm-{n}").as_bytes(), &value(n, 20), 0, 0)?;
    }
    Ok(())
}

fn watch_warm(s: &mut Stage) {
    (0..31).for_each(|n| s.watch(format!("warm-{n}").into_bytes()));
}

/// In the middle of growing, with `crowd` items in the buckets that are split next.
fn growing(s: &mut Stage, crowd: usize) -> Result<(), Error> {
    // The first buckets are split first; some of them are made full.
    let mut left: Vec<usize> = vec![crowd; 8];
    let mut n = 0;
    while left.iter().any(|l| *l > 0) {
        let key = format!("crowd-{n:06}").into_bytes();
        let bucket = s.cache.bucket_of(&key)? as usize;
        if let Some(l) = left.get_mut(bucket).filter(|l| **l > 0) {
            *l -= 1;
            s.put(key, &value(n, 20), 0)?;
        }
        n += 1;
    }
    // Until two buckets were split and more are due: the child's next new item splits.
    s.fill(20, |cache, _| Ok(cache.stats()?.buckets >= 1026))
}

/// Fills the heap with items of `len` bytes until it evicts.
fn fill_up(s: &mut Stage, len: usize) -> Result<(), Error> {
    s.fill(len, |cache, _| Ok(cache.stats()?.evictions > 0))
}

fn child_attaches(s: &Stage) -> Answer {
    let other = Cache::open(&s.path)?;
    std::mem::forget(other);
    Ok(())
}

fn get_all(s: &Stage) -> Answer {
    s.cache.get_many(&s.keys[..16]).map(drop)
}

fn is(result: Result<bool, Error>) -> Answer {
    result.map(|found| assert!(found, "not there"))
}

/// A scenario that is like another but for a few things.
const USUAL: Scenario = Scenario {
    name: "",
    about: "",
    shape: HeapShape::SMALL,
    prepare: target_here,
    warm,
    act: cold,
    changes: Changes::One,
    happened: |_, _| true,
    evicts: false,
    hides: false,
    in_steps: false,
    large: false,
};

fn stored(before: &Picture, after: &Picture) -> bool {
    after.stats.total_items > before.stats.total_items
}

/// Every operation.
pub const ALL: &[Scenario] = &[
    Scenario {
        name: "set-new",
        about: "set of a key that is not there",
        prepare: nothing,
        act: |s| s.cache.set(&s.target, &s.new[..VALUE], FLAGS, 0).map(drop),
        happened: |a, b| b.stats.curr_items == a.stats.curr_items + 1,
        ..USUAL
    },
    Scenario {
        name: "set-same-size",
        about: "set of a key that is there, with a value of the same size",
        act: |s| s.cache.set(&s.target, &s.new[..VALUE], FLAGS, 0).map(drop),
        happened: stored,
        ..USUAL
    },
    Scenario {
        name: "set-other-class",
        about: "set with a value of another size class",
        warm: warm_all_sizes,
        act: |s| s.cache.set(&s.target, &s.new[..900], FLAGS, 0).map(drop),
        happened: stored,
        ..USUAL
    },
    Scenario {
        name: "set-expiry",
        about: "set with an expiry time",
        act: |s| s.cache.set(&s.target, &s.new[..VALUE], FLAGS, FAR).map(drop),
        happened: stored,
        ..USUAL
    },
    Scenario {
        name: "set-over-expired",
        about: "set of a key whose item has expired",
        prepare: target_expired,
        hides: true,
        act: |s| s.cache.set(&s.target, &s.new[..VALUE], FLAGS, FAR).map(drop),
        happened: stored,
        ..USUAL
    },
    Scenario {
        name: "set-large",
        about: "set of a value of four fragments over one of four",
        prepare: target_large,
        warm: warm_all_sizes,
        act: |s| s.cache.set(&s.target, &s.new[..LARGE], FLAGS, 0).map(drop),
        happened: stored,
        large: true,
        ..USUAL
    },
    Scenario {
        name: "add",
        about: "add of a key that is not there",
        prepare: nothing,
        act: |s| s.cache.add(&s.target, &s.new[..VALUE], FLAGS, 0).map(drop),
        happened: stored,
        ..USUAL
    },
    Scenario {
        name: "add-refused",
        about: "add of a key that is there",
        act: |s| match s.cache.add(&s.target, &s.new[..VALUE], FLAGS, 0) {
            Err(e) if e.status() == Status::NotStored => Ok(()),
            other => other.map(drop),
        },
        changes: Changes::Nothing,
        happened: |a, b| b.stats.store_refused == a.stats.store_refused + 1,
        ..USUAL
    },
    Scenario {
        name: "replace",
        about: "replace",
        act: |s| s.cache.replace(&s.target, &s.new[..VALUE], FLAGS, 0).map(drop),
        happened: stored,
        ..USUAL
    },
    Scenario {
        name: "append",
        about: "append of 10 bytes",
        act: |s| s.cache.append(&s.target, &s.new[..10]).map(drop),
        happened: stored,
        ..USUAL
    },
    Scenario {
        name: "append-large",
        about: "append that makes an item of one block one of fragments",
        prepare: |s| s.put(s.target.clone(), &value(1, 32_000), 5),
        warm: warm_all_sizes,
        act: |s| s.cache.append(&s.target, &s.new[..8000]).map(drop),
        happened: stored,
        large: true,
        ..USUAL
    },
    Scenario {
        name: "prepend",
        about: "prepend of 10 bytes",
        act: |s| s.cache.prepend(&s.target, &s.new[..10]).map(drop),
        happened: stored,
        ..USUAL
    },
    Scenario {
        name: "cas",
        about: "compare and swap with the item's own cas",
        act: |s| {
            let cas = s.cache.get(&s.target)?.map_or(0, |item| item.cas);
            s.cache.compare_and_swap(&s.target, &s.new[..VALUE], FLAGS, 0, cas).map(drop)
        },
        happened: |a, b| b.stats.cas_hits == a.stats.cas_hits + 1,
        ..USUAL
    },
    Scenario {
        name: "incr",
        about: "incr in place",
        prepare: target_number,
        act: |s| s.cache.increment(&s.target, 1).map(drop),
        happened: |a, b| b.stats.incr_hits == a.stats.incr_hits + 1 && b.stats.numbers_stored == a.stats.numbers_stored,
        ..USUAL
    },
    Scenario {
        name: "incr-text",
        about: "incr of a text, which makes a number of it",
        prepare: target_text_number,
        act: |s| s.cache.increment(&s.target, 1).map(drop),
        happened: |a, b| b.stats.numbers_stored == a.stats.numbers_stored + 1,
        ..USUAL
    },
    Scenario {
        name: "incr-wider",
        about: "incr of 9, which needs a digit more",
        prepare: target_nine,
        act: |s| s.cache.increment(&s.target, 1).map(drop),
        happened: |a, b| b.stats.numbers_stored == a.stats.numbers_stored + 1,
        ..USUAL
    },
    Scenario {
        name: "incr-initial",
        about: "incr of a key that is not there, with an initial value",
        prepare: nothing,
        act: |s| s.cache.increment_or(&s.target, 1, 500, 0).map(drop),
        happened: |a, b| b.stats.numbers_stored == a.stats.numbers_stored + 1,
        ..USUAL
    },
    Scenario {
        name: "decr",
        about: "decr in place",
        prepare: target_number,
        act: |s| s.cache.decrement(&s.target, 1).map(drop),
        happened: |a, b| b.stats.decr_hits == a.stats.decr_hits + 1,
        ..USUAL
    },
    Scenario {
        name: "delete",
        about: "delete",
        act: |s| is(s.cache.delete(&s.target)),
        happened: |a, b| b.stats.delete_hits == a.stats.delete_hits + 1,
        ..USUAL
    },
    Scenario {
        name: "delete-cas",
        about: "delete of an item with its cas",
        act: |s| {
            let cas = s.cache.get(&s.target)?.map_or(0, |item| item.cas);
            is(s.cache.delete_if(&s.target, cas))
        },
        happened: |a, b| b.stats.delete_hits == a.stats.delete_hits + 1,
        ..USUAL
    },
    Scenario {
        name: "delete-large",
        about: "delete of an item of four fragments",
        prepare: target_large,
        warm: warm_all_sizes,
        act: |s| is(s.cache.delete(&s.target)),
        happened: |a, b| b.stats.delete_hits == a.stats.delete_hits + 1,
        large: true,
        ..USUAL
    },
    Scenario {
        name: "delete-shrinks",
        about: "delete after which the bucket's last chain line is taken out",
        prepare: |s| {
            target_here(s)?;
            crowd(s, 4)
        },
        act: |s| is(s.cache.delete(&s.target)),
        happened: |a, b| a.chain_lines == 1 && b.chain_lines == 0,
        ..USUAL
    },
    Scenario {
        name: "touch",
        about: "touch",
        act: |s| is(s.cache.touch(&s.target, FAR)),
        happened: |a, b| b.stats.touch_hits == a.stats.touch_hits + 1,
        ..USUAL
    },
    Scenario {
        name: "gat",
        about: "get-and-touch",
        act: |s| s.cache.get_and_touch(&s.target, FAR).map(drop),
        happened: |a, b| b.stats.touch_hits == a.stats.touch_hits + 1,
        ..USUAL
    },
    Scenario {
        name: "get",
        about: "get of an item in one block, without a copy on the heap of the program",
        act: |s| s.cache.get_into(&s.target, &mut [0; 1024]).map(drop),
        changes: Changes::Nothing,
        happened: |a, b| b.stats.get_hits == a.stats.get_hits + 1,
        ..USUAL
    },
    Scenario {
        name: "get-large",
        about: "get of an item of four fragments",
        prepare: target_large,
        act: |s| s.cache.get(&s.target).map(drop),
        changes: Changes::Nothing,
        happened: |a, b| b.stats.get_hits == a.stats.get_hits + 1,
        ..USUAL
    },
    Scenario {
        name: "get-miss",
        about: "get of a key that is not there",
        prepare: nothing,
        act: |s| s.cache.get_into(&s.target, &mut [0; 64]).map(drop),
        changes: Changes::Nothing,
        happened: |a, b| b.stats.get_misses == a.stats.get_misses + 1,
        ..USUAL
    },
    Scenario {
        name: "mget",
        about: "a batch of 16 gets",
        act: get_all,
        changes: Changes::Nothing,
        happened: |a, b| b.stats.get_hits == a.stats.get_hits + 16,
        ..USUAL
    },
    Scenario {
        name: "mset",
        about: "a batch of 8 sets, three of new keys",
        act: |s| {
            let (o, b) = (&s.others, &s.same_bucket);
            let items = [&o[5], &b[0], &o[6], &b[1], &o[7], &b[2], &o[8], &s.target].map(|key| (key, &s.new[..VALUE]));
            s.cache.set_many(&items, FLAGS, 0)?.into_iter().try_for_each(|stored| stored.map(drop))
        },
        prepare: |s| {
            (0..3).for_each(|n| s.watch(s.same_bucket[n].clone()));
            target_here(s)
        },
        happened: |a, b| b.stats.total_items == a.stats.total_items + 8,
        changes: Changes::Each,
        ..USUAL
    },
    Scenario {
        name: "mdelete",
        about: "a batch of 6 deletes",
        act: |s| s.cache.delete_many(&s.others[5..11]).map(drop),
        happened: |a, b| b.stats.delete_hits == a.stats.delete_hits + 6,
        changes: Changes::Each,
        ..USUAL
    },
    Scenario {
        name: "set-chain",
        about: "set into a full bucket, which gets a chain line",
        prepare: |s| crowd(s, 4),
        act: |s| s.cache.set(&s.target, &s.new[..VALUE], FLAGS, 0).map(drop),
        happened: |a, b| a.chain_lines == 0 && b.chain_lines == 1,
        ..USUAL
    },
    Scenario {
        name: "set-full-chain",
        about: "set into a bucket with 31 items, one of which is evicted",
        prepare: |s| crowd(s, 28),
        act: |s| s.cache.set(&s.target, &s.new[..VALUE], FLAGS, 0).map(drop),
        happened: |a, b| b.stats.chain_evictions == a.stats.chain_evictions + 1,
        evicts: true,
        in_steps: true,
        changes: Changes::Each,
        ..USUAL
    },
    Scenario {
        name: "evict",
        about: "set in a full heap, with an eviction of the same class",
        prepare: |s| fill_up(s, 30_000),
        warm: cold_but_attached,
        act: |s| s.cache.set(&s.target, &s.new[..30_000], FLAGS, 0).map(drop),
        happened: |a, b| b.stats.evictions > a.stats.evictions,
        evicts: true,
        in_steps: true,
        changes: Changes::Each,
        ..USUAL
    },
    Scenario {
        name: "evict-large",
        about: "set of a value of four fragments in a heap full of such",
        prepare: |s| fill_up(s, LARGE),
        warm: cold_but_attached,
        act: |s| s.cache.set(&s.target, &s.new[..LARGE], FLAGS, 0).map(drop),
        happened: |a, b| b.stats.evictions > a.stats.evictions,
        evicts: true,
        in_steps: true,
        large: true,
        changes: Changes::Each,
        ..USUAL
    },
    Scenario {
        name: "superblock-new",
        about: "set of a class that has no superblock: one is taken from those unused",
        prepare: nothing,
        act: |s| s.cache.set(&s.target, &s.new[..5000], FLAGS, 0).map(drop),
        happened: |a, b| b.stats.superblocks_free + 1 == a.stats.superblocks_free,
        ..USUAL
    },
    Scenario {
        name: "superblock-moved",
        about: "set of a class that has no superblock in a full heap: one is emptied and cut anew",
        prepare: |s| fill_up(s, 20_000),
        warm: cold_but_attached,
        act: |s| s.cache.set(&s.target, &s.new[..2600], FLAGS, 0).map(drop),
        happened: |a, b| b.stats.superblocks_moved == a.stats.superblocks_moved + 1,
        evicts: true,
        in_steps: true,
        changes: Changes::Each,
        ..USUAL
    },
    Scenario {
        name: "split-segment",
        about: "set after which a bucket is split, for which the index takes a superblock",
        prepare: |s| {
            before_growth(s)?;
            watch_warm(s);
            Ok(())
        },
        warm: warm_growth,
        act: |s| s.cache.set(&s.target, &s.new[..20], FLAGS, 0).map(drop),
        happened: |a, b| b.stats.splits > a.stats.splits && b.stats.superblocks_index == a.stats.superblocks_index + 1,
        in_steps: true,
        ..USUAL
    },
    Scenario {
        name: "split-chains",
        about: "set after which buckets with chains are split into buckets with chains",
        prepare: |s| growing(s, 24),
        act: |s| s.cache.set(&s.target, &s.new[..20], FLAGS, 0).map(drop),
        happened: |a, b| b.stats.splits > a.stats.splits,
        in_steps: true,
        ..USUAL
    },
    Scenario {
        name: "flush_all",
        about: "flush_all",
        act: |s| s.cache.flush_all(0),
        changes: Changes::All,
        hides: true,
        happened: |a, b| b.stats.cmd_flush == a.stats.cmd_flush + 1,
        ..USUAL
    },
    Scenario {
        name: "flush_all-delayed",
        about: "flush_all with a delay",
        act: |s| s.cache.flush_all(1000),
        changes: Changes::Nothing,
        happened: |a, b| b.stats.cmd_flush == a.stats.cmd_flush + 1,
        ..USUAL
    },
    Scenario {
        name: "scan",
        about: "the first three items of a scan",
        act: |s| s.cache.scan().take(3).try_for_each(|entry| entry.map(drop)),
        changes: Changes::Nothing,
        ..USUAL
    },
    Scenario {
        name: "attach",
        about: "opening the heap",
        warm: cold,
        act: child_attaches,
        changes: Changes::Nothing,
        ..USUAL
    },
    Scenario {
        name: "fork",
        about: "the first operation of a forked child, which registers it",
        warm: cold,
        act: |s| s.cache.get_into(&s.target, &mut [0; 1024]).map(drop),
        changes: Changes::Nothing,
        ..USUAL
    },
    Scenario {
        name: "detach",
        about: "closing the heap after some work",
        act: |s| {
            // SAFETY: the child never returns to where the parent's value is dropped.
            drop(unsafe { std::ptr::read(&raw const s.cache) });
            Ok(())
        },
        changes: Changes::Nothing,
        ..USUAL
    },
    Scenario {
        name: "reap",
        about: "looking for the dead when nobody is",
        act: |s| s.cache.reap().map(drop),
        changes: Changes::Nothing,
        ..USUAL
    },
];

/// Attaches and claims an op context, without any block at hand.
fn cold_but_attached(s: &Stage) -> Answer {
    s.cache.get_into(&s.others[1], &mut [0; 1024]).map(drop)
}
