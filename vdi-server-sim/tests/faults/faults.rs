//! Each fault of the server, as its client and the server's user see it.

use crate::common;

use std::os::unix::process::ExitStatusExt;
use std::process::Command as Program;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use common::TEST_TIMEOUT;
use common::behaviour::{Behaviour, HookedMedia, MediaHook, MediaKind};
use common::bench::Bench;
use common::client::{backup_statement, config, copy_statement, execute, stripe};
use common::processes::{Outcome, Statement};
use common::tasks::{Task, task};
use vdi_client::media::MediaError;
use vdi_client::pump::Report;
use vdi_client::{CommandCode, CompletionCode, Error, Features, INFINITE, VdConfig, VdError};
use vdi_proto::device::QUEUE_DEPTH;
use vdi_server_sim::engine::{Engine, Failure};
use vdi_server_sim::faults::{Fault, Faults, ServerCall, TABLE};

const SET: &str = "nightly";

/// The commands that a device was sent, and the bytes of transfers.
type Log = Arc<Mutex<Vec<(CommandCode, usize)>>>;

/// Keeps the log, and fails one kind of command.
struct Record {
    log: Log,
    failing: Option<(CommandCode, CompletionCode)>,
}

impl MediaHook for Record {
    fn before(&mut self, code: CommandCode, bytes: usize) -> Result<(), MediaError> {
        self.log.lock().unwrap().push((code, bytes));
        match self.failing {
            Some((failing, with)) if failing == code => Err(MediaError::new(with, "as the test wants it")),
            _ => Ok(()),
        }
    }
}

/// What a statement with one device came to.
struct Ran {
    outcome: Outcome,
    client: Result<Vec<Report>, Error>,
    log: Vec<(CommandCode, usize)>,
    took: Duration,
}

impl Ran {
    #[track_caller]
    fn assert_success(&self) {
        self.outcome.assert_success();
        assert!(self.client.is_ok(), "{:?}", self.client);
    }

    /// Both sides failed: the server for these reasons, the client with VD_E_ABORT for this one.
    #[track_caller]
    fn assert_failure(&self, server: &[&str], client: &str) {
        self.outcome.assert_failure(server);
        self.assert_aborted(client);
    }

    #[track_caller]
    fn assert_aborted(&self, reason: &str) {
        let error = self.client.as_ref().unwrap_err();
        assert_eq!(error.code(), VdError::Abort, "{error}");
        assert!(error.to_string().contains(reason), "{error}");
    }

    fn count(&self, code: CommandCode) -> usize {
        self.log.iter().filter(|(logged, _)| *logged == code).count()
    }

    fn sizes(&self, code: CommandCode) -> Vec<usize> {
        self.log.iter().filter(|(logged, _)| *logged == code).map(|(_, bytes)| *bytes).collect()
    }
}

/// A bench with a database that takes some Writes.
fn bench() -> Bench {
    let bench = Bench::new();
    bench.database("sales", 400_000);
    bench
}

fn start(bench: &Bench, statement: &str, faults: &[&str], seed: u64) -> Statement {
    bench.sql_with(statement, |command| {
        command.args(["--seed", &seed.to_string()]);
        faults.iter().for_each(|fault| _ = command.args(["--fault", fault]));
    })
}

fn run(bench: &Bench, restore: bool, faults: &[&str], failing: Option<(CommandCode, CompletionCode)>) -> Ran {
    run_with(bench, restore, faults, failing, &config(1), 7)
}

fn run_with(
    bench: &Bench,
    restore: bool,
    faults: &[&str],
    failing: Option<(CommandCode, CompletionCode)>,
    config: &VdConfig,
    seed: u64,
) -> Ran {
    let (log, out) = (Log::default(), bench.out());
    let agent = bench.agent(SET, config, {
        let log = Arc::clone(&log);
        move |index| {
            let hook = Record { log: Arc::clone(&log), failing };
            Ok(HookedMedia { media: MediaKind::File.media(&stripe(&out, index), restore), hook })
        }
    });
    let statement = match restore {
        false => backup_statement("sales", SET, 1, ""),
        true => copy_statement("sales", "copy", SET, 1, "REPLACE"),
    };
    let begun = Instant::now();
    let outcome = start(bench, &statement, faults, seed).outcome();
    let (took, client) = (begun.elapsed(), agent.result());
    let log = log.lock().unwrap().clone();
    Ran { outcome, client, log, took }
}

fn back_up(bench: &Bench, faults: &[&str]) -> Ran {
    run(bench, false, faults, None)
}

/// Restores without faults, and compares: what a backup with faults left is a good one.
fn assert_good(bench: &Bench) {
    run(bench, true, &[], None).assert_success();
    bench.assert_identical("sales", "copy");
}

#[test]
fn delay_waits_before_each_command() {
    let bench = bench();
    let ran = back_up(&bench, &["delay=40"]);
    ran.assert_success();
    // The seed makes it far more than one wait.
    assert!(ran.took > Duration::from_millis(40), "{:?}", ran.took);
    assert_good(&bench);
}

#[test]
fn delay_at_waits_before_one_command() {
    let bench = bench();
    let set = bench.create(SET, &config(1));
    let client = task("the client", move || {
        set.get_configuration(TEST_TIMEOUT).unwrap();
        let mut device = set.open_device(SET).unwrap();
        let (mut gaps, mut held) = (Vec::new(), Vec::new());
        for _ in 0..2 {
            let begun = Instant::now();
            held.push(device.get_command(TEST_TIMEOUT).unwrap());
            gaps.push(begun.elapsed());
        }
        set.signal_abort().unwrap();
        gaps
    });
    start(&bench, &backup_statement("sales", SET, 1, ""), &["delay-at=2:1000"], 0).outcome().assert_failure(&[]);
    let gaps = client.result();
    // The first command may be seen later than it was sent, so less than all of it is right too.
    assert!(gaps[1] > Duration::from_millis(300), "{gaps:?}");
}

#[test]
fn abort_at_aborts_the_set_instead_of_a_command() {
    let bench = bench();
    for at in [1, 4] {
        let ran = back_up(&bench, &[&format!("abort-at={at}")]);
        ran.assert_failure(&["Msg 3202,", "995(", "the server called SignalAbort"], "the server called SignalAbort");
        assert!(ran.log.len() < at, "{:?}", ran.log);
        bench.assert_output(&[]);
    }
}

#[test]
fn die_at_kills_the_server() {
    let bench = bench();
    let ran = back_up(&bench, &["die-at=4"]);
    assert_eq!(ran.outcome.status.signal(), Some(9), "{:?}", ran.outcome);
    ran.assert_aborted("the server died");
    assert!(ran.log.len() < 4, "{:?}", ran.log);
    bench.assert_output(&[]);
    bench.assert_nothing_left();
    bench.assert_name_is_free(SET);
}

#[test]
fn read_error_fails_one_read_of_a_database_file() {
    let bench = bench();
    let ran = back_up(&bench, &["read-error=2"]);
    ran.assert_failure(&["Input/output error", ".mdf"], "the server gave up: could not read");
    bench.assert_output(&[]);
}

#[test]
fn short_reads_are_read_on() {
    let bench = bench();
    back_up(&bench, &["short-reads"]).assert_success();
    assert_good(&bench);
    // There are more reads than before.
    let beyond = (2..1000).find(|read| back_up(&bench, &[&format!("read-error={read}")]).outcome.status.success());
    let beyond = format!("read-error={}", beyond.unwrap());
    back_up(&bench, &["short-reads", &beyond]).outcome.assert_failure(&["Input/output error"]);
}

#[test]
fn queue_full_sends_flushes_until_the_queue_is_full() {
    let bench = bench();
    // The other fault makes commands slow to come, but not these.
    for faults in [&["queue-full"][..], &["queue-full", "delay=3"]] {
        let ran = back_up(&bench, faults);
        ran.assert_success();
        let flushes = ran.count(CommandCode::FLUSH);
        assert!(flushes > QUEUE_DEPTH as usize, "{flushes} Flushes");
        assert_good(&bench);
    }
}

/// The threads of such a server waited for each other: one for the burst to end before it closed the set, and the one of the
/// burst for the set to be closed.
#[test]
fn a_client_that_leaves_in_a_burst_ends_the_backup() {
    let bench = bench();
    for at in 4..24 {
        let mut client = bench.serve(SET, &config(2), 0, {
            let out = bench.out();
            move |index| {
                let behaviour = if index == 0 { Behaviour::Pump } else { Behaviour::Drops { at } };
                (behaviour, MediaKind::File.media(&stripe(&out, index), false))
            }
        });
        let statement = backup_statement("sales", SET, 2, "");
        let outcome = start(&bench, &statement, &["queue-full", "delay=2"], at).outcome();
        outcome.assert_failure(&["the primary client dropped a device"]);
        assert!(client.result().unwrap().iter().all(Result::is_err));
        bench.assert_output(&[]);
    }
}

/// The server's own ERROR_NO_SYSTEM_RESOURCES says that the queue is full; the client's says that it could not flush.
#[test]
fn a_flush_that_fails_in_a_burst_fails_the_backup() {
    let bench = bench();
    for code in [CompletionCode::IO_DEVICE, CompletionCode::NO_SYSTEM_RESOURCES] {
        let ran = run(&bench, false, &["queue-full"], Some((CommandCode::FLUSH, code)));
        ran.outcome.assert_failure(&["Msg 3271,", &format!("flush on device \"nightly\" failed: {code}")]);
        assert!(ran.client.is_err());
        bench.assert_output(&[]);
    }
}

#[test]
fn small_transfers_are_blocks_of_seeded_number() {
    let bench = bench();
    let usual = back_up(&bench, &[]);
    let ran = back_up(&bench, &["small-transfers"]);
    ran.assert_success();
    let writes = ran.sizes(CommandCode::WRITE);
    assert!(writes.len() > usual.sizes(CommandCode::WRITE).len(), "{writes:?}");
    assert!(writes.iter().all(|bytes| *bytes > 0 && bytes.is_multiple_of(512)), "{writes:?}");
    assert_good(&bench);
    let sorted = |faults: &[&str], seed| {
        let ran = run_with(&bench, false, faults, None, &config(1), seed);
        let mut sizes = ran.sizes(CommandCode::WRITE);
        sizes.sort_unstable();
        sizes
    };
    // Several readers fill the buffers, so the order may change, and nothing else.
    assert_eq!(sorted(&["small-transfers"], 3), sorted(&["small-transfers"], 3));
    assert_ne!(sorted(&["small-transfers"], 3), sorted(&["small-transfers"], 4));
}

#[test]
fn read_sizes_are_seeded() {
    let bench = bench();
    back_up(&bench, &[]).assert_success();
    let sizes = |seed| {
        let ran = run_with(&bench, true, &["read-sizes"], None, &config(1), seed);
        ran.assert_success();
        bench.assert_identical("sales", "copy");
        ran.sizes(CommandCode::READ)
    };
    let first = sizes(3);
    assert!(first.iter().all(|bytes| (512..=65536).contains(bytes) && bytes.is_multiple_of(512)), "{first:?}");
    assert_eq!(sizes(3), first);
    assert_ne!(sizes(4), first);
}

#[test]
fn flushes_come_between_the_writes_and_twice_at_the_end() {
    let bench = bench();
    let ran = back_up(&bench, &["flushes=2"]);
    ran.assert_success();
    let codes: Vec<_> = ran.log.iter().map(|(code, _)| *code).collect();
    let (w, f) = (CommandCode::WRITE, CommandCode::FLUSH);
    assert_eq!(codes[..6], [w, w, f, w, w, f]);
    assert!(codes.ends_with(&[f, f, CommandCode::COMPLETE]), "{codes:?}");
    assert_good(&bench);
}

/// A client that holds a command and does not answer.
fn holding(bench: &Bench) -> Task<Error> {
    let set = bench.create(SET, &VdConfig { server_time_out: 0, ..config(1) });
    task("a client that does not answer", move || {
        set.get_configuration(TEST_TIMEOUT).unwrap();
        let mut device = set.open_device(SET).unwrap();
        let mut held = Vec::new();
        loop {
            match device.get_command(TEST_TIMEOUT) {
                Ok(command) => held.push(command),
                Err(error) => return error,
            }
        }
    })
}

const EXPIRED: &str = "the server waited longer than serverTimeOut allows";

#[test]
fn server_timeout_ends_the_wait_for_a_client_that_does_not_answer() {
    let bench = bench();
    let client = holding(&bench);
    let outcome = start(&bench, &backup_statement("sales", SET, 1, ""), &["server-timeout=50"], 0).outcome();
    outcome.assert_failure(&["Msg 3202,", "995(", EXPIRED]);
    let error = client.result();
    assert_eq!(error.code(), VdError::Abort);
    assert!(error.to_string().contains(EXPIRED), "{error}");
}

#[test]
fn an_ignored_completion_runs_into_the_time_out() {
    let bench = bench();
    for at in [1, 5] {
        let ran = back_up(&bench, &[&format!("ignore-completion={at}"), "server-timeout=50"]);
        ran.assert_failure(&["Msg 3202,", "995(", EXPIRED], EXPIRED);
        bench.assert_output(&[]);
    }
}

/// What broke a published agent, which took VD_E_CLOSE for the success of its statement.
#[test]
fn fail_after_close_ends_the_client_in_order_and_fails_the_statement() {
    let bench = bench();
    for features in [Features::REQUEST_COMPLETE, Features::NONE] {
        let asked = VdConfig { features, ..config(1) };
        let ran = run_with(&bench, false, &["fail-after-close"], None, &asked, 7);
        ran.outcome.assert_failure(&["Msg 9002, Level 17,", "database 'sales' is full", "the fault fail-after-close"]);
        let report = ran.client.as_ref().unwrap();
        assert_eq!(report[0].commands, ran.log.len() as u64, "every command succeeded, then VD_E_CLOSE came");
        assert_eq!(ran.count(CommandCode::COMPLETE), usize::from(features == Features::REQUEST_COMPLETE));
        assert_good(&bench);
        std::fs::remove_file(stripe(&bench.out(), 0)).unwrap();
    }
    back_up(&bench, &[]).assert_success();
    bench.old_database("copy");
    let before = bench.images();
    let ran = run(&bench, true, &["fail-after-close"], None);
    ran.outcome.assert_failure(&[
        "Msg 3167, Level 16,",
        "could not start database 'copy'",
        "the fault fail-after-close",
    ]);
    assert!(ran.client.is_ok(), "{:?}", ran.client);
    assert!(bench.images() == before, "a restore that failed has changed nothing");
}

#[test]
fn slow_configuration_waits_before_each_call() {
    let bench = bench();
    let set = bench.create(SET, &config(1));
    let begun = Instant::now();
    let statement = start(&bench, &backup_statement("sales", SET, 1, ""), &["slow-configuration=150"], 0);
    set.get_configuration(TEST_TIMEOUT).unwrap();
    let configured = begun.elapsed();
    let device = set.open_device(SET).unwrap();
    let opened = begun.elapsed();
    // BeginConfiguration, RequestBuffers for large and for small buffers, EndConfiguration; then OpenDevice.
    assert!(configured >= Duration::from_millis(4 * 150), "{configured:?}");
    assert!(opened >= Duration::from_millis(5 * 150), "{opened:?}");
    drop(device);
    statement.outcome().assert_failure(&["Msg 3202,", "995("]);
}

#[test]
fn every_call_is_refused_with_every_code() {
    let bench = Bench::new();
    bench.database("sales", 20_000);
    for call in ServerCall::ALL {
        for code in VdError::ALL {
            let set = bench.create(SET, &config(1));
            let canceller = set.canceller().unwrap();
            let client = task("the client", move || {
                set.get_configuration(INFINITE)?;
                set.open_device(SET)?.get_command(INFINITE).map(drop)
            });
            let fault = Fault::Refuse { call, code }.to_string();
            let outcome = start(&bench, &backup_statement("sales", SET, 1, ""), &[&fault], 0).outcome();
            let message = match (call, code) {
                (_, VdError::Memory) => "Msg 701, Level 17, State 123,",
                (ServerCall::BeginConfiguration, VdError::NotSupported) => "Msg 3261, Level 16, State 1,",
                (ServerCall::SendCommand, _) => "Msg 3271, Level 16, State 1,",
                (ServerCall::Open, _) => "Msg 3201, Level 16, State 7,",
                _ => "Msg 3201, Level 16, State 6,",
            };
            outcome.assert_failure(&[message, call.name(), code.name(), &format!("{:#010x}", code.hresult())]);
            // The server that could not open the set has told its client nothing.
            if call == ServerCall::Open {
                canceller.cancel();
            }
            let error = client.result().unwrap_err();
            let expected = if call == ServerCall::Open { VdError::Timeout } else { VdError::Abort };
            assert_eq!(error.code(), expected, "{fault}: {error}");
        }
    }
}

#[test]
fn faults_are_switched_on_from_code_too() {
    let bench = bench();
    let agent = bench.writing_agent(SET, &config(1));
    let faults = Faults::seeded(1).with("delay=1".parse().unwrap()).with(Fault::AbortAt { command: 3 });
    let engine = Engine::new(bench.data(), bench.options()).unwrap().with_faults(faults);
    let failure = execute(&engine, &backup_statement("sales", SET, 1, "")).unwrap_err();
    assert!(matches!(failure, Failure::Aborted { .. }), "{failure}");
    assert_eq!(agent.result().unwrap_err().code(), VdError::Abort);
}

#[test]
fn the_program_lists_its_faults_and_refuses_others() {
    let program = |arguments: &[&str]| Program::new(env!("CARGO_BIN_EXE_vdi-sim")).args(arguments).output().unwrap();
    let listed = String::from_utf8(program(&["faults"]).stdout).unwrap();
    assert_eq!(listed.lines().count(), TABLE.len());
    for (line, help) in listed.lines().zip(TABLE) {
        assert!(line.starts_with(&help.to_string()) && line.ends_with(help.effect), "{line}");
    }
    let refused = program(&["sql", "--data", ".", "--fault", "explode", "-Q", "x"]);
    let told = String::from_utf8(refused.stderr).unwrap();
    assert!(!refused.status.success() && told.contains("there is no fault \"explode\"; there are delay=MS,"), "{told}");
}
