//! Recording backups and restores in the tables of msdb.

use rusqlite::{OptionalExtension, Transaction};
use vdi_mtf::media::{MediaSet, Tape};
use vdi_mtf::set::{SetStart, Volume};
use vdi_mtf::sqlserver::config::{BackupKind, Config, FileType};
use vdi_mtf::value::{DateTime, Guid};

use super::databases::{NewDatabase, put_configuration};
use super::rows::{date, guid, length, lsn, recovery_name};
use super::{Catalog, CatalogError, Fault};

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

impl Catalog {
    /// Records a backup in `backupmediaset`, `backupmediafamily`, `backupset`, `backupfile` and `backupfilegroup`, in one transaction.
    ///
    /// A full backup that is not COPY_ONLY also becomes the base of differential backups: the header values of the database say so
    /// afterwards. A foreign database keeps its header values.
    ///
    /// # Errors
    /// [`CatalogError`]: nothing is recorded. A set that is recorded already is an error too.
    pub fn record_backup(&self, backup: &BackupRecord<'_>) -> Result<(), CatalogError> {
        self.write(|transaction| {
            let media = put_media_set(transaction, backup)?;
            let families = i64::from(backup.media_set.family_count);
            let set = insert_set(transaction, backup.start, backup.configuration, (media, families))?;
            transaction.execute(
                "UPDATE backupset SET is_snapshot = ?2, is_copy_only = ?3, machine_name = ?4 WHERE backup_set_id = ?1",
                (set, backup.is_snapshot, backup.is_copy_only, backup.volume.machine.to_string()),
            )?;
            if backup.configuration.database.kind() == BackupKind::Full && !backup.is_copy_only {
                self.put_differential_base(transaction, backup)?;
            }
            Ok(())
        })
    }

    fn put_differential_base(&self, transaction: &Transaction<'_>, backup: &BackupRecord<'_>) -> Result<(), Fault> {
        let recorded = &backup.configuration.database;
        let Some(mut row) = self.find_in(transaction, &recorded.name.to_string())? else { return Ok(()) };
        if row.is_foreign || row.configuration.database.family != recorded.family {
            return Ok(());
        }
        row.configuration.database.full_backup_lsn = recorded.first_lsn;
        row.configuration.database.full_backup_set = backup.start.id;
        for file in &mut row.configuration.files {
            let same = backup.configuration.files.iter().find(|recorded| recorded.file_id == file.file_id);
            if let Some(recorded) = same {
                file.differential_base_lsn = recorded.differential_base_lsn;
                file.differential_base = recorded.differential_base;
                file.differential_base_time = recorded.differential_base_time;
            }
        }
        put_configuration(transaction, row.id, &row.configuration)
    }

    /// Records a restore. A set that was made elsewhere gets its rows in `backupset`, `backupfile` and `backupfilegroup` too, as in
    /// SQL Server, but without a media set.
    pub(super) fn insert_restore(
        &self,
        transaction: &Transaction<'_>,
        restore: &RestoreRecord<'_>,
        new: &NewDatabase<'_>,
    ) -> Result<(), Fault> {
        let sql = "SELECT backup_set_id FROM backupset WHERE backup_set_uuid = ?1";
        let known =
            transaction.query_row(sql, [restore.start.id.to_string()], |row| row.get::<_, i64>(0)).optional()?;
        let set = match known {
            Some(set) => set,
            None => insert_set(transaction, restore.start, restore.configuration, (None, 1))?,
        };
        transaction.execute(
            "INSERT INTO restorehistory (restore_date, destination_database_name, backup_set_id, restore_type, replace, recovery, \
             restart) VALUES (datetime('now', 'localtime'), ?1, ?2, ?3, ?4, 1, 0)",
            (new.name, set, letter(restore.configuration.database.kind()), restore.replace),
        )?;
        let history = transaction.last_insert_rowid();
        for (record, placed) in new.configuration.files.iter().zip(new.files) {
            transaction.execute(
                "INSERT INTO restorefile (restore_history_id, file_number, destination_phys_drive, destination_phys_name) \
                 VALUES (?1, ?2, NULL, ?3)",
                (history, record.file_id.0, placed.path.to_string_lossy()),
            )?;
        }
        for group in &new.configuration.filegroups {
            let sql = "INSERT INTO restorefilegroup (restore_history_id, filegroup_name) VALUES (?1, ?2)";
            transaction.execute(sql, (history, group.name.to_string()))?;
        }
        Ok(())
    }
}

/// The media set's row, new or known: further sets on the same media (NOINIT) share it.
fn put_media_set(transaction: &Transaction<'_>, backup: &BackupRecord<'_>) -> Result<Option<i64>, Fault> {
    let (label, set) = (backup.label, backup.media_set);
    transaction.execute(
        "INSERT INTO backupmediaset (media_uuid, media_family_count, name, description, software_name, software_vendor_id, \
         MTF_major_version, mirror_count, is_password_protected, is_compressed, is_encrypted) \
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, 1, ?8, 0, 0) ON CONFLICT (media_uuid) DO NOTHING",
        rusqlite::params![
            set.id.to_string(), set.family_count, text(&label.name), text(&label.description), label.software.to_string(),
            label.vendor, label.major_version, label.password_encryption != 0,
        ],
    )?;
    let sql = "SELECT media_set_id FROM backupmediaset WHERE media_uuid = ?1";
    let media: i64 = transaction.query_row(sql, [set.id.to_string()], |row| row.get(0))?;
    for (device, family) in backup.devices.iter().zip(1_i64..) {
        // The label at hand is that of one family.
        let is_first = family == i64::from(set.family_number);
        let mut id = [0; 16];
        id[..4].copy_from_slice(&label.family_id.to_le_bytes());
        transaction.execute(
            "INSERT INTO backupmediafamily (media_set_id, family_sequence_number, media_family_id, media_count, logical_device_name, \
             physical_device_name, device_type, physical_block_size, mirror) VALUES (?1, ?2, ?3, 1, NULL, ?4, ?5, ?6, 0) \
             ON CONFLICT (media_set_id, family_sequence_number, mirror) DO UPDATE SET physical_device_name = excluded.physical_device_name",
            rusqlite::params![
                media, family, is_first.then(|| Guid(id).to_string()), device.name, device.device_type, backup.block_size,
            ],
        )?;
    }
    Ok(Some(media))
}

/// The rows of a backup set. Gives its number.
fn insert_set(
    transaction: &Transaction<'_>,
    start: &SetStart,
    configuration: &Config,
    (media, families): (Option<i64>, i64),
) -> Result<i64, Fault> {
    let database = &configuration.database;
    let forked = !database.fork_point_lsn.is_zero();
    let first_fork = if forked { database.previous_fork } else { database.recovery_fork };
    let begins_chain = database.kind() == BackupKind::Log && database.first_lsn == database.log_chain_lsn;
    let time_zone = if start.time_zone == 127 { None } else { Some(start.time_zone) };
    let end = if database.finish.is_set() { database.finish } else { DateTime::default() };
    let compressed = if database.compressed_size == 0 { database.backup_size } else { database.compressed_size };
    let columns: &[(&str, &dyn rusqlite::ToSql)] = &[
        ("backup_set_uuid", &start.id.to_string()),
        ("media_set_id", &media),
        ("first_family_number", &1),
        ("first_media_number", &1),
        ("last_family_number", &families),
        ("last_media_number", &1),
        ("catalog_family_number", &1),
        ("catalog_media_number", &1),
        ("position", &start.number),
        ("software_vendor_id", &start.vendor),
        ("name", &text(&start.name)),
        ("description", &text(&start.description)),
        ("user_name", &start.user.to_string()),
        ("software_major_version", &database.software_major),
        ("software_minor_version", &database.software_minor),
        ("software_build_version", &database.software_build),
        ("time_zone", &time_zone),
        ("mtf_minor_version", &start.minor_version),
        ("first_lsn", &lsn(database.first_lsn)),
        ("last_lsn", &lsn(database.last_lsn)),
        ("checkpoint_lsn", &lsn(database.checkpoint_lsn)),
        ("database_backup_lsn", &lsn(database.full_backup_lsn)),
        ("database_creation_date", &date(database.created)),
        ("backup_start_date", &date(database.start)),
        ("backup_finish_date", &date(end)),
        ("type", &letter(database.kind())),
        ("sort_order", &database.sort_order),
        ("code_page", &0),
        ("compatibility_level", &database.compatibility_level),
        ("database_version", &database.database_version),
        ("backup_size", &length(database.backup_size, "the backup")?),
        ("database_name", &database.name.to_string()),
        ("server_name", &database.server.to_string()),
        ("flags", &database.flags),
        ("unicode_locale", &database.unicode_locale),
        ("unicode_compare_style", &database.unicode_comparison),
        ("is_password_protected", &(start.password_encryption != 0)),
        ("recovery_model", &recovery_name(database.recovery_model())),
        ("has_bulk_logged_data", &false),
        ("is_snapshot", &false),
        ("is_readonly", &false),
        ("is_single_user", &false),
        ("has_backup_checksums", &database.has_checksums()),
        ("is_damaged", &false),
        ("begins_log_chain", &begins_chain),
        ("has_incomplete_metadata", &false),
        ("is_force_offline", &false),
        ("is_copy_only", &(start.attributes & vdi_mtf::set::attributes::COPY != 0)),
        ("first_recovery_fork_guid", &guid(first_fork)),
        ("last_recovery_fork_guid", &guid(database.recovery_fork)),
        ("fork_point_lsn", &lsn(database.fork_point_lsn)),
        ("database_guid", &guid(database.binding_id)),
        ("family_guid", &guid(database.family)),
        ("differential_base_lsn", &lsn(database.differential_base_lsn)),
        ("differential_base_guid", &guid(database.differential_base)),
        ("compressed_backup_size", &length(compressed, "the backup")?),
    ];
    insert(transaction, "backupset", columns)?;
    let set = transaction.last_insert_rowid();
    insert_files(transaction, set, configuration)?;
    Ok(set)
}

fn insert_files(transaction: &Transaction<'_>, set: i64, configuration: &Config) -> Result<(), Fault> {
    for file in &configuration.files {
        let file_type = match file.file_type() {
            FileType::Data => "D",
            FileType::Log => "L",
            FileType::Other(_) => "S",
        };
        let group = configuration.filegroups.iter().find(|group| group.id == u32::from(file.filegroup));
        let is_present = file.pages > 0 || file.file_type() != FileType::Data;
        insert(
            transaction,
            "backupfile",
            &[
                ("backup_set_id", &set),
                ("first_family_number", &1),
                ("first_media_number", &1),
                ("filegroup_name", &group.map(|group| group.name.to_string())),
                ("page_size", &file.page_len),
                ("file_number", &file.file_id.0),
                ("backed_up_page_count", &file.pages),
                ("file_type", &file_type),
                ("source_file_block_size", &file.source_block),
                ("file_size", &length(file.size, "the size of a file")?),
                ("logical_name", &file.logical_name.to_string()),
                ("physical_name", &file.physical_name.to_string()),
                ("state", &0),
                ("state_desc", &"ONLINE"),
                ("file_guid", &guid(file.unique_id)),
                ("differential_base_lsn", &lsn(file.differential_base_lsn)),
                ("differential_base_guid", &guid(file.differential_base)),
                ("backup_size", &length(file.backup_bytes, "the backup of a file")?),
                ("filegroup_guid", &group.and_then(|group| guid(group.guid))),
                ("is_readonly", &false),
                ("is_present", &is_present),
            ],
        )?;
    }
    for group in &configuration.filegroups {
        insert(
            transaction,
            "backupfilegroup",
            &[
                ("backup_set_id", &set),
                ("name", &group.name.to_string()),
                ("filegroup_id", &group.id),
                ("filegroup_guid", &guid(group.guid)),
                ("type", &"FG"),
                ("type_desc", &"ROWS_FILEGROUP"),
                ("is_default", &(group.id == 1)),
                ("is_readonly", &false),
            ],
        )?;
    }
    Ok(())
}

/// Inserts a row. Columns that are not named are NULL.
fn insert(transaction: &Transaction<'_>, table: &str, columns: &[(&str, &dyn rusqlite::ToSql)]) -> Result<(), Fault> {
    let names: Vec<&str> = columns.iter().map(|(name, _)| *name).collect();
    let sql = format!("INSERT INTO {table} ({}) VALUES ({})", names.join(", "), vec!["?"; names.len()].join(", "));
    let values: Vec<&dyn rusqlite::ToSql> = columns.iter().map(|(_, value)| *value).collect();
    transaction.prepare(&sql)?.execute(&values[..])?;
    Ok(())
}

/// A text of a statement. `None` if it was not given.
fn text(text: &vdi_mtf::value::Text) -> Option<String> {
    (!text.is_empty()).then(|| text.to_string())
}

fn letter(kind: BackupKind) -> String {
    char::from(kind.letter()).to_string()
}
