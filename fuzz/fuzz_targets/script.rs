//! Any text for `sqlcmd`: lines, variables and batches; a batch of one statement is that statement.
#![no_main]

#[allow(dead_code)]
#[path = "../../vdi-server-sim/tests/laws/script.rs"]
mod script;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    script::script(bytes);
});
