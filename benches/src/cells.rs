//! One thread, one operation, in process: plib beside quick_cache.
//!
//! Each operation goes to items in an order that no prefetcher knows. The numbers of the items are drawn
//! outside the timed part, which is measured in processor time of the thread; what it costs to make the keys and stamps is measured in rounds of its own and
//! subtracted. Every read must hit and bring the item's own stamp; a sample is compared in full.

use std::hint::black_box;

use plib::{Cache, GetInto};
use serde::Serialize;

use crate::{
    chase::Chase,
    engine::{Engine, Plib, QuickArray, QuickBytes},
    failure::{Failure, Result},
    heap::Folder,
    key::{Key, key},
    machine::{Quiet, Work, memory_available},
    order::Order,
    progress::Progress,
    rounds::{Round, Rounds, interleave},
    settings::Settings,
    value::{VALUE, Value, has_stamp, is_right, put_stamp, template},
};

/// Keys of a batch.
pub const BATCH: usize = 16;
/// Operations between two looks at the clock; a multiple of the batch.
const CHUNK: usize = 992;
/// Where the counters of incr begin.
const COUNTER: u64 = 1_000_000_000;
/// Bytes that a heap needs an item, for its value, its counter and its part of the index, with room to spare.
const HEAP_PER_ITEM: u64 = 320;
/// Bytes that both quick_caches need an item: `Arc`, allocator, slot, table, and one of them the key's box.
const QUICK_PER_ITEM: u64 = 560;

/// One operation at one size.
#[derive(Clone, Debug, Serialize)]
pub struct Cell {
    /// The operation.
    pub operation: &'static str,
    /// plib, ns an operation (a key, for the batch).
    pub plib: Rounds,
    /// quick_cache with keys of one length known at compile time, where it has such an operation.
    pub quick_cache: Option<Rounds>,
    /// quick_cache with keys of any length, as plib takes them.
    pub quick_cache_bytes: Option<Rounds>,
}

/// All operations at one size.
#[derive(Clone, Debug, Serialize)]
pub struct Size {
    /// Items in each cache.
    pub items: u64,
    /// The heap's pages.
    pub pages: String,
    /// Making a key and a stamp; subtracted from the cells.
    pub key_ns: f64,
    /// One load that waits for the one before it, over as many items.
    pub chase: Chase,
    /// The operations.
    pub cells: Vec<Cell>,
    /// The part of the time in which this thread had its core.
    pub core_share: f64,
}

impl Size {
    /// The cell of an operation.
    pub fn cell(&self, operation: &str) -> Option<&Cell> {
        self.cells.iter().find(|cell| cell.operation == operation)
    }
}

/// Measures all operations at one size.
pub fn measure(settings: &Settings, folder: &Folder, items: u64, progress: &Progress) -> Result<Size> {
    let heap_size = ((64 << 20) + items * HEAP_PER_ITEM).next_multiple_of(2 << 20);
    let needed = heap_size + items * QUICK_PER_ITEM;
    if memory_available() < needed {
        return Err(Failure::new(format!(
            "{items} items need {} MiB of memory and {} MiB are available; measure fewer (--items)",
            needed >> 20,
            memory_available() >> 20
        )));
    }
    progress.say(format_args!("{items} items: the machine's own latency"));
    let chase = Chase::measure(items, settings.rounds);
    let heap = folder.heap(&format!("cells-{items}"), heap_size, settings.huge)?;
    let (quick, bytes) = (QuickArray::new(items), QuickBytes::new(items));
    let plib = Plib(&heap.cache);
    progress.say(format_args!("{items} items: filling the caches"));
    fill(&plib, items)?;
    fill(&quick, items)?;
    fill(&bytes, items)?;

    let quiet = Quiet::start();
    let bench = Bench { settings, items, key_ns: key_cost(settings, items)?, progress };
    let mut cells = Vec::new();
    cells.extend(bench.three(
        "get",
        |s, o| get_round(&plib, s, o),
        |s, o| get_round(&quick, s, o),
        |s, o| get_round(&bytes, s, o),
    )?);
    let batch = |s: f64, o: &mut Order| batch_round(plib.0, s, o);
    cells.extend(bench.three("batch", batch, |s, o| get_round(&quick, s, o), |s, o| get_round(&bytes, s, o))?);
    cells.extend(bench.three(
        "set",
        |s, o| set_round(&plib, s, o),
        |s, o| set_round(&quick, s, o),
        |s, o| set_round(&bytes, s, o),
    )?);
    cells.extend(bench.three(
        "replace",
        |s, o| replace_round(&plib, s, o),
        |s, o| replace_round(&quick, s, o),
        |s, o| replace_round(&bytes, s, o),
    )?);
    cells.extend(bench.three(
        "delete",
        |s, o| delete_round(&plib, s, o),
        |s, o| delete_round(&quick, s, o),
        |s, o| delete_round(&bytes, s, o),
    )?);
    verify("plib", &plib, items)?;
    verify("quick_cache", &quick, items)?;
    verify("quick_cache, byte-string keys", &bytes, items)?;
    drop((quick, bytes));
    cells.extend(bench.incr(&heap.cache)?);
    let evictions = heap.cache.stats()?.evictions;
    if evictions != 0 {
        return Err(Failure::new(format!("{evictions} evictions in a heap that has room for all {items} items")));
    }
    let pages = heap.cache.info().pages;
    Ok(Size { items, pages, key_ns: bench.key_ns, chase, cells, core_share: quiet.share() })
}

/// What the cells of one size share.
struct Bench<'a> {
    settings: &'a Settings,
    items: u64,
    key_ns: f64,
    progress: &'a Progress,
}

impl Bench<'_> {
    /// One operation on all peers in turn; each is given seconds to run and items to choose from.
    fn three(
        &self,
        operation: &'static str,
        plib: impl Fn(f64, &mut Order) -> Result<f64>,
        quick: impl Fn(f64, &mut Order) -> Result<f64>,
        bytes: impl Fn(f64, &mut Order) -> Result<f64>,
    ) -> Result<Option<Cell>> {
        if !self.settings.measures(operation) {
            return Ok(None);
        }
        self.progress.say(format_args!("{} items: {operation}", self.items));
        let rounds = interleave(self.settings.rounds, &mut [self.round(plib), self.round(quick), self.round(bytes)])?;
        let [plib, quick, bytes] = rounds.try_into().map_err(|_| Failure::new("three peers, not three results"))?;
        Ok(Some(Cell { operation, plib, quick_cache: Some(quick), quick_cache_bytes: Some(bytes) }))
    }

    /// incr of counters, one an item; they take the place of the values. quick_cache has no such operation.
    fn incr(&self, cache: &Cache) -> Result<Option<Cell>> {
        if !self.settings.measures("incr") {
            return Ok(None);
        }
        self.progress.say(format_args!("{} items: incr", self.items));
        for item in 0..self.items {
            cache.set(&key(item), COUNTER.to_string().as_bytes(), 0, 0)?;
        }
        let mut rounds = interleave(self.settings.rounds, &mut [self.round(|s, o| incr_round(cache, s, o))])?;
        Ok(Some(Cell { operation: "incr", plib: rounds.remove(0), quick_cache: None, quick_cache_bytes: None }))
    }

    /// Makes a round of `run`: an order of its own, and the cost of the keys taken off.
    fn round<'b>(&self, run: impl Fn(f64, &mut Order) -> Result<f64> + 'b) -> Round<'b> {
        let (items, key_ns, seconds) = (self.items, self.key_ns, self.settings.round_seconds);
        let mut seed = 0;
        Box::new(move || {
            seed += 1;
            Ok(run(seconds, &mut Order::new(0, items, seed))? - key_ns)
        })
    }
}

/// Runs chunks until `seconds` were timed: draws the items, times `timed` over them, then `after` untimed.
fn chunks(
    seconds: f64,
    order: &mut Order,
    mut timed: impl FnMut(&[u64]) -> Result<()>,
    mut after: impl FnMut(&[u64]) -> Result<()>,
) -> Result<f64> {
    let mut items = [0; CHUNK];
    let (mut spent, mut operations) = (0.0, 0);
    while spent < seconds {
        items.fill_with(|| order.next_item());
        let work = Work::start();
        timed(&items)?;
        spent += work.seconds();
        operations += CHUNK;
        after(&items)?;
    }
    Ok(spent * 1e9 / operations as f64)
}

fn nothing(_: &[u64]) -> Result<()> {
    Ok(())
}

/// What a key, a stamp and a look at a stamp cost.
fn key_cost(settings: &Settings, items: u64) -> Result<f64> {
    let mut value = fresh_value();
    let mut round = || {
        chunks(
            settings.round_seconds / 4.0,
            &mut Order::new(0, items, 0),
            |chunk| {
                for &item in chunk {
                    black_box(key(item));
                    put_stamp(&mut value, item);
                    black_box(&mut value);
                }
                Ok(())
            },
            nothing,
        )
    };
    let samples: Result<Vec<f64>> = (0..settings.rounds).map(|_| round()).collect();
    Ok(Rounds::of(samples?).median)
}

fn fresh_value() -> Value {
    template(VALUE).try_into().expect("a template has the length that was asked for")
}

fn fill<E: Engine>(engine: &E, items: u64) -> Result<()> {
    let mut value = fresh_value();
    for item in 0..items {
        put_stamp(&mut value, item);
        engine.set(&key(item), &value)?;
    }
    Ok(())
}

fn get_round<E: Engine>(engine: &E, seconds: f64, order: &mut Order) -> Result<f64> {
    let mut out = fresh_value();
    let timed = |chunk: &[u64]| {
        for &item in chunk {
            if !engine.get(black_box(&key(item)), &mut out)? || !has_stamp(black_box(&out), item) {
                return Err(wrong("get", item));
            }
        }
        Ok(())
    };
    chunks(seconds, order, timed, nothing)
}

fn set_round<E: Engine>(engine: &E, seconds: f64, order: &mut Order) -> Result<f64> {
    let mut value = fresh_value();
    let timed = |chunk: &[u64]| {
        for &item in chunk {
            put_stamp(&mut value, item);
            engine.set(black_box(&key(item)), black_box(&value))?;
        }
        Ok(())
    };
    chunks(seconds, order, timed, nothing)
}

fn replace_round<E: Engine>(engine: &E, seconds: f64, order: &mut Order) -> Result<f64> {
    let mut value = fresh_value();
    let timed = |chunk: &[u64]| {
        for &item in chunk {
            put_stamp(&mut value, item);
            if !engine.replace(black_box(&key(item)), black_box(&value))? {
                return Err(wrong("replace", item));
            }
        }
        Ok(())
    };
    chunks(seconds, order, timed, nothing)
}

/// Each chunk is deleted timed and stored again untimed.
fn delete_round<E: Engine>(engine: &E, seconds: f64, order: &mut Order) -> Result<f64> {
    let mut value = fresh_value();
    let timed = |chunk: &[u64]| {
        for &item in chunk {
            if !engine.delete(black_box(&key(item)))? {
                return Err(wrong("delete", item));
            }
        }
        Ok(())
    };
    let after = |chunk: &[u64]| {
        for &item in chunk {
            put_stamp(&mut value, item);
            engine.set(&key(item), &value)?;
        }
        Ok(())
    };
    chunks(seconds, order, timed, after)
}

fn incr_round(cache: &Cache, seconds: f64, order: &mut Order) -> Result<f64> {
    let timed = |chunk: &[u64]| {
        for &item in chunk {
            if cache.increment(black_box(&key(item)), 1)?.is_none_or(|value| value <= COUNTER) {
                return Err(wrong("incr", item));
            }
        }
        Ok(())
    };
    chunks(seconds, order, timed, nothing)
}

fn batch_round(cache: &Cache, seconds: f64, order: &mut Order) -> Result<f64> {
    let mut out = [fresh_value(); BATCH];
    let timed = |chunk: &[u64]| {
        for batch in chunk.chunks_exact(BATCH) {
            get_batch(cache, batch, &mut out)?;
        }
        Ok(())
    };
    chunks(seconds, order, timed, nothing)
}

/// Gets 16 items with one call.
#[inline]
fn get_batch(cache: &Cache, batch: &[u64], out: &mut [Value; BATCH]) -> Result<()> {
    let keys: [Key; BATCH] = std::array::from_fn(|at| key(batch[at]));
    let mut values = out.iter_mut();
    let mut requests: [GetInto<'_>; BATCH] =
        std::array::from_fn(|at| GetInto::new(black_box(&keys[at]), values.next().expect("as many values as keys")));
    cache.get_many_into(&mut requests)?;
    for (at, request) in requests.iter().enumerate() {
        if request.result()?.is_none_or(|info| info.value_len != VALUE) {
            return Err(wrong("batch", batch[at]));
        }
    }
    for (value, &item) in out.iter().zip(batch) {
        if !has_stamp(black_box(value), item) {
            return Err(wrong("batch", item));
        }
    }
    Ok(())
}

/// Reads up to 100 thousand items and compares every byte.
fn verify<E: Engine>(name: &str, engine: &E, items: u64) -> Result<()> {
    let mut order = Order::new(0, items, 99);
    let mut out = fresh_value();
    for _ in 0..items.min(100_000) {
        let item = order.next_item();
        if !engine.get(&key(item), &mut out)? {
            return Err(Failure::new(format!("{name} lost item {item}")));
        }
        if !is_right(&out, VALUE, item) {
            return Err(Failure::new(format!("{name} gave wrong bytes for item {item}")));
        }
    }
    Ok(())
}

#[cold]
fn wrong(operation: &str, item: u64) -> Failure {
    Failure::new(format!("{operation} of item {item}: missing, or not its value, where it must be there"))
}
