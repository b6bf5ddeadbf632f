//! Rows of databases and files: what the columns hold, and whether it can be.

use std::path::{Path, PathBuf};

use rusqlite::types::ValueRef;
use rusqlite::{Connection, Row};
use vdi_mtf::sqlserver::config::{Config, FileRecord, FileType, RecoveryModel, file_flags};
use vdi_mtf::value::{DateTime, FileId, Guid, Lsn};

use super::{Catalog, DatabaseRow, DatabaseState, Fault, FileRow};

/// The columns of a database that [`Catalog::database_of`] reads.
pub(super) const DATABASE_COLUMNS: &str =
    "database_id, name, state, recovery_model, is_foreign, generation, configuration";

impl DatabaseState {
    /// `state` of `sys.databases`.
    #[must_use]
    pub fn number(self) -> u8 {
        match self {
            DatabaseState::Online => 0,
            DatabaseState::Restoring => 1,
            DatabaseState::RecoveryPending => 3,
            DatabaseState::Offline => 6,
        }
    }

    pub(super) fn from_number(number: i64) -> Option<DatabaseState> {
        use DatabaseState as S;
        [S::Online, S::Restoring, S::RecoveryPending, S::Offline]
            .into_iter()
            .find(|state| i64::from(state.number()) == number)
    }
}

/// `state_desc` of `sys.databases`.
impl std::fmt::Display for DatabaseState {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            DatabaseState::Online => "ONLINE",
            DatabaseState::Restoring => "RESTORING",
            DatabaseState::RecoveryPending => "RECOVERY_PENDING",
            DatabaseState::Offline => "OFFLINE",
        })
    }
}

/// `recovery_model` of `sys.databases`.
pub(super) fn recovery_number(model: RecoveryModel) -> i64 {
    match model {
        RecoveryModel::Full => 1,
        RecoveryModel::BulkLogged => 2,
        RecoveryModel::Simple => 3,
    }
}

/// `recovery_model` of `backupset`. (`sys.databases` has `BULK_LOGGED`.)
pub(super) fn recovery_name(model: RecoveryModel) -> &'static str {
    match model {
        RecoveryModel::Full => "FULL",
        RecoveryModel::BulkLogged => "BULK-LOGGED",
        RecoveryModel::Simple => "SIMPLE",
    }
}

/// The bits of the status word of a database (`SCIN`, offset 244) that hold its recovery model.
pub(crate) fn recovery_bits(model: RecoveryModel) -> u32 {
    match model {
        RecoveryModel::Full => 0,
        RecoveryModel::BulkLogged => 0x4,
        RecoveryModel::Simple => 0x8,
    }
}

/// `type` of `sys.master_files`.
pub(super) fn file_type_number(file_type: FileType) -> i64 {
    match file_type {
        FileType::Data => 0,
        FileType::Log => 1,
        FileType::Other(number) => i64::from(number),
    }
}

/// A log sequence number as the tables have it. `None` for zero.
pub(super) fn lsn(lsn: Lsn) -> Option<String> {
    (!lsn.is_zero()).then(|| format!("{:025}", lsn.to_number()))
}

/// A GUID as the tables have it. `None` for zero.
pub(super) fn guid(guid: Guid) -> Option<String> {
    (!guid.is_zero()).then(|| guid.to_string())
}

/// A date as the tables have it. `None` for no date.
pub(super) fn date(date: DateTime) -> Option<String> {
    date.is_set().then(|| date.to_string())
}

/// A length as the tables have it.
pub(super) fn length(length: u64, what: &str) -> Result<i64, Fault> {
    i64::try_from(length).map_err(|_| Fault::Damaged(format!("{what} is {length} bytes, more than any file can have")))
}

/// Columns of a file that come out of the configuration.
pub(super) struct FileColumns {
    pub(super) size: i64,
    pub(super) max_size: i64,
    /// Bytes, or percent.
    pub(super) growth: i64,
    pub(super) is_percent_growth: bool,
}

impl FileColumns {
    pub(super) fn of(file: &FileRecord) -> Result<FileColumns, Fault> {
        Ok(FileColumns {
            size: length(file.size, "the size of a file")?,
            max_size: length(file.max_size, "the maximum size of a file")?,
            growth: length(file.growth, "the growth of a file")?,
            is_percent_growth: file.flags & file_flags::PERCENT != 0,
        })
    }
}

/// The configuration of the database `id` out of its column.
pub(super) fn decode(id: i64, column: ValueRef<'_>) -> Result<Config, Fault> {
    let damaged = |what: String| Fault::Damaged(format!("the configuration of database {id} {what}"));
    let ValueRef::Blob(bytes) = column else { return Err(damaged("is no blob".into())) };
    if bytes.len() as u64 > vdi_mtf::sqlserver::config::MAX_LEN {
        return Err(damaged(format!("has {} bytes, more than a configuration can have", bytes.len())));
    }
    Config::decode(bytes, 0).map_err(|error| damaged(format!("cannot be read: {error}")))
}

impl Catalog {
    /// A path as the tables have it: relative to the data folder if it is below it. So a data folder can be moved.
    pub(super) fn stored_path(&self, path: &Path) -> Result<String, Fault> {
        let short = path.strip_prefix(&self.folder).unwrap_or(path);
        let text = short.to_str().filter(|text| !text.is_empty());
        text.map(str::to_owned).ok_or_else(|| Fault::Damaged(format!("the path {path:?} is empty or not UTF-8")))
    }

    /// The absolute path.
    pub(super) fn absolute_path(&self, stored: &str) -> PathBuf {
        self.folder.join(stored)
    }

    /// Reads and validates a database: its row has the columns [`DATABASE_COLUMNS`].
    pub(super) fn database_of(&self, connection: &Connection, row: &Row<'_>) -> Result<DatabaseRow, Fault> {
        let id: i64 = row.get(0)?;
        let damaged = |what: String| Fault::Damaged(format!("database {id}: {what}"));
        let name: String = row.get(1)?;
        let (state, model): (i64, i64) = (row.get(2)?, row.get(3)?);
        let (is_foreign, generation): (bool, i64) = (row.get(4)?, row.get(5)?);
        let configuration = decode(id, row.get_ref(6)?)?;
        let recovery_model = configuration.database.recovery_model();
        if name.is_empty() || name.contains(['/', '\0']) || name.starts_with('.') {
            return Err(damaged(format!("'{name}' cannot be a name")));
        }
        if recovery_number(recovery_model) != model {
            return Err(damaged(format!("recovery_model is {model}, but {recovery_model:?} in its configuration")));
        }
        let files = self.files_of(connection, id, &configuration)?;
        Ok(DatabaseRow {
            id: u32::try_from(id).map_err(|_| damaged("the number is out of range".into()))?,
            name,
            state: DatabaseState::from_number(state).ok_or_else(|| damaged(format!("there is no state {state}")))?,
            recovery_model,
            is_foreign,
            generation: u64::try_from(generation).map_err(|_| damaged(format!("generation is {generation}")))?,
            configuration,
            files,
        })
    }

    fn files_of(&self, connection: &Connection, id: i64, configuration: &Config) -> Result<Vec<FileRow>, Fault> {
        let damaged = |what: String| Fault::Damaged(format!("the files of database {id}: {what}"));
        let mut statement = connection.prepare(
            "SELECT file_id, type, data_space_id, logical_name, path, size FROM files WHERE database_id = ?1 ORDER BY position",
        )?;
        let mut rows = statement.query([id])?;
        let mut files = Vec::new();
        while let Some(row) = rows.next()? {
            let Some(record) = configuration.files.get(files.len()) else {
                return Err(damaged(format!(
                    "there are more than the {} of its configuration",
                    configuration.files.len()
                )));
            };
            let found: (i64, i64, i64, i64) = (row.get(0)?, row.get(1)?, row.get(2)?, row.get(5)?);
            let group = i64::from(record.filegroup);
            let size = FileColumns::of(record)?.size;
            let expected = (i64::from(record.file_id.0), file_type_number(record.file_type()), group, size);
            if found != expected {
                return Err(damaged(format!(
                    "id, type, filegroup and size of one are {found:?}, but {expected:?} in its configuration"
                )));
            }
            files.push(FileRow {
                file_id: FileId(record.file_id.0),
                file_type: record.file_type(),
                filegroup: record.filegroup,
                logical_name: row.get(3)?,
                path: self.absolute_path(&row.get::<_, String>(4)?),
                size: record.size,
            });
        }
        if files.len() != configuration.files.len() || files.is_empty() {
            return Err(damaged(format!(
                "there are {}, but {} in its configuration",
                files.len(),
                configuration.files.len()
            )));
        }
        Ok(files)
    }
}
