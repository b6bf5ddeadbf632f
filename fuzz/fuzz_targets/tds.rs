//! Any bytes of a client of SQL Server's network protocol: understood the same however they are cut, and what is understood can be sent.
#![no_main]

#[allow(dead_code)]
#[path = "../../vdi-server-sim/tds/tests/laws/tds.rs"]
mod law;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    law::tds(bytes);
});
