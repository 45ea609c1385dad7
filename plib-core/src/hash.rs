//! The keyed hash of the index.
//!
//! A folded-multiply hash of the wyhash family, keyed by 256 bits of the heap's secret. It must give the same value in
//! every process and build for the life of a heap, so it is part of the layout hash. It is fast (2-4 ns for a
//! short key) and keyed, but not a cryptographic function: a flooding client that learns the secret fills one bucket,
//! whose chain is bounded.

/// The heap's secret.
pub type Secret = [u64; 4];

/// Changes whenever the function does; a test compares it with what the function gives. Part of the layout hash.
pub(crate) const KNOWN_ANSWER: u64 = 0x375d_62d3_9478_4c80;

/// A key's hash. Bits 0..28 choose the bucket and are kept in the item, bits 10..37 are the slot word's tag.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Hash(pub u64);

const LENGTH_FACTOR: u64 = 0x9e37_79b9_7f4a_7c15;

#[inline]
fn fold(a: u64, b: u64) -> u64 {
    let product = u128::from(a).wrapping_mul(u128::from(b));
    (product as u64) ^ ((product >> 64) as u64)
}

/// Reads `N <= 8` bytes at `at` as a little-endian number.
#[inline]
unsafe fn read<const N: usize>(at: *const u8) -> u64 {
    let mut word = 0u64;
    // SAFETY: the caller grants N readable private bytes at `at`.
    unsafe { core::ptr::copy_nonoverlapping(at, (&raw mut word).cast::<u8>(), N) };
    u64::from_le(word)
}

/// Hashes a private copy of a key.
#[inline]
pub fn hash(secret: &Secret, key: &[u8]) -> Hash {
    let [s0, s1, ..] = *secret;
    let n = key.len();
    let p = key.as_ptr();
    let mut seed = s0 ^ (n as u64).wrapping_mul(LENGTH_FACTOR);
    // SAFETY: every read below lies within the `n` bytes of `key`; each branch's length test says why.
    let (a, b) = unsafe {
        if n <= 16 {
            if n >= 8 {
                (read::<8>(p), read::<8>(p.add(n - 8)))
            } else if n >= 4 {
                (read::<4>(p), read::<4>(p.add(n - 4)))
            } else if n > 0 {
                (read::<1>(p) | read::<1>(p.add(n / 2)) << 8 | read::<1>(p.add(n - 1)) << 16, 0)
            } else {
                (0, 0)
            }
        } else {
            let mut at = 0;
            while n - at > 16 {
                seed = fold(read::<8>(p.add(at)) ^ s1 ^ at as u64, read::<8>(p.add(at + 8)) ^ seed);
                at += 16;
            }
            (read::<8>(p.add(n - 16)), read::<8>(p.add(n - 8)))
        }
    };
    finish(secret, seed, a, b)
}

#[inline(always)]
fn finish(secret: &Secret, seed: u64, a: u64, b: u64) -> Hash {
    let [_, s1, s2, s3] = *secret;
    let mixed = fold(a ^ s1, b ^ seed);
    Hash(fold(mixed ^ s2, seed ^ s3))
}

/// The hash of a key of 8 to 16 bytes, from its first and its last eight.
#[inline(always)]
pub fn hash_words(secret: &Secret, first: u64, last: u64, len: usize) -> Hash {
    let [s0, ..] = *secret;
    finish(secret, s0 ^ (len as u64).wrapping_mul(LENGTH_FACTOR), first, last)
}

/// Folds eight words into one; for layout hashes and checksums.
#[inline]
pub(crate) const fn mix(state: u64, word: u64) -> u64 {
    let x = (state ^ word).wrapping_mul(0x9fb2_1c65_1e98_df25);
    x ^ (x >> 29)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_function_is_the_one_that_heaps_were_made_with() {
        let secret = [1, 2, 3, 4];
        let long = [7u8; 100];
        let keys: [&[u8]; 5] = [b"k", b"four", b"sixteen bytes ok", b"a key that is longer than sixteen", &long];
        let answer = keys.iter().fold(0, |h, key| mix(h, hash(&secret, key).0));
        assert_eq!(answer, KNOWN_ANSWER, "{answer:#x}");
        let words = |k: &[u8]| u64::from_le_bytes(k.try_into().unwrap());
        let key = b"0123456789ab";
        assert_eq!(hash_words(&secret, words(&key[..8]), words(&key[4..]), 12), hash(&secret, key));
    }
}
