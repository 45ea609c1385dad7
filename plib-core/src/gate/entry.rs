//! The gate itself: the only instructions that open and close the key.
//!
//! There are two `wrpkru` in the whole library. After each stands a comparison that ends the process unless the key's bits
//! are what they must be there, so that a jump to either of them, with any registers, leads into the library's own work or to
//! its end, and never back with the key open. Only our key's bits are changed.
//!
//! ```text
//! save registers on the caller's stack -> OPEN -> take a seat -> seat's stack, clean flags -> dispatch
//!   -> scrub registers -> caller's stack -> free the seat -> CLOSE -> restore registers
//! ```
//! Nothing of the caller's is believed on the way: what it handed in is the address of the argument block, which `dispatch` checks,
//! and the number of the seat to try first, which is compared with how many there are.

use super::call::Block;
use super::dispatch::dispatch;
use super::launched::{Launched, LaunchedHeaps};
use super::signal::defer;
use super::vault::{SEAT_SIZE, SEATS, SIGNALS_AT, STACKS, STRIDE, TAKEN_AT, Vault};
use core::arch::naked_asm;
use core::mem::offset_of;
use core::sync::atomic::{AtomicU32, AtomicUsize, Ordering};

/// What the gate goes by. It fills a page of its own, which is written before it is mapped for good, read-only.
#[repr(C, align(4096))]
pub struct Constants {
    /// Our keys' bits in PKRU.
    mask: AtomicU32,
    /// What they are between calls.
    closed: AtomicU32,
    /// The vault's address.
    vault: AtomicUsize,
    /// The vDSO's address, or 0.
    vdso: AtomicUsize,
    /// Bytes of the vault that carry the key.
    region: AtomicUsize,
    /// What the kernel calls for a signal.
    stub: AtomicUsize,
    /// The heaps that were mapped before the program began.
    launched: LaunchedHeaps,
}

/// What the gate goes by, as whoever maps it knows it.
#[derive(Clone, Copy, Debug)]
pub struct Settings {
    /// Our keys' bits in PKRU: two, or four where heaps may be readable.
    pub mask: u32,
    /// What they are between calls.
    pub closed: u32,
    /// The vault's address.
    pub vault: usize,
    /// Bytes of it that carry the key.
    pub region: usize,
    /// The vDSO's address, or 0.
    pub vdso: usize,
    /// The address of the `on_signal` that the kernel is given: this gate's, or the one that stands before it.
    pub stub: usize,
    /// The heaps of a launcher.
    pub launched: Launched,
}

/// This gate's constants; all 0 until they are written.
pub static CONSTANTS: Constants =
    Constants::new(Settings { mask: 0, closed: 0, vault: 0, region: 0, vdso: 0, stub: 0, launched: Launched::NONE });

impl Constants {
    /// Constants of these.
    pub const fn new(settings: Settings) -> Self {
        let Settings { mask, closed, vault, region, vdso, stub, launched } = settings;
        Self {
            mask: AtomicU32::new(mask),
            closed: AtomicU32::new(closed),
            vault: AtomicUsize::new(vault),
            vdso: AtomicUsize::new(vdso),
            region: AtomicUsize::new(region),
            stub: AtomicUsize::new(stub),
            launched: LaunchedHeaps::new(&launched),
        }
    }

    /// Bytes of the vault that carry the key.
    pub(super) fn region(&self) -> usize {
        self.region.load(Ordering::Relaxed)
    }

    /// The heaps of a launcher.
    pub(super) fn launched(&self) -> &LaunchedHeaps {
        &self.launched
    }

    /// What the kernel calls for a signal.
    pub(super) fn stub(&self) -> usize {
        self.stub.load(Ordering::Relaxed)
    }

    /// The vDSO's address.
    pub(super) fn vdso(&self) -> usize {
        self.vdso.load(Ordering::Relaxed)
    }
}

/// What comes back through the gate besides the answer.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct Left {
    /// The seat that the call had, or [`SEATS`] if all were taken and nothing was done.
    pub seat: u64,
    /// Signals that came meanwhile, as a kernel's signal set: blocked, and waiting to be let in.
    pub signals: u64,
}

/// The gate as a function: takes an argument block, and the number of the seat to try first.
pub type Entry = unsafe extern "sysv64" fn(*mut Block, u32) -> Left;

pub(super) const VAULT_AT: usize = offset_of!(Constants, vault);

/// The way through the gate.
///
/// # Safety
/// The processor has protection keys and the kernel has switched them on; [`CONSTANTS`] are set.
#[unsafe(naked)]
pub unsafe extern "sysv64" fn enter(block: *mut Block, hint: u32) -> Left {
    naked_asm!(
        "endbr64",
        "push rbp",
        "push rbx",
        "push r12",
        "push r13",
        "push r14",
        "push r15",
        "mov r12, rdi",
        "mov r13d, esi",
        "cmp r12, {note}",
        "jbe 9f",
        // Open. ecx and edx must be 0 for wrpkru; rdpkru makes edx 0.
        ".globl plib_gate_open",
        ".hidden plib_gate_open",
        "plib_gate_open:",
        "xor ecx, ecx",
        "rdpkru",
        "mov r8d, dword ptr [rip + {constants} + {mask}]",
        "not r8d",
        "and eax, r8d",
        "wrpkru",
        "test eax, dword ptr [rip + {constants} + {mask}]",
        "jnz 9f",
        "mov rbx, qword ptr [rip + {constants} + {vault}]",
        "cmp r12, {note}",
        "jbe 7f",
        // A seat: the one wished for, or the next that is free.
        "mov r14d, {seats}",
        "2:",
        "cmp r13d, {seats}",
        "jb 3f",
        "xor r13d, r13d",
        "3:",
        "mov r15d, r13d",
        "imul r15, r15, {seat_size}",
        "add r15, rbx",
        "xor eax, eax",
        "mov edx, 1",
        "lock cmpxchg dword ptr [r15 + {taken}], edx",
        "je 4f",
        "inc r13d",
        "dec r14d",
        "jnz 2b",
        "mov r13d, {seats}",
        "xor r14d, r14d",
        "jmp 5f",
        // Its stack, from the top: what leads back; below it the library's frames. No flag of the caller's lasts.
        "4:",
        "mov ecx, r13d",
        "imul rcx, rcx, {stride}",
        "lea rcx, [rbx + rcx + {first_top}]",
        "mov qword ptr [rcx - 16], rsp",
        "mov qword ptr [rcx - 8], r15",
        "lea rsp, [rcx - 16]",
        "push 2",
        "popfq",
        "mov rdi, rbx",
        "mov esi, r13d",
        "mov rdx, r12",
        "call {dispatch}",
        // Nothing of what the work left in registers goes out.
        "pxor xmm0, xmm0",
        "pxor xmm1, xmm1",
        "pxor xmm2, xmm2",
        "pxor xmm3, xmm3",
        "pxor xmm4, xmm4",
        "pxor xmm5, xmm5",
        "pxor xmm6, xmm6",
        "pxor xmm7, xmm7",
        "pxor xmm8, xmm8",
        "pxor xmm9, xmm9",
        "pxor xmm10, xmm10",
        "pxor xmm11, xmm11",
        "pxor xmm12, xmm12",
        "pxor xmm13, xmm13",
        "pxor xmm14, xmm14",
        "pxor xmm15, xmm15",
        "xor edi, edi",
        "xor esi, esi",
        "xor r9d, r9d",
        "xor r10d, r10d",
        "xor r11d, r11d",
        "mov r15, qword ptr [rsp + 8]",
        "mov rsp, qword ptr [rsp]",
        // From here on a signal is no longer put off. Those that were are the caller's to let in.
        "xor r14d, r14d",
        "xchg qword ptr [r15 + {signals}], r14",
        "mov dword ptr [r15 + {taken}], 0",
        "5:",
        // Close.
        "xor ecx, ecx",
        "rdpkru",
        "mov r8d, dword ptr [rip + {constants} + {mask}]",
        "not r8d",
        "and eax, r8d",
        "or eax, dword ptr [rip + {constants} + {closed}]",
        "wrpkru",
        "and eax, dword ptr [rip + {constants} + {mask}]",
        "cmp eax, dword ptr [rip + {constants} + {closed}]",
        "jne 9f",
        ".globl plib_gate_closed",
        ".hidden plib_gate_closed",
        "plib_gate_closed:",
        "mov eax, r13d",
        "mov rdx, r14",
        "xor r8d, r8d",
        "pop r15",
        "pop r14",
        "pop r13",
        "pop r12",
        "pop rbx",
        "pop rbp",
        "ret",
        // No call. With 0 a signal came during one: on its stack, in a frame of the kernel's. It is put off, and the call goes on.
        "7:",
        "jb 8f",
        // Else it came during the call whose stack r13 points into, and is noted there by its bit in r14. (Those that come in the
        // midst of this add theirs to r14, and go back to who notes.)
        "mov rax, r13",
        "sub rax, rbx",
        "sub rax, {stacks}",
        "mov r13d, {seats}",
        "cmp rax, {stack_bytes}",
        "jae 5b",
        "xor edx, edx",
        "xchg rdx, r14",
        "shr rax, {stride_bits}",
        "imul rax, rax, {seat_size}",
        "lock or qword ptr [rbx + rax + {signals}], rdx",
        "jmp 5b",
        "8:",
        "mov rax, rsp",
        "sub rax, rbx",
        "sub rax, {stacks}",
        "cmp rax, {stack_bytes}",
        "jae 9f",
        "mov rbp, rsp",
        "and rsp, -16",
        "push 2",
        "push 2",
        "popfq",
        "push 2",
        "mov rdi, rbx",
        "mov rsi, rbp",
        "call {defer}",
        "lea rsp, [rbp + 8]",
        "mov eax, {rt_sigreturn}",
        "syscall",
        "9:",
        "ud2",
        constants = sym CONSTANTS,
        mask = const offset_of!(Constants, mask),
        closed = const offset_of!(Constants, closed),
        vault = const offset_of!(Constants, vault),
        seats = const SEATS,
        seat_size = const SEAT_SIZE,
        taken = const TAKEN_AT,
        signals = const SIGNALS_AT,
        stacks = const STACKS,
        stack_bytes = const SEATS * STRIDE,
        defer = sym defer,
        rt_sigreturn = const 15,
        stride = const STRIDE,
        stride_bits = const STRIDE.trailing_zeros(),
        note = const NOTE,
        first_top = const STACKS + STRIDE,
        dispatch = sym dispatch,
    )
}

/// In the place of a block's address: this is no call, but a signal is to be noted. (0: it is put off.)
pub(super) const NOTE: u64 = 1;

/// Notes signals for the call that has the seat with this stack; what comes back is still to be noted.
///
/// # Safety
/// As for `enter`.
#[unsafe(naked)]
pub(super) unsafe extern "sysv64" fn note(signals: u64, stack: usize) -> Left {
    naked_asm!(
        "endbr64",
        "push rbp",
        "push rbx",
        "push r12",
        "push r13",
        "push r14",
        "push r15",
        "mov r14, rdi",
        "mov r13, rsi",
        "mov r12d, {note}",
        "jmp plib_gate_open",
        note = const NOTE,
    )
}

const _: () = assert!(size_of::<Constants>() == 4096 && size_of::<Vault>() <= STACKS);
