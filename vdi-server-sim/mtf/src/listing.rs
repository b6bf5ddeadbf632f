//! What RESTORE LABELONLY, HEADERONLY and FILELISTONLY show of a medium.
//!
//! The fields are named after the statements' columns. Columns whose place in the format is not known are left out: ExpirationDate,
//! IsCopyOnly and other options, CreateLSN, DropLSN, ReadOnlyLSN, ReadWriteLSN.

use crate::medium::{BackupSet, Medium};
use crate::sqlserver::config::{BackupKind, Config, FileType, RecoveryModel};
use crate::value::{DateTime, FileId, Guid, Lsn};

/// A row of RESTORE LABELONLY. (From the blocks' label and media set.)
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Label {
    /// MediaName.
    pub media_name: String,
    /// MediaSetId.
    pub media_set_id: Guid,
    /// FamilyCount.
    pub family_count: u16,
    /// FamilySequenceNumber.
    pub family_number: u16,
    /// MediaFamilyId: the family's number as the first group, then zeros.
    pub media_family_id: Guid,
    /// MediaSequenceNumber.
    pub media_number: u16,
    /// MediaDescription.
    pub media_description: String,
    /// SoftwareName.
    pub software_name: String,
    /// SoftwareVendorId.
    pub vendor_id: u16,
    /// MediaDate.
    pub date: DateTime,
}

impl Label {
    /// The label of a medium.
    pub fn of(medium: &Medium) -> Self {
        let (label, set) = (&medium.label, &medium.media_set);
        let mut family = [0; 16];
        family[..4].copy_from_slice(&label.family_id.to_le_bytes());
        Label {
            media_name: label.name.to_string(),
            media_set_id: set.id,
            family_count: set.family_count,
            family_number: set.family_number,
            media_family_id: Guid(family),
            media_number: label.sequence_number,
            media_description: label.description.to_string(),
            software_name: label.software.to_string(),
            vendor_id: label.vendor,
            date: label.date,
        }
    }
}

/// A row of RESTORE HEADERONLY: a backup set. (From SSET, VOLB, and the trailing configuration.)
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Header {
    /// BackupName.
    pub backup_name: String,
    /// BackupDescription.
    pub backup_description: String,
    /// BackupType is [`BackupKind::number`].
    pub kind: BackupKind,
    /// Position.
    pub position: u16,
    /// UserName.
    pub user_name: String,
    /// ServerName.
    pub server_name: String,
    /// MachineName.
    pub machine_name: String,
    /// DatabaseName.
    pub database_name: String,
    /// DatabaseVersion.
    pub database_version: u16,
    /// DatabaseCreationDate.
    pub database_created: DateTime,
    /// BackupSize, over all families.
    pub backup_size: u64,
    /// CompressedBackupSize; 0 in SQL Server 2005, which has no such field.
    pub compressed_size: u64,
    /// FirstLSN.
    pub first_lsn: Lsn,
    /// LastLSN.
    pub last_lsn: Lsn,
    /// CheckpointLSN.
    pub checkpoint_lsn: Lsn,
    /// DatabaseBackupLSN.
    pub database_backup_lsn: Lsn,
    /// BackupStartDate.
    pub start: DateTime,
    /// BackupFinishDate. None while only the start of the set was read.
    pub finish: DateTime,
    /// SortOrder.
    pub sort_order: u8,
    /// UnicodeLocaleId.
    pub unicode_locale: u32,
    /// UnicodeComparisonStyle.
    pub unicode_comparison: u32,
    /// CompatibilityLevel.
    pub compatibility_level: u8,
    /// SoftwareVendorId.
    pub vendor_id: u16,
    /// SoftwareVersionMajor, SoftwareVersionMinor, SoftwareVersionBuild.
    pub software_version: (u8, u8, u16),
    /// Flags.
    pub flags: u32,
    /// BindingID.
    pub binding_id: Guid,
    /// RecoveryForkID.
    pub recovery_fork: Guid,
    /// FirstRecoveryForkID: the fork at the start of the backup. Differs from RecoveryForkID if there is a fork point in it.
    pub first_recovery_fork: Guid,
    /// ForkPointLSN, if there is one.
    pub fork_point_lsn: Option<Lsn>,
    /// FamilyGUID.
    pub family: Guid,
    /// HasBackupChecksums.
    pub has_checksums: bool,
    /// BeginsLogChain: the first log backup of a chain.
    pub begins_log_chain: bool,
    /// RecoveryModel.
    pub recovery_model: RecoveryModel,
    /// DifferentialBaseLSN, if the backup is a differential one.
    pub differential_base_lsn: Option<Lsn>,
    /// DifferentialBaseGUID, if the backup is a differential one.
    pub differential_base: Option<Guid>,
    /// BackupSetGUID.
    pub set_id: Guid,
}

impl Header {
    /// The header of a set.
    pub fn of(set: &BackupSet) -> Self {
        let (start, database) = (&set.start, &set.config().database);
        let kind = database.kind();
        let forked = !database.fork_point_lsn.is_zero();
        let differential = kind == BackupKind::Differential;
        Header {
            backup_name: start.name.to_string(),
            backup_description: start.description.to_string(),
            kind,
            position: start.number,
            user_name: start.user.to_string(),
            server_name: database.server.to_string(),
            machine_name: set.volume.machine.to_string(),
            database_name: database.name.to_string(),
            database_version: database.database_version,
            database_created: database.created,
            backup_size: database.backup_size,
            compressed_size: database.compressed_size,
            first_lsn: database.first_lsn,
            last_lsn: database.last_lsn,
            checkpoint_lsn: database.checkpoint_lsn,
            database_backup_lsn: database.full_backup_lsn,
            start: database.start,
            finish: database.finish,
            sort_order: database.sort_order,
            unicode_locale: database.unicode_locale,
            unicode_comparison: database.unicode_comparison,
            compatibility_level: database.compatibility_level,
            vendor_id: start.vendor,
            software_version: (database.software_major, database.software_minor, database.software_build),
            flags: database.flags,
            binding_id: database.binding_id,
            recovery_fork: database.recovery_fork,
            first_recovery_fork: if forked { database.previous_fork } else { database.recovery_fork },
            fork_point_lsn: forked.then_some(database.fork_point_lsn),
            family: database.family,
            has_checksums: database.has_checksums(),
            begins_log_chain: kind == BackupKind::Log && database.first_lsn == database.log_chain_lsn,
            recovery_model: database.recovery_model(),
            differential_base_lsn: differential.then_some(database.differential_base_lsn),
            differential_base: differential.then_some(database.differential_base),
            set_id: start.id,
        }
    }
}

/// A row of RESTORE FILELISTONLY: a file of the database.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FileEntry {
    /// LogicalName.
    pub logical_name: String,
    /// PhysicalName.
    pub physical_name: String,
    /// Type.
    pub file_type: FileType,
    /// FileGroupName; empty for a log file.
    pub filegroup_name: String,
    /// Size in bytes.
    pub size: u64,
    /// MaxSize in bytes.
    pub max_size: u64,
    /// FileId.
    pub file_id: FileId,
    /// UniqueId.
    pub unique_id: Guid,
    /// BackupSizeInBytes.
    pub backup_bytes: u64,
    /// SourceBlockSize.
    pub source_block: u32,
    /// FileGroupId; 0 for a log file.
    pub filegroup_id: u16,
    /// DifferentialBaseLSN, if the file has a differential base.
    pub differential_base_lsn: Option<Lsn>,
    /// DifferentialBaseGUID, if the file has a differential base.
    pub differential_base: Option<Guid>,
    /// IsPresent: the backup has data or log of the file.
    pub is_present: bool,
}

/// The files of a backup set.
///
/// The leading configuration is enough, and comes within the first kilobytes of a set. The trailing one has the size of the log in it.
pub fn file_list(config: &Config) -> Vec<FileEntry> {
    config
        .files
        .iter()
        .map(|file| {
            let based = !file.differential_base.is_zero();
            let log_backup = config.database.kind() == BackupKind::Log;
            FileEntry {
                logical_name: file.logical_name.to_string(),
                physical_name: file.physical_name.to_string(),
                file_type: file.file_type(),
                filegroup_name: config.filegroup_of(file),
                size: file.size,
                max_size: file.max_size,
                file_id: file.file_id,
                unique_id: file.unique_id,
                backup_bytes: file.backup_bytes,
                source_block: file.source_block,
                filegroup_id: file.filegroup,
                differential_base_lsn: based.then_some(file.differential_base_lsn),
                differential_base: based.then_some(file.differential_base),
                is_present: file.pages > 0 || file.file_type() == FileType::Log || log_backup,
            }
        })
        .collect()
}
