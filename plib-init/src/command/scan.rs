//! `plib scan`

use std::ffi::OsString;
use std::io::{self, Write};

use clap::Args;
use plib::{Entry, Item};
use serde::ser::{SerializeSeq, Serializer};

use super::get::ItemDocument;
use crate::bytes::{self, Encoded};
use crate::context::{Context, KeyForm};
use crate::error::{CliError, ExitKind};

const EXAMPLES: &str = "\
Examples:
  plib scan --limit 20
  plib scan --prefix user: --keys-only
  plib scan --json --prefix user: | jq '.items | length'

One line an item: the key, a tab, the start of the value, both escaped. The order has no meaning. Items that are there
during the whole scan are shown once; items stored or deleted meanwhile may or may not be.";

/// Bytes of a value that a line shows.
const SHOWN: usize = 64;

/// The arguments of `plib scan`.
#[derive(Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct ScanArgs {
    /// Only keys that start with this
    #[arg(short, long, value_name = "TEXT")]
    prefix: Option<OsString>,
    /// Show keys only
    #[arg(short, long)]
    keys_only: bool,
    /// Stop after this many items
    #[arg(short, long, value_name = "N")]
    limit: Option<u64>,
    #[command(flatten)]
    form: KeyForm,
}

/// Goes through the items, and writes each as it comes: a heap may be larger than the memory left.
pub(crate) fn run(context: &Context, args: &ScanArgs) -> Result<ExitKind, CliError> {
    let prefix = args.prefix.as_deref().map(|p| bytes::key(p, args.form.hex)).transpose()?.unwrap_or_default();
    let cache = context.open()?;
    let limit = args.limit.map_or(usize::MAX, |n| usize::try_from(n).unwrap_or(usize::MAX));
    let wanted =
        |entry: &Result<Entry, plib::Error>| entry.as_ref().is_ok_and(|e| e.key.starts_with(&prefix)) || entry.is_err();
    let entries = cache.scan().filter(wanted).take(limit);
    let mut out = io::BufWriter::new(io::stdout().lock());
    if context.output.json {
        write_json(out, entries, args.keys_only)?
    } else {
        write_lines(&mut out, entries, args.keys_only)?
    }
    Ok(ExitKind::Done)
}

fn write_lines(
    out: &mut impl Write,
    entries: impl Iterator<Item = Result<Entry, plib::Error>>,
    keys_only: bool,
) -> Result<(), CliError> {
    for entry in entries {
        let entry = entry?;
        let key = bytes::escape(&entry.key);
        let written = if keys_only {
            writeln!(out, "{key}")
        } else {
            writeln!(out, "{key}\t{}", bytes::escape_short(&entry.value, SHOWN))
        };
        written.map_err(CliError::Output)?;
    }
    out.flush().map_err(CliError::Output)
}

/// Writes `{"items": [...]}` piece by piece. An error of the heap ends the document before its last bracket.
fn write_json(
    mut out: impl Write,
    entries: impl Iterator<Item = Result<Entry, plib::Error>>,
    keys_only: bool,
) -> Result<(), CliError> {
    out.write_all(if keys_only { b"{\"keys\":" } else { b"{\"items\":" }).map_err(CliError::Output)?;
    let mut serializer = serde_json::Serializer::new(&mut out);
    let mut sequence = serializer.serialize_seq(None).map_err(json_output)?;
    for entry in entries {
        let Entry { key, value, flags, expiry, cas } = entry?;
        let written = if keys_only {
            sequence.serialize_element(&Encoded::from(key.as_slice()))
        } else {
            sequence.serialize_element(&ItemDocument::new(&key, &Item { value, flags, cas, expiry }))
        };
        written.map_err(json_output)?;
    }
    SerializeSeq::end(sequence).map_err(json_output)?;
    out.write_all(b"}\n").and_then(|()| out.flush()).map_err(CliError::Output)
}

fn json_output(error: serde_json::Error) -> CliError {
    CliError::Output(error.into())
}
