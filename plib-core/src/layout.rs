//! The map of the heap file.
//!
//! ```text
//! 0      4 KiB   8 KiB          16 KiB
//! +------+-------+--------------+---------+-------------+---------+-----------+-------+--------+-------------+-------------+
//! | cold | hot   | class lines  | clients | op contexts | open    | directory | hints | states | descriptors | superblocks |
//! | page | words | 64 B a class | 64 B    | 8 KiB each  | hazards | 4 B a     | bits  | 8 B    | 192 B each  | 64 KiB each |
//! |      |       |              | each    |             | 64 B    | segment   |       | each   |             |             |
//! +------+-------+--------------+---------+-------------+---------+-----------+-------+--------+-------------+-------------+
//! ```
//! Only readable heaps have open hazards, one line a context.
//!
//! All references are numbers of 16-byte units from the start of the file (I1): the same file works at any address.
//! Every region starts where the one before it ends, rounded up to a page; the superblocks start at a multiple of 64 KiB.

use crate::hash::mix;
use crate::heap::class;
use crate::status::{Fault, Status};

/// Bytes in a superblock.
pub const SUPERBLOCK: usize = 65536;
/// Longest key.
pub const KEY_MAX: usize = 250;
/// Bytes of an item before its key.
pub const ITEM_HEADER: usize = 32;
/// Bytes of a reference unit.
pub const UNIT: usize = 16;
/// Smallest heap.
pub const HEAP_SIZE_MIN: u64 = 8 << 20;
/// Largest heap: 2^36 units.
pub const HEAP_SIZE_MAX: u64 = 1 << 40;
/// Default of `item_size_max`, as memcached's `-I`.
pub const ITEM_SIZE_MAX_DEFAULT: u32 = 1 << 20;
/// Largest `item_size_max`.
pub const ITEM_SIZE_MAX_LIMIT: u32 = 128 << 20;
/// Smallest `item_size_max`, as memcached's.
pub const ITEM_SIZE_MAX_MIN: u32 = 1024;
/// Number of size classes.
pub const CLASSES: usize = class::COUNT;
/// Largest number of op contexts (12 bits of an owner, 0 is nobody).
pub const CONTEXTS_MAX: u32 = 4095;

/// "plibheap", little-endian.
pub const MAGIC: u64 = u64::from_le_bytes(*b"plibheap");
/// Counted up when the meaning of the file changes.
pub const FORMAT_VERSION: u32 = 1;

pub(crate) const PAGE: u64 = 4096;
pub(crate) const HOT_OFFSET: u64 = PAGE;
pub(crate) const CLASS_LINES_OFFSET: u64 = 2 * PAGE;
pub(crate) const CLIENTS_OFFSET: u64 = 4 * PAGE;
pub(crate) const CLASS_LINE: u64 = 64;
pub(crate) const CLIENT_SIZE: u64 = 64;
pub(crate) const CONTEXT_SIZE: u64 = 8192;
/// A line a context, so that no two readers write the same one.
pub(crate) const OPEN_HAZARDS: u64 = 64;
pub(crate) const DESCRIPTOR_SIZE: u64 = 192;
/// Buckets in a segment of the index (one superblock).
pub(crate) const SEGMENT_BUCKETS: u32 = 1024;
/// Most segments: 2^28 buckets.
pub(crate) const SEGMENTS_MAX: u64 = 1 << 18;
/// Most contexts that one client may hold, in eighths of all.
pub(crate) const QUOTA_EIGHTHS: u32 = 6;

const _: () = assert!(CLASSES as u64 * CLASS_LINE <= CLIENTS_OFFSET - CLASS_LINES_OFFSET);

/// Bytes that the class `class` gives to a block.
pub fn class_size(class: usize) -> u32 {
    class::size(class)
}

/// What a heap is made from.
#[derive(Clone, Copy, Debug)]
pub struct CreateParams {
    /// Bytes of the file.
    pub size: u64,
    /// Largest item (header, key and value), bytes.
    pub item_size_max: u32,
    /// Op contexts; 0 chooses by size.
    pub contexts: u32,
    /// The hash's key.
    pub secret: [u64; 4],
    /// The running system's boot id.
    pub boot_id: [u64; 2],
    /// Seconds since 1970.
    pub created: u64,
    /// What the lock file beside the heap repeats; 0 if the lock bytes are the heap file's own.
    pub lock_id: [u64; 2],
    /// Whether programs may read it outside of the gate.
    pub readable: bool,
}

/// Where everything is in one heap file; computed from five numbers, never read from the file.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Geometry {
    /// Bytes of the file.
    pub size: u64,
    /// Superblocks of 64 KiB.
    pub superblocks: u32,
    /// Op contexts.
    pub contexts: u32,
    /// Client slots.
    pub clients: u32,
    /// Largest item (header, key and value), bytes.
    pub item_size_max: u32,
    /// Seconds since 1970 at creation.
    pub created: u64,
    /// What the lock file beside the heap repeats; 0 if the lock bytes are the heap file's own.
    pub lock_id: [u64; 2],
    /// Most segments the index may have.
    pub segments: u32,
    /// Whether programs may read it outside of the gate.
    pub readable: bool,
    pub(crate) contexts_offset: u64,
    pub(crate) open_hazards_offset: u64,
    pub(crate) directory_offset: u64,
    pub(crate) hints_offset: u64,
    pub(crate) hint_words: u32,
    pub(crate) summary_words: u32,
    pub(crate) states_offset: u64,
    pub(crate) descriptors_offset: u64,
    pub(crate) superblocks_offset: u64,
}

const fn round_up(n: u64, to: u64) -> u64 {
    n.div_ceil(to) * to
}

/// Op contexts for a heap of `size` bytes: one a MiB, between 16 and 1024.
const fn default_contexts(size: u64) -> u32 {
    let wanted = size >> 20;
    if wanted < 16 {
        16
    } else if wanted > 1024 {
        1024
    } else {
        wanted as u32
    }
}

/// Bytes of the open hazards: whole pages, for what is protected otherwise lies beside them.
const fn open_hazards_len(contexts: u32) -> u64 {
    round_up(contexts as u64 * OPEN_HAZARDS, PAGE)
}

impl Geometry {
    /// Where the open hazards are, in whole pages, as offset and length: what a program may write in a readable heap.
    pub fn open_hazards(&self) -> Option<(u64, u64)> {
        self.readable.then(|| (self.open_hazards_offset, open_hazards_len(self.contexts)))
    }

    /// Works out the map of a heap, or says which parameter is out of its limits.
    pub fn new(p: &CreateParams) -> Result<Self, Fault> {
        let invalid = |field, expected, found| Err(Fault::new(Status::Invalid, field, expected, found));
        if p.size < HEAP_SIZE_MIN {
            return invalid("size", HEAP_SIZE_MIN, p.size);
        }
        if p.size > HEAP_SIZE_MAX {
            return invalid("size", HEAP_SIZE_MAX, p.size);
        }
        let size = p.size / SUPERBLOCK as u64 * SUPERBLOCK as u64;
        if p.item_size_max < ITEM_SIZE_MAX_MIN {
            return invalid("item_size_max", u64::from(ITEM_SIZE_MAX_MIN), u64::from(p.item_size_max));
        }
        let largest = core::cmp::min(size / 4, u64::from(ITEM_SIZE_MAX_LIMIT));
        if u64::from(p.item_size_max) > largest {
            return invalid("item_size_max", largest, u64::from(p.item_size_max));
        }
        let contexts = if p.contexts == 0 { default_contexts(size) } else { p.contexts };
        // An eighth of the heap at most goes to contexts, and two are the least that can recover each other.
        let most = core::cmp::min(u64::from(CONTEXTS_MAX), size / 8 / CONTEXT_SIZE);
        if contexts < 2 || u64::from(contexts) > most {
            return invalid("contexts", most, u64::from(contexts));
        }
        let map = Self::map(size, contexts, p.item_size_max, p.readable);
        Ok(Self { created: p.created, lock_id: p.lock_id, ..map })
    }

    /// The map for checked numbers.
    const fn map(size: u64, contexts: u32, item_size_max: u32, readable: bool) -> Self {
        let clients = contexts;
        let bound = size / SUPERBLOCK as u64;
        let segments = if bound / 4 < SEGMENTS_MAX { bound / 4 + 1 } else { SEGMENTS_MAX };
        let hint_words = bound.div_ceil(64);
        let summary_words = hint_words.div_ceil(64);
        let sets = 1 + 2 * CLASSES as u64;
        let contexts_offset = CLIENTS_OFFSET + round_up(clients as u64 * CLIENT_SIZE, PAGE);
        let open_hazards_offset = contexts_offset + contexts as u64 * CONTEXT_SIZE;
        let directory_offset = open_hazards_offset + if readable { open_hazards_len(contexts) } else { 0 };
        let hints_offset = directory_offset + round_up(segments * 4, PAGE);
        let states_offset = hints_offset + round_up(sets * (hint_words + summary_words) * 8, PAGE);
        let descriptors_offset = states_offset + round_up(bound * 8, PAGE);
        let superblocks_offset = round_up(descriptors_offset + bound * DESCRIPTOR_SIZE, SUPERBLOCK as u64);
        Self {
            size,
            superblocks: ((size - superblocks_offset) / SUPERBLOCK as u64) as u32,
            contexts,
            clients,
            item_size_max,
            created: 0,
            lock_id: [0; 2],
            segments: segments as u32,
            readable,
            contexts_offset,
            open_hazards_offset,
            directory_offset,
            hints_offset,
            hint_words: hint_words as u32,
            summary_words: summary_words as u32,
            states_offset,
            descriptors_offset,
            superblocks_offset,
        }
    }

    /// A number that two builds share only if they agree on every size and offset of the shared types.
    pub const fn layout_hash() -> u64 {
        let mut h = mix(0, FORMAT_VERSION as u64);
        let sizes = [
            SUPERBLOCK as u64,
            ITEM_HEADER as u64,
            UNIT as u64,
            HOT_OFFSET,
            CLASS_LINES_OFFSET,
            CLIENTS_OFFSET,
            CLASS_LINE,
            CLIENT_SIZE,
            CONTEXT_SIZE,
            OPEN_HAZARDS,
            DESCRIPTOR_SIZE,
            SEGMENT_BUCKETS as u64,
            SEGMENTS_MAX,
            CLASSES as u64,
            KEY_MAX as u64,
            crate::hash::KNOWN_ANSWER,
            crate::index::SHAPE,
            crate::item::SHAPE,
            crate::heap::HOT_WORDS,
            crate::heap::header::FIELDS_HASH,
            crate::client::FIELDS_HASH,
            crate::heap::superblock::FIELDS_HASH,
        ];
        let mut i = 0;
        #[allow(clippy::indexing_slicing, reason = "evaluated by the compiler")]
        while i < sizes.len() {
            h = mix(h, sizes[i]);
            i += 1;
        }
        // Where the regions of some heap are stands for where those of all are.
        let map = Self::map(1 << 30, 1024, ITEM_SIZE_MAX_DEFAULT, true);
        h = mix(mix(mix(h, map.contexts_offset), map.open_hazards_offset), map.directory_offset);
        h = mix(mix(mix(h, map.hints_offset), map.states_offset), map.descriptors_offset);
        h = mix(h, map.superblocks_offset);
        i = 0;
        while i < CLASSES {
            h = mix(h, class::size(i) as u64);
            i += 1;
        }
        h
    }
}
