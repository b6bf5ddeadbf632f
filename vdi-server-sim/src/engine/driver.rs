//! One device of a statement, as the engine drives it: commands and their answers, errors, media.
//!
//! Source: VDI specification, "Commands", "Command Error Handling", "End Of Media and Unexpected Filemarks".
//! [`super::writes`] and [`super::reads`] move data on top of this.
//!
//! # Invariants
//!
//! 1. A command goes out only if the set's features allow it, and while the device is in IO-ERROR only ClearError does, after
//!    everything that was outstanding has ended.
//! 2. Every command that was sent is answered exactly once, through `succeeded` or `failed`, refused ones included.
//! 3. An error is either recovered from, within a bounded number of attempts, or a failure of the statement. None is
//!    passed over.
//!
//! # Which errors are recovered from
//!
//! | code | command | what the engine does |
//! |---|---|---|
//! | ERROR_IO_DEVICE, ERROR_NO_SYSTEM_RESOURCES | Read, Write, positioning, WriteMark, Load | ClearError, then the same again, up to [`RETRIES`] times without progress |
//! | ERROR_END_OF_MEDIA | Write, WriteMark on removable devices | ClearError, the rest of the writes again, Flush, Load |
//! | ERROR_HANDLE_EOF, ERROR_NO_DATA_DETECTED | Read | ClearError and Load where more is to come and the device is removable |
//! | ERROR_FILEMARK_DETECTED | Read on tape-like devices | ClearError, reading on behind the mark |
//! | all else | all | the statement fails and the set is aborted |
//!
//! **Decision**: Flush, Complete, Snapshot, MountSnapshot and ClearError are never repeated: what a client could not make
//! durable once may be lost although it succeeds the second time.

use std::sync::Arc;
use std::thread::{self, ThreadId};

use crossbeam::channel::{Receiver, Sender, bounded, select, unbounded};
use vdi_proto::command::CommandCode;
use vdi_proto::completion::CompletionCode;
use vdi_proto::config::VdConfig;
use vdi_proto::features::{DeviceKind, Features};
use vdi_proto::status::VdError;

use super::Failure;
use super::free_list::{BufferOrigin, FreeLists};
use super::operation::{Operation, Stopped};
use super::progress_counter::ProgressCounter;
use crate::faults::{Act, CommandFault};
use crate::trace::event;
use crate::vds::{Completed, CompletionRoutine, ServerBuffer, ServerVirtualDevice, VdsCommand, VdsError};

/// How often a command is repeated in a row without a byte of progress.
pub(super) const RETRIES: u32 = 3;

/// How a position counts from the beginning: VDC_Beginning.
const FROM_BEGINNING: i32 = 0;
/// How a position counts from the end: VDC_End.
const FROM_END: i32 = 2;

/// A command that has ended.
#[derive(Debug)]
pub(super) struct Ended {
    pub(super) number: u64,
    pub(super) code: CompletionCode,
    pub(super) bytes: u32,
    pub(super) position: u64,
    /// Its buffer, unless it went back to its list already.
    pub(super) buffer: Option<ServerBuffer>,
}

/// Where a command's context has the origin of its buffer, above its number.
const ORIGIN: u32 = 56;

/// Brings buffers back to their lists, and tells the driver.
struct Routine {
    lists: Option<FreeLists>,
    succeeded: Sender<Ended>,
    failed: Sender<Ended>,
}

impl CompletionRoutine for Routine {
    fn completed(&self, completed: Completed) {
        let Completed { code, bytes, position, mut buffer, context, .. } = completed;
        if let Some(lists) = self.lists.as_ref().filter(|_| code.is_success())
            && let Some(buffer) = buffer.take()
        {
            lists.free(BufferOrigin::from_bits(context >> ORIGIN), buffer);
        }
        let channel = if code.is_success() { &self.succeeded } else { &self.failed };
        // The driver may be gone after a failure.
        let _ = channel.send(Ended { number: context & ((1 << ORIGIN) - 1), code, bytes, position, buffer });
    }
}

/// Delays completions until the sending thread releases them, or the operation is over. The thread that ends the operation also ends its
/// commands, and must not wait for the sending thread. The sending thread gets refusals at once.
struct DelayedRoutine {
    sender: ThreadId,
    /// Both are disconnected then.
    released: Receiver<()>,
    over: Receiver<()>,
    inner: Arc<Routine>,
}

impl CompletionRoutine for DelayedRoutine {
    fn completed(&self, completed: Completed) {
        if thread::current().id() != self.sender {
            select! {
                recv(self.released) -> _ => {}
                recv(self.over) -> _ => {}
            }
        }
        self.inner.completed(completed);
    }
}

/// What is to be sent.
pub(super) struct Outgoing {
    pub(super) code: CommandCode,
    /// Bytes, or what [`vdi_proto::command::SizeField`] says.
    pub(super) size: i32,
    pub(super) position: u64,
    pub(super) buffer: Option<ServerBuffer>,
    pub(super) origin: BufferOrigin,
}

/// The answer to a command without data.
#[derive(Debug, Clone, Copy)]
pub(super) struct Answer {
    pub(super) code: CompletionCode,
    pub(super) position: u64,
}

/// A device of a statement.
pub(super) struct Driver<'a> {
    pub(super) operation: &'a Operation,
    device: Arc<ServerVirtualDevice>,
    pub(super) config: VdConfig,
    pub(super) kind: DeviceKind,
    /// The device gets Discard if the server fails.
    discards: bool,
    routine: Arc<Routine>,
    /// Commands that succeeded. They have a channel of their own, so that a thread that waits for failures is not woken for them.
    succeeded: Receiver<Ended>,
    /// Commands that ended in another way.
    pub(super) failed: Receiver<Ended>,
    next_number: u64,
    /// The fault of the next command, if it was asked for.
    drawn: Option<CommandFault>,
    /// Commands that the device holds.
    in_flight: u32,
    /// The number of the medium in the device.
    medium: i32,
    counter: &'a ProgressCounter,
}

impl<'a> Driver<'a> {
    /// A driver; `counter` learns of every command that succeeded.
    pub(super) fn new(
        operation: &'a Operation,
        device: Arc<ServerVirtualDevice>,
        config: VdConfig,
        lists: Option<FreeLists>,
        counter: &'a ProgressCounter,
    ) -> Driver<'a> {
        let ((succeeding, succeeded), (failing, failed)) = (unbounded(), unbounded());
        let routine = Arc::new(Routine { lists, succeeded: succeeding, failed: failing });
        // BeginConfiguration has refused every other combination.
        let kind = config.features.device_kind().unwrap_or(DeviceKind::PipeLike);
        let discards = Operation::discards(&config);
        Driver {
            operation,
            device,
            config,
            kind,
            discards,
            routine,
            succeeded,
            failed,
            next_number: 0,
            drawn: None,
            in_flight: 0,
            medium: 1,
            counter,
        }
    }

    pub(super) fn has(&self, feature: Features) -> bool {
        self.config.features.contains(feature)
    }

    pub(super) fn name(&self) -> &str {
        self.device.name()
    }

    pub(super) fn index(&self) -> u32 {
        self.device.index()
    }

    pub(super) fn in_flight(&self) -> u32 {
        self.in_flight
    }

    /// A command has succeeded and moved so many bytes of files.
    pub(super) fn succeeded(&self, payload: u64) {
        self.counter.add(payload);
    }

    /// Sends a command and gives its number. Its answer comes through [`Driver::wait_ended`] and its like, also where it is
    /// refused for the state of the device.
    pub(super) fn send(&mut self, outgoing: Outgoing) -> Result<u64, Stopped> {
        let fault = self.next_fault();
        self.drawn = None;
        self.inject(outgoing.code, fault)?;
        let routine = Arc::clone(&self.routine);
        self.submit(outgoing, routine).map(|(number, _)| number)
    }

    /// Sends a command; its number, and why it was refused if it was.
    fn submit(
        &mut self,
        outgoing: Outgoing,
        routine: Arc<dyn CompletionRoutine>,
    ) -> Result<(u64, Option<VdError>), Stopped> {
        let Outgoing { code, size, position, buffer, origin } = outgoing;
        let sending = if self.discards { Some(self.operation.may_send()?) } else { None };
        let number = self.next_number;
        self.next_number += 1;
        self.in_flight += 1;
        let context = number | origin.bits() << ORIGIN;
        let command = VdsCommand { code, size, position, buffer, routine, context };
        let sent = self.device.send_command(command);
        // The thread that fails may have to send Discard.
        drop(sending);
        match sent {
            Ok(()) => Ok((number, None)),
            Err(error) if matches!(error.code, VdError::IoError | VdError::QueueFull) => Ok((number, Some(error.code))),
            Err(error) => Err(self.operation.stop(error)),
        }
    }

    /// Sends Flushes until the queue is full, and waits for all of them: what a client may come across, on demand. Completions
    /// wait meanwhile, so that no client is fast enough to keep the queue from filling; so these commands know no other faults.
    pub(super) fn fill_queue(&mut self) -> Result<(), Stopped> {
        let (held, released) = bounded(0);
        let (inner, over) = (Arc::clone(&self.routine), self.operation.over().clone());
        let routine = Arc::new(DelayedRoutine { sender: thread::current().id(), released, over, inner });
        let refused = loop {
            let flush =
                Outgoing { code: CommandCode::FLUSH, size: 0, position: 0, buffer: None, origin: BufferOrigin::SMALL };
            if let (number, Some(_)) = self.submit(flush, Arc::clone(&routine) as _)? {
                break number;
            }
        };
        drop::<Sender<()>>(held);
        while self.in_flight > 0 {
            let Ended { number, code, .. } = self.wait_ended()?;
            match code {
                code if code.is_success() => self.succeeded(0),
                _ if number == refused => {}
                code => return Err(self.failed(CommandCode::FLUSH, code, 0, 0)),
            }
        }
        Ok(())
    }

    /// Whether a fault has the next command wait. Then a thread that is not to wait does not send it.
    pub(super) fn delays_next(&mut self) -> bool {
        !self.next_fault().delay.is_zero()
    }

    /// What the faults do before the next command, which is counted now.
    fn next_fault(&mut self) -> CommandFault {
        let (faults, device) = (&self.operation.faults, self.device.index());
        *self.drawn.get_or_insert_with(|| faults.before_command(device))
    }

    /// What a fault does before a command.
    fn inject(&self, code: CommandCode, fault: CommandFault) -> Result<(), Stopped> {
        if fault.act != Act::Send {
            let act = format!("{:?}", fault.act);
            event!(INFO, set = self.operation.set_name(), device = self.name(), command = %code, act = act, "fault");
        }
        self.operation.pause(fault.delay)?;
        match fault.act {
            Act::Send => {}
            Act::Abort => {
                // The command that follows is refused, and the agent says why.
                let _ = self.operation.set.signal_abort();
            }
            Act::Die => Act::die(),
            Act::Refuse(refusal) => {
                let (set, what) = (self.operation.set_name(), "a fault refuses it");
                return Err(self.operation.stop(VdsError::on_device("SendCommand", set, self.name(), refusal, what)));
            }
        }
        Ok(())
    }

    /// Waits for the next command that ends.
    pub(super) fn wait_ended(&mut self) -> Result<Ended, Stopped> {
        let ended = select! {
            recv(self.succeeded) -> ended => ended,
            recv(self.failed) -> ended => ended,
            recv(self.operation.over()) -> _ => return Err(Stopped),
        };
        self.took(ended.map_err(|_| Stopped)?)
    }

    /// The next command that has succeeded by now.
    pub(super) fn next_success(&mut self) -> Option<Ended> {
        let ended = self.succeeded.try_recv().ok()?;
        self.in_flight -= 1;
        Some(ended)
    }

    /// Takes note of a command that has ended; to be called with everything that comes out of `failed`.
    pub(super) fn took(&mut self, ended: Ended) -> Result<Ended, Stopped> {
        self.in_flight -= 1;
        if ended.code == CompletionCode::OPERATION_ABORTED && self.operation.is_aborted() {
            return Err(self.operation.wait_until_over());
        }
        Ok(ended)
    }

    /// Sends a command without data while nothing is outstanding, and waits for its answer.
    fn exchange(&mut self, code: CommandCode, size: i32, position: u64) -> Result<Answer, Stopped> {
        debug_assert_eq!(self.in_flight, 0, "{code}");
        self.send(Outgoing { code, size, position, buffer: None, origin: BufferOrigin::SMALL })?;
        let Ended { code, position, .. } = self.wait_ended()?;
        if code.is_success() {
            self.succeeded(0);
        }
        Ok(Answer { code, position })
    }

    /// ClearError after a failure, to be called when nothing is outstanding. A client that refuses it stands by the failure,
    /// which then is the statement's.
    pub(super) fn clear_error(&mut self, failure: Failure) -> Result<(), Stopped> {
        event!(DEBUG, set = self.operation.set_name(), device = self.name(), failure = %failure, "recovering");
        let answer = self.exchange(CommandCode::CLEAR_ERROR, 0, 0)?;
        match failure {
            _ if answer.code.is_success() => Ok(()),
            Failure::Device { device, operation, code, bytes, size, .. } => {
                let clear_error = Some(answer.code);
                Err(self.operation.stop(Failure::Device { device, operation, code, bytes, size, clear_error }))
            }
            failure => Err(self.operation.stop(failure)),
        }
    }

    /// Sends a command without data and gives its answer, after the retries that its kind has. Whatever the answer is, the
    /// device is active afterwards.
    pub(super) fn attempt(&mut self, code: CommandCode, size: i32, position: u64) -> Result<Answer, Stopped> {
        let mut attempts = 0;
        loop {
            let answer = self.exchange(code, size, position)?;
            if answer.code.is_success() {
                return Ok(answer);
            }
            if !may_repeat(code) {
                return Err(self.failed(code, answer.code, 0, 0));
            }
            if !is_condition(answer.code) && !is_recoverable(answer.code) {
                return Err(self.failed(code, answer.code, 0, 0));
            }
            self.clear_error(self.failure(code, answer.code, 0, 0))?;
            attempts += 1;
            if is_condition(answer.code) || attempts > RETRIES {
                return Ok(answer);
            }
        }
    }

    /// Sends a command without data, which has to succeed; the position that it returned.
    pub(super) fn command(&mut self, code: CommandCode, size: i32, position: u64) -> Result<u64, Stopped> {
        let answer = self.attempt(code, size, position)?;
        if answer.code.is_success() { Ok(answer.position) } else { Err(self.failed(code, answer.code, 0, 0)) }
    }

    /// A command that has to return a certain position.
    fn position_must_be(&mut self, code: CommandCode, whence: i32, target: u64, expected: u64) -> Result<(), Stopped> {
        let found = self.command(code, whence, target)?;
        if found == expected {
            return Ok(());
        }
        let what = format!("the position after it is {expected}, the client says {found}");
        Err(self.protocol_error(code, what))
    }

    /// Goes to the beginning of the medium, by the means that the device has.
    pub(super) fn rewind(&mut self) -> Result<(), Stopped> {
        match self.kind {
            DeviceKind::PipeLike => Ok(()),
            DeviceKind::TapeLike => self.command(CommandCode::REWIND, 0, 0).map(drop),
            DeviceKind::DiskLike => self.position_must_be(CommandCode::SET_POSITION, FROM_BEGINNING, 0, 0),
        }
    }

    /// Tape-like: where the tape is.
    pub(super) fn block_address(&mut self) -> Result<u64, Stopped> {
        self.command(CommandCode::GET_POSITION, 0, 0)
    }

    /// Tape-like: goes back to a position that the client has told.
    pub(super) fn return_to(&mut self, address: u64) -> Result<(), Stopped> {
        self.position_must_be(CommandCode::SET_POSITION, 0, address, address)
    }

    /// Disk-like: the length of the medium in bytes.
    pub(super) fn medium_length(&mut self) -> Result<u64, Stopped> {
        self.command(CommandCode::SET_POSITION, FROM_END, 0)?;
        self.command(CommandCode::GET_POSITION, 0, 0)
    }

    /// Has the client put the next medium into the device.
    pub(super) fn load_next(&mut self) -> Result<(), Stopped> {
        let next = self.medium.saturating_add(1);
        self.command(CommandCode::LOAD, next, 0)?;
        self.medium = next;
        event!(DEBUG, set = self.operation.set_name(), device = self.name(), medium = next, "medium loaded");
        Ok(())
    }

    /// Closes the device.
    pub(super) fn close(&self) -> Result<(), Stopped> {
        self.device.close_device().map_err(|error| self.operation.stop(error))
    }

    pub(super) fn failure(&self, command: CommandCode, code: CompletionCode, bytes: u32, size: u32) -> Failure {
        let (device, operation) = (self.name().to_owned(), operation(command));
        Failure::Device { device, operation, code, bytes, size, clear_error: None }
    }

    /// A command failed for good.
    pub(super) fn failed(&self, command: CommandCode, code: CompletionCode, bytes: u32, size: u32) -> Stopped {
        self.operation.stop(self.failure(command, code, bytes, size))
    }

    /// The client's answer cannot be right.
    pub(super) fn protocol_error(&self, command: CommandCode, what: String) -> Stopped {
        let device = self.name().to_owned();
        self.operation.stop(Failure::Answer { device, operation: operation(command), what })
    }
}

/// Whether a command that failed may be sent again.
fn may_repeat(code: CommandCode) -> bool {
    matches!(
        code,
        CommandCode::READ
            | CommandCode::WRITE
            | CommandCode::REWIND
            | CommandCode::WRITE_MARK
            | CommandCode::SKIP_MARKS
            | CommandCode::SKIP_BLOCKS
            | CommandCode::LOAD
            | CommandCode::GET_POSITION
            | CommandCode::SET_POSITION
    )
}

/// Whether a device that answered this may do better the next time.
pub(super) fn is_recoverable(code: CompletionCode) -> bool {
    matches!(code, CompletionCode::IO_DEVICE | CompletionCode::NO_SYSTEM_RESOURCES)
}

/// Whether this tells something about the medium, and repeating would not change it.
fn is_condition(code: CompletionCode) -> bool {
    code.is_end_of_data()
        || matches!(
            code,
            CompletionCode::END_OF_MEDIA
                | CompletionCode::FILEMARK_DETECTED
                | CompletionCode::SETMARK_DETECTED
                | CompletionCode::BEGINNING_OF_MEDIA
        )
}

/// What a command is called in messages.
fn operation(code: CommandCode) -> &'static str {
    match code {
        CommandCode::READ => "read",
        CommandCode::WRITE => "write",
        CommandCode::CLEAR_ERROR => "clear error",
        CommandCode::REWIND => "rewind",
        CommandCode::WRITE_MARK => "write mark",
        CommandCode::SKIP_MARKS => "skip marks",
        CommandCode::SKIP_BLOCKS => "skip blocks",
        CommandCode::LOAD => "load",
        CommandCode::GET_POSITION => "get position",
        CommandCode::SET_POSITION => "set position",
        CommandCode::DISCARD => "discard",
        CommandCode::FLUSH => "flush",
        CommandCode::SNAPSHOT => "snapshot",
        CommandCode::MOUNT_SNAPSHOT => "mount snapshot",
        CommandCode::PREPARE_TO_FREEZE => "prepare to freeze",
        CommandCode::FILE_INFO_BEGIN => "begin of the file list",
        CommandCode::FILE_INFO_END => "end of the file list",
        CommandCode::COMPLETE => "complete",
        _ => "command",
    }
}
