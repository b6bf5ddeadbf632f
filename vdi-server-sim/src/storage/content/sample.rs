//! Sample databases: stamped pages in two data files.

use vdi_mtf::page::PAGE_LEN;
use vdi_mtf::sqlserver::config::{FileType, RecoveryModel};
use vdi_mtf::sqlserver::data::EXTENT_LEN;
use vdi_mtf::value::FileId;

use super::Stamp;
use crate::storage::layout::pages_for;
use crate::storage::log_file::INITIAL_LSN;
use crate::storage::page_file::{self, PageFile};
use crate::storage::{CreateDatabase, DataFolder, NewFile, StorageError};

/// The log has few checkpoints.
const LOG_SIZE: u64 = 1 << 20;
/// The smallest data file.
const LEAST_SIZE: u64 = 1 << 20;

/// Makes a sample database: `bytes` of stamped pages (rounded up to whole extents) in two data files, each page with the sequence
/// `seed`. Of nine extents, two are in the second file. The same `bytes` and `seed` give the same pages of content.
///
/// # Errors
/// Those of [`DataFolder::create_database`]. Then there is no such database.
pub fn create_sample(folder: &DataFolder, name: &str, bytes: u64, seed: u64) -> Result<(), StorageError> {
    let extents = bytes.div_ceil(EXTENT_LEN);
    let second = extents / 9 * 2 + extents % 9 * 2 / 9;
    let counts = [extents - second, second];
    let data_files = vec![
        data_file(name.to_owned(), format!("{name}.mdf"), FileId(1), counts[0]),
        // File 2 is the log.
        data_file(format!("{name}_1"), format!("{name}_1.ndf"), FileId(3), counts[1]),
    ];
    folder.create_formatted(&request(name, data_files), |row, files| {
        page_file::format(row, files)?;
        let data = row.files.iter().zip(files).filter(|(row, _)| row.file_type == FileType::Data);
        for ((row, file), extents) in data.zip(counts) {
            PageFile::new(row, file).allocate(extents, INITIAL_LSN, |page, bytes| {
                Stamp { page, sequence: seed }.fill(INITIAL_LSN, bytes);
                Ok(())
            })?;
        }
        Ok(())
    })
}

/// A data file of PRIMARY with room for `extents` extents of content.
pub(super) fn data_file(logical_name: String, path: String, id: FileId, extents: u64) -> NewFile {
    let size = pages_for(id, extents).saturating_mul(PAGE_LEN as u64).max(LEAST_SIZE);
    NewFile { size, ..NewFile::new(logical_name, path) }
}

/// A database with these data files and a small log.
pub(super) fn request(name: &str, data_files: Vec<NewFile>) -> CreateDatabase {
    let log_file = NewFile { size: LOG_SIZE, ..NewFile::new(format!("{name}_log"), format!("{name}_log.ldf")) };
    CreateDatabase { name: name.to_owned(), data_files, log_file: Some(log_file), recovery_model: RecoveryModel::Full }
}
