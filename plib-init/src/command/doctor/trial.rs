//! A small heap, made and used where heaps would be made: the proof that it works, and which pages it gets.

use std::fs;
use std::path::Path;

use plib::{Cache, CreateOptions, Error};

use super::Check;

const SHMEM_HUGE: &str = "/sys/kernel/mm/transparent_hugepage/shmem_enabled";
const SIZE: u64 = 8 << 20;

/// Tries it in the directory of heaps, or where that will be made.
pub(super) fn checks(place: &Path) -> Vec<Check> {
    let path = place.join(format!("plib-doctor-{}", std::process::id()));
    let tried = try_heap(&path);
    // Whatever was left of it; nothing, if it could not be made.
    let _ = Cache::destroy(&path);
    match tried {
        Ok(pages) => vec![Check::ok("trial heap", "made, used and removed"), huge_pages(&pages)],
        Err(e) => vec![Check::problem("trial heap", e.to_string(), "this is what `plib create` would meet")],
    }
}

fn try_heap(path: &Path) -> Result<String, Error> {
    let cache = Cache::create(path, &CreateOptions::new(SIZE).huge(true))?;
    cache.set(b"doctor", b"well", 0, 0)?;
    match cache.get(b"doctor")? {
        Some(item) if item.value == b"well" => Ok(cache.info().pages),
        _ => Err(Error::NotFound),
    }
}

fn huge_pages(pages: &str) -> Check {
    let what = "huge pages";
    if !pages.starts_with("4 KiB") {
        return Check::ok(what, format!("`plib create --huge` gets {pages}"));
    }
    let setting = fs::read_to_string(SHMEM_HUGE).unwrap_or_default();
    let setting = chosen(&setting);
    let found = format!("`plib create --huge` gets 4 KiB pages; shmem_enabled is '{setting}'");
    match setting {
        "advise" | "always" | "within_size" | "force" => {
            Check::note(what, found, "memory may be in pieces; heaps work, and large ones are faster after")
                .fix("echo 1 | sudo tee /proc/sys/vm/compact_memory")
        }
        _ => Check::note(what, found, "heaps work, and large ones in tmpfs are faster after (Linux 6.1 or newer)")
            .fix(format!("echo advise | sudo tee {SHMEM_HUGE}")),
    }
}

/// The chosen word of a line as `always [never] force`.
fn chosen(line: &str) -> &str {
    line.split_once('[').and_then(|(_, rest)| rest.split_once(']')).map_or("unknown", |(word, _)| word)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_setting_is_in_brackets() {
        assert_eq!(chosen("always within_size advise [never] deny force\n"), "never");
        assert_eq!(chosen(""), "unknown");
    }

    #[test]
    fn a_trial_leaves_nothing_behind() {
        let dir = tempfile::tempdir().unwrap();
        let found = checks(dir.path());
        assert_eq!(found[0].level, super::super::Level::Ok, "{found:?}");
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
        let missing = checks(&dir.path().join("missing"));
        assert_eq!(missing[0].level, super::super::Level::Problem, "{missing:?}");
    }
}
