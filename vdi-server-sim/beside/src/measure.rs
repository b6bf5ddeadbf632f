//! Participants that take turns, and what their rounds say.

use std::fs;
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use serde::Serialize;
use tempfile::TempDir;
use vdi_beside::processes::{Fallible, Process, Start};

/// How much is measured.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Effort {
    /// Rounds of each participant.
    pub(crate) rounds: usize,
    /// About how long a round takes.
    pub(crate) round: Duration,
}

/// A driver with its peer, in a directory of their own.
pub(crate) struct Participant {
    process: Option<Process>,
    dir: TempDir,
    /// Operations of a round.
    count: u64,
}

impl Participant {
    /// Starts what `start` makes of a new directory below `scratch`.
    pub(crate) fn new(scratch: &Path, start: impl FnOnce(&Path) -> Start) -> Fallible<Participant> {
        let dir = tempfile::Builder::new().prefix("way-").tempdir_in(scratch)?;
        let process = Some(start(dir.path()).start()?);
        Ok(Participant { process, dir, count: 1 })
    }

    /// The driver.
    pub(crate) fn process(&mut self) -> Fallible<&mut Process> {
        self.process.as_mut().ok_or_else(|| "the participant has ended".into())
    }

    /// Runs `count` operations; nanoseconds.
    pub(crate) fn run(&mut self, count: u64) -> Fallible<f64> {
        self.process()?.run(count)
    }

    /// Ends both processes in order.
    pub(crate) fn end(mut self) -> Fallible<()> {
        self.process.take().map_or(Ok(()), Process::end)
    }

    /// Runs a round: the nanoseconds of its operations, and how long all of it took, pauses included.
    fn round(&mut self) -> Fallible<(f64, Duration)> {
        let started = Instant::now();
        Ok((self.run(self.count)?, started.elapsed()))
    }

    /// Finds out how many operations make a round, and warms everything up.
    fn calibrate(&mut self, round: Duration) -> Fallible<()> {
        loop {
            let (_, elapsed) = self.round()?;
            let fit = self.count as f64 * round.as_secs_f64() / elapsed.as_secs_f64().max(1e-9);
            if elapsed * 4 > round {
                self.count = (fit as u64).max(1);
                return Ok(());
            }
            self.count = (fit as u64).clamp(self.count * 2, self.count * 16);
        }
    }
}

impl Drop for Participant {
    fn drop(&mut self) {
        self.process = None;
        crate::ways::iceoryx::clean_up(self.dir.path());
    }
}

/// What the host of a virtual machine did to the measuring.
pub(crate) mod host {
    use super::*;

    static AGAIN: AtomicUsize = AtomicUsize::new(0);
    static DISTURBED: AtomicUsize = AtomicUsize::new(0);

    /// Time that the host gave to others while this machine had use for its CPUs, in hundredths of a second; 0 where nobody counts it.
    fn stolen() -> u64 {
        let stat = fs::read_to_string("/proc/stat").unwrap_or_default();
        stat.split_whitespace().nth(8).and_then(|field| field.parse().ok()).unwrap_or_default()
    }

    /// Measures, and again where the host took time meanwhile: at once, as long as that is `allowed`.
    pub(crate) fn undisturbed<T>(allowed: &mut usize, mut measure: impl FnMut() -> Fallible<T>) -> Fallible<T> {
        loop {
            let before = stolen();
            let measured = measure()?;
            if stolen() == before {
                return Ok(measured);
            }
            let Some(left) = allowed.checked_sub(1) else {
                DISTURBED.fetch_add(1, Ordering::Relaxed);
                return Ok(measured);
            };
            *allowed = left;
            AGAIN.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// How many turns were taken again for it, and how many were not, and count.
    pub(crate) fn turns() -> (usize, usize) {
        (AGAIN.load(Ordering::Relaxed), DISTURBED.load(Ordering::Relaxed))
    }
}

/// Has the participants take turns; the nanoseconds of an operation, by participant and round.
pub(crate) fn take_turns(participants: &mut [Participant], effort: Effort) -> Fallible<Vec<Vec<f64>>> {
    for participant in &mut *participants {
        participant.calibrate(effort.round)?;
    }
    let mut times = vec![Vec::new(); participants.len()];
    // A quarter as many turns again at most.
    let mut again = participants.len() * effort.rounds / 4;
    for round in 0..effort.rounds {
        for turn in 0..participants.len() {
            // There and back, so that what changes in the course of a round meets none of them more than the others.
            let at = if round % 2 == 0 { turn } else { participants.len() - 1 - turn };
            let participant = &mut participants[at];
            let (nanoseconds, elapsed) = host::undisturbed(&mut again, || participant.round())?;
            times[at].push(nanoseconds / participant.count as f64);
            // Where the machine has become much slower, a round must not take for ever.
            if elapsed > effort.round * 4 {
                participant.count = (participant.count / 2).max(1);
            }
        }
    }
    Ok(times)
}

/// The median, and the quartiles around it.
#[derive(Debug, Clone, Copy, Serialize)]
pub(crate) struct Spread {
    pub(crate) low: f64,
    pub(crate) median: f64,
    pub(crate) high: f64,
}

impl Spread {
    pub(crate) fn of(values: &[f64]) -> Spread {
        let mut sorted = values.to_vec();
        sorted.sort_by(f64::total_cmp);
        let at = |part: f64| {
            let place = part * sorted.len().saturating_sub(1) as f64;
            let (below, above) = (sorted.get(place.floor() as usize), sorted.get(place.ceil() as usize));
            match (below, above) {
                (Some(below), Some(above)) => below + (above - below) * place.fract(),
                _ => f64::NAN,
            }
        };
        Spread { low: at(0.25), median: at(0.5), high: at(0.75) }
    }
}
