//! Helpers of the integration tests: a test folder that is checked for leftovers, child processes with a role, and clients.
//!
//! Every wait is for a condition, and fails with a message after [`TEST_TIMEOUT`].
// No test binary uses all of it.
#![allow(dead_code)]

pub(crate) mod behaviour;
pub(crate) mod bench;
pub(crate) mod checked;
pub(crate) mod client;
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

/// The limit of every wait.
pub(crate) const TEST_TIMEOUT: Duration = Duration::from_secs(30);

/// Polls a condition until it is `Ok`. Used where no event reports the condition.
#[track_caller]
pub(crate) fn eventually(what: &str, mut condition: impl FnMut() -> Result<(), String>) {
    let deadline = Instant::now() + TEST_TIMEOUT;
    loop {
        match condition() {
            Ok(()) => return,
            Err(found) if Instant::now() > deadline => panic!("waited {TEST_TIMEOUT:?} for this: {what}; but {found}"),
            // Leaves the CPU to other threads. No result depends on the interval.
            Err(_) => std::thread::sleep(Duration::from_millis(1)),
        }
    }
}

/// The monotonic clock in nanoseconds. All processes of the machine share it.
pub(crate) fn now_ns() -> u64 {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
    time.tv_sec as u64 * 1_000_000_000 + time.tv_nsec as u64
}

/// The number in an environment variable, `default` without it. It sets the size of a random test.
pub(crate) fn number(variable: &str, default: u64) -> u64 {
    match std::env::var(variable) {
        Ok(text) => text.parse().unwrap_or_else(|_| panic!("{variable}={text:?} is no number")),
        Err(_) => default,
    }
}
