//! Any arguments for `sqlcmd`: what is wrong with them is said without repeating a value.
#![no_main]

#[allow(dead_code)]
#[path = "../../vdi-server-sim/tests/laws/options.rs"]
mod options;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    options::options(bytes);
});
