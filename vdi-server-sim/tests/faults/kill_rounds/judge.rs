//! A round, and the law.
//!
//! 1. Every other process is gone within a second of the last signal.
//! 2. Every error names its reason: an error of the interface with its code and, where a process that belonged to the set died,
//!    who that was. SIGTERM cancels the server's statement, which is the reason then. Who was only stopped is no reason, unless a
//!    time-out had been negotiated.
//! 3. A backup reported as good restores to identical bytes. It is reported as good by the server where Complete was negotiated;
//!    without it, by the client: the server does not learn of the commit.
//! 4. Whatever else happened, each target is what it was before, or the complete new one.
//! 5. A restore that was reported as good has put identical bytes into place; whatever else happened, the database is what it was
//!    before, or the complete new one.
//! 6. Nothing is left: no process, descriptor, mapping or socket, and no file but those of a process that was killed in the middle of
//!    putting its data into place, which the next one removes. The name is free.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use vdi_client::media::Media;
use vdi_client::{CommandCode, CompletionCode, Features, VdConfig};
use vdi_mtf::inspector::Inspector;

use super::case::{Case, How, Role, SET, Verb};
use super::play::{Played, died, play};
use super::tally::Tally;
use crate::common::behaviour::Behaviour;
use crate::common::bench::{Bench, names, tree};
use crate::common::client::{restore_statement, stripe};
use crate::common::databases::{Holds, Image, Pages};

type Tree = BTreeMap<PathBuf, Vec<u8>>;

/// Plays the round of a seed. How long after the last signal the last process was gone.
pub(crate) fn round(case: &Case, tally: &mut Tally) -> Option<Duration> {
    let bench = Bench::new();
    bench.databases().make("sales", case.holds, case.seed);
    let old_data = bench.pages("sales");
    let mut left = Vec::new();
    let first = play(&bench, case, Verb::Backup, None);
    assert!(first.client_succeeded() && first.server_succeeded(), "undisturbed: {first:#?}");
    let (played, verdict) = match case.verb {
        Verb::Backup => {
            if !case.replaces {
                clear(&bench.out());
            }
            let old = targets(&bench);
            bench.databases().make("sales", case.changed, case.seed ^ 1);
            let data = bench.databases().contents();
            let played = play(&bench, case, Verb::Backup, Some(first.took));
            assert!(bench.databases().contents() == data, "a backup leaves the databases alone: {played:#?}");
            errors_name_their_reason(case, &played);
            let verdict = judge_backup(&bench, case, &played, &old, &old_data);
            (played, verdict)
        }
        Verb::Restore => {
            if case.replaces {
                bench.old_database("copy");
            }
            let old = bench.databases().contains("copy").then(|| bench.databases().image("copy"));
            let made = tree(&bench.out());
            let played = play(&bench, case, Verb::Restore, Some(first.took));
            assert!(tree(&bench.out()) == made, "a restore leaves the backup alone: {played:#?}");
            left = bench.databases().litter();
            // As the next statement does: ends what a killed one began.
            drop(bench.databases().open());
            errors_name_their_reason(case, &played);
            let verdict = judge_restore(&bench, &played, old);
            (played, verdict)
        }
    };
    tally.count(format!("{}: {verdict}", case.verb.name()));
    tidy(&bench, case, &played, &left, tally);
    tally.note(&played);
    played.lateness
}

fn clear(folder: &Path) {
    for name in names(folder) {
        let path = folder.join(name);
        if path.is_dir() { fs::remove_dir_all(path).unwrap() } else { fs::remove_file(path).unwrap() }
    }
}

/// What is at the targets, hidden files left out.
fn targets(bench: &Bench) -> Tree {
    let mut found = tree(&bench.out());
    found.retain(|path, _| !is_hidden(path));
    found
}

fn is_hidden(path: &Path) -> bool {
    path.to_str().unwrap().starts_with('.')
}

/// Of one device.
fn part(all: &Tree, device: u32) -> Tree {
    let name = stripe(Path::new(""), device);
    all.iter().filter(|(path, _)| path.starts_with(&name)).map(|(path, bytes)| (path.clone(), bytes.clone())).collect()
}

fn errors_name_their_reason(case: &Case, played: &Played) {
    let slain: Vec<_> = played.parties.iter().filter(|party| party.is_slain()).collect();
    let obituary = |role: Role| match role {
        Role::Server => ("the server died", ""),
        Role::Primary => ("the primary client died", ""),
        Role::Secondary(_) | Role::Worker(_) => ("secondary client ", " died"),
    };
    // Before the server watches its signals it dies of this one, too.
    let cancelled = slain.iter().any(|party| party.role == Role::Server && party.struck == Some(How::Terminate));
    let names = |text: &str, joined: bool| {
        let dead = slain.iter().any(|party| {
            let (one, other) = obituary(party.role);
            text.contains(one) && text.contains(other)
        });
        // A primary that waits for its secondary may see its end before the set does, and aborts it.
        let waited_for = slain.iter().any(|party| matches!(party.role, Role::Secondary(_)))
            && text.contains("the primary client called SignalAbort");
        // Who did not belong to the set yet, or not any more, is missed by those who deal with it.
        let outside =
            !joined || slain.iter().any(|party| !party.joined) || !played.configured || played.server_succeeded();
        let missed = [
            "called SignalAbort",
            "worker process",
            "dropped a command that could not be completed",
            "ended with",
            "a pipe to the primary failed",
            "no virtual device set",
            "cancelled",
        ];
        let late = case.server_time_out > 0 && text.contains("waited longer than serverTimeOut allows");
        let cancelled = cancelled && text.contains("the statement was cancelled by its user");
        dead || cancelled || late || waited_for || (outside && missed.iter().any(|missed| text.contains(missed)))
    };
    for party in &played.parties {
        if let Some(Err(text)) = &party.ended {
            // How a child ended is no error of the interface.
            let tells = (text.contains("VD_E_") || text.contains(" ended with signal")) && names(text, party.joined);
            assert!(tells, "{:?} does not say why: {text}\n{played:#?}", party.role);
        }
        let vanished = party.ended.is_none() && !party.is_slain() && party.role != Role::Server;
        // Workers are killed by a primary that has failed.
        assert!(!vanished || matches!(party.role, Role::Worker(_)), "{:?} vanished: {played:#?}", party.role);
    }
    let outcome = &played.outcome;
    if outcome.status.success() {
        outcome.assert_success();
    } else if died(outcome) {
        assert!(played.of(Role::Server).unwrap().is_slain(), "{played:#?}");
    } else if outcome.text.contains("Msg 3204, ") {
        outcome.assert_failure(&["The backup or restore was aborted."]);
        assert!(cancelled, "nobody has cancelled the statement: {played:#?}");
    } else {
        outcome.assert_failure(&[]);
        let numbers = ["Msg 3201, ", "Msg 3202, ", "Msg 3203, ", "Msg 3271, "];
        assert!(numbers.iter().any(|number| outcome.text.contains(number)), "{played:#?}");
        assert!(names(&outcome.text, true), "the server does not say why: {played:#?}");
    }
    if !played.has_slain() && case.server_time_out == 0 {
        assert!(played.server_succeeded() && played.client_succeeded(), "nobody died: {played:#?}");
    }
}

fn judge_backup(bench: &Bench, case: &Case, played: &Played, old: &Tree, old_data: &Pages) -> &'static str {
    let good = played.client_succeeded() || (played.server_succeeded() && case.completes());
    let now = targets(bench);
    let devices: Vec<_> = (0..case.devices).map(|device| (part(old, device), part(&now, device))).collect();
    let renewed: Vec<_> = devices.iter().map(|(old, now)| now != old).collect();
    for (device, (_, now)) in (0..).zip(&devices) {
        if renewed[device as usize] {
            let found = whole(case, &stripe(&bench.out(), device));
            assert!(!now.is_empty() && found.is_ok(), "device {device} is half done: {found:?} {played:#?}");
        }
    }
    let all = renewed.iter().all(|renewed| *renewed);
    let none = renewed.iter().all(|renewed| !renewed);
    if all {
        let new_data = bench.pages("sales");
        assert!(restores(bench, case, case.changed, &new_data), "{played:#?}");
    } else if none && !old.is_empty() {
        assert!(restores(bench, case, case.holds, old_data), "{played:#?}");
    } else if now.keys().filter(|path| path.components().count() == 1).count() == case.devices as usize {
        // Devices of two backups: never taken for one.
        assert!(!restores(bench, case, case.holds, old_data), "{played:#?}");
    }
    assert!(all || !good, "a backup that was reported as good is not there: {played:#?}");
    match (good, all, none) {
        (true, ..) if !played.server_succeeded() => "reported as good, by the client alone",
        (true, ..) if !played.client_succeeded() => "reported as good, by the server alone, after Complete",
        (true, ..) => "reported as good",
        (false, true, _) => "failed, with all targets new and complete",
        (false, false, true) if played.server_succeeded() => {
            "failed, for the client alone, without Complete: all targets as before"
        }
        (false, false, _) if played.server_succeeded() => {
            "failed, for the client alone, without Complete: some targets as before"
        }
        (false, false, true) => "failed, with all targets as before",
        (false, false, false) => "failed, with some targets new and complete, the others as before",
    }
}

/// Whether the targets restore as a database that holds this; to these pages, if they do.
fn restores(bench: &Bench, case: &Case, holds: Holds, expected: &Pages) -> bool {
    let mut client = bench.serve("checking", &VdConfig { server_time_out: 0, ..case.config() }, case.seed, {
        let (out, kept) = (bench.out(), case.kept);
        move |device| (Behaviour::Pump, kept.media(&stripe(&out, device), true))
    });
    let options = format!("{}, REPLACE, {}", case.options, holds.moves("sales", "checked"));
    let statement = restore_statement("checked", "checking", case.devices, &options);
    let outcome = bench.sql(&statement).outcome();
    let ended = client.result();
    if !outcome.status.success() {
        outcome.assert_failure(&[]);
        assert!(!bench.databases().contains("checked"));
        return false;
    }
    outcome.assert_success();
    assert!(ended.unwrap().iter().all(Result::is_ok));
    bench.databases().check("checked");
    assert!(bench.pages("checked") == *expected, "the backup restores to other bytes");
    bench.drop_database("checked");
    true
}

/// Whether a device's stream is there up to its end.
fn whole(case: &Case, path: &Path) -> Result<(), String> {
    let mut media = case.kept.media(path, true);
    let features = case.features | Features::READ_MEDIA;
    let block_size = case.block;
    media.begin(&VdConfig { features, block_size, ..case.config() }).map_err(|error| error.to_string())?;
    let mut inspector = Inspector::new();
    let (mut position, mut medium, mut buffer) = (0, 1, vec![0; 65536]);
    loop {
        let (bytes, ends) = match media.read(position, &mut buffer) {
            Ok(bytes) => (bytes, bytes < buffer.len()),
            Err(error) if error.is_final() => return Err(error.to_string()),
            Err(error) => (error.bytes as usize, error.code != CompletionCode::FILEMARK_DETECTED),
        };
        position += bytes as u64;
        inspector.read(&buffer[..bytes]).map_err(|error| error.to_string())?;
        if ends {
            medium += 1;
            if !case.features.contains(Features::REMOVABLE) || media.other(CommandCode::LOAD, medium, 0).is_err() {
                inspector.finish().map_err(|error| error.to_string())?;
                let sets = inspector.medium().sets.len();
                let is_whole = inspector.damage_count() == 0 && sets == 1;
                return is_whole.then_some(()).ok_or(format!("{sets} sets, {:?}", inspector.damages()));
            }
            position = 0;
        }
    }
}

fn judge_restore(bench: &Bench, played: &Played, old: Option<Image>) -> &'static str {
    let now = bench.databases().contains("copy").then(|| bench.databases().image("copy"));
    let new = now.is_some() && bench.pages("copy") == bench.pages("sales");
    assert!(new || now == old, "the database is neither the old nor the complete new one: {played:#?}");
    let good = played.server_succeeded();
    assert!(new || !good, "a restore that was reported as good did not take place: {played:#?}");
    match (good, new) {
        (true, _) => "reported as good",
        (false, true) => {
            assert!(died(&played.outcome), "a server that reports a failure has changed nothing: {played:#?}");
            "failed, the server was killed with the new database in place"
        }
        (false, false) => "failed, with the database as before",
    }
}

/// Nothing is left, and what a commit that was cut off left is gone with the next one.
/// `litter` was in the data folder right after the restore.
fn tidy(bench: &Bench, case: &Case, played: &Played, litter: &[String], tally: &mut Tally) {
    let hidden = |folder: PathBuf| names(&folder).into_iter().filter(|name| name.starts_with('.')).collect::<Vec<_>>();
    let slain = |is: fn(Role) -> bool| played.parties.iter().any(|party| party.is_slain() && is(party.role));
    let clients_died = slain(|role| role != Role::Server) || !played.has_slain();
    let left = hidden(bench.out());
    if !left.is_empty() {
        // A worker is also killed by its primary.
        let killed = clients_died || case.workers > 0;
        assert!(case.verb == Verb::Backup && killed, "{left:?} is left in the backup's folder: {played:#?}");
        tally.count("left by a client killed in its commit, removed by the next: hidden files".to_owned());
        let before = targets(bench);
        for device in 0..case.devices {
            drop(case.kept.media(&stripe(&bench.out(), device), false));
        }
        assert_eq!(targets(bench), before);
        assert_eq!(hidden(bench.out()), Vec::<String>::new(), "the next one removes what is left: {played:#?}");
    }
    if !litter.is_empty() {
        let killed = died(&played.outcome) && case.verb == Verb::Restore;
        assert!(killed, "{litter:?} was left in the data folder: {played:#?}");
        tally.count("left by a server killed in its restore, removed by the next: files".to_owned());
        assert!(restores(bench, case, case.holds, &bench.pages("sales")));
    }
    assert_eq!(bench.databases().litter(), Vec::<String>::new(), "{litter:?} was there: {played:#?}");
    bench.databases().names().iter().for_each(|name| bench.databases().check(name));
    let sockets = names(&bench.runtime());
    if !sockets.is_empty() {
        // Nobody is left to remove the socket; the next one who creates a set does.
        assert!(sockets.len() == 1 && slain(|role| role == Role::Primary), "{sockets:?} is left: {played:#?}");
        tally.count("left by a primary that died, removed by the next: a socket".to_owned());
    }
    // The name is free.
    bench.create(SET, &case.config()).signal_abort().unwrap();
    bench.assert_nothing_left();
}
