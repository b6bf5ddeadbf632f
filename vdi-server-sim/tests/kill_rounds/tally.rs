//! How often what happened, and how soon everybody was gone.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::play::{PHASES, Played};

#[derive(Default)]
pub(crate) struct Tally {
    counts: BTreeMap<String, u64>,
    lateness: Vec<Duration>,
}

impl Tally {
    pub(crate) fn count(&mut self, what: String) {
        *self.counts.entry(what).or_default() += 1;
    }

    /// Whom it met, when, how, and how soon the others were gone.
    pub(crate) fn note(&mut self, played: &Played) {
        for blow in &played.blows {
            let place = PHASES.iter().position(|phase| *phase == blow.phase).unwrap();
            self.count(format!("when {place}: {}", blow.phase));
            self.count(format!("whom: {}, {}", blow.role.kind(), blow.how.name()));
        }
        self.count(format!("blows in a round: {}", played.blows.len()));
        self.lateness.extend(played.lateness);
    }

    fn of(&self, beginning: &str) -> u64 {
        self.counts.iter().filter(|(what, _)| what.starts_with(beginning)).map(|(_, count)| count).sum()
    }

    pub(crate) fn print(&mut self) {
        for (what, count) in &self.counts {
            eprintln!("{count:6}  {what}");
        }
        self.lateness.sort();
        if let Some(worst) = self.lateness.last() {
            let share = |of: usize| self.lateness[(self.lateness.len() - 1) * of / 100];
            eprintln!(
                "all were gone after the last signal: median {:?}, 90 of 100 within {:?}, 99 within {:?}, worst {worst:?}",
                share(50),
                share(90),
                share(99),
            );
        }
    }

    /// A law that sees only a part of the cases proves nothing of the others.
    pub(crate) fn assert_breadth(&self) {
        for what in [
            "BACKUP: reported as good",
            "BACKUP: failed",
            "RESTORE: reported as good",
            "RESTORE: failed",
            "whom: server, SIGKILL",
            "whom: primary, SIGKILL",
            "whom: secondary",
            "whom: worker",
            "whom: server, SIGTERM",
            "whom: primary, SIGTERM",
            "whom: server, SIGSTOP",
            "when 1",
            "when 2",
            "when 3",
            "when 4",
            "blows in a round: 2",
        ] {
            assert!(self.of(what) > 0, "this never came about: {what}");
        }
    }
}
