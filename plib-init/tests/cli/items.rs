//! Every operation on items.

use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;

use serde_json::json;

use crate::place::{Outcome, Place};

#[test]
fn set_get_and_delete() {
    let place = Place::with_heap();
    let (stored, code) = place.json(&["set", "greeting", "hello", "--flags", "7"]);
    assert_eq!(
        (&stored["key"], &stored["size"], code),
        (&json!({"encoding": "text", "data": "greeting"}), &json!(5), 0)
    );
    let (item, _) = place.json(&["get", "greeting"]);
    assert_eq!(item["value"], json!({"encoding": "text", "data": "hello"}));
    assert_eq!((&item["flags"], &item["expiry"], &item["size"]), (&json!(7), &json!(0), &json!(5)));
    assert_eq!(item["cas"], stored["cas"]);
    let verbose = place.outcome(&["get", "-v", "greeting"]);
    assert!(verbose.stdout.contains("flags   7") && verbose.stdout.ends_with("hello"), "{verbose:?}");
    assert_eq!(place.outcome(&["delete", "greeting"]).code, 0);
    place.outcome(&["get", "greeting"]).refuses(1, &["greeting"]);
    assert_eq!(place.json_error(&["get", "greeting"])["status"], "NOT_FOUND");
    place.outcome(&["delete", "greeting"]).refuses(1, &["greeting"]);
}

#[test]
fn values_come_from_arguments_files_and_stdin_unchanged() {
    let place = Place::with_heap();
    let value: Vec<u8> = (0..=255).cycle().take(70_000).collect();
    let path = place.file("value");
    std::fs::write(&path, &value).unwrap();
    place.plib(&["set", "from-file", "--file", path.to_str().unwrap()]).assert().success();
    place.plib(&["set", "from-stdin", "-"]).write_stdin(value.clone()).assert().success();
    for key in ["from-file", "from-stdin"] {
        assert!(place.plib(&["get", key]).output().unwrap().stdout == value, "{key}");
    }
    let (item, _) = place.json(&["get", "from-file"]);
    assert_eq!((&item["value"]["encoding"], &item["size"]), (&json!("base64"), &json!(70_000)));
    place.plib(&["set", "empty", ""]).assert().success();
    assert_eq!(place.json(&["get", "empty"]).0["value"], json!({"encoding": "text", "data": ""}));
    place.plib(&["set", "negative", "-17"]).assert().success();
    place.plib(&["set", "dash", "--", "-x"]).assert().success();
    assert_eq!(place.outcome(&["get", "dash"]).stdout, "-x");
    place.plib(&["set", "bytes"]).arg(OsString::from_vec(vec![0xff, 0xfe])).assert().success();
    assert_eq!(place.plib(&["get", "bytes"]).output().unwrap().stdout, [0xff, 0xfe]);
}

#[test]
fn keys_are_any_bytes() {
    let place = Place::with_heap();
    place.plib(&["set", "--hex", "00ff0a", "v"]).assert().success();
    assert_eq!(place.outcome(&["get", "--hex", "00FF0A"]).stdout, "v");
    assert_eq!(place.json(&["get", "--hex", "00ff0a"]).0["key"], json!({"encoding": "base64", "data": "AP8K"}));
    assert_eq!(place.outcome(&["scan", "--keys-only"]).stdout, "\\x00\\xff\\n\n");
    place.plib(&["set"]).arg(OsString::from_vec(vec![0xff, b'k'])).arg("w").assert().success();
    assert_eq!(place.outcome(&["get", "--hex", "ff6b"]).stdout, "w");
    let longest = "k".repeat(250);
    place.plib(&["set", &longest, "v"]).assert().success();
    assert_eq!(place.outcome(&["get", &longest]).stdout, "v");
}

#[test]
fn add_replace_append_and_prepend_keep_their_conditions() {
    let place = Place::with_heap();
    for command in ["replace", "append", "prepend"] {
        assert_eq!(place.json_error(&[command, "k", "v"])["status"], "NOT_STORED", "{command}");
    }
    assert_eq!(place.outcome(&["add", "k", "b", "--flags", "3"]).code, 0);
    assert_eq!(place.outcome(&["add", "k", "other"]).code, 1);
    assert_eq!(place.outcome(&["append", "k", "c"]).code, 0);
    assert_eq!(place.outcome(&["prepend", "k", "a"]).code, 0);
    let (item, _) = place.json(&["get", "k"]);
    assert_eq!((&item["value"]["data"], &item["flags"]), (&json!("abc"), &json!(3)));
    assert_eq!(place.outcome(&["replace", "k", "z"]).code, 0);
    assert_eq!(place.outcome(&["get", "k"]).stdout, "z");
}

#[test]
fn cas_and_conditional_delete_see_changes() {
    let place = Place::with_heap();
    assert_eq!(place.json_error(&["cas", "k", "1", "v"])["status"], "NOT_FOUND");
    let first = place.json(&["set", "k", "1"]).0["cas"].to_string();
    let second = place.json(&["cas", "k", &first, "2"]).0["cas"].to_string();
    assert_ne!(first, second);
    let refused = place.json_error(&["cas", "k", &first, "3"]);
    assert_eq!((&refused["status"], &refused["exit"]), (&json!("EXISTS"), &json!(1)));
    assert_eq!(place.json_error(&["delete", "k", "--cas", &first])["status"], "EXISTS");
    assert_eq!(place.outcome(&["get", "k"]).stdout, "2");
    place.outcome(&["delete", "k", "l", "--cas", &second]).refuses(2, &["one key"]);
    assert_eq!(place.outcome(&["delete", "k", "--cas", &second]).code, 0);
}

#[test]
fn numbers_go_up_and_down() {
    let place = Place::with_heap();
    place.outcome(&["incr", "n"]).refuses(1, &["'n'"]);
    assert_eq!(place.outcome(&["incr", "n", "--initial", "10"]).stdout, "10\n");
    assert_eq!(place.outcome(&["incr", "n", "5", "--initial", "10"]).stdout, "15\n");
    assert_eq!(place.json(&["decr", "n"]).0["value"], 14);
    assert_eq!(place.outcome(&["decr", "n", "100"]).stdout, "0\n");
    place.plib(&["set", "n", "18446744073709551615"]).assert().success();
    assert_eq!(place.outcome(&["incr", "n", "2"]).stdout, "1\n");
    place.plib(&["set", "n", "seven"]).assert().success();
    let refused = place.json_error(&["incr", "n"]);
    assert_eq!((&refused["status"], &refused["exit"]), (&json!("NOT_NUMERIC"), &json!(4)));
    assert_eq!(place.outcome(&["decr", "m", "--initial", "4", "--exptime", "-1"]).code, 0);
    assert_eq!(place.outcome(&["get", "m"]).code, 1);
}

#[test]
fn expiry_is_kept_changed_and_obeyed() {
    let place = Place::with_heap();
    place.plib(&["set", "k", "v", "--exptime", "10m"]).assert().success();
    let left = || place.json(&["get", "k"]).0["expiry"].as_u64().unwrap() as i64 - now();
    assert!((590..=601).contains(&left()), "{}", left());
    place.plib(&["touch", "k", "45d"]).assert().success();
    assert!((45 * 86400 - 10..=45 * 86400 + 1).contains(&left()), "{}", left());
    let (item, _) = place.json(&["gat", "k", "60"]);
    assert_eq!(item["value"]["data"], "v");
    assert!((50..=61).contains(&left()), "{}", left());
    assert_eq!(place.outcome(&["touch", "k", "never"]).code, 0);
    assert_eq!(place.json(&["get", "k"]).0["expiry"], 0);
    assert_eq!(place.outcome(&["touch", "k", "-1"]).code, 0);
    assert_eq!(place.outcome(&["get", "k"]).code, 1);
    place.outcome(&["touch", "k", "60"]).refuses(1, &["'k'"]);
    place.outcome(&["gat", "k", "60"]).refuses(1, &["'k'"]);
}

fn now() -> i64 {
    std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs() as i64
}

#[test]
fn many_keys_at_once() {
    let place = Place::with_heap();
    for key in ["a", "b", "c"] {
        place.plib(&["set", key, &format!("value of {key}\n")]).assert().success();
    }
    let (found, code) = place.json(&["mget", "a", "nope", "c"]);
    assert_eq!((found["items"].as_array().unwrap().len(), code), (2, 1));
    assert_eq!(found["missing"], json!([{"encoding": "text", "data": "nope"}]));
    let lines = place.outcome(&["mget", "a", "nope", "c"]);
    assert_eq!(lines.stdout, "a\tvalue of a\\n\nc\tvalue of c\\n\n");
    lines.refuses(1, &["'nope'"]);
    assert_eq!(place.outcome(&["mget", "a", "b"]).code, 0);
    let (deleted, code) = place.json(&["delete", "a", "b", "nope"]);
    assert_eq!(
        (deleted["deleted"].as_array().unwrap().len(), deleted["missing"][0]["data"].as_str(), code),
        (2, Some("nope"), 1)
    );
}

#[test]
fn flush_all_now_and_later() {
    let place = Place::with_heap();
    place.plib(&["set", "k", "v"]).assert().success();
    assert_eq!(place.json(&["flush-all", "--delay", "1h"]).0["delay"], 3600);
    assert_eq!(place.outcome(&["get", "k"]).code, 0);
    place.outcome(&["flush-all", "--delay", "-1"]).refuses(2, &["negative"]);
    place.plib(&["flush-all"]).assert().success();
    assert_eq!(place.outcome(&["get", "k"]).code, 1);
    place.plib(&["set", "k", "new"]).assert().success();
    assert_eq!(place.outcome(&["get", "k"]).stdout, "new");
}

#[test]
fn scan_goes_through_all_items_once() {
    let place = Place::with_heap();
    for i in 0..30 {
        place.plib(&["set", &format!("a:{i}"), &"x".repeat(100)]).assert().success();
        place.plib(&["set", &format!("b:{i}"), "y"]).assert().success();
    }
    let mut keys: Vec<String> = place.outcome(&["scan", "-k"]).stdout.lines().map(str::to_owned).collect();
    keys.sort();
    keys.dedup();
    assert_eq!(keys.len(), 60);
    assert_eq!(place.outcome(&["scan", "--prefix", "a:", "-k"]).stdout.lines().count(), 30);
    assert_eq!(place.outcome(&["scan", "--prefix", "613a", "--hex", "-k"]).stdout.lines().count(), 30);
    assert_eq!(place.outcome(&["scan", "--limit", "7"]).stdout.lines().count(), 7);
    assert_eq!(place.outcome(&["scan", "--limit", "0"]).stdout, "");
    let line = place.outcome(&["scan", "--prefix", "a:7"]).stdout;
    assert_eq!(line, format!("a:7\t{}... (100 bytes)\n", "x".repeat(64)));
    let (items, _) = place.json(&["scan", "--prefix", "b:"]);
    assert_eq!(items["items"].as_array().unwrap().len(), 30);
    assert!(items["items"][0]["cas"].is_u64() && items["items"][0]["value"]["data"] == "y");
    assert_eq!(place.json(&["scan", "-k", "-p", "nope"]).0, json!({"keys": []}));
}

#[test]
fn a_reader_that_goes_away_ends_the_command_quietly() {
    let place = Place::with_heap();
    let value = "x".repeat(900_000);
    place.plib(&["set", "k", "-"]).write_stdin(value).assert().success();
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_plib"));
    command.env("PLIB_DIR", place.path()).args(["-H", "h", "get", "k"]).stdout(writer);
    let output = command.stderr(std::process::Stdio::piped()).output().unwrap();
    assert_eq!((output.status.code(), output.stderr.len()), (Some(141), 0));
}

#[test]
fn a_full_disk_under_stdout_is_an_error() {
    let place = Place::with_heap();
    place.plib(&["set", "k", "v"]).assert().success();
    let full = std::fs::File::options().write(true).open("/dev/full").unwrap();
    let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_plib"));
    let output = command.env("PLIB_DIR", place.path()).args(["-H", "h", "get", "k"]).stdout(full).output().unwrap();
    assert_eq!(output.status.code(), Some(4));
}

#[test]
fn two_processes_see_each_others_items() {
    let place = Place::with_heap();
    let start = |_| {
        let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_plib"));
        command.env("PLIB_DIR", place.path()).args(["-H", "h", "incr", "n", "--initial", "1"]);
        command.stdout(std::process::Stdio::null()).spawn().unwrap()
    };
    let setters: Vec<_> = (0..4).map(start).collect();
    setters.into_iter().for_each(|mut child| assert!(child.wait().unwrap().success()));
    assert_eq!(Outcome::of(place.plib(&["get", "n"])).stdout, "4");
}
