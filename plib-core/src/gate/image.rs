//! What a trusted image tells who maps it, and what both must agree on.

use super::call::{Answer, Attach, Block, Operation, SHAPE};
use super::entry::{Constants, Entry};
use super::launched::LaunchedHeaps;
use super::signal::Handlers;
use super::visit::Reads;
use crate::batch::{DeleteRequest, GetRequest, SetRequest};
use crate::hash::mix;
use crate::layout::Geometry;
use crate::stats::Stats;
use core::mem::offset_of;

/// Counted up when what an operation's words mean changes.
const GATE_VERSION: u64 = 1;

/// A number that two builds share only if a program of one can call through an image of the other.
pub const ABI: u64 = {
    let sizes = [
        GATE_VERSION,
        Geometry::layout_hash(),
        SHAPE,
        Operation::ALL.len() as u64,
        size_of::<Constants>() as u64,
        size_of::<Block>() as u64,
        offset_of!(Block, answer) as u64,
        size_of::<Answer>() as u64,
        size_of::<Attach>() as u64,
        size_of::<GetRequest>() as u64,
        size_of::<SetRequest>() as u64,
        size_of::<DeleteRequest>() as u64,
        size_of::<Reads>() as u64,
        size_of::<Stats>() as u64,
        size_of::<Handlers>() as u64,
        size_of::<LaunchedHeaps>() as u64,
    ];
    let (mut hash, mut i) = (0, 0);
    #[allow(clippy::indexing_slicing, reason = "evaluated by the compiler")]
    while i < sizes.len() {
        hash = mix(hash, sizes[i]);
        i += 1;
    }
    hash
};

/// Begins a table: "plib img".
pub const IMAGE_MAGIC: u64 = u64::from_le_bytes(*b"plib img");

/// Where things are in an image: addresses, once it is mapped.
#[repr(C)]
pub struct ImageTable {
    magic: u64,
    abi: u64,
    enter: Entry,
    on_signal: unsafe extern "sysv64" fn(),
    handlers: &'static Handlers,
    constants: &'static Constants,
}

impl ImageTable {
    /// A table of these.
    pub const fn new(
        enter: Entry,
        on_signal: unsafe extern "sysv64" fn(),
        handlers: &'static Handlers,
        constants: &'static Constants,
    ) -> Self {
        Self { magic: IMAGE_MAGIC, abi: ABI, enter, on_signal, handlers, constants }
    }
}
