//! Where the tests play: pages under a key, children that may die of them, and what a signal found.

use std::mem::{MaybeUninit, zeroed};
use std::ptr::null_mut;
use std::sync::atomic::{AtomicI32, AtomicU32, AtomicU64, Ordering::SeqCst};

use plib_core::domain::{Access, KeysOn, Pkru, Protection, ProtectionKey, ProtectionKeys};

pub const SIZE: usize = 64 << 10;

/// PKRU of a signal handler and of a fresh program: key 0 open, all others without access (arch/x86/mm/pkeys.c).
pub const INITIAL: Pkru = Pkru(0x5555_5554);

/// The proof that this is a machine for these tests; without it they fail rather than pass for nothing.
pub fn keys() -> KeysOn {
    let found = ProtectionKeys::detect();
    found.on().unwrap_or_else(|| panic!("protection keys are {found:?} on this machine: run scripts/protection-test"))
}

/// Writes this thread's PKRU.
pub fn set_pkru(_: KeysOn, value: Pkru) {
    // SAFETY: keys are on, so the instruction exists. Memory is not touched; the pages of the tests' keys are reached by raw pointers.
    unsafe {
        std::arch::asm!("wrpkru", in("eax") value.0, in("ecx") 0, in("edx") 0, options(nostack, preserves_flags))
    };
}

/// Zeroed pages of our own, for every process that comes of this one if `shared`.
pub fn map(protection: i32, shared: bool) -> *mut u8 {
    let sharing = if shared { libc::MAP_SHARED } else { libc::MAP_PRIVATE };
    // SAFETY: a fresh mapping at a place of the kernel's choice.
    let start = unsafe { libc::mmap(null_mut(), SIZE, protection, sharing | libc::MAP_ANONYMOUS, -1, 0) };
    assert_ne!(start, libc::MAP_FAILED);
    start.cast()
}

/// A key, and pages that carry it.
pub struct Guarded {
    pub on: KeysOn,
    pub key: ProtectionKey,
    pub start: *mut u8,
}

impl Guarded {
    /// Fresh ones, with the key as `access` says for this thread.
    pub fn new(access: Access, protection: Protection) -> Self {
        let on = keys();
        let key = ProtectionKey::allocate(on, access).expect("a key is free");
        let start = map(libc::PROT_NONE, true);
        // SAFETY: the pages were just mapped, PROT_NONE, and nobody else knows of them.
        unsafe { key.guard(start, SIZE, protection) }.expect("fresh pages take a key");
        Self { on, key, start }
    }

    /// Lets this thread do that with the pages.
    pub fn set(&self, access: Access) {
        set_pkru(self.on, Pkru::read(self.on).with(self.key, access));
    }

    /// What this thread may do.
    pub fn access(&self) -> Access {
        Pkru::read(self.on).access(self.key)
    }

    /// The end of the pages: where a stack in them begins.
    pub fn top(&self) -> *mut u8 {
        self.start.wrapping_add(SIZE)
    }
}

impl Drop for Guarded {
    fn drop(&mut self) {
        // SAFETY: the pages are ours, and go before their key does.
        unsafe {
            libc::munmap(self.start.cast(), SIZE);
            self.key.free().expect("the key was ours");
        }
    }
}

pub fn read(place: *const u8) -> u8 {
    // SAFETY: of a mapped page, or the fault is what the test wants; a child that dies of it ends there.
    unsafe { place.read_volatile() }
}

pub fn write(place: *mut u8, byte: u8) {
    // SAFETY: as in `read`; the page belongs to the test alone.
    unsafe { place.write_volatile(byte) }
}

/// What a child met.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum End {
    /// It ran to its end; what it told.
    Told(u32),
    /// SIGSEGV: si_code, si_pkey (where the code is of a key), the instruction.
    Fault { code: i32, pkey: u32, at: u64 },
    /// Something else; wait status.
    Other(i32),
}

/// In pages that parent and child share.
#[derive(Default)]
struct Note {
    told: AtomicU32,
    code: AtomicI32,
    pkey: AtomicU32,
    at: AtomicU64,
}

static NOTE: AtomicU64 = AtomicU64::new(0);

fn note<'a>() -> &'a Note {
    // SAFETY: `in_child` put the address of a live, zeroed, shared page there, which is never unmapped.
    unsafe { &*(NOTE.load(SeqCst) as *const Note) }
}

const FAULTED: i32 = 42;

extern "C" fn on_fault(_: i32, info: *mut libc::siginfo_t, context: *mut libc::c_void) {
    // SAFETY: the kernel gives both structures to a handler with SA_SIGINFO. si_pkey is the word at 32 (asm-generic/siginfo.h).
    let (code, pkey, at) = unsafe {
        let registers = &(*context.cast::<libc::ucontext_t>()).uc_mcontext.gregs;
        ((*info).si_code, info.cast::<u32>().add(8).read(), registers[libc::REG_RIP as usize] as u64)
    };
    note().code.store(code, SeqCst);
    note().pkey.store(pkey, SeqCst);
    note().at.store(at, SeqCst);
    // SAFETY: ends the child, with nothing of it run any more.
    unsafe { libc::_exit(FAULTED) }
}

/// Has `handler` take `signal` from now on.
pub fn handle(signal: i32, handler: usize, flags: i32) {
    // SAFETY: sigaction is plain numbers, for which zeros are a value; the handlers of this file set are functions of that shape.
    unsafe {
        let mut action: libc::sigaction = zeroed();
        action.sa_sigaction = handler;
        action.sa_flags = libc::SA_SIGINFO | flags;
        assert_eq!(libc::sigaction(signal, &action, null_mut()), 0);
    }
}

/// Has signals with SA_ONSTACK use these pages.
pub fn alternate_stack(start: *mut u8) {
    let stack = libc::stack_t { ss_sp: start.cast(), ss_flags: 0, ss_size: SIZE };
    // SAFETY: the pages stay mapped for as long as the thread lives.
    assert_eq!(unsafe { libc::sigaltstack(&stack, null_mut()) }, 0);
}

/// Runs `act` in a child that takes SIGSEGV on a stack of its own and says what it met.
pub fn in_child(act: impl FnOnce() -> u32) -> End {
    let shared = map(libc::PROT_READ | libc::PROT_WRITE, true);
    NOTE.store(shared as u64, SeqCst);
    // SAFETY: the child runs code of this file and raw system calls, and ends by _exit.
    let child = unsafe { libc::fork() };
    assert!(child >= 0);
    if child == 0 {
        alternate_stack(map(libc::PROT_READ | libc::PROT_WRITE, false));
        handle(libc::SIGSEGV, on_fault as *const () as usize, libc::SA_ONSTACK);
        note().told.store(act(), SeqCst);
        // SAFETY: ends the child here; nothing of the test's runs twice.
        unsafe { libc::_exit(0) }
    }
    let mut status = 0;
    // SAFETY: the child is ours and not waited for yet.
    assert_eq!(unsafe { libc::waitpid(child, &mut status, 0) }, child);
    match status {
        0 => End::Told(note().told.load(SeqCst)),
        _ if libc::WIFEXITED(status) && libc::WEXITSTATUS(status) == FAULTED => {
            End::Fault { code: note().code.load(SeqCst), pkey: note().pkey.load(SeqCst), at: note().at.load(SeqCst) }
        }
        _ => End::Other(status),
    }
}

/// Major and minor version of the kernel.
pub fn kernel() -> (u32, u32) {
    let mut name = MaybeUninit::<libc::utsname>::uninit();
    // SAFETY: uname fills the structure in, and ends the string with a zero byte.
    let release = unsafe {
        assert_eq!(libc::uname(name.as_mut_ptr()), 0);
        std::ffi::CStr::from_ptr(name.assume_init_ref().release.as_ptr()).to_string_lossy().into_owned()
    };
    let mut numbers = release.split(|c: char| !c.is_ascii_digit()).map(|n| n.parse().unwrap_or(0));
    (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0))
}
