//! The errors of `vdi_shm` for the calls of this library.

use vdi_proto::status::VdError;
use vdi_shm::set::buffers::BufferError;
use vdi_shm::set::error::{CreateError, Fault, JoinError};
use vdi_shm::set::slots::ReclaimError;

use crate::error::{ErrorKind, LowerError};

fn kind(fault: Fault, code: VdError) -> ErrorKind {
    match fault {
        Fault::Caller if code == VdError::Timeout => ErrorKind::NotYet,
        Fault::Caller => ErrorKind::Misuse,
        Fault::Peer => ErrorKind::Violation,
        Fault::Session => ErrorKind::Ended,
        Fault::System => ErrorKind::System,
    }
}

impl LowerError for CreateError {
    fn code(&self) -> VdError {
        CreateError::code(self)
    }

    fn kind(&self) -> ErrorKind {
        kind(self.fault(), self.code())
    }
}

impl LowerError for JoinError {
    fn code(&self) -> VdError {
        JoinError::code(self)
    }

    fn kind(&self) -> ErrorKind {
        kind(self.fault(), self.code())
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

impl LowerError for ReclaimError {
    fn code(&self) -> VdError {
        match self {
            ReclaimError::Leased { .. } => VdError::Busy,
            ReclaimError::NotLent { .. } => VdError::Abort,
        }
    }

    fn kind(&self) -> ErrorKind {
        match self {
            ReclaimError::Leased { .. } => ErrorKind::NotYet,
            ReclaimError::NotLent { .. } => ErrorKind::Violation,
        }
    }
}
