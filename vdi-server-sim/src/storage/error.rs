//! What can go wrong with a database and its files.

use std::path::PathBuf;

use crate::catalog::CatalogError;
use crate::messages::Verb;

/// Why a database cannot be made, read, written or replaced.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StorageError {
    /// The catalog.
    #[error(transparent)]
    Catalog(#[from] CatalogError),
    /// There is no database of this name.
    #[error("database '{name}' does not exist: make sure that the name is entered correctly")]
    NotFound {
        /// The name.
        name: String,
    },
    /// Another statement works on the database.
    #[error("database '{name}' is in use by another {holder} statement: run this one again when that has ended")]
    InUse {
        /// The database.
        name: String,
        /// The statement that holds the lock.
        holder: Verb,
    },
    /// The system refused a call.
    #[error("could not {action} {}: {source}", path.display())]
    Io {
        /// What was tried.
        action: &'static str,
        /// The file.
        path: PathBuf,
        /// Where in the file.
        offset: Option<u64>,
        /// What the system said.
        source: std::io::Error,
    },
}
