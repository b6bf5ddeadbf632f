//! The client's examples, run as a reader of the README would: real processes, against `vdi-sim sql`.

use crate::common;

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};

use common::bench::{Bench, tree};
use common::eventually;
use common::examples::{Client, Folders, copied, example};
use common::server::Server;
use common::targets;
use rustix::process::Signal;
use vdi_client::{CommandCode, Features};

#[test]
fn the_agent_backs_up_and_restores() {
    let (folders, agent) = (Folders::new(), example("agent"));
    let file = folders.path("backup").join("db.bak");
    for (statement, said) in [
        ("BACKUP DATABASE db TO VIRTUAL_DEVICE='agent'", "bytes written"),
        (&*copied("VIRTUAL_DEVICE='agent'"), "bytes read"),
    ] {
        let client = Client::start(&agent, &["agent", file.to_str().unwrap()], &folders.path("runtime"));
        folders.sql(statement);
        assert!(client.finish().contains(said));
    }
    folders.databases().assert_identical("db", "copy");
    folders.assert_clean(1);
}

#[test]
fn every_kind_of_device_backs_up_and_restores() {
    let kinds = example("kinds");
    for kind in ["pipe", "disk", "tape", "volumes"] {
        let folders = Folders::new();
        let path = folders.path("backup").join("db");
        for (statement, said) in [
            ("BACKUP DATABASE db TO VIRTUAL_DEVICE='kinds' WITH MAXTRANSFERSIZE = 1048576", "bytes written"),
            (&*copied("VIRTUAL_DEVICE='kinds'"), "bytes read"),
        ] {
            let client = Client::start(&kinds, &["kinds", kind, path.to_str().unwrap()], &folders.path("runtime"));
            folders.sql(statement);
            assert!(client.finish().contains(said));
        }
        folders.databases().assert_identical("db", "copy");
        folders.assert_clean(1);
    }
}

#[test]
fn a_snapshot_is_taken_and_mounted() {
    let (folders, snapshot) = (Folders::new(), example("snapshot"));
    let (files, backup) = (folders.databases().files("db"), folders.path("backup"));
    let before = folders.pages("db");
    let run = |statement: &str, said: &str| {
        let files = files.iter().map(|path| path.to_str().unwrap());
        let arguments: Vec<_> = ["snapshot", backup.to_str().unwrap()].into_iter().chain(files).collect();
        let client = Client::start(&snapshot, &arguments, &folders.path("runtime"));
        folders.sql(statement);
        assert!(client.finish().contains(said));
    };
    run("BACKUP DATABASE db TO VIRTUAL_DEVICE='snapshot' WITH SNAPSHOT", "taken");
    folders.databases().change("db", 99);
    assert!(folders.pages("db") != before);
    run("RESTORE DATABASE db FROM VIRTUAL_DEVICE='snapshot' WITH SNAPSHOT, REPLACE", "mounted");
    assert!(folders.pages("db") == before);
    folders.assert_clean(1);
}

/// Fails or is killed behind any command but the last: the old snapshot is there. Behind the last: the new one.
#[test]
fn a_snapshot_that_is_not_complete_keeps_the_old_one() {
    let snapshot = example("snapshot");
    let commands = [CommandCode::WRITE, CommandCode::PREPARE_TO_FREEZE, CommandCode::SNAPSHOT, CommandCode::COMPLETE];
    for (count, killed) in (0..=commands.len()).flat_map(|count| [(count, true), (count, false)]) {
        let bench = Bench::new();
        bench.database("db", 1 << 20);
        let run = || {
            let mut command = Command::new(&snapshot);
            command.arg("c").arg(bench.out()).args(bench.databases().files("db"));
            let mut agent = bench.run(command);
            agent.wait_for_output("ready");
            agent
        };
        let back_up = || {
            let agent = run();
            bench.sql("BACKUP DATABASE db TO VIRTUAL_DEVICE = 'c' WITH SNAPSHOT").outcome().assert_success();
            assert!(agent.outcome().status.success());
        };
        back_up();
        let old = tree(&bench.out().join("snapshot"));
        bench.databases().change("db", 99);
        let later = fs::read(bench.databases().data_file("db", 0)).unwrap();

        let mut agent = run();
        let mut server = Server::with_features(&bench, "c", 1, Features::WRITE_MEDIA);
        for code in &commands[..count] {
            match *code {
                CommandCode::WRITE => server.write(0, 7),
                code => server.plain(0, code),
            }
            assert!(server.completed().0.is_success(), "{code}");
        }
        let complete = count == commands.len();
        if killed {
            agent.process.kill();
        } else {
            server.devices[0].close_device().unwrap();
            assert_eq!(agent.outcome().status.success(), complete);
            bench.assert_output(&["snapshot"]);
        }
        let _ = server.set.close();
        server.agent_ended();
        let now = tree(&bench.out().join("snapshot"));
        if complete {
            assert!(now[Path::new("files/0")] == later);
            assert!(now[Path::new("metadata")].iter().all(|byte| *byte == 7));
        } else {
            assert!(now == old, "{count} commands, killed: {killed}");
        }
        // What was left stands in nobody's way.
        back_up();
        bench.assert_output(&["snapshot"]);
    }
}

#[test]
fn a_folder_that_is_no_snapshot_is_not_replaced() {
    let (folders, snapshot) = (Folders::new(), example("snapshot"));
    let theirs = folders.path("backup").join("snapshot");
    fs::create_dir(&theirs).unwrap();
    fs::write(theirs.join("thesis"), b"all of it").unwrap();
    let mut command = Command::new(snapshot);
    command.arg("c").arg(folders.path("backup")).args(folders.databases().files("db"));
    let output = command.output();
    let said = String::from_utf8(output.unwrap().stderr).unwrap();
    assert!(said.contains("is no backup of this program, and is not replaced"), "{said}");
    assert_eq!(fs::read(theirs.join("thesis")).unwrap(), b"all of it");
}

/// Tests the agents for a pipe-like device: each is called with a set and a target.
fn with_pipe_agents(test: impl Fn(&dyn Fn(&str, &str) -> Command)) {
    for (program, kind) in [(example("kinds"), Some("pipe")), (example("agent"), None)] {
        test(&|set, target| {
            let mut command = Command::new(&program);
            command.arg(set).args(kind).arg(target);
            command
        });
    }
}

#[test]
fn standard_output_gets_the_backup_and_nothing_else() {
    with_pipe_agents(|agent| targets::assert_agent_pipes(agent));
}

#[test]
fn messages_that_nobody_reads_change_nothing() {
    with_pipe_agents(|agent| targets::assert_agent_needs_no_listener(agent));
}

#[test]
fn what_an_agent_prints_to_is_no_target() {
    with_pipe_agents(|agent| targets::assert_agent_refuses_its_own_streams(agent));
}

#[test]
fn nothing_but_files_is_replaced() {
    with_pipe_agents(|agent| targets::assert_agent_replaces_files_only(agent));
}

#[test]
fn two_agents_with_one_file_do_not_destroy_each_others_backup() {
    with_pipe_agents(|agent| targets::assert_agent_has_its_target_alone(agent));
}

#[test]
fn workers_get_buffers_by_their_handles() {
    let (folders, handles) = (Folders::new(), example("handles"));
    let client = Client::start(&handles, &["handles", "3"], &folders.path("runtime"));
    folders.sql("BACKUP DATABASE db TO VIRTUAL_DEVICE='handles' WITH MAXTRANSFERSIZE=131072, NO_CHECKSUM");
    let text = client.finish();
    let (buffers, sum) = text.trim().split_once(" buffers summed by workers: ").unwrap();
    assert!(buffers.parse::<u64>().unwrap() > 24, "{text}");
    // A second backup of the same pages differs in identifiers, dates and log sequence numbers only: by much less than a buffer.
    let file = folders.path("backup").join("db.bak");
    folders.sql(&format!("BACKUP DATABASE db TO DISK='{}' WITH BLOCKSIZE=512, MAXTRANSFERSIZE=131072", file.display()));
    let expected: u64 = fs::read(file).unwrap().into_iter().map(u64::from).sum();
    assert!(sum.parse::<u64>().unwrap().abs_diff(expected) < 1 << 22, "{text}, not {expected}");
    folders.assert_clean(1);
}

#[test]
fn secondaries_serve_a_device_each() {
    let (folders, secondaries) = (Folders::new(), example("secondaries"));
    let backup = folders.path("backup");
    for statement in [
        "BACKUP DATABASE db TO VIRTUAL_DEVICE='many', VIRTUAL_DEVICE='many-1', VIRTUAL_DEVICE='many-2'",
        &*copied("VIRTUAL_DEVICE='many', VIRTUAL_DEVICE='many-1', VIRTUAL_DEVICE='many-2'"),
    ] {
        let arguments = ["many", "3", backup.to_str().unwrap()];
        let client = Client::start(&secondaries, &arguments, &folders.path("runtime"));
        folders.sql(statement);
        assert!(client.finish().contains("all 3 devices are done"));
    }
    folders.databases().assert_identical("db", "copy");
    folders.assert_clean(3);
}

const STRIPES: &str =
    "VIRTUAL_DEVICE='stripes', VIRTUAL_DEVICE='stripes-1', VIRTUAL_DEVICE='stripes-2', VIRTUAL_DEVICE='stripes-3'";

#[test]
fn four_stripes_are_served_by_a_thread_each() {
    let (folders, stripes) = (Folders::new(), example("stripes"));
    let backup = folders.path("backup");
    for (statement, said) in [
        (format!("BACKUP DATABASE db TO {STRIPES}"), " 0 bytes read, "),
        (copied(STRIPES), "4 devices: 0 bytes written, "),
    ] {
        let client = Client::start(&stripes, &["stripes", backup.to_str().unwrap()], &folders.path("runtime"));
        folders.sql(&statement);
        let text = client.finish();
        assert!(text.contains(said) && text.ends_with("done\n"), "{text}");
    }
    folders.databases().assert_identical("db", "copy");
    folders.assert_clean(4);
}

/// One stripe after another takes its place, so a backup that fails in between would leave neither whole.
#[test]
fn stripes_of_an_earlier_backup_are_not_replaced() {
    let folders = Folders::new();
    let backup = folders.path("backup");
    let folder = backup.to_str().unwrap();
    for (program, arguments, files) in [
        ("stripes", ["stripes", folder, "2"], ["stripe-0.vdi", "stripe-1.vdi"]),
        ("secondaries", ["stripes", "2", folder], ["stripes.vdi", "stripes-1.vdi"]),
    ] {
        let [new, old] = files.map(|name| backup.join(name));
        std::fs::write(&old, b"the old backup").unwrap();
        let client = Client::start(&example(program), &arguments, &folders.path("runtime"));
        let statement = "BACKUP DATABASE db TO VIRTUAL_DEVICE='stripes', VIRTUAL_DEVICE='stripes-1'";
        let said = folders.statement(statement).output().unwrap();
        let said = String::from_utf8(said.stdout).unwrap();
        assert!(said.contains("stripes-1\": ") && said.contains("of an earlier backup, and is not replaced"), "{said}");
        let (status, text) = client.ended();
        assert_eq!(status.code(), Some(1), "{text}");
        assert_eq!(std::fs::read(&old).unwrap(), b"the old backup");
        assert!(!new.exists());
        std::fs::remove_file(&old).unwrap();
    }
    folders.assert_clean(0);
}

#[test]
fn ctrl_c_cancels_the_stripes() {
    let (folders, stripes) = (Folders::new(), example("stripes"));
    let backup = folders.path("backup");
    for signal in [Signal::INT, Signal::TERM] {
        let client = Client::start(&stripes, &["stripes", backup.to_str().unwrap()], &folders.path("runtime"));
        client.signal(signal);
        let (status, text) = client.ended();
        assert_eq!(status.code(), Some(1), "{text}");
        assert!(text.starts_with("cancelling"), "{text}");
        let error = "\nError: GetConfiguration of set \"stripes\": VD_E_TIMEOUT (0x80770003): the wait for";
        assert!(text.contains(error) && text.contains("was cancelled by this process"), "{text}");
    }
    folders.assert_clean(0);
}

/// The medium blocks, so the cancel waits for it; the second Ctrl-C does not.
#[test]
fn a_second_ctrl_c_ends_the_stripes_at_once() {
    let (folders, stripes) = (Folders::new(), example("stripes"));
    let backup = folders.path("backup");
    let path = backup.join("stripe-0.vdi");
    rustix::fs::mknodat(rustix::fs::CWD, &path, rustix::fs::FileType::Fifo, 0o600.into(), 0).unwrap();
    let fifo = std::fs::File::options().read(true).write(true).open(&path).unwrap();
    let mut client = Client::start(&stripes, &["stripes", backup.to_str().unwrap(), "1"], &folders.path("runtime"));
    let mut statement = folders.statement("BACKUP DATABASE db TO VIRTUAL_DEVICE='stripes'");
    let mut statement = statement.stdout(Stdio::null()).spawn().unwrap();
    // The first Writes are 512 and 65536 bytes, and the pipe has less room: the client is in the middle of the second.
    eventually("the pipe to be full", || match rustix::io::ioctl_fionread(&fifo).unwrap() {
        61440.. => Ok(()),
        bytes => Err(format!("it holds {bytes} bytes")),
    });
    client.signal(Signal::INT);
    while !client.line().starts_with("cancelling") {}
    client.signal(Signal::INT);
    let (status, text) = client.ended();
    assert_eq!(status.code(), Some(130), "{text}");
    assert_eq!(statement.wait().unwrap().code(), Some(1));
    // Nothing beside the pipe. The socket of a process that was ended may stay until the next process removes it.
    assert_eq!(std::fs::read_dir(&backup).unwrap().count(), 1);
}

#[test]
fn the_agent_prints_errors_as_people_read_them() {
    let (folders, agent) = (Folders::new(), example("agent"));
    let output = Command::new(&agent).output().unwrap();
    assert_eq!(String::from_utf8_lossy(&output.stderr), "Error: usage: agent SET FILE\n");
    assert_eq!((output.status.code(), output.stdout.len()), (Some(1), 0));

    let client = Client::start(&agent, &["agent", "/nowhere/db.bak"], &folders.path("runtime"));
    let statement = folders.statement("BACKUP DATABASE db TO VIRTUAL_DEVICE='agent'").output().unwrap();
    assert_eq!(statement.status.code(), Some(1));
    let (status, text) = client.ended();
    assert_eq!(status.code(), Some(1), "{text}");
    let beginning = "Error: serve on device \"agent\" of set \"agent\": VD_E_UNEXPECTED (0x8077000b): cannot ";
    assert!(text.starts_with(beginning), "{text}");
    assert_eq!(text.matches("No such file or directory").count(), 1, "{text}");
    assert_eq!(text.lines().count(), 1, "{text}");
    folders.assert_clean(0);
}

#[test]
fn an_agent_that_nobody_listens_to_does_its_work() {
    let (folders, agent) = (Folders::new(), example("agent"));
    let file = folders.path("backup").join("db.bak");
    let client = Client::start(&agent, &["agent", file.to_str().unwrap()], &folders.path("runtime"));
    let server = std::thread::scope(|scope| {
        let server = scope.spawn(|| folders.sql("BACKUP DATABASE db TO VIRTUAL_DEVICE='agent'"));
        assert!(client.ended_unheard().success());
        server.join()
    });
    server.unwrap();
    folders.assert_clean(1);
}
