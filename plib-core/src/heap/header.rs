//! The header page: who made this heap, and how.
//!
//! A header is bytes until [`check`] has compared every field; only then is there a [`Geometry`] to compute with.
//! The fields are written once, before the file gets its name; `boot` and `clean` alone change later.

use crate::hash::mix;
use crate::layout::{CreateParams, FORMAT_VERSION, Geometry, MAGIC};
use crate::status::{Fault, Status};
use crate::sync::AtomicU64;

/// Offset of each field, in 8-byte words.
#[derive(Clone, Copy)]
enum Field {
    Magic = 0,
    Version = 1,
    LayoutHash = 2,
    Size = 3,
    ItemSizeMax = 4,
    Contexts = 5,
    Created = 6,
    Secret = 7,  // ..11
    LockId = 11, // ..13
    Readable = 13,
    Checksum = 14,
    Boot = 15, // ..17
    Clean = 17,
}

/// Words of the header page in use.
pub(crate) const WORDS: usize = 18;
const CHECKED: usize = Field::Checksum as usize;
pub(crate) const FIELDS_HASH: u64 = mix(WORDS as u64, 0x0607_0b0d_0e0f_1100);

pub(crate) const BOOT: usize = Field::Boot as usize;
pub(crate) const CLEAN: usize = Field::Clean as usize;
pub(crate) const SECRET: usize = Field::Secret as usize;

/// The header's words as they were read once; nothing about them is known yet.
#[derive(Clone, Copy)]
pub struct Unchecked([u64; WORDS]);

impl Unchecked {
    /// From the first bytes of a file.
    pub fn from_bytes(page: &[u8; 4096]) -> Self {
        let mut words = [0; WORDS];
        for (word, bytes) in words.iter_mut().zip(page.as_chunks().0) {
            *word = u64::from_le_bytes(*bytes);
        }
        Self(words)
    }

    /// From a mapped header.
    pub(crate) fn from_words(header: &[AtomicU64]) -> Self {
        let mut words = [0; WORDS];
        for (word, shared) in words.iter_mut().zip(header) {
            *word = shared.load(crate::sync::Ordering::Acquire);
        }
        Self(words)
    }

    fn get(&self, field: Field) -> u64 {
        self.0.get(field as usize).copied().unwrap_or(0)
    }

    fn flag(&self, name: &'static str, field: Field) -> Result<bool, Fault> {
        match self.get(field) {
            0 => Ok(false),
            1 => Ok(true),
            other => Err(Fault::new(Status::Damaged, name, 1, other)),
        }
    }

    fn lock_id(&self) -> [u64; 2] {
        let mut id = [0; 2];
        for (to, from) in id.iter_mut().zip(self.0.iter().skip(Field::LockId as usize)) {
            *to = *from;
        }
        id
    }

    fn checksum(&self) -> u64 {
        self.0.iter().take(CHECKED).fold(0x706c_6962, |h, w| mix(h, *w))
    }

    /// The boot during which the heap was last attached, and whether its last client left in good order.
    pub(crate) fn state(&self) -> ([u64; 2], bool) {
        (
            [self.0.get(BOOT).copied().unwrap_or(0), self.0.get(BOOT + 1).copied().unwrap_or(0)],
            self.get(Field::Clean) == 1,
        )
    }

    /// Compares every field with what it must be, and gives the map of the heap.
    pub fn check(&self, file_len: u64) -> Result<Geometry, Fault> {
        self.check_identity()?;
        self.same(Status::Damaged, "checksum", self.checksum(), self.get(Field::Checksum))?;
        let number = |field: &'static str, value: u64| {
            u32::try_from(value).map_err(|_| Fault::new(Status::Damaged, field, u64::from(u32::MAX), value))
        };
        let params = CreateParams {
            size: self.get(Field::Size),
            item_size_max: number("item_size_max", self.get(Field::ItemSizeMax))?,
            contexts: number("contexts", self.get(Field::Contexts))?,
            secret: [0; 4],
            boot_id: [0; 2],
            created: self.get(Field::Created),
            lock_id: self.lock_id(),
            readable: self.flag("readable", Field::Readable)?,
        };
        let geometry = Geometry::new(&params).map_err(|fault| Fault { status: Status::Damaged, ..fault })?;
        if file_len < geometry.size {
            return Err(Fault::new(Status::Damaged, "file size", geometry.size, file_len));
        }
        Ok(geometry)
    }

    fn check_identity(&self) -> Result<(), Fault> {
        self.same(Status::NotAHeap, "magic", MAGIC, self.get(Field::Magic))?;
        self.same(Status::Layout, "format version", u64::from(FORMAT_VERSION), self.get(Field::Version))?;
        self.same(Status::Layout, "layout hash", Geometry::layout_hash(), self.get(Field::LayoutHash))
    }

    fn same(&self, status: Status, field: &'static str, expected: u64, found: u64) -> Result<(), Fault> {
        if expected == found { Ok(()) } else { Err(Fault::new(status, field, expected, found)) }
    }

    /// The header of a new heap.
    pub(crate) fn compose(p: &CreateParams, g: &Geometry) -> [u64; WORDS] {
        let [s0, s1, s2, s3] = p.secret;
        let [b0, b1] = p.boot_id;
        let [l0, l1] = p.lock_id;
        let mut header = Self([
            MAGIC,
            u64::from(FORMAT_VERSION),
            Geometry::layout_hash(),
            g.size,
            u64::from(g.item_size_max),
            u64::from(g.contexts),
            g.created,
            s0,
            s1,
            s2,
            s3,
            l0,
            l1,
            u64::from(g.readable),
            0,
            b0,
            b1,
            1,
        ]);
        let checksum = header.checksum();
        if let Some(word) = header.0.get_mut(CHECKED) {
            *word = checksum;
        }
        header.0
    }
}
