//! Any client and server: what is agreed follows from what was asked and offered, and the client takes just that.
#![no_main]

#[path = "../../vdi-proto/tests/laws/mod.rs"]
mod laws;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    laws::bytes::config(bytes);
});
