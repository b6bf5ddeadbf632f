//! Links the program with nothing but itself: no start files, no libraries, no dynamic linker.

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    for argument in ["-nostartfiles", "-nodefaultlibs", "-static", "-no-pie", "-Wl,--no-undefined"] {
        println!("cargo::rustc-link-arg-bins={argument}");
    }
}
