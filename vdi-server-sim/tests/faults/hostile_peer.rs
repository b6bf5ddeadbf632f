//! The law of a hostile peer: whatever a process that has joined writes into the control segment or says to the primary, the
//! others end in bounded time, either right or with a typed error, and another set in the same processes notices nothing.
//!
//! Each seed gives a database, a set, who is hostile, and what it does when, for a BACKUP and then a RESTORE. How many:
//!
//! ```sh
//! VDI_HOSTILE_SETS=1000 VDI_HOSTILE_FIRST_SEED=0 cargo test -p vdi-server-sim --test faults -- hostile_peer --nocapture
//! ```
//!
//! A seed that fails is printed with the command that repeats it alone. What is hostile leaves buffers alone: that nobody
//! writes into another's buffer is what the interface rests on.

use crate::common;
use crate::hostile;

use std::collections::BTreeMap;
use std::fs;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::time::{Duration, Instant};

use common::bench::Bench;
use common::number;
use common::processes::run_role;
use hostile::case::{Act, Case, Role, Verb};
use hostile::cast::{Cast, Played};
use hostile::honest::{self, INNOCENT};
use hostile::raider;

/// Sets of an ordinary run: each is a backup, and a restore where that succeeded.
const SETS: u64 = 60;

/// Words that are changed in each set, on an average.
const WORDS: u64 = 100;

/// The act that writes where nobody looks.
const UNUSED: &str = "Unused";

/// The act that puts whole parts of the segment back.
const PUT_BACK: &str = "Yesterday";

#[test]
fn child_entry() {
    run_role(&[("client", honest::client), ("server", honest::server), ("hostile", raider::hostile)]);
}

/// What came out, and what was done.
#[derive(Default)]
struct Tally {
    outcomes: BTreeMap<String, u64>,
    /// How often each was done, and how many words it wrote.
    acts: BTreeMap<String, (u64, u64)>,
    raids: u64,
    slowest: (Duration, u64),
}

impl Tally {
    fn count(&mut self, what: String) {
        *self.outcomes.entry(what).or_default() += 1;
    }

    /// Words that were changed: those that were put back to what they had been are counted apart.
    fn words(&self) -> u64 {
        self.acts.iter().filter(|(act, _)| *act != PUT_BACK).map(|(_, (_, words))| words).sum()
    }

    fn words_of(&self, act: &str) -> u64 {
        self.acts.get(act).map_or(0, |(_, words)| *words)
    }

    fn of(&self, part: &str) -> u64 {
        self.outcomes.iter().filter(|(what, _)| what.contains(part)).map(|(_, count)| count).sum()
    }
}

#[test]
fn hostile_member_ends_in_success_or_error() {
    let (first, count) = (number("VDI_HOSTILE_FIRST_SEED", 0), number("VDI_HOSTILE_SETS", SETS));
    let bench = Bench::new();
    let mut cast = Cast::new(&bench);
    let mut tally = Tally::default();
    bench.database(INNOCENT, 40_000);
    let begun = Instant::now();
    for seed in first..first.saturating_add(count) {
        let case = Case::new(seed);
        if let Err(panic) = catch_unwind(AssertUnwindSafe(|| play(&bench, &mut cast, &case, &mut tally))) {
            eprintln!(
                "seed {seed} broke the law; to repeat it:\nVDI_HOSTILE_FIRST_SEED={seed} VDI_HOSTILE_SETS=1 cargo test \
                 -p vdi-server-sim --test faults -- hostile_peer --nocapture\nThe case: {case:#?}"
            );
            resume_unwind(panic);
        }
    }
    cast.end();
    report(&tally, first, count, begun.elapsed());
}

fn report(tally: &Tally, first: u64, count: u64, elapsed: Duration) {
    let (slowest, seed) = tally.slowest;
    eprintln!(
        "{count} sets from seed {first}, {} statements raided, {} words changed, {} of them where a set of this size has nothing, \
         {} put back; {elapsed:.1?}, the slowest \
         statement ({seed}) {slowest:.1?}",
        tally.raids,
        tally.words(),
        tally.words_of(UNUSED),
        tally.words_of(PUT_BACK)
    );
    for (act, (times, words)) in &tally.acts {
        eprintln!("{times:6} times {words:8} words  {act}");
    }
    for (what, count) in &tally.outcomes {
        eprintln!("{count:6}  {what}");
    }
    // A run in which nothing was hit proves nothing, nor does one that hit everything.
    assert!(tally.words() >= count * WORDS / 2, "{} words only", tally.words());
    if count >= SETS {
        assert!(tally.words() >= count * WORDS, "{} words only", tally.words());
        let used = tally.words() - tally.words_of(UNUSED);
        assert!(used >= count * WORDS / 2, "{used} words only where somebody looks");
        for (what, least) in [("both succeeded", count / 10), ("broke the protocol", count / 10)] {
            assert!(tally.of(what) >= least, "{what}: {} times only", tally.of(what));
        }
    }
    if count >= 10 * SETS {
        for (act, _) in Act::ALL {
            assert!(tally.acts.contains_key(&format!("{act:?}")), "{act:?} never came");
        }
    }
}

/// Plays a case.
fn play(bench: &Bench, cast: &mut Cast<'_>, case: &Case, tally: &mut Tally) {
    bench.databases().make("sales", case.holds, case.seed);
    let raided = |verb| case.raid(verb).is_some();
    let backup = cast.play(case, Verb::Backup, raided(Verb::Backup));
    judge(case, Verb::Backup, &backup, tally);
    // What an honest client calls good is to be; a hostile one may say what it likes, its server has to agree.
    let good = backup.client_succeeded() && (case.role != Role::Primary || backup.server_succeeded());
    if good {
        let mut restore = cast.play(case, Verb::Restore, raided(Verb::Restore));
        judge(case, Verb::Restore, &restore, tally);
        if !restore.server_succeeded() {
            remove_copy(bench, case, &restore);
            restore = cast.play(case, Verb::Restore, false);
            assert!(restore.client_succeeded() && restore.server_succeeded(), "no good backup: {backup:?} {restore:?}");
            tally.count("a backup that was called good restored after a raid on its restore".to_owned());
        }
        bench.assert_identical("sales", "copy");
        bench.drop_database("copy");
        bench.assert_identical(INNOCENT, "bystander");
    }
    for entry in fs::read_dir(bench.out()).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() { fs::remove_dir_all(path).unwrap() } else { fs::remove_file(path).unwrap() }
    }
    bench.drop_database("sales");
}

/// After a restore that failed there is no database, or all of it: a set may be aborted when the database is in its place.
fn remove_copy(bench: &Bench, case: &Case, restore: &Played) {
    if bench.databases().contains("copy") {
        bench.assert_identical("sales", "copy");
        bench.drop_database("copy");
    }
    if case.role == Role::Server && restore.server.is_none() {
        // Removes a killed server's half-made database.
        drop(bench.databases().open());
    }
    assert_eq!(bench.databases().litter(), Vec::<String>::new());
}

/// Counts how a statement ended, which has to be right or a typed error on the honest sides.
fn judge(case: &Case, verb: Verb, played: &Played, tally: &mut Tally) {
    let Played { client, server, elapsed, written, .. } = played;
    tally.slowest = tally.slowest.max((*elapsed, case.seed));
    if case.raid(verb).is_none() {
        assert!(played.client_succeeded() && played.server_succeeded(), "nobody was in its way: {played:?}");
        return;
    }
    tally.raids += 1;
    for (act, words) in written {
        let (times, sum) = tally.acts.entry(act.clone()).or_default();
        *times += 1;
        *sum += words;
    }
    if case.role != Role::Primary {
        let said = client.as_deref().unwrap();
        let codes = ["VD_E_BUSY", "VD_E_PROTOCOL", "VD_E_INVALID", "VD_E_OPEN", "VD_E_MEMORY"];
        let typed = said.starts_with("Violation ")
            || said.starts_with("Ended ")
            || codes.iter().any(|code| said.contains(code)) && !said.starts_with("System ");
        assert!(said == "ok" || typed, "the client's error: {played:?}");
    }
    if case.role != Role::Server {
        let said = server.as_deref().unwrap();
        assert!(said == "ok" || said.contains("the set was aborted: "), "the server's error: {played:?}");
    }
    let (client_ok, server_ok) = (played.client_succeeded(), played.server_succeeded());
    let outcome = match (client_ok, server_ok) {
        (true, true) => "both succeeded".to_owned(),
        (true, false) => format!("only the client succeeded, server: {}", cause(server.as_deref())),
        (false, true) => format!("only the server succeeded, client: {}", cause(client.as_deref())),
        (false, false) if case.role == Role::Server => cause(client.as_deref()),
        (false, false) => cause(server.as_deref()),
    };
    tally.count(format!("{:?} {}: {outcome}", case.role, verb.word()));
}

/// The reason in what somebody said, without what differs from set to set.
fn cause(said: Option<&str>) -> String {
    let Some(said) = said else { return "died".to_owned() };
    let reason = match said.split_once("the set was aborted: ") {
        Some((_, reason)) => reason.split([':', ';', '(']).next().unwrap_or_default().trim(),
        None => said.split(": ").nth(1).unwrap_or(said).split(['(', ',']).next().unwrap_or_default().trim(),
    };
    reason.chars().filter(|c| !c.is_ascii_digit()).collect::<String>().replace("  ", " ")
}
