//! A user's files into a database, and out of it.

use std::collections::BTreeSet;
use std::fs::{self, File, OpenOptions, Permissions};
use std::io::{Read, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use vdi_mtf::page::PAGE_LEN;
use vdi_mtf::sqlserver::data::EXTENT_LEN;
use vdi_mtf::value::PageAddress;

use super::archive::{self, CHUNK_LEN, END, FILE, FOLDER, PERMISSIONS, Visitor, check_path, chunk_mut, finish_page};
use super::sample::{data_file, request};
use crate::storage::fixed_page::Page;
use crate::storage::layout::PRIMARY;
use crate::storage::log_file::INITIAL_LSN;
use crate::storage::page_file::{self, PageFile};
use crate::storage::{DataFolder, StorageError};

/// Makes a database that carries a user's file, or all files below a folder, in the bodies of its pages. Folders, also empty ones,
/// and permissions go with them; owners and times do not.
///
/// # Errors
/// [`StorageError::Unsupported`] for what is neither a file nor a folder, or changes meanwhile; [`StorageError::Io`] and others. Then
/// there is no such database.
pub fn import(folder: &DataFolder, name: &str, source: &Path) -> Result<(), StorageError> {
    let entries = list(source)?;
    let len = entries.iter().fold(1_u64, |sum, entry| sum.saturating_add(entry.archived_len()));
    let extents = len.div_ceil(CHUNK_LEN as u64).div_ceil(EXTENT_LEN / PAGE_LEN as u64);
    let data_files = vec![data_file(name.to_owned(), format!("{name}.mdf"), PRIMARY, extents)];
    folder.create_formatted(&request(name, data_files), |row, files| {
        page_file::format(row, files)?;
        let mut source =
            Source { entries: entries.into_iter(), current: None, pending: Vec::new(), ended: false, number: 0 };
        let primary = row.files.iter().zip(files).find(|(row, _)| row.file_id == PRIMARY);
        primary.map_or(Ok(()), |(row, file)| {
            PageFile::new(row, file).allocate(extents, INITIAL_LSN, |address, page| source.page(address, page))
        })
    })
}

/// A file or folder that is imported.
struct Entry {
    path: String,
    place: PathBuf,
    mode: u32,
    /// Of a file; `None`: a folder.
    len: Option<u64>,
}

impl Entry {
    /// Bytes of the archive that are the entry's.
    fn archived_len(&self) -> u64 {
        let content = self.len.map_or(0, |len| len.saturating_add(8 + 4));
        content.saturating_add(1 + 4 + 2 + self.path.len() as u64)
    }
}

/// All files and folders of `source`, by path.
fn list(source: &Path) -> Result<Vec<Entry>, StorageError> {
    let examine = |path: &Path| fs::symlink_metadata(path).map_err(|source| StorageError::io("examine", path, source));
    // The path that the user names may be a link.
    let source = source.canonicalize().map_err(|error| StorageError::io("open", source, error))?;
    let metadata = examine(&source)?;
    let unsupported = |path: &Path, reason| Err(StorageError::Unsupported { path: path.to_owned(), reason });
    if metadata.is_file() {
        let Some(name) = source.file_name().and_then(|name| name.to_str()) else {
            return unsupported(&source, "its name is not UTF-8");
        };
        let (path, mode, len) = (name.to_owned(), metadata.mode() & PERMISSIONS, Some(metadata.len()));
        return Ok(vec![Entry { path, place: source, mode, len }]);
    }
    if !metadata.is_dir() {
        return unsupported(&source, "it is neither a file nor a folder");
    }
    let (mut entries, mut folders) = (Vec::new(), vec![(String::new(), source)]);
    while let Some((prefix, folder)) = folders.pop() {
        let read = |source| StorageError::io("read the folder", &folder, source);
        for entry in fs::read_dir(&folder).map_err(read)? {
            let entry = entry.map_err(read)?;
            let place = entry.path();
            let Ok(name) = entry.file_name().into_string() else {
                return unsupported(&place, "its name is not UTF-8");
            };
            let path = if prefix.is_empty() { name } else { format!("{prefix}/{name}") };
            if let Err(reason) = check_path(&path) {
                return unsupported(&place, reason);
            }
            let metadata = examine(&place)?;
            let len = metadata.is_file().then_some(metadata.len());
            if metadata.is_dir() {
                folders.push((path.clone(), place.clone()));
            } else if len.is_none() {
                return unsupported(&place, "it is neither a file nor a folder");
            }
            entries.push(Entry { path, place, mode: metadata.mode() & PERMISSIONS, len });
        }
    }
    entries.sort_by(|a, b| a.path.cmp(&b.path));
    Ok(entries)
}

/// Makes the pages of an archive.
struct Source {
    entries: std::vec::IntoIter<Entry>,
    /// The file that is being read.
    current: Option<Current>,
    /// Bytes between files.
    pending: Vec<u8>,
    ended: bool,
    number: u64,
}

struct Current {
    file: File,
    path: PathBuf,
    left: u64,
    hasher: crc32fast::Hasher,
}

impl Source {
    fn page(&mut self, address: PageAddress, page: &mut Page) -> Result<(), StorageError> {
        let (chunk, mut used) = (chunk_mut(page), 0);
        while used < CHUNK_LEN {
            match self.some(&mut chunk[used..])? {
                0 => break,
                len => used += len,
            }
        }
        finish_page(page, address, self.number, used, INITIAL_LSN);
        self.number += 1;
        Ok(())
    }

    /// Writes the next bytes of the archive to the start of `out`. 0: there are no more.
    fn some(&mut self, out: &mut [u8]) -> Result<usize, StorageError> {
        if self.pending.is_empty() && self.current.is_none() {
            match self.entries.next() {
                Some(entry) => self.begin(entry)?,
                None if self.ended => return Ok(0),
                None => {
                    self.ended = true;
                    self.pending.push(END);
                }
            }
        }
        if !self.pending.is_empty() {
            let len = out.len().min(self.pending.len());
            out[..len].copy_from_slice(&self.pending[..len]);
            self.pending.drain(..len);
            return Ok(len);
        }
        let Some(current) = &mut self.current else { return Ok(0) };
        let most = out.len().min(usize::try_from(current.left).unwrap_or(usize::MAX));
        let read = |file: &mut File, path: &Path, out: &mut [u8]| {
            file.read(out).map_err(|source| StorageError::io("read from", path, source))
        };
        let len = if most == 0 { 0 } else { read(&mut current.file, &current.path, &mut out[..most])? };
        current.hasher.update(&out[..len]);
        current.left -= len as u64;
        let longer = current.left == 0 && read(&mut current.file, &current.path, &mut [0])? > 0;
        if longer || len == 0 && current.left > 0 {
            let reason = "its length changed while it was read";
            return Err(StorageError::Unsupported { path: current.path.clone(), reason });
        }
        if current.left == 0
            && let Some(done) = self.current.take()
        {
            self.pending.extend(done.hasher.finalize().to_le_bytes());
            if len == 0 {
                return self.some(out);
            }
        }
        Ok(len)
    }

    fn begin(&mut self, entry: Entry) -> Result<(), StorageError> {
        self.pending.push(if entry.len.is_some() { FILE } else { FOLDER });
        self.pending.extend(entry.mode.to_le_bytes());
        self.pending.extend((entry.path.len() as u16).to_le_bytes());
        self.pending.extend(entry.path.as_bytes());
        if let Some(left) = entry.len {
            self.pending.extend(left.to_le_bytes());
            let file = File::open(&entry.place).map_err(|source| StorageError::io("open", &entry.place, source))?;
            self.current = Some(Current { file, path: entry.place, left, hasher: crc32fast::Hasher::new() });
        }
        Ok(())
    }
}

/// Writes the files that [`import`] has put into a database below the folder `target`, which is made if there is none. What is there
/// already stays as it is: nothing is overwritten, and no folder or link in `target` is followed.
///
/// # Errors
/// [`StorageError::Content`] if the database carries no files, or is damaged; [`StorageError::Io`]. Then what was written is removed.
pub fn export(folder: &DataFolder, name: &str, target: &Path) -> Result<(), StorageError> {
    let database = folder.database(name)?;
    fs::create_dir_all(target).map_err(|source| StorageError::io("make the folder", target, source))?;
    let mut out = Target { root: target.to_owned(), name, made: Vec::new(), folders: BTreeSet::new(), current: None };
    let result = archive::read(&database, &mut out).and_then(|()| out.finish());
    if result.is_err() {
        out.remove();
    }
    result
}

/// Makes the files of an archive.
struct Target<'a> {
    root: PathBuf,
    name: &'a str,
    /// What was made, with the permissions of folders, which come last.
    made: Vec<(PathBuf, Option<u32>)>,
    folders: BTreeSet<String>,
    current: Option<(File, PathBuf, u32)>,
}

impl Target<'_> {
    /// Where an entry is to be. Its folder has to be one that was made here: so no path leads out of the target.
    fn place(&self, path: &str) -> Result<PathBuf, StorageError> {
        match path.rsplit_once('/') {
            Some((folder, _)) if !self.folders.contains(folder) => {
                let what = format!("the folder of {path} is not listed before it");
                Err(StorageError::Content { name: self.name.to_owned(), what })
            }
            _ => Ok(self.root.join(path)),
        }
    }

    fn finish(&mut self) -> Result<(), StorageError> {
        for (path, mode) in self.made.iter().rev() {
            if let Some(mode) = mode {
                set_mode(path, *mode)?;
            }
        }
        Ok(())
    }

    fn remove(&mut self) {
        self.current = None;
        for (path, mode) in self.made.drain(..).rev() {
            // The error of the export counts.
            let _ = if mode.is_some() { fs::remove_dir(path) } else { fs::remove_file(path) };
        }
    }
}

fn set_mode(path: &Path, mode: u32) -> Result<(), StorageError> {
    let permissions = Permissions::from_mode(mode & PERMISSIONS);
    fs::set_permissions(path, permissions).map_err(|source| StorageError::io("set the permissions of", path, source))
}

impl Visitor for Target<'_> {
    fn folder(&mut self, path: &str, mode: u32) -> Result<(), StorageError> {
        let place = self.place(path)?;
        let made = fs::DirBuilder::new().mode(0o700).create(&place);
        made.map_err(|source| StorageError::io("make the folder", &place, source))?;
        self.made.push((place, Some(mode)));
        self.folders.insert(path.to_owned());
        Ok(())
    }

    fn file(&mut self, path: &str, mode: u32, _len: u64) -> Result<(), StorageError> {
        let place = self.place(path)?;
        let file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&place);
        let file = file.map_err(|source| StorageError::io("make", &place, source))?;
        self.made.push((place.clone(), None));
        self.current = Some((file, place, mode));
        Ok(())
    }

    fn bytes(&mut self, bytes: &[u8]) -> Result<(), StorageError> {
        let Some((file, path, _)) = &mut self.current else { return Ok(()) };
        file.write_all(bytes).map_err(|source| StorageError::io("write to", &*path, source))
    }

    fn end_file(&mut self, _crc32: u32) -> Result<(), StorageError> {
        self.current.take().map_or(Ok(()), |(_, path, mode)| set_mode(&path, mode))
    }
}
