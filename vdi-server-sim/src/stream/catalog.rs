//! The list of a database's files as it travels with every device.
//!
//! Encoded, little-endian: the number of files (4 bytes), then for each file its size (8), permissions (4), length of the path
//! (2), and the path in UTF-8. Where the database has empty folders, their number (4) follows, then for each the length of its path
//! (2), and the path.

use crate::database::{Database, DatabaseFile};

use super::CatalogError;
use super::header::Fields;

/// Longest encoded catalog, in bytes (64 MB, enough for a million files with paths of 50 bytes). It bounds the memory
/// that a damaged or hostile stream can make a restore use.
pub const MAX_CATALOG_BYTES: u64 = 64 << 20;

/// Encoded bytes of a file's entry without its path.
const ENTRY_BYTES: usize = 8 + 4 + 2;

/// Encoded bytes of a folder's entry without its path.
const FOLDER_BYTES: usize = 2;

/// The files of a database, numbered from 0 in this order.
///
/// That the paths make sense together, and do not lead out of the database, is checked where the files are made:
/// [`RestoreTarget::create`](crate::database::RestoreTarget::create).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Catalog {
    files: Vec<DatabaseFile>,
    empty_folders: Vec<String>,
}

impl Catalog {
    /// The catalog of a database.
    ///
    /// # Errors
    /// As [`Catalog::new`] and [`Catalog::with_empty_folders`].
    pub fn of(database: &Database) -> Result<Self, CatalogError> {
        Self::new(database.files().to_vec())?.with_empty_folders(database.empty_folders().to_vec())
    }

    /// A catalog of these files.
    ///
    /// # Errors
    /// [`CatalogError::PathTooLong`], [`CatalogError::TooLong`] or [`CatalogError::TooManyBytes`]: the format cannot hold them.
    pub fn new(files: Vec<DatabaseFile>) -> Result<Self, CatalogError> {
        let mut needed = 4_u64;
        let mut bytes = 0_u64;
        for (index, file) in files.iter().enumerate() {
            if u16::try_from(file.path.len()).is_err() {
                return Err(CatalogError::PathTooLong { index, length: file.path.len() });
            }
            needed = needed.saturating_add((ENTRY_BYTES + file.path.len()) as u64);
            bytes = bytes.checked_add(file.size).ok_or(CatalogError::TooManyBytes)?;
        }
        if needed > MAX_CATALOG_BYTES {
            return Err(CatalogError::TooLong { needed });
        }
        Ok(Self { files, empty_folders: Vec::new() })
    }

    /// The same catalog, of a database that has these folders besides, which hold nothing.
    ///
    /// # Errors
    /// [`CatalogError::PathTooLong`] or [`CatalogError::TooLong`]: the format cannot hold them.
    pub fn with_empty_folders(mut self, empty_folders: Vec<String>) -> Result<Self, CatalogError> {
        if let Some((index, path)) = (0..).zip(&empty_folders).find(|(_, path)| u16::try_from(path.len()).is_err()) {
            return Err(CatalogError::PathTooLong { index: self.files.len() + index, length: path.len() });
        }
        self.empty_folders = empty_folders;
        let needed = self.encode().len() as u64;
        if needed > MAX_CATALOG_BYTES { Err(CatalogError::TooLong { needed }) } else { Ok(self) }
    }

    /// The files.
    #[must_use]
    pub fn files(&self) -> &[DatabaseFile] {
        &self.files
    }

    /// Paths of the folders that hold nothing.
    #[must_use]
    pub fn empty_folders(&self) -> &[String] {
        &self.empty_folders
    }

    /// Bytes of all files together.
    #[must_use]
    pub fn total_bytes(&self) -> u64 {
        // `new` made sure that it fits.
        self.files.iter().fold(0, |sum, file| sum.wrapping_add(file.size))
    }

    /// The catalog as bytes, 4 to [`MAX_CATALOG_BYTES`].
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut bytes = Vec::new();
        // The limits that `new` checked make these conversions exact.
        bytes.extend_from_slice(&(self.files.len() as u32).to_le_bytes());
        for file in &self.files {
            bytes.extend_from_slice(&file.size.to_le_bytes());
            bytes.extend_from_slice(&file.mode.to_le_bytes());
            bytes.extend_from_slice(&(file.path.len() as u16).to_le_bytes());
            bytes.extend_from_slice(file.path.as_bytes());
        }
        if !self.empty_folders.is_empty() {
            bytes.extend_from_slice(&(self.empty_folders.len() as u32).to_le_bytes());
        }
        for path in &self.empty_folders {
            bytes.extend_from_slice(&(path.len() as u16).to_le_bytes());
            bytes.extend_from_slice(path.as_bytes());
        }
        bytes
    }

    /// Reads a catalog; total on every input.
    ///
    /// # Errors
    /// [`CatalogError`] if the bytes are none.
    pub fn decode(bytes: &[u8]) -> Result<Self, CatalogError> {
        let short = |needed| CatalogError::Length { found: bytes.len(), needed };
        if bytes.len() < 4 {
            return Err(short(4));
        }
        let mut fields = Fields { rest: bytes };
        let count = fields.u32() as usize;
        // The count is not to be believed before as many entries could be there.
        let least = count.saturating_mul(ENTRY_BYTES).saturating_add(4);
        if least > bytes.len() {
            return Err(short(least));
        }
        let mut files = Vec::with_capacity(count);
        for index in 0..count {
            let at = bytes.len() - fields.rest.len();
            if fields.rest.len() < ENTRY_BYTES {
                return Err(short(at + ENTRY_BYTES));
            }
            let (size, mode, length) = (fields.u64(), fields.u32(), usize::from(fields.u16()));
            let path = take_path(&mut fields, length, index).ok_or_else(|| short(at + ENTRY_BYTES + length))??;
            files.push(DatabaseFile { path, size, mode });
        }
        let catalog = Self::new(files)?;
        if fields.rest.is_empty() {
            return Ok(catalog);
        }
        let at = bytes.len() - fields.rest.len();
        if fields.rest.len() < 4 {
            return Err(short(at));
        }
        let folders = fields.u32() as usize;
        let least = folders.saturating_mul(FOLDER_BYTES).saturating_add(at + 4);
        // Without empty folders there is not even their number.
        if folders == 0 || least > bytes.len() {
            return Err(short(if folders == 0 { at } else { least }));
        }
        let mut empty_folders = Vec::with_capacity(folders);
        for index in count..count + folders {
            let at = bytes.len() - fields.rest.len();
            if fields.rest.len() < FOLDER_BYTES {
                return Err(short(at + FOLDER_BYTES));
            }
            let length = usize::from(fields.u16());
            let path = take_path(&mut fields, length, index).ok_or_else(|| short(at + FOLDER_BYTES + length))??;
            empty_folders.push(path);
        }
        if !fields.rest.is_empty() {
            return Err(short(bytes.len() - fields.rest.len()));
        }
        catalog.with_empty_folders(empty_folders)
    }
}

/// A path of `length` bytes; `None` if they are not there. `index` is the entry's, for errors.
fn take_path(fields: &mut Fields<'_>, length: usize, index: usize) -> Option<Result<String, CatalogError>> {
    let (path, rest) = fields.rest.split_at_checked(length)?;
    fields.rest = rest;
    Some(std::str::from_utf8(path).map(str::to_owned).map_err(|_| CatalogError::Path { index }))
}
