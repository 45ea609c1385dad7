//! Sweeping: the dead recovered, frozen owners reported or killed.

use super::call;
use super::handle::plib_t;
use super::options::{Sized0, caller_size, read, write};
use super::status::{fail, plib_status_t};
use crate::error::Error;
use crate::sweep::{Fate, FrozenOwner, SweepPolicy, SweepReport, sweep};
use std::ffi::{c_char, c_int, c_void};
use std::time::Duration;

/// What became of a frozen owner.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum plib_fate_t {
    /// It was reported, as the policy wants.
    PLIB_FATE_REPORTED = 0,
    /// Its process was killed, and what it held was taken back.
    PLIB_FATE_KILLED = 1,
    /// Its process or thread ended by itself, and what it held was taken back.
    PLIB_FATE_GONE = 2,
    /// It went on just before it would have been killed, and was let live.
    PLIB_FATE_RESUMED = 3,
    /// This process may not look at it or may not kill it.
    PLIB_FATE_PERMISSION_DENIED = 4,
    /// No process that can be seen from here is surely the one.
    PLIB_FATE_NOT_FOUND = 5,
    /// It is a thread of this very process.
    PLIB_FATE_THIS_PROCESS = 6,
    /// It is the first process of this pid namespace.
    PLIB_FATE_INIT = 7,
    /// It was killed and is not gone yet: a frozen control group (v1), or a wait in the kernel.
    PLIB_FATE_LINGERS = 8,
    /// The operating system refused; `error` says why.
    PLIB_FATE_FAILED = 9,
}

impl From<Fate> for plib_fate_t {
    fn from(fate: Fate) -> Self {
        match fate {
            Fate::Reported => Self::PLIB_FATE_REPORTED,
            Fate::Killed => Self::PLIB_FATE_KILLED,
            Fate::Gone => Self::PLIB_FATE_GONE,
            Fate::Resumed => Self::PLIB_FATE_RESUMED,
            Fate::PermissionDenied => Self::PLIB_FATE_PERMISSION_DENIED,
            Fate::NotFound => Self::PLIB_FATE_NOT_FOUND,
            Fate::ThisProcess => Self::PLIB_FATE_THIS_PROCESS,
            Fate::Init => Self::PLIB_FATE_INIT,
            Fate::Lingers => Self::PLIB_FATE_LINGERS,
            Fate::Failed(_) => Self::PLIB_FATE_FAILED,
        }
    }
}

/// What a sweep does about frozen owners. Set all to zero, then `size`, then what is wanted.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct plib_sweep_options_t {
    /// sizeof(plib_sweep_options_t).
    pub size: usize,
    /// 1 to kill the processes of frozen owners (SIGKILL) and take back what they held; 0 to report them.
    pub kill: u32,
    /// How long an owner must not have moved at all to count as frozen, in ms; 0 is 2000.
    pub patience_ms: u32,
    /// How long to wait for a killed process to be gone, in ms; 0 is 5000.
    pub wait_ms: u32,
    /// Must be 0.
    pub reserved: u32,
}

/// Bytes of plib_frozen_t.name, with its final zero.
pub const PLIB_PROCESS_NAME_SIZE: usize = 16;

/// A thread that is inside an operation, holds what others wait for, and does not get on.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct plib_frozen_t {
    /// sizeof(plib_frozen_t).
    pub size: usize,
    /// The inode of its pid namespace; 0 if it is not known.
    pub pid_namespace: u64,
    /// How long it has been seen not to move.
    pub still_ms: u64,
    /// Its pid, in its own pid namespace.
    pub pid: u32,
    /// Its thread id there; 0 if it is not known.
    pub thread: u32,
    /// Its pid as it is seen from here; 0 if it is not, and then `uid`, `state` and `name` are 0 too.
    pub pid_here: u32,
    /// Who runs it.
    pub uid: u32,
    /// How many buckets it has locked, 0 to 2; writers of their keys get PLIB_E_BUSY.
    pub buckets: u32,
    /// 1 if it holds the right to reserve for a large value; large stores get PLIB_E_BUSY.
    pub large: u32,
    /// 1 if it is changing the use of a superblock.
    pub superblock: u32,
    /// A plib_fate_t.
    pub fate: u32,
    /// errno for PLIB_FATE_FAILED.
    pub error: c_int,
    /// What its thread does, by the kernel's letter: 'T' stopped, 't' traced, 'S' or 'D' asleep, 'R' runnable.
    pub state: c_char,
    /// The name of its program.
    pub name: [c_char; PLIB_PROCESS_NAME_SIZE],
}

/// What a sweep found and did. Set `size` before the call.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct plib_sweep_report_t {
    /// sizeof(plib_sweep_report_t).
    pub size: usize,
    /// Op contexts of the dead that were recovered.
    pub recovered_contexts: u64,
    /// Frozen owners found.
    pub frozen: u64,
    /// Those among them whose processes were killed and recovered.
    pub killed: u64,
    /// Those for whom others still have to wait.
    pub remaining: u64,
    /// Readers that do not get on; nobody waits for them.
    pub readers: u64,
}

// SAFETY: repr(C) of numbers, `size` first.
unsafe impl Sized0 for plib_sweep_options_t {
    const FIRST: usize = size_of::<Self>();
}
// SAFETY: repr(C) of numbers, `size` first.
unsafe impl Sized0 for plib_sweep_report_t {
    const FIRST: usize = size_of::<Self>();
}

/// What plib_sweep calls for each frozen owner. The struct is gone after the call.
pub type plib_frozen_fn = Option<unsafe extern "C" fn(context: *mut c_void, owner: *const plib_frozen_t)>;

/// Recovers what dead processes and threads held, and looks for owners that are frozen in the middle of an operation: stopped,
/// in a frozen control group, under a debugger, stuck. It takes as long as the patience only if somebody stands still from its
/// first look on. By the options they are reported, or their processes killed; PLIB_OK either way. A client names its process
/// itself: one that lies can have another killed that has the heap mapped for writing. `options` (NULL: report), `fn` and
/// `out` may be NULL. Not for signal handlers.
///
/// # Safety
/// `options` is NULL or as large as its `size` says, `fn` does not let an exception or longjmp out; `out` is NULL or as large
/// as its `size` says, and writable.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn plib_sweep(
    cache: *mut plib_t,
    options: *const plib_sweep_options_t,
    r#fn: plib_frozen_fn,
    context: *mut c_void,
    out: *mut plib_sweep_report_t,
) -> plib_status_t {
    let mut size = None;
    let checked = call(cache, |inside| {
        if !out.is_null() && !inside.admits(out.cast(), size_of::<plib_sweep_report_t>()) {
            return Err(Error::Invalid("out points into the heap"));
        }
        // SAFETY: passed on from the caller.
        size = if out.is_null() { None } else { Some(unsafe { caller_size(out)? }) };
        Ok(())
    });
    if checked != plib_status_t::PLIB_OK {
        return checked;
    }
    // SAFETY: passed on from the caller.
    let report = match unsafe { policy(options) }.and_then(|policy| sweep(cache as u64, &policy)) {
        Ok(report) => report,
        Err(e) => return fail(e),
    };
    if let Some(size) = size {
        // SAFETY: passed on from the caller.
        unsafe { write(&counts(&report, size), out, size) };
    }
    if let Some(call_back) = r#fn {
        for owner in report.frozen.iter().map(one) {
            // SAFETY: the caller's function; no operation is under way.
            unsafe { call_back(context, &owner) };
        }
    }
    plib_status_t::PLIB_OK
}

unsafe fn policy(options: *const plib_sweep_options_t) -> Result<SweepPolicy, Error> {
    if options.is_null() {
        return Ok(SweepPolicy::new());
    }
    // SAFETY: passed on from the caller.
    let given = unsafe { read(options)? };
    let kill = match given {
        plib_sweep_options_t { reserved: 1.., .. } => {
            return Err(Error::Invalid("plib_sweep_options_t.reserved is not 0"));
        }
        plib_sweep_options_t { kill: 0, .. } => false,
        plib_sweep_options_t { kill: 1, .. } => true,
        _ => return Err(Error::Invalid("plib_sweep_options_t.kill is neither 0 nor 1")),
    };
    let mut policy = SweepPolicy::new().kill(kill);
    if given.patience_ms != 0 {
        policy = policy.patience(Duration::from_millis(given.patience_ms.into()));
    }
    if given.wait_ms != 0 {
        policy = policy.wait(Duration::from_millis(given.wait_ms.into()));
    }
    Ok(policy)
}

fn one(owner: &FrozenOwner) -> plib_frozen_t {
    let process = owner.process.as_ref();
    let mut name = [0; PLIB_PROCESS_NAME_SIZE];
    let bytes = process.map_or(&[][..], |process| process.name.as_bytes());
    for (to, from) in name.iter_mut().take(PLIB_PROCESS_NAME_SIZE - 1).zip(bytes) {
        *to = *from as c_char;
    }
    plib_frozen_t {
        size: size_of::<plib_frozen_t>(),
        pid_namespace: owner.pid_namespace,
        still_ms: owner.still_for.as_millis() as u64,
        pid: owner.pid,
        thread: owner.thread.unwrap_or(0),
        pid_here: process.map_or(0, |process| process.pid),
        uid: process.map_or(0, |process| process.uid),
        buckets: owner.buckets.len() as u32,
        large: u32::from(owner.large),
        superblock: u32::from(owner.superblock.is_some()),
        fate: plib_fate_t::from(owner.fate) as u32,
        error: if let Fate::Failed(error) = owner.fate { error } else { 0 },
        state: process.map_or(0, |process| process.state as u8 as c_char),
        name,
    }
}

fn counts(report: &SweepReport, size: usize) -> plib_sweep_report_t {
    let count = |of: fn(&FrozenOwner) -> bool| report.frozen.iter().filter(|owner| of(owner)).count() as u64;
    plib_sweep_report_t {
        size,
        recovered_contexts: report.recovered.into(),
        frozen: report.frozen.len() as u64,
        killed: count(|owner| owner.fate == Fate::Killed),
        remaining: count(|owner| !owner.fate.is_over()),
        readers: report.readers.into(),
    }
}
