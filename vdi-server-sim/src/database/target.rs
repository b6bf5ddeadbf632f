//! Building a database from a backup, all or nothing.

use std::collections::BTreeSet;
use std::fs::File;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, CWD, Mode, OFlags, RenameFlags};
use rustix::io::Errno;

use super::owner::Owners;
use super::staging::{Staging, remove_stale, remove_tree};
use super::{DataFolder, DatabaseError, DatabaseFile, FOLDER_FLAGS, check_files, check_name};

/// A database under construction.
///
/// Its files have no names until [`commit`](Self::commit) (`O_TMPFILE`), so they vanish with the process, however that ends. On
/// file systems without such files they are in a hidden staging folder next to the databases, which is removed
/// when the target is dropped, or by the next restore after the process was killed.
///
/// A failure at any moment leaves the database of the same name as it was: `commit` makes the new files durable, gathers
/// them in a staging folder, and exchanges that with the database in one step of the file system.
///
/// All methods but `commit` take `&self`: several threads may write at once.
///
/// Each file stays open until the end, so the limit of open files (`ulimit -n`) bounds the number of files. Two targets
/// of one database at the same time do not disturb each other; the one that commits last wins, or, without `replace`, fails. So a
/// RESTORE locks its database before: see [`DataFolder::lock`].
#[derive(Debug)]
pub struct RestoreTarget {
    folder_path: PathBuf,
    folder: OwnedFd,
    name: String,
    replace: bool,
    specs: Vec<DatabaseFile>,
    empty_folders: Vec<String>,
    files: Vec<File>,
    /// The staging folder, from the start where the files must have names.
    staging: Option<Staging>,
    #[cfg(test)]
    pub(super) stop: Option<(Step, Stop)>,
}

/// How a test ends a commit early.
#[cfg(test)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Stop {
    /// As if a call of the system had failed.
    Fail,
    /// As if the process had been killed: nothing is cleaned up, only the system lets go of files and locks.
    Die,
}

/// What [`RestoreTarget::commit`] has done.
#[derive(Debug)]
pub struct Committed {
    /// Whether there was a database of this name, which is gone now.
    pub replaced: bool,
    /// The new database is complete and durable, but this went wrong while the old one was being removed. What is left of it
    /// is hidden, and the next restore tries again.
    pub leftover: Option<DatabaseError>,
}

/// The steps of a commit, each of which can fail or be the last one before the process dies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Step {
    SyncFiles,
    MakeStaging,
    NameFiles,
    SyncStaging,
    Exchange,
    RemoveOld,
}

/// Where files live before the commit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Placement {
    /// Without a name, if the file system can do that.
    Unnamed,
    /// In the staging folder.
    Named,
}

impl RestoreTarget {
    /// Prepares the files of a new database `name` in `folder`: each has its final length and reads as zeros. Before that,
    /// leftovers of restores that were killed are removed.
    ///
    /// # Errors
    /// [`DatabaseError::InvalidName`]; [`DatabaseError::Exists`] if there is such a database and `replace` is false;
    /// [`DatabaseError::NotADatabase`] if something else has that name; [`DatabaseError::Empty`], [`DatabaseError::InvalidPath`] or
    /// [`DatabaseError::InvalidSize`] if the list of files cannot be a database; [`DatabaseError::Io`].
    pub fn create(
        folder: &DataFolder,
        name: &str,
        files: &[DatabaseFile],
        replace: bool,
    ) -> Result<Self, DatabaseError> {
        // Giving an unnamed file its name goes through /proc, which is missing in some containers.
        let proc = Path::new("/proc/self/fd").is_dir();
        let placement = if proc { Placement::Unnamed } else { Placement::Named };
        Self::create_at(folder, name, files, replace, placement)
    }

    pub(super) fn create_at(
        folder: &DataFolder,
        name: &str,
        files: &[DatabaseFile],
        replace: bool,
        placement: Placement,
    ) -> Result<Self, DatabaseError> {
        check_name(name)?;
        check_files(&folder.database_path(name), files, &[])?;
        if folder.contains(name)? && !replace {
            return Err(DatabaseError::Exists { name: name.to_owned(), path: folder.database_path(name) });
        }
        remove_stale(folder)?;
        let handle = rustix::fs::openat(&folder.handle, ".", FOLDER_FLAGS, Mode::empty())
            .map_err(|source| DatabaseError::io("open the data folder", &folder.path, source))?;
        let mut target = Self {
            folder_path: folder.path.clone(),
            folder: handle,
            name: name.to_owned(),
            replace,
            specs: files.to_vec(),
            empty_folders: Vec::new(),
            files: Vec::with_capacity(files.len()),
            staging: None,
            #[cfg(test)]
            stop: None,
        };
        target.open_files(folder, placement == Placement::Unnamed)?;
        for (spec, file) in target.specs.iter().zip(&target.files) {
            file.set_len(spec.size)
                .map_err(|source| DatabaseError::io("set the length of", target.path_of(spec), source))?;
        }
        Ok(target)
    }

    fn open_files(&mut self, folder: &DataFolder, mut unnamed: bool) -> Result<(), DatabaseError> {
        let mut made = BTreeSet::new();
        for spec in &self.specs {
            if unnamed {
                match rustix::fs::openat(
                    &self.folder,
                    ".",
                    OFlags::RDWR | OFlags::TMPFILE | OFlags::CLOEXEC,
                    Mode::from_raw_mode(0o600),
                ) {
                    Ok(file) => {
                        self.files.push(File::from(file));
                        continue;
                    }
                    // Not known to this file system, or (ISDIR, NOENT) to this kernel.
                    Err(Errno::OPNOTSUPP | Errno::ISDIR | Errno::INVAL | Errno::NOENT) if self.files.is_empty() => {
                        unnamed = false;
                    }
                    Err(source) => return Err(DatabaseError::io("make a file for", self.path_of(spec), source)),
                }
            }
            if self.staging.is_none() {
                self.staging = Some(Staging::create(folder, &self.name)?);
            }
            let Some(staging) = &self.staging else { continue };
            make_parents(staging, &spec.path, &mut made)?;
            let file = rustix::fs::openat(
                &staging.handle,
                &spec.path,
                OFlags::RDWR | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC,
                Mode::from_raw_mode(0o600),
            )
            .map_err(|source| DatabaseError::io("make", staging.path.join(&spec.path), source))?;
            self.files.push(File::from(file));
        }
        Ok(())
    }

    /// The same target, whose database has these folders besides, which hold nothing.
    ///
    /// # Errors
    /// [`DatabaseError::InvalidPath`] if one cannot be in this database.
    pub fn with_empty_folders(mut self, empty_folders: &[String]) -> Result<Self, DatabaseError> {
        check_files(&self.folder_path.join(&self.name), &self.specs, empty_folders)?;
        self.empty_folders = empty_folders.to_vec();
        Ok(self)
    }

    /// The database's name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The files, in the order in which they were given.
    #[must_use]
    pub fn files(&self) -> &[DatabaseFile] {
        &self.specs
    }

    /// Writes `data` into the file at place `index` of [`files`](Self::files), from byte `offset` on.
    ///
    /// # Errors
    /// [`DatabaseError::NoSuchFile`] and [`DatabaseError::BeyondEnd`]: nothing was written. [`DatabaseError::Io`] names the file and
    /// the offset; part of the data may have been written. A full disk is one of these, see [`DatabaseError::is_disk_full`].
    pub fn write_at(&self, index: usize, offset: u64, data: &[u8]) -> Result<(), DatabaseError> {
        let (Some(spec), Some(file)) = (self.specs.get(index), self.files.get(index)) else {
            return Err(DatabaseError::NoSuchFile { index, count: self.specs.len() });
        };
        let end = u64::try_from(data.len()).ok().and_then(|length| offset.checked_add(length));
        if end.is_none_or(|end| end > spec.size) {
            return Err(DatabaseError::BeyondEnd {
                path: spec.path.clone(),
                offset,
                length: data.len(),
                size: spec.size,
            });
        }
        file.write_all_at(data, offset).map_err(|source| DatabaseError::Io {
            action: "write to",
            path: self.path_of(spec),
            offset: Some(offset),
            source,
        })
    }

    /// Makes the new database durable and puts it in the place of its name. It is either there completely or not at all; the
    /// folder keeps the permissions of the one that it replaces. Files and folders get the owner of what they replace, else of the
    /// database's folder, and in a new database of the data folder, where this process may give files away.
    ///
    /// # Errors
    /// [`DatabaseError::Exists`]: a database of this name has appeared in the meantime, and `replace` is false.
    /// [`DatabaseError::CannotExchange`]: the file system cannot replace a folder by another in one step.
    /// [`DatabaseError::Io`]: the system refused a call. After each of these everything is as it was before.
    /// [`DatabaseError::NotDurable`]: the new database is in its place, which a crash might undo, and could not be taken back; the
    /// old one is kept beside it.
    pub fn commit(mut self) -> Result<Committed, DatabaseError> {
        self.reach(Step::SyncFiles)?;
        let owners = self.owners()?;
        for (spec, file) in self.specs.iter().zip(&self.files) {
            let path = || self.path_of(spec);
            owners.give(file, &spec.path).map_err(|source| DatabaseError::io("set the owner of", path(), source))?;
            rustix::fs::fchmod(file, Mode::from_raw_mode(spec.mode & super::PERMISSIONS))
                .map_err(|source| DatabaseError::io("set the permissions of", path(), source))?;
            file.sync_all().map_err(|source| DatabaseError::io("make durable", path(), source))?;
        }
        self.reach(Step::MakeStaging)?;
        let folders = self.name_files()?;
        self.reach(Step::SyncStaging)?;
        self.sync_staging(&folders)?;
        self.reach(Step::Exchange)?;
        let replaced = self.exchange()?;
        let Some(staging) = self.staging.take() else {
            return Ok(Committed { replaced, leftover: None });
        };
        let old = staging.path.clone();
        staging.release();
        self.reach(Step::RemoveOld)?;
        let leftover = match remove_tree(&old) {
            Err(source) if replaced => Some(DatabaseError::io("remove the old database", old, source)),
            _ => None,
        };
        Ok(Committed { replaced, leftover })
    }

    /// Gathers the files in the staging folder, and makes the empty folders. Gives all subfolders.
    fn name_files(&mut self) -> Result<BTreeSet<String>, DatabaseError> {
        let mut folders = BTreeSet::new();
        let named = self.staging.is_some();
        if named {
            folders.extend(self.specs.iter().flat_map(|spec| parents(&spec.path)).map(str::to_owned));
        } else {
            self.staging = Some(Staging::create(&self.data_folder()?, &self.name)?);
        }
        self.reach(Step::NameFiles)?;
        let Some(staging) = &self.staging else { return Ok(folders) };
        for folder in &self.empty_folders {
            make_parents(staging, &format!("{folder}/"), &mut folders)?;
        }
        if named {
            return Ok(folders);
        }
        for (spec, file) in self.specs.iter().zip(&self.files) {
            make_parents(staging, &spec.path, &mut folders)?;
            let source = format!("/proc/self/fd/{}", file.as_raw_fd());
            rustix::fs::linkat(CWD, source, &staging.handle, &spec.path, AtFlags::SYMLINK_FOLLOW)
                .map_err(|source| DatabaseError::io("name the file", staging.path.join(&spec.path), source))?;
        }
        Ok(folders)
    }

    /// Gives the staging folder and its subfolders to their owner, and makes them durable, which are the names of the files.
    fn sync_staging(&self, folders: &BTreeSet<String>) -> Result<(), DatabaseError> {
        let Some(staging) = &self.staging else { return Ok(()) };
        let owners = self.owners()?;
        for folder in folders.iter().map(String::as_str).chain(["."]) {
            rustix::fs::openat(&staging.handle, folder, FOLDER_FLAGS | OFlags::NOFOLLOW, Mode::empty())
                .and_then(|handle| {
                    owners.give(&handle, folder)?;
                    rustix::fs::fsync(handle)
                })
                .map_err(|source| DatabaseError::io("make durable", staging.path.join(folder), source))?;
        }
        Ok(())
    }

    fn owners(&self) -> Result<Owners<'_>, DatabaseError> {
        Owners::of(&self.folder, &self.name)
            .map_err(|source| DatabaseError::io("find the owner of", self.folder_path.join(&self.name), source))
    }

    /// Puts the staging folder in the database's place, and what was there in the place of the staging folder. Says whether
    /// there was something.
    fn exchange(&mut self) -> Result<bool, DatabaseError> {
        let Some(staging) = &self.staging else { return Ok(false) };
        let path = self.folder_path.join(&self.name);
        let failed = |source| DatabaseError::io("put the restored database at", &path, source);
        let rename = |flags| rustix::fs::renameat_with(&self.folder, &staging.name, &self.folder, &self.name, flags);
        // Somebody may remove or make a database of this name between the two calls; then it is the other call's turn.
        for _ in 0..16 {
            let replaced = match rename(RenameFlags::NOREPLACE) {
                Ok(()) => false,
                // Without such a flag, rename still refuses to replace a folder that is not empty.
                Err(Errno::INVAL | Errno::NOSYS) => {
                    match rustix::fs::renameat(&self.folder, &staging.name, &self.folder, &self.name) {
                        Ok(()) => false,
                        Err(source @ (Errno::EXIST | Errno::NOTEMPTY | Errno::NOTDIR)) => {
                            self.replaceable()?;
                            return Err(DatabaseError::CannotExchange { path, source: source.into() });
                        }
                        Err(source) => return Err(failed(source)),
                    }
                }
                Err(Errno::EXIST | Errno::NOTEMPTY) => {
                    self.replaceable()?;
                    match rename(RenameFlags::EXCHANGE) {
                        Ok(()) => true,
                        Err(Errno::NOENT) => continue,
                        Err(source @ (Errno::INVAL | Errno::NOSYS)) => {
                            return Err(DatabaseError::CannotExchange { path, source: source.into() });
                        }
                        Err(source) => return Err(failed(source)),
                    }
                }
                Err(source) => return Err(failed(source)),
            };
            return match rustix::fs::fsync(&self.folder) {
                Ok(()) => Ok(replaced),
                Err(source) => {
                    // Not known to be durable: back to where it was, as far as that goes.
                    let back = if replaced {
                        rename(RenameFlags::EXCHANGE)
                    } else {
                        rustix::fs::renameat(&self.folder, &self.name, &self.folder, &staging.name)
                    };
                    if back.is_ok() {
                        return Err(DatabaseError::io("make durable", &self.folder_path, source));
                    }
                    // A crash might bring the old database back to its name: what is there then has to be whole.
                    let old = replaced.then(|| staging.path.clone());
                    self.staging.take().into_iter().for_each(Staging::release);
                    Err(DatabaseError::NotDurable { path, old, source: source.into() })
                }
            };
        }
        Err(failed(Errno::BUSY))
    }

    /// What stands at the database's name may be replaced: it is a folder and the statement allows it. The new folder gets its
    /// permissions.
    fn replaceable(&self) -> Result<(), DatabaseError> {
        let path = self.folder_path.join(&self.name);
        if !self.replace {
            return Err(DatabaseError::Exists { name: self.name.clone(), path });
        }
        let failed = |source| DatabaseError::io("take over the permissions of", &path, source);
        let stat = match rustix::fs::statat(&self.folder, &self.name, AtFlags::SYMLINK_NOFOLLOW) {
            Err(Errno::NOENT) => return Ok(()),
            stat => stat.map_err(failed)?,
        };
        let kind = rustix::fs::FileType::from_raw_mode(stat.st_mode);
        if kind != rustix::fs::FileType::Directory {
            return Err(DatabaseError::NotADatabase { path, kind: super::kind_of(kind) });
        }
        if let Some(staging) = &self.staging {
            let mode = Mode::from_raw_mode(stat.st_mode & super::PERMISSIONS);
            rustix::fs::fchmod(&staging.handle, mode).map_err(failed)?;
        }
        Ok(())
    }

    fn data_folder(&self) -> Result<DataFolder, DatabaseError> {
        let handle = rustix::fs::openat(&self.folder, ".", FOLDER_FLAGS, Mode::empty())
            .map_err(|source| DatabaseError::io("open the data folder", &self.folder_path, source))?;
        Ok(DataFolder { path: self.folder_path.clone(), handle })
    }

    /// Where the file will be.
    fn path_of(&self, spec: &DatabaseFile) -> PathBuf {
        self.folder_path.join(&self.name).join(&spec.path)
    }

    /// Where a test may end the commit.
    #[cfg(test)]
    fn reach(&mut self, step: Step) -> Result<(), DatabaseError> {
        match self.stop {
            Some((at, stop)) if at == step => {
                if let (Stop::Die, Some(staging)) = (stop, &mut self.staging) {
                    staging.abandon();
                }
                Err(DatabaseError::io("pass the test's stop in", &self.folder_path, Errno::IO))
            }
            _ => Ok(()),
        }
    }

    #[cfg(not(test))]
    fn reach(&mut self, _step: Step) -> Result<(), DatabaseError> {
        Ok(())
    }
}

/// The folders of a relative path, from the outermost on: `a`, `a/b` for `a/b/c`.
fn parents(path: &str) -> impl Iterator<Item = &str> {
    path.match_indices('/').map(|(at, _)| &path[..at])
}

/// Makes the folders that a file needs and that are not yet in `made`.
fn make_parents(staging: &Staging, path: &str, made: &mut BTreeSet<String>) -> Result<(), DatabaseError> {
    for folder in parents(path) {
        if !made.contains(folder) {
            rustix::fs::mkdirat(&staging.handle, folder, Mode::from_raw_mode(0o777))
                .map_err(|source| DatabaseError::io("make the folder", staging.path.join(folder), source))?;
            made.insert(folder.to_owned());
        }
    }
    Ok(())
}
