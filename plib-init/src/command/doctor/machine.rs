//! CPU, kernel, pages.

use std::ffi::CStr;
use std::{fs, io};

use plib::ProtectionKeys;

use super::Check;

/// The oldest kernel with everything that plib uses: MADV_WIPEONFORK (4.14), membarrier's GLOBAL_EXPEDITED (4.16).
const KERNEL_NEEDED: (u32, u32) = (4, 16);

pub(super) fn checks() -> Vec<Check> {
    vec![cpu(), protection_keys(), kernel(), sealing_check(), membarrier(), pid_namespace(), reserved_huge_pages()]
}

fn cpu() -> Check {
    let info = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let field = |name: &str| info.lines().find(|line| line.starts_with(name)).and_then(|line| line.split_once(": "));
    let model = field("model name").map_or("unknown", |(_, model)| model).to_owned();
    let count = std::thread::available_parallelism().map_or(1, usize::from);
    let has_pairs = field("flags").is_some_and(|(_, flags)| flags.split(' ').any(|flag| flag == "cx16"));
    let found = format!("{model}, {count} usable");
    if has_pairs {
        Check::ok("cpu", found)
    } else {
        Check::problem("cpu", found, "no cmpxchg16b, which plib needs: use a newer x86-64 machine")
    }
}

/// What the processor and the kernel say of protection keys, in words.
pub(super) const fn describe(keys: ProtectionKeys) -> &'static str {
    match keys {
        ProtectionKeys::On(_) => "protection keys (PKU) are on",
        ProtectionKeys::Off => "the CPU has protection keys (PKU), the kernel has them off",
        ProtectionKeys::Absent => "this CPU has no protection keys (PKU)",
    }
}

fn protection_keys() -> Check {
    let what = "protection keys";
    let keys = ProtectionKeys::detect();
    let found = describe(keys);
    match keys {
        ProtectionKeys::On(_) => match free_keys() {
            Ok(0) => Check::note(what, format!("{found}; this process has none left"), "something gave all 15 away before: start plib without it"),
            Ok(count) => Check::ok(what, format!("{found}; {count} of 15 are free")),
            Err(e) => Check::note(what, format!("{found}; pkey_alloc: {e}"), "use a container policy (seccomp) that lets pkey_alloc(2), pkey_mprotect(2) and pkey_free(2) through"),
        },
        ProtectionKeys::Off => Check::note(what, found, "remove `nopku` from the kernel's command line and restart (the kernel needs CONFIG_X86_INTEL_MEMORY_PROTECTION_KEYS)")
            .fix("grep -o nopku /proc/cmdline"),
        ProtectionKeys::Absent => Check::note(what, found, "only isolation 'none' can be had on it (Intel since Skylake-SP, AMD since Zen 3; a virtual machine must pass them on)"),
    }
}

/// How many keys this process could have: takes them all and gives them back.
fn free_keys() -> io::Result<usize> {
    const DISABLE_ACCESS: libc::c_int = 1;
    let mut taken = Vec::new();
    let refused = loop {
        // SAFETY: takes two numbers; no page carries a key that was free.
        match unsafe { libc::syscall(libc::SYS_pkey_alloc, 0, DISABLE_ACCESS) } {
            key if key > 0 => taken.push(key),
            _ => break io::Error::last_os_error(),
        }
    };
    for key in &taken {
        // SAFETY: the key was taken above and no page got it.
        unsafe { libc::syscall(libc::SYS_pkey_free, *key) };
    }
    if refused.raw_os_error() == Some(libc::ENOSPC) { Ok(taken.len()) } else { Err(refused) }
}

/// The oldest kernel that isolation 'sealed' will stand on.
pub(super) const KERNEL_SEALED: (u32, u32) = (6, 12);

/// Whether mappings can be sealed (mseal, Linux 6.10): sealing no bytes at all succeeds where it is known.
pub(super) fn sealing() -> io::Result<()> {
    const SYS_MSEAL: libc::c_long = 462;
    // SAFETY: of length 0 it touches no mapping.
    match unsafe { libc::syscall(SYS_MSEAL, 0, 0, 0) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

fn sealing_check() -> Check {
    let what = "sealing";
    match sealing() {
        Ok(()) => Check::ok(what, "mappings can be sealed (mseal)"),
        Err(e) if e.raw_os_error() == Some(libc::ENOSYS) => {
            Check::note(what, "no mseal", "isolation 'sealed' will seal mappings, which Linux 6.10 and newer can")
        }
        Err(e) => {
            Check::note(what, format!("mseal: {e}"), "use a container policy (seccomp) that lets mseal(2) through")
        }
    }
}

/// Major and minor version of the running kernel.
pub(super) fn kernel_version() -> (u32, u32) {
    parse_version(&kernel_release())
}

fn parse_version(release: &str) -> (u32, u32) {
    let mut numbers = release.split(|c: char| !c.is_ascii_digit()).map(|n| n.parse().unwrap_or(0));
    (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0))
}

fn kernel_release() -> String {
    // SAFETY: utsname is plain bytes, for which zeros are a value.
    let mut name: libc::utsname = unsafe { std::mem::zeroed() };
    // SAFETY: uname writes into the structure that it is given and nowhere else.
    if unsafe { libc::uname(&mut name) } != 0 {
        return String::new();
    }
    // SAFETY: uname ended the string with a zero byte within the array, which lives as long as the borrow.
    unsafe { CStr::from_ptr(name.release.as_ptr()) }.to_string_lossy().into_owned()
}

fn kernel() -> Check {
    let release = kernel_release();
    let (major, minor) = KERNEL_NEEDED;
    if parse_version(&release) < KERNEL_NEEDED {
        return Check::problem("kernel", release, format!("Linux {major}.{minor} or newer is needed"));
    }
    if kernel_version() < KERNEL_SEALED {
        return Check::note("kernel", format!("Linux {release}"), "isolation 'sealed' will need Linux 6.12 or newer");
    }
    Check::ok("kernel", format!("Linux {release}"))
}

fn membarrier() -> Check {
    // linux/membarrier.h
    const QUERY: libc::c_int = 0;
    const GLOBAL_EXPEDITED: libc::c_long = 1 << 1;
    const REGISTER_GLOBAL_EXPEDITED: libc::c_long = 1 << 2;
    // SAFETY: the query takes two numbers and answers with one.
    let offered = unsafe { libc::syscall(libc::SYS_membarrier, QUERY, 0) };
    let needed = GLOBAL_EXPEDITED | REGISTER_GLOBAL_EXPEDITED;
    if offered >= 0 && offered & needed == needed {
        return Check::ok("membarrier", "global expedited");
    }
    let advice = "plib moves memory between sizes with it: use a kernel with CONFIG_MEMBARRIER, and a container policy (seccomp) that lets membarrier(2) through";
    Check::problem("membarrier", "not to be had", advice)
}

/// The inode of the first pid namespace (linux/proc_ns.h, PROC_PID_INIT_INO).
const FIRST_PID_NAMESPACE: u64 = 0xefff_fffc;

/// Whose processes `plib sweep` can tell and kill.
fn pid_namespace() -> Check {
    use std::os::unix::fs::MetadataExt;
    let seen = fs::metadata("/proc/self/ns/pid").map(|namespace| namespace.ino());
    let advice = "`plib sweep` here kills frozen clients of this container alone; run it on the host for all of them";
    match seen {
        Ok(FIRST_PID_NAMESPACE) => Check::ok("pid namespace", "the machine's own"),
        Ok(inode) => Check::note("pid namespace", format!("a container's ({inode})"), advice),
        Err(e) => Check::note(
            "pid namespace",
            format!("not known: /proc/self/ns/pid: {e}"),
            "mount /proc; without it vanished threads of other processes are not found dead, and `plib sweep` kills nobody",
        ),
    }
}

/// The number after `name:` in /proc/meminfo.
fn meminfo(text: &str, name: &str) -> u64 {
    let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
    line.and_then(|rest| rest.split_ascii_whitespace().next()?.parse().ok()).unwrap_or(0)
}

fn reserved_huge_pages() -> Check {
    let info = fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let (free, total) = (meminfo(&info, "HugePages_Free"), meminfo(&info, "HugePages_Total"));
    let found = match total {
        0 => "none reserved (not needed)".to_owned(),
        _ => format!("{free} of {total} free, {} KiB each", meminfo(&info, "Hugepagesize")),
    };
    Check::ok("huge pages (hugetlbfs)", found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kernel_versions() {
        assert_eq!(parse_version("6.18.44-fc-v657"), (6, 18));
        assert_eq!(parse_version("4.9"), (4, 9));
        assert_eq!(parse_version(""), (0, 0));
    }

    #[test]
    fn system_files() {
        assert_eq!(meminfo("HugePages_Total:      12\nHugePages_Free:        7\n", "HugePages_Free"), 7);
    }
}
