//! Any text as a statement of Transact-SQL: what is taken keeps the rules and is read again; what is refused has a place.
#![no_main]

#[allow(dead_code)]
#[path = "../../vdi-server-sim/tests/laws/statement.rs"]
mod statement;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    statement::statement(bytes);
});
