//! `plib load`

use std::fs::File;
use std::io::{self, BufReader, Read};
use std::path::PathBuf;

use clap::Args;
use plib::{Cache, Status};
use serde::Serialize;

use crate::archive::{ArchiveError, Reader, Record};
use crate::context::Context;
use crate::error::{CliError, ExitKind};
use crate::progress::{self, Unit};
use crate::when;

const EXAMPLES: &str = "\
Examples:
  plib load backup.plib
  zstd -dc backup.plib.zst | plib load -
  plib load --keep-existing backup.plib

Each record is checked before it is stored. A truncated or damaged dump is named with the offset (exit code 5); what was
loaded before it stays. Expired items are skipped, flags and expiry are kept, cas values are new.
Items larger than this heap's item_size_max are counted and left out (exit code 1).";

const BUFFER: usize = 1 << 20;

/// The arguments of `plib load`.
#[derive(Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct LoadArgs {
    /// The dump to read; `-` for stdin
    file: PathBuf,
    /// Leave items alone whose keys are already there
    #[arg(long)]
    keep_existing: bool,
}

/// What became of the records.
#[derive(Default, Serialize)]
struct Loaded {
    items: u64,
    expired: u64,
    existing: u64,
    too_large: u64,
}

/// Stores the items of a dump.
pub(crate) fn run(context: &Context, args: &LoadArgs) -> Result<ExitKind, CliError> {
    let cache = context.open()?;
    let mut loaded = Loaded::default();
    if args.file.as_os_str() == "-" {
        load(context, &cache, args, io::stdin().lock(), None, &mut loaded)?;
    } else {
        let file = File::open(&args.file).map_err(CliError::file(&args.file, "cannot open"))?;
        let len = file.metadata().ok().filter(|m| m.is_file()).map(|m| m.len());
        load(context, &cache, args, file, len, &mut loaded)?;
    }
    context.output.answer(&loaded, |w, paint| {
        writeln!(w, "loaded {} items", loaded.items)?;
        for (count, why) in [(loaded.expired, "had expired"), (loaded.existing, "were already there")] {
            if count > 0 {
                writeln!(w, "skipped {count} that {why}")?;
            }
        }
        if loaded.too_large > 0 {
            let limit = cache.info().item_size_max;
            writeln!(
                w,
                "{} {} larger than this heap's item_size_max of {limit} bytes",
                paint.bad("left out"),
                loaded.too_large
            )?;
        }
        Ok(())
    })?;
    Ok(if loaded.too_large == 0 { ExitKind::Done } else { ExitKind::No })
}

fn load(
    context: &Context,
    cache: &Cache,
    args: &LoadArgs,
    from: impl Read,
    len: Option<u64>,
    loaded: &mut Loaded,
) -> Result<(), CliError> {
    let name = args.file.display().to_string();
    let broken = |source: ArchiveError, loaded: u64| CliError::Dump { from: name.clone(), source, loaded };
    let bar = progress::bar("load", Unit::Bytes, len, context.output.json);
    let mut reader = Reader::start(BufReader::with_capacity(BUFFER, from)).map_err(|e| broken(e, 0))?;
    while let Some(record) = reader.next_record().map_err(|e| broken(e, loaded.items))? {
        store(cache, &record, args.keep_existing, loaded)?;
        bar.set_position(reader.offset());
    }
    bar.finish_and_clear();
    Ok(())
}

fn store(cache: &Cache, record: &Record, keep_existing: bool, loaded: &mut Loaded) -> Result<(), CliError> {
    if record.expiry != 0 && u64::from(record.expiry) <= when::now() {
        loaded.expired += 1;
        return Ok(());
    }
    // A Unix time of an item that lives is far beyond 30 days, so that it is taken as the moment that it is.
    let exptime = i64::from(record.expiry);
    let put = if keep_existing { Cache::add } else { Cache::set };
    match put(cache, &record.key, &record.value, record.flags, exptime) {
        Ok(_) => loaded.items += 1,
        Err(e) if e.status() == Status::NotStored => loaded.existing += 1,
        Err(e) if e.status() == Status::TooLarge => loaded.too_large += 1,
        Err(e) => return Err(e.into()),
    }
    Ok(())
}
