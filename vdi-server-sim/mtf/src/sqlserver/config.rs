//! The configuration (stream `MQCI`): the database, its filegroups and its files.
//!
//! A set has it twice: in `MSCI` with the values when the backup began, in `MSLS` with those when it ended. Records lie end to
//! end: one `SCIN`, an `SFGI` for each filegroup, an `SFIN` for each file.
//! (Observed in backups of SQL Server 2005 to 2022.)

pub use super::database::{BackupKind, Database, RecoveryModel, flags as database_flags};
pub use super::file::{FileRecord, FileType, Filegroup, UNLIMITED_DATA, UNLIMITED_LOG, flags as file_flags};
use crate::error::Error;
use crate::layout::{get, put};
use crate::value::Tag;

/// The longest configuration that is read: 32,767 files with the longest names need less.
pub const MAX_LEN: u64 = 64 << 20;

/// A copy of the configuration.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Config {
    /// The database and its backup.
    pub database: Database,
    /// The filegroups, by id.
    pub filegroups: Vec<Filegroup>,
    /// The data files, then the log files.
    pub files: Vec<FileRecord>,
}

/// File ids are stored in 32 bits, and have 15.
pub(super) fn check_file_id(found: u32, offset: u64) -> Result<(), Error> {
    let (field, least, most) = ("file id", 1, 32767);
    match u64::from(found) {
        found if (least..=most).contains(&found) => Ok(()),
        found => Err(Error::Range { offset, field, least, most, found }),
    }
}

impl Config {
    /// Reads the data of the stream. `offset` is where it begins, for errors.
    ///
    /// # Errors
    /// [`Error::UnknownRecord`]; [`Error::Range`] and [`Error::Field`] where lengths or the order are wrong.
    pub fn decode(bytes: &[u8], offset: u64) -> Result<Self, Error> {
        let mut config = Config::default();
        let (mut at, mut databases) = (0, 0_u64);
        while at < bytes.len() {
            let place = offset + at as u64;
            let tag = get::<Tag>(bytes, at).unwrap_or_default();
            let len = get::<u32>(bytes, at + 4).unwrap_or(0) as usize;
            let Some(record) = bytes.get(at..at.saturating_add(len)).filter(|_| len >= 8) else {
                let (most, found) = ((bytes.len() - at) as u64, len as u64);
                return Err(Error::Range { offset: place, field: "length of the record", least: 8, most, found });
            };
            match &tag.0 {
                b"SCIN" => {
                    config.database = Database::read(record, place)?;
                    databases += 1;
                }
                b"SFGI" => config.filegroups.push(Filegroup::read(record, place)?),
                b"SFIN" => {
                    check_file_id(get(record, 20).unwrap_or(0), place)?;
                    config.files.push(FileRecord::read(record, place)?);
                }
                _ => return Err(Error::UnknownRecord { offset: place, found: tag }),
            }
            let files_began = !config.files.is_empty() && &tag.0 != b"SFIN";
            if databases != 1 || files_began {
                let (field, expected) = ("records SCIN before this one", 1);
                return Err(Error::Field { offset: place, field, expected, found: databases });
            }
            at += len;
        }
        if databases != 1 {
            return Err(Error::Field { offset, field: "records SCIN", expected: 1, found: 0 });
        }
        Ok(config)
    }

    /// The data of the stream.
    ///
    /// # Errors
    /// [`Error::Range`] for texts that do not fit.
    pub fn encode(&self) -> Result<Vec<u8>, Error> {
        let mut bytes = Vec::new();
        let mut push = |tag: &[u8; 4], mut record: Vec<u8>| {
            let len = record.len() as u32;
            put(&mut record, 0, tag);
            put(&mut record, 4, &len);
            bytes.extend(record);
        };
        push(b"SCIN", self.database.write()?);
        for filegroup in &self.filegroups {
            push(b"SFGI", filegroup.write()?);
        }
        for file in &self.files {
            push(b"SFIN", file.write()?);
        }
        Ok(bytes)
    }

    /// The name of a file's filegroup. Empty for a log file.
    pub fn filegroup_of(&self, file: &FileRecord) -> String {
        let group = self.filegroups.iter().find(|group| group.id == u32::from(file.filegroup));
        group.map_or_else(String::new, |group| group.name.to_string())
    }
}
