//! Measures virtual device sets against the raw limits of the machine and against other ways to move the same data. All take
//! turns, and a ratio is of rounds that lie next to each other. The README says what each row means.

mod against;
mod baselines;
mod costs;
mod database;
mod handles;
mod measure;
mod parts;
mod processes;
mod report;
mod roles;
mod set;
mod statements;

use std::fs;
use std::path::PathBuf;
use std::process::ExitCode;
use std::thread::available_parallelism;
use std::time::Instant;

use clap::Parser;
use clap::builder::PossibleValuesParser;

use measure::host;
use parts::{PARTS, Plan};
use processes::{Fallible, ROLE};
use report::Report;

/// This workspace's own `vdi-sim`, as `cargo build --release --bin vdi-sim` makes it.
const OWN_SIM: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../target/release/vdi-sim");

/// Measures virtual device sets against the raw limits of the machine and against other ways to move the same data.
#[derive(Parser)]
struct Arguments {
    /// Shows that everything runs, and measures nothing
    #[arg(long)]
    quick: bool,
    /// Runs only this part; may be given more than once
    #[arg(long, value_name = "PART", value_parser = PossibleValuesParser::new(PARTS))]
    only: Vec<String>,
    /// Runs BACKUP and RESTORE by this build of vdi-sim and by another one in turn, and nothing else
    #[arg(long, value_name = "VDI_SIM", conflicts_with = "only")]
    against: Option<PathBuf>,
    /// This build of vdi-sim, for --against
    #[arg(long, value_name = "VDI_SIM", default_value = OWN_SIM)]
    sim: PathBuf,
    /// Writes all rows with all rounds
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Writes the rows as a table in Markdown
    #[arg(long, value_name = "FILE")]
    table: Option<PathBuf>,
    /// Where to work, on a disk; by default the folder for temporary files
    #[arg(long, value_name = "DIR")]
    dir: Option<PathBuf>,
}

/// What the figures depend on.
fn machine() -> Vec<(&'static str, String)> {
    let read = |path| fs::read_to_string(path).unwrap_or_default();
    let cpu = read("/proc/cpuinfo");
    let model = cpu.lines().find_map(|line| line.strip_prefix("model name")?.split_once(": ")).map(|(_, name)| name);
    let cores = available_parallelism().map_or(1, usize::from);
    let load: f64 =
        read("/proc/loadavg").split_whitespace().next().and_then(|load| load.parse().ok()).unwrap_or_default();
    // Each of two processes needs a core.
    let busy = if load > cores as f64 - 1.0 { " (the machine is busy: baselines that spin look too slow)" } else { "" };
    vec![
        ("processor", model.unwrap_or("unknown").to_owned()),
        ("cores", cores.to_string()),
        ("system", read("/proc/sys/kernel/osrelease").trim().to_owned()),
        ("load at the start", format!("{load}{busy}")),
    ]
}

fn measure(arguments: &Arguments, plan: &Plan, report: &mut Report) -> Fallible<()> {
    if let Some(other) = &arguments.against {
        let ours = arguments.sim.canonicalize().map_err(|error| {
            format!("{}: {error}; cargo build --release --bin vdi-sim makes it", arguments.sim.display())
        })?;
        let other = other.canonicalize().map_err(|error| format!("{}: {error}", other.display()))?;
        return parts::against(&ours, &other, plan, report);
    }
    let wanted = |part: &&str| arguments.only.is_empty() || arguments.only.iter().any(|only| only == part);
    for part in PARTS.into_iter().filter(wanted) {
        parts::run(part, plan, report).map_err(|error| format!("{part}: {error}"))?;
    }
    Ok(())
}

fn run(words: &[String]) -> Fallible<()> {
    if words.first().is_some_and(|word| word == ROLE) {
        return roles::run(&words[1..]);
    }
    let arguments = Arguments::parse();
    let mut builder = tempfile::Builder::new();
    builder.prefix("vdi-bench-");
    let scratch = match &arguments.dir {
        Some(dir) => builder.tempdir_in(dir.canonicalize()?)?,
        None => builder.tempdir()?,
    };
    let mut machine = machine();
    Report::begin(&machine);
    let (started, mut report) = (Instant::now(), Report::default());
    let plan = Plan { quick: arguments.quick, scratch: scratch.path().to_path_buf() };
    measure(&arguments, &plan, &mut report)?;
    let (met, goals) = report.goals();
    println!("\n{met} of {goals} goals met, in {:.0} s", started.elapsed().as_secs_f64());
    let (again, disturbed) = host::rounds();
    let (what, rounds) = ("rounds in which the host took CPU time", format!("{again} repeated, {disturbed} not"));
    println!("{what}: {rounds}");
    machine.push((what, rounds));
    if plan.quick {
        println!("(a quick run: whether everything runs, not how fast)");
    }
    if let Some(file) = &arguments.json {
        fs::write(file, format!("{:#}\n", report.json(&machine)))?;
    }
    if let Some(file) = &arguments.table {
        fs::write(file, report.table())?;
    }
    Ok(())
}

fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().skip(1).collect();
    match run(&words) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("vdi-bench: {error}");
            ExitCode::FAILURE
        }
    }
}
