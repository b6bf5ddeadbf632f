//! What a snapshot backup says of the frozen files: where they are, and what their bytes were.
//!
//! - Where: the payload of FileInfo, UTF-8 text, one absolute path a line, each line ended by a line feed.
//! - What: the payload of Snapshot, little-endian, for each file of the catalog in its order: 1 if there is a checksum, else 0
//!   (4 bytes), and the CRC-32 of all of the file's bytes, or 0 (4 bytes).

use std::path::{Path, PathBuf};

use super::header::Fields;
use super::{Catalog, MAX_CATALOG_BYTES, SnapshotError};

/// Encoded bytes of one file's checksum.
const ENTRY_BYTES: usize = 8;

/// What a backup WITH SNAPSHOT knows of the bytes of its files, which it does not hold.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Snapshot {
    /// For each file of the catalog, in its order, the CRC-32 (the polynomial of IEEE 802.3) of all its bytes while it was
    /// frozen; `None` if it was not computed (NO_CHECKSUM).
    pub checksums: Vec<Option<u32>>,
}

impl Snapshot {
    /// The checksums as bytes: 8 for each file.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(self.checksums.len() * ENTRY_BYTES);
        for checksum in &self.checksums {
            bytes.extend_from_slice(&u32::from(checksum.is_some()).to_le_bytes());
            bytes.extend_from_slice(&checksum.unwrap_or(0).to_le_bytes());
        }
        bytes
    }

    /// Reads the checksums of so many files; total on every input.
    ///
    /// # Errors
    /// [`SnapshotError::Length`] and [`SnapshotError::Entry`] if the bytes are none.
    pub fn decode(bytes: &[u8], files: usize) -> Result<Self, SnapshotError> {
        let needed = files.saturating_mul(ENTRY_BYTES);
        if bytes.len() != needed {
            return Err(SnapshotError::Length { found: bytes.len(), needed, files });
        }
        let entry = |(index, bytes): (usize, &[u8])| {
            let mut fields = Fields { rest: bytes };
            match (fields.u32(), fields.u32()) {
                (0, 0) => Ok(None),
                (1, checksum) => Ok(Some(checksum)),
                (flag, checksum) => Err(SnapshotError::Entry { index, flag, checksum }),
            }
        };
        let checksums = bytes.chunks_exact(ENTRY_BYTES).enumerate().map(entry).collect::<Result<_, _>>()?;
        Ok(Self { checksums })
    }
}

/// The text that tells where the frozen files are: those of `catalog`, in its order, below the database's folder `folder`. It is for
/// the client of the backup; a restore only verifies it.
///
/// # Errors
/// [`SnapshotError::Path`]: a path is not absolute, not UTF-8, or has a line feed in it. [`SnapshotError::TooLong`]: the text
/// is longer than the format allows.
pub fn file_info(folder: &Path, catalog: &Catalog) -> Result<String, SnapshotError> {
    let mut text = String::new();
    for file in catalog.files() {
        let path = folder.join(&file.path);
        let refuse = |reason, path: PathBuf| Err(SnapshotError::Path { path, reason });
        match path.to_str() {
            None => return refuse("it is not UTF-8", path),
            Some(line) if line.contains('\n') => return refuse("it contains a line feed", path),
            Some(line) if !line.starts_with('/') => return refuse("it is not absolute", path),
            Some(line) => text.extend([line, "\n"]),
        }
    }
    let needed = text.len() as u64;
    if needed > MAX_CATALOG_BYTES { Err(SnapshotError::TooLong { needed }) } else { Ok(text) }
}

/// Whether bytes are what [`file_info`] makes for so many files.
pub(super) fn check_file_info(bytes: &[u8], files: usize) -> Result<(), SnapshotError> {
    let text = std::str::from_utf8(bytes).map_err(|_| SnapshotError::Text { reason: "it is not UTF-8" })?;
    let Some(lines) = text.strip_suffix('\n') else {
        return Err(SnapshotError::Text { reason: "its last line has no end" });
    };
    let mut count = 0_usize;
    for line in lines.split('\n') {
        if !line.starts_with('/') {
            return Err(SnapshotError::Text { reason: "it has a path that is not absolute" });
        }
        count += 1;
    }
    if count == files {
        Ok(())
    } else {
        Err(SnapshotError::Text { reason: "it does not name as many files as the catalog" })
    }
}
