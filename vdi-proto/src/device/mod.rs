//! One device, on each side: the machines [`ServerDevice`] and [`ClientDevice`].
//!
//! Source: VDI specification, "Command Error Handling", SendCommand, CloseDevice and "Abnormal termination".
//!
//! A machine is a plain value: events in, effects out. It has no clock, no lock and no I/O. A call that fails does not
//! change it.
//!
//! # Rules
//!
//! 1. A device has at most [`QUEUE_DEPTH`] outstanding commands: sent, and not completed. Their ids differ in the low six
//!    bits, which are the command's index in a table.
//! 2. A completion with any code but success puts the device into IO-ERROR. The server may then send only ClearError; the
//!    machine refuses everything else. Commands that the server sent before it received the failure complete with
//!    ERROR_IO_DEVICE, and the client's program never gets them.
//! 3. ClearError is held back until the client's program has completed the commands that it holds. If ClearError succeeds,
//!    the device is active again. If it fails, the device stays in IO-ERROR.
//! 4. Instead of ClearError the server may close the device or abort the set. Outstanding commands then complete, on the
//!    server's side, with ERROR_OPERATION_ABORTED. Later completions from the client are ignored.
//! 5. A Read or Write has a buffer and a size within the [`Limits`]; other commands have no buffer.
//! 6. If the peer breaks a rule, the machine returns a [`Violation`], and the set is over.

mod client;
mod outstanding;
mod server;

pub use client::{ClientDevice, Limits, Receipt};
pub use server::{Finished, SendRefusal, ServerDevice};

use thiserror::Error;

use crate::command::{CommandCode, CommandId};
use crate::status::VdError;

/// The most outstanding commands of a device.
pub const QUEUE_DEPTH: u32 = 64;

/// The peer broke the protocol. The set is over.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum Violation {
    /// The client completed a command that is not outstanding.
    #[error("the client completed command {:#x}, which is not outstanding", id.0)]
    UnknownCompletion {
        /// The id.
        id: CommandId,
    },
    /// The client reports more bytes than the command had.
    #[error("the client reports {bytes} bytes for command {:#x}, which has {size}", id.0)]
    TooManyBytes {
        /// The command.
        id: CommandId,
        /// The bytes reported.
        bytes: u32,
        /// The bytes requested.
        size: u32,
    },
    /// The server sent a command with the index of an outstanding command.
    #[error("the server sent command {:#x} with the index of outstanding command {:#x}", id.0, outstanding.0)]
    DuplicateCommand {
        /// The id.
        id: CommandId,
        /// The outstanding command.
        outstanding: CommandId,
    },
    /// The server sent a transfer whose size is not within the [`Limits`].
    #[error("the server sent a transfer of {size} bytes; the set's transfers have 1 to {limit}, in blocks of {block}")]
    TransferSize {
        /// The size.
        size: i32,
        /// The set's MAXTRANSFERSIZE.
        limit: u32,
        /// The set's BLOCKSIZE.
        block: u32,
    },
    /// The server sent a Read or Write without a buffer, or another command with one.
    #[error("the server sent {code} {}", if *lent { "with a buffer, which it cannot have" } else { "without a buffer" })]
    Loan {
        /// The command.
        code: CommandCode,
        /// Whether it came with a buffer.
        lent: bool,
    },
}

impl Violation {
    /// The status by which the end of the set shows: VD_E_ABORT.
    #[must_use]
    pub const fn code(&self) -> VdError {
        VdError::Abort
    }
}
