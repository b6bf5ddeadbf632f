//! Readers that are gone: a program whose output nobody takes does its work, and its exit status is that of the work.

use crate::common;

use std::process::{Command, Stdio};

use common::bench::Bench;
use common::client::{backup_statement, config};
use common::processes::Guarded;

const SIM: &str = env!("CARGO_BIN_EXE_vdi-sim");

/// A pipe whose reader is gone, as that of `| head -1` is.
fn gone() -> Stdio {
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    writer.into()
}

/// How a program ends whose standard output, or standard error, nobody reads.
#[track_caller]
fn ends(command: &mut Command, error: bool) -> Option<i32> {
    let command = command.stdin(Stdio::null()).stdout(if error { Stdio::null() } else { gone() });
    Guarded::start(command.stderr(if error { gone() } else { Stdio::null() })).wait().code()
}

#[test]
fn a_statement_whose_reader_is_gone_succeeds() {
    let bench = Bench::new();
    bench.database("sales", 3 << 20);
    let agent = bench.writing_agent("nightly", &config(1));
    let mut command = Command::new(SIM);
    command.args(["sql", "-Q", &backup_statement("sales", "nightly", 1, "STATS = 1")]).arg("--data").arg(bench.data());
    assert_eq!(ends(command.env("VDI_RUNTIME_DIR", bench.runtime()), false), Some(0));
    agent.result().unwrap();
    bench.assert_output(&["stripe-00"]);
}

#[test]
fn a_demo_whose_reader_is_gone_succeeds() {
    let folder = tempfile::tempdir().unwrap();
    for error in [false, true] {
        let mut command = Command::new(SIM);
        command.args(["demo", "--size", "5M", "--workers", "1"]).env("TMPDIR", folder.path());
        assert_eq!(ends(&mut command, error), Some(0));
    }
}

/// The exit status is that of the work, and never that of a panic.
#[test]
fn what_is_printed_to_nobody_changes_no_exit_status() {
    let bench = Bench::new();
    bench.database("sales", 1 << 20);
    let data = bench.data().display().to_string();
    for (arguments, expected) in [
        (&["faults"][..], 0),
        (&["--help"], 0),
        (&["sql", "--help"], 0),
        (&["explode"], 2),
        (&["write", "--data", &data, "--database", "sales", "--count", "100"], 0),
        (&["write", "--data", &data, "--database", "gone"], 1),
        (&["sql", "--data", "/nowhere/at/all", "-Q", "x"], 1),
        (&["sql", "--data", &data, "-Q", "x"], 1),
        (&["sql", "--data", &data, "--transcript", "/nowhere/at/all", "-Q", "x"], 1),
        (&["demo", "--database", "/nowhere/at/all"], 1),
    ] {
        for error in [false, true] {
            let mut command = Command::new(SIM);
            // `write` ends with its input, which is nothing here, or by itself.
            assert_eq!(ends(command.args(arguments), error), Some(expected), "{arguments:?}, standard error: {error}");
        }
    }
    let folder = tempfile::tempdir().unwrap();
    std::os::unix::fs::symlink(SIM, folder.path().join("sqlcmd")).unwrap();
    let output = bench.out().join("out.txt");
    for (arguments, expected) in [
        (&["-Q", "PRINT 'x'"][..], 0),
        (&["-b", "-Q", "USE gone"], 1),
        (&["-r1", "-Q", "PRINT 'x'"], 0),
        (&["-o", output.to_str().unwrap(), "-Q", "PRINT 'x'"], 0),
        (&["-?"], 0),
        (&["-Z"], 1),
    ] {
        for error in [false, true] {
            let mut command = Command::new(folder.path().join("sqlcmd"));
            command.args(arguments).env("VDI_SIM_DATA", bench.data());
            assert_eq!(ends(&mut command, error), Some(expected), "{arguments:?}, standard error: {error}");
        }
    }
    assert_eq!(std::fs::read_to_string(output).unwrap(), "x\n");
}
