//! Why something in the runtime directory failed: one type an operation.

use std::path::PathBuf;

use thiserror::Error;

use crate::ipc::error::{SystemError, Untrusted};

/// Why a runtime directory was not opened.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum DirError {
    /// There is none, and it was not to be created.
    #[error("there is no runtime directory {}; set VDI_RUNTIME_DIR to the one that the other side uses", path.display())]
    NotFound {
        /// Its path.
        path: PathBuf,
    },
    /// It is not to be trusted, or closed to this user.
    #[error(transparent)]
    Untrusted(#[from] Untrusted),
    /// The system refused.
    #[error(transparent)]
    System(#[from] SystemError),
}

/// Why a name was not bound.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum ListenError {
    /// A live process listens under this name.
    #[error("a process listens at {} already; end it or choose another name", path.display())]
    InUse {
        /// The socket.
        path: PathBuf,
    },
    /// The name is taken by what this process may not remove, or the directory is closed to it.
    #[error(transparent)]
    Untrusted(#[from] Untrusted),
    /// The system refused.
    #[error(transparent)]
    System(#[from] SystemError),
}

/// Why a name was not connected to.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum ConnectError {
    /// Nothing listens under this name.
    #[error("nothing listens at {}; start the other side first, with the same runtime directory (VDI_RUNTIME_DIR)", path.display())]
    NotFound {
        /// Where the socket would be.
        path: PathBuf,
    },
    /// The socket or its listener is not trusted, or may not be used by this user.
    #[error(transparent)]
    Untrusted(#[from] Untrusted),
    /// The listener did not accept in time.
    #[error("timed out waiting for the listener at {} to accept", path.display())]
    Timeout {
        /// The socket.
        path: PathBuf,
    },
    /// The system refused.
    #[error(transparent)]
    System(#[from] SystemError),
}
