//! incr and decr: in place while the digits fit, by a new block otherwise.

use super::store::{Decision, Existing};
use super::*;
use crate::item::{DIGITS_MAX, Pair};
use crate::stats::Counter;

/// incr or decr, by how much, and what to start from.
#[derive(Clone, Copy)]
struct Arith {
    delta: u64,
    decrement: bool,
    initial: Option<(u64, i64)>,
}

impl Arith {
    fn of(self, number: u64) -> u64 {
        if self.decrement { number.saturating_sub(self.delta) } else { number.wrapping_add(self.delta) }
    }
}

/// What incr found under the lock.
enum Numbered {
    /// Done in place.
    Done(u64, u64),
    /// A new block is needed: the number, its width, the item it comes from and its word 2.
    Replace { number: u64, width: usize, from: Existing, times: u64 },
}

impl<'c> Op<'c> {
    /// incr and decr; the new number and its cas.
    ///
    /// # Safety
    /// `name` (the key) is readable.
    pub unsafe fn arith(
        &self,
        name: In,
        delta: u64,
        decrement: bool,
        initial: Option<(u64, i64)>,
    ) -> Result<(u64, u64), Status> {
        let mut key = Key::blank();
        // SAFETY: passed on.
        unsafe { key.read(self.heap, name)? };
        let arith = Arith { delta, decrement, initial };
        let (hits, misses) =
            if decrement { (Counter::DecrHits, Counter::DecrMisses) } else { (Counter::IncrHits, Counter::IncrMisses) };
        if let Some(changed) = self.arith_usual(&key, |number| arith.of(number)) {
            self.count(hits, 1);
            return Ok(changed);
        }
        let mut patience = Patience::new();
        loop {
            match self.arith_once(&key, arith) {
                // Somebody came between the two halves.
                Err(Status::Exists) => {
                    patience.progress();
                    patience.wait()?;
                }
                Ok((number, cas, existed)) => {
                    self.count(if existed { hits } else { misses }, 1);
                    return Ok((number, cas));
                }
                Err(status) => {
                    self.count(if status == Status::NotFound { misses } else { hits }, 1);
                    return Err(status);
                }
            }
        }
    }

    fn arith_once(&self, key: &Key, arith: Arith) -> Result<(u64, u64, bool), Status> {
        let mut times = Times::new(self.client);
        let (number, width, from, word) = match self.arith_in_place(key, arith, &mut times) {
            Ok(Numbered::Done(number, cas)) => return Ok((number, cas, true)),
            Ok(Numbered::Replace { number, width, from, times }) => (number, width, Some(from), times),
            Err(Status::NotFound) => {
                let (number, exptime) = arith.initial.ok_or(Status::NotFound)?;
                (number, 1, None, item::times_word(0, times.expiry(exptime)))
            }
            Err(status) => return Err(status),
        };
        let mut digits = [0; DIGITS_MAX];
        let width = width.max(item::format_number(number, &mut digits).len());
        let info = Info::new(key.hash, key.bytes().len(), width, true);
        let fresh = self.build(key, info, word)?;
        self.heap.init_pair(fresh.claimed.block, info, Pair { number, cas: 0 });
        let cas = self.commit(key, &fresh, &mut times, |existing| match (existing, &from) {
            (None, None) => Decision::Store,
            (Some(e), Some(f)) if e.is_life_of(f.block, f.meta, f.cas) => {
                let now = self.heap.times_word(e.block).load(Ordering::Relaxed);
                self.heap.times_word(fresh.claimed.block).store(now, Ordering::Relaxed);
                Decision::Store
            }
            _ => Decision::Refuse(Status::Exists),
        })?;
        self.count(Counter::NumbersStored, 1);
        Ok((number, cas, from.is_some()))
    }

    /// Changes a numeric item in place if the digits fit; otherwise reads what the new one starts from.
    fn arith_in_place(&self, key: &Key, arith: Arith, times: &mut Times<'_>) -> Result<Numbered, Status> {
        let bucket = self.lock_key(key.hash)?;
        let found = self.search(&bucket, key).hit.and_then(|(_, slot)| self.existing(slot));
        let word = found.as_ref().map_or(0, |e| self.heap.times_word(e.block).load(Ordering::Relaxed));
        let result = match found.filter(|e| times.life(self.heap, e.meta, word) == Life::Alive) {
            None => Err(Status::NotFound),
            Some(item) => self.arith_on(item, arith, word),
        };
        bucket.unlock();
        self.done();
        result
    }

    fn arith_on(&self, item: Existing, arith: Arith, times: u64) -> Result<Numbered, Status> {
        let info = self.heap.info(item.block);
        if !info.is_numeric() {
            let number = self.parse(item.block, info).ok_or(Status::NotNumeric)?;
            return Ok(Numbered::Replace { number: arith.of(number), width: info.value_len(), from: item, times });
        }
        let old = self.heap.load_pair(item.block, info).ok_or(Status::Damaged)?;
        let number = arith.of(old.number);
        if !item::fits_width(number, info.value_len()) {
            return Ok(Numbered::Replace { number, width: info.value_len(), from: item, times });
        }
        let cas = self.next_cas(old.cas);
        // The commit: number and cas together.
        if !self.heap.swap_pair(item.block, info, old, Pair { number, cas }) {
            return Err(Status::Damaged);
        }
        block::mark(self.heap.meta(item.block), item.meta);
        Ok(Numbered::Done(number, cas))
    }

    /// The number that an inline value is; under the bucket's lock, so its bytes hold still.
    fn parse(&self, block: Block, info: Info) -> Option<u64> {
        let mut text = [0u8; DIGITS_MAX];
        let len = info.value_len();
        if info.is_large() || len > DIGITS_MAX {
            return None;
        }
        // SAFETY: `len` bytes of the item into as many of ours.
        unsafe { user::copy(text.as_mut_ptr(), self.heap.bytes(block, info.value_at()), len) };
        item::parse_number(text.get(..len)?)
    }
}
