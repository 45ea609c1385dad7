//! Values that show by themselves whether they are whole and belong to their key.
//!
//! A value is one or more records, so that appends and prepends can be told as well:
//! ```text
//! | magic u32 | words u32 | key hash u64 | writer u32 | tail u32 | seq u64 | words x u64 | tail bytes | sum u64 |
//! ```
//! The words follow from key, writer, seq and length, so a byte of any other value is noticed.

/// What one record says.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Record {
    pub writer: u32,
    pub seq: u64,
}

const MAGIC: u32 = 0x706c_7263;
const HEAD: usize = 32;
/// Bytes of a record with nothing in it.
pub const RECORD_MIN: usize = HEAD + 8;

/// A record of `len` bytes (at least [`RECORD_MIN`]) for `key`.
pub fn make(key: &[u8], record: Record, len: usize) -> Vec<u8> {
    let len = len.max(RECORD_MIN);
    let (words, tail) = ((len - RECORD_MIN) / 8, (len - RECORD_MIN) % 8);
    let mut out = Vec::with_capacity(len);
    out.extend_from_slice(&MAGIC.to_le_bytes());
    out.extend_from_slice(&(words as u32).to_le_bytes());
    out.extend_from_slice(&hash(key).to_le_bytes());
    out.extend_from_slice(&record.writer.to_le_bytes());
    out.extend_from_slice(&(tail as u32).to_le_bytes());
    out.extend_from_slice(&record.seq.to_le_bytes());
    let mut state = seed(key, record, len);
    for _ in 0..words {
        state = step(state);
        out.extend_from_slice(&state.to_le_bytes());
    }
    state = step(state);
    out.extend_from_slice(&state.to_le_bytes()[..tail]);
    out.extend_from_slice(&step(state).to_le_bytes());
    out
}

/// All records of a value; what is wrong if it is torn, foreign or cut.
pub fn read(key: &[u8], value: &[u8]) -> Result<Vec<Record>, String> {
    let mut rest = value;
    let mut records = Vec::new();
    while !rest.is_empty() {
        let at = value.len() - rest.len();
        let (record, len) =
            read_one(key, rest).map_err(|e| format!("{}: at byte {at} of {}: {e}", key.escape_ascii(), value.len()))?;
        records.push(record);
        rest = &rest[len..];
    }
    match records.is_empty() {
        true => Err(format!("{}: no record in the value", key.escape_ascii())),
        false => Ok(records),
    }
}

fn read_one(key: &[u8], value: &[u8]) -> Result<(Record, usize), String> {
    let word = |at: usize| value.get(at..at + 8).map(|b| u64::from_le_bytes(b.try_into().unwrap()));
    let half = |at: usize| value.get(at..at + 4).map(|b| u32::from_le_bytes(b.try_into().unwrap()));
    let head = (half(0), half(4), word(8), half(16), half(20), word(24));
    let (Some(magic), Some(words), Some(owner), Some(writer), Some(tail), Some(seq)) = head else {
        return Err("cut in its head".into());
    };
    if (magic, owner) != (MAGIC, hash(key)) {
        return Err(format!("foreign: magic {magic:#x}, key hash {owner:#x}"));
    }
    let (words, tail) = (words as usize, tail as usize);
    let len = RECORD_MIN + words * 8 + tail;
    if value.len() < len || tail > 7 {
        return Err(format!("cut: {} of {len} bytes", value.len()));
    }
    let record = Record { writer, seq };
    let mut state = seed(key, record, len);
    for place in 0..words {
        state = step(state);
        if word(HEAD + place * 8) != Some(state) {
            return Err(format!("torn: {record:?}, word {place} of {words}"));
        }
    }
    state = step(state);
    let end = HEAD + words * 8;
    if value[end..end + tail] != state.to_le_bytes()[..tail] || word(end + tail) != Some(step(state)) {
        return Err(format!("torn: {record:?}, at its end"));
    }
    Ok((record, len))
}

fn seed(key: &[u8], record: Record, len: usize) -> u64 {
    step(hash(key) ^ step(record.seq ^ (u64::from(record.writer) << 40)) ^ (len as u64) << 17) | 1
}

fn step(mut state: u64) -> u64 {
    state ^= state << 13;
    state ^= state >> 7;
    state ^= state << 17;
    state
}

/// A hash of the key, for recognising it; not the heap's.
fn hash(key: &[u8]) -> u64 {
    key.iter().fold(0xcbf2_9ce4_8422_2325, |h, &b| (h ^ u64::from(b)).wrapping_mul(0x100_0000_01b3))
}
