//! Sleeping on a word of memory, and waking the sleepers.

use core::time::Duration;

use crate::ipc::atomics::AtomicU32;
#[cfg(not(loom))]
use crate::ipc::sys;

/// The operating system's futex, or a stand-in for model checks.
pub(crate) trait Futex {
    /// Sleeps while `word` is `expected`, at most for `timeout`. May return early for no reason.
    fn wait(&self, word: &AtomicU32, expected: u32, timeout: Duration);
    /// Wakes all that sleep on `word`.
    fn wake_all(&self, word: &AtomicU32);
}

/// The system's futex, for words in memory that several processes map.
#[cfg(not(loom))]
#[derive(Debug, Clone, Copy)]
pub(crate) struct SharedFutex;

#[cfg(not(loom))]
impl Futex for SharedFutex {
    fn wait(&self, word: &AtomicU32, expected: u32, timeout: Duration) {
        sys::futex_wait(word, expected, timeout);
    }

    fn wake_all(&self, word: &AtomicU32) {
        sys::futex_wake_all(word);
    }
}
