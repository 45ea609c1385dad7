//! A thread of another process, stepped one instruction at a time until the heap shows that it is where a test wants it.

use std::sync::mpsc;
use std::time::{Duration, Instant};

use plib_core::Holding;

use super::front::core::CoreFront;

/// A thread under ptrace. Dropped, it goes on by itself.
pub struct Tracer {
    tid: i32,
    attached: bool,
    /// Dropped, it calls off the watchdog.
    _watchdog: mpsc::Sender<()>,
    /// Instructions stepped so far.
    pub steps: u64,
}

/// Steps before a test gives up; the longest way that a test goes is some hundred thousand.
const STEPS_MAX: u64 = 3_000_000;

impl Tracer {
    /// Takes hold of a thread, wherever it is.
    pub fn attach(tid: i32) -> Tracer {
        ptrace(libc::PTRACE_SEIZE, tid, 0);
        ptrace(libc::PTRACE_INTERRUPT, tid, 0);
        let tracer = Tracer { tid, attached: true, _watchdog: watchdog(tid), steps: 0 };
        tracer.wait();
        tracer
    }

    fn wait(&self) {
        let mut status = 0;
        // SAFETY: waits for a thread that we trace.
        let waited = unsafe { libc::waitpid(self.tid, &mut status, libc::__WALL) };
        assert!(
            waited == self.tid && libc::WIFSTOPPED(status),
            "thread {} ended while it was traced, or took too long",
            self.tid
        );
    }

    /// One instruction.
    pub fn step(&mut self) {
        ptrace(libc::PTRACE_SINGLESTEP, self.tid, 0);
        self.wait();
        self.steps += 1;
    }

    /// Steps until the context that `seen` picks is there.
    pub fn step_until(&mut self, observer: &CoreFront, seen: impl Fn(&Holding) -> bool) -> Holding {
        for _ in 0..STEPS_MAX {
            self.step();
            if let Some(holding) = holdings(observer).find(&seen) {
                return holding;
            }
        }
        panic!("not there after {STEPS_MAX} instructions");
    }

    /// Lets the thread go on with a signal that it takes before its next instruction.
    pub fn leave(mut self, signal: i32) {
        self.attached = false;
        ptrace(libc::PTRACE_DETACH, self.tid, signal as usize);
    }
}

/// Kills a thread's process when it is traced for too long: one that blocks in the kernel takes no steps.
fn watchdog(tid: i32) -> mpsc::Sender<()> {
    let (call_off, called_off) = mpsc::channel();
    std::thread::spawn(move || {
        if called_off.recv_timeout(Duration::from_secs(60)) == Err(mpsc::RecvTimeoutError::Timeout) {
            // SAFETY: the thread is traced, so its id is still its own.
            unsafe { libc::kill(tid, libc::SIGKILL) };
        }
    });
    call_off
}

impl Drop for Tracer {
    fn drop(&mut self) {
        if self.attached {
            // SAFETY: a thread that we trace, or nobody.
            unsafe { libc::ptrace(libc::PTRACE_DETACH, self.tid, 0, 0) };
        }
    }
}

fn ptrace(request: libc::c_uint, tid: i32, data: usize) {
    // SAFETY: these requests take numbers only.
    let done = unsafe { libc::ptrace(request, tid, 0usize, data) };
    assert_eq!(done, 0, "ptrace {request} of {tid}: {}", std::io::Error::last_os_error());
}

/// What all op contexts hold at the moment, this process's own among them.
pub fn holdings(observer: &CoreFront) -> impl Iterator<Item = Holding> {
    let client = observer.client();
    (1..=client.heap().geometry().contexts).filter_map(move |number| client.holding(number))
}

/// Waits until a process is stopped.
pub fn await_stop(pid: i32) {
    let begin = Instant::now();
    while state_of(pid) != Some('T') {
        assert!(begin.elapsed() < Duration::from_secs(10), "process {pid} does not stop: {:?}", state_of(pid));
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// The kernel's letter for a process's or thread's state; None if there is none of that number.
pub fn state_of(pid: i32) -> Option<char> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    stat.rsplit_once(") ")?.1.chars().next()
}
