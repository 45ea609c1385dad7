//! Whatever a launch was started with, the program has nothing of it.

use crate::natural::{NOBODY, errors, own, said, start};
use crate::start::ROOTS_FILE;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::Command;
use tempfile::TempDir;

/// What a process without privileges says of itself.
fn has_none(text: &str, uid: u32) {
    assert!(text.starts_with("reads root's files: false; can be root: false"), "{text}");
    for name in ["CapInh", "CapPrm", "CapEff", "CapAmb"] {
        assert!(text.contains(&format!("{name}:\t0000000000000000")), "{name}: {text}");
    }
    assert!(text.contains(&format!("Uid:\t{uid}\t{uid}\t{uid}\t{uid}\n")) && text.contains("NoNewPrivs:\t1"), "{text}");
    assert!(text.contains("TracerPid:\t0"), "{text}");
}

pub fn no_privilege_is_left() {
    // The twins: root has them all, and in the middle of the launch the program still opens a file of root's.
    let mut root = Command::new(own());
    assert!(said(root.args(["report", "privileges"])).starts_with("reads root's files: true; can be root: true"));
    let text = said(&mut start(&["--work", "open"], &["privileges"]));
    has_none(&text, NOBODY);
    assert!(text.contains("CapBnd:\t0000000000000000") && text.contains("dumpable: 1"), "{text}");
    has_none(&said(&mut start(&["--work", "page"], &["privileges"])), NOBODY);
    // Not even where the environment would keep them.
    let mut kept = start(&["--work", "open"], &["privileges"]);
    // SAFETY: a system call with numbers: SECBIT_NO_SETUID_FIXUP.
    unsafe {
        kept.pre_exec(|| {
            let done = libc::prctl(libc::PR_SET_SECUREBITS, 1 << 2);
            if done == 0 { Ok(()) } else { Err(std::io::Error::last_os_error()) }
        });
    }
    has_none(&said(&mut kept), NOBODY);
    eprintln!("privileges: none of root's {ROOTS_FILE}, capabilities and users left, 3 ways");
}

/// A copy of this program that everybody may execute.
fn copy() -> (TempDir, PathBuf) {
    let place = TempDir::with_prefix("plib-launch-").expect("a directory");
    let program = place.path().join("launch");
    std::fs::copy(own(), &program).expect("copy");
    std::fs::set_permissions(place.path(), PermissionsExt::from_mode(0o755)).expect("chmod");
    std::fs::set_permissions(&program, PermissionsExt::from_mode(0o755)).expect("chmod");
    (place, program)
}

/// The copy, started by nobody.
fn by_nobody(program: &PathBuf, arguments: &[&str]) -> Command {
    let mut command = Command::new(program);
    command.args(arguments).uid(NOBODY).gid(NOBODY);
    command
}

fn launch_report<'a>(program: &'a str, options: &[&'a str], what: &'a str) -> Vec<&'a str> {
    [&["start"], options, &["--", program, "report", what]].concat()
}

fn make_set_uid(program: &PathBuf) {
    std::fs::set_permissions(program, PermissionsExt::from_mode(0o4755)).expect("chmod");
}

pub fn a_set_uid_file_launches_for_its_user() {
    let (_place, program) = copy();
    let copied = own();
    make_set_uid(&program);
    let run = |options: &[&str]| said(&mut by_nobody(&program, &launch_report(&copied, options, "privileges")));
    has_none(&run(&["--work", "open"]), NOBODY);
    has_none(&run(&["--work", "page"]), NOBODY);
    // What the loader takes from a set-uid program's environment can be given back.
    let mut preload = by_nobody(&program, &launch_report(&copied, &["--env", "LD_PRELOAD=/no/such.so"], "nothing"));
    let output = preload.env("LD_LIBRARY_PATH", "/tmp").output().expect("run");
    assert!(output.status.success() && errors(&output).contains("/no/such.so"), "{output:?}");
    eprintln!("privileges: set-uid, 2 kinds of work and a variable");
}

fn give_capabilities(program: &PathBuf, capabilities: &str) {
    let given = Command::new("setcap").arg(capabilities).arg(program).status();
    assert!(given.is_ok_and(|status| status.success()), "setcap (package libcap2-bin) is needed");
}

pub fn so_does_a_file_with_capabilities() {
    let (_place, program) = copy();
    let copied = own();
    for capabilities in [
        "cap_dac_override,cap_sys_ptrace=p",
        "cap_dac_override,cap_sys_ptrace,cap_setpcap=p",
        "cap_dac_override,cap_sys_ptrace=ep",
    ] {
        give_capabilities(&program, capabilities);
        has_none(&said(&mut by_nobody(&program, &launch_report(&copied, &["--work", "open"], "privileges"))), NOBODY);
    }
    give_capabilities(&program, "cap_dac_override=ep");
    let output = by_nobody(&program, &launch_report(&copied, &[], "nothing")).output().expect("run");
    assert!(output.status.code() == Some(125) && errors(&output).contains("CAP_SYS_PTRACE"), "{output:?}");
    eprintln!("privileges: 3 sets of file capabilities that suffice, 1 that does not");
}

pub fn what_is_put_aside_can_be_given_up_for_good() {
    let (_place, program) = copy();
    make_set_uid(&program);
    let status = by_nobody(&program, &["start", "--give-up"]).status().expect("run");
    assert_eq!(status.code(), Some(0), "root can be had again");
    give_capabilities(&program, "cap_setuid,cap_dac_override,cap_sys_ptrace=ep");
    assert_eq!(by_nobody(&program, &["start", "--give-up"]).status().expect("run").code(), Some(0));
    // The twin, for whom it would be possible.
    let mut root = Command::new(own());
    assert_eq!(root.args(["start", "--give-up"]).status().expect("run").code(), Some(1));
    eprintln!("privileges: given up twice");
}

pub fn without_privileges_it_is_refused() {
    let (_place, program) = copy();
    let copied = own();
    let refused = |command: &mut Command, text: &str| {
        let output = command.output().expect("run");
        assert!(output.status.code() == Some(125) && errors(&output).contains(text), "{output:?}");
    };
    refused(&mut by_nobody(&program, &launch_report(&copied, &[], "nothing")), "neither root nor");
    make_set_uid(&program);
    // A set-uid file that the kernel does not treat as such.
    let mut without = by_nobody(&program, &launch_report(&copied, &[], "nothing"));
    // SAFETY: a system call with numbers.
    unsafe {
        without.pre_exec(|| {
            libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0);
            Ok(())
        })
    };
    refused(&mut without, "neither root nor");
    eprintln!("privileges: refused twice");
}
