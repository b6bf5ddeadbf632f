//! Files of a database that is being made or restored, all or nothing.
//!
//! | step | catalog | files |
//! |---|---|---|
//! | [`NewFiles::create`] | the new names are pending | `Sales.mdf.new-0123456789abcdef` are made, with their lengths |
//! | [`NewFiles::commit`] | | owners, `fsync` of files and folders |
//! | | one transaction: the database has the new files; those of the old one are pending | |
//! | | | each file is renamed to its place, over the old one; `fsync` of the folders |
//! | | the files have their names | |
//! | | | old files under other names are removed |
//!
//! A process that dies before the transaction leaves pending files, which are removed; one that dies after it leaves renames to be
//! done. See [`settle`](super::settle).

use std::collections::BTreeSet;
use std::fs::{File, OpenOptions};
use std::path::{Path, PathBuf};

use rustix::rand::{GetRandomFlags, getrandom};

use super::error::failed;
use super::{DataFolder, DatabaseLock, StorageError, owner, settle};
use crate::catalog::{NewDatabase, PlacedFile, RestoreRecord};

/// Between a file's name and 16 hexadecimal digits while it has no place.
const MARK: &str = ".new-";

/// The longest name of a file, without mark and digits.
const MAX_PREFIX: usize = 255 - MARK.len() - 16;

/// A file that is wanted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Wanted {
    pub(super) path: PathBuf,
    pub(super) size: u64,
}

/// Files under construction. Dropping them removes them.
#[derive(Debug)]
pub(super) struct NewFiles {
    folder: DataFolder,
    lock: DatabaseLock,
    id: u32,
    placed: Vec<PlacedFile>,
    files: Vec<File>,
    is_done: bool,
    /// The transaction has begun: after an error it may have taken place.
    has_begun: bool,
    #[cfg(test)]
    pub(super) stop: Option<Stop>,
}

/// Where a test ends a statement as if its process had been killed: nothing is cleaned up, the system lets go of locks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Stop {
    BeforeSync,
    BeforeTransaction,
    BeforeRename,
    /// After so many files have their names.
    Renamed(usize),
    BeforeEndRenames,
    BeforeRemove,
}

impl NewFiles {
    /// Makes the files: each has its length and reads as zeros. `lock` is that of the database. `existing`: the number
    /// of the database whose files may be replaced.
    pub(super) fn create(
        folder: &DataFolder,
        lock: DatabaseLock,
        wanted: &[Wanted],
        existing: Option<u32>,
    ) -> Result<NewFiles, StorageError> {
        let placed = place(folder, lock.name(), wanted, existing.is_some())?;
        let built: Vec<PathBuf> = placed.iter().map(|placed| placed.built.clone()).collect();
        let id = folder.catalog().begin_files(lock.name(), existing, &built)?;
        let mut new = NewFiles {
            folder: folder.clone(),
            lock,
            id,
            placed,
            files: Vec::with_capacity(wanted.len()),
            is_done: false,
            has_begun: false,
            #[cfg(test)]
            stop: None,
        };
        for (path, wanted) in built.iter().zip(wanted) {
            let file = OpenOptions::new().read(true).write(true).create_new(true).open(path);
            let file = file.map_err(failed("make", path))?;
            file.set_len(wanted.size).map_err(failed("set the length of", path))?;
            new.files.push(file);
        }
        Ok(new)
    }

    /// The number of the database.
    pub(super) fn id(&self) -> u32 {
        self.id
    }

    /// The files, in the order in which they were wanted.
    pub(super) fn files(&self) -> &[File] {
        &self.files
    }

    /// Where the files are to be, and where they are now.
    pub(super) fn placed(&self) -> &[PlacedFile] {
        &self.placed
    }

    /// Makes the files durable, and makes them the database `new`, whose `files` are [`placed`](Self::placed). After an error everything
    /// is as it was before. The value says what went wrong afterwards: the database is complete, the next statement ends the rest.
    pub(super) fn commit(
        mut self,
        new: &NewDatabase<'_>,
        restore: Option<&RestoreRecord<'_>>,
    ) -> Result<Option<StorageError>, StorageError> {
        self.reach(Stop::BeforeSync)?;
        for (file, placed) in self.files.iter().zip(&self.placed) {
            owner::give(file, &placed.path, self.folder.path()).map_err(failed("set the owner of", &placed.built))?;
            file.sync_all().map_err(failed("make durable", &placed.built))?;
        }
        settle::sync_folders(self.placed.iter().map(|placed| placed.built.as_path()))?;
        self.reach(Stop::BeforeTransaction)?;
        self.has_begun = true;
        self.folder.catalog().put_database(new, restore)?;
        self.is_done = true;
        Ok(self.settle().err())
    }

    fn settle(&mut self) -> Result<(), StorageError> {
        let (catalog, name) = (self.folder.catalog_handle(), self.lock.name().to_owned());
        self.reach(Stop::BeforeRename)?;
        for at in 0..self.placed.len() {
            settle::rename_file(&name, &self.placed[at])?;
            self.reach(Stop::Renamed(at + 1))?;
        }
        settle::sync_folders(self.placed.iter().map(|placed| placed.path.as_path()))?;
        self.reach(Stop::BeforeEndRenames)?;
        catalog.end_renames(&name)?;
        self.reach(Stop::BeforeRemove)?;
        match catalog.has_pending(&name)? {
            true => settle::remove_pending(&catalog, &name),
            false => Ok(()),
        }
    }

    #[cfg(test)]
    fn reach(&mut self, stop: Stop) -> Result<(), StorageError> {
        if self.stop != Some(stop) {
            return Ok(());
        }
        self.is_done = true;
        Err(StorageError::io("pass the test's stop in", self.folder.path(), std::io::Error::other("stopped")))
    }

    #[cfg(not(test))]
    fn reach(&mut self, _stop: Stop) -> Result<(), StorageError> {
        Ok(())
    }
}

impl Drop for NewFiles {
    fn drop(&mut self) {
        if !self.is_done {
            if !self.has_begun {
                // Where they have filled the disk, the catalog needs the room to forget them.
                self.files.iter().for_each(|file| _ = file.set_len(0));
            }
            // What cannot be removed stays pending.
            let _ = settle::remove_pending(self.folder.catalog(), self.lock.name());
        }
    }
}

/// Decides where files are to be. Each place is free, or that of a file of the database itself.
fn place(
    folder: &DataFolder,
    database: &str,
    wanted: &[Wanted],
    replaces: bool,
) -> Result<Vec<PlacedFile>, StorageError> {
    // Places where a file of the database could not get its name yet, because a stranger's file may be there.
    let renames = folder.catalog().renames(database)?;
    let not_there: BTreeSet<&Path> =
        renames.iter().filter(|rename| !rename.replaces).map(|rename| rename.path.as_path()).collect();
    let mut paths = BTreeSet::new();
    let mut placed = Vec::with_capacity(wanted.len());
    for Wanted { path, .. } in wanted {
        if !paths.insert(path) {
            return Err(StorageError::SamePath { path: path.clone() });
        }
        let owner = folder.catalog().owner_of(path)?;
        let of_database = replaces && owner.as_ref().is_some_and(|owner| owner.eq_ignore_ascii_case(database));
        let is_own = of_database && !not_there.contains(path.as_path());
        match owner {
            Some(_) if of_database && !is_own && settle::exists(path)? => {
                return Err(StorageError::FileExists { path: path.clone() });
            }
            Some(owner) if !of_database => return Err(StorageError::FileInUse { path: path.clone(), database: owner }),
            None if settle::exists(path)? => return Err(StorageError::FileExists { path: path.clone() }),
            _ => placed.push(PlacedFile { path: path.clone(), built: built_path(path)?, replaces: is_own }),
        }
    }
    Ok(placed)
}

/// A new name beside `path`.
fn built_path(path: &Path) -> Result<PathBuf, StorageError> {
    let name = path.file_name().and_then(|name| name.to_str()).unwrap_or("file");
    let mut end = name.len().min(MAX_PREFIX);
    while !name.is_char_boundary(end) {
        end -= 1;
    }
    Ok(path.with_file_name(format!("{}{MARK}{:016x}", &name[..end], u64::from_le_bytes(random()?))))
}

/// Random bytes.
pub(super) fn random<const N: usize>() -> Result<[u8; N], StorageError> {
    let mut bytes = [0; N];
    // Up to 256 bytes come at once.
    getrandom(&mut bytes, GetRandomFlags::empty())
        .map_err(|error| StorageError::io("read", "the random number generator", error))?;
    Ok(bytes)
}
