//! Locks of databases, across processes: ranges of bytes of the file `catalog.lock`, held by open file descriptions (`F_OFD_SETLK`).

use std::path::PathBuf;

use super::StorageError;

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

/// An open file description with at most one lock of each kind. Dropping it lets go of them, as does the end of the process.
#[derive(Debug)]
pub(super) struct Locks {}

impl LockFile {
    /// An open file description of its own for the locks of a database.
    pub(super) fn locks(&self, _database: &str) -> Result<Locks, StorageError> {
        todo!()
    }
}

impl Locks {
    /// Takes a lock for this holder alone, if it is free.
    pub(super) fn try_exclusive(&self, _kind: LockKind) -> Result<bool, StorageError> {
        todo!()
    }

    /// Waits for a lock for this holder alone.
    pub(super) fn exclusive(&self, _kind: LockKind) -> Result<(), StorageError> {
        todo!()
    }

    /// Waits for a shared lock.
    pub(super) fn shared(&self, _kind: LockKind) -> Result<(), StorageError> {
        todo!()
    }

    /// Lets go of a lock.
    pub(super) fn unlock(&self, _kind: LockKind) {
        todo!()
    }
}

/// The right of one statement to a database, until it is dropped: see [`DataFolder::lock`](super::DataFolder::lock).
#[derive(Debug)]
pub struct DatabaseLock {}
