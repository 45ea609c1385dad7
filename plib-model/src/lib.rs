//! The abstract executable model of plib's cache.
//!
//! A map from key to value, flags, expiry and cas, with memcached's semantics, written to be read:
//! no sharing, no memory, no clock of its own. Tests run one sequence of [`Command`]s through the
//! [`Model`] and through a [`Front`] (the Rust API, the C ABI, a second process ...) and the
//! [`Checker`] says whether each [`Reply`] is one that the model allows.
//!
//! What a real cache may do and a map may not:
//! - it may have evicted an item, but only as many as it counted as evictions;
//! - it chooses the cas values; they must be unique, and rise with each store of a key;
//! - it reads the clock itself, at some instant of the [`Window`] that the caller measured.

pub mod checker;
pub mod command;
pub mod front;
pub mod history;
pub mod model;
pub mod number;
pub mod strategy;
pub mod time;

pub use checker::Checker;
pub use command::{Arith, Command, Found, Reply, Store, StoreMode, Token, Value, Why};
pub use front::{Front, ModelFront, run};
pub use model::{Limits, Model};
pub use time::{Expiry, Window};
