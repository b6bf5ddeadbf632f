//! Rings in a real segment, mapped three times: for the producer, the consumer, and a process that writes where it must not.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use proptest::prelude::*;
use vdi_shm::ipc::ring::{Consumer, FIRST, Producer, PushError, RingMemory, RingViolation, Words};
use vdi_shm::ipc::segment::{Segment, Shared, SharedLayout};

const N: usize = 8;
/// Entries, as a difference of record numbers.
const CAPACITY: u64 = N as u64;
const LINE: usize = 64;
const LEN: usize = LINE * (1 + N);

/// The ring as plain words.
#[repr(C)]
struct Raw([[AtomicU64; LINE / 8]; 1 + N]);

// SAFETY: `repr(C)` and made of atomics.
#[allow(unsafe_code)]
unsafe impl SharedLayout for Raw {}

impl Raw {
    fn cursor(&self) -> &AtomicU64 {
        &self.0[0][0]
    }

    fn sequence(&self, entry: usize) -> &AtomicU64 {
        &self.0[1 + entry][0]
    }

    fn zero(&self) {
        self.0.iter().flatten().for_each(|word| word.store(0, Ordering::Relaxed));
    }
}

struct Ring {
    producer: Producer<Shared<RingMemory<N>>, N>,
    consumer: Consumer<Shared<RingMemory<N>>, N>,
    raw: Shared<Raw>,
}

fn ring() -> Ring {
    assert_eq!(size_of::<RingMemory<N>>(), LEN);
    let segment = Segment::create("vdi-test-ring", LEN as u64).expect("memory");
    let map = || Arc::new(segment.map().expect("a mapping"));
    let memory: Shared<RingMemory<N>> = map().shared(0).expect("a ring");
    memory.init();
    Ring {
        producer: Producer::new(memory),
        consumer: Consumer::new(map().shared(0).expect("a ring")),
        raw: map().shared(0).expect("words"),
    }
}

/// The words of a record follow from its number.
fn record(number: u64) -> Words {
    [number, !number, number.wrapping_mul(0x9e37_79b9_7f4a_7c15), number.rotate_left(32) ^ 0x5555]
}

#[derive(Debug, Clone)]
enum Step {
    Push,
    Pop,
    Cursor(u64),
    Sequence(usize, u64),
    Zero,
}

fn word() -> impl Strategy<Value = u64> {
    prop_oneof![
        (0..4 * CAPACITY).prop_map(|number| FIRST - CAPACITY + number),
        0..4 * CAPACITY,
        Just(u64::MAX),
        Just(FIRST << 1),
        any::<u64>()
    ]
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    prop::collection::vec(
        prop_oneof![
            60 => Just(Step::Push),
            60 => Just(Step::Pop),
            10 => word().prop_map(Step::Cursor),
            10 => (0..N, word()).prop_map(|(entry, word)| Step::Sequence(entry, word)),
            1 => Just(Step::Zero),
        ],
        0..200,
    )
}

/// An honest ring, as what its words must be.
struct Model {
    /// The next record of the producer.
    pushed: u64,
    /// The next record of the consumer.
    popped: u64,
    /// The cursor as the producer has last seen it.
    seen: u64,
    cursor: u64,
    sequences: [u64; N],
}

impl Model {
    fn new() -> Model {
        let sequences = core::array::from_fn(|entry| FIRST - CAPACITY + entry as u64);
        Model { pushed: FIRST, popped: FIRST, seen: FIRST, cursor: FIRST, sequences }
    }

    fn push(&mut self) -> Result<u64, PushError> {
        if self.pushed - self.seen == CAPACITY {
            if self.cursor > self.pushed || self.pushed - self.cursor > CAPACITY {
                let (found, next, capacity) = (self.cursor, self.pushed, N as u32);
                return Err(RingViolation::Cursor { found, next, capacity }.into());
            }
            self.seen = self.cursor;
            if self.pushed - self.seen == CAPACITY {
                return Err(PushError::Full);
            }
        }
        self.sequences[(self.pushed % CAPACITY) as usize] = self.pushed;
        self.pushed += 1;
        Ok(self.pushed - 1)
    }

    fn pop(&mut self) -> Result<Option<u64>, RingViolation> {
        let entry = (self.popped % CAPACITY) as usize;
        let found = self.sequences[entry];
        if found == self.popped - CAPACITY {
            return Ok(None);
        }
        if found != self.popped {
            return Err(RingViolation::Sequence { entry: entry as u32, found, expected: self.popped });
        }
        self.popped += 1;
        self.cursor = self.popped;
        Ok(Some(self.popped - 1))
    }
}

proptest! {
    /// An honest ring is a queue of N.
    #[test]
    fn a_ring_is_a_queue(pushes in prop::collection::vec(any::<bool>(), 0..400)) {
        let Ring { mut producer, mut consumer, .. } = ring();
        let mut queue = VecDeque::new();
        for push in pushes {
            if push {
                let number = producer.next_number();
                let pushed = producer.push(record(number));
                if queue.len() == N {
                    prop_assert_eq!(pushed, Err(PushError::Full));
                    prop_assert_eq!(producer.next_number(), number);
                } else {
                    prop_assert_eq!(pushed, Ok(number));
                    queue.push_back((number, record(number)));
                }
            } else {
                prop_assert_eq!(consumer.is_ready(), !queue.is_empty());
                prop_assert_eq!(consumer.pop(), Ok(queue.pop_front()));
            }
        }
    }

    /// Whatever the sequence numbers and the cursor are: each end answers as the model says, so a record has its own number,
    /// or it is a violation, which stays.
    #[test]
    fn each_impossible_word_is_a_violation(steps in steps()) {
        let Ring { mut producer, mut consumer, raw } = ring();
        let mut model = Model::new();
        for step in steps {
            match step {
                Step::Push => {
                    let pushed = producer.push(record(producer.next_number()));
                    prop_assert_eq!(pushed, model.push());
                    if let Err(PushError::Violation(_)) = pushed {
                        prop_assert_eq!(producer.push([0; 4]), pushed);
                    }
                }
                Step::Pop => {
                    let ready = consumer.is_ready();
                    let popped = consumer.pop();
                    prop_assert_eq!(popped.map(|popped| popped.map(|(number, _)| number)), model.pop());
                    prop_assert_eq!(ready, popped != Ok(None));
                    if popped.is_err() {
                        prop_assert_eq!(consumer.pop(), popped);
                    }
                }
                Step::Cursor(word) => {
                    raw.cursor().store(word, Ordering::Relaxed);
                    model.cursor = word;
                }
                Step::Sequence(entry, word) => {
                    raw.sequence(entry).store(word, Ordering::Relaxed);
                    model.sequences[entry] = word;
                }
                Step::Zero => {
                    raw.zero();
                    (model.cursor, model.sequences) = (0, [0; N]);
                }
            }
        }
    }
}

/// Memory that was never initialised, or was zeroed by mistake, is no empty ring.
#[test]
fn zeroed_memory_is_a_violation() {
    let segment = Segment::create("vdi-test-ring", LEN as u64).expect("memory");
    let mapping = Arc::new(segment.map().expect("a mapping"));
    let memory: Shared<RingMemory<N>> = mapping.shared(0).expect("a ring");
    let mut consumer = Consumer::new(memory);
    assert!(consumer.is_ready());
    assert_eq!(consumer.pop(), Err(RingViolation::Sequence { entry: 0, found: 0, expected: FIRST }));

    let Ring { mut producer, mut consumer, raw } = ring();
    for _ in 0..N {
        producer.push([1; 4]).expect("room");
    }
    consumer.pop().expect("a record");
    raw.zero();
    assert_eq!(consumer.pop(), Err(RingViolation::Sequence { entry: 1, found: 0, expected: FIRST + 1 }));
    let next = FIRST + CAPACITY;
    assert_eq!(producer.push([1; 4]), Err(RingViolation::Cursor { found: 0, next, capacity: N as u32 }.into()));
}

/// A possible but wrong cursor makes the producer overwrite. The consumer sees it by the sequence number.
#[test]
fn an_overwritten_record_is_a_violation() {
    let Ring { mut producer, mut consumer, raw } = ring();
    for _ in 0..N {
        producer.push([1; 4]).expect("room");
    }
    assert_eq!(producer.push([2; 4]), Err(PushError::Full));
    raw.cursor().store(FIRST + 1, Ordering::Relaxed);
    assert_eq!(producer.push([2; 4]), Ok(FIRST + CAPACITY));
    let overwritten = RingViolation::Sequence { entry: 0, found: FIRST + CAPACITY, expected: FIRST };
    assert_eq!(consumer.pop(), Err(overwritten));
    assert_eq!(
        overwritten.to_string(),
        "entry 0 of a ring has sequence number 0x100000008, where 0x100000000 or its predecessor was expected"
    );
}

/// Threads on two mappings, many times around.
#[test]
fn many_records_between_threads() {
    const RECORDS: u64 = 5_000;
    let Ring { mut producer, mut consumer, .. } = ring();
    let sender = std::thread::spawn(move || {
        for number in FIRST..FIRST + RECORDS {
            while let Err(error) = producer.push(record(number)) {
                assert_eq!(error, PushError::Full);
                std::thread::yield_now();
            }
        }
    });
    for number in FIRST..FIRST + RECORDS {
        loop {
            match consumer.pop().expect("an honest producer") {
                Some(found) => {
                    assert_eq!(found, (number, record(number)));
                    break;
                }
                None => std::thread::yield_now(),
            }
        }
    }
    sender.join().expect("the producer");
    assert_eq!(consumer.pop(), Ok(None));
}
