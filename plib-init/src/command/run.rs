//! `plib run`

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;

use clap::Args;
use clap::builder::{OsStringValueParser, TypedValueParser};
use plib::Cache;

use crate::context::Context;
use crate::error::{CliError, ExitKind, report};
use crate::run::caller::Caller;
use crate::run::error::RunError;
use crate::run::heap_file::HeapFile;
use crate::run::identity::Identity;
use crate::run::inject::{Injection, check_machine};
use crate::run::launch;
use crate::run::program::Program;
use crate::run::remote::Remote;

const EXAMPLES: &str = "\
Examples:
  plib create sessions --size 1g                   as root: mode 0600, so that only `plib run` can give it to a program
  plib run --heap sessions -- ./server --port 80   as a user, where plib is installed set-uid
  plib run --user www --heap sessions --heap pages -- ./server
  plib run --heap sessions --env LD_PRELOAD=./libx.so -- ./server

The program opens the heaps by their names as always; it can neither open nor map their files. It keeps the process id, the
arguments, the environment, the limits and the terminal of `plib run`, and `plib run` ends as it ends. A program that it executes in
turn has the heaps no longer: write `plib run -- prog`, not `plib run -- env X=1 prog` (there is --env), nor a script whose first line
names `env`.
docs/launcher.md says what this protects against, and what it does not.

Exit codes: the program's; or 125: plib run could not do it; 126: the program cannot be executed; 127: there is no such program.";

/// The arguments of `plib run`.
#[derive(Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct RunArgs {
    /// A heap that the program is given; more than once for several. Of a user other than root a name, which is looked up in
    /// /dev/shm/plib whatever PLIB_DIR says
    #[arg(id = "heap", short = 'H', long = "heap", env = "PLIB_HEAP", hide_env_values = true, value_name = "NAME")]
    heaps: Vec<OsString>,
    /// Whom the program runs as: a name or number. For root, who must say it; others run it as themselves
    #[arg(long, value_name = "USER")]
    user: Option<OsString>,
    /// A variable in the program's environment; more than once for several. (LD_PRELOAD and the like do not come through a set-uid plib
    /// otherwise.)
    #[arg(long, value_name = "NAME=VALUE", value_parser = OsStringValueParser::new().try_map(variable))]
    env: Vec<(OsString, OsString)>,
    /// The program, searched in PATH as always, and its arguments
    #[arg(last = true, required = true, value_name = "PROGRAM")]
    command: Vec<OsString>,
}

fn variable(text: OsString) -> Result<(OsString, OsString), String> {
    let bytes = text.as_bytes();
    match bytes.iter().position(|byte| *byte == b'=') {
        Some(at @ 1..) => Ok((OsStr::from_bytes(&bytes[..at]).into(), OsStr::from_bytes(&bytes[at + 1..]).into())),
        _ => Err("give NAME=VALUE".into()),
    }
}

/// Becomes the program. Returns only if that fails.
pub(crate) fn run(context: &Context, args: RunArgs, caller: &Caller) -> Result<ExitKind, CliError> {
    let identity = identity(&args, caller)?;
    let paths = paths(context, &args, caller)?;
    caller.rise()?;
    check_machine()?;
    let files: Vec<HeapFile> = paths.iter().map(|path| HeapFile::open(path)).collect::<Result<_, _>>()?;
    let injection = Injection::new(&files)?;
    let program = Program { command: args.command, environment: args.env };
    let json = context.output.json;
    let tell = |e: RunError| {
        report(&e.into(), json);
    };
    let work = move |remote: &mut Remote| {
        // Held until the program's own have been compared with them: else a number of a file could become another's.
        let _held = &files;
        injection.inject(remote)
    };
    Err(launch::launch(caller, &identity, &program, work, tell).into())
}

fn identity(args: &RunArgs, caller: &Caller) -> Result<Identity, RunError> {
    match (&args.user, caller.is_root()) {
        (Some(user), true) => Identity::of_user(user),
        (None, false) => Ok(Identity::of_caller(caller)),
        (Some(_), false) => {
            Err(RunError::refused("--user", "is for root", "leave it out: the program runs as the user who starts it"))
        }
        (None, true) => {
            let why = "would run the program as root, who can open the heap himself";
            Err(RunError::refused("plib run", why, "say whom it is to run as: --user NAME"))
        }
    }
}

/// Where the heaps are. A user other than root has no say in that.
fn paths(context: &Context, args: &RunArgs, caller: &Caller) -> Result<Vec<PathBuf>, CliError> {
    let named: Vec<&OsStr> = args.heaps.iter().map(OsString::as_os_str).filter(|name| !name.is_empty()).collect();
    if named.is_empty() {
        // Says which there are.
        let named = context.heap()?;
        return Err(RunError::refused(named.to_string_lossy(), "is no heap that was named", "use --heap NAME").into());
    }
    let mut paths = Vec::new();
    for name in named {
        if name.as_bytes().contains(&b'/') && !caller.is_root() {
            let fix = "give the name of a heap in /dev/shm/plib; root may give paths";
            return Err(RunError::refused(name.to_string_lossy(), "is a path", fix).into());
        }
        let path = if caller.is_root() { Cache::path_of(name) } else { plib::launch::path_by_default(name) };
        let path = std::path::absolute(&path).map_err(CliError::file(&path, "cannot find"))?;
        if paths.contains(&path) {
            let shown = path.display().to_string();
            return Err(RunError::refused(shown, "is given twice", "give each heap once").into());
        }
        paths.push(path);
    }
    Ok(paths)
}
