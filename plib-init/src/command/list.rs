//! `plib list`

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use clap::Args;
use plib::Cache;
use serde::Serialize;

use crate::context::{Context, short_name};
use crate::error::{CliError, ExitKind};
use crate::table::{Align, Table};
use crate::{owner, size};

const EXAMPLES: &str = "\
Examples:
  plib list
  PLIB_DIR=/mnt/huge plib list --json";

/// The arguments of `plib list`.
#[derive(Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct ListArgs {}

#[derive(Serialize)]
struct Row {
    name: String,
    path: String,
    size: u64,
    mode: String,
    owner: String,
}

#[derive(Serialize)]
struct List {
    heaps: Vec<Row>,
}

impl Row {
    /// None when the file went away since it was listed.
    fn of(path: &Path) -> Option<Self> {
        let file = fs::metadata(path).ok()?;
        Some(Self {
            name: short_name(path),
            path: path.display().to_string(),
            size: file.size(),
            mode: owner::mode(&file),
            owner: owner::of(&file),
        })
    }
}

/// Lists the heaps by their files, without attaching to them.
pub(crate) fn run(context: &Context, _: &ListArgs) -> Result<ExitKind, CliError> {
    let list = List { heaps: Cache::list()?.iter().filter_map(|path| Row::of(path)).collect() };
    context.output.answer(&list, |w, paint| {
        if list.heaps.is_empty() {
            return writeln!(w, "no heaps in {}", Cache::path_of("").components().as_path().display());
        }
        let mut table = Table::new(&[
            ("NAME", Align::Left),
            ("SIZE", Align::Right),
            ("MODE", Align::Left),
            ("OWNER", Align::Left),
            ("PATH", Align::Left),
        ]);
        for row in &list.heaps {
            table.row([
                row.name.clone(),
                size::format(row.size),
                row.mode.clone(),
                row.owner.clone(),
                row.path.clone(),
            ]);
        }
        table.write(w, paint)
    })?;
    Ok(ExitKind::Done)
}
