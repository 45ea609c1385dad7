//! What every command needs: which heap, and how to answer.

use std::ffi::{OsStr, OsString};
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use clap::Args;
use plib::Cache;

use crate::cli::Common;
use crate::error::CliError;
use crate::output::Output;

/// The environment of one command.
pub(crate) struct Context {
    heap: Option<OsString>,
    pub(crate) output: Output,
}

impl Context {
    pub(crate) fn new(common: Common) -> Self {
        Self { heap: common.heap, output: Output::new(common.json) }
    }

    /// The heap that `--heap` or PLIB_HEAP names.
    pub(crate) fn heap(&self) -> Result<&OsStr, CliError> {
        let named = self.heap.as_deref().filter(|name| !name.is_empty());
        named.ok_or_else(|| CliError::NoHeapNamed { hint: heaps_here() })
    }

    /// The heap that the command's own argument names, or else that of `--heap`.
    pub(crate) fn heap_or<'a>(&'a self, argument: Option<&'a OsStr>) -> Result<&'a OsStr, CliError> {
        argument.map_or_else(|| self.heap(), Ok)
    }

    /// Opens the heap that `--heap` or PLIB_HEAP names.
    pub(crate) fn open(&self) -> Result<Cache, CliError> {
        Ok(Cache::open(self.heap()?)?)
    }
}

/// The names of the heaps in PLIB_DIR, for the message that asks for one.
fn heaps_here() -> String {
    let names: Vec<String> = Cache::list().unwrap_or_default().iter().map(|path| short_name(path)).collect();
    if names.is_empty() {
        "there is none yet; `plib create NAME --size 1g` makes one".into()
    } else {
        format!("there are: {}", names.join(", "))
    }
}

/// The name by which a heap in PLIB_DIR is opened; its path if it is elsewhere.
pub(crate) fn short_name(path: &Path) -> String {
    let name = path.file_name().filter(|name| Cache::path_of(name) == path);
    name.map_or_else(|| path.display().to_string(), |name| name.to_string_lossy().into_owned())
}

/// How keys are written.
#[derive(Args, Clone, Copy)]
pub(crate) struct KeyForm {
    /// Keys are given as hex digits, two a byte
    #[arg(long)]
    pub(crate) hex: bool,
}

/// Where a value comes from.
#[derive(Args)]
#[group(required = true, multiple = false)]
pub(crate) struct ValueSource {
    /// The value; `-` reads it from stdin
    #[arg(allow_negative_numbers = true)]
    value: Option<OsString>,
    /// Read the value from a file
    #[arg(short, long, value_name = "PATH")]
    file: Option<PathBuf>,
}

impl ValueSource {
    /// The bytes, at most as many as an item of this heap may have.
    pub(crate) fn read(&self, cache: &Cache) -> Result<Vec<u8>, CliError> {
        use std::os::unix::ffi::OsStrExt;
        let limit = u64::from(cache.info().item_size_max);
        match (&self.file, self.value.as_deref()) {
            (Some(path), _) => {
                let file = std::fs::File::open(path).map_err(CliError::file(path, "cannot open"))?;
                read_limited(file, path, limit)
            }
            (None, Some(value)) if value == "-" => read_limited(io::stdin().lock(), Path::new("stdin"), limit),
            (None, value) => Ok(value.unwrap_or_default().as_bytes().to_vec()),
        }
    }
}

/// Reads to the end, but never more than `limit` bytes into memory.
fn read_limited(source: impl Read, path: &Path, limit: u64) -> Result<Vec<u8>, CliError> {
    let mut value = Vec::new();
    source.take(limit + 1).read_to_end(&mut value).map_err(CliError::file(path, "cannot read"))?;
    if value.len() as u64 > limit {
        return Err(CliError::ValueTooLarge { from: path.display().to_string(), limit });
    }
    Ok(value)
}
