//! The client's side of a device.

use super::Violation;
use super::outstanding::{Entry, Outstanding, Table, Whole, place};
use crate::command::{CommandCode, CommandId, CommandRecord, CompletionRecord};
use crate::completion::CompletionCode;
use crate::config::VdConfig;
use crate::handle::HandleCodec;
use crate::status::VdError;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Active,
    IoError,
    Closed,
    Aborted,
}

/// What a client believes of a transfer: captured once from the agreed configuration.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// MAXTRANSFERSIZE.
    pub max_transfer_size: u32,
    /// BLOCKSIZE.
    pub block_size: u32,
    /// Slots that there are.
    pub slots: u32,
}

impl Limits {
    /// From the agreed configuration and the width of the handles' slot field, which is brought into the range that
    /// [`HandleCodec::new`] keeps to.
    #[must_use]
    pub const fn new(config: &VdConfig, slot_bits: u32) -> Self {
        let slots = 1 << HandleCodec::new(0, slot_bits).slot_bits();
        Limits { max_transfer_size: config.max_transfer_size, block_size: config.block_size, slots }
    }

    /// Judges a command that came from the server.
    fn check(&self, record: &CommandRecord) -> Result<u32, Violation> {
        if !record.code.is_transfer() {
            return Ok(0);
        }
        let size = record.size as u32;
        if record.size <= 0 || size > self.max_transfer_size || !size.is_multiple_of(self.block_size) {
            let Limits { max_transfer_size: limit, block_size: block, .. } = *self;
            return Err(Violation::TransferSize { size: record.size, limit, block });
        }
        if record.loan.slot >= self.slots {
            return Err(Violation::NoSuchSlot { slot: record.loan.slot, slots: self.slots });
        }
        Ok(size)
    }
}

/// What becomes of a command that arrived.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Receipt {
    /// The program gets it.
    Deliver(CommandRecord),
    /// The program never sees it; this completion goes back.
    Reject(CompletionRecord),
    /// A ClearError that waits for the program to complete what it holds: [`ClientDevice::released`].
    Hold,
}

/// A device as the client sees it.
///
/// ```
/// use vdi_proto::command::{CommandCode, CommandId, CommandRecord, Loan};
/// use vdi_proto::completion::CompletionCode;
/// use vdi_proto::device::{ClientDevice, Limits, Receipt};
///
/// let limits = Limits { max_transfer_size: 65536, block_size: 512, slots: 64 };
/// let mut device = ClientDevice::new(limits);
/// let flush = CommandRecord {
///     code: CommandCode::FLUSH, id: CommandId(0), size: 0, position: 0, loan: Loan::default(),
/// };
/// assert_eq!(device.received(flush), Ok(Receipt::Deliver(flush)));
/// let record = device.complete(CommandId(0), CompletionCode::SUCCESS, 0, 0).unwrap();
/// assert!(record.code.is_success());
/// // A second time it is no active command any more.
/// assert!(device.complete(CommandId(0), CompletionCode::SUCCESS, 0, 0).is_err());
/// ```
#[derive(Debug, Clone)]
pub struct ClientDevice<T = Whole> {
    limits: Limits,
    state: State,
    /// Commands that the program holds.
    pub(super) outstanding: Outstanding<T>,
    /// A ClearError that is held back.
    held: Option<CommandRecord>,
}

impl ClientDevice {
    /// A device that was just opened.
    #[must_use]
    pub const fn new(limits: Limits) -> Self {
        Self::with_table(limits, Whole::new())
    }
}

impl<T> ClientDevice<T> {
    /// A device that was just opened and keeps its outstanding commands in `table`.
    #[must_use]
    pub const fn with_table(limits: Limits, table: T) -> Self {
        ClientDevice { limits, state: State::Active, outstanding: Outstanding::new(table), held: None }
    }
}

impl<T: Table> ClientDevice<T> {
    /// A command arrived from the server.
    ///
    /// # Errors
    /// [`Violation`] for an id in use and for a transfer that the configuration rules out.
    #[inline(always)]
    pub fn received(&mut self, record: CommandRecord) -> Result<Receipt, Violation> {
        let id = record.id;
        let bytes = self.limits.check(&record)?;
        if let Some(entry) = self.outstanding.in_place_of(id) {
            return Err(Violation::DuplicateCommand { id, outstanding: entry.id });
        }
        let clear = record.code == CommandCode::CLEAR_ERROR;
        if let Some(held) = self.held
            && (clear || place(held.id) == place(id))
        {
            return Err(Violation::DuplicateCommand { id, outstanding: held.id });
        }
        let reject = |code| Ok(Receipt::Reject(CompletionRecord { id, code, bytes: 0, position: 0 }));
        match self.state {
            // After the end nothing is delivered any more, ClearError neither.
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

    /// The ClearError that was held back, once the program has completed what it held; never after the device was closed
    /// or the set aborted.
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
    /// VD_E_INVALID when the program does not hold this command, and for more bytes than a transfer had; VD_E_PROTOCOL when
    /// the device is closed; VD_E_ABORT when the set was aborted.
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

    /// What [`ClientDevice::complete`] would refuse, without completing.
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

    /// The server closed the device, and everything that it had sent was received.
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

    /// Whether VD_E_CLOSE was reached.
    #[must_use]
    pub const fn is_closed(&self) -> bool {
        matches!(self.state, State::Closed)
    }
}
