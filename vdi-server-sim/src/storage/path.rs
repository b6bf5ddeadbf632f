//! Names of databases, and where their files are.

use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use super::{DataFolder, StorageError, lock};
use crate::catalog;

/// Longest name of a database, in characters.
pub const MAX_NAME_CHARS: usize = 128;

/// Longest name of a database or file, in bytes: what Linux file systems store.
const MAX_NAME_BYTES: usize = 255;

/// Longest path, in bytes: what Linux takes in one call (`PATH_MAX` without the final NUL).
const MAX_PATH_BYTES: usize = 4095;

/// The system databases of SQL Server.
const SYSTEM_DATABASES: [&str; 4] = ["master", "model", "msdb", "tempdb"];

/// The rule of names of databases: 1 to 128 characters, at most 255 bytes, no slash, no NUL, no dot at the start.
///
/// # Errors
/// [`StorageError::InvalidName`] with the part of the rule that is broken.
pub fn check_name(name: &str) -> Result<(), StorageError> {
    let reason = if name.is_empty() {
        "it is empty"
    } else if name.chars().count() > MAX_NAME_CHARS {
        "it has more than 128 characters"
    } else if name.len() > MAX_NAME_BYTES {
        "it has more than 255 bytes"
    } else if name.starts_with('.') {
        "it begins with a dot"
    } else if name.contains(['/', '\0']) {
        "it contains a slash or a NUL character"
    } else {
        return Ok(());
    };
    Err(StorageError::InvalidName { name: name.to_owned(), reason })
}

/// The rule of names of databases that a statement makes or replaces.
pub(super) fn check_user_database(name: &str) -> Result<(), StorageError> {
    check_name(name)?;
    match is_system_database(name) {
        true => Err(StorageError::SystemDatabase { name: name.to_owned() }),
        false => Ok(()),
    }
}

/// Whether every SQL Server has a database of this name. A data folder need not.
pub(crate) fn is_system_database(name: &str) -> bool {
    SYSTEM_DATABASES.iter().any(|system| system.eq_ignore_ascii_case(name))
}

/// Where a file is that a statement names (CREATE DATABASE, WITH MOVE): an absolute path is taken as it is given, a relative one begins
/// at the data folder. A Windows path is taken as its last component: the simulator has no drives.
pub(super) fn given(folder: &DataFolder, path: &Path) -> Result<PathBuf, StorageError> {
    let text = text_of(path)?;
    let path = if is_windows(text) { Path::new(base_name(text)) } else { path };
    let name = checked_name(path)?;
    let path = folder.path().join(path);
    let parent = path.parent().unwrap_or(Path::new("/"));
    let found = parent.canonicalize().and_then(|parent| Ok((parent.metadata()?.is_dir(), parent)));
    let parent = match found {
        Ok((true, parent)) => parent,
        Ok((false, _)) => return Err(StorageError::NoSuchFolder { path }),
        Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => {
            return Err(StorageError::NoSuchFolder { path });
        }
        Err(error) => return Err(StorageError::io("examine", parent, error)),
    };
    finish(folder, &parent, &name)
}

/// Where a file is that a backup names. If `is_own` says that the path is one of the database that is restored, or it lies in the data
/// folder, it is taken as it is. Any other path is taken as its last component, in the data folder: a backup does not decide
/// where on this machine a file is written.
pub(super) fn recorded(
    folder: &DataFolder,
    recorded: &str,
    is_own: impl Fn(&Path) -> bool,
) -> Result<PathBuf, StorageError> {
    let path = Path::new(recorded);
    if is_own(path) || path.parent() == Some(folder.path()) {
        let name = checked_name(path)?;
        return finish(folder, path.parent().unwrap_or(folder.path()), &name);
    }
    let name = checked_name(Path::new(base_name(recorded)))?;
    finish(folder, folder.path(), &name)
}

fn finish(folder: &DataFolder, parent: &Path, name: &str) -> Result<PathBuf, StorageError> {
    let path = parent.join(name);
    let refused = |reason| Err(StorageError::InvalidPath { path: path.display().to_string(), reason });
    let is_reserved = name == lock::FILE_NAME || name.starts_with(catalog::FILE_NAME);
    if is_reserved && parent == folder.path() {
        return refused("the catalog has this name");
    }
    if path.as_os_str().len() > MAX_PATH_BYTES {
        return refused("it has more than 4095 bytes");
    }
    // The catalog has paths below the data folder relative to it, others as text.
    if path.strip_prefix(folder.path()).unwrap_or(&path).to_str().is_none() {
        return refused("it is not UTF-8");
    }
    Ok(path)
}

/// The last component of a path, validated: it names a file.
fn checked_name(path: &Path) -> Result<String, StorageError> {
    let refused = |reason| Err(StorageError::InvalidPath { path: path.display().to_string(), reason });
    // Not `Path::file_name`, which skips a slash or dot at the end.
    match path.to_string_lossy().rsplit('/').next().unwrap_or("") {
        "" | "." | ".." => refused("it names no file"),
        name if name.len() > MAX_NAME_BYTES => refused("its last component has more than 255 bytes"),
        name if name.contains('\0') => refused("it contains a NUL character"),
        name => Ok(name.to_owned()),
    }
}

fn text_of(path: &Path) -> Result<&str, StorageError> {
    let refused = || StorageError::InvalidPath { path: path.display().to_string(), reason: "it is not UTF-8" };
    path.to_str().ok_or_else(refused)
}

/// Whether a path has a drive letter, or backslashes only.
fn is_windows(path: &str) -> bool {
    let drive = matches!(path.as_bytes(), [letter, b':', ..] if letter.is_ascii_alphabetic());
    drive || (path.contains('\\') && !path.contains('/'))
}

fn base_name(path: &str) -> &str {
    let name = path.rsplit(['\\', '/']).next().unwrap_or(path);
    // `C:x.mdf` has a drive and no folder.
    name.rsplit(':').next().unwrap_or(name)
}
