//! Data files: pages, allocation.

use std::fs::File;

use super::StorageError;
use crate::catalog::DatabaseRow;

/// Formats the files of a new database: headers, fixed pages, an empty log. `files` are those of the row, in its order, empty.
pub(super) fn format(_row: &DatabaseRow, _files: &[File]) -> Result<(), StorageError> {
    todo!()
}
