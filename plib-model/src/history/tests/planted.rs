//! One error each, and the same history without it.

use super::*;
use Answer::*;
use Asked::*;

/// The history must have an explanation, and none once event `wrong` is replaced.
fn only_without(events: &[Event], wrong: usize, error: Event) {
    if let Err(e) = explained(events) {
        panic!("the right history has no explanation: {e}");
    }
    let mut planted = events.to_vec();
    planted[wrong] = error;
    let told = explained(&planted).expect_err("the error was explained").to_string();
    assert!(told.contains("process 0") || told.contains("cas"), "the explanation names no operation: {told}");
}

#[test]
fn one_after_the_other() {
    let two = Content::piece(5).append(Content::piece(9));
    let events = [
        event(0, 1, Get, Missing),
        event(2, 3, Set(new(5)), Stored(10)),
        event(4, 5, Get, saw(5, 10)),
        event(6, 7, Append(Content::piece(9)), Stored(11)),
        event(8, 9, Get, Found(Seen { content: two, flags: 5, expiry: 0, cas: 11 })),
        event(10, 11, Swap(new(6), 10), Other),
        event(12, 13, Delete(None), Done),
        event(14, 15, Replace(new(7)), NotStored),
        event(16, 17, Add(new(8)), Stored(12)),
        event(18, 19, Swap(new(9), 12), Stored(13)),
    ];
    assert!(explained(&events).is_ok());
    for effect in [1, 3, 6, 8] {
        let mut fewer = events.to_vec();
        fewer.remove(effect);
        assert!(explained(&fewer).is_err(), "without event {effect}");
    }
}

#[test]
fn overlapping_operations_have_any_order() {
    let reads = |a: Answer, b: Answer| {
        explained(&[
            event(0, 10, Set(new(1)), Stored(0)),
            event(0, 10, Set(new(2)), Stored(0)),
            event(11, 12, Get, a),
            event(13, 14, Get, b),
        ])
    };
    assert!(reads(saw(1, 1), saw(1, 1)).is_ok());
    assert!(reads(saw(2, 2), saw(2, 2)).is_ok());
    assert!(reads(saw(1, 1), saw(2, 2)).is_err(), "a value came back");
    assert!(reads(saw(1, 1), saw(1, 2)).is_err(), "an item changed its cas");
}

#[test]
fn a_stale_read() {
    let events =
        [event(0, 1, Set(new(1)), Stored(1)), event(2, 3, Set(new(2)), Stored(2)), event(4, 5, Get, saw(2, 2))];
    only_without(&events, 2, event(4, 5, Get, saw(1, 1)));
    let mut early = events;
    (early[1].end, early[2]) = (9, event(4, 5, Get, saw(1, 1)));
    assert!(explained(&early).is_ok(), "the set may come after the get");
}

#[test]
fn only_one_add_wins() {
    let events = [event(0, 9, Add(new(1)), Stored(1)), event(0, 9, Add(new(2)), NotStored)];
    only_without(&events, 1, event(0, 9, Add(new(2)), Stored(2)));
}

#[test]
fn a_lost_update() {
    let one = |delta| Count { delta, down: false, initial: None };
    let five = New { content: Content::number(5), flags: 0, exptime: 0 };
    let events = [
        event(0, 1, Set(five), Stored(1)),
        event(2, 9, one(1), Number(6)),
        event(2, 9, one(1), Number(7)),
        event(10, 11, Get, Found(Seen { content: Content::number(7), flags: 0, expiry: 0, cas: 4 })),
    ];
    only_without(&events, 2, event(2, 9, one(1), Number(6)));
    let six = Found(Seen { content: Content::number(6), flags: 0, expiry: 0, cas: 4 });
    only_without(&events, 3, event(10, 11, Get, six));
}

#[test]
fn two_swaps_of_one_cas() {
    let events = [
        event(0, 1, Set(new(1)), Stored(1)),
        event(2, 9, Swap(new(2), 1), Stored(2)),
        event(2, 9, Swap(new(3), 1), Other),
    ];
    only_without(&events, 2, event(2, 9, Swap(new(3), 1), Stored(3)));
}

#[test]
fn back_after_a_delete() {
    let events = [event(0, 1, Set(new(1)), Stored(1)), event(2, 3, Delete(None), Done), event(4, 5, Get, Missing)];
    only_without(&events, 2, event(4, 5, Get, saw(1, 1)));
    only_without(&events, 1, event(2, 3, Delete(Some(2)), Done));
}

#[test]
fn back_after_a_flush() {
    let events = [
        event(0, 1, Set(new(1)), Stored(1)),
        event(2, 3, Flush, Done),
        event(4, 5, Append(Content::piece(2)), NotStored),
    ];
    only_without(&events, 2, event(4, 5, Append(Content::piece(2)), Stored(2)));
}

#[test]
fn torn_flags() {
    let events =
        [event(0, 1, Set(new(1)), Stored(1)), event(2, 9, Set(new(2)), Stored(2)), event(3, 8, Get, saw(2, 2))];
    let torn = Found(Seen { content: Content::piece(2), flags: 1, expiry: 0, cas: 2 });
    only_without(&events, 2, event(3, 8, Get, torn));
}

#[test]
fn a_torn_value() {
    let events = [event(0, 1, Set(new(1)), Stored(1)), event(2, 3, Get, saw(1, 1))];
    let torn = Found(Seen { content: Content::Broken { at: 24, len: 80 }, flags: 1, expiry: 0, cas: 1 });
    only_without(&events, 1, event(2, 3, Get, torn));
}

#[test]
fn a_cas_used_twice() {
    let events =
        [event(0, 1, Set(new(1)), Stored(1)), event(2, 3, Set(new(2)), Stored(2)), event(4, 5, Get, saw(2, 2))];
    only_without(&events, 1, event(2, 3, Set(new(2)), Stored(1)));
    // Not told by the store, but seen.
    let silent = [
        event(0, 1, Set(new(1)), Stored(0)),
        event(2, 3, Get, saw(1, 7)),
        event(4, 5, Delete(None), Done),
        event(6, 7, Set(new(2)), Stored(0)),
        event(8, 9, Get, saw(2, 8)),
    ];
    only_without(&silent, 4, event(8, 9, Get, saw(2, 7)));
}

#[test]
fn a_cas_that_falls() {
    let events = [event(0, 1, Set(new(1)), Stored(5)), event(2, 3, Set(new(2)), Stored(6))];
    only_without(&events, 1, event(2, 3, Set(new(2)), Stored(4)));
}

#[test]
fn the_dead_may_have_done_it_until_they_died() {
    let with = |get: Answer| {
        explained(&[event(0, 1, Set(new(1)), Stored(1)), event(2, 10, Set(new(2)), Died), event(11, 12, Get, get)])
    };
    let happened = with(saw(2, 2)).expect("it may have happened");
    assert_eq!((happened.happened, happened.not_happened, happened.unseen), (1, 0, 0));
    let not = with(saw(1, 1)).expect("it may not have happened");
    assert_eq!((not.happened, not.not_happened, not.unseen), (0, 1, 0));
    let unseen = explained(&[event(0, 10, Set(new(1)), Died), event(11, 12, Set(new(2)), Stored(2))]);
    assert_eq!(unseen.map(|e| e.unseen), Ok(1));
}

#[test]
fn an_effect_after_death() {
    let events = [
        event(0, 1, Set(new(1)), Stored(1)),
        event(2, 10, Set(new(2)), Died),
        event(11, 12, Get, saw(1, 1)),
        event(13, 14, Get, saw(1, 1)),
    ];
    only_without(&events, 3, event(13, 14, Get, saw(2, 2)));
    let mut alive = events;
    (alive[1].end, alive[3]) = (20, event(13, 14, Get, saw(2, 2)));
    assert!(explained(&alive).is_ok(), "it may happen between the two gets");
}

#[test]
fn the_dead_act_once() {
    let one = |answer| Count { delta: 1, down: false, initial: Some((answer, 0)) };
    let number = |number| Found(Seen { content: Content::number(number), flags: 0, expiry: 0, cas: number });
    let events = [
        event(0, 1, one(5), Number(5)),
        event(2, 10, one(5), Died),
        event(3, 4, Get, number(6)),
        event(11, 12, Get, number(6)),
    ];
    only_without(&events, 3, event(11, 12, Get, number(7)));
}

/// An event at these seconds.
fn at(earliest: u32, latest: u32, place: u64, asked: Asked, answer: Answer) -> Event {
    Event { now: Window { earliest, latest }, ..event(place * 2, place * 2 + 1, asked, answer) }
}

#[test]
fn expiry_is_kept_to_the_second() {
    let short = New { exptime: 2, ..new(1) };
    let until = |expiry| Found(Seen { content: Content::piece(1), flags: 1, expiry, cas: 1 });
    let with =
        |second, answer| explained(&[at(100, 100, 0, Set(short), Stored(1)), at(second, second, 1, Get, answer)]);
    assert!(with(101, until(102)).is_ok() && with(102, Missing).is_ok());
    assert!(with(101, Missing).is_err(), "gone too early");
    assert!(with(102, until(102)).is_err(), "a read of what is over");
    assert!(with(101, until(103)).is_err(), "another expiry");
    // The clock was read at an unknown second of two.
    let wide = |get: Event| explained(&[at(100, 101, 0, Set(short), Stored(1)), get]);
    assert!(wide(at(102, 102, 1, Get, Missing)).is_ok() && wide(at(102, 102, 1, Get, until(103))).is_ok());
    assert!(wide(at(101, 102, 1, Get, Missing)).is_ok());
    assert!(wide(at(103, 103, 1, Get, until(103))).is_err());
}

#[test]
fn touch_gives_a_new_expiry() {
    let short = New { exptime: 2, ..new(1) };
    let seen = |expiry| Found(Seen { content: Content::piece(1), flags: 1, expiry, cas: 1 });
    let events = [
        at(100, 100, 0, Set(short), Stored(1)),
        at(101, 101, 1, Touch(50), Done),
        at(140, 140, 2, GetAndTouch(0), seen(0)),
        at(900, 900, 3, Get, seen(0)),
    ];
    only_without(&events, 2, at(140, 140, 2, GetAndTouch(0), Missing));
    only_without(&events, 3, at(900, 900, 3, Get, seen(151)));
}

#[test]
fn evictions_are_counted() {
    let events = [
        event(0, 1, Set(new(1)), Stored(1)),
        event(2, 3, Get, Missing),
        event(4, 5, Add(new(2)), Stored(2)),
        event(6, 7, Get, Missing),
    ];
    let with = |evictions| explain_all(&[("k".into(), events.to_vec())], evictions);
    assert!(with(0).is_err());
    assert!(with(1).is_err(), "two items vanished");
    assert_eq!(with(2).map(|report| report.sum.evictions), Ok(2));
    assert_eq!(with(9).map(|report| report.sum.evictions), Ok(2), "no more than are needed");
    let back = [&events[..2], &[event(8, 9, Get, saw(1, 1))]].concat();
    assert!(explain_all(&[("k".into(), back)], 9).is_err(), "what was evicted does not come back");
}

#[test]
fn keys_do_not_share_a_cas() {
    let one = vec![event(0, 1, Set(new(1)), Stored(1))];
    let other = vec![event(0, 1, Set(new(2)), Stored(1))];
    assert!(explain_all(&[("a".into(), one.clone()), ("b".into(), other)], 0).is_err());
    let seen = vec![event(0, 1, Set(new(2)), Stored(0)), event(2, 3, Get, saw(2, 9))];
    let also = vec![event(0, 1, Set(new(3)), Stored(0)), event(2, 3, Get, saw(3, 9))];
    assert!(explain_all(&[("a".into(), seen), ("b".into(), also)], 0).is_err());
}

#[test]
fn the_explanation_can_be_read() {
    let mut events = vec![event(0, 1, Set(new(1)), Stored(1)), event(5, 40, Set(new(2)), Stored(2))];
    events.push(event(20, 30, Get, saw(3, 3)));
    let told = explained(&events).expect_err("nobody stored 3").to_string();
    for part in ["no order explains", "20 .. 30", "5 .. 40", "0 .. 1", "(1 configurations)", "process 0: Get"] {
        assert!(told.contains(part), "no '{part}' in:\n{told}");
    }
}
