//! The processes of a run, and the lines by which they talk.
//!
//! A *driver* measures. It starts the *peer* that it talks to. Both are this program, in a role. A process prints `ready` when
//! it is. Then its standard input has a line for each task, and its standard output a line for each result. It ends when its
//! input ends. It is killed when its parent dies.

use std::error::Error;
use std::ffi::{OsStr, OsString};
use std::io::{self, BufRead, BufReader, Write};
use std::ops::AddAssign;
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Signal, set_parent_process_death_signal};

/// The result of what can fail.
pub(crate) type Fallible<T> = Result<T, Box<dyn Error + Send + Sync>>;

/// The first argument of a process in a role.
pub(crate) const ROLE: &str = "role";

/// How long a process may take to end after its input has ended. Then it is killed.
const GRACE: Duration = Duration::from_secs(5);

/// What a round took.
#[derive(Debug, Default, Clone, Copy)]
pub(crate) struct Cost {
    pub(crate) elapsed: Duration,
    /// CPU time of all processes that took part; zero where no row needs it.
    pub(crate) cpu: Duration,
}

impl From<Duration> for Cost {
    fn from(elapsed: Duration) -> Cost {
        Cost { elapsed, cpu: Duration::ZERO }
    }
}

impl AddAssign for Cost {
    fn add_assign(&mut self, more: Cost) {
        self.elapsed += more.elapsed;
        self.cpu += more.cpu;
    }
}

/// How to start a process.
#[derive(Debug)]
pub(crate) struct Start {
    arguments: Vec<OsString>,
}

impl Start {
    /// This program in a role that works in `dir`.
    pub(crate) fn new(role: &str, dir: &Path) -> Start {
        Start { arguments: vec![ROLE.into(), role.into(), dir.into()] }
    }

    /// One more argument of the role.
    #[must_use]
    pub(crate) fn with(mut self, argument: impl AsRef<OsStr>) -> Start {
        self.arguments.push(argument.as_ref().into());
        self
    }

    /// Starts it, and waits until it is ready.
    pub(crate) fn start(self) -> Fallible<Process> {
        let mut command = Command::new(std::env::current_exe()?);
        let mut child = command.args(&self.arguments).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
        let input = child.stdin.take();
        let output = BufReader::new(child.stdout.take().ok_or("a process without an output")?);
        let mut process = Process { child, input, output };
        match process.hear()?.as_str() {
            "ready" => Ok(process),
            other => Err(format!("{:?} printed {other:?} instead of \"ready\"", self.arguments).into()),
        }
    }
}

/// A process of this program, in a role.
#[derive(Debug)]
pub(crate) struct Process {
    child: Child,
    input: Option<ChildStdin>,
    output: BufReader<ChildStdout>,
}

impl Process {
    /// Its process ID.
    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }

    /// Sends it a line.
    pub(crate) fn say(&mut self, line: &str) -> Fallible<()> {
        let input = self.input.as_mut().ok_or("the process was told to end")?;
        input.write_all(format!("{line}\n").as_bytes())?;
        Ok(())
    }

    /// The next line that it prints.
    pub(crate) fn hear(&mut self) -> Fallible<String> {
        let mut line = String::new();
        if self.output.read_line(&mut line)? == 0 {
            return Err("a process ended too early; its error is above".into());
        }
        Ok(line.trim_end().to_owned())
    }

    /// Has a driver carry out `count` operations.
    pub(crate) fn run(&mut self, count: u64) -> Fallible<Cost> {
        self.say(&count.to_string())?;
        let answer = self.hear()?;
        let (elapsed, cpu) = answer.split_once(' ').ok_or("a driver prints two numbers")?;
        Ok(Cost { elapsed: Duration::from_nanos(elapsed.parse()?), cpu: Duration::from_nanos(cpu.parse()?) })
    }

    /// Ends it, and waits until it has ended.
    pub(crate) fn end(mut self) -> Fallible<()> {
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

/// Has this process killed when its parent dies. The main thread calls it.
pub(crate) fn die_with_parent() -> Fallible<()> {
    set_parent_process_death_signal(Some(Signal::KILL))?;
    Ok(())
}

/// Prints a line for the parent.
pub(crate) fn tell(line: &str) -> Fallible<()> {
    let mut output = io::stdout().lock();
    output.write_all(format!("{line}\n").as_bytes())?;
    output.flush()?;
    Ok(())
}

/// Works whenever the parent sends a line, until the input ends.
pub(crate) fn on_demand(mut work: impl FnMut(&str) -> Fallible<()>) -> Fallible<()> {
    tell("ready")?;
    let mut line = String::new();
    while io::stdin().lock().read_line(&mut line)? > 0 {
        work(line.trim_end())?;
        line.clear();
    }
    Ok(())
}

/// A driver: carries out the rounds that it is told to, and prints what each took.
pub(crate) fn rounds<C: Into<Cost>>(mut round: impl FnMut(u64) -> Fallible<C>) -> Fallible<()> {
    on_demand(|line| {
        let Cost { elapsed, cpu } = round(line.parse()?)?.into();
        tell(&format!("{} {}", elapsed.as_nanos(), cpu.as_nanos()))
    })
}
