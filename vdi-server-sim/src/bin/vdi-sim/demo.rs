//! `vdi-sim demo`: a database goes out through a virtual device set and comes back, across real processes.

use std::error::Error;
use std::fmt::Write as _;
use std::fs::File;
use std::io::{BufRead, BufReader, IsTerminal, Read};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::{ChildStdout, Command};
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};
use sha2::{Digest, Sha256};
use vdi_mtf::sqlserver::config::FileType;
use vdi_server_sim::storage::{DataFolder, content};

use crate::children;
use crate::demo_client::device_name;
use crate::say;

#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// Back up this file, or all files of this folder, instead of a sample database
    #[arg(long, value_name = "PATH")]
    database: Option<PathBuf>,
    /// Size of the sample database in bytes; K, M and G are understood
    #[arg(long, default_value = "256M", value_parser = parse_size)]
    size: u64,
    /// Virtual devices
    #[arg(long, default_value_t = 4, value_parser = clap::value_parser!(u32).range(1..=64))]
    devices: u32,
    /// Worker processes
    #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(u32).range(1..=64))]
    workers: u32,
    /// Keep the databases and the backup in this folder
    #[arg(long, value_name = "DIR")]
    keep: Option<PathBuf>,
}

/// Bytes from a number with an optional K, M or G.
pub(crate) fn parse_size(text: &str) -> Result<u64, String> {
    let (digits, shift) = match text.char_indices().last() {
        Some((at, 'K' | 'k')) => (&text[..at], 10),
        Some((at, 'M' | 'm')) => (&text[..at], 20),
        Some((at, 'G' | 'g')) => (&text[..at], 30),
        _ => (text, 0),
    };
    let number: u64 = digits.parse().map_err(|_| format!("{text:?} is no size: write 64M, for example"))?;
    let bytes = number.checked_shl(shift).filter(|bytes| bytes >> shift == number);
    bytes.filter(|bytes| *bytes > 0).ok_or_else(|| format!("{text:?} is no size that a database can have"))
}

/// How long a client has to notice that its server has failed.
const CLIENT_GRACE: Duration = Duration::from_secs(2);

const SOURCE: &str = "sample";
const TARGET: &str = "restored";

/// One direction of the demo, as it went.
struct Leg {
    elapsed: Duration,
    commands: u64,
    handles: u64,
}

pub(crate) fn run(arguments: &Arguments) -> Result<(), Box<dyn Error>> {
    children::reap_own_children()?;
    children::watch_signals()?;
    let temporary;
    let root = match &arguments.keep {
        Some(folder) => {
            std::fs::create_dir_all(folder)?;
            folder.canonicalize()?
        }
        None => {
            temporary = tempfile::Builder::new().prefix("vdi-demo-").tempdir()?;
            temporary.path().to_path_buf()
        }
    };
    let (data, backup, runtime) = (root.join("data"), root.join("backup"), tempfile::tempdir()?);
    std::fs::create_dir_all(&backup)?;
    std::fs::create_dir_all(&data)?;
    let folder = DataFolder::open(&data)?;
    if folder.catalog().find(SOURCE)?.is_some() {
        return Err(format!("{} has a database '{SOURCE}' already; give --keep another folder", data.display()).into());
    }

    let started = Instant::now();
    match &arguments.database {
        Some(path) => {
            let path = path.canonicalize().map_err(|error| format!("{}: {error}", path.display()))?;
            if root.starts_with(&path) {
                return Err(format!("{} lies within the database; keep it elsewhere", root.display()).into());
            }
            content::import(&folder, SOURCE, &path)?;
        }
        None => content::create_sample(&folder, SOURCE, arguments.size, 1)?,
    }
    children::check_interrupted()?;
    let database = folder.catalog().find(SOURCE)?.ok_or("the database is gone")?;
    let bytes = database.files.iter().map(|file| file.size).sum();
    say::out(format_args!(
        "database   {} in {} file(s), {}, {:.2} s",
        show_bytes(bytes),
        database.files.len(),
        if arguments.database.is_some() { "imported" } else { "made" },
        started.elapsed().as_secs_f64()
    ));

    let name = format!("vdi-demo-{}", std::process::id());
    // As SQL Server, the restore needs to know where the files of another database than the backed up one go.
    let moves = database.files.iter().map(|file| {
        let path = file.path.to_string_lossy();
        let (folder, name) = path.rsplit_once('/').unwrap_or(("", &path));
        let target = format!("{folder}/{}", name.replacen(SOURCE, TARGET, 1));
        format!(", MOVE {} TO {}", quoted(&file.logical_name), quoted(&target))
    });
    let moves = moves.collect();
    let demo = Demo { arguments, data: &data, backup: &backup, runtime: runtime.path(), bytes, moves };
    let out = demo.leg(&format!("{name}-out"), false)?;
    print_leg("backup", &out, bytes);
    let back = demo.leg(&format!("{name}-back"), true)?;
    print_leg("restore", &back, bytes);

    let (before, after) = (digest_database(&folder, SOURCE)?, digest_database(&folder, TARGET)?);
    say::out(format_args!("SHA-256    {before}  {SOURCE}\n           {after}  {TARGET}"));
    say::out(format_args!(
        "processes  1 server, 1 primary, {} worker(s) a direction; {} device(s)",
        arguments.workers, arguments.devices
    ));
    if let Some(folder) = &arguments.keep {
        say::out(format_args!("kept       {}", folder.display()));
    }
    if before != after {
        return Err("the restored database differs from the original".into());
    }
    content::compare(&folder, SOURCE, TARGET)?;
    if let Some(path) = &arguments.database {
        let target = root.join(TARGET);
        content::export(&folder, TARGET, &target)?;
        compare_files(path, &target)?;
    }
    say::out(format_args!("identical  the database came back byte for byte"));
    Ok(())
}

fn print_leg(what: &str, leg: &Leg, bytes: u64) {
    let seconds = leg.elapsed.as_secs_f64();
    say::out(format_args!(
        "{what:<10} {} in {seconds:.2} s, {:.2} GB/s, {} commands, {} handles mapped by workers",
        show_bytes(bytes),
        bytes as f64 / seconds / 1e9,
        leg.commands,
        leg.handles
    ));
}

fn show_bytes(bytes: u64) -> String {
    format!("{bytes} bytes ({:.1} MiB)", bytes as f64 / (1u64 << 20) as f64)
}

struct Demo<'a> {
    arguments: &'a Arguments,
    data: &'a Path,
    backup: &'a Path,
    runtime: &'a Path,
    bytes: u64,
    /// Where the restore puts the files.
    moves: String,
}

impl Demo<'_> {
    fn program(&self) -> std::io::Result<Command> {
        let mut program = Command::new(std::env::current_exe()?);
        program.env("VDI_RUNTIME_DIR", self.runtime);
        Ok(program)
    }

    /// One direction: a primary with its workers, and a server that runs the statement.
    fn leg(&self, set: &str, restore: bool) -> Result<Leg, Box<dyn Error>> {
        let Arguments { devices, workers, .. } = self.arguments;
        let mut primary = self.program()?;
        primary.args(["demo-primary", "--set", set]);
        primary.args(["--devices", &devices.to_string(), "--workers", &workers.to_string()]);
        primary.arg("--folder").arg(self.backup);
        if restore {
            primary.arg("--restore");
        }
        let mut primary = children::start(&mut primary)?;
        let mut lines = BufReader::new(primary.0.stdout.take().ok_or("the primary has no output")?).lines();
        if lines.next().transpose()?.as_deref() != Some("ready") {
            children::check_interrupted()?;
            return Err("the primary could not create its set".into());
        }

        let started = Instant::now();
        let mut server = self.program()?;
        server.args(["sql", "--end-with-input", "--data"]).arg(self.data);
        server.arg("-Q").arg(self.statement(set, restore));
        let mut server = children::start(&mut server)?;
        let bar = self.bar(if restore { "restore" } else { "backup" })?;
        let primary_id = primary.0.id();
        let (counted, served) = std::thread::scope(|scope| {
            let (done, is_done) = channel::<()>();
            let serving = std::thread::Builder::new().spawn_scoped(scope, move || {
                let mut messages = String::new();
                if let Some(mut output) = server.0.stdout.take() {
                    output.read_to_string(&mut messages)?;
                }
                let status = server.wait()?;
                // A client whose server has failed learns that from its set, unless the server never came that far.
                if !status.success() && is_done.recv_timeout(CLIENT_GRACE) == Err(RecvTimeoutError::Timeout) {
                    children::kill_if_running(primary_id);
                }
                std::io::Result::Ok((status, messages))
            })?;
            let counted = self.follow(&mut lines, &bar);
            drop(done);
            let served = serving.join().map_err(|_| std::io::Error::other("the thread that waits panicked"))?;
            std::io::Result::Ok((counted?, served?))
        })?;
        let driven = primary.wait()?;
        let elapsed = started.elapsed();
        bar.finish_and_clear();
        children::check_interrupted()?;
        let (served, messages) = served;
        if !served.success() {
            return Err(format!("the statement failed ({served}):\n{messages}").into());
        }
        if !driven.success() {
            return Err(format!("the client failed ({driven}) although the statement succeeded").into());
        }
        let (commands, handles) = counted.ok_or("the primary did not say what it did")?;
        Ok(Leg { elapsed, commands, handles })
    }

    fn statement(&self, set: &str, restore: bool) -> String {
        let mut statement = if restore {
            format!("RESTORE DATABASE [{TARGET}] FROM ")
        } else {
            format!("BACKUP DATABASE [{SOURCE}] TO ")
        };
        for index in 0..self.arguments.devices {
            let comma = if index == 0 { "" } else { ", " };
            let _ = write!(statement, "{comma}VIRTUAL_DEVICE = '{}'", device_name(set, index));
        }
        let (how, buffers) = (if restore { "REPLACE" } else { "FORMAT" }, (4 * self.arguments.devices).max(8));
        let _ = write!(statement, " WITH {how}, MAXTRANSFERSIZE = 1048576, BLOCKSIZE = 4096, BUFFERCOUNT = {buffers}");
        if restore { statement + &self.moves } else { statement }
    }

    fn bar(&self, what: &'static str) -> Result<ProgressBar, Box<dyn Error>> {
        if !std::io::stderr().is_terminal() {
            return Ok(ProgressBar::hidden());
        }
        let style = "{msg:<10} {wide_bar} {bytes}/{total_bytes} {bytes_per_sec}";
        Ok(ProgressBar::new(self.bytes).with_style(ProgressStyle::with_template(style)?).with_message(what))
    }

    /// Follows what the primary says until it ends; commands and handles, if it got that far.
    fn follow(
        &self,
        lines: &mut std::io::Lines<BufReader<ChildStdout>>,
        bar: &ProgressBar,
    ) -> std::io::Result<Option<(u64, u64)>> {
        let mut counted = None;
        for line in lines {
            let line = line?;
            let mut words = line.split_whitespace();
            let (what, mut number) = (words.next(), || words.next().and_then(|word| word.parse().ok()));
            match what {
                Some("progress") => bar.set_position(number().unwrap_or(0).min(self.bytes)),
                Some("done") => counted = number().zip(number()),
                _ => {}
            }
        }
        Ok(counted)
    }
}

/// A string of a statement.
fn quoted(text: &str) -> String {
    format!("N'{}'", text.replace('\'', "''"))
}

/// One sum over the names and bytes of all data files of a database.
fn digest_database(folder: &DataFolder, name: &str) -> Result<String, Box<dyn Error>> {
    let database = folder.database(name)?;
    let mut sum = Sha256::new();
    for entry in database.row().files.iter().filter(|file| file.file_type == FileType::Data) {
        let file = database.file(entry.file_id).ok_or("a file of the database is not open")?;
        sum.update((entry.logical_name.len() as u64).to_le_bytes());
        sum.update(&entry.logical_name);
        add(&mut sum, file)?;
    }
    Ok(sum.finalize().iter().map(|byte| format!("{byte:02x}")).collect())
}

/// Adds a file's length and bytes to a sum.
fn add(sum: &mut Sha256, file: &File) -> Result<(), Box<dyn Error>> {
    let mut buffer = vec![0; 1 << 20];
    let mut offset = 0;
    loop {
        children::check_interrupted()?;
        let bytes = file.read_at(&mut buffer, offset)?;
        if bytes == 0 {
            sum.update(offset.to_le_bytes());
            return Ok(());
        }
        sum.update(&buffer[..bytes]);
        offset += bytes as u64;
    }
}

/// Compares the user's file, or all files of the user's folder, with what came out of the restored database.
fn compare_files(original: &Path, exported: &Path) -> Result<(), Box<dyn Error>> {
    let exported = match original.file_name() {
        Some(name) if original.is_file() => exported.join(name),
        _ => exported.to_owned(),
    };
    let (expected, found) = (digest_files(original)?, digest_files(&exported)?);
    if expected != found {
        return Err(format!("{} differs from {}", exported.display(), original.display()).into());
    }
    Ok(())
}

/// One sum over the paths and bytes of a file, or of all files of a folder.
fn digest_files(path: &Path) -> Result<Vec<u8>, Box<dyn Error>> {
    let mut sum = Sha256::new();
    let mut places = vec![(path.to_owned(), PathBuf::new())];
    while let Some((place, name)) = places.pop() {
        let failed = |error: std::io::Error| format!("could not read {}: {error}", place.display());
        sum.update(name.as_os_str().as_encoded_bytes());
        sum.update([0]);
        if place.is_dir() {
            let entries: Result<Vec<_>, _> = std::fs::read_dir(&place).map_err(failed)?.collect();
            let mut entries: Vec<_> = entries.map_err(failed)?.into_iter().map(|entry| entry.file_name()).collect();
            entries.sort();
            places.extend(entries.into_iter().map(|entry| (place.join(&entry), name.join(&entry))));
        } else {
            add(&mut sum, &File::open(&place).map_err(failed)?)?;
        }
    }
    Ok(sum.finalize().to_vec())
}
