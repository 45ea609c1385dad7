//! create, info, list, check, reap, destroy.

use std::os::unix::fs::PermissionsExt;

use crate::place::{Outcome, Place};

#[test]
fn a_heap_is_made_listed_described_and_destroyed() {
    let place = Place::new();
    let made = place.outcome(&["create", "one", "--size", "16m", "--mode", "640"]);
    assert!(made.code == 0 && made.stdout.contains("created one") && made.stdout.contains("0640"), "{made:?}");
    assert_eq!(place.file("one").metadata().unwrap().permissions().mode() & 0o777, 0o640);
    assert_eq!(place.file("one").metadata().unwrap().len(), 16 << 20);

    let (info, code) = place.json(&["info", "one"]);
    assert_eq!(code, 0);
    assert_eq!(
        (info["name"].as_str(), info["size"].as_u64(), info["items"].as_u64()),
        (Some("one"), Some(16 << 20), Some(0))
    );
    assert_eq!(
        (info["item_size_max"].as_u64(), info["mode"].as_str(), info["isolation"].as_str()),
        (Some(1 << 20), Some("0640"), Some("none"))
    );

    assert_eq!(info["readable"].as_bool(), Some(false));
    let (list, _) = place.json(&["list"]);
    assert_eq!(list["heaps"].as_array().unwrap().len(), 1);
    assert_eq!(list["heaps"][0]["name"], "one");

    let (gone, code) = place.json(&["destroy", "one", "--yes"]);
    assert_eq!((gone["destroyed"].as_str(), code), (place.file("one").to_str(), 0));
    assert!(!place.file("one").exists());
    assert!(place.outcome(&["list"]).stdout.starts_with("no heaps in"));
}

#[test]
fn the_lock_file_of_root_s_own_heap_is_told_of_and_goes_with_it() {
    // SAFETY: takes nothing and cannot fail.
    let root = unsafe { libc::geteuid() } == 0;
    let place = Place::new();
    let (own, _) = place.json(&["create", "own", "--size", "8m"]);
    let lock = place.file("own.lock");
    assert_eq!((own["lock_file"].as_str(), lock.exists()), (root.then(|| lock.to_str().unwrap()), root));
    assert!(place.json(&["create", "shared", "--size", "8m", "--mode", "660"]).0["lock_file"].is_null());
    assert!(place.outcome(&["info", "shared"]).stdout.contains("lock file"));
    let (list, _) = place.json(&["list"]);
    let names: Vec<_> = list["heaps"].as_array().unwrap().iter().map(|heap| heap["name"].as_str().unwrap()).collect();
    assert_eq!(names, ["own", "shared"]);
    place.outcome(&["create", "x.lock", "--size", "8m"]).refuses(2, &["x.lock", "ends with '.lock'"]);
    if root {
        place.outcome(&["destroy", "own.lock", "--yes"]).refuses(3, &["own.lock", "goes with its heap"]);
        std::fs::rename(&lock, place.file("away")).unwrap();
        place.outcome(&["info", "own"]).refuses(3, &["own.lock", "missing"]);
        std::fs::rename(place.file("away"), &lock).unwrap();
        std::fs::write(place.file("new.lock"), "a letter").unwrap();
        place.outcome(&["create", "new", "--size", "8m"]).refuses(2, &["new", "something else has that name"]);
        assert!(!place.file("new").exists());
    }
    place.json(&["destroy", "own", "--yes"]);
    assert!(!lock.exists() && !place.file("own").exists());
}

#[test]
fn options_of_create_reach_the_heap() {
    let place = Place::new();
    let args = ["create", "o", "--size", "64m", "--item-size-max", "8m", "--contexts", "24", "--huge", "--readable"];
    let (info, code) = place.json(&args);
    assert_eq!((info["item_size_max"].as_u64(), info["contexts"].as_u64(), code), (Some(8 << 20), Some(24), 0));
    assert_eq!(place.json(&["info", "o"]).0["readable"].as_bool(), Some(true));
    assert!(
        place.outcome(&["info", "o"]).stdout.lines().any(|line| line.starts_with("readable") && line.ends_with("yes"))
    );
    let big = place.file("big");
    std::fs::write(&big, vec![b'x'; 7 << 20]).unwrap();
    let stored = place.outcome(&["-H", "o", "set", "k", "--file", big.to_str().unwrap()]);
    assert_eq!(stored.code, 0, "{stored:?}");
}

#[test]
fn a_heap_may_have_a_group_and_a_path() {
    let place = Place::new();
    let path = place.file("sub.heap");
    // The group of a new file is always one that its maker may give.
    std::fs::write(place.file("probe"), "").unwrap();
    let gid = std::os::unix::fs::MetadataExt::gid(&place.file("probe").metadata().unwrap());
    let groups = std::fs::read_to_string("/etc/group").unwrap();
    let name =
        groups.lines().find(|l| l.split(':').nth(2) == Some(&gid.to_string())).unwrap().split(':').next().unwrap();
    let (info, _) = place.json(&["create", path.to_str().unwrap(), "--size", "8m", "--group", name]);
    assert!(info["owner"].as_str().unwrap().ends_with(&format!(":{name}")));
    assert_eq!(place.json(&["info", path.to_str().unwrap()]).0["path"], path.to_str().unwrap());
    place.outcome(&["create", "g", "--size", "8m", "--group", "no-such-group"]).refuses(2, &["no-such-group"]);
    assert!(!place.file("g").exists());
}

#[test]
fn the_argument_wins_over_the_option_and_the_option_over_the_environment() {
    let place = Place::with_heap();
    place.plib(&["create", "other", "--size", "8m"]).assert().success();
    assert_eq!(place.json(&["info"]).0["name"], "h");
    assert_eq!(place.json(&["info", "--heap", "other"]).0["name"], "other");
    assert_eq!(place.json(&["info", "other", "-H", "h"]).0["name"], "other");
    let unnamed = Outcome::of(place.plib(&["get", "k"]).env_remove("PLIB_HEAP"));
    unnamed.refuses(2, &["--heap NAME", "PLIB_HEAP", "h, other"]);
    Outcome::of(place.plib(&["get", "k"]).env("PLIB_HEAP", "")).refuses(2, &["which heap?"]);
}

#[test]
fn destroy_asks_and_spares_what_is_no_heap() {
    let place = Place::with_heap();
    place.outcome(&["destroy", "h"]).refuses(2, &["--yes", "everything in it"]);
    std::fs::write(place.file("letter"), "Dear all, this is no heap at all.").unwrap();
    place.outcome(&["destroy", "letter", "--yes"]).refuses(3, &["letter"]);
    assert!(place.file("letter").exists() && place.file("h").exists());
    place.outcome(&["destroy", "nobody", "--yes"]).refuses(3, &["nobody"]);
    // The heap to destroy is never guessed from the environment.
    place.outcome(&["destroy", "--yes"]).refuses(2, &["NAME"]);
}

#[test]
fn a_heap_that_exists_is_not_made_again() {
    let place = Place::with_heap();
    place.plib(&["set", "k", "v"]).assert().success();
    let again = place.outcome(&["create", "h", "--size", "8m"]);
    again.refuses(1, &["exists"]);
    assert_eq!(place.outcome(&["get", "k"]).stdout, "v");
}

#[test]
fn a_live_heap_checks_clean_and_has_nothing_to_reap() {
    let place = Place::with_heap();
    for i in 0..50 {
        place.plib(&["set", &format!("k{i}"), &"v".repeat(i * 40)]).assert().success();
    }
    let (report, code) = place.json(&["check"]);
    assert_eq!((report["clean"].as_bool(), report["items"].as_u64(), code), (Some(true), Some(50), 0), "{report}");
    assert_eq!(report["findings"].as_array().unwrap().len(), 0);
    assert!(place.outcome(&["check", "h"]).stdout.contains("clean"));
    let (reaped, code) = place.json(&["reap"]);
    assert_eq!((reaped["recovered_contexts"].as_u64(), code), (Some(0), 0));
}

#[test]
fn check_finds_what_is_wrong() {
    let place = Place::with_heap();
    for i in 0..200 {
        place.plib(&["set", &format!("k{i}"), "value"]).assert().success();
    }
    // The keys and values of live items are overwritten, as a stray write of a program could do.
    let mut bytes = std::fs::read(place.file("h")).unwrap();
    let at = bytes.windows(9).position(|w| w == b"k77value\0" || w.starts_with(b"k77value")).unwrap();
    bytes[at..at + 3].copy_from_slice(b"zzz");
    let damaged = std::fs::File::options().write(true).open(place.file("h")).unwrap();
    std::os::unix::fs::FileExt::write_all_at(&damaged, &bytes[at..at + 3], at as u64).unwrap();
    let (report, code) = place.json(&["check"]);
    assert_eq!((report["clean"].as_bool(), code), (Some(false), 1), "{report}");
    let finding = &report["findings"][0];
    assert!(finding["kind"].is_string() && finding["place"].is_u64() && finding["severe"].is_boolean(), "{report}");
    let shown = place.outcome(&["check"]);
    assert!(shown.code == 1 && shown.stdout.contains("FINDING") && shown.stdout.contains("findings"), "{shown:?}");
}
