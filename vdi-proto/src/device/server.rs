//! The server's side of a device.

use thiserror::Error;

use super::Violation;
use super::outstanding::{Entry, Outstanding};
use crate::command::{CommandCode, CommandId, CompletionRecord};
use crate::completion::CompletionCode;
use crate::status::VdError;

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum State {
    Active,
    IoError,
    /// In IO-ERROR, and ClearError was sent.
    Clearing,
    Closed,
    Aborted,
}

/// The server's side of a device.
///
/// ```
/// use vdi_proto::command::{CommandCode, CompletionRecord};
/// use vdi_proto::completion::CompletionCode;
/// use vdi_proto::device::ServerDevice;
/// use vdi_proto::status::VdError;
///
/// let mut device = ServerDevice::new();
/// let id = device.send(CommandCode::WRITE, 65536).unwrap();
/// let failed = CompletionRecord { id, code: CompletionCode::DISK_FULL, bytes: 0, position: 0 };
/// assert_eq!(device.completed(failed).unwrap().command, CommandCode::WRITE);
/// // Now the device is in IO-ERROR: only ClearError may be sent.
/// let refusal = device.send(CommandCode::WRITE, 65536).unwrap_err();
/// assert_eq!((refusal.status(), refusal.callback_code()), (VdError::IoError, CompletionCode::IO_DEVICE));
/// assert!(device.send(CommandCode::CLEAR_ERROR, 0).is_ok());
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct ServerDevice {
    state: State,
    outstanding: Outstanding,
    /// The number of commands sent; part of the ids.
    sequence: u32,
}

/// Why SendCommand refused a command. The command's callback runs with [`SendRefusal::callback_code`].
///
/// Source: VDI specification, SendCommand.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Error)]
pub enum SendRefusal {
    /// VD_E_QUEUE_FULL, ERROR_NO_SYSTEM_RESOURCES.
    #[error("the device has {} outstanding commands already; wait until one completes", super::QUEUE_DEPTH)]
    QueueFull,
    /// VD_E_IO_ERROR, ERROR_IO_DEVICE.
    #[error("the device is in IO-ERROR; send ClearError, close it, or abort the set")]
    IoError,
    /// VD_E_PROTOCOL, ERROR_INVALID_HANDLE.
    #[error("the device is closed")]
    NotActive,
    /// VD_E_ABORT, ERROR_OPERATION_ABORTED.
    #[error("the set was aborted")]
    Aborted,
}

impl SendRefusal {
    /// What SendCommand returns.
    #[must_use]
    pub const fn status(self) -> VdError {
        match self {
            SendRefusal::QueueFull => VdError::QueueFull,
            SendRefusal::IoError => VdError::IoError,
            SendRefusal::NotActive => VdError::Protocol,
            SendRefusal::Aborted => VdError::Abort,
        }
    }

    /// The completion code that the callback gets.
    #[must_use]
    pub const fn callback_code(self) -> CompletionCode {
        match self {
            SendRefusal::QueueFull => CompletionCode::NO_SYSTEM_RESOURCES,
            SendRefusal::IoError => CompletionCode::IO_DEVICE,
            SendRefusal::NotActive => CompletionCode::INVALID_HANDLE,
            SendRefusal::Aborted => CompletionCode::OPERATION_ABORTED,
        }
    }
}

/// A command that has ended: the arguments of its callback.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Finished {
    /// Its identity.
    pub id: CommandId,
    /// Which command it was.
    pub command: CommandCode,
    /// How it ended.
    pub code: CompletionCode,
    /// Bytes transferred; 0 for commands that transfer none.
    pub bytes: u32,
    /// The position; 0 for commands that return none.
    pub position: u64,
}

impl Default for ServerDevice {
    fn default() -> Self {
        Self::new()
    }
}

impl ServerDevice {
    /// A device that was just opened.
    #[must_use]
    pub const fn new() -> Self {
        ServerDevice { state: State::Active, outstanding: Outstanding::new(), sequence: 0 }
    }

    /// SendCommand: adds a command that transfers `bytes` bytes (0 if it transfers none), and returns its id.
    ///
    /// # Errors
    /// [`SendRefusal`] if the device's state or queue does not allow the command.
    #[inline]
    pub fn send(&mut self, command: CommandCode, bytes: u32) -> Result<CommandId, SendRefusal> {
        let clearing = command == CommandCode::CLEAR_ERROR;
        match self.state {
            State::Active => {}
            State::IoError if clearing => {}
            State::IoError | State::Clearing => return Err(SendRefusal::IoError),
            State::Closed => return Err(SendRefusal::NotActive),
            State::Aborted => return Err(SendRefusal::Aborted),
        }
        let id = self.outstanding.next_id(self.sequence).ok_or(SendRefusal::QueueFull)?;
        self.sequence = self.sequence.wrapping_add(1);
        self.outstanding.insert(Entry { id, code: command, bytes });
        if clearing {
            self.state = State::Clearing;
        }
        Ok(id)
    }

    /// A completion has arrived from the client.
    ///
    /// # Errors
    /// [`Violation`] for a command that is not outstanding, and for more bytes than it has. Do not call this after
    /// [`ServerDevice::close`] or [`ServerDevice::abort`]: later completions are ignored.
    #[inline]
    pub fn completed(&mut self, record: CompletionRecord) -> Result<Finished, Violation> {
        let CompletionRecord { id, code, bytes, position } = record;
        let entry = self.outstanding.get(id).ok_or(Violation::UnknownCompletion { id })?;
        // Clients leave stale values there for other commands.
        let bytes = if entry.code.is_transfer() { bytes } else { 0 };
        if bytes > entry.bytes {
            return Err(Violation::TooManyBytes { id, bytes, size: entry.bytes });
        }
        let position = match entry.code.rules() {
            Some(rules) if rules.returns_position => position,
            _ => 0,
        };
        self.outstanding.remove(id);
        self.state = match self.state {
            State::Clearing if entry.code == CommandCode::CLEAR_ERROR => {
                if code.is_success() {
                    State::Active
                } else {
                    State::IoError
                }
            }
            State::Active if !code.is_success() => State::IoError,
            state => state,
        };
        Ok(Finished { id, command: entry.code, code, bytes, position })
    }

    /// CloseDevice. Then call [`ServerDevice::next_aborted`] for the outstanding commands.
    ///
    /// # Errors
    /// VD_E_CLOSE if the device is already closed, VD_E_ABORT if the set was aborted.
    pub const fn close(&mut self) -> Result<(), VdError> {
        match self.state {
            State::Active | State::IoError | State::Clearing => {
                self.state = State::Closed;
                Ok(())
            }
            State::Closed => Err(VdError::Close),
            State::Aborted => Err(VdError::Abort),
        }
    }

    /// The set was aborted. Then call [`ServerDevice::next_aborted`] for the outstanding commands.
    pub const fn abort(&mut self) {
        self.state = State::Aborted;
    }

    /// After closing or aborting: the next outstanding command, which ends with ERROR_OPERATION_ABORTED. `None` if there is
    /// none, or if the device is neither closed nor aborted.
    pub fn next_aborted(&mut self) -> Option<Finished> {
        if !matches!(self.state, State::Closed | State::Aborted) {
            return None;
        }
        let Entry { id, code: command, .. } = self.outstanding.pop()?;
        Some(Finished { id, command, code: CompletionCode::OPERATION_ABORTED, bytes: 0, position: 0 })
    }

    /// How many commands are outstanding.
    #[must_use]
    pub const fn outstanding(&self) -> u32 {
        self.outstanding.len()
    }

    /// Whether the device is in IO-ERROR.
    #[must_use]
    pub const fn in_io_error(&self) -> bool {
        matches!(self.state, State::IoError | State::Clearing)
    }

    /// Whether the server closed the device.
    #[must_use]
    pub const fn is_closed(&self) -> bool {
        matches!(self.state, State::Closed)
    }

    /// Whether the set was aborted.
    #[must_use]
    pub const fn is_aborted(&self) -> bool {
        matches!(self.state, State::Aborted)
    }
}
