//! Waits with and without a spin window. The window is read once a process, so each case has a process of its own: this test
//! again, with `VDI_SPIN_US` and the expected window in its environment.

use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use vdi_shm::ipc::event_count::EventCount;
use vdi_shm::ipc::wait::{self, DEFAULT_SPIN, SLICE};

const TEST_TIMEOUT: Duration = Duration::from_secs(60);

/// In a process of its own: the expected window in microseconds.
const EXPECTED: &str = "VDI_TEST_SPIN_US";

/// More calls of `ready` than a wait makes that only sleeps: one before and one after each sleep, and sleeps end early only by
/// chance.
const FEW: u32 = 30;
/// Calls that a spin makes within a few microseconds.
const MANY: u32 = 1000;

#[test]
fn waits_spin_for_as_long_as_the_variable_says() {
    if let Ok(expected) = std::env::var(EXPECTED) {
        let expected = Duration::from_micros(expected.parse().expect("a number"));
        assert_eq!(wait::spin(), expected);
        what_is_there_is_found_at_once();
        if expected.is_zero() {
            without_spinning();
        } else if expected >= Duration::from_secs(1) {
            spinning();
        }
        return;
    }
    let one_cpu = std::thread::available_parallelism().is_ok_and(|cpus| cpus.get() == 1);
    let default = DEFAULT_SPIN.as_micros();
    for (set, expected) in
        [(Some("0"), 0), (None, default), (Some(""), default), (Some("-1"), default), (Some("1000000"), 1_000_000)]
    {
        let mut process = Command::new(std::env::current_exe().expect("this binary"));
        process.args(["spinning::waits_spin_for_as_long_as_the_variable_says", "--exact", "--nocapture"]);
        process.env_remove("VDI_SPIN_US").envs(set.map(|us| ("VDI_SPIN_US", us)));
        process.env(EXPECTED, if one_cpu { 0 } else { expected }.to_string());
        let output = process.output().expect("this binary runs");
        let said = String::from_utf8_lossy(&output.stdout);
        assert!(said.contains("running 1 test"), "{said}");
        assert!(output.status.success(), "{set:?}: {said}{}", String::from_utf8_lossy(&output.stderr));
    }
}

fn what_is_there_is_found_at_once() {
    let event_count = EventCount::new();
    for deadline in [None, wait::deadline(Duration::ZERO)] {
        let mut calls = 0;
        let found = wait::wait_until(&event_count, deadline, || {
            calls += 1;
            Some(7)
        });
        assert_eq!((found, calls), (Some(7), 1));
    }
}

fn without_spinning() {
    let event_count = EventCount::new();
    let (begun, mut calls) = (Instant::now(), 0);
    let nothing = wait::wait_until(&event_count, wait::deadline(Duration::from_millis(50)), || {
        calls += 1;
        (calls == MANY).then_some(())
    });
    assert_eq!(nothing, None, "after {calls} calls");
    assert!((3..FEW).contains(&calls) && begun.elapsed() >= Duration::from_millis(50), "{calls} calls");
    // A caller's own window changes nothing.
    calls = 0;
    let nothing = wait::wait_once(&event_count, SLICE, wait::deadline(Duration::from_millis(50)), || {
        calls += 1;
        None::<()>
    });
    assert_eq!((nothing, calls), (None, 2), "one before the sleep and one after it");
    // Two threads hand a number back and forth; each wait would take a slice if its wake-up were lost.
    const ROUNDS: u32 = 200;
    let (numbers, event_counts) = ([AtomicU32::new(0), AtomicU32::new(0)], [EventCount::new(), EventCount::new()]);
    let publish = |to: usize, number| {
        numbers[to].store(number, Ordering::Release);
        event_counts[to].notify();
    };
    let await_number = |at: usize, number| {
        let published = || (numbers[at].load(Ordering::Acquire) == number).then_some(());
        assert_eq!(wait::wait_until(&event_counts[at], wait::deadline(TEST_TIMEOUT), published), Some(()));
    };
    let begun = Instant::now();
    std::thread::scope(|scope| {
        scope.spawn(|| {
            for round in 1..=ROUNDS {
                await_number(1, round);
                publish(0, round);
            }
        });
        for round in 1..=ROUNDS {
            publish(1, round);
            await_number(0, round);
        }
    });
    assert!(begun.elapsed() < SLICE * ROUNDS / 20, "{:?}: wake-ups were lost", begun.elapsed());
}

/// Nothing notifies, so a wait that did not spin would need a slice for each call or two.
fn spinning() {
    let event_count = EventCount::new();
    let mut calls = 0;
    let found = wait::wait_until(&event_count, wait::deadline(TEST_TIMEOUT), || {
        calls += 1;
        (calls == MANY).then_some(())
    });
    assert_eq!(found, Some(()), "after {calls} calls");
}
