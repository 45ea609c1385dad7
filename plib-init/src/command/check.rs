//! `plib check`

use std::ffi::OsString;
use std::time::Duration;

use clap::Args;
use plib::{Cache, CheckReport, CheckSummary, Finding};
use serde::Serialize;

use crate::context::Context;
use crate::error::{CliError, ExitKind};
use crate::table::{Align, Table};

const EXAMPLES: &str = "\
Examples:
  plib check demo
  plib check --json demo | jq .findings

Every block, bucket, slot word and context is compared with the others. The heap may be in use (minor findings count when
they stay), or its users may all be dead: what they held is no damage and is taken back first, as whoever opens a heap
does. If nobody else has it open, counters that deaths left off by an item are set right. Nothing else is changed. Exit
code 0: clean; 1: findings.";

/// How often a heap in use is looked at before minor findings are believed.
const LOOKS: u32 = 4;
const BETWEEN_LOOKS: Duration = Duration::from_millis(20);

/// The arguments of `plib check`.
#[derive(Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct CheckArgs {
    /// The heap, instead of --heap
    name: Option<OsString>,
    /// Show at most this many findings
    #[arg(short, long, default_value_t = 50, value_name = "N")]
    limit: usize,
}

#[derive(Serialize)]
struct FindingDocument {
    kind: &'static str,
    place: u64,
    detail: u64,
    severe: bool,
}

#[derive(Serialize)]
struct CheckDocument {
    heap: String,
    clean: bool,
    severe: bool,
    items: u64,
    /// All findings; of very many only the first are listed.
    findings_count: u64,
    findings: Vec<FindingDocument>,
}

impl CheckDocument {
    fn new(heap: String, report: &CheckReport) -> Self {
        let document =
            |f: &Finding| FindingDocument { kind: f.kind, place: f.place, detail: f.detail, severe: f.severe };
        Self {
            heap,
            clean: report.findings.is_empty(),
            severe: report.severe,
            items: report.summary.items,
            findings_count: report.summary.findings,
            findings: report.findings.iter().map(document).collect(),
        }
    }
}

/// Takes back what the dead held, which is no damage (opening the heap does so too, unless they died just then), and looks.
fn look(cache: &Cache) -> Result<CheckReport, plib::Error> {
    cache.reap()?;
    cache.check()
}

/// Looks again while there are only findings that an operation under way explains: what others are just doing is gone
/// at the next look, what is lost stays.
fn settled(cache: &Cache) -> Result<CheckReport, plib::Error> {
    let mut report = look(cache)?;
    for _ in 1..LOOKS {
        if report.severe || report.findings.is_empty() {
            break;
        }
        std::thread::sleep(BETWEEN_LOOKS);
        let again = look(cache)?;
        if again.severe {
            return Ok(again);
        }
        let seen = |f: &Finding| report.findings.iter().any(|old| (old.kind, old.place) == (f.kind, f.place));
        let findings: Vec<Finding> = again.findings.into_iter().filter(seen).collect();
        let summary = CheckSummary { findings: findings.len() as u64, ..again.summary };
        report = CheckReport { findings, summary, severe: again.severe };
    }
    Ok(report)
}

/// Checks the heap and lists what is wrong.
pub(crate) fn run(context: &Context, args: &CheckArgs) -> Result<ExitKind, CliError> {
    let cache = Cache::open(context.heap_or(args.name.as_deref())?)?;
    let document = CheckDocument::new(cache.info().path.display().to_string(), &settled(&cache)?);
    context.output.answer(&document, |w, paint| {
        if document.clean {
            return writeln!(w, "{}: {} items checked, {}", document.heap, document.items, paint.good("clean"));
        }
        let mut table = Table::new(&[
            ("FINDING", Align::Left),
            ("PLACE", Align::Right),
            ("DETAIL", Align::Right),
            ("SEVERE", Align::Left),
        ]);
        for f in document.findings.iter().take(args.limit) {
            let severe = if f.severe { "yes" } else { "no" };
            table.row([f.kind.to_owned(), format!("{:#x}", f.place), format!("{:#x}", f.detail), severe.to_owned()]);
        }
        table.write(w, paint)?;
        let hidden = document.findings_count.saturating_sub(document.findings.len().min(args.limit) as u64);
        if hidden > 0 {
            writeln!(w, "... and {hidden} more")?;
        }
        let count = format!("{} findings", document.findings_count);
        let count = if document.severe { paint.bad(&count) } else { paint.note(&count) };
        writeln!(w, "{}: {} items checked, {count}", document.heap, document.items)
    })?;
    Ok(if document.clean { ExitKind::Done } else { ExitKind::No })
}
