//! Locks of statements: on one database, one BACKUP or RESTORE at a time, in all processes that use the data folder.
//!
//! | asked for by | while a BACKUP holds it | while a RESTORE holds it |
//! |---|---|---|
//! | BACKUP | refused: 3023 | refused: 927 |
//! | RESTORE | refused: 3101 | refused: 3101 |
//!
//! # Invariants
//!
//! 1. At most one lock of a name is held. It is granted or refused at once; nothing waits for it.
//! 2. The lock is on the *name* in the data folder. It works for a database that does not exist yet, and stays when a restore
//!    exchanges the database's folder.
//! 3. The system drops it when its process ends, in whatever way, and no file is left.
//! 4. Two engines of one process exclude each other like those of two processes.
//!
//! The lock is a byte of the data folder itself, held by an open file description (`F_OFD_SETLK`). The name's hash gives the
//! offset; the lowest bit tells which statement holds it. A folder cannot be opened for writing, which an exclusive lock of a
//! byte would need. So the lock is a shared one, and the data folder's own lock is held while one tests for the locks of
//! others and takes one. Why 1 holds: no other lock of the name can appear between test and lock.

use std::os::fd::OwnedFd;

use nix::fcntl::{FcntlArg, fcntl};
use nix::libc;
use rustix::fs::Mode;

use super::staging::lock_folder;
use super::{DataFolder, DatabaseError, FOLDER_FLAGS, check_name};
use crate::messages::Verb;

/// The right of one statement to a database, until it is dropped: see [`DataFolder::lock`].
#[derive(Debug)]
pub struct DatabaseLock {
    /// An open file description of its own, to which the lock belongs.
    pub(super) folder: OwnedFd,
    offset: libc::off_t,
}

impl DataFolder {
    /// Locks the database `name` for a statement; there need not be such a database. Does not wait.
    ///
    /// Writers take no such lock: see [`Database::freeze`](super::Database::freeze).
    ///
    /// # Errors
    /// [`DatabaseError::InUse`]: a statement of this process or of another holds the lock. [`DatabaseError::InvalidName`].
    /// [`DatabaseError::Io`], also on a file system that does not lock folders.
    pub fn lock(&self, name: &str, statement: Verb) -> Result<DatabaseLock, DatabaseError> {
        check_name(name)?;
        let failed = |source| DatabaseError::io("lock the database", self.database_path(name), source);
        let folder = rustix::fs::openat(&self.handle, ".", FOLDER_FLAGS, Mode::empty()).map_err(failed)?;
        let lock = DatabaseLock { folder, offset: offset(name, statement) };
        let failed = |error: nix::errno::Errno| failed(rustix::io::Errno::from_raw_os_error(error as i32));
        let _testing = lock_folder(self)?;
        for holder in [Verb::Backup, Verb::Restore] {
            let mut found = byte(libc::F_WRLCK, offset(name, holder));
            fcntl(&lock.folder, FcntlArg::F_OFD_GETLK(&mut found)).map_err(failed)?;
            if i32::from(found.l_type) != libc::F_UNLCK {
                return Err(DatabaseError::InUse { name: name.to_owned(), holder });
            }
        }
        lock.set(libc::F_RDLCK).map_err(failed)?;
        Ok(lock)
    }
}

impl DatabaseLock {
    fn set(&self, kind: i32) -> nix::Result<()> {
        fcntl(&self.folder, FcntlArg::F_OFD_SETLK(&byte(kind, self.offset))).map(drop)
    }
}

impl Drop for DatabaseLock {
    /// A process that is being started may have a copy of the descriptor for a moment, so closing this one is not enough.
    fn drop(&mut self) {
        let _ = self.set(libc::F_UNLCK);
    }
}

fn byte(kind: i32, offset: libc::off_t) -> libc::flock {
    libc::flock {
        l_type: kind as libc::c_short,
        l_whence: libc::SEEK_SET as libc::c_short,
        l_start: offset,
        l_len: 1,
        l_pid: 0,
    }
}

/// The byte of a name and a statement: FNV-1a, which is the same in every process. It stays below the largest offset.
fn offset(name: &str, statement: Verb) -> libc::off_t {
    let hash = name
        .bytes()
        .fold(0xCBF2_9CE4_8422_2325, |hash: u64, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01B3));
    let bit = match statement {
        Verb::Backup => 0,
        Verb::Restore => 1,
    };
    ((hash >> 2) << 1 | bit) as libc::off_t
}
