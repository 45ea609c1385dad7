//! `plib mget`

use std::ffi::OsString;

use clap::Args;
use plib::Item;
use serde::Serialize;

use super::get::ItemDocument;
use crate::bytes::{self, Encoded};
use crate::context::{Context, KeyForm};
use crate::error::{CliError, ExitKind};

const EXAMPLES: &str = "\
Examples:
  plib mget user:1 user:2 user:3
  plib mget --json user:1 user:2 | jq '.items[].cas'

One line an item: the key, a tab, the value, both escaped. Keys without an item are named on stderr.
Exit code 1: at least one was not found.";

/// The arguments of `plib mget`.
#[derive(Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct MgetArgs {
    /// The keys, 1 to 250 bytes each
    #[arg(required = true)]
    keys: Vec<OsString>,
    #[command(flatten)]
    form: KeyForm,
}

#[derive(Serialize)]
struct Found {
    items: Vec<ItemDocument>,
    missing: Vec<Encoded>,
}

impl Found {
    fn new(keys: &[Vec<u8>], items: &[Option<Item>]) -> Self {
        let pairs = || keys.iter().zip(items);
        Self {
            items: pairs().filter_map(|(key, item)| Some(ItemDocument::new(key, item.as_ref()?))).collect(),
            missing: pairs().filter(|(_, item)| item.is_none()).map(|(key, _)| key.as_slice().into()).collect(),
        }
    }
}

/// Gets all items in one batch.
pub(crate) fn run(context: &Context, args: &MgetArgs) -> Result<ExitKind, CliError> {
    let keys: Vec<Vec<u8>> = args.keys.iter().map(|key| bytes::key(key, args.form.hex)).collect::<Result<_, _>>()?;
    let items = context.open()?.get_many(&keys)?;
    context.output.answer(&Found::new(&keys, &items), |w, _| {
        for (key, item) in keys.iter().zip(&items) {
            match item {
                Some(item) => writeln!(w, "{}\t{}", bytes::escape(key), bytes::escape(&item.value))?,
                None => eprintln!("plib: no item has the key '{}'", bytes::escape(key)),
            }
        }
        Ok(())
    })?;
    Ok(if items.iter().all(Option::is_some) { ExitKind::Done } else { ExitKind::No })
}
