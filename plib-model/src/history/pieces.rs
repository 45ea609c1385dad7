//! The bytes that stand for a [`Content`] in a cache, and back: whoever reads them sees whether they are whole.
//!
//! ```text
//! piece:  | '<' | words 24 bits | 4 bytes 0 | number of the piece | words x 8 bytes that follow from the number |
//! number: digits, then spaces
//! ```

use super::content::Content;
use crate::number::DIGITS_MAX;

const MARK: u64 = b'<' as u64;
const HEAD: usize = 16;

/// Bytes of the smallest piece.
pub const PIECE_MIN: usize = HEAD;

/// A piece of about `len` bytes: a multiple of 8, not less than [`PIECE_MIN`].
pub fn piece(id: u64, len: usize) -> Vec<u8> {
    let words = (len.saturating_sub(HEAD) / 8) as u64 & 0xff_ffff;
    let mut out = Vec::with_capacity(HEAD + words as usize * 8);
    out.extend_from_slice(&(MARK | words << 8).to_le_bytes());
    out.extend_from_slice(&id.to_le_bytes());
    for place in 0..words {
        out.extend_from_slice(&filler(id, place).to_le_bytes());
    }
    out
}

/// What a value is made of.
pub fn read(value: &[u8]) -> Content {
    let mut rest = value;
    let mut content: Option<Content> = None;
    loop {
        let broken =
            |at: usize| Content::Broken { at: (value.len() - rest.len() + at) as u64, len: value.len() as u64 };
        let next = match rest.first() {
            None => return content.unwrap_or(broken(0)),
            Some(b'0'..=b'9') => read_number(rest),
            Some(_) => read_piece(rest),
        };
        match next {
            Ok((more, len)) => {
                content = Some(content.map_or(more, |before| before.append(more)));
                rest = &rest[len..];
            }
            Err(at) => return broken(at),
        }
    }
}

fn filler(id: u64, place: u64) -> u64 {
    (id ^ place << 48).wrapping_mul(0x9E37_79B9_7F4A_7C15).rotate_left(29)
}

/// The piece that `value` starts with, and its length; or where it is wrong.
fn read_piece(value: &[u8]) -> Result<(Content, usize), usize> {
    let word = |at: usize| value.get(at..at + 8).map(|b| u64::from_le_bytes(b.try_into().unwrap_or_default()));
    let (head, id) = (word(0).ok_or(0usize)?, word(8).ok_or(8usize)?);
    let words = head >> 8;
    if head & 0xff != MARK || words > 0xff_ffff {
        return Err(0);
    }
    match (0..words).find(|&place| word(HEAD + place as usize * 8) != Some(filler(id, place))) {
        Some(place) => Err(HEAD + place as usize * 8),
        None => Ok((Content::piece(id), HEAD + words as usize * 8)),
    }
}

/// The number that `value` starts with, and its length; or where it is wrong.
fn read_number(value: &[u8]) -> Result<(Content, usize), usize> {
    let digits = value.iter().take_while(|b| b.is_ascii_digit()).count();
    let width = digits + value[digits..].iter().take_while(|&&b| b == b' ').count();
    let text = std::str::from_utf8(&value[..digits]).unwrap_or_default();
    let number = text.parse().map_err(|_| 0usize)?;
    let canonical = digits == 1 || !text.starts_with('0');
    match canonical && width <= DIGITS_MAX {
        true => Ok((Content::Number { number, width: width as u32 }, width)),
        false => Err(digits),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_tell_their_content() {
        let (a, b) = (Content::piece(7), Content::piece(1 << 40));
        let text = |parts: &[&[u8]]| read(&parts.concat());
        assert_eq!(text(&[&piece(7, 0)]), a);
        assert_eq!(text(&[&piece(7, 100_000)]), a, "the length does not matter");
        assert_eq!(text(&[&piece(7, 50), &piece(1 << 40, 0)]), a.append(b));
        assert_ne!(a.append(b), b.append(a));
        assert_eq!(a.append(b).append(a), a.append(b.append(a)), "in whatever order it was put together");
        assert_eq!(text(&[b"12 "]), Content::Number { number: 12, width: 3 });
        let between = text(&[&piece(7, 0), b"9", &piece(1 << 40, 30)]);
        assert_eq!(between, a.append(Content::number(9)).append(b));
        assert_eq!(between.counted(1, false), None);
    }

    #[test]
    fn every_changed_byte_is_seen() {
        let whole = [piece(3, 80), b"12".to_vec(), piece(4, 24)].concat();
        let content = read(&whole);
        for at in 0..whole.len() {
            let mut torn = whole.clone();
            torn[at] ^= 1;
            assert_ne!(read(&torn), content, "byte {at}");
        }
        for cut in 1..whole.len() {
            assert_ne!(read(&whole[..cut]), content, "cut at {cut}");
        }
        assert!(matches!(read(b""), Content::Broken { .. }));
        assert!(matches!(read(b"007"), Content::Broken { .. }));
    }

    #[test]
    fn numbers_count_as_the_model_counts() {
        let ten = Content::number(10);
        assert_eq!(ten.counted(1, true), Some((9, Content::Number { number: 9, width: 2 })));
        assert_eq!(ten.counted(11, true), Some((0, Content::Number { number: 0, width: 2 })));
        assert_eq!(ten.counted(u64::MAX, false), Some((9, Content::Number { number: 9, width: 2 })));
        assert_eq!(ten.counted(90, false), Some((100, Content::number(100))));
        assert_eq!(Content::piece(1).counted(1, false), None);
    }
}
