//! Any packet: decoding is total, and what decodes encodes to exactly the same bytes.
#![no_main]

#[path = "../../vdi-proto/tests/laws/mod.rs"]
mod laws;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    laws::bytes::join_message(bytes);
});
