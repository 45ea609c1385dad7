//! `plib delete`

use std::ffi::OsString;

use clap::Args;
use serde::Serialize;

use crate::bytes::{self, Encoded};
use crate::context::{Context, KeyForm};
use crate::error::{CliError, ExitKind};

const EXAMPLES: &str = "\
Examples:
  plib delete greeting
  plib delete user:1 user:2 user:3
  plib delete greeting --cas 42        (only if it is still that item)

Keys without an item are named on stderr. Exit code 1: at least one was not found, or was changed since.";

/// The arguments of `plib delete`.
#[derive(Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct DeleteArgs {
    /// The keys, 1 to 250 bytes each
    #[arg(required = true)]
    keys: Vec<OsString>,
    /// Delete only if the item still has this cas value; one key only
    #[arg(long)]
    cas: Option<u64>,
    #[command(flatten)]
    form: KeyForm,
}

#[derive(Serialize)]
struct Deleted {
    deleted: Vec<Encoded>,
    missing: Vec<Encoded>,
}

impl Deleted {
    fn new(keys: &[Vec<u8>], found: &[bool]) -> Self {
        let of = |wanted: bool| keys.iter().zip(found).filter(move |(_, found)| **found == wanted);
        let encode = |(key, _): (&Vec<u8>, &bool)| Encoded::from(key.as_slice());
        Self { deleted: of(true).map(encode).collect(), missing: of(false).map(encode).collect() }
    }
}

/// Deletes all items in one batch, or one under a condition.
pub(crate) fn run(context: &Context, args: &DeleteArgs) -> Result<ExitKind, CliError> {
    let keys: Vec<Vec<u8>> = args.keys.iter().map(|key| bytes::key(key, args.form.hex)).collect::<Result<_, _>>()?;
    let found = match (args.cas, keys.as_slice()) {
        (None, keys) => context.open()?.delete_many(keys)?,
        (Some(cas), [key]) => vec![context.open()?.delete_if(key, cas)?],
        (Some(_), _) => return Err(CliError::Usage("--cas goes with exactly one key".into())),
    };
    let document = Deleted::new(&keys, &found);
    context.output.answer(&document, |w, paint| {
        let missing = keys.iter().zip(&found).filter(|(_, found)| !**found);
        missing.for_each(|(key, _)| eprintln!("plib: no item has the key '{}'", bytes::escape(key)));
        writeln!(w, "{} {}", paint.good("deleted"), document.deleted.len())
    })?;
    Ok(if document.missing.is_empty() { ExitKind::Done } else { ExitKind::No })
}
