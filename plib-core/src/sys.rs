//! The few system calls that the core makes, without libc. None is on the fast path.

use core::arch::asm;

const SYS_RT_SIGACTION: usize = 13;
const SYS_RT_SIGPROCMASK: usize = 14;
const SYS_MSYNC: usize = 26;
const SYS_GETPID: usize = 39;
const SYS_GETTID: usize = 186;
const SYS_RT_TGSIGQUEUEINFO: usize = 297;
const SYS_SCHED_YIELD: usize = 24;
const SYS_FCNTL: usize = 72;
const SYS_CLOCK_GETTIME: usize = 228;
const SYS_TGKILL: usize = 234;
const SYS_MEMBARRIER: usize = 324;
const SYS_PKEY_MPROTECT: usize = 329;
const SYS_PKEY_ALLOC: usize = 330;
const SYS_PKEY_FREE: usize = 331;

const MS_SYNC: usize = 4;
const F_OFD_GETLK: usize = 36;
const F_WRLCK: i16 = 1;
const F_UNLCK: i16 = 2;
const ESRCH: isize = -3;

const MEMBARRIER_CMD_GLOBAL_EXPEDITED: usize = 1 << 1;
const MEMBARRIER_CMD_REGISTER_GLOBAL_EXPEDITED: usize = 1 << 2;

const CLOCK_MONOTONIC: usize = 1;
const CLOCK_REALTIME_COARSE: usize = 5;

#[inline(never)]
unsafe fn syscall4(number: usize, a: usize, b: usize, c: usize, d: usize) -> isize {
    let result;
    // SAFETY: the kernel keeps all registers but rax, rcx and r11; the caller vouches for pointers among the arguments.
    unsafe {
        asm!("syscall", inlateout("rax") number => result, in("rdi") a, in("rsi") b, in("rdx") c, in("r10") d,
             lateout("rcx") _, lateout("r11") _, options(nostack));
    }
    result
}

/// An errno number (errno(3)).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Errno(pub i32);

impl Errno {
    /// EINVAL.
    pub const INVALID: Self = Self(22);
}

/// What a system call returned: a number, or an errno negated.
fn answer(result: isize) -> Result<usize, Errno> {
    usize::try_from(result).map_err(|_| Errno(result.wrapping_neg() as i32))
}

/// Takes a protection key of the process; the calling thread gets `rights`, two bits of PKRU. Its number.
pub fn pkey_alloc(rights: u32) -> Result<usize, Errno> {
    // SAFETY: takes numbers only, and changes the bits of a key that had no owner.
    answer(unsafe { syscall4(SYS_PKEY_ALLOC, 0, rights as usize, 0, 0) })
}

/// Gives a protection key back; pages that carry it keep it.
pub fn pkey_free(key: usize) -> Result<(), Errno> {
    // SAFETY: takes a number only; no memory of ours changes.
    answer(unsafe { syscall4(SYS_PKEY_FREE, key, 0, 0, 0) }).map(drop)
}

/// Gives pages a protection and a protection key.
///
/// # Safety
/// The pages are the caller's, and nothing relies on how they were protected.
pub unsafe fn pkey_mprotect(start: *mut u8, len: usize, protection: usize, key: usize) -> Result<(), Errno> {
    // SAFETY: passed on; memory that is not mapped is refused.
    answer(unsafe { syscall4(SYS_PKEY_MPROTECT, start as usize, len, protection, key) }).map(drop)
}

/// Brings pages of a mapping to where the file is stored; nothing to do on tmpfs. What cannot be written stays dirty.
pub fn sync_pages(start: *mut u8, len: usize) {
    // SAFETY: only asks the kernel to write pages back; an address that is not mapped is refused.
    unsafe { syscall4(SYS_MSYNC, start as usize, len, MS_SYNC, 0) };
}

/// Lets another thread run.
pub fn yield_now() {
    // SAFETY: takes no arguments and changes nothing of ours.
    unsafe { syscall4(SYS_SCHED_YIELD, 0, 0, 0, 0) };
}

#[repr(C)]
struct Timespec {
    seconds: i64,
    nanoseconds: i64,
}

/// Milliseconds of the monotonic clock; for deadlines on slow paths.
pub fn monotonic_ms() -> u64 {
    let mut t = Timespec { seconds: 0, nanoseconds: 0 };
    // SAFETY: `t` is a valid timespec on our stack.
    unsafe { syscall4(SYS_CLOCK_GETTIME, CLOCK_MONOTONIC, (&raw mut t) as usize, 0, 0) };
    (t.seconds as u64).wrapping_mul(1000).wrapping_add(t.nanoseconds as u64 / 1_000_000)
}

/// Whether thread `tid` of process `pid` has vanished. A thread that cannot be asked about counts as there.
pub fn thread_gone(pid: u32, tid: u32) -> bool {
    // SAFETY: signal 0 is only a question.
    unsafe { syscall4(SYS_TGKILL, pid as usize, tid as usize, 0, 0) == ESRCH }
}

#[repr(C)]
struct Flock {
    kind: i16,
    whence: i16,
    start: i64,
    len: i64,
    pid: i32,
}

/// Whether some open file description holds a lock on byte `offset` of the file behind `fd`; None where the kernel
/// gives no answer.
pub fn byte_locked(fd: i32, offset: u64) -> Option<bool> {
    let mut lock = Flock { kind: F_WRLCK, whence: 0, start: offset as i64, len: 1, pid: 0 };
    // SAFETY: `lock` is a valid struct flock on our stack.
    let result = unsafe { syscall4(SYS_FCNTL, fd as usize, F_OFD_GETLK, (&raw mut lock) as usize, 0) };
    (result == 0).then_some(lock.kind != F_UNLCK)
}

/// Registers the process for [`barrier`]; false where the kernel has none (then readers fence for themselves).
pub fn register_barrier() -> bool {
    // SAFETY: takes a command number and flags only.
    unsafe { syscall4(SYS_MEMBARRIER, MEMBARRIER_CMD_REGISTER_GLOBAL_EXPEDITED, 0, 0, 0) == 0 }
}

/// A full memory barrier on every running thread of every registered process.
pub fn barrier() -> bool {
    // SAFETY: takes a command number and flags only.
    unsafe { syscall4(SYS_MEMBARRIER, MEMBARRIER_CMD_GLOBAL_EXPEDITED, 0, 0, 0) == 0 }
}

/// How a signal is handled, as the kernel has it (`struct kernel_sigaction`).
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Action {
    /// The handler; 0 is the default, 1 is to ignore it.
    pub handler: usize,
    /// SA_ flags.
    pub flags: usize,
    /// The function that a handler returns to.
    pub restorer: usize,
    /// Signals that are blocked while the handler runs.
    pub mask: u64,
}

impl Action {
    /// What the kernel does by itself.
    pub const DEFAULT: Self = Self { handler: 0, flags: 0, restorer: 0, mask: 0 };
    /// The handler wants a siginfo.
    pub const SIGINFO: usize = 4;
    /// There is a restorer.
    pub const RESTORER: usize = 0x0400_0000;
    /// The handler is for once.
    pub const RESETHAND: usize = 0x8000_0000;
}

/// Bytes of a kernel's signal set.
const SET: usize = size_of::<u64>();

/// How a signal is handled; None for no signal.
pub fn action(signal: i32) -> Option<Action> {
    let mut action = Action::DEFAULT;
    // SAFETY: `action` is a valid struct on our stack.
    let result = unsafe { syscall4(SYS_RT_SIGACTION, signal as usize, 0, (&raw mut action) as usize, SET) };
    (result == 0).then_some(action)
}

/// Sets how a signal is handled; how it was before. None, and nothing changes, if it cannot be set.
pub fn set_action(signal: i32, action: &Action) -> Option<Action> {
    let mut old = Action::DEFAULT;
    let (new_at, old_at) = ((&raw const *action) as usize, (&raw mut old) as usize);
    // SAFETY: both are valid structs; what the new one names is the program's own handler or the gate's.
    let result = unsafe { syscall4(SYS_RT_SIGACTION, signal as usize, new_at, old_at, SET) };
    (result == 0).then_some(old)
}

/// Whether it is a signal that a thread raises by what it does itself.
pub const fn is_fault(signal: i32) -> bool {
    const SIGILL: i32 = 4;
    const SIGTRAP: i32 = 5;
    const SIGBUS: i32 = 7;
    const SIGFPE: i32 = 8;
    const SIGSEGV: i32 = 11;
    const SIGSYS: i32 = 31;
    matches!(signal, SIGILL | SIGTRAP | SIGBUS | SIGFPE | SIGSEGV | SIGSYS)
}

/// Sends a signal to the calling thread, with the information that came with it.
///
/// # Safety
/// `info` is a siginfo.
pub unsafe fn signal_self(signal: i32, info: *const u8) {
    // SAFETY: numbers only, and what the caller vouches for.
    unsafe {
        let (pid, tid) = (syscall4(SYS_GETPID, 0, 0, 0, 0) as usize, syscall4(SYS_GETTID, 0, 0, 0, 0) as usize);
        if syscall4(SYS_RT_TGSIGQUEUEINFO, pid, tid, signal as usize, info as usize) != 0 {
            // No memory for the information: better without than not at all.
            syscall4(SYS_TGKILL, pid, tid, signal as usize, 0);
        }
    }
}

/// Keeps the signals of a set out.
pub fn block(set: u64) {
    change_mask(0, set);
}

/// Lets the signals of a set in.
pub fn unblock(set: u64) {
    change_mask(1, set);
}

/// Changes which signals the thread lets in: `how` is SIG_BLOCK or SIG_UNBLOCK.
fn change_mask(how: usize, set: u64) {
    // SAFETY: `set` is on our stack.
    unsafe { syscall4(SYS_RT_SIGPROCMASK, how, (&raw const set) as usize, 0, SET) };
}

type GetTime = unsafe extern "C" fn(i32, *mut core::ffi::c_void) -> i32;

/// The wall clock in seconds, read through the kernel's vDSO where it has one.
#[derive(Clone, Copy, Debug)]
pub struct Clock {
    gettime: Option<GetTime>,
}

impl Clock {
    /// The clock of the vDSO image at `vdso` (the auxiliary vector's AT_SYSINFO_EHDR), or of the system call for 0.
    ///
    /// # Safety
    /// `vdso` is 0 or what the kernel gave in the auxiliary vector.
    pub unsafe fn new(vdso: usize) -> Self {
        if vdso == 0 {
            return Self { gettime: None };
        }
        // SAFETY: passed on from the caller.
        let entry = unsafe { vdso_symbol(vdso, b"__vdso_clock_gettime\0") };
        // SAFETY: the symbol of that name in the kernel's own image has this signature, and never is null.
        Self { gettime: entry.map(|entry| unsafe { core::mem::transmute::<usize, GetTime>(entry) }) }
    }

    /// Seconds since 1970.
    pub fn now(&self) -> u32 {
        let mut t = Timespec { seconds: 0, nanoseconds: 0 };
        // SAFETY: `t` is a valid timespec on our stack; the function is the kernel's.
        unsafe {
            match self.gettime {
                Some(gettime) => {
                    gettime(CLOCK_REALTIME_COARSE as i32, (&raw mut t).cast());
                }
                None => {
                    syscall4(SYS_CLOCK_GETTIME, CLOCK_REALTIME_COARSE, (&raw mut t) as usize, 0, 0);
                }
            }
        }
        t.seconds as u32
    }
}

/// Looks a symbol up in the vDSO's ELF image (System V gABI chapter 5: dynamic section, symbol and string tables).
unsafe fn vdso_symbol(image: usize, name: &[u8]) -> Option<usize> {
    // SAFETY: the kernel's image is a well-formed, always mapped ELF shared object; all offsets come from it.
    unsafe {
        let at16 = |o: usize| ((image + o) as *const u16).read_unaligned() as usize;
        let at64 = |a: usize| (a as *const u64).read_unaligned() as usize;
        let (headers, size, count) = (image + at64(image + 32), at16(54), at16(56));
        let (mut load, mut dynamic) = (None, None);
        for i in 0..count {
            let header = headers + i * size;
            match (header as *const u32).read_unaligned() {
                1 if load.is_none() => {
                    load = Some(image.wrapping_add(at64(header + 8)).wrapping_sub(at64(header + 16)))
                }
                2 => dynamic = Some(image + at64(header + 8)),
                _ => {}
            }
        }
        let (base, mut entry) = (load?, dynamic?);
        let (mut strings, mut symbols, mut table) = (0, 0, 0);
        loop {
            let (tag, value) = (at64(entry), at64(entry + 8));
            match tag {
                0 => break,
                4 => table = base.wrapping_add(value),
                5 => strings = base.wrapping_add(value),
                6 => symbols = base.wrapping_add(value),
                _ => {}
            }
            entry += 16;
        }
        if strings == 0 || symbols == 0 {
            return None;
        }
        // Newer kernels have no DT_HASH; the string table then follows the symbol table.
        let total = match table {
            0 => strings.saturating_sub(symbols) / 24,
            _ => ((table + 4) as *const u32).read_unaligned() as usize,
        };
        (0..total).map(|i| symbols + i * 24).find_map(|symbol| {
            let text = strings + (symbol as *const u32).read_unaligned() as usize;
            let same = name.iter().enumerate().all(|(i, b)| ((text + i) as *const u8).read() == *b);
            same.then(|| base.wrapping_add(at64(symbol + 8)))
        })
    }
}
