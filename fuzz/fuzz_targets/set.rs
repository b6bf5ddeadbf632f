//! A whole client against a server over shared memory, in single steps, and a member that writes whatever it likes.
#![no_main]

#[allow(dead_code)]
#[path = "../../vdi-server-sim/tests/laws/set/mod.rs"]
mod set;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    set::set(bytes);
});
