//! Why a set was aborted: the word and the text in shared memory, and the latch of each process.
//!
//! # Invariants
//!
//! 1. The shared word goes from 0 to a reason once. The first writer wins. All sleepers are notified after the write.
//! 2. A latch keeps the first reason that its process saw. Clearing the shared word changes no latch.
//! 3. A thread that reads a reason, from the word or from a latch, sees everything that the aborting thread did before.
//!
//! 4. One thread of the set writes the text: the one that claims it. It writes the text before the word. The text's
//!    checksum covers the word, so a text is taken only with the reason that it was written for. A claimant whose reason
//!    does not stand, or that dies half way, leaves no text.
//!
//! Why 3 holds: the word and the latch are written with release and read with acquire. The loom tests in
//! `loom_tests/announcements.rs` check 3 and 4.

use vdi_proto::abort::{AbortReason, MAX_REASON_BYTES, reason_text};
use vdi_proto::wire::checksum::Checksums;

use super::shared_text::SharedText;
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

/// The text of an abort as it lies in shared memory, with the code behind the abort.
#[derive(Debug)]
#[repr(C)]
pub(crate) struct AbortText<const N: usize = MAX_REASON_BYTES> {
    claimed: AtomicU32,
    code: AtomicU32,
    text: SharedText<N>,
}

impl<const N: usize> AbortText<N> {
    /// Writes the text of an abort that is about to be written, unless a thread has claimed the text already. `text` is cut
    /// where it is too long.
    pub(crate) fn write(&self, checksums: Checksums, reason: AbortReason, code: u32, text: &str) {
        if self.claimed.swap(1, Ordering::Relaxed) == 0 {
            let text = reason_text(text).as_bytes();
            self.code.store(code, Ordering::Relaxed);
            self.text.write(text, checksums.abort(reason.to_word(), code, text));
        }
    }

    /// The code and the text of the abort for this reason; `None` if its process wrote none. Called after the reason was seen.
    pub(crate) fn read(&self, checksums: Checksums, reason: AbortReason) -> Option<(u32, String)> {
        let code = self.code.load(Ordering::Relaxed);
        let (text, checksum) = self.text.read().ok()?;
        let valid = checksum == checksums.abort(reason.to_word(), code, &text);
        Some((code, String::from_utf8(text).ok()?)).filter(|_| valid)
    }
}

#[cfg(all(test, loom))]
impl<const N: usize> AbortText<N> {
    /// No text, in ordinary memory.
    pub(crate) fn new() -> Self {
        AbortText { claimed: AtomicU32::new(0), code: AtomicU32::new(0), text: SharedText::new() }
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
