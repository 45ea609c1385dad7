//! dump and load.

use std::fs;
use std::os::unix::fs::PermissionsExt;

use serde_json::json;

use crate::place::{Outcome, Place};

/// A heap with text, binary, empty and large values, flags and expiries; the number of items.
fn filled() -> (Place, u64) {
    let place = Place::with_heap();
    place.plib(&["set", "text", "hello", "--flags", "4294967295"]).assert().success();
    place.plib(&["set", "empty", ""]).assert().success();
    place.plib(&["set", "--hex", "00ff0a", "binary key", "--exptime", "2h"]).assert().success();
    for (key, len) in [("small", 300), ("block", 20_000), ("fragments", 300_000), ("largest", (1 << 20) - 32 - 7)] {
        place.plib(&["set", key, "-", "--flags", "9"]).write_stdin(bytes(len)).assert().success();
    }
    (place, 7)
}

fn bytes(len: usize) -> Vec<u8> {
    (0..len as u64).map(|i| (i.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 56) as u8).collect()
}

/// Every item without its cas, by key.
fn contents(place: &Place, heap: &str) -> Vec<serde_json::Value> {
    let (scan, _) = place.json(&["-H", heap, "scan"]);
    let mut items = scan["items"].as_array().unwrap().clone();
    items.iter_mut().for_each(|item| item["cas"] = json!(0));
    items.sort_by_key(|item| item["key"]["data"].to_string());
    items
}

#[test]
fn a_dump_brings_everything_back() {
    let (place, count) = filled();
    let path = place.file("dump");
    let (dumped, code) = place.json(&["dump", path.to_str().unwrap()]);
    assert_eq!((&dumped["items"], code), (&json!(count), 0));
    assert_eq!(path.metadata().unwrap().permissions().mode() & 0o777, 0o600);
    place.plib(&["create", "new", "--size", "16m"]).assert().success();
    let (loaded, code) = place.json(&["-H", "new", "load", path.to_str().unwrap()]);
    assert_eq!((loaded, code), (json!({"items": count, "expired": 0, "existing": 0, "too_large": 0}), 0));
    assert_eq!(contents(&place, "h"), contents(&place, "new"));
    assert_eq!(contents(&place, "new").len() as u64, count);
    assert!(place.plib(&["-H", "new", "get", "fragments"]).output().unwrap().stdout == bytes(300_000));
    let names = fs::read_dir(place.path()).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap());
    let left: Vec<_> = names.filter(|name| !name.ends_with(".lock")).collect();
    assert_eq!(left.len(), 3, "a partial dump stayed: {left:?}");
}

#[test]
fn a_dump_goes_through_a_pipe() {
    let (place, count) = filled();
    let dump = place.plib(&["dump", "-", "--json"]).output().unwrap();
    let summary: serde_json::Value = serde_json::from_slice(&dump.stderr).unwrap();
    assert_eq!(summary["items"], count);
    place.plib(&["create", "new", "--size", "16m"]).assert().success();
    let loaded = Outcome::of(place.plib(&["-H", "new", "load", "-"]).write_stdin(dump.stdout));
    assert_eq!(loaded.stdout, format!("loaded {count} items\n"), "{loaded:?}");
    assert_eq!(contents(&place, "h"), contents(&place, "new"));
}

#[test]
fn a_truncated_dump_is_named_with_its_offset_and_loses_nothing() {
    let (place, _) = filled();
    let path = place.file("dump");
    place.plib(&["dump", path.to_str().unwrap()]).assert().success();
    let whole = fs::read(&path).unwrap();
    fs::write(&path, &whole[..whole.len() - 50]).unwrap();
    place.plib(&["create", "new", "--size", "16m"]).assert().success();
    place.plib(&["-H", "new", "set", "mine", "stays"]).assert().success();
    let cut = place.outcome(&["-H", "new", "load", path.to_str().unwrap()]);
    cut.refuses(5, &["truncated", "at byte", "6 items before it were loaded"]);
    assert_eq!(contents(&place, "new").len(), 7);
    assert_eq!(place.outcome(&["-H", "new", "get", "mine"]).stdout, "stays");
    assert_eq!(place.json_error(&["-H", "new", "load", path.to_str().unwrap()])["status"], "DUMP_TRUNCATED");
    // Cut exactly before the end, all records are whole, and still it is not a whole dump.
    fs::write(&path, &whole[..whole.len() - 28]).unwrap();
    place.outcome(&["-H", "new", "load", path.to_str().unwrap()]).refuses(5, &["truncated", "7 items"]);
}

#[test]
fn a_damaged_dump_is_named_with_its_offset() {
    let (place, _) = filled();
    let path = place.file("dump");
    place.plib(&["dump", path.to_str().unwrap()]).assert().success();
    let whole = fs::read(&path).unwrap();
    for at in [0, 9, 33, 40, whole.len() / 2, whole.len() - 10, whole.len() - 1] {
        let mut damaged = whole.clone();
        damaged[at] ^= 0x20;
        fs::write(&path, damaged).unwrap();
        place.plib(&["flush-all"]).assert().success();
        let outcome = place.outcome(&["load", path.to_str().unwrap()]);
        outcome.refuses(5, &[if at == 0 { "not a plib dump" } else { "byte" }]);
    }
    fs::write(&path, "").unwrap();
    place.outcome(&["load", path.to_str().unwrap()]).refuses(5, &["not a plib dump"]);
}

#[test]
fn expired_existing_and_too_large_items_are_counted() {
    let place = Place::with_heap();
    place.plib(&["set", "short", "gone soon", "--exptime", "2s"]).assert().success();
    place.plib(&["set", "stays", "old"]).assert().success();
    place.plib(&["set", "large", "-"]).write_stdin(bytes(100_000)).assert().success();
    let path = place.file("dump");
    place.plib(&["dump", path.to_str().unwrap()]).assert().success();
    std::thread::sleep(std::time::Duration::from_millis(3100));
    place.plib(&["create", "new", "--size", "16m", "--item-size-max", "64k"]).assert().success();
    place.plib(&["-H", "new", "set", "stays", "new"]).assert().success();
    let (loaded, code) = place.json(&["-H", "new", "load", "--keep-existing", path.to_str().unwrap()]);
    assert_eq!((loaded, code), (json!({"items": 0, "expired": 1, "existing": 1, "too_large": 1}), 1));
    assert_eq!(place.outcome(&["-H", "new", "get", "stays"]).stdout, "new");
    let shown = place.outcome(&["-H", "new", "load", path.to_str().unwrap()]);
    assert!(shown.code == 1 && shown.stdout.contains("65536 bytes"), "{shown:?}");
    assert_eq!(place.outcome(&["-H", "new", "get", "stays"]).stdout, "old");
}

#[test]
fn a_dump_that_cannot_be_written_or_read_says_so() {
    let (place, _) = filled();
    place.outcome(&["dump", "/nonexistent/dump"]).refuses(4, &["/nonexistent/dump"]);
    place.outcome(&["dump", "/dev/full"]).refuses(4, &["/dev/full", "No space"]);
    place.outcome(&["load", "/nonexistent/dump"]).refuses(4, &["/nonexistent/dump", "No such file"]);
    place.outcome(&["load", place.path().to_str().unwrap()]).refuses(4, &["directory"]);
    // A dump that fails leaves an older one alone.
    let old = place.file("old");
    fs::write(&old, "precious").unwrap();
    place.outcome(&["-H", "nope", "dump", old.to_str().unwrap()]).refuses(3, &["nope"]);
    assert_eq!(fs::read(&old).unwrap(), b"precious");
}
