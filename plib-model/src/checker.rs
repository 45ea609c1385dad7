//! Whether a reply is one that the model allows.

use std::collections::{BTreeMap, HashSet};

use crate::command::{Command, Found, Reply, Store, StoreMode, Token};
use crate::model::{Limits, Model, members};
use crate::time::Window;

/// The model, and what the implementation was free to choose and has told so far.
pub struct Checker {
    model: Model,
    /// Every cas that was told; none may be told for another store.
    told: HashSet<u64>,
    /// The largest cas told of each key, present or not.
    newest: BTreeMap<Vec<u8>, u64>,
    lost: u64,
    /// Commands judged, batch members included.
    pub judged: u64,
}

/// A cas that nothing ever has.
const NEVER_A_CAS: u64 = u64::MAX - 5;

impl Checker {
    /// A checker of an empty cache.
    pub fn new(limits: Limits) -> Checker {
        Checker { model: Model::new(limits), told: HashSet::new(), newest: BTreeMap::new(), lost: 0, judged: 0 }
    }

    /// The model as it stands.
    pub fn model(&self) -> &Model {
        &self.model
    }

    /// How many items were missed and excused by evictions.
    pub fn lost(&self) -> u64 {
        self.lost
    }

    /// The key whose cas must be read before `command` can name it.
    pub fn needs_cas_of(&self, command: &Command) -> Option<Vec<u8>> {
        let (key, token) = token_of(command)?;
        let item = self.model.item(key)?;
        (token == Token::Current && !item.cas_told).then(|| key.to_vec())
    }

    /// The same command with a number for its token.
    pub fn with_exact_cas(&self, command: &Command) -> Command {
        let Some((key, token)) = token_of(command) else {
            return command.clone();
        };
        let current = self.model.item(key).filter(|item| item.cas_told).map(|item| item.cas);
        let cas = match token {
            Token::Exact(cas) => cas,
            Token::Current => current.unwrap_or(NEVER_A_CAS),
            Token::Stale => match self.newest.get(key) {
                Some(&newest) if Some(newest) != current => newest,
                _ => NEVER_A_CAS,
            },
        };
        let token = Token::Exact(cas);
        match command {
            Command::Store(store) => Command::Store(Store { mode: StoreMode::Cas(token), ..store.clone() }),
            Command::Delete(key, _) => Command::Delete(key.clone(), Some(token)),
            other => other.clone(),
        }
    }

    /// Compares `reply` with what the model says, and moves the model on.
    ///
    /// `evictions` is asked only when an item is missed.
    pub fn judge(
        &mut self,
        now: Window,
        command: &Command,
        reply: &Reply,
        evictions: &mut dyn FnMut() -> u64,
    ) -> Result<(), String> {
        let parts = members(command);
        match (command, reply) {
            (Command::Scan, Reply::Items(seen)) => self.judge_scan(now, seen, evictions),
            (_, Reply::Many(replies)) if replies.len() == parts.len() => {
                parts.iter().zip(replies).enumerate().try_for_each(|(member, (part, reply))| {
                    let judged = self.judge(now, part, reply, evictions);
                    judged.map_err(|e| format!("member {member} of {}: {e}", parts.len()))
                })
            }
            _ => self.judge_one(now, command, reply, evictions),
        }
    }

    fn judge_one(
        &mut self,
        now: Window,
        command: &Command,
        reply: &Reply,
        evictions: &mut dyn FnMut() -> u64,
    ) -> Result<(), String> {
        self.judged += 1;
        let before = key_of(command).map(|key| (key.to_vec(), self.known_cas(key)));
        let as_present = self.tried(now, command, reply, &before);
        let (model, expected) = match as_present {
            Ok(model) => return self.accept(model, command, reply),
            Err(expected) => (self.model.clone(), expected),
        };
        let wrong = || format!("{}: expected {expected:?}, got {reply:?}", show(command));
        let Some((key, _)) = &before else {
            return Err(wrong());
        };
        if model.item(key).is_none() || !self.may_be_gone(now, key, evictions) {
            return Err(wrong());
        }
        self.model.evict(key);
        // Nothing is there any more whose cas the new one has to exceed.
        let gone = Some((key.clone(), 0));
        match self.tried(now, command, reply, &gone) {
            Ok(model) => self.accept(model, command, reply),
            Err(if_gone) => Err(format!("{}, or {if_gone:?} if it was evicted", wrong())),
        }
    }

    /// The model after the command if it then agrees with the reply; else what was expected.
    fn tried(
        &self,
        now: Window,
        command: &Command,
        reply: &Reply,
        before: &Option<(Vec<u8>, u64)>,
    ) -> Result<Model, Reply> {
        let mut model = self.model.clone();
        let expected = model.execute(now, command);
        let agrees = match (&expected, reply) {
            (Reply::Stored(_), Reply::Stored(cas)) => {
                let older = before.as_ref().map_or(0, |(_, cas)| *cas);
                *cas == 0 || (*cas > older && !self.told.contains(cas))
            }
            (Reply::Item(item), Reply::Item(seen)) => self.is_item(&model, item, seen),
            _ => expected == *reply,
        };
        if agrees { Ok(model) } else { Err(expected) }
    }

    /// Whether the item seen is the model's, as far as the model knows it.
    fn is_item(&self, model: &Model, item: &Found, seen: &Found) -> bool {
        let same = (&item.key, &item.value, item.flags) == (&seen.key, &seen.value, seen.flags);
        let Some(known) = model.item(&seen.key) else {
            return same;
        };
        let cas = match known.cas_told {
            true => seen.cas == known.cas,
            false => seen.cas > known.cas && !self.told.contains(&seen.cas),
        };
        same && cas && known.expiry.allows(seen.expiry)
    }

    /// Takes over the model and what the reply told.
    fn accept(&mut self, mut model: Model, command: &Command, reply: &Reply) -> Result<(), String> {
        if let Some(key) = key_of(command) {
            let older = self.known_cas(key);
            match reply {
                Reply::Stored(cas) if *cas != 0 => tell(&mut model, key, *cas, None),
                Reply::Stored(_) | Reply::Number(_) => untell(&mut model, key, older),
                Reply::Item(seen) => tell(&mut model, key, seen.cas, Some(seen.expiry)),
                _ => {}
            }
            if let Some(item) = model.item(key).filter(|item| item.cas_told) {
                self.told.insert(item.cas);
                self.newest.insert(key.to_vec(), item.cas);
            }
        }
        self.model = model;
        Ok(())
    }

    /// The largest cas known of this key's item; 0 where there is none.
    fn known_cas(&self, key: &[u8]) -> u64 {
        self.model.item(key).map_or(0, |item| item.cas)
    }

    fn may_be_gone(&mut self, now: Window, key: &[u8], evictions: &mut dyn FnMut() -> u64) -> bool {
        if self.model.is_unclear(key, now) {
            return true;
        }
        if evictions() > self.lost {
            self.lost += 1;
            return true;
        }
        false
    }

    /// Every item of the model exactly once, and no other; missing ones must have been evicted.
    fn judge_scan(&mut self, now: Window, seen: &[Found], evictions: &mut dyn FnMut() -> u64) -> Result<(), String> {
        let mut keys = HashSet::new();
        for found in seen {
            if !keys.insert(&found.key) {
                return Err(format!("scan: {found:?} came twice"));
            }
            let get = Command::Get(found.key.clone());
            self.judge_one(now, &get, &Reply::Item(found.clone()), &mut || 0).map_err(|e| format!("scan: {e}"))?;
        }
        self.model.execute(now, &Command::GetMany(Vec::new()));
        for key in self.model.keys() {
            if !keys.contains(&key) && !self.may_be_gone(now, &key, evictions) {
                return Err(format!("scan: {} did not come", key.escape_ascii()));
            }
            if !keys.contains(&key) {
                self.model.evict(&key);
            }
        }
        Ok(())
    }
}

/// Notes the cas and expiry that the implementation told of the item under `key`.
fn tell(model: &mut Model, key: &[u8], cas: u64, expiry: Option<u32>) {
    let Some(item) = model.item_mut(key) else {
        return;
    };
    (item.cas, item.cas_told) = (cas, true);
    if let Some(expiry) = expiry.filter(|&e| e != 0) {
        item.expiry = crate::Expiry::Between(expiry, expiry);
    }
}

/// Notes that the item under `key` has a new cas that was not told; it is larger than `older`.
fn untell(model: &mut Model, key: &[u8], older: u64) {
    if let Some(item) = model.item_mut(key) {
        (item.cas, item.cas_told) = (older, false);
    }
}

fn token_of(command: &Command) -> Option<(&[u8], Token)> {
    match command {
        Command::Store(Store { mode: StoreMode::Cas(token), key, .. }) => Some((key, *token)),
        Command::Delete(key, Some(token)) => Some((key, *token)),
        _ => None,
    }
}

fn key_of(command: &Command) -> Option<&[u8]> {
    match command {
        Command::Get(key)
        | Command::GetInto(key, _)
        | Command::GetAndTouch(key, _)
        | Command::Delete(key, _)
        | Command::Touch(key, _) => Some(key),
        Command::Store(store) => Some(&store.key),
        Command::Arith(arith) => Some(&arith.key),
        _ => None,
    }
}

/// The command without long keys.
fn show(command: &Command) -> String {
    let text = format!("{command:?}");
    match text.char_indices().nth(300) {
        Some((cut, _)) => format!("{} ...", &text[..cut]),
        None => text,
    }
}

#[cfg(test)]
mod tests;
