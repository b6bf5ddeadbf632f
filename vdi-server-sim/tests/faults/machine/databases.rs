//! Disks under the server's databases that fail.

use rustix::io::Errno;
use vdi_server_sim::catalog;

use super::calls::{Call, Rules, can_fail_calls, faults, reported};
use super::media::{file_calls, is_a_promise, visible};
use super::trial::{KINDS, Trial, Verb, attempt, is_complete, nothing};
use crate::common::behaviour::MediaKind;
use crate::common::bench::Bench;

/// A bench with the database `sales` and a backup of it.
fn with_a_backup() -> Bench {
    let bench = Bench::new();
    bench.database("sales", 400_000);
    assert!(attempt(&bench, Verb::Backup, KINDS[0].0, nothing, nothing).judge());
    bench
}

/// Whether a call was on a file of the catalog. What its failure means is SQLite's affair: it may try again, or do without.
fn is_of_the_catalog(call: &Call) -> bool {
    call.path.contains(catalog::FILE_NAME)
}

/// A failure names the file and what the system said of it, or the catalog: SQLite says it in its own words.
fn is_told(trial: &Trial, error: Errno, data: &str) -> bool {
    let system = std::io::Error::from(error).to_string();
    let text = trial.text();
    text.contains(data) && (text.contains(&system) || text.contains(catalog::FILE_NAME))
}

#[test]
fn every_call_on_the_files_of_a_restored_database_may_fail() {
    if !can_fail_calls() {
        return;
    }
    let bench = with_a_backup();
    let (report, data, calls) = (bench.out().with_file_name("calls"), bench.data(), file_calls());
    let undisturbed = Rules { calls: &calls, under: &data, at: 0, persists: false, error: Errno::IO };
    bench.old_database("copy");
    let trial = attempt(&bench, Verb::Restore, "file", nothing, |command| undisturbed.apply(command, &report));
    assert!(trial.judge(), "{trial:#?}");
    bench.assert_identical("sales", "copy");
    let seen = reported(&report);
    assert!(seen.iter().any(|call| call.name == "fsync") && seen.iter().all(|call| !call.failed), "{seen:#?}");
    let new = bench.pages("sales");
    let faults = faults(&seen, &[Errno::NOSPC, Errno::IO, Errno::DQUOT]);
    let (mut succeeded, mut failed) = (0, 0);
    for fault in &faults {
        bench.old_database("copy");
        let old = bench.databases().image("copy");
        let rules = Rules { at: fault.at, persists: fault.persists, error: fault.error, ..undisturbed.clone() };
        let trial = attempt(&bench, Verb::Restore, "file", nothing, |command| rules.apply(command, &report));
        let calls = reported(&report);
        let call = calls.get(fault.at - 1);
        let litter = bench.databases().litter();
        let story = format!("{fault:?}, {call:?}: {trial:#?}\n{litter:#?}");
        let good = trial.judge();
        // Ends what the statement began: a transaction that could not be made durable may have taken place.
        drop(bench.databases().open());
        let is_new = bench.pages("copy") == new;
        if good {
            // What is left to do behind the transaction is told, and done by the next statement.
            let broken = |call: &Call| call.failed && is_a_promise(call) && !is_of_the_catalog(call);
            let is_told = is_told(&trial, fault.error, data.to_str().unwrap());
            assert!(is_told || !calls.iter().any(broken), "{story}");
            assert!(is_new, "{story}");
        } else {
            assert!(is_told(&trial, fault.error, data.to_str().unwrap()), "no evidence: {story}");
            assert!(is_new || bench.databases().image("copy") == old, "neither the old database nor the new: {story}");
        }
        // What could not be removed is removed by the next restore.
        let ends = |call: &Call| ["unlink", "rename"].iter().any(|name| call.name.contains(name));
        let keeps = |call: &Call| call.failed && (ends(call) || is_of_the_catalog(call));
        assert!(litter.is_empty() || fault.persists || calls.iter().any(keeps), "{story}");
        if !litter.is_empty() {
            assert!(attempt(&bench, Verb::Restore, "file", nothing, nothing).judge());
        }
        bench.assert_databases(&["copy", "sales"]);
        *(if good { &mut succeeded } else { &mut failed }) += 1;
    }
    eprintln!("restore: {} calls, {} faults: {succeeded} succeeded, {failed} failed", seen.len(), faults.len());
    assert!(failed > 0);
}

/// The new database is complete and durable then. The statement says so, and what is left.
#[test]
fn an_old_database_that_cannot_be_removed_is_removed_by_the_next_statement() {
    if !can_fail_calls() {
        return;
    }
    let bench = with_a_backup();
    // Its files have other names than the new ones, which take no file's place.
    bench.databases().create_empty_in("copy", "old");
    let (report, old) = (bench.out().with_file_name("calls"), bench.databases().data_file("copy", 0));
    let calls = ["unlink", "unlinkat"];
    let rules = Rules { calls: &calls, under: &old, at: 1, persists: true, error: Errno::IO };
    let trial = attempt(&bench, Verb::Restore, "file", nothing, |command| rules.apply(command, &report));
    assert!(trial.judge(), "{trial:#?}");
    assert!(reported(&report).iter().any(|call| call.failed), "{trial:#?}");
    assert!(trial.text().contains(old.to_str().unwrap()), "{trial:#?}");
    bench.assert_identical("sales", "copy");
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
    let contents = bench.databases().contents();
    let (mut succeeded, mut failed) = (0, 0);
    for fault in &faults {
        let before = visible(&bench.out());
        let rules = Rules { at: fault.at, persists: fault.persists, error: fault.error, ..undisturbed.clone() };
        let trial = attempt(&bench, Verb::Backup, "file", nothing, |command| rules.apply(command, &report));
        let calls = reported(&report);
        let call = calls.get(fault.at - 1);
        let story = format!("{fault:?}, {call:?}: {trial:#?}");
        let good = trial.judge();
        if good {
            let broken = |call: &Call| call.failed && call.name == "pread64" && !is_of_the_catalog(call);
            assert!(!calls.iter().any(broken), "{story}");
            assert!(is_complete(&bench, MediaKind::File), "{story}");
        } else {
            assert!(is_told(&trial, fault.error, data.to_str().unwrap()), "no evidence: {story}");
            assert!(visible(&bench.out()) == before, "the old backup is gone: {story}");
        }
        assert!(bench.databases().contents() == contents, "{story}");
        bench.databases().check("sales");
        bench.assert_output(&["stripe-00"]);
        bench.assert_databases(&["sales"]);
        *(if good { &mut succeeded } else { &mut failed }) += 1;
    }
    eprintln!("backup: {} calls, {} faults: {succeeded} succeeded, {failed} failed", seen.len(), faults.len());
    assert!(failed > 0);
}
