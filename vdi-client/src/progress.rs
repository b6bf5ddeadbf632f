//! How far the work of a set's devices has come, readable while it goes on.

use core::fmt;
use core::sync::atomic::{AtomicU64, Ordering};
use core::time::Duration;
use std::sync::Arc;
use std::time::Instant;

use crate::work::Report;

/// From here on [`Progress`] says that nothing moves.
const QUIET: Duration = Duration::from_secs(10);

/// A device's [`Report`] so far. One thread stores, any thread loads. The three numbers may be of different moments.
#[derive(Debug, Default)]
pub(crate) struct Counters {
    commands: AtomicU64,
    bytes_written: AtomicU64,
    bytes_read: AtomicU64,
}

impl Counters {
    pub(crate) fn store(&self, report: &Report) {
        self.commands.store(report.commands, Ordering::Relaxed);
        self.bytes_written.store(report.bytes_written, Ordering::Relaxed);
        self.bytes_read.store(report.bytes_read, Ordering::Relaxed);
    }

    fn load(&self) -> Report {
        Report {
            commands: self.commands.load(Ordering::Relaxed),
            bytes_written: self.bytes_written.load(Ordering::Relaxed),
            bytes_read: self.bytes_read.load(Ordering::Relaxed),
        }
    }
}

/// How far [`ClientVirtualDeviceSet::serve_with_progress`](crate::ClientVirtualDeviceSet::serve_with_progress) has come.
///
/// `Display` is a line for people: devices, bytes, commands, and for how long nothing has moved, from 10 seconds on.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Progress {
    /// What each device has done so far, in the order of the names.
    pub devices: Vec<Report>,
    /// Since the devices were opened.
    pub elapsed: Duration,
    /// Since a command of any device was completed, as far as the calls of the callback can tell: to about a second.
    pub idle: Duration,
}

impl Progress {
    /// The sum over all devices.
    #[must_use]
    pub fn total(&self) -> Report {
        self.devices.iter().fold(Report::default(), |sum, device| Report {
            commands: sum.commands + device.commands,
            bytes_written: sum.bytes_written + device.bytes_written,
            bytes_read: sum.bytes_read + device.bytes_read,
        })
    }
}

impl fmt::Display for Progress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let plural = if self.devices.len() == 1 { "" } else { "s" };
        write!(f, "{} device{plural}: {}", self.devices.len(), self.total())?;
        if self.idle >= QUIET {
            write!(f, "; nothing has moved for {} s", self.idle.as_secs())?;
        }
        Ok(())
    }
}

/// Makes a [`Progress`] of counters, again and again.
#[derive(Debug)]
pub(crate) struct Watch {
    counters: Vec<Arc<Counters>>,
    last: Report,
    /// When `last` was found; `None` before the first command.
    moved: Option<Instant>,
}

impl Watch {
    pub(crate) fn new(devices: usize) -> Watch {
        let counters = (0..devices).map(|_| Arc::default()).collect();
        Watch { counters, last: Report::default(), moved: None }
    }

    /// The counters of all devices.
    pub(crate) fn counters(&self) -> Vec<Arc<Counters>> {
        self.counters.clone()
    }

    /// The progress of work that has begun then.
    pub(crate) fn progress(&mut self, begun: Instant, now: Instant) -> Progress {
        let devices = self.counters.iter().map(|counters| counters.load()).collect();
        let elapsed = now.saturating_duration_since(begun);
        let mut progress = Progress { devices, elapsed, idle: Duration::ZERO };
        let total = progress.total();
        if total != self.last {
            (self.last, self.moved) = (total, Some(now));
        }
        progress.idle = now.saturating_duration_since(self.moved.unwrap_or(begun));
        progress
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn progress_adds_up_and_says_when_nothing_moves() {
        let mut watch = Watch::new(2);
        let report = |commands, bytes_written| Report { commands, bytes_written, bytes_read: 0 };
        let counters = watch.counters();
        let [first, second] = &counters[..] else { panic!("{counters:?}") };
        first.store(&report(3, 65536));
        second.store(&report(4, 1 << 20));
        let start = Instant::now();
        let mut at = |seconds| watch.progress(start, start + Duration::from_secs(seconds));
        let progress = at(20);
        assert_eq!((progress.total(), progress.idle), (report(7, (1 << 20) + 65536), Duration::ZERO));
        assert_eq!(progress.to_string(), "2 devices: 1114112 bytes written, 0 bytes read, 7 commands");
        let later = at(31);
        assert_eq!((later.elapsed.as_secs(), later.idle.as_secs()), (31, 11));
        assert!(later.to_string().ends_with("7 commands; nothing has moved for 11 s"), "{later}");
        first.store(&report(4, 65536));
        assert_eq!(at(32).idle, Duration::ZERO);

        let nothing = Watch::new(1).progress(start, start + Duration::from_secs(12));
        assert_eq!(nothing.idle.as_secs(), 12);
    }
}
