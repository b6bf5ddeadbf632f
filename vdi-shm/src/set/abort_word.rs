//! Why a set was aborted: the word in shared memory, and the latch of each process.
//!
//! # Invariants
//!
//! 1. The shared word goes from 0 to a reason once. The first writer wins. All sleepers are notified after the write.
//! 2. A latch keeps the first reason that its process saw. Clearing the shared word changes no latch.
//! 3. A thread that reads a reason, from the word or from a latch, sees everything that the aborting thread did before.
//!
//! Why 3 holds: the word and the latch are written with release and read with acquire. The loom tests in
//! `loom_tests/announcements.rs` check it.

use vdi_proto::abort::AbortReason;

use crate::ipc::atomics::{AtomicU32, Ordering, ordering};

/// The abort word as it lies in shared memory. Zero: the set is not aborted.
#[derive(Debug, Default)]
#[repr(transparent)]
pub(crate) struct AbortWord(AtomicU32);

impl AbortWord {
    /// The reason, if the set was aborted.
    #[inline]
    pub(crate) fn load(&self) -> Option<AbortReason> {
        // SYNC abort.load: pairs with abort.store.
        AbortReason::from_word(self.0.load(ordering("abort.load", Ordering::Acquire)))
    }

    /// Writes the reason unless there is one already. Returns the reason that stands.
    ///
    /// The caller notifies all sleepers afterwards, even if another reason stands: its writer may have died before it did.
    pub(crate) fn set(&self, reason: AbortReason) -> AbortReason {
        // SYNC abort.store: pairs with abort.load and abort.stands.
        let (store, stands) = (ordering("abort.store", Ordering::Release), ordering("abort.stands", Ordering::Acquire));
        match self.0.compare_exchange(0, reason.to_word(), store, stands) {
            Ok(_) => reason,
            Err(word) => AbortReason::from_word(word).unwrap_or(reason),
        }
    }
}

/// The first abort reason that this process saw.
#[derive(Debug, Default)]
pub(crate) struct AbortLatch(AtomicU32);

impl AbortLatch {
    /// The latched reason.
    #[inline]
    pub(crate) fn load(&self) -> Option<AbortReason> {
        // SYNC latch.load: pairs with latch.store.
        AbortReason::from_word(self.0.load(ordering("latch.load", Ordering::Acquire)))
    }

    /// Latches the reason unless there is one already. Returns whether this call latched it.
    pub(crate) fn set(&self, reason: AbortReason) -> bool {
        // SYNC latch.store: pairs with latch.load.
        let store = ordering("latch.store", Ordering::Release);
        self.0.compare_exchange(0, reason.to_word(), store, Ordering::Relaxed).is_ok()
    }
}
