//! The operations whose round trips are compared, and what each needs before and after it.

use crate::{failure::Result, key::Key};

/// An operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Op {
    /// Read a value.
    Get,
    /// Read 16 values with one call.
    Batch,
    /// Store a value.
    Set,
    /// Store where nothing is.
    Add,
    /// Store where something is.
    Replace,
    /// Put bytes behind a value.
    Append,
    /// Put bytes before a value.
    Prepend,
    /// Store where nothing changed since.
    Cas,
    /// Remove.
    Delete,
    /// Count up.
    Incr,
    /// Count down.
    Decr,
    /// Set the expiry.
    Touch,
    /// Read a value and set its expiry.
    Gat,
}

impl Op {
    /// All, in the order of the report.
    pub const ALL: [Op; 13] = [
        Op::Get,
        Op::Batch,
        Op::Set,
        Op::Add,
        Op::Replace,
        Op::Append,
        Op::Prepend,
        Op::Cas,
        Op::Delete,
        Op::Incr,
        Op::Decr,
        Op::Touch,
        Op::Gat,
    ];

    /// Its name in reports.
    pub fn name(self) -> &'static str {
        match self {
            Op::Get => "get",
            Op::Batch => "16-key get",
            Op::Set => "set",
            Op::Add => "add",
            Op::Replace => "replace",
            Op::Append => "append",
            Op::Prepend => "prepend",
            Op::Cas => "cas",
            Op::Delete => "delete",
            Op::Incr => "incr",
            Op::Decr => "decr",
            Op::Touch => "touch",
            Op::Gat => "gat",
        }
    }

    /// What must be done to an item before the operation, so that it can succeed.
    pub fn before(self) -> Step {
        match self {
            Op::Add => Step::Delete,
            Op::Cas => Step::LearnCas,
            _ => Step::Nothing,
        }
    }

    /// What puts the item back as it was.
    pub fn after(self) -> Step {
        match self {
            Op::Delete | Op::Append | Op::Prepend => Step::Set,
            _ => Step::Nothing,
        }
    }

    /// Whether it works on counters.
    pub fn counts(self) -> bool {
        matches!(self, Op::Incr | Op::Decr)
    }
}

/// What is done to an item outside the timed part.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// It stays as it is.
    Nothing,
    /// It is removed.
    Delete,
    /// It is stored.
    Set,
    /// Its cas number is read and remembered.
    LearnCas,
}

/// Something that can do every operation. Each checks that it had the effect it must have.
pub trait Actor {
    /// One operation on one item.
    fn one(&mut self, op: Op, item: u64, key: &Key) -> Result<()>;
    /// One 16-key get.
    fn batch(&mut self, items: &[u64], keys: &[Key]) -> Result<()>;
    /// One step outside the timed part.
    fn step(&mut self, step: Step, item: u64, key: &Key) -> Result<()>;
    /// Stores a counter.
    fn set_counter(&mut self, key: &Key) -> Result<()>;
}
