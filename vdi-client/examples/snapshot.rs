//! An agent for `BACKUP` and `RESTORE` `WITH SNAPSHOT`: `snapshot SET DATABASE_FOLDER BACKUP_FOLDER`. The database's files, which
//! have no folders among them here, are copied while the server holds its writes back, and back again on a restore.
//!
//! BACKUP_FOLDER/snapshot holds the last complete backup, metadata and files. A new one is made beside it, and takes its place in
//! one step, before the server reports success. Whenever the agent is killed, the one or the other is there.
use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::{env, time::Duration};

use rustix::fs::{CWD, RenameFlags, renameat_with};
use vdi_client::media::{FileMedia, MediaError, SnapshotMedia, Snapshots};
use vdi_client::{BackEnd, ClientVirtualDeviceSet, ErrorReport, Features, VdConfig, pump};

struct Copies {
    database: PathBuf,
    /// The backup that counts, and the one that is being made.
    snapshot: PathBuf,
    new: PathBuf,
}

/// Copies a folder durably.
fn copy(from: &Path, to: &Path) -> io::Result<()> {
    fs::create_dir(to)?;
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        let target = to.join(entry.file_name());
        fs::copy(entry.path(), &target)?;
        File::open(&target)?.sync_all()?;
    }
    File::open(to)?.sync_all()
}

/// Puts the folder `new` into the place of `old` in one step, durably or not at all. The old one is removed then.
fn replace(new: &Path, old: &Path) -> io::Result<()> {
    let flags = match fs::symlink_metadata(old) {
        Ok(found) if !found.is_dir() => return Err(io::ErrorKind::NotADirectory.into()),
        Ok(_) => RenameFlags::EXCHANGE,
        Err(error) if error.kind() == io::ErrorKind::NotFound => RenameFlags::NOREPLACE,
        Err(error) => return Err(error),
    };
    renameat_with(CWD, new, CWD, old, flags)?;
    if let Err(error) = File::open(old.parent().unwrap_or(Path::new("/"))).and_then(|parent| parent.sync_all()) {
        let _ = renameat_with(CWD, old, CWD, new, flags);
        return Err(error);
    }
    // Where that fails the next agent tries again.
    let _ = remove(new);
    Ok(())
}

fn remove(folder: &Path) -> io::Result<()> {
    fs::remove_dir_all(folder)
        .or_else(|error| if error.kind() == io::ErrorKind::NotFound { Ok(()) } else { Err(error) })
}

impl Snapshots for Copies {
    fn take(&mut self) -> Result<(), MediaError> {
        copy(&self.database, &self.new.join("files")).map_err(|error| MediaError::io("cannot copy the database", error))
    }
    fn commit(&mut self) -> Result<(), MediaError> {
        replace(&self.new, &self.snapshot).map_err(|error| MediaError::io("cannot put the backup into place", error))
    }
    fn mount(&mut self) -> Result<(), MediaError> {
        let mut new = self.database.clone().into_os_string();
        new.push(".vdi-restore");
        let new = PathBuf::from(new);
        remove(&new)
            .and_then(|()| copy(&self.snapshot.join("files"), &new))
            .and_then(|()| replace(&new, &self.database))
            .map_err(|error| MediaError::io("cannot put the files back", error))
    }
}

fn main() -> Result<(), ErrorReport> {
    let arguments: Vec<_> = env::args().skip(1).collect();
    let [name, database, backup] = &arguments[..] else {
        return Err("usage: snapshot SET DATABASE_FOLDER BACKUP_FOLDER".into());
    };
    let backup = fs::canonicalize(backup)?;
    // One agent at a time works there; the lock ends with the process.
    let folder = File::open(&backup)?;
    folder.try_lock().map_err(|error| format!("cannot lock {}: {error}", backup.display()))?;
    let copies = Copies {
        database: fs::canonicalize(database).or_else(|_| std::path::absolute(database))?,
        snapshot: backup.join("snapshot"),
        new: backup.join("snapshot.new"),
    };
    if copies.snapshot.exists() && !copies.snapshot.join("metadata").is_file() {
        return Err(format!("{} is no backup of this program, and is not replaced", copies.snapshot.display()).into());
    }
    let set = ClientVirtualDeviceSet::with_back_end(BackEnd::from_env()?)?;
    let features = Features::SNAPSHOT_PREPARE | Features::REQUEST_COMPLETE;
    set.create(name, &VdConfig { features, ..VdConfig::default() })?;
    say(&format!("ready for BACKUP or RESTORE DATABASE ... VIRTUAL_DEVICE='{name}' WITH SNAPSHOT"));
    let agreed = set.get_configuration(Duration::from_secs(600))?;
    let taking = agreed.features.contains(Features::WRITE_MEDIA);
    let metadata = if taking {
        // What an agent that was killed has left.
        remove(&copies.new)?;
        fs::create_dir(&copies.new)?;
        FileMedia::create(copies.new.join("metadata"))?
    } else {
        FileMedia::open(copies.snapshot.join("metadata"))?
    };
    let new = copies.new.clone();
    let mut device = set.open_device(name)?;
    let report = pump(&mut device, &mut SnapshotMedia::new(metadata, copies));
    if taking {
        // Of a backup that failed.
        let _ = remove(&new);
    }
    let report = report?;
    set.close()?;
    say(&format!("the snapshot is {}, {} commands", if taking { "taken" } else { "mounted" }, report.commands));
    Ok(())
}

/// Messages are for people, and for standard error. A message that no process reads changes nothing.
fn say(line: &str) {
    let _ = writeln!(io::stderr(), "{line}");
}
