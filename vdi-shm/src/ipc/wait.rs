//! Waiting: spin briefly, then sleep on an event count, until something is there or the deadline has passed.
//!
//! # Spinning
//!
//! Spinning pays when the peer answers sooner than a sleep and a wake-up take. The *spin window* ([`spin()`]) is how long a
//! wait spins before it sleeps. The variable `VDI_SPIN_US` sets it for a process, and 0 turns spinning off. A process with one
//! CPU never spins, since nothing could answer meanwhile.
//!
//! A spin in vain takes the CPU from those that could answer. So each thread has a backoff: after a spin in vain it lets one
//! wait pass without a spin, then three, then seven, at most 63. After a spin that paid it spins each time again.
//!
//! The first round of a spin reads no clock and takes a microsecond or two. A caller that needs every CPU passes a window of
//! zero to [`wait_once`]: then a spin is this round only.
//!
//! # Sleeping
//!
//! A sleep is never longer than [`SLICE`]. Then the wait loads again, notified or not. So neither a lost wake-up nor a hostile
//! process can make a wait endless.

use core::cell::Cell;
use core::time::Duration;
use std::sync::OnceLock;
use std::time::Instant;

use crate::ipc::event_count::EventCount;
use crate::ipc::futex::SharedFutex;

/// The longest sleep.
pub const SLICE: Duration = Duration::from_millis(500);

/// The spin window of a process with more than one CPU. About the time of a round trip in which both sides have to be woken.
pub const DEFAULT_SPIN: Duration = Duration::from_micros(100);

/// The most waits in a row that pass without a spin.
const LONGEST_PAUSE: u8 = 63;

/// Calls of `ready` between two readings of the clock: a microsecond or two.
const ROUND: u32 = 32;

/// The spin window of this process: `VDI_SPIN_US` microseconds where that is set, else [`DEFAULT_SPIN`]; zero where the
/// process has one CPU.
#[must_use]
pub fn spin() -> Duration {
    static SPIN: OnceLock<Duration> = OnceLock::new();
    *SPIN.get_or_init(|| {
        let cpus = std::thread::available_parallelism().map_or(1, usize::from);
        let set = std::env::var("VDI_SPIN_US").ok().and_then(|us| us.parse().ok()).map(Duration::from_micros);
        if cpus > 1 { set.unwrap_or(DEFAULT_SPIN) } else { Duration::ZERO }
    })
}

/// Whether the next wait of a thread spins, from how its last spins ended.
#[derive(Debug, Clone, Copy, Default)]
struct SpinBackoff {
    /// Waits without a spin after the last spin.
    pause: u8,
    /// Those of them that are still to come.
    left: u8,
}

thread_local! {
    static BACKOFF: Cell<SpinBackoff> = const { Cell::new(SpinBackoff { pause: 0, left: 0 }) };
}

impl SpinBackoff {
    /// A wait begins; whether it spins.
    fn begin(&mut self) -> bool {
        let spins = self.left == 0;
        self.left = self.left.saturating_sub(1);
        spins
    }

    /// A spin ended: successfully, or in vain.
    fn end(&mut self, paid: bool) {
        self.pause = if paid { 0 } else { (2 * self.pause + 1).min(LONGEST_PAUSE) };
        self.left = self.pause;
    }

    /// Changes the backoff of this thread. A thread that is ending does not spin.
    fn with<T: Default>(change: impl FnOnce(&mut SpinBackoff) -> T) -> T {
        let change = |cell: &Cell<SpinBackoff>| {
            let mut backoff = cell.get();
            let result = change(&mut backoff);
            cell.set(backoff);
            result
        };
        BACKOFF.try_with(change).unwrap_or_default()
    }
}

/// When a wait of `timeout` that begins now ends; `None` for never.
#[must_use]
pub fn deadline(timeout: Duration) -> Option<Instant> {
    // An infinite wait needs no clock.
    if timeout == Duration::MAX { None } else { Instant::now().checked_add(timeout) }
}

/// Waits until `ready` returns something; `None` when `deadline` has passed. Calls `ready` at least once, and once more
/// after the deadline.
pub fn wait_until<T>(
    event_count: &EventCount,
    deadline: Option<Instant>,
    mut ready: impl FnMut() -> Option<T>,
) -> Option<T> {
    if let Some(found) = ready().or_else(|| spin_for(spin(), deadline, &mut ready)) {
        return Some(found);
    }
    loop {
        let left = slice(deadline);
        if left.is_zero() {
            return ready();
        }
        if let Some(found) = event_count.wait(left, &SharedFutex, &mut ready) {
            return Some(found);
        }
    }
}

/// One step of a wait, for a caller that has other work to do between the steps: spins for `window`, then sleeps once. May
/// return `None` before `deadline`; returns at most two slices from now.
///
/// Without a deadline a step that does not spin reads no clock before it sleeps: on a CPU that both sides share, the peer
/// waits for that sleep.
pub fn wait_once<T>(
    event_count: &EventCount,
    window: Duration,
    deadline: Option<Instant>,
    mut ready: impl FnMut() -> Option<T>,
) -> Option<T> {
    if let Some(found) = spin_for(window.min(SLICE), deadline, &mut ready) {
        return Some(found);
    }
    let left = slice(deadline);
    if left.is_zero() { ready() } else { event_count.wait(left, &SharedFutex, &mut ready) }
}

/// Spins, if this wait spins: until something is there, `window` ends, or `deadline` has passed.
fn spin_for<T>(window: Duration, deadline: Option<Instant>, ready: &mut impl FnMut() -> Option<T>) -> Option<T> {
    if spin().is_zero() || !SpinBackoff::with(SpinBackoff::begin) {
        return None;
    }
    let found = spin_round(ready)
        .or_else(|| if window.is_zero() { None } else { spin_until(Instant::now() + window, deadline, ready) });
    SpinBackoff::with(|backoff| backoff.end(found.is_some()));
    found
}

#[inline]
fn spin_round<T>(ready: &mut impl FnMut() -> Option<T>) -> Option<T> {
    (0..ROUND).find_map(|_| {
        core::hint::spin_loop();
        ready()
    })
}

fn spin_until<T>(end: Instant, deadline: Option<Instant>, ready: &mut impl FnMut() -> Option<T>) -> Option<T> {
    let end = deadline.map_or(end, |deadline| deadline.min(end));
    loop {
        if let Some(found) = spin_round(ready) {
            return Some(found);
        }
        if Instant::now() >= end {
            return None;
        }
    }
}

/// How long the next sleep of a wait is at most.
fn slice(deadline: Option<Instant>) -> Duration {
    deadline.map_or(SLICE, |deadline| SLICE.min(deadline.saturating_duration_since(Instant::now())))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Spins in vain become rare, down to one wait in 64. After one that pays each wait spins.
    #[test]
    fn spinning_in_vain_is_given_up_and_tried_again() {
        let mut backoff = SpinBackoff::default();
        let mut spins = |waits: u32, paid: bool| -> Vec<u32> {
            let spun = (0..waits).filter(|_| {
                let spins = backoff.begin();
                if spins {
                    backoff.end(paid);
                }
                spins
            });
            spun.collect()
        };
        assert_eq!(spins(128, false), [0, 2, 6, 14, 30, 62, 126], "twice as long each time");
        assert_eq!(spins(64 * 100, false).len(), 100, "and then each 64th time");
        let until_it_pays = spins(64, true);
        assert_eq!(until_it_pays.last(), Some(&63));
        assert_eq!(spins(10, true).len(), 10, "where it pays, each time");
        assert_eq!(spins(4, false), [0, 2], "and from there anew");
    }

    /// How often a wait of this window calls `ready`, on a thread that has not waited before.
    fn calls_of_a_wait(window: Duration) -> u32 {
        let wait = move || {
            let mut calls = 0;
            let event_count = EventCount::new();
            let found = wait_once(&event_count, window, deadline(Duration::from_millis(5)), || {
                calls += 1;
                None::<()>
            });
            assert_eq!(found, None);
            calls
        };
        std::thread::spawn(wait).join().expect("no panic")
    }

    #[test]
    fn a_window_of_zero_is_one_round() {
        let round = if spin().is_zero() { 0 } else { ROUND };
        // Once before the sleep and once after it; only once where the deadline has passed by then.
        let calls = calls_of_a_wait(Duration::ZERO);
        assert!((round + 1..=round + 2).contains(&calls), "{calls} calls");
        let spun = calls_of_a_wait(Duration::from_millis(1));
        assert!(spin().is_zero() || spun > 2 * ROUND, "{spun} calls");
    }
}
