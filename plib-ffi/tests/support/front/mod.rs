//! The ways into a cache that the model's sequences run through.

pub mod c;
pub mod core;
pub mod remote;
pub mod rust;
