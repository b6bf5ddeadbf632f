//! Any key, number and slot word: the codec is a bijection, and only handles of what is lent are mapped.
#![no_main]

#[path = "../../vdi-proto/tests/laws/mod.rs"]
mod laws;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    laws::bytes::handle(bytes);
});
