//! `plib sweep`

use std::ffi::OsString;
use std::io::{self, Write};
use std::time::Duration;

use clap::{Args, ValueEnum};
use plib::{Cache, Fate, FrozenOwner, SweepPolicy, SweepReport, Sweeper};
use serde::Serialize;

use crate::context::Context;
use crate::error::{CliError, ExitKind};
use crate::output::Paint;
use crate::stop::Stop;
use crate::table::{Align, Table};
use crate::{bytes, owner, span, when};

const EXAMPLES: &str = "\
Examples:
  plib sweep demo
  plib sweep demo --frozen kill
  plib sweep demo --frozen kill --patience 10s --every 30s     (as a service; ends at SIGINT or SIGTERM)
  plib sweep demo --json | jq '.frozen[].pid'

Takes back what dead clients held, as `plib reap` does, and looks for clients that are frozen in the middle of an operation:
stopped (SIGSTOP), in a frozen control group, under a debugger, or stuck in a signal handler. What they hold keeps others from
writing to some keys; readers never wait. A process that is busy or gets no processor is not frozen.

`--frozen kill` sends SIGKILL to such processes and takes back what they held. Pid namespace, pid and start time must be those
that the client recorded, and the heap mapped, shared and writable. Processes of other users need root.

The clients write these records, so whoever may write the heap can name any other process that has it mapped for writing, and
`--frozen kill` kills that one. As root, use it only on heaps whose writers trust each other that far.

Exit code 0: nobody is frozen (any more); 1: somebody is, and was not killed.";

/// The arguments of `plib sweep`.
#[derive(Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct SweepArgs {
    /// The heap, instead of --heap
    name: Option<OsString>,
    /// What to do about frozen clients
    #[arg(long, value_enum, default_value_t = Frozen::Report)]
    frozen: Frozen,
    /// How long a client must not have moved at all to count as frozen
    #[arg(long, default_value = "2s", value_parser = span::parse, value_name = "SPAN")]
    patience: Duration,
    /// Go on sweeping, with this long between two sweeps
    #[arg(long, value_parser = span::parse, value_name = "SPAN")]
    every: Option<Duration>,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Frozen {
    /// Show them
    Report,
    /// Kill their processes and take back what they held
    Kill,
}

#[derive(Serialize)]
struct SweepDocument {
    recovered_contexts: u32,
    frozen: Vec<FrozenDocument>,
    /// Readers that do not get on; nobody waits for them.
    stopped_readers: u32,
}

#[derive(Serialize)]
struct FrozenDocument {
    pid: u32,
    pid_namespace: u64,
    thread: Option<u32>,
    slot: u32,
    context: u32,
    /// As it is seen from here.
    pid_here: Option<u32>,
    command: Option<String>,
    user: Option<String>,
    state: &'static str,
    buckets: Vec<u32>,
    large: bool,
    superblock: Option<u32>,
    still_ms: u64,
    fate: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<String>,
    #[serde(skip)]
    words: String,
}

impl SweepDocument {
    fn new(found: &SweepReport) -> Self {
        Self {
            recovered_contexts: found.recovered,
            frozen: found.frozen.iter().map(FrozenDocument::new).collect(),
            stopped_readers: found.readers,
        }
    }

    fn is_news(&self) -> bool {
        self.recovered_contexts > 0 || !self.frozen.is_empty()
    }
}

impl FrozenDocument {
    fn new(found: &FrozenOwner) -> Self {
        let process = found.process.as_ref();
        let (fate, words) = fate(found.fate);
        Self {
            pid: found.pid,
            pid_namespace: found.pid_namespace,
            thread: found.thread,
            slot: found.slot,
            context: found.context,
            pid_here: process.map(|p| p.pid),
            command: process.map(|p| bytes::escape(p.name.as_bytes())),
            user: process.map(|p| owner::user(p.uid)),
            state: process.map_or("unknown", |p| state(p.state)),
            buckets: found.buckets.clone(),
            large: found.large,
            superblock: found.superblock,
            still_ms: found.still_for.as_millis() as u64,
            fate,
            error: if let Fate::Failed(e) = found.fate {
                Some(io::Error::from_raw_os_error(e).to_string())
            } else {
                None
            },
            words: words.to_owned(),
        }
    }

    /// The pid that a person can do something with.
    fn pid_text(&self) -> String {
        match self.pid_here {
            Some(here) if here == self.pid => here.to_string(),
            Some(here) => format!("{here} ({} in its namespace)", self.pid),
            None => format!("{} in namespace {}", self.pid, self.pid_namespace),
        }
    }

    fn holds(&self) -> String {
        let buckets = self.buckets.iter().map(|n| format!("bucket {n}"));
        let large = self.large.then(|| "the right to large values".to_owned());
        let superblock = self.superblock.map(|n| format!("superblock {n}"));
        buckets.chain(large).chain(superblock).collect::<Vec<_>>().join(", ")
    }

    fn still(&self) -> String {
        span::text(Duration::from_millis(self.still_ms))
    }

    fn result(&self) -> String {
        self.error.as_ref().map_or_else(|| self.words.clone(), |error| format!("{}: {error}", self.words))
    }
}

/// The kernel's letter in a word.
fn state(letter: char) -> &'static str {
    match letter {
        'T' => "stopped",
        't' => "traced",
        'R' => "running",
        'S' | 'D' | 'I' => "asleep",
        'X' | 'Z' => "ending",
        _ => "unknown",
    }
}

/// The name for programs, and the words for people.
fn fate(fate: Fate) -> (&'static str, &'static str) {
    match fate {
        Fate::Reported => ("reported", "left alone"),
        Fate::Killed => ("killed", "killed and recovered"),
        Fate::Gone => ("gone", "ended by itself, recovered"),
        Fate::Resumed => ("resumed", "went on by itself"),
        Fate::PermissionDenied => ("permission_denied", "no permission to kill it (try as root)"),
        Fate::NotFound => ("not_found", "not to be seen from here (try outside the container)"),
        Fate::ThisProcess => ("this_process", "is this process"),
        Fate::Init => ("init", "is the first process here, not killed"),
        Fate::Lingers => ("lingers", "killed, but not gone: a frozen control group, or a wait in the kernel"),
        Fate::Failed(_) => ("failed", "the system refused"),
        _ => ("unknown", "unknown"),
    }
}

/// Sweeps once, or until it is told to stop.
pub(crate) fn run(context: &Context, args: &SweepArgs) -> Result<ExitKind, CliError> {
    let cache = Cache::open(context.heap_or(args.name.as_deref())?)?;
    let policy = SweepPolicy::new().kill(args.frozen == Frozen::Kill).patience(args.patience);
    if let Some(every) = args.every {
        return go_on(context, &cache, policy, every);
    }
    let found = cache.sweep(&policy)?;
    let document = SweepDocument::new(&found);
    context.output.answer(&document, |w, paint| write(w, paint, &document))?;
    Ok(if found.frozen.iter().all(|owner| owner.fate.is_over()) { ExitKind::Done } else { ExitKind::No })
}

fn write(w: &mut dyn Write, paint: Paint, document: &SweepDocument) -> io::Result<()> {
    writeln!(w, "recovered {} op contexts of dead clients", document.recovered_contexts)?;
    if document.stopped_readers > 0 {
        writeln!(w, "{} readers do not get on; nobody waits for them", document.stopped_readers)?;
    }
    if document.frozen.is_empty() {
        return writeln!(w, "{}", paint.good("no client is frozen"));
    }
    let columns = ["PID", "COMMAND", "USER", "STATE", "HOLDS", "STILL FOR", "RESULT"];
    let mut table = Table::new(&columns.map(|name| (name, Align::Left)));
    for f in &document.frozen {
        let named = |name: &Option<String>| name.clone().unwrap_or_else(|| "?".into());
        let who = [f.pid_text(), named(&f.command), named(&f.user), f.state.to_owned()];
        table.row(who.into_iter().chain([f.holds(), f.still(), f.result()]));
    }
    table.write(w, paint)
}

/// Sweeps again and again. For people there is a line for what is new, for programs a document for each sweep.
fn go_on(context: &Context, cache: &Cache, policy: SweepPolicy, every: Duration) -> Result<ExitKind, CliError> {
    let stop = Stop::listen();
    let mut sweeper = Sweeper::new(policy);
    let mut told: Vec<FrozenDocument> = Vec::new();
    loop {
        let Some(found) = sweeper.step(cache)? else {
            if stop.within(sweeper.pause()) {
                return Ok(ExitKind::Done);
            }
            continue;
        };
        let document = SweepDocument::new(&found);
        if context.output.json || document.is_news() {
            context.output.answer(&document, |w, _| write_news(w, &document, &told))?;
        }
        told = document.frozen;
        if stop.within(every) {
            return Ok(ExitKind::Done);
        }
    }
}

fn write_news(w: &mut dyn Write, document: &SweepDocument, told: &[FrozenDocument]) -> io::Result<()> {
    let now = when::utc(when::now());
    if document.recovered_contexts > 0 {
        writeln!(w, "{now}  recovered {} op contexts of dead clients", document.recovered_contexts)?;
    }
    // The same one that stands where it stood is no news.
    let is_told = |f: &FrozenDocument| {
        told.iter().any(|t| (t.slot, t.context, t.fate) == (f.slot, f.context, f.fate) && t.still_ms < f.still_ms)
    };
    for f in document.frozen.iter().filter(|f| !is_told(f)) {
        let who = [f.command.as_deref(), f.user.as_deref()].map(|name| name.unwrap_or("?"));
        let (pid, holds, still, result) = (f.pid_text(), f.holds(), f.still(), f.result());
        writeln!(
            w,
            "{now}  pid {pid}, {} of {}, {}, holds {holds}, still for {still}: {result}",
            who[0], who[1], f.state
        )?;
    }
    Ok(())
}
