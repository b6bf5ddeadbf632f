//! The errors of `vdi_shm` for the calls of this library.

use vdi_proto::status::VdError;
use vdi_shm::area::BufferError;
use vdi_shm::error::{Blame, ShmError};
use vdi_shm::slots::TakeBackError;

use crate::error::{ErrorKind, LowerError};

impl LowerError for ShmError {
    fn code(&self) -> VdError {
        ShmError::code(self)
    }

    fn kind(&self) -> ErrorKind {
        match self.blame() {
            Blame::Caller if self.code() == VdError::Timeout => ErrorKind::NotYet,
            Blame::Caller => ErrorKind::Misuse,
            Blame::Peer => ErrorKind::Violation,
            Blame::Session => ErrorKind::Ended,
            Blame::System => ErrorKind::System,
        }
    }
}

impl LowerError for BufferError {
    fn code(&self) -> VdError {
        BufferError::code(self)
    }

    fn kind(&self) -> ErrorKind {
        match self.code() {
            VdError::Abort => ErrorKind::Violation,
            VdError::Busy => ErrorKind::NotYet,
            _ => ErrorKind::Misuse,
        }
    }
}

impl LowerError for TakeBackError {
    fn code(&self) -> VdError {
        match self {
            TakeBackError::Leased { .. } => VdError::Busy,
            TakeBackError::NotLent { .. } => VdError::Abort,
        }
    }

    fn kind(&self) -> ErrorKind {
        match self {
            TakeBackError::Leased { .. } => ErrorKind::NotYet,
            TakeBackError::NotLent { .. } => ErrorKind::Violation,
        }
    }
}
