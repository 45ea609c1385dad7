//! The core calls nothing from outside itself: no panic, no allocator, no libc, no thread-local storage. Only the memory
//! functions that the compiler puts in by itself are left, which the image that runs behind a key brings along.
#![cfg(not(loom))]
#![allow(missing_docs, reason = "a test")]

use std::path::Path;
use std::process::Command;

const COMPILERS_OWN: [&str; 5] = ["memcpy", "memmove", "memset", "memcmp", "bcmp"];

#[test]
fn the_optimised_core_needs_no_symbol_but_the_memory_functions() {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/lib.rs");
    let object = std::env::temp_dir().join(format!("plib-core-{}.o", std::process::id()));
    let rustc = std::env::var_os("RUSTC").unwrap_or_else(|| "rustc".into());
    let built = Command::new(rustc)
        .args(["--crate-name=plib_core", "--edition=2024", "--crate-type=rlib", "-Copt-level=3", "-Cpanic=abort"])
        .args(["-Ccodegen-units=1", "--cap-lints=allow", "--emit"])
        .arg(format!("obj={}", object.display()))
        .arg(&source)
        .status()
        .expect("rustc runs");
    assert!(built.success(), "plib-core does not build by itself");
    let symbols = Command::new("nm").arg("--undefined-only").arg(&object).output().expect("nm runs (binutils)");
    std::fs::remove_file(&object).expect("the object was there");
    assert!(symbols.status.success());
    let text = String::from_utf8(symbols.stdout).expect("symbols are text");
    let foreign: Vec<&str> = text
        .lines()
        .filter_map(|line| line.split_whitespace().last())
        .filter(|symbol| !COMPILERS_OWN.contains(symbol))
        .collect();
    assert!(foreign.is_empty(), "the core refers to {foreign:?}");
    // The object holds the operations and not nothing.
    assert!(text.lines().count() > 0);
}
