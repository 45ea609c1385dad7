//! The model against memcached's protocol text, command by command, on a clock that the test sets.

use super::*;
use crate::command::Value;

/// A model with a clock.
struct Cache {
    model: Model,
    now: u32,
}

fn cache() -> Cache {
    Cache { model: Model::new(Limits::new(1024)), now: 1_700_000_000 }
}

impl Cache {
    fn run(&mut self, command: Command) -> Reply {
        self.model.execute(Window::at(self.now), &command)
    }

    fn store(&mut self, mode: StoreMode, key: &str, value: &str, exptime: i64) -> Reply {
        let value = Value::Text(value.into());
        self.run(Command::Store(Store { mode, key: key.into(), value, flags: 7, exptime }))
    }

    fn set(&mut self, key: &str, value: &str, exptime: i64) -> u64 {
        match self.store(StoreMode::Set, key, value, exptime) {
            Reply::Stored(cas) => cas,
            other => panic!("{other:?}"),
        }
    }

    fn get(&mut self, key: &str) -> Option<String> {
        match self.run(Command::Get(key.into())) {
            Reply::Item(found) => Some(String::from_utf8(found.value).unwrap()),
            Reply::Refused(Why::NotFound) => None,
            other => panic!("{other:?}"),
        }
    }

    fn arith(&mut self, key: &str, delta: u64, decrement: bool) -> Reply {
        self.run(Command::Arith(Arith { key: key.into(), delta, decrement, initial: None }))
    }
}

#[test]
fn stores_look_at_what_is_there() {
    let mut c = cache();
    for mode in [StoreMode::Replace, StoreMode::Append, StoreMode::Prepend] {
        assert_eq!(c.store(mode, "k", "v", 0), Reply::Refused(Why::NotStored));
    }
    assert_eq!(c.store(StoreMode::Cas(Token::Exact(1)), "k", "v", 0), Reply::Refused(Why::NotFound));
    assert_eq!(c.store(StoreMode::Add, "k", "b", 0), Reply::Stored(1));
    assert_eq!(c.store(StoreMode::Add, "k", "b", 0), Reply::Refused(Why::NotStored));
    assert_eq!(c.store(StoreMode::Append, "k", "c", 0), Reply::Stored(2));
    assert_eq!(c.store(StoreMode::Prepend, "k", "a", 0), Reply::Stored(3));
    assert_eq!(c.get("k").as_deref(), Some("abc"));
    assert_eq!(c.store(StoreMode::Cas(Token::Exact(2)), "k", "x", 0), Reply::Refused(Why::Exists));
    assert_eq!(c.store(StoreMode::Cas(Token::Exact(3)), "k", "x", 0), Reply::Stored(4));
    assert_eq!(c.store(StoreMode::Replace, "k", "y", 0), Reply::Stored(5));
    assert_eq!(c.get("k").as_deref(), Some("y"));
}

#[test]
fn append_keeps_flags_and_expiry() {
    let mut c = cache();
    c.set("k", "a", 10);
    let more = Value::Text(b"b".into());
    let store = Store { mode: StoreMode::Append, key: b"k".into(), value: more, flags: 9, exptime: 0 };
    c.run(Command::Store(store));
    match c.run(Command::Get(b"k".into())) {
        Reply::Item(found) => assert_eq!((found.flags, found.expiry), (7, 1_700_000_010)),
        other => panic!("{other:?}"),
    }
}

#[test]
fn numbers_wrap_and_stop_at_zero() {
    let mut c = cache();
    assert_eq!(c.arith("n", 1, false), Reply::Refused(Why::NotFound));
    c.set("n", "18446744073709551615", 0);
    assert_eq!(c.arith("n", 2, false), Reply::Number(1));
    assert_eq!(c.get("n").unwrap(), format!("1{}", " ".repeat(19)), "the length never shrinks");
    assert_eq!(c.arith("n", 5, true), Reply::Number(0));
    c.set("n", "10", 0);
    assert_eq!(c.arith("n", 1, true), Reply::Number(9));
    assert_eq!(c.get("n").as_deref(), Some("9 "));
    c.set("n", "ten", 0);
    assert_eq!(c.arith("n", 1, false), Reply::Refused(Why::NotNumeric));
    assert_eq!(c.get("n").as_deref(), Some("ten"));
    let initial = Some((40, 0));
    let arith = Arith { key: b"m".into(), delta: 2, decrement: false, initial };
    assert_eq!(c.run(Command::Arith(arith.clone())), Reply::Number(40), "the delta is not added");
    assert_eq!(c.run(Command::Arith(arith)), Reply::Number(42));
}

#[test]
fn items_go_when_their_second_comes() {
    let mut c = cache();
    c.set("past", "v", -1);
    assert_eq!(c.get("past"), None);
    assert!(matches!(c.store(StoreMode::Add, "past", "v", 2), Reply::Stored(_)));
    c.now += 1;
    assert_eq!(c.get("past").as_deref(), Some("v"));
    assert_eq!(c.run(Command::Touch(b"past".into(), 2)), Reply::Done);
    c.now += 1;
    assert!(matches!(c.run(Command::GetAndTouch(b"past".into(), 1)), Reply::Item(_)));
    c.now += 1;
    assert_eq!(c.get("past"), None);
    assert_eq!(c.run(Command::Touch(b"past".into(), 0)), Reply::Refused(Why::NotFound));
}

#[test]
fn a_delayed_flush_takes_what_was_set_before_its_time() {
    let mut c = cache();
    c.set("a", "1", 0);
    c.run(Command::FlushAll(2));
    c.now += 1;
    c.set("b", "2", 0);
    assert!(c.get("a").is_some() && c.get("b").is_some());
    c.now += 1;
    assert!(c.get("a").is_none() && c.get("b").is_none());
    c.set("c", "3", 0);
    c.now += 5;
    assert!(c.get("c").is_some());
    c.run(Command::FlushAll(0));
    assert!(c.get("c").is_none());
}

#[test]
fn a_refused_store_changes_nothing() {
    let mut c = cache();
    let cas = c.set("k", "v", 0);
    let large = "x".repeat(1024);
    for mode in [StoreMode::Set, StoreMode::Add, StoreMode::Append, StoreMode::Cas(Token::Exact(cas))] {
        assert_eq!(c.store(mode, "k", &large, 0), Reply::Refused(Why::TooLarge), "{mode:?}");
    }
    let fits = "x".repeat(1024 - 32 - 1);
    assert_eq!(c.store(StoreMode::Append, "k", &fits, 0), Reply::Refused(Why::TooLarge));
    assert_eq!(c.get("k").as_deref(), Some("v"));
    assert!(matches!(c.store(StoreMode::Set, "k", &fits, 0), Reply::Stored(_)));
}

#[test]
fn keys_are_1_to_250_bytes() {
    let mut c = cache();
    for len in [0, 251, 300] {
        let key = vec![b'k'; len];
        assert_eq!(c.run(Command::Get(key.clone())), Reply::Refused(Why::Key));
        assert_eq!(c.run(Command::Delete(key, None)), Reply::Refused(Why::Key));
    }
    c.set(&"k".repeat(250), "v", 0);
    assert!(c.get(&"k".repeat(250)).is_some());
}

#[test]
fn a_delete_may_name_a_cas() {
    let mut c = cache();
    let cas = c.set("k", "v", 0);
    let delete = |cas| Command::Delete(b"k".into(), Some(Token::Exact(cas)));
    assert_eq!(c.run(delete(cas + 1)), Reply::Refused(Why::Exists));
    assert_eq!(c.run(delete(cas)), Reply::Done);
    assert_eq!(c.run(delete(cas)), Reply::Refused(Why::NotFound));
}

#[test]
fn a_batch_is_its_members_in_order() {
    let mut c = cache();
    let text = |t: &str| Value::Text(t.into());
    let items = vec![(b"a".to_vec(), text("1")), (b"".to_vec(), text("2")), (b"a".to_vec(), text("3"))];
    let replies = c.run(Command::SetMany(items, 0, 0));
    let expected = vec![Reply::Stored(1), Reply::Refused(Why::Key), Reply::Stored(2)];
    assert_eq!(replies, Reply::Many(expected));
    assert_eq!(c.get("a").as_deref(), Some("3"));
    let gone = vec![Reply::Done, Reply::Refused(Why::NotFound)];
    assert_eq!(c.run(Command::DeleteMany(vec![b"a".to_vec(), b"a".to_vec()])), Reply::Many(gone));
}
