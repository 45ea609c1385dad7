//! The decimal numbers that incr and decr work on.

/// Most bytes of a number: the digits of 2^64 - 1.
pub const DIGITS_MAX: usize = 20;

/// Reads a value as a number: digits that fit 64 bits, then spaces only, 20 bytes in all.
///
/// Memcached also reads longer values with more spaces; none come from its own arithmetic.
pub fn parse(value: &[u8]) -> Option<u64> {
    let digits = value.iter().take_while(|b| b.is_ascii_digit()).count();
    let (number, rest) = value.split_at(digits);
    if digits == 0 || value.len() > DIGITS_MAX || rest.iter().any(|&b| b != b' ') {
        return None;
    }
    std::str::from_utf8(number).ok()?.parse().ok()
}

/// The value that replaces `old` when it becomes `number`: memcached writes in place, so the length
/// never shrinks and lost digits leave trailing spaces.
pub fn rewrite(old: &[u8], number: u64) -> Vec<u8> {
    let mut text = number.to_string().into_bytes();
    if text.len() < old.len() {
        text.resize(old.len(), b' ');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_digits_then_spaces() {
        assert_eq!(parse(b"0"), Some(0));
        assert_eq!(parse(b"007"), Some(7));
        assert_eq!(parse(b"9   "), Some(9));
        assert_eq!(parse(b"18446744073709551615"), Some(u64::MAX));
        for bad in [&b""[..], b" ", b" 1", b"-1", b"+1", b"1x", b"1 2", b"x", b"1\n", b"1\0"] {
            assert_eq!(parse(bad), None, "{bad:?}");
        }
        assert_eq!(parse(b"18446744073709551616"), None, "one more than 64 bits hold");
        assert_eq!(parse(b"000000000000000000001"), None, "21 digits");
        assert_eq!(parse(b"1                    "), None, "21 bytes");
        assert_eq!(parse(b"1                   "), Some(1), "20 bytes");
    }

    #[test]
    fn a_lost_digit_leaves_a_space() {
        assert_eq!(rewrite(b"10", 9), b"9 ");
        assert_eq!(rewrite(b"9 ", 10), b"10");
        assert_eq!(rewrite(b"99", 100), b"100");
        assert_eq!(rewrite(b"18446744073709551615", 0), b"0                   ");
    }
}
