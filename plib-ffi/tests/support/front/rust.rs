//! The Rust API in this process.

use plib::{Cache, Error, GetInto, Status};
use plib_model::{Arith, Command, Found, Front, Reply, Store, StoreMode, Token, Why};

/// A cache handle.
pub struct RustFront {
    pub cache: Cache,
    value_max: usize,
}

impl RustFront {
    /// `value_max` is the longest value there can be.
    pub fn new(cache: Cache, value_max: usize) -> RustFront {
        RustFront { cache, value_max }
    }

    fn store(&self, s: &Store) -> Result<Reply, Why> {
        let value = s.value.bytes();
        let (key, value) = (&s.key[..], &value[..]);
        let cas = match s.mode {
            StoreMode::Set => self.cache.set(key, value, s.flags, s.exptime),
            StoreMode::Add => self.cache.add(key, value, s.flags, s.exptime),
            StoreMode::Replace => self.cache.replace(key, value, s.flags, s.exptime),
            StoreMode::Append => self.cache.append(key, value),
            StoreMode::Prepend => self.cache.prepend(key, value),
            StoreMode::Cas(token) => self.cache.compare_and_swap(key, value, s.flags, s.exptime, exact(token)),
        };
        cas.map(Reply::Stored).map_err(why)
    }

    fn arith(&self, a: &Arith) -> Result<Reply, Why> {
        let number = match (a.initial, a.decrement) {
            (None, false) => self.cache.increment(&a.key, a.delta),
            (None, true) => self.cache.decrement(&a.key, a.delta),
            (Some((initial, exptime)), false) => self.cache.increment_or(&a.key, a.delta, initial, exptime).map(Some),
            (Some((initial, exptime)), true) => self.cache.decrement_or(&a.key, a.delta, initial, exptime).map(Some),
        };
        number.map_err(why)?.map(Reply::Number).ok_or(Why::NotFound)
    }

    fn get_into(&self, key: &[u8], room: usize) -> Result<Reply, Why> {
        let mut buf = vec![0xA5; room];
        let info = self.cache.get_into(key, &mut buf).map_err(why)?.ok_or(Why::NotFound)?;
        if buf[info.value_len..].iter().any(|&b| b != 0xA5) {
            return Err(Why::Other("bytes behind the value were written".into()));
        }
        buf.truncate(info.value_len);
        Ok(item(key, plib::Item { value: buf, flags: info.flags, cas: info.cas, expiry: info.expiry }))
    }

    /// Both ways to get many: with buffers of the caller, and with vectors. They must agree.
    fn get_many(&self, keys: &[Vec<u8>]) -> Result<Reply, Why> {
        let mut bufs = vec![vec![0; self.value_max]; keys.len()];
        let mut requests: Vec<GetInto<'_>> =
            keys.iter().zip(&mut bufs).map(|(key, buf)| GetInto::new(key, buf)).collect();
        self.cache.get_many_into(&mut requests).map_err(why)?;
        let infos: Vec<_> = requests.iter().map(|request| request.result()).collect();
        drop(requests);
        let replies = keys.iter().zip(infos).zip(bufs).map(|((key, info), mut buf)| match info {
            Ok(Some(info)) => {
                buf.truncate(info.value_len);
                let (flags, cas, expiry) = (info.flags, info.cas, info.expiry);
                item(key, plib::Item { value: buf, flags, cas, expiry })
            }
            Ok(None) => Reply::Refused(Why::NotFound),
            Err(e) => Reply::Refused(why(e)),
        });
        let replies: Vec<Reply> = replies.collect();
        if replies.iter().any(|reply| matches!(reply, Reply::Refused(Why::Key))) {
            return Ok(Reply::Many(replies));
        }
        let items = self.cache.get_many(keys).map_err(why)?;
        let again = keys.iter().zip(items).map(|(key, found)| found.map(|found| item(key, found)));
        let again = again.map(|reply| reply.unwrap_or(Reply::Refused(Why::NotFound)));
        match again.eq(replies.iter().cloned()) {
            true => Ok(Reply::Many(replies)),
            false => Err(Why::Other("get_many and get_many_into differ".into())),
        }
    }

    fn scan(&self) -> Result<Reply, Why> {
        let entries = self.cache.scan().map(|entry| {
            entry.map_err(why).map(|e| Found {
                key: e.key,
                value: e.value,
                flags: e.flags,
                expiry: e.expiry,
                cas: e.cas,
            })
        });
        entries.collect::<Result<_, _>>().map(Reply::Items)
    }

    fn try_execute(&mut self, command: &Command) -> Result<Reply, Why> {
        let cache = &self.cache;
        let done = |found: bool| if found { Ok(Reply::Done) } else { Err(Why::NotFound) };
        match command {
            Command::Get(key) => cache.get(key).map_err(why)?.map(|i| item(key, i)).ok_or(Why::NotFound),
            Command::GetInto(key, room) => self.get_into(key, *room),
            Command::GetAndTouch(key, exptime) => {
                let found = cache.get_and_touch(key, *exptime).map_err(why)?;
                found.map(|i| item(key, i)).ok_or(Why::NotFound)
            }
            Command::Store(store) => self.store(store),
            Command::Delete(key, None) => done(cache.delete(key).map_err(why)?),
            Command::Delete(key, Some(token)) => done(cache.delete_if(key, exact(*token)).map_err(why)?),
            Command::Arith(arith) => self.arith(arith),
            Command::Touch(key, exptime) => done(cache.touch(key, *exptime).map_err(why)?),
            Command::FlushAll(delay) => cache.flush_all(*delay).map(|()| Reply::Done).map_err(why),
            Command::GetMany(keys) => self.get_many(keys),
            Command::SetMany(items, flags, exptime) => {
                let items: Vec<_> = items.iter().map(|(key, v)| (key, v.bytes())).collect();
                let stored = cache.set_many(&items, *flags, *exptime).map_err(why)?;
                Ok(Reply::Many(stored.into_iter().map(stored_reply).collect()))
            }
            Command::DeleteMany(keys) => self.delete_many(keys),
            Command::Scan => self.scan(),
        }
    }

    /// `delete_many` tells of a wrong key by failing as a whole, after all others were deleted; who
    /// was there is then known only from looking before.
    fn delete_many(&self, keys: &[Vec<u8>]) -> Result<Reply, Why> {
        let before = self.presence(keys);
        let deleted = match self.cache.delete_many(keys).map_err(why) {
            Ok(deleted) => deleted,
            Err(Why::Key) => {
                let first = |i: usize| !keys[..i].contains(&keys[i]);
                (0..keys.len()).map(|i| before[i] == Ok(true) && first(i)).collect()
            }
            Err(other) => return Err(other),
        };
        if self.presence(keys).contains(&Ok(true)) {
            return Err(Why::Other("a deleted item is still there".into()));
        }
        let reply = |(deleted, before)| match (deleted, before) {
            (_, Err(why)) => Reply::Refused(why),
            (true, _) => Reply::Done,
            (false, _) => Reply::Refused(Why::NotFound),
        };
        Ok(Reply::Many(deleted.into_iter().zip(before).map(reply).collect()))
    }

    fn presence(&self, keys: &[Vec<u8>]) -> Vec<Result<bool, Why>> {
        keys.iter().map(|key| Ok(self.cache.get(key).map_err(why)?.is_some())).collect()
    }
}

impl Front for RustFront {
    fn execute(&mut self, command: &Command) -> Reply {
        self.try_execute(command).unwrap_or_else(Reply::Refused)
    }

    fn evictions(&mut self) -> u64 {
        self.cache.stats().expect("stats").evictions
    }

    fn faults(&mut self) -> Vec<String> {
        let report = self.cache.check().expect("check");
        match report.severe {
            true => report.findings.iter().map(|f| format!("{f:?}")).collect(),
            false => Vec::new(),
        }
    }
}

fn exact(token: Token) -> u64 {
    match token {
        Token::Exact(cas) => cas,
        other => panic!("{other:?} comes here as a number"),
    }
}

fn stored_reply(stored: Result<u64, Error>) -> Reply {
    stored.map_or_else(|e| Reply::Refused(why(e)), Reply::Stored)
}

fn item(key: &[u8], item: plib::Item) -> Reply {
    let plib::Item { value, flags, cas, expiry } = item;
    Reply::Item(Found { key: key.to_vec(), value, flags, expiry, cas })
}

/// The model's word for an error.
fn why(error: Error) -> Why {
    match (error.status(), &error) {
        (Status::TooSmall, Error::TooSmall { needed, .. }) => Why::TooSmall(*needed),
        (Status::NotFound, _) => Why::NotFound,
        (Status::Exists, _) => Why::Exists,
        (Status::NotStored, _) => Why::NotStored,
        (Status::TooLarge, _) => Why::TooLarge,
        (Status::Key, _) => Why::Key,
        (Status::NotNumeric, _) => Why::NotNumeric,
        _ => Why::Other(format!("{error:?}")),
    }
}
