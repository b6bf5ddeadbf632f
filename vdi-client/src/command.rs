//! Commands that a device received, and how they are completed.
//!
//! # Invariants
//!
//! 1. A [`Command`] is completed exactly once: completing takes it, a refused completion gives it back, dropping it completes
//!    it with ERROR_OPERATION_ABORTED. Where even that is refused, because another process still has its buffer mapped, the
//!    set is aborted: no command stays unanswered.
//! 2. The bytes of a Read or Write are reported as the number really transferred; the code follows from that number. There is
//!    no way to say "success" beside a smaller number.
//! 3. The buffer goes back before the completion goes out: the server never gets a buffer that this process still holds.

use core::fmt;
use std::sync::Arc;

use vdi_proto::abort::{Cause, Party};
use vdi_proto::command::{Buffer, CommandCode, CommandId, CommandRecord};
use vdi_proto::completion::CompletionCode;
use vdi_proto::handle::BufferHandle;
use vdi_proto::set::client::Call;
use vdi_proto::status::VdError;
use vdi_shm::area::LentBuffer;
use vdi_shm::slots::TakeBackError;

use crate::device::DeviceShared;
use crate::error::{Error, ErrorKind};
#[cfg(feature = "sqlserver")]
use crate::sqlserver;
use crate::trace;

/// How a command ended.
///
/// ```
/// use vdi_client::{Completion, CompletionCode};
///
/// Completion::transferred(65536); // Read, Write: this many bytes
/// Completion::done(); // any other command: carried out
/// Completion::at(4096); // GetPosition, SetPosition: carried out, and this is the position
/// Completion::failed(CompletionCode::NOT_SUPPORTED); // not carried out
/// Completion::failed_after(CompletionCode::DISK_FULL, 512); // a Write that got this far
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Completion(Outcome);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Outcome {
    Transferred(usize),
    Done,
    At(u64),
    Failed(CompletionCode, usize),
    /// A foreign program's own words; only [`crate::raw`] makes these.
    Raw(CompletionCode, u64, u64),
}

impl Completion {
    /// A Read or Write moved `bytes` bytes. All of them: ERROR_SUCCESS. Fewer: a Write is reported with ERROR_DISK_FULL, a
    /// Read with ERROR_HANDLE_EOF, the end of the data.
    #[must_use]
    pub const fn transferred(bytes: usize) -> Self {
        Completion(Outcome::Transferred(bytes))
    }

    /// A command without data was carried out.
    #[must_use]
    pub const fn done() -> Self {
        Completion(Outcome::Done)
    }

    /// GetPosition or SetPosition was carried out: the position now.
    #[must_use]
    pub const fn at(position: u64) -> Self {
        Completion(Outcome::At(position))
    }

    /// The command was not carried out.
    #[must_use]
    pub const fn failed(code: CompletionCode) -> Self {
        Completion(Outcome::Failed(code, 0))
    }

    /// A Read or Write failed after `bytes` bytes.
    #[must_use]
    pub const fn failed_after(code: CompletionCode, bytes: usize) -> Self {
        Completion(Outcome::Failed(code, bytes))
    }

    pub(crate) const fn raw(code: CompletionCode, bytes: u64, position: u64) -> Self {
        Completion(Outcome::Raw(code, bytes, position))
    }

    /// Code, bytes and position for a command; an error tells why this completion is none for it.
    #[inline]
    fn resolve(self, record: &CommandRecord) -> Result<(CompletionCode, u32, u64), &'static str> {
        let transfer = record.code.is_transfer();
        let size = record.size as u32 as usize;
        let bytes = match self.0 {
            Outcome::Transferred(bytes) | Outcome::Failed(_, bytes) => bytes as u64,
            Outcome::Raw(_, bytes, _) if transfer => bytes,
            Outcome::Raw(..) | Outcome::Done | Outcome::At(_) => 0,
        };
        let Some(bytes) = u32::try_from(bytes).ok().filter(|bytes| !transfer || *bytes as usize <= size) else {
            return Err("more bytes than the command has");
        };
        match self.0 {
            Outcome::Raw(code, _, position) => Ok((code, bytes, position)),
            Outcome::Failed(code, _) if code.is_success() => Err("a failure with the code of success"),
            Outcome::Failed(code, _) => Ok((code, bytes, 0)),
            Outcome::Transferred(_) if !transfer => Err("bytes for a command that transfers none"),
            Outcome::Transferred(_) if bytes as usize == size => Ok((CompletionCode::SUCCESS, bytes, 0)),
            Outcome::Transferred(_) => Ok(match record.code.buffer() {
                Buffer::FromClient => (CompletionCode::HANDLE_EOF, bytes, 0),
                Buffer::FromServer | Buffer::None => (CompletionCode::DISK_FULL, bytes, 0),
            }),
            Outcome::Done | Outcome::At(_) if transfer => Err("a transfer without the number of bytes transferred"),
            Outcome::Done => Ok((CompletionCode::SUCCESS, 0, 0)),
            Outcome::At(position) => Ok((CompletionCode::SUCCESS, 0, position)),
        }
    }
}

/// A command that the server sent to a device. It must be completed; dropping it completes it as aborted.
///
/// A command may be sent to another thread and completed there; several may be held at a time.
pub struct Command {
    record: CommandRecord,
    lent: Lent,
    answered: Answered,
    /// Since the program has it.
    held: trace::Clock,
}

/// Whether nothing more can be done about a command. A whole word, so that a command is moved by words as they were written: a
/// load that covers several stores, or a part of one, waits until they have left the processor.
#[derive(Clone, Copy, PartialEq, Eq)]
#[repr(u64)]
enum Answered {
    No,
    Yes,
}

/// What a command holds of its back end.
enum Lent {
    Own(Option<LentBuffer>, Arc<DeviceShared>),
    #[cfg(feature = "sqlserver")]
    SqlServer(sqlserver::Held),
}

impl fmt::Debug for Command {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Command")
            .field("code", &self.record.code)
            .field("size", &self.record.size)
            .field("position", &self.record.position)
            .field("device", &self.device())
            .finish_non_exhaustive()
    }
}

/// A completion that was refused, with the command where it is still outstanding.
#[derive(Debug)]
pub struct CompleteError {
    /// Why.
    pub error: Error,
    /// The command, to be completed in another way or later; `None` where the session is over.
    pub command: Option<Command>,
}

impl fmt::Display for CompleteError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.error.fmt(f)
    }
}

impl std::error::Error for CompleteError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        std::error::Error::source(&self.error)
    }
}

impl From<CompleteError> for Error {
    /// Keeps the error and drops the command, which completes it as aborted.
    fn from(refused: CompleteError) -> Error {
        refused.error
    }
}

impl Command {
    #[inline]
    pub(crate) fn new(record: CommandRecord, buffer: Option<LentBuffer>, device: Arc<DeviceShared>) -> Self {
        Command { record, lent: Lent::Own(buffer, device), answered: Answered::No, held: trace::Clock::start() }
    }

    #[cfg(feature = "sqlserver")]
    pub(crate) fn of_vendor(record: CommandRecord, held: sqlserver::Held) -> Self {
        Command { record, lent: Lent::SqlServer(held), answered: Answered::No, held: trace::Clock::start() }
    }

    /// Tells that the program gets the command, and how long it waited for it.
    #[inline]
    pub(crate) fn tell_received(&self, waited: trace::Clock) {
        trace::event!(
            TRACE,
            set = self.set_name(),
            device = self.device(),
            id = self.record.id.0,
            command = %self.record.code,
            size = self.record.size,
            position = self.record.position,
            bytes = self.data().len(),
            waited_us = waited.us(),
            "command received"
        );
    }

    /// Which command it is.
    #[must_use]
    pub fn code(&self) -> CommandCode {
        self.record.code
    }

    /// The command's identity on its device.
    #[must_use]
    pub fn id(&self) -> CommandId {
        self.record.id
    }

    /// The overloaded size field: bytes, a count, a medium's number; see [`vdi_proto::command::SizeField`].
    #[must_use]
    pub fn size(&self) -> i32 {
        self.record.size
    }

    /// The position field.
    #[must_use]
    pub fn position(&self) -> u64 {
        self.record.position
    }

    /// The name of the device that it came to.
    #[must_use]
    pub fn device(&self) -> &str {
        match &self.lent {
            Lent::Own(_, device) => device.name(),
            #[cfg(feature = "sqlserver")]
            Lent::SqlServer(held) => held.device().name(),
        }
    }

    /// Whether waits of its device must end.
    pub(crate) fn has_ended(&self) -> bool {
        match &self.lent {
            Lent::Own(_, device) => device.set.interruption("drive").is_some(),
            #[cfg(feature = "sqlserver")]
            Lent::SqlServer(held) => held.device().session().interruption("drive").is_some(),
        }
    }

    pub(crate) fn set_name(&self) -> &str {
        match &self.lent {
            Lent::Own(_, device) => device.set.session.set_name(),
            #[cfg(feature = "sqlserver")]
            Lent::SqlServer(held) => held.device().set_name(),
        }
    }

    /// The bytes of a Write, or of a Read as filled so far; empty for other commands.
    #[must_use]
    #[inline]
    pub fn data(&self) -> &[u8] {
        match &self.lent {
            Lent::Own(buffer, _) => buffer.as_ref().map_or(&[], LentBuffer::data),
            #[cfg(feature = "sqlserver")]
            Lent::SqlServer(held) => held.buffer().map_or(&[], sqlserver::Buffer::data),
        }
    }

    /// The bytes of a Read, to be filled; empty for commands without a buffer.
    #[must_use]
    pub fn data_mut(&mut self) -> &mut [u8] {
        match &mut self.lent {
            Lent::Own(buffer, _) => buffer.as_mut().map_or(&mut [], LentBuffer::data_mut),
            #[cfg(feature = "sqlserver")]
            Lent::SqlServer(held) => held.buffer_mut().map_or(&mut [], sqlserver::Buffer::data_mut),
        }
    }

    /// The prefix zone right before the data, `prefixZoneSize` bytes for the client's own use.
    #[must_use]
    pub fn prefix_mut(&mut self) -> &mut [u8] {
        match &mut self.lent {
            Lent::Own(buffer, _) => buffer.as_mut().map_or(&mut [], LentBuffer::prefix_mut),
            #[cfg(feature = "sqlserver")]
            Lent::SqlServer(held) => held.buffer_mut().map_or(&mut [], sqlserver::Buffer::prefix_mut),
        }
    }

    /// The address of the data, for [`crate::ClientVirtualDeviceSet::get_buffer_handle`]; `None` without a buffer.
    #[must_use]
    pub fn buffer_address(&self) -> Option<*const u8> {
        let start = match &self.lent {
            Lent::Own(buffer, _) => buffer.as_ref().map(LentBuffer::address),
            #[cfg(feature = "sqlserver")]
            Lent::SqlServer(held) => held.buffer().map(sqlserver::Buffer::address),
        };
        start.map(|start| start.as_ptr().cast_const())
    }

    /// GetBufferHandle for this command's buffer: what another process of the set passes to
    /// [`crate::ClientVirtualDeviceSet::map_buffer_handle`].
    ///
    /// # Errors
    /// VD_E_INVALID for a command without a buffer, VD_E_PROTOCOL when the set is not open (any more).
    #[inline]
    pub fn buffer_handle(&self) -> Result<BufferHandle, Error> {
        let handle = self.own_handle().inspect_err(trace::trace_refused)?;
        trace::event!(
            TRACE,
            call = "GetBufferHandle",
            set = self.set_name(),
            device = self.device(),
            id = self.record.id.0,
            handle = %handle,
            "handle given"
        );
        Ok(handle)
    }

    #[inline]
    fn own_handle(&self) -> Result<BufferHandle, Error> {
        const CALL: &str = "GetBufferHandle";
        let without = || {
            let what = "this command has no buffer";
            self.of(Error::new(ErrorKind::Misuse, VdError::Invalid, CALL, self.set_name(), what))
        };
        match &self.lent {
            Lent::Own(buffer, device) => {
                device.set.view().handles_allowed().map_err(|code| self.of(device.set.refuse(CALL, code)))?;
                buffer.as_ref().map(LentBuffer::handle).ok_or_else(without)
            }
            #[cfg(feature = "sqlserver")]
            Lent::SqlServer(held) => {
                let buffer = held.buffer().ok_or_else(without)?;
                held.device().session().get_buffer_handle(buffer.address().as_ptr()).map_err(|error| self.of(error))
            }
        }
    }

    /// CompleteCommand: see [`crate::ClientVirtualDevice::complete_command`].
    ///
    /// # Errors
    /// As [`crate::ClientVirtualDevice::complete_command`].
    #[inline]
    pub fn complete(mut self, completion: Completion) -> Result<(), CompleteError> {
        match self.answer(completion).inspect_err(trace::trace_refused) {
            Ok(()) => Ok(()),
            Err(error) if self.answered == Answered::Yes => Err(CompleteError { error, command: None }),
            Err(error) => Err(CompleteError { error, command: Some(self) }),
        }
    }

    pub(crate) fn is_of(&self, device: &Arc<DeviceShared>) -> bool {
        match &self.lent {
            Lent::Own(_, own) => Arc::ptr_eq(own, device),
            #[cfg(feature = "sqlserver")]
            Lent::SqlServer(_) => false,
        }
    }

    #[cfg(feature = "sqlserver")]
    pub(crate) fn is_of_vendor(&self, device: &Arc<sqlserver::DeviceShared>) -> bool {
        matches!(&self.lent, Lent::SqlServer(held) if Arc::ptr_eq(held.device(), device))
    }

    pub(crate) fn of(&self, error: Error) -> Error {
        error.of_device(self.device()).of_command(self.record.code)
    }

    /// Completes the command; sets `answered` once nothing more can be done about it.
    #[inline]
    fn answer(&mut self, completion: Completion) -> Result<(), Error> {
        let told = match &mut self.lent {
            Lent::Own(buffer, device) => device.complete(&self.record, buffer, completion),
            #[cfg(feature = "sqlserver")]
            Lent::SqlServer(held) => complete_vendor(held, &self.record, completion),
        };
        match told {
            Ok((code, bytes, position)) => {
                self.answered = Answered::Yes;
                self.tell_completed(code, bytes, position);
                match &self.lent {
                    Lent::Own(_, device) => device.announce_completion(),
                    #[cfg(feature = "sqlserver")]
                    Lent::SqlServer(_) => {}
                }
                Ok(())
            }
            Err(refused) => {
                if refused.answered {
                    self.answered = Answered::Yes;
                }
                Err(self.of(refused.error))
            }
        }
    }

    #[inline]
    fn tell_completed(&self, code: CompletionCode, bytes: u32, position: u64) {
        trace::event!(
            TRACE,
            set = self.set_name(),
            device = self.device(),
            id = self.record.id.0,
            command = %self.record.code,
            code = %code,
            bytes = bytes,
            position = position,
            held_us = self.held.us(),
            "command completed"
        );
    }
}

/// A completion that was refused.
pub(crate) struct Refused {
    pub(crate) error: Error,
    /// Nothing more can be done about the command.
    pub(crate) answered: bool,
}

/// What the server is told: code, bytes and position.
type Told = (CompletionCode, u32, u64);

#[inline]
fn resolve(record: &CommandRecord, set: &str, completion: Completion) -> Result<Told, Refused> {
    completion.resolve(record).map_err(|what| {
        let what = format!("{what}; the command asks for {} bytes", record.size);
        let error = Error::new(ErrorKind::Misuse, VdError::Invalid, "CompleteCommand", set, what);
        Refused { error, answered: false }
    })
}

impl DeviceShared {
    /// Gives the buffer back and pushes the completion, which is to be announced then.
    #[inline]
    fn complete(
        &self,
        record: &CommandRecord,
        lent: &mut Option<LentBuffer>,
        completion: Completion,
    ) -> Result<Told, Refused> {
        const CALL: &str = "CompleteCommand";
        let set = &self.set;
        let done_with = |error| Refused { error, answered: true };
        let not_active = |code| {
            let what = "it is not an active command of this device";
            done_with(Error::new(ErrorKind::Misuse, code, CALL, set.session.set_name(), what))
        };
        if set.session.abort_reason().is_some() || set.is_closed() {
            let code = set.step(Call::CompleteCommand).err().unwrap_or(VdError::Protocol);
            return Err(done_with(set.refuse(CALL, code)));
        }
        let (code, bytes, position) = resolve(record, set.session.set_name(), completion)?;
        let mut core = self.core();
        if lent.is_some() {
            // Before the buffer goes back.
            core.machine.may_complete(record.id, bytes).map_err(not_active)?;
        }
        match lent.take().map(LentBuffer::give_back) {
            None | Some(Ok(())) => {}
            Some(Err((error @ TakeBackError::Leased { .. }, buffer))) => {
                *lent = Some(buffer);
                let what = format!("{error}; let them drop it, then complete the command again");
                let error =
                    Error::new(ErrorKind::NotYet, VdError::Busy, CALL, set.session.set_name(), what).because(error);
                return Err(Refused { error, answered: false });
            }
            Some(Err((error @ TakeBackError::NotLent { .. }, _))) => {
                set.accuse(Party::Somebody, error);
                return Err(done_with(set.aborted(CALL)));
            }
        }
        let completed = core.machine.complete(record.id, code, bytes, position).map_err(not_active)?;
        let pushed = core.completions.push(completed.to_words());
        drop(core);
        pushed.map_err(|error| {
            set.accuse(Party::Somebody, error);
            done_with(set.aborted(CALL))
        })?;
        Ok((code, bytes, position))
    }
}

#[cfg(feature = "sqlserver")]
fn complete_vendor(
    held: &mut sqlserver::Held,
    record: &CommandRecord,
    completion: Completion,
) -> Result<Told, Refused> {
    // After a close nothing is said about the completion, as on the own back end.
    if let Some(error) = held.device().session().closed_error("CompleteCommand") {
        return Err(Refused { error, answered: true });
    }
    let (code, bytes, position) = resolve(record, held.device().set_name(), completion)?;
    held.complete(code, bytes, position)?;
    Ok((code, bytes, position))
}

impl Drop for Command {
    fn drop(&mut self) {
        if self.answered == Answered::Yes {
            return;
        }
        let aborted = Completion::failed(CompletionCode::OPERATION_ABORTED);
        if self.answer(aborted).is_err() && self.answered == Answered::No {
            match &self.lent {
                Lent::Own(_, device) => device.set.abort(Cause::AbandonedCommand),
                #[cfg(feature = "sqlserver")]
                Lent::SqlServer(held) => held.device().session().abort(),
            }
        }
    }
}
