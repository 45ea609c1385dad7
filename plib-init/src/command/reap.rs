//! `plib reap`

use std::ffi::OsString;

use clap::Args;
use plib::Cache;
use serde::Serialize;

use crate::context::Context;
use crate::error::{CliError, ExitKind};

const EXAMPLES: &str = "\
Examples:
  plib reap demo
  plib sweep demo                      (frozen clients too)

Whoever needs a place that a dead client held takes it back anyway; this does so at once, for all of them.";

/// The arguments of `plib reap`.
#[derive(Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct ReapArgs {
    /// The heap, instead of --heap
    name: Option<OsString>,
}

#[derive(Serialize)]
struct Reaped {
    recovered_contexts: u32,
}

/// Recovers every dead client.
pub(crate) fn run(context: &Context, args: &ReapArgs) -> Result<ExitKind, CliError> {
    let cache = Cache::open(context.heap_or(args.name.as_deref())?)?;
    let reaped = Reaped { recovered_contexts: cache.reap()? };
    context
        .output
        .answer(&reaped, |w, _| writeln!(w, "recovered {} op contexts of dead clients", reaped.recovered_contexts))?;
    Ok(ExitKind::Done)
}
