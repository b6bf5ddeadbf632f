//! The tables, and their versions.
//!
//! | version | what it added |
//! |---|---|
//! | 1 | databases, their files, pending files |
//! | 2 | sizes and growth of files in columns of their own; the tables of msdb |
//!
//! Values in the tables:
//!
//! | type in SQL Server | here |
//! |---|---|
//! | numeric(25,0), a log sequence number | text of 25 digits with leading zeros: it compares as text, and shows as a number without them |
//! | uniqueidentifier | text, as SQL Server prints it |
//! | datetime | text, `2024-05-31 23:59:59`, local time |
//! | bit, tinyint to bigint, numeric(20,0) | integer |
//! | nvarchar, char | text |

use rusqlite::{Connection, Transaction};

use super::rows::FileColumns;
use super::{Catalog, CatalogError, Fault};

/// `PRAGMA application_id` of a catalog: "VDIc".
const APPLICATION: i64 = 0x5644_4963;

/// The newest version of the tables.
pub(super) const VERSION: i64 = 2;

/// The first database gets the next number: 1 to 4 are SQL Server's system databases.
const VERSION_1: &str = "
CREATE TABLE databases (
    database_id INTEGER PRIMARY KEY AUTOINCREMENT,
    name TEXT NOT NULL COLLATE NOCASE UNIQUE,
    create_date TEXT,
    state INTEGER NOT NULL,
    recovery_model INTEGER NOT NULL,
    compatibility_level INTEGER NOT NULL,
    family_guid TEXT NOT NULL,
    recovery_fork_guid TEXT NOT NULL,
    is_foreign INTEGER NOT NULL,
    generation INTEGER NOT NULL,
    configuration BLOB NOT NULL
) STRICT;
CREATE TABLE files (
    database_id INTEGER NOT NULL REFERENCES databases ON DELETE CASCADE,
    position INTEGER NOT NULL,
    file_id INTEGER NOT NULL,
    type INTEGER NOT NULL,
    data_space_id INTEGER NOT NULL,
    logical_name TEXT NOT NULL COLLATE NOCASE,
    path TEXT NOT NULL UNIQUE,
    size INTEGER NOT NULL,
    built_path TEXT UNIQUE,
    replaces INTEGER NOT NULL DEFAULT 0,
    PRIMARY KEY (database_id, file_id)
) STRICT;
CREATE TABLE pending_file (
    path TEXT PRIMARY KEY NOT NULL,
    database_name TEXT NOT NULL COLLATE NOCASE,
    removals INTEGER NOT NULL DEFAULT 0
) STRICT;
INSERT INTO sqlite_sequence (name, seq) VALUES ('databases', 4);
";

const VERSION_2: &str = "
ALTER TABLE files ADD COLUMN max_size INTEGER NOT NULL DEFAULT 0;
ALTER TABLE files ADD COLUMN growth INTEGER NOT NULL DEFAULT 0;
ALTER TABLE files ADD COLUMN is_percent_growth INTEGER NOT NULL DEFAULT 0;

CREATE TABLE backupmediaset (
    media_set_id INTEGER PRIMARY KEY AUTOINCREMENT,
    media_uuid TEXT UNIQUE,
    media_family_count INTEGER,
    name TEXT,
    description TEXT,
    software_name TEXT,
    software_vendor_id INTEGER,
    MTF_major_version INTEGER,
    mirror_count INTEGER,
    is_password_protected INTEGER,
    is_compressed INTEGER,
    is_encrypted INTEGER
) STRICT;
CREATE TABLE backupmediafamily (
    media_set_id INTEGER NOT NULL REFERENCES backupmediaset,
    family_sequence_number INTEGER NOT NULL,
    media_family_id TEXT,
    media_count INTEGER,
    logical_device_name TEXT,
    physical_device_name TEXT,
    device_type INTEGER,
    physical_block_size INTEGER,
    mirror INTEGER NOT NULL,
    PRIMARY KEY (media_set_id, family_sequence_number, mirror)
) STRICT;
CREATE TABLE backupset (
    backup_set_id INTEGER PRIMARY KEY AUTOINCREMENT,
    backup_set_uuid TEXT NOT NULL UNIQUE,
    media_set_id INTEGER REFERENCES backupmediaset,
    first_family_number INTEGER,
    first_media_number INTEGER,
    last_family_number INTEGER,
    last_media_number INTEGER,
    catalog_family_number INTEGER,
    catalog_media_number INTEGER,
    position INTEGER,
    expiration_date TEXT,
    software_vendor_id INTEGER,
    name TEXT,
    description TEXT,
    user_name TEXT,
    software_major_version INTEGER,
    software_minor_version INTEGER,
    software_build_version INTEGER,
    time_zone INTEGER,
    mtf_minor_version INTEGER,
    first_lsn TEXT,
    last_lsn TEXT,
    checkpoint_lsn TEXT,
    database_backup_lsn TEXT,
    database_creation_date TEXT,
    backup_start_date TEXT,
    backup_finish_date TEXT,
    type TEXT,
    sort_order INTEGER,
    code_page INTEGER,
    compatibility_level INTEGER,
    database_version INTEGER,
    backup_size INTEGER,
    database_name TEXT COLLATE NOCASE,
    server_name TEXT,
    machine_name TEXT,
    flags INTEGER,
    unicode_locale INTEGER,
    unicode_compare_style INTEGER,
    collation_name TEXT,
    is_password_protected INTEGER,
    recovery_model TEXT,
    has_bulk_logged_data INTEGER,
    is_snapshot INTEGER,
    is_readonly INTEGER,
    is_single_user INTEGER,
    has_backup_checksums INTEGER,
    is_damaged INTEGER,
    begins_log_chain INTEGER,
    has_incomplete_metadata INTEGER,
    is_force_offline INTEGER,
    is_copy_only INTEGER,
    first_recovery_fork_guid TEXT,
    last_recovery_fork_guid TEXT,
    fork_point_lsn TEXT,
    database_guid TEXT,
    family_guid TEXT,
    differential_base_lsn TEXT,
    differential_base_guid TEXT,
    compressed_backup_size INTEGER,
    key_algorithm TEXT,
    encryptor_thumbprint BLOB,
    encryptor_type TEXT
) STRICT;
CREATE TABLE backupfile (
    backup_set_id INTEGER NOT NULL REFERENCES backupset,
    first_family_number INTEGER,
    first_media_number INTEGER,
    filegroup_name TEXT,
    page_size INTEGER,
    file_number INTEGER NOT NULL,
    backed_up_page_count INTEGER,
    file_type TEXT,
    source_file_block_size INTEGER,
    file_size INTEGER,
    logical_name TEXT,
    physical_drive TEXT,
    physical_name TEXT,
    state INTEGER,
    state_desc TEXT,
    create_lsn TEXT,
    drop_lsn TEXT,
    file_guid TEXT,
    read_only_lsn TEXT,
    read_write_lsn TEXT,
    differential_base_lsn TEXT,
    differential_base_guid TEXT,
    backup_size INTEGER,
    filegroup_guid TEXT,
    is_readonly INTEGER,
    is_present INTEGER,
    PRIMARY KEY (backup_set_id, file_number)
) STRICT;
CREATE TABLE backupfilegroup (
    backup_set_id INTEGER NOT NULL REFERENCES backupset,
    name TEXT NOT NULL,
    filegroup_id INTEGER NOT NULL,
    filegroup_guid TEXT,
    type TEXT NOT NULL,
    type_desc TEXT,
    is_default INTEGER NOT NULL,
    is_readonly INTEGER NOT NULL,
    log_filegroup_guid TEXT,
    PRIMARY KEY (backup_set_id, filegroup_id)
) STRICT;
CREATE TABLE restorehistory (
    restore_history_id INTEGER PRIMARY KEY AUTOINCREMENT,
    restore_date TEXT,
    destination_database_name TEXT COLLATE NOCASE,
    user_name TEXT,
    backup_set_id INTEGER NOT NULL REFERENCES backupset,
    restore_type TEXT,
    replace INTEGER,
    recovery INTEGER,
    restart INTEGER,
    stop_at TEXT,
    device_count INTEGER,
    stop_at_mark_name TEXT,
    stop_before INTEGER
) STRICT;
CREATE TABLE restorefile (
    restore_history_id INTEGER NOT NULL REFERENCES restorehistory,
    file_number INTEGER,
    destination_phys_drive TEXT,
    destination_phys_name TEXT
) STRICT;
CREATE TABLE restorefilegroup (
    restore_history_id INTEGER NOT NULL REFERENCES restorehistory,
    filegroup_name TEXT
) STRICT;
CREATE INDEX backupset_database ON backupset (database_name, backup_finish_date);
";

impl Catalog {
    /// Makes the tables, or brings them to the newest version. One transaction; nothing changes if it fails.
    pub(super) fn prepare(&self) -> Result<(), CatalogError> {
        if self.read(|connection| self.version(connection))? == VERSION {
            return Ok(());
        }
        self.write(|transaction| {
            // Another process may have been first.
            let mut version = self.version(transaction)?;
            while version < VERSION {
                match version {
                    0 => create(transaction, VERSION_1)?,
                    _ => self.to_version_2(transaction)?,
                }
                version += 1;
            }
            transaction.pragma_update(None, "application_id", APPLICATION)?;
            transaction.pragma_update(None, "user_version", version)?;
            Ok(())
        })
    }

    /// The version of the tables; 0 in an empty file.
    fn version(&self, connection: &Connection) -> Result<i64, Fault> {
        let number = |name| connection.pragma_query_value(None, name, |row| row.get::<_, i64>(0));
        let (application, version) = (number("application_id")?, number("user_version")?);
        if application == APPLICATION && version > VERSION {
            return Err(CatalogError::Version { path: self.path.clone(), found: version, known: VERSION }.into());
        }
        if application == APPLICATION && version >= 1 {
            return Ok(version);
        }
        let tables: i64 = connection.query_row("SELECT count(*) FROM sqlite_schema", [], |row| row.get(0))?;
        if application == 0 && version == 0 && tables == 0 {
            return Ok(0);
        }
        let what = format!(
            "it is an SQLite database of another program (application_id {application:#x}, user_version {version}, {tables} tables)"
        );
        Err(Fault::Damaged(what))
    }

    fn to_version_2(&self, transaction: &Transaction<'_>) -> Result<(), Fault> {
        create(transaction, VERSION_2)?;
        let mut databases = transaction.prepare("SELECT database_id, configuration FROM databases")?;
        let mut rows = databases.query([])?;
        while let Some(row) = rows.next()? {
            let id: i64 = row.get(0)?;
            let configuration = super::rows::decode(id, row.get_ref(1)?)?;
            for file in &configuration.files {
                let columns = FileColumns::of(file)?;
                transaction.execute(
                    "UPDATE files SET max_size = ?3, growth = ?4, is_percent_growth = ?5 WHERE database_id = ?1 AND file_id = ?2",
                    (id, file.file_id.0, columns.max_size, columns.growth, columns.is_percent_growth),
                )?;
            }
        }
        Ok(())
    }
}

fn create(transaction: &Transaction<'_>, tables: &str) -> Result<(), Fault> {
    Ok(transaction.execute_batch(tables)?)
}

#[cfg(test)]
impl Catalog {
    /// A catalog of version 1, as the first programs made it.
    pub(super) fn create_version_1(path: &std::path::Path) -> rusqlite::Result<Connection> {
        let connection = Connection::open(path)?;
        connection.execute_batch(VERSION_1)?;
        connection.pragma_update(None, "application_id", APPLICATION)?;
        connection.pragma_update(None, "user_version", 1)?;
        Ok(connection)
    }
}
