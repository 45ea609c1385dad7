//! The checker itself: right histories are explained, and planted errors are not.

mod generated;
mod orders;
mod planted;

use super::*;
use crate::time::Window;

fn event(start: u64, end: u64, asked: Asked, answer: Answer) -> Event {
    Event { start, end, now: Window::at(100), who: 0, asked, answer }
}

fn new(id: u64) -> New {
    New { content: Content::piece(id), flags: id as u32, exptime: 0 }
}

/// A get that saw the piece `id` as [`new`] stores it, with this cas.
fn saw(id: u64, cas: u64) -> Answer {
    Answer::Found(Seen { content: Content::piece(id), flags: id as u32, expiry: 0, cas })
}

/// As histories of one key, without evictions.
fn explained(events: &[Event]) -> Result<Explained, Unexplained> {
    explain_all(&[("k".into(), events.to_vec())], 0).map(|report| report.sum)
}
