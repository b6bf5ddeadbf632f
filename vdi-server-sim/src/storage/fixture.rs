//! Databases for tests: rows and files that need no catalog.

use std::fs::{File, OpenOptions};
use std::path::Path;

use vdi_mtf::sqlserver::config::{Config, Database as DatabaseRecord, FileRecord, FileType, Filegroup, RecoveryModel};
use vdi_mtf::value::{FileId, Guid};

use crate::catalog::{DatabaseRow, DatabaseState, FileRow};

/// The version of the server that rows are of: SQL Server 2022.
pub(super) const MAJOR: u8 = 16;

pub(super) fn file_row(folder: &Path, name: &str, id: u16, size: u64) -> FileRow {
    let log = id == 2;
    FileRow {
        file_id: FileId(id),
        file_type: if log { FileType::Log } else { FileType::Data },
        filegroup: u16::from(!log),
        logical_name: name.to_owned(),
        path: folder.join(name),
        size,
    }
}

/// A database with data files of these sizes and a log of 1 MiB.
pub(super) fn row(folder: &Path, sizes: &[u64]) -> DatabaseRow {
    let ids = (1..).filter(|id| *id != 2);
    let mut files: Vec<_> =
        ids.zip(sizes).map(|(id, size)| file_row(folder, &format!("Sales_{id}.mdf"), id, *size)).collect();
    files.push(file_row(folder, "Sales_log.ldf", 2, 1 << 20));
    let record = |file: &FileRow| FileRecord {
        size: file.size,
        min_size: file.size,
        unique_id: Guid([file.file_id.0 as u8; 16]),
        ..FileRecord::new(MAJOR, file.file_id, file.file_type)
    };
    let database = DatabaseRecord {
        name: "Sales".into(),
        database_version: 957,
        binding_id: Guid([7; 16]),
        family: Guid([8; 16]),
        recovery_fork: Guid([9; 16]),
        ..DatabaseRecord::new(MAJOR)
    };
    let configuration = Config {
        database,
        filegroups: vec![Filegroup::new(MAJOR, 1, "PRIMARY")],
        files: files.iter().map(record).collect(),
    };
    DatabaseRow {
        id: 5,
        name: "Sales".to_owned(),
        state: DatabaseState::Online,
        recovery_model: RecoveryModel::Full,
        is_foreign: false,
        generation: 1,
        configuration,
        files,
    }
}

/// Makes the files of a row, and formats them.
pub(super) fn make(row: &DatabaseRow) -> Vec<File> {
    let files: Vec<_> = row.files.iter().map(|file| make_file(&file.path)).collect();
    super::page_file::format(row, &files).unwrap();
    files
}

pub(super) fn make_file(path: &Path) -> File {
    OpenOptions::new().read(true).write(true).create_new(true).open(path).unwrap()
}

/// Flips a bit of a file.
pub(super) fn flip(file: &File, offset: u64) {
    use std::os::unix::fs::FileExt;
    let mut byte = [0];
    file.read_exact_at(&mut byte, offset).unwrap();
    file.write_all_at(&[byte[0] ^ 0x10], offset).unwrap();
}
