//! Keys and values are any bytes; this is how they come in and how they are shown.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::Serialize;

use crate::error::CliError;

/// A key from the command line: its bytes as they are, or the bytes that `--hex` digits stand for.
pub(crate) fn key(argument: &OsStr, hex: bool) -> Result<Vec<u8>, CliError> {
    if hex { from_hex(argument.as_bytes()) } else { Ok(argument.as_bytes().to_vec()) }
}

fn from_hex(digits: &[u8]) -> Result<Vec<u8>, CliError> {
    let shown = escape(digits);
    if !digits.len().is_multiple_of(2) {
        return Err(CliError::Usage(format!(
            "'{shown}': hex needs an even number of digits, this has {}",
            digits.len()
        )));
    }
    let nibble = |c: u8| (c as char).to_digit(16).map(|d| d as u8);
    let byte = |pair: &[u8]| Some(nibble(pair[0])? << 4 | nibble(pair[1])?);
    let bytes: Option<Vec<u8>> = digits.chunks_exact(2).map(byte).collect();
    bytes.ok_or_else(|| CliError::Usage(format!("'{shown}' is not hex: only 0-9 and a-f are digits")))
}

/// Text that a terminal shows as it is; control characters, backslashes and bytes that are not UTF-8 escaped.
pub(crate) fn escape(bytes: &[u8]) -> String {
    let mut out = String::new();
    for chunk in bytes.utf8_chunks() {
        for c in chunk.valid().chars() {
            match c {
                '\\' => out.push_str("\\\\"),
                '\n' => out.push_str("\\n"),
                '\r' => out.push_str("\\r"),
                '\t' => out.push_str("\\t"),
                c if c.is_control() => c.to_string().bytes().for_each(|b| push_hex(&mut out, b)),
                c => out.push(c),
            }
        }
        chunk.invalid().iter().for_each(|b| push_hex(&mut out, *b));
    }
    out
}

fn push_hex(out: &mut String, byte: u8) {
    out.push_str(&format!("\\x{byte:02x}"));
}

/// The first `limit` bytes escaped, and how many more there are.
pub(crate) fn escape_short(bytes: &[u8], limit: usize) -> String {
    if bytes.len() <= limit {
        return escape(bytes);
    }
    format!("{}... ({} bytes)", escape(&bytes[..limit]), bytes.len())
}

/// Bytes in JSON: `{"encoding": "text", "data": "abc"}`, or base64 where they are not UTF-8.
#[derive(Serialize)]
pub(crate) struct Encoded {
    encoding: &'static str,
    data: String,
}

impl From<&[u8]> for Encoded {
    fn from(bytes: &[u8]) -> Self {
        match str::from_utf8(bytes) {
            Ok(text) => Self { encoding: "text", data: text.to_owned() },
            Err(_) => Self { encoding: "base64", data: STANDARD.encode(bytes) },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_byte_is_shown_without_harm() {
        assert_eq!(escape("Grüße".as_bytes()), "Grüße");
        assert_eq!(escape(b"a\\b\n\t\r\x1b[31m\x00\xff"), "a\\\\b\\n\\t\\r\\x1b[31m\\x00\\xff");
        assert_eq!(escape("\u{9b}".as_bytes()), "\\xc2\\x9b");
        assert_eq!(escape_short(b"abcdef", 3), "abc... (6 bytes)");
    }

    #[test]
    fn hex_keys() {
        assert_eq!(key(OsStr::new("00fFa5"), true).unwrap(), [0, 255, 165]);
        assert_eq!(key(OsStr::new("00ff"), false).unwrap(), b"00ff");
        assert!(key(OsStr::new("abc"), true).is_err_and(|e| e.to_string().contains("even")));
        assert!(key(OsStr::new("zz"), true).is_err_and(|e| e.to_string().contains("not hex")));
    }

    #[test]
    fn json_says_its_encoding() {
        let text = serde_json::to_string(&Encoded::from(&b"hi"[..])).unwrap();
        assert_eq!(text, r#"{"encoding":"text","data":"hi"}"#);
        let binary = serde_json::to_string(&Encoded::from(&b"\xff\x00"[..])).unwrap();
        assert_eq!(binary, r#"{"encoding":"base64","data":"/wA="}"#);
    }
}
