//! What an agent of one device does to its target: for agents in any language, given how to call one with a set and a target.

use std::fs::{self, File};
use std::io::{BufRead, BufReader, pipe};
use std::os::unix::fs::{FileTypeExt, symlink};
use std::process::Command;
use std::thread;

use rustix::fs::{CWD, Mode, OFlags, mkfifoat};
use vdi_client::{CommandCode, Features};

use super::bench::Bench;
use super::processes::{Guarded, Outcome, Statement, after};
use super::server::Server;

const BACKUP: &str = "BACKUP DATABASE db TO VIRTUAL_DEVICE = 'c'";
const RESTORE: &str = "RESTORE DATABASE copy FROM VIRTUAL_DEVICE = 'c' WITH MOVE 'db' TO 'copy.mdf', MOVE 'db_1' TO 'copy_1.ndf', \
                       MOVE 'db_log' TO 'copy_log.ldf'";

fn bench() -> Bench {
    let bench = Bench::new();
    bench.database("db", 3 << 20);
    bench
}

/// Starts an agent behind a line of shell; its set is there.
fn start(bench: &Bench, mut agent: Command, line: &str) -> Statement {
    after(&mut agent, line);
    let mut agent = bench.run(agent);
    agent.wait_for_output("ready");
    agent
}

#[track_caller]
fn succeed(bench: &Bench, agent: Statement, statement: &str) {
    bench.sql(statement).outcome().assert_success();
    let Outcome { status, text } = agent.outcome();
    assert!(status.success(), "{text}");
}

/// The agent refuses its target. Its messages and those of the statement say why.
#[track_caller]
fn refuse(bench: &Bench, agent: Statement, said: &str) {
    fail_with(bench, agent, said, &[said]);
}

#[track_caller]
fn fail(bench: &Bench, agent: Statement, said: &str) {
    fail_with(bench, agent, said, &[]);
}

#[track_caller]
fn fail_with(bench: &Bench, agent: Statement, said: &str, messages: &[&str]) {
    bench.sql(BACKUP).outcome().assert_failure(messages);
    let Outcome { status, text } = agent.outcome();
    assert!(status.code() == Some(1) && text.contains(said) && !text.contains("panicked"), "{said}: {status} {text}");
}

/// `-` is standard output, which gets the backup and nothing else, and standard input.
#[track_caller]
pub(crate) fn assert_agent_pipes(agent: impl Fn(&str, &str) -> Command) {
    let bench = bench();
    let file = bench.out().join("db.bak");
    let (to, from) = (format!("exec >'{}'", file.display()), format!("exec <'{}'", file.display()));
    succeed(&bench, start(&bench, agent("c", "-"), &to), BACKUP);
    succeed(&bench, start(&bench, agent("c", "-"), &from), RESTORE);
    bench.assert_identical("db", "copy");

    fail(&bench, start(&bench, agent("c", "-"), "exec >&2"), "the same file");
    fail(&bench, start(&bench, agent("c", "-"), "exec >/dev/ptmx"), "is a terminal");
    fail(&bench, start(&bench, agent("c", "/dev/ptmx"), ":"), "is a terminal");

    // Such as `agent ... | head`.
    let fifo = bench.out().join("fifo");
    mkfifoat(CWD, &fifo, Mode::RWXU).unwrap();
    let reader = rustix::fs::open(&fifo, OFlags::RDONLY | OFlags::NONBLOCK | OFlags::CLOEXEC, Mode::empty()).unwrap();
    let deaf = start(&bench, agent("c", "-"), &format!("exec >'{}'", fifo.display()));
    drop(reader);
    fail(&bench, deaf, "Broken pipe");
    bench.assert_output(&["db.bak", "fifo"]);
}

/// Messages that nobody reads any more, as of `agent ... 2>&1 | head -1`, change nothing about a good backup.
#[track_caller]
pub(crate) fn assert_agent_needs_no_listener(agent: impl Fn(&str, &str) -> Command) {
    let bench = bench();
    let (file, (listener, said)) = (bench.out().join("db.bak"), pipe().unwrap());
    let mut command = agent("c", file.to_str().unwrap());
    command.env("VDI_RUNTIME_DIR", bench.runtime()).stdout(said.try_clone().unwrap()).stderr(said);
    let mut agent = Guarded::start(&mut command);
    let mut ready = String::new();
    BufReader::new(listener).read_line(&mut ready).unwrap();
    assert!(ready.starts_with("ready"), "{ready}");
    bench.sql(BACKUP).outcome().assert_success();
    let status = agent.wait();
    assert!(status.success(), "{status}");
    bench.assert_output(&["db.bak"]);
}

/// A target that the agent's messages go to is refused, and stays.
#[track_caller]
pub(crate) fn assert_agent_refuses_its_own_streams(agent: impl Fn(&str, &str) -> Command) {
    let bench = bench();
    let log = bench.out().join("log");
    fs::write(&log, "a log").unwrap();
    let append = format!("exec >>'{}'", log.display());
    for target in [log.to_str().unwrap(), "/dev/stdout", "/dev/fd/1"] {
        refuse(&bench, start(&bench, agent("c", target), &append), "is where this pro");
    }
    refuse(&bench, start(&bench, agent("c", "/dev/stderr"), ":"), "is where this pro");
    assert_eq!(fs::read(&log).unwrap(), b"a log");
    bench.assert_output(&["log"]);
}

/// What is no file is written to, and stays what it is; a symbolic link stays, and its file is replaced.
#[track_caller]
pub(crate) fn assert_agent_replaces_files_only(agent: impl Fn(&str, &str) -> Command) {
    let bench = bench();
    let path = |name: &str| bench.out().join(name);
    let agent = |name: &str| start(&bench, agent("c", path(name).to_str().unwrap()), ":");
    fs::write(path("db.bak"), "the old backup").unwrap();
    symlink("db.bak", path("link")).unwrap();
    symlink("/dev/null", path("null")).unwrap();
    symlink("nowhere", path("dangling")).unwrap();
    mkfifoat(CWD, path("fifo"), Mode::RWXU).unwrap();

    succeed(&bench, agent("link"), BACKUP);
    assert!(fs::read(path("db.bak")).unwrap() != b"the old backup");
    succeed(&bench, agent("null"), BACKUP);
    refuse(&bench, agent("dangling"), "is a symbolic link to");
    for (link, to) in [("link", "db.bak"), ("null", "/dev/null"), ("dangling", "nowhere")] {
        assert_eq!(fs::read_link(path(link)).unwrap().to_str(), Some(to));
    }
    assert!(fs::metadata("/dev/null").unwrap().file_type().is_char_device());

    // Its reader and its writer may be late.
    let (fifo, writing) = (path("fifo"), agent("fifo"));
    let reader = thread::spawn(move || fs::read(fifo).unwrap());
    succeed(&bench, writing, BACKUP);
    let backup = reader.join().unwrap();
    let (fifo, reading) = (path("fifo"), agent("fifo"));
    let writer = thread::spawn(move || fs::write(fifo, backup).unwrap());
    succeed(&bench, reading, RESTORE);
    writer.join().unwrap();
    bench.assert_identical("db", "copy");
    assert!(fs::symlink_metadata(path("fifo")).unwrap().file_type().is_fifo());
    bench.assert_output(&["dangling", "db.bak", "fifo", "link", "null"]);
}

/// Two agents with one target: the second is refused until the first one is done or dead. So it is where the shell opens it.
#[track_caller]
pub(crate) fn assert_agent_has_its_target_alone(agent: impl Fn(&str, &str) -> Command) {
    for killed in [false, true] {
        let bench = bench();
        let file = bench.out().join("db.bak");
        fs::write(&file, "the old backup").unwrap();
        let piped = &agent;
        let agent = |set: &str| start(&bench, agent(set, file.to_str().unwrap()), ":");
        let mut first = agent("first");
        let mut server = Server::with_features(&bench, "first", 1, Features::WRITE_MEDIA);
        server.write(0, 7);
        assert!(server.completed().0.is_success());
        fail(&bench, agent("c"), "is being written by another");
        assert_eq!(fs::read(&file).unwrap(), b"the old backup");
        let shells = bench.out().join("shells");
        let locked = File::create(&shells).unwrap();
        locked.lock().unwrap();
        let append = format!("exec >>'{}'", shells.display());
        fail(&bench, start(&bench, piped("c", "-"), &append), "is being written by another");
        fs::remove_file(&shells).unwrap();
        if killed {
            first.process.kill();
        } else {
            for code in [CommandCode::FLUSH, CommandCode::COMPLETE] {
                server.plain(0, code);
                assert!(server.completed().0.is_success());
            }
            server.devices[0].close_device().unwrap();
            let Outcome { status, text } = first.outcome();
            assert!(status.success(), "{text}");
            assert!(fs::read(&file).unwrap().iter().all(|byte| *byte == 7));
        }
        let _ = server.set.close();
        server.agent_ended();
        succeed(&bench, agent("c"), BACKUP);
        assert!(File::open(&file).unwrap().metadata().unwrap().len() > 3 << 20);
        bench.assert_output(&["db.bak"]);
    }
}

/// A backup that another program has put to the name FILE.partial meanwhile is neither renamed nor removed.
#[track_caller]
pub(crate) fn assert_agent_keeps_a_foreign_partial(agent: impl Fn(&str, &str) -> Command) {
    let bench = bench();
    let (file, partial) = (bench.out().join("db.bak"), bench.out().join("db.bak.partial"));
    let client = start(&bench, agent("partial", file.to_str().unwrap()), ":");
    let mut server = Server::with_features(&bench, "partial", 1, Features::WRITE_MEDIA);
    server.write(0, 7);
    assert!(server.completed().0.is_success());
    fs::remove_file(&partial).unwrap();
    fs::write(&partial, "another backup").unwrap();
    server.plain(0, CommandCode::FLUSH);
    assert!(server.completed().0.is_success());
    server.plain(0, CommandCode::COMPLETE);
    assert!(!server.completed().0.is_success());
    let _ = server.set.close();
    server.agent_ended();
    let Outcome { status, text } = client.outcome();
    assert!(!status.success() && text.contains("has been replaced or removed"), "{text}");
    assert_eq!(fs::read(&partial).unwrap(), b"another backup");
    bench.assert_output(&["db.bak.partial"]);
}
