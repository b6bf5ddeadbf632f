//! Freezing between processes: while a database is frozen nobody writes to it, and it is thawed however the freezer ends.

use crate::common;
use crate::writer;

use std::process::{Command, Stdio};

use common::TEST_TIMEOUT;
use common::bench::Bench;
use common::processes::{RoleContext, run_role};
use vdi_server_sim::storage::{DataFolder, StorageError};
use writer::{PAGE, Writer, stamps, written};

#[test]
fn child_entry() {
    run_role(&[("freezer", freezer)]);
}

/// Freezes the database in the folder of the first argument, and thaws it when told to.
fn freezer(stage: &RoleContext) {
    let database = DataFolder::open(stage.argument(0)).unwrap().database("db").unwrap();
    let frozen = database.freeze(TEST_TIMEOUT, || false).unwrap();
    stage.say("frozen");
    stage.stay();
    drop(frozen);
}

#[test]
fn nothing_is_written_while_a_database_is_frozen() {
    let bench = Bench::new();
    bench.database("db", 20 * PAGE as u64);
    let folder = bench.databases().open();
    let mut writer = Writer::start(&bench, "db", &[]);
    let mut reported = 0;
    for _ in 0..5 {
        let before = reported;
        while reported < before + 128 {
            reported = writer.wrote();
        }
        let database = folder.database("db").unwrap();
        let frozen = database.freeze(TEST_TIMEOUT, || false).unwrap();
        let at_first = stamps(&bench, "db");
        // Read what it had reported before, so that nothing but the frozen database can stop it.
        while reported + 64 <= written(&at_first) {
            reported = writer.wrote();
        }
        writer.wait_until_asleep();
        assert_eq!(stamps(&bench, "db"), at_first);
        frozen.check_unchanged().unwrap();
        drop(frozen);
        // It goes on where it was stopped.
        reported = writer.wrote();
        assert_eq!(reported, (written(&at_first) / 64 + 1) * 64);
    }
    writer.end();
    // It ended between two pages.
    assert!(written(&stamps(&bench, "db")) >= reported);
}

#[test]
fn a_killed_freezer_thaws() {
    let bench = Bench::new();
    bench.database("db", 20 * PAGE as u64);
    let mut writer = Writer::start(&bench, "db", &[]);
    writer.wrote();
    let mut freezer = bench.part("freezer", &[bench.data().to_str().unwrap()]);
    freezer.expect("frozen");
    let frozen_at = written(&stamps(&bench, "db"));
    let folder = bench.databases().open();
    let error = folder.database("db").unwrap().freeze(std::time::Duration::ZERO, || false).unwrap_err();
    assert!(matches!(error, StorageError::NotFrozen { .. }), "{error}");
    freezer.process.kill();
    while writer.wrote() <= frozen_at {}
    writer.end();
}

#[test]
fn a_killed_writer_does_not_keep_a_database_from_being_frozen() {
    let bench = Bench::new();
    bench.database("db", 20 * PAGE as u64);
    let mut writer = Writer::start(&bench, "db", &[]);
    writer.wrote();
    drop(writer);
    bench.databases().open().database("db").unwrap().freeze(std::time::Duration::ZERO, || false).unwrap();
}

#[test]
fn a_writer_that_is_stopped_by_a_freeze_ends_with_its_input() {
    let bench = Bench::new();
    bench.database("db", 20 * PAGE as u64);
    let mut writer = Writer::start(&bench, "db", &[]);
    writer.wrote();
    let database = bench.databases().open().database("db").unwrap();
    let frozen = database.freeze(TEST_TIMEOUT, || false).unwrap();
    writer.end();
    // One that is started meanwhile waits to open the database.
    let late = Writer::start(&bench, "db", &[]);
    late.wait_until_asleep();
    late.end();
    drop(frozen);
}

#[test]
fn a_writer_counts_and_refuses() {
    let bench = Bench::new();
    bench.database("db", 20 * PAGE as u64);
    let mut writer = Writer::start(&bench, "db", &["--count", "70"]);
    assert_eq!((writer.wrote(), writer.wrote()), (64, 70));
    writer.end();
    assert_eq!(written(&stamps(&bench, "db")), 70);
    let mut command = Command::new(env!("CARGO_BIN_EXE_vdi-sim"));
    command.arg("write").arg("--data").arg(bench.data()).args(["--database", "none"]);
    let output = command.stdin(Stdio::null()).output().unwrap();
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    assert!(String::from_utf8_lossy(&output.stderr).starts_with("vdi-sim: "), "{output:?}");
}
