//! An agent for `BACKUP` and `RESTORE` `WITH SNAPSHOT`: `snapshot SET DATABASE_FOLDER BACKUP_FOLDER`. The database's files, which
//! have no folders among them here, are copied while the server holds its writes back, and back again on a restore.
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::{env, error::Error, io, time::Duration};

use vdi_client::media::{FileMedia, MediaError, SnapshotMedia, Snapshots};
use vdi_client::{BackEnd, ClientVirtualDeviceSet, Features, VdConfig, pump};

struct Copies {
    database: PathBuf,
    files: PathBuf,
}

/// Replaces the folder `to` by a durable copy of `from`.
fn replace(from: &Path, to: &Path) -> io::Result<()> {
    let new = to.with_extension("new");
    let _ = fs::remove_dir_all(&new);
    fs::create_dir(&new)?;
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        let target = new.join(entry.file_name());
        fs::copy(entry.path(), &target)?;
        File::open(&target)?.sync_all()?;
    }
    File::open(&new)?.sync_all()?;
    let _ = fs::remove_dir_all(to);
    fs::rename(&new, to)
}

impl Snapshots for Copies {
    fn take(&mut self) -> Result<(), MediaError> {
        replace(&self.database, &self.files).map_err(|error| MediaError::io("cannot copy the database", error))
    }
    fn mount(&mut self) -> Result<(), MediaError> {
        replace(&self.files, &self.database).map_err(|error| MediaError::io("cannot put the files back", error))
    }
}

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<_> = env::args().skip(1).collect();
    let [name, database, backup] = &arguments[..] else {
        return Err("usage: snapshot SET DATABASE_FOLDER BACKUP_FOLDER".into());
    };
    let copies = Copies { database: database.into(), files: Path::new(backup).join("files") };
    let set = ClientVirtualDeviceSet::with_back_end(BackEnd::from_env()?)?;
    let features = Features::SNAPSHOT_PREPARE | Features::REQUEST_COMPLETE;
    set.create(name, &VdConfig { features, ..VdConfig::default() })?;
    println!("ready for BACKUP or RESTORE DATABASE ... VIRTUAL_DEVICE='{name}' WITH SNAPSHOT");
    let agreed = set.get_configuration(Duration::from_secs(600))?;
    let mut device = set.open_device(name)?;
    let metadata = Path::new(backup).join("metadata");
    let taking = agreed.features.contains(Features::WRITE_MEDIA);
    let metadata = if taking { FileMedia::create(&metadata)? } else { FileMedia::open(&metadata)? };
    let report = pump(&mut device, &mut SnapshotMedia::new(metadata, copies))?;
    set.close()?;
    println!("the snapshot is {}, {} commands", if taking { "taken" } else { "mounted" }, report.commands);
    Ok(())
}
