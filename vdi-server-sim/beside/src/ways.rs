//! The other ways: records and data between two processes, by everything that can carry them.
//!
//! A record has the words of a command or of a completion. The driver asks, the peer answers each record by one of its own.
//! Data is copied from one source by the driver, and summed by the peer.

pub(crate) mod bare;
pub(crate) mod iceoryx;
pub(crate) mod memory;
pub(crate) mod semaphores;
pub(crate) mod wires;

use std::hint::black_box;
use std::sync::Arc;
use std::time::{Duration, Instant};

use vdi_beside::pollers::{Poller, Shift, at_work};
use vdi_beside::processes::{Fallible, Process, on_demand, rounds, tell};
use vdi_beside::set::{source, sum};

/// What a command or a completion has.
pub(crate) type Words = [u64; 4];

/// The first word of a record after which the peer goes to sleep.
const LAST: u64 = u64::MAX;

/// The driver's end of a way for records. No record has the first word of the one before it.
pub(crate) trait Ask {
    /// Sends a record, and waits for the answer.
    fn ask(&mut self, record: Words) -> Words;
}

/// The peer's end of a way for records.
pub(crate) trait Answer {
    /// Waits for a record, and sends it back.
    fn answer(&mut self) -> Words;
}

/// Before a round of records goes such a part of it, unmeasured: whoever is woken may share the other's CPU until the system has
/// noticed that both want one.
pub(crate) const WARM_UP: u64 = 10;

/// The driver: asks so many times, after a pause each where there is one.
pub(crate) fn drive_records(mut way: impl Ask, mut peer: Process, pause: Duration) -> Fallible<()> {
    let mut number = 0;
    rounds(|count| {
        peer.say("go")?;
        // Both are awake when the clock starts, and where nobody sleeps in between each has a CPU.
        for _ in 0..=if pause.is_zero() { count / WARM_UP } else { 0 } {
            number += 1;
            way.ask([number; 4]);
        }
        let mut elapsed = Duration::ZERO;
        let mut ask = |count| {
            let started = Instant::now();
            for _ in 0..count {
                number += 1;
                let record = [number, number + 1, number + 2, number + 3];
                assert_eq!(black_box(way.ask(record))[0], number, "the answer to another record");
            }
            elapsed += started.elapsed();
        };
        if pause.is_zero() {
            ask(count);
        } else {
            for _ in 0..count {
                std::thread::sleep(pause);
                ask(1);
            }
        }
        way.ask([LAST; 4]);
        Ok(elapsed)
    })
}

/// The peer: answers until the last record of a round, then sleeps until the next round.
pub(crate) fn answer_records(mut way: impl Answer) -> Fallible<()> {
    on_demand(|_| {
        while way.answer()[0] != LAST {}
        Ok(())
    })
}

/// The driver's end of a way for data.
pub(crate) trait Give {
    /// Copies a chunk into the way.
    fn give(&mut self, chunk: &[u8]);
}

/// The peer's end of a way for data.
pub(crate) trait Take {
    /// Waits for the next chunk; the sum of its bytes.
    fn take(&mut self) -> u64;
}

/// The driver: so many chunks of `size` bytes a round, until the peer has summed them all.
pub(crate) fn drive_data(mut way: impl Give, mut peer: Process, size: usize) -> Fallible<()> {
    let source = source(size);
    let expected = sum(&source);
    rounds(|count| {
        peer.say(&count.to_string())?;
        let started = Instant::now();
        for _ in 0..count {
            way.give(&source);
        }
        let total: u64 = peer.hear()?.parse()?;
        let elapsed = started.elapsed();
        assert_eq!(total, expected.wrapping_mul(count), "the peer has summed other bytes");
        Ok(elapsed)
    })
}

/// The peer: sums as many chunks as it is told to.
pub(crate) fn take_data(mut way: impl Take) -> Fallible<()> {
    on_demand(|line| {
        let count: u64 = line.parse()?;
        let total = (0..count).map(|_| way.take()).fold(0, u64::wrapping_add);
        tell(&total.to_string())
    })
}

/// The driver's end of as many ways as there are devices.
pub(crate) trait AskMany {
    /// Sends a record on a way.
    fn send(&mut self, way: usize, record: Words);
    /// The answer that has come on a way, if one has.
    fn receive(&mut self, way: usize) -> Option<Words>;
}

/// The driver: a thread that has a record under way on each of `ways` ways.
pub(crate) fn drive_many(mut ways: impl AskMany, mut peer: Process, count_of_ways: usize) -> Fallible<()> {
    let mut run = move |count: u64| {
        let first = (count_of_ways as u64).min(count);
        let (mut sent, mut received) = (0, 0);
        let mut poller = Poller::default();
        let started = Instant::now();
        for way in 0..first {
            ways.send(way as usize, [sent; 4]);
            sent += 1;
        }
        while received < count {
            let before = received;
            for way in 0..first as usize {
                if ways.receive(way).is_some() {
                    received += 1;
                    if sent < count {
                        ways.send(way, [sent; 4]);
                        sent += 1;
                    }
                }
            }
            poller.looked(received > before);
        }
        started.elapsed()
    };
    rounds(|count| {
        at_work(&mut peer, || {
            // Until all are awake.
            run(count_of_ways as u64);
            Ok(run(count))
        })
    })
}

/// The peer's end of as many ways as there are devices.
pub(crate) trait AnswerMany {
    /// Answers what has come; false when nothing had.
    fn look(&mut self) -> bool;
}

/// The peer: threads that look at their share of the ways in turn.
pub(crate) fn answer_many<W: AnswerMany>(
    threads: usize,
    share: impl Fn(usize) -> Fallible<W> + Send + Sync + 'static,
) -> Fallible<()> {
    let (share, shift) = (Arc::new(share), Arc::new(Shift::default()));
    let (made, wait) = std::sync::mpsc::channel();
    for thread in 0..threads {
        let (share, shift, made) = (Arc::clone(&share), Arc::clone(&shift), made.clone());
        // They end with the process.
        std::thread::spawn(move || {
            let mut ways = match share(thread) {
                Ok(ways) => ways,
                Err(error) => return drop(made.send(Err(error))),
            };
            let _ = made.send(Ok(()));
            let mut poller = Poller::of_peer(&shift);
            loop {
                let found = ways.look();
                poller.looked(found);
            }
        });
    }
    for _ in 0..threads {
        wait.recv()??;
    }
    tell("ready")?;
    shift.follow_lines()
}
