//! The baselines: records and data between two processes without a set.
//!
//! The driver asks, and the peer answers each record by one of its own. A record has the words of a command or of a completion.
//! Data is copied from one source by the driver, and summed by the peer.

pub(crate) mod bare;
pub(crate) mod iceoryx;
mod memory;
pub(crate) mod socket;

use std::hint::black_box;
use std::time::Instant;

use crate::processes::{Fallible, Process, on_demand, rounds, tell};

/// What a command or a completion has.
pub(crate) type Words = [u64; 4];

/// Buffers of a stream.
pub(crate) const DEPTH: usize = 4;

/// One in so many records is sent before the clock starts. Two processes may share a CPU until the system has noticed that
/// both want one.
pub(crate) const WARM_UP: u64 = 10;

/// The first word of a record after which the peer sleeps.
const LAST: u64 = u64::MAX;

/// What each sender of data copies from.
pub(crate) fn source(len: usize) -> Vec<u8> {
    (0..len).map(|i| (i % 251) as u8).collect()
}

/// What each receiver of data does with it.
pub(crate) fn sum(bytes: &[u8]) -> u64 {
    let words = bytes.as_chunks::<8>().0;
    words.iter().map(|word| u64::from_le_bytes(*word)).fold(0, u64::wrapping_add)
}

/// The driver's end of a baseline for records.
trait Ask {
    /// Sends a record, and waits for the answer. No record has the first word of the one before it.
    fn ask(&mut self, record: Words) -> Words;
}

/// The peer's end of a baseline for records.
trait Answer {
    /// Waits for a record, and sends it back.
    fn answer(&mut self) -> Words;
}

/// The driver of records.
fn drive_records(mut baseline: impl Ask, mut peer: Process) -> Fallible<()> {
    let mut number = 0;
    let mut ask = |baseline: &mut _, count| {
        for _ in 0..count {
            number += 1;
            let record = [number, number + 1, number + 2, number + 3];
            assert_eq!(black_box(Ask::ask(baseline, record))[0], number, "the answer to another record");
        }
    };
    rounds(|count| {
        peer.say("go")?;
        ask(&mut baseline, 1 + count / WARM_UP);
        let started = Instant::now();
        ask(&mut baseline, count);
        let elapsed = started.elapsed();
        baseline.ask([LAST; 4]);
        Ok(elapsed)
    })?;
    peer.end()
}

/// The peer: answers until the last record of a round, then sleeps until the next round.
fn answer_records(mut baseline: impl Answer) -> Fallible<()> {
    on_demand(|_| {
        while baseline.answer()[0] != LAST {}
        Ok(())
    })
}

/// The driver's end of a baseline for data.
trait Give {
    /// Copies a chunk into the baseline.
    fn give(&mut self, chunk: &[u8]);
}

/// The peer's end of a baseline for data.
trait Take {
    /// Waits for the next chunk. Returns the sum of its bytes.
    fn take(&mut self) -> u64;
}

/// The driver of data: chunks of `size` bytes, until the peer has summed them all.
fn drive_data(mut baseline: impl Give, mut peer: Process, size: usize) -> Fallible<()> {
    let source = source(size);
    let expected = sum(&source);
    rounds(|count| {
        peer.say(&count.to_string())?;
        let started = Instant::now();
        for _ in 0..count {
            baseline.give(&source);
        }
        let total: u64 = peer.hear()?.parse()?;
        let elapsed = started.elapsed();
        assert_eq!(total, expected.wrapping_mul(count), "the peer has summed other bytes");
        Ok(elapsed)
    })?;
    peer.end()
}

/// The peer: sums as many chunks as it is told to.
fn take_data(mut baseline: impl Take) -> Fallible<()> {
    on_demand(|line| {
        let count: u64 = line.parse()?;
        let total = (0..count).map(|_| baseline.take()).fold(0, u64::wrapping_add);
        tell(&total.to_string())
    })
}
