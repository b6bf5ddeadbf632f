//! The client's examples as processes, and folders for them to work on.

use std::io::{BufRead, BufReader, PipeReader, Read, pipe};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Output};

use super::client::moves;
use super::databases::{Databases, Pages};

const SIM: &str = env!("CARGO_BIN_EXE_vdi-sim");

/// Has cargo build something into the target directory of this test, as this test was built; the folder of programs.
pub(crate) fn build(arguments: &[&str]) -> PathBuf {
    let profile = Path::new(SIM).parent().unwrap();
    let target = profile.parent().unwrap();
    let mut build = Command::new(env!("CARGO"));
    build.args(["build", "--quiet"]).args(arguments).arg("--target-dir").arg(target);
    if !cfg!(debug_assertions) {
        build.arg("--release");
    }
    assert!(build.current_dir(env!("CARGO_MANIFEST_DIR")).status().unwrap().success());
    profile.to_path_buf()
}

/// An example of vdi-client, built like this test.
pub(crate) fn example(name: &str) -> PathBuf {
    build(&["-p", "vdi-client", "--example", name]).join("examples").join(name)
}

/// The statement that restores a backup of the sample database `db` as `copy` beside it.
pub(crate) fn copied(devices: &str) -> String {
    format!("RESTORE DATABASE copy FROM {devices} WITH {}", moves("db", "copy"))
}

/// A client that is killed if the test fails.
pub(crate) struct Client {
    child: Child,
    /// What it prints, on either stream.
    output: BufReader<PipeReader>,
}

impl Client {
    /// Starts an example and waits until it says that its set is there.
    pub(crate) fn start(program: &Path, arguments: &[&str], runtime: &Path) -> Client {
        Client::start_with(program, arguments, runtime, &[])
    }

    /// The same with more in its environment.
    pub(crate) fn start_with(
        program: &Path,
        arguments: &[&str],
        runtime: &Path,
        environment: &[(&str, &Path)],
    ) -> Client {
        let (output, input) = pipe().unwrap();
        let mut command = Command::new(program);
        command.args(arguments).env("VDI_RUNTIME_DIR", runtime).envs(environment.iter().copied());
        let child = command.stdout(input.try_clone().unwrap()).stderr(input).spawn().unwrap();
        // It has copies of the pipe's end.
        drop(command);
        let mut output = BufReader::new(output);
        let mut line = String::new();
        output.read_line(&mut line).unwrap();
        assert!(line.starts_with("ready"), "{line:?}");
        Client { child, output }
    }

    /// What it says until it ends in good order.
    pub(crate) fn finish(self) -> String {
        let (status, text) = self.ended();
        assert!(status.success(), "{text}");
        text
    }

    /// How it ends, and what it says until then.
    pub(crate) fn ended(mut self) -> (ExitStatus, String) {
        let mut text = String::new();
        self.output.read_to_string(&mut text).unwrap();
        (self.child.wait().unwrap(), text)
    }

    /// Sends it a signal.
    pub(crate) fn signal(&self, signal: rustix::process::Signal) {
        rustix::process::kill_process(rustix::process::Pid::from_child(&self.child), signal).unwrap();
    }

    /// How it ends when nobody reads what it says.
    pub(crate) fn ended_unheard(mut self) -> ExitStatus {
        self.output = BufReader::new(std::io::pipe().unwrap().0);
        self.child.wait().unwrap()
    }

    /// The next line that it says.
    pub(crate) fn line(&mut self) -> String {
        let mut line = String::new();
        self.output.read_line(&mut line).unwrap();
        line
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

pub(crate) struct Folders {
    root: tempfile::TempDir,
}

impl Folders {
    pub(crate) fn new() -> Folders {
        let root = tempfile::tempdir().unwrap();
        for folder in ["data", "backup", "runtime"] {
            std::fs::create_dir_all(root.path().join(folder)).unwrap();
        }
        Databases(root.path().join("data")).create("db", 3 << 20, 7);
        Folders { root }
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.root.path().join(name)
    }

    /// The server with a statement, to be run.
    pub(crate) fn statement(&self, statement: &str) -> Command {
        let mut command = Command::new(SIM);
        command.args(["sql", "--data"]).arg(self.path("data")).args(["-Q", statement]);
        command.env("VDI_RUNTIME_DIR", self.path("runtime"));
        command
    }

    /// Runs a statement, which must succeed, and checks what a server says then.
    pub(crate) fn sql(&self, statement: &str) {
        let Output { status, stdout, stderr } = self.statement(statement).output().unwrap();
        let text = String::from_utf8_lossy(&stdout);
        assert!(status.success(), "{text}{}", String::from_utf8_lossy(&stderr));
        assert!(text.contains("DATABASE successfully processed"), "{text}");
    }

    pub(crate) fn databases(&self) -> Databases {
        Databases(self.path("data"))
    }

    /// The pages of a database, all whole.
    pub(crate) fn pages(&self, database: &str) -> Pages {
        self.databases().check(database);
        self.databases().pages(database)
    }

    /// Nothing but what must be there.
    pub(crate) fn assert_clean(&self, backups: usize) {
        assert_eq!(std::fs::read_dir(self.path("runtime")).unwrap().count(), 0, "sockets are left");
        assert_eq!(std::fs::read_dir(self.path("backup")).unwrap().count(), backups);
    }
}
