//! What a process may use: memory, address space, file size.

use std::fs;

use super::Check;
use crate::size;

/// Below this a heap of ordinary size does not fit.
const ORDINARY: u64 = 1 << 30;

pub(super) fn checks() -> Vec<Check> {
    let mut checks = vec![memory()];
    checks.extend(cgroup());
    checks.push(limit("file size limit", libc::RLIMIT_FSIZE, "-f", "a heap file cannot be larger"));
    checks.push(limit("address space limit", libc::RLIMIT_AS, "-v", "a heap is mapped as a whole"));
    checks
}

fn memory() -> Check {
    let info = fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let kilobytes = info
        .lines()
        .find_map(|line| line.strip_prefix("MemAvailable:")?.trim().strip_suffix(" kB")?.parse::<u64>().ok());
    let available = kilobytes.unwrap_or(0) << 10;
    let found = format!("{} available", size::format(available));
    if available >= ORDINARY {
        Check::ok("memory", found)
    } else {
        Check::note("memory", found, "a heap in tmpfs takes memory as it is created; choose its --size accordingly")
    }
}

/// The memory limit of this process's control group (cgroup v2), where there is one.
fn cgroup() -> Option<Check> {
    let own = fs::read_to_string("/proc/self/cgroup").ok()?;
    let path = own.lines().find_map(|line| line.strip_prefix("0::"))?;
    let read = |file: &str| {
        fs::read_to_string(format!("/sys/fs/cgroup{}/{file}", path.trim_end_matches('/')))
            .ok()?
            .trim()
            .parse::<u64>()
            .ok()
    };
    let max = read("memory.max")?;
    let left = max.saturating_sub(read("memory.current").unwrap_or(0));
    let found = format!("{} of {} left", size::format(left), size::format(max));
    Some(if left >= ORDINARY {
        Check::ok("cgroup memory", found)
    } else {
        Check::note("cgroup memory", found, "a heap in tmpfs counts against this limit (memory.max)")
    })
}

/// The limit on the size of a file that this process makes, if there is one.
pub(in crate::command) fn file_size() -> Option<u64> {
    current(libc::RLIMIT_FSIZE)
}

fn current(resource: libc::__rlimit_resource_t) -> Option<u64> {
    let mut limits = libc::rlimit { rlim_cur: libc::RLIM_INFINITY, rlim_max: libc::RLIM_INFINITY };
    // SAFETY: getrlimit writes into the structure that it is given; should it fail, there is no limit to be known.
    unsafe { libc::getrlimit(resource, &mut limits) };
    (limits.rlim_cur != libc::RLIM_INFINITY).then_some(limits.rlim_cur)
}

fn limit(what: &'static str, resource: libc::__rlimit_resource_t, flag: &str, why: &str) -> Check {
    match current(resource) {
        None => Check::ok(what, "none"),
        Some(bytes) if bytes >= ORDINARY => Check::ok(what, size::format(bytes)),
        Some(bytes) => Check::problem(what, size::format(bytes), format!("{why}; raise it"))
            .fix(format!("ulimit {flag} unlimited")),
    }
}
