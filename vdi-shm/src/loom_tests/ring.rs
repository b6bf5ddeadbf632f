//! Rings, and a consumer that sleeps until there is a record.

use super::weakened::{ACQ_REL, RELAXED, Source, Weakening};
use super::*;
use crate::ipc::ring::{Consumer, FIRST, Producer, PushError, RingMemory};

pub(super) const WEAKENINGS: &[Weakening] = &[
    ("ring.push.sequence", RELAXED, "ring::loom_ring_two_entries_used_twice"),
    ("ring.pop.sequence", RELAXED, "ring::loom_ring_two_entries_used_twice"),
    ("ring.push.cursor", RELAXED, "ring::loom_ring_two_entries_used_twice"),
    ("ring.pop.cursor", RELAXED, "ring::loom_ring_two_entries_used_twice"),
    ("event_count.notify", ACQ_REL, "ring::loom_ring_no_record_is_slept_through"),
    ("event_count.arm", ACQ_REL, "ring::loom_ring_no_record_is_slept_through"),
];

pub(super) const SOURCE: Source = include_str!("../ipc/ring.rs");

pub(super) fn ends<const N: usize>() -> (Producer<Arc<RingMemory<N>>, N>, Consumer<Arc<RingMemory<N>>, N>) {
    let memory = Arc::new(RingMemory::new());
    (Producer::new(Arc::clone(&memory)), Consumer::new(memory))
}

const RECORDS: u64 = 5;

pub(super) fn record(n: u64) -> [u64; 4] {
    [n + 1, n + 101, n + 201, n + 301]
}

/// What popping the `n`th record gives.
fn popped(n: u64) -> (u64, [u64; 4]) {
    (FIRST + n, record(n))
}

#[test]
fn loom_ring_two_entries_used_twice() {
    // Two entries, five records: two laps and a half.
    check("ring", Some(4), 9_000, || {
        let (mut producer, mut consumer) = ends::<2>();
        let sender = thread::spawn(move || {
            let mut sent = 0;
            // Full is an answer like any other here: bounded tries keep the model finite.
            for _ in 0..RECORDS + 2 {
                if sent == RECORDS {
                    break;
                }
                match producer.push(record(sent)) {
                    Ok(number) => {
                        assert_eq!(number, FIRST + sent);
                        sent += 1;
                    }
                    Err(PushError::Full) => {
                        assert!(sent >= 2, "a ring that was never filled is full");
                        thread::yield_now();
                    }
                    Err(PushError::Violation(violation)) => panic!("{violation}"),
                }
            }
            sent
        });
        let mut received = 0;
        let mut drain = |received: &mut u64| {
            while let Some(found) = consumer.pop().expect("an honest producer") {
                assert_eq!(found, popped(*received), "a record is torn, lost, or out of order");
                *received += 1;
            }
        };
        for _ in 0..3 {
            drain(&mut received);
            thread::yield_now();
        }
        let sent = sender.join().expect("the producer");
        drain(&mut received);
        assert_eq!(received, sent, "a record that was pushed is not there");
    });
}

#[test]
fn loom_ring_full_is_true() {
    // The producer must not report Full once it can see that the consumer has read an entry.
    check("ring full", None, 4, || {
        let (mut producer, mut consumer) = ends::<2>();
        producer.push(record(0)).expect("room");
        producer.push(record(1)).expect("room");
        let reader = thread::spawn(move || {
            assert_eq!(consumer.pop(), Ok(Some(popped(0))));
            consumer
        });
        let early = producer.push(record(2));
        assert!(matches!(early, Ok(_) | Err(PushError::Full)));
        let mut consumer = reader.join().expect("the consumer");
        if early.is_err() {
            assert_eq!(producer.push(record(2)), Ok(FIRST + 2), "an entry that was consumed counts as taken");
        }
        assert_eq!(producer.push(record(3)), Err(PushError::Full), "two records wait in two entries");
        assert_eq!(consumer.pop(), Ok(Some(popped(1))));
        assert_eq!(consumer.pop(), Ok(Some(popped(2))));
        assert_eq!(consumer.pop(), Ok(None));
    });
}

#[test]
fn loom_ring_no_record_is_slept_through() {
    check("ring, sleeping", Some(5), 1_700, || {
        let (mut producer, mut consumer) = ends::<2>();
        let scene = Arc::new((EventCount::new(), ModelFutex::default()));
        let sender = {
            let scene = Arc::clone(&scene);
            thread::spawn(move || {
                for n in 0..2 {
                    producer.push(record(n)).expect("room");
                    scene.0.notify_with(&scene.1);
                }
            })
        };
        for n in 0..2 {
            let found = wait_until(&scene.0, &scene.1, || consumer.pop().expect("an honest producer"));
            assert_eq!(found, popped(n), "a record is torn, lost, or out of order");
        }
        sender.join().expect("the producer");
    });
}

#[test]
fn loom_ring_ready_then_pop() {
    // A caller that waits for a record or for another event pops after it woke.
    check("ring, ready", None, 50, || {
        let (mut producer, mut consumer) = ends::<2>();
        let scene = Arc::new((EventCount::new(), ModelFutex::default()));
        let sender = {
            let scene = Arc::clone(&scene);
            thread::spawn(move || {
                producer.push(record(0)).expect("room");
                scene.0.notify_with(&scene.1);
            })
        };
        wait_until(&scene.0, &scene.1, || consumer.is_ready().then_some(()));
        assert_eq!(consumer.pop(), Ok(Some(popped(0))), "it was ready");
        sender.join().expect("the producer");
    });
}
