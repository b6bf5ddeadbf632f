//! A virtual device, as the server uses it: IServerVirtualDevice.

use std::sync::Arc;

use vdi_proto::abort::Process;
use vdi_proto::completion::CompletionCode;
use vdi_proto::set::server::{Call, Closing};
use vdi_proto::status::VdError;
use vdi_shm::set::pool::ServerBuffer;

use super::command::{Completed, VdsCommand};
use super::device_core::DeviceCore;
use super::error::VdsError;
use super::open_set::OpenSet;
use crate::trace;

/// A device that this server opened.
#[derive(Debug)]
#[doc(alias = "IServerVirtualDevice")]
pub struct ServerVirtualDevice {
    set: Arc<OpenSet>,
    core: Arc<DeviceCore>,
}

/// A command that is not sent: what SendCommand returns, what the routine gets, and why.
type Refusal = (VdError, CompletionCode, String);

impl ServerVirtualDevice {
    pub(super) fn new(set: Arc<OpenSet>, core: Arc<DeviceCore>) -> ServerVirtualDevice {
        ServerVirtualDevice { set, core }
    }

    /// The device's name.
    #[must_use]
    pub fn name(&self) -> &str {
        self.core.name()
    }

    /// The device's index in its set.
    #[must_use]
    pub fn index(&self) -> u32 {
        self.core.index.get()
    }

    /// The process that works on the device on the client's side.
    #[must_use]
    pub fn client(&self) -> Process {
        self.core.client()
    }

    /// How many commands are outstanding.
    #[must_use]
    pub fn outstanding(&self) -> u32 {
        self.core.outstanding()
    }

    /// Whether the device is in IO-ERROR, so that it takes only ClearError.
    #[must_use]
    pub fn in_io_error(&self) -> bool {
        self.core.in_io_error()
    }

    /// Sends a command. Its routine runs when it has ended, also where it is refused: VD_E_QUEUE_FULL gives
    /// ERROR_NO_SYSTEM_RESOURCES, VD_E_IO_ERROR gives ERROR_IO_DEVICE, VD_E_PROTOCOL gives ERROR_INVALID_HANDLE, VD_E_ABORT gives
    /// ERROR_OPERATION_ABORTED; **Decision**: VD_E_NOTSUPPORTED and VD_E_INVALID give ERROR_NOT_SUPPORTED. A command that is
    /// refused gives its buffer back.
    ///
    /// # Errors
    /// The above; VD_E_NOTSUPPORTED for a command that the set's features do not allow, VD_E_INVALID for a transfer without a
    /// buffer, or of a size that the set does not have.
    #[doc(alias = "SendCommand")]
    pub fn send_command(&self, command: VdsCommand) -> Result<(), VdsError> {
        if let Err(refusal) = self.validate(&command) {
            return self.refuse(command, refusal);
        }
        self.core.send(command).or_else(|(command, refusal)| {
            self.refuse(command, (refusal.status(), refusal.callback_code(), refusal.to_string()))
        })
    }

    /// Ends a command that was not sent.
    #[cold]
    fn refuse(&self, command: VdsCommand, (code, completion, what): Refusal) -> Result<(), VdsError> {
        let VdsCommand { code: command, buffer, routine, context, .. } = command;
        let error = self.error("SendCommand", code, &format!("{command}: {what}"));
        let device = self.core.index.get();
        routine.completed(Completed { device, command, code: completion, bytes: 0, position: 0, buffer, context });
        Err(error)
    }

    fn error(&self, call: &'static str, code: VdError, what: &str) -> VdsError {
        let what = match self.set.session.aborted() {
            Some(reason) if code == VdError::Abort => format!("the set was aborted: {reason}"),
            _ => what.to_owned(),
        };
        VdsError::on_device(call, self.set.session.set_name(), self.name(), code, what)
    }

    /// Checks a command against everything but the device's state.
    fn validate(&self, command: &VdsCommand) -> Result<(), Refusal> {
        if self.set.is_aborted() {
            return Err((VdError::Abort, CompletionCode::OPERATION_ABORTED, String::new()));
        }
        let Some(config) = self.set.negotiated() else {
            return Err((VdError::Protocol, CompletionCode::INVALID_HANDLE, "the set is not configured".to_owned()));
        };
        if !command.code.is_allowed(config.features) {
            let what = format!("the set's features {} do not allow it", config.features);
            return Err((VdError::NotSupported, CompletionCode::NOT_SUPPORTED, what));
        }
        let size = command.size as u32;
        let fits = |buffer: &ServerBuffer| {
            command.size > 0
                && size as usize <= buffer.len()
                && size <= config.max_transfer_size
                && size.is_multiple_of(config.block_size)
        };
        let is_valid = match &command.buffer {
            Some(buffer) => command.code.is_transfer() && fits(buffer),
            None => !command.code.is_transfer(),
        };
        if !is_valid {
            let given = match &command.buffer {
                Some(buffer) => format!("a buffer of {} bytes", buffer.len()),
                None => "no buffer".to_owned(),
            };
            let what = format!(
                "{size} bytes with {given}; transfers have a buffer and a multiple of {} up to {} bytes, other commands have none",
                config.block_size, config.max_transfer_size
            );
            return Err((VdError::Invalid, CompletionCode::NOT_SUPPORTED, what));
        }
        Ok(())
    }

    /// CloseDevice: the normal end. The client's GetCommand returns VD_E_CLOSE once it has got all that was sent. Commands that
    /// are outstanding end with ERROR_OPERATION_ABORTED, and their buffers are not lent again in this set.
    ///
    /// # Errors
    /// VD_E_CLOSE when it is closed already; VD_E_ABORT; VD_E_PROTOCOL when the set is closed.
    #[doc(alias = "CloseDevice")]
    pub fn close_device(&self) -> Result<(), VdsError> {
        const CALL: &str = "CloseDevice";
        // Of two devices that close at once, exactly one is the last.
        let turn = self.set.device_turn();
        let closed_before = self.core.is_closed();
        let others_open = self.set.devices.iter().any(|other| other.index != self.core.index && !other.is_closed());
        let closing = match (closed_before, others_open) {
            (true, _) => Closing::AlreadyClosed,
            (false, true) => Closing::One,
            (false, false) => Closing::Last,
        };
        self.set.step(Call::CloseDevice(closing)).map_err(|code| self.error(CALL, code, code.meaning()))?;
        // Under the device's lock, so that no thread finds the last device closed and the set not ended.
        self.core.close(|| self.set.device_closed()).map_err(|code| self.error(CALL, code, code.meaning()))?;
        self.set.control.close_device(self.core.index);
        drop(turn);
        trace::event!(DEBUG, call = CALL, set = self.set.session.set_name(), device = self.name(), "device closed");
        self.core.drain();
        Ok(())
    }
}
