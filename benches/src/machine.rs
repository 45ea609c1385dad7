//! The machine under the measurements: what it is, which cores are ours, and whether others used them.

use std::{fs, mem, time::Instant};

use serde::Serialize;

use crate::failure::{Failure, Result};

/// What the figures were measured on.
#[derive(Clone, Debug, Serialize)]
pub struct Machine {
    /// The processor's own name.
    pub processor: String,
    /// Cores that this process may use.
    pub cores: Vec<usize>,
    /// The kernel's release.
    pub kernel: String,
    /// Bytes of memory that were available at the start.
    pub memory_available: u64,
    /// The kernel's setting for huge pages in shared memory.
    pub shmem_huge_pages: String,
}

impl Machine {
    /// Looks at this machine.
    pub fn look() -> Result<Self> {
        Ok(Self {
            processor: proc_field("/proc/cpuinfo", "model name").unwrap_or_else(|| "unknown".into()),
            cores: allowed_cores()?,
            kernel: read_trimmed("/proc/sys/kernel/osrelease"),
            memory_available: memory_available(),
            shmem_huge_pages: chosen(&read_trimmed("/sys/kernel/mm/transparent_hugepage/shmem_enabled")),
        })
    }

    /// The core for all that runs on one core: the last, as interrupts tend to go to the first.
    pub fn core(&self) -> usize {
        self.cores.last().copied().unwrap_or(0)
    }
}

/// Bytes of memory that can be had without swapping.
pub fn memory_available() -> u64 {
    proc_field("/proc/meminfo", "MemAvailable")
        .and_then(|text| text.split(' ').next()?.parse::<u64>().ok())
        .map_or(0, |kib| kib * 1024)
}

fn read_trimmed(path: &str) -> String {
    fs::read_to_string(path).map_or_else(|_| "unknown".into(), |text| text.trim().to_owned())
}

/// The word in brackets of a kernel setting such as `always [never]`.
fn chosen(setting: &str) -> String {
    let word = setting.split_once('[').and_then(|(_, rest)| rest.split_once(']'));
    word.map_or_else(|| setting.to_owned(), |(word, _)| word.to_owned())
}

/// The first value of `name: value` in a file of such lines.
fn proc_field(path: &str, name: &str) -> Option<String> {
    let text = fs::read_to_string(path).ok()?;
    let line = text.lines().find(|line| line.starts_with(name))?;
    Some(line.split_once(':')?.1.trim().to_owned())
}

fn allowed_cores() -> Result<Vec<usize>> {
    // SAFETY: an all-zero cpu_set_t is a valid, empty set.
    let mut set: libc::cpu_set_t = unsafe { mem::zeroed() };
    // SAFETY: the set is ours and its size is passed; pid 0 is this thread.
    let rc = unsafe { libc::sched_getaffinity(0, mem::size_of::<libc::cpu_set_t>(), &mut set) };
    if rc != 0 {
        return Err(Failure::new(format!("sched_getaffinity: {}", std::io::Error::last_os_error())));
    }
    // SAFETY: every index is below CPU_SETSIZE, the size of the set.
    Ok((0..libc::CPU_SETSIZE as usize).filter(|&core| unsafe { libc::CPU_ISSET(core, &set) }).collect())
}

/// Pins the calling thread to one core. Makes one system call and allocates nothing, so that a child may
/// call it between fork and exec.
pub fn pin(core: usize) -> std::io::Result<()> {
    // SAFETY: an all-zero cpu_set_t is a valid, empty set.
    let mut set: libc::cpu_set_t = unsafe { mem::zeroed() };
    // SAFETY: `core` came from the allowed set, so it is below CPU_SETSIZE.
    unsafe { libc::CPU_SET(core, &mut set) };
    // SAFETY: the set is ours and its size is passed; pid 0 is this thread.
    let rc = unsafe { libc::sched_setaffinity(0, mem::size_of::<libc::cpu_set_t>(), &set) };
    if rc == 0 { Ok(()) } else { Err(std::io::Error::last_os_error()) }
}

/// Processor time that this thread has used, in seconds.
pub fn thread_cpu_seconds() -> f64 {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: the timespec is ours; the clock exists on every Linux.
    unsafe { libc::clock_gettime(libc::CLOCK_THREAD_CPUTIME_ID, &mut time) };
    time.tv_sec as f64 + time.tv_nsec as f64 / 1e9
}

/// Measures by the processor time of this thread: the same as the clock's on a quiet machine, and blind to
/// other programs that take the core away for a while. Only for work that never sleeps.
pub struct Work(f64);

impl Work {
    /// From now on.
    pub fn start() -> Self {
        Self(thread_cpu_seconds())
    }

    /// Seconds of work since the start.
    pub fn seconds(&self) -> f64 {
        thread_cpu_seconds() - self.0
    }
}

/// Tells whether something else used our core: processor time falls behind the clock then.
pub struct Quiet {
    wall: Instant,
    cpu: f64,
}

impl Quiet {
    /// From now on.
    pub fn start() -> Self {
        Self { wall: Instant::now(), cpu: thread_cpu_seconds() }
    }

    /// The part of the time since the start in which this thread ran, 0 to 1.
    pub fn share(&self) -> f64 {
        let wall = self.wall.elapsed().as_secs_f64();
        ((thread_cpu_seconds() - self.cpu) / wall).min(1.0)
    }
}
