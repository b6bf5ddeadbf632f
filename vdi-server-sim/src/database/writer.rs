//! Writing to a database in use, in such a way that it can be frozen.

use std::fs::File;
use std::os::fd::OwnedFd;
use std::os::unix::fs::FileExt;

use rustix::fs::{FlockOperation, Mode, OFlags};

use super::freeze::{lock, same_file, unlock};
use super::{DataFolder, Database, DatabaseError, DatabaseFile, FOLDER_FLAGS, check_name};

/// Overwrites parts of a database's files. While the database is [frozen](Database::freeze), by whatever process, it waits.
///
/// It keeps the files open. After a restore, or a mounted snapshot that put another first file into place, it has to be opened
/// again, and says so ([`DatabaseError::Replaced`]).
///
/// ```
/// # let dir = tempfile::tempdir()?;
/// # std::fs::create_dir(dir.path().join("Sales"))?;
/// # std::fs::write(dir.path().join("Sales/Sales.mdf"), b"0123")?;
/// use vdi_server_sim::database::{DataFolder, DatabaseWriter};
///
/// let mut writer = DatabaseWriter::open(&DataFolder::new(dir.path())?, "Sales")?;
/// writer.write_at(0, 2, b"xy")?;
/// assert_eq!(std::fs::read(dir.path().join("Sales/Sales.mdf"))?, b"01xy");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
pub struct DatabaseWriter {
    database: Database,
    turnstile: OwnedFd,
    /// The first one is the resource.
    files: Vec<File>,
}

/// The right to write, until it is dropped: the database cannot be frozen meanwhile, so it should not be kept for long.
#[derive(Debug)]
pub struct Turn<'a>(&'a DatabaseWriter);

impl DatabaseWriter {
    /// Opens the database `name` for writing. Waits while it is frozen, so that it does not find a database that is just being
    /// put together.
    ///
    /// # Errors
    /// As [`DataFolder::open`], and [`DatabaseError::Io`] where a file cannot be opened for writing.
    pub fn open(folder: &DataFolder, name: &str) -> Result<Self, DatabaseError> {
        check_name(name)?;
        loop {
            // Says what is wrong with the name or the folder.
            let path = folder.open(name)?.path;
            let turnstile = rustix::fs::openat(&folder.handle, name, FOLDER_FLAGS | OFlags::NOFOLLOW, Mode::empty())
                .map_err(|source| DatabaseError::io("open the database's folder", &path, source))?;
            lock(&turnstile, FlockOperation::LockExclusive, &path)?;
            let database = folder.open(name)?;
            match same_file(&path, &turnstile).and_then(|()| same_file(&path, &database.handle)) {
                // A restore has put another database there in the meantime.
                Err(DatabaseError::Replaced { .. }) => continue,
                result => result?,
            }
            let files = database.files().iter().map(|file| open_file(&database, file)).collect::<Result<_, _>>()?;
            unlock(&turnstile);
            return Ok(Self { database, turnstile, files });
        }
    }

    /// The database as it was when it was opened.
    #[must_use]
    pub fn database(&self) -> &Database {
        &self.database
    }

    /// Writes `bytes` at `offset` of the file at place `file_index`, all in one turn: see [`Turn::write_at`].
    ///
    /// # Errors
    /// As [`DatabaseWriter::begin`] and [`Turn::write_at`].
    pub fn write_at(&mut self, file_index: usize, offset: u64, bytes: &[u8]) -> Result<(), DatabaseError> {
        self.begin()?.write_at(file_index, offset, bytes)
    }

    /// Waits until the database is not frozen, and keeps it from being frozen until the turn is dropped.
    ///
    /// # Errors
    /// [`DatabaseError::Replaced`]: open it again. [`DatabaseError::Io`].
    // Exclusive, because the locks belong to the open files: two turns of one writer would share them, and the first to end
    // would end both.
    pub fn begin(&mut self) -> Result<Turn<'_>, DatabaseError> {
        // A database has a file, or it would not have been opened.
        let Some(resource) = self.files.first() else {
            return Err(DatabaseError::Empty { path: self.database.path.clone() });
        };
        lock(&self.turnstile, FlockOperation::LockExclusive, &self.database.path)?;
        // From here on the turn's end lets go of the resource, even if it is not there yet.
        let turn = Turn(self);
        let begun = lock(resource, FlockOperation::LockShared, &self.database.first_path())
            .and_then(|()| self.database.check_places(resource));
        unlock(&self.turnstile);
        begun.map(|()| turn)
    }
}

impl Turn<'_> {
    /// Writes `bytes` at `offset` of the file at place `file_index` of [`Database::files`].
    ///
    /// # Errors
    /// [`DatabaseError::NoSuchFile`]; [`DatabaseError::PastEnd`]: the file would become longer; [`DatabaseError::Io`].
    pub fn write_at(&self, file_index: usize, offset: u64, bytes: &[u8]) -> Result<(), DatabaseError> {
        let Self(DatabaseWriter { database, files, .. }) = self;
        let (Some(file), Some(listed)) = (files.get(file_index), database.files.get(file_index)) else {
            return Err(DatabaseError::NoSuchFile { index: file_index, count: files.len() });
        };
        let path = || database.path.join(&listed.path);
        let end = u64::try_from(bytes.len()).ok().and_then(|length| offset.checked_add(length));
        if end.is_none_or(|end| end > listed.size) {
            return Err(DatabaseError::PastEnd { path: path(), offset, length: bytes.len(), size: listed.size });
        }
        file.write_all_at(bytes, offset).map_err(|source| DatabaseError::Io {
            action: "write to",
            path: path(),
            offset: Some(offset),
            source,
        })
    }
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        if let Some(resource) = self.0.files.first() {
            unlock(resource);
        }
    }
}

fn open_file(database: &Database, file: &DatabaseFile) -> Result<File, DatabaseError> {
    let flags = OFlags::RDWR | OFlags::CLOEXEC | OFlags::NOFOLLOW | OFlags::NONBLOCK;
    rustix::fs::openat(&database.handle, &file.path, flags, Mode::empty())
        .map(File::from)
        .map_err(|source| DatabaseError::io("open", database.path.join(&file.path), source))
}
