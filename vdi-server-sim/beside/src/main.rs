//! Runs everything side by side: our sets, the raw limits of the machine, and every other way to carry the same commands and
//! the same bytes; all of them take turns, and each row is a ratio of rounds that lie next to each other.

mod backup;
mod bare_backup;
mod costs;
mod handles;
mod measure;
mod parts;
mod plot;
mod report;
mod roles;
mod touch;
mod ways;

use std::fs;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Instant;

use clap::Parser;
use clap::builder::PossibleValuesParser;
use vdi_beside::processes::{Fallible, ROLE};

use measure::host;
use parts::{PARTS, Plan};
use plot::Frame;
use report::Report;

/// Runs virtual device sets beside the raw limits of the machine and beside every other way to do the same, in one run.
#[derive(Parser)]
struct Arguments {
    /// A moment a part: shows that everything runs, and measures nothing.
    #[arg(long)]
    quick: bool,
    /// Runs this part only; may come several times.
    #[arg(long, value_name = "PART", value_parser = PossibleValuesParser::new(PARTS))]
    only: Vec<String>,
    /// Writes all rows with all rounds.
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Writes the rows as a table for a README.
    #[arg(long, value_name = "FILE")]
    table: Option<PathBuf>,
    /// Writes throughput.svg and devices.svg.
    #[arg(long, value_name = "DIR")]
    plot: Option<PathBuf>,
    /// Where to work, on a disk; by default the folder for temporary files.
    #[arg(long, value_name = "DIR")]
    dir: Option<PathBuf>,
}

/// How many wanted to run in the last minute.
fn load() -> f64 {
    let text = fs::read_to_string("/proc/loadavg").unwrap_or_default();
    text.split_whitespace().next().and_then(|load| load.parse().ok()).unwrap_or_default()
}

/// Whether less than a core is free for each of two processes.
fn is_busy(load: f64) -> bool {
    load > roles::cores() as f64 - 1.0
}

/// What the numbers depend on.
fn machine() -> Vec<(&'static str, String)> {
    let read = |path| fs::read_to_string(path).unwrap_or_default();
    let cpu = read("/proc/cpuinfo");
    let model = cpu.lines().find_map(|line| line.strip_prefix("model name")?.split_once(": ")).map(|(_, name)| name);
    let load = load();
    let busy = if is_busy(load) { " (others are at work: ways that spin will look far too slow)" } else { "" };
    let optional = if cfg!(feature = "tracing") { "tracing" } else { "none" };
    vec![
        ("processor", model.unwrap_or("unknown").to_owned()),
        ("cores", roles::cores().to_string()),
        ("system", read("/proc/sys/kernel/osrelease").trim().to_owned()),
        ("load at the start", format!("{load}{busy}")),
        ("optional features of ours", optional.to_owned()),
    ]
}

fn run(words: &[String]) -> Fallible<()> {
    if words.first().is_some_and(|word| word == ROLE) {
        return roles::run(&words[1..]);
    }
    let arguments = Arguments::parse();
    let mut builder = tempfile::Builder::new();
    builder.prefix("vdi-beside-");
    let scratch = match &arguments.dir {
        Some(dir) => builder.tempdir_in(dir)?,
        None => builder.tempdir()?,
    };
    let mut machine = machine();
    Report::begin(&machine);
    let started = Instant::now();
    let mut report = Report::default();
    let plan = Plan { quick: arguments.quick };
    for part in
        PARTS.into_iter().filter(|part| arguments.only.is_empty() || arguments.only.iter().any(|only| only == part))
    {
        parts::run(part, scratch.path(), &plan, &mut report).map_err(|error| format!("{part}: {error}"))?;
    }
    let (goals, met) = report.goals();
    println!("\n{met} of {goals} goals met, in {:.0} s", started.elapsed().as_secs_f64());
    let (again, disturbed) = host::turns();
    let (what, turns) = ("turns in which the host took CPU time", format!("{again} taken again, {disturbed} not"));
    println!("{what}: {turns}");
    machine.push((what, turns));
    if plan.quick {
        println!("(a quick run: whether everything runs, not how fast)");
    }
    if let Some(file) = &arguments.json {
        fs::write(file, format!("{:#}\n", report.json(&machine)))?;
    }
    if let Some(file) = &arguments.table {
        fs::write(file, report.table())?;
    }
    if let Some(dir) = &arguments.plot {
        fs::create_dir_all(dir)?;
        for frame in &FRAMES {
            if let Some(svg) = plot::draw(frame, &report.points) {
                fs::write(dir.join(format!("{}.svg", frame.plot)), svg)?;
            }
        }
    }
    Ok(())
}

const FRAMES: [Frame; 2] = [
    Frame {
        plot: "throughput",
        title: "Streaming: copied into a buffer, summed by the other process",
        x: "bytes of a transfer",
        y: "GB/s",
        show_x: |bytes| match bytes / 1024.0 {
            kib if kib < 1024.0 => format!("{kib:.0} KiB"),
            kib => format!("{:.0} MiB", kib / 1024.0),
        },
    },
    Frame {
        plot: "devices",
        title: "A command and its completion, one under way on each device",
        x: "devices",
        y: "ns",
        show_x: |devices| format!("{devices:.0}"),
    },
];

fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().skip(1).collect();
    match run(&words) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("beside: {error}");
            ExitCode::FAILURE
        }
    }
}
