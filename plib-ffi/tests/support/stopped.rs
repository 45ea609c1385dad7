//! A process that is stopped, or dies, just while it holds a bucket's lock: not by luck, but by trying until it is seen.

use std::time::Duration;

use plib::{Cache, Status};

use super::rng::Rng;
use super::wait_until;

/// A line of `/proc/PID/stat`, of the fields from the state on.
fn stat(path: &str) -> Option<String> {
    let text = std::fs::read_to_string(path).ok()?;
    Some(text.rsplit_once(") ")?.1.to_string())
}

/// How a process's first thread is: `Z` for a zombie, whose others may live on; None if there is no such process.
pub fn state_of(pid: i32) -> Option<char> {
    stat(&format!("/proc/{pid}/stat"))?.chars().next()
}

/// How all its threads are.
pub fn thread_states(pid: i32) -> String {
    let Ok(tasks) = std::fs::read_dir(format!("/proc/{pid}/task")) else { return String::new() };
    let states = tasks.flatten().filter_map(|task| stat(&format!("{}/stat", task.path().display())));
    states.filter_map(|text| text.chars().next()).collect()
}

/// Sends a signal to a process that is known to be there.
pub fn signal(pid: i32, signal: i32) {
    // SAFETY: takes numbers only; whoever calls has not waited for the process, so the id is still its own.
    assert_eq!(unsafe { libc::kill(pid, signal) }, 0, "signal {signal} to {pid}: {}", std::io::Error::last_os_error());
}

/// Whether somebody who does not run holds the lock of this key's bucket.
fn is_held(cache: &Cache, key: &[u8]) -> bool {
    match cache.touch(key, 0) {
        Ok(_) => false,
        Err(e) if e.status() == Status::Busy => true,
        Err(e) => panic!("touch: {e}"),
    }
}

/// Stops a process that works on `key` again and again until it is stopped with the lock of the key's bucket held: then
/// others are told BUSY. It stays stopped. Returns how often it was tried.
pub fn stop_with_lock(cache: &Cache, key: &[u8], pid: i32, rng: &mut Rng) -> u64 {
    for tries in 1..=5_000 {
        signal(pid, libc::SIGSTOP);
        wait_until("every thread stops", 10, || thread_states(pid).chars().all(|state| "TZX".contains(state)));
        // Twice, so that one who was only slow is not taken for one who is stopped.
        if is_held(cache, key) && is_held(cache, key) {
            return tries;
        }
        signal(pid, libc::SIGCONT);
        std::thread::sleep(Duration::from_micros(20 + rng.below(500)));
    }
    panic!("process {pid} was never stopped with a lock held");
}
