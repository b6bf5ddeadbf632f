//! The control segment after any writes, with seals and without: every word is judged as its own rules say.
#![no_main]

#[allow(dead_code)]
#[path = "../../vdi-shm/tests/laws/control.rs"]
mod control;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    control::control(bytes);
});
