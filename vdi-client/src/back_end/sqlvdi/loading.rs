//! Finding the library, and what can go wrong when it is loaded.

use std::path::{Path, PathBuf};

use thiserror::Error;
use vdi_proto::status::VdError;

use crate::error::{ErrorKind, LowerError};

/// Why a library cannot be used.
#[derive(Debug, Error)]
pub(super) enum LoadError {
    #[error("cannot find the library {}: {source}; install SQL Server (package mssql-server), or give the path of its \
             libsqlvdi.so, and see that this user may read it", path.display())]
    Missing { path: PathBuf, source: std::io::Error },
    #[error("{} is no regular file; give the path of SQL Server's libsqlvdi.so", path.display())]
    NotAFile { path: PathBuf },
    #[error("the system cannot load the library {}: {said}; where it needs another library, start this program with \
             LD_LIBRARY_PATH={} in its environment (it is read when a program starts)",
            path.display(), path.parent().unwrap_or(path).display())]
    Refused { path: PathBuf, said: String },
    #[error("the library {} has no symbol {symbol}: it is none that serves the Virtual Device Interface, or of a version that \
             this program does not know", path.display())]
    Symbol { path: PathBuf, symbol: &'static str },
}

impl LowerError for LoadError {
    fn code(&self) -> VdError {
        match self {
            LoadError::Missing { .. } | LoadError::NotAFile { .. } => VdError::Invalid,
            LoadError::Refused { .. } => VdError::Unexpected,
            LoadError::Symbol { .. } => VdError::NotSupported,
        }
    }

    fn kind(&self) -> ErrorKind {
        if self.code() == VdError::Invalid { ErrorKind::Misuse } else { ErrorKind::System }
    }
}

/// The full path of a library: with less, the loader might take another one of that name, which is loaded already.
pub(super) fn find(path: &Path) -> Result<PathBuf, LoadError> {
    let missing = |source| LoadError::Missing { path: path.to_owned(), source };
    let path = path.canonicalize().map_err(missing)?;
    // Opening a pipe would wait for a writer.
    match path.metadata().map_err(missing)?.is_file() {
        true => Ok(path),
        false => Err(LoadError::NotAFile { path }),
    }
}

/// What the loader said is the evidence.
pub(super) fn refused(path: &Path, error: &libloading::Error) -> LoadError {
    let said = std::error::Error::source(error).map_or_else(|| error.to_string(), ToString::to_string);
    LoadError::Refused { path: path.to_owned(), said }
}
