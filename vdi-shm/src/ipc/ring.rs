//! Rings: one producer, one consumer, a fixed number of entries, in memory that both can write.
//!
//! # Layout
//!
//! A ring is a cache line with the consumer's published cursor, then `N` entries of a cache line each. An entry is a
//! sequence number and the four words of a record. `N` is a power of two, 65,536 at most.
//!
//! # Invariants
//!
//! 1. Records are numbered from [`FIRST`]. Record `n` lies in entry `n % N`. It is there once the entry's sequence number is
//!    `n`; until then that is `n - N`, the number of its predecessor in that entry.
//! 2. The producer writes the words first and the sequence number last (release). The consumer reads the sequence number
//!    first (acquire). So the consumer never sees half a record, and one cache line travels per record.
//! 3. The producer writes record `n` only after the consumer has published a cursor above `n - N` (release, acquire). So no
//!    record is overwritten before it was read.
//! 4. Each side keeps its own cursor in private memory, loads each shared word once per step and validates it. A sequence
//!    number is `n` or `n - N`, a cursor is at most `N` below the producer's own and never above. Everything else is a
//!    [`RingViolation`], and nothing changes.
//! 5. `FIRST` is greater than any `N`, so 0 is neither a sequence number nor a cursor. Memory that was zeroed by mistake is a
//!    violation and not an empty ring.
//!
//! A ring does not validate the words of a record. Callers that need this put a checksum over the record and its number
//! into the words ([`Producer::next_number`]). A record with a bad checksum has been consumed when its words are there; the
//! caller then stops using the ring.
//!
//! The loom tests check 2 and 3, `tests/ipc/ring.rs` checks 1, 4 and 5 against a queue.

use core::ops::Deref;

use thiserror::Error;

use crate::ipc::atomics::{AtomicU64, Ordering, Witness, ordering};
#[cfg(not(loom))]
use crate::ipc::shared_layout::SharedLayout;

/// The number of the first record of every ring.
pub const FIRST: u64 = 1 << 32;

/// The most entries of a ring.
const MAX_ENTRIES: usize = 1 << 16;

/// The words of a record.
pub type Words = [u64; 4];

/// An entry: one cache line.
#[derive(Debug)]
#[repr(C, align(64))]
struct Entry {
    sequence: AtomicU64,
    words: [AtomicU64; 4],
    witness: Witness,
}

/// The consumer's published cursor: the number of the next record that it reads. It fills a cache line, since the entries
/// behind it are polled (false sharing).
#[derive(Debug)]
#[repr(C, align(64))]
struct Head {
    cursor: AtomicU64,
}

/// A ring as it lies in shared memory.
#[derive(Debug)]
#[repr(C)]
pub struct RingMemory<const N: usize> {
    head: Head,
    entries: [Entry; N],
}

// SAFETY: `repr(C)` and made of atomics; `Witness` is empty.
#[cfg(not(loom))]
#[allow(unsafe_code)]
unsafe impl<const N: usize> SharedLayout for RingMemory<N> {}

#[cfg(not(loom))]
static_assertions::const_assert_eq!(size_of::<RingMemory<8>>(), 64 * (1 + 8));

impl<const N: usize> RingMemory<N> {
    const VALID: () = assert!(N.is_power_of_two() && N <= MAX_ENTRIES, "the entries of a ring are a power of two");

    /// An empty ring in ordinary memory, for threads of one process.
    #[must_use]
    pub fn new() -> Self {
        let ring = RingMemory {
            head: Head { cursor: AtomicU64::new(0) },
            entries: core::array::from_fn(|_| Entry {
                sequence: AtomicU64::new(0),
                words: core::array::from_fn(|_| AtomicU64::new(0)),
                witness: Witness::default(),
            }),
        };
        ring.init();
        ring
    }

    /// Makes it an empty ring. The creator of the memory calls this once, before it passes the memory on.
    pub fn init(&self) {
        const { Self::VALID };
        self.head.cursor.store(FIRST, Ordering::Relaxed);
        for (number, entry) in (FIRST - N as u64..).zip(&self.entries) {
            entry.sequence.store(number, Ordering::Relaxed);
        }
    }

    /// The entry of a record.
    fn entry(&self, number: u64) -> &Entry {
        &self.entries[Self::index(number)]
    }

    /// The index of the entry of a record.
    const fn index(number: u64) -> usize {
        const { Self::VALID };
        number as usize % N
    }
}

impl<const N: usize> Default for RingMemory<N> {
    fn default() -> Self {
        Self::new()
    }
}

/// The other side wrote a word that no producer or consumer writes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum RingViolation {
    /// A sequence number is neither that of the next record nor that of its predecessor in the entry.
    #[error(
        "entry {entry} of a ring has sequence number {found:#x}, where {expected:#x} or its predecessor was expected"
    )]
    Sequence {
        /// The index of the entry.
        entry: u32,
        /// Its sequence number.
        found: u64,
        /// The number of its next record.
        expected: u64,
    },
    /// The published cursor does not follow from what was produced.
    #[error("a ring of {capacity} entries has the consumer's cursor {found:#x} where the next record is {next:#x}")]
    Cursor {
        /// The published cursor.
        found: u64,
        /// The number of the producer's next record.
        next: u64,
        /// The entries of the ring.
        capacity: u32,
    },
}

/// Why a record was not pushed; the ring is as it was.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum PushError {
    /// All entries hold records that were not consumed yet.
    #[error("the ring is full")]
    Full,
    /// The consumer broke the protocol.
    #[error(transparent)]
    Violation(#[from] RingViolation),
}

/// The writing end of a ring. The caller sees to it that a ring has one.
///
/// ```
/// use std::sync::Arc;
/// use vdi_shm::ipc::ring::{Consumer, FIRST, Producer, RingMemory};
///
/// let ring = Arc::new(RingMemory::<64>::new());
/// let mut producer = Producer::new(Arc::clone(&ring));
/// let mut consumer = Consumer::new(ring);
/// assert_eq!(producer.push([1, 2, 3, 4]), Ok(FIRST));
/// assert_eq!(consumer.pop(), Ok(Some((FIRST, [1, 2, 3, 4]))));
/// assert_eq!(consumer.pop(), Ok(None));
/// ```
#[derive(Debug)]
pub struct Producer<R, const N: usize> {
    ring: R,
    /// The number of the next record.
    next: u64,
    /// The consumer's cursor as last seen.
    consumed: u64,
}

impl<R: Deref<Target = RingMemory<N>>, const N: usize> Producer<R, N> {
    /// The producer of a ring that nothing was pushed into yet.
    pub fn new(ring: R) -> Self {
        Producer { ring, next: FIRST, consumed: FIRST }
    }

    /// The number that the next record gets, for a checksum over it.
    #[must_use]
    #[inline]
    pub fn next_number(&self) -> u64 {
        self.next
    }

    /// Pushes a record; its number.
    ///
    /// # Errors
    /// [`PushError::Full`]; [`PushError::Violation`] when the consumer's cursor is impossible.
    #[inline]
    pub fn push(&mut self, words: Words) -> Result<u64, PushError> {
        if self.is_full() {
            self.load_cursor()?;
            if self.is_full() {
                return Err(PushError::Full);
            }
        }
        let number = self.next;
        let entry = self.ring.entry(number);
        entry.witness.writes();
        for (shared, word) in entry.words.iter().zip(words) {
            shared.store(word, Ordering::Relaxed);
        }
        // SYNC ring.push.sequence: pairs with ring.pop.sequence.
        entry.sequence.store(number, ordering("ring.push.sequence", Ordering::Release));
        self.next += 1;
        Ok(number)
    }

    fn is_full(&self) -> bool {
        self.next - self.consumed == N as u64
    }

    /// Loads and validates the consumer's cursor.
    fn load_cursor(&mut self) -> Result<(), RingViolation> {
        // SYNC ring.push.cursor: pairs with ring.pop.cursor.
        let found = self.ring.head.cursor.load(ordering("ring.push.cursor", Ordering::Acquire));
        if !(self.next - N as u64..=self.next).contains(&found) {
            return Err(RingViolation::Cursor { found, next: self.next, capacity: N as u32 });
        }
        self.consumed = found;
        Ok(())
    }
}

/// The reading end of a ring. The caller sees to it that a ring has one.
#[derive(Debug)]
pub struct Consumer<R, const N: usize> {
    ring: R,
    /// The number of the next record.
    next: u64,
}

impl<R: Deref<Target = RingMemory<N>>, const N: usize> Consumer<R, N> {
    /// The consumer of a ring that nothing was popped from yet.
    pub fn new(ring: R) -> Self {
        Consumer { ring, next: FIRST }
    }

    /// Whether [`Consumer::pop`] has a result: a record or a violation.
    #[must_use]
    #[inline]
    pub fn is_ready(&self) -> bool {
        self.ring.entry(self.next).sequence.load(Ordering::Relaxed) != self.next - N as u64
    }

    /// Pops the next record and its number, if there is one.
    ///
    /// # Errors
    /// [`RingViolation`] when the entry's sequence number is impossible. Nothing is consumed, so later calls fail alike.
    #[inline]
    pub fn pop(&mut self) -> Result<Option<(u64, Words)>, RingViolation> {
        let number = self.next;
        let entry = self.ring.entry(number);
        // SYNC ring.pop.sequence: pairs with ring.push.sequence.
        let found = entry.sequence.load(ordering("ring.pop.sequence", Ordering::Acquire));
        if found != number {
            if found == number - N as u64 {
                return Ok(None);
            }
            let entry = RingMemory::<N>::index(number) as u32;
            return Err(RingViolation::Sequence { entry, found, expected: number });
        }
        entry.witness.reads();
        let words = core::array::from_fn(|index| entry.words[index].load(Ordering::Relaxed));
        self.next += 1;
        // SYNC ring.pop.cursor: pairs with ring.push.cursor.
        self.ring.head.cursor.store(self.next, ordering("ring.pop.cursor", Ordering::Release));
        Ok(Some((number, words)))
    }
}
