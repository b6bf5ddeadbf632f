//! The abort word: 0 while the set lives, then a reason, written once by whoever comes first.

use vdi_proto::abort::AbortReason;

use crate::atomics::{AtomicU32, Ordering, in_order, ordering};

/// The abort word as it lies in shared memory. All zeros is a set that lives.
#[derive(Debug, Default)]
#[repr(transparent)]
pub(crate) struct AbortWord(AtomicU32);

impl AbortWord {
    /// Why the set was aborted, if it was. Whoever is told so sees all that the aborter did before.
    #[inline]
    pub(crate) fn look(&self) -> Option<AbortReason> {
        // SYNC abort.look: pairs with abort.write.
        AbortReason::from_word(self.0.load(ordering("abort.look", Ordering::Acquire)))
    }

    /// Aborts the set unless it is aborted already, and then has everybody woken: also those whom an aborter that died was
    /// about to wake. Returns the reason that stands.
    pub(crate) fn set(&self, reason: AbortReason, alarm: impl FnOnce()) -> AbortReason {
        let write = || {
            // SYNC abort.write: pairs with abort.look and abort.stands.
            let (write, stands) =
                (ordering("abort.write", Ordering::Release), ordering("abort.stands", Ordering::Acquire));
            match self.0.compare_exchange(0, reason.to_word(), write, stands) {
                Ok(_) => reason,
                Err(word) => AbortReason::from_word(word).unwrap_or(reason),
            }
        };
        in_order("abort.write-alarm", write, alarm).0
    }
}
