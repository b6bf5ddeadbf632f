//! Databases, their files, and files that belong to none yet.

use std::path::{Path, PathBuf};

use super::{Catalog, CatalogError, DatabaseRow};

impl Catalog {
    /// Opens the catalog of a data folder, and makes it if there is none.
    ///
    /// # Errors
    /// [`CatalogError`].
    pub fn open(_folder: &Path) -> Result<Catalog, CatalogError> {
        todo!()
    }

    /// All databases, by their numbers.
    ///
    /// # Errors
    /// [`CatalogError`].
    pub fn databases(&self) -> Result<Vec<DatabaseRow>, CatalogError> {
        todo!()
    }

    /// The database of this name.
    ///
    /// # Errors
    /// [`CatalogError`].
    pub fn find(&self, _name: &str) -> Result<Option<DatabaseRow>, CatalogError> {
        todo!()
    }

    /// Files that a statement on the database is about to make. See [`Catalog`].
    ///
    /// # Errors
    /// [`CatalogError`].
    pub(crate) fn add_pending(&self, _database: &str, _paths: &[PathBuf]) -> Result<(), CatalogError> {
        todo!()
    }
}
