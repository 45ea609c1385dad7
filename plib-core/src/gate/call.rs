//! The argument block: what a call hands through the gate, and what it gets back.
//!
//! It lies in the caller's memory. The other side copies the call once, after it has seen that the block touches nothing behind the
//! key, and writes the answer when everything else is done. Both sides must be of one build (see `ABI`).

use crate::cache::{Got, ItemInfo, Mode};
use crate::check::SUMMARY_WORDS;
use crate::client::{CLIENT_WORDS, ClientParams};
use crate::frozen::HOLDING_WORDS;
use crate::stats::CLASS_WORDS;
use crate::status::Status;
use crate::user::{In, Out};

/// What a call can ask for. The numbers are the ABI.
#[repr(u32)]
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[allow(missing_docs, reason = "they are Session's and the vault's functions of these names")]
pub enum Operation {
    Attach,
    Detach,
    Get,
    GetAndTouch,
    Store,
    Delete,
    Arith,
    Touch,
    FlushAll,
    GetMany,
    SetMany,
    DeleteMany,
    Scan,
    BucketOf,
    Stats,
    ClassStats,
    Reap,
    Check,
    ClientInfo,
    Holding,
    IsGone,
    StartReading,
    StopReading,
    TellReads,
}

impl Operation {
    /// All of them, by number.
    pub const ALL: [Self; 24] = [
        Self::Attach,
        Self::Detach,
        Self::Get,
        Self::GetAndTouch,
        Self::Store,
        Self::Delete,
        Self::Arith,
        Self::Touch,
        Self::FlushAll,
        Self::GetMany,
        Self::SetMany,
        Self::DeleteMany,
        Self::Scan,
        Self::BucketOf,
        Self::Stats,
        Self::ClassStats,
        Self::Reap,
        Self::Check,
        Self::ClientInfo,
        Self::Holding,
        Self::IsGone,
        Self::StartReading,
        Self::StopReading,
        Self::TellReads,
    ];

    /// The operation of a number, if it is one.
    pub fn of(number: u32) -> Option<Self> {
        Self::ALL.get(number as usize).copied()
    }
}

#[allow(clippy::indexing_slicing, reason = "while compiling, where a panic is an error")]
const _: () = {
    let mut i = 0;
    while i < Operation::ALL.len() {
        assert!(Operation::ALL[i] as usize == i);
        i += 1;
    }
};

/// Words of arguments.
pub const ARGUMENTS: usize = 8;
/// Words of results.
pub const RESULTS: usize = 5;
/// Stands for how many words there are of each kind.
pub(super) const SHAPE: u64 = ((ARGUMENTS << 48)
    | (RESULTS << 40)
    | (SUMMARY_WORDS << 32)
    | (CLASS_WORDS << 24)
    | (CLIENT_WORDS << 16)
    | HOLDING_WORDS) as u64;

/// What is asked.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct Call {
    /// An [`Operation`].
    pub operation: u32,
    /// The heap's place in the vault.
    pub heap: u32,
    /// Its arguments.
    pub words: [u64; ARGUMENTS],
}

/// What is answered.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct Answer {
    /// A [`Status`].
    pub status: u32,
    /// Unused.
    pub pad: u32,
    /// Its results.
    pub words: [u64; RESULTS],
}

/// Both, in the caller's memory.
#[repr(C, align(16))]
#[derive(Clone, Copy, Debug)]
pub struct Block {
    /// What is asked.
    pub call: Call,
    /// What is answered.
    pub answer: Answer,
    /// Signals that came while the gate itself was being passed, as a kernel's signal set. Written by the program's side.
    pub late: u64,
}

impl Answer {
    /// Nothing yet. A call that finds no seat, or whose block is not admitted, leaves this.
    pub const NONE: Self = Self { status: Status::Invalid as u32, pad: 0, words: [0; RESULTS] };

    pub(super) const fn of(status: Status) -> Self {
        Self { status: status as u32, ..Self::NONE }
    }

    pub(super) const fn done(words: [u64; RESULTS]) -> Self {
        Self { status: Status::Ok as u32, pad: 0, words }
    }
}

impl From<Result<[u64; RESULTS], Status>> for Answer {
    fn from(result: Result<[u64; RESULTS], Status>) -> Self {
        result.map_or_else(Self::of, Self::done)
    }
}

impl Call {
    /// A pair of arguments as memory to read.
    pub(super) fn input(&self, at: usize) -> In {
        In { ptr: core::ptr::with_exposed_provenance(self.word(at) as usize), len: self.word(at + 1) as usize }
    }

    /// A pair of arguments as memory to write.
    pub(super) fn output(&self, at: usize) -> Out {
        Out { ptr: core::ptr::with_exposed_provenance_mut(self.word(at) as usize), len: self.word(at + 1) as usize }
    }

    /// One argument.
    pub(super) fn word(&self, at: usize) -> u64 {
        self.words.get(at).copied().unwrap_or(0)
    }
}

/// Puts arguments into words, the rest being 0.
pub(super) fn words<const N: usize, const M: usize>(first: [u64; N]) -> [u64; M] {
    let mut words = [0; M];
    for (to, from) in words.iter_mut().zip(first) {
        *to = from;
    }
    words
}

pub(super) fn mode_words(mode: Mode) -> [u64; 2] {
    match mode {
        Mode::Set => [0, 0],
        Mode::Add => [1, 0],
        Mode::Replace => [2, 0],
        Mode::Append => [3, 0],
        Mode::Prepend => [4, 0],
        Mode::Cas(cas) => [5, cas],
    }
}

pub(super) fn mode(number: u64, cas: u64) -> Option<Mode> {
    Some(match number {
        0 => Mode::Set,
        1 => Mode::Add,
        2 => Mode::Replace,
        3 => Mode::Append,
        4 => Mode::Prepend,
        5 => Mode::Cas(cas),
        _ => return None,
    })
}

pub(super) fn got_words(got: Got) -> [u64; RESULTS] {
    let ItemInfo { flags, expiry, cas, value_len } = got.info;
    [u64::from(flags) << 32 | u64::from(expiry), cas, value_len as u64, u64::from(got.copied), 0]
}

pub(super) fn got(words: &[u64; RESULTS]) -> Got {
    let [times, cas, value_len, copied, _] = *words;
    let info = ItemInfo { flags: (times >> 32) as u32, expiry: times as u32, cas, value_len: value_len as usize };
    Got { info, copied: copied != 0 }
}

/// A heap to attach to: mapped behind the key, and with a lock byte held.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct Attach {
    /// Where it is mapped.
    pub base: usize,
    /// How many bytes.
    pub len: usize,
    /// The machine's boot id.
    pub boot_id: [u64; 2],
    /// When this process started, in clock ticks after boot.
    pub start_time: u64,
    /// The inode of its pid namespace.
    pub pid_namespace: u64,
    /// The lock byte that it holds.
    pub lock_byte: u64,
    /// Its pid.
    pub pid: u32,
    /// The client slot that it wants.
    pub slot: u32,
    /// A descriptor to ask about lock bytes by.
    pub lock_fd: i32,
    /// Unused.
    pub pad: u32,
}

impl Attach {
    /// Nothing.
    pub(super) const NONE: Self = Self {
        base: 0,
        len: 0,
        boot_id: [0; 2],
        start_time: 0,
        pid_namespace: 0,
        lock_byte: 0,
        pid: 0,
        slot: 0,
        lock_fd: -1,
        pad: 0,
    };

    pub(super) fn params(&self, vdso: usize) -> ClientParams {
        let Self { slot, lock_byte, pid, start_time, pid_namespace, lock_fd, .. } = *self;
        ClientParams { slot, lock_byte, pid, start_time, pid_namespace, lock_fd, vdso }
    }
}
