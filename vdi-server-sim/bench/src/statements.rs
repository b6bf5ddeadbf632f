//! BACKUP and RESTORE by the engine of `vdi-sim`. The server is in the driver, the backup program in the peer.

use std::fs;
use std::io;
use std::path::Path;
use std::time::{Duration, Instant};

use vdi_client::media::{FileMedia, Media, StreamMedia};
use vdi_client::{ClientVirtualDeviceSet, Features, INFINITE, VdConfig, pump};
use vdi_server_sim::engine::{Cancel, Engine};
use vdi_server_sim::session::Answer;

use crate::costs::cpu_time;
use crate::database::{BLOCK, DATABASE, RESTORED, drop_database, make_empty, measured, remove, size};
use crate::processes::{Cost, Fallible, Process, Start, on_demand, rounds, tell};
use crate::set::{SET, options};

/// The backup program: for each line a set. Prints the bytes that it moved, and its CPU time in nanoseconds.
///
/// | `medium` | what it does |
/// |---|---|
/// | count | counts the bytes of a backup |
/// | create | writes a backup to the file `path` |
/// | open | reads a backup from the file `path` |
/// | memory | has the backup of the file `path` in memory, and serves it from there |
pub(crate) fn client(dir: &Path, medium: &str, path: &Path) -> Fallible<()> {
    let memory = if medium == "memory" { fs::read(path)? } else { Vec::new() };
    on_demand(|_| {
        let before = cpu_time()?;
        let set = ClientVirtualDeviceSet::with_options(options(dir));
        set.create(SET, &VdConfig { features: Features::REQUEST_COMPLETE, ..VdConfig::default() })?;
        tell("created")?;
        set.get_configuration(INFINITE)?;
        let mut device = set.open_device(SET)?;
        let mut media: Box<dyn Media + '_> = match medium {
            "count" => Box::new(StreamMedia::sink(io::sink())),
            "create" => Box::new(FileMedia::create(path)?),
            "open" => Box::new(FileMedia::open(path)?),
            "memory" => Box::new(StreamMedia::source(&memory[..])),
            other => return Err(format!("there is no medium {other}").into()),
        };
        let report = pump(&mut device, &mut *media)?;
        set.close()?;
        let cpu = cpu_time()? - before;
        tell(&format!("{} {}", report.bytes_written + report.bytes_read, cpu.as_nanos()))
    })
}

/// An engine with its client.
struct Statement {
    engine: Engine,
    client: Process,
    text: String,
    /// Bytes of the database.
    bytes: u64,
}

impl Statement {
    /// From the statement until both sides have ended.
    fn run(&mut self) -> Fallible<Cost> {
        self.client.say("run")?;
        self.client.hear()?;
        let (before, started) = (cpu_time()?, Instant::now());
        let mut answer = Answer::default();
        let result = self.engine.session().batch(&self.text, &[], &mut answer, &Cancel::new());
        // Where the statement failed its error says more than the client's.
        let told = self.client.hear();
        let (elapsed, own) = (started.elapsed(), cpu_time()? - before);
        result.map_err(|error| format!("{}: {error} ({:?})", self.text, answer.messages.last()))?;
        let told = told?;
        let (moved, cpu) = told.split_once(' ').ok_or("the client prints two numbers")?;
        let moved: u64 = moved.parse()?;
        if moved < self.bytes {
            return Err(format!("the client moved {moved} bytes of a database of {}", self.bytes).into());
        }
        Ok(Cost { elapsed, cpu: own + Duration::from_nanos(cpu.parse()?) })
    }
}

/// Carries out the statement, after `prepare`, so many times.
fn drive(mut statement: Statement, prepare: impl Fn(&Engine) -> Fallible<()>) -> Fallible<()> {
    rounds(|count| {
        let mut total = Cost::default();
        for _ in 0..count {
            prepare(&statement.engine)?;
            total += statement.run()?;
        }
        Ok(total)
    })?;
    statement.client.end()
}

/// BACKUP of the database in `data` WITH `checksum`, to a client whose medium is `medium` with `path`.
pub(crate) fn drive_backup(dir: &Path, data: &Path, checksum: &str, medium: &str, path: &Path) -> Fallible<()> {
    let client = Start::new("statement-client", dir).with(medium).with(path).start()?;
    let text = format!("BACKUP DATABASE {DATABASE} TO VIRTUAL_DEVICE='{SET}' WITH MAXTRANSFERSIZE={BLOCK}, {checksum}");
    let statement = Statement { engine: Engine::new(data, options(dir))?, client, text, bytes: size(data)? };
    drive(statement, |_| remove(path))
}

/// RESTORE of the backup `path` of the database in `data`, as a new database, by a client whose medium is `medium`.
pub(crate) fn drive_restore(dir: &Path, data: &Path, medium: &str, path: &Path) -> Fallible<()> {
    let client = Start::new("statement-client", dir).with(medium).with(path).start()?;
    let text = format!("RESTORE DATABASE {RESTORED} FROM VIRTUAL_DEVICE='{SET}' WITH MAXTRANSFERSIZE={BLOCK}");
    let folder = dir.join("data");
    fs::create_dir(&folder)?;
    let statement = Statement { engine: Engine::new(&folder, options(dir))?, client, text, bytes: size(data)? };
    drive(statement, |engine| drop_database(engine.folder(), RESTORED))
}

/// The database of the statements that move hardly any data.
const EMPTY: &str = "empty";

/// BACKUP or RESTORE of a database without content: what a statement costs.
pub(crate) fn drive_empty(dir: &Path, restores: bool) -> Fallible<()> {
    let (folder, file) = (dir.join("data"), dir.join("empty.bak"));
    make_empty(&folder, EMPTY)?;
    let start = |medium| Start::new("statement-client", dir).with(medium).with(&file).start();
    let backup = format!("BACKUP DATABASE {EMPTY} TO VIRTUAL_DEVICE='{SET}'");
    let engine = Engine::new(&folder, options(dir))?;
    if !restores {
        return drive(Statement { engine, client: start("count")?, text: backup, bytes: 1 }, |_| Ok(()));
    }
    let mut once = Statement { engine, client: start("create")?, text: backup, bytes: 1 };
    once.run()?;
    once.client.end()?;
    let moves = "MOVE 'empty' TO 'restored.mdf', MOVE 'empty_log' TO 'restored_log.ldf'";
    let text = format!("RESTORE DATABASE {RESTORED} FROM VIRTUAL_DEVICE='{SET}' WITH {moves}");
    let statement = Statement { engine: once.engine, client: start("memory")?, text, bytes: 1 };
    drive(statement, |engine| drop_database(engine.folder(), RESTORED))
}

/// BACKUP of the database in `data` to the file `path` of the server, or RESTORE from it as a new database: no client is there.
pub(crate) fn drive_disk(dir: &Path, data: &Path, restores: bool, path: &Path) -> Fallible<()> {
    let file = path.to_str().ok_or("a path that is not in UTF-8")?;
    let folder = dir.join("data");
    fs::create_dir(&folder)?;
    let with = format!("WITH MAXTRANSFERSIZE={BLOCK}");
    let (data, text) = match restores {
        false => (data, format!("BACKUP DATABASE {DATABASE} TO DISK='{file}' {with}, FORMAT")),
        true => (&*folder, format!("RESTORE DATABASE {RESTORED} FROM DISK='{file}' {with}")),
    };
    let engine = Engine::new(data, options(dir))?;
    let prepare = || if restores { drop_database(engine.folder(), RESTORED) } else { remove(path) };
    rounds(|count| {
        measured(count, prepare, || {
            let mut answer = Answer::default();
            let result = engine.session().batch(&text, &[], &mut answer, &Cancel::new());
            result.map_err(|error| format!("{text}: {error} ({:?})", answer.messages.last()).into())
        })
    })
}
