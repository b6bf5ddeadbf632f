//! Ends what a statement began: gives files of a database their names, and removes files that belong to none.
//!
//! Called under the statement lock of the database: by the statement itself after its transaction, or after its process died by the next
//! statement on the database, and by [`DataFolder::open`](super::DataFolder::open).

use std::collections::BTreeSet;
use std::fs::File;
use std::io::ErrorKind;
use std::path::Path;

use rustix::fs::{CWD, RenameFlags};
use rustix::io::Errno;

use super::StorageError;
use super::error::failed;
use crate::catalog::{Catalog, Rename};

/// Gives the files of a database their names. Nothing happens to files that have them. Each is tried; the error is the first one.
pub(super) fn finish_renames(catalog: &Catalog, name: &str) -> Result<(), StorageError> {
    let renames = catalog.renames(name)?;
    if renames.is_empty() {
        return Ok(());
    }
    let (mut done, mut first_error) = (Vec::with_capacity(renames.len()), None);
    for rename in renames {
        match rename_file(name, &rename) {
            Ok(()) => done.push(rename.path),
            Err(error) => _ = first_error.get_or_insert(error),
        }
    }
    sync_folders(done.iter().map(std::path::PathBuf::as_path))?;
    catalog.end_renames_of(name, &done)?;
    first_error.map_or(Ok(()), Err)
}

pub(super) fn rename_file(name: &str, rename: &Rename) -> Result<(), StorageError> {
    let (built, path) = (&rename.built, &rename.path);
    let renamed = match rename.replaces {
        true => rustix::fs::rename(built, path),
        // A file that came since the statement looked is kept.
        false => match rustix::fs::renameat_with(CWD, built, CWD, path, RenameFlags::NOREPLACE) {
            // The file system does not know the flag.
            Err(Errno::INVAL | Errno::NOSYS) if !exists(path)? => rustix::fs::rename(built, path),
            Err(Errno::INVAL | Errno::NOSYS) => Err(Errno::EXIST),
            renamed => renamed,
        },
    };
    match renamed {
        Ok(()) => Ok(()),
        // It has its name already: the process died before the catalog knew.
        Err(Errno::NOENT) if exists(path)? => Ok(()),
        Err(Errno::NOENT) => {
            Err(StorageError::FileMissing { name: name.to_owned(), path: path.clone(), found: "missing" })
        }
        Err(Errno::EXIST) => Err(StorageError::FileExists { path: path.clone() }),
        Err(error) => Err(StorageError::io("give its name to", path, error)),
    }
}

/// Removes pending files of a database. What cannot be removed stays pending: the next statement tries again.
pub(super) fn remove_pending(catalog: &Catalog, name: &str) -> Result<(), StorageError> {
    let (mut gone, mut first_error) = (Vec::new(), None);
    for path in catalog.take_pending(name)? {
        match std::fs::remove_file(&path) {
            Err(error) if error.kind() != ErrorKind::NotFound => {
                first_error.get_or_insert(StorageError::io("remove", path, error));
            }
            _ => gone.push(path),
        }
    }
    if !gone.is_empty() {
        sync_folders(gone.iter().map(std::path::PathBuf::as_path))?;
        catalog.end_pending(&gone)?;
    }
    first_error.map_or(Ok(()), Err)
}

/// Makes the names of files durable.
pub(super) fn sync_folders<'a>(paths: impl Iterator<Item = &'a Path>) -> Result<(), StorageError> {
    let folders: BTreeSet<&Path> = paths.filter_map(Path::parent).collect();
    for folder in folders {
        match File::open(folder).and_then(|folder| folder.sync_all()) {
            // A folder that is gone has no names.
            Err(error) if error.kind() != ErrorKind::NotFound => {
                return Err(StorageError::io("make durable", folder, error));
            }
            _ => {}
        }
    }
    Ok(())
}

/// Whether there is something at the path, be it a link to nowhere.
pub(super) fn exists(path: &Path) -> Result<bool, StorageError> {
    match std::fs::symlink_metadata(path) {
        Ok(_) => Ok(true),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(false),
        Err(error) => Err(failed("examine", path)(error)),
    }
}
