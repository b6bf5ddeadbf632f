//! Any calls of a server, any events of a device whose client is not to be trusted, and a pair of honest machines: the
//! tables' laws, the machines beside their models, and every command ends exactly once.
#![no_main]

#[path = "../../vdi-proto/tests/laws/mod.rs"]
mod laws;
#[path = "../steps.rs"]
mod steps;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    laws::calls::server_calls(&steps::decoded(bytes));
});
