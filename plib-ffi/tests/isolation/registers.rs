//! What a call leaves in registers and flags, and what it lets be.

use std::arch::naked_asm;
use std::sync::Mutex;

use plib_core::domain::Pkru;
use plib_core::gate::{self, Block, Left};

use crate::ground::{self, Places, SECRET, alone, child, get_block, guarded_heap, unguarded_heap};
use crate::stage::{End, keys, set_pkru};
use crate::support::report;

/// A call as the gate takes it.
type Entry = unsafe extern "sysv64" fn(*mut Block, u32) -> Left;

/// Registers before or after a call, in the order of `probe`'s offsets.
#[repr(C, align(16))]
#[derive(Clone, Copy, Default, Debug, PartialEq)]
struct State {
    xmm: [[u64; 2]; 16],
    rax: u64,
    rcx: u64,
    rdx: u64,
    rsi: u64,
    rdi: u64,
    r8_to_r11: [u64; 4],
    /// rbx, rbp, r12 to r15.
    saved: [u64; 6],
    rsp: u64,
    flags: u64,
    mxcsr: u64,
}

/// Sets every register of `before` but rax, rdi, rsi, rsp, calls, and tells them all.
#[unsafe(naked)]
unsafe extern "sysv64" fn probe(entry: Entry, block: *mut Block, before: *const State, after: *mut State) {
    naked_asm!(
        "push rbx",
        "push rbp",
        "push r12",
        "push r13",
        "push r14",
        "push r15",
        "sub rsp, 40",
        // [rsp]: room; +8: ours of mxcsr; +16: after.
        "stmxcsr [rsp + 8]",
        "mov [rsp + 16], rcx",
        "mov rax, rdi",
        "mov rdi, rsi",
        "ldmxcsr [rdx + 392]",
        "movups xmm0, [rdx]",
        "movups xmm1, [rdx + 16]",
        "movups xmm2, [rdx + 32]",
        "movups xmm3, [rdx + 48]",
        "movups xmm4, [rdx + 64]",
        "movups xmm5, [rdx + 80]",
        "movups xmm6, [rdx + 96]",
        "movups xmm7, [rdx + 112]",
        "movups xmm8, [rdx + 128]",
        "movups xmm9, [rdx + 144]",
        "movups xmm10, [rdx + 160]",
        "movups xmm11, [rdx + 176]",
        "movups xmm12, [rdx + 192]",
        "movups xmm13, [rdx + 208]",
        "movups xmm14, [rdx + 224]",
        "movups xmm15, [rdx + 240]",
        "mov rbx, [rdx + 328]",
        "mov rbp, [rdx + 336]",
        "mov r12, [rdx + 344]",
        "mov r13, [rdx + 352]",
        "mov r14, [rdx + 360]",
        "mov r15, [rdx + 368]",
        "mov r8, [rdx + 296]",
        "mov r9, [rdx + 304]",
        "mov r10, [rdx + 312]",
        "mov r11, [rdx + 320]",
        "mov rcx, [rdx + 264]",
        "mov [rsp], rsp",
        "push qword ptr [rdx + 384]",
        "mov rdx, [rdx + 272]",
        "mov esi, 0",
        "popfq",
        "call rax",
        // Told from here on; push and mov change no flag.
        "pushfq",
        "push rax",
        "mov rax, [rsp + 32]",
        "movups [rax], xmm0",
        "movups [rax + 16], xmm1",
        "movups [rax + 32], xmm2",
        "movups [rax + 48], xmm3",
        "movups [rax + 64], xmm4",
        "movups [rax + 80], xmm5",
        "movups [rax + 96], xmm6",
        "movups [rax + 112], xmm7",
        "movups [rax + 128], xmm8",
        "movups [rax + 144], xmm9",
        "movups [rax + 160], xmm10",
        "movups [rax + 176], xmm11",
        "movups [rax + 192], xmm12",
        "movups [rax + 208], xmm13",
        "movups [rax + 224], xmm14",
        "movups [rax + 240], xmm15",
        "mov [rax + 264], rcx",
        "mov [rax + 272], rdx",
        "mov [rax + 280], rsi",
        "mov [rax + 288], rdi",
        "mov [rax + 296], r8",
        "mov [rax + 304], r9",
        "mov [rax + 312], r10",
        "mov [rax + 320], r11",
        "mov [rax + 328], rbx",
        "mov [rax + 336], rbp",
        "mov [rax + 344], r12",
        "mov [rax + 352], r13",
        "mov [rax + 360], r14",
        "mov [rax + 368], r15",
        "pop rcx",
        "mov [rax + 256], rcx",
        "pop rcx",
        "mov [rax + 384], rcx",
        // 0 if the stack pointer is where it was.
        "mov rcx, [rsp]",
        "sub rcx, rsp",
        "mov [rax + 376], rcx",
        "stmxcsr [rax + 392]",
        "ldmxcsr [rsp + 8]",
        "cld",
        "add rsp, 40",
        "pop r15",
        "pop r14",
        "pop r13",
        "pop r12",
        "pop rbp",
        "pop rbx",
        "ret",
    )
}

const _: () = {
    use std::mem::offset_of;
    assert!(offset_of!(State, rax) == 256 && offset_of!(State, rcx) == 264 && offset_of!(State, r8_to_r11) == 296);
    assert!(offset_of!(State, saved) == 328 && offset_of!(State, rsp) == 376 && offset_of!(State, flags) == 384);
    assert!(offset_of!(State, mxcsr) == 392);
};

const DIRECTION: u64 = 1 << 10;
/// All exceptions masked, rounding towards zero: not what programs begin with.
const ODD_MXCSR: u64 = 0x7f80;

/// Something unlike anything that the library would leave.
fn pattern() -> State {
    let word = |n: u64| 0xc3d2_e1f0_a5b4_0000 | n;
    State {
        xmm: std::array::from_fn(|n| [word(n as u64), word(100 + n as u64)]),
        rcx: word(200),
        rdx: word(201),
        r8_to_r11: std::array::from_fn(|n| word(300 + n as u64)),
        saved: std::array::from_fn(|n| word(400 + n as u64)),
        flags: DIRECTION | 2,
        mxcsr: ODD_MXCSR,
        ..State::default()
    }
}

fn probed(entry: Entry, block: &mut Block) -> State {
    let mut after = State::default();
    // SAFETY: both are gates in shape; `probe` keeps what a function must keep, and the block is ours.
    unsafe { probe(entry, block, &pattern(), &mut after) };
    after
}

/// Words of every register that may hold what a call left.
fn scratch(state: &State) -> Vec<u64> {
    let State { xmm, rcx, rdx, rsi, rdi, r8_to_r11, .. } = state;
    let mut words: Vec<u64> = xmm.iter().flatten().copied().collect();
    words.extend([rcx, rdx, rsi, rdi]);
    words.extend(r8_to_r11);
    words
}

const LONG: usize = 4096;

#[test]
fn a_call_leaves_nothing_in_registers_and_restores_what_is_the_callers() {
    let _alone = alone();
    let heap = guarded_heap();
    let long: Vec<u8> = (0..LONG).map(|i| (i % 251) as u8).collect();
    heap.cache.set(b"long", &long, 0, 0).unwrap();
    let (key, mut buf, mut stats) = (b"secret", vec![0u8; LONG], [0u64; 64]);
    let at_key = [key.as_ptr() as u64, key.len() as u64];
    let stored = [b"other".as_ptr() as u64, 5, long.as_ptr() as u64, 300, 0, 0, 0, 0];
    let mut request = plib_core::GetRequest {
        key: key.as_ptr(),
        key_len: 6,
        buf: buf.as_mut_ptr(),
        buf_len: LONG,
        value_len: 0,
        cas: 0,
        flags: 0,
        expiry: 0,
        status: 99,
        pad: 0,
    };
    let stats_len = size_of::<plib_core::Stats>() as u64;
    assert!(stats_len as usize <= size_of_val(&stats));
    use gate::Operation::{Delete, GetMany, Reap, Scan, Stats, Store, Touch};
    let calls = [
        ("get", get_block(key, &mut buf)),
        ("get of a long value", get_block(b"long", &mut buf)),
        ("miss", get_block(b"no such key", &mut buf)),
        ("store", ground::block(Store as u32, 0, &stored)),
        ("touch", ground::block(Touch as u32, 0, &[at_key[0], at_key[1], 0])),
        ("delete", ground::block(Delete as u32, 0, &[b"other".as_ptr() as u64, 5])),
        ("batch", ground::block(GetMany as u32, 0, &[(&raw mut request) as u64, 1])),
        (
            "scan",
            ground::block(Scan as u32, 0, &[buf.as_mut_ptr() as u64, 300, buf[300..].as_mut_ptr() as u64, 3000, 0]),
        ),
        ("stats", ground::block(Stats as u32, 0, &[stats.as_mut_ptr() as u64, stats_len])),
        ("reap", ground::block(Reap as u32, 0, &[])),
        ("no operation", ground::block(4711, 0, &[])),
    ];
    let before = pattern();
    for (what, mut block) in calls {
        let after = probed(ground::gate(), &mut block);
        let expected = [1, 9].contains(&block.answer.status) == ["miss", "no operation"].contains(&what);
        assert!(expected && block.answer.status != ground::UNANSWERED, "{what}: {:?}", block.answer);
        assert!(scratch(&after).iter().all(|word| *word == 0), "{what}: {after:x?}");
        assert!(after.rax < gate::SEATS as u64, "{what}: rax is the seat: {:x}", after.rax);
        assert_eq!((after.saved, after.rsp, after.mxcsr), (before.saved, 0, ODD_MXCSR), "{what}");
        assert_eq!(after.flags & DIRECTION, 0, "{what}");
    }
    assert_eq!(request.status, 0);
    report(format_args!("11 calls: {} words of scratch registers zero after each", scratch(&before).len()));
    ground::unharmed(&heap.cache, "after the calls");
}

/// A call on tier none, in the gate's shape.
unsafe extern "sysv64" fn direct_get(_: *mut Block, _: u32) -> Left {
    let direct = DIRECT.lock().unwrap();
    let cache = direct.as_ref().expect("a handle");
    let mut buf = [0; 64];
    let found = cache.get_into(b"secret key", &mut buf);
    Left { seat: found.map_or(0, |found| found.map_or(0, |info| info.value_len as u64)), signals: 0 }
}

static DIRECT: Mutex<Option<plib::Cache>> = Mutex::new(None);

#[test]
fn a_call_on_tier_none_leaves_the_value_in_registers() {
    let _alone = alone();
    let heap = unguarded_heap();
    heap.cache.set(b"secret key", SECRET, 0, 0).unwrap();
    *DIRECT.lock().unwrap() = Some(heap.cache.clone());
    let mut unused = ground::block(0, 0, &[]);
    let entry: Entry = direct_get;
    // Without DF, which nothing clears there.
    let mut after = State::default();
    let before = State { flags: 2, ..pattern() };
    // SAFETY: as in `probed`.
    unsafe { probe(entry, &mut unused, &before, &mut after) };
    assert_eq!(after.rax, 64);
    let secret = u64::from_ne_bytes([0x5e; 8]);
    let left = scratch(&after).iter().filter(|word| **word == secret).count();
    report(format_args!("{left} words of the value in registers after a call without a gate"));
    assert!(left > 0, "{after:x?}");
    *DIRECT.lock().unwrap() = None;
}

/// What a call does with memory if nobody clears DF: copies in the wrong direction.
unsafe extern "sysv64" fn bare_copy(block: *mut Block, _: u32) -> Left {
    // SAFETY: the test names the middles of two buffers, so that either direction stays inside.
    unsafe {
        let [to, from, ..] = (*block).call.words;
        plib_core::user::copy(to as *mut u8, from as *const u8, LONG);
    }
    Left { seat: 0, signals: 0 }
}

#[test]
fn the_direction_flag_of_a_caller_does_not_reach_the_work() {
    let _alone = alone();
    let heap = guarded_heap();
    let long: Vec<u8> = (0..LONG).map(|i| (i % 251) as u8).collect();
    heap.cache.set(b"long", &long, 0, 0).unwrap();
    let mut buf = vec![0u8; LONG];
    let mut block = get_block(b"long", &mut buf);
    for _ in 0..100 {
        buf.fill(0);
        assert_eq!(pattern().flags & DIRECTION, DIRECTION);
        probed(ground::gate(), &mut block);
        assert!(block.answer.status == 0 && buf == long);
    }
    let end = child(|| {
        let (from, mut to) = (vec![1u8; 3 * LONG], vec![0u8; 3 * LONG]);
        let words = [to[LONG..].as_mut_ptr() as u64, from[LONG..].as_ptr() as u64];
        probed(bare_copy, &mut ground::block(0, 0, &words));
        to[LONG + 1..].iter().all(|byte| *byte == 0).into()
    });
    assert_eq!(end, End::Told(1), "without a gate the flag is seen");
}

#[test]
fn a_call_changes_no_other_key() {
    let _alone = alone();
    let heap = guarded_heap();
    let places = Places::of(&heap.path);
    let on = keys();
    // Ours are two: what is behind the first is closed, what is behind the second (of readable heaps) can be read.
    let (mine, closed) = ground::gate_bits();
    let second = mine & !Pkru::mask(places.key);
    assert_eq!((closed & !second, second.count_ones()), (Pkru::mask(places.key), 2));
    assert_eq!((closed & second).trailing_zeros(), second.trailing_zeros() + 1, "write-disabled");
    let outside = Pkru::read(on);
    let mut seen = 0;
    for others in [0, 0x5555_5554, 0xaaaa_aaa8, 0xffff_fffc, 0x3c3c_3c3c, 0xc3c3_c3c0] {
        for ours in [0, mine] {
            let before = Pkru(others & !mine | ours);
            set_pkru(on, before);
            let mut buf = [0; 64];
            let mut block = get_block(b"secret", &mut buf);
            probed(ground::gate(), &mut block);
            let after = Pkru::read(on);
            set_pkru(on, outside);
            assert_eq!((after.0 ^ before.0) & !mine, 0, "{before:x?} {after:x?}");
            // However they were before: after a call ours are closed.
            assert_eq!(after.0 & mine, closed, "{before:x?} {after:x?}");
            assert!(block.answer.status == 0 && buf == SECRET);
            seen += 1;
        }
    }
    assert_eq!(seen, 12);
    report(format_args!("{seen} values of PKRU: only our keys' bits change, to closed"));
}
