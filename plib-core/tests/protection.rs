//! What protection keys do and do not do, on this processor under this kernel: the facts that the gate stands on.
//!
//! Needs a machine with protection keys: `scripts/protection-test` runs it in emulated ones, under each kernel.
#![cfg(not(loom))]
#![allow(missing_docs, reason = "a test")]

#[path = "protection/stage.rs"]
mod stage;

use std::arch::{asm, naked_asm};
use std::sync::atomic::{AtomicU32, Ordering::SeqCst};
use std::sync::{Mutex, MutexGuard, mpsc};

use plib_core::domain::{Access, Pkru, Protection, ProtectionKey, ProtectionKeys};
use stage::{End, Guarded, INITIAL, alternate_stack, handle, in_child, keys, read, write};

/// si_code of a fault that a key caused, and of one that the kernel sends because it could not go on (asm-generic/siginfo.h).
const SEGV_PKUERR: i32 = 4;
const SI_KERNEL: i32 = 0x80;

/// Keys are the process's, so one test at a time.
fn alone() -> MutexGuard<'static, ()> {
    static ALONE: Mutex<()> = Mutex::new(());
    ALONE.lock().unwrap_or_else(|failed| failed.into_inner())
}

#[test]
fn detection_agrees_with_the_kernel() {
    let flags = std::fs::read_to_string("/proc/cpuinfo").unwrap();
    let has = |name: &str| flags.split_whitespace().any(|flag| flag == name);
    assert!(has("pku") && has("ospke"), "no protection keys in /proc/cpuinfo: run scripts/protection-test");
    assert_eq!(ProtectionKeys::detect(), ProtectionKeys::On(keys()));
}

#[test]
fn there_are_15_keys_each_given_as_asked_and_once() {
    let _alone = alone();
    let on = keys();
    let mut had = Vec::new();
    let end = loop {
        let access = [Access::Open, Access::ReadOnly, Access::Closed][had.len() % 3];
        match ProtectionKey::allocate(on, access) {
            Ok(key) => {
                assert_eq!(Pkru::read(on).access(key), access, "{key:?}");
                assert!(!had.contains(&key));
                had.push(key);
            }
            Err(e) => break e,
        }
    };
    assert_eq!((had.len(), end.0), (15, libc::ENOSPC));
    for key in had {
        // SAFETY: no page ever carried it.
        unsafe { key.free() }.unwrap();
        // SAFETY: as above; a key that is nobody's is refused.
        assert_eq!(unsafe { key.free() }.unwrap_err().0, libc::EINVAL);
    }
}

#[test]
fn a_closed_key_faults_and_an_open_one_does_not() {
    let _alone = alone();
    let pages = Guarded::new(Access::Open, Protection::ReadWrite);
    write(pages.start, 77);
    let try_both = |access| {
        let reading = in_child(|| {
            pages.set(access);
            read(pages.start).into()
        });
        let writing = in_child(|| {
            pages.set(access);
            write(pages.start, 77);
            1
        });
        (reading, writing)
    };
    let by_key = |end| matches!(end, End::Fault { code: SEGV_PKUERR, pkey, .. } if pkey == pages.key.number().into());
    assert_eq!(try_both(Access::Open), (End::Told(77), End::Told(1)));
    let (reading, writing) = try_both(Access::ReadOnly);
    assert!(reading == End::Told(77) && by_key(writing), "{reading:?} {writing:?}");
    let (reading, writing) = try_both(Access::Closed);
    assert!(by_key(reading) && by_key(writing), "{reading:?} {writing:?}");
}

#[test]
fn a_key_does_not_stop_instructions_from_being_fetched() {
    let _alone = alone();
    let pages = Guarded::new(Access::Open, Protection::ReadWrite);
    const MOV_EAX_99_RET: [u8; 6] = [0xb8, 99, 0, 0, 0, 0xc3];
    MOV_EAX_99_RET.iter().enumerate().for_each(|(i, byte)| write(pages.start.wrapping_add(i), *byte));
    let call = || {
        pages.set(Access::Closed);
        // SAFETY: the page holds a function of that type.
        unsafe { std::mem::transmute::<*mut u8, extern "C" fn() -> u32>(pages.start)() }
    };
    // Without PROT_EXEC it is no matter of the key.
    let end = in_child(call);
    assert!(matches!(end, End::Fault { code: 2, .. }), "{end:?}");
    // SAFETY: the pages are this test's alone, and nothing relies on their protection.
    unsafe { pages.key.guard(pages.start, stage::SIZE, Protection::ReadExecute) }.unwrap();
    assert_eq!(in_child(call), End::Told(99));
}

#[test]
fn threads_begin_with_what_their_maker_had() {
    let _alone = alone();
    let (ask, asked) = mpsc::channel::<ProtectionKey>();
    let on = keys();
    let older = std::thread::spawn(move || Pkru::read(on).access(asked.recv().unwrap()));
    let pages = Guarded::new(Access::Open, Protection::ReadWrite);
    ask.send(pages.key).unwrap();
    assert_eq!(older.join().unwrap(), Access::Closed, "a thread from before the key");
    let key = pages.key;
    let younger = std::thread::spawn(move || Pkru::read(on).access(key));
    assert_eq!(younger.join().unwrap(), Access::Open, "a thread from an open moment");
    assert_eq!(pages.access(), Access::Open);
}

/// What PKRU the handlers below found; 0 is not yet.
static HANDLER_PKRU: AtomicU32 = AtomicU32::new(0);

/// Tells PKRU and returns. Touches no stack but through the kernel's sigreturn (15), which is all that a C handler's `ret` leads to.
#[unsafe(naked)]
unsafe extern "C" fn stackless() {
    naked_asm!(
        "xor ecx, ecx", "rdpkru", "mov dword ptr [rip + {seen}], eax",
        "add rsp, 8", "mov eax, 15", "syscall", "ud2", seen = sym HANDLER_PKRU
    )
}

/// The same, but opens all keys first.
#[unsafe(naked)]
unsafe extern "C" fn opening() {
    naked_asm!(
        "xor ecx, ecx", "rdpkru", "mov dword ptr [rip + {seen}], eax", "xor eax, eax", "xor edx, edx", "wrpkru",
        "add rsp, 8", "mov eax, 15", "syscall", "ud2", seen = sym HANDLER_PKRU
    )
}

/// As any compiled handler: it pushes first.
#[unsafe(naked)]
unsafe extern "C" fn ordinary() {
    naked_asm!(
        "push rbp", "xor ecx, ecx", "rdpkru", "mov dword ptr [rip + {seen}], eax", "pop rbp", "ret", seen = sym HANDLER_PKRU
    )
}

/// Sends SIGUSR1 to this thread with the stack pointer at `top`.
fn signal_on_stack(top: *mut u8) {
    // SAFETY: getpid and gettid change nothing. The system call is made with another stack pointer, which is put back at once;
    // r12 survives a system call and a handler.
    unsafe {
        let (pid, tid) = (libc::getpid(), libc::syscall(libc::SYS_gettid));
        asm!("mov r12, rsp", "mov rsp, {top}", "syscall", "mov rsp, r12", top = in(reg) top.wrapping_sub(256),
             inlateout("rax") libc::SYS_tgkill => _, in("rdi") pid, in("rsi") tid, in("rdx") libc::SIGUSR1,
             out("r12") _, out("rcx") _, out("r11") _);
    }
}

/// A child whose stack pointer is on `pages` with the key open, and gets a signal. It tells what PKRU the handler had, or 1 if PKRU
/// is another after it than before.
fn signal_on_keyed_stack(pages: &Guarded, handler: unsafe extern "C" fn(), flags: i32) -> End {
    in_child(|| {
        handle(libc::SIGUSR1, handler as *const () as usize, flags);
        pages.set(Access::Open);
        let before = Pkru::read(pages.on);
        signal_on_stack(pages.top());
        if Pkru::read(pages.on) == before { HANDLER_PKRU.load(SeqCst) } else { 1 }
    })
}

#[test]
fn a_handler_begins_with_the_initial_pkru_and_its_return_restores_the_old() {
    let _alone = alone();
    let pages = Guarded::new(Access::Open, Protection::ReadWrite);
    // On the thread's own stack: the address of a local serves as the top of what is free below it.
    let end = in_child(|| {
        handle(libc::SIGUSR1, ordinary as *const () as usize, 0);
        let before = Pkru::read(pages.on);
        let mut here = 0u64;
        signal_on_stack((&raw mut here).cast::<u8>().wrapping_sub(4096));
        if (Pkru::read(pages.on), pages.access()) == (before, Access::Open) { HANDLER_PKRU.load(SeqCst) } else { 1 }
    });
    assert_eq!(end, End::Told(INITIAL.0));
}

#[test]
fn on_an_unkeyed_alternate_stack_handlers_work_while_the_keyed_one_is_in_use() {
    let _alone = alone();
    let pages = Guarded::new(Access::Closed, Protection::ReadWrite);
    for handler in [ordinary, stackless, opening] {
        assert_eq!(signal_on_keyed_stack(&pages, handler, libc::SA_ONSTACK), End::Told(INITIAL.0));
    }
}

#[test]
fn on_a_keyed_stack_the_frame_is_written_and_the_handler_must_open_the_key_itself() {
    let _alone = alone();
    let pages = Guarded::new(Access::Closed, Protection::ReadWrite);
    // Its first push.
    let end = signal_on_keyed_stack(&pages, ordinary, 0);
    let (key, push) = (pages.key.number().into(), ordinary as *const () as u64);
    assert_eq!(end, End::Fault { code: SEGV_PKUERR, pkey: key, at: push });
    // The kernel opens keys to write a frame (if at all), never to read one: sigreturn finds the key closed.
    let end = signal_on_keyed_stack(&pages, stackless, 0);
    assert!(matches!(end, End::Fault { code: SI_KERNEL, .. }), "{end:?}");
    assert_eq!(signal_on_keyed_stack(&pages, opening, 0), End::Told(INITIAL.0));
}

#[test]
fn the_kernel_writes_frames_into_closed_pages_since_6_12() {
    let _alone = alone();
    let pages = Guarded::new(Access::Open, Protection::ReadWrite);
    let end = in_child(|| {
        handle(libc::SIGUSR1, stackless as *const () as usize, libc::SA_ONSTACK);
        alternate_stack(pages.start);
        pages.set(Access::Closed);
        let mut here = 0u64;
        signal_on_stack((&raw mut here).cast::<u8>().wrapping_sub(4096));
        2
    });
    // On either kernel it dies of it, as the handler of SIGSEGV has no other stack; what differs is what is left in the pages.
    assert_eq!(end, End::Other(libc::SIGSEGV));
    let written = (0..stage::SIZE).filter(|i| read(pages.start.wrapping_add(*i)) != 0).count();
    eprintln!("Linux {:?} wrote {written} bytes into closed pages", stage::kernel());
    assert_eq!(written > 100, stage::kernel() >= (6, 12));
    assert!(written == 0 || written > 100);
}
