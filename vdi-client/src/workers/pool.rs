//! The primary's half: requests to the workers, and completions by their answers.

use std::collections::HashMap;
use std::io::{self, Write};
use std::process::{ChildStdin, ChildStdout, Command as Program, ExitStatus, Stdio};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use vdi_proto::command::CommandCode;
use vdi_proto::completion::CompletionCode;
use vdi_proto::status::VdError;

use super::ended::wait_for_end_of_set;
use super::process::Process;
use super::wire::{Answer, CLOSE, FINAL, FailureText, Request, read_record};
use crate::command::Command;
use crate::completion::{Completion, Outcome};
use crate::device::ClientVirtualDevice;
use crate::error::{Error, ErrorKind};
use crate::media::MediaError;
use crate::work::{self, Report, Work};

/// How often a wait for the server is interrupted to hear of failures.
const FAILURE_POLL: Duration = Duration::from_millis(500);

/// How often a wait for a worker checks whether the set has ended.
const ANSWER_POLL: Duration = Duration::from_millis(50);

/// How long a worker may still answer once the set has ended.
const ANSWER_GRACE: Duration = Duration::from_secs(2);

/// What waits for a worker's answer.
struct Waiting {
    /// `None` for the request to close the medium.
    command: Option<Command>,
    answered: Sender<Answered>,
}

/// What a worker answered, as the driver of the device hears of it.
struct Answered {
    command: Option<CommandCode>,
    outcome: Outcome,
    failure: Option<MediaError>,
}

/// What is waited for; `None` once the worker is gone.
type Pending = Arc<Mutex<Option<HashMap<u64, Waiting>>>>;

fn lock(pending: &Pending) -> MutexGuard<'_, Option<HashMap<u64, Waiting>>> {
    pending.lock().unwrap_or_else(PoisonError::into_inner)
}

struct Worker {
    process: Arc<Process>,
    requests: Mutex<ChildStdin>,
    pending: Pending,
    answers: JoinHandle<()>,
}

/// Worker processes, as the primary uses them.
pub struct WorkerPool {
    workers: Vec<Worker>,
    tags: AtomicU64,
    handles: AtomicU64,
}

impl core::fmt::Debug for WorkerPool {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("WorkerPool").field("workers", &self.workers.len()).finish_non_exhaustive()
    }
}

impl WorkerPool {
    /// Starts the workers: programs that call [`serve`](super::serve) on their standard input and output.
    ///
    /// # Errors
    /// Those of starting a process or a thread. What was started by then is ended.
    pub fn start(programs: impl IntoIterator<Item = Program>) -> io::Result<WorkerPool> {
        let mut pool = WorkerPool { workers: Vec::new(), tags: AtomicU64::new(0), handles: AtomicU64::new(0) };
        for mut program in programs {
            let mut child = program.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
            let process = Arc::new(Process::new(&child));
            let pipes = child.stdin.take().zip(child.stdout.take());
            let pending: Pending = Arc::new(Mutex::new(Some(HashMap::new())));
            let answers = pipes.ok_or_else(|| io::Error::other("a worker's pipes are missing")).and_then(|pipes| {
                let (pending, process) = (Arc::clone(&pending), Arc::clone(&process));
                let thread = std::thread::Builder::new().name("vdi-worker-answers".to_owned());
                let answers = thread.spawn(move || take_answers(pipes.1, &pending, &process))?;
                Ok((pipes.0, answers))
            });
            match answers {
                Ok((requests, answers)) => {
                    pool.workers.push(Worker { process, requests: Mutex::new(requests), pending, answers });
                }
                Err(error) => {
                    process.kill();
                    let _ = process.wait();
                    return Err(error);
                }
            }
        }
        if pool.workers.is_empty() {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "a pool needs at least one worker"));
        }
        Ok(pool)
    }

    /// How many buffers were passed to workers by their handles.
    #[must_use]
    pub fn handles_passed(&self) -> u64 {
        self.handles.load(Ordering::Relaxed)
    }

    /// The process ids of the workers.
    #[must_use]
    pub fn process_ids(&self) -> Vec<u32> {
        self.workers.iter().map(|worker| worker.process.id()).collect()
    }

    /// Serves a device until the server closes it: its commands are carried out by a worker, on the medium that the worker
    /// opened for `stripe`. Several commands are under way at a time. `progress` is told the bytes of each transfer.
    ///
    /// # Errors
    /// As [`pump`](fn@crate::pump): the failure of the worker's medium comes first. VD_E_UNEXPECTED also when the worker is gone
    /// and the set did not know it.
    pub fn drive(
        &self,
        device: &mut ClientVirtualDevice,
        stripe: u32,
        progress: impl FnMut(u64),
    ) -> Result<Report, Error> {
        let worker = &self.workers[stripe as usize % self.workers.len()];
        let (sender, answers) = channel();
        let mut drive = Drive { pool: self, worker, stripe, sender, answers, work: Work::default(), closed: false };
        let end = drive.serve(device, progress);
        drive.settle(device, end)
    }

    /// Ends the workers in order and returns how each process ended: `None` where that is unknown, because the system (SIGCHLD is
    /// ignored) or another part of this process has waited for it. It is no failure: whether the work succeeded is what
    /// [`WorkerPool::drive`] returned.
    ///
    /// # Errors
    /// Those of waiting for a process.
    pub fn finish(mut self) -> io::Result<Vec<Option<ExitStatus>>> {
        core::mem::take(&mut self.workers)
            .into_iter()
            .map(|Worker { process, requests, answers, .. }| {
                drop(requests);
                answers.join().map_err(|_| io::Error::other("a worker's answers could not be handled"))?;
                process.wait()
            })
            .collect()
    }
}

impl Drop for WorkerPool {
    /// Workers that were not [`WorkerPool::finish`]ed are killed: nothing stays behind.
    fn drop(&mut self) {
        for Worker { process, requests, answers, .. } in self.workers.drain(..) {
            drop(requests);
            process.kill();
            let _ = answers.join();
            let _ = process.wait();
        }
    }
}

/// One call of [`WorkerPool::drive`].
struct Drive<'a> {
    pool: &'a WorkerPool,
    worker: &'a Worker,
    stripe: u32,
    /// Each request has a copy, so `answers` is disconnected when nothing is waited for any more.
    sender: Sender<Answered>,
    answers: Receiver<Answered>,
    work: Work,
    /// The worker has closed its medium.
    closed: bool,
}

impl Drive<'_> {
    /// Passes the device's commands on. `Ok` when the server closed the device, and the worker was asked to close its medium.
    fn serve(&mut self, device: &mut ClientVirtualDevice, mut progress: impl FnMut(u64)) -> Result<(), Error> {
        loop {
            self.hear_answers();
            let command = match device.get_command(self.work.time_out().min(FAILURE_POLL)) {
                Ok(command) => command,
                Err(end) if end.is_close() => return self.request_close(device),
                Err(end) if self.goes_on(device, &end) => continue,
                Err(end) => return Err(end),
            };
            if let Some(refusal) = self.work.refusal() {
                // Nothing depends on this answer but the server's message.
                let _ = command.complete(refusal);
                continue;
            }
            if command.code().number() == CLOSE {
                // No command of the interface. The worker would take it for the end of its stripe.
                let _ = command.complete(Completion::failed(CompletionCode::NOT_SUPPORTED));
                continue;
            }
            progress(command.data().len() as u64);
            // Where the set has ended since the command came, that is the reason.
            let passed = self.pass_on(command).map_err(|error| device.interruption("drive").unwrap_or(error))?;
            if let Err(unanswered) = passed {
                let gone = self.worker.gone(device);
                // The server hears of this command after the death that is the reason.
                drop(unanswered);
                return Err(gone);
            }
        }
    }

    /// Whether the wait that ended so was only a part of a longer one.
    fn goes_on(&self, device: &ClientVirtualDevice, end: &Error) -> bool {
        end.code() == VdError::Timeout && !self.work.time_out().is_zero() && device.interruption("drive").is_none()
    }

    fn hear_answers(&mut self) {
        while let Ok(answered) = self.answers.try_recv() {
            self.hear(answered);
        }
    }

    fn hear(&mut self, Answered { command, outcome, failure }: Answered) {
        self.closed |= command.is_none();
        match (failure, command) {
            (Some(error), command) => self.work.fail(error, command),
            (None, Some(command)) => self.work.count(command, outcome),
            (None, None) => {}
        }
    }

    /// Sends a command to the worker, or gives it back when that is gone.
    fn pass_on(&self, command: Command) -> Result<Result<(), Waiting>, Error> {
        let mut request = Request {
            tag: self.pool.tags.fetch_add(1, Ordering::Relaxed),
            code: command.code().number(),
            stripe: self.stripe,
            handle: 0,
            bytes: command.size() as u32,
            position: command.position(),
        };
        if command.code().is_transfer() {
            request.handle = command.buffer_handle()?.number();
            self.pool.handles.fetch_add(1, Ordering::Relaxed);
        }
        Ok(self.worker.ask(request, Waiting { command: Some(command), answered: self.sender.clone() }))
    }

    fn request_close(&mut self, device: &ClientVirtualDevice) -> Result<(), Error> {
        self.hear_answers();
        if self.work.refusal().is_some() {
            return Ok(());
        }
        let tag = self.pool.tags.fetch_add(1, Ordering::Relaxed);
        let request = Request { tag, code: CLOSE, stripe: self.stripe, handle: 0, bytes: 0, position: 0 };
        let asked = self.worker.ask(request, Waiting { command: None, answered: self.sender.clone() });
        asked.map_err(|_| self.worker.gone(device))
    }

    /// Waits for the last answers, and gives the result of the work. Where the set has ended the worker may be in the middle of a
    /// command that fails: its failure comes before the end of the set.
    fn settle(mut self, device: &ClientVirtualDevice, end: Result<(), Error>) -> Result<Report, Error> {
        // A wait that was cancelled hides no failure that is known already.
        self.hear_answers();
        // From here on only requests have the sender.
        self.sender = channel().0;
        let mut end = end.err();
        let mut deadline = Instant::now() + ANSWER_GRACE;
        while self.work.refusal().is_none() && end.as_ref().is_none_or(|end| end.code() != VdError::Timeout) {
            match self.answers.recv_timeout(ANSWER_POLL) {
                Ok(answered) => self.hear(answered),
                Err(RecvTimeoutError::Disconnected) => break,
                Err(RecvTimeoutError::Timeout) if end.is_none() => {
                    end = device.interruption("drive");
                    deadline = Instant::now() + ANSWER_GRACE;
                }
                Err(RecvTimeoutError::Timeout) if Instant::now() < deadline => {}
                Err(RecvTimeoutError::Timeout) => break,
            }
        }
        let end = match end {
            _ if self.closed || self.work.refusal().is_some() => Ok(()),
            Some(end) => Err(end),
            None => Err(self.worker.gone(device)),
        };
        self.work.end("drive", device, end)
    }
}

impl Worker {
    /// Sends a request. When the worker is gone, what was to wait for it comes back, unless it is with the others that waited.
    fn ask(&self, request: Request, waiting: Waiting) -> Result<(), Waiting> {
        let mut requests = self.requests.lock().unwrap_or_else(PoisonError::into_inner);
        match lock(&self.pending).as_mut() {
            Some(pending) => drop(pending.insert(request.tag, waiting)),
            None => return Err(waiting),
        }
        if requests.write_all(&request.to_bytes()).is_err() {
            let unsent = lock(&self.pending).as_mut().and_then(|pending| pending.remove(&request.tag));
            return unsent.map_or(Ok(()), Err);
        }
        Ok(())
    }

    /// The error of a device whose worker is gone: the set's reason where it has one.
    fn gone(&self, device: &ClientVirtualDevice) -> Error {
        wait_for_end_of_set(|| device.interruption("drive"))
            .unwrap_or_else(|| device.error(ErrorKind::System, "drive", gone(self.process.id())))
    }
}

/// Completes commands as their answers come, until the worker closes its output. A worker that breaks the protocol is killed.
fn take_answers(mut output: ChildStdout, pending: &Pending, worker: &Process) {
    while let Ok(Some(record)) = read_record::<24>(&mut output) {
        let answer = Answer::from_bytes(&record);
        // The whole answer is read before its command is taken: a command without a whole answer waits until the set has ended.
        let failure = failure_of(&answer, &mut output);
        let waiting = lock(pending).as_mut().filter(|_| failure.is_ok()).and_then(|all| all.remove(&answer.tag));
        let (Some(waiting), Ok(failure)) = (waiting, failure) else {
            worker.kill();
            break;
        };
        let Waiting { command, answered } = waiting;
        let outcome =
            Outcome { code: CompletionCode::new(answer.code), bytes: answer.bytes, position: answer.position };
        let code = command.as_ref().map(Command::code);
        // Before the command is completed: what the completion brings about is to find the failure recorded.
        let _ = answered.send(Answered { command: code, outcome, failure });
        if let Some(command) = command {
            let completion = work::completion(command.code(), outcome);
            // A refusal means that the set has ended, which the device's loop will report; or that the answer has more bytes than
            // the command, which is dropped then, and so reported as aborted.
            let _ = command.complete(completion);
        }
    }
    // What still waits never gets an answer. The set knows why before the server hears of it.
    let left = lock(pending).take().unwrap_or_default();
    if let Some(command) = left.values().find_map(|waiting| waiting.command.as_ref())
        && wait_for_end_of_set(|| command.held().interruption("drive").map(drop)).is_none()
    {
        // The worker was no member, so its death ends nothing: the work of its stripes has failed.
        for Waiting { command, answered } in left.values() {
            let failure = MediaError::new(CompletionCode::IO_DEVICE, gone(worker.id()));
            let outcome = Outcome::failed(failure.code);
            let command = command.as_ref().map(Command::code);
            let _ = answered.send(Answered { command, outcome, failure: Some(failure) });
        }
        // The server gets a reason, and not commands that failed without one.
        command.held().give_up(CompletionCode::IO_DEVICE, &gone(worker.id()));
    }
    drop(left);
}

fn gone(worker: u32) -> String {
    format!("the worker process is gone (it was process {worker})")
}

/// The failure that comes with an answer, if its stripe has failed for good.
fn failure_of(answer: &Answer, output: &mut ChildStdout) -> io::Result<Option<MediaError>> {
    let code = CompletionCode::new(answer.code);
    if code.is_success() || answer.position != FINAL {
        return Ok(None);
    }
    let FailureText { what, remedy } = FailureText::read(output)?;
    Ok(Some(MediaError::new(code, what).with_bytes(answer.bytes as usize).with_remedy(remedy)))
}
