//! How the shared library is linked.

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    // Programs ask for it by this name, wherever it was when they were linked.
    println!("cargo::rustc-cdylib-link-arg=-Wl,-soname,libvdi_c.so");
    // A set has a thread of its own: its code must not be unmapped by dlclose.
    println!("cargo::rustc-cdylib-link-arg=-Wl,-z,nodelete");
}
