//! Sessions: what a batch answers in which order, what lasts between batches, and what ends one.

use crate::common;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process::Command;
use std::sync::Mutex;
use std::sync::mpsc::{Receiver, Sender, channel};

use common::TEST_TIMEOUT;
use common::behaviour::{HookedMedia, MediaHook, MediaKind};
use common::bench::Bench;
use common::checked::{Checked, run, run_with};
use common::client::{backup_statement, config, copy_statement, stripe};
use common::tasks::Task;
use vdi_client::media::MediaError;
use vdi_client::pump::Report;
use vdi_client::{CommandCode, Error};
use vdi_server_sim::engine::{Cancel, Engine, Failure};
use vdi_server_sim::messages::Message;
use vdi_server_sim::session::{Answer, BatchError, Done, Output, Session};
use vdi_server_sim::types::{Column, Parameter, SqlType, Value};

/// Nobody creates this set.
const NOBODY: &str = "BACKUP DATABASE sales TO VIRTUAL_DEVICE='nobody'";

fn numbers(answer: &Answer) -> Vec<u32> {
    answer.messages.iter().map(|message| message.number).collect()
}

fn bench() -> Bench {
    let bench = Bench::new();
    bench.database("sales", 49 * 8192);
    bench
}

fn engine(bench: &Bench) -> Engine {
    Engine::new(bench.data(), bench.options()).unwrap()
}

#[test]
fn answers_are_typed_and_have_their_lines() {
    let bench = bench();
    let engine = engine(&bench).with_instance("PROD");
    let mut session = engine.session();
    assert_eq!((session.database(), session.transactions()), ("master", 0));
    let sql = "USE sales\nSELECT 5 AS five SELECT N'ü' u; SELECT 0.50\nPRINT 'done'\nSELECT @@SERVERNAME";
    let (outcome, answer) = run(&mut session, sql);
    outcome.unwrap();
    assert_eq!(session.database(), "sales");
    let messages: Vec<_> = answer.messages.iter().map(|message| (message.number, message.line)).collect();
    assert_eq!(messages, [(5701, 1), (0, 3)]);
    let columns = [
        ("five", SqlType::Int, Value::Int(5)),
        ("u", SqlType::NVarChar { length: Some(1) }, Value::Text("ü".to_owned())),
        ("", SqlType::Numeric { precision: 2, scale: 2 }, Value::Numeric { unscaled: 50, scale: 2 }),
        ("", SqlType::NVarChar { length: Some(128) }, Value::Text(r"vdi-sim\PROD".to_owned())),
    ];
    assert_eq!(answer.results.len(), columns.len());
    for (result, (name, sql_type, value)) in answer.results.iter().zip(columns) {
        assert_eq!(result.columns, [Column { name: name.to_owned(), sql_type, nullable: false }]);
        assert_eq!(result.rows, [[value]]);
    }
    let rows: Vec<_> = answer.done.iter().map(|done| done.rows).collect();
    assert_eq!(rows, [None, Some(1), Some(1), Some(1), None, Some(1)]);
    // NOCOUNT lasts until it is switched off.
    run(&mut session, "SET NOCOUNT ON").0.unwrap();
    let (_, answer) = run(&mut session, "SELECT 5 SET NOCOUNT OFF SELECT 6");
    assert_eq!(answer.done.iter().map(|done| done.rows).collect::<Vec<_>>(), [None, None, Some(1)]);
}

#[test]
fn a_refused_or_failed_batch_leaves_the_session_usable() {
    let bench = bench();
    let engine = engine(&bench);
    let mut session = engine.session();
    run(&mut session, "USE sales BEGIN TRAN").0.unwrap();
    // Nothing of a batch runs that is not understood.
    let (outcome, answer) = run(&mut session, "USE master COMMIT;\nEXEC p");
    assert!(matches!(outcome, Err(BatchError::Refused(_))), "{outcome:?}");
    assert_eq!((numbers(&answer), answer.messages[0].line), (vec![50000], 2));
    assert_eq!((session.database(), session.transactions()), ("sales", 1));
    // The first failure is the batch's, and the other statements run all the same.
    let (outcome, answer) = run(&mut session, &format!("{NOBODY}\nCOMMIT COMMIT {NOBODY} PRINT 'on'"));
    let Err(BatchError::State { message }) = outcome else { panic!("{outcome:?}") };
    assert_eq!((message.number, message.line), (3021, 1));
    let failed: Vec<_> = answer.done.iter().map(|done| (done.failed, done.in_transaction)).collect();
    assert_eq!(failed, [(true, true), (false, false), (true, false), (true, false), (false, false)]);
    let errors: Vec<_> = answer.messages.iter().filter(|message| message.is_error()).map(|m| m.number).collect();
    assert_eq!(errors, [3021, 3013, 3902, 3201, 3013]);
    // USE of an unknown database ends its batch, and the database stays.
    let (outcome, answer) = run(&mut session, "USE gone PRINT 'never'");
    assert!(matches!(outcome, Err(BatchError::State { .. })), "{outcome:?}");
    assert_eq!((numbers(&answer), answer.done.len(), session.database()), (vec![911], 1, "sales"));
    let (outcome, _) = run(&mut session, NOBODY);
    assert!(matches!(outcome, Err(BatchError::Failed(Failure::Set(_)))), "{outcome:?}");
    let agent = bench.writing_agent("nightly", &config(1));
    let (outcome, answer) = run(&mut session, &backup_statement("sales", "nightly", 1, ""));
    outcome.unwrap();
    agent.result().unwrap();
    let bytes = answer.summary().unwrap().bytes;
    assert!((49 * 8192..=bench.databases().data_bytes("sales") + (1 << 20)).contains(&bytes), "{bytes}");
}

#[test]
fn parameters_are_variables_of_their_batch() {
    let bench = bench();
    let engine = engine(&bench);
    let mut session = engine.session();
    let parameters = [
        Parameter::new("@db", Value::Text("sales".to_owned())),
        Parameter::new("@device", Value::Text("nightly".to_owned())),
        Parameter::new("@stats", Value::Int(5)),
    ];
    let sql = "BACKUP DATABASE @db TO VIRTUAL_DEVICE = @Device WITH NAME = @db";
    let agent = bench.writing_agent("nightly", &config(1));
    let (outcome, answer) = run_with(&mut session, sql, &parameters, &Cancel::new());
    outcome.unwrap();
    agent.result().unwrap();
    assert_eq!(answer.messages.last().unwrap().number, 3014);
    let (outcome, answer) = run(&mut session, &format!("PRINT 'never'\n{sql}"));
    assert!(matches!(outcome, Err(BatchError::Refused(_))), "{outcome:?}");
    let undeclared = Message::new(137, 15, "Must declare the scalar variable \"@db\".").at_line(2);
    assert_eq!(answer.messages[0], Message { state: 2, ..undeclared });
    assert_eq!((answer.messages[0].severity, answer.messages[0].state), (15, 2));
    let sql = "BACKUP DATABASE @stats TO VIRTUAL_DEVICE='nightly'";
    let (_, answer) = run_with(&mut session, sql, &parameters, &Cancel::new());
    assert!(answer.messages[0].text.contains("the variable @stats is int: give it a string"), "{answer:?}");
}

/// Cancels when a message with this text comes.
struct CancelsAt<'a> {
    text: &'a str,
    cancel: Cancel,
    checked: Checked,
}

impl Output for CancelsAt<'_> {
    fn message(&mut self, message: Message) {
        if message.text.contains(self.text) {
            self.cancel.cancel();
        }
        self.checked.message(message);
    }

    fn columns(&mut self, columns: &[Column]) {
        self.checked.columns(columns);
    }

    fn row(&mut self, row: Vec<Value>) {
        self.checked.row(row);
    }

    fn done(&mut self, done: Done) {
        self.checked.done(done);
    }
}

fn cancelled_at(session: &mut Session<'_>, sql: &str, text: &str) -> Answer {
    let mut out = CancelsAt { text, cancel: Cancel::new(), checked: Checked::default() };
    let cancel = out.cancel.clone();
    let outcome = session.batch(sql, &[], &mut out, &cancel);
    assert!(matches!(outcome, Err(BatchError::Failed(Failure::Cancelled))), "{outcome:?}");
    assert!(!out.checked.open);
    out.checked.answer
}

#[test]
fn a_cancel_between_two_statements_ends_the_batch() {
    let bench = bench();
    let engine = engine(&bench);
    let mut session = engine.session();
    for next in ["PRINT 'never'", "COMMIT", NOBODY] {
        let answer = cancelled_at(&mut session, &format!("BEGIN TRAN PRINT 'stop' {next}"), "stop");
        // The statement that was under way is done, and nothing is said of those behind it.
        assert_eq!((numbers(&answer), answer.done.len()), (vec![0], 2), "{next}");
    }
    // What was done before stays, and the next batch runs.
    assert_eq!(session.transactions(), 3);
    run(&mut session, "ROLLBACK").0.unwrap();
}

#[test]
fn a_batch_that_is_cancelled_before_it_begins_does_nothing() {
    let bench = bench();
    let engine = engine(&bench);
    let mut session = engine.session();
    let cancel = Cancel::new();
    cancel.cancel();
    for (sql, expected) in [
        ("PRINT 'never'", &[][..]),
        (NOBODY, &[3204, 50000, 3013]),
        ("USE sales BACKUP DATABASE d TO VIRTUAL_DEVICE='n'", &[]),
    ] {
        let (outcome, answer) = run_with(&mut session, sql, &[], &cancel);
        assert!(matches!(outcome, Err(BatchError::Failed(Failure::Cancelled))), "{sql}: {outcome:?}");
        assert_eq!(numbers(&answer), expected, "{sql}");
    }
    assert_eq!(session.database(), "master");
}

#[test]
fn an_output_that_is_gone_may_end_the_statement() {
    let bench = bench();
    let engine = engine(&bench);
    let mut session = engine.session();
    // The remark comes before the set is opened.
    let agent = bench.writing_agent("nightly", &config(1));
    let sql = backup_statement("sales", "nightly", 1, "COMPRESSION");
    let answer = cancelled_at(&mut session, &sql, "stays uncompressed");
    assert_eq!(numbers(&answer), [50000, 3204, 50000, 3013]);
    let (outcome, _) = run(&mut session, &sql);
    outcome.unwrap();
    agent.result().unwrap();
    // Here the statement moves data.
    let cancel = Cancel::new();
    let (mut out, agent) = gone(&bench, {
        let cancel = cancel.clone();
        move || cancel.cancel()
    });
    let outcome = session.batch(PROGRESS, &[], &mut out, &cancel);
    assert!(matches!(outcome, Err(BatchError::Failed(Failure::Cancelled))), "{outcome:?}");
    agent.result().unwrap_err();
}

#[test]
fn an_output_that_panics_ends_the_statement() {
    let bench = bench();
    let engine = engine(&bench);
    let mut session = engine.session();
    let (mut out, agent) = gone(&bench, || std::panic::resume_unwind(Box::new("the output panics")));
    let batch = AssertUnwindSafe(|| drop(session.batch(PROGRESS, &[], &mut out, &Cancel::new())));
    let panic = catch_unwind(batch).unwrap_err();
    assert_eq!(panic.downcast_ref(), Some(&"the output panics"));
    agent.result().unwrap_err();
    run(&mut session, "PRINT 'on'").0.unwrap();
}

/// The statement of [`gone`].
const PROGRESS: &str = "BACKUP DATABASE sales TO VIRTUAL_DEVICE='nightly' WITH STATS = 1, BUFFERCOUNT = 2";

/// An output that does something at the first message of progress, while the client waits for that.
fn gone<F: FnMut()>(bench: &Bench, act: F) -> (Gone<F>, Task<Result<Vec<Report>, Error>>) {
    let (acts, goes_on) = channel();
    let (out, goes_on) = (bench.out(), Mutex::new(Some(goes_on)));
    let agent = bench.agent("nightly", &config(1), move |index| {
        let hook = WaitsFor { commands: 0, event: goes_on.lock().unwrap().take().unwrap() };
        Ok(HookedMedia { media: MediaKind::File.media(&stripe(&out, index), false), hook })
    });
    (Gone { act, acts }, agent)
}

struct Gone<F> {
    act: F,
    acts: Sender<()>,
}

impl<F: FnMut()> Output for Gone<F> {
    fn message(&mut self, message: Message) {
        if message.number == 3211 {
            // The client goes on when it is told, or when nobody can tell it any more.
            let _ = self.acts.send(());
            (self.act)();
        }
    }

    fn columns(&mut self, _: &[Column]) {}

    fn row(&mut self, _: Vec<Value>) {}

    fn done(&mut self, _: Done) {}
}

/// Waits for an event at its fourth command, when some data is through.
struct WaitsFor {
    commands: u32,
    event: Receiver<()>,
}

impl MediaHook for WaitsFor {
    fn before(&mut self, _: CommandCode, _: usize) -> Result<(), MediaError> {
        self.commands += 1;
        if self.commands == 4 {
            self.event.recv_timeout(TEST_TIMEOUT).expect("the statement reports its progress");
        }
        Ok(())
    }
}

/// Goes on only when the other client has a command, too.
struct Meets {
    here: Sender<()>,
    there: Receiver<()>,
    met: bool,
}

impl MediaHook for Meets {
    fn before(&mut self, _: CommandCode, _: usize) -> Result<(), MediaError> {
        if !self.met {
            let _ = self.here.send(());
            self.there.recv_timeout(TEST_TIMEOUT).expect("both statements run at the same time");
            self.met = true;
        }
        Ok(())
    }
}

#[test]
fn sessions_of_one_engine_run_at_the_same_time() {
    let bench = bench();
    bench.database("other", 49 * 8192);
    let engine = engine(&bench);
    let ((to_left, from_right), (to_right, from_left)) = (channel(), channel());
    let ends = [("sales", to_right, from_right), ("other", to_left, from_left)];
    let agents = ends.map(|(name, here, there)| {
        let (path, hook) = (bench.out().join(name), Mutex::new(Some(Meets { here, there, met: false })));
        bench.agent(name, &config(1), move |_| {
            Ok(HookedMedia { media: MediaKind::File.media(&path, false), hook: hook.lock().unwrap().take().unwrap() })
        })
    });
    std::thread::scope(|scope| {
        for name in ["sales", "other"] {
            let engine = &engine;
            scope.spawn(move || {
                let mut session = engine.session();
                let sql = format!("USE {name} {}", backup_statement(name, name, 1, ""));
                let (outcome, answer) = run(&mut session, &sql);
                outcome.unwrap();
                assert_eq!((session.database(), answer.messages.last().unwrap().number), (name, 3014));
            });
        }
    });
    for agent in agents {
        agent.result().unwrap();
    }
}

#[test]
fn vdi_sim_sql_runs_a_batch() {
    let bench = bench();
    let sql = |text: &str| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_vdi-sim"));
        command.args(["sql", "--data"]).arg(bench.data()).args(["-Q", text]).env("VDI_RUNTIME_DIR", bench.runtime());
        let output = command.output().unwrap();
        let text = String::from_utf8([output.stdout, output.stderr].concat()).unwrap();
        (output.status.code().unwrap(), text)
    };
    let answer = "Changed database context to 'sales'.\nname\n-------\nvdi-sim\n";
    assert_eq!(sql("USE sales; SELECT @@SERVERNAME AS name"), (0, answer.to_owned()));
    let (status, text) = sql(&format!("BEGIN TRAN\n{NOBODY} COMMIT PRINT 'on'"));
    assert!(status == 1 && text.starts_with("Msg 3021, Level 16, State 0, Server vdi-sim, Line 2\n"), "{text}");
    assert!(text.ends_with("\non\n"), "{text}");
    for text in ["", " ; -- nothing"] {
        assert_eq!(sql(text), (1, "vdi-sim: the text holds no statement; give one with -Q\n".to_owned()));
    }
}

#[test]
fn one_session_backs_up_and_restores() {
    let bench = bench();
    let engine = engine(&bench);
    let mut session = engine.session();
    let agent = bench.writing_agent("nightly", &config(1));
    run(&mut session, &backup_statement("sales", "nightly", 1, "")).0.unwrap();
    agent.result().unwrap();
    let agent = bench.reading_agent("nightly", &config(1));
    let sql = format!("{} USE copy", copy_statement("sales", "copy", "nightly", 1, ""));
    run(&mut session, &sql).0.unwrap();
    agent.result().unwrap();
    assert_eq!(session.database(), "copy");
    bench.assert_identical("sales", "copy");
}
