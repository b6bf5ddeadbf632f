//! Two builds of `vdi-sim` in one run. Each is its own server and its own client, since builds may differ in what travels
//! between them. The client is that of the demo: a primary, and a worker that gets the buffers by their handles.
//!
//! Builds before the catalog take any folder below the data folder for a database. They get one that has the same files.

use std::fs;
use std::io::{self, BufRead, BufReader};
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

use vdi_server_sim::storage::DataFolder;

use crate::database::{BLOCK, DATABASE, RESTORED, drop_database, files, measured, remove};
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

/// Makes a data folder of older builds, whose database consists of the data files of the one in `data`: of the same inodes, so that both are in
/// the page cache alike.
pub(crate) fn link_files(data: &Path, folders: &Path) -> Fallible<()> {
    let database = folders.join(DATABASE);
    fs::create_dir_all(&database)?;
    for (number, file) in files(data)?.iter().enumerate() {
        fs::hard_link(file, database.join(format!("{number}.mdf")))?;
    }
    Ok(())
}

/// Whether a build keeps its databases in a catalog: it has a program that shows them.
fn has_catalog(program: &Path) -> Fallible<bool> {
    let help = Command::new(program).arg("--help").output()?;
    Ok(String::from_utf8_lossy(&help.stdout).lines().any(|line| line.trim_start().starts_with("databases ")))
}

/// Statements by the build `program`, from the start of its client until all its processes have ended.
///
/// | `what` | the statement |
/// |---|---|
/// | discarded | BACKUP of the database to /dev/null |
/// | durable | BACKUP to a file |
/// | restored | RESTORE of such a backup, which is in the page cache |
///
/// The database is in the first of `data` for a build with a catalog, else in the second.
pub(crate) fn drive(dir: &Path, program: &Path, data: [&Path; 2], what: &str, checksum: &str) -> Fallible<()> {
    let has_catalog = has_catalog(program)?;
    let data = data[usize::from(!has_catalog)];
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
            let prepare = || match has_catalog {
                true => drop_database(&DataFolder::open(&restored)?, RESTORED),
                false => remove(&restored.join(RESTORED)),
            };
            rounds(|count| measured(count, prepare, restores))
        }
        other => Err(format!("no statement is called {other}").into()),
    }
}
