//! The floor `ipc`: memory, rings, waiting, links and the runtime directory, without anything that is built on them.

mod link;
mod ring;
mod runtime;
mod segments;
mod spinning;
mod waiting;

/// Reports that a test did not run, past the test harness, which shows the output of failed tests only.
fn skip(test: &str, why: &str) {
    use std::io::Write;
    let _ = writeln!(std::io::stderr(), "SKIPPED {test}: {why}");
}
