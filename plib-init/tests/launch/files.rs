//! Which files a launch accepts as heaps.

use plib_init::run::heap_file::HeapFile;
use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown, symlink};
use std::path::{Path, PathBuf};
use tempfile::TempDir;

/// A directory of root's with a file `h` as a heap's must be.
fn place() -> (TempDir, PathBuf) {
    let place = TempDir::with_prefix("plib-launch-").expect("a directory");
    mode(place.path(), 0o755);
    let heap = place.path().join("h");
    fs::write(&heap, "a heap").expect("write");
    mode(&heap, 0o600);
    (place, heap)
}

fn mode(path: &Path, mode: u32) {
    fs::set_permissions(path, PermissionsExt::from_mode(mode)).expect("chmod");
}

pub fn a_heap_of_roots_alone_is_accepted() {
    let (place, heap) = place();
    for directory in [0o755, 0o700, 0o1777] {
        mode(place.path(), directory);
        let opened = HeapFile::open(&heap).expect("as it should be");
        assert_eq!((opened.inode, opened.device), (heap.metadata().unwrap().ino(), heap.metadata().unwrap().dev()));
    }
    eprintln!("files: accepted in 3 kinds of directories");
}

pub fn what_others_can_tamper_with_is_refused() {
    type Spoil = fn(&Path, &Path);
    let spoilt: [(&str, &str, Spoil); 13] = [
        ("is not there", "plib create", |_, heap| fs::remove_file(heap).unwrap()),
        ("is not there", "plib create", |dir, _| fs::remove_dir_all(dir).unwrap()),
        ("belongs to user 65534", "create it as root", |_, heap| chown(heap, Some(65534), None).unwrap()),
        ("mode 0660", "directly, without `plib run`", |_, heap| mode(heap, 0o660)),
        ("mode 0604", "chmod 0600", |_, heap| mode(heap, 0o604)),
        ("mode 0400, not 0600", "chmod 0600", |_, heap| mode(heap, 0o400)),
        ("mode 4600, not 0600", "chmod 0600", |_, heap| mode(heap, 0o4600)),
        ("has 2 names", "-samefile", |dir, heap| fs::hard_link(heap, dir.join("other")).unwrap()),
        ("is a symbolic link", "own path", |dir, heap| {
            fs::rename(heap, dir.join("other")).unwrap();
            symlink(dir.join("other"), heap).unwrap();
        }),
        ("is not a regular file", "the name of a heap", |_, heap| {
            fs::remove_file(heap).unwrap();
            assert!(std::process::Command::new("mkfifo").args([Path::new("-m600"), heap]).status().unwrap().success());
        }),
        ("others can exchange", "chmod 0755", |dir, _| mode(dir, 0o777)),
        ("others can exchange", "sticky", |dir, _| mode(dir, 0o775)),
        ("belongs to another than root", "chown root", |dir, _| chown(dir, Some(65534), None).unwrap()),
    ];
    for (why, fix, spoil) in &spoilt {
        let (place, heap) = place();
        HeapFile::open(&heap).expect("as it should be");
        spoil(place.path(), &heap);
        let text = HeapFile::open(&heap).map(|_| ()).expect_err(why).to_string();
        assert!(text.contains(why) && text.contains(fix), "{text}");
        if !place.path().exists() {
            let _ = place.keep();
        }
    }
    // A link on the way, and a path that leads up.
    let (place, _) = place();
    let within = place.path().join("d");
    fs::create_dir(&within).unwrap();
    symlink(place.path(), within.join("link")).unwrap();
    let refusal = |path: PathBuf| HeapFile::open(&path).map(|_| ()).expect_err("refused").to_string();
    assert!(refusal(within.join("link/h")).contains("is a symbolic link"));
    assert!(refusal(within.join("../h")).contains("leads up"));
    eprintln!("files: {} refusals", spoilt.len() + 2);
}
