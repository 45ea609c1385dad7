//! `plib create`

use std::ffi::OsString;

use clap::Args;
use plib::{Cache, CreateOptions};

use super::doctor::limits;
use super::info::{self, Info};
use crate::context::Context;
use crate::error::{CliError, ExitKind};
use crate::size;

const EXAMPLES: &str = "\
Examples:
  plib create demo --size 1g
  plib create big --size 64g --item-size-max 8m --huge
  plib create shared --size 512m --mode 0660 --group plib
  plib create fast --size 1g --readable
  plib create /dev/shm/mine.heap --size 64m

All of the space is reserved at once: where it is not to be had, nothing is made.
A heap that root makes for itself alone (mode 0600) gets a file NAME.lock beside it, which tells whether its clients live.
It belongs to the heap: it has to be there, and to be moved with it.";

/// The arguments of `plib create`.
#[derive(Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct CreateArgs {
    /// Name of the new heap, or a path if it contains '/'
    name: OsString,
    /// Bytes of the whole heap
    #[arg(short, long, value_parser = size::parse)]
    size: u64,
    /// Largest item (32 bytes, key and value); at most 128m and a quarter of the heap [default: 1m]
    #[arg(long, value_name = "SIZE", value_parser = size::parse_u32)]
    item_size_max: Option<u32>,
    /// Op contexts, the number of threads that may be in an operation at once [default: by size]
    #[arg(long, value_name = "N")]
    contexts: Option<u32>,
    /// Permissions of the file, octal: who may read and write it may use the heap [default: 0600, with --group 0660]
    #[arg(long, value_parser = parse_mode)]
    mode: Option<u32>,
    /// Group of the file, by name or number
    #[arg(long)]
    group: Option<String>,
    /// Use 2 MiB pages where the system gives them
    #[arg(long)]
    huge: bool,
    /// Let programs read it without a gate where it is guarded: get is then as fast as unguarded, and they may read all of it
    #[arg(long)]
    readable: bool,
}

fn parse_mode(text: &str) -> Result<u32, String> {
    let octal = text.strip_prefix("0o").unwrap_or(text);
    let mode = u32::from_str_radix(octal, 8).ok().filter(|mode| *mode <= 0o777);
    mode.ok_or_else(|| "a mode is three octal digits, as 0660 or 600".into())
}

/// Makes the heap and says what it became.
pub(crate) fn run(context: &Context, args: &CreateArgs) -> Result<ExitKind, CliError> {
    if let Some(limit) = limits::file_size().filter(|limit| *limit < args.size) {
        return Err(CliError::FileSizeLimit { size: args.size, limit });
    }
    let default_mode = if args.group.is_some() { 0o660 } else { 0o600 };
    let mode = args.mode.unwrap_or(default_mode);
    let mut options = CreateOptions::new(args.size).mode(mode).huge(args.huge).readable(args.readable);
    if let Some(item_size_max) = args.item_size_max {
        options = options.item_size_max(item_size_max);
    }
    if let Some(contexts) = args.contexts {
        options = options.contexts(contexts);
    }
    if let Some(group) = &args.group {
        options = options.group(group.clone());
    }
    let info = Info::of(&Cache::create(&args.name, &options)?)?;
    context.output.answer(&info, |w, paint| {
        writeln!(w, "{} {}", paint.good("created"), info.name())?;
        info::write(w, paint, &info)
    })?;
    Ok(ExitKind::Done)
}

#[cfg(test)]
mod tests {
    use super::parse_mode;

    #[test]
    fn modes_are_octal() {
        assert_eq!(parse_mode("0660"), Ok(0o660));
        assert_eq!(parse_mode("600"), Ok(0o600));
        assert_eq!(parse_mode("0o644"), Ok(0o644));
        for bad in ["", "888", "rw", "1777", "-1"] {
            assert!(parse_mode(bad).is_err(), "{bad}");
        }
    }
}
