//! Hidden folders in which a database comes together before it gets its name.
//!
//! A staging folder is called `.<database>.restoring-<16 hexadecimal digits>`. The process that makes one holds a lock (`flock`) on it for as
//! long as it lives. The system drops the lock when the process dies, in whatever way, so a folder of this pattern whose
//! lock can be had was left behind, and is removed by the next restore into the data folder.

use std::collections::hash_map::RandomState;
use std::hash::{BuildHasher, Hasher};
use std::io;
use std::os::fd::OwnedFd;
use std::path::PathBuf;

use rustix::fs::{AtFlags, Dir, FlockOperation, Mode, OFlags, Stat};
use rustix::io::Errno;

use super::{DataFolder, DatabaseError, FOLDER_FLAGS};

const MARK: &str = ".restoring-";
const DIGITS: usize = 16;

/// Room for the database's name in the folder's, so that both fit into the 255 bytes of a name.
const MAX_PREFIX: usize = 200;

/// A staging folder of ours. Dropping it removes it.
#[derive(Debug)]
pub(super) struct Staging {
    pub(super) name: String,
    pub(super) path: PathBuf,
    pub(super) handle: OwnedFd,
    /// Set once the folder is somebody else's business.
    released: bool,
}

impl Staging {
    /// Makes and locks a new folder for the database `database`.
    pub(super) fn create(folder: &DataFolder, database: &str) -> Result<Self, DatabaseError> {
        // Between making the folder and locking it, it looks like one that was left behind; see `remove_stale`.
        let _guard = lock_folder(folder)?;
        loop {
            let name = random_name(database);
            let path = folder.path.join(&name);
            match rustix::fs::mkdirat(&folder.handle, &name, Mode::from_raw_mode(0o777)) {
                Err(Errno::EXIST) => continue,
                result => result.map_err(|source| DatabaseError::io("make the folder", &path, source))?,
            }
            let locked = rustix::fs::openat(&folder.handle, &name, FOLDER_FLAGS | OFlags::NOFOLLOW, Mode::empty())
                .and_then(|handle| {
                    rustix::fs::flock(&handle, FlockOperation::NonBlockingLockExclusive).map(|()| handle)
                });
            return match locked {
                Ok(handle) => Ok(Self { name, path, handle, released: false }),
                Err(source) => {
                    let _ = std::fs::remove_dir(&path);
                    Err(DatabaseError::io("lock the folder", path, source))
                }
            };
        }
    }

    /// The folder's name now belongs to the database, or to the old database that is to be removed: what stands under it is not
    /// removed on drop.
    pub(super) fn release(mut self) {
        self.released = true;
    }

    /// For tests: as if the process had died here.
    #[cfg(test)]
    pub(super) fn abandon(&mut self) {
        self.released = true;
    }
}

impl Drop for Staging {
    fn drop(&mut self) {
        if !self.released {
            // What cannot be removed now is unlocked when `handle` closes, and the next restore tries again.
            let _ = remove_tree(&self.path);
        }
    }
}

/// Removes what earlier processes left behind when they were killed. What cannot be removed is left for the next time: it
/// costs space, but must not stop a restore.
pub(super) fn remove_stale(folder: &DataFolder) -> Result<(), DatabaseError> {
    let _guard = lock_folder(folder)?;
    let read = |source| DatabaseError::io("read the data folder", &folder.path, source);
    for entry in Dir::read_from(&folder.handle).map_err(read)? {
        let entry = entry.map_err(read)?;
        let Ok(name) = entry.file_name().to_str() else { continue };
        if !is_staging_name(name) {
            continue;
        }
        let opened = rustix::fs::openat(&folder.handle, name, FOLDER_FLAGS | OFlags::NOFOLLOW, Mode::empty());
        let Ok(handle) = opened else { continue };
        if rustix::fs::flock(&handle, FlockOperation::NonBlockingLockExclusive).is_err() {
            continue;
        }
        // It may be the old database of a restore that could not make its exchange durable: not before that is. The name is
        // random and never used again, but an exchange may have put that database under it since it was opened.
        let same = |there: Stat| {
            rustix::fs::fstat(&handle).is_ok_and(|own| (own.st_dev, own.st_ino) == (there.st_dev, there.st_ino))
        };
        if rustix::fs::fsync(&folder.handle).is_ok()
            && rustix::fs::statat(&folder.handle, name, AtFlags::SYMLINK_NOFOLLOW).is_ok_and(same)
        {
            let _ = remove_tree(&folder.path.join(name));
        }
    }
    Ok(())
}

/// Removes a folder with all that is in it; one that is gone already is no error.
pub(super) fn remove_tree(path: &std::path::Path) -> io::Result<()> {
    match std::fs::remove_dir_all(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        result => result,
    }
}

/// A lock on the data folder, for the short moments in which staging folders are made or looked through, or a database is locked. It is taken on a handle
/// of its own, because two users of one handle would share the lock.
pub(super) fn lock_folder(folder: &DataFolder) -> Result<OwnedFd, DatabaseError> {
    let lock = || -> rustix::io::Result<OwnedFd> {
        let handle = rustix::fs::openat(&folder.handle, ".", FOLDER_FLAGS, Mode::empty())?;
        loop {
            match rustix::fs::flock(&handle, FlockOperation::LockExclusive) {
                Err(Errno::INTR) => {}
                result => return result.map(|()| handle),
            }
        }
    };
    lock().map_err(|source| DatabaseError::io("lock the data folder", &folder.path, source))
}

fn random_name(database: &str) -> String {
    let mut end = database.len().min(MAX_PREFIX);
    while !database.is_char_boundary(end) {
        end -= 1;
    }
    // Each state of the standard hasher has fresh random keys; uniqueness is ensured by making the folder.
    let random = RandomState::new().build_hasher().finish();
    format!(".{}{MARK}{random:0DIGITS$x}", &database[..end])
}

pub(super) fn is_staging_name(name: &str) -> bool {
    let Some((prefix, digits)) = name.rsplit_once(MARK) else { return false };
    prefix.len() > 1
        && prefix.starts_with('.')
        && digits.len() == DIGITS
        && digits.bytes().all(|digit| digit.is_ascii_digit() || (b'a'..=b'f').contains(&digit))
}
