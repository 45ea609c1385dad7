//! `plib incr` and `plib decr`

use std::ffi::OsString;

use clap::Args;
use plib::Cache;
use serde::Serialize;

use crate::bytes::{self, Encoded};
use crate::context::{Context, KeyForm};
use crate::error::{CliError, ExitKind};
use crate::exptime;

const INCR_EXAMPLES: &str = "\
Examples:
  plib incr visits --initial 1
  plib incr visits 10

The value is a decimal number of 64 bits and wraps to 0. Exit code 1: no such item and no --initial.";
const DECR_EXAMPLES: &str = "\
Examples:
  plib decr stock
  plib decr stock 10 --initial 100 --exptime 1h

The value is a decimal number of 64 bits and stops at 0. Exit code 1: no such item and no --initial.";

/// What incr and decr have in common.
#[derive(Args)]
pub(crate) struct Change {
    /// The key, 1 to 250 bytes
    key: OsString,
    /// By how much
    #[arg(default_value_t = 1)]
    delta: u64,
    /// Value of the item that is made where there is none
    #[arg(long, value_name = "N")]
    initial: Option<u64>,
    /// Expiry of the item that is made: seconds, `never`, or a span as 10m
    #[arg(short, long, default_value = "never", requires = "initial", value_parser = exptime::parse, allow_negative_numbers = true)]
    exptime: i64,
    #[command(flatten)]
    form: KeyForm,
}

/// The arguments of `plib incr`.
#[derive(Args)]
#[command(after_help = INCR_EXAMPLES)]
pub(crate) struct IncrArgs {
    #[command(flatten)]
    change: Change,
}

/// The arguments of `plib decr`.
#[derive(Args)]
#[command(after_help = DECR_EXAMPLES)]
pub(crate) struct DecrArgs {
    #[command(flatten)]
    change: Change,
}

#[derive(Serialize)]
struct Changed {
    key: Encoded,
    value: u64,
}

/// Adds.
pub(crate) fn run_incr(context: &Context, args: &IncrArgs) -> Result<ExitKind, CliError> {
    change(context, &args.change, Cache::increment, Cache::increment_or)
}

/// Subtracts.
pub(crate) fn run_decr(context: &Context, args: &DecrArgs) -> Result<ExitKind, CliError> {
    change(context, &args.change, Cache::decrement, Cache::decrement_or)
}

fn change(
    context: &Context,
    args: &Change,
    plain: impl FnOnce(&Cache, &[u8], u64) -> Result<Option<u64>, plib::Error>,
    or: impl FnOnce(&Cache, &[u8], u64, u64, i64) -> Result<u64, plib::Error>,
) -> Result<ExitKind, CliError> {
    let key = bytes::key(&args.key, args.form.hex)?;
    let cache = context.open()?;
    let value = match args.initial {
        Some(initial) => Some(or(&cache, &key, args.delta, initial, args.exptime)?),
        None => plain(&cache, &key, args.delta)?,
    };
    let Some(value) = value else {
        return Err(CliError::NotFound { key });
    };
    let changed = Changed { key: key.as_slice().into(), value };
    context.output.answer(&changed, |w, _| writeln!(w, "{value}"))?;
    Ok(ExitKind::Done)
}
