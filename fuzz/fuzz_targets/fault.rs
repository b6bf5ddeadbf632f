//! Any text as a fault of the simulator: what is taken is written as a text that is read as the same.
#![no_main]

#[allow(dead_code)]
#[path = "../../vdi-server-sim/tests/laws/fault.rs"]
mod fault;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    fault::fault(bytes);
});
