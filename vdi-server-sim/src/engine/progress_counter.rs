//! How far a statement has come, counted by the threads that move its data.

use std::sync::atomic::{AtomicU64, Ordering};

use crossbeam::channel::{Receiver, Sender, bounded};

use super::{Progress, percent};
use crate::messages::Message;

/// Counts commands and bytes. It wakes the reporting thread when another percent is reached, not for every command.
pub(super) struct ProgressCounter {
    /// Bytes of files in all; 0 while that is not known.
    total: AtomicU64,
    /// Whether progress is reported before the end.
    reported: bool,
    commands: AtomicU64,
    bytes: AtomicU64,
    wake: Sender<()>,
    due: Receiver<()>,
}

impl ProgressCounter {
    /// A counter of `total` bytes, 0 where that is not known yet; `stats` as of [`Progress::new`].
    pub(super) fn new(total: u64, stats: Option<u8>) -> ProgressCounter {
        let (wake, due) = bounded(1);
        let [total, commands, bytes] = [total, 0, 0].map(AtomicU64::new);
        ProgressCounter { total, reported: stats.is_some(), commands, bytes, wake, due }
    }

    /// How many bytes there are is known now.
    pub(super) fn expect(&self, total: u64) {
        self.total.store(total, Ordering::Relaxed);
    }

    /// A command has succeeded and moved so many bytes of files.
    pub(super) fn add(&self, bytes: u64) {
        self.commands.fetch_add(1, Ordering::Relaxed);
        let (before, total) = (self.bytes.fetch_add(bytes, Ordering::Relaxed), self.total.load(Ordering::Relaxed));
        if self.reported && percent(before, total) != percent(before.saturating_add(bytes), total) {
            // If it is full, the reporting thread is about to read the counters.
            let _ = self.wake.try_send(());
        }
    }

    /// Where the reporting thread learns that another percent is reached.
    pub(super) fn due(&self) -> &Receiver<()> {
        &self.due
    }

    /// Reports what has been reached.
    pub(super) fn report(&self, progress: &mut Progress, report: &mut dyn FnMut(Message)) {
        progress.reached(self.bytes.load(Ordering::Relaxed), report);
    }

    /// Commands that have succeeded.
    pub(super) fn commands(&self) -> u64 {
        self.commands.load(Ordering::Relaxed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Whether the reporting thread is woken.
    fn wakes(counter: &ProgressCounter, bytes: u64) -> bool {
        counter.add(bytes);
        counter.due().try_recv().is_ok()
    }

    #[test]
    fn who_reports_is_woken_for_another_percent_and_not_for_every_command() {
        let counter = ProgressCounter::new(1000, Some(10));
        assert!(!wakes(&counter, 0) && !wakes(&counter, 9), "less than a percent");
        assert!(wakes(&counter, 1), "one percent");
        assert!(!wakes(&counter, 9) && wakes(&counter, 500) && wakes(&counter, 481), "to the end");
        assert_eq!(counter.commands(), 6);
        let (mut progress, mut told) = (Progress::new(1000, Some(10)), 0);
        counter.report(&mut progress, &mut |_| told += 1);
        counter.report(&mut progress, &mut |_| told += 1);
        assert_eq!(told, 10, "each step once");
    }

    /// A restore learns how much there is from the first bytes that it reads.
    #[test]
    fn nobody_is_woken_before_it_is_known_how_much_there_is() {
        let counter = ProgressCounter::new(0, Some(10));
        assert!(!wakes(&counter, 0) && !wakes(&counter, 100));
        counter.expect(1000);
        assert!(wakes(&counter, 10), "11 percent");
        let (mut progress, mut told) = (Progress::new(1000, Some(10)), 0);
        counter.report(&mut progress, &mut |_| told += 1);
        assert_eq!(told, 1, "what came before counts");
    }

    #[test]
    fn nobody_is_woken_who_reports_nothing() {
        let counter = ProgressCounter::new(1000, None);
        assert!(!wakes(&counter, 1000));
        assert_eq!(counter.commands(), 1);
    }
}
