//! Counters.

use super::call;
use super::handle::plib_t;
use super::status::plib_status_t;
use crate::error::Error;
use crate::process;
use crate::quiet::Quiet;
use plib_core::Stats;
use std::ffi::{CString, c_char, c_void};

/// What plib_stats calls for each counter, with memcached's names where it has them.
pub type plib_stat_fn = Option<unsafe extern "C" fn(context: *mut c_void, name: *const c_char, value: *const c_char)>;

/// Calls `fn` for every counter. They are the heap's, of all processes since its creation; `pid` and `time` are the caller's.
///
/// # Safety
/// `fn` does not let an exception or longjmp out.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn plib_stats(cache: *mut plib_t, r#fn: plib_stat_fn, context: *mut c_void) -> plib_status_t {
    let mut stats = Stats::default();
    let status = call(cache, |inside| {
        r#fn.ok_or(Error::Invalid("the function is NULL"))?;
        stats = inside.session().stats().map_err(|status| inside.error(status, 0, 0))?;
        Ok(())
    });
    if let (plib_status_t::PLIB_OK, Some(call_back)) = (status, r#fn) {
        let quiet = Quiet::begin();
        let lines = lines(&stats);
        drop(quiet);
        for (name, value) in lines {
            let (Ok(name), Ok(value)) = (CString::new(name), CString::new(value)) else { continue };
            // SAFETY: the caller's function; no operation is under way.
            unsafe { call_back(context, name.as_ptr(), value.as_ptr()) };
        }
    }
    status
}

/// Names and values in memcached's order of subjects.
fn lines(s: &Stats) -> Vec<(&'static str, String)> {
    let mut lines = vec![
        ("pid", process::process_id().to_string()),
        ("time", process::unix_now().to_string()),
        ("version", env!("CARGO_PKG_VERSION").to_string()),
        ("pointer_size", usize::BITS.to_string()),
    ];
    let numbers = [
        ("curr_connections", s.clients),
        ("cmd_get", s.cmd_get),
        ("cmd_set", s.cmd_set),
        ("cmd_flush", s.cmd_flush),
        ("cmd_touch", s.cmd_touch),
        ("get_hits", s.get_hits),
        ("get_misses", s.get_misses),
        ("get_expired", s.get_expired),
        ("get_flushed", s.get_flushed),
        ("delete_misses", s.delete_misses),
        ("delete_hits", s.delete_hits),
        ("incr_misses", s.incr_misses),
        ("incr_hits", s.incr_hits),
        ("decr_misses", s.decr_misses),
        ("decr_hits", s.decr_hits),
        ("cas_misses", s.cas_misses),
        ("cas_hits", s.cas_hits),
        ("cas_badval", s.cas_badval),
        ("touch_hits", s.touch_hits),
        ("touch_misses", s.touch_misses),
        ("limit_maxbytes", s.limit_maxbytes),
        ("bytes", s.bytes),
        ("curr_items", s.curr_items),
        ("total_items", s.total_items),
        ("evictions", s.evictions),
        ("reclaimed", s.reclaimed),
        ("slabs_moved", s.superblocks_moved),
        // What memcached has no name for.
        ("contexts", s.contexts),
        ("buckets", s.buckets),
        ("splits", s.splits),
        ("chain_evictions", s.chain_evictions),
        ("superblocks", s.superblocks),
        ("superblocks_free", s.superblocks_free),
        ("superblocks_index", s.superblocks_index),
        ("superblocks_chain", s.superblocks_chain),
        ("recovered_contexts", s.recovered_contexts),
        ("locks_taken_over", s.locks_taken_over),
        ("busy", s.busy),
    ];
    lines.extend(numbers.map(|(name, number)| (name, number.to_string())));
    lines
}
