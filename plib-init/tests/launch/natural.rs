//! A program that was launched is what it would be if it had been started directly.

use crate::start::TEXT;
use std::io::{self, Read};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::process::{Command, Output, Stdio};

/// A user with no rights that is on every machine.
pub const NOBODY: u32 = 65534;

/// This program.
pub fn own() -> String {
    std::env::current_exe().expect("own path").to_str().expect("in UTF-8").to_owned()
}

/// `start` with these arguments, of the program `report` with those.
pub fn start(options: &[&str], report: &[&str]) -> Command {
    let mut command = Command::new(own());
    command.args(["start", "--user", "nobody"]).args(options).args(["--", &own(), "report"]).args(report);
    command
}

/// What it printed; it must have ended well.
pub fn said(command: &mut Command) -> String {
    let output = command.output().expect("run");
    assert!(output.status.success(), "{output:?}");
    String::from_utf8(output.stdout).expect("text")
}

pub fn errors(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// Things to be kept: ignored and blocked signals, umask, a descriptor, a limit, a directory.
fn unusual(command: &mut Command) -> &mut Command {
    let set = || {
        // SAFETY: system calls on values of ours, in a child before it executes a program.
        unsafe {
            libc::signal(libc::SIGHUP, libc::SIG_IGN);
            libc::signal(libc::SIGPIPE, libc::SIG_IGN);
            libc::signal(libc::SIGCHLD, libc::SIG_IGN);
            let mut blocked: libc::sigset_t = std::mem::zeroed();
            for signal in [libc::SIGCHLD, libc::SIGUSR1, libc::SIGRTMIN()] {
                libc::sigaddset(&raw mut blocked, signal);
            }
            libc::sigprocmask(libc::SIG_SETMASK, &raw const blocked, std::ptr::null_mut());
            libc::umask(0o027);
            libc::dup2(2, 9);
            let limit = libc::rlimit { rlim_cur: 77, rlim_max: 99 };
            libc::setrlimit(libc::RLIMIT_NOFILE, &raw const limit);
        }
        Ok::<(), io::Error>(())
    };
    command.current_dir("/usr").env("COLOUR", "blue").stdin(Stdio::null());
    // SAFETY: `set` allocates nothing.
    unsafe { command.pre_exec(set) }
}

pub fn a_program_is_what_it_is_when_started_directly() {
    let seen = ["all", "with space", "", "--env", "x=y"];
    let launched = said(unusual(&mut start(&[], &seen)));
    let mut directly = Command::new(own());
    let become_nobody = || {
        // SAFETY: system calls with values of ours. The groups are what the system's tables give nobody.
        match unsafe { (libc::setgroups(1, &NOBODY), libc::setgid(NOBODY), libc::setuid(NOBODY)) } {
            (0, 0, 0) => Ok(()),
            _ => Err(io::Error::last_os_error()),
        }
    };
    // SAFETY: `become_nobody` allocates nothing.
    unsafe { unusual(&mut directly).pre_exec(become_nobody) };
    let directly = said(directly.arg("report").args(seen));
    let (a, b): (Vec<&str>, Vec<&str>) = (launched.lines().collect(), directly.lines().collect());
    assert!(b.len() > 60, "{directly}");
    for (a, b) in a.iter().zip(&b) {
        // The pipe of each has a number of its own.
        assert!(a == b || a.contains("pipe:["), "launched: {a}\ndirectly: {b}");
    }
    assert_eq!(a.len(), b.len(), "{launched}\n{directly}");
    eprintln!("natural: {} lines about a process are the same", a.len());
}

pub fn exit_status_and_signals_reach_the_parent() {
    for status in [0, 1, 7, 125, 255] {
        let ended = start(&[], &["exit", &status.to_string()]).status().expect("run");
        assert_eq!(ended.code(), Some(status));
    }
    let aborted = start(&[], &["abort"]).stderr(Stdio::null()).status().expect("run");
    assert_eq!(aborted.signal(), Some(libc::SIGABRT));
    // The process that was started is the program: its number is the one that signals go to.
    let mut child = start(&[], &["sleep"]).spawn().expect("run");
    std::thread::sleep(std::time::Duration::from_millis(300));
    let command = std::fs::read_to_string(format!("/proc/{}/cmdline", child.id())).expect("cmdline");
    assert!(command.contains("report\0sleep"), "{command:?}");
    // SAFETY: takes numbers.
    unsafe { libc::kill(child.id() as i32, libc::SIGTERM) };
    assert_eq!(child.wait().expect("wait").signal(), Some(libc::SIGTERM));
    eprintln!("natural: 5 exit codes and 2 signals");
}

pub fn what_cannot_be_executed_says_so() {
    let run = |program: &str| {
        let mut command = Command::new(own());
        // Only directories that nobody may search.
        command.args(["start", "--user", "nobody", "--", program]).env("PATH", "/usr/bin:/bin");
        let output = command.output().expect("run");
        (output.status.code(), errors(&output))
    };
    let (code, text) = run("no-such-program");
    assert!(code == Some(127) && text.contains("cannot execute 'no-such-program'"), "{code:?} {text}");
    let (code, text) = run("/usr");
    assert!(code == Some(126) && text.contains("Permission denied"), "{code:?} {text}");
    // CAP_DAC_OVERRIDE goes along, and must not let nobody execute root's programs.
    let place = tempfile::tempdir().expect("a directory");
    let program = place.path().join("roots");
    std::fs::copy("/bin/true", &program).expect("copy");
    let modes = |file: &std::path::Path, mode| {
        std::fs::set_permissions(file, std::os::unix::fs::PermissionsExt::from_mode(mode)).expect("chmod");
    };
    modes(place.path(), 0o755);
    modes(&program, 0o700);
    let (code, text) = run(program.to_str().expect("text"));
    assert!(code == Some(126) && text.contains("Permission denied"), "{code:?} {text}");
    modes(&program, 0o755);
    assert_eq!(run(program.to_str().expect("text")).0, Some(0));
    eprintln!("natural: 127 once, 126 twice");
}

pub fn variables_are_set_and_searched_by() {
    let set = ["--env", "COLOUR=green", "--env", "EMPTY="];
    assert_eq!(said(start(&set, &["variable", "COLOUR"]).env("COLOUR", "blue")), "Some(\"green\")\n");
    assert_eq!(said(&mut start(&set, &["variable", "EMPTY"])), "Some(\"\")\n");
    let found = |options: &[&str]| {
        let mut command = Command::new(own());
        command.args(["start", "--user", "nobody"]).args(options).args(["--", "true"]);
        command.env("PATH", "/nowhere").stderr(Stdio::null()).status().expect("run").code()
    };
    assert_eq!((found(&[]), found(&["--env", "PATH=/usr/bin:/bin"])), (Some(127), Some(0)));
    eprintln!("natural: 4 variables");
}

pub fn work_is_done_before_the_first_instruction() {
    // The twin: without the work there is nothing.
    let without = start(&[], &["page"]).output().expect("run");
    assert_eq!(without.status.signal(), Some(libc::SIGSEGV), "{without:?}");
    let with = said(&mut start(&["--work", "page"], &["page"]));
    assert!(with.starts_with(TEXT) && with.contains("r--p"), "{with}");
    // The same of a program without an interpreter, and of a script.
    let place = tempfile::tempdir().expect("a directory");
    let script = place.path().join("script");
    std::fs::write(&script, format!("#!{} report\n", own())).expect("write");
    let open = |path: &std::path::Path| {
        std::fs::set_permissions(path, std::os::unix::fs::PermissionsExt::from_mode(0o755)).expect("chmod");
    };
    open(place.path());
    open(&script);
    let output = Command::new("sh")
        .args([
            "-c",
            &format!(
                "exec {} start --user nobody --work page -- sh -c 'grep ^{:08x} /proc/self/maps'",
                own(),
                crate::start::PLACE
            ),
        ])
        .output()
        .expect("run");
    // grep is another program, executed by the shell: it has nothing.
    assert_eq!((output.status.code(), output.stdout.len()), (Some(1), 0), "{output:?}");
    eprintln!("natural: a page in a program, none without the work, none in a program's program");
}

pub fn no_child_is_left_to_the_program() {
    let none = format!("waitpid -1 Some({})\n", libc::ECHILD);
    assert_eq!(said(&mut start(&["--work", "page"], &["children"])), none);
    // The same of a process that gets the children of its descendants.
    let mut reaper = start(&["--work", "page"], &["children"]);
    // SAFETY: a system call with numbers.
    unsafe {
        reaper.pre_exec(|| {
            if libc::prctl(libc::PR_SET_CHILD_SUBREAPER, 1) == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
        })
    };
    assert_eq!(said(&mut reaper), none);
    // Nor is anybody left who holds what the program had open.
    let mut child = start(&["--work", "page"], &["nothing"]).stdout(Stdio::piped()).spawn().expect("run");
    child.wait().expect("wait");
    let mut rest = String::new();
    child.stdout.take().expect("a pipe").read_to_string(&mut rest).expect("read");
    eprintln!("natural: no children, also of a subreaper");
}
