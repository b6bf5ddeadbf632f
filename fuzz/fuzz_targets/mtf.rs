//! Any bytes as a backup in the Microsoft Tape Format: parsed the same however they are cut, and written as they were.
#![no_main]

#[allow(dead_code)]
#[path = "../../vdi-server-sim/mtf/tests/laws/mtf.rs"]
mod law;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    law::mtf(bytes);
});
