//! What the integration tests share: a place to work in that is checked for leftovers afterwards, processes that take the
//! parts of a set, and a client that does what a well-behaved one does.
//!
//! Nothing here waits for time to pass: every wait is for a condition, and fails with a message after [`PATIENCE`].
// Each test binary uses a part of this.
#![allow(dead_code)]

pub(crate) mod bench;
pub(crate) mod checked;
pub(crate) mod client;
pub(crate) mod conduct;
pub(crate) mod databases;
pub(crate) mod examples;
pub(crate) mod families;
pub(crate) mod native;
pub(crate) mod processes;
pub(crate) mod real;
pub(crate) mod recorder;
pub(crate) mod server;
pub(crate) mod targets;
pub(crate) mod tasks;

use std::time::{Duration, Instant};

/// How long anything may take that should take moments.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

/// Waits for a condition that nobody announces, by looking again and again.
#[track_caller]
pub(crate) fn eventually(what: &str, mut condition: impl FnMut() -> Result<(), String>) {
    let deadline = Instant::now() + PATIENCE;
    loop {
        match condition() {
            Ok(()) => return,
            Err(found) if Instant::now() > deadline => panic!("waited {PATIENCE:?} for this: {what}; but {found}"),
            // Leaves the processor to those who are waited for; nothing depends on how long.
            Err(_) => std::thread::sleep(Duration::from_millis(1)),
        }
    }
}

/// The clock that all processes of the machine share, in nanoseconds.
pub(crate) fn now_ns() -> u64 {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
    time.tv_sec as u64 * 1_000_000_000 + time.tv_nsec as u64
}

/// How much a random test does: the number in an environment variable, `otherwise` without it.
pub(crate) fn number(variable: &str, otherwise: u64) -> u64 {
    match std::env::var(variable) {
        Ok(text) => text.parse().unwrap_or_else(|_| panic!("{variable}={text:?} is no number")),
        Err(_) => otherwise,
    }
}
