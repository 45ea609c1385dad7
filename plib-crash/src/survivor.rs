//! What those who live must be able to do at once: a fixed set of operations on the victim's bucket, its class and its key.

use crate::stage::{Stage, VALUE, value};
use plib::Error;
use std::time::{Duration, Instant};

/// How long the set of operations took, and its slowest part.
#[derive(Clone, Copy, Default, Debug)]
pub struct Took {
    /// All of them.
    pub total: Duration,
    /// The slowest.
    pub slowest: Duration,
}

/// Times operations, and says which one failed.
struct Work {
    since: Instant,
    took: Took,
}

impl Work {
    fn done<T>(&mut self, what: &str, outcome: Result<T, Error>) -> Result<T, String> {
        let now = self.since.elapsed();
        self.took.slowest = self.took.slowest.max(now - self.took.total);
        self.took.total = now;
        outcome.map_err(|e| format!("the survivor cannot {what}: {e}"))
    }
}

fn holds(stage: &Stage, key: &[u8], wanted: &[u8]) -> Result<(), String> {
    match stage.cache.get(key) {
        Ok(Some(item)) if item.value == wanted => Ok(()),
        Ok(item) => Err(format!("{} is not what the survivor stored: {item:?}", key.escape_ascii())),
        Err(e) => Err(format!("the survivor cannot read {}: {e}", key.escape_ascii())),
    }
}

/// Values of the survivor.
const MINE: u64 = 1 << 40;

/// Which of the survivor's items were there when it began.
#[derive(Clone, Copy)]
pub struct There {
    /// `Stage::near_number`.
    pub number: bool,
    /// `Stage::near_gone`.
    pub gone: bool,
    /// Whether others may leave while it works, as in a full heap.
    pub evicts: bool,
}

/// When the survivor stores the victim's own key.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Order {
    /// At once, before anybody has recovered the dead.
    KeyFirst,
    /// After the dead were recovered: what they left under that key is still there then.
    ReapFirst,
}

impl Order {
    /// Both.
    pub const ALL: [Self; 2] = [Self::KeyFirst, Self::ReapFirst];
}

/// The keys that [`work`] stores, besides the target.
pub fn touched(stage: &Stage) -> [&Vec<u8>; 6] {
    [&stage.near, &stage.near_gone, &stage.near_number, &stage.fresh, &stage.same_bucket[SPARE], &stage.others[0]]
}

/// Stores the victim's own key, which nobody holds any more.
pub fn store_key(stage: &Stage) -> Result<(), String> {
    let mine = value(MINE + 5, VALUE);
    stage.cache.set(&stage.target, &mine, 5, 0).map_err(|e| format!("the survivor cannot store the key: {e}"))?;
    holds(stage, &stage.target, &mine)
}

/// Works on the bucket, the class and (if it is time) the key of the dead, and reads it all back.
pub fn work(stage: &Stage, large: bool, order: Order, there: There) -> Result<Took, String> {
    let cache = &stage.cache;
    let mine = |n: u64| value(MINE + n, VALUE);
    let big = value(MINE, 100_000);
    let mut work = Work { since: Instant::now(), took: Took::default() };
    work.done("replace an item of the bucket", cache.set(&stage.near, &mine(1), 1, 0))?;
    let number = work.done("count in the bucket", cache.increment(&stage.near_number, 1))?;
    let found = work.done("delete from the bucket", cache.delete(&stage.near_gone))?;
    work.done("add to the bucket", cache.add(&stage.near_gone, &mine(2), 2, 0))?;
    work.done("store an item of the class", cache.set(&stage.fresh, &mine(3), 3, 0))?;
    if large {
        work.done("store a large item", cache.set(&stage.others[0], &big, 4, 0))?;
    }
    if order == Order::KeyFirst {
        work.done("store the key itself", cache.set(&stage.target, &mine(5), 5, 0))?;
    }
    work.done("store another of the bucket", cache.set(&stage.same_bucket[SPARE], &mine(6), 6, 0))?;
    let took = work.took;
    let counted = if there.number { Some(42) } else { None };
    if !there.evicts && (number != counted || found != there.gone) {
        return Err(format!(
            "the survivor counted to {number:?}, not {counted:?}; deleted: {found}, not {}",
            there.gone
        ));
    }
    let mut wrote = vec![(&stage.same_bucket[SPARE], 6)];
    if order == Order::KeyFirst && !there.evicts {
        wrote.push((&stage.target, 5));
    }
    // What was stored first may have gone for what was stored later.
    if !there.evicts {
        wrote.extend([(&stage.near, 1), (&stage.near_gone, 2), (&stage.fresh, 3)]);
    }
    wrote.iter().try_for_each(|(key, n)| holds(stage, key, &mine(*n)))?;
    if large && !there.evicts {
        holds(stage, &stage.others[0], &big)?;
    }
    Ok(took)
}

/// Which key of the bucket no scenario stores.
pub const SPARE: usize = 39;
