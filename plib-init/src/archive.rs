//! The format of `plib dump`: items one after the other, every byte under a checksum.
//!
//! ```text
//! start (32 bytes)                        record (24 bytes + key + value + 4)     end (28 bytes)
//! 0  magic "PLIBDUMP"                     0  "ITEM"                               0  "DONE"
//! 8  version u32 = 1                      4  flags u32                            4  records u64
//! 12 item_size_max of the heap u32        8  expiry u32 (Unix time, 0 never)      12 bytes of all keys u64 and values
//! 16 written at u64 (Unix time)           12 key length u32                       20 reserved u32 = 0
//! 24 reserved u32 = 0                     16 value length u32                     24 CRC-32 of bytes 0..24
//! 28 CRC-32 of bytes 0..28                20 CRC-32 of bytes 0..20
//!                                         24 key, value
//!                                         .. CRC-32 of key and value
//! ```
//!
//! Numbers are little-endian. The lengths have a checksum of their own, so that a damaged length is known before memory
//! is taken for it. A dump without its end is truncated, however well the rest reads. cas values are not kept: they are
//! unique to a heap's life, and a loaded item gets a new one.

use std::io::{self, Read, Write};

const MAGIC: &[u8; 8] = b"PLIBDUMP";
const VERSION: u32 = 1;
const ITEM: &[u8; 4] = b"ITEM";
const DONE: &[u8; 4] = b"DONE";
const START_LEN: usize = 32;
const HEAD_LEN: usize = 24;
const END_LEN: usize = 28;
/// More than any key or value of any heap; a checked limit before memory is taken.
const KEY_LIMIT: u32 = 250;
const VALUE_LIMIT: u32 = 128 << 20;

/// Why a dump cannot be read further. Offsets are bytes from the start of the dump.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ArchiveError {
    #[error("not a plib dump: it starts with '{}'", crate::bytes::escape(.found))]
    NotADump { found: Vec<u8> },
    #[error("a dump of version {found}, this plib reads version {VERSION}")]
    Version { found: u32 },
    #[error("truncated: the {part} at byte {offset} needs {needed} bytes, {found} are there")]
    Truncated { part: &'static str, offset: u64, needed: usize, found: usize },
    #[error("damaged: the {part} at byte {offset} has the checksum {found:#010x}, its bytes give {computed:#010x}")]
    Checksum { part: &'static str, offset: u64, found: u32, computed: u32 },
    #[error("damaged: byte {offset} should start a record or the end, it is '{}'", crate::bytes::escape(.found))]
    Tag { offset: u64, found: [u8; 4] },
    #[error("damaged: the record at byte {offset} has a {field} of {found} bytes, the limit is {limit}")]
    Length { offset: u64, field: &'static str, found: u32, limit: u32 },
    #[error("damaged: the end at byte {offset} counts {promised} {what}, {read} were read")]
    Count { offset: u64, what: &'static str, promised: u64, read: u64 },
    #[error("damaged: more bytes follow the end at byte {offset}")]
    Trailing { offset: u64 },
    #[error("cannot read at byte {offset}: {source}")]
    Read { offset: u64, source: io::Error },
}

impl ArchiveError {
    /// The name for `--json`.
    pub(crate) fn status(&self) -> &'static str {
        match self {
            Self::NotADump { .. } => "NOT_A_DUMP",
            Self::Version { .. } => "DUMP_VERSION",
            Self::Truncated { .. } => "DUMP_TRUNCATED",
            Self::Read { .. } => "IO",
            _ => "DUMP_DAMAGED",
        }
    }
}

/// One item as a dump keeps it.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Record {
    pub(crate) key: Vec<u8>,
    pub(crate) value: Vec<u8>,
    pub(crate) flags: u32,
    pub(crate) expiry: u32,
}

/// Records and bytes so far.
#[derive(Clone, Copy, Default, PartialEq, Eq, Debug)]
pub(crate) struct Totals {
    pub(crate) items: u64,
    pub(crate) bytes: u64,
}

impl Totals {
    fn count(&mut self, key: &[u8], value: &[u8]) {
        self.items += 1;
        self.bytes += (key.len() + value.len()) as u64;
    }
}

/// Fields put one after the other, then their checksum.
struct Fields(Vec<u8>);

impl Fields {
    fn new(tag: &[u8]) -> Self {
        Self(tag.to_vec())
    }

    fn u32(mut self, n: u32) -> Self {
        self.0.extend(n.to_le_bytes());
        self
    }

    fn u64(mut self, n: u64) -> Self {
        self.0.extend(n.to_le_bytes());
        self
    }

    fn sealed(self) -> Vec<u8> {
        let checksum = crc32fast::hash(&self.0);
        self.u32(checksum).0
    }
}

/// Writes a dump.
pub(crate) struct Writer<W> {
    to: W,
    totals: Totals,
}

impl<W: Write> Writer<W> {
    pub(crate) fn start(mut to: W, item_size_max: u32, written_at: u64) -> io::Result<Self> {
        to.write_all(&Fields::new(MAGIC).u32(VERSION).u32(item_size_max).u64(written_at).u32(0).sealed())?;
        Ok(Self { to, totals: Totals::default() })
    }

    /// Adds one item; its key and value are within the limits of every heap.
    pub(crate) fn item(&mut self, key: &[u8], value: &[u8], flags: u32, expiry: u32) -> io::Result<()> {
        let head = Fields::new(ITEM).u32(flags).u32(expiry).u32(key.len() as u32).u32(value.len() as u32);
        self.to.write_all(&head.sealed())?;
        self.to.write_all(key)?;
        self.to.write_all(value)?;
        let mut checksum = crc32fast::Hasher::new();
        checksum.update(key);
        checksum.update(value);
        self.to.write_all(&checksum.finalize().to_le_bytes())?;
        self.totals.count(key, value);
        Ok(())
    }

    /// Writes the end, without which the dump counts as truncated.
    pub(crate) fn finish(mut self) -> io::Result<(W, Totals)> {
        let end = Fields::new(DONE).u64(self.totals.items).u64(self.totals.bytes).u32(0);
        self.to.write_all(&end.sealed())?;
        self.to.flush()?;
        Ok((self.to, self.totals))
    }
}

/// Reads a dump and checks every byte of it.
pub(crate) struct Reader<R> {
    from: R,
    offset: u64,
    totals: Totals,
}

impl<R: Read> Reader<R> {
    pub(crate) fn start(from: R) -> Result<Self, ArchiveError> {
        let mut reader = Self { from, offset: 0, totals: Totals::default() };
        let mut start = [0; START_LEN];
        let found = reader.fill(&mut start)?;
        let magic = &start[..found.min(MAGIC.len())];
        if !MAGIC.starts_with(magic) || magic.is_empty() {
            return Err(ArchiveError::NotADump { found: magic.to_vec() });
        }
        reader.whole("start", found, START_LEN)?;
        reader.sealed("start", &start)?;
        match u32_at(&start, 8) {
            VERSION => {}
            found => return Err(ArchiveError::Version { found }),
        }
        reader.offset += START_LEN as u64;
        Ok(reader)
    }

    /// Bytes read and found good.
    pub(crate) fn offset(&self) -> u64 {
        self.offset
    }

    /// The next item, or none after the end.
    pub(crate) fn next_record(&mut self) -> Result<Option<Record>, ArchiveError> {
        let mut tag = [0; 4];
        let found = self.fill(&mut tag)?;
        self.whole("next record or end", found, tag.len())?;
        match &tag {
            ITEM => self.item().map(Some),
            DONE => self.end().map(|()| None),
            _ => Err(ArchiveError::Tag { offset: self.offset, found: tag }),
        }
    }

    fn item(&mut self) -> Result<Record, ArchiveError> {
        let mut head = [0; HEAD_LEN];
        head[..4].copy_from_slice(ITEM);
        let found = 4 + self.fill(&mut head[4..])?;
        self.whole("record", found, HEAD_LEN)?;
        self.sealed("record", &head)?;
        let key_len = self.limited("key", u32_at(&head, 12), KEY_LIMIT)?;
        let value_len = self.limited("value", u32_at(&head, 16), VALUE_LIMIT)?;
        let mut body = vec![0; key_len + value_len + 4];
        let found = self.fill(&mut body)?;
        self.whole("record", HEAD_LEN + found, HEAD_LEN + body.len())?;
        self.sealed("record", &body)?;
        let (flags, expiry) = (u32_at(&head, 4), u32_at(&head, 8));
        self.offset += (HEAD_LEN + body.len()) as u64;
        body.truncate(key_len + value_len);
        let value = body.split_off(key_len);
        self.totals.count(&body, &value);
        Ok(Record { key: body, value, flags, expiry })
    }

    fn end(&mut self) -> Result<(), ArchiveError> {
        let mut end = [0; END_LEN];
        end[..4].copy_from_slice(DONE);
        let found = 4 + self.fill(&mut end[4..])?;
        self.whole("end", found, END_LEN)?;
        self.sealed("end", &end)?;
        self.counted("items", u64_at(&end, 4), self.totals.items)?;
        self.counted("bytes", u64_at(&end, 12), self.totals.bytes)?;
        if self.fill(&mut [0])? != 0 {
            return Err(ArchiveError::Trailing { offset: self.offset });
        }
        self.offset += END_LEN as u64;
        Ok(())
    }

    /// Reads until the buffer is full or the dump ends.
    fn fill(&mut self, buffer: &mut [u8]) -> Result<usize, ArchiveError> {
        let mut filled = 0;
        while filled < buffer.len() {
            match self.from.read(&mut buffer[filled..]) {
                Ok(0) => break,
                Ok(n) => filled += n,
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(source) => return Err(ArchiveError::Read { offset: self.offset, source }),
            }
        }
        Ok(filled)
    }

    fn whole(&self, part: &'static str, found: usize, needed: usize) -> Result<(), ArchiveError> {
        if found == needed { Ok(()) } else { Err(ArchiveError::Truncated { part, offset: self.offset, needed, found }) }
    }

    /// The last four bytes must be the checksum of those before.
    fn sealed(&self, part: &'static str, bytes: &[u8]) -> Result<(), ArchiveError> {
        let (content, _) = bytes.split_at(bytes.len() - 4);
        let (found, computed) = (u32_at(bytes, content.len()), crc32fast::hash(content));
        if found == computed {
            Ok(())
        } else {
            Err(ArchiveError::Checksum { part, offset: self.offset, found, computed })
        }
    }

    fn limited(&self, field: &'static str, found: u32, limit: u32) -> Result<usize, ArchiveError> {
        if found <= limit {
            Ok(found as usize)
        } else {
            Err(ArchiveError::Length { offset: self.offset, field, found, limit })
        }
    }

    fn counted(&self, what: &'static str, promised: u64, read: u64) -> Result<(), ArchiveError> {
        if promised == read { Ok(()) } else { Err(ArchiveError::Count { offset: self.offset, what, promised, read }) }
    }
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    let mut word = [0; 4];
    word.copy_from_slice(&bytes[at..at + 4]);
    u32::from_le_bytes(word)
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from(u32_at(bytes, at)) | u64::from(u32_at(bytes, at + 4)) << 32
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample() -> (Vec<u8>, Vec<Record>) {
        let record = |key: &[u8], value: &[u8], flags, expiry| Record {
            key: key.to_vec(),
            value: value.to_vec(),
            flags,
            expiry,
        };
        let records = vec![
            record(b"a", b"", 0, 0),
            record(&[0xff; 250], &[7; 300], u32::MAX, 1),
            record(b"c\0", b"ITEMDONE", 3, u32::MAX),
        ];
        let mut writer = Writer::start(Vec::new(), 1 << 20, 1234).unwrap();
        records.iter().for_each(|r| writer.item(&r.key, &r.value, r.flags, r.expiry).unwrap());
        let (dump, totals) = writer.finish().unwrap();
        assert_eq!(totals, Totals { items: 3, bytes: 1 + 550 + 10 });
        (dump, records)
    }

    fn read_all(dump: &[u8]) -> (Vec<Record>, Result<(), ArchiveError>) {
        let mut records = Vec::new();
        let mut reader = match Reader::start(dump) {
            Ok(reader) => reader,
            Err(e) => return (records, Err(e)),
        };
        loop {
            match reader.next_record() {
                Ok(Some(record)) => records.push(record),
                Ok(None) => return (records, Ok(())),
                Err(e) => return (records, Err(e)),
            }
        }
    }

    #[test]
    fn what_is_written_is_read() {
        let (dump, records) = sample();
        let (read, end) = read_all(&dump);
        end.unwrap();
        assert_eq!(read, records);
    }

    #[test]
    fn every_truncation_is_named_and_keeps_the_whole_records_before_it() {
        let (dump, records) = sample();
        for len in 0..dump.len() {
            let (read, end) = read_all(&dump[..len]);
            let error = end.expect_err("a truncated dump was taken as whole");
            let named = matches!(error, ArchiveError::Truncated { .. })
                || (len == 0 && matches!(error, ArchiveError::NotADump { .. }));
            assert!(named, "{len} bytes: {error}");
            assert_eq!(read, records[..read.len()]);
        }
    }

    #[test]
    fn every_flipped_bit_is_found() {
        let (dump, records) = sample();
        for bit in 0..dump.len() * 8 {
            let mut damaged = dump.clone();
            damaged[bit / 8] ^= 1 << (bit % 8);
            let (read, end) = read_all(&damaged);
            end.expect_err("a damaged dump was taken as whole");
            assert_eq!(read, records[..read.len()], "bit {bit}");
        }
    }

    #[test]
    fn bytes_after_the_end_and_other_versions_are_refused() {
        let (mut dump, _) = sample();
        dump.push(0);
        assert!(matches!(read_all(&dump).1, Err(ArchiveError::Trailing { .. })));
        let newer = Fields::new(MAGIC).u32(2).u32(0).u64(0).u32(0).sealed();
        assert!(matches!(read_all(&newer).1, Err(ArchiveError::Version { found: 2 })));
    }
}
