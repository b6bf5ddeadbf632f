//! What pages hold: stamps that can be checked, and files of a user.

use std::path::Path;

use vdi_mtf::page::PAGE_LEN;
use vdi_mtf::value::{Lsn, PageAddress};

use super::{DataFolder, StorageError};

/// A page that says which one it is and by which write it was written. All of its body depends on both.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Stamp {
    /// The page.
    pub page: PageAddress,
    /// Which write it was written by.
    pub sequence: u64,
}

impl Stamp {
    /// Makes the page: header, body, checksum.
    pub fn fill(&self, _lsn: Lsn, _page: &mut [u8; PAGE_LEN]) {
        todo!()
    }

    /// Reads a page. `None` if it is no stamped page, or damaged.
    #[must_use]
    pub fn read(_page: &[u8; PAGE_LEN]) -> Option<Stamp> {
        todo!()
    }
}

/// What a database holds.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Content {
    /// Stamped pages, and their first and last sequence.
    pub stamps: u64,
    /// The smallest sequence of a stamp.
    pub first: u64,
    /// The largest sequence of a stamp.
    pub last: u64,
    /// Files of a user: path, length, and the SHA-like digest is the caller's business.
    pub files: Vec<(String, u64)>,
}

/// Makes a sample database: `bytes` of stamped pages (rounded up to whole extents) in two data files, each page with the sequence
/// `seed`. The same `bytes` and `seed` give the same pages.
///
/// # Errors
/// [`StorageError`].
pub fn create_sample(_folder: &DataFolder, _name: &str, _bytes: u64, _seed: u64) -> Result<(), StorageError> {
    todo!()
}

/// Makes a database that carries a user's file, or all files below a folder, in the bodies of its pages.
///
/// # Errors
/// [`StorageError`].
pub fn import(_folder: &DataFolder, _name: &str, _source: &Path) -> Result<(), StorageError> {
    todo!()
}

/// Writes the files that [`import`] has put into a database below the folder `target`.
///
/// # Errors
/// [`StorageError`].
pub fn export(_folder: &DataFolder, _name: &str, _target: &Path) -> Result<(), StorageError> {
    todo!()
}

/// Checks every page of a database by its checksum, and every stamp, and says what the database holds.
///
/// # Errors
/// [`StorageError`] for the first page that is damaged.
pub fn check(_folder: &DataFolder, _name: &str) -> Result<Content, StorageError> {
    todo!()
}

/// Whether two databases have the same pages in their data files and the same bytes in the ranges of their logs.
///
/// # Errors
/// [`StorageError`] for the first difference.
pub fn compare(_folder: &DataFolder, _one: &str, _other: &str) -> Result<(), StorageError> {
    todo!()
}
