//! The shared heap of plib, its index and its protocols.
//!
//! Everything in this crate may run with the protection key open, so it obeys these laws:
//!
//! 1. No std, no allocator, no libc, no thread-local storage, no panic path.
//! 2. It trusts nothing that the application can write. Caller memory is touched only through [`user`].
//! 3. The heap is shared with processes that may die at any instruction: every operation commits by one
//!    store, a writer holds one bucket lock at a time, and a hint is never the truth.
//! 4. No Rust reference is ever made to bytes that another process may write, but to atomics.
//!
//! | module | what it holds |
//! | --- | --- |
//! | [`status`] | what an operation answers |
//! | [`layout`] | the map of the heap file, format version, layout hash |
//! | [`sync`], [`sys`], [`user`], [`hash`] | atomics, system calls, caller memory, the keyed hash |
//! | [`heap`] | header, size classes, superblocks, blocks, hints |
//! | [`item`] | the bytes of an item |
//! | [`index`] | buckets, slot words, lookup, growth |
//! | [`client`] | attached processes, op contexts, intents, liveness |
//! | `hazard` | which superblocks are being read |
//! | [`claim`], [`evict`] | where a block for a new item comes from |
//! | [`recover`] | what a survivor does for the dead |
//! | [`frozen`] | who holds something that others wait for, and whether he gets on |
//! | [`cache`], [`batch`], [`scan`] | the operations |
//! | [`stats`], [`check`] | what a heap tells about itself |
//! | [`domain`], [`gate`] | the protection key, and the gate that opens and closes it |
//! | [`mutant`] | planted bugs, for tests of the tests |
#![no_std]
#![deny(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::unreachable,
    clippy::todo
)]
#![cfg_attr(test, allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test panics when it fails"))]

#[cfg(loom)]
extern crate std;

#[cfg(all(test, not(loom)))]
mod arena;
pub mod batch;
pub mod cache;
pub mod check;
pub mod claim;
pub mod client;
pub mod domain;
pub mod evict;
pub mod frozen;
#[cfg(not(loom))]
pub mod gate;
pub mod hash;
mod hazard;
pub mod heap;
pub mod index;
pub mod item;
pub mod layout;
pub mod mutant;
pub mod recover;
pub mod scan;
pub mod stats;
pub mod status;
pub mod sync;
pub mod sys;
pub mod user;

pub use batch::{DeleteRequest, GetRequest, SetRequest};
pub use cache::{Got, ItemInfo, Mode};
pub use check::{CheckSummary, Finding};
pub use client::{Client, ClientInfo, ClientParams, ContextId};
pub use frozen::Holding;
#[cfg(not(loom))]
pub use gate::Session;
pub use heap::{Heap, LOCK_BYTES};
pub use scan::Scanned;
pub use stats::{ClassStats, Stats};
pub use status::{Fault, Status};
