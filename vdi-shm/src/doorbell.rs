//! Doorbells: how one process wakes another that sleeps until something is published.
//!
//! A doorbell is one shared 32-bit word, an *eventcount*: bit 0 says that somebody sleeps or is about to (armed), the
//! other bits count the rings that woke somebody.
//!
//! # Protocol
//!
//! ```text
//! publisher                         sleeper
//! 1 publish (a ring entry, a flag)  1 arm: make the word odd, remember it
//! 2 fence                           2 fence
//! 3 look: is the word odd?          3 look: was it published?  yes -> do not sleep
//! 4 then make it even, wake all     4 sleep while the word is the remembered one
//! ```
//!
//! # Invariants
//!
//! 1. *No lost wake-up.* The two fences are sequentially consistent: either the publisher's look sees the word armed, or
//!    the sleeper's look sees what was published. In the first case the word changes, so the sleep ends or does not begin.
//! 2. *No needless wake-up.* While nobody is armed, ringing is a fence and a load, without a system call.
//! 3. Several may sleep on one doorbell. A ring wakes all; an armed word counts for all of them, and each remembers the
//!    word that it armed or found armed. After a ring the word never has that value again (until 2^31 rings later).
//!
//! 4. *A ring can be cut short.* Whoever dies after changing the word and before waking leaves sleepers behind that no ring
//!    would wake. What must reach them at once, an abort above all, is told by [`Doorbell::alarm`], which always wakes.
//!
//! A member that writes into the word can keep others awake, or asleep until their next slice ends
//! ([`crate::wait::SLICE`]): sleeping is always bounded. The loom tests check 1, 3 and 4 over all interleavings.

use core::time::Duration;

use crate::atomics::{AtomicU32, Ordering, fence, in_order, step, try_in_order};

/// Sleeping on a word, and waking those who do. The operating system's futex, or a stand-in for model checks.
pub trait Futex {
    /// Sleeps while `word` is `expected`, at most for `timeout`. May return early for no reason.
    fn wait(&self, word: &Word, expected: u32, timeout: Duration);
    /// Wakes all who sleep on `word`.
    fn wake_all(&self, word: &Word);
}

/// The word that a doorbell is made of: `core`'s atomic, or loom's in model checks.
pub type Word = AtomicU32;

/// A doorbell, alone in its cache line. All zeros is a doorbell that nobody waits on.
#[derive(Debug, Default)]
#[repr(C, align(64))]
pub struct Doorbell {
    word: AtomicU32,
}

/// How often to try to arm. Honest sleepers fail when others arm or ring at the same moment; one who fails so often that a
/// member floods the word goes to sleep without, and wakes with its slice.
const ARM_TRIES: u32 = 1000;

/// The armed word that a sleeper remembers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Armed(u32);

impl Doorbell {
    /// A doorbell in ordinary memory, for tests and for use between threads.
    #[must_use]
    pub fn new() -> Self {
        Doorbell { word: AtomicU32::new(0) }
    }

    /// Wakes whoever sleeps, or is about to, after something was published.
    #[inline]
    pub fn ring(&self, futex: &impl Futex) {
        // SYNC doorbell.ring: pairs with doorbell.arm.
        fence("doorbell.ring", Ordering::SeqCst);
        let word = self.word.load(Ordering::Relaxed);
        if word & 1 == 1 {
            self.answer(word, futex);
        }
    }

    #[cold]
    fn answer(&self, word: u32, futex: &impl Futex) {
        // If this fails another ring has answered, and whoever armed the word since then sees what was published.
        let change = || {
            let mut changed = Ok(word);
            step("doorbell.answer.change", || {
                let even = word.wrapping_add(1);
                changed = self.word.compare_exchange(word, even, Ordering::Relaxed, Ordering::Relaxed);
            });
            changed
        };
        let wake = || step("doorbell.answer.wake", || futex.wake_all(&self.word));
        let _ = try_in_order("doorbell.answer.change-wake", change, wake);
    }

    /// Wakes whoever sleeps, or is about to, also those whom an interrupted ring left asleep. Always a system call.
    #[cold]
    pub fn alarm(&self, futex: &impl Futex) {
        // SYNC doorbell.alarm: pairs with doorbell.arm.
        fence("doorbell.alarm", Ordering::SeqCst);
        let change = || {
            let word = self.word.load(Ordering::Relaxed);
            if word & 1 == 1 {
                // Those who are about to sleep find another word than the one that they remember. If this fails, they do
                // already.
                let even = word.wrapping_add(1);
                let _ = self.word.compare_exchange(word, even, Ordering::Relaxed, Ordering::Relaxed);
            }
        };
        let wake = || step("doorbell.alarm.wake", || futex.wake_all(&self.word));
        in_order("doorbell.alarm.change-wake", || step("doorbell.alarm.change", change), wake);
    }

    /// Arms the doorbell. Afterwards look once more for what you wait for, then [`Doorbell::sleep`].
    pub fn arm(&self) -> Armed {
        let mut word = self.word.load(Ordering::Relaxed);
        for _ in 0..ARM_TRIES {
            if word & 1 == 1 {
                break;
            }
            match self.word.compare_exchange(word, word | 1, Ordering::Relaxed, Ordering::Relaxed) {
                Ok(_) => word |= 1,
                Err(found) => word = found,
            }
        }
        // SYNC doorbell.arm: pairs with doorbell.ring and doorbell.alarm.
        fence("doorbell.arm", Ordering::SeqCst);
        Armed(word)
    }

    /// One round of a wait: arms, looks whether there is something by now, else sleeps, at most for `timeout`, and looks
    /// again.
    pub fn wait<T>(&self, timeout: Duration, futex: &impl Futex, mut ready: impl FnMut() -> Option<T>) -> Option<T> {
        let (armed, found) = in_order("doorbell.wait.arm-look", || self.arm(), &mut ready);
        if found.is_some() {
            return found;
        }
        self.sleep(armed, timeout, futex);
        ready()
    }

    /// Sleeps until the doorbell is rung, at most for `timeout`; may return early.
    pub fn sleep(&self, armed: Armed, timeout: Duration, futex: &impl Futex) {
        futex.wait(&self.word, armed.0, timeout);
    }
}
