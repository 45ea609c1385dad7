//! The 16-byte keys of all measurements: made from an item's number by arithmetic, so that no table of
//! keys takes part in the cache misses that are being measured.

/// Bytes of every key.
pub const KEY: usize = 16;

/// A key: 16 hexadecimal digits, so that memcached's text protocol takes it too.
pub type Key = [u8; KEY];

/// A number that belongs to item `i` and to no other (splitmix64's finaliser, a bijection).
#[inline]
pub fn mix(i: u64) -> u64 {
    let mut x = i.wrapping_add(0x9e37_79b9_7f4a_7c15);
    x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ (x >> 31)
}

/// The key of item `i`.
#[inline]
pub fn key(i: u64) -> Key {
    let x = mix(i);
    let mut key = [0; KEY];
    key[..8].copy_from_slice(&hex((x >> 32) as u32));
    key[8..].copy_from_slice(&hex(x as u32));
    key
}

/// Eight hexadecimal digits of a word, all at once within one register.
#[inline]
fn hex(word: u32) -> [u8; 8] {
    let mut x = u64::from(word);
    x = (x | (x << 16)) & 0x0000_ffff_0000_ffff;
    x = (x | (x << 8)) & 0x00ff_00ff_00ff_00ff;
    x = (x | (x << 4)) & 0x0f0f_0f0f_0f0f_0f0f;
    let letters = ((x + 0x0606_0606_0606_0606) >> 4) & 0x0101_0101_0101_0101;
    // '0' + digit, and 39 more up to 'a' for the digits above 9.
    (x + 0x3030_3030_3030_3030 + letters * 39).to_be_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_the_hexadecimal_of_its_mix() {
        for i in [0, 1, 9, 10, 8_000_000, u64::MAX] {
            assert_eq!(key(i), format!("{:016x}", mix(i)).as_bytes());
        }
    }
}
