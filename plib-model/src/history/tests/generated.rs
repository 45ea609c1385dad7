//! Histories of a sequential cache, the abstract model: explained as they are, and mostly not once one answer is changed.

use super::*;
use crate::command::{Arith, Command, Reply, Store, StoreMode, Token, Value, Why};
use crate::model::{Limits, Model};

/// A small generator: the same seed gives the same history.
struct Rng(u64);

impl Rng {
    fn below(&mut self, n: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0.wrapping_mul(0x9E37_79B9_7F4A_7C15) % n.max(1)
    }

    fn once_in(&mut self, n: u64) -> bool {
        self.below(n) == 0
    }
}

/// What a history is like.
#[derive(Clone, Copy, Debug)]
struct Shape {
    operations: u64,
    processes: u64,
    /// An operation in so many is one of the dead; 0 for none.
    deaths: u64,
    evictions: bool,
    expiry: bool,
}

/// A history whose operations took effect in the order of the list, each at an instant within its time.
struct Generated {
    events: Vec<Event>,
    evictions: u64,
}

const KEY: &[u8] = b"k";
/// Instants in a second.
const SECOND: u64 = 400;

fn generate(shape: Shape, seed: u64) -> Generated {
    let mut rng = Rng(seed.wrapping_mul(0x2545_F491_4F6C_DD1D) | 1);
    let mut model = Model::new(Limits::new(1 << 20));
    let mut free = vec![0u64; shape.processes as usize];
    let (mut now, mut evictions, mut known) = (1, 0, 0);
    let mut events = Vec::new();
    for id in 1..=shape.operations {
        let who = rng.below(shape.processes) as usize;
        now = (now + 1 + rng.below(9)).max(free[who] + 1);
        let spread = if rng.once_in(20) { 300 } else { 30 };
        let start = now.saturating_sub(rng.below(spread)).max(free[who]);
        let end = now + rng.below(spread);
        free[who] = end + 1;
        let second = |instant: u64| 1_000_000 + (instant / SECOND) as u32;
        let at = Window::at(second(now));
        if shape.evictions && rng.once_in(12) {
            // Settle first: what is over was not evicted.
            model.execute(at, &Command::Touch(b"another".to_vec(), 0));
            evictions += u64::from(model.evict(KEY).is_some());
        }
        let command = command(&mut rng, id, shape.expiry, known);
        let died = shape.deaths > 0 && rng.once_in(shape.deaths);
        let mut answer = Answer::Died;
        if !died || rng.once_in(2) {
            let reply = model.execute(at, &command);
            known = model.item(KEY).map_or(known, |item| item.cas);
            answer = if died { Answer::Died } else { answered(&command, &reply) };
        }
        let now = Window { earliest: second(start), latest: second(end) };
        events.push(Event { start, end, now, who: who as u32, asked: asked(&command), answer });
    }
    Generated { events, evictions }
}

fn command(rng: &mut Rng, id: u64, expiry: bool, known: u64) -> Command {
    let exptime = if expiry && rng.once_in(2) { rng.below(3) as i64 + 1 } else { 0 };
    let key = KEY.to_vec();
    let token = Token::Exact(known.saturating_sub(rng.below(3) / 2));
    let mode = match rng.below(12) {
        0..4 => StoreMode::Set,
        4 => StoreMode::Add,
        5 => StoreMode::Replace,
        6..8 => StoreMode::Append,
        8 => StoreMode::Prepend,
        _ => StoreMode::Cas(token),
    };
    // Two numbers side by side would read as one.
    let adds = matches!(mode, StoreMode::Append | StoreMode::Prepend);
    let value = match rng.below(4) {
        0 if !adds => rng.below(200).to_string().into_bytes(),
        _ => pieces::piece(id, 0),
    };
    match rng.below(20) {
        0..6 => Command::Get(key),
        6..12 => Command::Store(Store { mode, key, value: Value::Text(value), flags: id as u32, exptime }),
        12..15 => {
            let initial = rng.once_in(2).then_some((rng.below(100), exptime));
            Command::Arith(Arith { key, delta: rng.below(30), decrement: rng.once_in(2), initial })
        }
        15 => Command::Touch(key, exptime),
        16 => Command::GetAndTouch(key, exptime),
        17 => Command::FlushAll(0),
        _ => Command::Delete(key, rng.once_in(2).then_some(token)),
    }
}

fn asked(command: &Command) -> Asked {
    let exact = |token: &Token| if let Token::Exact(cas) = token { *cas } else { unreachable!("cas are exact here") };
    match command {
        Command::Get(_) => Asked::Get,
        Command::GetAndTouch(_, exptime) => Asked::GetAndTouch(*exptime),
        Command::Touch(_, exptime) => Asked::Touch(*exptime),
        Command::Delete(_, token) => Asked::Delete(token.as_ref().map(exact)),
        Command::FlushAll(0) => Asked::Flush,
        Command::Arith(a) => Asked::Count { delta: a.delta, down: a.decrement, initial: a.initial },
        Command::Store(store) => {
            let content = pieces::read(&store.value.bytes());
            let new = New { content, flags: store.flags, exptime: store.exptime };
            match &store.mode {
                StoreMode::Set => Asked::Set(new),
                StoreMode::Add => Asked::Add(new),
                StoreMode::Replace => Asked::Replace(new),
                StoreMode::Append => Asked::Append(content),
                StoreMode::Prepend => Asked::Prepend(content),
                StoreMode::Cas(token) => Asked::Swap(new, exact(token)),
            }
        }
        other => unreachable!("not drawn: {other:?}"),
    }
}

fn answered(command: &Command, reply: &Reply) -> Answer {
    match reply {
        Reply::Done => Answer::Done,
        Reply::Stored(cas) => Answer::Stored(*cas),
        Reply::Number(number) => Answer::Number(*number),
        Reply::Refused(Why::NotFound) => Answer::Missing,
        Reply::Refused(Why::Exists) => Answer::Other,
        Reply::Refused(Why::NotStored) => Answer::NotStored,
        Reply::Refused(Why::NotNumeric) => Answer::NotNumeric,
        Reply::Item(item) => Answer::Found(Seen {
            content: pieces::read(&item.value),
            flags: item.flags,
            expiry: item.expiry,
            cas: item.cas,
        }),
        other => unreachable!("{command:?} answered {other:?}"),
    }
}

/// The same history with one answer changed into another that this operation could give.
fn mutated(events: &[Event], rng: &mut Rng) -> Option<(Vec<Event>, String)> {
    let place = rng.below(events.len() as u64) as usize;
    let (asked, old) = (events[place].asked, events[place].answer);
    let others: Vec<Seen> = events
        .iter()
        .filter_map(|event| if let Answer::Found(seen) = event.answer { Some(seen) } else { None })
        .filter(|seen| old != Answer::Found(*seen))
        .collect();
    let other = |rng: &mut Rng| others.get(rng.below(others.len() as u64) as usize).copied();
    let new = match (asked, old) {
        (_, Answer::Died) | (Asked::Flush, _) => return None,
        (_, Answer::Found(seen)) => match rng.below(4) {
            0 => Answer::Found(Seen { flags: seen.flags ^ 1, ..seen }),
            1 => Answer::Found(Seen { cas: seen.cas + 1, ..seen }),
            2 => Answer::Missing,
            _ => Answer::Found(other(rng)?),
        },
        (Asked::Get | Asked::GetAndTouch(_), Answer::Missing) => Answer::Found(other(rng)?),
        (Asked::Count { .. }, Answer::Number(number)) => Answer::Number(number + 1 - 2 * rng.below(2).min(number)),
        (Asked::Count { .. }, Answer::NotNumeric) => Answer::Missing,
        (Asked::Count { .. }, _) => Answer::Number(rng.below(100)),
        (Asked::Delete(_) | Asked::Touch(_), Answer::Done) => Answer::Missing,
        (Asked::Delete(_) | Asked::Touch(_), _) => Answer::Done,
        (Asked::Set(_), Answer::Stored(cas)) => Answer::Stored(cas.saturating_sub(1).max(1)),
        (Asked::Swap(..), Answer::Stored(_)) => [Answer::Other, Answer::Missing][rng.below(2) as usize],
        (_, Answer::Stored(_)) => Answer::NotStored,
        (_, _) => Answer::Stored(1_000_000),
    };
    let mut events = events.to_vec();
    events[place].answer = new;
    Some((events, format!("event {place}: {asked:?}: {old:?} became {new:?}")))
}

fn shapes() -> Vec<Shape> {
    let plain = Shape { operations: 120, processes: 4, deaths: 0, evictions: false, expiry: false };
    vec![
        plain,
        Shape { processes: 8, ..plain },
        Shape { deaths: 8, ..plain },
        Shape { expiry: true, ..plain },
        Shape { evictions: true, ..plain },
        Shape { processes: 8, deaths: 10, expiry: true, evictions: true, ..plain },
    ]
}

#[test]
fn right_histories_are_explained() {
    let (mut events, mut fates, mut evictions) = (0, [0, 0, 0], 0);
    for (shape, seed) in shapes().into_iter().flat_map(|shape| (0..200).map(move |seed| (shape, seed))) {
        let generated = generate(shape, seed);
        // What the model evicted is an upper bound: nobody may have noticed.
        let report = explain_all(&[("k".into(), generated.events)], generated.evictions)
            .unwrap_or_else(|e| panic!("{shape:?}, seed {seed}: {e}"));
        events += report.sum.events;
        evictions += report.sum.evictions;
        let Explained { happened, not_happened, unseen, .. } = report.sum;
        fates = [fates[0] + happened, fates[1] + not_happened, fates[2] + unseen];
    }
    eprintln!(
        "    {events} events explained; of the dead's {} happened, {} did not, {} unseen; {evictions} evictions needed",
        fates[0], fates[1], fates[2]
    );
    assert!(fates.iter().all(|n| *n > 250) && evictions > 500, "{fates:?}, {evictions} evictions");
}

#[test]
fn changed_answers_are_rejected() {
    let mut shares = Vec::new();
    for shape in shapes() {
        let (mut tried, mut rejected) = (0u32, 0u32);
        for seed in 0..200 {
            let generated = generate(shape, seed);
            let mut rng = Rng(seed * 2 + 1);
            for _ in 0..4 {
                let Some((events, _)) = mutated(&generated.events, &mut rng) else { continue };
                tried += 1;
                rejected += u32::from(explain_all(&[("k".into(), events)], generated.evictions).is_err());
            }
        }
        let share = f64::from(rejected) / f64::from(tried);
        eprintln!("    {:.1} % of {tried} changed answers rejected: {shape:?}", share * 100.0);
        shares.push(share);
    }
    assert!(shares[..2].iter().all(|share| *share > 0.84), "of plain histories: {shares:?}");
    assert!(shares.iter().all(|share| *share > 0.7), "{shares:?}");
}

#[test]
fn long_histories_are_explained_in_linear_time() {
    let shape = Shape { operations: 20_000, processes: 8, deaths: 0, evictions: false, expiry: true };
    let mut took = Vec::new();
    for operations in [20_000, 80_000] {
        let generated = generate(Shape { operations, ..shape }, 5);
        let report = explain_all(&[("k".into(), generated.events)], 0).expect("a right history");
        took.push(report.took);
        let Report { overlaps, sum, .. } = report;
        eprintln!(
            "    {operations} operations: {:?}, {overlaps} overlaps, at most {} configurations",
            report.took, sum.configurations
        );
    }
    let seconds = took.iter().map(std::time::Duration::as_secs_f64).collect::<Vec<_>>();
    assert!(seconds[0] < 5.0, "20,000 operations took {} s", seconds[0]);
    assert!(seconds[1] < seconds[0] * 16.0 + 1.0, "four times the operations: {seconds:?}");
}
