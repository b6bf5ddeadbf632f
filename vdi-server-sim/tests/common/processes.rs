//! Processes: the simulator with a statement, and this test program in another role.

use std::ffi::OsStr;
use std::io::{BufRead, BufReader, Read, Write};
use std::process::{Child, ChildStdin, ChildStdout, Command, ExitStatus, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, PidfdFlags, Signal, kill_process, pidfd_open};

use super::TEST_TIMEOUT;
use super::bench::Bench;
use super::tasks::wait_until_asleep;

/// A process. Dropping it kills and reaps it.
pub(crate) struct Guarded(Child);

impl Guarded {
    pub(crate) fn start(command: &mut Command) -> Guarded {
        Guarded(command.spawn().unwrap())
    }

    pub(crate) fn id(&self) -> u32 {
        self.0.id()
    }

    /// Its standard input and output, which must be pipes.
    pub(crate) fn pipes(&mut self) -> (ChildStdin, ChildStdout) {
        (self.0.stdin.take().unwrap(), self.0.stdout.take().unwrap())
    }

    /// Sends a signal.
    pub(crate) fn signal(&self, signal: Signal) {
        // Only `wait` and `kill` reap the process, so its id is not reused.
        kill_process(Pid::from_child(&self.0), signal).unwrap();
    }

    /// Sends SIGKILL, and reaps the process.
    pub(crate) fn kill(&mut self) {
        self.0.kill().unwrap();
        self.0.wait().unwrap();
    }

    #[track_caller]
    pub(crate) fn wait(&mut self) -> ExitStatus {
        if let Ok(Some(status)) = self.0.try_wait() {
            return status;
        }
        let pid = Pid::from_raw(self.0.id() as i32).unwrap();
        let descriptor = pidfd_open(pid, PidfdFlags::empty()).unwrap();
        let timeout = Timespec { tv_sec: TEST_TIMEOUT.as_secs() as i64, tv_nsec: 0 };
        let ended = poll(&mut [PollFd::new(&descriptor, PollFlags::IN)], Some(&timeout)).unwrap();
        assert_eq!(ended, 1, "process {} did not end within {TEST_TIMEOUT:?}", self.0.id());
        self.0.wait().unwrap()
    }
}

impl Drop for Guarded {
    fn drop(&mut self) {
        if let Ok(None) = self.0.try_wait() {
            let _ = self.0.kill();
            let _ = self.0.wait();
        }
    }
}

/// A process that executes a statement, or another program.
pub(crate) struct Statement {
    pub(crate) process: Guarded,
    output: Receiver<String>,
    text: String,
}

/// The result of a statement.
#[derive(Debug)]
pub(crate) struct Outcome {
    pub(crate) status: ExitStatus,
    /// The output on both streams.
    pub(crate) text: String,
}

impl Bench {
    /// Starts `vdi-sim sql`.
    pub(crate) fn sql(&self, statement: &str) -> Statement {
        self.sql_with(statement, |_| {})
    }

    /// Starts `vdi-sim sql`, with more arguments or another environment.
    pub(crate) fn sql_with(&self, statement: &str, change: impl FnOnce(&mut Command)) -> Statement {
        let mut command = Command::new(env!("CARGO_BIN_EXE_vdi-sim"));
        command.arg("sql").arg("--data").arg(self.data()).args(["-Q", statement]);
        change(&mut command);
        self.run(command)
    }

    /// Starts a program, with this bench's runtime directory unless the command sets another one.
    pub(crate) fn run(&self, mut command: Command) -> Statement {
        if command.get_envs().all(|(name, _)| name != "VDI_RUNTIME_DIR") {
            command.env("VDI_RUNTIME_DIR", self.runtime());
        }
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut process = Guarded::start(&mut command);
        let (sender, output) = channel();
        forward_lines(process.0.stdout.take().unwrap(), sender.clone());
        forward_lines(process.0.stderr.take().unwrap(), sender);
        Statement { process, output, text: String::new() }
    }

    /// Starts this test program in another role: see [`run_role`].
    pub(crate) fn part(&self, name: &str, arguments: &[&str]) -> Part {
        self.part_with(name, arguments, |_| {})
    }

    pub(crate) fn part_with(&self, name: &str, arguments: &[&str], change: impl FnOnce(&mut Command)) -> Part {
        let mut command = Command::new(std::env::current_exe().unwrap());
        cast(&mut command, name, arguments);
        command.env("VDI_RUNTIME_DIR", self.runtime());
        change(&mut command);
        command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::piped());
        let mut process = Guarded::start(&mut command);
        let (sender, lines) = channel();
        forward_lines(process.0.stderr.take().unwrap(), sender);
        let orders = process.0.stdin.take();
        Part { name: name.to_owned(), process, orders, lines, log: Arc::default() }
    }
}

/// Sets the role of a command that starts this test program: see [`run_role`].
pub(crate) fn cast<'a>(command: &'a mut Command, part: &str, arguments: &[&str]) -> &'a mut Command {
    command.args(["::child_entry", "--nocapture", "--test-threads=1"]);
    command.env(PART, part).env(ARGUMENTS, arguments.join("\n"))
}

/// Runs a program through another program: `outer`, followed by the program and its arguments.
pub(crate) fn within(command: &mut Command, outer: &[&OsStr]) {
    let mut whole = Command::new(outer[0]);
    whole.args(&outer[1..]).arg(command.get_program()).args(command.get_args());
    for (name, value) in command.get_envs() {
        match value {
            Some(value) => whole.env(name, value),
            None => whole.env_remove(name),
        };
    }
    *command = whole;
}

/// Runs a program through a shell that runs `line` first.
pub(crate) fn after(command: &mut Command, line: &str) {
    within(command, &["sh".as_ref(), "-c".as_ref(), format!("{line} && exec \"$0\" \"$@\"").as_ref()]);
}

/// Runs a program with SIGCHLD ignored. `env` does this, because some shells reset ignored signals.
pub(crate) fn ignoring_sigchld(command: &mut Command) {
    within(command, &["env".as_ref(), "--ignore-signal=CHLD".as_ref()]);
}

fn forward_lines(output: impl Read + Send + 'static, sender: Sender<String>) {
    std::thread::spawn(move || {
        for line in BufReader::new(output).lines() {
            if line.is_err() || sender.send(line.unwrap_or_default()).is_err() {
                return;
            }
        }
    });
}

impl Statement {
    /// Waits until the statement prints this.
    #[track_caller]
    pub(crate) fn wait_for_output(&mut self, wanted: &str) {
        while !self.text.contains(wanted) {
            match self.output.recv_timeout(TEST_TIMEOUT) {
                Ok(line) => self.text.extend([&*line, "\n"]),
                Err(_) => panic!("the statement did not print {wanted:?}, but:\n{}", self.text),
            }
        }
    }

    #[track_caller]
    pub(crate) fn outcome(mut self) -> Outcome {
        let status = self.process.wait();
        loop {
            match self.output.recv_timeout(TEST_TIMEOUT) {
                Ok(line) => self.text.extend([&*line, "\n"]),
                Err(RecvTimeoutError::Disconnected) => return Outcome { status, text: self.text },
                Err(RecvTimeoutError::Timeout) => panic!("another process holds the statement's output"),
            }
        }
    }
}

impl Outcome {
    /// Asserts exit status 0 and message 3014.
    #[track_caller]
    pub(crate) fn assert_success(&self) {
        assert!(self.status.success() && self.text.contains(" DATABASE successfully processed "), "{self:#?}");
        assert!(!self.text.contains("Msg "), "{self:#?}");
    }

    /// Asserts exit status 1, no message 3014, message 3013 at the end, and these texts.
    #[track_caller]
    pub(crate) fn assert_failure(&self, texts: &[&str]) {
        self.assert_refused(texts);
        assert!(self.text.contains("Msg 3013, Level 16, State 1, Server vdi-sim, Line 1\n"), "{self:#?}");
        assert!(self.text.ends_with(" DATABASE is terminating abnormally.\n"), "{self:#?}");
    }

    /// Asserts exit status 1, no message 3014, and these texts: the statement did not begin.
    #[track_caller]
    pub(crate) fn assert_refused(&self, texts: &[&str]) {
        assert_eq!(self.status.code(), Some(1), "{self:#?}");
        assert!(!self.text.contains("successfully processed"), "{self:#?}");
        assert!(self.text.contains("Msg "), "{self:#?}");
        for text in texts {
            assert!(self.text.contains(text), "{text:?} is missing in {self:#?}");
        }
    }
}

const PART: &str = "VDI_TEST_PART";
const ARGUMENTS: &str = "VDI_TEST_ARGUMENTS";
/// The prefix of reports. The test harness prints other lines.
const MARK: &str = "@@ ";

/// A child process of the test with a role. It writes reports and reads orders, one per line.
pub(crate) struct Part {
    name: String,
    pub(crate) process: Guarded,
    orders: Option<ChildStdin>,
    lines: Receiver<String>,
    log: Arc<Mutex<Vec<String>>>,
}

impl Part {
    /// The next report.
    #[track_caller]
    pub(crate) fn report(&self) -> String {
        loop {
            match self.lines.recv_timeout(TEST_TIMEOUT) {
                // A report is one write, other lines are not. So a report may follow a part of another line.
                Ok(line) => match line.split_once(MARK).map(|(_, report)| report) {
                    Some(report) => return report.to_owned(),
                    None => self.log.lock().unwrap().push(line),
                },
                Err(error) => panic!("{} reports nothing more ({error}); it said {:#?}", self.name, self.log.lock()),
            }
        }
    }

    /// The next report within this time; `None` after it. An error if every process with this standard error has ended.
    pub(crate) fn report_within(&self, timeout: Duration) -> Result<Option<String>, RecvTimeoutError> {
        match self.lines.recv_timeout(timeout) {
            Ok(line) => {
                let report = line.split_once(MARK).map(|(_, report)| report.to_owned());
                if report.is_none() {
                    self.log.lock().unwrap().push(line);
                }
                Ok(report)
            }
            Err(RecvTimeoutError::Timeout) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// The lines of its standard error that are not reports.
    pub(crate) fn log(&self) -> Vec<String> {
        self.log.lock().unwrap().clone()
    }

    /// The next report; `None` if the process has ended.
    #[track_caller]
    pub(crate) fn last_report(&self) -> Option<String> {
        loop {
            match self.lines.recv_timeout(TEST_TIMEOUT) {
                Ok(line) => match line.split_once(MARK) {
                    Some((_, report)) => return Some(report.to_owned()),
                    None => self.log.lock().unwrap().push(line),
                },
                Err(RecvTimeoutError::Disconnected) => return None,
                Err(RecvTimeoutError::Timeout) => {
                    panic!("{} neither reports nor ends; it said {:#?}", self.name, self.log)
                }
            }
        }
    }

    /// Waits for the process, which may have failed. Returns its status and its standard error without reports.
    #[track_caller]
    pub(crate) fn ended(mut self) -> (ExitStatus, String) {
        drop(self.orders.take());
        let status = self.process.wait();
        let mut said = self.log.lock().unwrap().clone();
        said.extend(self.lines.iter());
        (status, said.join("\n"))
    }

    /// Asserts that the next report begins with this word. Returns the rest of it.
    #[track_caller]
    pub(crate) fn expect(&self, word: &str) -> String {
        let report = self.report();
        match report.strip_prefix(word) {
            Some(rest) => rest.trim_start().to_owned(),
            None => panic!("{} reported {report:?} instead of {word:?}", self.name),
        }
    }

    #[track_caller]
    pub(crate) fn order(&mut self, order: &str) {
        writeln!(self.orders.as_mut().unwrap(), "{order}").unwrap();
    }

    /// Sends an order. Ignores that the process has ended.
    pub(crate) fn try_order(&mut self, order: &str) {
        let _ = writeln!(self.orders.as_mut().unwrap(), "{order}");
    }

    /// Sends an order, and returns the next report.
    #[track_caller]
    pub(crate) fn ask(&mut self, order: &str) -> String {
        self.order(order);
        self.report()
    }

    /// Reads a thread id from the next report, `WORD TID`, and waits until that thread sleeps in its blocking call.
    #[track_caller]
    pub(crate) fn wait_until_blocked(&self, word: &str) {
        let thread = self.expect(word).parse().unwrap();
        wait_until_asleep(self.process.id(), thread);
    }

    /// Closes the standard input of the process, and asserts that it ends with success.
    #[track_caller]
    pub(crate) fn end(self) {
        self.end_with_output();
    }

    /// As [`Part::end`]. Returns the standard error without reports.
    #[track_caller]
    pub(crate) fn end_with_output(mut self) -> Vec<String> {
        drop(self.orders.take());
        let status = self.process.wait();
        let said: Vec<String> = self.lines.iter().collect();
        assert!(status.success(), "{} ended with {status}; it said {:#?} {said:#?}", self.name, self.log.lock());
        [self.log(), said].concat()
    }
}

/// The connection of a child process to the test: it sends reports and receives orders.
pub(crate) struct RoleContext {
    pub(crate) arguments: Vec<String>,
}

impl RoleContext {
    pub(crate) fn argument(&self, index: usize) -> &str {
        &self.arguments[index]
    }

    pub(crate) fn number(&self, index: usize) -> u32 {
        self.arguments[index].parse().unwrap()
    }

    pub(crate) fn say(&self, report: &str) {
        // One write, so that lines of other threads do not split it.
        let _ = std::io::stderr().write_all(format!("{MARK}{report}\n").as_bytes());
    }

    /// Reports that this thread makes its blocking call next.
    pub(crate) fn report_blocking(&self, word: &str) {
        self.say(&format!("{word} {}", rustix::thread::gettid().as_raw_nonzero()));
    }

    /// The next order; `None` after the last one.
    pub(crate) fn next_order(&self) -> Option<String> {
        let mut order = String::new();
        std::io::stdin().read_line(&mut order).unwrap();
        (!order.is_empty()).then(|| order.trim_end().to_owned())
    }

    /// Waits until the standard input closes.
    pub(crate) fn stay(&self) {
        while self.next_order().is_some() {}
    }
}

/// The name of a role, and its function.
type Role = (&'static str, fn(&RoleContext));

/// The body of a module's `child_entry`: runs the role that the environment names, if it is one of these. In a normal run the
/// environment names no role. A child process runs the `child_entry` of every module, so the name of a role is unique in its
/// binary.
pub(crate) fn run_role(parts: &[Role]) {
    let Ok(name) = std::env::var(PART) else { return };
    let Some((_, part)) = parts.iter().find(|(part, _)| *part == name) else { return };
    let arguments = std::env::var(ARGUMENTS).unwrap_or_default();
    part(&RoleContext { arguments: arguments.lines().map(str::to_owned).collect() });
}
