//! Programs that a user of plib would write.
//!
//! | program | what it shows |
//! | --- | --- |
//! | `src/bin/hello.rs` | the Rust API in a page |
//! | `src/bin/file_cache/` | real files cached for several processes, while one of them is killed |
//! | `c/hello.c` | the C library, found by pkg-config |
//! | `python/hello.py` | the C library from Python, by ctypes |
