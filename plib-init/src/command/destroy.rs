//! `plib destroy`

use std::ffi::OsString;
use std::io::{self, IsTerminal, Write};
use std::path::Path;

use clap::Args;
use plib::Cache;
use serde::Serialize;

use crate::context::Context;
use crate::error::{CliError, ExitKind};

const EXAMPLES: &str = "\
Examples:
  plib destroy demo
  plib destroy demo --yes

Processes that have the heap open keep using it; its memory is given back when the last of them ends.
The heap's lock file, if it has one, goes with it. A file that is not a heap is left alone.";

/// The arguments of `plib destroy`.
#[derive(Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct DestroyArgs {
    /// The heap; never taken from --heap or PLIB_HEAP
    name: OsString,
    /// Do not ask
    #[arg(short, long)]
    yes: bool,
}

#[derive(Serialize)]
struct Destroyed {
    destroyed: String,
}

/// Asks, then removes the heap.
pub(crate) fn run(context: &Context, args: &DestroyArgs) -> Result<ExitKind, CliError> {
    let path = Cache::path_of(&args.name);
    if !args.yes && !confirmed(&path)? {
        eprintln!("plib: {} stays", path.display());
        return Ok(ExitKind::No);
    }
    Cache::destroy(&args.name)?;
    let document = Destroyed { destroyed: path.display().to_string() };
    context.output.answer(&document, |w, _| writeln!(w, "destroyed {}", document.destroyed))?;
    Ok(ExitKind::Done)
}

/// Asks a person; without one there is nobody to say yes.
fn confirmed(path: &Path) -> Result<bool, CliError> {
    if !io::stdin().is_terminal() {
        return Err(CliError::Usage(format!("add --yes to destroy {} and everything in it", path.display())));
    }
    eprint!("Destroy {} and everything in it? [y/N] ", path.display());
    let mut answer = String::new();
    io::stderr()
        .flush()
        .and_then(|()| io::stdin().read_line(&mut answer))
        .map_err(CliError::file(Path::new("stdin"), "cannot read"))?;
    Ok(matches!(answer.trim(), "y" | "Y" | "yes"))
}
