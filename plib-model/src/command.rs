//! What can be asked of a cache, and what it can answer.

use std::fmt;

use serde::{Deserialize, Serialize};

/// Which cas value a command names.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum Token {
    /// The item's own; the checker puts in the value seen last.
    Current,
    /// One that the key had before, or never had.
    Stale,
    /// This value.
    Exact(u64),
}

/// The bytes to store: made from a few words, so that sequences stay small and readable.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Value {
    /// `len` bytes that depend on `seed` and their place.
    Pattern {
        /// Tells one value from another.
        seed: u64,
        /// Length in bytes.
        len: usize,
    },
    /// These bytes.
    Text(#[serde(with = "serde_bytes")] Vec<u8>),
}

impl Value {
    /// The bytes.
    pub fn bytes(&self) -> Vec<u8> {
        match self {
            Value::Text(text) => text.clone(),
            Value::Pattern { seed, len } => pattern(*seed, *len),
        }
    }
}

/// Bytes of a 64-bit generator, so that no two places of a large value look alike.
fn pattern(seed: u64, len: usize) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
    let mut out = Vec::with_capacity(len + 8);
    while out.len() < len {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        out.extend_from_slice(&state.to_le_bytes());
    }
    out.truncate(len);
    out
}

/// How a store treats what is there.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum StoreMode {
    /// Whatever is there.
    Set,
    /// Only if nothing is there.
    Add,
    /// Only if something is there.
    Replace,
    /// Behind what is there; flags and expiry stay.
    Append,
    /// Before what is there; flags and expiry stay.
    Prepend,
    /// Only if the item has this cas.
    Cas(Token),
}

/// A store of one item.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Store {
    /// How.
    pub mode: StoreMode,
    /// The key.
    #[serde(with = "serde_bytes")]
    pub key: Vec<u8>,
    /// The value.
    pub value: Value,
    /// Flags; append and prepend ignore them.
    pub flags: u32,
    /// Expiry time as memcached takes it; append and prepend ignore it.
    pub exptime: i64,
}

/// incr or decr.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Arith {
    /// The key.
    #[serde(with = "serde_bytes")]
    pub key: Vec<u8>,
    /// How much.
    pub delta: u64,
    /// decr rather than incr.
    pub decrement: bool,
    /// The number and expiry time that a missing item gets; `None` leaves it missing.
    pub initial: Option<(u64, i64)>,
}

/// One thing to ask of a cache.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Command {
    /// The item.
    Get(Vec<u8>),
    /// The item, into a buffer of this many bytes.
    GetInto(Vec<u8>, usize),
    /// The item, and a new expiry time.
    GetAndTouch(Vec<u8>, i64),
    /// A new item.
    Store(Store),
    /// No item; only if it has this cas.
    Delete(Vec<u8>, Option<Token>),
    /// incr or decr.
    Arith(Arith),
    /// A new expiry time.
    Touch(Vec<u8>, i64),
    /// No items at all, after a delay.
    FlushAll(i64),
    /// Several gets.
    GetMany(Vec<Vec<u8>>),
    /// Several sets, with one flags word and expiry time.
    SetMany(Vec<(Vec<u8>, Value)>, u32, i64),
    /// Several deletes.
    DeleteMany(Vec<Vec<u8>>),
    /// Every item once.
    Scan,
}

/// Bytes as a person can read them: text as it is, what is long by its length.
struct Shown<'a>(&'a [u8]);

impl fmt::Debug for Shown<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0.len() {
            0..=40 => write!(f, "\"{}\"", self.0.escape_ascii()),
            len => write!(f, "\"{}..\"({len} bytes)", self.0[..4].escape_ascii()),
        }
    }
}

impl fmt::Debug for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Value::Pattern { seed, len } => write!(f, "{len} bytes of {seed:x}"),
            Value::Text(text) => Shown(text).fmt(f),
        }
    }
}

impl fmt::Debug for Store {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Store { mode, key, value, flags, exptime } = self;
        write!(f, "{mode:?}({:?}, {value:?}, flags {flags}, exptime {exptime})", Shown(key))
    }
}

impl fmt::Debug for Arith {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = if self.decrement { "Decr" } else { "Incr" };
        write!(f, "{name}({:?}, {}, initial {:?})", Shown(&self.key), self.delta, self.initial)
    }
}

impl fmt::Debug for Command {
    /// One line, whatever the formatter's style: sequences are long.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let shown = |keys: &[Vec<u8>]| {
            let keys: Vec<_> = keys.iter().map(|key| format!("{:?}", Shown(key))).collect();
            keys.join(", ")
        };
        match self {
            Command::Get(key) => write!(f, "Get({:?})", Shown(key)),
            Command::GetInto(key, room) => write!(f, "GetInto({:?}, {room} bytes)", Shown(key)),
            Command::GetAndTouch(key, t) => write!(f, "GetAndTouch({:?}, {t})", Shown(key)),
            Command::Store(store) => write!(f, "{store:?}"),
            Command::Delete(key, token) => write!(f, "Delete({:?}, {token:?})", Shown(key)),
            Command::Arith(arith) => write!(f, "{arith:?}"),
            Command::Touch(key, t) => write!(f, "Touch({:?}, {t})", Shown(key)),
            Command::FlushAll(delay) => write!(f, "FlushAll({delay})"),
            Command::GetMany(keys) => write!(f, "GetMany({})", shown(keys)),
            Command::SetMany(items, flags, exptime) => {
                let items: Vec<_> = items.iter().map(|(key, value)| format!("{:?}: {value:?}", Shown(key))).collect();
                write!(f, "SetMany({}; flags {flags}, exptime {exptime})", items.join(", "))
            }
            Command::DeleteMany(keys) => write!(f, "DeleteMany({})", shown(keys)),
            Command::Scan => write!(f, "Scan"),
        }
    }
}

/// Why nothing was done.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum Why {
    /// No such item.
    NotFound,
    /// The item has another cas.
    Exists,
    /// The item is there (add) or is not (replace, append, prepend).
    NotStored,
    /// Header, key and value are more than the heap takes.
    TooLarge,
    /// The key is empty or longer than 250 bytes.
    Key,
    /// The value is no number.
    NotNumeric,
    /// The buffer is too small; this many bytes are needed.
    TooSmall(usize),
    /// Anything else; never right.
    Other(String),
}

/// An item as a reader sees it.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Found {
    /// The key.
    #[serde(with = "serde_bytes")]
    pub key: Vec<u8>,
    /// The value.
    #[serde(with = "serde_bytes")]
    pub value: Vec<u8>,
    /// The flags.
    pub flags: u32,
    /// The expiry in Unix seconds; 0 is never.
    pub expiry: u32,
    /// The cas.
    pub cas: u64,
}

impl fmt::Debug for Found {
    /// Long values are shown by their length and first bytes.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let head = &self.value[..self.value.len().min(24)];
        write!(
            f,
            "Found {{ key: {:?}, value: {} bytes \"{}\", flags: {}, expiry: {}, cas: {} }}",
            Shown(&self.key),
            self.value.len(),
            head.escape_ascii(),
            self.flags,
            self.expiry,
            self.cas
        )
    }
}

/// What a cache answered.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum Reply {
    /// Done; nothing to tell (delete, touch, flush_all).
    Done,
    /// Stored, with this cas; 0 where a front does not tell.
    Stored(u64),
    /// The item.
    Item(Found),
    /// The number after incr or decr.
    Number(u64),
    /// One reply a member of a batch.
    Many(Vec<Reply>),
    /// All items.
    Items(Vec<Found>),
    /// Nothing done, and why.
    Refused(Why),
}
