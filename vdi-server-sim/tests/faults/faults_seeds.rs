//! The law: whatever a server does to its client, and a client to its server, a statement ends in bounded time, either with
//! success and identical bytes, or with an error on both sides and nothing left behind.
//!
//! Each seed gives a database, a set, a client, and faults, for a BACKUP and then a RESTORE. How many:
//!
//! ```sh
//! VDI_FAULT_SEEDS=20000 VDI_FAULT_FIRST_SEED=1000 cargo test -p vdi-server-sim --test faults -- faults_seeds --nocapture
//! ```
//!
//! One fault is apart: `fail-after-close`. Where it strikes, the client has seen a success and says so, and only the server fails. What
//! is asserted of it: every device of the client ended well, a backup is whole and restores to identical bytes, and a restore has
//! changed nothing.
//!
//! A seed that fails is printed with the command that repeats it alone.

use crate::common;

use std::collections::BTreeMap;
use std::os::unix::process::ExitStatusExt;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::path::Path;
use std::time::{Duration, Instant};

use common::behaviour::{Behaviour, MediaKind};
use common::bench::{Bench, tree};
use common::client::{backup_statement, config, restore_statement, stripe};
use common::databases::Holds;
use common::number;
use common::processes::Outcome;
use fastrand::Rng;
use vdi_client::{CompletionCode, Features, VdConfig};
use vdi_proto::status::VdError;
use vdi_server_sim::faults::{Fault, ServerCall};

/// Seeds of an ordinary run.
const SEEDS: u64 = 100;

/// What is left of the set is named so.
const SET: &str = "nightly";

/// Commands that every device gets in a backup, however small: the headers, an extent, the trailer, Flush.
const BACKUP_COMMANDS: u64 = 4;
/// And in a restore: a Read.
const RESTORE_COMMANDS: u64 = 1;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Verb {
    Backup,
    Restore,
}

/// One statement's part of a case.
#[derive(Debug)]
struct Act {
    faults: Vec<Fault>,
    /// Of each device.
    conducts: Vec<Behaviour>,
}

/// What a seed stands for.
#[derive(Debug)]
struct Case {
    seed: u64,
    /// What the database holds.
    holds: Holds,
    devices: u32,
    options: String,
    features: Features,
    kept: MediaKind,
    /// The last part of each medium that has several.
    eom_warning_size: u32,
    backup: Act,
    restore: Act,
    /// Whether the restore replaces a database.
    replaces: bool,
}

impl Case {
    fn new(seed: u64) -> Case {
        let mut random = Rng::with_seed(seed);
        // Neighbouring seeds begin alike.
        let mut random = Rng::with_seed(random.u64(..));
        let devices = random.u32(1..=4);
        let holds = Holds::random(&mut random, 300_000);
        let transfer: u32 = [65536, 131_072, 262_144][random.usize(..3)];
        let block: u32 = [512, 1024, 4096, 65536][random.usize(..4)];
        let mut options = format!("MAXTRANSFERSIZE = {transfer}, BLOCKSIZE = {block}");
        if random.bool() {
            options += &format!(", BUFFERCOUNT = {}", random.u32(1..=8));
        }
        if random.u8(..) < 64 {
            options += ", NO_CHECKSUM";
        }
        let complete = if random.bool() { Features::REQUEST_COMPLETE } else { Features::NONE };
        let discard = if random.bool() { Features::DISCARD } else { Features::NONE };
        let kind = KINDS[random.usize(..KINDS.len())];
        // As many bytes as a server has on their way at a time.
        let eom_warning_size = if kind.contains(Features::REMOVABLE) { 2 * transfer } else { 0 };
        let kept = match kind {
            Features::TAPE if random.bool() => MediaKind::Tape,
            kind if kind.contains(Features::REMOVABLE) => MediaKind::Volumes(
                u64::from(eom_warning_size) + u64::from(block) * random.u64(1..200_000 / u64::from(block)),
            ),
            _ => MediaKind::File,
        };
        Case {
            seed,
            holds,
            devices,
            options,
            features: kind | complete | discard,
            kept,
            eom_warning_size,
            backup: Act::new(&mut random, devices, Verb::Backup),
            restore: Act::new(&mut random, devices, Verb::Restore),
            replaces: random.bool(),
        }
    }

    fn config(&self) -> VdConfig {
        VdConfig { features: self.features, eom_warning_size: self.eom_warning_size, ..config(self.devices) }
    }

    fn act(&self, verb: Verb) -> &Act {
        match verb {
            Verb::Backup => &self.backup,
            Verb::Restore => &self.restore,
        }
    }

    fn statement(&self, verb: Verb) -> String {
        match verb {
            Verb::Backup => backup_statement("sales", SET, self.devices, &self.options),
            Verb::Restore => {
                let replace = if self.replaces { ", REPLACE" } else { "" };
                let moves = self.holds.moves("sales", "copy");
                restore_statement("copy", SET, self.devices, &format!("{}{replace}, {moves}", self.options))
            }
        }
    }

    fn arguments(&self, verb: Verb) -> Vec<String> {
        let faults = self.act(verb).faults.iter().flat_map(|fault| ["--fault".to_owned(), fault.to_string()]);
        faults.chain(["--seed".to_owned(), self.seed.to_string()]).collect()
    }

    /// What to type to get this seed again.
    fn repeat(&self) -> String {
        let command =
            |verb| format!("vdi-sim sql --data DIR -Q \"{}\" {}", self.statement(verb), self.arguments(verb).join(" "));
        format!(
            "VDI_FAULT_FIRST_SEED={} VDI_FAULT_SEEDS=1 cargo test -p vdi-server-sim --test faults -- faults_seeds --nocapture\n\
             The server's commands in it:\n{}\n{}\nThe case: {self:#?}",
            self.seed,
            command(Verb::Backup),
            command(Verb::Restore)
        )
    }
}

/// The kinds of devices.
const KINDS: [Features; 5] = [
    Features::NONE,
    Features::REMOVABLE,
    Features::RANDOM_ACCESS,
    Features::from_bits_retain(Features::RANDOM_ACCESS.bits() | Features::REMOVABLE.bits()),
    Features::TAPE,
];

impl Act {
    fn new(random: &mut Rng, devices: u32, verb: Verb) -> Act {
        let mut faults: Vec<_> = (0..random.usize(0..=4)).map(|_| any_fault(random, verb)).collect();
        if faults.iter().any(|fault| matches!(fault, Fault::IgnoreCompletion { .. })) {
            faults.push(Fault::ServerTimeOut { interval: random.u32(5..40) });
        }
        let all = match random.u8(..8) {
            0 => Behaviour::Slow { micros: random.u64(0..2000) },
            1 => Behaviour::OutOfOrder { hold: random.usize(1..6) },
            _ => Behaviour::Pump,
        };
        let mut conducts = vec![all; devices as usize];
        // A restore has few commands: what goes wrong has to come early, and not in vain.
        let (likely, latest) = match verb {
            Verb::Backup => (2, 8),
            Verb::Restore => (4, 3),
        };
        if random.u8(..8) < likely {
            conducts[random.usize(..devices as usize)] = misconduct(random, latest);
        }
        Act { faults, conducts }
    }

    /// Whether nothing stands in the way of success.
    fn is_harmless(&self, verb: Verb) -> bool {
        let harmless = |fault: &Fault| {
            matches!(
                fault,
                Fault::Delay { .. }
                    | Fault::DelayAt { .. }
                    | Fault::ShortReads
                    | Fault::QueueFull
                    | Fault::SmallTransfers
                    | Fault::ReadSizes
                    | Fault::Flushes { .. }
                    | Fault::SlowConfiguration { .. }
            )
        };
        // A command without data is not repeated, and these two faults bring Flushes in between.
        let flushes = self.faults.iter().any(|fault| matches!(fault, Fault::QueueFull | Fault::Flushes { .. }));
        let recovers = |behaviour: &Behaviour| match (*behaviour, verb) {
            (Behaviour::FailsOnce { at, code, .. }, Verb::Backup) => {
                at < BACKUP_COMMANDS && is_recoverable(code) && !flushes
            }
            (Behaviour::FailsOnce { at, code, .. }, Verb::Restore) => at <= RESTORE_COMMANDS && is_recoverable(code),
            _ => behaviour.is_harmless(),
        };
        self.faults.iter().all(harmless) && self.conducts.iter().all(recovers)
    }

    /// Whether something stands in the way of success for certain.
    fn is_fatal(&self, verb: Verb) -> bool {
        let certain = match verb {
            Verb::Backup => BACKUP_COMMANDS,
            Verb::Restore => RESTORE_COMMANDS,
        };
        let fault = |fault: &Fault| match fault {
            Fault::Refuse { .. } | Fault::FailAfterClose => true,
            Fault::AbortAt { command: at } | Fault::DieAt { command: at } => *at <= certain,
            Fault::ReadError { read } => *read == 1 && verb == Verb::Backup,
            _ => false,
        };
        let behaviour = |behaviour: &Behaviour| match behaviour {
            Behaviour::Drops { at } | Behaviour::Aborts { at } | Behaviour::MediaFails { at, .. } => *at <= certain,
            _ => false,
        };
        self.faults.iter().any(fault) || self.conducts.iter().any(behaviour)
    }

    fn kills(&self) -> bool {
        self.faults.iter().any(|fault| matches!(fault, Fault::DieAt { .. }))
    }

    /// The server may fail before the client has heard of it at all.
    fn is_refused_at_the_door(&self) -> bool {
        self.faults.iter().any(|fault| matches!(fault, Fault::Refuse { call: ServerCall::Open, .. }))
    }
}

fn is_recoverable(code: CompletionCode) -> bool {
    [CompletionCode::IO_DEVICE, CompletionCode::NO_SYSTEM_RESOURCES].contains(&code)
}

fn any_fault(random: &mut Rng, verb: Verb) -> Fault {
    let at = match verb {
        Verb::Backup => random.u64(1..=25),
        Verb::Restore => random.u64(1..=8),
    };
    match random.u8(..26) {
        0..=2 => Fault::Delay { up_to: random.u32(0..=3) },
        3 => Fault::DelayAt { command: at, wait: random.u32(0..=3) },
        4 => Fault::AbortAt { command: at },
        5 => Fault::DieAt { command: at },
        6 if verb == Verb::Backup => Fault::ReadError { read: at },
        6..=8 => Fault::ShortReads,
        9..=10 => Fault::QueueFull,
        11..=13 => Fault::SmallTransfers,
        14..=16 => Fault::ReadSizes,
        17..=18 => Fault::Flushes { writes: random.u64(1..=6) },
        19 => Fault::ServerTimeOut { interval: random.u32(1..=50) },
        20..=21 => Fault::SlowConfiguration { wait: random.u32(0..=3) },
        22 => {
            let call = ServerCall::ALL[random.usize(..ServerCall::ALL.len())];
            Fault::Refuse { call, code: VdError::ALL[random.usize(..VdError::ALL.len())] }
        }
        23..=24 => Fault::IgnoreCompletion { completion: at },
        _ => Fault::FailAfterClose,
    }
}

fn misconduct(random: &mut Rng, latest: u64) -> Behaviour {
    let at = random.u64(1..=latest);
    let codes = &CompletionCode::NAMED[1..];
    let code = codes[random.usize(..codes.len())];
    let code = if random.u8(..4) == 0 { CompletionCode::IO_DEVICE } else { code };
    match random.u8(..8) {
        0..=1 => Behaviour::MediaFails { at, code },
        2..=4 => Behaviour::FailsOnce { at, code, share: random.u8(..) },
        5 => Behaviour::Short { at, share: random.u8(..) },
        6 => Behaviour::Drops { at },
        _ => Behaviour::Aborts { at },
    }
}

/// How often what came out.
#[derive(Default)]
struct Tally(BTreeMap<String, u64>);

impl Tally {
    fn count(&mut self, what: String) {
        *self.0.entry(what).or_default() += 1;
    }

    fn of(&self, beginning: &str) -> u64 {
        self.0.iter().filter(|(what, _)| what.starts_with(beginning)).map(|(_, count)| count).sum()
    }
}

#[test]
fn any_mix_of_faults_ends_in_success_or_in_an_error_on_both_sides() {
    let (first, count) = (number("VDI_FAULT_FIRST_SEED", 0), number("VDI_FAULT_SEEDS", SEEDS));
    let mut tally = Tally::default();
    let (begun, mut slowest) = (Instant::now(), (Duration::ZERO, first));
    for seed in first..first.saturating_add(count) {
        let case = Case::new(seed);
        let this = Instant::now();
        if let Err(panic) = catch_unwind(AssertUnwindSafe(|| run(&case, &mut tally))) {
            eprintln!("seed {seed} broke the law; to repeat it:\n{}", case.repeat());
            resume_unwind(panic);
        }
        slowest = slowest.max((this.elapsed(), seed));
    }
    eprintln!("{count} seeds from {first} took {:?}, the slowest ({}) {:?}", begun.elapsed(), slowest.1, slowest.0);
    for (what, count) in &tally.0 {
        eprintln!("{count:6}  {what}");
    }
    // A law that sees only one of the two proves nothing of the other.
    if count >= SEEDS {
        for (what, least) in [
            ("BACKUP succeeded", count / 4),
            ("BACKUP failed", count / 4),
            ("RESTORE succeeded", count / 5),
            ("RESTORE failed", count / 8),
        ] {
            assert!(tally.of(what) >= least, "{what} {} times only, of {count}", tally.of(what));
        }
    }
}

fn run(case: &Case, tally: &mut Tally) {
    let bench = Bench::new();
    bench.databases().make("sales", case.holds, case.seed);
    if case.replaces {
        bench.old_database("copy");
    }
    let contents = bench.databases().contents();
    // A backup whose statement failed at the very last is whole all the same.
    let backed_up = carry_out(&bench, case, Verb::Backup, tally) != End::Failed;
    assert!(bench.databases().contents() == contents, "a backup leaves the databases alone");
    let before = bench.images();
    bench.assert_nothing_left();
    if backed_up {
        let made = tree(&bench.out());
        let restored = carry_out(&bench, case, Verb::Restore, tally);
        assert!(tree(&bench.out()) == made, "a restore leaves the backup alone");
        if case.act(Verb::Restore).kills() {
            // As the next statement does: removes what a killed one left.
            drop(bench.databases().open());
        }
        if restored == End::Succeeded {
            bench.assert_databases(&["copy", "sales"]);
            bench.assert_identical("sales", "copy");
        } else {
            assert!(bench.images() == before, "a restore that failed leaves the databases alone");
        }
        bench.assert_nothing_left();
    }
    // The name is free.
    bench.create(SET, &case.config()).signal_abort().unwrap();
}

/// How a statement ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum End {
    /// On both sides.
    Succeeded,
    /// On both sides.
    Failed,
    /// The client has seen a success, then the server failed.
    FailedAfterClose,
}

/// Runs one statement.
fn carry_out(bench: &Bench, case: &Case, verb: Verb, tally: &mut Tally) -> End {
    let act = case.act(verb);
    let mut client = bench.serve(SET, &case.config(), case.seed, {
        let (out, kept, conducts) = (bench.out(), case.kept, act.conducts.clone());
        move |index| (conducts[index as usize], kept.media(&stripe(&out, index), verb == Verb::Restore))
    });
    let outcome = bench.sql_with(&case.statement(verb), |command| _ = command.args(case.arguments(verb))).outcome();
    if act.is_refused_at_the_door() {
        client.cancel();
    }
    let ended = client.result();
    let succeeded = outcome.status.success();
    let after_close = outcome.text.contains("the fault fail-after-close");
    assert!(!after_close || act.faults.contains(&Fault::FailAfterClose) && !succeeded, "{outcome:#?}");
    let end = match (succeeded, after_close) {
        (true, _) => End::Succeeded,
        (false, true) => End::FailedAfterClose,
        (false, false) => End::Failed,
    };
    let story = format!("{verb:?}: the server: {outcome:#?}, the client: {ended:#?}");
    match &ended {
        Ok(devices) if end != End::Failed => assert!(devices.iter().all(Result::is_ok), "the client failed: {story}"),
        Ok(devices) => assert!(devices.iter().all(Result::is_err), "the client succeeded, the server failed: {story}"),
        Err(_) => assert!(end == End::Failed, "the client failed: {story}"),
    }
    if succeeded {
        outcome.assert_success();
    } else if outcome.status.signal().is_some() {
        assert!(act.kills(), "{story}");
    } else {
        outcome.assert_failure(&[]);
    }
    if verb == Verb::Backup {
        // Complete commits a device; where not all could be completed, those who were are there.
        let there = if end != End::Failed { (0..case.devices).collect() } else { client.completed() };
        let there: Vec<_> = there.into_iter().map(stripe_name).collect();
        bench.assert_output(&there.iter().map(String::as_str).collect::<Vec<_>>());
    }
    assert!(succeeded || !act.is_harmless(verb), "nothing stood in the way of success: {story}");
    assert!(!succeeded || !act.is_fatal(verb), "this could not succeed: {story}");
    let verb = match verb {
        Verb::Backup => "BACKUP",
        Verb::Restore => "RESTORE",
    };
    tally.count(if succeeded { format!("{verb} succeeded") } else { format!("{verb} failed: {}", cause(&outcome)) });
    end
}

/// The name of a device's file.
fn stripe_name(index: u32) -> String {
    stripe(Path::new(""), index).display().to_string()
}

/// Why a statement failed, in a few words.
fn cause(outcome: &Outcome) -> String {
    if let Some(signal) = outcome.status.signal() {
        return format!("killed by signal {signal}");
    }
    let first = outcome.text.lines().find(|line| line.starts_with("Msg ")).unwrap_or("no message");
    let number = first.split(',').next().unwrap_or_default();
    let told = outcome.text.lines().find_map(|line| {
        let (_, cause) = line.split_once("the set was aborted: ")?;
        // Without the text of the process that aborted it, and the remedy.
        Some(format!("aborted: {}", cause.split([':', ';']).next()?))
    });
    let told = told.or_else(|| {
        let (_, code) = outcome.text.split_once("VD_E_")?;
        Some(format!("refused: VD_E_{}", code.split([' ', ')']).next()?))
    });
    let told = told.or_else(|| {
        let code = outcome.text.lines().find(|line| line.contains(" on device "))?;
        let (_, code) = code.split_once("failed: ")?;
        Some(code.split(',').next()?.to_owned())
    });
    format!("{number}, {}", told.unwrap_or_else(|| "for another reason".to_owned()))
}
