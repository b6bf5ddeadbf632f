//! Who owns what a restore makes.
//!
//! A file or folder gets the owner and group of what it replaces, else those of the database's folder, and in a new database those
//! of the data folder. So the files of a server that runs under a user of its own stay that user's when root restores them.

use std::os::fd::{AsFd, OwnedFd};

use rustix::fs::{AtFlags, Gid, Stat, Uid};
use rustix::io::Errno;

/// The owners of a database that is about to be replaced or made.
pub(super) struct Owners<'a> {
    /// The data folder.
    folder: &'a OwnedFd,
    database: &'a str,
    default: Owner,
}

type Owner = (Uid, Gid);

impl<'a> Owners<'a> {
    pub(super) fn of(folder: &'a OwnedFd, database: &'a str) -> Result<Owners<'a>, Errno> {
        let default = match rustix::fs::statat(folder, database, AtFlags::SYMLINK_NOFOLLOW) {
            Err(Errno::NOENT) => rustix::fs::fstat(folder)?,
            stat => stat?,
        };
        Ok(Owners { folder, database, default: owner(&default) })
    }

    /// Gives an open file or folder, which will have this path in the database, to its owner. Not every user may give files away, and
    /// not every file system knows owners: then it stays as it is.
    pub(super) fn give(&self, file: impl AsFd, path: &str) -> Result<(), Errno> {
        let replaced = rustix::fs::statat(self.folder, format!("{}/{path}", self.database), AtFlags::SYMLINK_NOFOLLOW);
        let wanted = replaced.map_or(self.default, |stat| owner(&stat));
        if owner(&rustix::fs::fstat(&file)?) == wanted {
            return Ok(());
        }
        match rustix::fs::fchown(file, Some(wanted.0), Some(wanted.1)) {
            Err(Errno::PERM | Errno::INVAL) => Ok(()),
            result => result,
        }
    }
}

fn owner(stat: &Stat) -> Owner {
    (Uid::from_raw(stat.st_uid), Gid::from_raw(stat.st_gid))
}
