//! Any calls of a client, any observations, any events of a device whose server is not to be trusted: the tables' laws,
//! and the machine beside its model.
#![no_main]

#[path = "../../vdi-proto/tests/laws/mod.rs"]
mod laws;
#[path = "../steps.rs"]
mod steps;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    laws::calls::client_calls(&steps::decoded(bytes));
});
