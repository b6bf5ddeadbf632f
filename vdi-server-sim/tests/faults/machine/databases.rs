//! Disks under the server's databases that fail.

use std::fs;

use rustix::io::Errno;

use super::calls::{Rules, can_fail_calls, faults, reported};
use super::media::{file_calls, is_a_promise, may_leave, visible};
use super::trial::{KINDS, Verb, attempt, is_complete, nothing};
use crate::common::bench::{Bench, names};
use crate::common::conduct::Kept;
use vdi_server_sim::sample;

/// A bench with the database `sales` and a backup of it.
fn with_a_backup() -> Bench {
    let bench = Bench::new();
    bench.database("sales", 400_000);
    // A subfolder, so that a restore makes one.
    fs::create_dir(bench.data().join("sales/sub")).unwrap();
    fs::write(bench.data().join("sales/sub/notes"), b"some more").unwrap();
    assert!(attempt(&bench, Verb::Backup, KINDS[0].0, nothing, nothing).judge());
    bench
}

#[test]
fn every_call_on_the_files_of_a_restored_database_may_fail() {
    if !can_fail_calls() {
        return;
    }
    let bench = with_a_backup();
    let (report, data, calls) = (bench.out().with_file_name("calls"), bench.data(), file_calls());
    let undisturbed = Rules { calls: &calls, under: &data, at: 0, persists: false, error: Errno::IO };
    let place_old = || {
        let _ = fs::remove_dir_all(data.join("copy"));
        sample::create(&data.join("copy"), 100_000, 9).unwrap();
    };
    place_old();
    let trial = attempt(&bench, Verb::Restore, "file", nothing, |command| undisturbed.apply(command, &report));
    assert!(trial.judge(), "{trial:#?}");
    bench.assert_identical("sales", "copy");
    let seen = reported(&report);
    assert!(seen.iter().any(|call| call.name == "fsync") && seen.iter().all(|call| !call.failed), "{seen:#?}");
    let new = visible(&data.join("copy"));
    let faults = faults(&seen, &[Errno::NOSPC, Errno::IO, Errno::DQUOT]);
    let (mut succeeded, mut failed) = (0, 0);
    for fault in &faults {
        place_old();
        let old = visible(&data.join("copy"));
        let rules = Rules { at: fault.at, persists: fault.persists, error: fault.error, ..undisturbed.clone() };
        let trial = attempt(&bench, Verb::Restore, "file", nothing, |command| rules.apply(command, &report));
        let calls = reported(&report);
        let story = format!("{fault:?}, {:?}: {trial:#?}\n{:#?}", calls.get(fault.at - 1), names(&data));
        let good = trial.judge();
        let now = visible(&data.join("copy"));
        if good {
            assert!(!calls.iter().any(|call| call.failed && is_a_promise(call)), "{story}");
            assert!(now == new, "{story}");
        } else {
            let system = std::io::Error::from(fault.error).to_string();
            assert!(trial.text().contains(&system) && trial.text().contains(data.to_str().unwrap()), "{story}");
            assert!(now == old || now == new, "the old database is gone, and there is no new: {story}");
        }
        let hidden = names(&data).iter().any(|name| name.starts_with('.'));
        assert!(!hidden || may_leave(&calls), "{story}");
        if hidden {
            // The next restore finds and removes it.
            assert!(attempt(&bench, Verb::Restore, "file", nothing, nothing).judge());
            bench.assert_databases(&["copy", "sales"]);
        }
        *(if good { &mut succeeded } else { &mut failed }) += 1;
    }
    eprintln!("restore: {} calls, {} faults: {succeeded} succeeded, {failed} failed", seen.len(), faults.len());
    assert!(failed > 0);
}

/// A disk that fails from the moment on at which the new database has taken the old one's place: the exchange is not durable, and
/// cannot be undone. The old database has to stay, for a crash may bring it back.
#[test]
fn an_old_database_that_cannot_be_put_back_is_kept() {
    if !can_fail_calls() {
        return;
    }
    let bench = with_a_backup();
    let (report, data) = (bench.out().with_file_name("calls"), bench.data());
    let calls = ["fsync", "renameat", "renameat2"];
    let undisturbed = Rules { calls: &calls, under: &data, at: 0, persists: false, error: Errno::IO };
    sample::create(&data.join("copy"), 100_000, 9).unwrap();
    assert!(attempt(&bench, Verb::Restore, "file", nothing, |command| undisturbed.apply(command, &report)).judge());
    let seen = reported(&report);
    assert!(seen.last().is_some_and(|call| call.name == "fsync" && call.path == data.to_str().unwrap()), "{seen:#?}");
    fs::remove_dir_all(data.join("copy")).unwrap();
    sample::create(&data.join("copy"), 100_000, 9).unwrap();
    let old = visible(&data.join("copy"));
    let rules = Rules { at: seen.len(), persists: true, ..undisturbed };
    let trial = attempt(&bench, Verb::Restore, "file", nothing, |command| rules.apply(command, &report));
    assert!(!trial.judge(), "{trial:#?}");
    bench.assert_identical("sales", "copy");
    let hidden: Vec<_> = names(&data).into_iter().filter(|name| name.starts_with('.')).collect();
    assert_eq!(hidden.len(), 1, "{trial:#?}");
    assert!(visible(&data.join(&hidden[0])) == old, "{trial:#?}");
    let told = format!(
        "may not survive a crash of the system, and the old one is kept at {}",
        data.join(&hidden[0]).display()
    );
    assert!(trial.text().contains(&told), "{trial:#?}");
    // The next restore, with a disk that works, removes it.
    assert!(attempt(&bench, Verb::Restore, "file", nothing, nothing).judge());
    bench.assert_databases(&["copy", "sales"]);
}

#[test]
fn every_call_on_the_files_of_a_database_that_is_backed_up_may_fail() {
    if !can_fail_calls() {
        return;
    }
    let bench = with_a_backup();
    let (report, data, calls) = (bench.out().with_file_name("calls"), bench.data(), file_calls());
    let undisturbed = Rules { calls: &calls, under: &data, at: 0, persists: false, error: Errno::IO };
    let trial = attempt(&bench, Verb::Backup, "file", nothing, |command| undisturbed.apply(command, &report));
    assert!(trial.judge(), "{trial:#?}");
    let seen = reported(&report);
    assert!(seen.iter().any(|call| call.name == "pread64"), "{seen:#?}");
    let faults = faults(&seen, &[Errno::IO, Errno::MFILE]);
    let (mut succeeded, mut failed) = (0, 0);
    for fault in &faults {
        let before = visible(&bench.out());
        let rules = Rules { at: fault.at, persists: fault.persists, error: fault.error, ..undisturbed.clone() };
        let trial = attempt(&bench, Verb::Backup, "file", nothing, |command| rules.apply(command, &report));
        let calls = reported(&report);
        let story = format!("{fault:?}, {:?}: {trial:#?}", calls.get(fault.at - 1));
        let good = trial.judge();
        if good {
            assert!(!calls.iter().any(|call| call.failed && call.name == "pread64"), "{story}");
            assert!(is_complete(&bench, Kept::File), "{story}");
        } else {
            let system = std::io::Error::from(fault.error).to_string();
            assert!(trial.text().contains(&system) && trial.text().contains(data.to_str().unwrap()), "{story}");
            assert!(visible(&bench.out()) == before, "the old backup is gone: {story}");
        }
        bench.assert_output(&["stripe-00"]);
        *(if good { &mut succeeded } else { &mut failed }) += 1;
    }
    eprintln!("backup: {} calls, {} faults: {succeeded} succeeded, {failed} failed", seen.len(), faults.len());
    assert!(failed > 0);
}
