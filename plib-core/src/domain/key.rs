//! A protection key of this process, and the pages that carry it (pkeys(7)).

use super::{Access, KeysOn};
use crate::sys::{self, Errno};

/// The number of a protection key, 1 to 15. Key 0 is that of all ordinary pages and nobody's to close.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ProtectionKey(u8);

/// What pages allow to those whom their key lets through. Nothing is both written and executed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Protection {
    /// PROT_READ.
    Read,
    /// PROT_READ | PROT_WRITE.
    ReadWrite,
    /// PROT_READ | PROT_EXEC.
    ReadExecute,
}

impl Protection {
    const fn bits(self) -> usize {
        match self {
            Self::Read => 1,
            Self::ReadWrite => 1 | 2,
            Self::ReadExecute => 1 | 4,
        }
    }
}

impl ProtectionKey {
    /// The key of that number, if it may be one of ours.
    pub const fn new(number: u8) -> Option<Self> {
        if number >= 1 && number <= 15 { Some(Self(number)) } else { None }
    }

    /// Takes a free key of the process; the calling thread then has `access` to its pages. In other threads it is as their PKRU
    /// says, and in a thread or process that starts later as in the one that started it. ENOSPC: all are taken.
    pub fn allocate(_on: KeysOn, access: Access) -> Result<Self, Errno> {
        let number = sys::pkey_alloc(access.bits())?;
        // The kernel gives 1 to 15; another number would be no key that we know how to close.
        u8::try_from(number).ok().and_then(Self::new).ok_or(Errno::INVALID)
    }

    /// Gives the key back.
    ///
    /// # Safety
    /// No page carries it any more: pages keep the number, and who is given it next would open them.
    pub unsafe fn free(self) -> Result<(), Errno> {
        sys::pkey_free(self.0.into())
    }

    /// Gives a fresh mapping its key and, in the same moment, its protection; so no thread finds it accessible and unkeyed.
    ///
    /// # Safety
    /// The pages are the caller's, mapped PROT_NONE since they were mapped, and nothing else relies on that.
    pub unsafe fn guard(self, start: *mut u8, len: usize, protection: Protection) -> Result<(), Errno> {
        // SAFETY: the caller has the pages to himself.
        unsafe { sys::pkey_mprotect(start, len, protection.bits(), self.0.into()) }
    }

    /// Its number.
    pub const fn number(self) -> u8 {
        self.0
    }

    /// Where its bits are in PKRU.
    pub(super) const fn shift(self) -> u32 {
        2 * self.0 as u32
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn key_0_and_what_is_no_key_are_refused() {
        let allowed = (0..=u8::MAX).filter(|n| ProtectionKey::new(*n).is_some());
        assert!(allowed.eq(1..=15));
        assert_eq!(ProtectionKey::new(15).map(|key| (key.number(), key.shift())), Some((15, 30)));
    }

    #[test]
    fn nothing_is_written_and_executed() {
        assert!([Protection::Read, Protection::ReadWrite, Protection::ReadExecute].iter().all(|p| p.bits() & 6 != 6));
    }
}
