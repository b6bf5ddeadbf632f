//! Real processes: the simulator with a statement, and this test program in another part.

use std::ffi::OsStr;
use std::io::{BufRead, BufReader, Read, Write};
use std::process::{Child, ChildStdin, ChildStdout, Command, ExitStatus, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, PidfdFlags, Signal, kill_process, pidfd_open};

use super::PATIENCE;
use super::bench::Bench;
use super::tasks::wait_until_asleep;

/// A process that is killed when nobody needs it any more.
pub(crate) struct Guarded(Child);

impl Guarded {
    pub(crate) fn start(command: &mut Command) -> Guarded {
        Guarded(command.spawn().unwrap())
    }

    pub(crate) fn id(&self) -> u32 {
        self.0.id()
    }

    /// Its standard input and output, where those are pipes.
    pub(crate) fn pipes(&mut self) -> (ChildStdin, ChildStdout) {
        (self.0.stdin.take().unwrap(), self.0.stdout.take().unwrap())
    }

    /// Sends a signal.
    pub(crate) fn signal(&self, signal: Signal) {
        // Only `wait` reaps it.
        kill_process(Pid::from_child(&self.0), signal).unwrap();
    }

    /// SIGKILL.
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
        let timeout = Timespec { tv_sec: PATIENCE.as_secs() as i64, tv_nsec: 0 };
        let ended = poll(&mut [PollFd::new(&descriptor, PollFlags::IN)], Some(&timeout)).unwrap();
        assert_eq!(ended, 1, "process {} did not end within {PATIENCE:?}", self.0.id());
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

/// A statement that the simulator carries out, or another program, in a process of its own.
pub(crate) struct Statement {
    pub(crate) process: Guarded,
    output: Receiver<String>,
    text: String,
}

/// What a statement came to.
#[derive(Debug)]
pub(crate) struct Outcome {
    pub(crate) status: ExitStatus,
    /// Everything that it printed.
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

    /// Starts any program, in this bench's runtime directory unless it has another.
    pub(crate) fn run(&self, mut command: Command) -> Statement {
        if command.get_envs().all(|(name, _)| name != "VDI_RUNTIME_DIR") {
            command.env("VDI_RUNTIME_DIR", self.runtime());
        }
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut process = Guarded::start(&mut command);
        let (tell, output) = channel();
        forward_lines(process.0.stdout.take().unwrap(), tell.clone());
        forward_lines(process.0.stderr.take().unwrap(), tell);
        Statement { process, output, text: String::new() }
    }

    /// Starts this test program in another part: see [`take_part`].
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
        let (tell, lines) = channel();
        forward_lines(process.0.stderr.take().unwrap(), tell);
        let orders = process.0.stdin.take();
        Part { name: name.to_owned(), process, orders, lines, log: Arc::default() }
    }
}

/// Has a command that starts this test program take a part: see [`take_part`].
pub(crate) fn cast<'a>(command: &'a mut Command, part: &str, arguments: &[&str]) -> &'a mut Command {
    command.args(["::child_entry", "--nocapture", "--test-threads=1"]);
    command.env(PART, part).env(ARGUMENTS, arguments.join("\n"))
}

/// Has a program be run by another one, which is given the program and its arguments behind its own.
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

/// Has a program be run by a shell that has run this line before.
pub(crate) fn after(command: &mut Command, line: &str) {
    within(command, &["sh".as_ref(), "-c".as_ref(), format!("{line} && exec \"$0\" \"$@\"").as_ref()]);
}

/// Has a program begin with SIGCHLD ignored. Not every shell leaves a program such a signal.
pub(crate) fn ignoring_sigchld(command: &mut Command) {
    within(command, &["env".as_ref(), "--ignore-signal=CHLD".as_ref()]);
}

fn forward_lines(output: impl Read + Send + 'static, tell: Sender<String>) {
    std::thread::spawn(move || {
        for line in BufReader::new(output).lines() {
            if line.is_err() || tell.send(line.unwrap_or_default()).is_err() {
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
            match self.output.recv_timeout(PATIENCE) {
                Ok(line) => self.text.extend([&*line, "\n"]),
                Err(_) => panic!("the statement did not print {wanted:?}, but:\n{}", self.text),
            }
        }
    }

    #[track_caller]
    pub(crate) fn outcome(mut self) -> Outcome {
        let status = self.process.wait();
        loop {
            match self.output.recv_timeout(PATIENCE) {
                Ok(line) => self.text.extend([&*line, "\n"]),
                Err(RecvTimeoutError::Disconnected) => return Outcome { status, text: self.text },
                Err(RecvTimeoutError::Timeout) => panic!("somebody else holds the statement's output"),
            }
        }
    }
}

impl Outcome {
    /// Message 3014, and exit status 0.
    #[track_caller]
    pub(crate) fn assert_success(&self) {
        assert!(self.status.success() && self.text.contains(" DATABASE successfully processed "), "{self:#?}");
        assert!(!self.text.contains("Msg "), "{self:#?}");
    }

    /// Exit status 1, no 3014, message 3013 at the end, and these texts before.
    #[track_caller]
    pub(crate) fn assert_failure(&self, texts: &[&str]) {
        self.assert_refused(texts);
        assert!(self.text.contains("Msg 3013, Level 16, State 1, Server vdi-sim, Line 1\n"), "{self:#?}");
        assert!(self.text.ends_with(" DATABASE is terminating abnormally.\n"), "{self:#?}");
    }

    /// Exit status 1, no 3014, and these texts: a statement that did not even begin.
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
/// What the reports of a part begin with: the test harness prints lines of its own.
const MARK: &str = "@@ ";

/// Another process of the test. It reports by lines and takes orders by lines.
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
            match self.lines.recv_timeout(PATIENCE) {
                // Behind the pieces of a line of others, sometimes: a report is written at once, their lines are not.
                Ok(line) => match line.split_once(MARK).map(|(_, report)| report) {
                    Some(report) => return report.to_owned(),
                    None => self.log.lock().unwrap().push(line),
                },
                Err(error) => panic!("{} reports nothing more ({error}); it said {:#?}", self.name, self.log.lock()),
            }
        }
    }

    /// The next report, if one comes within this time. Refused when none will come any more: neither from this process nor from
    /// others that have its standard error.
    pub(crate) fn report_within(&self, patience: Duration) -> Result<Option<String>, RecvTimeoutError> {
        match self.lines.recv_timeout(patience) {
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

    /// What it said besides reports.
    pub(crate) fn log(&self) -> Vec<String> {
        self.log.lock().unwrap().clone()
    }

    /// The next report; `None` when the part has ended, and there will be none.
    #[track_caller]
    pub(crate) fn last_report(&self) -> Option<String> {
        loop {
            match self.lines.recv_timeout(PATIENCE) {
                Ok(line) => match line.split_once(MARK) {
                    Some((_, report)) => return Some(report.to_owned()),
                    None => self.log.lock().unwrap().push(line),
                },
                Err(RecvTimeoutError::Disconnected) => return None,
                Err(RecvTimeoutError::Timeout) => panic!("{} lives on in silence; it said {:#?}", self.name, self.log),
            }
        }
    }

    /// How a part ended that may have failed, and what it said besides its reports.
    #[track_caller]
    pub(crate) fn ended(mut self) -> (ExitStatus, String) {
        drop(self.orders.take());
        let status = self.process.wait();
        let mut said = self.log.lock().unwrap().clone();
        said.extend(self.lines.iter());
        (status, said.join("\n"))
    }

    /// The next report begins with this word; gives the rest.
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

    /// Orders; one that is gone does not hear it.
    pub(crate) fn try_order(&mut self, order: &str) {
        let _ = writeln!(self.orders.as_mut().unwrap(), "{order}");
    }

    /// Orders, and waits for the answer.
    #[track_caller]
    pub(crate) fn ask(&mut self, order: &str) -> String {
        self.order(order);
        self.report()
    }

    /// Reads a thread's number from the next report, `WORD TID`, and waits until that thread sleeps in its blocking call.
    #[track_caller]
    pub(crate) fn wait_until_blocked(&self, word: &str) {
        let thread = self.expect(word).parse().unwrap();
        wait_until_asleep(self.process.id(), thread);
    }

    /// What it has printed so far besides its reports.
    pub(crate) fn noise(&self) -> Vec<String> {
        self.log.lock().unwrap().clone()
    }

    /// No more orders: the part ends in good order.
    #[track_caller]
    pub(crate) fn end(self) {
        self.last_words();
    }

    /// As [`Part::end`]; gives what it has printed besides its reports.
    #[track_caller]
    pub(crate) fn last_words(mut self) -> Vec<String> {
        drop(self.orders.take());
        let status = self.process.wait();
        let said: Vec<String> = self.lines.iter().collect();
        assert!(status.success(), "{} ended with {status}; it said {:#?} {said:#?}", self.name, self.log.lock());
        [self.noise(), said].concat()
    }
}

/// What a part says and hears.
pub(crate) struct Stage {
    pub(crate) arguments: Vec<String>,
}

impl Stage {
    pub(crate) fn argument(&self, index: usize) -> &str {
        &self.arguments[index]
    }

    pub(crate) fn number(&self, index: usize) -> u32 {
        self.arguments[index].parse().unwrap()
    }

    pub(crate) fn say(&self, report: &str) {
        // In one piece, so that lines of other threads do not get in between.
        let _ = std::io::stderr().write_all(format!("{MARK}{report}\n").as_bytes());
    }

    /// Says that the blocking call comes now, in this thread.
    pub(crate) fn say_blocking(&self, word: &str) {
        self.say(&format!("{word} {}", rustix::thread::gettid().as_raw_nonzero()));
    }

    /// The next order; `None` when there will be none.
    pub(crate) fn hear(&self) -> Option<String> {
        let mut order = String::new();
        std::io::stdin().read_line(&mut order).unwrap();
        (!order.is_empty()).then(|| order.trim_end().to_owned())
    }

    /// Waits until there will be no more orders.
    pub(crate) fn stay(&self) {
        while self.hear().is_some() {}
    }
}

/// A part's name, and what it does.
type Role = (&'static str, fn(&Stage));

/// The body of a module's `child_entry`: takes the part that the environment names, if it is one of these. In an ordinary run
/// the environment names none. A process of a part runs the `child_entry` of every module, so a part's name is unique in its
/// binary.
pub(crate) fn take_part(parts: &[Role]) {
    let Ok(name) = std::env::var(PART) else { return };
    let Some((_, part)) = parts.iter().find(|(part, _)| *part == name) else { return };
    let arguments = std::env::var(ARGUMENTS).unwrap_or_default();
    part(&Stage { arguments: arguments.lines().map(str::to_owned).collect() });
}
