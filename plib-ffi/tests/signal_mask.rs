//! What the library keeps out of its critical stretches it lets in again: each function leaves the thread's signal mask as it was.

mod support;

use plib::{Cache, CreateOptions};
use support::heap::TestHeap;

/// The signals that this thread keeps out.
fn blocked() -> u64 {
    let mut set = 0u64;
    let (none, block) = (std::ptr::null::<u64>(), libc::SIG_BLOCK);
    // SAFETY: the kernel writes a signal set of its size.
    assert_eq!(unsafe { libc::syscall(libc::SYS_rt_sigprocmask, block, none, &raw mut set, size_of::<u64>()) }, 0);
    set
}

#[test]
fn a_thread_lets_in_after_each_call_what_it_let_in_before() {
    let before = blocked();
    let unchanged = |when: &str| assert_eq!(blocked(), before, "{when}");
    let heap = TestHeap::with(&CreateOptions::new(8 << 20));
    unchanged("create");
    for round in 0..3 {
        let cache = Cache::open(&heap.path).expect("open");
        unchanged("open");
        let shared = cache.clone();
        cache.set(b"key", b"value", 0, 0).expect("set");
        unchanged("a thread's first operation");
        std::thread::scope(|scope| {
            let other = scope.spawn(|| {
                shared.get(b"key").expect("get").expect("there");
                unchanged("another thread's first operation");
            });
            other.join().expect("the thread");
        });
        drop((cache, shared));
        unchanged(if round == 0 { "the first close" } else { "close" });
    }
    let cache = Cache::open(&heap.path).expect("open");
    // SAFETY: the child uses the handle, which is made for this, and ends by _exit.
    unsafe {
        let pid = libc::fork();
        if pid == 0 {
            let same = cache.get(b"key").is_ok() && blocked() == before;
            drop(cache);
            libc::_exit(i32::from(!(same && blocked() == before)));
        }
        let mut status = 0;
        assert_eq!(libc::waitpid(pid, &mut status, 0), pid);
        assert_eq!(status, 0, "in a forked child");
    }
    unchanged("fork");
}
