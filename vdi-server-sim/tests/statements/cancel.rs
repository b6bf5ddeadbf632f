//! Statements that their users cancel: by [`Cancel`] from another thread, by Ctrl-C and SIGTERM. In every state a statement either fails
//! on both sides, with 3204 and 3013, or it has decided and succeeds on both.

use crate::common;

use std::fs;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

use common::behaviour::{Behaviour, HookedMedia, MediaHook, MediaKind};
use common::bench::Bench;
use common::client::{backup_statement, config, copy_statement, stripe};
use common::processes::{Guarded, Outcome, RoleContext, Statement, run_role};
use common::tasks::{Task, task};
use common::{TEST_TIMEOUT, eventually};
use rustix::process::Signal;
use vdi_client::media::MediaError;
use vdi_client::{ClientVirtualDeviceSet, CommandCode, Error, Features, VdConfig, VdError};
use vdi_server_sim::engine::{Cancel, Engine, Failure};
use vdi_server_sim::messages::Message;
use vdi_server_sim::session::{Answer, BatchError};

const SET: &str = "nightly";

#[test]
fn child_entry() {
    run_role(&[("waiting client", wait_for_configuration)]);
}

/// A bench with a database that takes some Writes.
fn bench() -> Bench {
    let bench = Bench::new();
    bench.database("sales", 400_000);
    bench
}

fn backup() -> String {
    backup_statement("sales", SET, 1, "")
}

/// What a statement came to in this process.
struct Ran {
    outcome: Result<(), BatchError>,
    messages: Vec<Message>,
}

impl Ran {
    #[track_caller]
    fn assert_cancelled(&self) {
        assert!(matches!(self.outcome, Err(BatchError::Failed(Failure::Cancelled))), "{:?}", self.outcome);
        let numbers: Vec<_> = self.messages.iter().map(|message| message.number).collect();
        assert_eq!((numbers.first(), numbers.last()), (Some(&3204), Some(&3013)), "{:?}", self.messages);
        assert!(self.messages.iter().all(|message| ![3014, 18210].contains(&message.number)), "{:?}", self.messages);
        assert_eq!(self.messages[0].text, "The backup or restore was aborted.");
    }

    #[track_caller]
    fn assert_success(&self) {
        assert!(self.outcome.is_ok(), "{:?}", self.outcome);
        assert_eq!(self.messages.last().unwrap().number, 3014);
    }
}

fn engine(bench: &Bench) -> Engine {
    Engine::new(bench.data(), bench.options()).unwrap()
}

fn execute(engine: &Engine, statement: &str, cancel: &Cancel) -> Ran {
    let mut answer = Answer::default();
    let outcome = engine.session().batch(statement, &[], &mut answer, cancel);
    Ran { outcome, messages: answer.messages }
}

fn assert_aborted(error: &Error) {
    assert_eq!(error.code(), VdError::Abort, "{error}");
    assert!(error.to_string().contains("the statement was cancelled by its user"), "{error}");
}

#[test]
fn a_cancel_before_the_statement_leaves_the_client_alone() {
    let bench = bench();
    let agent = bench.writing_agent(SET, &config(1));
    let (engine, cancel) = (engine(&bench), Cancel::new());
    cancel.cancel();
    execute(&engine, &backup(), &cancel).assert_cancelled();
    execute(&engine, &backup(), &Cancel::new()).assert_success();
    agent.result().unwrap();
}

#[test]
fn a_cancel_ends_the_wait_for_the_set() {
    let bench = bench();
    let (engine, cancel) = (engine(&bench).with_set_timeout(10 * TEST_TIMEOUT), Cancel::new());
    let statement = task("the statement", {
        let cancel = cancel.clone();
        move || execute(&engine, &backup(), &cancel)
    });
    statement.wait_until_asleep();
    cancel.cancel();
    statement.result().assert_cancelled();
}

/// A client that holds a command and does not answer; it says when it has it.
fn holding(bench: &Bench) -> (Receiver<()>, Task<Error>) {
    let set = bench.create(SET, &VdConfig { server_time_out: 0, ..config(1) });
    let (tell, has_it) = channel();
    let client = task("a client that does not answer", move || {
        set.get_configuration(TEST_TIMEOUT).unwrap();
        let mut device = set.open_device(SET).unwrap();
        let mut held = Vec::new();
        loop {
            match device.get_command(TEST_TIMEOUT) {
                Ok(command) => held.push(command),
                Err(error) => return error,
            }
            let _ = tell.send(());
        }
    });
    (has_it, client)
}

#[test]
fn a_cancel_ends_the_wait_for_a_client_that_does_not_answer() {
    let bench = bench();
    let (has_it, client) = holding(&bench);
    let cancel = Cancel::new();
    let statement = task("the statement", {
        let (engine, cancel) = (engine(&bench), cancel.clone());
        move || execute(&engine, &backup(), &cancel)
    });
    has_it.recv_timeout(TEST_TIMEOUT).unwrap();
    cancel.cancel();
    statement.result().assert_cancelled();
    assert_aborted(&client.result());
}

/// Cancels when the client has got its N-th command, or when the server closes its first device.
struct Cancels {
    cancel: Cancel,
    at: u64,
    count: Arc<AtomicU64>,
    closing: bool,
}

impl MediaHook for Cancels {
    fn before(&mut self, _: CommandCode, _: usize) -> Result<(), MediaError> {
        if self.count.fetch_add(1, Ordering::Relaxed) + 1 == self.at {
            self.cancel.cancel();
        }
        Ok(())
    }

    fn closing(&mut self) {
        if self.closing {
            self.cancel.cancel();
        }
    }
}

/// Runs a statement whose client cancels at the `at`-th command of two devices, 0 for none; whether it got there.
fn cancelled_at(
    bench: &Bench,
    restore: bool,
    asked: &VdConfig,
    at: u64,
    closing: bool,
) -> (Ran, bool, Result<(), Error>) {
    let (cancel, count) = (Cancel::new(), Arc::new(AtomicU64::new(0)));
    let agent = bench.agent(SET, asked, {
        let (cancel, count, out) = (cancel.clone(), Arc::clone(&count), bench.out());
        move |index| {
            let hook = Cancels { cancel: cancel.clone(), at, count: Arc::clone(&count), closing };
            Ok(HookedMedia { media: MediaKind::File.media(&stripe(&out, index), restore), hook })
        }
    });
    let statement = match restore {
        false => backup_statement("sales", SET, 2, ""),
        true => copy_statement("sales", "copy", SET, 2, "REPLACE"),
    };
    let ran = execute(&engine(bench), &statement, &cancel);
    (ran, count.load(Ordering::Relaxed) >= at, agent.result().map(drop))
}

fn empty(folder: &Path) {
    for entry in fs::read_dir(folder).unwrap() {
        fs::remove_file(entry.unwrap().path()).unwrap();
    }
}

/// Of a backup and a restore: whichever command the client has when its statement is cancelled, the statement fails on both sides, and
/// a restore has changed nothing. What is cancelled once the first device is closed succeeds on both.
#[test]
fn a_cancel_at_any_command_fails_both_sides_and_a_later_one_neither() {
    let bench = bench();
    for features in [Features::REQUEST_COMPLETE, Features::NONE] {
        let asked = VdConfig { features, ..config(2) };
        for restore in [false, true] {
            if restore {
                bench.old_database("copy");
            }
            let before = (restore.then(|| bench.images()), bench.databases().contents());
            let mut at = 1;
            loop {
                let (ran, reached, client) = cancelled_at(&bench, restore, &asked, at, false);
                if !reached {
                    ran.assert_success();
                    client.unwrap();
                    break;
                }
                ran.assert_cancelled();
                assert_aborted(&client.unwrap_err());
                let now = (restore.then(|| bench.images()), bench.databases().contents());
                assert!(now == before, "cancelled at command {at}");
                if !restore {
                    if features == Features::NONE {
                        bench.assert_output(&[]);
                    }
                    empty(&bench.out());
                }
                at += 1;
            }
            assert!(at > 4, "a few commands on each device");
            let (ran, _, client) = cancelled_at(&bench, restore, &asked, u64::MAX, true);
            ran.assert_success();
            client.unwrap();
        }
        bench.assert_identical("sales", "copy");
        empty(&bench.out());
    }
}

/// Starts a statement with a transcript, and waits until it contains this.
fn sql_until(bench: &Bench, arguments: &[&str], text: &str) -> Statement {
    let transcript = bench.out().join("transcript");
    let statement = bench.sql_with(&backup(), |command| {
        command.arg("--transcript").arg(&transcript).args(arguments);
    });
    eventually(text, || match fs::read_to_string(&transcript).unwrap_or_default() {
        told if told.contains(text) => Ok(()),
        told => Err(told),
    });
    statement
}

#[track_caller]
fn assert_cancelled(outcome: &Outcome) {
    outcome
        .assert_failure(&["Msg 3204, Level 16, State 1, Server vdi-sim, Line 1\nThe backup or restore was aborted.\n"]);
    assert!(!outcome.text.contains("Msg 18210"), "{outcome:#?}");
}

#[test]
fn a_signal_ends_the_configuration() {
    let bench = bench();
    let set = bench.create(SET, &config(1));
    let client = task("the client", move || set.get_configuration(TEST_TIMEOUT).unwrap_err());
    let statement = sql_until(&bench, &["--fault", "slow-configuration=600000"], "set opened");
    statement.process.signal(Signal::INT);
    assert_cancelled(&statement.outcome());
    assert_aborted(&client.result());
}

fn wait_for_configuration(stage: &RoleContext) {
    let set = ClientVirtualDeviceSet::new();
    set.create(SET, &config(1)).unwrap();
    stage.say("created");
    stage.say(&format!("{:?}", set.get_configuration(TEST_TIMEOUT).unwrap_err().code()));
    stage.stay();
}

/// The client's process takes no part of the configuration any more.
#[test]
fn a_signal_ends_the_configuration_of_a_client_that_is_stopped() {
    let bench = bench();
    let client = bench.part("waiting client", &[]);
    client.expect("created");
    // Time enough to stop the client before its part of the configuration comes.
    let statement = sql_until(&bench, &["--fault", "slow-configuration=500"], "set opened");
    client.process.signal(Signal::STOP);
    eventually("the configuration begins", || {
        let told = fs::read_to_string(bench.out().join("transcript")).unwrap();
        if told.contains("configuration begun") { Ok(()) } else { Err(told) }
    });
    statement.process.signal(Signal::TERM);
    assert_cancelled(&statement.outcome());
    client.process.signal(Signal::CONT);
    client.expect("Abort");
    client.end();
}

#[test]
fn ctrl_c_and_sigterm_cancel_the_statement_of_vdi_sim_sql() {
    let bench = bench();
    for signal in [Signal::INT, Signal::TERM] {
        let (has_it, client) = holding(&bench);
        let statement = bench.sql(&backup());
        has_it.recv_timeout(TEST_TIMEOUT).unwrap();
        statement.process.signal(signal);
        assert_cancelled(&statement.outcome());
        assert_aborted(&client.result());
        bench.assert_nothing_left();
    }
    bench.assert_name_is_free(SET);
}

/// The output is full, so the process cannot say that it was cancelled.
#[test]
fn the_second_signal_ends_the_process_at_once() {
    let bench = bench();
    for (first, second) in [(Signal::INT, Signal::INT), (Signal::TERM, Signal::INT), (Signal::INT, Signal::TERM)] {
        let (has_it, client) = holding(&bench);
        let (reader, writer) = std::io::pipe().unwrap();
        super::sqlcmd::fill(&writer);
        let mut command = Command::new(env!("CARGO_BIN_EXE_vdi-sim"));
        command.arg("sql").arg("--data").arg(bench.data()).args(["-Q", &backup()]);
        command.env("VDI_RUNTIME_DIR", bench.runtime()).stdout(writer);
        let mut process = Guarded::start(&mut command);
        drop(command);
        has_it.recv_timeout(TEST_TIMEOUT).unwrap();
        process.signal(first);
        assert_aborted(&client.result());
        process.signal(second);
        let ended = std::os::unix::process::ExitStatusExt::signal(&process.wait());
        assert_eq!(ended, Some(second.as_raw()));
        drop(reader);
    }
}

#[test]
fn a_statement_waits_for_its_set() {
    let bench = bench();
    let statement = bench.sql_with(&backup(), |command| _ = command.args(["--wait", "600"]));
    common::tasks::wait_until_asleep(statement.process.id(), statement.process.id() as i32);
    let agent = bench.writing_agent(SET, &config(1));
    statement.outcome().assert_success();
    agent.result().unwrap();
    // What the statement waited for is told, as without waiting.
    let outcome = bench.sql_with(&backup(), |command| _ = command.args(["--wait", "1"])).outcome();
    outcome.assert_failure(&[" s for the set to be created: no virtual device set \"nightly\""]);
    let statement = sql_until(&bench, &["--wait", "600"], "# BACKUP");
    statement.process.signal(Signal::INT);
    assert_cancelled(&statement.outcome());
}

/// A set that is there and refuses the server is not waited for.
#[test]
fn only_a_set_that_is_missing_is_waited_for() {
    let bench = bench();
    let (has_it, client) = holding(&bench);
    let first = bench.sql(&backup());
    has_it.recv_timeout(TEST_TIMEOUT).unwrap();
    bench
        .sql_with(&backup(), |command| _ = command.args(["--wait", "600"]))
        .outcome()
        .assert_failure(&["refused this process"]);
    first.process.signal(Signal::INT);
    assert_cancelled(&first.outcome());
    assert_aborted(&client.result());
}

/// Whatever a statement does at the moment, also at its very end.
#[test]
fn a_cancel_at_any_moment_leaves_both_sides_of_one_mind() {
    let bench = bench();
    let mut random = fastrand::Rng::with_seed(1);
    for round in 0..60 {
        let mut client = bench.serve(SET, &config(2), round, {
            let out = bench.out();
            move |index| (Behaviour::Pump, MediaKind::File.media(&stripe(&out, index), false))
        });
        let (engine, cancel) = (engine(&bench), Cancel::new());
        let cancelling = task("the user", {
            let (cancel, wait) = (cancel.clone(), random.u64(0..30_000));
            move || {
                // When, is what is tried out: nothing waits for the time to pass.
                std::thread::sleep(Duration::from_micros(wait));
                cancel.cancel();
            }
        });
        let ran = execute(&engine, &backup_statement("sales", SET, 2, ""), &cancel);
        if ran.outcome.is_ok() {
            ran.assert_success();
            assert!(client.result().unwrap().iter().all(Result::is_ok));
        } else {
            ran.assert_cancelled();
            // Where the set was not opened, nobody has told the client.
            client.cancel();
            assert!(client.result().map_or(true, |devices| devices.iter().all(Result::is_err)));
        }
        cancelling.result();
    }
}
