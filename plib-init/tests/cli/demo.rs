//! demo.

use std::fs;

use serde_json::json;

use crate::place::Place;

fn leftovers() -> Vec<String> {
    let names = fs::read_dir("/dev/shm").unwrap().map(|e| e.unwrap().file_name().to_string_lossy().into_owned());
    names.filter(|name| name.starts_with("plib-demo-")).collect()
}

#[test]
fn processes_share_a_heap_one_is_killed_and_nothing_is_lost() {
    let place = Place::new();
    let (story, code) = place.json(&["demo", "--processes", "4", "--items", "300"]);
    assert_eq!(code, 0, "{story}");
    assert_eq!(
        (&story["processes"], &story["items_written"], &story["items_read"]),
        (&json!(4), &json!(1200), &json!(4800))
    );
    assert_eq!((&story["missing"], &story["wrong"], &story["findings"]), (&json!(0), &json!(0), &json!(0)), "{story}");
    assert_eq!(story["items_of_killed_found"], 300);
    assert!(story["writes_after_kill"].as_u64().unwrap() > 0, "{story}");
    let told = place.outcome(&["demo", "--items", "100"]);
    assert!(
        told.code == 0 && told.stdout.contains("SIGKILL") && told.stdout.contains("everything was right"),
        "{told:?}"
    );
    assert_eq!(fs::read_dir(place.path()).unwrap().count(), 0);
    assert_eq!(leftovers(), [] as [&str; 0]);
    place.outcome(&["demo", "--processes", "1"]).refuses(2, &["2..=64"]);
}
