//! What can go wrong with a database and its files.

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::io::Errno;
use vdi_mtf::value::{FileId, PageAddress};

use crate::catalog::{CatalogError, DatabaseState};
use crate::messages::Verb;

/// Why a database cannot be made, read, written or replaced.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StorageError {
    /// The catalog.
    #[error(transparent)]
    Catalog(CatalogError),
    /// There is no database of this name.
    #[error("database '{name}' does not exist: make sure that the name is entered correctly")]
    NotFound {
        /// The name.
        name: String,
    },
    /// Another statement works on the database. CREATE, ALTER and DROP DATABASE count as RESTORE.
    #[error("database '{name}' is in use by another {holder} statement: run this one again when that has ended")]
    InUse {
        /// The database.
        name: String,
        /// The statement that holds the lock.
        holder: Verb,
    },
    /// The system refused a call.
    #[error("could not {action} {}{}: {source}{}", path.display(), at(*offset), io_remedy(source))]
    Io {
        /// What was tried.
        action: &'static str,
        /// The file.
        path: PathBuf,
        /// Where in the file.
        offset: Option<u64>,
        /// What the system said.
        source: io::Error,
    },
    /// No database can have this name.
    #[error("'{name}' cannot be the name of a database: {reason}")]
    InvalidName {
        /// The name.
        name: String,
        /// The rule that it breaks.
        reason: &'static str,
    },
    /// The name is that of a system database, which a user cannot make or replace.
    #[error("'{name}' is a system database: choose another name")]
    SystemDatabase {
        /// The name.
        name: String,
    },
    /// CREATE DATABASE: there is a database of this name.
    #[error("database '{name}' already exists: choose another name, or drop it first")]
    Exists {
        /// The name.
        name: String,
    },
    /// The database cannot be used in its state.
    #[error("database '{name}' is {state}: {}", remedy(*state))]
    NotOnline {
        /// The database.
        name: String,
        /// Its state.
        state: DatabaseState,
    },
    /// RESTORE without REPLACE: the backup is one of another database than the one of this name.
    #[error(
        "the backup is one of another database (family {backup}) than '{name}' (family {existing}): restore WITH REPLACE, or to \
         another name"
    )]
    OtherDatabase {
        /// The existing database.
        name: String,
        /// Its FamilyGUID.
        existing: String,
        /// FamilyGUID of the backup.
        backup: String,
    },
    /// RESTORE without REPLACE: the tail of the log has not been backed up.
    #[error(
        "the tail of the log of database '{name}' has not been backed up: restore WITH REPLACE to lose it, or to another name"
    )]
    TailNotSaved {
        /// The existing database.
        name: String,
    },
    /// The file belongs to another database.
    #[error("the file '{}' cannot be overwritten: database '{database}' uses it: choose another path (WITH MOVE)", path.display())]
    FileInUse {
        /// The file.
        path: PathBuf,
        /// The database that has it.
        database: String,
    },
    /// There is a file that belongs to no database. It is never overwritten.
    #[error("the file '{}' exists already and belongs to no database: move it away, or choose another path (WITH MOVE)", path.display())]
    FileExists {
        /// The file.
        path: PathBuf,
    },
    /// Two files of the database have the same path.
    #[error("two files of the database have the path '{}': give one of them another (WITH MOVE)", path.display())]
    SamePath {
        /// The path.
        path: PathBuf,
    },
    /// WITH MOVE names a file that the backup does not have.
    #[error(
        "logical file '{logical_name}' is not part of database '{database}': use RESTORE FILELISTONLY to list the logical names"
    )]
    UnknownLogicalName {
        /// The name.
        logical_name: String,
        /// The database in the backup.
        database: String,
    },
    /// The folder of a file does not exist.
    #[error("the folder of '{}' does not exist: make it, or choose another path", path.display())]
    NoSuchFolder {
        /// The file.
        path: PathBuf,
    },
    /// No file of a database can be there.
    #[error("'{path}' cannot be the path of a database file: {reason}")]
    InvalidPath {
        /// The path.
        path: String,
        /// The rule that it breaks.
        reason: &'static str,
    },
    /// CREATE DATABASE, or the list of files of a backup, asks for what cannot be.
    #[error("the file '{logical_name}' cannot be made: {reason}")]
    InvalidFile {
        /// The file.
        logical_name: String,
        /// The rule that it breaks.
        reason: String,
    },
    /// A file of the database is not there, or is no regular file.
    #[error("the file '{}' of database '{name}' is {found}: put it back, or restore the database from a backup", path.display())]
    FileMissing {
        /// The database.
        name: String,
        /// The file.
        path: PathBuf,
        /// What is there instead.
        found: &'static str,
    },
    /// A file of the database has another length than the catalog says.
    #[error(
        "the file '{}' of database '{name}' has {found} bytes, expected {expected}: put the right file back, or restore the database \
         from a backup",
        path.display()
    )]
    FileSize {
        /// The database.
        name: String,
        /// The file.
        path: PathBuf,
        /// Its length by the catalog.
        expected: u64,
        /// Its length.
        found: u64,
    },
    /// The backup has data of a file that is not in its list of files.
    #[error("the backup has data of file {file}, which is not in its list of files: the backup is damaged")]
    NoSuchFile {
        /// The file.
        file: FileId,
    },
    /// The backup has data beyond the end of a file.
    #[error("{length} bytes at offset {offset} of '{}' reach beyond its {size} bytes: the backup is damaged", path.display())]
    BeyondEnd {
        /// The file.
        path: PathBuf,
        /// Where the write begins.
        offset: u64,
        /// How long it is.
        length: usize,
        /// The file's length.
        size: u64,
    },
    /// The list of files at the end of a backup is another one than that at its start.
    #[error("the backup's lists of files at its start and end differ: {what}: the backup is damaged")]
    ListsDiffer {
        /// The first difference.
        what: String,
    },
    /// A data or log file cannot have this size.
    #[error("{} cannot have {size} bytes: a multiple of 65536 (a log file: of 8192) from {least} to {most} is expected", path.display())]
    InvalidSize {
        /// The file.
        path: PathBuf,
        /// Its size.
        size: u64,
        /// The smallest size.
        least: u64,
        /// The largest size.
        most: u64,
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
    pub(super) fn io(action: &'static str, path: impl Into<PathBuf>, source: impl Into<io::Error>) -> StorageError {
        StorageError::Io { action, path: path.into(), offset: None, source: source.into() }
    }

    pub(super) fn io_at(
        action: &'static str,
        path: impl Into<PathBuf>,
        offset: u64,
        source: impl Into<io::Error>,
    ) -> StorageError {
        StorageError::Io { action, path: path.into(), offset: Some(offset), source: source.into() }
    }

    /// Whether the disk, or the user's share of it, is full.
    #[must_use]
    pub fn is_disk_full(&self) -> bool {
        match self {
            StorageError::Io { source, .. } => {
                matches!(source.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
            }
            StorageError::Catalog(error) => error.is_disk_full(),
            _ => false,
        }
    }
}

impl From<CatalogError> for StorageError {
    fn from(error: CatalogError) -> Self {
        match error {
            CatalogError::FileInUse { path, database } => StorageError::FileInUse { path, database },
            error => StorageError::Catalog(error),
        }
    }
}

/// `path` of an error, with the action.
pub(super) fn failed<'a>(action: &'static str, path: &'a Path) -> impl Fn(io::Error) -> StorageError + 'a {
    move |source| StorageError::io(action, path, source)
}

fn at(offset: Option<u64>) -> String {
    offset.map_or_else(String::new, |offset| format!(" at offset {offset}"))
}

fn io_remedy(error: &io::Error) -> &'static str {
    match error.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => ": free some space and run the statement again",
        io::ErrorKind::PermissionDenied => ": give the simulator's user the right to do so",
        io::ErrorKind::NotFound => ": make sure that the path is entered correctly",
        io::ErrorKind::UnexpectedEof => {
            ": the end of the file came too early; no program may change a database's files"
        }
        _ if error.raw_os_error() == Some(Errno::IO.raw_os_error()) => {
            ": look for errors of that disk in the system's log"
        }
        _ if error.raw_os_error() == Some(Errno::MFILE.raw_os_error()) => {
            ": raise the limit of open files (ulimit -n); a statement holds each of the database's files open"
        }
        _ => "",
    }
}

fn remedy(state: DatabaseState) -> &'static str {
    match state {
        DatabaseState::Online => "run the statement again",
        DatabaseState::Offline => "set it online first (ALTER DATABASE ... SET ONLINE)",
        DatabaseState::Restoring => "restore the next backup, or recover it (RESTORE DATABASE ... WITH RECOVERY)",
        DatabaseState::RecoveryPending => {
            "a file is missing or has the wrong length: put it back and set the database online, or restore it from a backup"
        }
    }
}
