//! How far a statement has come, counted by the threads that move its data.

use std::sync::atomic::{AtomicU64, Ordering};

use crossbeam::channel::{Receiver, Sender, bounded};

use super::{Progress, percent};
use crate::messages::Message;

/// Counts commands and bytes, and wakes who reports them only when there is something to report: not for every command.
pub(super) struct Tally {
    /// Bytes of files in all; 0 while that is not known.
    total: AtomicU64,
    /// Whether anybody wants to know before the end.
    reported: bool,
    commands: AtomicU64,
    bytes: AtomicU64,
    wake: Sender<()>,
    due: Receiver<()>,
}

impl Tally {
    /// A tally of `total` bytes, 0 where that is not known yet; `stats` as of [`Progress::new`].
    pub(super) fn new(total: u64, stats: Option<u8>) -> Tally {
        let (wake, due) = bounded(1);
        let [total, commands, bytes] = [total, 0, 0].map(AtomicU64::new);
        Tally { total, reported: stats.is_some(), commands, bytes, wake, due }
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
            // Where it is full somebody is about to look.
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
    fn wakes(tally: &Tally, bytes: u64) -> bool {
        tally.add(bytes);
        tally.due().try_recv().is_ok()
    }

    #[test]
    fn who_reports_is_woken_for_another_percent_and_not_for_every_command() {
        let tally = Tally::new(1000, Some(10));
        assert!(!wakes(&tally, 0) && !wakes(&tally, 9), "less than a percent");
        assert!(wakes(&tally, 1), "one percent");
        assert!(!wakes(&tally, 9) && wakes(&tally, 500) && wakes(&tally, 481), "to the end");
        assert_eq!(tally.commands(), 6);
        let (mut progress, mut told) = (Progress::new(1000, Some(10)), 0);
        tally.report(&mut progress, &mut |_| told += 1);
        tally.report(&mut progress, &mut |_| told += 1);
        assert_eq!(told, 10, "each step once");
    }

    /// A restore learns how much there is from the first bytes that it reads.
    #[test]
    fn nobody_is_woken_before_it_is_known_how_much_there_is() {
        let tally = Tally::new(0, Some(10));
        assert!(!wakes(&tally, 0) && !wakes(&tally, 100));
        tally.expect(1000);
        assert!(wakes(&tally, 10), "11 percent");
        let (mut progress, mut told) = (Progress::new(1000, Some(10)), 0);
        tally.report(&mut progress, &mut |_| told += 1);
        assert_eq!(told, 1, "what came before counts");
    }

    #[test]
    fn nobody_is_woken_who_reports_nothing() {
        let tally = Tally::new(1000, None);
        assert!(!wakes(&tally, 1000));
        assert_eq!(tally.commands(), 1);
    }
}
