//! Seals: keyed checks over what lies in the control segment, so that a word that nobody should have written is found.
//!
//! Every process of a set can write anywhere in the set's memory, by a bug as well as on purpose: a stray pointer in a
//! backup agent is enough. Most such writes leave something that cannot be true, and are found by that. Some leave what
//! could be: a Write that became a Flush, a buffer's place that became another's, a device that seems to be closed. What
//! such words say is therefore *sealed* by whoever writes it: 32 bits that follow from it, from where it lies, and from the
//! set's secret, and that every reader computes again. (**Decision**: the interface knows nothing of the kind.)
//!
//! | sealed | bound to |
//! |---|---|
//! | a record of a ring | the ring, and the record's number in it: a record that is copied or comes again is found |
//! | a buffer's place | its slot |
//! | the server's and the client's word of a device | the device, and whose word it is |
//! | a device's name | the device |
//!
//! A word that was overwritten passes with a probability of 2^-32. A member that *knows* what it does can compute seals: it
//! has the secret, which came with its Welcome. Seals find mistakes and stray writes, they are no cryptography; whoever may
//! join a set is trusted with the backup.

use crate::layout::RawPlace;
use crate::spread::spread;

/// The seals of one set.
///
/// ```
/// use vdi_proto::seal::{Ring, Seals};
///
/// let key = Seals::new(0x0123_4567_89ab_cdef).ring(0, Ring::Submission);
/// let seal = key.record(7, [1, 2, 3, 4]);
/// assert_ne!(key.record(7, [1, 2, 3, 5]), seal, "another record");
/// assert_ne!(key.record(8, [1, 2, 3, 4]), seal, "the same record again");
/// ```
#[derive(Clone, Copy)]
pub struct Seals {
    secret: u64,
    /// Of all slots: places are looked at often, by whoever knows no leases.
    places: SealKey,
}

impl core::fmt::Debug for Seals {
    /// Leaves the secret out.
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("Seals").finish_non_exhaustive()
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

/// Words of a device that are sealed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum DeviceWord {
    /// The server's ([`crate::layout::ServerWord`]).
    Server,
    /// The client's: who opened the device, and whether VD_E_CLOSE was returned.
    Client,
}

/// What a key is for: no two things have the same.
const RING: u64 = 1;
const PLACE: u64 = 2;
const WORD: u64 = 3;
const NAME: u64 = 4;

impl Seals {
    /// The seals of the set with this secret.
    #[must_use]
    pub const fn new(secret: u64) -> Self {
        Seals { secret, places: SealKey::new(secret, PLACE, 0) }
    }

    const fn key(&self, purpose: u64, which: u64) -> SealKey {
        SealKey::new(self.secret, purpose, which)
    }

    /// The key of a device's ring.
    #[must_use]
    pub const fn ring(&self, device: u32, ring: Ring) -> SealKey {
        self.key(RING, (device as u64) << 1 | ring as u64)
    }

    /// The seal of a place in a slot. Two slots that seal one place alike, by chance, do so at all offsets: the slot's number and
    /// the offset are sealed apart.
    #[must_use]
    #[inline]
    pub const fn place(&self, slot: u32, place: &RawPlace) -> u32 {
        let RawPlace { area, len, offset } = *place;
        self.places.record(slot as u64, [area as u64, len as u64, offset, 0])
    }

    /// A device's word as it is written: the value, and its seal above it. The value 0 is written as 0, so that memory which
    /// is all zeros is valid.
    #[must_use]
    pub const fn seal_word(&self, device: u32, word: DeviceWord, value: u32) -> u64 {
        if value == 0 {
            return 0;
        }
        let key = self.key(WORD, (device as u64) << 1 | word as u64);
        (key.record(0, [value as u64, 0, 0, 0]) as u64) << 32 | value as u64
    }

    /// The value of a device's word; `None` where it does not bear its seal.
    #[must_use]
    pub const fn open_word(&self, device: u32, word: DeviceWord, found: u64) -> Option<u32> {
        let value = found as u32;
        if self.seal_word(device, word, value) == found { Some(value) } else { None }
    }

    /// The seal of a device's name.
    #[must_use]
    pub fn name(&self, device: u32, name: &[u8]) -> u32 {
        let key = self.key(NAME, u64::from(device));
        name.chunks(8).fold(name.len() as u32, |seal, chunk| {
            let word = chunk.iter().fold(0, |word, byte| word << 8 | u64::from(*byte));
            key.record(u64::from(seal), [word, 0, 0, 0])
        })
    }
}

/// A key for the records of one ring, or for the places of all slots, computed once.
#[derive(Clone, Copy)]
pub struct SealKey {
    parts: [u64; 4],
}

impl core::fmt::Debug for SealKey {
    /// Leaves the key out.
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("SealKey").finish_non_exhaustive()
    }
}

/// The product of two words, its halves laid over each other: every bit of both factors reaches every bit.
const fn fold(a: u64, b: u64) -> u64 {
    let product = a as u128 * b as u128;
    product as u64 ^ (product >> 64) as u64
}

impl SealKey {
    const fn new(secret: u64, purpose: u64, which: u64) -> SealKey {
        let begin = spread(secret, purpose << 32 | which);
        SealKey { parts: [spread(begin, 1), spread(begin, 2), spread(begin, 3), spread(begin, 4)] }
    }

    /// The seal of record number `number`. Two multiplications that do not wait for each other: a nanosecond or two.
    #[must_use]
    #[inline]
    pub const fn record(&self, number: u64, words: [u64; 4]) -> u32 {
        let [a, b, c, d] = self.parts;
        // The number is spread, so that what it changes in the first word no small change of that word undoes.
        let number = number.wrapping_mul(0x9e37_79b9_7f4a_7c15);
        let all = fold(words[0] ^ a ^ number, words[1] ^ b) ^ fold(words[2] ^ c, words[3] ^ d).rotate_left(29);
        (all ^ all >> 32) as u32
    }
}
