//! What processes asked, what they were answered, and when.

use serde::{Deserialize, Serialize};

use super::content::Content;
use crate::time::Window;

/// A value to store, and what goes with it.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct New {
    /// The value.
    pub content: Content,
    /// The flags.
    pub flags: u32,
    /// Expiry time as memcached takes it.
    pub exptime: i64,
}

/// An operation.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum Asked {
    /// get
    Get,
    /// set
    Set(New),
    /// add
    Add(New),
    /// replace
    Replace(New),
    /// append of a value
    Append(Content),
    /// prepend of a value
    Prepend(Content),
    /// Compare and swap, and the cas that was named.
    Swap(New, u64),
    /// delete; only of an item with this cas, if one is named.
    Delete(Option<u64>),
    /// incr or decr.
    Count {
        /// By how much.
        delta: u64,
        /// decr.
        down: bool,
        /// The number and expiry time for a key without an item.
        initial: Option<(u64, i64)>,
    },
    /// touch
    Touch(i64),
    /// get-and-touch
    GetAndTouch(i64),
    /// flush_all, without delay.
    Flush,
}

/// An item as a reader saw it.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Seen {
    /// The value.
    pub content: Content,
    /// The flags.
    pub flags: u32,
    /// The expiry in Unix seconds; 0 is never.
    pub expiry: u32,
    /// The cas.
    pub cas: u64,
}

/// An answer. An operation that answered that nothing was done (BUSY, NoMemory, TooLarge) is no event.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum Answer {
    /// None: the process was killed.
    Died,
    /// Stored, with this cas; 0 if it was not told.
    Stored(u64),
    /// Not stored: the item is there (add) or is not (replace, append, prepend).
    NotStored,
    /// No such item.
    Missing,
    /// The item has another cas.
    Other,
    /// Deleted, touched, flushed.
    Done,
    /// The number after incr or decr.
    Number(u64),
    /// The value is no number.
    NotNumeric,
    /// The item.
    Found(Seen),
}

/// One operation in time, by any clock that all processes share.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Event {
    /// Not before this.
    pub start: u64,
    /// Not after this; for one that died, the moment at which somebody knew that it was dead.
    pub end: u64,
    /// The clock that expiry goes by, before and after.
    pub now: Window,
    /// Who did it; for people to read.
    pub who: u32,
    /// What was asked.
    pub asked: Asked,
    /// What was answered.
    pub answer: Answer,
}

impl Event {
    /// Whether the operation cannot have changed anything, by its answer.
    pub(super) fn only_looked(&self) -> bool {
        match self.answer {
            Answer::Missing | Answer::NotStored | Answer::Other | Answer::NotNumeric => true,
            Answer::Found(_) => self.asked == Asked::Get,
            Answer::Died | Answer::Stored(_) | Answer::Done | Answer::Number(_) => false,
        }
    }
}
