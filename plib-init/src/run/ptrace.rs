//! ptrace(2) and the stops of a traced process, as far as they are needed here.

use super::error::RunError;
use std::ffi::c_int;
use std::io;

/// Registers of a process.
pub(super) type Registers = libc::user_regs_struct;

/// Why a traced process stopped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stop {
    /// It has executed a program, and is still inside execve.
    Exec,
    /// It is at the beginning or the end of a system call.
    SystemCall,
    /// It is about to receive this signal.
    Signal(c_int),
    /// It was stopped as a job is, by this signal; or it goes on after that.
    Job(c_int),
    /// It has ended.
    Ended,
    /// Something that nobody asked for: the kernel's status.
    Other(c_int),
}

impl Stop {
    /// For messages: the signal, or the kernel's status.
    pub fn number(self) -> c_int {
        match self {
            Self::Signal(number) | Self::Job(number) | Self::Other(number) => number,
            Self::Exec => libc::PTRACE_EVENT_EXEC,
            Self::SystemCall => SYSTEM_CALL,
            Self::Ended => 0,
        }
    }

    /// What the status of waitpid means for a process that was seized with the options below.
    fn of_status(status: c_int) -> Self {
        if libc::WIFEXITED(status) || libc::WIFSIGNALED(status) {
            return Self::Ended;
        }
        let signal = libc::WSTOPSIG(status);
        match status >> 16 {
            libc::PTRACE_EVENT_EXEC => Self::Exec,
            libc::PTRACE_EVENT_STOP => Self::Job(signal),
            0 if signal == libc::SIGTRAP | SYSTEM_CALL => Self::SystemCall,
            0 => Self::Signal(signal),
            _ => Self::Other(status),
        }
    }
}

/// The bit by which PTRACE_O_TRACESYSGOOD tells system calls from real traps.
const SYSTEM_CALL: c_int = 0x80;
const OPTIONS: c_int = libc::PTRACE_O_TRACEEXEC | libc::PTRACE_O_TRACESYSGOOD | libc::PTRACE_O_EXITKILL;

/// A process that this one traces. Once it is tied to this one, the kernel kills it if this one dies.
#[derive(Clone, Copy, Debug)]
pub(super) struct Traced {
    pid: libc::pid_t,
}

impl Traced {
    /// Begins to trace a process, which does not stop for that. It does not die with this one yet: a number may be another's.
    pub fn seize(pid: libc::pid_t) -> io::Result<Self> {
        let traced = Self { pid };
        traced.request(libc::PTRACE_SEIZE, 0, 0).map(|()| traced)
    }

    /// Ties its life to this one's, and asks for its stops; it is stopped.
    pub fn tie(self) -> Result<(), RunError> {
        self.request(libc::PTRACE_SETOPTIONS, 0, OPTIONS as usize).map_err(failed("ptrace(PTRACE_SETOPTIONS)"))
    }

    /// Its process id.
    pub fn pid(self) -> libc::pid_t {
        self.pid
    }

    /// Waits for its next stop.
    pub fn wait(self) -> Result<Stop, RunError> {
        let mut status = 0;
        loop {
            // SAFETY: the status is written to a variable of ours.
            let result = unsafe { libc::waitpid(self.pid, &raw mut status, libc::__WALL) };
            if result == self.pid {
                return Ok(Stop::of_status(status));
            }
            let e = io::Error::last_os_error();
            if e.kind() != io::ErrorKind::Interrupted {
                return Err(RunError::System { call: "waitpid(the new program)", source: e });
            }
        }
    }

    /// Lets it go on, with a signal (0 for none).
    pub fn go_on(self, signal: c_int) -> Result<(), RunError> {
        self.request(libc::PTRACE_CONT, 0, signal as usize).map_err(failed("ptrace(PTRACE_CONT)"))
    }

    /// Lets it go on to the beginning or the end of a system call.
    pub fn go_to_system_call(self) -> Result<(), RunError> {
        self.request(libc::PTRACE_SYSCALL, 0, 0).map_err(failed("ptrace(PTRACE_SYSCALL)"))
    }

    /// Leaves it stopped as a job until it is continued.
    pub fn stay_stopped(self) -> Result<(), RunError> {
        self.request(libc::PTRACE_LISTEN, 0, 0).map_err(failed("ptrace(PTRACE_LISTEN)"))
    }

    /// Stops it, without a signal.
    pub fn interrupt(self) -> Result<(), RunError> {
        self.request(libc::PTRACE_INTERRUPT, 0, 0).map_err(failed("ptrace(PTRACE_INTERRUPT)"))
    }

    /// Leaves it to itself, with a signal (0 for none).
    pub fn detach(self, signal: c_int) -> Result<(), RunError> {
        self.request(libc::PTRACE_DETACH, 0, signal as usize).map_err(failed("ptrace(PTRACE_DETACH)"))
    }

    /// Its registers.
    pub fn registers(self) -> Result<Registers, RunError> {
        // SAFETY: numbers, of which zeroes are some.
        let mut registers: Registers = unsafe { std::mem::zeroed() };
        self.request(libc::PTRACE_GETREGS, 0, (&raw mut registers) as usize)
            .map_err(failed("ptrace(PTRACE_GETREGS)"))?;
        Ok(registers)
    }

    /// Sets its registers.
    pub fn set_registers(self, registers: &Registers) -> Result<(), RunError> {
        self.request(libc::PTRACE_SETREGS, 0, (&raw const *registers) as usize)
            .map_err(failed("ptrace(PTRACE_SETREGS)"))
    }

    /// The signals that it blocks, as a kernel's signal set.
    pub fn blocked(self) -> Result<u64, RunError> {
        let mut set = 0u64;
        self.request(PTRACE_GETSIGMASK, size_of::<u64>(), (&raw mut set) as usize)
            .map_err(failed("ptrace(PTRACE_GETSIGMASK)"))?;
        Ok(set)
    }

    /// Sets the signals that it blocks.
    pub fn set_blocked(self, set: u64) -> Result<(), RunError> {
        self.request(PTRACE_SETSIGMASK, size_of::<u64>(), (&raw const set) as usize)
            .map_err(failed("ptrace(PTRACE_SETSIGMASK)"))
    }

    /// The word at an address in it.
    pub fn word(self, address: u64) -> Result<u64, RunError> {
        let mut word = 0u64;
        self.request(libc::PTRACE_PEEKTEXT, address as usize, (&raw mut word) as usize)
            .map_err(failed("ptrace(PTRACE_PEEKTEXT)"))?;
        Ok(word)
    }

    /// Writes a word, also where it may not write itself.
    pub fn set_word(self, address: u64, word: u64) -> Result<(), RunError> {
        self.request(libc::PTRACE_POKETEXT, address as usize, word as usize).map_err(failed("ptrace(PTRACE_POKETEXT)"))
    }

    /// The system call itself: the C library's function answers some requests in another way.
    fn request(self, request: libc::c_uint, address: usize, data: usize) -> io::Result<()> {
        // SAFETY: what the request reads or writes in this process is what `data` points to in the functions above: variables
        // of theirs of the size that the kernel's documentation names. All else is the traced process's.
        match unsafe {
            libc::syscall(libc::SYS_ptrace, libc::c_long::from(request), libc::c_long::from(self.pid), address, data)
        } {
            -1 => Err(io::Error::last_os_error()),
            _ => Ok(()),
        }
    }
}

/// linux/ptrace.h
const PTRACE_GETSIGMASK: libc::c_uint = 0x420a;
const PTRACE_SETSIGMASK: libc::c_uint = 0x420b;

/// A request is refused for want of the process when it is dead, and may not have been waited for yet.
fn failed(call: &'static str) -> impl Fn(io::Error) -> RunError {
    move |e| match e.raw_os_error() {
        Some(libc::ESRCH) => RunError::Gone,
        _ => RunError::System { call, source: e },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn statuses_are_told_apart() {
        let stopped = |signal: c_int, event: c_int| Stop::of_status(event << 16 | signal << 8 | 0x7f);
        assert_eq!(stopped(libc::SIGTRAP, libc::PTRACE_EVENT_EXEC), Stop::Exec);
        assert_eq!(stopped(libc::SIGTSTP, libc::PTRACE_EVENT_STOP), Stop::Job(libc::SIGTSTP));
        assert_eq!(stopped(libc::SIGTRAP | SYSTEM_CALL, 0), Stop::SystemCall);
        // A signal that has no name, and a trap of the program's own.
        assert_eq!((stopped(40, 0), stopped(libc::SIGTRAP, 0)), (Stop::Signal(40), Stop::Signal(libc::SIGTRAP)));
        assert_eq!(
            (Stop::of_status(0), Stop::of_status(3 << 8), Stop::of_status(9)),
            (Stop::Ended, Stop::Ended, Stop::Ended)
        );
        assert!(matches!(stopped(libc::SIGTRAP, libc::PTRACE_EVENT_CLONE), Stop::Other(_)));
    }
}
