//! Databases made of real files.
//!
//! A *data folder* holds one folder for each database, and a database is every regular file below its folder, subfolders
//! included. Empty folders go with it:
//!
//! ```text
//! DIR/                    the data folder
//!   Sales/                the database "Sales"
//!     Sales.mdf
//!     Sales_log.ldf
//!     archive/2024.ndf
//! ```
//!
//! Names of databases are looked up exactly as they are written: case counts, whatever the collation of a real server would
//! say. A name has 1 to 128 characters and at most 255 bytes (the file system's limit), no `/` and no NUL, and does not
//! begin with a dot; folders that begin with a dot belong to the simulator.
//!
//! [`DataFolder::open`] lists a database for BACKUP. [`RestoreTarget`] builds one for RESTORE in such a way that the
//! database of that name, if there is one, stays as it is until the new one is complete and durable, and is then replaced
//! in a single step.
//!
//! A statement holds a [`DatabaseLock`] for as long as it works on a database: see [`DataFolder::lock`].
//!
//! A [`DatabaseWriter`] changes a database in use. [`Database::freeze`] stops all of them, in whatever process, until the [`Frozen`]
//! is dropped or its process dies; [`DataFolder::verify`] tells whether a database is what it was then.

mod compare;
mod error;
mod freeze;
mod lock;
mod owner;
pub mod page;
mod staging;
mod target;
#[cfg(test)]
mod tests;
mod writer;

pub use error::DatabaseError;
pub use freeze::Frozen;
pub use lock::DatabaseLock;
pub use target::{Committed, RestoreTarget};
pub use writer::{DatabaseWriter, Turn};

use std::collections::BTreeSet;
use std::fs::File;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, CWD, Dir, FileType, Mode, OFlags};

/// Longest name of a database, in characters.
pub const MAX_NAME_CHARS: usize = 128;

/// Longest name that Linux file systems can store, in bytes.
const MAX_NAME_BYTES: usize = 255;

/// Longest path of a file inside its database, in bytes: what Linux takes in one call (`PATH_MAX` without the final NUL).
pub const MAX_PATH_BYTES: usize = 4095;

/// The permissions that are kept. The set-user-id, set-group-id and sticky bits are not: a backup may come from anywhere.
const PERMISSIONS: u32 = 0o777;

const FOLDER_FLAGS: OFlags = OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::CLOEXEC);

/// One file of a database: where it is in the database's folder, how long it is, and who may use it.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct DatabaseFile {
    /// Path relative to the database's folder, with `/` between the components: `archive/2024.ndf`.
    pub path: String,
    /// Length in bytes.
    pub size: u64,
    /// The permission bits, `0o000` to `0o777`.
    pub mode: u32,
}

/// The folder that holds the databases.
#[derive(Debug)]
pub struct DataFolder {
    path: PathBuf,
    handle: OwnedFd,
}

impl DataFolder {
    /// Opens the folder `path`, which must exist.
    ///
    /// # Errors
    /// [`DatabaseError::Io`] if there is no such folder, or it cannot be opened.
    pub fn new(path: impl AsRef<Path>) -> Result<Self, DatabaseError> {
        let path = path.as_ref();
        // Absolute, so that a later change of the working directory changes nothing.
        let path = path.canonicalize().map_err(|source| DatabaseError::io("open the data folder", path, source))?;
        let handle = rustix::fs::openat(CWD, &path, FOLDER_FLAGS, Mode::empty())
            .map_err(|source| DatabaseError::io("open the data folder", &path, source))?;
        Ok(Self { path, handle })
    }

    /// The folder's absolute path.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Where the database `name` is, or would be.
    #[must_use]
    pub fn database_path(&self, name: &str) -> PathBuf {
        self.path.join(name)
    }

    /// Whether something stands in the place of the database `name`.
    ///
    /// # Errors
    /// [`DatabaseError::InvalidName`]; [`DatabaseError::NotADatabase`] if it is not a folder; [`DatabaseError::Io`].
    pub fn contains(&self, name: &str) -> Result<bool, DatabaseError> {
        check_name(name)?;
        let path = self.database_path(name);
        match rustix::fs::statat(&self.handle, name, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(stat) if FileType::from_raw_mode(stat.st_mode) == FileType::Directory => Ok(true),
            Ok(stat) => Err(DatabaseError::NotADatabase { path, kind: kind_of(FileType::from_raw_mode(stat.st_mode)) }),
            Err(rustix::io::Errno::NOENT) => Ok(false),
            Err(source) => Err(DatabaseError::io("look for", path, source)),
        }
    }

    /// Lists the files of the database `name`, sorted by path.
    ///
    /// # Errors
    /// [`DatabaseError::InvalidName`], [`DatabaseError::NotFound`], [`DatabaseError::NotADatabase`]: there is no such database.
    /// [`DatabaseError::Empty`]: it has no file. [`DatabaseError::UnsupportedFile`]: something in it is neither a file nor a
    /// folder. [`DatabaseError::Io`]: the system refused a call.
    pub fn open(&self, name: &str) -> Result<Database, DatabaseError> {
        if !self.contains(name)? {
            return Err(DatabaseError::NotFound { name: name.to_owned(), folder: self.path.clone() });
        }
        let path = self.database_path(name);
        let handle = rustix::fs::openat(&self.handle, name, FOLDER_FLAGS | OFlags::NOFOLLOW, Mode::empty())
            .map_err(|source| DatabaseError::io("open the database's folder", &path, source))?;
        let (mut files, mut empty_folders) = list(&handle, &path)?;
        if files.is_empty() {
            return Err(DatabaseError::Empty { path });
        }
        files.sort_by(|a, b| a.path.cmp(&b.path));
        empty_folders.sort();
        Ok(Database { name: name.to_owned(), path, handle, files, empty_folders })
    }
}

/// A database that exists, as it was when it was listed.
#[derive(Debug)]
pub struct Database {
    name: String,
    path: PathBuf,
    handle: OwnedFd,
    files: Vec<DatabaseFile>,
    empty_folders: Vec<String>,
}

impl Database {
    /// The database's name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The database's folder.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Its files, at least one, sorted by path (byte by byte).
    #[must_use]
    pub fn files(&self) -> &[DatabaseFile] {
        &self.files
    }

    /// Paths of the folders in it that hold nothing, sorted, relative to the database's folder.
    #[must_use]
    pub fn empty_folders(&self) -> &[String] {
        &self.empty_folders
    }

    /// All files' bytes together.
    #[must_use]
    pub fn size(&self) -> u64 {
        self.files.iter().fold(0, |sum, file| sum.saturating_add(file.size))
    }

    /// Opens the file at place `index` of [`files`](Self::files) for reading. It is found even if the database's folder has been
    /// renamed since it was listed.
    ///
    /// # Errors
    /// [`DatabaseError::NoSuchFile`]: `index` is out of range. [`DatabaseError::Changed`]: the file does not have the length any
    /// more that was listed. [`DatabaseError::Io`]: it cannot be opened.
    pub fn open_file(&self, index: usize) -> Result<File, DatabaseError> {
        let file = self.files.get(index).ok_or(DatabaseError::NoSuchFile { index, count: self.files.len() })?;
        let path = self.path.join(&file.path);
        let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NOFOLLOW | OFlags::NONBLOCK;
        let handle = rustix::fs::openat(&self.handle, &file.path, flags, Mode::empty())
            .map_err(|source| DatabaseError::io("open", &path, source))?;
        let stat = rustix::fs::fstat(&handle).map_err(|source| DatabaseError::io("examine", &path, source))?;
        let kind = FileType::from_raw_mode(stat.st_mode);
        if kind != FileType::RegularFile {
            return Err(DatabaseError::UnsupportedFile { path, kind: kind_of(kind) });
        }
        let found = u64::try_from(stat.st_size).unwrap_or(0);
        if found != file.size {
            return Err(DatabaseError::Changed { path, expected: file.size, found });
        }
        Ok(File::from(handle))
    }
}

/// Every regular file and every empty folder below the open folder `root`, unsorted. `root_path` is for errors only.
fn list(root: &OwnedFd, root_path: &Path) -> Result<(Vec<DatabaseFile>, Vec<String>), DatabaseError> {
    let (mut files, mut empty_folders) = (Vec::new(), Vec::new());
    let mut folders = vec![String::new()];
    while let Some(folder) = folders.pop() {
        let path = root_path.join(&folder);
        let read = |source| DatabaseError::io("read the folder", &path, source);
        let inside = if folder.is_empty() { "." } else { folder.as_str() };
        let handle = rustix::fs::openat(root, inside, FOLDER_FLAGS | OFlags::NOFOLLOW, Mode::empty()).map_err(read)?;
        let mut is_empty = true;
        for entry in Dir::read_from(&handle).map_err(read)? {
            let entry = entry.map_err(read)?;
            let name = entry.file_name();
            if name == c"." || name == c".." {
                continue;
            }
            is_empty = false;
            let Ok(text) = name.to_str() else {
                return Err(DatabaseError::UnsupportedFile {
                    path: path.join(String::from_utf8_lossy(name.to_bytes()).as_ref()),
                    kind: "a name that is not UTF-8",
                });
            };
            let relative = if folder.is_empty() { text.to_owned() } else { format!("{folder}/{text}") };
            let full = root_path.join(&relative);
            let stat = rustix::fs::statat(&handle, name, AtFlags::SYMLINK_NOFOLLOW)
                .map_err(|source| DatabaseError::io("examine", &full, source))?;
            match FileType::from_raw_mode(stat.st_mode) {
                FileType::Directory => folders.push(relative),
                FileType::RegularFile if relative.len() <= MAX_PATH_BYTES => files.push(DatabaseFile {
                    path: relative,
                    size: u64::try_from(stat.st_size).unwrap_or(0),
                    mode: stat.st_mode & PERMISSIONS,
                }),
                FileType::RegularFile => {
                    return Err(DatabaseError::UnsupportedFile { path: full, kind: "a path of more than 4095 bytes" });
                }
                other => return Err(DatabaseError::UnsupportedFile { path: full, kind: kind_of(other) }),
            }
        }
        if is_empty && !folder.is_empty() {
            empty_folders.push(folder);
        }
    }
    Ok((files, empty_folders))
}

fn kind_of(kind: FileType) -> &'static str {
    match kind {
        FileType::RegularFile => "a regular file",
        FileType::Directory => "a folder",
        FileType::Symlink => "a symbolic link",
        FileType::Fifo => "a named pipe",
        FileType::Socket => "a socket",
        FileType::CharacterDevice => "a character device",
        FileType::BlockDevice => "a block device",
        _ => "of an unknown kind",
    }
}

/// The rule of names of databases.
///
/// # Errors
/// [`DatabaseError::InvalidName`] with the part of the rule that is broken.
pub fn check_name(name: &str) -> Result<(), DatabaseError> {
    let reason = if name.is_empty() {
        "it is empty"
    } else if name.chars().count() > MAX_NAME_CHARS {
        "it has more than 128 characters"
    } else if name.len() > MAX_NAME_BYTES {
        "it has more than 255 bytes, the longest name of a folder"
    } else if name.starts_with('.') {
        "it begins with a dot"
    } else if name.contains(['/', '\0']) {
        "it contains a slash or a NUL character"
    } else {
        return Ok(());
    };
    Err(DatabaseError::InvalidName { name: name.to_owned(), reason })
}

/// The rule of the files and empty folders of a database that comes out of a backup, which may be damaged or made by an enemy: every
/// path stays inside the database's folder, and no path stands in another's way.
///
/// # Errors
/// [`DatabaseError::Empty`] for no files at all, [`DatabaseError::InvalidPath`] and [`DatabaseError::InvalidSize`] for the first
/// one that breaks the rule.
fn check_files(database: &Path, files: &[DatabaseFile], empty_folders: &[String]) -> Result<(), DatabaseError> {
    if files.is_empty() {
        return Err(DatabaseError::Empty { path: database.to_owned() });
    }
    let mut paths = BTreeSet::new();
    for path in files.iter().map(|file| &file.path).chain(empty_folders) {
        let refuse = |reason| Err(DatabaseError::InvalidPath { path: path.clone(), reason });
        if path.is_empty() {
            return refuse("it is empty");
        }
        if path.len() > MAX_PATH_BYTES {
            return refuse("it has more than 4095 bytes");
        }
        if path.starts_with('/') {
            return refuse("it is absolute");
        }
        if path.contains('\0') {
            return refuse("it contains a NUL character");
        }
        for component in path.split('/') {
            match component {
                "" => return refuse("it has an empty component"),
                "." | ".." => return refuse("it has a component '.' or '..'"),
                name if name.len() > MAX_NAME_BYTES => return refuse("it has a component of more than 255 bytes"),
                _ => {}
            }
        }
        if !paths.insert(path.as_str()) {
            return refuse("it is listed twice");
        }
    }
    for file in files {
        if i64::try_from(file.size).is_err() {
            return Err(DatabaseError::InvalidSize { path: file.path.clone(), size: file.size });
        }
    }
    for path in &paths {
        let mut folders = path.match_indices('/').map(|(at, _)| &path[..at]);
        if let Some(folder) = folders.find(|folder| paths.contains(folder)) {
            return Err(DatabaseError::InvalidPath {
                path: folder.to_owned(),
                reason: "it is a file or an empty folder here, and a folder with something in it in another path",
            });
        }
    }
    Ok(())
}
