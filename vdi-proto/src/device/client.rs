//! The client's side of a device.

use super::Violation;
use super::outstanding::{Entry, Outstanding, index};
use crate::command::{CommandCode, CommandId, CommandRecord, CompletionRecord};
use crate::completion::CompletionCode;
use crate::config::VdConfig;
use crate::status::VdError;

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum State {
    Active,
    IoError,
    Closed,
    Aborted,
}

/// The bounds of a transfer, from the negotiated configuration.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Limits {
    /// MAXTRANSFERSIZE.
    pub max_transfer_size: u32,
    /// BLOCKSIZE.
    pub block_size: u32,
}

impl Limits {
    /// The bounds in the negotiated configuration.
    #[must_use]
    pub const fn new(config: &VdConfig) -> Self {
        Limits { max_transfer_size: config.max_transfer_size, block_size: config.block_size }
    }

    /// Validates a command from the server. Returns the bytes that it transfers.
    fn check(&self, record: &CommandRecord) -> Result<u32, Violation> {
        let CommandRecord { code, size, .. } = *record;
        let lent = record.loan.is_some();
        if code.is_transfer() != lent {
            return Err(Violation::Loan { code, lent });
        }
        if !lent {
            return Ok(0);
        }
        let bytes = size as u32;
        if size <= 0 || bytes > self.max_transfer_size || !bytes.is_multiple_of(self.block_size) {
            let Limits { max_transfer_size: limit, block_size: block } = *self;
            return Err(Violation::TransferSize { size, limit, block });
        }
        Ok(bytes)
    }
}

/// What to do with a command from the server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Receipt {
    /// The program gets the command.
    Deliver(CommandRecord),
    /// The program never gets the command; this completion goes to the server.
    Reject(CompletionRecord),
    /// A ClearError that waits until the program has completed the commands that it holds: see [`ClientDevice::released`].
    Hold,
}

/// The client's side of a device.
///
/// ```
/// use vdi_proto::command::{CommandCode, CommandId, CommandRecord};
/// use vdi_proto::completion::CompletionCode;
/// use vdi_proto::device::{ClientDevice, Limits, Receipt};
///
/// let limits = Limits { max_transfer_size: 65536, block_size: 512 };
/// let mut device = ClientDevice::new(limits);
/// let flush = CommandRecord { code: CommandCode::FLUSH, id: CommandId(0), size: 0, position: 0, loan: None };
/// assert_eq!(device.received(flush), Ok(Receipt::Deliver(flush)));
/// let record = device.complete(CommandId(0), CompletionCode::SUCCESS, 0, 0).unwrap();
/// assert!(record.code.is_success());
/// // Now the command is no longer outstanding.
/// assert!(device.complete(CommandId(0), CompletionCode::SUCCESS, 0, 0).is_err());
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct ClientDevice {
    limits: Limits,
    state: State,
    /// Commands that the program holds.
    outstanding: Outstanding,
    /// A ClearError that is held back.
    held: Option<CommandRecord>,
}

impl ClientDevice {
    /// A device that was just opened.
    #[must_use]
    pub const fn new(limits: Limits) -> Self {
        ClientDevice { limits, state: State::Active, outstanding: Outstanding::new(), held: None }
    }

    /// A command has arrived from the server.
    ///
    /// # Errors
    /// [`Violation`] for an id in use, and for a command that breaks the rules of its size or buffer.
    #[inline(always)]
    pub fn received(&mut self, record: CommandRecord) -> Result<Receipt, Violation> {
        let id = record.id;
        let bytes = self.limits.check(&record)?;
        if let Some(entry) = self.outstanding.at_index_of(id) {
            return Err(Violation::DuplicateCommand { id, outstanding: entry.id });
        }
        let clear = record.code == CommandCode::CLEAR_ERROR;
        if let Some(held) = self.held
            && (clear || index(held.id) == index(id))
        {
            return Err(Violation::DuplicateCommand { id, outstanding: held.id });
        }
        let reject = |code| Ok(Receipt::Reject(CompletionRecord { id, code, bytes: 0, position: 0 }));
        match self.state {
            // After the end no command is delivered, not even ClearError.
            State::Closed | State::Aborted => return reject(CompletionCode::OPERATION_ABORTED),
            State::Active | State::IoError if clear => {
                if !self.outstanding.is_empty() {
                    self.held = Some(record);
                    return Ok(Receipt::Hold);
                }
            }
            State::Active if self.held.is_none() => {}
            State::Active | State::IoError => return reject(CompletionCode::IO_DEVICE),
        }
        self.outstanding.insert(Entry { id, code: record.code, bytes });
        Ok(Receipt::Deliver(record))
    }

    /// The ClearError that was held back, once the program has completed the commands that it held. `None` after the device
    /// was closed or the set aborted.
    pub fn released(&mut self) -> Option<CommandRecord> {
        if !self.outstanding.is_empty() || matches!(self.state, State::Closed | State::Aborted) {
            return None;
        }
        let record = self.held.take()?;
        self.outstanding.insert(Entry { id: record.id, code: record.code, bytes: 0 });
        Some(record)
    }

    /// CompleteCommand: the record to send back.
    ///
    /// # Errors
    /// VD_E_INVALID if the program does not hold this command, and for more bytes than a transfer has. VD_E_PROTOCOL if the
    /// device is closed. VD_E_ABORT if the set was aborted.
    #[inline]
    pub fn complete(
        &mut self,
        id: CommandId,
        code: CompletionCode,
        bytes: u32,
        position: u64,
    ) -> Result<CompletionRecord, VdError> {
        let entry = self.check_complete(id, bytes)?;
        self.outstanding.remove(id);
        if !code.is_success() {
            self.state = State::IoError;
        } else if entry.code == CommandCode::CLEAR_ERROR {
            self.state = State::Active;
        }
        let bytes = if entry.code.is_transfer() { bytes } else { 0 };
        Ok(CompletionRecord { id, code, bytes, position })
    }

    /// Whether [`ClientDevice::complete`] would succeed. Completes nothing.
    ///
    /// # Errors
    /// As [`ClientDevice::complete`].
    #[inline]
    pub fn may_complete(&self, id: CommandId, bytes: u32) -> Result<(), VdError> {
        self.check_complete(id, bytes).map(|_| ())
    }

    #[inline]
    fn check_complete(&self, id: CommandId, bytes: u32) -> Result<Entry, VdError> {
        match self.state {
            State::Aborted => return Err(VdError::Abort),
            State::Closed => return Err(VdError::Protocol),
            State::Active | State::IoError => {}
        }
        let entry = self.outstanding.get(id).ok_or(VdError::Invalid)?;
        if entry.code.is_transfer() && bytes > entry.bytes {
            return Err(VdError::Invalid);
        }
        Ok(entry)
    }

    /// The server closed the device, and all its commands were received.
    pub const fn closed(&mut self) {
        if !matches!(self.state, State::Aborted) {
            self.state = State::Closed;
        }
    }

    /// The set was aborted.
    pub const fn aborted(&mut self) {
        self.state = State::Aborted;
    }

    /// How many commands the program holds.
    #[must_use]
    pub const fn outstanding(&self) -> u32 {
        self.outstanding.len()
    }

    /// Whether the device is in IO-ERROR.
    #[must_use]
    pub const fn in_io_error(&self) -> bool {
        matches!(self.state, State::IoError)
    }

    /// Whether the server closed the device.
    #[must_use]
    pub const fn is_closed(&self) -> bool {
        matches!(self.state, State::Closed)
    }
}
