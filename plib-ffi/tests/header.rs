//! The committed plib.h is what cbindgen makes of the sources.

use std::fs;
use std::path::Path;

/// The files of src/c in the order of the header.
const ORDER: [&str; 10] = ["status", "options", "handle", "item", "batch", "scan", "stats", "info", "check", "sweep"];

#[test]
fn the_committed_header_is_the_generated_one() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let config = cbindgen::Config::from_file(root.join("cbindgen.toml")).expect("cbindgen.toml");
    let mut files: Vec<_> = fs::read_dir(root.join("src/c"))
        .expect("src/c")
        .map(|entry| entry.expect("an entry").file_name().into_string().expect("UTF-8"))
        .filter(|name| name != "mod.rs")
        .collect();
    files.sort();
    let mut listed = ORDER.map(|name| format!("{name}.rs"));
    listed.sort();
    assert_eq!(files, listed, "each file of src/c has its place in ORDER");
    let builder = ORDER.iter().fold(cbindgen::Builder::new().with_config(config), |builder, name| {
        builder.with_src(root.join(format!("src/c/{name}.rs")))
    });
    let mut generated = Vec::new();
    builder.generate().expect("cbindgen").write(&mut generated);
    // Rust's heading for what the caller must see to says little to a C programmer.
    let generated = String::from_utf8(generated).expect("UTF-8").replace("// # Safety\n", "// Requires:\n");
    let path = root.join("include/plib.h");
    if std::env::var_os("PLIB_UPDATE_HEADER").is_some() {
        fs::write(&path, &generated).expect("write plib.h");
    }
    let committed = fs::read_to_string(&path).unwrap_or_default();
    let first = generated.lines().zip(committed.lines()).position(|(g, c)| g != c);
    assert!(
        generated == committed,
        "include/plib.h is not what the sources say (first difference in line {:?}); \
         run PLIB_UPDATE_HEADER=1 cargo test -p plib-ffi --test header",
        first.map(|n| n + 1)
    );
}
