//! Log files: virtual log files, checkpoints.

use std::fs::File;
use std::path::Path;

use vdi_mtf::sqlserver::log::Vlf;

use super::StorageError;

/// Writes the headers of the virtual log files of a restored log file; their ranges are in it already.
pub(super) fn write_headers(_file: &File, _path: &Path, _log: &[Vlf]) -> Result<(), StorageError> {
    todo!()
}
