//! The data folder: the databases of a server.

use std::fs::OpenOptions;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use vdi_mtf::sqlserver::config::RecoveryModel;

use super::error::failed;
use super::lock::{Holder, LockFile};
use super::path::{check_name, check_user_database};
use super::{Database, DatabaseLock, StorageError, lock, owner, settle};
use crate::catalog::{self, Catalog, DatabaseRow, DatabaseState};
use crate::messages::Verb;

/// How long a reader waits for a restore that has made its database, until all files have their names. This takes a few calls.
const RENAME_TIMEOUT: Duration = Duration::from_secs(10);

/// How long DROP DATABASE and SET OFFLINE wait for writers that have begun. Each has the right to write for a few pages only.
const WRITER_TIMEOUT: Duration = Duration::from_secs(10);

/// The data folder of a server, with its catalog. Clones share the catalog's connection.
#[derive(Debug, Clone)]
pub struct DataFolder {
    path: PathBuf,
    catalog: Arc<Catalog>,
}

impl DataFolder {
    /// Opens the folder `path`, which must exist. Makes a catalog if there is none, and ends what killed processes left: files
    /// of statements that did not end are removed, files of databases that were restored get their names.
    ///
    /// # Errors
    /// [`StorageError`].
    pub fn open(path: impl AsRef<Path>) -> Result<DataFolder, StorageError> {
        let path = path.as_ref();
        // Absolute, so that a later change of the working directory changes nothing.
        let path = path.canonicalize().map_err(failed("open the data folder", path))?;
        for name in [lock::FILE_NAME, catalog::FILE_NAME] {
            make_file(&path, name)?;
        }
        let catalog = Arc::new(Catalog::open(&path)?);
        let folder = DataFolder { path, catalog };
        folder.clean_up()?;
        Ok(folder)
    }

    /// The folder's absolute path.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The catalog.
    #[must_use]
    pub fn catalog(&self) -> &Catalog {
        &self.catalog
    }

    /// The catalog, for longer than this value lives.
    pub(super) fn catalog_handle(&self) -> Arc<Catalog> {
        Arc::clone(&self.catalog)
    }

    /// Locks the database `name` for a statement; there need not be such a database. Does not wait. Ends what a killed process left
    /// of a statement on it.
    ///
    /// Writers take no such lock: see [`Database::freeze`].
    ///
    /// # Errors
    /// [`StorageError::InUse`]: a statement of this process or of another holds the lock. [`StorageError::InvalidName`].
    /// [`StorageError::Io`], also on a file system without locks.
    pub fn lock(&self, name: &str, statement: Verb) -> Result<DatabaseLock, StorageError> {
        check_name(name)?;
        let lock = self.lock_file().statement(name, Holder::Statement(statement))?;
        match settle::finish_renames(&self.catalog, name) {
            // A statement that replaces or removes the database, or looks at its files, has no need of the names.
            Err(error) if statement == Verb::Backup || matches!(error, StorageError::Catalog(_)) => return Err(error),
            _ => {}
        }
        if self.catalog.has_pending(name)? {
            // Such files take room, but stop no statement.
            let _ = settle::remove_pending(&self.catalog, name);
        }
        Ok(lock)
    }

    /// Opens a database that is online. It can be used while a statement of another process holds the database's lock.
    ///
    /// # Errors
    /// [`StorageError::NotFound`], [`StorageError::NotOnline`], [`StorageError::InUse`], and those of its files.
    pub fn database(&self, name: &str) -> Result<Database, StorageError> {
        check_name(name)?;
        let deadline = Instant::now() + RENAME_TIMEOUT;
        loop {
            let row = self.online(name)?;
            if self.catalog.renames(name)?.is_empty() {
                let opened = Database::open(row.clone(), self.lock_file());
                // Files were those of the row if the row is still the same.
                let again = self.catalog.find(name)?;
                let same = again.is_some_and(|again| (again.id, again.generation) == (row.id, row.generation));
                match same && self.catalog.renames(name)?.is_empty() {
                    true => return opened,
                    false if Instant::now() < deadline => continue,
                    false => return Err(StorageError::InUse { name: row.name, holder: Verb::Restore }),
                }
            }
            // A restore is giving the files their names, or died before that.
            match self.lock_file().statement(name, Holder::CleanUp) {
                Ok(_lock) => settle::finish_renames(&self.catalog, name)?,
                Err(StorageError::InUse { .. }) if Instant::now() < deadline => {
                    std::thread::sleep(Duration::from_millis(1));
                }
                Err(error) => return Err(error),
            }
        }
    }

    /// Removes a database and its files; waits for writers that have begun. After an error of a file's removal the database is gone; the next statement on a database of
    /// this name tries again to remove its files.
    ///
    /// # Errors
    /// [`StorageError::NotFound`], [`StorageError::InUse`], [`StorageError::NotFrozen`], [`StorageError::SystemDatabase`], and others.
    pub fn drop_database(&self, name: &str) -> Result<(), StorageError> {
        check_user_database(name)?;
        let lock = self.lock(name, Verb::Restore)?;
        let row = self.existing(name)?;
        let _stopped = self.lock_file().stop_writers(name, WRITER_TIMEOUT)?;
        self.catalog.remove_database(row.id, lock.name())?;
        settle::remove_pending(&self.catalog, lock.name())
    }

    /// ALTER DATABASE SET OFFLINE or ONLINE. A database that is set online has all its files in their lengths; otherwise its state is
    /// `RECOVERY_PENDING` afterwards.
    ///
    /// # Errors
    /// [`StorageError::FileMissing`] and [`StorageError::FileSize`] for the first file that is not as it was; [`StorageError::NotFound`],
    /// [`StorageError::NotOnline`] for a database that is being restored, [`StorageError::InUse`], [`StorageError::NotFrozen`] if a
    /// writer does not end, and others.
    pub fn set_online(&self, name: &str, online: bool) -> Result<(), StorageError> {
        check_user_database(name)?;
        let _lock = self.lock(name, Verb::Restore)?;
        let row = self.existing(name)?;
        if row.state == DatabaseState::Restoring {
            return Err(StorageError::NotOnline { name: row.name, state: row.state });
        }
        let checked = if online { check_files(&row) } else { Ok(()) };
        let state = match (&checked, online) {
            (_, false) => DatabaseState::Offline,
            (Ok(()), true) => DatabaseState::Online,
            (Err(_), true) => DatabaseState::RecoveryPending,
        };
        if state != row.state {
            // Writers that have begun end before the state changes, and those that come see the new one.
            let _stopped = self.lock_file().stop_writers(name, WRITER_TIMEOUT)?;
            self.catalog.set_state(row.id, state)?;
        }
        checked
    }

    /// ALTER DATABASE SET RECOVERY.
    ///
    /// # Errors
    /// [`StorageError::NotFound`], [`StorageError::InUse`], and others.
    pub fn set_recovery_model(&self, name: &str, model: RecoveryModel) -> Result<(), StorageError> {
        check_name(name)?;
        let _lock = self.lock(name, Verb::Restore)?;
        match self.catalog.set_recovery_model(name, model)? {
            true => Ok(()),
            false => Err(StorageError::NotFound { name: name.to_owned() }),
        }
    }

    /// The database of this name.
    ///
    /// # Errors
    /// [`StorageError::NotFound`].
    pub(super) fn existing(&self, name: &str) -> Result<DatabaseRow, StorageError> {
        self.catalog.find(name)?.ok_or_else(|| StorageError::NotFound { name: name.to_owned() })
    }

    /// The database of this name, which can be used.
    fn online(&self, name: &str) -> Result<DatabaseRow, StorageError> {
        let row = self.existing(name)?;
        match row.state {
            DatabaseState::Online => Ok(row),
            state => Err(StorageError::NotOnline { name: row.name, state }),
        }
    }

    pub(super) fn lock_file(&self) -> LockFile {
        LockFile::of(&self.path)
    }

    /// Ends what killed processes left. A database whose statement still runs is left alone, and one that cannot be put right keeps
    /// no other from being used.
    fn clean_up(&self) -> Result<(), StorageError> {
        for name in self.catalog.unsettled()? {
            match self.lock_file().statement(&name, Holder::CleanUp) {
                Ok(_lock) => {
                    let _ = settle::finish_renames(&self.catalog, &name);
                    let _ = settle::remove_pending(&self.catalog, &name);
                }
                Err(StorageError::InUse { .. }) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }
}

/// The files of a database are there and have their lengths.
fn check_files(row: &DatabaseRow) -> Result<(), StorageError> {
    for file in &row.files {
        let missing = |found| Err(StorageError::FileMissing { name: row.name.clone(), path: file.path.clone(), found });
        match std::fs::symlink_metadata(&file.path) {
            Err(error) if error.kind() == ErrorKind::NotFound => return missing("missing"),
            Err(error) => return Err(failed("examine", &file.path)(error)),
            Ok(metadata) if !metadata.is_file() => return missing("no regular file"),
            Ok(metadata) if metadata.len() != file.size => {
                return Err(StorageError::FileSize {
                    name: row.name.clone(),
                    path: file.path.clone(),
                    expected: file.size,
                    found: metadata.len(),
                });
            }
            Ok(_) => {}
        }
    }
    Ok(())
}

/// Makes an empty file of the folder's owner, if there is none.
fn make_file(folder: &Path, name: &str) -> Result<(), StorageError> {
    let path = folder.join(name);
    match OpenOptions::new().write(true).create_new(true).open(&path) {
        Ok(file) => owner::give(&file, Path::new(""), folder).map_err(failed("set the owner of", &path)),
        Err(error) if error.kind() == ErrorKind::AlreadyExists => Ok(()),
        Err(error) => Err(failed("make", &path)(error)),
    }
}
