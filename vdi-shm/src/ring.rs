//! Rings: one producer, one consumer, a fixed number of entries, in memory that both can write.
//!
//! # Layout
//!
//! A ring is a line with the consumer's published cursor, then [`CAPACITY`] entries of a line each. An entry is a *lap*
//! word and four words of a record. The lap word has the lap in its lower half and the record's seal in its upper one.
//!
//! # Invariants
//!
//! 1. The producer's cursor `p` and the consumer's cursor `c` count records from 0 and live in their processes' private
//!    memory; `c <= p <= c + CAPACITY`.
//! 2. Record `n` lies in entry `n % CAPACITY`; it is there once the entry's lap is `n / CAPACITY + 1`. The producer
//!    writes the record's words first and the lap word last (release); the consumer reads the lap word first (acquire).
//!    So the consumer never sees half a record, and a command costs one line going over, not two.
//! 3. The producer writes record `n` only after it has seen the consumer publish a cursor above `n - CAPACITY`
//!    (release, acquire). So no record is overwritten before it was read.
//! 4. Each side reads back nothing that it wrote itself. Each shared word is loaded once per step and judged: a lap
//!    may only be the expected one or the one before, the published cursor only one that invariant 1 allows. Anything else
//!    is a [`RingViolation`], and the cursor stays where it is.
//! 5. A record is taken only with its seal ([`vdi_proto::seal`]), which binds it to this ring and to its number: one that
//!    was written over, copied from elsewhere, or comes again is a violation as well.
//!
//! An entry that a member made to look empty again keeps the consumer waiting, which no seal can show:
//! [`Producer::check_written`] is for producers that wait as well.
//!
//! The loom tests check 2 and 3 over all interleavings; `tests/ring_model.rs` checks 1, 4 and 5 against a queue.

use core::ops::Deref;

use thiserror::Error;
use vdi_proto::layout::RING_CAPACITY;
use vdi_proto::seal::SealKey;

use crate::atomics::{AtomicU32, AtomicU64, Ordering, Witness, in_order, ordering, try_in_order};

/// Entries of a set's rings.
pub const CAPACITY: usize = RING_CAPACITY as usize;

/// The words of a record.
pub type Words = [u64; 4];

/// One entry: a cache line.
#[derive(Debug)]
#[repr(C, align(64))]
pub struct Entry {
    /// The lap, and above it the seal.
    lap: AtomicU64,
    words: [AtomicU64; 4],
    witness: Witness,
}

/// The line of the consumer's published cursor.
#[derive(Debug)]
#[repr(C, align(64))]
pub struct Head {
    cursor: AtomicU32,
}

/// A ring as it lies in shared memory. All zeros is an empty ring; `N` is a power of two.
#[derive(Debug)]
#[repr(C)]
pub struct RingMemory<const N: usize = CAPACITY> {
    head: Head,
    entries: [Entry; N],
}

impl<const N: usize> RingMemory<N> {
    /// An empty ring in ordinary memory, for tests and for rings between threads.
    #[must_use]
    pub fn new() -> Self {
        const { assert!(N.is_power_of_two() && N <= 1 << 16) };
        RingMemory {
            head: Head { cursor: AtomicU32::new(0) },
            entries: core::array::from_fn(|_| Entry {
                lap: AtomicU64::new(0),
                words: core::array::from_fn(|_| AtomicU64::new(0)),
                witness: Witness::default(),
            }),
        }
    }
}

impl<const N: usize> Default for RingMemory<N> {
    fn default() -> Self {
        Self::new()
    }
}

/// The lap of record `n`.
const fn lap<const N: usize>(n: u64) -> u32 {
    (n / N as u64 + 1) as u32
}

/// The peer wrote a word that no producer or consumer writes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum RingViolation {
    /// A lap is neither the expected one nor the one before.
    #[error("entry {entry} of a ring has lap {found}, where {expected} or the one before was expected")]
    Lap {
        /// The entry.
        entry: u32,
        /// Its lap.
        found: u32,
        /// The lap that its next record has.
        expected: u32,
    },
    /// A record does not bear its seal.
    #[error(
        "the record in entry {entry} of a ring bears seal {found:#010x}, where {expected:#010x} follows from its words"
    )]
    Seal {
        /// The entry.
        entry: u32,
        /// The seal that it bears.
        found: u32,
        /// The seal that follows from what it says.
        expected: u32,
    },
    /// A record that this process wrote is there no more: its consumer would wait for it for ever.
    #[error("entry {entry} of a ring has lap {found} where this process wrote {written}: somebody took a record back")]
    TakenBack {
        /// The entry.
        entry: u32,
        /// Its lap.
        found: u32,
        /// The lap that was written.
        written: u32,
    },
    /// The published cursor lies outside what was produced.
    #[error("the consumer's cursor {found} is none that can belong to {produced} records in {capacity} entries")]
    Cursor {
        /// The published cursor.
        found: u32,
        /// Records produced, modulo 2^32.
        produced: u32,
        /// Entries of the ring.
        capacity: u32,
    },
}

/// Why a record could not be pushed; the ring is as it was.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum PushError {
    /// All entries hold records that were not consumed yet.
    #[error("the ring is full")]
    Full,
    /// The peer broke the protocol.
    #[error(transparent)]
    Violation(#[from] RingViolation),
}

/// The writing end of a ring. Whoever attaches it to shared memory sees to it that there is one.
///
/// ```
/// use std::sync::Arc;
/// use vdi_shm::ring::{Consumer, Producer, RingMemory};
///
/// use vdi_proto::seal::{Ring, Seals};
///
/// let ring = Arc::new(RingMemory::<64>::new());
/// let key = Seals::new(42).ring(0, Ring::Submission);
/// let mut producer = Producer::new(Arc::clone(&ring), key);
/// let mut consumer = Consumer::new(ring, key);
/// producer.push([1, 2, 3, 4]).unwrap();
/// assert_eq!(consumer.pop(), Ok(Some([1, 2, 3, 4])));
/// assert_eq!(consumer.pop(), Ok(None));
/// ```
#[derive(Debug)]
pub struct Producer<R, const N: usize = CAPACITY> {
    ring: R,
    key: SealKey,
    /// Records produced.
    produced: u64,
    /// Records that are known to be consumed.
    consumed: u64,
}

impl<R: Deref<Target = RingMemory<N>>, const N: usize> Producer<R, N> {
    /// The producer of a ring that nothing was pushed into yet. Both ends have the same key.
    pub fn new(ring: R, key: SealKey) -> Self {
        Producer { ring, key, produced: 0, consumed: 0 }
    }

    /// Pushes a record.
    ///
    /// # Errors
    /// [`PushError::Full`], or [`PushError::Violation`] when the consumer's cursor cannot be true.
    #[inline]
    pub fn push(&mut self, words: Words) -> Result<(), PushError> {
        if self.produced - self.consumed == N as u64 {
            self.learn_consumed()?;
            if self.produced - self.consumed == N as u64 {
                return Err(PushError::Full);
            }
        }
        let entry = &self.ring.entries[self.produced as usize % N];
        let write = || {
            entry.witness.writes();
            for (shared, word) in entry.words.iter().zip(words) {
                shared.store(word, Ordering::Relaxed);
            }
        };
        let publish = || {
            let seal = u64::from(self.key.record(self.produced, words)) << 32;
            // SYNC ring.push.lap: pairs with ring.pop.lap.
            let release = ordering("ring.push.lap", Ordering::Release);
            entry.lap.store(seal | u64::from(lap::<N>(self.produced)), release);
        };
        in_order("ring.push.words-lap", write, publish);
        self.produced += 1;
        Ok(())
    }

    /// Whether all that was written is still there, for a producer that waits for what the consumer does about it. An
    /// entry that somebody made to look as if nothing had come keeps the consumer waiting, and only the producer knows better.
    ///
    /// # Errors
    /// [`RingViolation::TakenBack`].
    pub fn check_written(&self) -> Result<(), RingViolation> {
        for n in self.produced.saturating_sub(N as u64)..self.produced {
            let at = n as usize % N;
            let (found, written) = (self.ring.entries[at].lap.load(Ordering::Relaxed) as u32, lap::<N>(n));
            if found != written {
                return Err(RingViolation::TakenBack { entry: at as u32, found, written });
            }
        }
        Ok(())
    }

    /// Looks how far the consumer has come.
    fn learn_consumed(&mut self) -> Result<(), RingViolation> {
        // SYNC ring.push.cursor: pairs with ring.pop.cursor.
        let found = self.ring.head.cursor.load(ordering("ring.push.cursor", Ordering::Acquire));
        let produced = self.produced as u32;
        let unread = produced.wrapping_sub(found);
        if unread as usize > N {
            return Err(RingViolation::Cursor { found, produced, capacity: N as u32 });
        }
        self.consumed = self.produced - u64::from(unread);
        Ok(())
    }
}

/// The reading end of a ring. Whoever attaches it to shared memory sees to it that there is one.
#[derive(Debug)]
pub struct Consumer<R, const N: usize = CAPACITY> {
    ring: R,
    key: SealKey,
    /// Records consumed.
    consumed: u64,
}

impl<R: Deref<Target = RingMemory<N>>, const N: usize> Consumer<R, N> {
    /// The consumer of a ring that nothing was popped from yet. Both ends have the same key.
    pub fn new(ring: R, key: SealKey) -> Self {
        Consumer { ring, key, consumed: 0 }
    }

    /// Whether [`Consumer::pop`] has something to say: a record or a violation.
    #[must_use]
    #[inline]
    pub fn is_ready(&self) -> bool {
        let entry = &self.ring.entries[self.consumed as usize % N];
        entry.lap.load(Ordering::Relaxed) as u32 != lap::<N>(self.consumed).wrapping_sub(1)
    }

    /// Pops the next record, if there is one.
    ///
    /// # Errors
    /// [`RingViolation`] when the entry's lap cannot be true, or its record does not bear its seal; it stays so, since
    /// nothing is consumed.
    #[inline]
    pub fn pop(&mut self) -> Result<Option<Words>, RingViolation> {
        let at = self.consumed as usize % N;
        let entry = &self.ring.entries[at];
        let expected = lap::<N>(self.consumed);
        // SYNC ring.pop.lap: pairs with ring.push.lap.
        let word = entry.lap.load(ordering("ring.pop.lap", Ordering::Acquire));
        let found = word as u32;
        if found != expected {
            if found == expected.wrapping_sub(1) {
                return Ok(None);
            }
            return Err(RingViolation::Lap { entry: at as u32, found, expected });
        }
        let read = || {
            entry.witness.reads();
            let words = core::array::from_fn(|i| entry.words[i].load(Ordering::Relaxed));
            let (found, expected) = ((word >> 32) as u32, self.key.record(self.consumed, words));
            if found != expected {
                return Err(RingViolation::Seal { entry: at as u32, found, expected });
            }
            Ok(words)
        };
        let consumed = self.consumed + 1;
        // SYNC ring.pop.cursor: pairs with ring.push.cursor.
        let publish = || self.ring.head.cursor.store(consumed as u32, ordering("ring.pop.cursor", Ordering::Release));
        let (words, ()) = try_in_order("ring.pop.words-cursor", read, publish)?;
        self.consumed = consumed;
        Ok(Some(words))
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    /// A ring whose next record is number `n`, as if all before it had been produced and consumed.
    fn at<const N: usize>(n: u64) -> (std::sync::Arc<RingMemory<N>>, u64) {
        let memory = RingMemory::<N>::new();
        for next in n..n + N as u64 {
            let before = u64::from(lap::<N>(next).wrapping_sub(1));
            memory.entries[next as usize % N].lap.store(before, Ordering::Relaxed);
        }
        memory.head.cursor.store(n as u32, Ordering::Relaxed);
        (std::sync::Arc::new(memory), n)
    }

    /// An entry that was made to look empty again is told by its producer, read or not.
    #[test]
    fn a_record_that_is_taken_back_is_noticed() {
        let (memory, key) = (std::sync::Arc::new(RingMemory::<4>::new()), vdi_proto::seal::Seals::new(1));
        let key = key.ring(0, vdi_proto::seal::Ring::Submission);
        let (mut producer, mut consumer) = (Producer::new(memory.clone(), key), Consumer::new(memory.clone(), key));
        producer.push([1; 4]).expect("room");
        producer.push([2; 4]).expect("room");
        assert_eq!(consumer.pop(), Ok(Some([1; 4])));
        memory.entries[1].lap.store(0, Ordering::Relaxed);
        assert_eq!(consumer.pop(), Ok(None), "to the consumer it looks as if nothing had come");
        assert_eq!(producer.check_written(), Err(RingViolation::TakenBack { entry: 1, found: 0, written: 1 }));
    }

    /// Cursors of 32 bits wrap after 2^32 records, lap words after 2^32 laps: both pass unnoticed.
    #[test]
    fn words_wrap_unnoticed() {
        const N: usize = 4;
        let key = vdi_proto::seal::Seals::new(1).ring(0, vdi_proto::seal::Ring::Submission);
        let starts = [u64::from(u32::MAX) - 5, ((1 << 32) - 2) * N as u64 - 3, (1u64 << 32) * N as u64 - 2];
        for (memory, start) in starts.map(at::<N>) {
            let mut producer = Producer { ring: memory.clone(), key, produced: start, consumed: start };
            let mut consumer = Consumer { ring: memory, key, consumed: start };
            let (mut pushed, mut popped) = (start, start);
            for round in 0..20 {
                while producer.push([pushed; 4]).is_ok() {
                    pushed += 1;
                    assert_eq!(producer.check_written(), Ok(()));
                }
                assert_eq!(pushed - popped, N as u64, "round {round} of {start}");
                assert_eq!(producer.push([0; 4]), Err(PushError::Full));
                for _ in 0..=round % N {
                    assert!(consumer.is_ready());
                    assert_eq!(consumer.pop(), Ok(Some([popped; 4])));
                    popped += 1;
                }
            }
            while consumer.pop().is_ok_and(|record| record == Some([popped; 4])) {
                popped += 1;
            }
            assert_eq!(popped, pushed);
            assert!(!consumer.is_ready());
        }
    }
}
