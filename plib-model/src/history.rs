//! Whether what several processes did to one key at the same time has an explanation: an order of
//! the operations, each at one instant between its start and its end, that gives every answer seen
//! (linearizability).

use std::collections::HashSet;

use serde::{Deserialize, Serialize};

/// What a key holds: 0 is nothing. Every stored piece has a number of its own, so that a value is
/// told by one word.
pub type Content = u64;

/// The content after `piece` was appended to `content`.
pub fn appended(content: Content, piece: u64) -> Content {
    (content.rotate_left(23) ^ piece).wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1
}

/// An operation and its answer.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum Did {
    /// get saw this.
    Get(Content),
    /// set stored this.
    Set(Content),
    /// add; whether it stored.
    Add(Content, bool),
    /// replace; whether it stored.
    Replace(Content, bool),
    /// append of a piece; whether it stored.
    Append(u64, bool),
    /// Compare and swap: the content whose cas was named, the new one, and the answer.
    Swap(Content, Content, Swapped),
    /// delete; whether there was anything.
    Delete(bool),
}

/// What compare and swap answered.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum Swapped {
    /// Stored.
    Yes,
    /// Another cas is there.
    Other,
    /// Nothing is there.
    Nothing,
}

impl Did {
    /// The content afterwards, if the answer fits the content before.
    fn apply(self, before: Content) -> Option<Content> {
        let is_there = before != 0;
        match self {
            Did::Get(seen) => (seen == before).then_some(before),
            Did::Set(new) => Some(new),
            Did::Add(new, stored) => (stored != is_there).then_some(if stored { new } else { before }),
            Did::Replace(new, stored) => (stored == is_there).then_some(if stored { new } else { before }),
            Did::Append(piece, stored) => {
                let after = if stored { appended(before, piece) } else { before };
                (stored == is_there).then_some(after)
            }
            Did::Swap(old, new, Swapped::Yes) => (is_there && old == before).then_some(new),
            Did::Swap(old, _, Swapped::Other) => (is_there && old != before).then_some(before),
            Did::Swap(_, _, Swapped::Nothing) => (!is_there).then_some(before),
            Did::Delete(found) => (found == is_there).then_some(0),
        }
    }
}

/// One operation in time; any clock that all processes share.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Event {
    /// Not before this.
    pub start: u64,
    /// Not after this.
    pub end: u64,
    /// What happened.
    pub did: Did,
}

/// Most events of one history.
pub const EVENTS_MAX: usize = 128;

/// Looks for an order that explains all events, from an absent key on; else tells how far it came.
pub fn explain(events: &[Event]) -> Result<(), String> {
    assert!(events.len() <= EVENTS_MAX, "{} events are too many", events.len());
    let mut search = Search { events, tried: HashSet::new(), best: 0, best_at: (0, 0) };
    if search.extend(0, 0) {
        return Ok(());
    }
    Err(search.told())
}

struct Search<'a> {
    events: &'a [Event],
    tried: HashSet<(u128, Content)>,
    best: u32,
    best_at: (u128, Content),
}

impl Search<'_> {
    /// How far the best try came, and the events around the one that did not fit.
    fn told(&self) -> String {
        use std::fmt::Write;
        let (done, content) = self.best_at;
        let mut text = format!(
            "{} of {} events have an order, which leaves {content:#x}; around the first that does not fit:",
            self.best,
            self.events.len()
        );
        let stuck = (0..self.events.len()).find(|i| done >> i & 1 == 0).unwrap_or(0);
        let zero = self.events.first().map_or(0, |event| event.start);
        for (i, event) in self.events.iter().enumerate().skip(stuck.saturating_sub(14)).take(24) {
            let mark = if done >> i & 1 == 1 { "fits" } else { "left" };
            let (start, end) = (event.start - zero, event.end - zero);
            let _ = write!(text, "\n  {mark} {start}..{end} {:x?}", event.did);
        }
        text
    }

    /// Whether the events that are not in `done` can follow on `content`.
    fn extend(&mut self, done: u128, content: Content) -> bool {
        if done.count_ones() as usize == self.events.len() {
            return true;
        }
        if done.count_ones() > self.best {
            (self.best, self.best_at) = (done.count_ones(), (done, content));
        }
        if !self.tried.insert((done, content)) {
            return false;
        }
        let is_left = |i: &usize| done >> i & 1 == 0;
        let left = || (0..self.events.len()).filter(is_left);
        // Whoever is next cannot have started after another one had ended.
        let first_end = left().map(|i| self.events[i].end).min().unwrap_or(0);
        let next: Vec<_> = left().filter(|&i| self.events[i].start <= first_end).collect();
        next.into_iter().any(|i| {
            let after = self.events[i].did.apply(content);
            after.is_some_and(|after| self.extend(done | 1 << i, after))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(start: u64, end: u64, did: Did) -> Event {
        Event { start, end, did }
    }

    #[test]
    fn one_after_the_other() {
        let events = [
            event(0, 1, Did::Get(0)),
            event(2, 3, Did::Set(5)),
            event(4, 5, Did::Get(5)),
            event(6, 7, Did::Append(9, true)),
            event(8, 9, Did::Get(appended(5, 9))),
            event(10, 11, Did::Swap(5, 6, Swapped::Other)),
            event(12, 13, Did::Delete(true)),
            event(14, 15, Did::Replace(7, false)),
            event(16, 17, Did::Add(8, true)),
            event(18, 19, Did::Swap(8, 9, Swapped::Yes)),
        ];
        assert_eq!(explain(&events), Ok(()));
        for effect in [1, 3, 6, 8] {
            let mut fewer = events.to_vec();
            fewer.remove(effect);
            assert!(explain(&fewer).is_err(), "without event {effect}");
        }
    }

    #[test]
    fn overlapping_operations_have_any_order() {
        let reads = |a, b| {
            [
                event(0, 10, Did::Set(1)),
                event(0, 10, Did::Set(2)),
                event(11, 12, Did::Get(a)),
                event(13, 14, Did::Get(b)),
            ]
        };
        assert!(explain(&reads(1, 1)).is_ok());
        assert!(explain(&reads(2, 2)).is_ok());
        assert!(explain(&reads(1, 2)).is_err(), "a value came back");
    }

    #[test]
    fn a_stale_read_has_no_explanation() {
        let events = [event(0, 1, Did::Set(1)), event(2, 3, Did::Set(2)), event(4, 5, Did::Get(1))];
        assert!(explain(&events).is_err());
        let early = [event(0, 1, Did::Set(1)), event(2, 9, Did::Set(2)), event(4, 5, Did::Get(1))];
        assert!(explain(&early).is_ok());
    }

    #[test]
    fn only_one_add_wins() {
        let events = [event(0, 9, Did::Add(1, true)), event(0, 9, Did::Add(2, true))];
        assert!(explain(&events).is_err());
    }
}
