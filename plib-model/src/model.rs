//! The model: a map, and what each command does to it.

use std::collections::BTreeMap;

use crate::command::{Arith, Command, Found, Reply, Store, StoreMode, Token, Why};
use crate::number;
use crate::time::{Expiry, Window};

/// What a heap takes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Limits {
    /// Longest key, in bytes.
    pub key_max: usize,
    /// Bytes that an item counts besides its key and value.
    pub item_header: usize,
    /// Most bytes of header, key and value.
    pub item_size_max: usize,
}

impl Limits {
    /// Limits of a heap with this `item_size_max`.
    pub fn new(item_size_max: usize) -> Limits {
        Limits { key_max: 250, item_header: 32, item_size_max }
    }

    /// Longest value that fits beside `key`.
    pub fn value_max(&self, key: &[u8]) -> usize {
        self.item_size_max.saturating_sub(self.item_header + key.len())
    }
}

/// One item.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Item {
    /// The value.
    pub value: Vec<u8>,
    /// The flags.
    pub flags: u32,
    /// When it is over.
    pub expiry: Expiry,
    /// The cas.
    pub cas: u64,
    /// Whether `cas` was told by the implementation; else all that is known is that its cas is
    /// larger than this one.
    pub cas_told: bool,
}

/// The cache, abstractly.
#[derive(Clone, Debug)]
pub struct Model {
    limits: Limits,
    items: BTreeMap<Vec<u8>, Item>,
    last_cas: u64,
    flush_at: Option<Expiry>,
}

impl Model {
    /// An empty cache.
    pub fn new(limits: Limits) -> Model {
        Model { limits, items: BTreeMap::new(), last_cas: 0, flush_at: None }
    }

    /// What the heap takes.
    pub fn limits(&self) -> Limits {
        self.limits
    }

    /// The item under `key`, over or not.
    pub fn item(&self, key: &[u8]) -> Option<&Item> {
        self.items.get(key)
    }

    /// The item under `key`, to note what the implementation told of it.
    pub fn item_mut(&mut self, key: &[u8]) -> Option<&mut Item> {
        self.items.get_mut(key)
    }

    /// Takes the item away, as an eviction does.
    pub fn evict(&mut self, key: &[u8]) -> Option<Item> {
        self.items.remove(key)
    }

    /// All keys, in order.
    pub fn keys(&self) -> Vec<Vec<u8>> {
        self.items.keys().cloned().collect()
    }

    /// Whether the clock was not measured well enough to say that `key` is there or not.
    pub fn is_unclear(&self, key: &[u8], now: Window) -> bool {
        let flush = self.flush_at.is_some_and(|at| at.is_unclear(now));
        self.items.get(key).is_some_and(|item| flush || item.expiry.is_unclear(now))
    }

    /// Does what `command` says, within `now`.
    pub fn execute(&mut self, now: Window, command: &Command) -> Reply {
        self.settle(now);
        let done = match command {
            Command::Get(key) => self.get(key).map(Reply::Item),
            Command::GetInto(key, room) => self.get_into(key, *room),
            Command::GetAndTouch(key, exptime) => {
                self.touch(key, *exptime, now).and_then(|()| self.get(key)).map(Reply::Item)
            }
            Command::Store(store) => self.store(store, now).map(Reply::Stored),
            Command::Delete(key, token) => self.delete(key, *token).map(|()| Reply::Done),
            Command::Arith(arith) => self.arith(arith, now).map(Reply::Number),
            Command::Touch(key, exptime) => self.touch(key, *exptime, now).map(|()| Reply::Done),
            Command::FlushAll(delay) => Ok(self.flush_all(*delay, now)),
            Command::GetMany(_) | Command::SetMany(..) | Command::DeleteMany(_) => Ok(self.batch(now, command)),
            Command::Scan => Ok(Reply::Items(self.scan())),
        };
        done.unwrap_or_else(Reply::Refused)
    }

    /// Takes away what is over: expired items, and all of them once a delayed flush is due.
    fn settle(&mut self, now: Window) {
        if self.flush_at.is_some_and(|at| at.is_over(now)) {
            self.items.clear();
            self.flush_at = None;
        }
        self.items.retain(|_, item| !item.expiry.is_over(now));
    }

    fn check_key(&self, key: &[u8]) -> Result<(), Why> {
        match (1..=self.limits.key_max).contains(&key.len()) {
            true => Ok(()),
            false => Err(Why::Key),
        }
    }

    fn check_size(&self, key: &[u8], value_len: usize) -> Result<(), Why> {
        match value_len <= self.limits.value_max(key) {
            true => Ok(()),
            false => Err(Why::TooLarge),
        }
    }

    fn next_cas(&mut self) -> u64 {
        self.last_cas += 1;
        self.last_cas
    }

    fn get(&self, key: &[u8]) -> Result<Found, Why> {
        self.check_key(key)?;
        self.items.get(key).map(|item| found(key, item)).ok_or(Why::NotFound)
    }

    fn get_into(&self, key: &[u8], room: usize) -> Result<Reply, Why> {
        let found = self.get(key)?;
        match found.value.len() <= room {
            true => Ok(Reply::Item(found)),
            false => Err(Why::TooSmall(found.value.len())),
        }
    }

    /// Everything is checked before anything changes; the size of the given value comes before the
    /// state of the key, since the value is taken in first.
    fn store(&mut self, store: &Store, now: Window) -> Result<u64, Why> {
        let key = &store.key;
        self.check_key(key)?;
        let given = store.value.bytes();
        self.check_size(key, given.len())?;
        let old = self.items.get(key);
        let (value, flags, expiry) = match (store.mode, old) {
            (StoreMode::Add, Some(_)) => return Err(Why::NotStored),
            (StoreMode::Replace | StoreMode::Append | StoreMode::Prepend, None) => {
                return Err(Why::NotStored);
            }
            (StoreMode::Cas(_), None) => return Err(Why::NotFound),
            (StoreMode::Cas(token), Some(old)) if !names(token, old) => return Err(Why::Exists),
            (StoreMode::Append, Some(old)) => ([&old.value[..], &given].concat(), old.flags, old.expiry),
            (StoreMode::Prepend, Some(old)) => ([&given[..], &old.value].concat(), old.flags, old.expiry),
            _ => (given, store.flags, Expiry::from_exptime(store.exptime, now)),
        };
        self.check_size(key, value.len())?;
        Ok(self.put(key, value, flags, expiry))
    }

    fn put(&mut self, key: &[u8], value: Vec<u8>, flags: u32, expiry: Expiry) -> u64 {
        let cas = self.next_cas();
        self.items.insert(key.to_vec(), Item { value, flags, expiry, cas, cas_told: true });
        cas
    }

    fn delete(&mut self, key: &[u8], token: Option<Token>) -> Result<(), Why> {
        self.check_key(key)?;
        let old = self.items.get(key).ok_or(Why::NotFound)?;
        if token.is_some_and(|token| !names(token, old)) {
            return Err(Why::Exists);
        }
        self.items.remove(key);
        Ok(())
    }

    fn arith(&mut self, arith: &Arith, now: Window) -> Result<u64, Why> {
        self.check_key(&arith.key)?;
        let Some(old) = self.items.get(&arith.key).cloned() else {
            let (number, exptime) = arith.initial.ok_or(Why::NotFound)?;
            let expiry = Expiry::from_exptime(exptime, now);
            self.put(&arith.key, number.to_string().into_bytes(), 0, expiry);
            return Ok(number);
        };
        let number = number::parse(&old.value).ok_or(Why::NotNumeric)?;
        let number = match arith.decrement {
            true => number.saturating_sub(arith.delta),
            false => number.wrapping_add(arith.delta),
        };
        self.put(&arith.key, number::rewrite(&old.value, number), old.flags, old.expiry);
        Ok(number)
    }

    fn touch(&mut self, key: &[u8], exptime: i64, now: Window) -> Result<(), Why> {
        self.check_key(key)?;
        let item = self.items.get_mut(key).ok_or(Why::NotFound)?;
        item.expiry = Expiry::from_exptime(exptime, now);
        Ok(())
    }

    /// Memcached keeps one flush time: a new flush takes the place of one that is not yet due.
    fn flush_all(&mut self, delay: i64, now: Window) -> Reply {
        self.flush_at = (delay > 0).then(|| Expiry::from_exptime(delay, now));
        if self.flush_at.is_none_or(|at| at.is_over(now)) {
            self.items.clear();
            self.flush_at = None;
        }
        Reply::Done
    }

    /// A batch is its members, in order.
    fn batch(&mut self, now: Window, command: &Command) -> Reply {
        Reply::Many(members(command).iter().map(|member| self.execute(now, member)).collect())
    }

    fn scan(&self) -> Vec<Found> {
        self.items.iter().map(|(key, item)| found(key, item)).collect()
    }
}

/// The single commands that a batch stands for; empty for a command that is no batch.
pub fn members(command: &Command) -> Vec<Command> {
    match command {
        Command::GetMany(keys) => keys.iter().cloned().map(Command::Get).collect(),
        Command::DeleteMany(keys) => keys.iter().map(|key| Command::Delete(key.clone(), None)).collect(),
        Command::SetMany(items, flags, exptime) => items
            .iter()
            .map(|(key, value)| {
                Command::Store(Store {
                    mode: StoreMode::Set,
                    key: key.clone(),
                    value: value.clone(),
                    flags: *flags,
                    exptime: *exptime,
                })
            })
            .collect(),
        _ => Vec::new(),
    }
}

fn names(token: Token, item: &Item) -> bool {
    match token {
        Token::Current => true,
        Token::Stale => false,
        Token::Exact(cas) => item.cas_told && item.cas == cas,
    }
}

fn found(key: &[u8], item: &Item) -> Found {
    Found {
        key: key.to_vec(),
        value: item.value.clone(),
        flags: item.flags,
        expiry: item.expiry.shown(),
        cas: item.cas,
    }
}

#[cfg(test)]
mod tests;
