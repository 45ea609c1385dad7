//! What happens in the middle of a launch: calls that fail, signals, deaths, attacks.

use crate::natural::{NOBODY, errors, own, start};
use crate::start::SLOW;
use std::fs;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

pub fn a_call_that_fails_ends_the_program_with_its_name() {
    let output = start(&["--work", "fail"], &["nothing"]).output().expect("run");
    let wanted = "open(a file of root's) in the new program: No such file or directory";
    assert!(output.status.code() == Some(125) && errors(&output).contains(wanted), "{output:?}");
    assert_eq!(errors(&output).lines().count(), 1, "{output:?}");
    eprintln!("trouble: one line, exit code 125");
}

/// A launch in the middle of its work.
fn in_the_middle(what: &str) -> Child {
    let mut command = start(&["--work", "slow"], &[what]);
    let child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("run");
    let deadline = Instant::now() + SLOW / 2;
    while !has_roots_file(child.id()) {
        assert!(Instant::now() < deadline, "the work has not begun");
        std::thread::sleep(Duration::from_millis(2));
    }
    child
}

/// Whether the work's file is open in it: then it is in the middle.
fn has_roots_file(pid: u32) -> bool {
    let descriptors = fs::read_dir(format!("/proc/{pid}/fd"));
    descriptors.is_ok_and(|all| all.flatten().any(|e| fs::read_link(e.path()).is_ok_and(|to| to.ends_with("shadow"))))
}

fn tracer_of(pid: u32) -> i32 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).expect("status");
    let line = status.lines().find_map(|line| line.strip_prefix("TracerPid:")).expect("TracerPid");
    line.trim().parse().expect("a number")
}

fn kill(pid: i32, signal: i32) {
    // SAFETY: takes numbers.
    assert_eq!(unsafe { libc::kill(pid, signal) }, 0, "kill {pid}");
}

/// Waits until there is no such process.
fn gone(pid: i32) {
    let deadline = Instant::now() + Duration::from_secs(10);
    // SAFETY: asks only.
    while unsafe { libc::kill(pid, 0) } == 0 {
        assert!(Instant::now() < deadline, "process {pid} is still there");
        std::thread::sleep(Duration::from_millis(5));
    }
}

pub fn signals_meanwhile_are_not_lost() {
    for signal in [libc::SIGTERM, libc::SIGINT, libc::SIGRTMIN() + 3] {
        let mut child = in_the_middle("sleep");
        kill(child.id() as i32, signal);
        assert_eq!(child.wait().expect("wait").signal(), Some(signal));
    }
    // One that is ignored does nothing.
    let mut child = in_the_middle("nothing");
    kill(child.id() as i32, libc::SIGWINCH);
    assert_eq!(child.wait().expect("wait").code(), Some(0));
    eprintln!("trouble: 4 signals");
}

fn state_of(pid: u32) -> char {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).expect("stat");
    stat.rsplit(") ").next().and_then(|rest| rest.chars().next()).expect("a state")
}

pub fn a_program_stopped_meanwhile_stays_stopped() {
    let mut child = in_the_middle("nothing");
    kill(child.id() as i32, libc::SIGSTOP);
    let tracer = tracer_of(child.id());
    gone(tracer);
    std::thread::sleep(Duration::from_millis(100));
    assert_eq!(state_of(child.id()), 'T');
    kill(child.id() as i32, libc::SIGCONT);
    assert_eq!(child.wait().expect("wait").code(), Some(0));
    eprintln!("trouble: stopped, continued");
}

pub fn a_program_killed_meanwhile_takes_its_tracer_along() {
    let mut child = in_the_middle("sleep");
    let tracer = tracer_of(child.id());
    kill(child.id() as i32, libc::SIGKILL);
    let status = child.wait().expect("wait");
    assert_eq!(status.signal(), Some(libc::SIGKILL));
    gone(tracer);
    eprintln!("trouble: program killed, tracer gone");
}

pub fn a_tracer_killed_takes_its_program_along() {
    let mut child = in_the_middle("sleep");
    kill(tracer_of(child.id()), libc::SIGKILL);
    assert_eq!(child.wait().expect("wait").signal(), Some(libc::SIGKILL));
    eprintln!("trouble: tracer killed, program gone");
}

type Attack = (&'static str, fn(i32) -> bool);

/// Ways of a user to get at a process: whether each succeeds.
const ATTACKS: [Attack; 5] = [
    ("ptrace", |pid| {
        // SAFETY: takes numbers; what was attached to is let go of when the attacker ends.
        unsafe { libc::ptrace(libc::PTRACE_SEIZE, pid, 0, 0) == 0 }
    }),
    ("/proc/PID/mem", |pid| fs::File::open(format!("/proc/{pid}/mem")).is_ok()),
    ("/proc/PID/maps", |pid| fs::read_to_string(format!("/proc/{pid}/maps")).is_ok_and(|text| !text.is_empty())),
    ("/proc/PID/fd", |pid| (0..20).any(|fd| fs::read_link(format!("/proc/{pid}/fd/{fd}")).is_ok())),
    ("pidfd_getfd", |pid| {
        // SAFETY: take numbers.
        unsafe {
            let process = libc::syscall(libc::SYS_pidfd_open, pid, 0);
            (0..20).any(|fd| libc::syscall(libc::SYS_pidfd_getfd, process, fd, 0) >= 0)
        }
    }),
];

/// Which of the attacks succeed, made by nobody in a process of its own.
fn attacks_on(pid: u32) -> Vec<&'static str> {
    let succeeds = |attack: &fn(i32) -> bool| {
        // SAFETY: this process has one thread.
        match unsafe { libc::fork() } {
            0 => {
                // SAFETY: system calls with numbers, and the child's end.
                unsafe {
                    let nobody = libc::setgroups(0, std::ptr::null()) | libc::setgid(NOBODY) | libc::setuid(NOBODY);
                    libc::_exit(if nobody != 0 { 2 } else { i32::from(attack(pid as i32)) })
                }
            }
            child => {
                let mut status = 0;
                // SAFETY: the status is a variable of ours.
                unsafe { libc::waitpid(child, &raw mut status, 0) };
                assert!(libc::WEXITSTATUS(status) < 2, "cannot be nobody");
                libc::WEXITSTATUS(status) == 1
            }
        }
    };
    ATTACKS.iter().filter(|(_, attack)| succeeds(attack)).map(|(name, _)| *name).collect()
}

pub fn nobody_of_the_same_user_gets_at_it_meanwhile() {
    // The twin: a process of the same user that nothing protects.
    let mut victim = Command::new(own()).args(["report", "sleep"]).uid(NOBODY).gid(NOBODY).spawn().expect("run");
    std::thread::sleep(Duration::from_millis(300));
    let open = attacks_on(victim.id());
    kill(victim.id() as i32, libc::SIGKILL);
    victim.wait().expect("wait");
    assert_eq!(open, ATTACKS.map(|(name, _)| name), "on a process that is not protected");
    // It is dumpable by now, as every program is that was just executed, and has a file of root's open.
    let mut child = in_the_middle("nothing");
    let against_program = attacks_on(child.id());
    let against_tracer = attacks_on(tracer_of(child.id()) as u32);
    assert_eq!(child.wait().expect("wait").code(), Some(0));
    assert!(against_program.is_empty() && against_tracer.is_empty(), "{against_program:?} {against_tracer:?}");
    eprintln!("trouble: {} attacks on the new program, as many on the tracer", ATTACKS.len());
}

pub fn a_process_that_is_traced_already_is_refused() {
    let mut command = start(&[], &["nothing"]);
    // SAFETY: takes numbers: its parent traces it, and is told of the program that it executes.
    unsafe {
        command.pre_exec(|| {
            libc::ptrace(libc::PTRACE_TRACEME, 0, 0, 0);
            Ok(())
        });
    }
    let child = command.stderr(Stdio::piped()).spawn().expect("run");
    let mut status = 0;
    // SAFETY: as above; the status is a variable of ours.
    unsafe {
        assert_eq!(libc::waitpid(child.id() as i32, &raw mut status, 0), child.id() as i32);
        libc::ptrace(libc::PTRACE_CONT, child.id(), 0, 0);
    }
    let output = child.wait_with_output().expect("wait");
    assert!(output.status.code() == Some(125) && errors(&output).contains("strace or a debugger"), "{output:?}");
    eprintln!("trouble: refused under a tracer");
}
