//! Errors of this crate: what went wrong, what was found, and what to do about it.

use std::io;
use std::path::PathBuf;

use rustix::io::Errno;
use thiserror::Error;
use vdi_proto::abort::AbortReason;
use vdi_proto::config::ConfigError;
use vdi_proto::join::JoinError;
use vdi_proto::layout::LayoutError;
use vdi_proto::name::NameError;
use vdi_proto::status::VdError;

use crate::ring::RingViolation;
use crate::segment::SegmentError;

/// Whose fault an error is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Blame {
    /// The caller asked for something that cannot be had.
    Caller,
    /// The peer broke the protocol.
    Peer,
    /// The session ended.
    Session,
    /// The system refused something.
    System,
}

/// An error of sharing memory or joining a set.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum ShmError {
    /// A segment could not be made, taken or mapped: VD_E_MEMORY for a lack of memory, VD_E_ABORT when the peer passed
    /// something else than a segment.
    #[error(transparent)]
    Segment(#[from] SegmentError),
    /// What lies in the shared memory is not what must lie there.
    #[error(transparent)]
    Layout(#[from] LayoutError),
    /// A ring was tampered with: VD_E_ABORT.
    #[error(transparent)]
    Ring(#[from] RingViolation),
    /// A packet is no join message.
    #[error(transparent)]
    Join(#[from] JoinError),
    /// A packet came where another was due: VD_E_UNEXPECTED.
    #[error("the peer sent {found} where {expected} was due")]
    OutOfTurn {
        /// What came.
        found: &'static str,
        /// What was due.
        expected: &'static str,
    },
    /// A name that no set, device or instance can have.
    #[error("{what} {name:?}: {source}")]
    Name {
        /// Whose name.
        what: &'static str,
        /// The name.
        name: String,
        /// What is wrong with it.
        source: NameError,
    },
    /// A configuration that cannot be served.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// There is no such set: VD_E_INVALID.
    #[error(
        "no virtual device set {set:?} of {instance} at {}; create it before the statement is sent, with the same \
         runtime directory (VDI_RUNTIME_DIR) on both sides", path.display(), instance = show_instance(instance)
    )]
    NoSuchSet {
        /// The set's name.
        set: String,
        /// The instance.
        instance: String,
        /// Where it should be.
        path: PathBuf,
    },
    /// A live set of this name exists already: VD_E_PROTOCOL.
    #[error(
        "a virtual device set {set:?} of {instance} exists already at {}; close it or choose another name",
        path.display(), instance = show_instance(instance)
    )]
    SetExists {
        /// The set's name.
        set: String,
        /// The instance.
        instance: String,
        /// Where it is.
        path: PathBuf,
    },
    /// The runtime directory or the peer is not to be trusted: VD_E_SECURITY.
    #[error("{what}; {remedy}")]
    Security {
        /// What was found.
        what: String,
        /// What to do about it.
        remedy: &'static str,
    },
    /// The primary refused to let this process join.
    #[error("the creator of set {set:?} refused this process: {status}; {}", refusal_remedy(*status))]
    Refused {
        /// The set's name.
        set: String,
        /// Why.
        status: VdError,
    },
    /// No more room for processes, areas or buffers: VD_E_MEMORY.
    #[error("no more room for {what}: {limit} at most")]
    Exhausted {
        /// For what.
        what: &'static str,
        /// How many there can be.
        limit: u64,
    },
    /// The peer did not answer in time: VD_E_TIMEOUT.
    #[error("timed out waiting for {step}")]
    Timeout {
        /// What was waited for.
        step: &'static str,
    },
    /// The set was aborted: VD_E_ABORT.
    #[error("the set was aborted: {0}")]
    Aborted(AbortReason),
    /// The system refused something: VD_E_UNEXPECTED.
    #[error("could not {action}: {source}{}", remedy(source))]
    System {
        /// What was tried.
        action: String,
        /// What the system said.
        source: io::Error,
    },
}

fn show_instance(instance: &str) -> String {
    if instance.is_empty() { "the default instance".to_owned() } else { format!("instance {instance:?}") }
}

/// What to do where the system lacks or forbids something.
pub(crate) fn remedy(error: &io::Error) -> &'static str {
    match Errno::from_io_error(error) {
        Some(Errno::MFILE) => "; raise this process's limit of descriptors (ulimit -n)",
        Some(Errno::NFILE) => "; raise the system's limit of open files (sysctl fs.file-max)",
        Some(Errno::NOMEM | Errno::NOSPC | Errno::NOBUFS) => {
            "; free memory, raise the process's limits (ulimit -v, its control group), or ask for fewer or smaller buffers"
        }
        Some(Errno::AGAIN) => "; raise the limit of processes and threads (ulimit -u, its control group)",
        Some(Errno::PERM | Errno::ACCESS | Errno::NOSYS) => {
            "; have whatever confines this process (seccomp, a container's profile, file permissions) permit it"
        }
        _ => "",
    }
}

const fn refusal_remedy(status: VdError) -> &'static str {
    match status {
        VdError::Security => "run as the same user, or have the creator allow this uid or gid",
        VdError::Protocol => "secondaries may join between the primary's GetConfiguration and the end of the work",
        VdError::Memory => {
            "it has no memory or no descriptors left (ulimit -v, ulimit -n), or the set has as many processes as it can"
        }
        _ => "check that name and instance are the ones that the client created, and that no server has it open",
    }
}

impl ShmError {
    /// Remembers what was tried when the system refused.
    pub(crate) fn system(action: impl Into<String>, source: impl Into<io::Error>) -> Self {
        ShmError::System { action: action.into(), source: source.into() }
    }

    /// The status that a call returns.
    #[must_use]
    pub fn code(&self) -> VdError {
        match self {
            ShmError::Segment(SegmentError::System { .. }) | ShmError::Exhausted { .. } => VdError::Memory,
            ShmError::Segment(SegmentError::NotSealed { .. }) | ShmError::Ring(_) => VdError::Abort,
            ShmError::Segment(SegmentError::OutOfBounds { .. })
            | ShmError::OutOfTurn { .. }
            | ShmError::System { .. } => VdError::Unexpected,
            ShmError::Layout(error) => error.code(),
            ShmError::Join(error) => error.code(),
            ShmError::Name { source, .. } => source.code(),
            ShmError::Config(error) => error.code(),
            ShmError::NoSuchSet { .. } => VdError::Invalid,
            ShmError::SetExists { .. } => VdError::Protocol,
            ShmError::Security { .. } => VdError::Security,
            ShmError::Refused { status, .. } => *status,
            ShmError::Timeout { .. } => VdError::Timeout,
            ShmError::Aborted(_) => VdError::Abort,
        }
    }

    /// Whose fault it is.
    #[must_use]
    pub fn blame(&self) -> Blame {
        match self {
            ShmError::Name { .. }
            | ShmError::Config(_)
            | ShmError::NoSuchSet { .. }
            | ShmError::SetExists { .. }
            | ShmError::Security { .. }
            | ShmError::Refused { .. }
            | ShmError::Exhausted { .. }
            | ShmError::Timeout { .. } => Blame::Caller,
            ShmError::Layout(_)
            | ShmError::Ring(_)
            | ShmError::Join(_)
            | ShmError::OutOfTurn { .. }
            | ShmError::Segment(SegmentError::NotSealed { .. } | SegmentError::OutOfBounds { .. }) => Blame::Peer,
            ShmError::Aborted(_) => Blame::Session,
            ShmError::Segment(SegmentError::System { .. }) | ShmError::System { .. } => Blame::System,
        }
    }
}
