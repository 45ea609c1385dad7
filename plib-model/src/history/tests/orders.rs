//! The search against one that tries every order, on small histories.

use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};

use super::*;
use crate::history::rules::outcomes;

/// The fewest evictions of any order that explains all events; none if no order does.
fn fewest(events: &[Event], rules: &Rules) -> Option<u64> {
    let all = (1u32 << events.len()) - 1;
    extend(events, rules, rules.start, all)
}

/// The same for the events in `left`, from `there` on. Every order, and an eviction before any of them.
fn extend(events: &[Event], rules: &Rules, there: Option<Item>, left: u32) -> Option<u64> {
    if left == 0 {
        return Some(0);
    }
    let of = |left: u32| (0..events.len()).filter(move |place| left >> place & 1 == 1);
    let first_end = of(left).map(|place| events[place].end).min()?;
    let mut best: Option<u64> = None;
    let mut offer = |found: Option<u64>, cost: u64| {
        let found = found.map(|found| found + cost);
        best = match (best, found) {
            (Some(a), Some(b)) => Some(a.min(b)),
            (a, b) => a.or(b),
        };
    };
    for place in of(left).filter(|place| events[*place].start <= first_end) {
        let rest = left & !(1 << place);
        for after in outcomes(&events[place], there, &rules.told) {
            offer(extend(events, rules, after, rest), 0);
        }
        if events[place].answer == Answer::Died {
            offer(extend(events, rules, there, rest), 0);
        }
    }
    if rules.evictions && there.is_some() {
        offer(extend(events, rules, None, left), 1);
    }
    best
}

/// Small events over two pieces, small numbers and few cas values, so that many histories have an explanation.
fn small_event() -> impl Strategy<Value = Event> {
    let asked = prop_oneof![
        4 => Just(Asked::Get),
        3 => (1u64..3).prop_map(|id| Asked::Set(short(id))),
        1 => (1u64..3).prop_map(|id| Asked::Add(short(id))),
        1 => (1u64..3).prop_map(|id| Asked::Replace(short(id))),
        1 => (1u64..3, 1u64..4).prop_map(|(id, cas)| Asked::Swap(short(id), cas)),
        1 => Just(Asked::Append(Content::piece(1))),
        1 => prop::option::of(1u64..4).prop_map(Asked::Delete),
        1 => (0i64..3).prop_map(|exptime| Asked::Touch(exptime * 2)),
        1 => Just(Asked::GetAndTouch(0)),
        1 => Just(Asked::Flush),
        2 => prop::option::of(Just((1u64, 0i64))).prop_map(|initial| Asked::Count { delta: 1, down: false, initial }),
    ];
    (asked, 0u64..12, 0u64..8, 0u32..6, any::<prop::sample::Index>(), 0u64..4, 0u32..5).prop_map(
        |(asked, start, len, second, which, cas, expiry)| {
            let content = [
                Content::piece(1),
                Content::piece(2),
                Content::number(1),
                Content::number(2),
                Content::piece(1).append(Content::piece(1)),
            ];
            let expiry = if expiry < 3 { 0 } else { 100 + expiry };
            let seen = Seen { content: *which.get(&content), flags: 0, expiry, cas: cas + 1 };
            let answers: &[Answer] = match asked {
                Asked::Get => &[Answer::Missing, Answer::Found(seen), Answer::Found(seen)],
                Asked::GetAndTouch(_) => &[Answer::Missing, Answer::Found(Seen { expiry: 0, ..seen })],
                Asked::Set(_) => &[Answer::Stored(cas)],
                Asked::Add(_) | Asked::Replace(_) | Asked::Append(_) | Asked::Prepend(_) => {
                    &[Answer::Stored(cas), Answer::NotStored]
                }
                Asked::Swap(..) => &[Answer::Stored(cas), Answer::Missing, Answer::Other],
                Asked::Delete(None) | Asked::Touch(_) => &[Answer::Done, Answer::Missing],
                Asked::Delete(Some(_)) => &[Answer::Done, Answer::Missing, Answer::Other],
                Asked::Count { .. } => &[Answer::Missing, Answer::Number(1), Answer::Number(2), Answer::NotNumeric],
                Asked::Flush => &[Answer::Done],
            };
            let answer = if second == 0 { Answer::Died } else { *which.get(answers) };
            let now = Window { earliest: 100 + (start / 4) as u32, latest: 100 + ((start + len) / 4) as u32 };
            Event { start, end: start + len, now, who: 0, asked, answer }
        },
    )
}

fn short(id: u64) -> New {
    New { content: Content::piece(id), flags: 0, exptime: (id as i64 - 1) * 2 }
}

#[test]
fn the_search_finds_what_any_order_gives() {
    let cases = 20_000;
    let (mut right, mut dead, mut evicted) = (0, 0, 0);
    let strategy = (prop::collection::vec(small_event(), 1..7), any::<bool>());
    let mut runner = TestRunner::new(Config { cases, failure_persistence: None, ..Config::default() });
    let counted = std::cell::RefCell::new((&mut right, &mut dead, &mut evicted));
    let outcome = runner.run(&strategy, |(events, evictions)| {
        let told = events.iter().filter_map(|event| match event.answer {
            Answer::Stored(cas) if cas != 0 => Some(cas),
            _ => None,
        });
        let rules = Rules { start: None, evictions, told: told.collect() };
        let expected = fewest(&events, &rules);
        let found = explain(&events, &rules);
        prop_assert_eq!(found.as_ref().ok().map(|found| found.evictions), expected, "{:?}", found);
        let mut counted = counted.borrow_mut();
        *counted.0 += u32::from(expected.is_some());
        *counted.1 += u32::from(expected.is_some() && events.iter().any(|event| event.answer == Answer::Died));
        *counted.2 += u32::from(expected.is_some_and(|evictions| evictions > 0));
        Ok(())
    });
    outcome.unwrap_or_else(|e| panic!("{e}"));
    eprintln!("    {cases} small histories: {right} have an order, {dead} of them with dead, {evicted} with evictions");
    assert!(right > cases / 20 && right < cases * 19 / 20, "{right} of {cases} have an order");
    assert!(dead > 500 && evicted > 150, "{dead} with dead, {evicted} with evictions");
}
