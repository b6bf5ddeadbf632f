//! Drivers take turns. Each value of a row comes from rounds that lie next to each other.

use std::fs;
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use tempfile::TempDir;

use crate::baselines::iceoryx;
use crate::processes::{Cost, Fallible, Process, Start};

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
    /// Starts a role with its arguments, in a new directory below `scratch`.
    pub(crate) fn new(scratch: &Path, words: &[&str]) -> Fallible<Participant> {
        let dir = tempfile::Builder::new().prefix("participant-").tempdir_in(scratch)?;
        let [role, arguments @ ..] = words else { return Err("a role has a name".into()) };
        let start = arguments.iter().fold(Start::new(role, dir.path()), |start, word| start.with(word));
        Ok(Participant { process: Some(start.start()?), dir, count: 1 })
    }

    /// The driver.
    pub(crate) fn process(&mut self) -> Fallible<&mut Process> {
        self.process.as_mut().ok_or_else(|| "the participant has ended".into())
    }

    /// Ends both processes.
    pub(crate) fn end(mut self) -> Fallible<()> {
        self.process.take().map_or(Ok(()), Process::end)
    }

    /// Runs a round. Also returns how long all of it took, preparations included.
    fn round(&mut self) -> Fallible<(Cost, Duration)> {
        let (started, count) = (Instant::now(), self.count);
        Ok((self.process()?.run(count)?, started.elapsed()))
    }

    /// Finds out how many operations make a round. This also warms up the caches.
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
        iceoryx::clean_up(self.dir.path());
    }
}

/// Nanoseconds of an operation, a value a round.
#[derive(Debug, Default)]
pub(crate) struct Samples {
    pub(crate) elapsed: Vec<f64>,
    pub(crate) cpu: Vec<f64>,
}

/// Starts the roles, has them take turns, and ends them.
pub(crate) fn together<const N: usize>(scratch: &Path, roles: [&[&str]; N], effort: Effort) -> Fallible<[Samples; N]> {
    let mut participants = Vec::with_capacity(N);
    for words in roles {
        participants.push(Participant::new(scratch, words)?);
    }
    for participant in &mut participants {
        participant.calibrate(effort.round)?;
    }
    let mut samples: [Samples; N] = std::array::from_fn(|_| Samples::default());
    let mut again = N * effort.rounds / 4;
    for round in 0..effort.rounds {
        for turn in 0..N {
            // There and back, so that a drift of the machine meets all of them alike.
            let at = if round % 2 == 0 { turn } else { N - 1 - turn };
            let participant = &mut participants[at];
            let (cost, elapsed) = host::undisturbed(&mut again, || participant.round())?;
            samples[at].elapsed.push(cost.elapsed.as_nanos() as f64 / participant.count as f64);
            samples[at].cpu.push(cost.cpu.as_nanos() as f64 / participant.count as f64);
            // Bounds a round where the machine has become much slower.
            if elapsed > effort.round * 4 {
                participant.count = (participant.count / 2).max(1);
            }
        }
    }
    participants.into_iter().try_for_each(Participant::end)?;
    Ok(samples)
}

/// What the host of a virtual machine does to a measurement.
pub(crate) mod host {
    use super::*;

    static AGAIN: AtomicUsize = AtomicUsize::new(0);
    static DISTURBED: AtomicUsize = AtomicUsize::new(0);

    /// CPU time that the host gave to others ("steal"), in hundredths of a second; 0 where the system does not count it.
    fn stolen() -> u64 {
        let stat = fs::read_to_string("/proc/stat").unwrap_or_default();
        stat.split_whitespace().nth(8).and_then(|field| field.parse().ok()).unwrap_or_default()
    }

    /// Measures. Measures again where the host took CPU time meanwhile, at most `allowed` times.
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

    /// How many rounds were repeated because of the host, and how many count although it disturbed them.
    pub(crate) fn rounds() -> (usize, usize) {
        (AGAIN.load(Ordering::Relaxed), DISTURBED.load(Ordering::Relaxed))
    }
}

/// The median and the quartiles.
#[derive(Debug, Clone, Copy)]
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
            let index = part * sorted.len().saturating_sub(1) as f64;
            let (below, above) = (sorted.get(index.floor() as usize), sorted.get(index.ceil() as usize));
            match (below, above) {
                (Some(below), Some(above)) => below + (above - below) * index.fract(),
                _ => f64::NAN,
            }
        };
        Spread { low: at(0.25), median: at(0.5), high: at(0.75) }
    }
}
