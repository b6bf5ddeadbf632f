//! The errors of this floor: one type an operation.
//!
//! Each has `code()`, the status that the interface's call returns, and `fault()`, whose fault it is.

use std::path::PathBuf;

use thiserror::Error;
use vdi_proto::config::ConfigError;
use vdi_proto::status::VdError;
use vdi_proto::wire::join::JoinError as MessageError;
use vdi_proto::wire::layout::LayoutError;

use super::abort::Abort;
use super::class_table::AddClassError;
use super::control::AttachError;
use super::name::{SetNameError, show_instance};
use super::near_misses::show_near_misses;
use crate::ipc::error::{Operation, SystemError, Untrusted};
use crate::ipc::runtime::{DirError, NearMiss};
use crate::ipc::segment::SegmentError;

/// Whose fault an error is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Fault {
    /// The caller asked for something that is not available.
    Caller,
    /// A peer broke the protocol.
    Peer,
    /// The session ended.
    Session,
    /// The system refused something.
    System,
}

/// What a peer sent or wrote that no process of a set sends or writes.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum Violation {
    /// A packet is no message of this version.
    #[error(transparent)]
    Message(#[from] MessageError),
    /// A message came where another was expected.
    #[error("the peer sent {found} where {expected} was expected")]
    OutOfTurn {
        /// What came.
        found: &'static str,
        /// What was expected.
        expected: &'static str,
    },
    /// A buffer class that is none.
    #[error(transparent)]
    Class(#[from] AddClassError),
    /// A configuration that was not negotiated.
    #[error(transparent)]
    Configure(#[from] ConfigureError),
    /// A descriptor that is no segment.
    #[error(transparent)]
    Segment(#[from] SegmentError),
    /// A control segment that is none.
    #[error(transparent)]
    Layout(#[from] LayoutError),
    /// A control segment that is memory of another set.
    #[error("the control segment is memory of another set of this process")]
    ControlInUse,
}

impl From<AttachError> for Violation {
    fn from(error: AttachError) -> Self {
        match error {
            AttachError::Segment(error) => Violation::Segment(error),
            AttachError::Layout(error) => Violation::Layout(error),
        }
    }
}

impl Violation {
    /// The status: VD_E_ABORT, VD_E_UNEXPECTED, or what the part says. VD_E_MEMORY if the system refused memory.
    #[must_use]
    pub fn code(&self) -> VdError {
        match self {
            Violation::Message(error) => error.code(),
            Violation::OutOfTurn { .. } | Violation::Configure(_) | Violation::ControlInUse => VdError::Unexpected,
            Violation::Class(error) => error.code(),
            Violation::Segment(error) => segment_code(error),
            Violation::Layout(error) => error.code(),
        }
    }

    /// [`Fault::System`] if the system refused memory, else [`Fault::Peer`].
    #[must_use]
    pub fn fault(&self) -> Fault {
        match self {
            Violation::Class(error) if error.is_system() => Fault::System,
            Violation::Segment(error) => segment_fault(error),
            _ => Fault::Peer,
        }
    }
}

const fn segment_code(error: &SegmentError) -> VdError {
    match error {
        SegmentError::System { .. } => VdError::Memory,
        SegmentError::NotSealed { .. } => VdError::Abort,
        SegmentError::NoDescriptor { .. } | SegmentError::OutOfBounds { .. } => VdError::Unexpected,
    }
}

const fn segment_fault(error: &SegmentError) -> Fault {
    match error {
        SegmentError::System { .. } => Fault::System,
        _ => Fault::Peer,
    }
}

/// Why a configuration was not taken.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum ConfigureError {
    /// A field differs from the request, or is out of range.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// A buffer class does not keep the negotiated alignment.
    #[error(transparent)]
    Class(#[from] AddClassError),
    /// The set is configured already.
    #[error("the server configured the set twice")]
    Twice,
}

impl ConfigureError {
    /// The status that the server gets.
    #[must_use]
    pub fn code(&self) -> VdError {
        match self {
            ConfigureError::Config(error) => error.code(),
            ConfigureError::Class(error) => error.code(),
            ConfigureError::Twice => VdError::Unexpected,
        }
    }
}

/// Why a set was not created.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum CreateError {
    /// The configuration cannot be served: VD_E_NOTSUPPORTED.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// VD_E_INVALID, VD_E_INSTANCE_NAME.
    #[error(transparent)]
    Name(#[from] SetNameError),
    /// A live set of this name exists: VD_E_PROTOCOL.
    #[error(
        "a virtual device set {set:?} of {instance} exists already at {}; close it or choose another name",
        path.display(), instance = show_instance(instance)
    )]
    Exists {
        /// The set's name.
        set: String,
        /// The instance.
        instance: String,
        /// Its socket.
        path: PathBuf,
    },
    /// The runtime directory is not to be trusted: VD_E_SECURITY.
    #[error(transparent)]
    Untrusted(#[from] Untrusted),
    /// There is no memory for the control segment: VD_E_MEMORY.
    #[error(transparent)]
    Memory(#[from] AttachError),
    /// The system refused something: VD_E_UNEXPECTED.
    #[error(transparent)]
    System(#[from] SystemError),
}

impl From<DirError> for CreateError {
    fn from(error: DirError) -> Self {
        match error {
            DirError::Untrusted(error) => CreateError::Untrusted(error),
            DirError::System(error) => CreateError::System(error),
            // The directory was created a moment ago.
            DirError::NotFound { path } => {
                let action = format!("open the runtime directory {}", path.display());
                CreateError::System(SystemError::of(Operation::Directory, action, rustix::io::Errno::NOENT))
            }
        }
    }
}

impl CreateError {
    /// The status that Create returns.
    #[must_use]
    pub const fn code(&self) -> VdError {
        match self {
            CreateError::Config(error) => error.code(),
            CreateError::Name(error) => error.code(),
            CreateError::Exists { .. } => VdError::Protocol,
            CreateError::Untrusted(_) => VdError::Security,
            CreateError::Memory(_) => VdError::Memory,
            CreateError::System(_) => VdError::Unexpected,
        }
    }

    /// Whose fault it is.
    #[must_use]
    pub const fn fault(&self) -> Fault {
        match self {
            CreateError::Memory(_) | CreateError::System(_) => Fault::System,
            _ => Fault::Caller,
        }
    }
}

/// Why a process did not join a set.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum JoinError {
    /// VD_E_INVALID, VD_E_INSTANCE_NAME.
    #[error(transparent)]
    Name(#[from] SetNameError),
    /// There is no such set: VD_E_INVALID.
    #[error(
        "no virtual device set {set:?} of {instance} at {}{}; create it before the statement is sent, with the same runtime \
         directory (VDI_RUNTIME_DIR) on both sides",
        path.display(), show_near_misses(set, instance, near_misses), instance = show_instance(instance)
    )]
    NoSuchSet {
        /// The set's name.
        set: String,
        /// The instance.
        instance: String,
        /// Where its socket would be.
        path: PathBuf,
        /// What may be meant instead.
        near_misses: Vec<NearMiss>,
    },
    /// The runtime directory or the set's creator is not to be trusted: VD_E_SECURITY.
    #[error(transparent)]
    Untrusted(#[from] Untrusted),
    /// The set's creator refused this process.
    #[error("the creator of set {set:?} refused this process: {}", refusal(*status, why))]
    Refused {
        /// The set's name.
        set: String,
        /// The status.
        status: VdError,
        /// Why, in the creator's words; empty from a creator that says no more than the status.
        why: String,
    },
    /// The set was aborted: VD_E_ABORT.
    #[error("the set was aborted: {0}; no process can join it any more: have its client create a new one")]
    Aborted(Abort),
    /// The set's creator did not answer: VD_E_TIMEOUT.
    #[error("timed out waiting for {step}")]
    Timeout {
        /// What it should have done.
        step: &'static str,
    },
    /// The set's creator broke the protocol.
    #[error(transparent)]
    Violation(#[from] Violation),
    /// The system refused something: VD_E_UNEXPECTED.
    #[error(transparent)]
    System(#[from] SystemError),
}

impl JoinError {
    /// The status that Open or OpenInSecondary returns.
    #[must_use]
    pub fn code(&self) -> VdError {
        match self {
            JoinError::Name(error) => error.code(),
            JoinError::NoSuchSet { .. } => VdError::Invalid,
            JoinError::Untrusted(_) => VdError::Security,
            JoinError::Refused { status, .. } => *status,
            JoinError::Aborted(_) => VdError::Abort,
            JoinError::Timeout { .. } => VdError::Timeout,
            JoinError::Violation(error) => error.code(),
            JoinError::System(_) => VdError::Unexpected,
        }
    }

    /// Whose fault it is.
    #[must_use]
    pub fn fault(&self) -> Fault {
        match self {
            JoinError::Aborted(_) => Fault::Session,
            JoinError::Violation(error) => error.fault(),
            JoinError::System(_) => Fault::System,
            _ => Fault::Caller,
        }
    }
}

/// A refusal in the words of the other side, else in those of the status.
fn refusal(status: VdError, why: &str) -> String {
    if why.is_empty() { status.to_string() } else { format!("{}: {why}", status.name()) }
}

/// Why a request of the server to the client was not fulfilled.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum RequestError {
    /// The class cannot be made: VD_E_INVALID, VD_E_MEMORY.
    #[error(transparent)]
    Class(#[from] AddClassError),
    /// The configuration is none for this set.
    #[error(transparent)]
    Configure(#[from] ConfigureError),
    /// The client refused.
    #[error("the creator of set {set:?} refused {request}: {}", refusal(*status, why))]
    Refused {
        /// The set's name.
        set: String,
        /// What was requested.
        request: &'static str,
        /// The status.
        status: VdError,
        /// Why, in the creator's words.
        why: String,
    },
    /// The set was aborted: VD_E_ABORT.
    #[error("the set was aborted: {0}")]
    Aborted(Abort),
    /// The client did not answer: VD_E_TIMEOUT.
    #[error("timed out waiting for {step}")]
    Timeout {
        /// What it should have done.
        step: &'static str,
    },
    /// No more room: VD_E_MEMORY.
    #[error("no more room for {what}: {limit} at most")]
    Exhausted {
        /// For what.
        what: &'static str,
        /// How many there can be.
        limit: u64,
    },
    /// The system refused something: VD_E_UNEXPECTED.
    #[error(transparent)]
    System(#[from] SystemError),
}

impl RequestError {
    /// The status that RequestBuffers or EndConfiguration returns.
    #[must_use]
    pub fn code(&self) -> VdError {
        match self {
            RequestError::Class(AddClassError::Class(error)) => error.code(),
            RequestError::Class(error) => error.code(),
            RequestError::Configure(error) => error.code(),
            RequestError::Refused { status, .. } => *status,
            RequestError::Aborted(_) => VdError::Abort,
            RequestError::Timeout { .. } => VdError::Timeout,
            RequestError::Exhausted { .. } => VdError::Memory,
            RequestError::System(_) => VdError::Unexpected,
        }
    }

    /// Whose fault it is.
    #[must_use]
    pub fn fault(&self) -> Fault {
        match self {
            RequestError::Aborted(_) => Fault::Session,
            RequestError::Class(error) if error.is_system() => Fault::System,
            RequestError::System(_) => Fault::System,
            _ => Fault::Caller,
        }
    }
}
