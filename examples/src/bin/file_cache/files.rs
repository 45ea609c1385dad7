//! The files of some folders, and the keys that they are cached under.

use std::{
    fs::{self, File},
    io::{self, Read},
    os::unix::ffi::OsStrExt,
    path::{Path, PathBuf},
    time::{SystemTime, UNIX_EPOCH},
};

use crate::failure::{Failure, Result};

/// The longest key that plib takes.
const KEY_MAX: usize = 250;

/// A regular file.
pub struct CachedFile {
    pub path: PathBuf,
    pub key: Vec<u8>,
    /// Bytes it had when it was found.
    pub len: u64,
}

/// All files, in one order that is the same in every process.
pub struct Files {
    pub all: Vec<CachedFile>,
    /// Files whose path is too long for a key and is hashed.
    pub hashed: u64,
    /// Folders and files that could not be looked at.
    pub unreadable: u64,
}

impl Files {
    /// Walks the folders; symbolic links are not followed.
    pub fn find(folders: &[PathBuf]) -> Result<Self> {
        let mut files = Self { all: Vec::new(), hashed: 0, unreadable: 0 };
        for folder in folders {
            let folder = folder.canonicalize().map_err(Failure::during(folder.display()))?;
            files.walk(folder);
        }
        files.all.sort_by(|a, b| a.path.cmp(&b.path));
        files.all.dedup_by(|a, b| a.path == b.path);
        if files.all.is_empty() {
            return Err(Failure::new("these folders have no regular files that can be read"));
        }
        files.shuffle();
        Ok(files)
    }

    fn walk(&mut self, folder: PathBuf) {
        let mut folders = vec![folder];
        while let Some(folder) = folders.pop() {
            let Ok(entries) = fs::read_dir(&folder) else {
                self.unreadable += 1;
                continue;
            };
            for entry in entries.flatten() {
                match entry.metadata() {
                    Ok(metadata) if metadata.is_dir() => folders.push(entry.path()),
                    Ok(metadata) if metadata.is_file() => self.add(entry.path(), metadata.len()),
                    Ok(_) => {}
                    Err(_) => self.unreadable += 1,
                }
            }
        }
    }

    fn add(&mut self, path: PathBuf, len: u64) {
        let key = key_of(&path);
        self.hashed += u64::from(key.len() != path.as_os_str().len());
        self.all.push(CachedFile { path, key, len });
    }

    /// The same shuffle in every process, so that all agree on which files are asked for often.
    fn shuffle(&mut self) {
        let mut random = Random::new(1);
        for at in (1..self.all.len()).rev() {
            self.all.swap(at, random.below(at as u64 + 1) as usize);
        }
    }

    /// Bytes of all files.
    pub fn bytes(&self) -> u64 {
        self.all.iter().map(|file| file.len).sum()
    }

    /// Bytes of the largest file.
    pub fn largest(&self) -> u64 {
        self.all.iter().map(|file| file.len).max().unwrap_or(0)
    }
}

/// The path itself, or a hash of it and its end where it is too long.
fn key_of(path: &Path) -> Vec<u8> {
    let bytes = path.as_os_str().as_bytes();
    if bytes.len() <= KEY_MAX {
        return bytes.to_vec();
    }
    let mut key = format!("{:016x}...", fnv(bytes)).into_bytes();
    key.extend_from_slice(&bytes[bytes.len() - 200..]);
    key
}

fn fnv(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, &byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3))
}

/// Reads a file into a buffer that is kept.
pub fn read_into(path: &Path, content: &mut Vec<u8>) -> io::Result<()> {
    content.clear();
    File::open(path)?.read_to_end(content)?;
    Ok(())
}

/// Whether a file changed since a moment (or is gone): then the disk is no witness against the cache.
pub fn changed_since(path: &Path, unix_seconds: u64) -> bool {
    let modified = fs::metadata(path).and_then(|metadata| metadata.modified());
    let since = |time: SystemTime| time.duration_since(UNIX_EPOCH).map_or(0, |it| it.as_secs());
    modified.map_or(true, |time| since(time) >= unix_seconds)
}

/// A small random number generator (xorshift64*), seeded so that runs can be repeated.
pub struct Random(u64);

impl Random {
    pub fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    /// A number below `limit`, all alike.
    pub fn below(&mut self, limit: u64) -> u64 {
        ((u128::from(self.next()) * u128::from(limit)) >> 64) as u64
    }

    /// A number below `limit`, the first `k` of them with a probability that grows as log(k): Zipf's law, as real
    /// requests follow it.
    pub fn skewed(&mut self, limit: u64) -> u64 {
        let unit = (self.next() >> 11) as f64 / (1u64 << 53) as f64;
        let rank = ((limit as f64 + 1.0).ln() * unit).exp() - 1.0;
        (rank as u64).min(limit - 1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_paths_get_keys_of_their_own_that_fit() {
        let path = |end: &str| PathBuf::from(format!("/{}{end}", "x".repeat(300)));
        let (a, b) = (key_of(&path("a")), key_of(&path("b")));
        assert!(a.len() <= KEY_MAX && a != b);
        // The end alone does not tell two paths apart.
        assert_ne!(
            key_of(Path::new(&format!("/1{}", "x".repeat(300)))),
            key_of(Path::new(&format!("/2{}", "x".repeat(300))))
        );
        assert_eq!(key_of(Path::new("/short")), b"/short");
    }

    #[test]
    fn skewed_numbers_stay_below_the_limit_and_prefer_the_first() {
        let mut random = Random::new(7);
        let drawn: Vec<u64> = (0..10_000).map(|_| random.skewed(1000)).collect();
        assert!(drawn.iter().all(|&it| it < 1000));
        let first_tenth = drawn.iter().filter(|&&it| it < 100).count();
        assert!((5500..7500).contains(&first_tenth), "log(101) / log(1001) is two thirds: {first_tenth}");
    }
}
