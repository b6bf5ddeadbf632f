//! Sets `cfg(fuzzing)`, which makes the shared laws derive `Arbitrary`, also where not cargo-fuzz builds (the test).

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rustc-cfg=fuzzing");
}
