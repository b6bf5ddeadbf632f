//! The records of filegroups (`SFGI`) and files (`SFIN`).

use crate::layout::record;
use crate::value::{FileId, Guid, Lsn};

/// Bits of [`FileRecord::flags`].
pub mod flags {
    /// Set in all files.
    pub const ALWAYS: u32 = 0x4;
    /// Growth is in percent.
    pub const PERCENT: u32 = 0x8;
    /// A data file of a full backup.
    pub const FULL: u32 = 0x80;
}

/// The largest size of a data file in bytes: no limit.
pub const UNLIMITED_DATA: u64 = 0x1FFF_FFFF_E000;
/// The largest size of a log file in bytes: no limit.
pub const UNLIMITED_LOG: u64 = 0x200_0000_0000;

record! {
    /// A filegroup (record `SFGI`). (Observed in backups of SQL Server 2005 to 2022.)
    pub struct Filegroup(least 24) {
        /// 0x10: the primary filegroup.
        flags: u32 = 8,
        /// The filegroup, 1 for PRIMARY.
        id: u32 = 12,
        /// 1.
        unknown_20: u32 = 20,
        /// The GUID of the filegroup. Zero for PRIMARY.
        guid: Guid = 24,
        /// FirstLSN, for PRIMARY (SQL Server 2012 on).
        first_lsn: Lsn = 52,
        /// LastLSN, for PRIMARY (SQL Server 2012 on).
        last_lsn: Lsn = 64,
        /// CheckpointLSN, for PRIMARY (SQL Server 2012 on).
        checkpoint_lsn: Lsn = 76,
    }
    texts(Zero) {
        /// The name.
        name = 16,
    }
}

impl Filegroup {
    /// A record as server version `major` writes it.
    pub fn new(major: u8, id: u32, name: &str) -> Self {
        let len = if major < 11 { 48 } else { 224 };
        let flags = if id == 1 { 0x10 } else { 0 };
        Filegroup { flags, id, unknown_20: 1, name: name.into(), raw: vec![0; len], ..Filegroup::default() }
    }
}

/// The type of a file, as RESTORE FILELISTONLY shows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum FileType {
    /// `D`: pages.
    Data,
    /// `L`: log.
    Log,
    /// Another number: full-text catalogs, FILESTREAM and memory-optimised containers.
    Other(u32),
}

record! {
    /// A file of the database (record `SFIN`). (Observed in backups of SQL Server 2005 to 2022.)
    ///
    /// The leading copy has the values at the start of the backup, the trailing copy those at its end.
    pub struct FileRecord(least 270) {
        /// Bits of [`flags`].
        flags: u32 = 8,
        /// Bytes of a page: 8192.
        page_len: u32 = 16,
        /// The file, 1 for the primary data file.
        file_id: FileId = 20,
        /// Pages in the backup, over all families. In a log file: 0, and in the trailing copy the used log in units of 8192 bytes.
        pages: u32 = 24,
        /// 1 data, 2 log; see [`FileRecord::file_type`].
        type_number: u32 = 28,
        /// SourceBlockSize: bytes of a sector of the file's disk, 512 or 4096.
        source_block: u32 = 32,
        /// The filegroup; 0 for a log file.
        filegroup: u16 = 36,
        /// Bytes of the file.
        size: u64 = 40,
        /// MaxSize in bytes.
        max_size: u64 = 86,
        /// Growth in bytes, or in percent by [`flags::PERCENT`].
        growth: u64 = 94,
        /// The initial size in bytes.
        min_size: u64 = 114,
        /// The limit of the initial size.
        min_size_limit: u64 = 122,
        /// Bytes of the file again.
        size_again: u64 = 130,
        /// DifferentialBaseLSN. In the trailing copy of a full backup: this backup.
        differential_base_lsn: Lsn = 158,
        /// DifferentialBaseGUID. In the trailing copy of a full backup: this backup's set.
        differential_base: Guid = 170,
        /// UniqueId. Zero in SQL Server 2005.
        unique_id: Guid = 186,
        /// FirstLSN of the backup.
        first_lsn: Lsn = 202,
        /// LastLSN of the backup.
        last_lsn: Lsn = 218,
        /// CheckpointLSN of the backup.
        checkpoint_lsn: Lsn = 234,
        /// BackupSizeInBytes. In a log file: 0, and in the trailing copy the bytes of log in the backup.
        backup_bytes: u64 = 250,
        /// The time of the differential base: 100 ns since 1601, UTC.
        differential_base_time: u64 = 262,
    }
    texts(Zero) {
        /// The logical name.
        logical_name = 48,
        /// The path on the server.
        physical_name = 52,
    }
}

impl FileRecord {
    /// A record as server version `major` writes it, with all sizes zero.
    pub fn new(major: u8, file_id: FileId, file_type: FileType) -> Self {
        let (len, at) = match major {
            0..=9 => (400, None),
            10 => (1024, None),
            _ => (1028, Some(1026)),
        };
        let mut raw = vec![0; len];
        if let Some(at) = at {
            // 1 in each file from SQL Server 2012 on. Its meaning is not known.
            raw[at] = 1;
        }
        let (type_number, max_size, filegroup) = match file_type {
            FileType::Data => (1, UNLIMITED_DATA, 1),
            FileType::Log => (2, UNLIMITED_LOG, 0),
            FileType::Other(number) => (number, UNLIMITED_DATA, 1),
        };
        FileRecord {
            flags: flags::ALWAYS,
            page_len: crate::page::PAGE_LEN as u32,
            file_id,
            type_number,
            source_block: 512,
            filegroup,
            max_size,
            min_size_limit: UNLIMITED_DATA,
            raw,
            ..FileRecord::default()
        }
    }

    /// The type.
    pub fn file_type(&self) -> FileType {
        match self.type_number {
            1 => FileType::Data,
            2 => FileType::Log,
            number => FileType::Other(number),
        }
    }
}
