//! The two processes of a launch, and what passes between them.
//!
//! ```text
//! P: the process that was started                   T: the tracer, of which the program shall know nothing
//! fork T by way of a child that ends at once -----> PTRACE_SEIZE(P), is it P?: from here on the kernel kills P if T dies
//! give every privilege up        <--- seized -----
//! execute the program ------- stops -------------> is it what it should be?
//!                                                   the work: system calls that P does
//!                                                   take the rest of P's privileges
//! the program begins          <--- detached ------  end
//! ```
//! P keeps its process id, parent, terminal, descriptors, limits and signals; T is another process's child (init's), in a session of its
//! own, and has ended when the program is some milliseconds old.

use super::caller::{Caller, Power};
use super::error::{FAILED, RunError};
use super::identity::Identity;
use super::program::Program;
use super::ptrace::{Stop, Traced};
use super::remote::{Call, Remote};
use super::status::Status;
use nix::unistd::{Uid, setresuid};
use rustix::process::{PidfdFlags, child_subreaper, getpid, pidfd_open, set_child_subreaper};
use std::io::{self, ErrorKind, Read, Write};
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::net::UnixStream;

/// Becomes the program, with `work` done to it by the tracer before its first instruction. `tell` shows an error of the tracer's.
/// Returns only if it could not be started; this process has then no privileges left, or ends soon.
pub fn launch(
    caller: &Caller,
    identity: &Identity,
    program: &Program,
    work: impl FnOnce(&mut Remote) -> Result<(), RunError>,
    tell: impl Fn(RunError),
) -> RunError {
    match become_program(caller, identity, program, work, tell) {
        Err(e) => e,
        Ok(never) => match never {},
    }
}

/// What no function returns.
enum Never {}

/// P, as T knows it.
struct Parent {
    pid: libc::pid_t,
    /// Its pidfd.
    fd: OwnedFd,
}

impl Parent {
    /// Of the calling process.
    fn this() -> Result<Self, RunError> {
        let this = getpid();
        let fd = pidfd_open(this, PidfdFlags::empty()).map_err(RunError::system("pidfd_open"))?;
        Ok(Self { pid: this.as_raw_nonzero().get(), fd })
    }

    /// Whether it is there, if only as a zombie: then its number is its own, and was all the time.
    fn is_there(&self) -> bool {
        let nothing = std::ptr::null::<libc::siginfo_t>();
        // SAFETY: takes a descriptor of ours and numbers; signal 0 is only a question.
        unsafe { libc::syscall(libc::SYS_pidfd_send_signal, self.fd.as_raw_fd(), 0, nothing, 0) == 0 }
    }
}

fn become_program(
    caller: &Caller,
    identity: &Identity,
    program: &Program,
    work: impl FnOnce(&mut Remote) -> Result<(), RunError>,
    tell: impl Fn(RunError),
) -> Result<Never, RunError> {
    let arguments = program.arguments()?;
    caller.rise()?;
    if caller.power() == Power::SetUid {
        // The user cannot signal what is wholly root's: neither T, nor this process until it is seized.
        let root = Uid::from_raw(0);
        setresuid(root, root, root).map_err(RunError::system("setresuid(root)"))?;
    }
    // T has it from us: as long as it answers, our number is ours.
    let this = Parent::this()?;
    let (mine, its) = UnixStream::pair().map_err(RunError::system("socketpair"))?;
    if fork_stranger()? {
        drop(mine);
        end_tracer(trace(&this, identity, its, work, &tell), &tell);
    }
    drop((its, work, this));
    await_seized(mine)?;
    identity.assume()?;
    Err(program.execute(&arguments))
}

/// Forks a process that is not our child, though a descendant. True in it.
fn fork_stranger() -> Result<bool, RunError> {
    // A subreaper gets the children of its dead children. It is none meanwhile.
    let reaps = child_subreaper().map_err(RunError::system("prctl(PR_GET_CHILD_SUBREAPER)"))?;
    set_child_subreaper(None).map_err(RunError::system("prctl(PR_SET_CHILD_SUBREAPER)"))?;
    // By the system call, without a signal at its end: one that we block would await the program.
    // SAFETY: as fork; this process has one thread, and the child does nothing but fork and end.
    let child = unsafe { libc::syscall(libc::SYS_clone, 0, 0, 0, 0, 0) } as libc::pid_t;
    match child {
        -1 => Err(RunError::System { call: "clone", source: io::Error::last_os_error() }),
        0 => {
            // SAFETY: this process has one thread, so its child may do all that it may.
            match unsafe { libc::fork() } {
                0 => Ok(true),
                result => {
                    // SAFETY: ends this child without what its parent's end would do.
                    unsafe { libc::_exit(i32::from(result == -1)) }
                }
            }
        }
        child => {
            let status = await_child(child)?;
            set_child_subreaper(reaps).map_err(RunError::system("prctl(PR_SET_CHILD_SUBREAPER)"))?;
            if status == 0 {
                return Ok(false);
            }
            Err(RunError::System { call: "fork", source: ErrorKind::WouldBlock.into() })
        }
    }
}

fn await_child(child: libc::pid_t) -> Result<i32, RunError> {
    let mut status = 0;
    loop {
        // SAFETY: the status is written to a variable of ours.
        if unsafe { libc::waitpid(child, &raw mut status, libc::__WALL) } == child {
            return Ok(status);
        }
        let e = io::Error::last_os_error();
        if e.kind() != ErrorKind::Interrupted {
            return Err(RunError::System { call: "waitpid", source: e });
        }
    }
}

/// P waits until it is traced. What comes is an error number, or 0.
fn await_seized(mut tracer: UnixStream) -> Result<(), RunError> {
    let mut answer = [0; 4];
    match tracer.read_exact(&mut answer) {
        Err(e) if e.kind() == ErrorKind::UnexpectedEof => {
            let fix = "look for who kills processes (the kernel for want of memory?), and try again";
            Err(RunError::refused("the launcher's tracer", "has died", fix))
        }
        Err(e) => Err(RunError::System { call: "read(the tracer's answer)", source: e }),
        Ok(()) => match i32::from_ne_bytes(answer) {
            0 => Ok(()),
            libc::EPERM => {
                let fix = "start it without strace or a debugger; a container must allow ptrace (CAP_SYS_PTRACE and its seccomp policy)";
                Err(RunError::refused("ptrace(PTRACE_SEIZE)", "is not permitted on this process", fix))
            }
            number => {
                Err(RunError::System { call: "ptrace(PTRACE_SEIZE)", source: io::Error::from_raw_os_error(number) })
            }
        },
    }
}

/// T: what it does, from its first to its last.
fn trace(
    parent: &Parent,
    identity: &Identity,
    program: UnixStream,
    work: impl FnOnce(&mut Remote) -> Result<(), RunError>,
    tell: impl Fn(RunError),
) -> Result<(), RunError> {
    keep_to_itself()?;
    let Some(traced) = seize(parent, program)? else { return Ok(()) };
    if !until_exec(traced)? {
        // It could not be executed, which it has said, or was killed.
        return Ok(());
    }
    let mut remote = Remote::take(traced)?;
    let done = work(&mut remote).and_then(|()| finish(&mut remote, identity));
    match done {
        Ok(()) => remote.release(),
        Err(RunError::Gone) => Ok(()),
        Err(e) => {
            // Before its parent sees it end.
            tell(e);
            // If not even that works, our end is its.
            let _ = remote.end(FAILED);
            Ok(())
        }
    }
}

/// Out of reach of the terminal's signals.
fn keep_to_itself() -> Result<(), RunError> {
    nix::unistd::setsid().map_err(RunError::system("setsid"))?;
    // SAFETY: a set of signals of ours, which is filled in before it is read.
    unsafe {
        let mut all = std::mem::zeroed();
        libc::sigfillset(&raw mut all);
        libc::sigprocmask(libc::SIG_SETMASK, &raw const all, std::ptr::null_mut());
    }
    Ok(())
}

/// Seizes P and tells it. None if it is P no longer.
fn seize(parent: &Parent, mut program: UnixStream) -> Result<Option<Traced>, RunError> {
    let traced = match Traced::seize(parent.pid) {
        Ok(traced) => traced,
        Err(e) => {
            // P says it.
            let _ = program.write_all(&e.raw_os_error().unwrap_or(libc::EINVAL).to_ne_bytes());
            return Ok(None);
        }
    };
    // Had P ended before, its number might be another's by now, who must not die of our end.
    if !parent.is_there() || !tie(traced)? {
        return Ok(None);
    }
    // If nobody hears it, P is dead, and so is whoever is tied to us.
    Ok(program.write_all(&0i32.to_ne_bytes()).is_ok().then_some(traced))
}

/// Stops P for a moment, and ties its life to ours; false if it ended.
fn tie(traced: Traced) -> Result<bool, RunError> {
    traced.interrupt()?;
    let stop = traced.wait()?;
    if stop == Stop::Ended {
        return Ok(false);
    }
    traced.tie()?;
    go_on_from(traced, stop).map(|()| true)
}

/// Lets P go on until it has executed the program; false if it ended before.
fn until_exec(traced: Traced) -> Result<bool, RunError> {
    loop {
        match traced.wait()? {
            Stop::Exec => return Ok(true),
            Stop::Ended => return Ok(false),
            stop => go_on_from(traced, stop)?,
        }
    }
}

/// Lets P go on as it would without us.
fn go_on_from(traced: Traced, stop: Stop) -> Result<(), RunError> {
    match stop {
        Stop::Signal(signal) => traced.go_on(signal),
        Stop::Job(libc::SIGSTOP | libc::SIGTSTP | libc::SIGTTIN | libc::SIGTTOU) => traced.stay_stopped(),
        Stop::Job(_) | Stop::SystemCall | Stop::Other(_) | Stop::Exec => traced.go_on(0),
        Stop::Ended => Ok(()),
    }
}

/// Takes the new program's last privileges, and looks whether it has none.
fn finish(remote: &mut Remote, identity: &Identity) -> Result<(), RunError> {
    const CLEAR: Call = Call { number: libc::SYS_prctl, name: "prctl(PR_CAP_AMBIENT_CLEAR_ALL)" };
    const CAPSET: Call = Call { number: libc::SYS_capset, name: "capset(none)" };
    const VERSION_3: u32 = 0x2008_0522;
    let clear_all = libc::PR_CAP_AMBIENT_CLEAR_ALL as u64;
    remote.call(CLEAR, [libc::PR_CAP_AMBIENT as u64, clear_all, 0, 0, 0, 0])?;
    // struct __user_cap_header_struct, and twice __user_cap_data_struct.
    let mut structs = [0; 32];
    structs[..4].copy_from_slice(&VERSION_3.to_ne_bytes());
    let scratch = remote.scratch(&structs)?;
    remote.call(CAPSET, [scratch, scratch + 8, 0, 0, 0, 0])?;
    Status::of(remote.pid())?.verify(identity)
}

/// Ends T. It leaves nothing to be flushed, and runs nothing of P's.
fn end_tracer(result: Result<(), RunError>, tell: impl Fn(RunError)) -> ! {
    let status = i32::from(result.is_err());
    match result {
        Ok(()) | Err(RunError::Gone) => {}
        Err(e) => tell(e),
    }
    // SAFETY: ends this process.
    unsafe { libc::_exit(status) }
}
