//! An agent for `BACKUP` and `RESTORE` `WITH SNAPSHOT`: `snapshot SET BACKUP_FOLDER FILE...`. The database's files, data and log, are
//! copied while the server holds its writes back, and back again on a restore. The server knows where they are: `sys.master_files` lists
//! them.
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
    /// The database's files. In a backup they are called 0, 1, 2 ...
    files: Vec<PathBuf>,
    /// The backup that counts, and the one that is being made.
    snapshot: PathBuf,
    new: PathBuf,
}

/// Copies a file durably.
fn copy(from: &Path, to: &Path) -> io::Result<()> {
    fs::copy(from, to)?;
    File::open(to)?.sync_all()
}

/// Makes a new name in the folder of this path durable.
fn sync_folder_of(path: &Path) -> io::Result<()> {
    File::open(path.parent().unwrap_or(Path::new("/")))?.sync_all()
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
    if let Err(error) = sync_folder_of(old) {
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

impl Copies {
    fn copy_out(&self) -> io::Result<()> {
        let folder = self.new.join("files");
        fs::create_dir(&folder)?;
        for (number, file) in self.files.iter().enumerate() {
            copy(file, &folder.join(number.to_string()))?;
        }
        File::open(&folder)?.sync_all()
    }

    fn copy_back(&self) -> io::Result<()> {
        let folder = self.snapshot.join("files");
        let count = fs::read_dir(&folder)?.count();
        if count != self.files.len() {
            let files = format!("the snapshot has {count} files, and {} are named", self.files.len());
            return Err(io::Error::new(io::ErrorKind::InvalidInput, files));
        }
        // None of the old files is touched before all of the new ones are complete.
        let new = |file: &Path| file.with_added_extension("vdi-restore");
        for (number, file) in self.files.iter().enumerate() {
            copy(&folder.join(number.to_string()), &new(file))?;
        }
        for file in &self.files {
            fs::rename(new(file), file)?;
            sync_folder_of(file)?;
        }
        Ok(())
    }
}

impl Snapshots for Copies {
    fn take(&mut self) -> Result<(), MediaError> {
        self.copy_out().map_err(|error| MediaError::io("cannot copy the database", error))
    }
    fn commit(&mut self) -> Result<(), MediaError> {
        replace(&self.new, &self.snapshot).map_err(|error| MediaError::io("cannot put the backup into place", error))
    }
    fn mount(&mut self) -> Result<(), MediaError> {
        self.copy_back().map_err(|error| MediaError::io("cannot put the files back", error))
    }
}

fn main() -> Result<(), ErrorReport> {
    let arguments: Vec<_> = env::args().skip(1).collect();
    let [name, backup, files @ ..] = &arguments[..] else {
        return Err("usage: snapshot SET BACKUP_FOLDER FILE...".into());
    };
    if files.is_empty() {
        return Err("usage: snapshot SET BACKUP_FOLDER FILE...: name the files of the database".into());
    }
    let backup = fs::canonicalize(backup)
        .map_err(|error| format!("cannot use the folder {backup:?}: {error}; make it first"))?;
    // One agent at a time works there; the lock ends with the process.
    let folder = File::open(&backup)?;
    folder.try_lock().map_err(|error| format!("cannot lock {}: {error}", backup.display()))?;
    let copies = Copies {
        files: files.iter().map(std::path::absolute).collect::<io::Result<_>>()?,
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
