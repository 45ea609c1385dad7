//! The operations, with memcached's semantics.
//!
//! A read (`find`) takes no lock: it copies and then checks that nothing changed. A write builds the new item in a claimed
//! block, locks the key's bucket, decides, and commits by one store. Caller memory is read before the lock is taken and
//! written after all is released.
//!
//! | file | what |
//! | --- | --- |
//! | `lock` | bucket locks: waiting, taking over |
//! | `ahead` | prefetching |
//! | `fast` | the usual get |
//! | `reader` | who reads |
//! | `read` | get, get-and-touch, and the lock-free `find` under them |
//! | `store` | set, add, replace, append, prepend, cas |
//! | `number` | incr, decr |
//! | `remove` | delete, touch, flush_all |
//! | `grow` | splitting buckets as items come |

mod ahead;
mod fast;
mod grow;
mod lock;
mod number;
mod read;
mod reader;
mod remove;
mod store;

pub(crate) use fast::Words;
pub(crate) use read::Seen;
pub(crate) use reader::{Reader, Reading};

use crate::client::{Client, Op};
use crate::hash::{Hash, hash, hash_words};
use crate::heap::block::{self, Meta};
use crate::heap::{Block, Heap};
use crate::index::Slot;
use crate::item::{self, Info};
use crate::layout::KEY_MAX;
use crate::mutant::{self, Mutant};
use crate::status::Status;
use crate::sync::{AtomicU64, Ordering, relax};
use crate::sys::{self, Clock};
use crate::user::{self, In};
use core::mem::MaybeUninit;

/// How long an operation waits for a lock whose owner is alive but does not get on, before it answers BUSY.
pub const BUSY_MS: u64 = 150;
/// How long it waits while others do get on (locks are not fair).
pub const BUSY_LIMIT_MS: u64 = 3000;
const SPINS: u32 = 256;
/// Relative expiry times end here, as in memcached; larger ones are absolute.
const RELATIVE_MAX: i64 = 60 * 60 * 24 * 30;
/// Items per bucket that growth aims at: three of seven slots stay free, so few buckets need a chain.
const LOAD: u64 = 4;

/// What an item is besides its bytes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ItemInfo {
    /// The caller's flags.
    pub flags: u32,
    /// Seconds since 1970 from which the item is gone; 0 = never.
    pub expiry: u32,
    /// The item's cas value.
    pub cas: u64,
    /// Bytes of the value.
    pub value_len: usize,
}

/// An item that was found.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Got {
    /// About it.
    pub info: ItemInfo,
    /// Whether the value was copied; false if the buffer is smaller than the value.
    pub copied: bool,
}

/// On what condition an item is stored.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Mode {
    /// Always.
    Set,
    /// If the key has no item.
    Add,
    /// If it has one.
    Replace,
    /// Behind the value of the one it has.
    Append,
    /// Before it.
    Prepend,
    /// If it has one with this cas.
    Cas(u64),
}

/// Whether an item may still be shown.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Life {
    /// It may.
    Alive,
    /// Its time is over.
    Expired,
    /// A flush came after it.
    Flushed,
}

/// The present, looked up at most once an operation and only if somebody asks.
pub struct Times<'c> {
    clock: &'c Clock,
    now: u32,
    /// Whether a flush whose time has come is written down.
    settles: bool,
}

impl<'c> Times<'c> {
    pub(crate) fn new(client: &'c Client) -> Self {
        Self { clock: &client.clock, now: 0, settles: true }
    }

    /// For who may not write.
    pub(crate) fn looked_up(clock: &'c Clock) -> Self {
        Self { clock, now: 0, settles: false }
    }

    fn now(&mut self) -> u32 {
        if self.now == 0 {
            self.now = self.clock.now();
        }
        self.now
    }

    /// Looks at the clock anew when it is next asked. To be called once a bucket is locked: whoever waited for the lock would
    /// else judge what is there by a second that is over, and bring back what others have seen expired.
    pub(crate) fn anew(&mut self) {
        self.now = 0;
    }

    /// The flush epoch of the present.
    #[inline]
    fn epoch(&mut self, heap: &Heap) -> u32 {
        let flush = Flush(heap.hot().flush.0.load(Ordering::Acquire));
        if flush.deadline() == 0 { flush.epoch() } else { self.epoch_of(heap, flush) }
    }

    /// The same while a deadline is set. Once it has passed, it is made part of the epoch, so that a clock which is set back
    /// does not bring back what was flushed.
    #[cold]
    fn epoch_of(&mut self, heap: &Heap, flush: Flush) -> u32 {
        let word = &heap.hot().flush.0;
        let mut flush = flush;
        loop {
            let epoch = flush.epoch_at(self.now());
            if epoch == flush.epoch() || !self.settles {
                return epoch;
            }
            match word.compare_exchange(flush.0, Flush::new(epoch, 0).0, Ordering::AcqRel, Ordering::Acquire) {
                Ok(_) => return epoch,
                // Somebody did it, or gave a new order: what holds now counts.
                Err(now) => flush = Flush(now),
            }
        }
    }

    /// Whether an item with this meta word and word 2 is alive.
    #[inline]
    pub(crate) fn life(&mut self, heap: &Heap, meta: Meta, times: u64) -> Life {
        let epoch = self.epoch(heap);
        self.life_under(epoch, meta, times)
    }

    /// The same under a flush epoch that was looked up before.
    #[inline]
    fn life_under(&mut self, epoch: u32, meta: Meta, times: u64) -> Life {
        let (_, expiry) = item::times(times);
        if !item::unflushed(meta, epoch) {
            Life::Flushed
        } else if expiry != 0 && expiry <= self.now() && !mutant::is(Mutant::Immortal) {
            Life::Expired
        } else {
            Life::Alive
        }
    }

    /// The same for who holds no lock, with word 2. None if a touch came between the two looks at that: the clock is read
    /// after the first, so an item that was given more time in time could seem expired.
    #[inline(always)]
    pub(crate) fn life_unlocked(&mut self, heap: &Heap, block: Block, meta: Meta) -> Option<(Life, u64)> {
        // Who tries again looks at what is there by then.
        self.anew();
        let word = heap.times_word(block).load(Ordering::Relaxed);
        let life = self.life(heap, meta, word);
        let same = life != Life::Expired || heap.times_word(block).load(Ordering::Relaxed) == word;
        same.then_some((life, word))
    }

    /// The expiry word for memcached's `exptime`.
    fn expiry(&mut self, exptime: i64) -> u32 {
        match exptime {
            0 => 0,
            i64::MIN..0 => 1,
            1..=RELATIVE_MAX => u32::try_from(i64::from(self.now()) + exptime).unwrap_or(u32::MAX),
            _ => u32::try_from(exptime).unwrap_or(u32::MAX),
        }
    }
}

/// The flush word: `deadline 32 | epoch 28`. From the deadline on the epoch is one more.
#[derive(Clone, Copy)]
struct Flush(u64);

impl Flush {
    const fn new(epoch: u32, deadline: u32) -> Self {
        Self((deadline as u64) << 32 | (epoch & block::EPOCH_MASK) as u64)
    }

    const fn epoch(self) -> u32 {
        self.0 as u32 & block::EPOCH_MASK
    }

    const fn deadline(self) -> u32 {
        (self.0 >> 32) as u32
    }

    const fn epoch_at(self, now: u32) -> u32 {
        if self.deadline() != 0 && now >= self.deadline() {
            self.epoch().wrapping_add(1) & block::EPOCH_MASK
        } else {
            self.epoch()
        }
    }
}

/// Asks the processor for the cache line at `at`; never faults.
#[inline(always)]
pub fn prefetch(at: *const u8) {
    // SAFETY: a prefetch is a hint and may name any address.
    unsafe { core::arch::x86_64::_mm_prefetch::<{ core::arch::x86_64::_MM_HINT_T0 }>(at.cast()) };
}

/// A private copy of a key, and its hash.
pub(crate) struct Key {
    bytes: [MaybeUninit<u8>; 256],
    len: usize,
    words: Words,
    pub hash: Hash,
}

impl Key {
    /// Room for a key.
    #[inline(always)]
    pub const fn blank() -> Self {
        let words = Words { first: 0, last: 0 };
        Self { bytes: [const { MaybeUninit::uninit() }; 256], len: 0, words, hash: Hash(0) }
    }

    /// Checks and copies a caller's key. In place: a key that is moved is a copy of 256 bytes.
    ///
    /// # Safety
    /// The key is readable.
    #[inline(always)]
    pub unsafe fn read(&mut self, heap: &Heap, key: In) -> Result<(), Status> {
        if key.len == 0 || key.len > KEY_MAX {
            return Err(Status::Key);
        }
        if !heap.protected().admits(key.ptr, key.len) {
            return Err(Status::Invalid);
        }
        // SAFETY: passed on.
        unsafe { self.copy(heap, key) };
        Ok(())
    }

    /// Copies a key of 1 to 250 bytes, wherever it is.
    ///
    /// # Safety
    /// The key is readable.
    #[inline(always)]
    pub unsafe fn copy(&mut self, heap: &Heap, key: In) {
        self.len = key.len;
        let to: *mut u8 = self.bytes.as_mut_ptr().cast();
        if Words::hold(key.len) {
            // The usual key: read once into two registers, which are hashed and kept.
            // SAFETY: the caller grants key.len readable bytes; 16 fit in 256.
            unsafe {
                self.words = Words::read(key.ptr, key.len).agreed(key.len);
                user::store8(to, self.words.first);
                user::store8(to.add(key.len - 8), self.words.last);
            }
            self.hash = hash_words(heap.secret(), self.words.first, self.words.last, key.len);
        } else {
            // SAFETY: the caller grants key.len readable bytes; 250 fit in 256.
            unsafe { user::copy(to, key.ptr, key.len) };
            self.hash = hash(heap.secret(), self.bytes());
        }
    }

    /// Whether the `len` bytes at `at`, which may change meanwhile, are this key.
    ///
    /// # Safety
    /// They are readable, as many as the key has.
    #[inline(always)]
    pub unsafe fn is_at(&self, at: *const u8) -> bool {
        // SAFETY: passed on; our own copy has as many bytes.
        unsafe {
            if Words::hold(self.len) {
                self.words.are_at(at, self.len)
            } else {
                user::equal(self.bytes().as_ptr(), at, self.len)
            }
        }
    }

    /// Copies the key into a new item.
    ///
    /// # Safety
    /// `to` is writable for as many bytes as the key has.
    #[inline(always)]
    pub unsafe fn write_to(&self, to: *mut u8) {
        // SAFETY: passed on; our own copy has as many bytes.
        unsafe {
            if Words::hold(self.len) {
                user::store8(to, self.words.first);
                user::store8(to.add(self.len - 8), self.words.last);
            } else {
                user::copy(to, self.bytes().as_ptr(), self.len);
            }
        }
    }

    /// The key's bytes.
    #[inline(always)]
    pub fn bytes(&self) -> &[u8] {
        // SAFETY: the first `len` bytes were written by `read`, and this copy is private.
        unsafe { core::slice::from_raw_parts(self.bytes.as_ptr().cast(), self.len) }
    }
}

/// An item that a reader is looking at; what it says is true only if the reader's checks pass afterwards.
pub(crate) struct View<'h> {
    pub block: Block,
    pub meta: Meta,
    pub info: Info,
    pub slot: Slot,
    pub word: &'h AtomicU64,
}

/// Time for giving up: some time without any progress of others, or a long time with it.
pub(crate) struct Patience {
    tries: u32,
    deadline: u64,
    limit: u64,
}

impl Patience {
    pub const fn new() -> Self {
        Self { tries: 0, deadline: 0, limit: 0 }
    }

    /// Somebody else got on: he is busy, but not frozen.
    pub fn progress(&mut self) {
        self.deadline = 0;
    }

    /// Waits a little; BUSY when it has been too long.
    #[cold]
    pub fn wait(&mut self) -> Result<(), Status> {
        self.tries = self.tries.wrapping_add(1);
        if self.tries < SPINS {
            relax();
            return Ok(());
        }
        let now = sys::monotonic_ms();
        if self.limit == 0 {
            self.limit = now.wrapping_add(BUSY_LIMIT_MS);
        }
        if self.deadline == 0 {
            self.deadline = now.wrapping_add(BUSY_MS);
        } else if now > self.deadline && !mutant::is(Mutant::WaitForever) {
            return Err(Status::Busy);
        }
        if now > self.limit && !mutant::is(Mutant::WaitForever) {
            return Err(Status::Busy);
        }
        sys::yield_now();
        Ok(())
    }
}
