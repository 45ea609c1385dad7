//! The checker accepts the model, and refuses caches that are subtly wrong.

use proptest::prelude::*;

use super::*;
use crate::command::{Value, Why};
use crate::front::{Front, ModelFront, run};
use crate::strategy::{Shape, commands};

const LIMITS: fn() -> Limits = || Limits::new(64 * 1024);
const NOW: u32 = 1_700_000_000;

/// The model with one fault.
struct Faulty<F: FnMut(&Command, Reply) -> Reply> {
    inner: ModelFront,
    evictions: u64,
    change: F,
}

impl<F: FnMut(&Command, Reply) -> Reply> Front for Faulty<F> {
    fn execute(&mut self, command: &Command) -> Reply {
        let reply = self.inner.execute(command);
        (self.change)(command, reply)
    }

    fn evictions(&mut self) -> u64 {
        self.evictions
    }

    fn faults(&mut self) -> Vec<String> {
        Vec::new()
    }

    fn earliest(&mut self) -> u32 {
        NOW
    }

    fn latest(&mut self) -> u32 {
        NOW
    }
}

fn faulty<F: FnMut(&Command, Reply) -> Reply>(evictions: u64, change: F) -> Faulty<F> {
    Faulty { inner: ModelFront::new(LIMITS(), NOW), evictions, change }
}

fn set(key: &str, text: &str) -> Command {
    Command::Store(Store {
        mode: StoreMode::Set,
        key: key.into(),
        value: Value::Text(text.into()),
        flags: 0,
        exptime: 0,
    })
}

fn verdict(front: &mut dyn Front, commands: &[Command]) -> Result<(), String> {
    run(front, &mut Checker::new(LIMITS()), commands)
}

proptest! {
    #[test]
    fn the_model_satisfies_the_checker(commands in commands(Shape::new(LIMITS()), 1..80)) {
        let mut front = ModelFront::new(LIMITS(), NOW);
        verdict(&mut front, &commands).map_err(TestCaseError::fail)?;
    }

    #[test]
    fn a_front_that_tells_no_cas_is_fine(commands in commands(Shape::new(LIMITS()), 1..80)) {
        let mut front = faulty(0, |_, reply| match reply {
            Reply::Stored(_) => Reply::Stored(0),
            other => other,
        });
        verdict(&mut front, &commands).map_err(TestCaseError::fail)?;
    }
}

#[test]
fn a_miss_needs_an_eviction() {
    let commands = [set("a", "1"), Command::Get(b"a".into())];
    let mut misses = 1;
    let lossy = |evictions| {
        faulty(evictions, move |command, reply| match command {
            Command::Get(_) if misses > 0 => {
                misses -= 1;
                Reply::Refused(Why::NotFound)
            }
            Command::GetMany(keys) => Reply::Many(vec![Reply::Refused(Why::NotFound); keys.len()]),
            Command::Scan => Reply::Items(Vec::new()),
            _ => reply,
        })
    };
    assert!(verdict(&mut lossy(0), &commands).is_err());
    assert_eq!(verdict(&mut lossy(1), &commands), Ok(()));
    let two = [set("a", "1"), set("b", "2"), Command::Get(b"a".into())];
    assert!(verdict(&mut lossy(1), &two).is_err(), "one eviction excuses one miss");
}

#[test]
fn an_old_value_is_never_excused() {
    let commands = [set("a", "1"), set("a", "2"), Command::Get(b"a".into())];
    let mut stale = faulty(100, |command, reply| match (command, reply) {
        (Command::Get(_), Reply::Item(found)) => Reply::Item(Found { value: b"1".into(), ..found }),
        (_, reply) => reply,
    });
    assert!(verdict(&mut stale, &commands).is_err());
}

#[test]
fn a_cas_is_told_once_and_rises() {
    let commands = [set("a", "1"), set("b", "2")];
    let mut same = faulty(0, |command, reply| match command {
        Command::Store(_) => Reply::Stored(9),
        _ => reply,
    });
    assert!(verdict(&mut same, &commands).is_err());
    let mut next = 100;
    let mut falling = faulty(0, |command, reply| match command {
        Command::Store(_) => {
            next -= 1;
            Reply::Stored(next)
        }
        _ => reply,
    });
    assert!(verdict(&mut falling, &[set("a", "1"), set("a", "2")]).is_err());
}

#[test]
fn after_an_eviction_the_cas_starts_anew() {
    let commands = [set("a", "1"), set("a", "2")];
    let mut next = 10;
    let falling = |evictions| {
        faulty(evictions, move |command, reply| match (command, reply) {
            (Command::Store(_), _) => {
                next -= 1;
                Reply::Stored(next)
            }
            (_, Reply::Many(items)) => Reply::Many(items.into_iter().map(|i| cas(i, next)).collect()),
            (_, Reply::Items(items)) => Reply::Items(items.into_iter().map(|i| Found { cas: next, ..i }).collect()),
            (_, reply) => reply,
        })
    };
    assert!(verdict(&mut falling(0), &commands).is_err());
    assert_eq!(verdict(&mut falling(1), &commands), Ok(()));
}

fn cas(reply: Reply, cas: u64) -> Reply {
    match reply {
        Reply::Item(found) => Reply::Item(Found { cas, ..found }),
        other => other,
    }
}

#[test]
fn a_scan_shows_each_item_once() {
    let commands = [set("a", "1"), set("b", "2")];
    let mut twice = faulty(0, |command, reply| match (command, reply) {
        (Command::Scan, Reply::Items(items)) => Reply::Items([&items[..], &items[..]].concat()),
        (_, reply) => reply,
    });
    assert!(verdict(&mut twice, &commands).is_err());
    let mut none = faulty(0, |command, reply| match command {
        Command::Scan => Reply::Items(Vec::new()),
        _ => reply,
    });
    assert!(verdict(&mut none, &commands).is_err());
}
