//! The Rust API in a page: a heap that any number of processes may have open at the same time.
//!
//! Run it in two terminals: `cargo run --release -p plib-examples --bin hello`. The visits go on counting.

use plib::{Cache, CreateOptions, Error};

fn main() -> Result<(), Error> {
    // Whoever comes first creates the heap (in $PLIB_DIR, or /dev/shm/plib); the others open it.
    let cache = match Cache::create("hello", &CreateOptions::new(64 << 20)) {
        Err(Error::AlreadyExists(_)) => Cache::open("hello")?,
        other => other?,
    };

    // A value with flags 0 that expires in a minute.
    cache.set(b"greeting", b"hello from Rust", 0, 60)?;
    if let Some(item) = cache.get(b"greeting")? {
        println!("greeting = {}", String::from_utf8_lossy(&item.value));
    }

    // Counts in one step, whatever other processes do; begins at 1.
    let visits = cache.increment_or(b"visits", 1, 1, 0)?;
    println!("visits = {visits}, by process {}", std::process::id());

    // Many keys with one call: the core asks for all their memory at the same time.
    let found = cache.get_many(&["greeting", "visits", "missing"])?;
    println!("found = {:?}", found.iter().map(Option::is_some).collect::<Vec<_>>());

    println!("the heap {} is still there; remove it with: plib destroy hello", cache.info().path.display());
    Ok(())
}
