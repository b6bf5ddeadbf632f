//! Any file as a tape image: it is opened where it is whole, and does what a list of its blocks and marks does.
#![no_main]

#[allow(dead_code)]
#[path = "../../vdi-client/tests/laws/tape.rs"]
mod tape;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    tape::tape(bytes);
});
