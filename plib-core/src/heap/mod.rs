//! The mapped heap file: its regions as typed, bounds-checked references to atomics.
//!
//! Everything shared is made of atomic words, so a `&` to it is sound whatever other processes do. Item bytes are
//! reached by raw pointers only (see [`crate::item`]).

pub mod block;
pub mod class;
pub mod header;
pub mod hints;
pub mod superblock;

use crate::client::{ClientSlot, ContextMemory};
use crate::hash::Secret;
use crate::hazard::Hazards;
use crate::index::Line;
use crate::layout::*;
use crate::status::{Fault, Status};
use crate::sync::{AtomicU32, AtomicU64, Ordering};
use crate::user::{Protected, Range, Ranges};
use block::BlockRef;
use hints::HintSet;
use superblock::Descriptor;

/// A word on a cache line of its own.
#[repr(C, align(64))]
pub struct Lone(pub AtomicU64);

/// The words that every operation of every process may read or write, a line each.
#[repr(C)]
pub struct Hot {
    /// `{level, split}` of the linear hashing; written by the holder of the split bucket's lock.
    pub growth: Lone,
    /// `{flush epoch, deadline}`.
    pub flush: Lone,
    /// Start of the next cas range; fetch_add only.
    pub cas: Lone,
    /// About how many items there are; contexts add their differences in batches.
    pub items: Lone,
    /// Owner of the right to reserve memory for a large value; 0 = nobody.
    pub large: Lone,
    /// Where the search for a free superblock starts.
    pub pool: Lone,
}

#[cfg(not(loom))]
pub(crate) const HOT_WORDS: u64 = (size_of::<Hot>() / 64) as u64;
#[cfg(loom)]
pub(crate) const HOT_WORDS: u64 = 0;

/// What a class's evictors share.
#[repr(C, align(64))]
pub struct ClassLine {
    /// The hand: `superblock | block`.
    pub hand: AtomicU64,
    /// The cas of the item that the hand last took, or of those it comes to next.
    pub typical: AtomicU64,
    /// Where the search for partly free superblocks starts.
    pub partial: AtomicU64,
}

/// A validated mapping of a heap file.
#[derive(Clone, Copy)]
pub struct Heap {
    base: *mut u8,
    geometry: Geometry,
    secret: Secret,
    /// Where the last block may start, counted from the first superblock.
    last_block: u64,
    /// What callers' pointers must not touch either.
    others: Option<&'static Ranges>,
}

// SAFETY: the mapping is shared between processes in the first place; all access to it is by atomics or racing copies.
unsafe impl Send for Heap {}
// SAFETY: as above.
unsafe impl Sync for Heap {}

/// Every class's blocks have at least these bytes: the four words of an item's header and its key.
const SMALLEST_BLOCK: usize = class::size(1) as usize;

/// How many lock bytes there are: so many that a process draws one of its own.
pub const LOCK_BYTES: u64 = 1 << 39;
/// They lie far behind any file's end.
const LOCK_BASE: u64 = 1 << 62;

impl Heap {
    /// Checks the header page of a file of `file_len` bytes that was read, not mapped.
    pub fn probe(page: &[u8; 4096], file_len: u64) -> Result<Geometry, Fault> {
        header::Unchecked::from_bytes(page).check(file_len)
    }

    /// Makes a heap in a fresh mapping.
    ///
    /// # Safety
    /// `base` is a 64 KiB-aligned, zero-filled, writable mapping of `len` bytes that nobody else uses yet.
    pub unsafe fn format(base: *mut u8, len: usize, p: &CreateParams) -> Result<(), Fault> {
        let geometry = Geometry::new(p)?;
        if (len as u64) < geometry.size {
            return Err(Fault::new(Status::Invalid, "mapping", geometry.size, len as u64));
        }
        let heap = Self::over(base, geometry, p.secret);
        let hot = heap.hot();
        hot.growth.0.store(crate::index::Growth::START.0, Ordering::Relaxed);
        hot.cas.0.store(1, Ordering::Relaxed);
        for s in 0..geometry.superblocks {
            heap.pool().insert(s);
        }
        crate::index::format(&heap)?;
        let words = header::Unchecked::compose(p, &geometry);
        // The magic goes last: a half-made heap is no heap.
        for i in (0..header::WORDS).rev() {
            if let (Some(shared), Some(word)) = (heap.header().get(i), words.get(i)) {
                shared.store(*word, Ordering::Release);
            }
        }
        Ok(())
    }

    /// Takes a mapping of a heap file into use.
    ///
    /// # Safety
    /// `base` is a 64 KiB-aligned shared mapping of the whole file, readable and writable for `len` bytes, and stays so
    /// while the value or anything made from it is used.
    pub unsafe fn attach(base: *mut u8, len: usize, boot_id: [u64; 2]) -> Result<Self, Fault> {
        // SAFETY: passed on.
        let (heap, state) = unsafe { Self::read_header(base, len)? };
        heap.check_boot(state, boot_id)?;
        crate::index::check_tables(&heap)?;
        Ok(heap)
    }

    /// The same for who may only read it, all but the open hazards.
    ///
    /// # Safety
    /// As for `attach`, but that only the open hazards are writable. Nothing that writes elsewhere is done by it.
    pub(crate) unsafe fn look_at(base: *mut u8, len: usize) -> Result<Self, Fault> {
        // SAFETY: passed on.
        let (heap, _) = unsafe { Self::read_header(base, len)? };
        crate::index::check_tables(&heap)?;
        Ok(heap)
    }

    /// The heap that the header of a mapping tells of, and what the header says of its last use.
    ///
    /// # Safety
    /// As for `look_at`.
    unsafe fn read_header(base: *mut u8, len: usize) -> Result<(Self, ([u64; 2], bool)), Fault> {
        if len < 4096 {
            return Err(Fault::new(Status::NotAHeap, "file size", HEAP_SIZE_MIN, len as u64));
        }
        // SAFETY: the first page is mapped; the words are atomics.
        let words = unsafe { core::slice::from_raw_parts(base.cast::<AtomicU64>(), header::WORDS) };
        let unchecked = header::Unchecked::from_words(words);
        let geometry = unchecked.check(len as u64)?;
        let mut heap = Self::over(base, geometry, [0; 4]);
        for (s, word) in heap.secret.iter_mut().zip(words.iter().skip(header::SECRET)) {
            *s = word.load(Ordering::Relaxed);
        }
        Ok((heap, unchecked.state()))
    }

    fn over(base: *mut u8, geometry: Geometry, secret: Secret) -> Self {
        let last_block = u64::from(geometry.superblocks) * SUPERBLOCK as u64 - SMALLEST_BLOCK as u64;
        Self { base, geometry, secret, last_block, others: None }
    }

    /// A disk file that was in use when the machine stopped holds an arbitrary mixture of old and new pages.
    fn check_boot(&self, (boot, clean): ([u64; 2], bool), now: [u64; 2]) -> Result<(), Fault> {
        if boot != now && !clean {
            return Err(Fault::new(Status::Dirty, "boot id", now[0], boot[0]));
        }
        for (word, id) in self.header().iter().skip(header::BOOT).zip(now) {
            word.store(id, Ordering::Release);
        }
        Ok(())
    }

    /// Notes that a client may be at work (for [`Status::Dirty`]): on the disk, too, before it changes anything.
    pub(crate) fn set_dirty(&self) {
        if let Some(word) = self.header().get(header::CLEAN)
            && word.swap(0, Ordering::AcqRel) != 0
        {
            crate::sys::sync_pages(self.base, PAGE as usize);
        }
    }

    /// Notes that the last client has left, unless one comes meanwhile. What it left reaches the disk before the note does.
    pub(crate) fn set_clean(&self) {
        let anybody = || (0..self.geometry.clients).any(|slot| self.slot_in_use(slot));
        if anybody() {
            return;
        }
        crate::sys::sync_pages(self.base, self.geometry.size as usize);
        if let Some(word) = self.header().get(header::CLEAN) {
            word.store(1, Ordering::SeqCst);
            // One that came in between wrote 0 before this 1, and is seen here; one that comes later writes after it.
            if anybody() {
                word.store(0, Ordering::SeqCst);
            }
        }
        crate::sys::sync_pages(self.base, PAGE as usize);
    }

    /// The map of this heap.
    pub fn geometry(&self) -> Geometry {
        self.geometry
    }

    /// The file offset of a client's lock byte, in the heap file or in the lock file beside it.
    pub const fn lock_offset(lock_byte: u64) -> u64 {
        LOCK_BASE + lock_byte % LOCK_BYTES
    }

    /// Whether the slot is marked as in use; a hint for where to register.
    pub fn slot_in_use(&self, slot: u32) -> bool {
        self.client(slot).is_some_and(|c| c.load().in_use())
    }

    /// The addresses that callers' pointers must not touch.
    #[inline(always)]
    pub(crate) fn protected(&self) -> Protected {
        let heap = Range { start: self.base as usize, len: self.geometry.size as usize };
        Protected { heap, others: self.others }
    }

    /// The same heap for who guards more than it.
    pub(crate) fn among(self, others: &'static Ranges) -> Self {
        Self { others: Some(others), ..self }
    }

    pub(crate) fn secret(&self) -> &Secret {
        &self.secret
    }

    /// A shared object of atomics at `offset`.
    #[inline]
    fn at<T>(&self, offset: u64) -> &T {
        // SAFETY: private; every caller passes an in-bounds, aligned offset of a region whose type consists of atomics.
        // The mapping outlives `self` by the contract of `attach`.
        unsafe { &*self.base.add(offset as usize).cast::<T>() }
    }

    fn slice<T>(&self, offset: u64, n: usize) -> &[T] {
        // SAFETY: as for `at`, for `n` objects in a row.
        unsafe { core::slice::from_raw_parts(self.base.add(offset as usize).cast::<T>(), n) }
    }

    pub(crate) fn header(&self) -> &[AtomicU64] {
        self.slice(0, header::WORDS)
    }

    /// The shared hot words.
    #[inline]
    pub fn hot(&self) -> &Hot {
        self.at(HOT_OFFSET)
    }

    /// The line of `class`.
    pub(crate) fn class_line(&self, class: usize) -> &ClassLine {
        self.at(CLASS_LINES_OFFSET + class.min(CLASSES - 1) as u64 * CLASS_LINE)
    }

    /// The client in `slot`.
    pub(crate) fn client(&self, slot: u32) -> Option<&ClientSlot> {
        (slot < self.geometry.clients).then(|| self.at(CLIENTS_OFFSET + u64::from(slot) * CLIENT_SIZE))
    }

    /// Op context `number`, 1-based.
    #[inline]
    pub(crate) fn context(&self, number: u32) -> Option<&ContextMemory> {
        let i = number.wrapping_sub(1);
        (i < self.geometry.contexts).then(|| self.at(self.geometry.contexts_offset + u64::from(i) * CONTEXT_SIZE))
    }

    /// The hazards by which the owner of op context `number` reads outside of the gate.
    #[inline]
    pub(crate) fn open_hazards(&self, number: u32) -> Option<&Hazards> {
        let (i, geometry) = (number.wrapping_sub(1), &self.geometry);
        let there = geometry.readable && i < geometry.contexts;
        there.then(|| self.at(geometry.open_hazards_offset + u64::from(i) * OPEN_HAZARDS))
    }

    /// Entry `i` of the index's directory: 0, or 1 + the superblock of segment `i`.
    #[inline]
    pub(crate) fn directory(&self, i: u32) -> Option<&AtomicU32> {
        (i < self.geometry.segments).then(|| self.at(self.geometry.directory_offset + u64::from(i) * 4))
    }

    fn hint_set(&self, number: u64) -> HintSet<'_> {
        let (leaves, summary) = (self.geometry.hint_words as usize, self.geometry.summary_words as usize);
        let offset = self.geometry.hints_offset + number * (leaves + summary) as u64 * 8;
        HintSet::new(self.slice(offset, leaves), self.slice(offset + leaves as u64 * 8, summary))
    }

    /// Superblocks that may be unused.
    pub(crate) fn pool(&self) -> HintSet<'_> {
        self.hint_set(0)
    }

    /// Superblocks that may be of `class`.
    pub(crate) fn members(&self, class: usize) -> HintSet<'_> {
        self.hint_set(1 + class.min(CLASSES - 1) as u64)
    }

    /// Superblocks of `class` that may have free blocks.
    pub(crate) fn partial(&self, class: usize) -> HintSet<'_> {
        self.hint_set(1 + CLASSES as u64 + class.min(CLASSES - 1) as u64)
    }

    /// The descriptor of superblock `s`.
    #[inline]
    pub(crate) fn descriptor(&self, s: u32) -> Option<Descriptor<'_>> {
        (s < self.geometry.superblocks).then(|| Descriptor {
            state: self.at(self.geometry.states_offset + u64::from(s) * 8),
            rest: self.at(self.geometry.descriptors_offset + u64::from(s) * DESCRIPTOR_SIZE),
        })
    }

    /// Bucket line `i` of index superblock `s`.
    #[inline]
    pub(crate) fn line_in(&self, s: u32, i: u32) -> Option<&Line> {
        let offset =
            self.geometry.superblocks_offset + u64::from(s) * SUPERBLOCK as u64 + u64::from(i % SEGMENT_BUCKETS) * 64;
        (s < self.geometry.superblocks).then(|| self.at(offset))
    }

    /// The chain line at `unit`.
    #[inline]
    pub(crate) fn line_at(&self, unit: u64) -> Option<&Line> {
        (unit.is_multiple_of(4) && self.block(unit).is_some()).then(|| self.at(unit * UNIT as u64))
    }

    /// The block at `unit`; None where no superblock has room for the smallest block. Whatever a damaged heap names, the
    /// four words of a `Block` are inside the mapping.
    #[inline(always)]
    pub(crate) fn block(&self, unit: u64) -> Option<Block> {
        let unit = unit & ((1 << 36) - 1);
        let offset = (unit * UNIT as u64).wrapping_sub(self.geometry.superblocks_offset);
        (offset <= self.last_block).then_some(Block { unit, superblock: (offset / SUPERBLOCK as u64) as u32 })
    }

    /// Block `i` of superblock `s` when cut into blocks of `class`. (A hint may name superblocks that are none: kept inside.)
    pub(crate) fn block_in(&self, s: u32, class: usize, i: u32) -> Block {
        let s = s.min(self.geometry.superblocks.wrapping_sub(1));
        let offset = self.geometry.superblocks_offset
            + u64::from(s) * SUPERBLOCK as u64
            + u64::from(i % class::per_superblock(class).max(1)) * u64::from(class::size(class));
        Block { unit: offset / UNIT as u64, superblock: s }
    }

    /// Which block of its superblock `block` is when cut into `class`; None when it is not on a boundary.
    pub(crate) fn number_of(&self, block: Block, class: usize) -> Option<u32> {
        let within = (block.unit * UNIT as u64 - self.geometry.superblocks_offset) % SUPERBLOCK as u64;
        let size = u64::from(class::size(class).max(1));
        (within.is_multiple_of(size) && within / size < u64::from(class::per_superblock(class)))
            .then_some((within / size) as u32)
    }

    /// The meta word of a block.
    #[inline]
    pub(crate) fn meta(&self, block: Block) -> &AtomicU64 {
        self.at(block.unit * UNIT as u64)
    }

    /// Word `i` (of 0..4) of a block; every block has at least 48 bytes.
    #[inline]
    pub(crate) fn word(&self, block: Block, i: usize) -> &AtomicU64 {
        self.at(block.unit * UNIT as u64 + (i as u64 & 3) * 8)
    }

    /// Byte `offset` of a block; the caller keeps within the block.
    #[inline]
    pub(crate) fn bytes(&self, block: Block, offset: usize) -> *mut u8 {
        // SAFETY: a block lies inside a superblock, and callers stay within 64 KiB of its start; the clamp keeps a
        // damaged length inside the mapping.
        unsafe { self.base.add((block.unit as usize * UNIT + offset).min(self.geometry.size as usize - 1)) }
    }

    /// A block's first byte.
    #[inline(always)]
    pub(crate) fn start_of(&self, block: Block) -> *mut u8 {
        // SAFETY: a `Block` is inside the mapping.
        unsafe { self.base.add(block.unit as usize * UNIT) }
    }

    /// The same for an offset that was compared with the block's room.
    ///
    /// # Safety
    /// `offset` is at most `room(block)`.
    #[inline(always)]
    pub(crate) unsafe fn bytes_unclamped(&self, block: Block, offset: usize) -> *mut u8 {
        // SAFETY: inside the block's superblock, by the caller.
        unsafe { self.base.add(block.unit as usize * UNIT + offset) }
    }

    /// Bytes from a block's start to the end of its superblock: no copy may go further.
    #[inline]
    pub(crate) fn room(&self, block: Block) -> usize {
        let within = (block.unit * UNIT as u64 - self.geometry.superblocks_offset) % SUPERBLOCK as u64;
        SUPERBLOCK - within as usize
    }

    /// The block that a reference names.
    pub(crate) fn resolve(&self, r: BlockRef) -> Option<Block> {
        if r == BlockRef::NONE { None } else { self.block(r.unit()) }
    }
}

/// A block's place: inside the mapping, by construction.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Block {
    pub(crate) unit: u64,
    pub(crate) superblock: u32,
}
