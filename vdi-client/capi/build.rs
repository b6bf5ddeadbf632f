//! How the shared library is linked.

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    // Programs load the library by this name, not by the path that it had when they were linked.
    println!("cargo::rustc-cdylib-link-arg=-Wl,-soname,libvdi_c.so");
    // A set has a thread of its own: its code must not be unmapped by dlclose.
    println!("cargo::rustc-cdylib-link-arg=-Wl,-z,nodelete");
}
