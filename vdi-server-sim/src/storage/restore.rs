//! A database that comes out of a backup, all or nothing.

use std::collections::BTreeMap;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use vdi_mtf::page::PAGE_LEN;
use vdi_mtf::sqlserver::config::{BackupKind, Config, FileRecord, FileType, RecoveryModel};
use vdi_mtf::sqlserver::log::Vlf;
use vdi_mtf::value::{FileId, Text};

use super::build::{NewFiles, Wanted, random};
use super::create::is_own_family;
use super::path::{check_user_database, given, recorded};
use super::{DataFolder, DatabaseLock, StorageError, log_file};
use crate::catalog::{DatabaseRow, DatabaseState, NewDatabase, RestoreRecord};

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

/// A database under construction. Its files have other names until [`commit`](Self::commit). Dropping it removes them.
///
/// A failure at any moment leaves the database of the same name as it was, and so does the end of the process. The next statement on the
/// database removes what is left, or [`DataFolder::open`].
#[derive(Debug)]
pub struct RestoreTarget {
    pub(super) new: NewFiles,
    /// By file: its place in the list, and its length.
    files: BTreeMap<FileId, (usize, u64)>,
    configuration: Config,
    name: String,
    replaced: bool,
}

/// What [`RestoreTarget::commit`] has done.
#[derive(Debug)]
pub struct Committed {
    /// Whether there was a database of this name, which is gone now.
    pub replaced: bool,
    /// The new database is complete and durable, but this went wrong while its files got their names and the old ones were removed.
    /// The next statement on the database does the rest.
    pub leftover: Option<StorageError>,
}

impl RestoreTarget {
    /// Makes the files of the new database: each has its final length and reads as zeros.
    ///
    /// A file goes where MOVE says, else where the backup says, if that is in the data folder or the place of a file of the database that
    /// is replaced; else into the data folder, under the last component of the path in the backup. A file that belongs to no database is
    /// never overwritten, also WITH REPLACE.
    ///
    /// # Errors
    /// [`StorageError::OtherDatabase`] (3154), [`StorageError::TailNotSaved`] (3159), [`StorageError::UnknownLogicalName`] (3234),
    /// [`StorageError::FileInUse`] (1834), [`StorageError::FileExists`] (3156), [`StorageError::InvalidFile`] for a list of files that no
    /// database can have, and others. Nothing has changed then.
    pub fn create(
        folder: &DataFolder,
        lock: DatabaseLock,
        request: &RestoreRequest<'_>,
    ) -> Result<RestoreTarget, StorageError> {
        check_user_database(request.name)?;
        let existing = folder.catalog().find(request.name)?;
        if let Some(existing) = existing.as_ref().filter(|_| !request.replace) {
            check_replaceable(existing, request.configuration)?;
        }
        let wanted = wanted(folder, request, existing.as_ref())?;
        let new = NewFiles::create(folder, lock, &wanted, existing.as_ref().map(|row| row.id))?;
        let files = request.configuration.files.iter().zip(&wanted).enumerate();
        Ok(RestoreTarget {
            new,
            files: files.map(|(at, (record, wanted))| (record.file_id, (at, wanted.size))).collect(),
            configuration: request.configuration.clone(),
            replaced: existing.is_some(),
            name: existing.map_or_else(|| request.name.to_owned(), |existing| existing.name),
        })
    }

    /// Writes bytes of pages or log at their place in a file. Several threads may write at once.
    ///
    /// # Errors
    /// [`StorageError::NoSuchFile`] and [`StorageError::BeyondEnd`]: nothing was written. [`StorageError::Io`] names the file and the
    /// offset; part of the bytes may have been written. A full disk is one of these, see [`StorageError::is_disk_full`].
    pub fn write_at(&self, file: FileId, offset: u64, bytes: &[u8]) -> Result<(), StorageError> {
        let found = self.files.get(&file).and_then(|&(at, size)| Some((at, size, self.new.files().get(at)?)));
        let Some((at, size, handle)) = found else { return Err(StorageError::NoSuchFile { file }) };
        let path = || self.new.placed()[at].path.clone();
        let length = bytes.len();
        if offset.checked_add(length as u64).is_none_or(|end| end > size) {
            return Err(StorageError::BeyondEnd { path: path(), offset, length, size });
        }
        let failed = |source| StorageError::Io { action: "write to", path: path(), offset: Some(offset), source };
        handle.write_all_at(bytes, offset).map_err(failed)
    }

    /// Writes the headers of the virtual log files, makes all files durable, and makes them the database, in one transaction with the
    /// restore history. It is either there completely or not at all.
    ///
    /// The header values of the new database are those of `record.configuration`, with its own name, number and paths. A
    /// full backup that is not COPY_ONLY is its differential base; a foreign database keeps the base of the backup.
    ///
    /// # Errors
    /// [`StorageError`]. Then everything is as it was before.
    pub fn commit(self, record: &RestoreRecord<'_>, log: &[Vlf]) -> Result<Committed, StorageError> {
        check_same_files(&self.configuration, record.configuration)?;
        for (at, file) in self.configuration.files.iter().enumerate() {
            if file.file_type() == FileType::Log {
                let log: Vec<Vlf> = log.iter().filter(|vlf| vlf.file_id == file.file_id).cloned().collect();
                log_file::write_headers(&self.new.files()[at], &self.new.placed()[at].path, &log)?;
            }
        }
        self.finish(record)
    }

    /// The rest of a commit: log files have their headers.
    pub(super) fn finish(self, record: &RestoreRecord<'_>) -> Result<Committed, StorageError> {
        let is_foreign = !is_own_family(record.configuration.database.family);
        let placed = self.new.placed().to_vec();
        let paths = placed.iter().map(|placed| placed.path.as_path());
        let configuration = new_configuration(record, &self.name, self.new.id(), is_foreign, paths);
        let new = NewDatabase {
            id: self.new.id(),
            name: &self.name,
            is_foreign,
            generation: u64::from_le_bytes(random()?) >> 1,
            configuration: &configuration,
            files: &placed,
        };
        let leftover = self.new.commit(&new, Some(record))?;
        Ok(Committed { replaced: self.replaced, leftover })
    }
}

/// The header values of a database that was restored, by its name, its number, and the paths of its files.
pub(super) fn new_configuration<'a>(
    record: &RestoreRecord<'_>,
    name: &str,
    id: u32,
    is_foreign: bool,
    paths: impl Iterator<Item = &'a Path>,
) -> Config {
    let mut configuration = record.configuration.clone();
    let database = &mut configuration.database;
    database.name = Text::from(name);
    database.database_id = u16::try_from(id).unwrap_or(u16::MAX);
    let copy_only = record.start.attributes & vdi_mtf::set::attributes::COPY != 0;
    if !is_foreign && database.kind() == BackupKind::Full && !copy_only {
        database.full_backup_lsn = database.first_lsn;
        database.full_backup_set = record.start.id;
    }
    for (file, path) in configuration.files.iter_mut().zip(paths) {
        file.physical_name = Text::from(path.to_string_lossy().as_ref());
    }
    configuration
}

/// RESTORE without REPLACE over a database: it is the same one, and its log is not needed.
pub(super) fn check_replaceable(existing: &DatabaseRow, backup: &Config) -> Result<(), StorageError> {
    let (family, other) = (existing.configuration.database.family, backup.database.family);
    if family != other {
        return Err(StorageError::OtherDatabase {
            name: existing.name.clone(),
            existing: family.to_string(),
            backup: other.to_string(),
        });
    }
    match existing.recovery_model {
        RecoveryModel::Simple => Ok(()),
        _ if existing.state == DatabaseState::Restoring => Ok(()),
        _ => Err(StorageError::TailNotSaved { name: existing.name.clone() }),
    }
}

/// The places and lengths of the files in a backup.
pub(super) fn wanted(
    folder: &DataFolder,
    request: &RestoreRequest<'_>,
    existing: Option<&DatabaseRow>,
) -> Result<Vec<Wanted>, StorageError> {
    let configuration = request.configuration;
    let same = |one: &str, other: &str| one.to_lowercase() == other.to_lowercase();
    let names: Vec<String> = configuration.files.iter().map(|file| file.logical_name.to_string()).collect();
    for (logical_name, _) in request.moves {
        if !names.iter().any(|name| same(name, logical_name)) {
            let database = configuration.database.name.to_string();
            return Err(StorageError::UnknownLogicalName { logical_name: logical_name.clone(), database });
        }
    }
    check_list(&configuration.files)?;
    let mut wanted = Vec::with_capacity(names.len());
    for (file, name) in configuration.files.iter().zip(&names) {
        let path = match request.moves.iter().rfind(|(logical_name, _)| same(name, logical_name)) {
            Some((_, path)) => given(folder, path)?,
            None => {
                let is_own = |path: &std::path::Path| {
                    existing.is_some_and(|existing| existing.files.iter().any(|file| file.path == path))
                };
                recorded(folder, &file.physical_name.to_string(), is_own)?
            }
        };
        wanted.push(Wanted { path, size: file.size });
    }
    Ok(wanted)
}

/// The files can be those of a database: data files and one log file, ids once, lengths that a file can have.
fn check_list(files: &[FileRecord]) -> Result<(), StorageError> {
    let mut ids = std::collections::BTreeSet::new();
    for file in files {
        let invalid =
            |reason: String| Err(StorageError::InvalidFile { logical_name: file.logical_name.to_string(), reason });
        if let FileType::Other(number) = file.file_type() {
            return invalid(format!("its type is {number}, and only data (1) and log (2) are supported"));
        }
        if !ids.insert(file.file_id) {
            return invalid(format!("there is another file {}", file.file_id));
        }
        let most = match file.file_type() {
            FileType::Data => u64::from(u32::MAX) * PAGE_LEN as u64,
            _ => log_file::MAX_SIZE,
        };
        let least = PAGE_LEN as u64;
        if !(least..=most).contains(&file.size) {
            return invalid(format!("its size is {} bytes, expected {least} to {most}", file.size));
        }
    }
    let of_type = |file_type| files.iter().filter(move |file| file.file_type() == file_type);
    let reason = match (of_type(FileType::Data).count(), of_type(FileType::Log).count()) {
        (0, _) | (_, 0) => "a database has a data file and a log file",
        (_, 1) => return Ok(()),
        // Where the log goes on from one file to the other is not known.
        _ => "the database has several log files, and only one is supported",
    };
    let logical_name =
        of_type(FileType::Log).next_back().map_or_else(String::new, |file| file.logical_name.to_string());
    Err(StorageError::InvalidFile { logical_name, reason: reason.to_owned() })
}

/// The lists of files at start and end of a backup are those of one database.
fn check_same_files(leading: &Config, trailing: &Config) -> Result<(), StorageError> {
    let differ = |what| Err(StorageError::ListsDiffer { what });
    if leading.database.family != trailing.database.family {
        return differ(format!("family {}, then {}", leading.database.family, trailing.database.family));
    }
    let keys = |config: &Config| -> Vec<_> {
        config.files.iter().map(|file| (file.file_id, file.type_number, file.size)).collect()
    };
    let (one, other) = (keys(leading), keys(trailing));
    match one.iter().zip(&other).find(|(one, other)| one != other) {
        Some((one, other)) => differ(format!("file, type and size {one:?}, then {other:?}")),
        None if one.len() != other.len() => differ(format!("{} files, then {}", one.len(), other.len())),
        None => Ok(()),
    }
}
