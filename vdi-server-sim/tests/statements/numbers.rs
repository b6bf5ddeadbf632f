//! The numbers of SQL Server: what a real statement says to its client and to the error log in each situation, in order, with
//! number, state and text; and that both programs say the same.

mod rows;

use crate::common;

use std::fs;
use std::os::unix::fs::symlink;
use std::path::PathBuf;
use std::process::Command;

use common::TEST_TIMEOUT;
use common::behaviour::{Behaviour, MediaKind};
use common::bench::Bench;
use common::client::{backup_statement, config, copy_statement, restore_statement, stripe};
use common::processes::Outcome;
use vdi_client::media::{FileMedia, Media, MediaError};
use vdi_client::{CommandCode, CompletionCode, VdConfig};
use vdi_server_sim::vds::ServerVirtualDeviceSet;

use self::rows::ROWS;

/// A bench with a database `sales`, and an error log.
struct Trial(Bench);

impl Trial {
    fn new() -> Trial {
        let bench = Bench::new();
        bench.database("sales", 700_000);
        Trial(bench)
    }

    fn log(&self) -> PathBuf {
        self.0.runtime().parent().unwrap().join("errorlog")
    }

    fn run(&self, statement: &str) -> Outcome {
        self.run_with(statement, &[])
    }

    fn run_with(&self, statement: &str, arguments: &[&str]) -> Outcome {
        let statement = self.0.sql_with(statement, |command| {
            command.arg("--log").arg(self.log()).args(arguments);
        });
        statement.outcome()
    }

    /// Runs a statement for a client whose devices behaviour themselves so.
    fn serve(&self, statement: &str, devices: u32, behaviour: Behaviour, restore: bool) -> Outcome {
        let out = self.0.out();
        let mut client = self.0.serve("nightly", &config(devices), 7, move |index| {
            (behaviour, MediaKind::File.media(&stripe(&out, index), restore))
        });
        let outcome = self.run(statement);
        client.result().unwrap();
        outcome
    }

    /// Runs a backup for a client that answers some commands with an error.
    fn scripted(&self, options: &str, answer: fn(CommandCode) -> Option<CompletionCode>) -> Outcome {
        let out = self.0.out();
        let agent = self.0.agent("nightly", &config(1), move |index| {
            Ok(Scripted { media: FileMedia::create(stripe(&out, index))?, answer })
        });
        let outcome = self.run(&backup_statement("sales", "nightly", 1, options));
        assert_eq!(agent.result().is_ok(), outcome.status.success());
        outcome
    }

    /// Backs up to so many devices, spoils the files, and restores from so many.
    fn restored(&self, from: u32, to: u32, options: &str, spoil: impl FnOnce(&Trial)) -> Outcome {
        self.0.back_up("sales", from, "");
        spoil(self);
        let agent = self.0.reading_agent("nightly", &config(to));
        let outcome = self.run(&copy_statement("sales", "copy", "nightly", to, options));
        assert!(agent.result().is_err());
        outcome
    }

    /// Backs up, and restores under this name with these options and no others.
    fn restored_as(&self, database: &str, options: &str) -> Outcome {
        self.0.back_up("sales", 1, "");
        let agent = self.0.reading_agent("nightly", &config(1));
        let outcome = self.run(&restore_statement(database, "nightly", 1, options));
        assert!(agent.result().is_err());
        outcome
    }

    fn truncate(&self, index: u32, keep: impl FnOnce(u64) -> u64) {
        let file = fs::OpenOptions::new().write(true).open(stripe(&self.0.out(), index)).unwrap();
        file.set_len(keep(file.metadata().unwrap().len())).unwrap();
    }

    fn copy_stripe(&self, from: u32, to: u32) {
        fs::copy(stripe(&self.0.out(), from), stripe(&self.0.out(), to)).unwrap();
    }
}

/// A file whose device answers some commands with an error, and takes a snapshot at once.
struct Scripted {
    media: FileMedia,
    answer: fn(CommandCode) -> Option<CompletionCode>,
}

impl Scripted {
    fn ask(&self, code: CommandCode) -> Result<(), MediaError> {
        match (self.answer)(code) {
            Some(answer) => Err(MediaError::new(answer, "the test says so")),
            None => Ok(()),
        }
    }
}

impl Media for Scripted {
    fn begin(&mut self, config: &VdConfig) -> Result<(), MediaError> {
        self.media.begin(config)
    }

    fn write(&mut self, position: u64, data: &[u8]) -> Result<(), MediaError> {
        self.ask(CommandCode::WRITE)?;
        self.media.write(position, data)
    }

    fn read(&mut self, position: u64, buffer: &mut [u8]) -> Result<usize, MediaError> {
        self.media.read(position, buffer)
    }

    fn flush(&mut self) -> Result<(), MediaError> {
        self.ask(CommandCode::FLUSH)?;
        self.media.flush()
    }

    fn complete(&mut self) -> Result<(), MediaError> {
        self.ask(CommandCode::COMPLETE)?;
        self.media.complete()
    }

    fn clear_error(&mut self) -> Result<(), MediaError> {
        self.ask(CommandCode::CLEAR_ERROR)
    }

    fn other(&mut self, code: CommandCode, _: i32, _: u64) -> Result<u64, MediaError> {
        self.ask(code)?;
        Ok(0)
    }

    fn close(&mut self) -> Result<(), MediaError> {
        self.media.close()
    }
}

/// A situation, and what a statement says in it.
struct Row {
    situation: &'static str,
    run: fn(&Trial) -> Outcome,
    /// Numbers and states of the errors that the client gets, in order.
    client: &'static [(u32, u8)],
    /// What the client's messages contain.
    says: &'static [&'static str],
    /// Numbers in the error log, in order.
    log: &'static [u32],
    /// What the log contains.
    logs: &'static [&'static str],
}

const ABORTED: &str =
    "995(The I/O operation has been aborted because of either a thread exit or an application request.)";

fn backup() -> String {
    backup_statement("sales", "nightly", 1, "")
}

fn restore(options: &str) -> String {
    copy_statement("sales", "copy", "nightly", 1, options)
}

/// Number and state of each error that a program printed.
fn errors(text: &str) -> Vec<(u32, u8)> {
    let header = |line: &str| {
        let (number, rest) = line.strip_prefix("Msg ")?.split_once(", Level ")?;
        let (_, rest) = rest.split_once(", State ")?;
        Some((number.parse().ok()?, rest.split_once(',')?.0.parse().ok()?))
    };
    text.lines().filter_map(header).collect()
}

/// The numbers in an error log.
fn logged(text: &str) -> Vec<u32> {
    let number = |line: &str| line.split_once(" Error: ")?.1.split_once(',')?.0.parse().ok();
    text.lines().filter_map(number).collect()
}

/// What is wrong with the messages of a situation.
fn wrong(row: &Row, text: &str, log: &str) -> Vec<String> {
    let mut wrong = Vec::new();
    let mut check = |holds: bool, what: String| wrong.extend((!holds).then_some(what));
    check(errors(text) == row.client, format!("the client's errors are not {:?}", row.client));
    check(logged(log) == row.log, format!("the log's errors are not {:?}", row.log));
    for (part, whole) in row.says.iter().map(|part| (part, text)).chain(row.logs.iter().map(|part| (part, log))) {
        check(whole.contains(part), format!("{part:?} is missing"));
    }
    for sign in ["Some(", "None", "Details", "Error(", "Error {", "0ns", "VdsError"] {
        check(!text.contains(sign) && !log.contains(sign), format!("{sign:?} is for programmers"));
    }
    for line in text.lines() {
        let parts: Vec<_> = line.split(": ").collect();
        check(parts.windows(2).all(|pair| pair[0] != pair[1]), format!("said twice: {line}"));
    }
    // Not the bare numbers: the number of a process may be one of these.
    check(!text.contains("Msg 18210,") && !text.contains("Msg 3041,"), "the client has the log's errors".to_owned());
    let explained = text.lines().filter(|line| !line.starts_with("Msg ")).count();
    // A message of the simulator's own is the evidence.
    let is_own = row.client.first().is_some_and(|(number, _)| *number == 50000);
    check(row.client.len() < 2 || is_own || explained > row.client.len(), "there is no evidence".to_owned());
    wrong
}

#[test]
fn every_situation_has_sql_server_s_messages() {
    let mut failures = String::new();
    for row in ROWS {
        let trial = Trial::new();
        let Outcome { status, text } = (row.run)(&trial);
        let log = fs::read_to_string(trial.log()).unwrap();
        let mut wrong = wrong(row, &text, &log);
        wrong.extend((status.code() != Some(1)).then(|| format!("it ended with {status}")));
        if !wrong.is_empty() {
            failures += &format!("{}: {wrong:#?}\n{text}{log}\n", row.situation);
        }
    }
    assert!(failures.is_empty(), "{failures}");
}

/// `sqlcmd` prints what `vdi-sim sql` prints.
#[test]
fn both_programs_say_the_same() {
    let trial = Trial::new();
    let programs = tempfile::tempdir().unwrap();
    let sqlcmd = programs.path().join("sqlcmd");
    symlink(env!("CARGO_BIN_EXE_vdi-sim"), &sqlcmd).unwrap();
    let (bench, log) = (&trial.0, trial.log());
    for statement in [
        backup(),
        restore("PARTIAL"),
        backup_statement("Sale", "nightly", 1, "COMPRESSION"),
        backup_statement("sales", "nightly", 65, ""),
        restore_statement("master", "nightly", 1, ""),
        "BACKUP DATABASE sales TOO x".to_owned(),
        "BACKUP DATABASE sales TO VIRTUAL_DEVICE='x' WITH STATS = 0".to_owned(),
        "BACKUP DATABASE sales TO VIRTUAL_DEVICE='x".to_owned(),
    ] {
        let said = trial.run(&statement).text;
        let mut command = Command::new(&sqlcmd);
        command.args(["-b", "-Q", &statement]).env("VDI_SIM_DATA", bench.data()).env("VDI_SIM_LOG", &log);
        for variable in ["SQLCMDSERVER", "SQLCMDDBNAME"] {
            command.env_remove(variable);
        }
        let outcome = bench.run(command).outcome();
        assert_eq!((outcome.status.code(), outcome.text), (Some(1), said), "{statement}");
    }
    // Twice each: the log goes on.
    assert_eq!(logged(&fs::read_to_string(&log).unwrap()), [18210, 3041, 18210, 3041, 3041, 3041]);
}

#[test]
fn options_that_ask_for_nothing_are_taken() {
    let trial = Trial::new();
    let bench = &trial.0;
    let options = "COMPRESSION (ALGORITHM = ZSTD, LEVEL = HIGH), EXPIREDATE = '2030-01-01', RETAINDAYS = 7, MEDIANAME = 'm', NAME = 'n', \
                   DESCRIPTION = 'd', MEDIADESCRIPTION = 'md', FORMAT, INIT, SKIP, NOREWIND, NOUNLOAD, STOP_ON_ERROR, CHECKSUM, \
                   COPY_ONLY, RESTART, STATS = 50";
    let outcome = bench.back_up("sales", 1, options);
    let remark = "COMPRESSION: the stream stays uncompressed; ALGORITHM and LEVEL have no effect\n";
    assert!(outcome.text.starts_with(remark), "{outcome:#?}");
    let options = "FILE = 1, MEDIANAME = 'm', REPLACE, RECOVERY, RESTART, KEEP_REPLICATION, KEEP_CDC, NEW_BROKER, NOUNLOAD, REWIND, \
                   CHECKSUM, STOP_ON_ERROR, STATS";
    let outcome = bench.copy("sales", "copy", 1, options);
    assert!(!outcome.text.contains("COMPRESSION"), "{outcome:#?}");
    bench.assert_identical("sales", "copy");
    let outcome = bench.back_up("sales", 1, "NO_COMPRESSION, NOFORMAT, NOINIT, NOSKIP, REWIND, UNLOAD, NO_CHECKSUM");
    assert!(outcome.text.starts_with("Processed "), "{outcome:#?}");
}
