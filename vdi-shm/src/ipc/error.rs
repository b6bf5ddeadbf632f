//! Errors that several parts have in common.

use std::io;

use rustix::io::Errno;
use thiserror::Error;

/// The system refused something.
#[derive(Debug, Error)]
#[error("could not {action}: {source}{}", remedy(source))]
pub struct SystemError {
    /// What was tried.
    pub action: String,
    /// The system's reason.
    pub source: io::Error,
}

impl SystemError {
    pub(crate) fn new(action: impl Into<String>, source: impl Into<io::Error>) -> Self {
        SystemError { action: action.into(), source: source.into() }
    }
}

/// Something in or above the runtime directory is not to be trusted or not to be used.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("{what}; {remedy}")]
pub struct Untrusted {
    /// What was found.
    pub what: String,
    /// What to do about it.
    pub remedy: &'static str,
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
