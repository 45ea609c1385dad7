//! The check of a whole heap.

use super::call;
use super::handle::plib_t;
use super::options::{Sized0, caller_size, write};
use super::status::{fail, plib_status_t};
use crate::error::Error;
use plib_core::{CheckSummary, Finding};
use std::ffi::{CString, c_char, c_int, c_void};

/// Something that is not as it should be.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct plib_finding_t {
    /// Which rule does not hold.
    pub kind: *const c_char,
    /// Where: a bucket, block, superblock or context, as the kind says.
    pub place: u64,
    /// What was there.
    pub detail: u64,
    /// 1 if data may be wrong; 0 if something is only lost until it is found again.
    pub severe: c_int,
}

/// What plib_check calls for each finding.
pub type plib_finding_fn = Option<unsafe extern "C" fn(context: *mut c_void, finding: *const plib_finding_t)>;

/// What a check counted. Set `size` before the call.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct plib_check_t {
    /// sizeof(plib_check_t).
    pub size: usize,
    /// Items in the index.
    pub items: u64,
    /// Bytes of their headers, keys and values.
    pub bytes: u64,
    /// Buckets.
    pub buckets: u64,
    /// Free blocks.
    pub free_blocks: u64,
    /// Blocks that operations hold at the moment.
    pub claimed_blocks: u64,
    /// Fragments of large values.
    pub fragments: u64,
    /// Findings.
    pub findings: u64,
    /// Severe ones among them.
    pub severe: u64,
}

// SAFETY: repr(C) of numbers, `size` first.
unsafe impl Sized0 for plib_check_t {
    const FIRST: usize = size_of::<Self>();
}

/// Findings that are kept for the callback; a thoroughly broken heap has millions.
const FINDINGS_MAX: usize = 1000;

/// Checks every invariant of the heap: PLIB_OK, or PLIB_E_DAMAGED if something severe was found. `fn` (may be NULL) is called for
/// the first thousand findings, `out` (may be NULL) gets the counts, both also with PLIB_E_DAMAGED.
///
/// # Safety
/// `fn` does not let an exception or longjmp out; `out` is NULL or as large as its `size` says, and writable.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn plib_check(
    cache: *mut plib_t,
    r#fn: plib_finding_fn,
    context: *mut c_void,
    out: *mut plib_check_t,
) -> plib_status_t {
    let mut findings: Vec<Finding> = Vec::new();
    let mut severe = false;
    let status = call(cache, |inside| {
        if !out.is_null() && !inside.admits(out.cast(), size_of::<plib_check_t>()) {
            return Err(Error::Invalid("out points into the heap"));
        }
        // SAFETY: passed on from the caller.
        let size = if out.is_null() { None } else { Some(unsafe { caller_size(out)? }) };
        let summary = inside.session().check(&mut |finding| {
            if findings.len() < FINDINGS_MAX {
                findings.push(finding);
            }
        });
        let summary = summary.map_err(|status| inside.error(status, 0, 0))?;
        severe = summary.severe > 0;
        if let Some(size) = size {
            // SAFETY: passed on from the caller.
            unsafe { write(&counts(&summary, size), out, size) };
        }
        Ok(())
    });
    if let (plib_status_t::PLIB_OK, Some(call_back)) = (status, r#fn) {
        for finding in &findings {
            let Ok(kind) = CString::new(finding.kind) else { continue };
            let finding = plib_finding_t {
                kind: kind.as_ptr(),
                place: finding.place,
                detail: finding.detail,
                severe: c_int::from(finding.severe),
            };
            // SAFETY: the caller's function; no operation is under way.
            unsafe { call_back(context, &finding) };
        }
    }
    if severe { fail(Error::DamagedWithin) } else { status }
}

fn counts(summary: &CheckSummary, size: usize) -> plib_check_t {
    plib_check_t {
        size,
        items: summary.items,
        bytes: summary.bytes,
        buckets: summary.buckets,
        free_blocks: summary.free_blocks,
        claimed_blocks: summary.claimed_blocks,
        fragments: summary.fragments,
        findings: summary.findings,
        severe: summary.severe,
    }
}
