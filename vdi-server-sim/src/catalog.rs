//! The catalog: which databases there are, of which files they consist, and what was backed up and restored.
//!
//! It is an SQLite database, `catalog.sqlite` in the data folder. All processes that use the data folder share it.
//!
//! # Invariants
//!
//! 1. A database is what the catalog says. One transaction makes it: created, restored, dropped. Before it there is the old database,
//!    after it the new one.
//! 2. A file that a statement makes has a row in `pending_file` before it exists, and keeps it until the file belongs to a database. So
//!    a process that dies leaves no file that the next statement does not find and remove. The row's path has random digits in it:
//!    it is never that of a file of a user. Files of a database that is dropped or replaced get such a row in the same transaction.
//! 3. A file of a database may still have the name under which it was built: `built_path` in `files`. It is renamed under the database's
//!    lock before the database is used.
//! 4. Reading the catalog changes nothing. A catalog that cannot be read is an error, and no statement removes or replaces it.

mod connection;
mod databases;
mod error;
mod history;
mod record;
mod rows;
mod schema;
#[cfg(test)]
mod tests;

use std::path::PathBuf;
use std::sync::Mutex;

use vdi_mtf::sqlserver::config::{Config, FileType, RecoveryModel};
use vdi_mtf::value::FileId;

pub(crate) use databases::{NewDatabase, PlacedFile, Rename};
pub use error::CatalogError;
use error::Fault;
pub use history::{BackupHistory, LastBackup, RestoreHistory};
pub use record::{BackupDevice, BackupRecord, RestoreRecord};
pub(crate) use rows::recovery_bits;

/// The file's name in the data folder.
pub const FILE_NAME: &str = "catalog.sqlite";

/// The catalog of a data folder.
#[derive(Debug)]
pub struct Catalog {
    /// The data folder, which paths in the catalog are relative to.
    folder: PathBuf,
    path: PathBuf,
    connection: Mutex<rusqlite::Connection>,
}

/// The state of a database, as `sys.databases` has it in `state_desc`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum DatabaseState {
    /// ONLINE: it can be used.
    Online,
    /// OFFLINE: its files are closed.
    Offline,
    /// RESTORING: more backups may follow.
    Restoring,
    /// RECOVERY_PENDING: a file is missing or damaged.
    RecoveryPending,
}

/// A database.
#[derive(Debug, Clone, PartialEq)]
pub struct DatabaseRow {
    /// Its number, 5 for the first. Never used again after DROP.
    pub id: u32,
    /// The name, as it was written when it was made. Names are compared without regard to the case of ASCII letters.
    pub name: String,
    /// The state.
    pub state: DatabaseState,
    /// The recovery model.
    pub recovery_model: RecoveryModel,
    /// Its content was made by SQL Server: pages and log are kept as they are, and nothing writes to them.
    pub is_foreign: bool,
    /// Changes with each restore: which files belong together.
    pub generation: u64,
    /// The values that a backup's header has of the database: GUIDs, log sequence numbers, filegroups, files.
    pub configuration: Config,
    /// Its files: data files, then the log file. In the order of the configuration.
    pub files: Vec<FileRow>,
}

impl DatabaseRow {
    /// Bytes of all its files.
    #[must_use]
    pub fn size(&self) -> u64 {
        self.files.iter().fold(0, |sum, file| sum.saturating_add(file.size))
    }
}

/// A file of a database.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FileRow {
    /// The file's number in the database.
    pub file_id: FileId,
    /// Data or log.
    pub file_type: FileType,
    /// The filegroup's number; 0 for a log file.
    pub filegroup: u16,
    /// The logical name.
    pub logical_name: String,
    /// Where it is: an absolute path.
    pub path: PathBuf,
    /// Its length in bytes.
    pub size: u64,
}
