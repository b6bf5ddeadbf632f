//! What was backed up and restored: the rows of msdb's tables.

use vdi_mtf::media::{MediaSet, Tape};
use vdi_mtf::set::{SetStart, Volume};
use vdi_mtf::sqlserver::config::Config;

use super::{Catalog, CatalogError};

/// A backup that has succeeded.
#[derive(Debug, Clone)]
pub struct BackupRecord<'a> {
    /// The label of the first family: names and description of the media.
    pub label: &'a Tape,
    /// The media set.
    pub media_set: &'a MediaSet,
    /// The start of the set: name, description, user, position, GUID.
    pub start: &'a SetStart,
    /// The volume: the machine.
    pub volume: &'a Volume,
    /// The configuration at the end.
    pub configuration: &'a Config,
    /// The devices, in the order of their families.
    pub devices: &'a [BackupDevice],
    /// WITH COPY_ONLY.
    pub is_copy_only: bool,
    /// WITH SNAPSHOT.
    pub is_snapshot: bool,
    /// BLOCKSIZE.
    pub block_size: u32,
}

/// A device of a backup or restore.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BackupDevice {
    /// `device_type` of msdb: 2 for DISK, 7 for VIRTUAL_DEVICE.
    pub device_type: u8,
    /// Path, or name of the virtual device.
    pub name: String,
}

/// A restore that has succeeded.
#[derive(Debug, Clone)]
pub struct RestoreRecord<'a> {
    /// The database that was made.
    pub database: &'a str,
    /// The start of the set that was restored.
    pub start: &'a SetStart,
    /// Its configuration.
    pub configuration: &'a Config,
    /// WITH REPLACE.
    pub replace: bool,
}

/// A row of the backup history, as `vdi-sim history` shows it.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct BackupHistory {
    /// The database.
    pub database: String,
    /// The letter of the kind: D, I, L.
    pub kind: char,
    /// When it ended: local time, `2024-05-31 23:59:59`.
    pub finished: String,
    /// Bytes of the backup.
    pub bytes: u64,
    /// The devices.
    pub devices: Vec<BackupDevice>,
}

/// A row of the restore history.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct RestoreHistory {
    /// The database that was made.
    pub database: String,
    /// When: local time.
    pub finished: String,
    /// The database in the backup.
    pub source: String,
}

impl Catalog {
    /// Records a backup.
    ///
    /// # Errors
    /// [`CatalogError`].
    pub fn record_backup(&self, _backup: &BackupRecord<'_>) -> Result<(), CatalogError> {
        todo!()
    }

    /// The backups of a database, or of all, the last one first.
    ///
    /// # Errors
    /// [`CatalogError`].
    pub fn backups(&self, _database: Option<&str>) -> Result<Vec<BackupHistory>, CatalogError> {
        todo!()
    }

    /// The restores of a database, or of all, the last one first.
    ///
    /// # Errors
    /// [`CatalogError`].
    pub fn restores(&self, _database: Option<&str>) -> Result<Vec<RestoreHistory>, CatalogError> {
        todo!()
    }
}
