//! What both sides tell a subscriber of `tracing`, and the transcript that `vdi-sim sql` makes of it.

use crate::common;

use std::fmt::Debug;
use std::path::Path;
use std::process::Command;
use std::sync::{Mutex, Once, PoisonError};
use std::time::Duration;

use common::TEST_TIMEOUT;
use common::bench::Bench;
use common::client::{backup_statement, config, execute};
use common::processes::{Outcome, after};
use common::server::{BUFFER, Server, pair};
use tracing::field::{Field, Visit};
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::layer::{Context, Layer, SubscriberExt};
use vdi_client::media::StreamMedia;
use vdi_client::{CommandCode, Completion, VdConfig, VdError};
use vdi_server_sim::engine::Engine;

/// Everything that was told since [`listen`]. One list for the process: the sides have threads of their own, and tests with a
/// [`Bench`] take turns.
static TOLD: Mutex<Vec<Told>> = Mutex::new(Vec::new());

/// An event as a subscriber gets it.
#[derive(Debug, Clone)]
struct Told {
    side: &'static str,
    level: Level,
    fields: Vec<(&'static str, String)>,
}

impl Told {
    #[track_caller]
    fn get(&self, name: &str) -> &str {
        self.find(name).unwrap_or_else(|| panic!("no {name} in {self:?}"))
    }

    fn find(&self, name: &str) -> Option<&str> {
        self.fields.iter().find(|(field, _)| *field == name).map(|(_, value)| &**value)
    }

    fn happened(&self) -> &str {
        self.get("message")
    }
}

impl Visit for Told {
    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        self.fields.push((field.name(), format!("{value:?}")));
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.fields.push((field.name(), value.to_owned()));
    }
}

struct Collector;

impl<S: Subscriber> Layer<S> for Collector {
    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        let mut told = Told { side: event.metadata().target(), level: *event.metadata().level(), fields: Vec::new() };
        event.record(&mut told);
        TOLD.lock().unwrap_or_else(PoisonError::into_inner).push(told);
    }
}

/// A bench, from whose making on everything is collected.
fn listen() -> Bench {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| tracing::subscriber::set_global_default(tracing_subscriber::registry().with(Collector)).unwrap());
    let bench = Bench::new();
    TOLD.lock().unwrap_or_else(PoisonError::into_inner).clear();
    bench
}

const CLIENT: &str = "vdi_client";
const SERVER: &str = "vdi_server_sim";

/// What one side told.
fn told(side: &str) -> Vec<Told> {
    TOLD.lock().unwrap_or_else(PoisonError::into_inner).iter().filter(|told| told.side == side).cloned().collect()
}

/// What one side told of this.
fn told_of(side: &str, happened: &str) -> Vec<Told> {
    told(side).into_iter().filter(|told| told.happened() == happened).collect()
}

/// Events in short: level and what happened.
fn short(told: &[Told]) -> Vec<(Level, &str)> {
    told.iter().map(|told| (told.level, told.happened())).collect()
}

/// The same fields of several events.
fn fields<'t>(told: &'t [Told], names: &[&str]) -> Vec<Vec<&'t str>> {
    told.iter().map(|told| names.iter().map(|name| told.get(name)).collect()).collect()
}

#[test]
fn a_backup_tells_exactly_what_happened_on_both_sides() {
    let bench = listen();
    bench.database("small", 100_000);
    let agent = bench.writing_agent("nightly", &config(1));
    let engine = Engine::new(bench.data(), bench.options()).unwrap();
    let summary = execute(&engine, &backup_statement("small", "nightly", 1, "")).unwrap();
    agent.result().unwrap();
    let (client, server) = (told(CLIENT), told(SERVER));
    assert!(client.iter().chain(&server).all(|told| told.get("set") == "nightly"));
    let is_of_command = |told: &&Told| told.happened().starts_with("command ");

    // The client: one command after the other, between opening and closing.
    let commands = summary.commands as usize;
    assert!(commands > 3, "{commands}");
    let mut expected =
        vec![(Level::DEBUG, "set created"), (Level::DEBUG, "configuration agreed"), (Level::DEBUG, "device opened")];
    for _ in 0..commands {
        expected.extend([(Level::TRACE, "command received"), (Level::TRACE, "command completed")]);
    }
    expected.extend([(Level::DEBUG, "device closed"), (Level::DEBUG, "set closed")]);
    assert_eq!(short(&client), expected);

    // The server: what is sent and what completes may overlap, so each in its own order.
    let calls: Vec<_> = server.iter().filter(|told| !is_of_command(told)).map(|t| (t.level, t.happened())).collect();
    let expected =
        ["set opened", "configuration begun", "configuration ended", "device opened", "device closed", "set closed"];
    assert_eq!(calls, expected.map(|happened| (Level::DEBUG, happened)));
    let first = server.iter().position(|told| is_of_command(&told)).unwrap();
    assert_eq!(first, 4, "commands come between opening and closing");
    assert!(server[first..first + 2 * commands].iter().all(|told| is_of_command(&told) && told.level == Level::TRACE));

    // Both sides tell the same of the same commands.
    let sent = told_of(SERVER, "command sent");
    let names = ["device", "id", "command", "size", "position", "bytes"];
    assert_eq!(sent.len(), commands);
    assert_eq!(fields(&sent, &names), fields(&told_of(CLIENT, "command received"), &names));
    let ended = told_of(SERVER, "command completed");
    let names = ["device", "id", "command", "code", "bytes", "position"];
    assert_eq!(fields(&ended, &names), fields(&told_of(CLIENT, "command completed"), &names));
    let names = ["device", "id", "command", "bytes"];
    assert_eq!(fields(&ended, &names), fields(&sent, &names));
    assert!(ended.iter().all(|told| told.get("code") == "ERROR_SUCCESS (0)"));
    let codes: Vec<_> = sent.iter().map(|told| told.get("command")).collect();
    assert_eq!(codes[commands - 2..], ["VDC_Flush", "VDC_Complete"]);
    assert!(codes[..commands - 2].iter().all(|code| *code == "VDC_Write"));
    for (told, name) in client.iter().map(|told| (told, "held_us")).chain(server.iter().map(|t| (t, "outstanding_us")))
    {
        if told.happened() == "command completed" {
            assert!(told.get(name).parse::<u64>().unwrap() < TEST_TIMEOUT.as_micros() as u64, "{told:?}");
        }
    }
    // What was asked for, and what was negotiated.
    assert_eq!(client[0].get("features"), "VDF_RequestComplete");
    assert_eq!(server[0].get("features"), "VDF_RequestComplete");
    assert!(client[1].get("features").contains("VDF_CompleteEnabled"));
    assert_eq!(client[1].get("buffer_area_size"), server[2].get("buffer_area_size"));
}

#[test]
fn an_abort_is_told_once_with_its_reason() {
    let bench = listen();
    let (set, mut server, mut device) = pair(&bench);
    server.read(0);
    let held = device.get_command(TEST_TIMEOUT).unwrap();
    server.set.signal_abort().unwrap();
    assert!(!server.agent_ended());
    // Everybody who looks sees it; it is news once.
    assert_eq!(device.get_command(TEST_TIMEOUT).unwrap_err().code(), VdError::Abort);
    assert_eq!(device.get_command(TEST_TIMEOUT).unwrap_err().code(), VdError::Abort);
    drop(held);
    drop(device);
    set.close().unwrap();
    let aborted = told_of(CLIENT, "set aborted");
    assert_eq!(aborted.len(), 1, "{aborted:#?}");
    assert_eq!((aborted[0].level, aborted[0].get("reason")), (Level::INFO, "the server called SignalAbort"));
    assert_eq!(aborted[0].find("text"), None);
    let refused = told_of(CLIENT, "call refused");
    assert_eq!(fields(&refused, &["call", "device", "code"])[0], ["GetCommand", "nightly", "VD_E_ABORT"]);
    assert!(refused.iter().all(|told| told.level == Level::DEBUG && told.get("code") == "VD_E_ABORT"), "{refused:#?}");
    assert_eq!(told_of(SERVER, "abort signalled").len(), 1);
    assert_eq!(told_of(SERVER, "set aborted")[0].get("reason"), "the server called SignalAbort");
    assert_eq!(told_of(SERVER, "command completed")[0].get("code"), "ERROR_OPERATION_ABORTED (995)");
}

#[test]
fn refusals_and_handles_are_told() {
    let bench = listen();
    let (set, server, mut device) = pair(&bench);
    assert_eq!(device.get_command(Duration::ZERO).unwrap_err().code(), VdError::Timeout);
    set.open_device("nobody").unwrap_err();
    server.read(0);
    let command = device.get_command(TEST_TIMEOUT).unwrap();
    let handle = command.buffer_handle().unwrap();
    assert_eq!(set.get_buffer_handle(command.buffer_address().unwrap()).unwrap(), handle);
    set.get_buffer_handle(std::ptr::null()).unwrap_err();
    let refused = device.complete_command(command, Completion::done()).unwrap_err();
    refused.command.unwrap().complete(Completion::transferred(BUFFER as usize)).unwrap();
    assert!(server.completed().0.is_success());
    let routine = std::sync::Arc::clone(&server.routine);
    let load = vdi_server_sim::vds::VdsCommand::plain(CommandCode::LOAD, routine);
    server.devices[0].send_command(load).unwrap_err();

    let refused = told_of(CLIENT, "call refused");
    assert_eq!(
        fields(&refused, &["call", "set", "code"]),
        [
            ["OpenDevice", "nightly", "VD_E_OPEN"],
            ["GetBufferHandle", "nightly", "VD_E_INVALID"],
            ["CompleteCommand", "nightly", "VD_E_INVALID"],
        ]
    );
    assert_eq!((refused[0].find("device"), refused[1].find("device")), (Some("nobody"), None));
    assert!(refused[2].get("error").contains("a transfer without the number of bytes"), "{refused:#?}");
    let timed_out = told_of(CLIENT, "call timed out");
    assert_eq!((timed_out.len(), timed_out[0].level, timed_out[0].get("call")), (1, Level::TRACE, "GetCommand"));
    let handles = told_of(CLIENT, "handle given");
    assert_eq!(fields(&handles, &["handle"]), [[handle.to_string()], [handle.to_string()]]);
    let refused = told_of(SERVER, "call refused");
    let expected = [["SendCommand", "nightly", "nightly", "VD_E_NOTSUPPORTED"]];
    assert_eq!(fields(&refused, &["call", "set", "device", "code"]), expected);
    server.devices[0].close_device().unwrap();
    assert!(device.get_command(TEST_TIMEOUT).unwrap_err().is_close());
    // The normal end is no refusal.
    assert_eq!(told_of(CLIENT, "call refused").len(), 3);
}

#[test]
fn server_time_out_is_told() {
    let bench = listen();
    let asked = VdConfig { server_time_out: 20, ..config(1) };
    let set = bench.create("nightly", &asked);
    let mut server = Server::open(&bench, "nightly", 1);
    set.get_configuration(TEST_TIMEOUT).unwrap();
    let mut device = set.open_device("nightly").unwrap();
    server.read(0);
    let held = device.get_command(TEST_TIMEOUT).unwrap();
    assert!(!server.agent_ended());
    let passed = told_of(SERVER, "serverTimeOut passed");
    assert_eq!(passed.len(), 1);
    assert_eq!((passed[0].level, passed[0].get("server_time_out_ms")), (Level::INFO, "20"));
    drop(held);
}

/// Carries a statement out with a transcript.
fn transcribed(bench: &Bench, statement: &str, path: &Path) -> Outcome {
    let add = |command: &mut Command| {
        command.arg("--transcript").arg(path);
    };
    bench.sql_with(statement, add).outcome()
}

#[test]
fn a_transcript_has_a_line_an_event() {
    let bench = Bench::new();
    bench.database("small", 100_000);
    let path = bench.out().join("transcript");
    let agent = bench.agent("nightly", &config(1), |_| Ok(StreamMedia::sink(std::io::sink())));
    let statement = backup_statement("small", "nightly", 1, "");
    transcribed(&bench, &statement, &path).assert_success();
    let report = agent.result().unwrap().remove(0);

    let text = std::fs::read_to_string(&path).unwrap();
    let lines: Vec<&str> = text.lines().collect();
    assert_eq!(lines[..2], [&*format!("# {statement}"), "#     ms  device"], "{text}");
    // Time, then what happened; time goes on.
    let (times, events): (Vec<f64>, Vec<&str>) = lines[2..]
        .iter()
        .map(|line| {
            let (time, rest) = line.trim_start().split_once(' ').unwrap();
            (time.parse::<f64>().unwrap(), rest.trim_start())
        })
        .unzip();
    assert!(times.is_sorted(), "{text}");
    let of = |arrow: &str| -> Vec<&str> {
        let arrow = format!(" {arrow} ");
        events.iter().filter(|event| format!(" {event}").contains(&arrow)).copied().collect()
    };
    let (sent, ended, calls) = (of("->"), of("<-"), of("--"));
    assert_eq!((sent.len(), ended.len()), (report.commands as usize, report.commands as usize), "{text}");
    let first: Vec<&str> = sent[0].split_whitespace().collect();
    assert!(
        matches!(first[..], ["nightly", "->", "VDC_Write", "#0", size, "bytes"] if size.parse::<u32>().unwrap() % 512 == 0)
    );
    assert!(sent.last().unwrap().contains("VDC_Complete"), "{text}");
    for line in &ended {
        assert!(line.contains(" bytes, ERROR_SUCCESS (0), after ") && line.ends_with(" ms"), "{line}");
    }
    let expected = [
        "-- set opened: set nightly, ",
        "-- configuration begun: ",
        "-- configuration ended: ",
        "nightly          -- device opened: set nightly",
        "nightly          -- device closed: set nightly",
        "-- set closed: set nightly",
    ];
    assert_eq!(calls.len(), expected.len(), "{text}");
    for (call, expected) in calls.iter().zip(expected) {
        assert!(call.starts_with(expected), "{call:?} is not {expected:?}");
    }
}

#[test]
fn a_transcript_tells_of_an_abort() {
    let bench = Bench::new();
    bench.database("small", 100_000);
    let path = bench.out().join("transcript");
    let script = bench.scripted("nightly", &config(1), |mut device, _| drop(device.get_command(TEST_TIMEOUT).unwrap()));
    let statement = backup_statement("small", "nightly", 1, "");
    transcribed(&bench, &statement, &path).assert_failure(&[]);
    script.result();
    let text = std::fs::read_to_string(&path).unwrap();
    assert!(text.contains("ERROR_OPERATION_ABORTED (995), after "), "{text}");
    assert!(text.contains("-- set aborted: set nightly, reason the "), "{text}");
    assert!(text.contains("-- set closed: set nightly\n"), "{text}");
}

#[test]
fn a_transcript_that_cannot_be_created_refuses_the_statement() {
    let bench = Bench::new();
    bench.database("small", 1000);
    let path = bench.out().join("missing/transcript");
    let statement = backup_statement("small", "nightly", 1, "");
    let outcome = transcribed(&bench, &statement, &path);
    assert_eq!(outcome.status.code(), Some(1));
    let expected = format!("vdi-sim: could not create the transcript {}: No such file", path.display());
    assert!(outcome.text.starts_with(&expected) && !outcome.text.contains("Msg "), "{outcome:#?}");
}

#[test]
fn a_transcript_that_cannot_be_written_fails_no_statement() {
    let bench = Bench::new();
    bench.database("small", 1000);
    let agent = bench.agent("nightly", &config(1), |_| Ok(StreamMedia::sink(std::io::sink())));
    let statement = backup_statement("small", "nightly", 1, "");
    // Every write to this one fails for lack of space.
    let outcome = transcribed(&bench, &statement, Path::new("/dev/full"));
    outcome.assert_success();
    agent.result().unwrap();
    assert_eq!(outcome.text.matches("the transcript /dev/full ends here: No space left").count(), 1, "{outcome:#?}");
}

#[test]
fn a_transcript_where_messages_go_refuses_the_statement() {
    let bench = Bench::new();
    let log = bench.out().join("log");
    std::fs::write(&log, "a log\n").unwrap();
    for redirection in [">>", "2>>"] {
        let refused = bench.sql_with("BACKUP DATABASE db TO VIRTUAL_DEVICE='x'", |command| {
            command.arg("--transcript").arg(&log);
            after(command, &format!("exec {redirection}'{}'", log.display()));
        });
        let Outcome { status, text } = refused.outcome();
        let logged = std::fs::read_to_string(&log).unwrap();
        assert!(logged.starts_with("a log\n"), "{logged}");
        assert!(!status.success() && (text + &logged).contains("is where this program's messages go"), "{logged}");
    }
}
