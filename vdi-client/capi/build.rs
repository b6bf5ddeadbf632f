//! How the shared library is linked.

/// The version of the binary interface. A change that breaks a program which was linked before raises it: in `vdi_c.h`, a function
/// or a field that goes or gets another meaning. A new function does not.
const ABI: u32 = 0;

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    // Programs load the library by this name, not by the path that it had when they were linked.
    println!("cargo::rustc-cdylib-link-arg=-Wl,-soname,libvdi_c.so.{ABI}");
    // A set has a thread of its own: its code must not be unmapped by dlclose.
    println!("cargo::rustc-cdylib-link-arg=-Wl,-z,nodelete");
}
