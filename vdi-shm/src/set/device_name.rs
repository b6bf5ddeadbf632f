//! The name of a device, and the word that publishes it.
//!
//! # Invariant
//!
//! The server writes the name first and the word last (release). A reader loads the word first (acquire). So a reader that
//! sees the device announced sees the whole name. The loom tests in `loom_tests/announcements.rs` check it.

use vdi_proto::name::MAX_NAME_BYTES;

use super::shared_text::SharedText;
use crate::ipc::atomics::{AtomicU64, Ordering, ordering};

/// The server's word of a device.
#[derive(Debug, Default)]
#[repr(transparent)]
pub(crate) struct Announcement(AtomicU64);

impl Announcement {
    /// The word, not validated.
    #[inline]
    pub(crate) fn load(&self) -> u64 {
        // SYNC name.load: pairs with name.store.
        self.0.load(ordering("name.load", Ordering::Acquire))
    }

    pub(crate) fn store(&self, word: u64) {
        // SYNC name.store: pairs with name.load.
        self.0.store(word, ordering("name.store", Ordering::Release));
    }
}

/// The name of a device as it lies in shared memory. The announcement publishes it.
pub(crate) type Name<const N: usize = MAX_NAME_BYTES> = SharedText<N>;
