//! What can go wrong with the files of a database.

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::messages::Verb;

/// Why a database cannot be listed, read or built.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DatabaseError {
    /// No database can have this name.
    #[error("'{name}' cannot be the name of a database: {reason}")]
    InvalidName {
        /// The name.
        name: String,
        /// The rule that it breaks.
        reason: &'static str,
    },
    /// There is no database of this name.
    #[error(
        "database '{name}' does not exist in {}: make sure that the name is entered correctly; upper and lower case differ",
        folder.display()
    )]
    NotFound {
        /// The name.
        name: String,
        /// The data folder.
        folder: PathBuf,
    },
    /// What stands in the database's place is not a folder.
    #[error("{} is {kind}, but a database is a folder with files: move it away or choose another name", path.display())]
    NotADatabase {
        /// Where it is.
        path: PathBuf,
        /// What it is.
        kind: &'static str,
    },
    /// The database has no file.
    #[error("the database {} has no files: a database needs at least one", path.display())]
    Empty {
        /// The database's folder.
        path: PathBuf,
    },
    /// Something in the database can be no part of a backup.
    #[error("{} is {kind}, but a database has regular files with UTF-8 names only: remove or replace it", path.display())]
    UnsupportedFile {
        /// Where it is.
        path: PathBuf,
        /// What it is.
        kind: &'static str,
    },
    /// A file has not the length any more that was listed.
    #[error(
        "{} has {found} bytes, but had {expected} when the database was listed: no program may change a database's files while a \
         statement works on them; run the statement again",
        path.display()
    )]
    Changed {
        /// The file.
        path: PathBuf,
        /// Its listed length in bytes.
        expected: u64,
        /// Its length in bytes now.
        found: u64,
    },
    /// A program that does not take the database's locks has written to a file while a statement worked on it.
    #[error(
        "{} was written to, or cut and made longer again, while the statement worked on it: no program may change a database's \
         files meanwhile; run the statement again",
        path.display()
    )]
    Modified {
        /// The file.
        path: PathBuf,
    },
    /// The database to be built exists, and replacing it was not allowed.
    #[error("database '{name}' exists already at {}: restore WITH REPLACE to overwrite it, or restore to another name", path.display())]
    Exists {
        /// The name.
        name: String,
        /// Its folder.
        path: PathBuf,
    },
    /// A path in the list of files would lead out of the database, or stands in another's way.
    #[error(
        "the backup lists a file with the path '{path}', which is refused because {reason}: the backup is damaged or was not made by this simulator"
    )]
    InvalidPath {
        /// The path.
        path: String,
        /// The rule that it breaks.
        reason: &'static str,
    },
    /// A file in the list is longer than any file can be.
    #[error("the backup lists '{path}' with {size} bytes, more than a file can have: the backup is damaged")]
    InvalidSize {
        /// The path.
        path: String,
        /// The listed length.
        size: u64,
    },
    /// There are not so many files.
    #[error("there is no file number {index}: the database has {count}, counted from 0")]
    NoSuchFile {
        /// The place asked for.
        index: usize,
        /// How many files there are.
        count: usize,
    },
    /// A write reaches beyond the file's listed length.
    #[error("{length} bytes at offset {offset} of '{path}' reach beyond its {size} bytes: the backup is damaged")]
    BeyondEnd {
        /// The file.
        path: String,
        /// Where the write begins.
        offset: u64,
        /// How long it is.
        length: usize,
        /// The file's length.
        size: u64,
    },
    /// The file system cannot exchange two folders in one step, so an existing database cannot be replaced safely.
    #[error(
        "{} cannot be replaced in one step, because its file system does not exchange folders: restore to another name, \
         or remove the old database first",
        path.display()
    )]
    CannotExchange {
        /// The database's folder.
        path: PathBuf,
        /// What the system answered.
        source: io::Error,
    },
    /// The restored database is in its place, but the system does not know whether for good, and could not take that back.
    #[error(
        "cannot make durable that the restored database is at {}: {source}; it is there, but may not survive a crash of the \
         system{}: look for errors of the disk in the system's log and run the statement again",
        path.display(),
        kept(old.as_deref())
    )]
    NotDurable {
        /// The database's folder.
        path: PathBuf,
        /// Where the database that was replaced is now; the next restore removes it.
        old: Option<PathBuf>,
        /// What the system answered.
        source: io::Error,
    },
    /// Another statement works on the database.
    #[error("database '{name}' is in use by another {holder} statement: run this one again when that has ended")]
    InUse {
        /// The database.
        name: String,
        /// The statement that holds the lock.
        holder: Verb,
    },
    /// Somebody else kept the database from being frozen.
    #[error(
        "{} could not be frozen within {} s: its {lock} is locked by a writer that does not end, or by another statement \
         that has it frozen: end that (fuser -v {} shows who it is) and run the statement again",
        path.display(),
        waited.as_secs_f64(),
        path.display()
    )]
    NotFrozen {
        /// The file or folder whose lock could not be had.
        path: PathBuf,
        /// Which of the two locks.
        lock: &'static str,
        /// How long it was tried.
        waited: Duration,
    },
    /// The work was called off.
    #[error("stopped while {doing} {}", path.display())]
    Stopped {
        /// What was being done.
        doing: &'static str,
        /// With which file or folder.
        path: PathBuf,
    },
    /// Something else stands in the place of a database's folder or first file than when it was opened.
    #[error("{} was replaced since it was opened: open the database again, or run the statement again", path.display())]
    Replaced {
        /// The folder or file.
        path: PathBuf,
    },
    /// A write would make a file longer.
    #[error(
        "{length} bytes at offset {offset} of {} reach beyond its {size} bytes: a writer overwrites what is there, it does not \
         make files longer",
        path.display()
    )]
    PastEnd {
        /// The file.
        path: PathBuf,
        /// Where the write begins.
        offset: u64,
        /// How long it is.
        length: usize,
        /// The file's length.
        size: u64,
    },
    /// A file of the backup was not put back.
    #[error("{} is missing: the client that mounted the snapshot has to put back all files of the backup", path.display())]
    FileMissing {
        /// Where it should be.
        path: PathBuf,
    },
    /// A file is there that the backup does not have.
    #[error(
        "{} is no file of the backup: the client that mounted the snapshot has to remove all other files of the database",
        path.display()
    )]
    FileUnexpected {
        /// Where it is.
        path: PathBuf,
    },
    /// A file was put back with another length.
    #[error(
        "{} has {found} bytes, expected {expected}: the client that mounted the snapshot did not put back what it had copied",
        path.display()
    )]
    WrongLength {
        /// The file.
        path: PathBuf,
        /// Its length in bytes in the backup.
        expected: u64,
        /// Its length in bytes now.
        found: u64,
    },
    /// A file was put back with other bytes.
    #[error(
        "{} has the checksum {found:#010x}, expected {expected:#010x}: the client that mounted the snapshot did not put back what \
         was there when the backup was made",
        path.display()
    )]
    WrongChecksum {
        /// The file.
        path: PathBuf,
        /// CRC-32 of its bytes in the backup.
        expected: u32,
        /// CRC-32 of its bytes now.
        found: u32,
    },
    /// The operating system refused a call.
    #[error("cannot {action} {}{}: {source}{}", path.display(), at_offset(*.offset), remedy(.source))]
    Io {
        /// What was tried.
        action: &'static str,
        /// With which file or folder.
        path: PathBuf,
        /// At which offset, for a read or write.
        offset: Option<u64>,
        /// What the system answered.
        source: io::Error,
    },
}

impl DatabaseError {
    pub(super) fn io(action: &'static str, path: impl Into<PathBuf>, source: impl Into<io::Error>) -> Self {
        Self::Io { action, path: path.into(), offset: None, source: source.into() }
    }

    /// Whether the reason is a full disk (or a used up quota), which Win32 calls `ERROR_DISK_FULL`.
    #[must_use]
    pub fn is_disk_full(&self) -> bool {
        matches!(self, Self::Io { source, .. }
            if matches!(source.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded))
    }
}

fn kept(old: Option<&Path>) -> String {
    old.map_or_else(String::new, |old| format!(", and the old one is kept at {}", old.display()))
}

fn at_offset(offset: Option<u64>) -> String {
    offset.map_or_else(String::new, |offset| format!(" at offset {offset}"))
}

fn remedy(error: &io::Error) -> &'static str {
    match error.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => ": free some space and run the statement again",
        io::ErrorKind::PermissionDenied => ": give the simulator's user the right to do so",
        io::ErrorKind::NotFound => ": make sure that the path is entered correctly",
        _ if error.raw_os_error() == Some(rustix::io::Errno::IO.raw_os_error()) => {
            ": look for errors of that disk in the system's log"
        }
        _ if error.raw_os_error() == Some(rustix::io::Errno::MFILE.raw_os_error()) => {
            ": raise the limit of open files (ulimit -n); a restore holds each of the database's files open"
        }
        _ => "",
    }
}
