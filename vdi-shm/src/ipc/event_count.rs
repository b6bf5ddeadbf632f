//! Event counts: how a process wakes others that sleep until something is published.
//!
//! An event count is one shared 32-bit word. It is odd (*armed*) while a thread sleeps or is about to. Its other bits count
//! the notifications that found it armed.
//!
//! # Protocol
//!
//! ```text
//! notifier                               sleeper
//! 1 publish (a ring entry, a flag)       1 arm: make the word odd, keep its value
//! 2 fence                                2 fence
//! 3 load the word; odd?                  3 load what was published; there? -> do not sleep
//! 4 then make it even, wake all          4 sleep while the word has the kept value
//! ```
//!
//! # Invariants
//!
//! 1. *No lost wake-up.* Both fences are sequentially consistent. So either the notifier sees the word armed, or the sleeper
//!    sees what was published. In the first case the word changes, so the sleep ends or does not begin.
//! 2. *No needless system call.* While nothing sleeps, a notification is a fence and a load.
//! 3. *Any number of sleepers.* A notification wakes all. The word has a kept value again only after 2^31 notifications.
//! 4. *An interrupted notification.* A process that dies after it changed the word and before it woke the sleepers leaves
//!    them asleep. [`EventCount::notify_always`] wakes them too; use it for what must arrive at once.
//!
//! A process that writes into the word on purpose can keep others awake, or asleep until their slice ends
//! ([`crate::ipc::wait::SLICE`]). The loom tests check 1, 3 and 4.

use core::time::Duration;

use crate::ipc::atomics::{AtomicU32, Ordering, fence};
use crate::ipc::futex::Futex;
#[cfg(not(loom))]
use crate::ipc::futex::SharedFutex;
#[cfg(not(loom))]
use crate::ipc::shared_layout::SharedLayout;

/// An event count. It fills a cache line, since its neighbours are other words that are polled (false sharing). All zeros
/// is an event count without a sleeper.
#[derive(Debug, Default)]
#[repr(C, align(64))]
pub struct EventCount {
    word: AtomicU32,
}

// SAFETY: `repr(C)` and an atomic.
#[cfg(not(loom))]
#[allow(unsafe_code)]
unsafe impl SharedLayout for EventCount {}

/// Attempts to arm. An honest sleeper fails only when another one arms or a notifier answers at the same moment. A sleeper
/// that fails this often sleeps unarmed, and wakes when its slice ends.
const ARM_TRIES: u32 = 1000;

/// The value of the word that a sleeper keeps.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Armed(u32);

impl EventCount {
    /// An event count in ordinary memory, for threads of one process.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Wakes the sleepers after something was published.
    #[cfg(not(loom))]
    #[inline]
    pub fn notify(&self) {
        self.notify_with(&SharedFutex);
    }

    /// Wakes the sleepers after something was published, also those that an interrupted notification left asleep. Always a
    /// system call.
    #[cfg(not(loom))]
    pub fn notify_always(&self) {
        self.notify_always_with(&SharedFutex);
    }

    #[inline]
    pub(crate) fn notify_with(&self, futex: &impl Futex) {
        // SYNC event_count.notify: pairs with event_count.arm.
        fence("event_count.notify", Ordering::SeqCst);
        let word = self.word.load(Ordering::Relaxed);
        if word & 1 == 1 {
            self.wake(word, futex);
        }
    }

    #[cold]
    pub(crate) fn notify_always_with(&self, futex: &impl Futex) {
        // SYNC event_count.notify_always: pairs with event_count.arm.
        fence("event_count.notify_always", Ordering::SeqCst);
        self.wake(self.word.load(Ordering::Relaxed), futex);
    }

    /// Makes an armed word even and wakes all.
    #[cold]
    fn wake(&self, word: u32, futex: &impl Futex) {
        if word & 1 == 1 {
            // If this fails, another notifier has changed the word. A sleeper that has armed it since then sees what was
            // published.
            let _ = self.word.compare_exchange(word, word.wrapping_add(1), Ordering::Relaxed, Ordering::Relaxed);
        }
        futex.wake_all(&self.word);
    }

    /// Arms the word. Afterwards the caller loads once more what it waits for, then calls [`EventCount::sleep`].
    pub(crate) fn arm(&self) -> Armed {
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
        // SYNC event_count.arm: pairs with event_count.notify and event_count.notify_always.
        fence("event_count.arm", Ordering::SeqCst);
        Armed(word)
    }

    /// Sleeps until a notification, at most for `timeout`; may return early.
    pub(crate) fn sleep(&self, armed: Armed, timeout: Duration, futex: &impl Futex) {
        futex.wait(&self.word, armed.0, timeout);
    }

    /// One round of a wait: arms, calls `ready`, sleeps if there is nothing yet, and calls `ready` again.
    pub(crate) fn wait<T>(
        &self,
        timeout: Duration,
        futex: &impl Futex,
        mut ready: impl FnMut() -> Option<T>,
    ) -> Option<T> {
        let armed = self.arm();
        if let Some(found) = ready() {
            return Some(found);
        }
        self.sleep(armed, timeout, futex);
        ready()
    }
}
