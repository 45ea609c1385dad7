//! The programs that are launched: `role NAME ARGUMENTS`. A role asserts what it sees, and prints what the tests want to know.

use crate::{attacks, uses};
use plib::{Cache, Isolation};
use std::process::ExitCode;

pub fn main(arguments: &[String]) -> ExitCode {
    let heap = arguments.get(1).map_or("a", String::as_str);
    match arguments[0].as_str() {
        "use" => uses::use_it(heap),
        "children" => uses::children(heap),
        "killed" => uses::killed(heap),
        "own" => uses::own_heap(heap, &arguments[2]),
        "removed" => uses::removed(heap),
        "execute" => uses::execute(heap),
        "file" => attacks::reach_file(heap),
        "proc" => attacks::look_into_proc(heap),
        "wait" => attacks::wait(heap),
        "wait-alone" => attacks::wait_for_input(),
        "abort" => attacks::abort(heap),
        "abort-alone" => std::process::abort(),
        "memory" => attacks::touch(heap),
        "unmap" => attacks::change_mappings(heap),
        "deputy" => attacks::hand_in_pointers(heap, &arguments[2]),
        "attach" => attacks::attach_another(heap),
        other => panic!("no role {other}"),
    }
    ExitCode::SUCCESS
}

/// Opens a heap that must be guarded.
pub fn open(heap: &str) -> Cache {
    let cache = Cache::open(heap).unwrap_or_else(|e| panic!("open {heap}: {e}"));
    assert_eq!(cache.isolation(), Isolation::Guarded);
    cache
}

/// Runs code in a forked child; its exit status, or the negative number of the signal that it died of.
pub fn in_child(act: impl FnOnce() -> i32) -> i32 {
    end_of(fork(act))
}

/// Forks a child that runs code and ends with what that gives.
pub fn fork(act: impl FnOnce() -> i32) -> i32 {
    // SAFETY: the roles that fork have one thread.
    match unsafe { libc::fork() } {
        0 => {
            let status = std::panic::catch_unwind(std::panic::AssertUnwindSafe(act)).unwrap_or(99);
            // SAFETY: ends the child.
            unsafe { libc::_exit(status) }
        }
        -1 => panic!("fork: {}", std::io::Error::last_os_error()),
        child => child,
    }
}

/// Waits for a child.
pub fn end_of(child: i32) -> i32 {
    let mut status = 0;
    // SAFETY: the status is a variable of ours.
    assert_eq!(unsafe { libc::waitpid(child, &raw mut status, 0) }, child);
    if libc::WIFSIGNALED(status) { -libc::WTERMSIG(status) } else { libc::WEXITSTATUS(status) }
}
