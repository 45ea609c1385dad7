//! The same-node measurements of plib beside memcached and an in-process cache, in one run.
//!
//! Machines differ and are noisy, so nothing here is compared with a figure from elsewhere: every peer is
//! measured in the same run, in rounds that take turns (A B A B), and the median of the rounds is taken.
//!
//! | module | what it measures |
//! | --- | --- |
//! | [`cells`] | one operation, one thread, in process: plib beside quick_cache |
//! | [`trips`] | each operation of plib beside memcached's round trip over a unix socket and TCP |
//! | [`capacity`] | how many items 1 GiB holds, beside `memcached -m 1024` |
//! | [`processes`] | the throughput of two processes beside one |
//! | [`syscalls`] | system calls on the fast path, counted by strace |
//! | [`chase`] | the machine's own dependent-access latency |
//! | [`targets`] | what was to be reached, and whether it was |

pub mod capacity;
pub mod cells;
pub mod chase;
pub mod engine;
pub mod failure;
pub mod heap;
pub mod key;
pub mod machine;
pub mod memcached;
pub mod op;
pub mod order;
pub mod processes;
pub mod progress;
pub mod report;
pub mod rounds;
pub mod settings;
pub mod syscalls;
pub mod targets;
pub mod text;
pub mod trips;
pub mod value;
