//! How the shared library is linked.

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    if std::env::var("CARGO_CFG_TARGET_OS").is_ok_and(|os| os == "linux") {
        // Programs load the library by this name, not by the path that it had when they were linked.
        println!("cargo::rustc-link-arg-cdylib=-Wl,-soname,libsqlvdi.so");
        // dlclose must not unmap code that threads and destructors of the program still run.
        println!("cargo::rustc-link-arg-cdylib=-Wl,-z,nodelete");
    }
}
