//! The throughput of two processes beside one, each pinned to a core of its own.

use std::{
    hint::black_box,
    io::{BufRead, BufReader, Write},
    os::unix::process::CommandExt,
    path::{Path, PathBuf},
    process::{Child, ChildStdin, ChildStdout, Command, Stdio},
    time::{Duration, Instant},
};

use clap::{Args, ValueEnum};
use plib::Cache;
use serde::Serialize;

use crate::{
    engine::{Engine, Plib},
    failure::{Failure, Result},
    heap::Folder,
    key::key,
    machine::{Machine, pin, thread_cpu_seconds},
    order::Order,
    progress::Progress,
    rounds::Rounds,
    settings::Settings,
    value::{VALUE, Value, has_stamp, put_stamp, template},
};

/// What a worker does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Mix {
    /// Only reads.
    Reads,
    /// As many writes as reads.
    Half,
}

impl Mix {
    fn name(self) -> &'static str {
        match self {
            Mix::Reads => "reads",
            Mix::Half => "half",
        }
    }
}

/// One mix on one choice of keys, in operations a second.
#[derive(Clone, Debug, Serialize)]
pub struct Pair {
    /// What was done.
    pub mix: Mix,
    /// Whether both worked on all keys, or each on a half of its own.
    pub overlapping: bool,
    /// One process, the mean of both cores.
    pub one: f64,
    /// Both together.
    pub two: f64,
    /// Two over one, the median of the rounds.
    pub ratio: f64,
    /// The part of the time in which a worker had its core.
    pub core_share: f64,
}

/// The command line of a worker.
#[derive(Args, Debug)]
pub struct WorkerArguments {
    /// The heap's path.
    #[arg(long)]
    heap: PathBuf,
    /// The core to run on.
    #[arg(long)]
    core: usize,
    /// What to do.
    #[arg(long, value_enum)]
    mix: Mix,
    /// The first item.
    #[arg(long)]
    first: u64,
    /// How many items.
    #[arg(long)]
    count: u64,
}

/// Measures all mixes; None where the machine has only one core for us.
pub fn measure(
    settings: &Settings,
    folder: &Folder,
    machine: &Machine,
    progress: &Progress,
) -> Result<Option<Vec<Pair>>> {
    let [.., first, second] = machine.cores[..] else {
        progress.say("two processes: skipped, as only one core may be used");
        return Ok(None);
    };
    let items = settings.shared_items;
    let heap = folder.heap("processes", (64 << 20) + items * 320, settings.huge)?;
    let mut value = fresh_value();
    for item in 0..items {
        put_stamp(&mut value, item);
        heap.cache.set(&key(item), &value, 0, 0)?;
    }
    let mut pairs = Vec::new();
    for mix in [Mix::Reads, Mix::Half] {
        for overlapping in [false, true] {
            let which = if overlapping { "overlapping" } else { "disjoint" };
            progress.say(format_args!("two processes: {}, {which} keys", mix.name()));
            let share = |at: u64| if overlapping { (0, items) } else { (at * items / 2, items / 2) };
            let workers =
                [Worker::start(heap.path(), first, mix, share(0))?, Worker::start(heap.path(), second, mix, share(1))?];
            pairs.push(pair(settings, mix, overlapping, workers)?);
        }
    }
    Ok(Some(pairs))
}

fn pair(settings: &Settings, mix: Mix, overlapping: bool, mut workers: [Worker; 2]) -> Result<Pair> {
    let seconds = settings.round_seconds.max(0.2);
    let (mut ones, mut twos, mut ratios) = (Vec::new(), Vec::new(), Vec::new());
    let mut shares = Vec::new();
    // The first round warms both up and does not count.
    for round in 0..=settings.rounds {
        let [left, right] = &mut workers;
        let alone = (left.alone(seconds)?, right.alone(seconds)?);
        left.go(seconds)?;
        right.go(seconds)?;
        let together = (left.done()?, right.done()?);
        if round == 0 {
            continue;
        }
        let one = f64::midpoint(alone.0.rate, alone.1.rate);
        let two = together.0.rate + together.1.rate;
        ones.push(one);
        twos.push(two);
        ratios.push(two / one);
        shares.extend([alone.0, alone.1, together.0, together.1].map(|run| run.core_share));
    }
    let median = |samples| Rounds::of(samples).median;
    let core_share = shares.iter().sum::<f64>() / shares.len() as f64;
    Ok(Pair { mix, overlapping, one: median(ones), two: median(twos), ratio: median(ratios), core_share })
}

/// What a worker did in one run.
#[derive(Clone, Copy)]
struct Run {
    rate: f64,
    core_share: f64,
}

/// A worker process; it ends when its input closes, or this process dies.
struct Worker {
    child: Child,
    input: ChildStdin,
    output: BufReader<ChildStdout>,
}

impl Worker {
    fn start(heap: &Path, core: usize, mix: Mix, (first, count): (u64, u64)) -> Result<Self> {
        let program = std::env::current_exe().map_err(Failure::during("cannot find this program"))?;
        let mut command = Command::new(program);
        command.arg("worker").arg("--heap").arg(heap);
        command.args(["--core", &core.to_string(), "--mix", mix.name()]);
        command.args(["--first", &first.to_string(), "--count", &count.to_string()]);
        command.stdin(Stdio::piped()).stdout(Stdio::piped());
        // SAFETY: one system call, which a child may make between fork and exec.
        unsafe {
            command.pre_exec(|| {
                libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL);
                Ok(())
            });
        }
        let mut child = command.spawn().map_err(Failure::during("cannot start a worker"))?;
        let input = child.stdin.take().ok_or_else(|| Failure::new("a worker without input"))?;
        let output = child.stdout.take().ok_or_else(|| Failure::new("a worker without output"))?;
        let mut worker = Self { child, input, output: BufReader::new(output) };
        match worker.line()?.as_str() {
            "ready" => Ok(worker),
            other => Err(Failure::new(format!("a worker did not start: {other}"))),
        }
    }

    fn alone(&mut self, seconds: f64) -> Result<Run> {
        self.go(seconds)?;
        self.done()
    }

    fn go(&mut self, seconds: f64) -> Result<()> {
        writeln!(self.input, "{seconds}").map_err(Failure::during("telling a worker to go"))
    }

    fn done(&mut self) -> Result<Run> {
        let line = self.line()?;
        let mut numbers = line.split(' ').map(str::parse);
        match (numbers.next(), numbers.next()) {
            (Some(Ok(rate)), Some(Ok(core_share))) => Ok(Run { rate, core_share }),
            _ => Err(Failure::new(format!("a worker failed: {line}"))),
        }
    }

    fn line(&mut self) -> Result<String> {
        let mut line = String::new();
        self.output.read_line(&mut line).map_err(Failure::during("reading from a worker"))?;
        Ok(line.trim_end().to_owned())
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn fresh_value() -> Value {
    template(VALUE).try_into().expect("a template has the length that was asked for")
}

/// The worker itself: waits for a number of seconds, works that long, prints its rate, and so on.
pub fn work(arguments: &WorkerArguments) -> Result<()> {
    pin(arguments.core).map_err(Failure::during("cannot pin the worker"))?;
    let cache = Cache::open(&arguments.heap)?;
    let engine = Plib(&cache);
    let mut order = Order::new(arguments.first, arguments.count, arguments.core as u64);
    println!("ready");
    for line in std::io::stdin().lines() {
        let line = line.map_err(Failure::during("standard input"))?;
        let seconds: f64 = line.parse().map_err(Failure::during("seconds to work"))?;
        let run = run(&engine, arguments.mix, &mut order, Duration::from_secs_f64(seconds))?;
        println!("{} {}", run.rate, run.core_share);
    }
    Ok(())
}

fn run<E: Engine>(engine: &E, mix: Mix, order: &mut Order, time: Duration) -> Result<Run> {
    let mut value = fresh_value();
    let mut out = value;
    let (start, cpu) = (Instant::now(), thread_cpu_seconds());
    let mut operations = 0_u64;
    while start.elapsed() < time {
        for turn in 0..500 {
            let item = order.next_item();
            if mix == Mix::Half && turn % 2 == 1 {
                put_stamp(&mut value, item);
                engine.set(&key(item), black_box(&value))?;
            } else if !engine.get(&key(item), &mut out)? || !has_stamp(black_box(&out), item) {
                return Err(Failure::new(format!("item {item} is missing or wrong where it must be there")));
            }
        }
        operations += 500;
    }
    // By processor time, so that another program on our core does not count against either; how much the two
    // really ran at a time is what the share tells.
    let worked = thread_cpu_seconds() - cpu;
    let core_share = (worked / start.elapsed().as_secs_f64()).min(1.0);
    Ok(Run { rate: operations as f64 / worked, core_share })
}
