//! Two builds of `vdi-sim` in one run. Each is its own server and its own client, since builds may differ in what travels
//! between them. The client is that of the demo: a primary, and a worker that gets the buffers by their handles.

use std::fs;
use std::io::{self, BufRead, BufReader};
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

use crate::database::{BLOCK, DATABASE, RESTORED, measured, remove};
use crate::processes::{Fallible, rounds};

const SET: &str = "bench";
/// The demo's name of the file of its first device.
const STRIPE: &str = "stripe-00.vdi";

/// A program of a build. It is killed unless it was waited for.
struct Program {
    child: Child,
    output: BufReader<ChildStdout>,
    /// The program ends when this closes.
    _input: ChildStdin,
}

impl Program {
    fn start(command: &mut Command) -> Fallible<Program> {
        let spawned = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn();
        let mut child = spawned.map_err(|error| format!("could not start {command:?}: {error}"))?;
        let input = child.stdin.take().ok_or("a process without an input")?;
        let output = BufReader::new(child.stdout.take().ok_or("a process without an output")?);
        Ok(Program { child, output, _input: input })
    }

    /// Waits until it has printed a line.
    fn line(&mut self) -> Fallible<()> {
        match self.output.read_line(&mut String::new())? {
            0 => Err("a program of the build ended too early; its error is above".into()),
            _ => Ok(()),
        }
    }

    /// Waits until it has ended.
    fn end(mut self) -> Fallible<()> {
        let printed = io::read_to_string(&mut self.output)?;
        let status = self.child.wait()?;
        if status.success() {
            Ok(())
        } else {
            Err(format!("a program of the build ended with {status}: {printed}").into())
        }
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A build, and where its processes find each other.
struct Build<'a> {
    program: &'a Path,
    runtime: PathBuf,
}

impl Build<'_> {
    fn command(&self, name: &str) -> Command {
        let mut command = Command::new(self.program);
        command.arg(name).env("VDI_RUNTIME_DIR", &self.runtime);
        command
    }

    /// Carries a statement out on the databases in `data`. The client's file is in `folder`.
    fn run(&self, statement: &str, data: &Path, folder: &Path, restores: bool) -> Fallible<()> {
        let mut client = self.command("demo-primary");
        client.args(["--set", SET, "--devices", "1", "--workers", "1", "--folder"]).arg(folder);
        client.args(restores.then_some("--restore"));
        let mut client = Program::start(&mut client)?;
        // From here on the set is there.
        client.line()?;
        let mut server = self.command("sql");
        server.args(["--end-with-input", "-Q", statement, "--data"]).arg(data);
        Program::start(&mut server)?.end()?;
        client.end()
    }
}

/// Statements by the build `program`, from the start of its client until all its processes have ended.
///
/// | `what` | the statement |
/// |---|---|
/// | discarded | BACKUP of the database in `data` to /dev/null |
/// | durable | BACKUP to a file |
/// | restored | RESTORE of such a backup, which is in the page cache |
pub(crate) fn drive(dir: &Path, program: &Path, data: &Path, what: &str, checksum: &str) -> Fallible<()> {
    let build = Build { program, runtime: dir.join("runtime") };
    let (folder, restored) = (dir.join("folder"), dir.join("data"));
    fs::create_dir(&folder)?;
    fs::create_dir(&restored)?;
    let (from, to) = (format!("VIRTUAL_DEVICE='{SET}' WITH MAXTRANSFERSIZE={BLOCK}"), folder.join(STRIPE));
    let backup = format!("BACKUP DATABASE {DATABASE} TO {from}, {checksum}");
    let restore = format!("RESTORE DATABASE {RESTORED} FROM {from}");
    let backs_up = || build.run(&backup, data, &folder, false);
    match what {
        "discarded" => {
            symlink("/dev/null", &to)?;
            rounds(|count| measured(count, || Ok(()), backs_up))
        }
        "durable" => rounds(|count| measured(count, || remove(&to), backs_up)),
        "restored" => {
            backs_up()?;
            let restores = || build.run(&restore, &restored, &folder, true);
            rounds(|count| measured(count, || remove(&restored.join(RESTORED)), restores))
        }
        other => Err(format!("no statement is called {other}").into()),
    }
}
