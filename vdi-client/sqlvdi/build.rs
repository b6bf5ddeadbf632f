//! Gives the library the name by which programs that were linked to it look for it, and keeps it loaded.

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    if std::env::var("CARGO_CFG_TARGET_OS").is_ok_and(|os| os == "linux") {
        // Without a name, a program that is linked by a path would look for that path.
        println!("cargo::rustc-link-arg-cdylib=-Wl,-soname,libsqlvdi.so");
        // A program that unloads it may still have objects, whose calls and destructors come here, and threads in its calls.
        println!("cargo::rustc-link-arg-cdylib=-Wl,-z,nodelete");
    }
}
