//! What one operation does to one item, and whether its answer fits.

use std::collections::HashSet;

use super::content::{Cas, Content, Item};
use super::event::{Answer, Asked, Event, New, Seen};
use crate::time::Expiry;

/// What is there afterwards.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Next {
    /// What was there.
    Same,
    /// Nothing.
    Gone,
    /// This.
    Is(Item),
}

/// All contents that a key can have after `event`, if it held `there` before; two at most, as an item that expires about now
/// may count as there or not. `told` are the cas values that stores were answered.
pub(super) fn outcomes(event: &Event, there: Option<Item>, told: &HashSet<u64>) -> impl Iterator<Item = Option<Item>> {
    let alive = there.is_none_or(|item| !item.expiry.is_over(event.now));
    let over = there.is_some_and(|item| item.expiry.is_over(event.now) || item.expiry.is_unclear(event.now));
    let as_there = if alive { act(event, there, told) } else { None };
    let as_over = if over { act(event, None, told) } else { None };
    let after = move |next| match next {
        // An item that is over for one may still be there for another, whose clock is of a moment ago.
        Next::Same => there,
        Next::Gone => None,
        Next::Is(item) => Some(item),
    };
    as_there.into_iter().chain(as_over).map(after)
}

/// What `event` does if it finds `there`; none if its answer does not fit. One that died has any answer, but an effect.
fn act(event: &Event, there: Option<Item>, told: &HashSet<u64>) -> Option<Next> {
    let Event { now, answer, .. } = *event;
    let fresh = |new: New, old: Option<Item>| Item {
        content: new.content,
        flags: new.flags,
        expiry: Expiry::from_exptime(new.exptime, now),
        cas: Cas::Above(old.map_or(0, |item| item.cas.least())),
    };
    let unless = |refused: Answer| (answer == refused).then_some(Next::Same);
    let store = |item: Item| stored(answer, item, told);
    match (event.asked, there) {
        (Asked::Get | Asked::GetAndTouch(_) | Asked::Touch(_) | Asked::Delete(_) | Asked::Swap(..), None) => {
            unless(Answer::Missing)
        }
        (Asked::Get, Some(item)) => found(answer, item, told),
        (Asked::GetAndTouch(exptime), Some(item)) => {
            found(answer, Item { expiry: Expiry::from_exptime(exptime, now), ..item }, told)
        }
        (Asked::Touch(exptime), Some(item)) => {
            let touched = Item { expiry: Expiry::from_exptime(exptime, now), ..item };
            matches!(answer, Answer::Done | Answer::Died).then_some(Next::Is(touched))
        }
        (Asked::Set(new), _) => store(fresh(new, there)),
        (Asked::Add(new), None) => store(fresh(new, None)),
        (Asked::Replace(new), Some(_)) => store(fresh(new, there)),
        (Asked::Append(more), Some(item)) => store(changed(item, item.content.append(more))),
        (Asked::Prepend(more), Some(item)) => store(changed(item, more.append(item.content))),
        (Asked::Add(_), Some(_)) | (Asked::Replace(_) | Asked::Append(_) | Asked::Prepend(_), None) => {
            unless(Answer::NotStored)
        }
        (Asked::Swap(new, cas), Some(item)) if names(cas, item, answer, told) => store(fresh(new, there)),
        (Asked::Delete(cas), Some(item)) if cas.is_none_or(|cas| names(cas, item, answer, told)) => {
            matches!(answer, Answer::Done | Answer::Died).then_some(Next::Gone)
        }
        (Asked::Swap(..) | Asked::Delete(_), Some(_)) => unless(Answer::Other),
        (Asked::Count { delta, down, .. }, Some(item)) => match item.content.counted(delta, down) {
            None => unless(Answer::NotNumeric),
            Some((number, content)) => counted(answer, number, changed(item, content)),
        },
        (Asked::Count { initial: Some((number, exptime)), .. }, None) => {
            let new = New { content: Content::number(number), flags: 0, exptime };
            counted(answer, number, fresh(new, None))
        }
        (Asked::Count { .. }, None) => unless(Answer::Missing),
        (Asked::Flush, _) => matches!(answer, Answer::Done | Answer::Died).then_some(Next::Gone),
    }
}

fn changed(item: Item, content: Content) -> Item {
    Item { content, cas: Cas::Above(item.cas.least()), ..item }
}

/// Whether `cas` is the item's; where that is not known, whether it may be and the answer says so.
fn names(cas: u64, item: Item, answer: Answer, told: &HashSet<u64>) -> bool {
    match item.cas {
        Cas::Is(known) => known == cas,
        Cas::Above(least) => cas > least && !told.contains(&cas) && answer != Answer::Other,
    }
}

/// The new item, with the cas that its store was answered.
fn stored(answer: Answer, item: Item, told: &HashSet<u64>) -> Option<Next> {
    match answer {
        Answer::Died | Answer::Stored(0) => Some(Next::Is(item)),
        Answer::Stored(cas) => {
            debug_assert!(told.contains(&cas), "cas {cas} was told");
            (cas > item.cas.least()).then_some(Next::Is(Item { cas: Cas::Is(cas), ..item }))
        }
        _ => None,
    }
}

fn counted(answer: Answer, number: u64, item: Item) -> Option<Next> {
    matches!(answer, Answer::Died)
        .then_some(Next::Is(item))
        .or((answer == Answer::Number(number)).then_some(Next::Is(item)))
}

/// The item, and what a reader told of it.
fn found(answer: Answer, item: Item, told: &HashSet<u64>) -> Option<Next> {
    let seen = match answer {
        Answer::Died => return Some(Next::Is(item)),
        Answer::Found(seen) => seen,
        _ => return None,
    };
    let Seen { content, flags, expiry, cas } = seen;
    let cas_fits = match item.cas {
        Cas::Is(known) => known == cas,
        Cas::Above(least) => cas > least && !told.contains(&cas),
    };
    let fits = cas_fits && (content, flags) == (item.content, item.flags) && item.expiry.allows(expiry);
    let expiry = if expiry == 0 { Expiry::Never } else { Expiry::Between(expiry, expiry) };
    fits.then_some(Next::Is(Item { cas: Cas::Is(cas), expiry, ..item }))
}
