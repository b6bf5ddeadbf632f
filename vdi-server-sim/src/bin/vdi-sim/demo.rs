//! `vdi-sim demo`: a database goes out through a virtual device set and comes back, across real processes.

use std::error::Error;
use std::fmt::Write as _;
use std::fs::File;
use std::io::{BufRead, BufReader, IsTerminal, Read};
use std::path::{Path, PathBuf};
use std::process::{ChildStdout, Command};
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};
use sha2::{Digest, Sha256};
use vdi_server_sim::{database::DataFolder, sample};

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
fn parse_size(text: &str) -> Result<u64, String> {
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
    let source = data.join(SOURCE);
    std::fs::create_dir_all(&backup)?;
    if source.exists() {
        return Err(format!("{} exists already; give --keep another folder", source.display()).into());
    }
    std::fs::create_dir_all(&source)?;

    let started = Instant::now();
    match &arguments.database {
        Some(path) => {
            let path = path.canonicalize().map_err(|error| format!("{}: {error}", path.display()))?;
            if root.starts_with(&path) {
                return Err(format!("{} lies within the database; keep it elsewhere", root.display()).into());
            }
            let name = path.file_name().ok_or("the database's file has no name")?;
            copy_database(&path, &if path.is_file() { source.join(name) } else { source.clone() })?;
        }
        None => drop(sample::create(&source, arguments.size, 1)?),
    }
    let database = DataFolder::new(&data)?.open(SOURCE)?;
    let bytes = database.size();
    say::out(format_args!(
        "database   {} in {} file(s), {}, {:.2} s",
        show_bytes(bytes),
        database.files().len(),
        if arguments.database.is_some() { "copied" } else { "made" },
        started.elapsed().as_secs_f64()
    ));

    let name = format!("vdi-demo-{}", std::process::id());
    let demo = Demo { arguments, data: &data, backup: &backup, runtime: runtime.path(), bytes };
    let out = demo.leg(&format!("{name}-out"), false)?;
    print_leg("backup", &out, bytes);
    let back = demo.leg(&format!("{name}-back"), true)?;
    print_leg("restore", &back, bytes);

    let (before, after) = (digest(&data, SOURCE)?, digest(&data, TARGET)?);
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
        statement
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

/// Copies the user's file, or the files of the user's folder. Anything but files and folders is refused.
fn copy_database(from: &Path, to: &Path) -> Result<(), Box<dyn Error>> {
    children::check_interrupted()?;
    let failed = |error: std::io::Error| format!("could not copy {}: {error}", from.display());
    let kind = std::fs::symlink_metadata(from).map_err(failed)?.file_type();
    if kind.is_file() {
        std::fs::copy(from, to).map_err(failed)?;
        return Ok(());
    }
    if !kind.is_dir() {
        return Err(format!("{} is neither a file nor a folder", from.display()).into());
    }
    std::fs::create_dir_all(to).map_err(failed)?;
    for entry in std::fs::read_dir(from).map_err(failed)? {
        let entry = entry.map_err(failed)?;
        copy_database(&entry.path(), &to.join(entry.file_name()))?;
    }
    Ok(())
}

/// One sum over the names and bytes of all files of a database.
fn digest(data: &Path, name: &str) -> Result<String, Box<dyn Error>> {
    let database = DataFolder::new(data)?.open(name)?;
    let mut sum = Sha256::new();
    let mut buffer = vec![0; 1 << 20];
    for (index, entry) in database.files().iter().enumerate() {
        sum.update((entry.path.len() as u64).to_le_bytes());
        sum.update(&entry.path);
        sum.update(entry.size.to_le_bytes());
        let mut file: File = database.open_file(index)?;
        loop {
            children::check_interrupted()?;
            let bytes = file.read(&mut buffer)?;
            if bytes == 0 {
                break;
            }
            sum.update(&buffer[..bytes]);
        }
    }
    let mut text = String::new();
    for byte in sum.finalize() {
        let _ = write!(text, "{byte:02x}");
    }
    Ok(text)
}
