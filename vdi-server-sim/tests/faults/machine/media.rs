//! Disks under the agent's media that fail.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use rustix::io::Errno;

use super::calls::{Call, Rules, can_fail_calls, faults, reported};
use super::trial::{KINDS, Verb, attempt, is_complete, nothing, target};
use crate::common::behaviour::MediaKind;
use crate::common::bench::{Bench, names, tree};

/// What is done with files. Not close: the system lets go of the descriptor whatever it answers, which a call that is not carried
/// out does not; and what it could tell of writing, the sync before has told.
pub(super) const FILE_CALLS: &[&str] = &[
    "read",
    "pread64",
    "write",
    "pwrite64",
    "writev",
    "copy_file_range",
    "fsync",
    "fdatasync",
    "syncfs",
    "ftruncate",
    "fallocate",
    "fchmod",
    "fchown",
    "flock",
    "lseek",
    "getdents64",
    "openat",
    "mkdirat",
    "unlinkat",
    "renameat2",
    "linkat",
    "statx",
    "readlinkat",
    "faccessat",
];
/// And where the architecture has them.
#[cfg(target_arch = "x86_64")]
pub(super) const OLD_CALLS: &[&str] =
    &["open", "mkdir", "unlink", "rmdir", "rename", "renameat", "readlink", "newfstatat"];
#[cfg(not(target_arch = "x86_64"))]
pub(super) const OLD_CALLS: &[&str] = &[];

pub(super) fn file_calls() -> Vec<&'static str> {
    [FILE_CALLS, OLD_CALLS].concat()
}

/// After one of these failed no statement may succeed.
pub(super) fn is_a_promise(call: &Call) -> bool {
    ["write", "pwrite64", "fsync", "fdatasync", "linkat", "renameat", "renameat2", "rename", "ftruncate"]
        .contains(&&*call.name)
}

/// Where a disk does not let something hidden be found or removed, it stays behind. What has no hidden name is whole all the same.
pub(super) fn may_leave(calls: &[Call]) -> bool {
    let keeps = |call: &Call| !["write", "pwrite64", "fsync", "fdatasync", "linkat", "fchmod"].contains(&&*call.name);
    calls.iter().any(|call| call.failed && call.path.contains("/.") && keeps(call))
}

/// What a folder holds under names that are not hidden.
pub(super) fn visible(folder: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let hidden = |path: &Path| path.components().any(|part| part.as_os_str().as_bytes().starts_with(b"."));
    tree(folder).into_iter().filter(|(path, _)| !hidden(path)).collect()
}

/// An old backup in the place of the new one.
fn place_old(bench: &Bench, kept: MediaKind) {
    fs::remove_dir_all(bench.out()).unwrap();
    fs::create_dir(bench.out()).unwrap();
    match kept {
        MediaKind::Volumes(_) => {
            fs::create_dir(target(bench)).unwrap();
            fs::write(target(bench).join("medium-001"), b"old").unwrap();
        }
        MediaKind::File | MediaKind::Tape => fs::write(target(bench), b"old").unwrap(),
    }
}

/// Fails the agent's calls on its files in a backup of this kind, one after the other.
fn fail_each_call_of_a_backup(kind: &str, kept: MediaKind) {
    if !can_fail_calls() {
        return;
    }
    let bench = Bench::new();
    bench.database("sales", 400_000);
    let (report, out, calls) = (bench.out().with_file_name("calls"), bench.out(), file_calls());
    let undisturbed = Rules { calls: &calls, under: &out, at: 0, persists: false, error: Errno::IO };
    place_old(&bench, kept);
    let trial = attempt(&bench, Verb::Backup, kind, |command| undisturbed.apply(command, &report), nothing);
    assert!(trial.judge(), "{trial:#?}");
    assert!(is_complete(&bench, kept));
    let seen = reported(&report);
    assert!(seen.iter().any(|call| call.name == "fsync") && seen.iter().all(|call| !call.failed), "{seen:#?}");
    let faults = faults(&seen, &[Errno::NOSPC, Errno::IO, Errno::DQUOT]);
    let (mut succeeded, mut failed) = (0, 0);
    for fault in &faults {
        place_old(&bench, kept);
        let before = visible(&out);
        let rules = Rules { at: fault.at, persists: fault.persists, error: fault.error, ..undisturbed.clone() };
        let trial = attempt(&bench, Verb::Backup, kind, |command| rules.apply(command, &report), nothing);
        let calls = reported(&report);
        let story = format!("{fault:?}, {:?}: {trial:#?}\n{:#?}", calls.get(fault.at - 1), tree(&out).keys());
        let good = trial.judge();
        if good {
            assert!(!calls.iter().any(|call| call.failed && is_a_promise(call)), "{story}");
            assert!(is_complete(&bench, kept), "{story}");
        } else {
            let told = trial.agent.as_ref().unwrap_err();
            let system = std::io::Error::from(fault.error).to_string();
            assert!(told.contains(&system) && told.contains(out.to_str().unwrap()), "no evidence: {story}");
            assert!(told.contains("; "), "no remedy: {story}");
            assert!(trial.text().contains("Msg 3013,"), "{story}");
            assert!(
                visible(&out) == before || is_complete(&bench, kept),
                "the old is gone, and there is no new: {story}"
            );
        }
        let hidden = names(&out).iter().any(|name| name.starts_with('.'));
        // An old set is kept where nobody knows which of the two a crash would bring back; the error says so.
        let kept_on_purpose =
            trial.agent.as_ref().is_err_and(|told| told.contains("an old set is kept under a hidden name"));
        assert!(!hidden || may_leave(&calls) || kept_on_purpose, "{story}");
        if hidden {
            place_old(&bench, kept);
        }
        *(if good { &mut succeeded } else { &mut failed }) += 1;
    }
    eprintln!("{kind}: {} calls, {} faults: {succeeded} succeeded, {failed} failed", seen.len(), faults.len());
    assert!(failed > 0);
}

/// Fails one call in a backup on a volume set: the last of this name on a path that is meant. The agent has to say why.
fn fail_one_call_on_a_volume_set(name: &str, meant: impl Fn(&Bench, &str) -> bool) {
    if !can_fail_calls() {
        return;
    }
    let bench = Bench::new();
    bench.database("sales", 400_000);
    let (kind, kept) = KINDS[1];
    let (report, out, calls) = (bench.out().with_file_name("calls"), bench.out(), [name]);
    let undisturbed = Rules { calls: &calls, under: &out, at: 0, persists: false, error: Errno::IO };
    place_old(&bench, kept);
    let before = visible(&out);
    assert!(attempt(&bench, Verb::Backup, kind, |command| undisturbed.apply(command, &report), nothing).judge());
    let at = 1 + reported(&report).iter().rposition(|call| meant(&bench, &call.path)).unwrap();
    place_old(&bench, kept);
    let rules = Rules { at, ..undisturbed };
    let trial = attempt(&bench, Verb::Backup, kind, |command| rules.apply(command, &report), nothing);
    assert!(
        !trial.judge() && trial.agent.as_ref().unwrap_err().contains("Input/output error (os error 5)"),
        "{trial:#?}"
    );
    assert_eq!(visible(&out), before);
    bench.assert_output(&["stripe-00"]);
}

/// It said that the old set was not empty, which was true and no reason.
#[test]
fn a_volume_set_that_cannot_be_looked_at_before_it_is_replaced_says_why() {
    fail_one_call_on_a_volume_set("openat", |bench, path| path == target(bench).to_str().unwrap());
}

/// It said that files without a name were not supported.
#[test]
fn a_new_medium_that_cannot_be_looked_at_says_why() {
    fail_one_call_on_a_volume_set("statx", |_, path| path.ends_with(" (deleted)"));
}

#[test]
fn every_call_on_the_file_of_a_backup_may_fail() {
    let (kind, kept) = KINDS[0];
    fail_each_call_of_a_backup(kind, kept);
}

#[test]
fn every_call_on_the_files_of_a_volume_set_may_fail() {
    let (kind, kept) = KINDS[1];
    fail_each_call_of_a_backup(kind, kept);
}

#[test]
fn every_call_on_a_tape_image_may_fail() {
    let (kind, kept) = KINDS[2];
    fail_each_call_of_a_backup(kind, kept);
}

#[test]
fn every_call_on_the_files_that_a_restore_reads_may_fail() {
    if !can_fail_calls() {
        return;
    }
    let bench = Bench::new();
    bench.database("sales", 400_000);
    let (report, out, calls) = (bench.out().with_file_name("calls"), bench.out(), file_calls());
    let undisturbed = Rules { calls: &calls, under: &out, at: 0, persists: false, error: Errno::IO };
    for (kind, kept) in KINDS {
        place_old(&bench, kept);
        assert!(attempt(&bench, Verb::Backup, kind, nothing, nothing).judge());
        bench.old_database("copy");
        assert!(attempt(&bench, Verb::Restore, kind, |command| undisturbed.apply(command, &report), nothing).judge());
        let seen = reported(&report);
        let faults = faults(&seen, &[Errno::IO]);
        let mut failed = 0;
        for fault in &faults {
            bench.old_database("copy");
            let old = bench.databases().image("copy");
            let rules = Rules { at: fault.at, persists: fault.persists, error: fault.error, ..undisturbed.clone() };
            let trial = attempt(&bench, Verb::Restore, kind, |command| rules.apply(command, &report), nothing);
            let calls = reported(&report);
            let story = format!("{kind}, {fault:?}, {:?}: {trial:#?}", calls.get(fault.at - 1));
            if let Err(told) = &trial.agent {
                let system = std::io::Error::from(fault.error).to_string();
                assert!(told.contains(&system) && told.contains(out.to_str().unwrap()), "no evidence: {story}");
            }
            // Where only what lies behind the end of the data could not be read, the server has all of it, verified, and the agent
            // tells of its disk all the same.
            match &trial.statement {
                Some(outcome) if outcome.status.success() => {
                    outcome.assert_success();
                    bench.assert_identical("sales", "copy");
                }
                _ => {
                    assert!(!trial.judge() && bench.databases().image("copy") == old, "{story}");
                    failed += 1;
                }
            }
            bench.assert_databases(&["copy", "sales"]);
        }
        eprintln!("restore of {kind}: {} calls, {} faults: {failed} failed", seen.len(), faults.len());
        assert!(failed > 0);
    }
}
