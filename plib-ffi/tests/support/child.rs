//! Child processes: the test program runs itself again with a role to play.
//!
//! A test file lists its roles in one ignored test:
//! ```ignore
//! #[test]
//! #[ignore = "entry point of the child processes"]
//! fn child() {
//!     support::child::enter(&[("writer", writer)]);
//! }
//! ```
//! Parent and child talk over a socket that the child finds as its standard input.

use std::io::{Read, Write};
use std::os::fd::{FromRawFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::process::{Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use serde::{Serialize, de::DeserializeOwned};

const ROLE: &str = "PLIB_TEST_ROLE";
const ARGS: &str = "PLIB_TEST_ARGS";

/// A role: what the child does with its link and arguments.
pub type Role = fn(&mut Link, &[String]);

/// One end of the socket between parent and child.
pub struct Link(UnixStream);

impl Link {
    pub fn send<T: Serialize>(&mut self, message: &T) {
        let bytes = postcard::to_stdvec(message).expect("encode");
        let len = (bytes.len() as u64).to_le_bytes();
        // A peer that is gone shows when its answer is awaited.
        let _ = self.0.write_all(&len).and_then(|()| self.0.write_all(&bytes));
    }

    /// The next message; `None` once the other side is gone.
    pub fn receive<T: DeserializeOwned>(&mut self) -> Option<T> {
        let mut len = [0; 8];
        self.0.read_exact(&mut len).ok()?;
        let mut bytes = vec![0; u64::from_le_bytes(len) as usize];
        self.0.read_exact(&mut bytes).ok()?;
        Some(postcard::from_bytes(&bytes).expect("decode"))
    }

    /// Tells the other side that this one has come so far.
    pub fn signal(&mut self) {
        self.send(&());
    }

    /// Waits for the other side's signal.
    pub fn await_signal(&mut self) {
        self.receive::<()>().expect("the other process is gone");
    }
}

/// A running child; dropped, it is killed.
pub struct Child {
    process: std::process::Child,
    pub link: Link,
    role: String,
}

/// Starts this test program again in `role`.
pub fn spawn(role: &str, args: &[&str]) -> Child {
    spawn_through(&[], role, args)
}

/// The same by way of another command, which runs this program as its own child.
pub fn spawn_through(wrapper: &[&str], role: &str, args: &[&str]) -> Child {
    let (ours, theirs) = UnixStream::pair().expect("a socket pair");
    let this = std::env::current_exe().expect("this program");
    let mut command = match wrapper {
        [] => Command::new(this),
        [program, rest @ ..] => {
            let mut command = Command::new(program);
            command.args(rest).arg(this);
            command
        }
    };
    command
        .args(["child", "--exact", "--ignored", "--nocapture", "--test-threads=1"])
        .env(ROLE, role)
        .env(ARGS, args.join("\x1f"))
        .stdin(Stdio::from(OwnedFd::from(theirs)))
        .stdout(Stdio::null());
    // SAFETY: prctl is a plain system call, fit for the time between fork and exec.
    unsafe {
        command.pre_exec(|| {
            // A child outlives neither a failed test nor a killed test run.
            libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL);
            Ok(())
        });
    }
    let process = command.spawn().expect("start a child");
    Child { process, link: Link(ours), role: role.to_string() }
}

impl Child {
    pub fn pid(&self) -> i32 {
        self.process.id() as i32
    }

    /// SIGKILL, and wait until it is gone.
    pub fn kill(&mut self) {
        self.process.kill().expect("kill");
        self.process.wait().expect("wait");
    }

    pub fn send_signal(&self, signal: i32) {
        // SAFETY: the child is ours and not yet waited for, so the id is its own.
        assert_eq!(unsafe { libc::kill(self.pid(), signal) }, 0);
    }

    /// SIGSTOP, and wait until it does nothing any more.
    pub fn stop(&self) {
        self.send_signal(libc::SIGSTOP);
        // SAFETY: zeros are a siginfo_t.
        let mut info = unsafe { std::mem::zeroed() };
        let what = libc::WSTOPPED | libc::WEXITED | libc::WNOWAIT;
        // SAFETY: `info` is a place for the news, which is left for whoever waits for the child's end.
        assert_eq!(unsafe { libc::waitid(libc::P_PID, self.process.id(), &mut info, what) }, 0);
    }

    /// Lets others run first.
    pub fn renice(&self, nice: i32) {
        // SAFETY: takes numbers only; the child is ours and not yet waited for.
        unsafe { libc::setpriority(libc::PRIO_PROCESS, self.pid() as u32, nice) };
    }

    pub fn is_running(&mut self) -> bool {
        self.process.try_wait().expect("wait").is_none()
    }

    /// Waits until the child ended; `None` if it did not within `seconds` (it is killed then).
    pub fn wait_for(&mut self, seconds: u64) -> Option<ExitStatus> {
        let start = Instant::now();
        while start.elapsed() < Duration::from_secs(seconds) {
            if let Some(status) = self.process.try_wait().expect("wait") {
                return Some(status);
            }
            std::thread::sleep(Duration::from_millis(1));
        }
        self.kill();
        None
    }

    /// Waits for a good end, at most `seconds`.
    pub fn finish(mut self, seconds: u64) {
        let status = self.wait_for(seconds);
        let Some(status) = status else { panic!("{} did not end within {seconds} s", self.role) };
        assert!(status.success(), "{} failed: {status}, signal {:?}", self.role, status.signal());
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// Has this process killed in so many nanoseconds, by SIGKILL from a timer: wherever it is then.
pub fn die_in(nanoseconds: u64) {
    // SAFETY: zeros are a sigevent, an itimerspec and a timer's number.
    let (mut event, mut time, mut timer): (libc::sigevent, libc::itimerspec, libc::timer_t) =
        unsafe { (std::mem::zeroed(), std::mem::zeroed(), std::mem::zeroed()) };
    event.sigev_notify = libc::SIGEV_SIGNAL;
    event.sigev_signo = libc::SIGKILL;
    // Zero would never end.
    time.it_value.tv_nsec = nanoseconds.max(1) as libc::c_long;
    // SAFETY: all three are places of their kinds.
    let set = unsafe {
        libc::timer_create(libc::CLOCK_MONOTONIC, &mut event, &mut timer) == 0
            && libc::timer_settime(timer, 0, &time, std::ptr::null_mut()) == 0
    };
    assert!(set, "{}", std::io::Error::last_os_error());
}

/// Plays the role that the parent asked for; returns at once when there is no parent.
pub fn enter(roles: &[(&str, Role)]) {
    let Ok(role) = std::env::var(ROLE) else { return };
    let args = std::env::var(ARGS).unwrap_or_default();
    let args: Vec<String> = args.split('\x1f').map(str::to_string).collect();
    let (_, play) = roles.iter().find(|(name, _)| *name == role).expect("a known role");
    // SAFETY: the parent gave the socket as descriptor 0, and nothing else here uses it.
    let mut link = Link(unsafe { UnixStream::from_raw_fd(0) });
    play(&mut link, &args);
    std::process::exit(0);
}
