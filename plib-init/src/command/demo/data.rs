//! Items whose values say whether they are right.

use std::ops::Range;

/// Keys that all processes rewrite at once.
pub(super) const SHARED_KEYS: u64 = 64;
/// Shortest and longest value.
const SHORTEST: usize = 32;
pub(super) const LONGEST: usize = 1024;
const CHECKSUM: Range<usize> = 0..4;

/// The key of item `item` of process `process`.
pub(super) fn own_key(process: u32, item: u64) -> String {
    format!("demo:{process}:{item}")
}

/// A key that all write.
pub(super) fn shared_key(n: u64) -> String {
    format!("shared:{}", n % SHARED_KEYS)
}

/// Fills `value` with bytes that follow from `seed` and the key, and seals them with a checksum over both:
/// a torn value, or that of another key, is found.
pub(super) fn make(value: &mut Vec<u8>, key: &str, seed: u64) {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let len = SHORTEST + (state >> 32) as usize % (LONGEST - SHORTEST + 1);
    value.clear();
    value.resize(len, 0);
    for word in value[CHECKSUM.end..].chunks_mut(8) {
        // xorshift64 (Marsaglia, 2003)
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        word.copy_from_slice(&state.to_le_bytes()[..word.len()]);
    }
    let checksum = checksum(value, key);
    value[CHECKSUM].copy_from_slice(&checksum.to_le_bytes());
}

/// Whether a value is whole and of this key.
pub(super) fn right(value: &[u8], key: &str) -> bool {
    value.len() >= SHORTEST && value[CHECKSUM] == checksum(value, key).to_le_bytes()
}

fn checksum(value: &[u8], key: &str) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(key.as_bytes());
    hasher.update(&value[CHECKSUM.end..]);
    hasher.finalize()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn torn_and_foreign_values_are_wrong() {
        let (mut a, mut b) = (Vec::new(), Vec::new());
        for seed in 0..200 {
            make(&mut a, "k", seed);
            assert!((SHORTEST..=LONGEST).contains(&a.len()));
            assert!(right(&a, "k") && !right(&a, "other"));
            make(&mut b, "k", seed + 1);
            let half = a.len().min(b.len()) / 2;
            b[..half].copy_from_slice(&a[..half]);
            assert!(!right(&b, "k"));
        }
        assert!(!right(b"", "k"));
    }
}
