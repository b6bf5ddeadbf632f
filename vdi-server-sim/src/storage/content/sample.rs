//! Sample databases: stamped pages in two data files.

use vdi_mtf::page::PAGE_LEN;
use vdi_mtf::sqlserver::config::RecoveryModel;
use vdi_mtf::sqlserver::data::EXTENT_LEN;
use vdi_mtf::value::FileId;

use super::Stamp;
use crate::storage::layout::pages_for;
use crate::storage::{CreateDatabase, DataFolder, NewFile, StorageError};

/// FILEGROWTH of the files: 64 MiB, as SQL Server 2016 and later have it.
const GROWTH: u64 = 64 << 20;
/// The log has few checkpoints.
pub(super) const LOG_SIZE: u64 = 1 << 20;
/// The smallest data file.
const LEAST_SIZE: u64 = 1 << 20;

/// Makes a sample database: `bytes` of stamped pages (rounded up to whole extents) in two data files, each page with the sequence
/// `seed`. Of nine extents, two are in the second file. The same `bytes` and `seed` give the same pages.
///
/// # Errors
/// [`StorageError`]. Then there is no such database.
pub fn create_sample(folder: &DataFolder, name: &str, bytes: u64, seed: u64) -> Result<(), StorageError> {
    let extents = bytes.div_ceil(EXTENT_LEN);
    let second = extents / 9 * 2 + extents % 9 * 2 / 9;
    let counts = [extents - second, second];
    // File 2 is the log.
    let data_files = vec![
        data_file(name.to_owned(), format!("{name}.mdf"), FileId(1), counts[0]),
        data_file(format!("{name}_1"), format!("{name}_1.ndf"), FileId(3), counts[1]),
    ];
    let log_file =
        NewFile { size: LOG_SIZE, ..data_file(format!("{name}_log"), format!("{name}_log.ldf"), FileId(2), 0) };
    let request = CreateDatabase {
        name: name.to_owned(),
        data_files,
        log_file: Some(log_file),
        recovery_model: RecoveryModel::Full,
    };
    folder.create_database(&request)?;
    let filled = fill(folder, name, &counts, seed);
    if filled.is_err() {
        // The first error counts.
        let _ = folder.drop_database(name);
    }
    filled
}

/// A data file of PRIMARY with room for `extents` extents of content.
pub(super) fn data_file(logical_name: String, path: String, id: FileId, extents: u64) -> NewFile {
    let size = pages_for(id, extents).saturating_mul(PAGE_LEN as u64).max(LEAST_SIZE);
    NewFile { size, growth: GROWTH, ..NewFile::new(logical_name, path) }
}

fn fill(folder: &DataFolder, name: &str, counts: &[u64; 2], sequence: u64) -> Result<(), StorageError> {
    let database = folder.database(name)?;
    let lsn = database.last_lsn()?;
    for ((_, file), &extents) in database.data_files().zip(counts) {
        file.allocate(extents, lsn, |page, bytes| {
            Stamp { page, sequence }.fill(lsn, bytes);
            Ok(())
        })?;
    }
    database.sync()
}
