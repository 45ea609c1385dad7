//! The safe Rust API and the C ABI of plib.
