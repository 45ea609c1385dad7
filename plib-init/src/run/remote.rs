//! System calls in another process: the new program, which stands before its first instruction.
//!
//! A `syscall` instruction takes the place of the one that it stands at. For each call the registers are set, and it is let go on
//! to the call's beginning and to its end. Then the instruction and all registers are what they were, and the program begins
//! without a trace of it. Signals wait meanwhile.

use super::error::RunError;
use super::ptrace::{Registers, Stop, Traced};
use std::ffi::c_int;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

/// A system call: its number and, for messages, its name.
#[derive(Clone, Copy, Debug)]
pub struct Call {
    /// The number.
    pub number: libc::c_long,
    /// The name, with the arguments that tell it from its like.
    pub name: &'static str,
}

/// A process that stands before the first instruction of a program that it has just executed.
#[derive(Debug)]
pub struct Remote {
    traced: Traced,
    memory: File,
    /// What it stood at: registers, the word of instructions there, the signals that it blocks.
    registers: Registers,
    word: u64,
    blocked: u64,
    /// A page for what calls read there; 0 until one needs it.
    scratch: u64,
    /// The signal that stopped it as a job meanwhile; 0 for none.
    job: c_int,
}

/// The instruction in the first two bytes of a word.
const SYSCALL: u64 = 0x050f;
/// The code segment of 64-bit programs.
const CODE64: u64 = 0x33;
/// Words are aligned, so that both bytes are in the page that the program stands in.
const WORD: u64 = size_of::<u64>() as u64;
/// The page for arguments.
const SCRATCH: usize = 4096;
const MAP_SCRATCH: Call = Call { number: libc::SYS_mmap, name: "mmap(a page for arguments)" };
const UNMAP_SCRATCH: Call = Call { number: libc::SYS_munmap, name: "munmap(the page for arguments)" };
/// The largest error number.
const ERRNO_MAX: u64 = 4095;

/// The arguments of mmap for private memory at any address, readable and writable.
pub fn anonymous(len: usize) -> [u64; 6] {
    let (protection, flags) = (libc::PROT_READ | libc::PROT_WRITE, libc::MAP_PRIVATE | libc::MAP_ANONYMOUS);
    [0, len as u64, protection as u64, flags as u64, u64::MAX, 0]
}

impl Remote {
    /// Takes over a process that has stopped at [`Stop::Exec`].
    pub(super) fn take(traced: Traced) -> Result<Self, RunError> {
        let blocked = traced.blocked()?;
        traced.set_blocked(u64::MAX)?;
        let path = format!("/proc/{}/mem", traced.pid());
        let opened = File::options().read(true).write(true).open(&path);
        let memory = opened.map_err(|source| RunError::File { path: path.into(), call: "open", source })?;
        let none = traced.registers()?;
        let mut remote = Self { traced, memory, registers: none, word: 0, blocked, scratch: 0, job: 0 };
        // Out of execve, which would overwrite the registers.
        remote.run_to_system_call("at the end of execve")?;
        remote.registers = traced.registers()?;
        if remote.registers.cs != CODE64 {
            let fix = "plib's library is for 64-bit programs: use one";
            return Err(RunError::refused("the program", "is not a 64-bit one", fix));
        }
        remote.word = traced.word(remote.place())?;
        traced.set_word(remote.place(), remote.word & !0xffff | SYSCALL)?;
        Ok(remote)
    }

    /// Its process id.
    pub fn pid(&self) -> libc::pid_t {
        self.traced.pid()
    }

    /// Where the `syscall` instruction is.
    fn place(&self) -> u64 {
        self.registers.rip / WORD * WORD
    }

    /// Has it do a system call; what that answered.
    pub fn call(&mut self, call: Call, arguments: [u64; 6]) -> Result<u64, RunError> {
        self.begin(call, arguments)?;
        self.run_to_system_call("at the end of a system call")?;
        match self.traced.registers()?.rax {
            result if result <= u64::MAX - ERRNO_MAX => Ok(result),
            error => {
                let source = io::Error::from_raw_os_error(error.wrapping_neg() as i32);
                Err(RunError::Remote { call: call.name, source })
            }
        }
    }

    fn begin(&mut self, call: Call, [rdi, rsi, rdx, r10, r8, r9]: [u64; 6]) -> Result<(), RunError> {
        // No call is under way that the kernel might begin again.
        let (rax, orig_rax) = (call.number as u64, u64::MAX);
        let rip = self.place();
        let registers = Registers { rip, rax, orig_rax, rdi, rsi, rdx, r10, r8, r9, ..self.registers };
        self.traced.set_registers(&registers)?;
        self.run_to_system_call("at the beginning of a system call")
    }

    /// Lets it go on to the next beginning or end of a system call.
    fn run_to_system_call(&mut self, wanted: &'static str) -> Result<(), RunError> {
        loop {
            self.traced.go_to_system_call()?;
            match self.traced.wait()? {
                Stop::SystemCall => return Ok(()),
                // SIGSTOP, the only one that cannot be blocked: it gets it in the end.
                Stop::Signal(signal @ libc::SIGSTOP) => self.job = signal,
                Stop::Job(_) => {}
                Stop::Ended => return Err(RunError::Gone),
                Stop::Exec => return Err(RunError::Unexpected { wanted, found: libc::PTRACE_EVENT_EXEC }),
                Stop::Signal(found) | Stop::Other(found) => return Err(RunError::Unexpected { wanted, found }),
            }
        }
    }

    /// Writes to its memory, whatever it may do there itself.
    pub fn write(&self, address: u64, bytes: &[u8]) -> Result<(), RunError> {
        let written = self.memory.write_all_at(bytes, address);
        written.map_err(|source| RunError::Remote { call: "pwrite(/proc/PID/mem)", source })
    }

    /// Reads its memory.
    pub fn read(&self, address: u64, bytes: &mut [u8]) -> Result<(), RunError> {
        let read = self.memory.read_exact_at(bytes, address);
        read.map_err(|source| RunError::Remote { call: "pread(/proc/PID/mem)", source })
    }

    /// Puts bytes into the page for that, and gives their address.
    pub fn scratch(&mut self, bytes: &[u8]) -> Result<u64, RunError> {
        if bytes.len() > SCRATCH {
            let source = io::Error::from_raw_os_error(libc::ENAMETOOLONG);
            return Err(RunError::Remote { call: "an argument", source });
        }
        if self.scratch == 0 {
            self.scratch = self.call(MAP_SCRATCH, anonymous(SCRATCH))?;
        }
        self.write(self.scratch, bytes)?;
        Ok(self.scratch)
    }

    /// Puts everything back, and lets it begin.
    pub(super) fn release(mut self) -> Result<(), RunError> {
        if self.scratch != 0 {
            self.call(UNMAP_SCRATCH, [self.scratch, SCRATCH as u64, 0, 0, 0, 0])?;
        }
        self.traced.set_word(self.place(), self.word)?;
        self.traced.set_registers(&self.registers)?;
        self.traced.set_blocked(self.blocked)?;
        self.traced.detach(self.job)
    }

    /// Ends it instead, with this status.
    pub(super) fn end(mut self, status: u8) -> Result<(), RunError> {
        const EXIT: Call = Call { number: libc::SYS_exit_group, name: "exit_group" };
        self.begin(EXIT, [status.into(), 0, 0, 0, 0, 0])?;
        // Not let go before it is seen to end: where a policy answers this call, our end is its.
        self.traced.go_to_system_call()?;
        match self.traced.wait()? {
            Stop::Ended => Ok(()),
            stop => Err(RunError::Unexpected { wanted: "to end", found: stop.number() }),
        }
    }
}
