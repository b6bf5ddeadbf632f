//! A database that is open.
//!
//! # Invariants
//!
//! A database has two locks, ranges of bytes of the data folder's lock file: the *turnstile* and the *pages*.
//!
//! 1. A writer holds the pages, shared, from before the first byte to after the last. It asks for them only while it holds the turnstile
//!    (exclusive), which it lets go of as soon as it has them.
//! 2. A freezer holds both, exclusive. So no process writes while a database is frozen, and none begins to.
//! 3. Writers do not starve a freezer. It takes the turnstile first and keeps it: from then on no writer begins, and those that have begun
//!    end. No writer holds the turnstile while it writes.
//! 4. There is no circular wait: each takes the turnstile before the pages.
//! 5. The locks belong to open file descriptions that are not shared, and the system drops them when their process ends. So a freezer that
//!    is killed thaws the database, and a writer that is killed does not keep it from being frozen.
//! 6. Files are opened when the database is. After it took its lock, a writer compares them with those that have the names now, so it does
//!    not write into files that a RESTORE has replaced ([`StorageError::Replaced`]).
//!
//! Programs that write to the files without a [`DatabaseWriter`] are not stopped. [`Frozen::check_unchanged`] finds what they did.

#[cfg(test)]
mod tests;

use std::fs::File;
use std::ops::Range;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use rustix::fs::{AtFlags, CWD, FileType as Kind, Mode, OFlags, Stat};
use rustix::io::Errno;
use vdi_mtf::page::{EXTENT_PAGES, PAGE_LEN, page_type};
use vdi_mtf::sqlserver::config::{Config, FileType};
use vdi_mtf::sqlserver::log::Vlf;
use vdi_mtf::value::{FileId, Lsn, PageAddress};

use super::content::Stamp;
use super::layout::{self, PRIMARY};
use super::lock::{LockFile, LockKind, Locks};
use super::log_file::{self, LogFile};
use super::page_file::PageFile;
use super::{DataFolder, StorageError};
use crate::catalog::{Catalog, DatabaseRow, DatabaseState, FileRow};

/// A database that exists, as it was when it was opened.
#[derive(Debug)]
pub struct Database {
    row: DatabaseRow,
    /// In the order of the row.
    files: Vec<File>,
    locks: LockFile,
}

/// A database whose writers are stopped, in all processes. Dropping it thaws.
#[derive(Debug)]
pub struct Frozen<'a> {
    database: &'a Database,
    locks: Locks,
    /// Of each file, when the database was frozen or checkpointed.
    files: Mutex<Vec<FileState>>,
}

/// What tells that a file was replaced or changed. Every write and every change of the length sets the time, and no program can set
/// it to an earlier one (`st_ctime`).
#[derive(Debug, PartialEq, Eq)]
struct FileState {
    inode: (u64, u64),
    size: u64,
    changed: (i64, u64),
}

impl FileState {
    fn of(stat: &Stat) -> FileState {
        FileState {
            inode: (stat.st_dev, stat.st_ino),
            size: u64::try_from(stat.st_size).unwrap_or(0),
            changed: (stat.st_ctime, stat.st_ctime_nsec),
        }
    }
}

/// What a full backup of a frozen database has to hold.
#[derive(Debug, Clone, PartialEq)]
pub struct BackupSource {
    /// The leading configuration: names, GUIDs, log sequence numbers, files; dates, sizes and page counts are the backup's business.
    pub configuration: Config,
    /// For each data file, in the order of the configuration, its allocated extents.
    pub data: Vec<FileExtents>,
    /// The virtual log files with their ranges, in the order of a backup.
    pub log: Vec<Vlf>,
}

/// Extents of a data file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FileExtents {
    /// The file.
    pub file: FileId,
    /// Ranges of extent numbers (page number / 8), ascending, not empty, not touching.
    pub extents: Vec<Range<u32>>,
}

impl Database {
    /// Opens the files of a database that is online, and validates their lengths, the headers of all files, and the log.
    ///
    /// # Errors
    /// [`StorageError::Io`], [`StorageError::FileMissing`] or [`StorageError::FileSize`] for a file that cannot be used;
    /// [`StorageError::DamagedPage`], [`StorageError::Page`] or [`StorageError::Log`] for one that is damaged.
    pub(super) fn open(row: DatabaseRow, locks: LockFile) -> Result<Database, StorageError> {
        let files =
            row.files.iter().map(|file| open_file(&row.name, file, !row.is_foreign)).collect::<Result<_, _>>()?;
        let database = Database { row, files, locks };
        for (row, file) in database.all_files() {
            match row.file_type {
                FileType::Log if database.row.is_foreign => drop(log_file::read_headers(file, row)?),
                FileType::Log => {}
                _ => drop(PageFile::new(row, file).read_fixed(0, page_type::FILE_HEADER)?),
            }
        }
        if !database.row.is_foreign {
            database.log()?;
        }
        Ok(database)
    }

    /// What the catalog says of it.
    #[must_use]
    pub fn row(&self) -> &DatabaseRow {
        &self.row
    }

    /// A file of it, open for reading.
    #[must_use]
    pub fn file(&self, id: FileId) -> Option<&File> {
        self.row.files.iter().position(|file| file.file_id == id).and_then(|at| self.files.get(at))
    }

    fn all_files(&self) -> impl Iterator<Item = (&FileRow, &File)> {
        self.row.files.iter().zip(&self.files)
    }

    /// The data files, in the order of the configuration.
    pub(super) fn data_files(&self) -> impl Iterator<Item = (FileId, PageFile<'_>)> {
        let data = self.all_files().filter(|(row, _)| row.file_type == FileType::Data);
        data.map(|(row, file)| (row.file_id, PageFile::new(row, file)))
    }

    fn log_file(&self) -> Result<(&FileRow, &File), StorageError> {
        self.all_files()
            .find(|(row, _)| row.file_type == FileType::Log)
            .ok_or_else(|| self.damaged("it has no log file"))
    }

    fn damaged(&self, what: &str) -> StorageError {
        StorageError::Content { name: self.row.name.clone(), what: what.to_owned() }
    }

    /// The log of a database of this program. The boot page names a checkpoint that has to be in it.
    fn log(&self) -> Result<LogFile, StorageError> {
        let (row, file) = self.log_file()?;
        let log = LogFile::open(file, row, self.row.configuration.database.software_major)?;
        let (checkpoint, last) = (self.boot()?.checkpoint_lsn()?, log.last_lsn());
        if checkpoint > last {
            let what =
                format!("the boot page names a checkpoint at {checkpoint:?}, but the last log block is at {last:?}");
            return Err(StorageError::Log { path: row.path.clone(), offset: 0, what });
        }
        Ok(log)
    }

    fn boot(&self) -> Result<PageFile<'_>, StorageError> {
        let boot = self.data_files().find(|(id, _)| *id == PRIMARY);
        boot.map(|(_, file)| file).ok_or_else(|| self.damaged("it has no file 1"))
    }

    /// The virtual log files as the last backup has them, in its order.
    pub(super) fn active_log(&self) -> Result<Vec<Vlf>, StorageError> {
        if self.row.is_foreign {
            let (row, file) = self.log_file()?;
            return log_file::read_headers(file, row);
        }
        Ok(self.log()?.active())
    }

    /// Reads bytes of the log file.
    pub(super) fn read_log(&self, offset: u64, bytes: &mut [u8]) -> Result<(), StorageError> {
        let (row, file) = self.log_file()?;
        log_file::read_bytes(file, row, offset, bytes)
    }

    /// The allocated extents of all data files.
    pub(super) fn extents(&self) -> Result<Vec<FileExtents>, StorageError> {
        self.data_files().map(|(file, pages)| Ok(FileExtents { file, extents: pages.extents()? })).collect()
    }

    /// Stops all writers: waits until those that are writing have ended, and lets none begin. Gives up after `timeout`, or as soon as
    /// `stop` says so; it is asked every few milliseconds.
    ///
    /// # Errors
    /// [`StorageError::NotFrozen`] after the timeout; [`StorageError::Stopped`] if `stop` said so; [`StorageError::Replaced`] or
    /// [`StorageError::FileSize`] if the files are not those any more that were opened; [`StorageError::Io`]. Then no writer is stopped.
    pub fn freeze(&self, timeout: Duration, stop: impl Fn() -> bool) -> Result<Frozen<'_>, StorageError> {
        let locks = self.locks.stop_writers_unless(&self.row.name, timeout, stop)?;
        let frozen = Frozen { database: self, locks, files: Mutex::default() };
        self.check_places()?;
        frozen.remember()?;
        Ok(frozen)
    }

    /// Whether the open files are those that have the names now, and have their lengths.
    fn check_places(&self) -> Result<(), StorageError> {
        self.all_files().try_for_each(|(row, file)| {
            let ours = FileState::of(&stat(file, &row.path)?);
            let found = stat_path(&row.path)?;
            if ours.inode != found.inode {
                return Err(StorageError::Replaced { path: row.path.clone() });
            }
            check_size(&self.row.name, row, found.size)
        })
    }
}

impl Frozen<'_> {
    /// The database.
    #[must_use]
    pub fn database(&self) -> &Database {
        self.database
    }

    /// Writes a checkpoint into the log (not in a foreign database), and says what a backup has to hold.
    ///
    /// The checkpoint is durable when this returns. The boot page names it; that page becomes durable with the system's next write.
    ///
    /// # Errors
    /// [`StorageError::Log`], [`StorageError::DamagedPage`] or [`StorageError::Page`] for a damaged file; [`StorageError::Io`].
    pub fn checkpoint(&self) -> Result<BackupSource, StorageError> {
        let database = self.database;
        let mut configuration = database.row.configuration.clone();
        if !database.row.is_foreign {
            let (_, file) = database.log_file()?;
            let mut log = database.log()?;
            let (first, last) = log.checkpoint(file)?;
            database.boot()?.set_checkpoint_lsn(first, first)?;
            set_lsns(&mut configuration, first, last);
        }
        let source = BackupSource { configuration, data: database.extents()?, log: database.active_log()? };
        self.remember()?;
        Ok(source)
    }

    /// Whether the files are still what they were when the database was frozen (and checkpointed). A program that does not take the locks
    /// can change them nevertheless; what was read meanwhile is then of no use.
    ///
    /// A file that was written to a few milliseconds before the freeze and again right after it may pass: the time of its last change
    /// is as coarse as the system's clock tick.
    ///
    /// # Errors
    /// [`StorageError::Replaced`], [`StorageError::FileSize`] or [`StorageError::Modified`] for the first file that is not.
    /// [`StorageError::Io`].
    pub fn check_unchanged(&self) -> Result<(), StorageError> {
        let files = self.files.lock().unwrap_or_else(PoisonError::into_inner);
        self.database.row.files.iter().zip(files.iter()).try_for_each(|(row, before)| {
            let now = stat_path(&row.path)?;
            if now.inode != before.inode {
                return Err(StorageError::Replaced { path: row.path.clone() });
            }
            check_size(&self.database.row.name, row, now.size)?;
            if now == *before { Ok(()) } else { Err(StorageError::Modified { path: row.path.clone() }) }
        })
    }

    fn remember(&self) -> Result<(), StorageError> {
        let states = self.database.all_files().map(|(row, file)| Ok(FileState::of(&stat(file, &row.path)?)));
        *self.files.lock().unwrap_or_else(PoisonError::into_inner) = states.collect::<Result<_, StorageError>>()?;
        Ok(())
    }
}

impl Drop for Frozen<'_> {
    fn drop(&mut self) {
        // Closing would do as well, unless a child that was just started still has copies of the descriptors.
        self.locks.unlock(LockKind::Pages);
        self.locks.unlock(LockKind::Turnstile);
    }
}

/// The log sequence numbers of a full backup. (Observed in backups of SQL Server 2005 to 2022.)
fn set_lsns(configuration: &mut Config, first: Lsn, last: Lsn) {
    let database = &mut configuration.database;
    (database.first_lsn, database.last_lsn, database.checkpoint_lsn, database.log_end_lsn) = (first, last, first, last);
    // SQL Server 2014 and later repeat FirstLSN here.
    if database.software_major >= 12 {
        database.previous_log_lsn = first;
    }
    if database.software_major >= 11 {
        for group in configuration.filegroups.iter_mut().filter(|group| group.id == 1) {
            (group.first_lsn, group.last_lsn, group.checkpoint_lsn) = (first, last, first);
        }
    }
    for file in &mut configuration.files {
        (file.first_lsn, file.last_lsn, file.checkpoint_lsn) = (first, last, first);
    }
}

/// Writes pages of a database in use. While the database is frozen it waits.
#[derive(Debug)]
pub struct DatabaseWriter {
    database: Database,
    catalog: Arc<Catalog>,
    locks: Locks,
    log: LogFile,
    /// The allocated extents. No statement changes them while the database has writers.
    extents: Vec<FileExtents>,
}

/// The right to write, until it is dropped: the database cannot be frozen meanwhile, so it should not be kept for long.
#[derive(Debug)]
pub struct WriteGuard<'a>(&'a DatabaseWriter);

impl DatabaseWriter {
    /// Opens a database for writing.
    ///
    /// # Errors
    /// [`StorageError::Foreign`] for a database that SQL Server made; those of [`DataFolder::database`].
    pub fn open(folder: &DataFolder, name: &str) -> Result<DatabaseWriter, StorageError> {
        DatabaseWriter::of(folder.database(name)?, folder.catalog_handle())
    }

    pub(super) fn of(database: Database, catalog: Arc<Catalog>) -> Result<DatabaseWriter, StorageError> {
        if database.row.is_foreign {
            return Err(StorageError::Foreign { name: database.row.name.clone() });
        }
        let (locks, log, extents) = (database.locks.locks(&database.row.name)?, database.log()?, database.extents()?);
        Ok(DatabaseWriter { database, catalog, locks, log, extents })
    }

    /// The database.
    #[must_use]
    pub fn database(&self) -> &Database {
        &self.database
    }

    /// The pages that hold content, of all data files, in their order.
    ///
    /// # Errors
    /// [`StorageError`] for a damaged GAM page.
    pub fn pages(&self) -> Result<Vec<PageAddress>, StorageError> {
        let mut pages = Vec::new();
        for (_, file) in self.database.data_files() {
            pages.extend(file.content_pages()?);
        }
        Ok(pages)
    }

    /// Waits until the database is not frozen, and keeps it from being frozen until the guard is dropped.
    ///
    /// # Errors
    /// [`StorageError::Replaced`]: a RESTORE has replaced the database, open it again. [`StorageError::NotOnline`]: it was set OFFLINE.
    /// [`StorageError::Log`]; [`StorageError::Io`].
    // Exclusive, because the locks belong to one open file description: two guards of one writer would share them, and the first to end
    // would end both.
    pub fn begin(&mut self) -> Result<WriteGuard<'_>, StorageError> {
        let begun = self.take_turn();
        self.locks.unlock(LockKind::Turnstile);
        if let Err(error) = begun {
            self.locks.unlock(LockKind::Pages);
            return Err(error);
        }
        Ok(WriteGuard(self))
    }

    fn take_turn(&mut self) -> Result<(), StorageError> {
        self.locks.exclusive(LockKind::Turnstile)?;
        self.locks.shared(LockKind::Pages)?;
        let row = &self.database.row;
        match self.catalog.state_of(row)? {
            // The names of files come after the transaction of a RESTORE, so without a state they say what happened.
            Some(DatabaseState::Online) | None => {}
            Some(state) => return Err(StorageError::NotOnline { name: row.name.clone(), state }),
        }
        self.database.check_places()?;
        let (_, file) = self.database.log_file()?;
        self.log.refresh(file)
    }
}

impl WriteGuard<'_> {
    /// Writes a page with the stamp of this sequence: see [`Stamp`].
    ///
    /// # Errors
    /// [`StorageError::NoSuchPage`] for a page that holds no content; [`StorageError::Io`].
    pub fn write(&self, page: PageAddress, sequence: u64) -> Result<(), StorageError> {
        let Self(DatabaseWriter { database, log, extents, .. }) = self;
        let extent = page.page.0 / EXTENT_PAGES;
        let allocated = extents.iter().find(|file| file.file == page.file).is_some_and(|file| {
            let at = file.extents.partition_point(|range| range.end <= extent);
            file.extents.get(at).is_some_and(|range| range.contains(&extent))
        });
        let file = database.data_files().find(|(id, _)| *id == page.file);
        let Some((_, file)) = file.filter(|_| allocated && layout::is_content_extent(page.file, extent)) else {
            return Err(StorageError::NoSuchPage { name: database.row.name.clone(), page });
        };
        let mut bytes = [0; PAGE_LEN];
        Stamp { page, sequence }.fill(log.last_lsn(), &mut bytes);
        file.write_page(page.page.0, &bytes)
    }
}

impl Drop for WriteGuard<'_> {
    fn drop(&mut self) {
        self.0.locks.unlock(LockKind::Pages);
    }
}

fn open_file(name: &str, row: &FileRow, writable: bool) -> Result<File, StorageError> {
    let access = if writable { OFlags::RDWR } else { OFlags::RDONLY };
    let flags = access | OFlags::CLOEXEC | OFlags::NOFOLLOW | OFlags::NONBLOCK;
    let missing = |found| Err(StorageError::FileMissing { name: name.to_owned(), path: row.path.clone(), found });
    let file = match rustix::fs::open(&row.path, flags, Mode::empty()) {
        Ok(file) => File::from(file),
        Err(Errno::NOENT) => return missing("missing"),
        Err(Errno::ISDIR | Errno::LOOP | Errno::NXIO) => return missing("no regular file"),
        Err(source) => return Err(StorageError::io("open", &row.path, source)),
    };
    let stat = stat(&file, &row.path)?;
    if Kind::from_raw_mode(stat.st_mode) != Kind::RegularFile {
        return missing("no regular file");
    }
    check_size(name, row, FileState::of(&stat).size)?;
    Ok(file)
}

fn check_size(name: &str, row: &FileRow, found: u64) -> Result<(), StorageError> {
    let (name, path, expected) = (name.to_owned(), row.path.clone(), row.size);
    if found == expected { Ok(()) } else { Err(StorageError::FileSize { name, path, expected, found }) }
}

fn stat(file: &File, path: &Path) -> Result<Stat, StorageError> {
    rustix::fs::fstat(file).map_err(|source| StorageError::io("examine", path, source))
}

fn stat_path(path: &Path) -> Result<FileState, StorageError> {
    match rustix::fs::statat(CWD, path, AtFlags::SYMLINK_NOFOLLOW) {
        Ok(stat) => Ok(FileState::of(&stat)),
        Err(Errno::NOENT) => Err(StorageError::Replaced { path: path.to_owned() }),
        Err(source) => Err(StorageError::io("examine", path, source)),
    }
}
