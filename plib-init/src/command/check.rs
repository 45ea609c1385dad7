//! `plib check`

use std::ffi::OsString;

use clap::Args;
use plib::{Cache, CheckReport};
use serde::Serialize;

use crate::context::Context;
use crate::error::{CliError, ExitKind};
use crate::table::{Align, Table};

const EXAMPLES: &str = "\
Examples:
  plib check demo
  plib check --json demo | jq .findings

Every block, bucket, slot word, context and counter is compared with the others; nothing is changed. The heap may be in
use, or its users may all be dead. Exit code 0: clean; 1: findings. What dead clients left is no damage: `plib reap`
takes it back.";

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
            |f: &plib::Finding| FindingDocument { kind: f.kind, place: f.place, detail: f.detail, severe: f.severe };
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

/// Checks the heap and lists what is wrong.
pub(crate) fn run(context: &Context, args: &CheckArgs) -> Result<ExitKind, CliError> {
    let cache = Cache::open(context.heap_or(args.name.as_deref())?)?;
    let document = CheckDocument::new(cache.info().path.display().to_string(), &cache.check()?);
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
