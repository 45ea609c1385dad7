//! Each operation of plib beside memcached's round trip over a unix socket and over TCP.
//!
//! Client and server are pinned to one core, which is memcached's best: across cores of a virtual machine
//! each round trip wakes the other core, which would flatter plib tenfold. The same keys, values and checks
//! for all. memcached's calls are timed one by one; plib's are too short for that, so its mean comes from
//! chunks timed as a whole (in processor time), and only its percentiles from single calls, with the timer's own cost taken off.

use std::time::Instant;

use hdrhistogram::Histogram;
use plib::{Cache, GetInto};
use serde::Serialize;

use crate::{
    cells::BATCH,
    failure::{Failure, Result},
    heap::Folder,
    key::{Key, key},
    machine::{Machine, thread_cpu_seconds},
    memcached::{Address, Server},
    op::{Actor, Op, Step},
    order::Order,
    progress::Progress,
    rounds::Rounds,
    settings::Settings,
    value::{VALUE, Value, has_stamp, put_stamp, template},
};

/// Keys of each kind.
const KEYS: u64 = 10_000;
/// The first counter's number: past all values.
const COUNTERS: u64 = 1 << 40;
/// Operations between two steps that put items back.
const CHUNK: usize = 992;

/// How long one operation of one peer takes, in nanoseconds.
#[derive(Clone, Debug, Serialize)]
pub struct Latency {
    /// Median of the rounds' means.
    pub mean: f64,
    /// Half of the calls are faster.
    pub p50: f64,
    /// 99 of 100 calls are faster.
    pub p99: f64,
}

/// One operation of all peers.
#[derive(Clone, Debug, Serialize)]
pub struct Trip {
    /// The operation.
    pub operation: &'static str,
    /// A call of plib.
    pub plib: Latency,
    /// memcached over a unix socket.
    pub unix: Latency,
    /// memcached over TCP.
    pub tcp: Latency,
}

/// All operations.
#[derive(Clone, Debug, Serialize)]
pub struct Trips {
    /// The server that answered.
    pub memcached: String,
    /// Keys of each kind.
    pub keys: u64,
    /// The operations.
    pub trips: Vec<Trip>,
    /// What a pair of looks at the cycle counter takes; taken off plib's percentiles.
    pub timer_ns: f64,
}

/// Measures all operations.
pub fn measure(settings: &Settings, folder: &Folder, machine: &Machine, progress: &Progress) -> Result<Trips> {
    let core = machine.core();
    let memcached = crate::memcached::version()?;
    progress.say(format_args!("round trips: starting {memcached} twice, for unix socket and TCP"));
    let unix_server = Server::start(Address::Unix(folder.file("memcached")), 64, core)?;
    let tcp_server = Server::start(Address::free_port()?, 64, core)?;
    let heap = folder.heap("trips", 64 << 20, settings.huge)?;
    let clock = Clock::calibrate();
    let mut plib = InProcess::new(&heap.cache);
    let (mut unix, mut tcp) = (unix_server.connect()?, tcp_server.connect()?);
    prepare(&mut plib)?;
    prepare(&mut unix)?;
    prepare(&mut tcp)?;
    let mut trips = Vec::new();
    for op in Op::ALL {
        progress.say(format_args!("round trips: {}", op.name()));
        let mut peers = [Peer::new(), Peer::new(), Peer::new()];
        for round in 0..settings.rounds as u64 {
            // As many as memcached's, times ten: they are that much shorter.
            peers[0].round(&mut plib, op, 10 * settings.trips, round, Some(&clock))?;
            peers[1].round(&mut unix, op, settings.trips, round, None)?;
            peers[2].round(&mut tcp, op, settings.trips, round, None)?;
        }
        let [plib, unix, tcp] = peers;
        let operation = op.name();
        trips.push(Trip { operation, plib: plib.latency(&clock), unix: unix.raw_latency(), tcp: tcp.raw_latency() });
    }
    Ok(Trips { memcached, keys: KEYS, trips, timer_ns: clock.overhead_ns })
}

/// Stores all values and counters.
fn prepare<A: Actor>(actor: &mut A) -> Result<()> {
    for item in 0..KEYS {
        actor.step(Step::Set, item, &key(item))?;
        actor.set_counter(&key(COUNTERS + item))?;
    }
    Ok(())
}

/// Every key once, as the peer before may have taken the processor's caches.
fn warm_up<A: Actor>(actor: &mut A, op: Op, order: &mut Order) -> Result<()> {
    let op = if op.counts() { Op::Touch } else { Op::Get };
    (0..KEYS).try_for_each(|_| {
        let item = order.next_item();
        actor.one(op, item, &key(item))
    })
}

/// What was measured of one peer in one operation.
struct Peer {
    means: Vec<f64>,
    single: Histogram<u64>,
}

impl Peer {
    fn new() -> Self {
        let single = Histogram::new_with_bounds(1, 60_000_000_000, 3).expect("the bounds are in order");
        Self { means: Vec::new(), single }
    }

    /// One round: a pass over all keys to warm up, then chunks of about `count` operations together. An in-process
    /// call is too short to be timed alone: every other chunk is timed as a whole, for the mean.
    fn round<A: Actor>(&mut self, actor: &mut A, op: Op, count: usize, seed: u64, clock: Option<&Clock>) -> Result<()> {
        let first = if op.counts() { COUNTERS } else { 0 };
        let mut order = Order::new(first, KEYS, seed);
        warm_up(actor, op, &mut order)?;
        let (mut spent, mut calls, mut whole) = (0.0, 0, true);
        while calls < count {
            let items: Vec<u64> = (0..CHUNK).map(|_| order.next_item()).collect();
            let keys: Vec<Key> = items.iter().map(|&item| key(item)).collect();
            let chunk = Chunk { op, items: &items, keys: &keys };
            let start = Instant::now();
            match clock {
                Some(_) if whole => {
                    spent += chunk.timed(actor, thread_cpu_seconds, |actor, chunk| chunk.run(actor))?;
                    calls += chunk.calls();
                }
                Some(_) => {
                    let each = |actor: &mut A, chunk: &Chunk<'_>| chunk.run_each(actor, &mut self.single, cycles);
                    chunk.timed(actor, thread_cpu_seconds, each)?;
                }
                None => {
                    let nanoseconds = || start.elapsed().as_nanos() as u64;
                    let each = |actor: &mut A, chunk: &Chunk<'_>| chunk.run_each(actor, &mut self.single, nanoseconds);
                    spent += chunk.timed(actor, || start.elapsed().as_secs_f64(), each)?;
                    calls += chunk.calls();
                }
            }
            whole = !whole;
        }
        self.means.push(spent * 1e9 / calls as f64);
        Ok(())
    }

    /// Percentiles that are nanoseconds already.
    fn raw_latency(self) -> Latency {
        let at = |quantile| self.single.value_at_quantile(quantile) as f64;
        Latency { mean: Rounds::of(self.means).median, p50: at(0.5), p99: at(0.99) }
    }

    /// Percentiles from cycles.
    fn latency(self, clock: &Clock) -> Latency {
        let at = |quantile| clock.nanoseconds(self.single.value_at_quantile(quantile));
        Latency { mean: Rounds::of(self.means).median, p50: at(0.5), p99: at(0.99) }
    }
}

/// Operations that are run between two steps that put items back.
struct Chunk<'a> {
    op: Op,
    items: &'a [u64],
    keys: &'a [Key],
}

impl Chunk<'_> {
    fn calls(&self) -> usize {
        if self.op == Op::Batch { CHUNK / BATCH } else { CHUNK }
    }

    /// Runs with the steps around it; gives the seconds of the run alone, by the clock that `seconds` reads.
    fn timed<A: Actor>(
        &self,
        actor: &mut A,
        seconds: impl Fn() -> f64,
        run: impl FnOnce(&mut A, &Self) -> Result<()>,
    ) -> Result<f64> {
        self.step(actor, self.op.before())?;
        let start = seconds();
        run(actor, self)?;
        let spent = seconds() - start;
        self.step(actor, self.op.after())?;
        Ok(spent)
    }

    fn step<A: Actor>(&self, actor: &mut A, step: Step) -> Result<()> {
        self.items.iter().zip(self.keys).try_for_each(|(&item, key)| actor.step(step, item, key))
    }

    #[inline(always)]
    fn run<A: Actor>(&self, actor: &mut A) -> Result<()> {
        if self.op == Op::Batch {
            let mut batches = self.items.chunks_exact(BATCH).zip(self.keys.chunks_exact(BATCH));
            return batches.try_for_each(|(items, keys)| actor.batch(items, keys));
        }
        self.items.iter().zip(self.keys).try_for_each(|(&item, key)| actor.one(self.op, item, key))
    }

    fn run_each<A: Actor>(&self, actor: &mut A, single: &mut Histogram<u64>, now: impl Fn() -> u64) -> Result<()> {
        let mut record = |start: u64| single.saturating_record((now() - start).max(1));
        if self.op == Op::Batch {
            for (items, keys) in self.items.chunks_exact(BATCH).zip(self.keys.chunks_exact(BATCH)) {
                let start = now();
                actor.batch(items, keys)?;
                record(start);
            }
            return Ok(());
        }
        for (&item, key) in self.items.iter().zip(self.keys) {
            let start = now();
            actor.one(self.op, item, key)?;
            record(start);
        }
        Ok(())
    }
}

/// The processor's cycle counter, for calls that are shorter than a look at the clock.
struct Clock {
    cycles_per_ns: f64,
    overhead_ns: f64,
}

impl Clock {
    fn calibrate() -> Self {
        let (start, first) = (Instant::now(), cycles());
        while start.elapsed().as_millis() < 50 {
            std::hint::spin_loop();
        }
        let cycles_per_ns = (cycles() - first) as f64 / start.elapsed().as_nanos() as f64;
        let mut pairs: Vec<u64> = (0..10_001)
            .map(|_| {
                let start = cycles();
                cycles() - start
            })
            .collect();
        pairs.sort_unstable();
        Self { cycles_per_ns, overhead_ns: pairs[5000] as f64 / cycles_per_ns }
    }

    /// Cycles between two looks as nanoseconds, the looks themselves taken off.
    fn nanoseconds(&self, cycles: u64) -> f64 {
        (cycles as f64 / self.cycles_per_ns - self.overhead_ns).max(0.0)
    }
}

/// The cycle counter, after all that came before it.
fn cycles() -> u64 {
    // SAFETY: every x86-64 processor has both instructions.
    unsafe {
        core::arch::x86_64::_mm_lfence();
        let now = core::arch::x86_64::_rdtsc();
        core::arch::x86_64::_mm_lfence();
        now
    }
}

/// plib called in this process.
pub struct InProcess<'a> {
    cache: &'a Cache,
    value: Value,
    out: [Value; BATCH],
    cas: Vec<u64>,
}

impl<'a> InProcess<'a> {
    /// An actor on a heap.
    pub fn new(cache: &'a Cache) -> Self {
        let value = template(VALUE).try_into().expect("a template has the length that was asked for");
        Self { cache, value, out: [value; BATCH], cas: vec![0; KEYS as usize] }
    }

    #[inline(always)]
    fn stamped(&mut self, item: u64) -> &[u8] {
        put_stamp(&mut self.value, item);
        &self.value
    }
}

impl Actor for InProcess<'_> {
    #[inline(always)]
    fn one(&mut self, op: Op, item: u64, key: &Key) -> Result<()> {
        let cache = self.cache;
        match op {
            Op::Get => {
                let info = cache.get_into(key, &mut self.out[0])?;
                check(info.is_some_and(|info| info.value_len == VALUE) && has_stamp(&self.out[0], item), op, item)
            }
            Op::Gat => {
                let found = cache.get_and_touch(key, 0)?;
                check(found.is_some_and(|found| found.value.len() == VALUE && has_stamp(&found.value, item)), op, item)
            }
            Op::Set => Ok(cache.set(key, self.stamped(item), 0, 0).map(drop)?),
            Op::Add => Ok(cache.add(key, self.stamped(item), 0, 0).map(drop)?),
            Op::Replace => Ok(cache.replace(key, self.stamped(item), 0, 0).map(drop)?),
            Op::Append => Ok(cache.append(key, key).map(drop)?),
            Op::Prepend => Ok(cache.prepend(key, key).map(drop)?),
            Op::Cas => {
                let cas = self.cas[item as usize];
                Ok(cache.compare_and_swap(key, self.stamped(item), 0, 0, cas).map(drop)?)
            }
            Op::Delete => check(cache.delete(key)?, op, item),
            Op::Incr => check(cache.increment(key, 1)?.is_some(), op, item),
            Op::Decr => check(cache.decrement(key, 1)?.is_some(), op, item),
            Op::Touch => check(cache.touch(key, 0)?, op, item),
            Op::Batch => Err(Failure::new("a batch needs its keys")),
        }
    }

    #[inline(always)]
    fn batch(&mut self, items: &[u64], keys: &[Key]) -> Result<()> {
        let mut values = self.out.iter_mut();
        let mut requests: [GetInto<'_>; BATCH] =
            std::array::from_fn(|at| GetInto::new(&keys[at], values.next().expect("as many values as keys")));
        self.cache.get_many_into(&mut requests)?;
        for (request, &item) in requests.iter().zip(items) {
            check(request.result()?.is_some_and(|info| info.value_len == VALUE), Op::Batch, item)?;
        }
        self.out.iter().zip(items).try_for_each(|(value, &item)| check(has_stamp(value, item), Op::Batch, item))
    }

    fn step(&mut self, step: Step, item: u64, key: &Key) -> Result<()> {
        match step {
            Step::Nothing => Ok(()),
            Step::Set => self.one(Op::Set, item, key),
            Step::Delete => self.one(Op::Delete, item, key),
            Step::LearnCas => {
                let info = self.cache.get_into(key, &mut self.out[0])?;
                self.cas[item as usize] = info.map_or(0, |info| info.cas);
                Ok(())
            }
        }
    }

    fn set_counter(&mut self, key: &Key) -> Result<()> {
        Ok(self.cache.set(key, b"1000000000", 0, 0).map(drop)?)
    }
}

#[inline(always)]
fn check(good: bool, op: Op, item: u64) -> Result<()> {
    if good { Ok(()) } else { Err(wrong(op, item)) }
}

#[cold]
fn wrong(op: Op, item: u64) -> Failure {
    Failure::new(format!("{} of item {item} by plib: missing or wrong where it must be there", op.name()))
}
