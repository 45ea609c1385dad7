//! `plib get` and `plib gat`

use std::ffi::OsString;
use std::io::{self, Write};

use clap::Args;
use plib::Item;
use serde::Serialize;

use crate::bytes::{self, Encoded};
use crate::context::{Context, KeyForm};
use crate::error::{CliError, ExitKind};
use crate::{exptime, table, when};

const GET_EXAMPLES: &str = "\
Examples:
  plib get greeting
  plib get picture > picture.png       (the exact bytes)
  plib get -v greeting                 (flags, cas and expiry too)
  plib get --json greeting | jq .cas
  plib get --hex 00ff10

On a terminal control characters are shown escaped; --raw shows them as they are. Exit code 1: no such item.";

const GAT_EXAMPLES: &str = "\
Examples:
  plib gat session-17 10m
  plib gat --json session-17 3600";

/// How the value is shown.
#[derive(Args)]
pub(crate) struct Show {
    /// Show flags, cas and expiry before the value
    #[arg(short, long)]
    verbose: bool,
    /// Do not escape control characters on a terminal
    #[arg(long)]
    raw: bool,
}

/// The arguments of `plib get`.
#[derive(Args)]
#[command(after_help = GET_EXAMPLES)]
pub(crate) struct GetArgs {
    /// The key, 1 to 250 bytes
    key: OsString,
    #[command(flatten)]
    form: KeyForm,
    #[command(flatten)]
    show: Show,
}

/// The arguments of `plib gat`.
#[derive(Args)]
#[command(after_help = GAT_EXAMPLES)]
pub(crate) struct GatArgs {
    /// The key, 1 to 250 bytes
    key: OsString,
    /// The new expiry: seconds, `never`, or a span as 10m
    #[arg(value_parser = exptime::parse, allow_negative_numbers = true)]
    exptime: i64,
    #[command(flatten)]
    form: KeyForm,
    #[command(flatten)]
    show: Show,
}

/// An item in JSON.
#[derive(Serialize)]
pub(crate) struct ItemDocument {
    key: Encoded,
    value: Encoded,
    size: usize,
    flags: u32,
    cas: u64,
    expiry: u32,
}

impl ItemDocument {
    pub(crate) fn new(key: &[u8], item: &Item) -> Self {
        Self {
            key: key.into(),
            value: item.value.as_slice().into(),
            size: item.value.len(),
            flags: item.flags,
            cas: item.cas,
            expiry: item.expiry,
        }
    }
}

/// Gets one item.
pub(crate) fn run_get(context: &Context, args: &GetArgs) -> Result<ExitKind, CliError> {
    let key = bytes::key(&args.key, args.form.hex)?;
    let item = context.open()?.get(&key)?;
    answer(context, &args.show, key, item)
}

/// Gets one item and gives it a new expiry.
pub(crate) fn run_gat(context: &Context, args: &GatArgs) -> Result<ExitKind, CliError> {
    let key = bytes::key(&args.key, args.form.hex)?;
    let item = context.open()?.get_and_touch(&key, args.exptime)?;
    answer(context, &args.show, key, item)
}

fn answer(context: &Context, show: &Show, key: Vec<u8>, item: Option<Item>) -> Result<ExitKind, CliError> {
    let Some(item) = item else {
        return Err(CliError::NotFound { key });
    };
    let escape = context.output.to_terminal() && !show.raw;
    context.output.answer(&ItemDocument::new(&key, &item), |w, paint| {
        if show.verbose {
            table::pairs(w, paint, &details(&key, &item))?;
        }
        write_value(w, &item.value, escape)
    })?;
    Ok(ExitKind::Done)
}

fn details(key: &[u8], item: &Item) -> [(&'static str, String); 5] {
    [
        ("key", bytes::escape(key)),
        ("size", item.value.len().to_string()),
        ("flags", item.flags.to_string()),
        ("cas", item.cas.to_string()),
        ("expiry", when::expiry(item.expiry)),
    ]
}

/// To a program the exact bytes; to a person a whole line.
fn write_value(w: &mut dyn Write, value: &[u8], escape: bool) -> io::Result<()> {
    if !escape {
        return w.write_all(value);
    }
    // The line ends of a text are not worth escaping.
    let lines: Vec<String> = value.split(|b| *b == b'\n').map(bytes::escape).collect();
    let text = lines.join("\n");
    write!(w, "{text}{}", if text.ends_with('\n') { "" } else { "\n" })
}
