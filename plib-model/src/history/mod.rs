//! Whether what several processes did to the same keys at the same time has an explanation: an order of the operations,
//! each at one instant between its start and its end, that gives every answer seen (linearizability).
//!
//! Keys are explained one by one, since operations on different keys do not meet; flush_all stands in every key's history.
//!
//! | what may happen | what the explanation may do |
//! | --- | --- |
//! | a process is killed in an operation | the operation takes effect between its start and the death, or not at all; never later |
//! | an operation answers BUSY, NoMemory or TooLarge | nothing; it does not stand in the history |
//! | an item expires | an operation finds nothing if the item's time may have come by its end, and must if it had come at its start |
//! | an item is evicted | it vanishes at any instant, if the heap may evict; no more than the heap counted, over all keys |
//! | a store does not tell its cas | the first who sees it tells; it is larger than the one replaced, and no other's |
//!
//! | file | what |
//! | --- | --- |
//! | `content` | what a key can hold, by numbers instead of bytes |
//! | `pieces` | the bytes that stand for it in a cache |
//! | `event` | operations, answers, and when they happened |
//! | `rules` | what one operation does to one item |
//! | `search` | the search for an order |
//! | `all` | all keys of a heap: no cas twice, evictions counted |

mod all;
mod content;
mod event;
pub mod pieces;
mod rules;
mod search;

pub use all::{Report, explain_all};
pub use content::{Cas, Content, Item};
pub use event::{Answer, Asked, Event, New, Seen};
pub use search::{Explained, Rules, Unexplained, explain};

#[cfg(test)]
mod tests;
