//! What can go wrong in the command, how it is shown, and the exit codes.

use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use serde::Serialize;

use crate::archive::ArchiveError;
use crate::bytes;
use crate::run::error::{self, RunError};

/// How the command ended; the numbers are the process's exit codes.
#[repr(u8)]
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ExitKind {
    /// Done.
    Done = 0,
    /// The answer is no: not found, not stored, changed by someone else, or a check has findings.
    No = 1,
    /// The arguments are wrong: unknown option, bad size, key of a wrong length.
    Usage = 2,
    /// The heap cannot be opened: there is none, no permission, not a heap, another layout, damaged.
    NoHeap = 3,
    /// Anything else: no space, value too large or not a number, busy, an error of the operating system.
    Other = 4,
    /// The file given to `plib load` is truncated or damaged.
    BadDump = 5,
    /// `plib run` could not start a program.
    NotRun = error::FAILED,
    /// The program of `plib run` cannot be executed.
    NotExecuted = error::NOT_STARTED,
    /// There is no such program.
    NoProgram = error::NOT_FOUND,
    /// The program that read our output went away (as a shell shows for SIGPIPE).
    BrokenPipe = 141,
}

impl From<ExitKind> for ExitCode {
    fn from(kind: ExitKind) -> Self {
        ExitCode::from(kind as u8)
    }
}

/// An error of the command.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CliError {
    /// The library refused.
    #[error(transparent)]
    Plib(#[from] plib::Error),
    /// No live item has this key.
    #[error("no item has the key '{}'", bytes::escape(.key))]
    NotFound { key: Vec<u8> },
    /// An argument that clap could not judge.
    #[error("{0}")]
    Usage(String),
    /// No heap was named.
    #[error("which heap? Give --heap NAME, or set PLIB_HEAP ({hint})")]
    NoHeapNamed { hint: String },
    /// More bytes were given than an item of this heap may have.
    #[error(
        "{from}: the value has more than {limit} bytes, the heap's item_size_max; create the heap with a larger --item-size-max"
    )]
    ValueTooLarge { from: String, limit: u64 },
    /// This process may not make a file as large as the heap.
    #[error(
        "the heap needs a file of {size} bytes, and this process may make files of {limit} only; raise the limit \
         (`ulimit -f unlimited`)"
    )]
    FileSizeLimit { size: u64, limit: u64 },
    /// A file could not be read or written.
    #[error("{}: {action}: {source}", .path.display())]
    File { path: PathBuf, action: &'static str, source: io::Error },
    /// A dump cannot be read further.
    #[error("{from}: {source}; {loaded} items before it were loaded and stay")]
    Dump { from: String, source: ArchiveError, loaded: u64 },
    /// Our own output could not be written.
    #[error("cannot write the output: {0}")]
    Output(io::Error),
    /// `plib run` started no program.
    #[error(transparent)]
    Run(#[from] RunError),
    /// Something that a demo needs went wrong.
    #[error("demo: {0}")]
    Demo(String),
}

impl CliError {
    /// An error of reading or writing `path`.
    pub(crate) fn file(path: &Path, action: &'static str) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_owned();
        move |source| Self::File { path, action, source }
    }

    /// The name that `--json` gives to the error; for errors of the library the name of its status.
    fn status(&self) -> String {
        match self {
            Self::Plib(e) => upper_snake(&format!("{:?}", e.status())),
            Self::NotFound { .. } => "NOT_FOUND".into(),
            Self::Usage(_) | Self::NoHeapNamed { .. } => "USAGE".into(),
            Self::ValueTooLarge { .. } => "TOO_LARGE".into(),
            Self::FileSizeLimit { .. } => "NO_SPACE".into(),
            Self::Run(RunError::Plib(e)) => upper_snake(&format!("{:?}", e.status())),
            Self::Run(RunError::Refused { .. }) => "REFUSED".into(),
            Self::Run(RunError::Program { .. }) => "PROGRAM".into(),
            Self::File { .. } | Self::Output(_) | Self::Demo(_) | Self::Run(_) => "IO".into(),
            Self::Dump { source, .. } => source.status().into(),
        }
    }

    /// The exit code.
    pub(crate) fn exit(&self) -> ExitKind {
        match self {
            Self::Plib(e) => exit_of_status(e.status()),
            Self::NotFound { .. } => ExitKind::No,
            Self::Usage(_) | Self::NoHeapNamed { .. } => ExitKind::Usage,
            Self::Run(e) => match e.exit() {
                error::NOT_STARTED => ExitKind::NotExecuted,
                error::NOT_FOUND => ExitKind::NoProgram,
                _ => ExitKind::NotRun,
            },
            Self::Output(e) if e.kind() == io::ErrorKind::BrokenPipe => ExitKind::BrokenPipe,
            Self::Dump { source: ArchiveError::Read { .. }, .. } => ExitKind::Other,
            Self::Dump { .. } => ExitKind::BadDump,
            Self::ValueTooLarge { .. }
            | Self::FileSizeLimit { .. }
            | Self::File { .. }
            | Self::Output(_)
            | Self::Demo(_) => ExitKind::Other,
        }
    }
}

/// The exit code for a status of the library.
fn exit_of_status(status: plib::Status) -> ExitKind {
    use plib::Status as S;
    match status {
        S::Ok => ExitKind::Done,
        S::NotFound | S::NotStored | S::Exists => ExitKind::No,
        S::Key | S::Invalid => ExitKind::Usage,
        S::NoHeap | S::Permission | S::NotAHeap | S::Layout | S::Damaged | S::Dirty | S::Isolation => ExitKind::NoHeap,
        _ => ExitKind::Other,
    }
}

/// `NotAHeap` becomes `NOT_A_HEAP`, the name that `plib.h` has after `PLIB_E_`.
pub(crate) fn upper_snake(camel: &str) -> String {
    let mut out = String::new();
    for (i, c) in camel.chars().enumerate() {
        if c.is_ascii_uppercase() && i > 0 {
            out.push('_');
        }
        out.push(c.to_ascii_uppercase());
    }
    out
}

#[derive(Serialize)]
struct ErrorDocument {
    error: ErrorBody,
}

#[derive(Serialize)]
struct ErrorBody {
    status: String,
    exit: u8,
    message: String,
}

fn print_json(status: String, exit: ExitKind, message: String) {
    let document = ErrorDocument { error: ErrorBody { status, exit: exit as u8, message } };
    // A document of strings and a number always has a JSON form.
    say(&serde_json::to_string(&document).unwrap_or_default());
}

/// A line on stderr. Nobody is there to be told if that fails, and it is no reason to abort.
fn say(line: &str) {
    let _ = writeln!(std::io::stderr(), "{line}");
}

/// Shows the error and gives the exit code.
pub(crate) fn report(error: &CliError, json: bool) -> ExitCode {
    let exit = error.exit();
    if exit == ExitKind::BrokenPipe {
        return exit.into();
    }
    if json {
        print_json(error.status(), exit, error.to_string());
    } else {
        say(&format!("plib: {error}"));
    }
    exit.into()
}

/// Shows what clap says: help and version on stdout with code 0, a refusal on stderr with code 2.
pub(crate) fn report_refused_arguments(refused: &clap::Error, json: bool) -> ExitCode {
    if !refused.use_stderr() {
        return match refused.print() {
            Ok(()) => ExitKind::Done.into(),
            Err(_) => ExitKind::BrokenPipe.into(),
        };
    }
    if json {
        let text = refused.to_string();
        let message = text.strip_prefix("error: ").unwrap_or(&text).trim_end().to_owned();
        print_json("USAGE".into(), ExitKind::Usage, message);
    } else {
        // Nothing can be done when stderr is gone.
        let _ = refused.print();
    }
    ExitKind::Usage.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn status_names_are_those_of_the_c_header() {
        assert_eq!(upper_snake("NotAHeap"), "NOT_A_HEAP");
        assert_eq!(upper_snake("Busy"), "BUSY");
        assert_eq!(upper_snake("NoHeap"), "NO_HEAP");
    }
}
