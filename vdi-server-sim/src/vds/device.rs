//! A virtual device, as the server uses it: IServerVirtualDevice.
//!
//! # Invariants
//!
//! 1. Every command given to [`ServerVirtualDevice::send_command`] ends in exactly one call of its completion routine: by the
//!    client's completion, by a refusal, by closing the device, or by an abort.
//! 2. A buffer that a command lends belongs to the device's table until then; nobody else on this side has it.
//! 3. The core's seat makes all senders one producer of the submission ring. Routines run without it.

use core::ops::DerefMut;
use std::sync::{Arc, OnceLock};

use vdi_proto::abort::Party;
use vdi_proto::command::{CommandCode, CommandRecord, CompletionRecord, Loan};
use vdi_proto::completion::CompletionCode;
use vdi_proto::device::{Entry, Finished, QUEUE_DEPTH, ServerDevice};
use vdi_proto::layout::PRIMARY_MEMBER;
use vdi_proto::set::server::{Call, Closing};
use vdi_proto::status::VdError;
use vdi_shm::allocator::ServerBuffer;
use vdi_shm::control::ClientWord;
use vdi_shm::ring::{Producer, RingMemory, RingViolation};
use vdi_shm::seat::Seat;
use vdi_shm::segment::Shared;
use vdi_shm::session::Session;
use vdi_shm::wait;

use super::error::VdsError;
use super::set::OpenSet;
use crate::trace;

/// What runs when a command has ended: VDS_Command's completion routine.
///
/// It runs on the completion agent's thread, or on one that helps it, or on the caller's where the command is refused. It should be
/// quick, and wait for nobody: while it runs no other completion is handled.
pub trait CompletionRoutine: Send + Sync {
    /// A command has ended.
    fn completed(&self, completed: Completed);
}

impl<F: Fn(Completed) + Send + Sync> CompletionRoutine for F {
    fn completed(&self, completed: Completed) {
        self(completed);
    }
}

/// A command to send: VDS_Command.
// In this order its parts begin where the processor's moves of 16 bytes do: what is moved as a whole is soon read in parts, and a
// read across two moves waits until both have left the processor.
#[repr(C)]
pub struct VdsCommand {
    /// What runs when it has ended.
    pub routine: Arc<dyn CompletionRoutine>,
    /// The buffer of a Read or Write.
    pub buffer: Option<ServerBuffer>,
    /// Passed through to the routine.
    pub context: u64,
    /// See [`vdi_proto::command::PositionField`].
    pub position: u64,
    /// Which command.
    pub code: CommandCode,
    /// Bytes to transfer, or what [`vdi_proto::command::SizeField`] says.
    pub size: i32,
}

impl core::fmt::Debug for VdsCommand {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("VdsCommand").field("code", &self.code).field("size", &self.size).finish_non_exhaustive()
    }
}

impl VdsCommand {
    /// A Read or Write of the first `bytes` bytes of a buffer.
    #[must_use]
    pub fn transfer(code: CommandCode, buffer: ServerBuffer, bytes: u32, routine: Arc<dyn CompletionRoutine>) -> Self {
        VdsCommand { code, size: bytes as i32, position: 0, buffer: Some(buffer), routine, context: 0 }
    }

    /// A command without data.
    #[must_use]
    pub fn plain(code: CommandCode, routine: Arc<dyn CompletionRoutine>) -> Self {
        VdsCommand { code, size: 0, position: 0, buffer: None, routine, context: 0 }
    }
}

/// A command that has ended.
#[derive(Debug)]
pub struct Completed {
    /// The device's index in its set.
    pub device: u32,
    /// Which command it was.
    pub command: CommandCode,
    /// How it ended.
    pub code: CompletionCode,
    /// Bytes transferred.
    pub bytes: u32,
    /// The position, where the command returns one.
    pub position: u64,
    /// Its buffer; `None` also where CloseDevice ended the command: the client may still hold it, so it comes back with the
    /// set's end.
    pub buffer: Option<ServerBuffer>,
    /// The command's context.
    pub context: u64,
}

/// A command until it has ended.
struct Pending {
    command: VdsCommand,
    sent: trace::Clock,
}

/// A device, as its handle and the completion agent share it.
pub(crate) struct DeviceCore {
    pub(crate) index: u32,
    session: Arc<Session>,
    /// From its opening on.
    name: OnceLock<String>,
    locked: Seat<Locked>,
}

/// Commands that a device's table has room for at once: an allocation of the least size.
const FEW: usize = 2;

struct Locked {
    /// Its table grows, as `pending` does.
    machine: ServerDevice<Vec<Entry>>,
    submissions: Producer<Shared<RingMemory>>,
    /// By place, as far as places were ever taken: the lowest free one is, so that a device has as many as it had commands
    /// outstanding at a time, and few have all [`QUEUE_DEPTH`].
    pending: Vec<Option<Pending>>,
    /// Buffers of commands that were outstanding when the device was closed.
    kept: Vec<ServerBuffer>,
}

impl Locked {
    #[inline]
    fn put_pending(&mut self, place: usize, pending: Pending) {
        if place >= self.pending.len() {
            self.make_room(place);
        }
        self.pending[place] = Some(pending);
    }

    /// More commands are outstanding than ever before.
    #[cold]
    fn make_room(&mut self, place: usize) {
        // One is what many a device ever has.
        self.pending.reserve_exact((place + 1).next_power_of_two() - self.pending.len());
        self.pending.resize_with(place + 1, || None);
    }

    #[inline]
    fn take_pending(&mut self, finished: Finished) -> Option<Pending> {
        self.pending.get_mut(finished.place()).and_then(Option::take)
    }
}

impl core::fmt::Debug for DeviceCore {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("DeviceCore").field("index", &self.index).finish_non_exhaustive()
    }
}

impl DeviceCore {
    pub(crate) fn new(index: u32, session: &Arc<Session>, submissions: Producer<Shared<RingMemory>>) -> Self {
        DeviceCore {
            index,
            session: Arc::clone(session),
            name: OnceLock::new(),
            locked: Seat::new(Locked {
                machine: ServerDevice::with_table(Vec::with_capacity(FEW)),
                submissions,
                pending: Vec::new(),
                kept: Vec::new(),
            }),
        }
    }

    /// Its name, which it gets once.
    pub(crate) fn name_it(&self, name: &str) {
        let _ = self.name.set(name.to_owned());
    }

    /// Whether it was opened under this name.
    pub(crate) fn has_name(&self, name: &str) -> bool {
        self.name.get().is_some_and(|own| own == name)
    }

    /// Whether the commands that were sent are still there for the client to see.
    pub(super) fn check_sent(&self) -> Result<(), RingViolation> {
        self.locked().submissions.check_written()
    }

    fn name(&self) -> &str {
        self.name.get().map_or("", String::as_str)
    }

    fn locked(&self) -> impl DerefMut<Target = Locked> {
        // Machine, ring and table are whole at every moment that something could panic.
        self.locked.take()
    }

    pub(crate) fn is_closed(&self) -> bool {
        self.locked().machine.is_closed()
    }

    /// Who works on the device on the client's side.
    pub(crate) fn client(&self) -> Party {
        match self.session.control().client_word(self.index) {
            Ok(ClientWord::Open { member }) if member != PRIMARY_MEMBER => Party::Secondary(member as u16),
            Ok(_) => Party::Primary,
            Err(_) => Party::Somebody,
        }
    }

    pub(crate) fn outstanding(&self) -> u32 {
        self.locked().machine.outstanding()
    }

    fn finish(&self, finished: Finished, pending: Option<Pending>) {
        if let Some(Pending { command: VdsCommand { buffer, routine, context, .. }, sent }) = pending {
            let Finished { id, command, code, bytes, position } = finished;
            trace::event!(
                TRACE,
                set = self.session.set_name(),
                device = self.name(),
                id = id.0,
                command = %command,
                code = %code,
                bytes = bytes,
                position = position,
                outstanding_us = sent.us(),
                "command completed"
            );
            routine.completed(Completed { device: self.index, command, code, bytes, position, buffer, context });
        }
    }

    /// A completion arrived. The evidence comes back when the client broke the protocol.
    pub(crate) fn completed(&self, record: CompletionRecord) -> Result<(), vdi_proto::device::Violation> {
        let mut locked = self.locked();
        if locked.machine.is_closed() || locked.machine.is_aborted() {
            // What was outstanding has ended with ERROR_OPERATION_ABORTED already, or is about to.
            return Ok(());
        }
        let finished = locked.machine.completed(record)?;
        let pending = locked.take_pending(finished);
        drop(locked);
        self.finish(finished, pending);
        Ok(())
    }

    /// Ends everything that is outstanding after the device was closed or the set aborted.
    ///
    /// After closing, the client may still work on the buffers until it sees that, so they are kept back (`keep`): lending
    /// one again would lend bytes that somebody holds. After an abort nothing is lent any more.
    fn drain(&self, keep: bool) {
        loop {
            let mut locked = self.locked();
            let Some(finished) = locked.machine.next_aborted() else { return };
            let mut pending = locked.take_pending(finished);
            if keep {
                let buffer = pending.as_mut().and_then(|pending| pending.command.buffer.take());
                locked.kept.extend(buffer);
            }
            drop(locked);
            self.finish(finished, pending);
        }
    }

    pub(crate) fn abort(&self) {
        let mut locked = self.locked();
        if locked.machine.is_closed() {
            // In order, a moment ago: whoever closed it ends what is outstanding.
            return;
        }
        locked.machine.abort();
        drop(locked);
        self.drain(false);
    }
}

/// A device that this server opened.
#[derive(Debug)]
pub struct ServerVirtualDevice {
    pub(crate) set: Arc<OpenSet>,
    pub(crate) core: Arc<DeviceCore>,
}

impl ServerVirtualDevice {
    /// The device's name.
    #[must_use]
    pub fn name(&self) -> &str {
        self.core.name()
    }

    /// The device's index in its set.
    #[must_use]
    pub fn index(&self) -> u32 {
        self.core.index
    }

    /// Who works on the device on the client's side.
    #[must_use]
    pub fn client(&self) -> Party {
        self.core.client()
    }

    /// Sends a command. Its routine runs when it has ended, also where it is refused: VD_E_QUEUE_FULL gives
    /// ERROR_NO_SYSTEM_RESOURCES, VD_E_IO_ERROR gives ERROR_IO_DEVICE, VD_E_PROTOCOL gives ERROR_INVALID_HANDLE, VD_E_ABORT gives
    /// ERROR_OPERATION_ABORTED; **Decision**: VD_E_NOTSUPPORTED and VD_E_INVALID give ERROR_NOT_SUPPORTED.
    ///
    /// # Errors
    /// The above; VD_E_NOTSUPPORTED for a command that the set's features do not allow, VD_E_INVALID for a transfer without a
    /// buffer, or of a size that the set does not have.
    pub fn send_command(&self, mut command: VdsCommand) -> Result<(), VdsError> {
        if let Err((code, completion, what)) = self.judge(&command) {
            return self.refuse(command, code, completion, &what);
        }
        let mut guard = self.core.locked();
        let locked = &mut *guard;
        let bytes = if command.buffer.is_some() { command.size as u32 } else { 0 };
        let id = match locked.machine.send(command.code, bytes) {
            Ok(id) => id,
            Err(refusal) => {
                drop(guard);
                return self.refuse(command, refusal.status(), refusal.callback_code(), &refusal.to_string());
            }
        };
        let loan = command.buffer.as_mut().map_or(Loan::default(), ServerBuffer::lend);
        let VdsCommand { code, size, position, .. } = command;
        trace::event!(
            TRACE,
            set = self.core.session.set_name(),
            device = self.name(),
            id = id.0,
            command = %code,
            size = size,
            position = position,
            bytes = bytes,
            "command sent"
        );
        let sent = trace::Clock::start();
        let pushed = locked.submissions.push(CommandRecord { code, id, size, position, loan }.to_words());
        // The client has it by now. Nobody hears of its completion before the seat is free.
        locked.put_pending((id.0 % QUEUE_DEPTH) as usize, Pending { command, sent });
        drop(guard);
        match (pushed, self.set.session.control().device(self.core.index)) {
            (Ok(()), Some(block)) => wait::ring(block.doorbell()),
            (Ok(()), None) => {}
            // The device's machine keeps fewer outstanding than the ring has entries, so a ring that is full, or whose cursor
            // cannot be true, was tampered with. The abort ends the command.
            (Err(error), _) => self.set.session.accuse(Party::Somebody, error),
        }
        Ok(())
    }

    /// Ends a command that was not sent.
    #[cold]
    fn refuse(
        &self,
        command: VdsCommand,
        code: VdError,
        completion: CompletionCode,
        what: &str,
    ) -> Result<(), VdsError> {
        let VdsCommand { code: command, buffer, routine, context, .. } = command;
        let error = self.error("SendCommand", code, &format!("{command}: {what}"));
        let device = self.core.index;
        routine.completed(Completed { device, command, code: completion, bytes: 0, position: 0, buffer, context });
        Err(error)
    }

    fn error(&self, call: &'static str, code: VdError, what: &str) -> VdsError {
        let what = match self.set.session.abort_reason() {
            Some(reason) if code == VdError::Abort => format!("the set was aborted: {reason}"),
            _ => what.to_owned(),
        };
        VdsError::on_device(call, self.set.session.set_name(), self.name(), code, what)
    }

    /// What can be said of a command without the device's state.
    fn judge(&self, command: &VdsCommand) -> Result<(), (VdError, CompletionCode, String)> {
        if self.set.session.abort_reason().is_some() {
            return Err((VdError::Abort, CompletionCode::OPERATION_ABORTED, String::new()));
        }
        let Some(config) = self.set.agreed() else {
            return Err((VdError::Protocol, CompletionCode::INVALID_HANDLE, "the set is not configured".to_owned()));
        };
        if !command.code.is_allowed(config.features) {
            let what = format!("the set's features {} do not allow it", config.features);
            return Err((VdError::NotSupported, CompletionCode::NOT_SUPPORTED, what));
        }
        let size = command.size as u32;
        let fits = match &command.buffer {
            Some(buffer) => {
                command.size > 0
                    && size as usize <= buffer.len()
                    && size <= config.max_transfer_size
                    && size.is_multiple_of(config.block_size)
            }
            None => false,
        };
        if command.code.is_transfer() != command.buffer.is_some() || command.code.is_transfer() && !fits {
            let what = format!(
                "{size} bytes with a buffer of {:?}; transfers have a buffer and a multiple of {} up to {} bytes",
                command.buffer.as_ref().map(ServerBuffer::len),
                config.block_size,
                config.max_transfer_size
            );
            return Err((VdError::Invalid, CompletionCode::NOT_SUPPORTED, what));
        }
        Ok(())
    }

    /// CloseDevice: the normal end. The client's GetCommand returns VD_E_CLOSE once it has got all that was sent. Commands that
    /// are still outstanding end with ERROR_OPERATION_ABORTED.
    ///
    /// # Errors
    /// VD_E_CLOSE when it is closed already; VD_E_ABORT; VD_E_PROTOCOL when the set is closed.
    pub fn close_device(&self) -> Result<(), VdsError> {
        const CALL: &str = "CloseDevice";
        let control = self.set.session.control();
        // One at a time, or two that close at once would each take the other for open, and neither itself for the last.
        let closing_turn = self.set.closing();
        let closed_before = self.core.locked().machine.is_closed();
        let others_open = self.set.devices.iter().any(|other| other.index != self.core.index && !other.is_closed());
        let closing = match (closed_before, others_open) {
            (true, _) => Closing::AlreadyClosed,
            (false, true) => Closing::One,
            (false, false) => Closing::Last,
        };
        self.set.step(Call::CloseDevice(closing)).map_err(|code| self.error(CALL, code, code.meaning()))?;
        {
            // In one go, so that nobody finds the last device closed and the set not ended.
            let mut locked = self.core.locked();
            locked.machine.close().map_err(|code| self.error(CALL, code, code.meaning()))?;
            self.set.device_closed();
        }
        control.server_close_device(self.core.index);
        drop(closing_turn);
        trace::event!(DEBUG, call = CALL, set = self.core.session.set_name(), device = self.name(), "device closed");
        self.core.drain(true);
        Ok(())
    }

    /// How many commands are outstanding.
    #[must_use]
    pub fn outstanding(&self) -> u32 {
        self.core.outstanding()
    }

    /// Whether the device is in IO-ERROR, so that it takes only ClearError.
    #[must_use]
    pub fn in_io_error(&self) -> bool {
        self.core.locked().machine.in_io_error()
    }
}
