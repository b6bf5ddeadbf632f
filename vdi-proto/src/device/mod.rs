//! One device, on either side: events in, effects out.
//!
//! Source: VDI specification, "Command Error Handling", SendCommand, CloseDevice and "Abnormal termination".
//!
//! # The rules
//!
//! 1. A device holds at most [`QUEUE_DEPTH`] outstanding commands: sent, and not completed. Each has an id that no other
//!    outstanding one has; its low six bits are its *place*, so that it is found without a search.
//! 2. A completion with any code but success puts the device into IO-ERROR. The server may then send only ClearError;
//!    anything else is refused at once. Commands that it had sent before it knew complete with ERROR_IO_DEVICE, and the
//!    client's program never sees them.
//! 3. ClearError is held back until the client's program has completed the commands that it already held. Its
//!    successful completion makes the device active again; if it fails, the device stays in IO-ERROR.
//! 4. Instead of ClearError the server may close the device or abort the set. Commands outstanding then complete, on the
//!    server's side, with ERROR_OPERATION_ABORTED, and what the client says of them later is ignored.
//! 5. A party that breaks a rule which this side can check is a [`Violation`]: the session is over.
//!
//! Both machines are plain values without clock, lock or I/O. An error leaves them as they were. Where they keep their
//! outstanding commands is a [`Table`]: one that has all places lies in the machine, and a `Vec` has as many as were needed.

mod client;
mod outstanding;
mod server;

#[cfg(test)]
mod tests;

pub use client::{ClientDevice, Limits, Receipt};
pub use server::{Finished, SendRefusal, ServerDevice};

use thiserror::Error;

use crate::command::{CommandCode, CommandId};
use crate::status::VdError;

/// The most commands that a device can hold.
pub const QUEUE_DEPTH: u32 = 64;

/// The peer broke the protocol: evidence for the log. The session cannot go on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum Violation {
    /// The client completed a command that is not outstanding.
    #[error("the client completed command {:#x}, which is not outstanding", id.0)]
    UnknownCompletion {
        /// The id that it gave.
        id: CommandId,
    },
    /// The client reports more bytes than the command had.
    #[error("the client reports {bytes} bytes for command {:#x}, which has {size}", id.0)]
    TooManyBytes {
        /// The command.
        id: CommandId,
        /// The bytes reported.
        bytes: u32,
        /// The bytes asked for.
        size: u32,
    },
    /// The server sent a command with the id of an outstanding one.
    #[error("the server sent command {:#x} in the place of outstanding command {:#x}", id.0, outstanding.0)]
    DuplicateCommand {
        /// The id that it gave.
        id: CommandId,
        /// The command outstanding there.
        outstanding: CommandId,
    },
    /// The server sent a transfer of a size that the configuration rules out.
    #[error("the server sent a transfer of {size} bytes; the set's transfers have 1 to {limit}, in blocks of {block}")]
    TransferSize {
        /// The size that it gave.
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
    /// The status by which the ended session shows: VD_E_ABORT.
    #[must_use]
    pub const fn code(&self) -> VdError {
        VdError::Abort
    }
}
