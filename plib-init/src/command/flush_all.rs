//! `plib flush-all`

use clap::Args;
use serde::Serialize;

use crate::context::Context;
use crate::error::{CliError, ExitKind};
use crate::exptime;

const EXAMPLES: &str = "\
Examples:
  plib flush-all
  plib flush-all --delay 30s";

/// The arguments of `plib flush-all`.
#[derive(Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct FlushAllArgs {
    /// Flush after this many seconds (or a span as 30s) instead of now
    #[arg(long, default_value = "0", value_parser = exptime::parse, allow_negative_numbers = true)]
    delay: i64,
}

#[derive(Serialize)]
struct Flushed {
    delay: i64,
}

/// Flushes the heap.
pub(crate) fn run(context: &Context, args: &FlushAllArgs) -> Result<ExitKind, CliError> {
    if args.delay < 0 {
        return Err(CliError::Usage(format!("--delay {}: a delay is not negative", args.delay)));
    }
    context.open()?.flush_all(args.delay)?;
    context.output.answer(&Flushed { delay: args.delay }, |w, paint| match args.delay {
        0 => writeln!(w, "{}", paint.good("flushed")),
        delay => writeln!(w, "{} in {delay} s", paint.good("flushes")),
    })?;
    Ok(ExitKind::Done)
}
