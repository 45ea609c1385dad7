//! The values: a fixed pattern behind eight bytes that belong to the item, so that a foreign value shows.

use crate::key::mix;

/// Bytes of a value where nothing else is said.
pub const VALUE: usize = 128;

/// A value of that many bytes.
pub type Value = [u8; VALUE];

/// The first eight bytes of item `i`'s value.
#[inline]
pub fn stamp(i: u64) -> u64 {
    // Any constant: only the key and the stamp must differ.
    mix(i) ^ 0x5bd1_e995_5bd1_e995
}

/// A value that still needs its stamp.
pub fn template(len: usize) -> Vec<u8> {
    // Printable, so that a value that went wrong reads well in an error.
    (0..len).map(|at| b'a' + (at % 23) as u8).collect()
}

/// Makes `value` the value of item `i`.
#[inline]
pub fn put_stamp(value: &mut [u8], i: u64) {
    value[..8].copy_from_slice(&stamp(i).to_le_bytes());
}

/// Whether `value` begins as item `i`'s does. Cheap enough for a timed loop.
#[inline]
pub fn has_stamp(value: &[u8], i: u64) -> bool {
    value.first_chunk::<8>() == Some(&stamp(i).to_le_bytes())
}

/// Whether every byte of `value` is that of item `i`'s value of `len` bytes.
pub fn is_right(value: &[u8], len: usize, i: u64) -> bool {
    value.len() == len && has_stamp(value, i) && value[8..] == template(len)[8..]
}
