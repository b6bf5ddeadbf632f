//! What goes over the pipes between a primary and its workers: records, however the pipe cuts them.
#![no_main]

#[allow(dead_code)]
#[path = "../../vdi-client/tests/laws/worker.rs"]
mod worker;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    worker::worker(bytes);
});
