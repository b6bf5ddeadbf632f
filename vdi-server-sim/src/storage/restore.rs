//! A database that comes out of a backup, all or nothing.

use std::path::PathBuf;

use vdi_mtf::sqlserver::config::Config;
use vdi_mtf::sqlserver::log::Vlf;
use vdi_mtf::value::FileId;

use super::{DataFolder, DatabaseLock, StorageError};
use crate::catalog::RestoreRecord;

/// What a RESTORE asks for, and what the backup's header says.
#[derive(Debug)]
pub struct RestoreRequest<'a> {
    /// The database to be made or replaced.
    pub name: &'a str,
    /// The leading configuration of the backup.
    pub configuration: &'a Config,
    /// WITH REPLACE.
    pub replace: bool,
    /// WITH MOVE: logical names and paths.
    pub moves: &'a [(String, PathBuf)],
}

/// A database under construction. Its files have other names until [`commit`](Self::commit).
#[derive(Debug)]
pub struct RestoreTarget {}

/// What [`RestoreTarget::commit`] has done.
#[derive(Debug)]
pub struct Committed {
    /// Whether there was a database of this name, which is gone now.
    pub replaced: bool,
    /// The new database is complete and durable, but this went wrong while the old one was being removed.
    pub leftover: Option<StorageError>,
}

impl RestoreTarget {
    /// Makes the files of the new database: each has its final length and reads as zeros.
    ///
    /// # Errors
    /// [`StorageError`]: the database is another one (3154), a file belongs to another database (1834), and others.
    pub fn create(
        _folder: &DataFolder,
        _lock: DatabaseLock,
        _request: &RestoreRequest<'_>,
    ) -> Result<RestoreTarget, StorageError> {
        todo!()
    }

    /// Writes bytes of pages or log at their place in a file. Several threads may write at once.
    ///
    /// # Errors
    /// [`StorageError`]: no such file, or beyond its end.
    pub fn write_at(&self, _file: FileId, _offset: u64, _bytes: &[u8]) -> Result<(), StorageError> {
        todo!()
    }

    /// Writes the headers of the virtual log files, makes all files durable, and makes them the database, in one transaction with the
    /// restore history. It is either there completely or not at all.
    ///
    /// # Errors
    /// [`StorageError`]. Then everything is as it was before.
    pub fn commit(self, _record: &RestoreRecord<'_>, _log: &[Vlf]) -> Result<Committed, StorageError> {
        todo!()
    }
}
