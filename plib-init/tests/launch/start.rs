//! `start [--user U] [--env K=V]... [--work KIND] -- PROGRAM ARGS`: a launch with work of the test's own.

use plib_init::run::caller::Caller;
use plib_init::run::error::RunError;
use plib_init::run::identity::Identity;
use plib_init::run::launch::launch;
use plib_init::run::program::Program;
use plib_init::run::remote::{Call, Remote, anonymous};
use std::ffi::OsString;
use std::process::ExitCode;
use std::time::Duration;

/// Where the work puts a page, and what it writes there.
pub const PLACE: u64 = 0x7ff0_0000;
pub const TEXT: &str = "put here before the program began";
/// A file that only root may read, which the work opens in the program.
pub const ROOTS_FILE: &str = "/etc/shadow";
/// How long the slow work takes.
pub const SLOW: Duration = Duration::from_millis(1500);

pub fn main(arguments: &[String]) -> ExitCode {
    let caller = Caller::begin().expect("look who started us");
    let (mut user, mut work, mut environment) = (None, "none".to_owned(), Vec::new());
    let mut arguments = arguments.iter();
    while let Some(argument) = arguments.next() {
        let mut value = || arguments.next().expect("a value").clone();
        match argument.as_str() {
            "--" => break,
            "--user" => user = Some(value()),
            "--work" => work = value(),
            "--env" => {
                let pair = value();
                let (name, value) = pair.split_once('=').expect("K=V");
                environment.push((name.into(), value.into()));
            }
            // Not a launch: whether root can be had again.
            "--give-up" => {
                caller.give_up().expect("give up");
                // SAFETY: takes a number.
                return ExitCode::from(u8::from(unsafe { libc::seteuid(0) } == 0));
            }
            other => panic!("{other}?"),
        }
    }
    let identity = match user {
        Some(name) => Identity::of_user(name.as_ref()).expect("a user"),
        None => Identity::of_caller(&caller),
    };
    let program = Program { command: arguments.map(OsString::from).collect(), environment };
    let tell = |e: RunError| eprintln!("start: {e}");
    let error = launch(&caller, &identity, &program, |remote| do_work(&work, remote), tell);
    let code = error.exit();
    tell(error);
    ExitCode::from(code)
}

fn do_work(kind: &str, remote: &mut Remote) -> Result<(), RunError> {
    match kind {
        "none" => Ok(()),
        "page" => put_page(remote),
        "open" => {
            let file = open(remote, ROOTS_FILE)?;
            remote.call(Call { number: libc::SYS_close, name: "close" }, [file, 0, 0, 0, 0, 0]).map(drop)
        }
        // The descriptor stays: the program must not be attacked meanwhile.
        "slow" => {
            open(remote, ROOTS_FILE)?;
            std::thread::sleep(SLOW);
            Ok(())
        }
        "fail" => open(remote, "/no/such/file").map(drop),
        other => panic!("{other}?"),
    }
}

fn open(remote: &mut Remote, path: &str) -> Result<u64, RunError> {
    let path = remote.scratch(format!("{path}\0").as_bytes())?;
    let call = Call { number: libc::SYS_open, name: "open(a file of root's)" };
    remote.call(call, [path, libc::O_RDONLY as u64, 0, 0, 0, 0])
}

fn put_page(remote: &mut Remote) -> Result<(), RunError> {
    let [_, len, protection, flags, file, offset] = anonymous(4096);
    let fixed = flags | libc::MAP_FIXED_NOREPLACE as u64;
    let mmap = Call { number: libc::SYS_mmap, name: "mmap" };
    let at = remote.call(mmap, [PLACE, len, protection, fixed, file, offset])?;
    assert_eq!(at, PLACE);
    remote.write(PLACE, TEXT.as_bytes())?;
    let mprotect = Call { number: libc::SYS_mprotect, name: "mprotect" };
    remote.call(mprotect, [PLACE, len, libc::PROT_READ as u64, 0, 0, 0])?;
    // Also where it may not write itself.
    let mut back = [0; TEXT.len()];
    remote.write(PLACE, &TEXT.as_bytes()[..1])?;
    remote.read(PLACE, &mut back)?;
    assert_eq!(back, TEXT.as_bytes());
    let prctl = Call { number: libc::SYS_prctl, name: "prctl(PR_SET_DUMPABLE)" };
    remote.call(prctl, [libc::PR_SET_DUMPABLE as u64, 0, 0, 0, 0, 0]).map(drop)
}
