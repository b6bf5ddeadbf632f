//! The backup format: headers, catalogs and checksums of any bytes, and streams that were tampered with.
#![no_main]

#[allow(dead_code)]
#[path = "../../vdi-server-sim/tests/laws/stream.rs"]
mod stream;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    stream::stream(bytes);
});
