//! The list of a database's files as it travels with every device.
//!
//! Encoded, little-endian: the number of files (4 bytes), then for each file its size (8), permissions (4), length of the path
//! (2), and the path in UTF-8.

use crate::database::DatabaseFile;

use super::CatalogError;
use super::header::Fields;

/// Longest encoded catalog, in bytes (64 MB, enough for a million files with paths of 50 bytes). It bounds the memory
/// that a damaged or hostile stream can make a restore use.
pub const MAX_CATALOG_BYTES: u64 = 64 << 20;

/// Encoded bytes of an entry without its path.
const ENTRY_BYTES: usize = 8 + 4 + 2;

/// The files of a database, numbered from 0 in this order.
///
/// That the paths make sense together, and do not lead out of the database, is checked where the files are made:
/// [`RestoreTarget::create`](crate::database::RestoreTarget::create).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Catalog {
    files: Vec<DatabaseFile>,
}

impl Catalog {
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
        Ok(Self { files })
    }

    /// The files.
    #[must_use]
    pub fn files(&self) -> &[DatabaseFile] {
        &self.files
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
            let Some((path, rest)) = fields.rest.split_at_checked(length) else {
                return Err(short(at + ENTRY_BYTES + length));
            };
            fields.rest = rest;
            let path = std::str::from_utf8(path).map_err(|_| CatalogError::Path { index })?.to_owned();
            files.push(DatabaseFile { path, size, mode });
        }
        if !fields.rest.is_empty() {
            return Err(short(bytes.len() - fields.rest.len()));
        }
        Self::new(files)
    }
}
