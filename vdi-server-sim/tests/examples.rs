//! The client's examples, run as a reader of the README would: real processes, against `vdi-sim sql`.
#![allow(clippy::unwrap_used, missing_docs)]

use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Output, Stdio};

use vdi_server_sim::sample;

const SIM: &str = env!("CARGO_BIN_EXE_vdi-sim");

/// An example of vdi-client, built like this test.
fn example(name: &str) -> PathBuf {
    let profile = Path::new(SIM).parent().unwrap();
    let target = profile.parent().unwrap();
    let mut build = Command::new(env!("CARGO"));
    build.args(["build", "--quiet", "-p", "vdi-client", "--example", name, "--target-dir"]).arg(target);
    if !cfg!(debug_assertions) {
        build.arg("--release");
    }
    assert!(build.current_dir(env!("CARGO_MANIFEST_DIR")).status().unwrap().success());
    profile.join("examples").join(name)
}

/// A client that is killed if the test fails.
struct Client {
    child: Child,
    output: BufReader<ChildStdout>,
}

impl Client {
    /// Starts an example and waits until it says that its set is there.
    fn start(program: &Path, arguments: &[&str], runtime: &Path) -> Client {
        let mut child = Command::new(program);
        child.args(arguments).env("VDI_RUNTIME_DIR", runtime).stdout(Stdio::piped());
        let mut child = child.spawn().unwrap();
        let mut output = BufReader::new(child.stdout.take().unwrap());
        let mut line = String::new();
        output.read_line(&mut line).unwrap();
        assert!(line.starts_with("ready"), "{line:?}");
        Client { child, output }
    }

    /// What it says until it ends in good order.
    fn finish(mut self) -> String {
        let mut text = String::new();
        self.output.read_to_string(&mut text).unwrap();
        assert!(self.child.wait().unwrap().success(), "{text}");
        text
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

struct Folders {
    root: tempfile::TempDir,
}

impl Folders {
    fn new() -> Folders {
        let root = tempfile::tempdir().unwrap();
        for folder in ["data/db", "backup", "runtime"] {
            std::fs::create_dir_all(root.path().join(folder)).unwrap();
        }
        sample::create(&root.path().join("data/db"), 3 << 20, 7).unwrap();
        Folders { root }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.root.path().join(name)
    }

    /// Runs a statement, which must succeed, and checks what a server says then.
    fn sql(&self, statement: &str) {
        let Output { status, stdout, stderr } = Command::new(SIM)
            .args(["sql", "--data"])
            .arg(self.path("data"))
            .args(["-Q", statement])
            .env("VDI_RUNTIME_DIR", self.path("runtime"))
            .output()
            .unwrap();
        let text = String::from_utf8_lossy(&stdout);
        assert!(status.success(), "{text}{}", String::from_utf8_lossy(&stderr));
        assert!(text.contains("DATABASE successfully processed"), "{text}");
    }

    fn files(&self, database: &str) -> Vec<(PathBuf, Vec<u8>)> {
        let folder = self.path("data").join(database);
        let mut files: Vec<_> = std::fs::read_dir(&folder)
            .unwrap()
            .map(|entry| entry.unwrap().path())
            .map(|path| (path.strip_prefix(&folder).unwrap().to_path_buf(), std::fs::read(&path).unwrap()))
            .collect();
        files.sort();
        files
    }

    /// Nothing but what must be there.
    fn assert_clean(&self, backups: usize) {
        assert_eq!(std::fs::read_dir(self.path("runtime")).unwrap().count(), 0, "sockets are left");
        assert_eq!(std::fs::read_dir(self.path("backup")).unwrap().count(), backups);
    }
}

#[test]
fn the_agent_backs_up_and_restores() {
    let (folders, agent) = (Folders::new(), example("agent"));
    let file = folders.path("backup").join("db.bak");
    for (statement, said) in [
        ("BACKUP DATABASE db TO VIRTUAL_DEVICE='agent'", "bytes written"),
        ("RESTORE DATABASE copy FROM VIRTUAL_DEVICE='agent'", "bytes read"),
    ] {
        let client = Client::start(&agent, &["agent", file.to_str().unwrap()], &folders.path("runtime"));
        folders.sql(statement);
        assert!(client.finish().contains(said));
    }
    assert_eq!(folders.files("db"), folders.files("copy"));
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
            ("RESTORE DATABASE copy FROM VIRTUAL_DEVICE='kinds'", "bytes read"),
        ] {
            let client = Client::start(&kinds, &["kinds", kind, path.to_str().unwrap()], &folders.path("runtime"));
            folders.sql(statement);
            assert!(client.finish().contains(said));
        }
        assert_eq!(folders.files("db"), folders.files("copy"));
        folders.assert_clean(1);
    }
}

#[test]
fn a_snapshot_is_taken_and_mounted() {
    let (folders, snapshot) = (Folders::new(), example("snapshot"));
    let (database, backup) = (folders.path("data/db"), folders.path("backup"));
    let before = folders.files("db");
    let run = |statement: &str, said: &str| {
        let arguments = ["snapshot", database.to_str().unwrap(), backup.to_str().unwrap()];
        let client = Client::start(&snapshot, &arguments, &folders.path("runtime"));
        folders.sql(statement);
        assert!(client.finish().contains(said));
    };
    run("BACKUP DATABASE db TO VIRTUAL_DEVICE='snapshot' WITH SNAPSHOT", "taken");
    std::fs::write(database.join(&before[0].0), b"a later state").unwrap();
    assert_ne!(folders.files("db"), before);
    run("RESTORE DATABASE db FROM VIRTUAL_DEVICE='snapshot' WITH SNAPSHOT, REPLACE", "mounted");
    assert_eq!(folders.files("db"), before);
    folders.assert_clean(2);
}

#[test]
fn workers_get_buffers_by_their_handles() {
    let (folders, handles) = (Folders::new(), example("handles"));
    let client = Client::start(&handles, &["handles", "3"], &folders.path("runtime"));
    folders.sql("BACKUP DATABASE db TO VIRTUAL_DEVICE='handles' WITH MAXTRANSFERSIZE=131072, NO_CHECKSUM");
    let text = client.finish();
    let (buffers, sum) = text.trim().split_once(" buffers summed by workers: ").unwrap();
    assert!(buffers.parse::<u64>().unwrap() > 24, "{text}");
    // The database's own bytes are a part of what went over; headers make up the rest.
    let database: u64 = folders.files("db").iter().flat_map(|(_, bytes)| bytes).map(|byte| u64::from(*byte)).sum();
    let headers = sum.parse::<u64>().unwrap() - database;
    assert!(headers < 100_000 * buffers.parse::<u64>().unwrap(), "{text}");
    folders.assert_clean(0);
}

#[test]
fn secondaries_serve_a_device_each() {
    let (folders, secondaries) = (Folders::new(), example("secondaries"));
    let backup = folders.path("backup");
    for statement in [
        "BACKUP DATABASE db TO VIRTUAL_DEVICE='many', VIRTUAL_DEVICE='many-1', VIRTUAL_DEVICE='many-2'",
        "RESTORE DATABASE copy FROM VIRTUAL_DEVICE='many', VIRTUAL_DEVICE='many-1', VIRTUAL_DEVICE='many-2'",
    ] {
        let arguments = ["many", "3", backup.to_str().unwrap()];
        let client = Client::start(&secondaries, &arguments, &folders.path("runtime"));
        folders.sql(statement);
        assert!(client.finish().contains("all 3 devices are done"));
    }
    assert_eq!(folders.files("db"), folders.files("copy"));
    folders.assert_clean(3);
}
