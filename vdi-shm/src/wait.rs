//! Waiting: spin briefly, then sleep on a doorbell, in slices, until something is there or the deadline has passed.
//!
//! # Spinning
//!
//! Spinning pays when the peer answers sooner than a sleep and a wake-up take: a round trip between two that spin takes a
//! fraction of a microsecond, between two that sleep tens of them. The *spin window* ([`spin()`]) is how long a wait spins before
//! it sleeps; the variable `VDI_SPIN_US` sets it for a process.
//!
//! Where the answer never comes within the window, spinning only takes the CPU from those who could answer: the peer on a
//! machine with more to do than CPUs, or anybody while a slow disk or database is waited for. So each thread remembers how its
//! spins ended: after one in vain it lets one wait pass without, then three, seven, at most [`LONGEST_REST`]; one that paid
//! makes it spin each time again. Where no spin ever pays, one wait in 64 spins. The look of a microsecond or two that
//! [`briefly`] takes comes before each wait that makes it, unless waits do not spin at all; after 32 in vain in a row, before one
//! in 32 of them: whoever is always woken from a sleep would only hold up, on a CPU that both share, the one who wakes it.
//!
//! A server that has use for every CPU says so ([`crate::control::Control::want_cpus`]); who waits for a command or a completion
//! of its set does not spin then, [`briefly`] apart.
//!
//! Where this process has one CPU only, nobody could answer meanwhile, so there is no spinning.
//!
//! # Sleeping
//!
//! A sleep is never longer than [`SLICE`]: the loop looks again even when nobody rings, so that neither a lost wake-up nor a
//! hostile member can make a wait endless. Nobody who waits holds anything that others need, and each look is the same few
//! loads, so a loaded machine makes waits slower, and no two of them wait for each other.

use core::cell::Cell;
use core::time::Duration;
use std::sync::OnceLock;
use std::time::Instant;

use crate::doorbell::Doorbell;
use crate::sys::SharedFutex;

/// The longest sleep without a look.
pub const SLICE: Duration = Duration::from_millis(500);

/// How long to spin by default before sleeping, where there is more than one CPU. About what a command takes that both sides
/// have to be woken for.
pub const DEFAULT_SPIN: Duration = Duration::from_micros(100);

/// How many waits in a row pass without spinning at most.
pub const LONGEST_REST: u8 = 63;

/// So many brief looks in a row are taken in vain, and from then on one in so many.
const PATIENCE: u32 = 32;

/// The spin window of this process: `VDI_SPIN_US` microseconds where that is set, else [`DEFAULT_SPIN`]; nothing where the
/// process has a single CPU.
#[must_use]
pub fn spin() -> Duration {
    static SPIN: OnceLock<Duration> = OnceLock::new();
    *SPIN.get_or_init(|| {
        let cpus = std::thread::available_parallelism().map_or(1, usize::from);
        let set = std::env::var("VDI_SPIN_US").ok().and_then(|us| us.parse().ok()).map(Duration::from_micros);
        if cpus > 1 { set.unwrap_or(DEFAULT_SPIN) } else { Duration::ZERO }
    })
}

/// How a thread's spins ended, and so whether the next wait is to spin.
#[derive(Debug, Clone, Copy, Default)]
struct Luck {
    /// Waits that were to pass without spinning after the last spin in vain.
    rest: u8,
    /// Those of them that are still to come.
    left: u8,
}

impl Luck {
    /// Whether a wait that begins now spins.
    fn spins(&mut self) -> bool {
        let rested = self.left == 0;
        self.left = self.left.saturating_sub(1);
        rested
    }

    /// A spin ended: with what was waited for, or in vain.
    fn ended(&mut self, paid: bool) {
        let rest = if paid { 0 } else { (2 * self.rest + 1).min(LONGEST_REST) };
        *self = Luck { rest, left: rest };
    }
}

/// How a thread's brief looks ended, and so whether the next one is taken.
#[derive(Debug, Clone, Copy, Default)]
struct Brief {
    /// Those in vain since the last that found something, and those that were left out.
    in_vain: u32,
}

impl Brief {
    #[inline]
    fn looks(self) -> bool {
        self.in_vain < PATIENCE || self.in_vain.is_multiple_of(PATIENCE)
    }

    #[inline]
    fn ended(self, found: bool) -> Brief {
        Brief { in_vain: if found { 0 } else { self.in_vain.wrapping_add(1) } }
    }
}

thread_local! {
    static BRIEF: Cell<Brief> = const { Cell::new(Brief { in_vain: 0 }) };
    static LUCK: Cell<Luck> = const { Cell::new(Luck { rest: 0, left: 0 }) };
}

/// Changes this thread's luck, unless the thread is ending.
fn with_luck<T>(change: impl FnOnce(&mut Luck) -> T) -> Option<T> {
    LUCK.try_with(|cell| {
        let mut luck = cell.get();
        let result = change(&mut luck);
        cell.set(luck);
        result
    })
    .ok()
}

/// When a wait of `timeout` from now on ends; `None` for never.
#[must_use]
pub fn deadline(timeout: Duration) -> Option<Instant> {
    // Who waits for ever needs no clock.
    if timeout == Duration::MAX { None } else { Instant::now().checked_add(timeout) }
}

/// A monotonic clock that is a few milliseconds coarse, and cheap to read, for what is due now and then.
#[must_use]
pub fn coarse_now() -> Duration {
    crate::sys::coarse_now()
}

/// How often a spinning wait looks between two looks at the clock: a microsecond or two.
const LOOKS: u32 = 32;

/// Spins for a microsecond or two, unless waits do not spin ([`spin()`]) or this thread did so in vain all the time, until
/// something is there; whether it is. Without a look at the clock and at anything else: for whoever is answered sooner than
/// those take, before [`wait_until`] or [`wait_once`].
#[inline]
pub fn briefly(there: impl Fn() -> bool) -> bool {
    if spin().is_zero() {
        return false;
    }
    let before = BRIEF.try_with(Cell::get).unwrap_or_default();
    let found = before.looks() && looks(|| there().then_some(())).is_some();
    if !found || before.in_vain > 0 {
        let _ = BRIEF.try_with(|brief| brief.set(before.ended(found)));
    }
    found
}

#[inline]
fn looks<T>(mut ready: impl FnMut() -> Option<T>) -> Option<T> {
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
    if let Some(found) = spun(spin(), deadline, &mut ready) {
        return Some(found);
    }
    loop {
        let left = slice(deadline);
        if left.is_zero() {
            return ready();
        }
        if let Some(found) = doorbell.wait(left, &SharedFutex, &mut ready) {
            return Some(found);
        }
    }
}

/// Spins, if this wait is to: until something is there, `window` ends, or `deadline` has passed.
fn spun<T>(window: Duration, deadline: Option<Instant>, ready: &mut impl FnMut() -> Option<T>) -> Option<T> {
    if window.is_zero() || with_luck(Luck::spins) != Some(true) {
        return None;
    }
    let found = spin_until(Instant::now() + window, deadline, ready);
    with_luck(|luck| luck.ended(found.is_some()));
    found
}

/// One step of a wait, for whoever has just looked, and looks at more than `ready` does when nothing came: spins for `window`,
/// then sleeps once, and may come back with nothing before `deadline`, but never later than two slices from now on. Without a
/// spin and a deadline no clock is read, and before the sleep it looks once: on a CPU that both sides share, whoever is to
/// answer waits for that sleep.
pub fn wait_once<T>(
    doorbell: &Doorbell,
    window: Duration,
    deadline: Option<Instant>,
    mut ready: impl FnMut() -> Option<T>,
) -> Option<T> {
    if let Some(found) = spun(window.min(SLICE), deadline, &mut ready) {
        return Some(found);
    }
    let left = slice(deadline);
    if left.is_zero() { ready() } else { doorbell.wait(left, &SharedFutex, &mut ready) }
}

/// How long the next sleep of a wait is at most.
fn slice(deadline: Option<Instant>) -> Duration {
    deadline.map_or(SLICE, |deadline| SLICE.min(deadline.saturating_duration_since(Instant::now())))
}

fn spin_until<T>(end: Instant, deadline: Option<Instant>, ready: &mut impl FnMut() -> Option<T>) -> Option<T> {
    let end = deadline.map_or(end, |deadline| deadline.min(end));
    loop {
        if let Some(found) = looks(&mut *ready) {
            return Some(found);
        }
        if Instant::now() >= end {
            return None;
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

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    /// Who waits in vain spins less and less, and not more often than in one of 64 waits; one spin that pays, and the next wait
    /// spins again.
    #[test]
    fn spinning_in_vain_is_given_up_and_tried_again() {
        let mut luck = Luck::default();
        let mut spins = |waits: u32, paid: bool| -> Vec<u32> {
            let spun = (0..waits).filter(|_| {
                let spins = luck.spins();
                if spins {
                    luck.ended(paid);
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

    /// Brief looks that are always in vain are soon rare; one that finds something, and all are taken again.
    #[test]
    fn brief_looks_in_vain_become_rare() {
        let mut brief = Brief::default();
        let mut taken = |waits: u32, finds: bool| {
            let looked = (0..waits).filter(|_| {
                let looks = brief.looks();
                brief = brief.ended(looks && finds);
                looks
            });
            looked.count()
        };
        assert_eq!(taken(PATIENCE, false), PATIENCE as usize, "patience at first");
        assert_eq!(taken(PATIENCE * 100, false), 100, "and then one in so many");
        assert_eq!(
            taken(PATIENCE, true),
            PATIENCE as usize,
            "the next one that is taken finds something, and so do all"
        );
        assert_eq!(taken(PATIENCE, false), PATIENCE as usize, "and from there anew");
    }

    /// What a thread's first wait, in vain, leaves of its luck where it may spin for this long.
    fn luck_after_a_wait(window: Duration) -> u8 {
        let wait = move || {
            let doorbell = Doorbell::default();
            assert_eq!(wait_once(&doorbell, window, deadline(Duration::from_micros(200)), || None::<()>), None);
            with_luck(|luck| luck.rest)
        };
        std::thread::spawn(wait).join().ok().flatten().expect("the thread ended")
    }

    #[test]
    fn a_wait_without_a_window_does_not_spin() {
        assert_eq!(luck_after_a_wait(Duration::ZERO), 0, "no spin ended");
        assert_eq!(luck_after_a_wait(DEFAULT_SPIN), 1, "others spin the first time");
    }
}
