//! Pid namespaces of one's own, in which a new process or thread can be given the id of a dead one.

use serde::{Deserialize, Serialize};

use super::child::{Child, Link, spawn};
use super::fork::fork;
use super::wait_until;

/// What the first process of a namespace is told to do.
#[derive(Serialize, Deserialize)]
enum Order {
    /// Fork a child, with this id unless it is 0, that does what the role does for this place.
    Start(u32, usize),
    /// Wait for a child that ended.
    Reap(i32),
}

/// Fails the test with what it needs when a system call is refused.
fn must(done: libc::c_int, what: &str) {
    let error = std::io::Error::last_os_error();
    assert!(done == 0, "{what}: {error}; this test needs root (CAP_SYS_ADMIN, in a container too) for namespaces");
}

/// Makes the next process or thread of this pid namespace get the id `pid`.
pub fn next_pid(pid: u32) {
    let file = "/proc/sys/kernel/ns_last_pid";
    let outcome = std::fs::write(file, (pid - 1).to_string());
    outcome.unwrap_or_else(|e| panic!("{file}: {e}; this test needs root and a kernel with CONFIG_CHECKPOINT_RESTORE"));
}

/// Runs `act` as the first process of a new pid namespace, and waits for its end.
pub fn inside(act: impl FnOnce()) {
    // SAFETY: takes a flag; only children of this process are affected.
    must(unsafe { libc::unshare(libc::CLONE_NEWPID) }, "unshare(CLONE_NEWPID)");
    let first = fork(|| {
        // SAFETY: plain system calls. The namespace ends with its first process, and that one with the test.
        unsafe {
            libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL);
            libc::alarm(0);
        }
        act();
    });
    super::fork::wait_for(first);
}

/// Takes /proc away from this process.
pub fn hide_proc() {
    let none = std::ptr::null();
    // SAFETY: takes flags and C strings; the mounts are this process's own after the first call.
    unsafe {
        must(libc::unshare(libc::CLONE_NEWNS), "unshare(CLONE_NEWNS)");
        must(libc::mount(none, c"/".as_ptr(), none, libc::MS_REC | libc::MS_PRIVATE, none.cast()), "mount / private");
        must(libc::umount2(c"/proc".as_ptr(), libc::MNT_DETACH), "umount /proc");
    }
}

/// For the role of a namespace's process: does what [`Namespace`] asks; `work(place)` is what children do.
pub fn serve(link: &mut Link, work: impl Fn(usize)) {
    inside(|| {
        link.signal();
        while let Some(order) = link.receive::<Order>() {
            match order {
                Order::Start(pid, place) => {
                    if pid != 0 {
                        next_pid(pid);
                    }
                    let child = fork(|| {
                        // SAFETY: a plain system call: it may live for long, but not longer than the namespace.
                        unsafe { libc::alarm(0) };
                        work(place);
                    });
                    link.send(&child);
                }
                Order::Reap(pid) => {
                    let mut status = 0;
                    // SAFETY: `status` is a place for the status of a child of ours.
                    link.send(&unsafe { libc::waitpid(pid, &mut status, 0) });
                }
            }
        }
    });
}

/// A pid namespace with a process that starts others in it.
pub struct Namespace {
    child: Child,
    first: i32,
}

/// A process in a namespace: its id there, and its id here.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Inhabitant {
    pub inner: u32,
    pub outer: i32,
}

impl Namespace {
    /// Starts this program in `role`, which must [`serve`].
    pub fn new(role: &str, args: &[&str]) -> Namespace {
        let mut child = spawn(role, args);
        child.link.await_signal();
        let first = find(child.pid(), 1).expect("the namespace's first process");
        Namespace { child, first }
    }

    /// Starts a process, with the id of a dead one unless `pid` is 0.
    pub fn start(&mut self, pid: u32, place: usize) -> Inhabitant {
        self.child.link.send(&Order::Start(pid, place));
        let inner = self.child.link.receive::<i32>().expect("the namespace is gone") as u32;
        let mut outer = None;
        wait_until("the new process shows in /proc", 10, || {
            outer = find(self.first, inner);
            outer.is_some()
        });
        Inhabitant { inner, outer: outer.unwrap() }
    }

    /// Waits for one that ended, so that its id is free.
    pub fn reap(&mut self, who: Inhabitant) {
        self.child.link.send(&Order::Reap(who.inner as i32));
        assert_eq!(self.child.link.receive::<i32>(), Some(who.inner as i32));
    }
}

/// The id that a child of `parent` has here, from the one that it has in its own namespace.
fn find(parent: i32, inner: u32) -> Option<i32> {
    let pids = std::fs::read_dir("/proc").ok()?.flatten().filter_map(|e| e.file_name().to_str()?.parse::<i32>().ok());
    pids.into_iter().find(|pid| {
        let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
        let field = |name: &str| status.lines().find_map(|line| line.strip_prefix(name)).unwrap_or_default();
        field("PPid:").trim() == parent.to_string()
            && field("NSpid:").split_whitespace().last() == Some(&inner.to_string())
    })
}
