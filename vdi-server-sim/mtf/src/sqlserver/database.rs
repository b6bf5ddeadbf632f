//! The record of the database and its backup (`SCIN`).

use core::fmt;

use crate::layout::record;
use crate::value::{DateTime, Guid, Lsn};

/// Bits of [`Database::flags`].
pub mod flags {
    /// BACKUP WITH SNAPSHOT. (Flags of RESTORE HEADERONLY, as documented. Not observed.)
    pub const SNAPSHOT: u32 = 0x2;
    /// The backup has damaged pages: WITH CONTINUE_AFTER_ERROR. (Flags of RESTORE HEADERONLY, as documented. Not observed.)
    pub const DAMAGED: u32 = 0x20;
    /// BACKUP WITH CHECKSUM.
    pub const CHECKSUMS: u32 = 0x10;
    /// Set in all observed backups.
    pub const ALWAYS: u32 = 0x200;
    /// A differential backup.
    pub const DIFFERENTIAL: u32 = 0x800;
}

/// The letter of a backup's kind, as msdb has it in `backupset.type`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum BackupKind {
    /// `D`: all pages of the database.
    Full,
    /// `I`: the extents that changed since the last full backup.
    Differential,
    /// `L`: the log since the last log backup.
    Log,
    /// Another letter: `F`, `G`, `P` and `Q` are backups of files and partial ones.
    Other(u8),
}

impl BackupKind {
    /// The kind with this letter.
    pub fn from_letter(letter: u8) -> Self {
        match letter {
            b'D' => BackupKind::Full,
            b'I' => BackupKind::Differential,
            b'L' => BackupKind::Log,
            other => BackupKind::Other(other),
        }
    }

    /// The letter.
    pub fn letter(self) -> u8 {
        match self {
            BackupKind::Full => b'D',
            BackupKind::Differential => b'I',
            BackupKind::Log => b'L',
            BackupKind::Other(letter) => letter,
        }
    }

    /// BackupType of RESTORE HEADERONLY: 1 database, 2 log, 4 file, 5 differential, 6 differential file, 7 partial, 8
    /// differential partial. 0 if the letter is unknown.
    pub fn number(self) -> u8 {
        match self.letter() {
            b'D' => 1,
            b'L' => 2,
            b'F' => 4,
            b'I' => 5,
            b'G' => 6,
            b'P' => 7,
            b'Q' => 8,
            _ => 0,
        }
    }
}

/// The recovery model of the database.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum RecoveryModel {
    /// SIMPLE.
    Simple,
    /// BULK_LOGGED.
    BulkLogged,
    /// FULL.
    Full,
}

/// As `recovery_model_desc` of `sys.databases` has it.
impl fmt::Display for RecoveryModel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            RecoveryModel::Simple => "SIMPLE",
            RecoveryModel::BulkLogged => "BULK_LOGGED",
            RecoveryModel::Full => "FULL",
        })
    }
}

record! {
    /// The database and its backup (record `SCIN`). (Observed in backups of SQL Server 2005 to 2022.)
    ///
    /// The leading copy has the values at the start of the backup, the trailing copy those at its end. Fields that a version does not
    /// write are zero.
    pub struct Database(least 344) {
        /// Bits of [`flags`]. RESTORE HEADERONLY shows them.
        flags: u32 = 8,
        /// The number of data files.
        data_files: u32 = 12,
        /// The number of log files.
        log_files: u32 = 16,
        /// The next object id (to SQL Server 2008 R2), or 0.
        next_object: u32 = 20,
        /// The server's build.
        software_build: u16 = 24,
        /// The server's minor version.
        software_minor: u8 = 26,
        /// The server's major version.
        software_major: u8 = 27,
        /// FirstLSN: the oldest log record that a restore needs.
        first_lsn: Lsn = 32,
        /// LastLSN: the next log record after the backup's.
        last_lsn: Lsn = 42,
        /// CheckpointLSN: where redo begins. Equals FirstLSN in full and differential backups.
        checkpoint_lsn: Lsn = 52,
        /// DatabaseBackupLSN: FirstLSN of the last full backup before this one.
        full_backup_lsn: Lsn = 62,
        /// When the database was created on that server. Local time.
        created: DateTime = 72,
        /// When the backup began. Local time.
        start: DateTime = 77,
        /// When the backup ended. Local time. None in the leading copy.
        finish: DateTime = 82,
        /// The letter of the backup's kind; see [`Database::kind`].
        kind_letter: u8 = 87,
        /// The sort order: 52, or 0.
        sort_order: u8 = 88,
        /// The compatibility level: 80 to 160.
        compatibility_level: u8 = 91,
        /// The database's id on the server.
        database_id: u16 = 92,
        /// The database's internal version: 611 for SQL Server 2005, 957 for 2022.
        database_version: u16 = 94,
        /// BackupSize. Leading: bytes of data and log. Trailing: bytes of the set, summed over its families.
        backup_size: u64 = 96,
        /// UnicodeLocaleId.
        unicode_locale: u32 = 116,
        /// UnicodeComparisonStyle.
        unicode_comparison: u32 = 120,
        /// BindingID: identifies the database's files; page 0 of file 1 repeats it.
        binding_id: Guid = 124,
        /// LastLSN again, at the recovery fork.
        log_end_lsn: Lsn = 144,
        /// RecoveryForkID: the branch of the log at the end of the backup.
        recovery_fork: Guid = 156,
        /// ForkPointLSN: where the recovery fork began, if it is not the first.
        fork_point_lsn: Lsn = 172,
        /// The fork before.
        previous_fork: Guid = 184,
        /// The GUID of the backup set of the last full backup before this one.
        full_backup_set: Guid = 200,
        /// The collation's locale and flags.
        collation: u32 = 216,
        /// The collation's sort id: 52, or 0.
        collation_sort_id: u32 = 220,
        /// FamilyGUID: the first fork of the database; stays the same when it is restored.
        family: Guid = 224,
        /// The status word of the database; see [`Database::recovery_model`].
        status: u32 = 244,
        /// Where the log chain began: FirstLSN of the first log backup.
        log_chain_lsn: Lsn = 248,
        /// DifferentialBaseLSN, in differential backups.
        differential_base_lsn: Lsn = 260,
        /// DifferentialBaseGUID, in differential backups.
        differential_base: Guid = 272,
        /// SQL Server 2008 to 2012: LastLSN of the previous log backup. Later ones: FirstLSN or earlier.
        previous_log_lsn: Lsn = 332,
        /// CompressedBackupSize (SQL Server 2008 on): as BackupSize.
        compressed_size: u64 = 344,
    }
    texts(Zero) {
        /// The database.
        name = 104,
        /// The server and its instance.
        server = 108,
        /// Empty in all observed backups.
        unknown_112 = 112,
    }
}

impl Database {
    /// A record as server version `major` writes it, with all fields zero.
    pub fn new(major: u8) -> Self {
        let len = match major {
            0..=9 => 344,
            10 => 364,
            _ => 400,
        };
        Database { flags: flags::ALWAYS, software_major: major, raw: vec![0; len], ..Database::default() }
    }

    /// The backup's kind.
    pub fn kind(&self) -> BackupKind {
        BackupKind::from_letter(self.kind_letter)
    }

    /// The database's recovery model.
    pub fn recovery_model(&self) -> RecoveryModel {
        match self.status {
            status if status & 0x8 != 0 => RecoveryModel::Simple,
            status if status & 0x4 != 0 => RecoveryModel::BulkLogged,
            _ => RecoveryModel::Full,
        }
    }

    /// Whether the backup was made WITH CHECKSUM.
    pub fn has_checksums(&self) -> bool {
        self.flags & flags::CHECKSUMS != 0
    }
}
