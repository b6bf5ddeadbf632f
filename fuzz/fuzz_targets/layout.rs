//! Any identity and place: judged as wider arithmetic judges them; buffers laid out by the stride lie apart.
#![no_main]

#[path = "../../vdi-proto/tests/laws/mod.rs"]
mod laws;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    laws::bytes::layout(bytes);
});
