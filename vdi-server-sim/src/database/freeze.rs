//! Suspending the writes to a database.
//!
//! # Invariants
//!
//! A database has two locks (`flock`): the *turnstile*, on its folder, and the *resource*, on its first file in the order of the list.
//!
//! 1. A writer holds the resource, shared, from before the first byte to after the last. It is asked for only while
//!    holding the turnstile (exclusive), which is let go of as soon as the resource is there.
//! 2. A freezer holds both, exclusive. So no process writes while a database is frozen, and none begins to.
//! 3. Writers do not starve the freezer. It takes the turnstile first and keeps it: from then on no writer begins, and those
//!    that have begun end. The turnstile itself is never held by a writer while it waits for other writers or
//!    writes, only for a few calls that do not block; so it is free again and again, and the freezer looks much more often
//!    than it sleeps.
//! 4. Nobody waits in a circle: turnstile before resource, for everybody.
//! 5. The locks belong to open files that nobody else shares, and that are closed when the holder dies, in whatever way. So a
//!    freezer that is killed thaws the database, and a writer that is killed does not keep it from being frozen.
//! 6. A lock counts only on the files that the others lock: its holder makes sure that folder and first file
//!    still stand under their names ([`DatabaseError::Replaced`]). Which file is the first one does not change while the
//!    database has open writers: no statement adds files to a database, a restore exchanges its folder.
//!
//! The locks are of the simulator's own making, as a database server's locks are its own: programs that write to the files
//! without a [`DatabaseWriter`](super::DatabaseWriter) are not stopped. [`Frozen::check_unchanged`] finds what they did.

use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::time::{Duration, Instant};

use rustix::fs::{AtFlags, CWD, FlockOperation, Mode, OFlags, Stat};
use rustix::io::Errno;

use super::compare::checksum;
use super::{Database, DatabaseError, FOLDER_FLAGS};

/// How long the freezer rests when it has looked in vain a number of times.
const REST: Duration = Duration::from_millis(1);
const LOOKS: u32 = 64;

/// A database whose writers are stopped, in all processes. Dropping it thaws.
#[derive(Debug)]
pub struct Frozen<'a> {
    database: &'a Database,
    turnstile: OwnedFd,
    resource: OwnedFd,
    /// Of each file, when the database was frozen.
    files: Vec<FileState>,
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

impl Database {
    /// Stops all writers of this database: waits until those that are writing have ended, and lets nobody begin. Gives up when
    /// `patience` is over, or as soon as `stop` says so; it is asked every few milliseconds.
    ///
    /// ```
    /// # let dir = tempfile::tempdir()?;
    /// # std::fs::create_dir(dir.path().join("Sales"))?;
    /// # std::fs::write(dir.path().join("Sales/Sales.mdf"), b"123456789")?;
    /// use std::time::Duration;
    /// use vdi_server_sim::database::DataFolder;
    ///
    /// let database = DataFolder::new(dir.path())?.open("Sales")?;
    /// let frozen = database.freeze(Duration::from_secs(10), || false)?;
    /// assert_eq!(frozen.checksums(|| false)?, [0xCBF4_3926]);
    /// drop(frozen);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// [`DatabaseError::NotFrozen`]: patience is over. [`DatabaseError::Stopped`]: `stop` said so. [`DatabaseError::Replaced`] or
    /// [`DatabaseError::Changed`]: the database is not the one any more that was listed. [`DatabaseError::Io`]. Then nobody is
    /// stopped.
    pub fn freeze(&self, patience: Duration, stop: impl Fn() -> bool) -> Result<Frozen<'_>, DatabaseError> {
        let (turnstile, resource) = self.open_locks()?;
        let begin = Instant::now();
        for (lock, name, path) in
            [(&turnstile, "turnstile", self.path.clone()), (&resource, "first file", self.first_path())]
        {
            let mut looks = 0;
            while !try_lock(lock, &path)? {
                if stop() {
                    return Err(DatabaseError::Stopped { doing: "freezing", path: self.path.clone() });
                }
                if begin.elapsed() >= patience {
                    return Err(DatabaseError::NotFrozen { path, lock: name, waited: patience });
                }
                looks += 1;
                if looks % LOOKS == 0 { std::thread::sleep(REST) } else { std::thread::yield_now() }
            }
        }
        self.check_places(&resource)?;
        // The lengths are known to be right from here on: there is nobody who could change them.
        let mut files = Vec::with_capacity(self.files.len());
        for (index, file) in self.files.iter().enumerate() {
            let stat = rustix::fs::fstat(self.open_file(index)?)
                .map_err(|source| DatabaseError::io("examine", self.path.join(&file.path), source))?;
            files.push(FileState::of(&stat));
        }
        Ok(Frozen { database: self, turnstile, resource, files })
    }

    /// Opens turnstile and resource, for one holder.
    fn open_locks(&self) -> Result<(OwnedFd, OwnedFd), DatabaseError> {
        let turnstile = rustix::fs::openat(&self.handle, ".", FOLDER_FLAGS, Mode::empty())
            .map_err(|source| DatabaseError::io("open the database's folder", &self.path, source))?;
        let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NOFOLLOW | OFlags::NONBLOCK;
        let resource = rustix::fs::openat(&self.handle, self.first(), flags, Mode::empty())
            .map_err(|source| DatabaseError::io("open", self.first_path(), source))?;
        Ok((turnstile, resource))
    }

    /// Whether folder and first file still stand under their names.
    pub(super) fn check_places(&self, resource: &impl AsFd) -> Result<(), DatabaseError> {
        same_file(&self.path, &self.handle)?;
        same_file(&self.first_path(), resource)
    }

    fn first(&self) -> &str {
        // A database has a file, or it would not have been opened.
        self.files.first().map_or("", |file| &file.path)
    }

    pub(super) fn first_path(&self) -> std::path::PathBuf {
        self.path.join(self.first())
    }
}

impl Frozen<'_> {
    /// The CRC-32 (the polynomial of IEEE 802.3) of each file, in the order of [`Database::files`]. `stop` is asked for each
    /// megabyte or so.
    ///
    /// # Errors
    /// [`DatabaseError::Stopped`]: `stop` said so. [`DatabaseError::Changed`]: a file changed its length nevertheless.
    /// [`DatabaseError::Io`].
    pub fn checksums(&self, stop: impl Fn() -> bool) -> Result<Vec<u32>, DatabaseError> {
        (0..self.database.files.len()).map(|index| checksum(self.database, index, &stop)).collect()
    }

    /// Whether the folder that was frozen still stands in the database's place. If the client of a virtual device has put another
    /// one there, its writers are not stopped. If it has only put other files into the folder, they are.
    #[must_use]
    pub fn is_in_place(&self) -> bool {
        // A writer that begins needs the turnstile, and none had begun.
        same_file(&self.database.path, &self.turnstile).is_ok()
    }

    /// Whether folder and files are still what they were when the database was frozen. A program that does not take the locks can
    /// change them nevertheless; what was read meanwhile is then of no use.
    ///
    /// A file that was written to a few milliseconds before the freeze and again right after it may pass: the time of its last change
    /// is as coarse as the system's clock tick.
    ///
    /// # Errors
    /// [`DatabaseError::Replaced`], [`DatabaseError::Changed`] or [`DatabaseError::Modified`] for the first file that is not.
    /// [`DatabaseError::Io`].
    pub fn check_unchanged(&self) -> Result<(), DatabaseError> {
        let Self { database, files, .. } = self;
        same_file(&database.path, &self.turnstile)?;
        for (file, before) in database.files.iter().zip(files) {
            let path = database.path.join(&file.path);
            let stat = match rustix::fs::statat(&database.handle, &file.path, AtFlags::SYMLINK_NOFOLLOW) {
                Err(Errno::NOENT) => return Err(DatabaseError::Replaced { path }),
                stat => stat.map_err(|source| DatabaseError::io("examine", &path, source))?,
            };
            let now = FileState::of(&stat);
            if now.inode != before.inode {
                return Err(DatabaseError::Replaced { path });
            }
            if now.size != before.size {
                return Err(DatabaseError::Changed { path, expected: before.size, found: now.size });
            }
            if now != *before {
                return Err(DatabaseError::Modified { path });
            }
        }
        Ok(())
    }

    /// The database.
    #[must_use]
    pub fn database(&self) -> &Database {
        self.database
    }
}

impl Drop for Frozen<'_> {
    fn drop(&mut self) {
        // Closing would do as well, unless a child that was just started still has copies of the descriptors.
        unlock(&self.resource);
        unlock(&self.turnstile);
    }
}

/// Takes a lock if it is free.
fn try_lock(lock: &OwnedFd, path: &Path) -> Result<bool, DatabaseError> {
    match rustix::fs::flock(lock, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Ok(true),
        Err(Errno::WOULDBLOCK | Errno::INTR) => Ok(false),
        Err(source) => Err(DatabaseError::io("lock", path, source)),
    }
}

/// Waits for a lock.
pub(super) fn lock(lock: &impl AsFd, operation: FlockOperation, path: &Path) -> Result<(), DatabaseError> {
    loop {
        match rustix::fs::flock(lock, operation) {
            Err(Errno::INTR) => {}
            result => return result.map_err(|source| DatabaseError::io("lock", path, source)),
        }
    }
}

/// Lets go of a lock. That cannot fail for one that is held.
pub(super) fn unlock(lock: &impl AsFd) {
    let _ = rustix::fs::flock(lock, FlockOperation::Unlock);
}

/// Whether what stands at `path` is what `handle` is open on.
pub(super) fn same_file(path: &Path, handle: &impl AsFd) -> Result<(), DatabaseError> {
    let examine = |source| DatabaseError::io("examine", path, source);
    let ours = rustix::fs::fstat(handle).map_err(examine)?;
    match rustix::fs::statat(CWD, path, AtFlags::SYMLINK_NOFOLLOW) {
        Ok(found) if (found.st_dev, found.st_ino) == (ours.st_dev, ours.st_ino) => Ok(()),
        Ok(_) | Err(Errno::NOENT) => Err(DatabaseError::Replaced { path: path.to_owned() }),
        Err(source) => Err(examine(source)),
    }
}
