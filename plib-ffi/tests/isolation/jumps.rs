//! Jumps into the gate: to every byte of it, with registers, flags and stacks that mean harm.

use std::arch::naked_asm;
use std::sync::atomic::{AtomicU32, AtomicUsize, Ordering::SeqCst};

use plib_core::domain::Pkru;
use plib_core::gate;

use crate::ground::{self, Places, SECRET, alone, block, child, get_block, mapping_of};
use crate::stage::{End, SIZE, handle, map};
use crate::support::heap::TestHeap;
use crate::support::report;

/// wrpkru.
const WRPKRU: [u8; 3] = [0x0f, 0x01, 0xef];
/// The gate's last instructions: the system call that returns to an interrupted call, and ud2 for whoever fails a comparison.
const LAST: [u8; 4] = [0x0f, 0x05, 0x0f, 0x0b];

/// A function's bytes from its start to its last instructions.
fn code(start: usize) -> Vec<u8> {
    // SAFETY: the gate is longer than a hundred bytes and shorter than its page's rest of the library.
    let byte = |at: usize| unsafe { ((start + at) as *const u8).read_volatile() };
    let mut code: Vec<u8> = (0..4).map(byte).collect();
    while !code.ends_with(&LAST) {
        assert!(code.len() < 2048, "the gate has no end");
        code.push(byte(code.len()));
    }
    code
}

fn wrpkrus(code: &[u8]) -> Vec<usize> {
    (0..code.len()).filter(|at| code[*at..].starts_with(&WRPKRU)).collect()
}

/// What a jump begins with.
#[repr(C)]
#[derive(Clone, Copy, Default)]
struct Registers {
    target: usize,
    stack: usize,
    flags: usize,
    rax: usize,
    rcx: usize,
    rdx: usize,
    others: [usize; 12],
}

/// The stack pointer to come back to.
static SAFE: AtomicUsize = AtomicUsize::new(0);

/// Jumps, on a stack full of [`landing`]s. Comes back by way of one of them or of [`on_signal`], with what that found.
#[unsafe(naked)]
unsafe extern "sysv64" fn leap(registers: *const Registers) -> u32 {
    naked_asm!(
        "push rbp", "push rbx", "push r12", "push r13", "push r14", "push r15",
        "mov [rip + {safe}], rsp",
        "mov rsp, [rdi + 8]",
        // The target lies where `ret` takes it and the stack below is the attacker's.
        "lea rsp, [rsp - 16]",
        "mov rax, [rdi]",
        "mov [rsp + 8], rax",
        "mov rax, [rdi + 16]",
        "mov [rsp], rax",
        "mov rax, [rdi + 24]",
        "mov rcx, [rdi + 32]",
        "mov rdx, [rdi + 40]",
        "mov rbx, [rdi + 48]",
        "mov rbp, [rdi + 56]",
        "mov rsi, [rdi + 64]",
        "mov r8, [rdi + 72]",
        "mov r9, [rdi + 80]",
        "mov r10, [rdi + 88]",
        "mov r11, [rdi + 96]",
        "mov r12, [rdi + 104]",
        "mov r13, [rdi + 112]",
        "mov r14, [rdi + 120]",
        "mov r15, [rdi + 128]",
        "mov rdi, [rdi + 136]",
        "popfq",
        "ret",
        safe = sym SAFE,
    )
}

/// The same for a stack that is not the attacker's to write: the flags are set first, and the last step is a jump.
#[unsafe(naked)]
unsafe extern "sysv64" fn leap_on(registers: *const Registers) -> u32 {
    naked_asm!(
        "push rbp", "push rbx", "push r12", "push r13", "push r14", "push r15",
        "mov [rip + {safe}], rsp",
        "push qword ptr [rdi + 16]",
        "popfq",
        "mov rsp, [rdi + 8]",
        "mov rax, [rdi + 24]",
        "mov rcx, [rdi + 32]",
        "mov rdx, [rdi + 40]",
        "mov r12, [rdi + 104]",
        "mov r13, [rdi + 112]",
        "jmp [rdi]",
        safe = sym SAFE,
    )
}

/// The bit of PKRU that closes our key; a handler begins with it alone.
static NO_ACCESS: AtomicU32 = AtomicU32::new(0);

const CAME_BACK_CLOSED: u32 = 10;
const CAME_BACK_OPEN: u32 = 11;
const SECRET_SEEN: u32 = 12;
/// The end of the child, by SIGSEGV.
const KILLED: u32 = 13;
/// A signal, with the key closed in its handler; its number is added.
const SIGNAL: u32 = 100;

/// Attacker code to come back to: leaves, and says whether the key is closed.
#[unsafe(naked)]
unsafe extern "sysv64" fn landing() {
    naked_asm!("mov esi, {closed}", "jmp {leave}", closed = const CAME_BACK_CLOSED, leave = sym leave)
}

/// A handler, which the kernel begins on the alternate stack; it leaves as well, and never returns.
#[unsafe(naked)]
unsafe extern "C" fn on_signal(_: i32) {
    naked_asm!("lea esi, [rdi + {signal}]", "jmp {leave}", signal = const SIGNAL, leave = sym leave)
}

/// Goes back to who called `leap`, with what esi says if the key is closed.
#[unsafe(naked)]
unsafe extern "sysv64" fn leave() {
    naked_asm!(
        "xor ecx, ecx", "rdpkru", "test eax, [rip + {no_access}]", "jnz 2f", "mov esi, {open}", "2:",
        "mov eax, esi", "mov rsp, [rip + {safe}]", "push 2", "popfq",
        "pop r15", "pop r14", "pop r13", "pop r12", "pop rbx", "pop rbp", "ret",
        no_access = sym NO_ACCESS, open = const CAME_BACK_OPEN, safe = sym SAFE
    )
}

/// A gate as one would first write it, with nothing after its wrpkru: the twin on which the jumps must succeed.
#[unsafe(naked)]
unsafe extern "sysv64" fn naive_gate() {
    naked_asm!("xor ecx, ecx", "xor edx, edx", "wrpkru", "mov eax, 0", "ret", "ud2")
}

/// Ends of children.
#[derive(Default, Debug)]
struct Ends {
    closed: u32,
    open: u32,
    segv: u32,
    ill: u32,
    bus: u32,
    trap: u32,
    killed: u32,
    other: Vec<u32>,
}

impl Ends {
    fn count(&mut self, what: u32) {
        match what {
            CAME_BACK_CLOSED => self.closed += 1,
            CAME_BACK_OPEN => self.open += 1,
            KILLED => self.killed += 1,
            _ => match what.wrapping_sub(SIGNAL) as i32 {
                libc::SIGSEGV => self.segv += 1,
                libc::SIGILL => self.ill += 1,
                libc::SIGBUS => self.bus += 1,
                libc::SIGTRAP => self.trap += 1,
                _ => self.other.push(what),
            },
        }
    }

    fn total(&self) -> usize {
        (self.closed + self.open + self.segv + self.ill + self.bus + self.trap + self.killed) as usize
            + self.other.len()
    }

    /// None came back with the key open, none saw the secret, none did what is not known.
    fn all_failed(&self) -> bool {
        self.open == 0 && self.other.is_empty()
    }
}

/// Whose the stack is at a jump.
#[derive(Clone, Copy, Debug)]
enum Stack {
    Attackers,
    Chained,
    Seat(usize),
    Heap,
}

/// What every register but rax, rcx and rdx holds.
#[derive(Clone, Copy, Debug)]
enum Fill {
    Zero,
    Lair,
    Heap,
    Vault,
}

/// A jump.
#[derive(Clone, Copy, Debug)]
struct Jump {
    target: usize,
    rax: usize,
    flags: usize,
    fill: Fill,
    stack: Stack,
}

/// What a child has of this process.
struct Arena {
    heap: TestHeap,
    places: Places,
    lair: Lair,
    /// What came of each jump, in memory that children share.
    ends: *mut u32,
}

/// Jumps of one child. One that ends inside of the gate may leave a seat taken.
const JUMPS_OF_A_CHILD: usize = 48;

impl Arena {
    fn new() -> Self {
        let heap = ground::guarded_heap();
        let places = Places::of(&heap.path);
        NO_ACCESS.store(Pkru::mask(places.key) & 0x5555_5555, SeqCst);
        Self { heap, places, lair: Lair::new(), ends: map(libc::PROT_READ | libc::PROT_WRITE, true).cast() }
    }

    /// Makes the jumps, in children; what came of each.
    fn run(&self, jumps: &[Jump]) -> Vec<u32> {
        let mut all = Vec::new();
        while all.len() < jumps.len() {
            let part: Vec<_> = jumps[all.len()..].iter().take(JUMPS_OF_A_CHILD).collect();
            // SAFETY: the pages hold more words than a child makes jumps; no child is there.
            unsafe { self.ends.write_bytes(0, part.len()) };
            let end = child(|| {
                self.heap.cache.get(b"secret").expect("get");
                let heap = mapping_of(&self.heap.path).0.start;
                for signal in [libc::SIGSEGV, libc::SIGBUS, libc::SIGILL, libc::SIGTRAP] {
                    handle(signal, on_signal as *const () as usize, libc::SA_ONSTACK | libc::SA_NODEFER);
                }
                for (at, jump) in part.iter().enumerate() {
                    // SAFETY: as above; the parent reads them after the child's end.
                    unsafe { self.ends.add(at).write(self.jump(jump, heap)) };
                }
                0
            });
            // SAFETY: as above.
            let words = (0..part.len()).map(|at| unsafe { self.ends.add(at).read() });
            all.extend(words.take_while(|word| *word != 0));
            // Where not even a signal can be delivered (key 0 closed, or all signals blocked by what stood in the place of a
            // frame) the kernel kills; and a build that checks its pointers aborts by itself.
            match end {
                End::Told(0) => {}
                End::Other(libc::SIGSEGV | libc::SIGILL | libc::SIGBUS | libc::SIGTRAP | libc::SIGABRT) => {
                    all.push(KILLED)
                }
                _ => panic!("{:x?} was the end of all: {end:?}", jumps[all.len()]),
            }
        }
        all
    }

    fn jump(&self, jump: &Jump, heap: usize) -> u32 {
        let top = self.lair.lay(matches!(jump.stack, Stack::Chained));
        let (stack, is_own) = match jump.stack {
            Stack::Attackers | Stack::Chained => (top, true),
            Stack::Seat(seat) => (self.places.stack(seat).end - 64, false),
            Stack::Heap => (heap + 65536, false),
        };
        let value = match jump.fill {
            Fill::Zero => 0,
            Fill::Lair => self.lair.start,
            Fill::Heap => heap,
            Fill::Vault => self.places.vault.start,
        };
        let Jump { target, rax, flags, .. } = *jump;
        let registers = Registers { target, stack, flags: flags | 2, rax, others: [value; 12], ..Registers::default() };
        // SAFETY: wherever the jump leads, it is back by a landing or a handler, or the child ends; the attack is what is tested.
        // What the gate can write on the way lies in the lair or behind the key.
        let end = unsafe { if is_own { leap(&registers) } else { leap_on(&registers) } };
        if self.lair.holds_secret() { SECRET_SEEN } else { end }
    }

    /// Runs them and counts; each must fail.
    fn all_fail(&self, jumps: &[Jump]) -> Ends {
        let mut ends = Ends::default();
        for (jump, what) in jumps.iter().zip(self.run(jumps)) {
            ends.count(what);
            assert!(ends.all_failed(), "{jump:x?} ended with {what}");
        }
        assert_eq!(ends.total(), jumps.len());
        ground::unharmed(&self.heap.cache, "after all jumps");
        ends
    }
}

/// The attacker's memory: an argument block, a stack, and room that a block names; shared, so that what a child got is seen.
struct Lair {
    start: usize,
    /// Of the item that its block asks for.
    key: &'static [u8],
}

const ROOM: usize = 1024;
const STACK: usize = 32 << 10;

impl Lair {
    fn new() -> Self {
        Self { start: map(libc::PROT_READ | libc::PROT_WRITE, true) as usize, key: b"no such key" }
    }

    /// As at the beginning: a block that asks for an item, and a stack full of landings, of which it says the top. If `chained`, the
    /// two words at the top are what the gate takes from a seat's stack on its way back: where to go on.
    fn lay(&self, chained: bool) -> usize {
        let top = self.start + STACK;
        let words = (SIZE - STACK) / 8;
        // SAFETY: all of it lies in the mapping, which is used by nobody else.
        unsafe {
            std::ptr::write_bytes(self.start as *mut u8, 0, SIZE);
            let room = std::slice::from_raw_parts_mut((self.start + ROOM) as *mut u8, 4096);
            (self.start as *mut gate::Block).write(get_block(self.key, room));
            let stack = top as *mut usize;
            (0..words).for_each(|at| stack.add(at).write(landing as *const () as usize));
            if chained {
                stack.write(top + 4096);
                stack.add(1).write(self.start + 16384);
            }
        }
        top
    }

    fn holds_secret(&self) -> bool {
        // SAFETY: the mapping, which no child uses any more.
        let words = unsafe { std::slice::from_raw_parts(self.start as *const [u8; 8], SIZE / 8) };
        // It is long enough to fill at least one aligned word wherever it lies.
        words.iter().any(|word| word == &SECRET[..8])
    }
}

const DIRECTION: usize = 1 << 10;
const ALIGNMENT_CHECK: usize = 1 << 18;
const TRAP: usize = 1 << 8;

#[test]
fn a_jump_to_any_byte_of_the_gate_never_comes_back_with_the_key_open() {
    let _alone = alone();
    let arena = Arena::new();
    let gate = ground::gate() as usize;
    let len = code(gate).len();
    let kinds = [
        (Fill::Zero, 0, Stack::Attackers),
        (Fill::Lair, 0, Stack::Attackers),
        (Fill::Lair, 0, Stack::Chained),
        (Fill::Heap, DIRECTION, Stack::Attackers),
        (Fill::Vault, DIRECTION | ALIGNMENT_CHECK, Stack::Chained),
        (Fill::Lair, TRAP, Stack::Attackers),
    ];
    let of_kind =
        |(fill, flags, stack)| (gate..gate + len).map(move |target| Jump { target, rax: 0, flags, fill, stack });
    let jumps: Vec<Jump> = kinds.into_iter().flat_map(of_kind).collect();
    let ends = arena.all_fail(&jumps);
    report(format_args!("{} jumps to {len} bytes: {ends:?}", ends.total()));
    assert!(ends.closed > 20 && ends.segv > 100 && ends.ill > 2 && ends.trap > 100, "{ends:?}");
}

#[test]
fn at_and_after_each_wrpkru_no_value_flag_or_stack_helps() {
    let _alone = alone();
    let arena = Arena::new();
    let gate = ground::gate() as usize;
    let wrpkrus = wrpkrus(&code(gate));
    assert_eq!(wrpkrus.len(), 2);
    let shift = 2 * arena.places.key.number();
    let mut jumps = Vec::new();
    for at in wrpkrus.iter().flat_map(|at| [*at, at + WRPKRU.len()]) {
        // Open, read only, write only (which is closed), closed; and with key 0 closed as well.
        for rax in [0, 2 << shift, 1 << shift, 3 << shift, 1] {
            for flags in [0, TRAP, ALIGNMENT_CHECK] {
                for stack in [Stack::Attackers, Stack::Seat(0), Stack::Seat(1), Stack::Heap] {
                    jumps.push(Jump { target: gate + at, rax, flags, fill: Fill::Lair, stack });
                }
            }
        }
    }
    let ends = arena.all_fail(&jumps);
    report(format_args!("{} jumps: {ends:?}", ends.total()));
    // A fault in the call itself is nobody's to handle: it kills.
    assert!(ends.trap > 10 && ends.segv + ends.killed > 50 && ends.ill > 10 && ends.closed > 0, "{ends:?}");
}

#[test]
fn the_same_jump_into_a_naive_gate_opens_the_heap() {
    let _alone = alone();
    let arena = Arena::new();
    let naive = naive_gate as *const () as usize;
    // SAFETY: its first bytes.
    let code: Vec<u8> = (0..16).map(|at| unsafe { ((naive + at) as *const u8).read_volatile() }).collect();
    let target = naive + wrpkrus(&code)[0];
    let ends = arena.run(&[Jump { target, rax: 0, flags: 0, fill: Fill::Lair, stack: Stack::Attackers }]);
    assert_eq!(ends, [CAME_BACK_OPEN]);
}

#[test]
fn a_whole_call_by_jump_is_a_call_and_no_more() {
    let _alone = alone();
    let mut arena = Arena::new();
    arena.lair.key = b"secret";
    let gate = ground::gate() as usize;
    let target = gate + wrpkrus(&code(gate))[0];
    // To the instruction that opens, with a block that asks for the secret: the work is done as for any caller, which also shows
    // that the search for the secret finds it, and the key is closed at the end.
    let jump = Jump { target, rax: 0, flags: 0, fill: Fill::Lair, stack: Stack::Attackers };
    assert_eq!(arena.run(&[jump]), [SECRET_SEEN]);
    // A block that lies behind the key is not even looked at.
    for at in [arena.places.heap.start, arena.places.vault.start, arena.places.stack(3).start] {
        // SAFETY: whatever the gate makes of the address is what is tested.
        let seat = unsafe { ground::gate()(at as *mut gate::Block, 0) }.seat;
        assert!((seat as usize) < gate::SEATS && arena.places.is_closed());
    }
    let mut outside = block(0, 0, &[]);
    // SAFETY: the block is ours; seats that there are none of.
    let seats = [0, 5, 127, 128, 129, u32::MAX].map(|hint| unsafe { ground::gate()(&mut outside, hint) }.seat);
    assert_eq!(seats, [0, 5, 127, 0, 0, 0], "a seat out of range is the first");
    ground::unharmed(&arena.heap.cache, "after calls by hand");
}
