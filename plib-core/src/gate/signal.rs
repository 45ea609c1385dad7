//! Signals that come during a call.
//!
//! A handler must not run in the middle of one: it would find the key closed on a stack behind the key, and the caches of others in the
//! registers that it is shown. So the kernel is given [`on_signal`] in the place of each of the program's handlers. Outside
//! of calls that is nothing but a jump to the handler. During a call it goes through the gate, sends the signal to its own
//! thread once more, blocks it, and returns into the call; when that has left the gate, its caller lets the signal in
//! (`Gated::call`), and the kernel delivers it there.
//!
//! ```text
//! outside: kernel -> on_signal -> handler -> sigreturn
//! inside:  kernel -> on_signal -> OPEN -> defer: queue, block -> sigreturn -> the call goes on -> CLOSE -> unblock -> kernel -> ...
//! ```
//! `on_signal` touches no memory of a stack before the key is open. What the kernel saved of the call it saved behind the key.

use super::entry::CONSTANTS;
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

/// What the kernel calls for a signal, instead of the program's handler.
///
/// # Safety
/// Only the kernel may call it, of a process whose gate is ready.
#[unsafe(naked)]
pub unsafe extern "sysv64" fn on_signal() {
    naked_asm!(
        "endbr64",
        "mov rax, rsp",
        "sub rax, qword ptr [rip + {constants} + {vault}]",
        "cmp rax, {vault_size}",
        "jb 2f",
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
    )
}

/// Where things are in the frame that the kernel makes (`struct rt_sigframe`: return address, ucontext, siginfo).
const FRAME_MASK: usize = 304;
const FRAME_INFO: usize = 312;

/// The beginning of a siginfo.
#[repr(C)]
struct Info {
    signal: i32,
    error: i32,
    code: i32,
}

/// Puts a signal off until the call that it came into is over. On that call's stack, above which the kernel's frame is.
pub(super) unsafe extern "sysv64" fn defer(vault: *const Vault, frame: *mut u8) {
    // SAFETY: the gate passes the vault of its constants, and the address of a frame that the kernel wrote.
    let (vault, info, mask) = unsafe {
        let info = frame.add(FRAME_INFO);
        (&*vault, info, frame.add(FRAME_MASK).cast::<u64>())
    };
    // SAFETY: as above.
    let Info { signal, code, .. } = unsafe { info.cast::<Info>().read() };
    if code > 0 && sys::is_fault(signal) {
        // The call itself did that: it was given memory that is not there. It cannot go on, so the process ends as if it had no handler.
        sys::set_action(signal, &Action::DEFAULT);
        return;
    }
    let bit = 1u64 << ((signal as u32).wrapping_sub(1) % 64);
    // SAFETY: as above.
    unsafe {
        keep_handler(signal, frame);
        // It is already, unless the handler lets itself be interrupted (SA_NODEFER): then it would come back at once.
        sys::block(bit);
        sys::signal_self(signal, info);
        // Blocked while the handler runs, and from now on in the call as well.
        *mask |= bit;
    }
    vault.note_signal(frame as usize, bit);
}

/// Gives the kernel the function back that it forgot when it called it (SA_RESETHAND).
unsafe fn keep_handler(signal: i32, frame: *mut u8) {
    let Some(action) = sys::action(signal).filter(|action| action.handler == 0) else { return };
    // SAFETY: a frame begins with the address of the function that ends the handler.
    let restorer = unsafe { frame.cast::<usize>().read() };
    let flags = action.flags | Action::SIGINFO | Action::RESETHAND | Action::RESTORER;
    sys::set_action(signal, &Action { handler: CONSTANTS.stub(), flags, restorer, ..action });
}

/// Puts `stub`, an `on_signal`, in the place of the program's handlers that are not wrapped yet, and them into `handlers`.
pub fn wrap_handlers(stub: usize, handlers: &Handlers) {
    for (signal, handler) in (0..).zip(handlers).skip(1) {
        if let Some(action) = sys::action(signal) {
            wrap(stub, handler, signal, action);
        }
    }
}

/// Wraps one handler. Another thread may change it meanwhile: what the kernel gives back last is what counts.
fn wrap(stub: usize, handler: &AtomicUsize, signal: i32, mut action: Action) {
    // 0 and 1: the default, and to ignore it.
    while action.handler > 1 && action.handler != stub {
        handler.store(action.handler, Ordering::Release);
        // The kernel writes no siginfo for handlers that do not ask for it; those that do not are not hurt by it.
        let wrapped = Action { handler: stub, flags: action.flags | Action::SIGINFO, ..action };
        match sys::set_action(signal, &wrapped) {
            Some(before) if before != action => action = before,
            _ => return,
        }
    }
}

const _: () = assert!(offset_of!(Info, code) == 8);
