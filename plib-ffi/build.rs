//! Gives the C library its soname, so that programs linked today go on with any later 0.x that keeps the ABI.

fn main() {
    println!("cargo:rustc-cdylib-link-arg=-Wl,-soname,libplib.so.0");
    // The kernel knows a function of the library as the program's signal handlers (src/signals.rs): dlclose must leave it there.
    println!("cargo:rustc-cdylib-link-arg=-Wl,-z,nodelete");
    println!("cargo:rerun-if-changed=build.rs");
}
