//! Waits with and without a spin window. It is read once a process, so each window has one of its own: this test again, with
//! `VDI_SPIN_US` and what is expected of it in its environment.

use std::cell::Cell;
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use vdi_shm::doorbell::Doorbell;
use vdi_shm::wait::{self, DEFAULT_SPIN, SLICE};

const PATIENCE: Duration = Duration::from_secs(60);

/// In a process of its own: the microseconds that its waits are to spin.
const EXPECTED: &str = "VDI_TEST_SPIN_US";

/// Looks of a wait that only sleeps: one before and one after each sleep, and sleeps end early only by chance.
const FEW: u32 = 30;
/// Looks that one that spins takes within a few microseconds.
const MANY: u32 = 1000;

#[test]
fn waits_spin_for_as_long_as_the_variable_says() {
    if let Ok(expected) = std::env::var(EXPECTED) {
        let expected = Duration::from_micros(expected.parse().expect("a number"));
        assert_eq!(wait::spin(), expected);
        if expected.is_zero() {
            without_spinning()
        } else {
            spinning(expected)
        }
        return;
    }
    let one_cpu = std::thread::available_parallelism().is_ok_and(|cpus| cpus.get() == 1);
    let default = DEFAULT_SPIN.as_micros();
    for (set, expected) in
        [(Some("0"), 0), (None, default), (Some(""), default), (Some("-1"), default), (Some("1000000"), 1_000_000)]
    {
        let mut process = Command::new(std::env::current_exe().expect("this binary"));
        process.args(["waits_spin_for_as_long_as_the_variable_says", "--exact", "--nocapture"]);
        process.env_remove("VDI_SPIN_US").envs(set.map(|us| ("VDI_SPIN_US", us)));
        process.env(EXPECTED, if one_cpu { 0 } else { expected }.to_string());
        let output = process.output().expect("this binary runs");
        let said = String::from_utf8_lossy(&output.stdout);
        assert!(said.contains("running 1 test"), "{said}");
        assert!(output.status.success(), "{set:?}: {said}{}", String::from_utf8_lossy(&output.stderr));
    }
}

/// What is there is found without a wait, whatever the window.
fn what_is_there(doorbell: &Doorbell) {
    let looks = Cell::new(0);
    let there = || {
        looks.set(looks.get() + 1);
        Some(7)
    };
    assert_eq!((wait::wait_until(doorbell, None, there), looks.get()), (Some(7), 1));
    assert_eq!((wait::wait_until(doorbell, wait::deadline(Duration::ZERO), there), looks.get()), (Some(7), 2));
}

fn without_spinning() {
    let doorbell = Doorbell::new();
    what_is_there(&doorbell);
    // There is not even a brief look: whoever does not spin has a sleep to go to.
    assert!(!wait::briefly(|| panic!("a look")));
    // The looks of a wait are those around its sleeps.
    let (begun, mut looks) = (Instant::now(), 0);
    let nothing = wait::wait_until(&doorbell, wait::deadline(Duration::from_millis(50)), || {
        looks += 1;
        (looks == MANY).then_some(())
    });
    assert_eq!(nothing, None, "after {looks} looks");
    assert!((3..FEW).contains(&looks) && begun.elapsed() >= Duration::from_millis(50), "{looks} looks");
    // Two threads hand a number back and forth; each wait would take a slice if its wake-up were lost.
    const ROUNDS: u32 = 200;
    let (numbers, doorbells) = ([AtomicU32::new(0), AtomicU32::new(0)], [Doorbell::new(), Doorbell::new()]);
    let say = |to: usize, number| {
        numbers[to].store(number, Ordering::Release);
        wait::ring(&doorbells[to]);
    };
    let hear = |at: usize, number| {
        let heard = || (numbers[at].load(Ordering::Acquire) == number).then_some(());
        assert_eq!(wait::wait_until(&doorbells[at], wait::deadline(PATIENCE), heard), Some(()));
    };
    let begun = Instant::now();
    std::thread::scope(|scope| {
        scope.spawn(|| {
            for round in 1..=ROUNDS {
                hear(1, round);
                say(0, round);
            }
        });
        for round in 1..=ROUNDS {
            say(1, round);
            hear(0, round);
        }
    });
    assert!(begun.elapsed() < SLICE * ROUNDS / 20, "{:?}: wake-ups were lost", begun.elapsed());
}

fn spinning(window: Duration) {
    let doorbell = Doorbell::new();
    what_is_there(&doorbell);
    // A brief look is more than one, and ends with what it finds, or soon.
    let looks = Cell::new(0);
    let at = |found: u32| {
        looks.set(0);
        wait::briefly(|| {
            looks.set(looks.get() + 1);
            looks.get() == found
        })
    };
    assert_eq!((at(1), looks.get()), (true, 1));
    assert_eq!((at(5), looks.get()), (true, 5));
    assert!(!at(MANY) && (5..MANY).contains(&looks.get()), "{} looks", looks.get());
    // Nobody rings, so a wait that did not spin would need a slice for each look or two.
    if window >= Duration::from_secs(1) {
        let mut looks = 0;
        let found = wait::wait_until(&doorbell, wait::deadline(PATIENCE), || {
            looks += 1;
            (looks == MANY).then_some(())
        });
        assert_eq!(found, Some(()), "after {looks} looks");
    }
}
