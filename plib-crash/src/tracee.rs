//! A child process that is run one instruction at a time.

use nix::errno::Errno;
use nix::sys::ptrace;
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::{ForkResult, Pid, fork};
use std::arch::asm;

/// What went wrong with a child.
#[derive(Debug, thiserror::Error)]
pub enum Trouble {
    /// A system call on it failed.
    #[error("cannot {0}: {1}")]
    Os(&'static str, Errno),
    /// It did something else.
    #[error("the child was to {wanted}, but: {found}")]
    Unexpected {
        /// What it was to do.
        wanted: &'static str,
        /// What it did.
        found: String,
    },
}

fn os(doing: &'static str) -> impl Fn(Errno) -> Trouble {
    move |errno| Trouble::Os(doing, errno)
}

/// The traced child; killed when dropped.
pub struct Tracee {
    pid: Pid,
    gone: bool,
}

/// Where the stepping begins: the child stops in here.
#[inline(never)]
pub fn begin() {
    // SAFETY: stops a traced process, and ends any other; nothing is changed.
    unsafe { asm!("int3", options(nostack)) };
}

/// Where it ends: the child is not let into this function while it is being stepped.
#[inline(never)]
pub extern "C" fn end() {
    // SAFETY: does nothing; keeps the function from being merged with another.
    unsafe { asm!("nop", "nop", options(nostack)) };
}

const BREAKPOINT: i64 = 0xcc;
const EXIT_UNTRACED: i32 = 99;

impl Tracee {
    /// Forks a child that is traced, runs `body` and exits with the status that it gives.
    pub fn fork(body: impl FnOnce() -> i32) -> Result<Self, Trouble> {
        // SAFETY: this program has one thread, so the child may do all that the parent may.
        match unsafe { fork() }.map_err(os("fork"))? {
            ForkResult::Parent { child } => Ok(Self { pid: child, gone: false }),
            ForkResult::Child => {
                crate::arena::enter();
                // One that is stopped would outlive a worker that hangs and is ended, and keep its pipe open for ever.
                // SAFETY: asks for a signal at the parent's end.
                unsafe { libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL) };
                let status = if ptrace::traceme().is_ok() { body() } else { EXIT_UNTRACED };
                // SAFETY: ends the child without what the parent's exit would do.
                unsafe { libc::_exit(status) }
            }
        }
    }

    fn wait(&mut self, wanted: &'static str) -> Result<(), Trouble> {
        match waitpid(self.pid, None).map_err(os("wait for the child"))? {
            WaitStatus::Stopped(_, Signal::SIGTRAP) => Ok(()),
            other => {
                self.gone = matches!(other, WaitStatus::Exited(..) | WaitStatus::Signaled(..));
                Err(Trouble::Unexpected { wanted, found: format!("{other:?}") })
            }
        }
    }

    /// Waits until it has come to [`begin`].
    pub fn await_begin(&mut self) -> Result<(), Trouble> {
        self.wait("come to the operation")
    }

    /// The address of its next instruction.
    pub fn at(&self) -> Result<u64, Trouble> {
        ptrace::getregs(self.pid).map(|regs| regs.rip).map_err(os("read the registers"))
    }

    /// Runs one instruction (of a repeated string instruction: one round).
    pub fn step(&mut self) -> Result<(), Trouble> {
        ptrace::step(self.pid, None).map_err(os("step"))?;
        self.wait("run one instruction")
    }

    /// Runs `n` instructions, or as many as there are before [`end`].
    pub fn walk(&mut self, n: usize) -> Result<(), Trouble> {
        for _ in 0..n {
            if self.at()? == end as *const () as u64 {
                break;
            }
            self.step()?;
        }
        Ok(())
    }

    /// Runs until it is about to execute the instruction at `address`, which is not the one it stands at.
    pub fn run_to(&mut self, address: u64) -> Result<(), Trouble> {
        let place = address as *mut libc::c_void;
        let word = ptrace::read(self.pid, place).map_err(os("read an instruction"))?;
        ptrace::write(self.pid, place, word & !0xff | BREAKPOINT).map_err(os("set a breakpoint"))?;
        ptrace::cont(self.pid, None).map_err(os("go on"))?;
        self.wait("come to a breakpoint")?;
        let mut regs = ptrace::getregs(self.pid).map_err(os("read the registers"))?;
        if regs.rip != address + 1 {
            let found = format!("stopped at {:#x}, not at {address:#x}", regs.rip);
            return Err(Trouble::Unexpected { wanted: "come to a breakpoint", found });
        }
        regs.rip = address;
        ptrace::setregs(self.pid, regs).map_err(os("set the registers"))?;
        ptrace::write(self.pid, place, word).map(drop).map_err(os("take a breakpoint away"))
    }

    /// SIGKILL. Does not wait: until somebody does, what is left is a zombie that nobody reaps.
    pub fn kill(&mut self) -> Result<(), Trouble> {
        kill(self.pid, Signal::SIGKILL).map_err(os("kill"))
    }

    /// Takes note of its death.
    pub fn bury(mut self) -> Result<(), Trouble> {
        let status = waitpid(self.pid, None).map_err(os("wait for the child"))?;
        self.gone = true;
        match status {
            WaitStatus::Signaled(_, Signal::SIGKILL, _) => Ok(()),
            other => Err(Trouble::Unexpected { wanted: "die of SIGKILL", found: format!("{other:?}") }),
        }
    }

    /// Leaves it stopped where it is, by SIGSTOP, and no longer traced.
    pub fn freeze(&mut self) -> Result<(), Trouble> {
        ptrace::detach(self.pid, Signal::SIGSTOP).map_err(os("stop"))?;
        match waitpid(self.pid, Some(WaitPidFlag::WUNTRACED)).map_err(os("wait for the child"))? {
            WaitStatus::Stopped(_, Signal::SIGSTOP) => Ok(()),
            other => Err(Trouble::Unexpected { wanted: "stop", found: format!("{other:?}") }),
        }
    }

    /// SIGCONT, and waits for its end; the status that it exits with.
    pub fn thaw(mut self) -> Result<i32, Trouble> {
        kill(self.pid, Signal::SIGCONT).map_err(os("continue"))?;
        let status = waitpid(self.pid, None).map_err(os("wait for the child"))?;
        self.gone = true;
        match status {
            WaitStatus::Exited(_, status) => Ok(status),
            other => Err(Trouble::Unexpected { wanted: "finish", found: format!("{other:?}") }),
        }
    }
}

impl Drop for Tracee {
    fn drop(&mut self) {
        if !self.gone {
            let _ = kill(self.pid, Signal::SIGKILL);
            let _ = waitpid(self.pid, None);
        }
    }
}
