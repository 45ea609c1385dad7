//! plib: one memcached-like cache, shared by the processes of a machine that run its code themselves.
//!
//! A *heap* is a file that all of them map; there is no server. [`Cache`] is a handle on one heap. It is cheap to
//! clone, works from any number of threads, and goes on working in a forked child.
//!
//! ```
//! use plib::{Cache, CreateOptions};
//! # let dir = std::env::temp_dir().join(format!("plib-doc-lib-{}", std::process::id()));
//! # std::fs::create_dir_all(&dir)?;
//! # let name = dir.join("sessions");
//! // A name without '/' is looked up in $PLIB_DIR (default /dev/shm/plib); one with '/' is a path.
//! let cache = Cache::create(&name, &CreateOptions::new(16 << 20))?;
//! cache.set(b"user:17", b"Ada", 0, 60)?; // flags 0, expires in 60 seconds
//! let item = cache.get(b"user:17")?.expect("just stored");
//! assert_eq!(item.value, b"Ada");
//!
//! // Any other process of this user may now do:
//! let other = Cache::open(&name)?;
//! assert!(other.delete(b"user:17")?);
//! assert!(cache.get(b"user:17")?.is_none());
//! # Cache::destroy(&name)?;
//! # std::fs::remove_dir_all(&dir)?;
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! # Keys, values, times
//! Keys are 1 to 250 bytes, any bytes. Values are up to the heap's `item_size_max` less 32 bytes of header and the key.
//! `exptime` is memcached's: 0 never expires, negative is expired already, up to 30 days is relative to now, and
//! anything larger is an absolute unix time in seconds. cas values are unique in a heap's life.
//!
//! # What each module does
//! | module | what it holds |
//! | --- | --- |
//! | `cache`, `batch`, `scan`, `info` | the Rust API |
//! | `sweep`, `watch` | finding owners that are frozen, and what is done about them |
//! | `c` | the C ABI, `plib.h` |
//! | `name`, `create`, `draft`, `attach`, `kept` | heap files: where they are, how one is made, mapped, and found again |
//! | `liveness`, `lock_file` | the lock by which others see that this process lives, and the file that it may be in |
//! | `world`, `claim`, `handle` | what a process knows of its open heaps, and its threads of their op contexts |
//! | `stack`, `quiet` | what signal handlers and cancellation may do to a thread, and may not |
//! | `image` | the trusted image, which alone runs with the protection key open |
//! | `launch` | what `plib run` puts into a program, for both sides |
//! | `protection`, `signals`, `probe` | the protection key and the vault behind it; signal handlers that come during a call; policies that kill |
//! | `process`, `other_process`, `mapping`, `pages`, `room` | the operating system |
#![warn(missing_docs)]

mod attach;
mod batch;
mod c;
mod cache;
mod claim;
mod create;
mod draft;
mod error;
mod handle;
#[doc(hidden)]
pub mod image;
mod info;
mod kept;
#[doc(hidden)]
pub mod launch;
mod liveness;
mod lock_file;
mod mapping;
mod name;
mod other_process;
mod pages;
mod probe;
mod process;
mod protection;
mod quiet;
mod room;
mod scan;
mod signals;
mod stack;
mod sweep;
mod watch;
mod world;

pub use batch::GetInto;
pub use cache::{Cache, Item, OpenOptions};
pub use create::CreateOptions;
pub use error::Error;
pub use info::{CheckReport, HeapInfo};
pub use plib_core::domain::{Isolation, ProtectionKeys};
pub use plib_core::layout::{
    CLASSES, HEAP_SIZE_MAX, HEAP_SIZE_MIN, ITEM_HEADER, ITEM_SIZE_MAX_DEFAULT, ITEM_SIZE_MAX_LIMIT, KEY_MAX,
};
#[cfg(feature = "mutants")]
pub use plib_core::mutant;
pub use plib_core::{CheckSummary, ClassStats, ClientInfo, Finding, ItemInfo, Stats, Status};
pub use scan::{Entry, Scan};
pub use sweep::{Fate, FrozenOwner, ProcessInfo, SweepPolicy, SweepReport, Sweeper};
