//! Keyed checksums over the words of the control segment. They find stray writes.
//!
//! | what | bound to |
//! |---|---|
//! | a record of a ring | the ring and the record's number, so a record that is copied or repeated is found |
//! | the server's and the client's word of a device | the device and the role |
//! | a device's name | the device |
//! | the text of an abort | the abort word, so a text never explains another abort |
//!
//! A checksum has 32 bits, keyed by the set's secret. A stray write passes with a probability of 2^-32. All zeros are no
//! exception: the set's creator initialises every word with its checksum, so a stray `memset` is found as well.
//!
//! A member that forges on purpose can compute checksums, since it has the secret. It can spoil its own set, nothing
//! else. **Decision**: the interface has no such checks.

use core::fmt;

use crate::index::DeviceIndex;
use crate::spread::spread;

/// The checksums of one set.
///
/// ```
/// use vdi_proto::index::DeviceIndex;
/// use vdi_proto::wire::checksum::{Checksums, Ring};
///
/// let device = DeviceIndex::new(0).unwrap();
/// let key = Checksums::new(0x0123_4567_89ab_cdef).ring(device, Ring::Submission);
/// let checksum = key.of(7, [1, 2, 3, 4]);
/// assert_ne!(key.of(7, [1, 2, 3, 5]), checksum, "another record");
/// assert_ne!(key.of(8, [1, 2, 3, 4]), checksum, "the same record again");
/// ```
#[derive(Clone, Copy)]
pub struct Checksums {
    secret: u64,
}

impl fmt::Debug for Checksums {
    /// Omits the secret.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Checksums").finish_non_exhaustive()
    }
}

/// The rings of a device.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Ring {
    /// From server to client.
    Submission,
    /// From client to server.
    Completion,
}

/// The words of a device.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum DeviceWord {
    /// [`crate::wire::layout::ServerWord`].
    Server,
    /// [`crate::wire::layout::ClientWord`].
    Client,
}

// The purposes of a key.
const RING: u64 = 1;
const WORD: u64 = 3;
const NAME: u64 = 4;
const ABORT: u64 = 5;

impl Checksums {
    /// The checksums of the set with this secret.
    #[must_use]
    pub const fn new(secret: u64) -> Self {
        Checksums { secret }
    }

    /// The key of a device's ring.
    #[must_use]
    pub const fn ring(&self, device: DeviceIndex, ring: Ring) -> ChecksumKey {
        ChecksumKey::new(self.secret, RING, (device.get() as u64) << 1 | ring as u64)
    }

    /// A device's word as it is written: the value in the lower half, its checksum in the upper half.
    #[must_use]
    pub const fn word(&self, device: DeviceIndex, word: DeviceWord, value: u32) -> u64 {
        let key = spread(self.secret, WORD << 32 | (device.get() as u64) << 1 | word as u64);
        (spread(key, value as u64) as u32 as u64) << 32 | value as u64
    }

    /// The value of a device's word; `None` if the checksum is wrong.
    #[must_use]
    pub const fn check_word(&self, device: DeviceIndex, word: DeviceWord, found: u64) -> Option<u32> {
        let value = found as u32;
        if self.word(device, word, value) == found { Some(value) } else { None }
    }

    /// The checksum of a device's name.
    #[must_use]
    pub fn name(&self, device: DeviceIndex, name: &[u8]) -> u32 {
        text_checksum(ChecksumKey::new(self.secret, NAME, u64::from(device.get())), [0, 0], name)
    }

    /// The checksum of the code and the text of an abort, whose word is `word`.
    #[must_use]
    pub fn abort(&self, word: u32, code: u32, text: &[u8]) -> u32 {
        text_checksum(ChecksumKey::new(self.secret, ABORT, 0), [word, code], text)
    }
}

/// The checksum of a text and of the words that it is bound to.
fn text_checksum(key: ChecksumKey, bound_to: [u32; 2], text: &[u8]) -> u32 {
    let [first, second] = bound_to.map(u64::from);
    let begin = key.of(u64::from(u32::MAX), [text.len() as u64, first, second, 0]);
    text.chunks(8).fold(begin, |checksum, chunk| {
        let word = chunk.iter().fold(0, |word, byte| word << 8 | u64::from(*byte));
        key.of(u64::from(checksum), [word, 0, 0, 0])
    })
}

/// The key of one ring, or of one word or name.
#[derive(Clone, Copy)]
pub struct ChecksumKey {
    parts: [u64; 4],
}

impl fmt::Debug for ChecksumKey {
    /// Omits the key.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ChecksumKey").finish_non_exhaustive()
    }
}

/// The halves of the product, combined: every bit of both factors reaches every bit.
const fn fold(a: u64, b: u64) -> u64 {
    let product = a as u128 * b as u128;
    product as u64 ^ (product >> 64) as u64
}

impl ChecksumKey {
    const fn new(secret: u64, purpose: u64, which: u64) -> ChecksumKey {
        let begin = spread(secret, purpose << 32 | which);
        ChecksumKey { parts: [spread(begin, 1), spread(begin, 2), spread(begin, 3), spread(begin, 4)] }
    }

    /// The checksum of record number `number`.
    #[must_use]
    #[inline]
    pub const fn of(&self, number: u64, words: [u64; 4]) -> u32 {
        let [a, b, c, d] = self.parts;
        // Spreads the number, so that a small change of the first word cannot undo a change of the number.
        let number = number.wrapping_mul(0x9e37_79b9_7f4a_7c15);
        let all = fold(words[0] ^ a ^ number, words[1] ^ b) ^ fold(words[2] ^ c, words[3] ^ d).rotate_left(29);
        (all ^ all >> 32) as u32
    }
}
