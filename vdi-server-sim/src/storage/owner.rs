//! The owner of the files that a statement makes.
//!
//! A file gets the owner, group and permissions of the file that it replaces, else owner and group of the data folder. So the files of
//! a server that runs under a user of its own stay that user's when root restores them.

use std::fs::File;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use rustix::fs::{Gid, Mode, Uid};
use rustix::io::Errno;

/// The permissions that are kept: no set-user-id, set-group-id and sticky bits.
const PERMISSIONS: u32 = 0o777;

/// Gives an open file the owner of the one at `path`, if there is one, else of `folder`. Not every user may give files away, and not
/// every file system knows owners: then it stays as it is.
pub(super) fn give(file: &File, path: &Path, folder: &Path) -> io::Result<()> {
    let replaced = std::fs::symlink_metadata(path).ok().filter(std::fs::Metadata::is_file);
    let wanted = match &replaced {
        Some(metadata) => (metadata.uid(), metadata.gid()),
        None => {
            let metadata = std::fs::metadata(folder)?;
            (metadata.uid(), metadata.gid())
        }
    };
    let own = file.metadata()?;
    if (own.uid(), own.gid()) != wanted {
        match rustix::fs::fchown(file, Some(Uid::from_raw(wanted.0)), Some(Gid::from_raw(wanted.1))) {
            Ok(()) | Err(Errno::PERM | Errno::INVAL) => {}
            Err(error) => return Err(error.into()),
        }
    }
    if let Some(metadata) = replaced {
        rustix::fs::fchmod(file, Mode::from_raw_mode(metadata.mode() & PERMISSIONS))?;
    }
    Ok(())
}
