//! Sequences of commands for proptest: few keys, so that commands meet, and values of every kind.

use std::ops::Range;

use proptest::collection::vec;
use proptest::prelude::*;

use crate::command::{Arith, Command, Store, StoreMode, Token, Value};
use crate::model::Limits;

/// What sequences look like.
#[derive(Clone, Copy, Debug)]
pub struct Shape {
    /// What the heap takes; values go up to it, and a little past it.
    pub limits: Limits,
    /// How many keys there are.
    pub keys: usize,
    /// Most members of a batch.
    pub batch: usize,
    /// Mostly large values, to fill the heap.
    pub heavy: bool,
}

impl Shape {
    /// Six keys and batches of up to twenty.
    pub fn new(limits: Limits) -> Shape {
        Shape { limits, keys: 6, batch: 20, heavy: false }
    }

    /// Forty keys and mostly large values: more than a small heap holds.
    pub fn heavy(limits: Limits) -> Shape {
        Shape { limits, keys: 40, batch: 6, heavy: true }
    }
}

/// A sequence.
pub fn commands(shape: Shape, len: Range<usize>) -> impl Strategy<Value = Vec<Command>> {
    vec(command(shape), len)
}

/// One command.
pub fn command(shape: Shape) -> impl Strategy<Value = Command> {
    prop_oneof![
        8 => key(shape).prop_map(Command::Get),
        2 => (key(shape), room()).prop_map(|(key, room)| Command::GetInto(key, room)),
        3 => (key(shape), exptime()).prop_map(|(key, t)| Command::GetAndTouch(key, t)),
        20 => store(shape).prop_map(Command::Store),
        4 => (key(shape), prop::option::of(token())).prop_map(|(key, t)| Command::Delete(key, t)),
        9 => arith(shape).prop_map(Command::Arith),
        3 => (key(shape), exptime()).prop_map(|(key, t)| Command::Touch(key, t)),
        1 => flush_delay().prop_map(Command::FlushAll),
        2 => keys(shape).prop_map(Command::GetMany),
        2 => sets(shape),
        1 => keys(shape).prop_map(Command::DeleteMany),
        1 => Just(Command::Scan),
    ]
}

/// Keys by number: short, binary, the longest, plain; the last two of each kind are wrong.
fn named_key(number: usize) -> Vec<u8> {
    match number {
        0 => b"k".to_vec(),
        1 => b"\0 \r\n\xff binary".to_vec(),
        2 => vec![b'L'; 250],
        n => format!("key:{n}").into_bytes(),
    }
}

fn key(shape: Shape) -> impl Strategy<Value = Vec<u8>> + Clone {
    prop_oneof![
        40 => (0..shape.keys).prop_map(named_key),
        1 => prop::sample::select(vec![0usize, 251, 300, 70_000]).prop_map(|len| vec![b'x'; len]),
    ]
}

fn keys(shape: Shape) -> impl Strategy<Value = Vec<Vec<u8>>> {
    vec(key(shape), 0..shape.batch)
}

/// Lengths around every edge: none, words, size classes, the step to fragments, the limit.
fn value_len(shape: Shape) -> impl Strategy<Value = usize> + Clone {
    let limit = shape.limits.item_size_max;
    let edges = vec![0usize, 1, 7, 8, 9, 15, 16, 17, 24, 63, 64, 65, 128, 255, 256, 1000, 4096];
    let power = (5u32..17).prop_map(|p| 1usize << p);
    let near_power = (power, 0usize..90).prop_map(|(p, off)| (p + 8).saturating_sub(off));
    let fragments = (1usize..20, 0usize..160).prop_map(|(n, off)| (n * 65536).saturating_sub(off));
    prop_oneof![
        6 => prop::sample::select(edges),
        4 => 0usize..200,
        3 => near_power,
        2 => 200usize..40_000,
        1 => fragments,
        if shape.heavy { 20 } else { 1 } => 0usize..=limit,
    ]
}

/// A value for this key; now and then the longest one, or one that is a little or much too long.
fn value_for(shape: Shape, key: &[u8]) -> impl Strategy<Value = Value> + Clone + use<> {
    let most = shape.limits.value_max(key);
    let len = prop_oneof![
        40 => value_len(shape),
        1 => Just(most),
        1 => (1usize..40).prop_map(move |over| most + over),
        1 => Just(most * 2 + 1),
    ];
    prop_oneof![
        5 => (any::<u64>(), len).prop_map(|(seed, len)| Value::Pattern { seed, len }),
        2 => number().prop_map(Value::Text),
    ]
}

/// Numbers, and what only looks like one.
fn number() -> impl Strategy<Value = Vec<u8>> + Clone {
    let plain = prop_oneof![0u64..200, any::<u64>(), (0u64..20).prop_map(|n| u64::MAX - n)];
    let spaced = (0u64..100, 0usize..22).prop_map(|(n, s)| format!("{n}{}", " ".repeat(s)));
    let wrong = vec!["", "x", "-1", "1x", " ", "18446744073709551616", "99999999999999999999"];
    prop_oneof![
        4 => plain.prop_map(|n| n.to_string().into_bytes()),
        2 => spaced.prop_map(String::into_bytes),
        1 => prop::sample::select(wrong).prop_map(|t| t.as_bytes().to_vec()),
    ]
}

/// Times far from now only, so that the second in which a command runs does not matter: none,
/// over, in a thousand seconds and more, dates long past and far off, and the extremes.
fn exptime() -> impl Strategy<Value = i64> + Clone {
    let others = vec![
        -1,
        i64::MIN,
        1000,
        2_591_999,
        2_592_000,
        2_592_001,
        1_000_000_000,
        4_000_000_000,
        4_294_967_295,
        4_294_967_296,
        i64::MAX,
    ];
    prop_oneof![5 => Just(0), 4 => prop::sample::select(others)]
}

/// As [`exptime`], mostly not over yet: sequences with nothing in the cache show little.
fn store_exptime() -> impl Strategy<Value = i64> + Clone {
    prop_oneof![6 => Just(0), 1 => exptime()]
}

fn flush_delay() -> impl Strategy<Value = i64> + Clone {
    prop::sample::select(vec![0, 0, 0, -1, 1000, 2_592_000, 1_000_000_000, 4_000_000_000])
}

fn token() -> impl Strategy<Value = Token> + Clone {
    prop_oneof![4 => Just(Token::Current), 2 => Just(Token::Stale)]
}

fn room() -> impl Strategy<Value = usize> + Clone {
    prop_oneof![Just(0usize), 0usize..100, 0usize..70_000, Just(4 << 20)]
}

fn mode() -> impl Strategy<Value = StoreMode> + Clone {
    prop_oneof![
        6 => Just(StoreMode::Set),
        2 => Just(StoreMode::Add),
        2 => Just(StoreMode::Replace),
        3 => Just(StoreMode::Append),
        3 => Just(StoreMode::Prepend),
        3 => token().prop_map(StoreMode::Cas),
    ]
}

fn store(shape: Shape) -> impl Strategy<Value = Store> {
    key(shape).prop_flat_map(move |key| {
        let value = value_for(shape, &key);
        (Just(key), mode(), value, any::<u32>(), store_exptime()).prop_map(|(key, mode, value, flags, exptime)| Store {
            mode,
            key,
            value,
            flags,
            exptime,
        })
    })
}

fn sets(shape: Shape) -> impl Strategy<Value = Command> {
    let item = key(shape).prop_flat_map(move |key| {
        let value = value_for(shape, &key);
        (Just(key), value)
    });
    (vec(item, 0..shape.batch), any::<u32>(), store_exptime())
        .prop_map(|(items, flags, exptime)| Command::SetMany(items, flags, exptime))
}

fn arith(shape: Shape) -> impl Strategy<Value = Arith> {
    let delta = prop_oneof![3 => 0u64..100, 1 => any::<u64>(), 1 => Just(u64::MAX)];
    let initial = prop::option::of((0u64..2000, store_exptime()));
    (key(shape), delta, any::<bool>(), initial).prop_map(|(key, delta, decrement, initial)| Arith {
        key,
        delta,
        decrement,
        initial,
    })
}
