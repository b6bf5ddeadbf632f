//! What can go wrong with a database and its files.

use std::io;
use std::path::PathBuf;
use std::time::Duration;

use vdi_mtf::value::PageAddress;

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
    /// A data or log file cannot have this size.
    #[error("{} cannot have {size} bytes: a multiple of 65536 (a log file: of 8192) from {least} to {most} is expected", path.display())]
    FileSize {
        /// The file.
        path: PathBuf,
        /// Its size.
        size: u64,
        /// The smallest size.
        least: u64,
        /// The largest size.
        most: u64,
    },
    /// A file of the database does not have the length that the catalog says.
    #[error(
        "{} has {found} bytes, expected {expected}: something else than vdi-sim changed it; restore the database from a backup",
        path.display()
    )]
    Resized {
        /// The file.
        path: PathBuf,
        /// Its length in the catalog.
        expected: u64,
        /// Its length.
        found: u64,
    },
    /// Another file is in a file's place: a RESTORE has replaced the database, for one.
    #[error("{} was replaced by another file, or removed: open the database again", path.display())]
    Replaced {
        /// The file.
        path: PathBuf,
    },
    /// A file of a frozen database was written to.
    #[error("{} was changed while the database was frozen: by a program that does not take the locks", path.display())]
    Modified {
        /// The file.
        path: PathBuf,
    },
    /// What is in a file's place is no file.
    #[error("{} is no regular file", path.display())]
    NotAFile {
        /// The path.
        path: PathBuf,
    },
    /// Writers did not end in time.
    #[error("database '{name}' could not be frozen within {waited:?}: {lock} is held by another process or statement")]
    NotFrozen {
        /// The database.
        name: String,
        /// Which lock.
        lock: &'static str,
        /// How long it was tried.
        waited: Duration,
    },
    /// Freezing was given up because the caller said so.
    #[error("freezing the database '{name}' was given up")]
    Stopped {
        /// The database.
        name: String,
    },
    /// The database was made by SQL Server.
    #[error(
        "database '{name}' was restored from a backup of SQL Server, and its pages are kept as they are: it cannot be written to"
    )]
    Foreign {
        /// The database.
        name: String,
    },
    /// There is no such page, or none that holds content.
    #[error("database '{name}' has no page {page} that holds content")]
    NoSuchPage {
        /// The database.
        name: String,
        /// The page.
        page: PageAddress,
    },
    /// A page is damaged.
    #[error("page {page} of {} is damaged: {source}", path.display())]
    DamagedPage {
        /// The file.
        path: PathBuf,
        /// The page.
        page: PageAddress,
        /// What is wrong. Its offset is that in the file.
        source: vdi_mtf::Error,
    },
    /// A page is another one than the one that belongs there.
    #[error("page {page} of {} is damaged: {field} {expected} is expected, found {found}", path.display())]
    Page {
        /// The file.
        path: PathBuf,
        /// The page that is expected.
        page: PageAddress,
        /// What is wrong.
        field: &'static str,
        /// What it should be.
        expected: u64,
        /// What it is.
        found: u64,
    },
    /// A GAM page allocates an extent that the file does not have.
    #[error("page {gam} of {} is damaged: it allocates extent {extent}, but the file has {pages} pages", path.display())]
    GamPastEnd {
        /// The file.
        path: PathBuf,
        /// The GAM page.
        gam: PageAddress,
        /// The extent.
        extent: u32,
        /// Pages of the file.
        pages: u32,
    },
    /// A data file has not enough free extents.
    #[error("{} has no room for {extents} extents of 64 KiB: {free} are free", path.display())]
    Full {
        /// The file.
        path: PathBuf,
        /// Extents that were asked for.
        extents: u64,
        /// Free extents.
        free: u64,
    },
    /// A log file is damaged.
    #[error("the log file {} is damaged at offset {offset}: {what}; restore the database from a backup", path.display())]
    Log {
        /// The file.
        path: PathBuf,
        /// Where.
        offset: u64,
        /// What is wrong.
        what: String,
    },
    /// The content of a database is not what this program writes, or damaged.
    #[error("the content of database '{name}' is damaged: {what}")]
    Content {
        /// The database.
        name: String,
        /// What is wrong, and where.
        what: String,
    },
    /// Two databases differ.
    #[error("databases '{one}' and '{other}' differ: {what}")]
    Different {
        /// The first database.
        one: String,
        /// The second database.
        other: String,
        /// The first difference.
        what: String,
    },
    /// Something cannot be carried in a database.
    #[error("{} cannot be carried in a database: {reason}", path.display())]
    Unsupported {
        /// The path.
        path: PathBuf,
        /// Why not.
        reason: &'static str,
    },
}

impl StorageError {
    /// The system refused a call.
    pub(super) fn io(action: &'static str, path: impl Into<PathBuf>, source: impl Into<io::Error>) -> StorageError {
        StorageError::Io { action, path: path.into(), offset: None, source: source.into() }
    }

    /// The system refused a call at an offset of a file.
    pub(super) fn io_at(
        action: &'static str,
        path: impl Into<PathBuf>,
        offset: u64,
        source: impl Into<io::Error>,
    ) -> StorageError {
        StorageError::Io { action, path: path.into(), offset: Some(offset), source: source.into() }
    }
}
