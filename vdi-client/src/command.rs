//! Commands that a device received, and how they are completed.
//!
//! # Invariants
//!
//! 1. A [`Command`] is completed exactly once: completing takes it, a refused completion gives it back, dropping it completes
//!    it with ERROR_OPERATION_ABORTED. Where even that is refused, because another process still has its buffer mapped, the
//!    set is aborted: no command stays unanswered.
//! 2. The bytes of a Read or Write are reported as the number really transferred; the code follows from that number. There is
//!    no way to say "success" beside a smaller number.

use core::fmt;

use vdi_proto::command::{CommandCode, CommandId, CommandRecord};
use vdi_proto::completion::CompletionCode;
use vdi_proto::handle::BufferHandle;
use vdi_proto::status::VdError;

use crate::back_end::{HeldCommand, Received};
pub use crate::completion::Completion;
use crate::completion::{Outcome, Refused};
use crate::error::{Error, ErrorKind};
use crate::trace;

/// A command that the server sent to a device. It must be completed; dropping it completes it as aborted.
///
/// A command may be sent to another thread and completed there; several may be held at a time.
#[doc(alias = "VDC_Command")]
pub struct Command {
    record: CommandRecord,
    held: HeldCommand,
    /// It is neither completed nor beyond completing.
    outstanding: bool,
    /// Since the program has it.
    clock: trace::Clock,
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

/// A completion that was refused, with the command where it is still outstanding. `Display` and `Debug` are the error's.
#[non_exhaustive]
pub struct CompleteError {
    /// Why.
    pub error: Error,
    /// The command, to be completed in another way or later; `None` where the session is over.
    pub command: Option<Command>,
}

impl fmt::Debug for CompleteError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.error, f)
    }
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
    /// A command for the program, which waited for it as long as `waited` says.
    #[inline]
    pub(crate) fn new((record, held): Received, waited: trace::Clock) -> Self {
        let command = Command { record, held, outstanding: true, clock: trace::Clock::start() };
        trace::event!(
            TRACE,
            set = command.set_name(),
            device = command.device(),
            id = command.record.id.0,
            command = %command.record.code,
            size = command.record.size,
            position = command.record.position,
            bytes = command.data().len(),
            waited_us = waited.us(),
            "command received"
        );
        command
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
        self.held.device_name()
    }

    fn set_name(&self) -> &str {
        self.held.set_name()
    }

    pub(crate) fn held(&self) -> &HeldCommand {
        &self.held
    }

    /// The bytes of a Write, or of a Read as filled so far; empty for other commands.
    #[must_use]
    #[inline]
    pub fn data(&self) -> &[u8] {
        self.held.data()
    }

    /// The bytes of a Read, to be filled; empty for commands without a buffer.
    #[must_use]
    pub fn data_mut(&mut self) -> &mut [u8] {
        self.held.data_mut()
    }

    /// The prefix zone right before the data, `prefixZoneSize` bytes for the client's own use.
    #[must_use]
    pub fn prefix_mut(&mut self) -> &mut [u8] {
        self.held.prefix_mut()
    }

    /// The address of the data, for [`crate::ClientVirtualDeviceSet::get_buffer_handle`]; `None` without a buffer.
    #[must_use]
    pub fn buffer_address(&self) -> Option<*const u8> {
        self.held.address().map(|start| start.as_ptr().cast_const())
    }

    /// GetBufferHandle for this command's buffer: what another process of the set passes to
    /// [`crate::ClientVirtualDeviceSet::map_buffer_handle`].
    ///
    /// # Errors
    /// VD_E_INVALID for a command without a buffer, VD_E_PROTOCOL when the set is not open (any more).
    #[inline]
    #[doc(alias = "GetBufferHandle")]
    pub fn buffer_handle(&self) -> Result<BufferHandle, Error> {
        const CALL: &str = "GetBufferHandle";
        let handle =
            self.held.handle().and_then(|handle| handle.ok_or_else(|| self.misuse(CALL, "this command has no buffer")));
        let handle = handle.map_err(|error| self.refused(error))?;
        trace::event!(
            TRACE,
            call = CALL,
            set = self.set_name(),
            device = self.device(),
            id = self.record.id.0,
            handle = %handle,
            "handle given"
        );
        Ok(handle)
    }

    /// CompleteCommand: see [`crate::ClientVirtualDevice::complete_command`].
    ///
    /// # Errors
    /// As [`crate::ClientVirtualDevice::complete_command`].
    #[inline]
    #[doc(alias = "CompleteCommand")]
    pub fn complete(mut self, completion: Completion) -> Result<(), CompleteError> {
        self.answer(completion).map_err(|error| {
            let error = self.refused(error);
            CompleteError { error, command: self.outstanding.then_some(self) }
        })
    }

    /// Completes the command, or ends it where that is impossible.
    #[inline]
    fn answer(&mut self, completion: Completion) -> Result<(), Error> {
        if let Some(error) = self.held.ended() {
            self.outstanding = false;
            return Err(error);
        }
        let outcome = completion.resolve(&self.record).map_err(|what| {
            self.misuse("CompleteCommand", format!("{what}; the command asks for {} bytes", self.record.size))
        })?;
        self.held.complete(&self.record, outcome).map_err(|Refused { error, outstanding }| {
            self.outstanding = outstanding;
            error
        })?;
        self.outstanding = false;
        let Outcome { code, bytes, position } = outcome;
        trace::event!(
            TRACE,
            set = self.set_name(),
            device = self.device(),
            id = self.record.id.0,
            command = %self.record.code,
            code = %code,
            bytes = bytes,
            position = position,
            held_us = self.clock.us(),
            "command completed"
        );
        Ok(())
    }

    fn misuse(&self, call: &'static str, what: impl Into<std::borrow::Cow<'static, str>>) -> Error {
        Error::new(ErrorKind::Misuse, VdError::Invalid, call, self.set_name(), what)
    }

    /// An error of a call about this command, as the program gets it.
    #[cold]
    fn refused(&self, error: Error) -> Error {
        let error = error.of_device(self.device()).of_command(self.record.code);
        trace::trace_refused(&error);
        error
    }
}

impl Drop for Command {
    fn drop(&mut self) {
        if !self.outstanding {
            return;
        }
        let aborted = Completion::failed(CompletionCode::OPERATION_ABORTED);
        if self.answer(aborted).is_err() && self.outstanding {
            self.held.abandon();
        }
    }
}
