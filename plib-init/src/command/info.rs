//! `plib info`

use std::ffi::OsString;
use std::fs;
use std::io::{self, Write};

use clap::Args;
use plib::Cache;
use serde::Serialize;

use crate::context::{Context, short_name};
use crate::error::{CliError, ExitKind};
use crate::output::Paint;
use crate::{owner, size, table, when};

const EXAMPLES: &str = "\
Examples:
  plib info demo
  plib info --json demo";

/// The arguments of `plib info`.
#[derive(Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct InfoArgs {
    /// The heap, instead of --heap
    name: Option<OsString>,
}

/// What a heap is.
#[derive(Serialize)]
pub(crate) struct Info {
    name: String,
    path: String,
    lock_file: Option<String>,
    size: u64,
    item_size_max: u32,
    superblocks: u32,
    contexts: u32,
    clients: u32,
    created: u64,
    mode: String,
    owner: String,
    pages: String,
    isolation: String,
    readable: bool,
    items: u64,
}

impl Info {
    /// Asks an open heap and its file.
    pub(crate) fn of(cache: &Cache) -> Result<Self, CliError> {
        let info = cache.info();
        let file = fs::metadata(&info.path).map_err(CliError::file(&info.path, "cannot look at it"))?;
        Ok(Self {
            name: short_name(&info.path),
            path: info.path.display().to_string(),
            lock_file: info.lock_file.map(|path| path.display().to_string()),
            size: info.size,
            item_size_max: info.item_size_max,
            superblocks: info.superblocks,
            contexts: info.contexts,
            clients: info.clients,
            created: info.created,
            mode: owner::mode(&file),
            owner: owner::of(&file),
            pages: info.pages,
            isolation: format!("{:?}", cache.isolation()).to_lowercase(),
            readable: info.readable,
            items: cache.stats()?.curr_items,
        })
    }

    /// The name by which it is opened.
    pub(crate) fn name(&self) -> &str {
        &self.name
    }
}

/// Shows it to people.
pub(crate) fn write(w: &mut dyn Write, paint: Paint, info: &Info) -> io::Result<()> {
    let item_size_max = u64::from(info.item_size_max);
    table::pairs(
        w,
        paint,
        &[
            ("path", info.path.clone()),
            ("lock file", info.lock_file.clone().unwrap_or_else(|| "none; the locks are in the heap's own".into())),
            ("size", format!("{} ({} superblocks of 64 KiB)", size::format(info.size), info.superblocks)),
            ("items", info.items.to_string()),
            ("item_size_max", size::format(item_size_max)),
            ("op contexts", info.contexts.to_string()),
            ("clients", format!("at most {}", info.clients)),
            ("mode", format!("{} {}", info.mode, info.owner)),
            ("created", when::utc(info.created)),
            ("pages", info.pages.clone()),
            ("isolation", info.isolation.clone()),
            ("readable", if info.readable { "yes" } else { "no" }.into()),
        ],
    )
}

/// Opens the heap and shows what it is.
pub(crate) fn run(context: &Context, args: &InfoArgs) -> Result<ExitKind, CliError> {
    let info = Info::of(&Cache::open(context.heap_or(args.name.as_deref())?)?)?;
    context.output.answer(&info, |w, paint| write(w, paint, &info))?;
    Ok(ExitKind::Done)
}
