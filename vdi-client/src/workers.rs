//! Worker processes: one process gets the commands, others work on the bytes, by buffer handles.
//!
//! The primary sends its workers nothing but handles and sizes over pipes. Each worker has joined the set as a secondary,
//! maps the handle at an address of its own, works on the very bytes that the server filled (or will read), and answers.
//! The primary completes the command. No byte is copied on the way.
//!
//! ```text
//!            commands                handle, size              the buffer's bytes
//!  server  ----------->  primary  ------------------>  worker  <================  shared memory
//!          <-----------           <------------------
//!           completions              bytes done
//! ```
//!
//! [`WorkerPool`] is the primary's half, [`serve`] the worker's. Requests and answers are records of fixed length,
//! little-endian; a worker answers in the order in which it was asked.
//!
//! # Invariants
//!
//! 1. Every command given to the pool is completed: by its worker's answer, or, when the worker is gone or the pool is
//!    dropped, as aborted; by then the set knows who died. A worker that is alive and silent is for `serverTimeOut` to end.
//! 2. A worker gives its lease up before it answers, so the completion is never refused as busy.
//! 3. A stripe's commands go to one worker, so they are carried out in the order in which they came.
//! 4. After a final failure of a stripe, that of opening its media included, nothing succeeds for it any more: what is already
//!    on its way would be stored without what failed, and what comes later would hide it.

mod wire;

use std::collections::HashMap;
use std::io::{self, Read, Write};
use std::process::{Child, ChildStdin, ChildStdout, Command as Program, ExitStatus, Stdio};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use vdi_proto::command::CommandCode;
use vdi_proto::completion::CompletionCode;
use vdi_proto::handle::BufferHandle;

use crate::INFINITE;
use crate::command::{Command, Completion};
use crate::device::ClientVirtualDevice;
use crate::error::{Error, ErrorKind};
use crate::media::{Media, MediaError};
use crate::pump::{self, Report, ends_the_work, sensible};
use crate::set::ClientVirtualDeviceSet;
use wire::{Answer, Request, read_record};

/// In a request: the device was closed, so the stripe's media is to be closed. No command has this number.
const CLOSE: u32 = 0;

/// What waits for a worker's answer.
enum Waiting {
    Command(Command, Arc<Tally>),
    Close(Sender<CompletionCode>),
}

/// What a worker has done for a device, as it answered.
#[derive(Debug, Default)]
struct Tally {
    written: AtomicU64,
    read: AtomicU64,
}

/// What is waited for; `None` once the worker is gone.
type Pending = Arc<Mutex<Option<HashMap<u64, Waiting>>>>;

fn lock(pending: &Pending) -> MutexGuard<'_, Option<HashMap<u64, Waiting>>> {
    pending.lock().unwrap_or_else(PoisonError::into_inner)
}

struct Worker {
    child: Child,
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
    /// Starts the workers: programs that call [`serve`] on their standard input and output.
    ///
    /// # Errors
    /// Whatever starting a process or a thread can fail with; what was started by then is ended.
    pub fn start(programs: impl IntoIterator<Item = Program>) -> io::Result<WorkerPool> {
        let mut pool = WorkerPool { workers: Vec::new(), tags: AtomicU64::new(0), handles: AtomicU64::new(0) };
        for mut program in programs {
            let mut child = program.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
            let pipes = child.stdin.take().zip(child.stdout.take());
            let pending: Pending = Arc::new(Mutex::new(Some(HashMap::new())));
            let answers = pipes.ok_or_else(|| io::Error::other("a worker's pipes are missing")).and_then(|pipes| {
                let (pending, id) = (Arc::clone(&pending), child.id());
                let thread = std::thread::Builder::new().name("vdi-worker-answers".to_owned());
                let answers = thread.spawn(move || take_answers(pipes.1, &pending, id))?;
                Ok((pipes.0, answers))
            });
            match answers {
                Ok((requests, answers)) => {
                    pool.workers.push(Worker { child, requests: Mutex::new(requests), pending, answers });
                }
                Err(error) => {
                    let _ = child.kill();
                    let _ = child.wait();
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
        self.workers.iter().map(|worker| worker.child.id()).collect()
    }

    /// Serves a device until the server closes it: its commands are carried out by a worker, on the media that the worker
    /// opened for `stripe`. Several commands are under way at a time. `progress` is told the bytes of each transfer.
    ///
    /// # Errors
    /// VD_E_ABORT when the set was aborted, by the death of a worker that had joined it for example; VD_E_UNEXPECTED when the
    /// worker is gone and the set did not know it, or its media could not be closed in good order.
    pub fn drive(
        &self,
        device: &mut ClientVirtualDevice,
        stripe: u32,
        mut progress: impl FnMut(u64),
    ) -> Result<Report, Error> {
        let worker = &self.workers[stripe as usize % self.workers.len()];
        let (mut commands, tally) = (0, Arc::new(Tally::default()));
        loop {
            let command = match device.get_command(INFINITE) {
                Ok(command) => command,
                Err(end) if end.is_close() => break,
                Err(error) => return Err(error),
            };
            commands += u64::from(command.code() != CommandCode::CLEAR_ERROR);
            progress(command.data().len() as u64);
            if let Err(unanswered) = self.pass_on(worker, stripe, command, &tally)? {
                let missed = missed(device, worker);
                // The server hears of this after the death of whom it is about.
                drop(unanswered);
                return Err(missed);
            }
        }
        // The answer to this is the last, so all are counted then.
        self.close(worker, stripe, device)?;
        let [bytes_written, bytes_read] = [&tally.written, &tally.read].map(|count| count.load(Ordering::Relaxed));
        Ok(Report { commands, bytes_written, bytes_read })
    }

    /// Sends a command to the worker, or gives it back when that is gone.
    fn pass_on(
        &self,
        worker: &Worker,
        stripe: u32,
        command: Command,
        tally: &Arc<Tally>,
    ) -> Result<Result<(), Waiting>, Error> {
        let mut request = Request {
            tag: self.tags.fetch_add(1, Ordering::Relaxed),
            code: command.code().number(),
            stripe,
            handle: 0,
            bytes: command.size() as u32,
            position: command.position(),
        };
        if command.code().is_transfer() {
            request.handle = command.buffer_handle()?.number();
            self.handles.fetch_add(1, Ordering::Relaxed);
        }
        Ok(self.ask(worker, request, Waiting::Command(command, Arc::clone(tally))))
    }

    /// Sends a request. When the worker is gone, what was to wait for it comes back, unless it is with the others that waited.
    fn ask(&self, worker: &Worker, request: Request, waiting: Waiting) -> Result<(), Waiting> {
        let mut requests = worker.requests.lock().unwrap_or_else(PoisonError::into_inner);
        match lock(&worker.pending).as_mut() {
            Some(pending) => drop(pending.insert(request.tag, waiting)),
            None => return Err(waiting),
        }
        if requests.write_all(&request.to_bytes()).is_err() {
            let unsent = lock(&worker.pending).as_mut().and_then(|pending| pending.remove(&request.tag));
            return unsent.map_or(Ok(()), Err);
        }
        Ok(())
    }

    fn close(&self, worker: &Worker, stripe: u32, device: &ClientVirtualDevice) -> Result<(), Error> {
        let (sender, receiver) = channel();
        let tag = self.tags.fetch_add(1, Ordering::Relaxed);
        let request = Request { tag, code: CLOSE, stripe, handle: 0, bytes: 0, position: 0 };
        let answer = self.ask(worker, request, Waiting::Close(sender)).ok().and_then(|()| {
            loop {
                match receiver.recv_timeout(LOOK_AGAIN) {
                    Ok(code) => break Some(Ok(code)),
                    Err(RecvTimeoutError::Disconnected) => break None,
                    Err(RecvTimeoutError::Timeout) => {
                        if let Some(interruption) = device.interruption("drive") {
                            break Some(Err(interruption));
                        }
                    }
                }
            }
        });
        match answer {
            Some(Err(interruption)) => Err(interruption),
            Some(Ok(code)) if code.is_success() => Ok(()),
            Some(Ok(code)) => {
                Err(device.error(ErrorKind::System, "drive", format!("the worker could not close its media: {code}")))
            }
            None => Err(missed(device, worker)),
        }
    }

    /// Ends the workers in order and returns how each ended.
    ///
    /// # Errors
    /// Whatever waiting for a process can fail with.
    pub fn finish(mut self) -> io::Result<Vec<ExitStatus>> {
        core::mem::take(&mut self.workers)
            .into_iter()
            .map(|Worker { mut child, requests, answers, .. }| {
                drop(requests);
                let status = child.wait()?;
                answers.join().map_err(|_| io::Error::other("a worker's answers could not be handled"))?;
                Ok(status)
            })
            .collect()
    }
}

impl Drop for WorkerPool {
    /// Workers that were not [`WorkerPool::finish`]ed are killed: nothing stays behind.
    fn drop(&mut self) {
        for Worker { mut child, requests, answers, .. } in self.workers.drain(..) {
            drop(requests);
            let _ = child.kill();
            let _ = child.wait();
            let _ = answers.join();
        }
    }
}

/// How often a wait for a worker looks whether the set is still there.
const LOOK_AGAIN: Duration = Duration::from_millis(50);

/// How long a worker that is gone may stay unknown to the set: its pipes close before its connection.
const OBITUARY: Duration = Duration::from_millis(200);

/// How often a wait for that looks.
const LOOK_FOR_OBITUARY: Duration = Duration::from_millis(1);

/// Waits until the set has ended, which it does when one of its processes dies. One that had not joined it is not missed there.
fn wait_for_obituary<T>(mut over: impl FnMut() -> Option<T>) -> Option<T> {
    let deadline = Instant::now() + OBITUARY;
    loop {
        let found = over();
        if found.is_some() || Instant::now() >= deadline {
            return found;
        }
        std::thread::sleep(LOOK_FOR_OBITUARY);
    }
}

/// The error of a device whose worker is gone: what the set says of that, if it knows.
fn missed(device: &ClientVirtualDevice, worker: &Worker) -> Error {
    wait_for_obituary(|| device.interruption("drive")).unwrap_or_else(|| {
        let what = format!("the worker process is gone (it was process {})", worker.child.id());
        device.error(ErrorKind::System, "drive", what)
    })
}

/// Completes commands as their answers come, until the worker closes its output. A worker that answers nonsense is killed.
fn take_answers(mut output: ChildStdout, pending: &Pending, worker: u32) {
    while let Ok(Some(record)) = read_record::<24>(&mut output) {
        let answer = Answer::from_bytes(&record);
        let waiting = lock(pending).as_mut().and_then(|waiting| waiting.remove(&answer.tag));
        let code = CompletionCode::new(answer.code);
        match waiting {
            Some(Waiting::Command(command, tally)) => {
                let bytes = answer.bytes as usize;
                match command.code() {
                    CommandCode::WRITE => tally.written.fetch_add(bytes as u64, Ordering::Relaxed),
                    CommandCode::READ => tally.read.fetch_add(bytes as u64, Ordering::Relaxed),
                    _ => 0,
                };
                let completion = match (code.is_success(), command.code().is_transfer()) {
                    (true, true) => Completion::transferred(bytes),
                    (true, false) if command.code().rules().is_some_and(|rules| rules.returns_position) => {
                        Completion::at(answer.position)
                    }
                    (true, false) => Completion::done(),
                    (false, _) => Completion::failed_after(code, bytes),
                };
                // A refusal means that the set is gone, which the device's loop will report; or the worker answered
                // nonsense, and dropping the command reports it as aborted.
                let _ = command.complete(completion);
            }
            Some(Waiting::Close(sender)) => {
                let _ = sender.send(code);
            }
            // Nobody asked for this: the worker cannot be trusted any more. It is a child that was not waited for, so the
            // number is still its own.
            None => {
                if let Some(worker) = i32::try_from(worker).ok().and_then(rustix::process::Pid::from_raw) {
                    let _ = rustix::process::kill_process(worker, rustix::process::Signal::KILL);
                }
                break;
            }
        }
    }
    // Whoever still waits never gets an answer. Why is known to the set first, so that the statement fails for that reason.
    let left = lock(pending).take().unwrap_or_default();
    let mut commands = left.values().filter_map(|waiting| match waiting {
        Waiting::Command(command, _) => Some(command),
        Waiting::Close(_) => None,
    });
    if let Some(command) = commands.next() {
        wait_for_obituary(|| command.has_ended().then_some(()));
    }
    drop(left);
}

/// What a worker did.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Served {
    /// Requests answered.
    pub requests: u64,
    /// Buffers mapped by their handles.
    pub handles_mapped: u64,
    /// Bytes moved between buffers and media.
    pub bytes: u64,
}

/// A worker's life: answers requests from `input` on `output` until `input` ends. `open` opens the media of a stripe when
/// its first request comes.
///
/// `set` has joined the primary's set ([`ClientVirtualDeviceSet::open_in_secondary`]).
///
/// # Errors
/// VD_E_UNEXPECTED when a pipe fails; errors of GetConfiguration, which also tells why where the set ended with the pipe.
/// Failures of the media are answered, not returned.
pub fn serve(
    set: &ClientVirtualDeviceSet,
    mut input: impl Read,
    mut output: impl Write,
    mut open: impl FnMut(u32) -> Result<Box<dyn Media>, MediaError>,
) -> Result<Served, Error> {
    let pipe_failed = |error: io::Error| {
        let what = format!("a pipe to the primary failed: {error}");
        let name = set.name().unwrap_or_default();
        // A pipe that is cut off mostly says that the primary died, which the set knows better.
        let obituary = wait_for_obituary(|| set.get_configuration(Duration::ZERO).err());
        obituary.unwrap_or_else(|| {
            Error::new(ErrorKind::System, vdi_proto::status::VdError::Unexpected, "serve", &name, what).because(error)
        })
    };
    let config = set.get_configuration(INFINITE)?;
    // The media, or what it failed with.
    let mut stripes: HashMap<u32, Result<Box<dyn Media>, CompletionCode>> = HashMap::new();
    let failed = |error: MediaError| {
        eprintln!("worker: {error}");
        error.code
    };
    let mut served = Served::default();
    while let Some(record) = read_record::<32>(&mut input).map_err(pipe_failed)? {
        let request = Request::from_bytes(&record);
        let stripe = stripes.entry(request.stripe).or_insert_with(|| {
            open(request.stripe).and_then(|mut media| media.begin(&config).map(|()| media)).map_err(failed)
        });
        let mut answer = Answer { tag: request.tag, code: CompletionCode::SUCCESS.number(), bytes: 0, position: 0 };
        let code = CommandCode::new(request.code);
        match stripe {
            Err(code) => answer.code = code.number(),
            Ok(media) => match work(set, &request, media.as_mut(), &mut served) {
                Ok(Done::Moved(bytes)) => answer.bytes = bytes,
                Ok(Done::At(position)) => answer.position = position,
                Err(error) => {
                    let size = if code.is_transfer() { request.bytes as usize } else { 0 };
                    let (error, bytes) = sensible(error, size);
                    (answer.code, answer.bytes) = (error.code.number(), bytes as u32);
                    if ends_the_work(code, &error) {
                        *stripe = Err(failed(error));
                    }
                }
            },
        }
        served.requests += 1;
        output.write_all(&answer.to_bytes()).and_then(|()| output.flush()).map_err(pipe_failed)?;
    }
    Ok(served)
}

/// What a request came to.
enum Done {
    /// So many bytes were moved.
    Moved(u32),
    /// Any other command; the position, if it is one that has it.
    At(u64),
}

/// Carries one request out. The lease on the buffer ends with this function, before the answer goes out.
fn work(
    set: &ClientVirtualDeviceSet,
    request: &Request,
    media: &mut dyn Media,
    served: &mut Served,
) -> Result<Done, MediaError> {
    let code = CommandCode::new(request.code);
    if code.is_transfer() {
        let mut buffer = set
            .map_buffer_handle_sized(BufferHandle::from_number(request.handle), request.bytes as usize)
            .map_err(|error| MediaError::new(CompletionCode::IO_DEVICE, error.to_string()))?;
        served.handles_mapped += 1;
        let moved = if code == CommandCode::WRITE {
            media.write(request.position, buffer.data())?;
            buffer.data().len()
        } else {
            pump::read(media, request.position, buffer.data_mut())?
        };
        served.bytes += moved as u64;
        return Ok(Done::Moved(moved as u32));
    }
    let position = match code {
        code if code.number() == CLOSE => media.close().map(|()| 0),
        CommandCode::FLUSH => media.flush().map(|()| 0),
        CommandCode::COMPLETE => media.complete().map(|()| 0),
        CommandCode::CLEAR_ERROR => media.clear_error().map(|()| 0),
        code => media.other(code, request.bytes as i32, request.position),
    };
    position.map(Done::At)
}
