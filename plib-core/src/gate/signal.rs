//! Signals that come during a call.
//!
//! A handler must not run in the middle of one: it would find the key closed on a stack behind the key, and the caches of others in the
//! registers that it is shown; and if it jumped away, the call's seat and locks would be lost. So the kernel is given
//! [`on_signal`] in the place of each of the program's handlers. Outside of calls that is nothing but a jump to the handler. During
//! a call the signal is sent to its own thread once more and blocked, and the call goes on; when it has left the gate, its
//! caller lets the signal in (`Gated::pass`), and the kernel delivers it there.
//!
//! ```text
//! outside: kernel -> on_signal -> handler -> sigreturn
//! inside:  kernel -> on_signal -> queue, block -> sigreturn -> the call goes on -> CLOSE -> unblock -> kernel -> ...
//! ```
//! | what was interrupted | the kernel's frame | who puts the signal off |
//! | --- | --- | --- |
//! | the work, on a seat's stack | there as well | `defer`, with the key open: `on_signal` touches no stack before |
//! | the work | on the handlers' alternate stack | [`put_off_work`], which notes the signal through the gate |
//! | the gate itself, between its two `wrpkru` | on the caller's stack, or the alternate one | [`put_off_passage`], in the caller's block |
//!
//! What the kernel saved of the work it saved behind the key, or shows it to nobody but these functions.
//!
//! Several images can be in a process (of a launcher, or of two copies of the library). Each must be asked. So the stub that the
//! kernel calls stands first in a chain: where a table has no handler it has the next image's stub.

use super::call::Block;
use super::entry::{CONSTANTS, NOTE, note};
use super::vault::{VAULT_SIZE, Vault};
use crate::sys::{self, Action};
use core::arch::naked_asm;
use core::mem::offset_of;
use core::sync::atomic::{AtomicUsize, Ordering};

/// One more than the number of signals.
pub const SIGNALS: usize = 65;

/// Handlers by number. Where a program cannot have one this is never read.
pub type Handlers = [AtomicUsize; SIGNALS];

/// What `on_signal` jumps to outside of calls. The program can write it.
pub static HANDLERS: Handlers = [const { AtomicUsize::new(0) }; SIGNALS];

/// How `on_signal` begins, by which it is known: endbr64, a jump, and these eight bytes. Behind them is how far away its table is.
const BEGINNING: [u8; 14] = [0xf3, 0x0f, 0x1e, 0xfa, 0xeb, 0x0c, b'p', b'l', b'i', b'b', b's', b't', b'u', b'b'];

/// What the kernel calls for a signal, instead of the program's handler.
///
/// # Safety
/// Only the kernel may call it, of a process whose gate is ready.
#[unsafe(naked)]
pub unsafe extern "sysv64" fn on_signal() {
    naked_asm!(
        "endbr64",
        ".byte 0xeb, 0x0c",
        ".ascii \"plibstub\"",
        ".long {handlers} - .",
        "mov rax, rsp",
        "sub rax, qword ptr [rip + {constants} + {vault}]",
        "cmp rax, {vault_size}",
        "jb 2f",
        // A handler that stands before this function may call it as the one that it replaced: then there is nothing to look at.
        "lea rax, [rsp + 8]",
        "cmp rax, rdx",
        "jne 3f",
        "mov rax, qword ptr [rdx + {rsp_at}]",
        "sub rax, qword ptr [rip + {constants} + {vault}]",
        "cmp rax, {vault_size}",
        "jb {work}",
        "mov rax, qword ptr [rdx + {rip_at}]",
        "lea r8, [rip + plib_gate_open]",
        "cmp rax, r8",
        "jb 3f",
        "lea r8, [rip + plib_gate_closed]",
        "cmp rax, r8",
        "jae 3f",
        "push rdi",
        "push rsi",
        "push rdx",
        "call {passage}",
        "pop rdx",
        "pop rsi",
        "pop rdi",
        "test eax, eax",
        "jz 3f",
        "ret",
        "3:",
        "lea rax, [rip + {handlers}]",
        "mov edi, edi",
        "jmp qword ptr [rax + 8 * rdi]",
        // No block: this is no call.
        "2:",
        "xor r12d, r12d",
        "jmp plib_gate_open",
        constants = sym CONSTANTS,
        vault = const super::entry::VAULT_AT,
        vault_size = const VAULT_SIZE,
        handlers = sym HANDLERS,
        rsp_at = const RSP_AT,
        rip_at = const RIP_AT,
        work = sym put_off_work,
        passage = sym put_off_passage,
    )
}

/// Where things are in a ucontext: registers of what was interrupted, and its signal mask.
const R12_AT: usize = 72;
const R14_AT: usize = 88;
const RSP_AT: usize = 160;
const RIP_AT: usize = 168;
const MASK_AT: usize = 296;
/// In the kernel's frame, which begins with the address that the handler returns to, the ucontext comes next, and then the siginfo.
const CONTEXT_IN_FRAME: usize = 8;
const INFO_IN_FRAME: usize = 312;

/// The beginning of a siginfo.
#[repr(C)]
#[derive(Clone, Copy)]
struct Info {
    signal: i32,
    error: i32,
    code: i32,
}

impl Info {
    fn bit(self) -> u64 {
        1 << ((self.signal as u32).wrapping_sub(1) % 64)
    }

    /// Whether it tells of what its own thread just did.
    fn is_fault(self) -> bool {
        const SIGBUS: i32 = 7;
        // A broken page of memory that somebody else found (BUS_MCEERR_AO).
        const FOUND_BY_OTHERS: i32 = 5;
        self.code > 0 && sys::is_fault(self.signal) && !(self.signal == SIGBUS && self.code == FOUND_BY_OTHERS)
    }
}

/// A frame of the kernel's.
#[derive(Clone, Copy)]
struct Frame(*mut u8);

impl Frame {
    /// # Safety
    /// The kernel wrote it, and it is readable and writable.
    unsafe fn info(self) -> Info {
        // SAFETY: the caller vouches for the frame.
        unsafe { self.0.add(INFO_IN_FRAME).cast::<Info>().read() }
    }

    /// A word of the ucontext.
    ///
    /// # Safety
    /// As above.
    unsafe fn word(self, at: usize) -> *mut u64 {
        // SAFETY: within the frame.
        unsafe { self.0.add(CONTEXT_IN_FRAME + at).cast() }
    }

    /// Queues the signal to this thread once more, and keeps it out until somebody lets it in. If it is a fault nobody puts that
    /// off: the process ends by it.
    ///
    /// # Safety
    /// As above.
    unsafe fn put_off(self) -> Option<u64> {
        // SAFETY: passed on.
        unsafe {
            let info = self.info();
            if info.is_fault() {
                sys::set_action(info.signal, &Action::DEFAULT);
                sys::signal_self(info.signal, self.0.add(INFO_IN_FRAME));
                return None;
            }
            keep_handler(info.signal, self);
            // It is already, unless the handler lets itself be interrupted (SA_NODEFER): then it would come back at once.
            sys::block(info.bit());
            sys::signal_self(info.signal, self.0.add(INFO_IN_FRAME));
            // Blocked while the handler runs, and from now on in what was interrupted as well.
            *self.word(MASK_AT) |= info.bit();
            Some(info.bit())
        }
    }
}

/// Puts a signal off until the call that it came into is over. On that call's stack, above which the kernel's frame is.
pub(super) unsafe extern "sysv64" fn defer(vault: *const Vault, frame: *mut u8) {
    // SAFETY: the gate passes the vault of its constants, and the address of a frame that the kernel wrote.
    unsafe {
        if let Some(bit) = Frame(frame).put_off() {
            (*vault).note_signal(frame as usize, bit);
        }
    }
}

/// The same if the kernel's frame is on the handlers' alternate stack. Outside of the gate.
unsafe extern "sysv64" fn put_off_work(_: i32, _: *const Info, context: *mut u8) {
    let frame = Frame(context.wrapping_sub(CONTEXT_IN_FRAME));
    // SAFETY: `on_signal` saw that the frame is around its own return address.
    unsafe {
        let Some(mut bits) = frame.put_off() else { return };
        let stack = *frame.word(RSP_AT) as usize;
        while bits != 0 {
            bits = note(bits, stack).signals;
        }
    }
}

/// Puts a signal off that came while the gate itself was being passed; 0 if the handler is to have it now. Outside of the gate.
unsafe extern "sysv64" fn put_off_passage(_: i32, _: *const Info, context: *mut u8) -> u32 {
    let frame = Frame(context.wrapping_sub(CONTEXT_IN_FRAME));
    // SAFETY: as above. In the gate r12 is the caller's block, in memory of the program's, or says that it notes what is in r14.
    unsafe {
        if frame.info().is_fault() {
            // Only somebody who jumped into the gate meets one there.
            return 0;
        }
        match *frame.word(R12_AT) {
            0 => return 0,
            NOTE => {
                if let Some(bit) = frame.put_off() {
                    *frame.word(R14_AT) |= bit;
                }
            }
            block => {
                if let Some(bit) = frame.put_off() {
                    let late = (block as usize).wrapping_add(offset_of!(Block, late));
                    *core::ptr::with_exposed_provenance_mut::<u64>(late) |= bit;
                }
            }
        }
    }
    1
}

/// Gives the kernel the function back that it forgot when it called it (SA_RESETHAND).
unsafe fn keep_handler(signal: i32, Frame(frame): Frame) {
    let Some(action) = sys::action(signal).filter(|action| action.handler == 0) else { return };
    // SAFETY: a frame begins with the address of the function that ends the handler.
    let restorer = unsafe { frame.cast::<usize>().read() };
    let flags = action.flags | Action::SIGINFO | Action::RESETHAND | Action::RESTORER;
    sys::set_action(signal, &Action { handler: CONSTANTS.stub(), flags, restorer, ..action });
}

/// The table of the stub at an address, if it is one, of any image in this process.
fn table_of(stub: usize) -> Option<&'static Handlers> {
    let at = core::ptr::with_exposed_provenance::<u8>(stub);
    // SAFETY: a handler's code is readable. Bytes are read one after the other for as long as they are a stub's, so never beyond
    // the end of another function, which may be the end of what is mapped. A stub's table is as far away as its word says, of
    // atomics, and stays.
    unsafe {
        for (i, byte) in BEGINNING.iter().enumerate() {
            if at.add(i).read_volatile() != *byte {
                return None;
            }
        }
        let word = at.add(BEGINNING.len());
        let distance = word.cast::<i32>().read_unaligned();
        Some(&*word.offset(distance as isize).cast::<Handlers>())
    }
}

/// Chains of images have an end long before.
const CHAIN_MAX: usize = 16;

/// Where the program's handler for a signal is, in the chain that begins with this table.
pub fn last_place(first: &'static Handlers, signal: usize) -> Option<&'static AtomicUsize> {
    let mut place = first.get(signal)?;
    for _ in 0..CHAIN_MAX {
        let value = place.load(Ordering::SeqCst);
        match if value > 1 { table_of(value) } else { None } {
            Some(next) => place = next.get(signal)?,
            None => return Some(place),
        }
    }
    None
}

/// Puts a stub, with its table, at the end of the chain that begins with another image's table, before the program's handler.
pub fn insert_stub(first: &'static Handlers, stub: usize, table: &'static Handlers, signal: usize) {
    let Some(own) = table.get(signal) else { return };
    for _ in 0..CHAIN_MAX {
        let Some(place) = last_place(first, signal) else { return };
        if core::ptr::eq(place, own) {
            // It is there already.
            return;
        }
        let handler = place.load(Ordering::SeqCst);
        own.store(handler, Ordering::SeqCst);
        if place.compare_exchange(handler, stub, Ordering::SeqCst, Ordering::SeqCst).is_ok() {
            return;
        }
    }
}

/// Puts `stub`, an `on_signal` with this table, between the kernel and the program's handlers, where it is not yet.
pub fn wrap_handlers(stub: usize, table: &'static Handlers) {
    for signal in 1..SIGNALS {
        if let Some(action) = sys::action(signal as i32) {
            wrap(stub, table, signal, action);
        }
    }
}

/// Wraps one handler. Another thread may change it meanwhile: what the kernel gives back last is what counts.
fn wrap(stub: usize, table: &'static Handlers, signal: usize, mut action: Action) {
    // 0 and 1: the default, and to ignore it.
    if action.handler <= 1 {
        return;
    }
    if let Some(first) = table_of(action.handler) {
        insert_stub(first, stub, table, signal);
        return;
    }
    let Some(place) = last_place(table, signal) else { return };
    if place.load(Ordering::SeqCst) != 0 {
        // Somebody took our place by the bare system call, and may call us as the handler that he replaced: he cannot stand behind us.
        return;
    }
    while action.handler > 1 && table_of(action.handler).is_none() {
        place.store(action.handler, Ordering::SeqCst);
        // The kernel writes no siginfo for handlers that do not ask for it; those that do not are not hurt by it.
        let wrapped = Action { handler: stub, flags: action.flags | Action::SIGINFO, ..action };
        match sys::set_action(signal as i32, &wrapped) {
            Some(before) if before != action => action = before,
            _ => return,
        }
    }
}

const _: () = assert!(offset_of!(Info, code) == 8 && MASK_AT + CONTEXT_IN_FRAME == 304);
