//! What was backed up and restored, as a person reads it.

use rusqlite::Connection;

use super::record::BackupDevice;
use super::{Catalog, CatalogError, Fault};

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
    /// WITH COPY_ONLY.
    pub is_copy_only: bool,
    /// WITH SNAPSHOT.
    pub is_snapshot: bool,
    /// NAME of the BACKUP statement, or empty.
    pub name: String,
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
    /// WITH REPLACE.
    pub replace: bool,
}

/// The last backups of a database. Backups of a dropped database of the same name do not count.
#[derive(Debug, Clone, Default, PartialEq)]
#[non_exhaustive]
pub struct LastBackup {
    /// When the last full backup ended (COPY_ONLY ones too): local time.
    pub full: Option<String>,
    /// The last differential backup.
    pub differential: Option<String>,
    /// The last log backup.
    pub log: Option<String>,
}

impl Catalog {
    /// The backups of a database, or of all, the last one first. Backups that were made elsewhere and restored here are not in it.
    ///
    /// # Errors
    /// [`CatalogError`].
    pub fn backups(&self, database: Option<&str>) -> Result<Vec<BackupHistory>, CatalogError> {
        self.read(|connection| {
            let mut statement = connection.prepare(
                "SELECT database_name, type, coalesce(backup_finish_date, ''), backup_size, is_copy_only, is_snapshot, \
                 coalesce(name, ''), media_set_id FROM backupset WHERE media_set_id IS NOT NULL AND (?1 IS NULL OR database_name = ?1) \
                 ORDER BY backup_set_id DESC",
            )?;
            let mut rows = statement.query([database])?;
            let mut backups = Vec::new();
            while let Some(row) = rows.next()? {
                let (kind, bytes): (String, i64) = (row.get(1)?, row.get(3)?);
                backups.push(BackupHistory {
                    database: row.get(0)?,
                    kind: kind.chars().next().unwrap_or('?'),
                    finished: row.get(2)?,
                    bytes: u64::try_from(bytes).map_err(|_| Fault::Damaged(format!("backup_size is {bytes}")))?,
                    is_copy_only: row.get(4)?,
                    is_snapshot: row.get(5)?,
                    name: row.get(6)?,
                    devices: devices(connection, row.get(7)?)?,
                });
            }
            Ok(backups)
        })
    }

    /// The restores of a database, or of all, the last one first.
    ///
    /// # Errors
    /// [`CatalogError`].
    pub fn restores(&self, database: Option<&str>) -> Result<Vec<RestoreHistory>, CatalogError> {
        self.read(|connection| {
            let mut statement = connection.prepare(
                "SELECT destination_database_name, restore_date, database_name, replace FROM restorehistory JOIN backupset USING \
                 (backup_set_id) WHERE ?1 IS NULL OR destination_database_name = ?1 ORDER BY restore_history_id DESC",
            )?;
            let rows = statement.query_map([database], |row| {
                Ok(RestoreHistory {
                    database: row.get(0)?,
                    finished: row.get(1)?,
                    source: row.get(2)?,
                    replace: row.get(3)?,
                })
            })?;
            Ok(rows.collect::<Result<_, _>>()?)
        })
    }

    /// When the database was last backed up, by kind.
    ///
    /// # Errors
    /// [`CatalogError`].
    pub fn last_backup(&self, database: &str) -> Result<LastBackup, CatalogError> {
        self.read(|connection| {
            let mut statement = connection.prepare(
                "SELECT type, max(backup_finish_date) FROM backupset JOIN databases ON databases.name = database_name AND \
                 databases.family_guid = backupset.family_guid WHERE database_name = ?1 AND media_set_id IS NOT NULL GROUP BY type",
            )?;
            let mut rows = statement.query([database])?;
            let mut last = LastBackup::default();
            while let Some(row) = rows.next()? {
                let finished = row.get(1)?;
                match row.get::<_, String>(0)?.as_str() {
                    "D" => last.full = finished,
                    "I" => last.differential = finished,
                    "L" => last.log = finished,
                    _ => {}
                }
            }
            Ok(last)
        })
    }
}

fn devices(connection: &Connection, media: i64) -> Result<Vec<BackupDevice>, Fault> {
    let mut statement = connection.prepare(
        "SELECT device_type, physical_device_name FROM backupmediafamily WHERE media_set_id = ?1 AND mirror = 0 \
         ORDER BY family_sequence_number",
    )?;
    let devices =
        statement.query_map([media], |row| Ok(BackupDevice { device_type: row.get(0)?, name: row.get(1)? }))?;
    Ok(devices.collect::<Result<_, _>>()?)
}
