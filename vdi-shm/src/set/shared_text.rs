//! A text in shared memory: its length, its checksum, its bytes.
//!
//! A writer that is not finished, and a stray write, are found by the checksum. The owner of a text says to what else the
//! checksum is bound, and which word publishes the text.

use crate::ipc::atomics::{AtomicU8, AtomicU32, Ordering};

/// A text of up to `N` bytes as it lies in shared memory.
#[derive(Debug)]
#[repr(C)]
pub(crate) struct SharedText<const N: usize> {
    len: AtomicU32,
    checksum: AtomicU32,
    bytes: [AtomicU8; N],
}

impl<const N: usize> SharedText<N> {
    /// Writes a text of at most `N` bytes and its checksum. The caller publishes it afterwards.
    pub(crate) fn write(&self, text: &[u8], checksum: u32) {
        for (shared, byte) in self.bytes.iter().zip(text) {
            shared.store(*byte, Ordering::Relaxed);
        }
        self.len.store(text.len() as u32, Ordering::Relaxed);
        self.checksum.store(checksum, Ordering::Relaxed);
    }

    /// The text and its checksum, not validated. Called after the publishing word was seen.
    ///
    /// # Errors
    /// The length, if it exceeds the room.
    pub(crate) fn read(&self) -> Result<(Vec<u8>, u32), u32> {
        let len = self.len.load(Ordering::Relaxed);
        let bytes = self.bytes.get(..len as usize).ok_or(len)?;
        let bytes = bytes.iter().map(|byte| byte.load(Ordering::Relaxed)).collect();
        Ok((bytes, self.checksum.load(Ordering::Relaxed)))
    }
}

#[cfg(all(test, loom))]
impl<const N: usize> SharedText<N> {
    /// An empty text in ordinary memory.
    pub(crate) fn new() -> Self {
        let bytes = core::array::from_fn(|_| AtomicU8::new(0));
        SharedText { len: AtomicU32::new(0), checksum: AtomicU32::new(0), bytes }
    }
}
