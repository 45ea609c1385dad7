//! The trusted image: `plib-core` with its gate as a shared object that stands alone. It is the only code that ever runs with the
//! protection key open, and all of it is here: no libc, no table of the program's that it calls through, no thread-local
//! storage, nothing writable but the table of signal handlers, which it only jumps to when the key is closed.
//!
//! `plib-ffi/build.rs` builds it and puts it into the library as bytes; tests read what was built (`plib-ffi/tests/image.rs`).
//! The library maps it for isolation `guarded`, and `plib run` for the program that it starts.
#![no_std]

#[cfg(test)]
extern crate std;

pub mod memory;

use plib_core::gate::{CONSTANTS, HANDLERS, ImageTable, enter, on_signal};

/// What the mapper looks for. Read while the library is built, and by nobody later.
#[used]
#[cfg_attr(plib_image, unsafe(no_mangle))]
pub static PLIB_IMAGE: ImageTable = ImageTable::new(enter, on_signal, &HANDLERS, &CONSTANTS);

/// Never called: the core has no panic path, which `plib-core/tests/freestanding.rs` shows. The compiler wants one all the same.
#[cfg(plib_image)]
#[panic_handler]
fn on_panic(_: &core::panic::PanicInfo<'_>) -> ! {
    // SAFETY: ends the process.
    unsafe { core::arch::asm!("ud2", options(noreturn)) }
}
