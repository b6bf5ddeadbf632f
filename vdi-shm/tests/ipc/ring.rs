//! Rings in a real segment, mapped three times: for the producer, the consumer, and a member that writes where it must not.
//!
//! Record `n` has words that follow from `n`, so whatever is popped as record `n` can be checked without a copy of the
//! ring.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use proptest::prelude::*;
use vdi_proto::seal::{Ring as SealedRing, Seals};
use vdi_shm::ring::{Consumer, Producer, PushError, RingMemory, RingViolation, Words};
use vdi_shm::segment::{Segment, Shared, SharedLayout};

const N: usize = 8;
const LINE: usize = 64;
const LEN: usize = LINE * (1 + N);

/// The ring as plain words.
#[repr(C)]
struct Raw([[AtomicU32; LINE / 4]; 1 + N]);

// SAFETY: `repr(C)` and made of atomics.
unsafe impl SharedLayout for Raw {}

impl Raw {
    fn cursor(&self) -> &AtomicU32 {
        &self.0[0][0]
    }

    fn lap(&self, entry: usize) -> &AtomicU32 {
        &self.0[1 + entry][0]
    }

    /// The words of an entry: lap, seal, and the record's.
    fn words(&self, entry: usize) -> &[AtomicU32] {
        &self.0[1 + entry][..10]
    }
}

struct Ring {
    producer: Producer<Shared<RingMemory<N>>, N>,
    consumer: Consumer<Shared<RingMemory<N>>, N>,
    raw: Shared<Raw>,
}

fn ring() -> Ring {
    assert_eq!(size_of::<RingMemory<N>>(), LEN);
    let segment = Segment::create("vdi-test-ring", LEN as u64, false).expect("memory");
    let map = || Arc::new(segment.map().expect("a mapping"));
    let key = Seals::new(9).ring(0, SealedRing::Submission);
    Ring {
        producer: Producer::new(map().place(0).expect("a ring"), key),
        consumer: Consumer::new(map().place(0).expect("a ring"), key),
        raw: map().place(0).expect("words"),
    }
}

fn record(n: u64) -> Words {
    [n, !n, n.wrapping_mul(0x9e37_79b9_7f4a_7c15), n.rotate_left(32) ^ 0x5555]
}

#[derive(Debug, Clone)]
enum Step {
    Push,
    Pop,
    Cursor(u32),
    Lap(usize, u32),
    /// Flips bits of a word of an entry.
    Flip(usize, usize, u32),
    /// Copies one entry over another, and gives it the lap that publishes it there.
    Replay(usize, usize),
}

fn word() -> impl Strategy<Value = u32> {
    prop_oneof![0u32..24, Just(u32::MAX), Just(1 << 31), any::<u32>()]
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    prop::collection::vec(
        prop_oneof![
            6 => Just(Step::Push),
            6 => Just(Step::Pop),
            1 => word().prop_map(Step::Cursor),
            1 => (0..N, word()).prop_map(|(entry, word)| Step::Lap(entry, word)),
            1 => (0..N, 1usize..10, 1u32..).prop_map(|(entry, at, bits)| Step::Flip(entry, at, bits)),
            1 => (0..N, 0..N).prop_map(|(from, to)| Step::Replay(from, to)),
        ],
        0..200,
    )
}

proptest! {
    /// An honest ring is a queue of N.
    #[test]
    fn a_ring_is_a_queue(pushes in prop::collection::vec(any::<bool>(), 0..400)) {
        let Ring { mut producer, mut consumer, .. } = ring();
        let mut queue = VecDeque::new();
        let mut next = 0;
        for push in pushes {
            if push {
                let pushed = producer.push(record(next));
                if queue.len() == N {
                    prop_assert_eq!(pushed, Err(PushError::Full));
                } else {
                    prop_assert_eq!(pushed, Ok(()));
                    queue.push_back(record(next));
                    next += 1;
                }
            } else {
                prop_assert_eq!(consumer.is_ready(), !queue.is_empty());
                prop_assert_eq!(consumer.pop(), Ok(queue.pop_front()));
            }
        }
    }

    /// Whatever the words say: the record that is popped as number n is number n, or there is none, or a violation; and a
    /// ring in which nobody scribbled has no violation.
    #[test]
    fn tampering_never_makes_a_wrong_record(steps in steps()) {
        let Ring { mut producer, mut consumer, raw } = ring();
        let (mut pushed, mut popped) = (0u64, 0u64);
        let mut tampered = false;
        for step in steps {
            match step {
                Step::Push => match producer.push(record(pushed)) {
                    Ok(()) => pushed += 1,
                    Err(PushError::Full) => prop_assert!(pushed >= N as u64),
                    Err(PushError::Violation(violation)) => {
                        prop_assert!(tampered);
                        let is_cursor = matches!(violation, RingViolation::Cursor { .. });
                        prop_assert!(is_cursor);
                        // Nothing changed, so it stays so.
                        prop_assert_eq!(producer.push(record(pushed)), Err(PushError::Violation(violation)));
                    }
                },
                Step::Pop => match consumer.pop() {
                    Ok(Some(words)) => {
                        prop_assert_eq!(words, record(popped));
                        prop_assert!(popped < pushed);
                        popped += 1;
                    }
                    Ok(None) => prop_assert!(tampered || popped == pushed),
                    Err(violation) => {
                        prop_assert!(tampered);
                        let is_entry = matches!(violation, RingViolation::Lap { .. } | RingViolation::Seal { .. });
                        prop_assert!(is_entry);
                        prop_assert!(consumer.is_ready());
                        prop_assert_eq!(consumer.pop(), Err(violation));
                    }
                },
                Step::Cursor(word) => {
                    raw.cursor().store(word, Ordering::Relaxed);
                    tampered = true;
                }
                Step::Lap(entry, word) => {
                    raw.lap(entry).store(word, Ordering::Relaxed);
                    tampered = true;
                }
                Step::Flip(entry, at, bits) => {
                    raw.words(entry)[at].fetch_xor(bits, Ordering::Relaxed);
                    tampered = true;
                }
                Step::Replay(from, to) => {
                    for (word, other) in raw.words(to).iter().zip(raw.words(from)) {
                        word.store(other.load(Ordering::Relaxed), Ordering::Relaxed);
                    }
                    let next = popped + (to as u64 + N as u64 - popped % N as u64) % N as u64;
                    raw.lap(to).store((next / N as u64 + 1) as u32, Ordering::Relaxed);
                    tampered = true;
                }
            }
        }
    }
}

/// Each way to tamper, one by one, with what exactly is found.
#[test]
fn what_a_violation_says() {
    let Ring { mut producer, mut consumer, raw } = ring();
    // A consumer that claims more than was produced, found when the ring is full.
    for n in 0..N as u64 {
        assert_eq!(producer.push(record(n)), Ok(()));
    }
    for (word, unread) in [(N as u32 + 1, u32::MAX), (u32::MAX, N as u32 + 1), (1 << 31, (1 << 31) + N as u32)] {
        raw.cursor().store(word, Ordering::Relaxed);
        let expected = RingViolation::Cursor { found: word, produced: N as u32, capacity: N as u32 };
        assert_eq!(producer.push(record(99)), Err(expected.into()), "{unread} would be unread");
    }
    raw.cursor().store(0, Ordering::Relaxed);
    assert_eq!(producer.push(record(99)), Err(PushError::Full));
    // A cursor that is possible but not true lets the producer overwrite; the consumer notices by the lap.
    raw.cursor().store(1, Ordering::Relaxed);
    assert_eq!(producer.push(record(N as u64)), Ok(()));
    assert_eq!(consumer.pop(), Err(RingViolation::Lap { entry: 0, found: 2, expected: 1 }));
    // A lap word from the past hides a record, from the future it is a violation.
    let Ring { mut producer, mut consumer, raw } = ring();
    assert_eq!(producer.push(record(0)), Ok(()));
    raw.lap(0).store(0, Ordering::Relaxed);
    assert_eq!(consumer.pop(), Ok(None));
    raw.lap(0).store(u32::MAX, Ordering::Relaxed);
    assert_eq!(consumer.pop(), Err(RingViolation::Lap { entry: 0, found: u32::MAX, expected: 1 }));
    raw.lap(0).store(1, Ordering::Relaxed);
    // Any other word is not what its seal says.
    for (at, word) in raw.words(0).iter().enumerate().skip(1) {
        word.fetch_xor(1, Ordering::Relaxed);
        let found = consumer.pop();
        assert!(matches!(found, Err(RingViolation::Seal { entry: 0, .. })), "word {at}: {found:?}");
        word.fetch_xor(1, Ordering::Relaxed);
    }
    assert_eq!(consumer.pop(), Ok(Some(record(0))));
    // A record that comes again is not the next one, whatever its lap.
    for (word, other) in raw.words(1).iter().zip(raw.words(0)) {
        word.store(other.load(Ordering::Relaxed), Ordering::Relaxed);
    }
    assert!(matches!(consumer.pop(), Err(RingViolation::Seal { entry: 1, .. })));
}

/// Threads on two mappings, many laps.
#[test]
fn many_laps_between_threads() {
    const RECORDS: u64 = 5_000;
    let Ring { mut producer, mut consumer, .. } = ring();
    let sender = std::thread::spawn(move || {
        for n in 0..RECORDS {
            while let Err(error) = producer.push(record(n)) {
                assert_eq!(error, PushError::Full);
                std::thread::yield_now();
            }
        }
    });
    for n in 0..RECORDS {
        loop {
            match consumer.pop().expect("an honest producer") {
                Some(words) => {
                    assert_eq!(words, record(n));
                    break;
                }
                None => std::thread::yield_now(),
            }
        }
    }
    sender.join().expect("the producer");
    assert_eq!(consumer.pop(), Ok(None));
}
