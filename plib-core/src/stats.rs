//! What a heap tells about itself. Counters are kept by context, summed on demand, and survive their writers.

use crate::client::Op;
use crate::heap::block::State;
use crate::heap::superblock::Use;
use crate::heap::{block, class};
use crate::index;
use crate::layout::CLASSES;

macro_rules! counters {
    ($($(#[$doc:meta])* $name:ident => $field:ident,)*) => {
        /// A counter of an op context.
        #[derive(Clone, Copy, PartialEq, Eq, Debug)]
        pub enum Counter { $($(#[$doc])* $name,)* }

        impl Counter {
            /// How many there are.
            pub const COUNT: usize = [$(Self::$name),*].len();
        }

        /// Sums over all contexts since the heap was created, and gauges of the moment.
        #[repr(C)]
        #[derive(Clone, Copy, Default, Debug)]
        pub struct Stats {
            $($(#[$doc])* pub $field: u64,)*
            /// Keys asked for.
            pub cmd_get: u64,
            /// Storage commands (set, add, replace, append, prepend, cas).
            pub cmd_set: u64,
            /// Items now (expired and flushed ones that no hand has passed yet included).
            pub curr_items: u64,
            /// Bytes of headers, keys and values of those items.
            pub bytes: u64,
            /// Bytes of superblocks: what items, index and chains can use together.
            pub limit_maxbytes: u64,
            /// Buckets of the index.
            pub buckets: u64,
            /// Superblocks in the heap.
            pub superblocks: u64,
            /// Superblocks that nobody uses.
            pub superblocks_free: u64,
            /// Superblocks of the index (buckets).
            pub superblocks_index: u64,
            /// Superblocks of chain lines.
            pub superblocks_chain: u64,
            /// Clients whose slot is in use.
            pub clients: u64,
            /// Op contexts in use.
            pub contexts: u64,
            /// Newest cas value that a context may give out.
            pub cas: u64,
        }

        impl Stats {
            fn add(&mut self, counter: impl Fn(Counter) -> u64) {
                $(self.$field = self.$field.wrapping_add(counter(Counter::$name));)*
            }
        }
    };
}

counters! {
    /// Keys asked for that were there.
    GetHits => get_hits,
    /// ... that were not.
    GetMisses => get_misses,
    /// ... that were there but expired.
    GetExpired => get_expired,
    /// ... that were there but flushed.
    GetFlushed => get_flushed,
    /// Storage commands whose condition did not hold or that failed.
    StoreRefused => store_refused,
    /// Touch commands (get-and-touch included).
    CmdTouch => cmd_touch,
    /// ... that found the key.
    TouchHits => touch_hits,
    /// ... that did not.
    TouchMisses => touch_misses,
    /// Deletes that found the key.
    DeleteHits => delete_hits,
    /// ... that did not.
    DeleteMisses => delete_misses,
    /// incr that found the key.
    IncrHits => incr_hits,
    /// ... that did not.
    IncrMisses => incr_misses,
    /// decr that found the key.
    DecrHits => decr_hits,
    /// ... that did not.
    DecrMisses => decr_misses,
    /// cas with the item's own value.
    CasHits => cas_hits,
    /// cas on a missing key.
    CasMisses => cas_misses,
    /// cas with another value.
    CasBadval => cas_badval,
    /// flush_all commands.
    CmdFlush => cmd_flush,
    /// Items stored in all.
    TotalItems => total_items,
    /// ... by incr or decr.
    NumbersStored => numbers_stored,
    /// Items that came less items that went, modulo 2^64.
    Items => items_balance,
    /// Their bytes, likewise.
    Bytes => bytes_balance,
    /// Live items that were evicted for room.
    Evictions => evictions,
    /// Expired or flushed items whose room was reused.
    Reclaimed => reclaimed,
    /// Items that a full bucket chain evicted.
    ChainEvictions => chain_evictions,
    /// Superblocks that changed their class.
    SuperblocksMoved => superblocks_moved,
    /// Buckets split.
    Splits => splits,
    /// Op contexts recovered from the dead.
    RecoveredContexts => recovered_contexts,
    /// Bucket locks taken over from the dead.
    LocksTakenOver => locks_taken_over,
    /// Operations that gave up on a frozen owner.
    BusyReturns => busy,
}

/// One size class at the moment.
#[derive(Clone, Copy, Default, Debug)]
pub struct ClassStats {
    /// The class's number.
    pub class: usize,
    /// Bytes of a block.
    pub size: u32,
    /// Blocks in a superblock.
    pub per_superblock: u32,
    /// Superblocks of the class.
    pub superblocks: u32,
    /// Blocks with a live item (or chain line).
    pub live: u64,
    /// Free blocks.
    pub free: u64,
    /// Blocks that an operation holds.
    pub claimed: u64,
    /// Fragments of large values.
    pub fragments: u64,
    /// Bytes of items in live blocks; with `size * live` it tells what rounding up costs.
    pub item_bytes: u64,
}

/// Words of a [`ClassStats`] between two sides of a gate.
#[cfg(not(loom))]
pub(crate) const CLASS_WORDS: usize = 9;

#[cfg(not(loom))]
impl ClassStats {
    pub(crate) fn encode(&self) -> [u64; CLASS_WORDS] {
        let [size, per_superblock, superblocks] = [self.size, self.per_superblock, self.superblocks].map(u64::from);
        let Self { class, live, free, claimed, fragments, item_bytes, .. } = *self;
        [class as u64, size, per_superblock, superblocks, live, free, claimed, fragments, item_bytes]
    }

    pub(crate) fn decode(words: &[u64; CLASS_WORDS]) -> Self {
        let [class, size, per_superblock, superblocks, live, free, claimed, fragments, item_bytes] = *words;
        let [size, per_superblock, superblocks] = [size, per_superblock, superblocks].map(|word| word as u32);
        Self { class: class as usize, size, per_superblock, superblocks, live, free, claimed, fragments, item_bytes }
    }
}

impl Op<'_> {
    /// Sums all counters.
    pub fn stats(&self) -> Stats {
        let mut stats = Stats::default();
        let geometry = self.heap.geometry();
        for number in 1..=geometry.contexts {
            let Some(context) = self.heap.context(number) else {
                continue;
            };
            stats.add(|counter| context.counter(counter));
            stats.contexts += u64::from(context.load().is_busy());
        }
        // Counters are read one after the other while others write: never show less than nothing.
        stats.curr_items = (stats.items_balance as i64).max(0) as u64;
        stats.bytes = (stats.bytes_balance as i64).max(0) as u64;
        stats.cmd_get = stats.get_hits.wrapping_add(stats.get_misses);
        stats.cmd_set = stats.total_items.wrapping_sub(stats.numbers_stored).wrapping_add(stats.store_refused);
        stats.clients = (0..geometry.clients).filter(|i| self.heap.slot_in_use(*i)).count() as u64;
        stats.superblocks = u64::from(geometry.superblocks);
        stats.limit_maxbytes = stats.superblocks * crate::layout::SUPERBLOCK as u64;
        stats.buckets = u64::from(index::growth(self.heap).buckets());
        stats.cas = self.heap.hot().cas.0.load(crate::sync::Ordering::Relaxed);
        for s in 0..geometry.superblocks {
            match self.heap.descriptor(s).map(|d| d.state().usage()) {
                Some(Use::Free) => stats.superblocks_free += 1,
                Some(Use::Index) => stats.superblocks_index += 1,
                Some(Use::Class(class::CHAIN)) => stats.superblocks_chain += 1,
                _ => {}
            }
        }
        stats
    }

    /// Looks at every block of a class.
    pub fn class_stats(&self, class: usize) -> ClassStats {
        let mut stats = ClassStats {
            class,
            size: class::size(class),
            per_superblock: class::per_superblock(class),
            ..ClassStats::default()
        };
        if class >= CLASSES {
            return stats;
        }
        for s in 0..self.heap.geometry().superblocks {
            let Some(descriptor) = self.heap.descriptor(s) else {
                continue;
            };
            self.protect(0, s);
            if !descriptor.serves(class) {
                continue;
            }
            stats.superblocks += 1;
            for i in 0..stats.per_superblock {
                let block = self.heap.block_in(s, class, i);
                match block::load(self.heap.meta(block)).state() {
                    State::Free => stats.free += 1,
                    State::Claimed => stats.claimed += 1,
                    State::Part => stats.fragments += 1,
                    State::Live => {
                        stats.live += 1;
                        if class != class::CHAIN {
                            stats.item_bytes += self.heap.info(block).item_size() as u64;
                        }
                    }
                }
            }
        }
        self.unprotect();
        stats
    }
}
