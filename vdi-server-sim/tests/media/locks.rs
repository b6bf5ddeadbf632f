//! Statements on one database exclude each other: real processes, with a client of its own each. Nobody waits for the other, one
//! succeeds, and the other one's user and client learn why not.

use crate::common;
use crate::gated;

use common::bench::Bench;
use common::client::{backup_statement, config, copy_statement, execute, restore_statement, stripe};
use common::tasks::task;
use gated::{Gate, GatedFile};
use vdi_client::media::{FileMedia, StreamMedia};
use vdi_server_sim::engine::Engine;

const SIZE: u64 = 700_000;

/// A bench with a database `sales` and a backup of it on one stripe.
fn bench() -> Bench {
    let bench = Bench::new();
    bench.database("sales", SIZE);
    bench.back_up("sales", 1, "");
    bench
}

/// A statement is refused with these messages, and its client learns this reason.
#[track_caller]
fn assert_refused(bench: &Bench, statement: &str, texts: &[&str], reason: &str) {
    let agent = bench.reading_agent("second", &config(1));
    bench.sql(statement).outcome().assert_failure(texts);
    let told = agent.result().unwrap_err().to_string();
    assert!(told.contains(reason), "{told}");
}

const IN_USE: &str = "Msg 3101, Level 16, State 1, Server vdi-sim, Line 1\nExclusive access could not be obtained because the database is in use.\n";

#[test]
fn a_restore_beside_a_restore_is_refused() {
    let bench = bench();
    // A database that does not exist yet, then one that is replaced.
    for _ in 0..2 {
        let (gate, held) = Gate::at_call(3);
        let path = stripe(&bench.out(), 0);
        let first = bench.agent("first", &config(1), move |_| Ok(GatedFile::new(FileMedia::open(&path)?, &held)));
        let statement = bench.sql(&copy_statement("sales", "copy", "first", 1, "REPLACE"));
        gate.wait();
        let reason = "database 'copy' is in use by another RESTORE statement";
        let second = copy_statement("sales", "copy", "second", 1, "REPLACE");
        assert_refused(&bench, &second, &[IN_USE, reason], reason);
        gate.open();
        statement.outcome().assert_success();
        first.result().unwrap();
        bench.assert_databases(&["copy", "sales"]);
        bench.assert_identical("sales", "copy");
    }
}

#[test]
fn statements_beside_a_backup_are_refused() {
    let bench = bench();
    let (gate, held) = Gate::at_call(1);
    let path = stripe(&bench.out(), 1);
    let first = bench.agent("first", &config(1), move |_| Ok(GatedFile::new(FileMedia::create(&path)?, &held)));
    let statement = bench.sql(&backup_statement("sales", "first", 1, ""));
    gate.wait();
    let reason = "database 'sales' is in use by another BACKUP statement";
    assert_refused(&bench, &restore_statement("sales", "second", 1, "REPLACE"), &[IN_USE, reason], reason);
    for options in ["", "SNAPSHOT"] {
        let serialized = "Msg 3023, Level 16, State 1, Server vdi-sim, Line 1\nBackup, file manipulation operations (such as ALTER \
                          DATABASE ADD FILE) and encryption changes on a database must be serialized. Reissue the statement after \
                          the current backup or file manipulation operation is completed.\n";
        assert_refused(&bench, &backup_statement("sales", "second", 1, options), &[serialized, reason], reason);
    }
    // Other databases are not concerned.
    bench.copy("sales", "copy", 1, "");
    gate.open();
    statement.outcome().assert_success();
    first.result().unwrap();
    std::fs::rename(stripe(&bench.out(), 1), stripe(&bench.out(), 0)).unwrap();
    bench.copy("sales", "again", 1, "");
    bench.assert_identical("sales", "again");
}

/// As between two processes.
#[test]
fn two_engines_of_one_process_exclude_each_other() {
    let bench = bench();
    let (gate, held) = Gate::at_call(1);
    let path = stripe(&bench.out(), 1);
    let client = bench.agent("first", &config(1), move |_| Ok(GatedFile::new(FileMedia::create(&path)?, &held)));
    let engine = || Engine::new(bench.data(), bench.options()).unwrap();
    let (one, other) = (engine(), engine());
    let first = task("the server", move || execute(&one, &backup_statement("sales", "first", 1, "")));
    gate.wait();
    for statement in [backup_statement("sales", "second", 1, ""), restore_statement("sales", "second", 1, "REPLACE")] {
        let agent = bench.reading_agent("second", &config(1));
        let failure = execute(&other, &statement).unwrap_err();
        let reason = "database 'sales' is in use by another BACKUP statement";
        assert!(failure.to_string().contains(reason), "{statement}: {failure}");
        assert!(agent.result().is_err());
    }
    gate.open();
    first.result().unwrap();
    client.result().unwrap();
}

#[test]
fn a_backup_beside_a_restore_is_refused() {
    let bench = bench();
    let (gate, held) = Gate::at_call(3);
    let path = stripe(&bench.out(), 0);
    let first = bench.agent("first", &config(1), move |_| Ok(GatedFile::new(FileMedia::open(&path)?, &held)));
    let statement = bench.sql(&restore_statement("sales", "first", 1, "REPLACE"));
    gate.wait();
    let reason = "database 'sales' is in use by another RESTORE statement";
    let message = "Msg 927, Level 14, State 2, Server vdi-sim, Line 1\nDatabase 'sales' cannot be opened. It is in the middle of a \
                   restore.\n";
    assert_refused(&bench, &backup_statement("sales", "second", 1, ""), &[message, reason], reason);
    gate.open();
    statement.outcome().assert_success();
    first.result().unwrap();
}

#[test]
fn a_killed_statement_lets_go_of_its_database() {
    let bench = bench();
    for restores in [false, true] {
        let (gate, held) = Gate::at_call(3);
        let path = stripe(&bench.out(), 1);
        std::fs::copy(stripe(&bench.out(), 0), &path).unwrap();
        let first = bench.agent("first", &config(1), move |_| {
            let file = if restores { FileMedia::open(&path)? } else { FileMedia::create(&path)? };
            Ok(GatedFile::new(file, &held))
        });
        let mut statement = bench.sql(&match restores {
            true => restore_statement("sales", "first", 1, "REPLACE"),
            false => backup_statement("sales", "first", 1, ""),
        });
        gate.wait();
        statement.process.kill();
        // At once, while the client of the dead server is still there.
        bench.restore("sales", 1, "REPLACE");
        let agent = bench.agent("second", &config(1), |_| Ok(StreamMedia::sink(std::io::sink())));
        bench.sql(&backup_statement("sales", "second", 1, "")).outcome().assert_success();
        agent.result().unwrap();
        gate.open();
        assert!(first.result().is_err());
    }
    bench.assert_databases(&["sales"]);
}
