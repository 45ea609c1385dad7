//! What is refused, with which exit code and which words; nothing else changes.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::os::unix::process::CommandExt;

use crate::place::{Outcome, Place};

/// The user that owns nothing.
const NOBODY: u32 = 65534;

#[test]
fn wrong_arguments() {
    let place = Place::with_heap();
    place.outcome(&[]).refuses(2, &["Usage"]);
    place.outcome(&["frobnicate"]).refuses(2, &["frobnicate"]);
    place.outcome(&["get"]).refuses(2, &["KEY"]);
    place.outcome(&["set", "k"]).refuses(2, &["VALUE"]);
    place.outcome(&["set", "k", "v", "--file", "x"]).refuses(2, &["--file"]);
    place.outcome(&["set", "k", "v", "--flags", "4294967296"]).refuses(2, &["4294967296"]);
    place.outcome(&["set", "k", "v", "--exptime", "tomorrow"]).refuses(2, &["tomorrow", "10m"]);
    place.outcome(&["incr", "k", "-1"]).refuses(2, &["-1"]);
    place.outcome(&["cas", "k", "x", "v"]).refuses(2, &["'x'"]);
    place.outcome(&["get", "--hex", "abc"]).refuses(2, &["even"]);
    place.outcome(&["get", "--hex", "zz"]).refuses(2, &["not hex"]);
    place.outcome(&["create", "n"]).refuses(2, &["--size"]);
    assert_eq!(place.json_error(&["frobnicate"])["status"], "USAGE");
    assert_eq!(place.outcome(&["stats"]).code, 0);
}

#[test]
fn sizes_out_of_their_limits() {
    let place = Place::new();
    place.outcome(&["create", "n", "--size", "5x"]).refuses(2, &["'x'"]);
    place.outcome(&["create", "n", "--size", "1k"]).refuses(2, &["size", "8388608"]);
    place.outcome(&["create", "n", "--size", "4096t"]).refuses(2, &["size", "1099511627776"]);
    place
        .outcome(&["create", "n", "--size", "1g", "--item-size-max", "129m"])
        .refuses(2, &["item_size_max", "134217728"]);
    place.outcome(&["create", "n", "--size", "8m", "--item-size-max", "4m"]).refuses(2, &["item_size_max", "2097152"]);
    place.outcome(&["create", "n", "--size", "8m", "--item-size-max", "5g"]).refuses(2, &["5 GiB"]);
    place.outcome(&["create", "n", "--size", "8m", "--contexts", "100000"]).refuses(2, &["contexts"]);
    place.outcome(&["create", "n", "--size", "8m", "--mode", "rw"]).refuses(2, &["octal"]);
    assert_eq!(fs::read_dir(place.path()).unwrap().count(), 0);
}

#[test]
fn keys_and_values_out_of_their_limits() {
    let place = Place::with_heap();
    place.outcome(&["set", "", "v"]).refuses(2, &["1 to 250"]);
    place.outcome(&["get", &"k".repeat(251)]).refuses(2, &["251", "250"]);
    assert_eq!(place.json_error(&["get", ""])["status"], "KEY");
    // 32 bytes of header, 1 of key: one more byte than fits, then as many as fit.
    let too_large = Outcome::of(place.plib(&["set", "k", "-"]).write_stdin(vec![1; (1 << 20) - 32]));
    too_large.refuses(4, &["1048576", "item_size_max"]);
    let far_too_large = Outcome::of(place.plib(&["set", "k", "-"]).write_stdin(vec![1; 2 << 20]));
    far_too_large.refuses(4, &["1048576", "item_size_max"]);
    assert_eq!(place.outcome(&["get", "k"]).code, 1);
    place.plib(&["set", "k", "-"]).write_stdin(vec![1; (1 << 20) - 33]).assert().success();
    place.outcome(&["set", "k", "--file", "/nonexistent/value"]).refuses(4, &["/nonexistent/value", "No such file"]);
    place.outcome(&["set", "k", "--file", "/"]).refuses(4, &["/: cannot read"]);
}

#[test]
fn heaps_that_are_none() {
    let place = Place::new();
    place.outcome(&["info", "nope"]).refuses(3, &["nope"]);
    assert_eq!(place.json_error(&["info", "nope"])["status"], "NO_HEAP");
    fs::write(place.file("text"), "x".repeat(100_000)).unwrap();
    place.outcome(&["check", "text"]).refuses(3, &["text"]);
    assert_eq!(place.json_error(&["info", "text"])["status"], "NOT_A_HEAP");
    fs::write(place.file("empty"), "").unwrap();
    place.outcome(&["info", "empty"]).refuses(3, &["empty"]);
    fs::create_dir(place.file("dir")).unwrap();
    place.outcome(&["info", "dir"]).refuses(3, &["dir"]);
    assert_eq!(place.outcome(&["list"]).code, 0);
    place.outcome(&["info", "a/../b/nope"]).refuses(3, &["a/../b/nope"]);
    place.outcome(&["create", "..", "--size", "8m"]).refuses(2, &["'..'"]);
}

#[test]
fn a_truncated_heap_is_refused() {
    let place = Place::with_heap();
    fs::File::options().write(true).open(place.file("h")).unwrap().set_len(8 << 20).unwrap();
    let outcome = place.outcome(&["get", "k"]);
    outcome.refuses(3, &[place.file("h").to_str().unwrap()]);
}

#[test]
fn without_permission() {
    let place = Place::with_heap();
    fs::set_permissions(place.path(), fs::Permissions::from_mode(0o755)).unwrap();
    fs::set_permissions(place.file("h"), fs::Permissions::from_mode(0o600)).unwrap();
    // A copy that everybody may run, wherever the build is.
    let program = place.file("plib");
    // By another process: a file that this one writes may stay open in a child that another test forks just then, and
    // cannot be run as long ("text file busy").
    let copied = std::process::Command::new("cp").arg(env!("CARGO_BIN_EXE_plib")).arg(&program).status().unwrap();
    assert!(copied.success());
    fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).unwrap();
    let root = fs::metadata("/proc/self").unwrap().uid() == 0;
    if !root {
        fs::set_permissions(place.file("h"), fs::Permissions::from_mode(0o000)).unwrap();
        fs::set_permissions(place.path(), fs::Permissions::from_mode(0o555)).unwrap();
    }
    let run = |args: &[&str]| {
        let mut command = std::process::Command::new(&program);
        if root {
            command.uid(NOBODY).gid(NOBODY);
        }
        Outcome::of(
            assert_cmd::Command::from_std(command).env("PLIB_DIR", place.path()).env("PLIB_HEAP", "h").args(args),
        )
    };
    run(&["get", "k"]).refuses(3, &["permission", place.file("h").to_str().unwrap()]);
    run(&["get", "k", "--json"]).refuses(3, &["\"PERMISSION\""]);
    run(&["create", "mine", "--size", "8m"]).refuses(3, &["permission"]);
    run(&["destroy", "h", "--yes"]).refuses(3, &["permission"]);
    let doctor = run(&["doctor"]);
    assert!(doctor.code == 1 && doctor.stdout.contains("export PLIB_DIR="), "{doctor:?}");
    if !root {
        fs::set_permissions(place.path(), fs::Permissions::from_mode(0o755)).unwrap();
    }
    assert!(place.file("h").exists());
}

#[test]
fn without_space() {
    let place = Place::new();
    let refused = place.json_error(&["create", "n", "--size", "1t"]);
    assert_eq!((refused["status"].as_str(), refused["exit"].as_u64()), (Some("NO_SPACE"), Some(4)), "{refused}");
    assert!(refused["message"].as_str().unwrap().contains("1099511627776"), "{refused}");
    assert_eq!(fs::read_dir(place.path()).unwrap().count(), 0, "something was left behind");
}

#[test]
fn a_limit_on_file_sizes_is_an_error_and_no_death() {
    let place = Place::new();
    let mut shell = std::process::Command::new("sh");
    shell.args(["-c", "ulimit -f 1000; exec \"$0\" create n --size 8m --json", env!("CARGO_BIN_EXE_plib")]);
    let limited = Outcome::of(assert_cmd::Command::from_std(shell).env("PLIB_DIR", place.path()));
    limited.refuses(4, &["NO_SPACE", "ulimit -f unlimited"]);
    assert_eq!(fs::read_dir(place.path()).unwrap().count(), 0, "something was left behind");
}

#[test]
fn isolation_that_is_not_to_be_had() {
    let place = Place::with_heap();
    let refused = Outcome::of(place.plib(&["get", "k"]).env("PLIB_ISOLATION", "sealed"));
    refused.refuses(3, &["sealed", "none"]);
}
