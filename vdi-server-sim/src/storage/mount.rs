//! A database whose files a client puts into place: RESTORE WITH SNAPSHOT.
//!
//! The statement says where the files are to be, and looks at them when the client has put them there. Then one transaction of the
//! catalog makes them the database. Until then the catalog has the old database; whether its files are still there is the client's
//! business.

use std::fs::File;
use std::path::{Path, PathBuf};

use vdi_mtf::page::page_type;
use vdi_mtf::sqlserver::config::{Config, FileRecord, FileType};

use super::build::random;
use super::content::check_pages;
use super::create::is_own_family;
use super::database::Database;
use super::page_file::PageFile;
use super::path::check_user_database;
use super::restore::{Committed, RestoreRequest, check_replaceable, new_configuration, wanted};
use super::{DataFolder, DatabaseLock, StorageError, settle};
use crate::catalog::{FileRow, NewDatabase, PlacedFile, RestoreRecord};

/// A database that is to be made of files that a client puts into place.
#[derive(Debug)]
pub struct MountTarget {
    folder: DataFolder,
    lock: DatabaseLock,
    configuration: Config,
    /// The database of this name, and whether its files can be used.
    existing: Option<(u32, String, Option<Database>)>,
    paths: Vec<PathBuf>,
}

impl MountTarget {
    /// Decides where the files are to be, as [`RestoreTarget::create`](super::RestoreTarget::create) does. There may be files: the client
    /// replaces them.
    ///
    /// # Errors
    /// Those of [`RestoreTarget::create`](super::RestoreTarget::create), [`StorageError::FileExists`] excepted. Nothing has changed then.
    pub fn create(
        folder: &DataFolder,
        lock: DatabaseLock,
        request: &RestoreRequest<'_>,
    ) -> Result<MountTarget, StorageError> {
        check_user_database(request.name)?;
        let existing = folder.catalog().find(request.name)?;
        if let Some(existing) = existing.as_ref().filter(|_| !request.replace) {
            check_replaceable(existing, request.configuration)?;
        }
        let mut paths = Vec::new();
        for wanted in wanted(folder, request, existing.as_ref())? {
            if paths.contains(&wanted.path) {
                return Err(StorageError::SamePath { path: wanted.path });
            }
            match folder.catalog().owner_of(&wanted.path)? {
                Some(database) if !database.eq_ignore_ascii_case(request.name) => {
                    return Err(StorageError::FileInUse { path: wanted.path, database });
                }
                _ => paths.push(wanted.path),
            }
        }
        let existing = existing.map(|row| {
            // One that cannot be opened has no writers.
            let opened = folder.database(request.name).ok();
            (row.id, row.name, opened)
        });
        Ok(MountTarget { folder: folder.clone(), lock, configuration: request.configuration.clone(), existing, paths })
    }

    /// The database that is replaced, if its files can be used: to be frozen until the new one is there.
    #[must_use]
    pub fn existing(&self) -> Option<&Database> {
        self.existing.as_ref().and_then(|(_, _, database)| database.as_ref())
    }

    /// Where the files are to be, in the order of the configuration.
    #[must_use]
    pub fn paths(&self) -> &[PathBuf] {
        &self.paths
    }

    fn name(&self) -> &str {
        self.existing.as_ref().map_or(self.lock.name(), |(_, name, _)| name)
    }

    fn row(&self, record: &FileRecord, path: &Path) -> FileRow {
        FileRow {
            file_id: record.file_id,
            file_type: record.file_type(),
            filegroup: record.filegroup,
            logical_name: record.logical_name.to_string(),
            path: path.to_owned(),
            size: record.size,
        }
    }

    /// Opens the files that the client has put into place.
    ///
    /// # Errors
    /// [`StorageError::FileMissing`] or [`StorageError::FileSize`] for the first that is not there, or has another length than in the
    /// backup; [`StorageError::Io`].
    pub fn mounted(&self) -> Result<Vec<File>, StorageError> {
        let name = || self.name().to_owned();
        let open = |(record, path): (&FileRecord, &PathBuf)| {
            let missing = |found| StorageError::FileMissing { name: name(), path: path.clone(), found };
            match std::fs::symlink_metadata(path) {
                Ok(found) if !found.is_file() => return Err(missing("no regular file")),
                Ok(found) if found.len() != record.size => {
                    let (expected, found) = (record.size, found.len());
                    return Err(StorageError::FileSize { name: name(), path: path.clone(), expected, found });
                }
                Ok(_) => {}
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Err(missing("missing")),
                Err(error) => return Err(StorageError::io("examine", path, error)),
            }
            File::options().read(true).write(true).open(path).map_err(|error| StorageError::io("open", path, error))
        };
        self.configuration.files.iter().zip(&self.paths).map(open).collect()
    }

    /// Checks the allocated pages of the data files `files`, those of [`mounted`](Self::mounted): their places and checksums.
    ///
    /// # Errors
    /// [`StorageError::DamagedPage`] and its like for the first page that is damaged.
    pub fn check(&self, files: &[File]) -> Result<(), StorageError> {
        for ((record, path), file) in self.configuration.files.iter().zip(&self.paths).zip(files) {
            if record.file_type() == FileType::Data {
                let row = self.row(record, path);
                let pages = PageFile::new(&row, file);
                pages.read_fixed(0, page_type::FILE_HEADER)?;
                check_pages(pages, |_, _, _| Ok(()))?;
            }
        }
        Ok(())
    }

    /// Makes the files durable, and makes them the database, in one transaction with the restore history.
    ///
    /// # Errors
    /// [`StorageError`]. Then the catalog is as it was before.
    pub fn adopt(&self, files: &[File], record: &RestoreRecord<'_>) -> Result<Committed, StorageError> {
        for (file, path) in files.iter().zip(&self.paths) {
            file.sync_all().map_err(|error| StorageError::io("make durable", path, error))?;
        }
        settle::sync_folders(self.paths.iter().map(PathBuf::as_path))?;
        let catalog = self.folder.catalog();
        let id = match &self.existing {
            Some((id, ..)) => *id,
            None => catalog.begin_files(self.lock.name(), None, &[])?,
        };
        let is_foreign = !is_own_family(record.configuration.database.family);
        let configuration =
            new_configuration(record, self.name(), id, is_foreign, self.paths.iter().map(PathBuf::as_path));
        // Each has its name already. That it may replace itself makes the renames of a process that dies here harmless.
        let placed = |path: &PathBuf| PlacedFile { path: path.clone(), built: path.clone(), replaces: true };
        let new = NewDatabase {
            id,
            name: self.name(),
            is_foreign,
            generation: u64::from_le_bytes(random()?) >> 1,
            configuration: &configuration,
            files: &self.paths.iter().map(placed).collect::<Vec<_>>(),
        };
        catalog.put_database(&new, Some(record))?;
        let settled = catalog.end_renames(self.lock.name()).map_err(StorageError::from);
        let leftover = settled.and_then(|()| settle::remove_pending(catalog, self.lock.name())).err();
        Ok(Committed { replaced: self.existing.is_some(), leftover })
    }
}
