//! The database of the statements, and what is done with its files without a set.

use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Instant;

use vdi_mtf::sqlserver::config::{FileType, RecoveryModel};
use vdi_server_sim::storage::{CreateDatabase, DataFolder, NewFile, content};

use crate::costs::cpu_time;
use crate::processes::{Cost, Fallible, rounds};

/// The database that is backed up.
pub(crate) const DATABASE: &str = "sales";
/// The database that a backup is restored as.
pub(crate) const RESTORED: &str = "restored";
/// Bytes of a read or write, and MAXTRANSFERSIZE.
pub(crate) const BLOCK: usize = 1 << 20;
/// The alignment of the block that files are read into. Some processors copy whole pages far slower to other addresses.
const PAGE: usize = 4096;

/// Makes the database in the data folder `data`, unless it is there. Returns the bytes of its data files, which are then in the
/// page cache and on the disk.
pub(crate) fn make(data: &Path, bytes: u64) -> Fallible<u64> {
    fs::create_dir_all(data)?;
    let folder = DataFolder::open(data)?;
    if folder.catalog().find(DATABASE)?.is_none() {
        content::create_sample(&folder, DATABASE, bytes, 7)?;
        // Else the system would write it back while others are measured.
        for file in files(data)? {
            File::open(file)?.sync_all()?;
        }
    }
    size(data)
}

/// Makes a database without content, the least that there can be, unless it is there.
pub(crate) fn make_empty(data: &Path, name: &str) -> Fallible<()> {
    fs::create_dir_all(data)?;
    let folder = DataFolder::open(data)?;
    if folder.catalog().find(name)?.is_none() {
        let file = |logical_name: &str, path: &str| NewFile {
            is_percent_growth: false,
            logical_name: logical_name.to_owned(),
            path: path.into(),
            size: 1 << 20,
            filegroup: "PRIMARY".to_owned(),
            growth: 1 << 20,
            max_size: None,
        };
        folder.create_database(&CreateDatabase {
            name: name.to_owned(),
            data_files: vec![file("empty", "empty.mdf")],
            log_file: Some(file("empty_log", "empty_log.ldf")),
            recovery_model: RecoveryModel::Simple,
        })?;
    }
    Ok(())
}

/// Removes a database, if it is there.
pub(crate) fn drop_database(folder: &DataFolder, name: &str) -> Fallible<()> {
    if folder.catalog().find(name)?.is_some() {
        folder.drop_database(name)?;
    }
    Ok(())
}

/// The data files of the database. A backup has hardly anything of its log.
pub(crate) fn files(data: &Path) -> Fallible<Vec<PathBuf>> {
    let row = DataFolder::open(data)?.catalog().find(DATABASE)?.ok_or("the database is gone")?;
    Ok(row.files.into_iter().filter(|file| file.file_type != FileType::Log).map(|file| file.path).collect())
}

/// Their bytes.
pub(crate) fn size(data: &Path) -> Fallible<u64> {
    files(data)?.iter().map(|file| Ok(fs::metadata(file)?.len())).sum()
}

/// Removes a file or a folder, if it is there.
pub(crate) fn remove(path: &Path) -> Fallible<()> {
    let removed = if path.is_dir() { fs::remove_dir_all(path) } else { fs::remove_file(path) };
    match removed {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error.into()),
        _ => Ok(()),
    }
}

/// Measures `work`, after `prepare`, so many times.
pub(crate) fn measured(
    count: u64,
    prepare: impl Fn() -> Fallible<()>,
    mut work: impl FnMut() -> Fallible<()>,
) -> Fallible<Cost> {
    let mut total = Cost::default();
    for _ in 0..count {
        prepare()?;
        let (cpu, started) = (cpu_time()?, Instant::now());
        work()?;
        total += Cost { elapsed: started.elapsed(), cpu: cpu_time()? - cpu };
    }
    Ok(total)
}

/// Reads the files in blocks, and writes them to /dev/null.
pub(crate) fn drive_read(data: &Path) -> Fallible<()> {
    let files = files(data)?;
    let mut room = vec![0; BLOCK + PAGE];
    let begin = room.as_ptr().align_offset(PAGE);
    let block = room.get_mut(begin..begin + BLOCK).ok_or("there is no page in the block")?;
    let mut nowhere = File::options().write(true).open("/dev/null")?;
    rounds(|count| {
        let read = || {
            for file in &files {
                let mut file = File::open(file)?;
                loop {
                    match file.read(block)? {
                        0 => break,
                        bytes => nowhere.write_all(&block[..bytes])?,
                    }
                }
            }
            Ok(())
        };
        measured(count, || Ok(()), read)
    })
}

/// Writes the bytes of the files from memory into new files in blocks, and syncs those.
pub(crate) fn drive_write(dir: &Path, data: &Path) -> Fallible<()> {
    let contents = files(data)?.iter().map(fs::read).collect::<io::Result<Vec<_>>>()?;
    let copies = dir.join("copies");
    rounds(|count| {
        let write = || {
            for (number, content) in contents.iter().enumerate() {
                let mut file = File::create_new(copies.join(number.to_string()))?;
                content.chunks(BLOCK).try_for_each(|block| file.write_all(block))?;
                file.sync_all()?;
            }
            Ok(())
        };
        measured(count, || new_folder(&copies), write)
    })
}

/// `cp` of the files to new ones, then `sync` of those.
pub(crate) fn drive_copy(dir: &Path, data: &Path) -> Fallible<()> {
    let files = files(data)?;
    let copies = dir.join("copies");
    let script = "to=$1; shift; cp --reflink=never \"$@\" \"$to\" && exec sync \"$to\"/*";
    rounds(|count| {
        let copy = || {
            let status = Command::new("sh").args(["-c", script, "sh"]).arg(&copies).args(&files).status()?;
            if status.success() { Ok(()) } else { Err(format!("cp or sync ended with {status}").into()) }
        };
        measured(count, || new_folder(&copies), copy)
    })
}

fn new_folder(path: &Path) -> Fallible<()> {
    remove(path)?;
    Ok(fs::create_dir(path)?)
}
