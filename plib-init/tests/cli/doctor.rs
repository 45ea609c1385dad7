//! doctor.

use std::fs;

use crate::place::{Outcome, Place};

#[test]
fn it_says_what_this_machine_offers() {
    let place = Place::new();
    let (diagnosis, code) = place.json(&["doctor"]);
    assert_eq!(
        (diagnosis["isolation"].as_str(), diagnosis["works"].as_bool(), code),
        (Some("none"), Some(true), 0),
        "{diagnosis}"
    );
    let tiers: Vec<&str> = diagnosis["tiers"].as_array().unwrap().iter().map(|t| t["tier"].as_str().unwrap()).collect();
    assert_eq!(tiers, ["none", "guarded", "sealed"]);
    let checks = diagnosis["checks"].as_array().unwrap();
    for what in [
        "cpu",
        "protection keys",
        "kernel",
        "sealing",
        "membarrier",
        "pid namespace",
        "plib run",
        "PLIB_DIR",
        "file system",
        "space",
        "file locks",
        "trial heap",
    ] {
        let check = checks.iter().find(|c| c["what"] == what).unwrap_or_else(|| panic!("no '{what}' in {diagnosis}"));
        assert!(["ok", "note"].contains(&check["level"].as_str().unwrap()), "{check}");
    }
    // The same as the kernel says of itself.
    let flags = fs::read_to_string("/proc/cpuinfo").unwrap();
    let has = |name: &str| flags.split_whitespace().any(|flag| flag == name);
    let keys = match (has("pku"), has("ospke")) {
        (_, true) => "on",
        (true, false) => "off",
        (false, false) => "absent",
    };
    assert_eq!(diagnosis["protection_keys"], keys);
    // What the machine could, and what this release can.
    let tiers = [0, 1, 2].map(|n| &diagnosis["tiers"][n]);
    assert_eq!(tiers.map(|tier| tier["release"].as_bool()), [Some(true), Some(true), Some(false)]);
    assert_eq!(tiers[1]["machine"].as_bool(), Some(keys == "on"));
    let release = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap();
    assert!(place.outcome(&["doctor"]).stdout.contains(release.trim()));
}

#[test]
fn a_directory_that_is_missing_is_named_with_the_way_out() {
    let place = Place::new();
    let far = place.file("a/b");
    let outcome = Outcome::of(place.plib(&["doctor"]).env("PLIB_DIR", &far));
    assert_eq!(outcome.code, 1, "{outcome:?}");
    assert!(outcome.stdout.contains(&format!("$ mkdir -p {}", far.display())), "{outcome:?}");
    let near = Outcome::of(place.plib(&["doctor"]).env("PLIB_DIR", place.file("new")));
    assert_eq!(near.code, 0, "{near:?}");
}
