//! What `plib run` puts into a program, and how the library finds it there: not for programs.
//!
//! The launch pages are at one address, never writable by the program, and found by asking the kernel what is mapped there:
//!
//! ```text
//! PLACE: | magic, ABI, key, vault, image, sealed, heaps, region | heap 0: device, inode, address, numbers, path | heap 1 | ..
//! ```
//! A forked child has them as its parent had; a program that is executed has nothing of it.

use crate::attach::probe;
use crate::error::Error;
use crate::image::{self, Image};
use crate::mapping::ALIGNMENT;
use crate::{lock_file, name, room, signals};
use plib_core::domain::{Access, Pkru, ProtectionKey};
use plib_core::gate::{ABI, Constants, Launched, SEATS, STACKS, STRIDE, Settings};
use plib_core::layout::{CreateParams, Geometry};
use std::ffi::{OsStr, OsString};
use std::fs::{File, Metadata};
use std::os::fd::AsFd;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::ptr::null;
use std::sync::OnceLock;

pub use crate::image::{LEN as IMAGE_LEN, Part, parts as image_parts};
pub use plib_core::domain::Protection;
pub use plib_core::gate::{HEAPS as HEAPS_MAX, VAULT_SIZE};

/// Where the launch pages are. Below the 2 GiB where sanitizers lay out their shadows, above where programs without
/// position independence are.
pub const PLACE: usize = 0x7ff0_0000;
const MAGIC: u64 = u64::from_le_bytes(*b"plib run");
const PAGE: usize = 4096;
/// Words at the start of each page; behind them a heap has its path.
const WORDS: usize = 16;
const PATH_MAX: usize = PAGE - 8 * WORDS;

/// A heap as the launcher knows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Heap {
    path: PathBuf,
    device: u64,
    inode: u64,
    geometry: Geometry,
    /// Bytes of a page of it: a huge-page file's are huge.
    page: usize,
}

/// A heap that is mapped in a program.
#[derive(Clone, Copy, Debug)]
pub struct Mapped<'h> {
    /// The heap.
    pub heap: &'h Heap,
    /// Where.
    pub base: usize,
}

/// The file of a heap in the directory that is built in.
pub fn path_by_default(name: &OsStr) -> PathBuf {
    Path::new(name::DEFAULT_DIR).join(name)
}

/// Bytes of the vault that carry the key here: all but the stacks where the kernel cannot write a signal's frame behind a key.
pub fn region() -> usize {
    if signals::kernel_allows_keyed_stacks() { VAULT_SIZE } else { STACKS }
}

/// Where in the vault pages must not be accessible, in bytes from its start.
pub fn guard_pages() -> impl Iterator<Item = usize> {
    (0..SEATS).map(|seat| STACKS + seat * STRIDE)
}

impl Heap {
    /// What an open file says of itself, once all of it is checked.
    pub fn describe(file: &File, path: &Path) -> Result<Self, Error> {
        let io = |doing| move |e| Error::io(doing, path, e);
        let metadata = file.metadata().map_err(io("look at"))?;
        let geometry = probe(file, &metadata, path)?;
        let page = room::huge_page(file.as_fd()).map_err(io("ask about the file system of"))?.unwrap_or(PAGE);
        if path.as_os_str().len() > PATH_MAX {
            return Err(Error::Name { name: path.display().to_string(), why: "its path is too long for `plib run`" });
        }
        Ok(Self { path: path.to_path_buf(), device: metadata.dev(), inode: metadata.ino(), geometry, page })
    }

    /// Its file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The file with its clients' locks.
    pub fn lock_path(&self) -> PathBuf {
        lock_file::path_of(&self.path)
    }

    /// The device of its file.
    pub fn device(&self) -> u64 {
        self.device
    }

    /// The inode of its file.
    pub fn inode(&self) -> u64 {
        self.inode
    }

    fn is(&self, there: &Metadata) -> bool {
        (self.device, self.inode) == (there.dev(), there.ino())
    }

    /// What its file is now; None if it has another path, or none.
    pub(crate) fn status(&self) -> Option<Metadata> {
        std::fs::metadata(&self.path).ok().filter(|there| self.is(there))
    }

    /// Its map.
    pub(crate) fn geometry(&self) -> &Geometry {
        &self.geometry
    }

    /// Bytes that it takes in memory: whole pages.
    pub fn mapped_len(&self) -> usize {
        (self.geometry.size as usize).next_multiple_of(self.page)
    }

    /// What its address must be a multiple of.
    pub fn alignment(&self) -> usize {
        self.page.max(ALIGNMENT)
    }

    fn words(&self, base: usize) -> [u64; WORDS] {
        let Geometry { size, item_size_max, contexts, created, lock_id: [l0, l1], readable, .. } = self.geometry;
        let (page, path) = (self.page as u64, self.path.as_os_str().len() as u64);
        let numbers = [size, item_size_max.into(), contexts.into(), created, l0, l1];
        let [n0, n1, n2, n3, n4, n5] = numbers;
        [self.device, self.inode, base as u64, page, n0, n1, n2, n3, n4, n5, path, readable.into(), 0, 0, 0, 0]
    }

    /// The heap that a page tells of, and where it is.
    fn of_page(page: &[u8]) -> Option<(Self, usize)> {
        let [device, inode, base, page_size, size, item_size_max, contexts, created, l0, l1, path, readable, ..] =
            words_of(page)?;
        let params = CreateParams {
            size,
            item_size_max: u32::try_from(item_size_max).ok()?,
            contexts: u32::try_from(contexts).ok()?,
            secret: [0; 4],
            boot_id: [0; 2],
            created,
            lock_id: [l0, l1],
            readable: readable != 0,
        };
        let geometry = Geometry::new(&params).ok()?;
        let path = page.get(8 * WORDS..)?.get(..path as usize)?;
        let path = PathBuf::from(OsString::from_vec(path.to_vec()));
        Some((Self { path, device, inode, geometry, page: page_size as usize }, base as usize))
    }
}

fn words_of(page: &[u8]) -> Option<[u64; WORDS]> {
    let (words, _) = page.as_chunks::<8>();
    let mut all = [0; WORDS];
    for (to, from) in all.iter_mut().zip(words) {
        *to = u64::from_le_bytes(*from);
    }
    (words.len() >= WORDS).then_some(all)
}

/// A page of words, and a path behind them.
fn page_of(words: [u64; WORDS], path: &OsStr) -> Vec<u8> {
    let mut page: Vec<u8> = words.iter().flat_map(|word| word.to_le_bytes()).collect();
    page.extend_from_slice(path.as_bytes());
    page.resize(PAGE, 0);
    page
}

/// The launch pages' bytes.
pub fn pages(key: u8, vault: u64, image: u64, sealed: bool, heaps: &[Mapped]) -> Vec<u8> {
    let mut words = [0; WORDS];
    let numbers = [MAGIC, ABI, key.into(), vault, image, sealed.into(), heaps.len() as u64, region() as u64];
    words[..8].copy_from_slice(&numbers);
    let head = page_of(words, OsStr::new(""));
    let rest = heaps.iter().map(|mapped| page_of(mapped.heap.words(mapped.base), mapped.heap.path.as_os_str()));
    std::iter::once(head).chain(rest).flatten().collect()
}

/// The image's bytes for a program that has these heaps, with nothing left to be written.
pub fn image_at(base: usize, key: u8, vault: usize, vdso: usize, heaps: &[Mapped]) -> Vec<u8> {
    let Some(key) = ProtectionKey::new(key) else { return Vec::new() };
    let mut launched = Launched::NONE;
    for mapped in heaps {
        // There are at most HEAPS_MAX of them.
        launched.add(mapped.base, mapped.heap.geometry.size as usize, mapped.heap.mapped_len());
    }
    let settings = Settings {
        mask: Pkru::mask(key),
        closed: Pkru(0).with(key, Access::Closed).0,
        vault,
        region: region(),
        vdso,
        stub: base + image::on_signal(),
        launched,
    };
    image::bytes_at(base, &Constants::new(settings))
}

/// What is at the place of the launch pages.
#[derive(Debug)]
enum Found {
    Nothing,
    /// Pages of a launcher whose build is not ours.
    Other,
    Launch(Launch),
}

/// What this process was started with.
#[derive(Debug)]
pub(crate) struct Launch {
    pub key: ProtectionKey,
    pub vault: usize,
    /// Bytes of it that carry the key.
    pub region: usize,
    pub image: Image,
    /// The heaps, and where they are.
    pub heaps: Vec<(Heap, usize)>,
}

/// What `plib run` put into this process, if it did.
pub(crate) fn here() -> Option<&'static Launch> {
    match found() {
        Found::Launch(launch) => Some(launch),
        Found::Nothing | Found::Other => None,
    }
}

/// Whether this process was started with heaps, but by a `plib run` that is not of our build.
pub(crate) fn is_of_another_build() -> bool {
    matches!(found(), Found::Other)
}

fn found() -> &'static Found {
    static FOUND: OnceLock<Found> = OnceLock::new();
    FOUND.get_or_init(|| readable_pages().map_or(Found::Nothing, Found::of_pages))
}

impl Found {
    fn of_pages(pages: &[u8]) -> Self {
        match words_of(pages) {
            Some([MAGIC, ABI, ..]) => Launch::of_pages(pages).map_or(Self::Other, Self::Launch),
            Some([MAGIC, ..]) => Self::Other,
            _ => Self::Nothing,
        }
    }
}

impl Launch {
    fn of_pages(pages: &[u8]) -> Option<Self> {
        let (head, rest) = pages.split_at_checked(PAGE)?;
        let [_, _, key, vault, image, _, heaps, region, ..] = words_of(head)?;
        let heaps =
            rest.get(..PAGE.checked_mul(heaps as usize)?)?.chunks(PAGE).map(Heap::of_page).collect::<Option<_>>()?;
        // SAFETY: the launcher mapped it there, for good, with its constants; its build is one with ours, as ABI said.
        let image = unsafe { Image::at(image as usize) };
        Some(Self {
            key: ProtectionKey::new(u8::try_from(key).ok()?)?,
            vault: vault as usize,
            region: region as usize,
            image,
            heaps,
        })
    }

    /// The heap at this path, and where it is mapped.
    pub fn find(&self, path: &Path) -> Option<(&Heap, usize)> {
        let absolute = std::path::absolute(path).ok()?;
        let by_path = self.heaps.iter().find(|(heap, _)| heap.path == absolute);
        let found = by_path.or_else(|| {
            let there = std::fs::metadata(&absolute).ok()?;
            self.heaps.iter().find(|(heap, _)| heap.is(&there))
        });
        found.map(|(heap, base)| (heap, *base))
    }
}

/// The pages that can be read at the place of the launch pages, if the program itself cannot write them.
fn readable_pages() -> Option<&'static [u8]> {
    let count = (0..=HEAPS_MAX).take_while(|page| is_readable(PLACE + page * PAGE)).count();
    // SAFETY: readable, as the kernel says, and nothing that the program writes or has a file behind it: the launcher's, which stay.
    (count > 0 && is_read_only()).then(|| unsafe { std::slice::from_raw_parts(PLACE as *const u8, count * PAGE) })
}

/// Whether what is there is private memory that can only be read. A program that was not launched may have anything there. Where there is no
/// /proc to ask, the pages' own word counts.
fn is_read_only() -> bool {
    let Ok(maps) = std::fs::read_to_string("/proc/self/maps") else { return true };
    let there = |line: &&str| {
        let (start, end) = line.split(' ').next().and_then(|range| range.split_once('-')).unwrap_or_default();
        let number = |text| usize::from_str_radix(text, 16).unwrap_or(0);
        (number(start)..number(end)).contains(&PLACE)
    };
    maps.lines().find(there).is_some_and(|line| line.split(' ').nth(1) == Some("r--p"))
}

/// Whether a page can be read, without trying.
fn is_readable(page: usize) -> bool {
    // A signal set is read, and then refused, since no way to use it was named.
    const NO_WAY: libc::c_int = -1;
    // SAFETY: the kernel reads the set and changes nothing.
    let result = unsafe { libc::syscall(libc::SYS_rt_sigprocmask, NO_WAY, page, null::<u64>(), size_of::<u64>()) };
    result == -1 && std::io::Error::last_os_error().raw_os_error() == Some(libc::EINVAL)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pages_tell_what_was_put_into_them() {
        let params = CreateParams {
            size: 64 << 20,
            item_size_max: 1 << 20,
            contexts: 24,
            secret: [0; 4],
            boot_id: [0; 2],
            created: 1_700_000_000,
            lock_id: [3, 4],
            readable: true,
        };
        let geometry = Geometry::new(&params).expect("a geometry");
        let heap = |path: &str| Heap { path: path.into(), device: 7, inode: 8, geometry, page: PAGE };
        let (a, b) = (heap("/dev/shm/plib/a"), heap("/b"));
        let pages = pages(
            5,
            0x1000,
            0x2000,
            true,
            &[Mapped { heap: &a, base: 0x20_0000 }, Mapped { heap: &b, base: 0x40_0000 }],
        );
        assert_eq!(pages.len(), 3 * PAGE);
        let launch = Launch::of_pages(&pages).expect("pages");
        assert_eq!((launch.key.number(), launch.vault), (5, 0x1000));
        assert_eq!(launch.heaps, [(a, 0x20_0000), (b, 0x40_0000)]);
        assert_eq!(launch.find(Path::new("/b")).map(|(_, base)| base), Some(0x40_0000));
        assert!(launch.find(Path::new("/c")).is_none());
        assert!(matches!(Found::of_pages(&pages), Found::Launch(_)));
        // More may be readable behind them, but not less; other builds are known by their first words.
        assert!(matches!(Found::of_pages(&[pages.clone(), vec![1; PAGE]].concat()), Found::Launch(_)));
        assert!(matches!(Found::of_pages(&pages[..2 * PAGE]), Found::Other));
        for (word, outcome) in [(0, "Nothing"), (1, "Other")] {
            let mut other = pages.clone();
            other[8 * word] ^= 1;
            assert_eq!(format!("{:?}", Found::of_pages(&other)), outcome);
        }
    }

    #[test]
    fn what_is_not_there_is_not_read() {
        assert!(here().is_none() && !is_readable(PLACE) && !is_readable(0));
        let word = 5u64;
        assert!(is_readable((&raw const word) as usize));
        // SAFETY: a mapping of ours that nobody may read.
        unsafe {
            let closed =
                libc::mmap(std::ptr::null_mut(), PAGE, libc::PROT_NONE, libc::MAP_PRIVATE | libc::MAP_ANONYMOUS, -1, 0);
            assert!(!is_readable(closed as usize));
            libc::munmap(closed, PAGE);
        }
    }
}
