//! `vdi-sim demo`: a database goes out through a virtual device set and comes back, across real processes.

use std::error::Error;
use std::fmt::Write as _;
use std::fs::File;
use std::io::{BufRead, BufReader, IsTerminal, Read};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};
use sha2::{Digest, Sha256};
use vdi_server_sim::{database::DataFolder, sample};

use crate::demo_client::device_name;

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

const SOURCE: &str = "sample";
const TARGET: &str = "restored";

/// One direction of the demo, as it went.
struct Leg {
    elapsed: Duration,
    commands: u64,
    handles: u64,
}

pub(crate) fn run(arguments: &Arguments) -> Result<(), Box<dyn Error>> {
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
        Some(path) => copy_database(path, &source)?,
        None => drop(sample::create(&source, arguments.size, 1)?),
    }
    let database = DataFolder::new(&data)?.open(SOURCE)?;
    let bytes = database.size();
    println!(
        "database   {} in {} file(s), {}, {:.2} s",
        show_bytes(bytes),
        database.files().len(),
        if arguments.database.is_some() { "copied" } else { "made" },
        started.elapsed().as_secs_f64()
    );

    let name = format!("vdi-demo-{}", std::process::id());
    let demo = Demo { arguments, data: &data, backup: &backup, runtime: runtime.path(), bytes };
    let out = demo.leg(&format!("{name}-out"), false)?;
    print_leg("backup", &out, bytes);
    let back = demo.leg(&format!("{name}-back"), true)?;
    print_leg("restore", &back, bytes);

    let (before, after) = (digest(&data, SOURCE)?, digest(&data, TARGET)?);
    println!("SHA-256    {before}  {SOURCE}\n           {after}  {TARGET}");
    println!(
        "processes  1 server, 1 primary, {} worker(s) a direction; {} device(s)",
        arguments.workers, arguments.devices
    );
    if let Some(folder) = &arguments.keep {
        println!("kept       {}", folder.display());
    }
    if before != after {
        return Err("the restored database differs from the original".into());
    }
    println!("identical  the database came back byte for byte");
    Ok(())
}

fn print_leg(what: &str, leg: &Leg, bytes: u64) {
    let seconds = leg.elapsed.as_secs_f64();
    println!(
        "{what:<10} {} in {seconds:.2} s, {:.2} GB/s, {} commands, {} handles mapped by workers",
        show_bytes(bytes),
        bytes as f64 / seconds / 1e9,
        leg.commands,
        leg.handles
    );
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

/// Kills a process that was not waited for: nothing stays behind when the demo fails.
struct Guard(Child);

impl Drop for Guard {
    fn drop(&mut self) {
        if let Ok(None) = self.0.try_wait() {
            let _ = self.0.kill();
            let _ = self.0.wait();
        }
    }
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
        primary.arg("--folder").arg(self.backup).stdin(Stdio::null()).stdout(Stdio::piped());
        if restore {
            primary.arg("--restore");
        }
        let mut primary = Guard(primary.spawn()?);
        let mut lines = BufReader::new(primary.0.stdout.take().ok_or("the primary has no output")?).lines();
        if lines.next().transpose()?.as_deref() != Some("ready") {
            return Err("the primary could not create its set".into());
        }

        let started = Instant::now();
        let mut server = self.program()?;
        server.arg("sql").arg("--data").arg(self.data).arg("-Q").arg(self.statement(set, restore));
        let mut server = Guard(server.stdin(Stdio::null()).stdout(Stdio::piped()).spawn()?);
        let bar = self.bar(if restore { "restore" } else { "backup" })?;
        let counted = self.follow(&mut lines, &bar)?;
        let mut messages = String::new();
        if let Some(mut output) = server.0.stdout.take() {
            output.read_to_string(&mut messages)?;
        }
        let (served, driven) = (server.0.wait()?, primary.0.wait()?);
        let elapsed = started.elapsed();
        bar.finish_and_clear();
        if !served.success() {
            return Err(format!("the statement failed:\n{messages}").into());
        }
        if !driven.success() {
            return Err("the client failed although the statement succeeded".into());
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

/// Copies the user's file, or the files of the user's folder.
fn copy_database(from: &Path, to: &Path) -> Result<(), Box<dyn Error>> {
    let failed = |path: &Path, error: std::io::Error| format!("could not copy {}: {error}", path.display());
    if from.is_file() {
        let name = from.file_name().ok_or("the database's file has no name")?;
        std::fs::copy(from, to.join(name)).map_err(|error| failed(from, error))?;
        return Ok(());
    }
    for entry in std::fs::read_dir(from).map_err(|error| failed(from, error))? {
        let path = entry?.path();
        let name = path.file_name().ok_or("a file without a name")?;
        if path.is_dir() {
            let below = to.join(name);
            std::fs::create_dir_all(&below)?;
            copy_database(&path, &below)?;
        } else {
            std::fs::copy(&path, to.join(name)).map_err(|error| failed(&path, error))?;
        }
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
