//! The name of a device, and the word that publishes it.
//!
//! # Invariant
//!
//! The server writes the name first and the word last (release). A reader loads the word first (acquire). So a reader that
//! sees the device announced sees the whole name. The loom tests in `loom_tests/announcements.rs` check it.

use vdi_proto::name::MAX_NAME_BYTES;

use crate::ipc::atomics::{AtomicU8, AtomicU32, AtomicU64, Ordering, ordering};

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

/// The name of a device as it lies in shared memory.
#[derive(Debug)]
#[repr(C)]
pub(crate) struct Name<const N: usize = MAX_NAME_BYTES> {
    len: AtomicU32,
    checksum: AtomicU32,
    bytes: [AtomicU8; N],
}

impl<const N: usize> Name<N> {
    /// Writes the name and its checksum. The caller stores the announcement afterwards.
    pub(crate) fn write(&self, name: &[u8], checksum: u32) {
        for (shared, byte) in self.bytes.iter().zip(name) {
            shared.store(*byte, Ordering::Relaxed);
        }
        self.len.store(name.len() as u32, Ordering::Relaxed);
        self.checksum.store(checksum, Ordering::Relaxed);
    }

    /// The name and its checksum, not validated. Called after the announcement was seen.
    ///
    /// # Errors
    /// The length, if it exceeds the room for a name.
    pub(crate) fn read(&self) -> Result<(Vec<u8>, u32), u32> {
        let len = self.len.load(Ordering::Relaxed);
        let bytes = self.bytes.get(..len as usize).ok_or(len)?;
        let bytes = bytes.iter().map(|byte| byte.load(Ordering::Relaxed)).collect();
        Ok((bytes, self.checksum.load(Ordering::Relaxed)))
    }
}

#[cfg(all(test, loom))]
impl<const N: usize> Name<N> {
    /// An empty name in ordinary memory.
    pub(crate) fn new() -> Self {
        let bytes = core::array::from_fn(|_| AtomicU8::new(0));
        Name { len: AtomicU32::new(0), checksum: AtomicU32::new(0), bytes }
    }
}
