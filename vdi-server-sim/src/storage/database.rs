//! A database that is open.

use std::fs::File;
use std::ops::Range;
use std::time::Duration;

use vdi_mtf::sqlserver::config::Config;
use vdi_mtf::sqlserver::log::Vlf;
use vdi_mtf::value::{FileId, PageAddress};

use super::lock::LockFile;
use super::{DataFolder, StorageError};
use crate::catalog::DatabaseRow;

/// A database that exists, as it was when it was opened.
#[derive(Debug)]
pub struct Database {
    row: DatabaseRow,
    files: Vec<File>,
    locks: LockFile,
}

/// A database whose writers are stopped, in all processes. Dropping it thaws.
#[derive(Debug)]
pub struct Frozen<'a> {
    database: &'a Database,
}

/// What a full backup of a frozen database has to hold.
#[derive(Debug, Clone, PartialEq)]
pub struct BackupSource {
    /// The leading configuration: names, GUIDs, log sequence numbers, files; dates, sizes and page counts are the backup's business.
    pub configuration: Config,
    /// For each data file, in the order of the configuration, its allocated extents.
    pub data: Vec<FileExtents>,
    /// The virtual log files with their ranges, in the order of a backup.
    pub log: Vec<Vlf>,
}

/// Extents of a data file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FileExtents {
    /// The file.
    pub file: FileId,
    /// Ranges of extent numbers (page number / 8), ascending, not empty, not touching.
    pub extents: Vec<Range<u32>>,
}

impl Database {
    /// Opens the files of a database that is online.
    pub(super) fn open(_row: DatabaseRow, _locks: LockFile) -> Result<Database, StorageError> {
        todo!()
    }

    /// What the catalog says of it.
    #[must_use]
    pub fn row(&self) -> &DatabaseRow {
        &self.row
    }

    /// A file of it, open for reading.
    #[must_use]
    pub fn file(&self, id: FileId) -> Option<&File> {
        self.row.files.iter().position(|file| file.file_id == id).and_then(|at| self.files.get(at))
    }

    /// Stops all writers: waits until those that are writing have ended, and lets none begin.
    ///
    /// # Errors
    /// [`StorageError`].
    pub fn freeze(&self, _timeout: Duration, _stop: impl Fn() -> bool) -> Result<Frozen<'_>, StorageError> {
        todo!()
    }
}

impl Frozen<'_> {
    /// The database.
    #[must_use]
    pub fn database(&self) -> &Database {
        self.database
    }

    /// Writes a checkpoint into the log (not in a foreign database), and says what a backup has to hold.
    ///
    /// # Errors
    /// [`StorageError`].
    pub fn checkpoint(&self) -> Result<BackupSource, StorageError> {
        todo!()
    }

    /// Whether the files are still what they were when the database was frozen (and checkpointed).
    ///
    /// # Errors
    /// [`StorageError`] for the first file that is not.
    pub fn check_unchanged(&self) -> Result<(), StorageError> {
        todo!()
    }
}

/// Writes pages of a database in use. While the database is frozen it waits.
#[derive(Debug)]
pub struct DatabaseWriter {
    database: Database,
}

/// The right to write, until it is dropped.
#[derive(Debug)]
pub struct WriteGuard<'a>(&'a DatabaseWriter);

impl DatabaseWriter {
    /// Opens a database for writing.
    ///
    /// # Errors
    /// [`StorageError`]; one for a foreign database.
    pub fn open(_folder: &DataFolder, _name: &str) -> Result<DatabaseWriter, StorageError> {
        todo!()
    }

    /// The database.
    #[must_use]
    pub fn database(&self) -> &Database {
        &self.database
    }

    /// The pages that hold content, of all data files, in their order.
    ///
    /// # Errors
    /// [`StorageError`].
    pub fn pages(&self) -> Result<Vec<PageAddress>, StorageError> {
        todo!()
    }

    /// Waits until the database is not frozen, and keeps it from being frozen until the guard is dropped.
    ///
    /// # Errors
    /// [`StorageError`]: a restore has replaced the database, for one.
    pub fn begin(&mut self) -> Result<WriteGuard<'_>, StorageError> {
        todo!()
    }
}

impl WriteGuard<'_> {
    /// Writes a page with the stamp of this sequence: see [`Stamp`](super::content::Stamp).
    ///
    /// # Errors
    /// [`StorageError`].
    pub fn write(&self, _page: PageAddress, _sequence: u64) -> Result<(), StorageError> {
        let _ = self.0;
        todo!()
    }
}
