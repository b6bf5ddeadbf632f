//! How often what happened, and how soon everybody was gone.

use std::collections::BTreeMap;
use std::time::Duration;

use super::play::{PHASES, Played};

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

    /// How often something came about whose name has all these parts.
    fn of(&self, parts: &[&str]) -> u64 {
        let is_one = |what: &str| parts.iter().all(|part| what.contains(part));
        self.counts.iter().filter(|(what, _)| is_one(what)).map(|(_, count)| count).sum()
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

    /// A law that sees only a part of the cases proves nothing of the others. Few rounds may miss what is rare.
    pub(crate) fn assert_breadth(&self, rounds: u64) {
        let verbs = ["BACKUP: ", "RESTORE: "]
            .iter()
            .flat_map(|verb| ["reported as good", "failed"].map(|end| vec![*verb, end]));
        let kinds = ["server", "primary", "secondary", "worker"];
        let signals = ["SIGKILL", "SIGTERM", "SIGSTOP"];
        let mut wanted: Vec<_> = verbs.collect();
        if rounds < 500 {
            wanted.extend(kinds.iter().chain(&signals).map(|whom| vec!["whom: ", *whom]));
            wanted.extend([vec!["when ", "data"], vec!["when ", "Flush"], vec!["blows in a round: 2"]]);
        } else {
            wanted.extend(kinds.iter().flat_map(|kind| signals.map(|signal| vec!["whom: ", *kind, signal])));
            wanted.extend(PHASES.iter().map(|phase| vec!["when ", *phase]));
            wanted.extend([vec!["blows in a round: 3"], vec!["without Complete: "]]);
        }
        for what in wanted {
            assert!(self.of(&what) > 0, "this never came about: {what:?}");
        }
        assert!(self.of(&["blows in a round: 0"]) < rounds / 3, "too many rounds without a blow");
    }
}
