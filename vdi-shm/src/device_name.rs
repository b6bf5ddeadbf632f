//! The name of a device, and the word that says that it is there.

use vdi_proto::name::MAX_NAME_BYTES;

use crate::atomics::{AtomicU8, AtomicU32, AtomicU64, Ordering, in_order, ordering};

/// The server's word of a device.
#[derive(Debug, Default)]
#[repr(transparent)]
pub(crate) struct Announcement(AtomicU64);

impl Announcement {
    /// The word, to be judged. Whoever sees that the device was announced sees its name.
    #[inline]
    pub(crate) fn look(&self) -> u64 {
        // SYNC name.look: pairs with name.word.
        self.0.load(ordering("name.look", Ordering::Acquire))
    }

    pub(crate) fn write(&self, word: u64) {
        // SYNC name.word: pairs with name.look.
        self.0.store(word, ordering("name.word", Ordering::Release));
    }
}

/// The name of a device as it lies in shared memory.
#[derive(Debug)]
#[repr(C)]
pub(crate) struct Name<const N: usize = MAX_NAME_BYTES> {
    len: AtomicU32,
    seal: AtomicU32,
    bytes: [AtomicU8; N],
}

impl<const N: usize> Name<N> {
    /// Writes the name with its seal, and then the word that says that it is there.
    pub(crate) fn announce(&self, name: &[u8], seal: u32, device: &Announcement, word: u64) {
        let write = || {
            for (shared, byte) in self.bytes.iter().zip(name) {
                shared.store(*byte, Ordering::Relaxed);
            }
            self.len.store(name.len() as u32, Ordering::Relaxed);
            self.seal.store(seal, Ordering::Relaxed);
        };
        in_order("name.name-word", write, || device.write(word));
    }

    /// The name and its seal, to be judged, once the word said that they are there. Else the length that cannot be.
    pub(crate) fn read(&self) -> Result<(Vec<u8>, u32), u32> {
        let len = self.len.load(Ordering::Relaxed);
        let bytes = self.bytes.get(..len as usize).ok_or(len)?;
        let bytes = bytes.iter().map(|byte| byte.load(Ordering::Relaxed)).collect();
        Ok((bytes, self.seal.load(Ordering::Relaxed)))
    }
}

#[cfg(all(test, loom))]
impl<const N: usize> Name<N> {
    /// No name, in ordinary memory.
    pub(crate) fn new() -> Self {
        let bytes = core::array::from_fn(|_| AtomicU8::new(0));
        Name { len: AtomicU32::new(0), seal: AtomicU32::new(0), bytes }
    }
}
