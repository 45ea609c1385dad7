//! The bytes of a heap file, to begin each try from the same state.

use memmap2::{Advice, MmapMut};
use std::fs::File;
use std::io;
use std::path::Path;

/// A heap file as it was, and a mapping to bring that back.
pub struct Image {
    map: MmapMut,
    was: MmapMut,
    last: MmapMut,
}

const PAGE: usize = 4096;

impl Image {
    /// Takes the state of a heap that nobody works on.
    pub fn take(path: &Path) -> io::Result<Self> {
        let file = File::options().read(true).write(true).open(path)?;
        // SAFETY: others have the file mapped too; while this mapping is read or written, none of them runs.
        let map = unsafe { MmapMut::map_mut(&file)? };
        let [mut was, last] = [private(map.len())?, private(map.len())?];
        was.copy_from_slice(&map);
        Ok(Self { map, was, last })
    }

    /// Puts it back, page by page where it differs; the number of pages.
    pub fn restore(&mut self) -> usize {
        let pages = self.map.chunks_mut(PAGE).zip(self.was.chunks(PAGE));
        pages.filter_map(|(now, was)| (*now != *was).then(|| now.copy_from_slice(was))).count()
    }

    /// Whether the heap differs from what it was at the last call.
    pub fn changed(&mut self) -> bool {
        let pages = self.map.chunks(PAGE).zip(self.last.chunks_mut(PAGE));
        pages.filter_map(|(now, last)| (*now != *last).then(|| last.copy_from_slice(now))).count() > 0
    }
}

/// Memory that a child has no use for: it is forked the quicker without it.
fn private(len: usize) -> io::Result<MmapMut> {
    let memory = MmapMut::map_anon(len)?;
    memory.advise(Advice::DontFork)?;
    Ok(memory)
}
