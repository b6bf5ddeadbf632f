//! Locks of databases, across processes: ranges of bytes of the file `catalog.lock`, held by open file descriptions (`F_OFD_SETLK`).
//!
//! Each name has eight bytes of the file, at an offset that comes from its hash. The file itself stays empty.
//!
//! | bytes | lock | taken by |
//! |---|---|---|
//! | 0 | statement | BACKUP, alone |
//! | 0 and 1 | statement | RESTORE, CREATE, ALTER and DROP DATABASE, alone |
//! | 0 to 2 | statement | the clean-up after a process that died, for a moment |
//! | 4 | turnstile | see [`LockKind`] |
//! | 6 | pages | see [`LockKind`] |
//!
//! | asked for by | while a BACKUP holds it | while a RESTORE holds it |
//! |---|---|---|
//! | BACKUP | refused: 3023 | refused: 927 |
//! | RESTORE | refused: 3101 | refused: 3101 |
//!
//! # Invariants
//!
//! 1. At most one statement lock of a name is held: all contain byte 0. It is granted or refused at once. The length of the range that
//!    stands in the way tells what holds it.
//! 2. The lock is on the *name*, without regard to the case of ASCII letters. It works for a database that does not exist.
//! 3. The system drops it when its process ends, in whatever way.
//! 4. Two statements of one process exclude each other like those of two processes.
//!
//! Two names with the same hash share their locks: their statements wait for each other without need.

use std::fs::{File, OpenOptions};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, fcntl};
use nix::libc;

use super::StorageError;
use super::error::failed;
use crate::messages::Verb;

/// The file's name in the data folder.
pub(super) const FILE_NAME: &str = "catalog.lock";

/// How long a statement waits for a clean-up, which takes a few calls of the system.
const CLEAN_UP_TIMEOUT: Duration = Duration::from_secs(30);

/// The lock file of a data folder: where locks are taken. Each lock has an open file description of its own.
#[derive(Debug, Clone)]
pub(super) struct LockFile {
    pub(super) path: PathBuf,
}

/// Which lock of a database.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum LockKind {
    /// Taken by a writer before it takes [`LockKind::Pages`], and kept by a freezer: so writers do not starve the freezer.
    Turnstile,
    /// The pages: shared by writers, exclusive for a freezer.
    Pages,
}

impl LockKind {
    /// The lock's byte of those of the name.
    fn byte(self) -> libc::off_t {
        match self {
            LockKind::Turnstile => 4,
            LockKind::Pages => 6,
        }
    }
}

/// What holds, or asks for, a statement lock. Its number is the length of its range.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Holder {
    Statement(Verb),
    CleanUp,
}

impl Holder {
    fn len(self) -> libc::off_t {
        match self {
            Holder::Statement(Verb::Backup) => 1,
            Holder::Statement(Verb::Restore) => 2,
            Holder::CleanUp => 3,
        }
    }
}

/// An open file description with at most one lock of each kind. Dropping it lets go of them, as does the end of the process.
#[derive(Debug)]
pub(super) struct Locks {
    file: File,
    path: PathBuf,
    offset: libc::off_t,
}

impl LockFile {
    /// The lock file of a data folder. It must exist.
    pub(super) fn of(folder: &Path) -> LockFile {
        LockFile { path: folder.join(FILE_NAME) }
    }

    /// An open file description of its own for the locks of a database.
    pub(super) fn locks(&self, database: &str) -> Result<Locks, StorageError> {
        let file = OpenOptions::new().read(true).write(true).open(&self.path).map_err(failed("open", &self.path))?;
        Ok(Locks { file, path: self.path.clone(), offset: offset(database) })
    }

    /// Takes the statement lock of a database, if it is free.
    pub(super) fn statement(&self, database: &str, holder: Holder) -> Result<DatabaseLock, StorageError> {
        let locks = self.locks(database)?;
        let deadline = Instant::now() + CLEAN_UP_TIMEOUT;
        loop {
            if locks.set(libc::F_WRLCK, 0, holder.len())? {
                return Ok(DatabaseLock { locks, name: database.to_owned() });
            }
            let in_use = |holder| Err(StorageError::InUse { name: database.to_owned(), holder });
            match locks.found()? {
                None => {}
                Some(1) => return in_use(Verb::Backup),
                Some(3) if Instant::now() < deadline => std::thread::sleep(Duration::from_millis(1)),
                Some(_) => return in_use(Verb::Restore),
            }
        }
    }
}

/// How long a freezer sleeps after a number of failed attempts.
const REST: Duration = Duration::from_millis(1);
const LOOKS: u32 = 64;

impl LockFile {
    /// Stops the writers of a database, until the value is dropped: waits until those that write have ended, and lets none begin.
    ///
    /// # Errors
    /// [`StorageError::NotFrozen`] after the timeout, [`StorageError::Io`]. Then no writer is stopped.
    pub(super) fn stop_writers(&self, database: &str, timeout: Duration) -> Result<Locks, StorageError> {
        self.stop_writers_unless(database, timeout, || false)
    }

    /// As [`stop_writers`](Self::stop_writers), but gives up as soon as `stop` says so; it is asked every few milliseconds.
    ///
    /// # Errors
    /// Also [`StorageError::Stopped`].
    pub(super) fn stop_writers_unless(
        &self,
        database: &str,
        timeout: Duration,
        stop: impl Fn() -> bool,
    ) -> Result<Locks, StorageError> {
        let begin = Instant::now();
        // Dropping it lets go of the locks, also of one alone.
        let locks = self.locks(database)?;
        for (kind, lock) in [(LockKind::Turnstile, "the turnstile"), (LockKind::Pages, "the lock of the pages")] {
            let mut looks = 0;
            while !locks.try_exclusive(kind)? {
                let name = database.to_owned();
                if stop() {
                    return Err(StorageError::Stopped { name });
                }
                if begin.elapsed() >= timeout {
                    return Err(StorageError::NotFrozen { name, lock, waited: timeout });
                }
                looks += 1;
                if looks % LOOKS == 0 { std::thread::sleep(REST) } else { std::thread::yield_now() }
            }
        }
        Ok(locks)
    }
}

impl Locks {
    /// Takes a lock for this holder alone, if it is free.
    pub(super) fn try_exclusive(&self, kind: LockKind) -> Result<bool, StorageError> {
        self.set(libc::F_WRLCK, kind.byte(), 1)
    }

    /// Waits for a lock for this holder alone.
    pub(super) fn exclusive(&self, kind: LockKind) -> Result<(), StorageError> {
        self.wait(libc::F_WRLCK, kind)
    }

    /// Waits for a shared lock.
    pub(super) fn shared(&self, kind: LockKind) -> Result<(), StorageError> {
        self.wait(libc::F_RDLCK, kind)
    }

    /// Lets go of a lock.
    pub(super) fn unlock(&self, kind: LockKind) {
        // It can fail for no lock that this process could set.
        let _ = self.set(libc::F_UNLCK, kind.byte(), 1);
    }

    /// Sets a lock. `false`: another holder has one that excludes it.
    fn set(&self, lock: i32, byte: libc::off_t, len: libc::off_t) -> Result<bool, StorageError> {
        match fcntl(&self.file, FcntlArg::F_OFD_SETLK(&self.range(lock, byte, len))) {
            Ok(_) => Ok(true),
            Err(Errno::EAGAIN | Errno::EACCES) => Ok(false),
            Err(error) => Err(self.failed(error)),
        }
    }

    fn wait(&self, lock: i32, kind: LockKind) -> Result<(), StorageError> {
        loop {
            match fcntl(&self.file, FcntlArg::F_OFD_SETLKW(&self.range(lock, kind.byte(), 1))) {
                Ok(_) => return Ok(()),
                Err(Errno::EINTR) => {}
                Err(error) => return Err(self.failed(error)),
            }
        }
    }

    /// The length of the statement lock of another holder.
    fn found(&self) -> Result<Option<libc::off_t>, StorageError> {
        let mut range = self.range(libc::F_WRLCK, 0, Holder::CleanUp.len());
        fcntl(&self.file, FcntlArg::F_OFD_GETLK(&mut range)).map_err(|error| self.failed(error))?;
        Ok((i32::from(range.l_type) != libc::F_UNLCK).then_some(range.l_len))
    }

    fn range(&self, lock: i32, byte: libc::off_t, len: libc::off_t) -> libc::flock {
        libc::flock {
            l_type: lock as libc::c_short,
            l_whence: libc::SEEK_SET as libc::c_short,
            l_start: self.offset + byte,
            l_len: len,
            l_pid: 0,
        }
    }

    fn failed(&self, error: Errno) -> StorageError {
        StorageError::io("lock a database in", &self.path, error)
    }
}

impl Drop for Locks {
    /// A process that is being started may have a copy of the descriptor for a moment, so closing this one is not enough.
    fn drop(&mut self) {
        let _ = self.set(libc::F_UNLCK, 0, 8);
    }
}

/// The right of one statement to a database, until it is dropped: see [`DataFolder::lock`](super::DataFolder::lock).
#[derive(Debug)]
pub struct DatabaseLock {
    #[expect(dead_code, reason = "held until it is dropped")]
    locks: Locks,
    name: String,
}

impl DatabaseLock {
    /// The database's name, as it was asked for.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }
}

/// The first byte of a name: FNV-1a, which is the same in every process. It stays below the largest offset.
fn offset(name: &str) -> libc::off_t {
    let hash = name.bytes().fold(0xCBF2_9CE4_8422_2325, |hash: u64, byte| {
        (hash ^ u64::from(byte.to_ascii_lowercase())).wrapping_mul(0x0100_0000_01B3)
    });
    ((hash >> 4) << 3) as libc::off_t
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lock_file() -> (tempfile::TempDir, LockFile) {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join(FILE_NAME), "").unwrap();
        let locks = LockFile::of(folder.path());
        (folder, locks)
    }

    fn holder(error: StorageError) -> Verb {
        match error {
            StorageError::InUse { holder, .. } => holder,
            other => panic!("{other}"),
        }
    }

    #[test]
    fn statements_exclude_each_other_and_name_the_holder() {
        let (_folder, locks) = lock_file();
        for held in [Verb::Backup, Verb::Restore] {
            let lock = locks.statement("Sales", Holder::Statement(held)).unwrap();
            for asked in [Verb::Backup, Verb::Restore] {
                assert_eq!(holder(locks.statement("sALES", Holder::Statement(asked)).unwrap_err()), held);
            }
            locks.statement("Other", Holder::Statement(Verb::Restore)).unwrap();
            drop(lock);
            locks.statement("sales", Holder::Statement(Verb::Backup)).unwrap();
        }
    }

    #[test]
    fn a_statement_waits_for_a_clean_up() {
        let (_folder, locks) = lock_file();
        let clean_up = locks.statement("d", Holder::CleanUp).unwrap();
        std::thread::scope(|scope| {
            let waiting = scope.spawn(|| locks.statement("d", Holder::Statement(Verb::Backup)));
            drop(clean_up);
            waiting.join().unwrap().unwrap();
        });
    }

    #[test]
    fn writers_share_the_pages_and_a_freezer_has_them_alone() {
        let (_folder, locks) = lock_file();
        let (one, other, freezer) = (locks.locks("d").unwrap(), locks.locks("D").unwrap(), locks.locks("d").unwrap());
        one.shared(LockKind::Pages).unwrap();
        other.shared(LockKind::Pages).unwrap();
        assert!(freezer.try_exclusive(LockKind::Turnstile).unwrap());
        assert!(!freezer.try_exclusive(LockKind::Pages).unwrap());
        one.unlock(LockKind::Pages);
        assert!(!freezer.try_exclusive(LockKind::Pages).unwrap());
        drop(other);
        freezer.exclusive(LockKind::Pages).unwrap();
        assert!(!one.try_exclusive(LockKind::Turnstile).unwrap());
        // Statement locks are others.
        locks.statement("d", Holder::Statement(Verb::Restore)).unwrap();
    }

    #[test]
    fn offsets_stay_in_range_and_differ() {
        let names: Vec<String> = (0..10_000).map(|number| format!("database {number}")).collect();
        let offsets: std::collections::BTreeSet<_> = names.iter().map(|name| offset(name)).collect();
        assert_eq!(offsets.len(), names.len());
        assert!(offsets.iter().all(|&offset| offset >= 0 && offset.checked_add(8).is_some()));
    }
}
