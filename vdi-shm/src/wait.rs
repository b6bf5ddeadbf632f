//! Waiting: spin briefly, then sleep on a doorbell, in slices, until something is there or the deadline has passed.
//!
//! Spinning pays when the peer answers within a few microseconds on another CPU; where there is only one CPU it would
//! keep the peer from running, so there is none. A sleep is never longer than [`SLICE`]: the loop looks again even when
//! nobody rings, so that neither a lost wake-up nor a hostile member can make a wait endless.

use core::time::Duration;
use std::sync::OnceLock;
use std::time::Instant;

use crate::doorbell::Doorbell;
use crate::sys::SharedFutex;

/// The longest sleep without a look.
pub const SLICE: Duration = Duration::from_millis(500);

/// How long to spin by default before sleeping, where there is more than one CPU. About what a sleep and a wake-up cost.
pub const DEFAULT_SPIN: Duration = Duration::from_micros(20);

/// How long waits spin in this process: `VDI_SPIN_US` microseconds where that is set, else [`DEFAULT_SPIN`]; nothing on a
/// single CPU.
#[must_use]
pub fn spin() -> Duration {
    static SPIN: OnceLock<Duration> = OnceLock::new();
    *SPIN.get_or_init(|| {
        let cpus = std::thread::available_parallelism().map_or(1, usize::from);
        let set = std::env::var("VDI_SPIN_US").ok().and_then(|us| us.parse().ok()).map(Duration::from_micros);
        if cpus > 1 { set.unwrap_or(DEFAULT_SPIN) } else { Duration::ZERO }
    })
}

/// When a wait of `timeout` from now on ends; `None` for never.
#[must_use]
pub fn deadline(timeout: Duration) -> Option<Instant> {
    Instant::now().checked_add(timeout)
}

/// How often a spinning wait looks between two looks at the clock: a microsecond or two.
const LOOKS: u32 = 32;

/// Looks, and goes on looking for a microsecond or two unless waits do not spin ([`spin`]), without a look at the clock: for
/// whoever is answered faster than clocks are read. After it comes [`wait_until`].
#[inline]
pub fn briefly<T>(mut ready: impl FnMut() -> Option<T>) -> Option<T> {
    if let Some(found) = ready() {
        return Some(found);
    }
    if spin().is_zero() { None } else { looks(&mut ready) }
}

#[inline]
fn looks<T>(ready: &mut impl FnMut() -> Option<T>) -> Option<T> {
    (0..LOOKS).find_map(|_| {
        core::hint::spin_loop();
        ready()
    })
}

/// Waits until `ready` gives something; `None` when `deadline` has passed. `ready` is called at least once, and once more
/// after the deadline.
pub fn wait_until<T>(
    doorbell: &Doorbell,
    deadline: Option<Instant>,
    mut ready: impl FnMut() -> Option<T>,
) -> Option<T> {
    if let Some(found) = ready() {
        return Some(found);
    }
    let mut now = Instant::now();
    let spin_until = now + spin();
    while now < spin_until && deadline.is_none_or(|deadline| now < deadline) {
        if let Some(found) = looks(&mut ready) {
            return Some(found);
        }
        now = Instant::now();
    }
    loop {
        let left = match deadline {
            None => SLICE,
            Some(deadline) => SLICE.min(deadline.saturating_duration_since(Instant::now())),
        };
        if left.is_zero() {
            return ready();
        }
        if let Some(found) = doorbell.wait(left, &SharedFutex, &mut ready) {
            return Some(found);
        }
    }
}

/// Wakes whoever waits on `doorbell`, whatever became of earlier rings: [`Doorbell::alarm`].
pub fn alarm(doorbell: &Doorbell) {
    doorbell.alarm(&SharedFutex);
}

/// Wakes whoever waits on `doorbell`, after something was published.
#[inline]
pub fn ring(doorbell: &Doorbell) {
    doorbell.ring(&SharedFutex);
}
