//! A line of the index: 64 bytes, a control word and seven slot words.
//!
//! The control word of a bucket holds its lock; that of a chain line is the meta word of a block of class 0.
//!
//! ```text
//!  63                     28 27               0
//! +-------------------------+------------------+
//! | moves (bucket version)  | owner of the lock |
//! +-------------------------+------------------+
//! ```
//!
//! Only the lock's owner changes the word while it is locked. `moves` goes up whenever an item changes its place within
//! the bucket or a chain line leaves it, so that a reader that missed knows whether it may have been overtaken.

use super::slot::Slot;
use crate::client::Owner;
use crate::hash::Hash;
use crate::sync::{AtomicU64, Ordering};
#[cfg(not(loom))]
use core::arch::asm;

/// Slot words in a line; fewer in the models, so that chains are short work.
pub const SLOTS: usize = if cfg!(loom) { 3 } else { 7 };

/// One cache line.
#[repr(C, align(64))]
pub struct Line {
    control: AtomicU64,
    slots: [AtomicU64; SLOTS],
}

const OWNER: u64 = (1 << 28) - 1;
const MOVE: u64 = 1 << 28;

/// The part of a control word that tells moves apart.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Moves(u64);

impl Line {
    /// An empty line; for models.
    #[cfg(any(test, loom))]
    pub fn new() -> Self {
        Self { control: AtomicU64::new(0), slots: core::array::from_fn(|_| AtomicU64::new(0)) }
    }

    /// The slot words.
    #[inline]
    pub fn slots(&self) -> &[AtomicU64; SLOTS] {
        &self.slots
    }

    /// Which slots may name an item of hash `hash`, a bit each; a filter that misses none. All seven tags are compared at
    /// once, so that no branch depends on where the item is.
    #[cfg(not(loom))]
    #[inline(always)]
    pub fn matching(&self, hash: Hash) -> u32 {
        let wanted = (Slot::new(hash, 0).0 >> 32) as u32;
        let mask: u32;
        // SAFETY: reads the 64 aligned bytes of this line; each 8-byte word is read whole, as aligned vector loads do on
        // every x86-64. What the mask says is checked again by a load of the word itself.
        unsafe {
            asm!(
                "movd {w}, {wanted:e}",
                "pshufd {w}, {w}, 0",
                "movaps {a}, [{p}]",
                "shufps {a}, [{p} + 16], 0xdd",
                "movaps {b}, [{p} + 32]",
                "shufps {b}, [{p} + 48], 0xdd",
                "pxor {a}, {w}",
                "pxor {b}, {w}",
                // The low four bits belong to the unit.
                "psrld {a}, 4",
                "psrld {b}, 4",
                "pxor {w}, {w}",
                "pcmpeqd {a}, {w}",
                "pcmpeqd {b}, {w}",
                "packssdw {a}, {b}",
                "packsswb {a}, {a}",
                "pmovmskb {mask:e}, {a}",
                p = in(reg) core::ptr::from_ref(self),
                wanted = in(reg) wanted,
                mask = lateout(reg) mask,
                w = out(xmm_reg) _,
                a = out(xmm_reg) _,
                b = out(xmm_reg) _,
                options(nostack, preserves_flags, readonly)
            );
        }
        mask >> 1 & 0x7f
    }

    /// The same for models: all of them.
    #[cfg(loom)]
    pub fn matching(&self, _: Hash) -> u32 {
        (1 << SLOTS) - 1
    }

    /// The last slot word, which may be a link.
    #[inline]
    pub fn last(&self) -> &AtomicU64 {
        let [.., last] = &self.slots;
        last
    }

    /// The meta word of a chain line.
    pub fn meta(&self) -> &AtomicU64 {
        &self.control
    }

    /// The chain line that follows.
    #[inline]
    pub fn next(&self) -> Option<u64> {
        let slot = Slot(self.last().load(Ordering::Acquire));
        slot.is_link().then(|| slot.unit())
    }

    /// How often items moved within the bucket so far.
    #[inline]
    pub fn moves(&self) -> Moves {
        Moves(self.control.load(Ordering::Acquire) & !OWNER)
    }

    /// Who holds the lock.
    pub fn holder(&self) -> Owner {
        Owner((self.control.load(Ordering::Acquire) & OWNER) as u32)
    }

    /// Locks the bucket for `me`, or says who holds it. Acquire: sees all that the last holder did.
    #[inline]
    pub fn try_lock(&self, me: Owner) -> Result<(), Owner> {
        let seen = self.control.load(Ordering::Relaxed);
        if seen & OWNER != 0 {
            return Err(Owner((seen & OWNER) as u32));
        }
        match self.control.compare_exchange(seen, seen | u64::from(me.0), Ordering::Acquire, Ordering::Relaxed) {
            Ok(_) => Ok(()),
            Err(now) => Err(Owner((now & OWNER) as u32)),
        }
    }

    /// Takes the lock of an owner that is dead. False if it is no longer the holder.
    pub fn take_over(&self, dead: Owner, me: Owner) -> bool {
        let seen = self.control.load(Ordering::Relaxed);
        seen & OWNER == u64::from(dead.0)
            && self
                .control
                .compare_exchange(seen, seen & !OWNER | u64::from(me.0), Ordering::Acquire, Ordering::Relaxed)
                .is_ok()
    }

    /// Releases the lock. Release: the next holder and readers see all that was done.
    #[inline]
    pub fn unlock(&self) {
        let seen = self.control.load(Ordering::Relaxed);
        self.control.store(seen & !OWNER, Ordering::Release);
    }

    /// Counts a move; by the lock's holder, after the item is in its new place and before it leaves the old one.
    pub fn count_move(&self) {
        let seen = self.control.load(Ordering::Relaxed);
        self.control.store(seen.wrapping_add(MOVE), Ordering::Release);
    }

    /// Empties a line that no reader can reach.
    pub fn clear(&self) {
        for slot in &self.slots {
            slot.store(0, Ordering::Relaxed);
        }
    }

    /// Makes a bucket that no reader can reach empty and unlocked, without forgetting its moves.
    pub fn reset(&self) {
        self.clear();
        let seen = self.control.load(Ordering::Relaxed);
        self.control.store((seen & !OWNER).wrapping_add(MOVE), Ordering::Relaxed);
    }
}

#[cfg(any(test, loom))]
impl Default for Line {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(not(loom))]
const _: () = assert!(size_of::<Line>() == 64);
