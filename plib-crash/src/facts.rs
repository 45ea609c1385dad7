//! What can be said of a heap: what each watched key holds, and what every block and superblock is used for.

use crate::stage::Stage;
use plib::{Cache, Error, Stats};

/// What a key holds.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Fact {
    len: usize,
    /// A checksum of the value, and its first bytes to show.
    sum: u32,
    start: [u8; START],
    flags: u32,
    expiry: u32,
    cas: u64,
}

const START: usize = 12;

/// What each watched key holds.
pub type Facts = Vec<Option<Fact>>;

/// Reads all watched keys.
pub fn read(stage: &Stage) -> Result<Facts, Error> {
    let mut buf = stage.buf.borrow_mut();
    let mut fact = |key: &Vec<u8>| {
        let Some(item) = stage.cache.get_into(key, &mut buf)? else { return Ok(None) };
        let value = &buf[..item.value_len];
        let mut start = [0; START];
        value.iter().zip(&mut start).for_each(|(from, to)| *to = *from);
        let (len, sum) = (value.len(), crc32fast::hash(value));
        Ok(Some(Fact { len, sum, start, flags: item.flags, expiry: item.expiry, cas: item.cas }))
    };
    stage.keys.iter().map(&mut fact).collect()
}

/// How many of some keys have an item, without a look at it.
pub fn count<'k>(stage: &Stage, keys: impl Iterator<Item = &'k Vec<u8>>) -> Result<u64, Error> {
    let mut there = 0;
    for key in keys {
        match stage.cache.get_into(key, &mut []) {
            Ok(None) => {}
            Ok(Some(_)) | Err(Error::TooSmall { .. }) => there += 1,
            Err(e) => return Err(e),
        }
    }
    Ok(there)
}

/// A fact in a line.
pub fn show(fact: &Option<Fact>) -> String {
    match fact {
        None => "nothing".into(),
        Some(f) => {
            let (len, text) = (f.len, f.start.escape_ascii());
            format!("{len} bytes \"{text}..\", flags {}, expiry {}, cas {}", f.flags, f.expiry, f.cas)
        }
    }
}

/// Counters, to see what an operation did.
pub struct Picture {
    /// All of them.
    pub stats: Stats,
    /// Chain lines in use.
    pub chain_lines: u64,
}

impl Picture {
    /// As they are now.
    pub fn take(cache: &Cache) -> Result<Self, Error> {
        // Class 0 is the index's chain lines.
        let chain_lines = cache.class_stats()?.first().map_or(0, |class| class.live);
        Ok(Self { stats: cache.stats()?, chain_lines })
    }
}

/// One size class.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct ClassUse {
    superblocks: u32,
    live: u64,
    free: u64,
    fragments: u64,
}

/// The use of all memory, at rest.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Census {
    classes: Vec<ClassUse>,
    unused: u64,
    index: u64,
}

impl Census {
    /// Counts. An error says what a heap at rest must not have: held blocks, lost superblocks, items that no key explains.
    pub fn take(cache: &Cache, items: u64) -> Result<Self, String> {
        let text = |e: Error| e.to_string();
        let stats = cache.stats().map_err(text)?;
        let mut classes = Vec::new();
        for class in cache.class_stats().map_err(text)? {
            let n = class.class;
            if class.claimed != 0 {
                return Err(format!("{} blocks of class {n} are still held", class.claimed));
            }
            let (has, seen) = (
                u64::from(class.superblocks) * u64::from(class.per_superblock),
                class.live + class.free + class.fragments,
            );
            if has != seen {
                return Err(format!("class {n} has {has} blocks, of which {seen} were seen"));
            }
            classes.push(ClassUse {
                superblocks: class.superblocks,
                live: class.live,
                free: class.free,
                fragments: class.fragments,
            });
        }
        let (unused, index) = (stats.superblocks_free, stats.superblocks_index);
        let used: u64 = classes.iter().map(|c| u64::from(c.superblocks)).sum();
        if used + unused + index != stats.superblocks {
            let all = stats.superblocks;
            return Err(format!("of {all} superblocks {used} are used, {unused} unused, {index} the index's"));
        }
        // Class 0 is the index's chain lines.
        let live: u64 = classes.iter().skip(1).map(|c| c.live).sum();
        if live != items {
            return Err(format!("{live} blocks hold items, and {items} keys have one"));
        }
        Ok(Self { classes, unused, index })
    }

    /// Whether superblocks are used alike.
    fn is_cut_like(&self, other: &Self) -> bool {
        let cut = |c: &Self| c.classes.iter().map(|c| c.superblocks).collect::<Vec<_>>();
        (self.unused, self.index) == (other.unused, other.index) && cut(self) == cut(other)
    }

    /// Compares what is free with what would be, had the operation not happened (`before`) or been completed (`after`).
    /// True if it is just so; false if a superblock has changed its use without the item for which it did, or some of
    /// several items are stored. An error if the same superblocks hold other things than either.
    pub fn compare(&self, before: &Self, after: &Self, is_old: bool, is_new: bool) -> Result<bool, String> {
        if is_old && self == before || is_new && self == after {
            return Ok(true);
        }
        let differs = |other: &Self| {
            let pairs = self.classes.iter().zip(&other.classes).enumerate();
            let odd: Vec<_> =
                pairs.filter(|(_, (a, b))| a != b).map(|(n, (a, b))| format!("{n}: {a:?} for {b:?}")).collect();
            odd.join("; ")
        };
        if is_old && self.is_cut_like(before) {
            return Err(format!("memory is not used as before the operation: class {}", differs(before)));
        }
        if is_new && self.is_cut_like(after) {
            return Err(format!("memory is not used as after the operation: class {}", differs(after)));
        }
        Ok(false)
    }
}

/// Whether two facts agree in all but the cas, which depends on what others did meanwhile.
pub fn same_but_for_cas(a: &Option<Fact>, b: &Option<Fact>) -> bool {
    match (a, b) {
        (None, None) => true,
        (Some(a), Some(b)) => (a.len, a.sum, a.flags, a.expiry) == (b.len, b.sum, b.flags, b.expiry),
        _ => false,
    }
}
