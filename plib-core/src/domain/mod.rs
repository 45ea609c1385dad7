//! The protection domain: what keeps the program out of the heap between calls.
//!
//! Tier `none` is nothing, tier `guarded` a protection key. What the latter stands on is here: whether the machine has protection
//! keys ([`ProtectionKeys`]), a key and its pages ([`ProtectionKey`]), and what a thread may do with them ([`Pkru`]). Nothing
//! here opens a key; that is the gate's.

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
