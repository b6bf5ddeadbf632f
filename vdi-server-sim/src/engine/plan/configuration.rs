//! The configurations of a backup: what the storage says of the database, and what is the backup's business.

use vdi_mtf::sqlserver::config::{Config, FileRecord, FileType, database_flags, file_flags};
use vdi_mtf::sqlserver::data::EXTENT_LEN;
use vdi_mtf::sqlserver::log::Vlf;
use vdi_mtf::value::DateTime;

use super::super::Failure;
use super::super::clock::Moment;
use super::super::snapshot_sums;
use super::{Plan, Terms};
use crate::messages::PAGE_BYTES;
use crate::storage::{BackupSource, FileExtents};
use crate::tsql::BackupPart;

/// What a backup has in it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::engine) enum Kind {
    /// All pages, and the log.
    Full,
    /// FILE and FILEGROUP: the pages of some files, and the log.
    Files,
    /// WITH SNAPSHOT: neither pages nor log.
    Snapshot,
}

/// The extents and the log that go into the backup.
pub(super) fn content(
    source: &BackupSource,
    parts: &[BackupPart],
    kind: Kind,
) -> Result<(Vec<FileExtents>, Vec<Vlf>), Failure> {
    match kind {
        Kind::Snapshot => Ok((Vec::new(), Vec::new())),
        Kind::Full => Ok((source.data.clone(), source.log.clone())),
        Kind::Files => {
            let named = named(&source.configuration, parts)?;
            let data = source.data.iter().filter(|file| named.iter().any(|record| record.file_id == file.file));
            Ok((data.cloned().collect(), source.log.clone()))
        }
    }
}

/// The data files that FILE and FILEGROUP name. Names are compared without regard to the case of ASCII letters.
fn named<'a>(config: &'a Config, parts: &[BackupPart]) -> Result<Vec<&'a FileRecord>, Failure> {
    let database = || config.database.name.to_string();
    let mut all = Vec::new();
    for part in parts {
        let before = all.len();
        let data = config.files.iter().filter(|file| file.file_type() == FileType::Data);
        match part {
            BackupPart::File(name) => {
                all.extend(data.filter(|file| file.logical_name.to_string().eq_ignore_ascii_case(name)));
                if all.len() == before {
                    return Err(Failure::UnknownFile { name: name.clone(), database: database() });
                }
            }
            BackupPart::Filegroup(name) => {
                all.extend(data.filter(|file| config.filegroup_of(file).eq_ignore_ascii_case(name)));
                if all.len() == before {
                    return Err(Failure::UnknownFilegroup { name: name.clone(), database: database() });
                }
            }
        }
    }
    Ok(all)
}

/// The configuration when the backup begins.
pub(super) fn leading(
    source: &Config,
    terms: &Terms<'_>,
    kind: Kind,
    checksum: bool,
    data: &[FileExtents],
    log: &[Vlf],
    now: &Moment,
) -> Config {
    let mut config = source.clone();
    let of_backup =
        database_flags::CHECKSUMS | database_flags::SNAPSHOT | database_flags::DAMAGED | database_flags::DIFFERENTIAL;
    let mut flags = config.database.flags & !of_backup | database_flags::ALWAYS;
    if checksum {
        flags |= database_flags::CHECKSUMS;
    }
    if kind == Kind::Snapshot {
        flags |= database_flags::SNAPSHOT;
    }
    let mut pages_len = 0;
    for file in config.files.iter_mut().filter(|file| file.file_type() == FileType::Data) {
        let extents = data.iter().find(|extents| extents.file == file.file_id);
        let extents: u64 =
            extents.map_or(0, |file| file.extents.iter().map(|range| u64::from(range.end - range.start)).sum());
        file.backup_bytes = extents * EXTENT_LEN;
        file.pages = (file.backup_bytes / PAGE_BYTES) as u32;
        file.flags = if extents > 0 && kind == Kind::Full {
            file.flags | file_flags::FULL
        } else {
            file.flags & !file_flags::FULL
        };
        pages_len += file.backup_bytes;
    }
    for file in config.files.iter_mut().filter(|file| file.file_type() == FileType::Log) {
        (file.pages, file.backup_bytes) = (0, 0);
    }
    if let Some(sums) = &terms.snapshot {
        for (file, sum) in config.files.iter_mut().zip(sums) {
            if let Some(sum) = sum {
                snapshot_sums::encode(file, *sum);
            }
        }
    }
    let database = &mut config.database;
    database.flags = flags;
    database.kind_letter = if kind == Kind::Files { b'F' } else { b'D' };
    database.server = terms.server.as_str().into();
    (database.start, database.finish) = (now.date, DateTime::default());
    database.backup_size = pages_len + log.iter().map(Vlf::range_len).sum::<u64>();
    set_compressed_size(&mut config);
    config
}

/// The configuration when the backup ends.
pub(super) fn trailing(plan: &Plan, now: &Moment, damaged: bool) -> Config {
    let mut config = plan.leading.clone();
    config.database.finish = now.date;
    config.database.backup_size = plan.size;
    if damaged {
        config.database.flags |= database_flags::DAMAGED;
    }
    set_compressed_size(&mut config);
    // A snapshot backup has the pages, too: in the client's files.
    let is_base = |file: &FileRecord| !plan.copy_only && (file.pages > 0 || !plan.has_content());
    let first = config.database.first_lsn;
    for file in config.files.iter_mut().filter(|file| file.file_type() == FileType::Data && is_base(file)) {
        (file.differential_base_lsn, file.differential_base) = (first, plan.start.id);
        file.differential_base_time = now.filetime;
    }
    for file in config.files.iter_mut().filter(|file| file.file_type() == FileType::Log) {
        let log = plan.log.iter().filter(|vlf| vlf.file_id == file.file_id);
        file.backup_bytes = log.map(Vlf::range_len).sum();
        file.pages = (file.backup_bytes / PAGE_BYTES) as u32;
    }
    config
}

/// CompressedBackupSize: as BackupSize, but in SQL Server 2005, which has no such field.
fn set_compressed_size(config: &mut Config) {
    if config.database.software_major >= 10 {
        config.database.compressed_size = config.database.backup_size;
    }
}
