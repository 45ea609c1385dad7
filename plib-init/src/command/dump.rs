//! `plib dump`

use std::fs::{self, File};
use std::io::{self, BufWriter, IsTerminal, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use clap::Args;
use plib::Cache;
use serde::Serialize;

use crate::archive::{Totals, Writer};
use crate::context::Context;
use crate::error::{CliError, ExitKind};
use crate::progress::{self, Unit};
use crate::{size, when};

const EXAMPLES: &str = "\
Examples:
  plib dump backup.plib
  plib dump - | zstd > backup.plib.zst
  plib --heap old dump - | plib --heap new load -

Other processes go on meanwhile; each item is saved whole. The file appears under its name when it is complete,
readable for you alone.
With `-` the dump goes to stdout and the summary to stderr.";

const BUFFER: usize = 1 << 20;

/// The arguments of `plib dump`.
#[derive(Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct DumpArgs {
    /// The file to write; `-` for stdout
    file: PathBuf,
}

#[derive(Serialize)]
struct Dumped {
    items: u64,
    bytes: u64,
    file: String,
}

/// Saves all items.
pub(crate) fn run(context: &Context, args: &DumpArgs) -> Result<ExitKind, CliError> {
    let to_stdout = args.file.as_os_str() == "-";
    if to_stdout && io::stdout().is_terminal() {
        return Err(CliError::Usage("a dump is binary: send it to a file or a program".into()));
    }
    let cache = context.open()?;
    let json = context.output.json;
    let totals = if to_stdout {
        copy(&cache, io::stdout().lock(), json, CliError::Output)?.1
    } else {
        to_file(&cache, &args.file, json)?
    };
    let document = Dumped { items: totals.items, bytes: totals.bytes, file: args.file.display().to_string() };
    let human = |w: &mut dyn Write, _| writeln!(w, "dumped {} items, {}", totals.items, size::format(totals.bytes));
    if to_stdout {
        context.output.answer_aside(&document, human)?
    } else {
        context.output.answer(&document, human)?
    }
    Ok(ExitKind::Done)
}

/// Writes beside the file and renames, so that a complete dump is never replaced by part of one.
fn to_file(cache: &Cache, path: &Path, json: bool) -> Result<Totals, CliError> {
    // A pipe or device cannot be replaced, only written.
    if path.metadata().is_ok_and(|m| !m.is_file()) {
        let file = File::options().write(true).open(path).map_err(CliError::file(path, "cannot open"))?;
        return Ok(copy(cache, file, json, CliError::file(path, "cannot write"))?.1);
    }
    let mut partial = path.as_os_str().to_owned();
    partial.push(format!(".partial-{}", std::process::id()));
    let partial = PathBuf::from(partial);
    let written = new_file(&partial).map_err(CliError::file(&partial, "cannot make the file")).and_then(|file| {
        let (file, totals) = copy(cache, file, json, CliError::file(path, "cannot write"))?;
        file.sync_all().map_err(CliError::file(path, "cannot write"))?;
        fs::rename(&partial, path).map_err(CliError::file(path, "cannot rename the finished dump to it"))?;
        Ok(totals)
    });
    if written.is_err() {
        // The error that is already there says more than one of the clean-up.
        let _ = fs::remove_file(&partial);
    }
    written
}

/// Readable for its owner alone: a heap's mode must not be undone by its dump.
fn new_file(path: &Path) -> io::Result<File> {
    File::options().write(true).create_new(true).mode(0o600).open(path)
}

fn copy<W: Write>(
    cache: &Cache,
    to: W,
    json: bool,
    refused: impl FnOnce(io::Error) -> CliError,
) -> Result<(W, Totals), CliError> {
    let bar = progress::bar("dump", Unit::Items, Some(cache.stats()?.curr_items), json);
    let item_size_max = cache.info().item_size_max;
    let mut heap_failed = None;
    let written = (|| {
        let mut writer = Writer::start(BufWriter::with_capacity(BUFFER, to), item_size_max, when::now())?;
        for entry in cache.scan() {
            match entry {
                Ok(e) => writer.item(&e.key, &e.value, e.flags, e.expiry)?,
                Err(e) => {
                    heap_failed = Some(e);
                    return Ok(None);
                }
            }
            bar.inc(1);
        }
        let (buffered, totals) = writer.finish()?;
        Ok(Some((buffered.into_inner()?, totals)))
    })();
    bar.finish_and_clear();
    match (written, heap_failed) {
        (_, Some(e)) => Err(e.into()),
        (Ok(Some(done)), None) => Ok(done),
        (Ok(None), None) => Err(CliError::Output(io::ErrorKind::Other.into())),
        (Err(e), None) => Err(refused(e)),
    }
}
