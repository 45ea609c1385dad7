//! Huge pages: asking for them, and saying what was got.

use crate::mapping::Mapping;

/// linux/mman.h, since 6.1.
const MADV_COLLAPSE: libc::c_int = 25;
const HUGE_PAGE_KB: u64 = 2048;

/// Asks for 2 MiB pages under a new heap. What was got is what [`describe`] says: the kernel may have fewer to give.
pub(crate) fn ask(mapping: &Mapping) {
    // Refusals are no errors: the heap works with any pages.
    let _ = mapping.advise(libc::MADV_HUGEPAGE);
    let _ = mapping.advise(MADV_COLLAPSE);
}

/// Kilobytes of a mapping, of proc(5) smaps.
#[derive(Default, Debug, PartialEq, Eq)]
struct Counts {
    page: u64,
    present: u64,
    huge: u64,
}

/// What pages this process has under the mapping of `len` bytes at `base`.
pub(crate) fn describe(base: usize, len: usize) -> String {
    let smaps = std::fs::read_to_string("/proc/self/smaps").unwrap_or_default();
    words(&count(&smaps, base, len))
}

fn words(counts: &Counts) -> String {
    if counts.page >= HUGE_PAGE_KB {
        return format!("{} MiB (100 % of the heap)", counts.page / 1024);
    }
    if counts.huge == 0 {
        return "4 KiB".into();
    }
    // Only pages that this process has touched are known to it.
    format!("2 MiB ({} % of the heap)", counts.huge * 100 / counts.present.max(1))
}

/// The sums of all parts of a mapping: where keys differ, so do entries of smaps.
fn count(smaps: &str, base: usize, len: usize) -> Counts {
    let mut counts = Counts::default();
    let mut within = false;
    for line in smaps.lines() {
        // A part's first line starts with addresses and blanks, a count with its name and a colon.
        let Some((name, rest)) = line.split_once(':').filter(|(name, _)| !name.contains(' ')) else {
            let start = line.split_once('-').and_then(|(start, _)| usize::from_str_radix(start, 16).ok());
            within = start.is_some_and(|start| start >= base && start - base < len);
            continue;
        };
        if !within {
            continue;
        }
        let kb = rest.split_ascii_whitespace().next().and_then(|number| number.parse::<u64>().ok()).unwrap_or(0);
        match name {
            "KernelPageSize" => counts.page = kb,
            "Rss" => counts.present += kb,
            "ShmemPmdMapped" | "FilePmdMapped" => counts.huge += kb,
            _ => {}
        }
    }
    counts
}

#[cfg(test)]
mod tests {
    use super::*;

    const SMAPS: &str = "7f0000200000-7f0001200000 rw-s 00000000 00:19 3 /dev/shm/plib/a\nSize: 16384 kB\n\
        KernelPageSize:        4 kB\nRss:       8192 kB\nShmemPmdMapped:     4096 kB\nFilePmdMapped: 0 kB\nVmFlags: rd wr\n\
        7f0002200000-7f0003200000 rw-s 00000000 00:1b 3 /dev/shm/plib/b\nRss: 1 kB\nShmemPmdMapped: 99 kB\n\
        7f0003200000-7f0003201000 rw-s 01000000 00:1b 3 /dev/shm/plib/b\nRss: 2 kB\nShmemPmdMapped: 0 kB\n";

    #[test]
    fn smaps_are_understood() {
        assert_eq!(count(SMAPS, 0x7f00_0020_0000, 16 << 20), Counts { page: 4, present: 8192, huge: 4096 });
        assert_eq!(words(&count(SMAPS, 0x7f00_0020_0000, 16 << 20)), "2 MiB (50 % of the heap)");
        let parts = count(SMAPS, 0x7f00_0220_0000, (16 << 20) + 4096);
        assert_eq!((parts.present, parts.huge), (3, 99));
        assert_eq!(words(&count(SMAPS, 0x1000, 4096)), "4 KiB");
        assert_eq!(words(&Counts { page: 2048, present: 1, huge: 0 }), "2 MiB (100 % of the heap)");
    }
}
