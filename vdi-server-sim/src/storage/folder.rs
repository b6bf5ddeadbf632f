//! The data folder: the databases of a server.

use std::path::{Path, PathBuf};

use vdi_mtf::sqlserver::config::RecoveryModel;

use super::{Database, DatabaseLock, StorageError};
use crate::catalog::Catalog;
use crate::messages::Verb;

/// The data folder of a server, with its catalog.
#[derive(Debug)]
pub struct DataFolder {
    path: PathBuf,
    catalog: Catalog,
}

/// What CREATE DATABASE asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CreateDatabase {
    /// The name.
    pub name: String,
    /// Data files; the first is the primary one. None: one file `NAME.mdf` of 8 MiB.
    pub data_files: Vec<NewFile>,
    /// The log file. None: `NAME_log.ldf` of 8 MiB.
    pub log_file: Option<NewFile>,
    /// The recovery model. SQL Server takes FULL from `model`.
    pub recovery_model: RecoveryModel,
}

/// A file of a database to be made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewFile {
    /// The logical name.
    pub logical_name: String,
    /// Where it is to be; relative to the data folder.
    pub path: PathBuf,
    /// Its length in bytes, rounded up to whole extents; at least 1 MiB.
    pub size: u64,
    /// The filegroup's name; ignored for a log file.
    pub filegroup: String,
    /// FILEGROWTH in bytes.
    pub growth: u64,
    /// MAXSIZE in bytes; `None` is UNLIMITED.
    pub max_size: Option<u64>,
}

impl DataFolder {
    /// Opens the folder `path`, which must exist. Makes a catalog if there is none, and ends what killed processes left: files
    /// of restores that did not end are removed.
    ///
    /// # Errors
    /// [`StorageError`].
    pub fn open(_path: impl AsRef<Path>) -> Result<DataFolder, StorageError> {
        todo!()
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

    /// Locks the database `name` for a statement; there need not be such a database. Does not wait.
    ///
    /// # Errors
    /// [`StorageError::InUse`], and others.
    pub fn lock(&self, _name: &str, _statement: Verb) -> Result<DatabaseLock, StorageError> {
        todo!()
    }

    /// Opens a database that is online.
    ///
    /// # Errors
    /// [`StorageError`].
    pub fn database(&self, _name: &str) -> Result<Database, StorageError> {
        todo!()
    }

    /// Makes a new, empty database.
    ///
    /// # Errors
    /// [`StorageError`].
    pub fn create_database(&self, _request: &CreateDatabase) -> Result<(), StorageError> {
        todo!()
    }

    /// Removes a database and its files.
    ///
    /// # Errors
    /// [`StorageError`].
    pub fn drop_database(&self, _name: &str) -> Result<(), StorageError> {
        todo!()
    }

    /// ALTER DATABASE SET OFFLINE or ONLINE.
    ///
    /// # Errors
    /// [`StorageError`].
    pub fn set_online(&self, _name: &str, _online: bool) -> Result<(), StorageError> {
        todo!()
    }

    /// ALTER DATABASE SET RECOVERY.
    ///
    /// # Errors
    /// [`StorageError`].
    pub fn set_recovery_model(&self, _name: &str, _model: RecoveryModel) -> Result<(), StorageError> {
        todo!()
    }
}
