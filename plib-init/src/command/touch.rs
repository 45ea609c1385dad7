//! `plib touch`

use std::ffi::OsString;

use clap::Args;
use serde::Serialize;

use crate::bytes::{self, Encoded};
use crate::context::{Context, KeyForm};
use crate::error::{CliError, ExitKind};
use crate::exptime;

const EXAMPLES: &str = "\
Examples:
  plib touch session-17 30m
  plib touch session-17 never

Exit code 1: no such item.";

/// The arguments of `plib touch`.
#[derive(Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct TouchArgs {
    /// The key, 1 to 250 bytes
    key: OsString,
    /// The new expiry: seconds, `never`, or a span as 10m
    #[arg(value_parser = exptime::parse, allow_negative_numbers = true)]
    exptime: i64,
    #[command(flatten)]
    form: KeyForm,
}

#[derive(Serialize)]
struct Touched {
    touched: Encoded,
}

/// Gives the item a new expiry.
pub(crate) fn run(context: &Context, args: &TouchArgs) -> Result<ExitKind, CliError> {
    let key = bytes::key(&args.key, args.form.hex)?;
    if !context.open()?.touch(&key, args.exptime)? {
        return Err(CliError::NotFound { key });
    }
    let touched = Touched { touched: key.as_slice().into() };
    context.output.answer(&touched, |w, paint| writeln!(w, "{}", paint.good("touched")))?;
    Ok(ExitKind::Done)
}
