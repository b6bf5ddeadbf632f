//! Why the catalog could not be used.

use std::path::{Path, PathBuf};

use rusqlite::ErrorCode;

/// Why the catalog could not be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CatalogError {
    /// SQLite refused a statement: no permission, no space, locked for too long.
    #[error("the catalog {} cannot be used: {source}: make sure that the disk has room and that this user may write to it", path.display())]
    Sqlite {
        /// The catalog.
        path: PathBuf,
        /// What SQLite said.
        source: rusqlite::Error,
    },
    /// A version of this program that knows more than this one made it.
    #[error("the catalog {} has version {found} of its tables, this program knows {known}: use a newer vdi-sim", path.display())]
    Version {
        /// The catalog.
        path: PathBuf,
        /// The version of its tables.
        found: i64,
        /// The newest version that is known.
        known: i64,
    },
    /// The file is no catalog, or a value in it cannot be: it was damaged or changed by hand.
    #[error(
        "the catalog {} is damaged: {what}; nothing was changed: put a copy of the catalog in its place, or restore the databases from \
         backups into a new data folder",
        path.display()
    )]
    Damaged {
        /// The catalog.
        path: PathBuf,
        /// What is wrong with which row.
        what: String,
    },
    /// A file of the database is a file of another one.
    #[error("the file '{}' belongs to the database '{database}': choose another path (WITH MOVE)", path.display())]
    FileInUse {
        /// The file.
        path: PathBuf,
        /// The database that has it.
        database: String,
    },
}

impl CatalogError {
    pub(super) fn sqlite(path: &Path, source: rusqlite::Error) -> CatalogError {
        let path = path.to_owned();
        match source.sqlite_error_code() {
            Some(ErrorCode::NotADatabase | ErrorCode::DatabaseCorrupt) => {
                CatalogError::Damaged { path, what: source.to_string() }
            }
            _ => CatalogError::Sqlite { path, source },
        }
    }

    /// Whether the disk is full.
    #[must_use]
    pub fn is_disk_full(&self) -> bool {
        matches!(self, CatalogError::Sqlite { source, .. } if source.sqlite_error_code() == Some(ErrorCode::DiskFull))
    }
}

/// An error inside a transaction, where the catalog's path is not at hand.
#[derive(Debug)]
pub(super) enum Fault {
    Sqlite(rusqlite::Error),
    Damaged(String),
    Other(CatalogError),
}

impl Fault {
    pub(super) fn at(self, path: &Path) -> CatalogError {
        use rusqlite::Error as E;
        match self {
            // A row that has other types than the tables allow.
            Fault::Sqlite(
                source @ (E::FromSqlConversionFailure(..) | E::IntegralValueOutOfRange(..) | E::InvalidColumnType(..)),
            ) => CatalogError::Damaged { path: path.to_owned(), what: source.to_string() },
            Fault::Sqlite(source) => CatalogError::sqlite(path, source),
            Fault::Damaged(what) => CatalogError::Damaged { path: path.to_owned(), what },
            Fault::Other(error) => error,
        }
    }
}

impl From<rusqlite::Error> for Fault {
    fn from(error: rusqlite::Error) -> Self {
        Fault::Sqlite(error)
    }
}

impl From<CatalogError> for Fault {
    fn from(error: CatalogError) -> Self {
        Fault::Other(error)
    }
}
