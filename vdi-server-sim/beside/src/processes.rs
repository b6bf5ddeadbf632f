//! Processes that take part, and the lines by which they are told what to do.
//!
//! A process says `ready` when it is. From then on its standard input has a line for each thing to do, and its standard output
//! a line for each thing done; the end of the input is its end. It dies with whoever started it.

use std::error::Error;
use std::ffi::{OsStr, OsString};
use std::io::{self, BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Signal, set_parent_process_death_signal};
use rustix::thread::{CpuSet, sched_setaffinity};

/// What can fail fails with words.
pub type Fallible<T> = Result<T, Box<dyn Error + Send + Sync>>;

/// The first argument of a process that takes part.
pub const ROLE: &str = "role";

/// The variable with the CPU of a process, and the one with that of the processes that it starts.
const CPU: &str = "BESIDE_CPU";
const PEERS_CPU: &str = "BESIDE_PEERS_CPU";

/// How long a process has to end after its input has ended, before it is killed.
const GRACE: Duration = Duration::from_secs(5);

/// A process of this program, in a role.
#[derive(Debug)]
pub struct Process {
    child: Child,
    input: Option<ChildStdin>,
    output: BufReader<ChildStdout>,
}

/// How to start a process.
#[derive(Debug, Default, Clone)]
pub struct Start {
    arguments: Vec<OsString>,
    environment: Vec<(String, String)>,
    under: Vec<OsString>,
}

impl Start {
    /// This program in a role that works in `dir`.
    pub fn new(role: &str, dir: &Path) -> Start {
        Start { arguments: vec![ROLE.into(), role.into(), dir.into()], ..Start::default() }
    }

    /// One more argument of the role.
    #[must_use]
    pub fn with(mut self, argument: impl AsRef<OsStr>) -> Start {
        self.arguments.push(argument.as_ref().into());
        self
    }

    /// A variable of its environment, which those that it starts inherit.
    #[must_use]
    pub fn env(mut self, name: &str, value: &str) -> Start {
        self.environment.push((name.to_owned(), value.to_owned()));
        self
    }

    /// On CPU `own`, and the process that it starts on CPU `others`.
    #[must_use]
    pub fn on_cpus(self, own: usize, others: usize) -> Start {
        self.env(CPU, &own.to_string()).env(PEERS_CPU, &others.to_string())
    }

    /// A program to run it under, with its arguments.
    #[must_use]
    pub fn under(mut self, words: &[&OsStr]) -> Start {
        self.under = words.iter().map(OsString::from).collect();
        self
    }

    /// Starts it, and waits until it says that it is ready.
    pub fn start(&self) -> Fallible<Process> {
        let mut words = self.under.clone();
        words.push(std::env::current_exe()?.into());
        words.extend(self.arguments.iter().cloned());
        let mut command = Command::new(&words[0]);
        command.args(&words[1..]).stdin(Stdio::piped()).stdout(Stdio::piped());
        if let Some(cpu) = std::env::var_os(PEERS_CPU) {
            command.env(CPU, cpu);
        }
        command.envs(self.environment.iter().map(|(name, value)| (name, value)));
        let mut child = command.spawn().map_err(|error| format!("could not start {:?}: {error}", words[0]))?;
        let input = child.stdin.take();
        let output = BufReader::new(child.stdout.take().ok_or("a process without an output")?);
        let mut process = Process { child, input, output };
        match process.hear()?.as_str() {
            "ready" => Ok(process),
            other => Err(format!("{words:?} said {other:?} instead of being ready").into()),
        }
    }
}

impl Process {
    /// Its number.
    #[must_use]
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Tells it to do something.
    pub fn say(&mut self, line: &str) -> Fallible<()> {
        let input = self.input.as_mut().ok_or("the process was told to end")?;
        input.write_all(format!("{line}\n").as_bytes())?;
        Ok(())
    }

    /// The next line that it says.
    pub fn hear(&mut self) -> Fallible<String> {
        let mut line = String::new();
        if self.output.read_line(&mut line)? == 0 {
            return Err("a process ended before its time; what it said is above".into());
        }
        Ok(line.trim_end().to_owned())
    }

    /// Has it carry out `count` operations; the nanoseconds that they took.
    pub fn run(&mut self, count: u64) -> Fallible<f64> {
        self.say(&count.to_string())?;
        Ok(self.hear()?.parse()?)
    }

    /// Ends it, and waits until it has ended.
    pub fn end(mut self) -> Fallible<()> {
        self.input = None;
        let status = self.child.wait()?;
        if status.success() { Ok(()) } else { Err(format!("a process ended with {status}").into()) }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.input = None;
        let until = Instant::now() + GRACE;
        while let Ok(None) = self.child.try_wait() {
            if Instant::now() > until {
                let _ = self.child.kill();
                let _ = self.child.wait();
                return;
            }
            std::thread::sleep(Duration::from_millis(1));
        }
    }
}

/// Has this process die with the one that started it. To be called by the main thread.
pub fn die_with_parent() -> Fallible<()> {
    set_parent_process_death_signal(Some(Signal::KILL))?;
    Ok(())
}

/// Stays on the CPU that whoever started this process has chosen for it, if one was.
pub fn stay_on_cpu() -> Fallible<()> {
    if let Ok(cpu) = std::env::var(CPU) {
        let mut cpus = CpuSet::new();
        cpus.set(cpu.parse()?);
        sched_setaffinity(None, &cpus)?;
    }
    Ok(())
}

/// Says a line to whoever started this process.
pub fn tell(line: &str) -> Fallible<()> {
    let mut output = io::stdout().lock();
    output.write_all(format!("{line}\n").as_bytes())?;
    output.flush()?;
    Ok(())
}

/// The next line from whoever started this process; `None` when this process is to end.
pub fn next_line() -> Fallible<Option<String>> {
    let mut line = String::new();
    Ok((io::stdin().lock().read_line(&mut line)? > 0).then(|| line.trim_end().to_owned()))
}

/// A driver's life: carries out the rounds that it is asked for, and tells what each took.
pub fn rounds(mut round: impl FnMut(u64) -> Fallible<Duration>) -> Fallible<()> {
    tell("ready")?;
    while let Some(line) = next_line()? {
        let elapsed = round(line.parse()?)?;
        tell(&elapsed.as_nanos().to_string())?;
    }
    Ok(())
}

/// A peer's life: works whenever it is told to.
pub fn on_demand(mut work: impl FnMut(&str) -> Fallible<()>) -> Fallible<()> {
    tell("ready")?;
    while let Some(line) = next_line()? {
        work(&line)?;
    }
    Ok(())
}
