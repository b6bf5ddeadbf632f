//! The beginning of any file as a foreign library, and any text as the system's list of mappings.
#![no_main]

#[allow(dead_code)]
#[path = "../../vdi-client/tests/laws/library.rs"]
mod library;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    library::library(bytes);
});
