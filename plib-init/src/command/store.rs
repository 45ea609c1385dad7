//! `plib set`, `add`, `replace`, `append`, `prepend` and `cas`: one way in for a value, six conditions.

use std::ffi::OsString;

use clap::Args;
use plib::Cache;
use serde::Serialize;

use crate::bytes::{self, Encoded};
use crate::context::{Context, KeyForm, ValueSource};
use crate::error::{CliError, ExitKind};
use crate::exptime;

const SET_EXAMPLES: &str = "\
Examples:
  plib set greeting hello
  plib set page --file index.html --exptime 10m
  curl -s https://example.org | plib set page -
  plib set counter 0 --flags 5
  plib set --hex 00ff10 value
  plib set key -- -starts-with-a-dash";
const ADD_EXAMPLES: &str = "\
Examples:
  plib add lock:job-7 $$ --exptime 30s

Exit code 1: the key exists, nothing was changed.";
const REPLACE_EXAMPLES: &str = "\
Examples:
  plib replace greeting 'good evening'

Exit code 1: no such item, nothing was stored.";
const APPEND_EXAMPLES: &str = "\
Examples:
  plib append log ' and more'
  plib append log --file more.txt

Flags and expiry stay. Exit code 1: no such item.";
const PREPEND_EXAMPLES: &str = "\
Examples:
  plib prepend log 'before: '

Flags and expiry stay. Exit code 1: no such item.";
const CAS_EXAMPLES: &str = "\
Examples:
  cas=$(plib get --json greeting | jq .cas)
  plib cas greeting $cas 'changed by me alone'

Exit code 1: the item has been changed since (status EXISTS) or is gone (NOT_FOUND).";

/// The key of a store.
#[derive(Args)]
pub(crate) struct Key {
    /// The key, 1 to 250 bytes
    key: OsString,
    #[command(flatten)]
    form: KeyForm,
}

/// What an item carries besides its value.
#[derive(Args)]
pub(crate) struct Attributes {
    /// A number that the cache keeps with the item
    #[arg(long, default_value_t = 0)]
    flags: u32,
    /// Expiry: seconds, `never`, or a span as 10m
    #[arg(short, long, default_value = "never", value_parser = exptime::parse, allow_negative_numbers = true)]
    exptime: i64,
}

macro_rules! store_arguments {
    ($name:ident, $examples:ident, $usage:literal, $doc:literal $(, $field:ident : $type:ty)?) => {
        #[doc = $doc]
        #[derive(Args)]
        #[command(after_help = $examples, override_usage = $usage)]
        pub(crate) struct $name {
            #[command(flatten)]
            key: Key,
            #[command(flatten)]
            value: ValueSource,
            $(#[command(flatten)] $field: $type,)?
        }
    };
}

store_arguments!(SetArgs, SET_EXAMPLES, "plib set [OPTIONS] <KEY> <VALUE | - | --file PATH>", "The arguments of `plib set`.", attributes: Attributes);
store_arguments!(AddArgs, ADD_EXAMPLES, "plib add [OPTIONS] <KEY> <VALUE | - | --file PATH>", "The arguments of `plib add`.", attributes: Attributes);
store_arguments!(ReplaceArgs, REPLACE_EXAMPLES, "plib replace [OPTIONS] <KEY> <VALUE | - | --file PATH>", "The arguments of `plib replace`.", attributes: Attributes);
store_arguments!(
    AppendArgs,
    APPEND_EXAMPLES,
    "plib append [OPTIONS] <KEY> <VALUE | - | --file PATH>",
    "The arguments of `plib append`."
);
store_arguments!(
    PrependArgs,
    PREPEND_EXAMPLES,
    "plib prepend [OPTIONS] <KEY> <VALUE | - | --file PATH>",
    "The arguments of `plib prepend`."
);

/// The arguments of `plib cas`.
#[derive(Args)]
#[command(after_help = CAS_EXAMPLES, override_usage = "plib cas [OPTIONS] <KEY> <CAS> <VALUE | - | --file PATH>")]
pub(crate) struct CasArgs {
    #[command(flatten)]
    key: Key,
    /// The cas value that the item must still have
    cas: u64,
    #[command(flatten)]
    value: ValueSource,
    #[command(flatten)]
    attributes: Attributes,
}

#[derive(Serialize)]
struct Stored {
    key: Encoded,
    size: usize,
    cas: u64,
}

/// Reads the value, stores it, and shows the new cas value.
fn store(
    context: &Context,
    key: &Key,
    value: &ValueSource,
    put: impl FnOnce(&Cache, &[u8], &[u8]) -> Result<u64, plib::Error>,
) -> Result<ExitKind, CliError> {
    let key = bytes::key(&key.key, key.form.hex)?;
    let cache = context.open()?;
    let value = value.read(&cache)?;
    let cas = put(&cache, &key, &value)?;
    let stored = Stored { key: key.as_slice().into(), size: value.len(), cas };
    context
        .output
        .answer(&stored, |w, paint| writeln!(w, "{} {} bytes (cas {cas})", paint.good("stored"), value.len()))?;
    Ok(ExitKind::Done)
}

pub(crate) fn run_set(context: &Context, args: &SetArgs) -> Result<ExitKind, CliError> {
    let Attributes { flags, exptime } = args.attributes;
    store(context, &args.key, &args.value, |cache, key, value| cache.set(key, value, flags, exptime))
}

pub(crate) fn run_add(context: &Context, args: &AddArgs) -> Result<ExitKind, CliError> {
    let Attributes { flags, exptime } = args.attributes;
    store(context, &args.key, &args.value, |cache, key, value| cache.add(key, value, flags, exptime))
}

pub(crate) fn run_replace(context: &Context, args: &ReplaceArgs) -> Result<ExitKind, CliError> {
    let Attributes { flags, exptime } = args.attributes;
    store(context, &args.key, &args.value, |cache, key, value| cache.replace(key, value, flags, exptime))
}

pub(crate) fn run_append(context: &Context, args: &AppendArgs) -> Result<ExitKind, CliError> {
    store(context, &args.key, &args.value, Cache::append)
}

pub(crate) fn run_prepend(context: &Context, args: &PrependArgs) -> Result<ExitKind, CliError> {
    store(context, &args.key, &args.value, Cache::prepend)
}

pub(crate) fn run_cas(context: &Context, args: &CasArgs) -> Result<ExitKind, CliError> {
    let Attributes { flags, exptime } = args.attributes;
    store(context, &args.key, &args.value, |cache, key, value| {
        cache.compare_and_swap(key, value, flags, exptime, args.cas)
    })
}
