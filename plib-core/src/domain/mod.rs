//! The protection domain: what keeps the program out of the heap between calls.
//!
//! This release has the tier `none`; `guarded` and `sealed` will be further variants behind the same two calls. What they stand on
//! is here already: whether the machine has protection keys ([`ProtectionKeys`]), a key and its pages ([`ProtectionKey`]), and
//! what a thread may do with them ([`Pkru`]). Nothing here opens a key; that is the gate's.

mod detect;
mod key;
mod pkru;

pub use detect::{KeysOn, ProtectionKeys};
pub use key::{Protection, ProtectionKey};
pub use pkru::{Access, Pkru};

/// What holds between calls.
#[repr(u32)]
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Isolation {
    /// Nothing: the heap is mapped readable and writable.
    None = 0,
    /// The heap is inaccessible outside calls.
    Guarded = 1,
    /// As guarded, against a program that means harm.
    Sealed = 2,
}

/// A domain that one heap mapping belongs to.
#[derive(Clone, Copy, Debug)]
pub struct Domain {
    isolation: Isolation,
}

impl Domain {
    /// The domain of an unprotected mapping.
    pub const fn none() -> Self {
        Self { isolation: Isolation::None }
    }

    /// The tier it gives.
    pub const fn isolation(&self) -> Isolation {
        self.isolation
    }

    /// Opens the heap for this thread. Nothing to do in tier `none`.
    #[inline(always)]
    pub fn open(&self) {}

    /// Closes it again. Nothing to do in tier `none`.
    #[inline(always)]
    pub fn close(&self) {}
}
