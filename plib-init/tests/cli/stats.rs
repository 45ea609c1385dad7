//! stats.

use serde_json::json;

use crate::place::Place;

#[test]
fn counters_have_memcacheds_names_and_count() {
    let place = Place::with_heap();
    place.plib(&["set", "k", "v"]).assert().success();
    place.plib(&["get", "k"]).assert().success();
    assert_eq!(place.outcome(&["get", "nope"]).code, 1);
    let (stats, code) = place.json(&["stats"]);
    assert_eq!((&stats["curr_items"], code), (&json!(1), 0), "{stats}");
    assert_eq!(
        (&stats["cmd_set"], &stats["get_hits"], &stats["get_misses"]),
        (&json!(1), &json!(1), &json!(1)),
        "{stats}"
    );
    assert!(place.outcome(&["stats", "general"]).stdout.contains("curr_items"));
}

#[test]
fn classes_sizes_and_clients() {
    let place = Place::with_heap();
    for (key, len) in [("a", 10), ("b", 1000), ("c", 200_000)] {
        place.plib(&["set", key, "-"]).write_stdin("x".repeat(len)).assert().success();
    }
    let (slabs, _) = place.json(&["stats", "slabs"]);
    let classes = slabs["classes"].as_array().unwrap();
    assert!(classes.len() >= 2, "{slabs}");
    for class in classes {
        let blocks = class["blocks"].as_u64().unwrap();
        assert_eq!(blocks, class["superblocks"].as_u64().unwrap() * class["per_superblock"].as_u64().unwrap());
        let used: u64 =
            ["live", "free", "claimed", "fragments"].iter().map(|name| class[*name].as_u64().unwrap()).sum();
        assert_eq!(used, blocks, "{class}");
    }
    assert!(place.outcome(&["stats", "slabs"]).stdout.contains("PER SUPERBLOCK"));
    assert!(place.outcome(&["stats", "items"]).stdout.contains("FRAGMENTS"));

    let (sizes, _) = place.json(&["stats", "sizes"]);
    assert_eq!((&sizes["items"], &sizes["bytes"]), (&json!(3), &json!(201_013)));
    assert_eq!(sizes["sizes"][0], json!({"up_to": 32, "items": 1, "bytes": 11}));
    assert!(place.outcome(&["stats", "sizes"]).stdout.contains("#"));

    let (clients, _) = place.json(&["stats", "clients"]);
    let own = clients["clients"].as_array().unwrap().iter().find(|c| c["this"] == true).unwrap().clone();
    assert_eq!((&own["alive"], &own["command"]), (&json!(true), &json!("plib")));
    place.outcome(&["stats", "nonsense"]).refuses(2, &["nonsense", "slabs"]);
}
