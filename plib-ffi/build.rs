//! Gives the C library its soname, so that programs linked today go on with any later 0.x that keeps the ABI.

fn main() {
    println!("cargo:rustc-cdylib-link-arg=-Wl,-soname,libplib.so.0");
    println!("cargo:rerun-if-changed=build.rs");
}
