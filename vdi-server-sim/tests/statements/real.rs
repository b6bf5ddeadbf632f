//! Backups that SQL Server made go in and come out again: pages and log are the same bytes, on any number of devices.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;

use crate::common::bench::Bench;
use crate::common::client::stripe;
use crate::common::families::{Families, Family};
use crate::common::real::real_backups;

/// The full backups, each with all of its families.
fn full_backups(test: &str) -> Vec<Families> {
    let found = real_backups(test).into_iter().map(|real| Family::read(&real.path)).filter(Family::is_full).collect();
    Families::group(found)
}

/// Every page and every range of the log of a backup is in the database.
#[track_caller]
fn assert_is_in(backup: &Families, bench: &Bench, database: &str) {
    let files = bench.databases().row(database).files;
    let open = |id| File::open(&files.iter().find(|file| file.file_id == id).unwrap().path).unwrap();
    let check = |file: &File, offset: u64, expected: &[u8], what: &str| {
        let mut found = vec![0; expected.len()];
        file.read_exact_at(&mut found, offset).unwrap();
        assert!(found == expected, "{what} of {database}");
    };
    for (address, expected) in backup.pages() {
        check(&open(address.file), address.file_offset(), &expected, &format!("page {address}"));
    }
    for (id, start, expected) in backup.log() {
        check(&open(id), start, &expected, &format!("the log at {start}"));
    }
}

#[test]
fn full_backups_of_sql_server_go_in_and_come_out() {
    for original in full_backups("full_backups_of_sql_server_go_in_and_come_out") {
        let bench = Bench::new();
        // In another order than they were written in.
        let disks = original.0.iter().rev().map(|family| format!("DISK = '{}'", family.path.display()));
        let disks: Vec<_> = disks.collect();
        bench.sql(&format!("RESTORE DATABASE one FROM {}", disks.join(", "))).outcome().assert_success();
        assert_is_in(&original, &bench, "one");
        assert!(bench.databases().row("one").is_foreign);
        for devices in [1, 3, 8] {
            bench.back_up("one", devices, "");
            let paths: Vec<_> = (0..devices).map(|index| stripe(&bench.out(), index)).collect();
            let written = Families::read(paths.iter().map(PathBuf::as_path));
            assert!(written.pages() == original.pages(), "{devices} devices");
            assert!(written.log() == original.log(), "{devices} devices");
            bench.copy("one", "two", devices, "REPLACE");
            bench.databases().assert_same("one", "two");
            // Once more, from what was restored.
            bench.back_up("two", 1, "");
            let again = Families::read([&*stripe(&bench.out(), 0)]);
            assert!(again.pages() == original.pages() && again.log() == original.log(), "{devices} devices");
        }
        bench.assert_databases(&["one", "two"]);
    }
}

#[test]
fn a_foreign_database_is_not_written_to() {
    let Some(original) = full_backups("a_foreign_database_is_not_written_to").into_iter().next() else { return };
    let bench = Bench::new();
    let disks = original.0.iter().map(|family| format!("DISK = '{}'", family.path.display())).collect::<Vec<_>>();
    bench.sql(&format!("RESTORE DATABASE one FROM {}", disks.join(", "))).outcome().assert_success();
    let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_vdi-sim"));
    command.arg("write").arg("--data").arg(bench.data()).args(["--database", "one", "--count", "1"]);
    let outcome = bench.run(command).outcome();
    assert_eq!(outcome.status.code(), Some(1));
    assert!(outcome.text.contains("SQL Server"), "{outcome:#?}");
    assert_is_in(&original, &bench, "one");
}
