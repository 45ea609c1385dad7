//! Whether `plib run` could start a program here.

use std::ffi::CString;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use plib::ProtectionKeys;

use super::{Check, machine};
use crate::run::caller::{Caller, Power};
use crate::run::inject::yama_forbids;

const WHAT: &str = "plib run";

pub(super) fn check(caller: &Caller) -> Check {
    let keys = ProtectionKeys::detect();
    if keys.on().is_none() {
        return Check::note(WHAT, format!("no: {}", machine::describe(keys)), "programs open heaps themselves here");
    }
    if yama_forbids() {
        let advice =
            "`plib run` works on new programs by ptrace; 3 can only be undone by a restart with another setting";
        return Check::note(WHAT, "no: kernel.yama.ptrace_scope is 3", advice).fix("sysctl kernel.yama.ptrace_scope");
    }
    match (caller.power(), caller.is_enough()) {
        (Power::None, _) => not_privileged(),
        (_, false) => {
            let found = "no: CAP_DAC_OVERRIDE or CAP_SYS_PTRACE is missing";
            Check::note(WHAT, found, "give the container, or the file of plib, these capabilities")
        }
        (Power::Root, true) => Check::ok(WHAT, "yes, as root: plib run --user NAME --heap NAME -- PROGRAM"),
        (Power::SetUid, true) => Check::ok(WHAT, "yes: this plib is set-uid"),
        (Power::Capabilities, true) => Check::ok(WHAT, "yes: this plib has capabilities"),
    }
}

/// What keeps the file's bits from having an effect, or that it has none.
fn not_privileged() -> Check {
    let file = std::env::current_exe().unwrap_or_else(|_| PathBuf::from("plib"));
    let shown = file.display();
    let (advice, command) = if no_new_privs() {
        (
            "this process was started with no_new_privs, which `plib run` itself gives to programs: start it elsewhere",
            None,
        )
    } else if is_nosuid(&file) {
        ("its file is on a file system that is mounted nosuid: install it on another", None)
    } else {
        let install = format!("chown root:plib {shown} && chmod 4750 {shown}");
        ("for users of group plib: install it set-uid (docs/launcher.md has the other way), as root", Some(install))
    };
    let check = Check::note(WHAT, format!("no: {shown} gives its user no rights"), advice);
    match command {
        Some(command) => check.fix(command),
        None => check,
    }
}

fn no_new_privs() -> bool {
    fs::read_to_string("/proc/self/status").is_ok_and(|text| text.contains("NoNewPrivs:\t1"))
}

fn is_nosuid(file: &Path) -> bool {
    let Ok(path) = CString::new(file.as_os_str().as_bytes()) else { return false };
    // SAFETY: numbers, of which zeroes are some; the path is a string that ends with zero, and the kernel fills the struct in.
    unsafe {
        let mut system: libc::statvfs = std::mem::zeroed();
        libc::statvfs(path.as_ptr(), &raw mut system) == 0 && system.f_flag & libc::ST_NOSUID != 0
    }
}
