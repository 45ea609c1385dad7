//! sweep.

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use plib::Cache;
use serde_json::{Value, json};

use crate::place::{Outcome, Place};

const HAMMERED: &str = "PLIB_TEST_HAMMERED";

/// A process that stores one key over and over, until it is killed.
#[test]
#[ignore = "what the other tests start"]
fn hammer() {
    let Some(heap) = std::env::var_os(HAMMERED) else { return };
    let cache = Cache::open(heap).unwrap();
    loop {
        cache.set(b"victim", b"value", 0, 0).unwrap();
    }
}

/// A running hammer; dropped, it is killed.
struct Hammer(Child);

impl Drop for Hammer {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn signal(pid: u32, signal: i32) {
    // SAFETY: a child of ours that has not been waited for.
    assert_eq!(unsafe { libc::kill(pid as i32, signal) }, 0);
}

/// Starts a hammer and stops it in the middle of a store: again and again, until it holds the bucket's lock (or a sweeper
/// that runs beside has seen that first, and killed it).
fn frozen_hammer(heap: &Path) -> Hammer {
    let cache = Cache::open(heap).unwrap();
    cache.delete(b"victim").unwrap();
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["sweep::hammer", "--exact", "--ignored"]).env(HAMMERED, heap).stdout(Stdio::null());
    let mut hammer = Hammer(command.spawn().unwrap());
    let begin = Instant::now();
    while cache.get(b"victim").unwrap().is_none() {
        assert!(begin.elapsed() < Duration::from_secs(20), "the hammer does not start");
        std::thread::sleep(Duration::from_millis(1));
    }
    for _ in 0..3000 {
        signal(hammer.0.id(), libc::SIGSTOP);
        std::thread::sleep(Duration::from_millis(1));
        let frozen = cache.frozen_owners(Duration::from_millis(20)).unwrap();
        if !frozen.is_empty() || hammer.0.try_wait().unwrap().is_some() {
            return hammer;
        }
        signal(hammer.0.id(), libc::SIGCONT);
        std::thread::sleep(Duration::from_micros(200));
    }
    panic!("it never was inside the lock");
}

#[test]
fn a_heap_in_good_order_is_swept_at_once() {
    let place = Place::with_heap();
    let begin = Instant::now();
    let (document, code) = place.json(&["sweep", "--frozen", "kill", "--patience", "1h"]);
    assert_eq!((document, code), (json!({"recovered_contexts": 0, "frozen": [], "stopped_readers": 0}), 0));
    assert!(begin.elapsed() < Duration::from_secs(20), "it waited for nobody");
    let shown = place.outcome(&["sweep", "h"]);
    assert!(shown.code == 0 && shown.stdout.contains("no client is frozen"), "{shown:?}");
    place.outcome(&["sweep", "nobody"]).refuses(3, &["nobody"]);
    for bad in ["2", "0s", "soon"] {
        place.outcome(&["sweep", "--patience", bad]).refuses(2, &["patience"]);
    }
    place.outcome(&["sweep", "--frozen", "thaw"]).refuses(2, &["report", "kill"]);
}

#[test]
fn a_frozen_client_is_shown_and_killed_when_asked_for() {
    let place = Place::with_heap();
    let mut hammer = frozen_hammer(&place.file("h"));
    let pid = hammer.0.id();
    let sweep = |more: &[&str]| -> Vec<String> {
        ["sweep", "--patience", "200ms"].iter().chain(more).map(|word| (*word).to_owned()).collect()
    };
    let args = |words: &[String]| -> Outcome { place.outcome(&words.iter().map(String::as_str).collect::<Vec<_>>()) };
    // Reported: for people and for programs, and left alone.
    let shown = args(&sweep(&[]));
    assert_eq!(shown.code, 1, "{shown:?}");
    for word in [&pid.to_string(), "stopped", "bucket ", "left alone", "COMMAND"] {
        assert!(shown.stdout.contains(word), "'{word}' is not in {shown:?}");
    }
    let (document, code) = place.json(&["sweep", "--patience", "200ms"]);
    let found = &document["frozen"][0];
    assert_eq!((code, &found["pid"], &found["pid_here"]), (1, &json!(pid), &json!(pid)), "{document}");
    assert_eq!(
        (&found["state"], &found["fate"], &found["large"]),
        (&json!("stopped"), &json!("reported"), &json!(false))
    );
    assert_eq!(found["buckets"].as_array().map(Vec::len), Some(1), "{document}");
    assert!(found["still_ms"].as_u64() >= Some(200) && found["user"].is_string(), "{document}");
    let busy = place.outcome(&["set", "victim", "ours"]);
    busy.refuses(4, &["busy"]);
    assert!(hammer.0.try_wait().unwrap().is_none());
    // Killed.
    let (document, code) = place.json(&["sweep", "--patience", "200ms", "--frozen", "kill"]);
    assert_eq!((code, &document["frozen"][0]["fate"]), (0, &json!("killed")), "{document}");
    assert!(document["recovered_contexts"].as_u64() >= Some(1), "{document}");
    assert!(hammer.0.wait().unwrap().code().is_none(), "it ended by a signal");
    place.plib(&["set", "victim", "ours"]).assert().success();
    assert_eq!(place.json(&["check"]).1, 0);
}

#[test]
fn it_goes_on_until_it_is_told_to_stop() {
    let place = Place::with_heap();
    for (stop, json) in [(libc::SIGTERM, true), (libc::SIGINT, false)] {
        let mut sweeper = Command::new(env!("CARGO_BIN_EXE_plib"));
        sweeper.env_clear().env("PLIB_DIR", place.path()).env("PLIB_HEAP", "h").stdout(Stdio::piped());
        sweeper.args(["sweep", "--patience", "100ms", "--every", "50ms", "--frozen", "kill"]);
        let mut sweeper = sweeper.args(json.then_some("--json")).spawn().unwrap();
        let mut lines = BufReader::new(sweeper.stdout.take().unwrap()).lines().map(Result::unwrap);
        if json {
            let first: Value = serde_json::from_str(&lines.next().unwrap()).unwrap();
            assert_eq!(first["frozen"], json!([]));
        }
        let mut hammer = frozen_hammer(&place.file("h"));
        assert!(hammer.0.wait().unwrap().code().is_none(), "it ended by a signal");
        let killed = |line: &String| line.contains("killed") && line.contains(&hammer.0.id().to_string());
        let line = lines.find(killed).unwrap();
        assert!(json || line.contains("UTC  pid"), "{line}");
        signal(sweeper.id(), stop);
        let begin = Instant::now();
        assert_eq!(sweeper.wait().unwrap().code(), Some(0));
        assert!(begin.elapsed() < Duration::from_secs(5));
        place.plib(&["set", "victim", "ours"]).assert().success();
    }
}
