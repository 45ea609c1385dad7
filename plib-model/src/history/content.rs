//! What a key can hold, in a few words: values are told apart by the numbers of the pieces that they are made of.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::time::Expiry;

/// A value.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Content {
    /// Pieces (a number that something was added to counts as one), in order.
    Pieces {
        /// How many.
        count: u32,
        /// A polynomial over them, to which pieces can be added on both sides.
        hash: u64,
    },
    /// Decimal digits, then spaces.
    Number {
        /// The number.
        number: u64,
        /// Bytes in all.
        width: u32,
    },
    /// Bytes that nobody stored; what is wrong with them.
    Broken {
        /// The byte from which on they are wrong.
        at: u64,
        /// Bytes in all.
        len: u64,
    },
}

/// Any odd number with many bits: pieces are random enough by themselves.
const BASE: u64 = 0x9E37_79B9_7F4A_7C15;

impl Content {
    /// One piece.
    pub fn piece(id: u64) -> Content {
        Content::Pieces { count: 1, hash: mixed(id) }
    }

    /// A number as it is stored first: without spaces.
    pub fn number(number: u64) -> Content {
        Content::Number { number, width: digits(number) }
    }

    /// With `more` behind it.
    pub fn append(self, more: Content) -> Content {
        match (self.as_pieces(), more.as_pieces()) {
            (Some((n, a)), Some((m, b))) => {
                let hash = a.wrapping_mul(BASE.wrapping_pow(m)).wrapping_add(b);
                Content::Pieces { count: n.wrapping_add(m), hash }
            }
            (None, _) => self,
            (_, None) => more,
        }
    }

    /// After incr or decr; none if this is no number.
    pub fn counted(self, delta: u64, down: bool) -> Option<(u64, Content)> {
        let Content::Number { number, width } = self else { return None };
        // What is longer than the longest number is none, whatever it looks like.
        let number = if down { number.saturating_sub(delta) } else { number.wrapping_add(delta) };
        (width <= 20).then(|| (number, Content::Number { number, width: width.max(digits(number)) }))
    }

    fn as_pieces(self) -> Option<(u32, u64)> {
        match self {
            Content::Pieces { count, hash } => Some((count, hash)),
            Content::Number { number, width } => Some((1, mixed(number ^ u64::from(width) << 56) ^ BASE)),
            Content::Broken { .. } => None,
        }
    }
}

fn digits(number: u64) -> u32 {
    number.checked_ilog10().unwrap_or(0) + 1
}

fn mixed(id: u64) -> u64 {
    let id = (id ^ id >> 30).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    let id = (id ^ id >> 27).wrapping_mul(0x94D0_49BB_1331_11EB);
    id ^ id >> 31
}

impl fmt::Debug for Content {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Content::Pieces { count, hash } => write!(f, "{:05x}*{count}", hash >> 44),
            Content::Number { number, width } => write!(f, "\"{number:<0$}\"", *width as usize),
            Content::Broken { at, len } => write!(f, "BROKEN at byte {at} of {len}"),
        }
    }
}

/// What is known of an item's cas.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub enum Cas {
    /// This.
    Is(u64),
    /// Not told yet; larger than this.
    Above(u64),
}

impl Cas {
    /// The cas is at least this, or more.
    pub fn least(self) -> u64 {
        match self {
            Cas::Is(cas) | Cas::Above(cas) => cas,
        }
    }
}

impl fmt::Debug for Cas {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Cas::Is(cas) => write!(f, "{cas}"),
            Cas::Above(cas) => write!(f, ">{cas}"),
        }
    }
}

/// An item.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Item {
    /// The value.
    pub content: Content,
    /// The flags.
    pub flags: u32,
    /// When it is over.
    pub expiry: Expiry,
    /// Its cas.
    pub cas: Cas,
}

impl fmt::Debug for Item {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}, flags {:x}, cas {:?}", self.content, self.flags, self.cas)?;
        match self.expiry {
            Expiry::Never => Ok(()),
            Expiry::Between(lo, hi) if lo == hi => write!(f, ", until {lo}"),
            Expiry::Between(lo, hi) => write!(f, ", until {lo} to {hi}"),
        }
    }
}
