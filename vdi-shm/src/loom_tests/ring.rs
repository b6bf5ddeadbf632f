//! Rings, and a consumer that sleeps until there is a record.

use vdi_proto::seal::{Ring, Seals};

use super::*;
use crate::ring::{Consumer, Producer, PushError, RingMemory};

pub(super) fn ends<const N: usize>() -> (Producer<Arc<RingMemory<N>>, N>, Consumer<Arc<RingMemory<N>>, N>) {
    let memory = Arc::new(RingMemory::new());
    let key = Seals::new(1).ring(0, Ring::Submission);
    (Producer::new(Arc::clone(&memory), key), Consumer::new(memory, key))
}

const RECORDS: u64 = 5;

pub(super) fn record(n: u64) -> [u64; 4] {
    [n + 1, n + 101, n + 201, n + 301]
}

#[test]
fn loom_ring_two_entries_two_laps() {
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
                    Ok(()) => sent += 1,
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
            while let Some(words) = consumer.pop().expect("an honest producer") {
                assert_eq!(words, record(*received), "a record is torn, lost, or out of order");
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
    // What Full must not be: a ring whose consumer's cursor the producer has already been told.
    check("ring full", None, 4, || {
        let (mut producer, mut consumer) = ends::<2>();
        producer.push(record(0)).expect("room");
        producer.push(record(1)).expect("room");
        let reader = thread::spawn(move || {
            assert_eq!(consumer.pop(), Ok(Some(record(0))));
            consumer
        });
        let early = producer.push(record(2));
        assert!(matches!(early, Ok(()) | Err(PushError::Full)));
        let mut consumer = reader.join().expect("the consumer");
        if early.is_err() {
            assert_eq!(producer.push(record(2)), Ok(()), "an entry that was consumed counts as taken");
        }
        assert_eq!(producer.push(record(3)), Err(PushError::Full), "two records wait in two entries");
        assert_eq!(consumer.pop(), Ok(Some(record(1))));
        assert_eq!(consumer.pop(), Ok(Some(record(2))));
        assert_eq!(consumer.pop(), Ok(None));
    });
}

#[test]
fn loom_ring_no_record_is_slept_through() {
    check("ring, sleeping", Some(5), 1_700, || {
        let (mut producer, mut consumer) = ends::<2>();
        let scene = Arc::new((Doorbell::new(), ModelFutex::default()));
        let sender = {
            let scene = Arc::clone(&scene);
            thread::spawn(move || {
                for n in 0..2 {
                    let push = || producer.push(record(n)).expect("room");
                    in_order("caller.push-ring", push, || scene.0.ring(&scene.1));
                }
            })
        };
        for n in 0..2 {
            let words = wait_until(&scene.0, &scene.1, || consumer.pop().expect("an honest producer"));
            assert_eq!(words, record(n), "a record is torn, lost, or out of order");
        }
        sender.join().expect("the producer");
    });
}

#[test]
fn loom_ring_whoever_is_ready_pops() {
    // As a client waits: for a record that is there, or for another reason to wake; it pops then.
    check("ring, ready", None, 50, || {
        let (mut producer, mut consumer) = ends::<2>();
        let scene = Arc::new((Doorbell::new(), ModelFutex::default()));
        let sender = {
            let scene = Arc::clone(&scene);
            thread::spawn(move || {
                producer.push(record(0)).expect("room");
                scene.0.ring(&scene.1);
            })
        };
        wait_until(&scene.0, &scene.1, || consumer.is_ready().then_some(()));
        assert_eq!(consumer.pop(), Ok(Some(record(0))), "it was ready");
        sender.join().expect("the producer");
    });
}
