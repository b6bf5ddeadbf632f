//! A virtual device of the server: IServerVirtualDevice.

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

/// A device that the server has opened.
#[derive(Debug)]
#[doc(alias = "IServerVirtualDevice")]
pub struct ServerVirtualDevice {
    set: Arc<OpenSet>,
    core: Arc<DeviceCore>,
}

/// Why a command is not sent: the status of SendCommand, the code for the completion routine, and a text.
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

    /// The device's index in its set, from 0.
    #[must_use]
    pub fn index(&self) -> u32 {
        self.core.index.get()
    }

    /// The client process that has opened the device: the primary or a secondary. The primary before that.
    #[must_use]
    pub fn client(&self) -> Process {
        self.core.client()
    }

    /// The number of outstanding commands.
    #[must_use]
    pub fn outstanding(&self) -> u32 {
        self.core.outstanding()
    }

    /// Whether the device is in the state IO-ERROR, in which it takes only ClearError.
    #[must_use]
    pub fn in_io_error(&self) -> bool {
        self.core.in_io_error()
    }

    /// Sends a command. Its completion routine runs once, when the command has ended. If the command is refused, the routine runs
    /// before this call returns, and receives the buffer.
    ///
    /// # Errors
    /// The completion routine receives the code in the second column. The codes of VD_E_NOTSUPPORTED and VD_E_INVALID are a
    /// **Decision**, the others those of the VDI specification.
    ///
    /// | status | completion code | when |
    /// |---|---|---|
    /// | VD_E_QUEUE_FULL | ERROR_NO_SYSTEM_RESOURCES | as many commands are outstanding as the queue has room for |
    /// | VD_E_IO_ERROR | ERROR_IO_DEVICE | the device is in the state IO-ERROR, and the command is not ClearError |
    /// | VD_E_PROTOCOL | ERROR_INVALID_HANDLE | the device is closed |
    /// | VD_E_ABORT | ERROR_OPERATION_ABORTED | the set was aborted |
    /// | VD_E_NOTSUPPORTED | ERROR_NOT_SUPPORTED | the set's features do not allow the command |
    /// | VD_E_INVALID | ERROR_NOT_SUPPORTED | a transfer has no buffer, or its size is not a multiple of the block size up to MAXTRANSFERSIZE |
    #[doc(alias = "SendCommand")]
    pub fn send_command(&self, command: VdsCommand) -> Result<(), VdsError> {
        if let Err(refusal) = self.validate(&command) {
            return self.refuse(command, refusal);
        }
        self.core.send(command).or_else(|(command, refusal)| {
            self.refuse(command, (refusal.status(), refusal.callback_code(), refusal.to_string()))
        })
    }

    /// Runs the completion routine of a command that was not sent, and returns the error.
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

    /// Checks a command against the configuration of the set. [`DeviceCore::send`] checks the device's state.
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

    /// Closes the device, the normal end. The client's GetCommand returns VD_E_CLOSE after it has returned every command that was
    /// sent. Outstanding commands end with ERROR_OPERATION_ABORTED, and their buffers are not lent again in this set.
    ///
    /// # Errors
    /// VD_E_CLOSE if the device is closed already; VD_E_ABORT if the set was aborted; VD_E_PROTOCOL if the set is closed.
    #[doc(alias = "CloseDevice")]
    pub fn close_device(&self) -> Result<(), VdsError> {
        const CALL: &str = "CloseDevice";
        // Of two devices that close at the same time, exactly one is the last.
        let lock = self.set.device_lock();
        let closed_before = self.core.is_closed();
        let others_open = self.set.devices.iter().any(|other| other.index != self.core.index && !other.is_closed());
        let closing = match (closed_before, others_open) {
            (true, _) => Closing::AlreadyClosed,
            (false, true) => Closing::One,
            (false, false) => Closing::Last,
        };
        self.set.step(Call::CloseDevice(closing)).map_err(|code| self.error(CALL, code, code.meaning()))?;
        // Under the device's lock, so that no thread sees the last device closed and the set not ended.
        self.core.close(|| self.set.device_closed()).map_err(|code| self.error(CALL, code, code.meaning()))?;
        self.set.control.close_device(self.core.index);
        drop(lock);
        trace::event!(DEBUG, call = CALL, set = self.set.session.set_name(), device = self.name(), "device closed");
        self.core.drain();
        Ok(())
    }
}
