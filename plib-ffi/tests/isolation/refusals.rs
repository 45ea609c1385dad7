//! What happens where protection cannot be had: a program that does not ask for it goes on without, one that does gets an error, and
//! nobody is killed.

use std::path::Path;

use plib::{Cache, Error, Isolation, OpenOptions};
use plib_core::gate::HEAPS;

use crate::ground::{SECRET, alone, guarded_heap, open_guarded, unguarded_heap, unharmed};
use crate::support::child::{Link, spawn};
use crate::support::report;

pub const ROLE: &str = "refusals";

const KILLS: u32 = libc::SECCOMP_RET_KILL_PROCESS;
const REFUSES: u32 = libc::SECCOMP_RET_ERRNO | libc::EPERM as u32;

/// From now on a system call of this number is answered so.
fn set_policy(number: libc::c_long, answer: u32) {
    let statement = |code: u32, k: u32| libc::sock_filter { code: code as u16, jt: 0, jf: 0, k };
    let is_it = libc::sock_filter { jf: 1, ..statement(libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K, number as u32) };
    let filter = [
        statement(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, 0),
        is_it,
        statement(libc::BPF_RET | libc::BPF_K, answer),
        statement(libc::BPF_RET | libc::BPF_K, libc::SECCOMP_RET_ALLOW),
    ];
    let program = libc::sock_fprog { len: filter.len() as u16, filter: filter.as_ptr().cast_mut() };
    // SAFETY: numbers, and a filter that lives through the call.
    unsafe {
        assert_eq!(libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), 0);
        assert_eq!(libc::prctl(libc::PR_SET_SECCOMP, libc::SECCOMP_MODE_FILTER, &raw const program), 0);
    }
}

fn limit_file_size(bytes: u64) {
    let limit = libc::rlimit { rlim_cur: bytes, rlim_max: libc::RLIM_INFINITY };
    // SAFETY: a record of ours.
    assert_eq!(unsafe { libc::setrlimit(libc::RLIMIT_FSIZE, &raw const limit) }, 0);
}

/// One process that never had a key meets one obstacle.
pub fn meet(_: &mut Link, args: &[String]) {
    let [path, obstacle] = args else { panic!("{args:?}") };
    let path = Path::new(path);
    match obstacle.as_str() {
        "none" => {}
        "no key" => set_policy(libc::SYS_pkey_alloc, REFUSES),
        "no keyed page" => set_policy(libc::SYS_pkey_mprotect, REFUSES),
        "no file in memory" => set_policy(libc::SYS_memfd_create, REFUSES),
        "death for a key" => set_policy(libc::SYS_pkey_alloc, KILLS),
        "death for a file in memory" => set_policy(libc::SYS_memfd_create, KILLS),
        "no large file" => limit_file_size(1000),
        other => panic!("{other}"),
    }
    let cache = Cache::open(path).expect("open");
    assert_eq!(cache.get(b"secret").expect("get").expect("there").value, SECRET);
    let expected = if obstacle == "none" { Isolation::Guarded } else { Isolation::None };
    assert_eq!(cache.isolation(), expected, "{obstacle}");
    if obstacle.starts_with("no ") {
        let refused = Cache::open_with(path, &OpenOptions::new().isolation(Isolation::Guarded)).expect_err(obstacle);
        assert!(matches!(refused, Error::Isolation { .. }), "{obstacle}: {refused}");
    }
    if obstacle == "no large file" {
        // It was no matter of for ever.
        limit_file_size(libc::RLIM_INFINITY);
        open_guarded(path);
    }
}

#[test]
fn where_it_is_refused_a_program_goes_on_without() {
    let _alone = alone();
    let heap = unguarded_heap();
    let obstacles =
        ["none", "no key", "no keyed page", "no file in memory", "death for a key", "death for a file in memory"];
    for obstacle in obstacles.into_iter().chain(["no large file"]) {
        spawn(ROLE, &[heap.path_text(), obstacle]).finish(30);
    }
}

#[test]
fn heaps_beyond_what_the_vault_holds_are_opened_without_a_guard() {
    let _alone = alone();
    let heap = guarded_heap();
    let caches: Vec<Cache> = (0..HEAPS + 2).map(|_| Cache::open(&heap.path).expect("open")).collect();
    let guarded = caches.iter().filter(|cache| cache.isolation() == Isolation::Guarded).count();
    report(format_args!("{guarded} of {} handles are guarded", caches.len()));
    // The heap's own handle has a place as well.
    assert_eq!(guarded, HEAPS - 1);
    let refused =
        Cache::open_with(&heap.path, &OpenOptions::new().isolation(Isolation::Guarded)).expect_err("no place");
    assert!(matches!(refused, Error::Full { limit, .. } if limit == HEAPS as u64), "{refused}");
    assert!(caches.iter().all(|cache| cache.get(b"secret").expect("get").is_some()));
    drop(caches);
    open_guarded(&heap.path);
    unharmed(&heap.cache, "after many handles");
}
