//! The result sets of RESTORE LABELONLY, HEADERONLY and FILELISTONLY: names, order and types of the columns are those that SQL Server
//! 2022 documents for the statements.
//!
//! Values come from [`vdi_mtf::listing`]. A column whose place in a backup is not known has the value that it has in an ordinary
//! database: 0 or NULL.

use vdi_mtf::listing::{FileEntry, Header, Label, file_list};
use vdi_mtf::medium::{BackupSet, Medium};
use vdi_mtf::sqlserver::config::{BackupKind, Config, FileType, RecoveryModel};
use vdi_mtf::value::{DateTime, Guid, Lsn};

use crate::engine::Report;
use crate::tsql::DeviceType;
use crate::types::{self, Column, SqlType, Value};

const fn nvarchar(length: u16) -> SqlType {
    SqlType::NVarChar { length: Some(length) }
}

const LSN: SqlType = SqlType::Numeric { precision: 25, scale: 0 };
const SIZE: SqlType = SqlType::Numeric { precision: 20, scale: 0 };

const LABEL: [(&str, SqlType); 13] = [
    ("MediaName", nvarchar(128)),
    ("MediaSetId", SqlType::UniqueIdentifier),
    ("FamilyCount", SqlType::Int),
    ("FamilySequenceNumber", SqlType::Int),
    ("MediaFamilyId", SqlType::UniqueIdentifier),
    ("MediaSequenceNumber", SqlType::Int),
    ("MediaLabelPresent", SqlType::TinyInt),
    ("MediaDescription", nvarchar(255)),
    ("SoftwareName", nvarchar(128)),
    ("SoftwareVendorId", SqlType::Int),
    ("MediaDate", SqlType::DateTime),
    ("Mirror_Count", SqlType::Int),
    ("IsCompressed", SqlType::Bit),
];

const HEADER: [(&str, SqlType); 59] = [
    ("BackupName", nvarchar(128)),
    ("BackupDescription", nvarchar(255)),
    ("BackupType", SqlType::SmallInt),
    ("ExpirationDate", SqlType::DateTime),
    ("Compressed", SqlType::Bit),
    ("Position", SqlType::SmallInt),
    ("DeviceType", SqlType::TinyInt),
    ("UserName", nvarchar(128)),
    ("ServerName", nvarchar(128)),
    ("DatabaseName", nvarchar(128)),
    ("DatabaseVersion", SqlType::Int),
    ("DatabaseCreationDate", SqlType::DateTime),
    ("BackupSize", SIZE),
    ("FirstLSN", LSN),
    ("LastLSN", LSN),
    ("CheckpointLSN", LSN),
    ("DatabaseBackupLSN", LSN),
    ("BackupStartDate", SqlType::DateTime),
    ("BackupFinishDate", SqlType::DateTime),
    ("SortOrder", SqlType::SmallInt),
    ("CodePage", SqlType::SmallInt),
    ("UnicodeLocaleId", SqlType::Int),
    ("UnicodeComparisonStyle", SqlType::Int),
    ("CompatibilityLevel", SqlType::TinyInt),
    ("SoftwareVendorId", SqlType::Int),
    ("SoftwareVersionMajor", SqlType::Int),
    ("SoftwareVersionMinor", SqlType::Int),
    ("SoftwareVersionBuild", SqlType::Int),
    ("MachineName", nvarchar(128)),
    ("Flags", SqlType::Int),
    ("BindingID", SqlType::UniqueIdentifier),
    ("RecoveryForkID", SqlType::UniqueIdentifier),
    ("Collation", nvarchar(128)),
    ("FamilyGUID", SqlType::UniqueIdentifier),
    ("HasBulkLoggedData", SqlType::Bit),
    ("IsSnapshot", SqlType::Bit),
    ("IsReadOnly", SqlType::Bit),
    ("IsSingleUser", SqlType::Bit),
    ("HasBackupChecksums", SqlType::Bit),
    ("IsDamaged", SqlType::Bit),
    ("BeginsLogChain", SqlType::Bit),
    ("HasIncompleteMetaData", SqlType::Bit),
    ("IsForceOffline", SqlType::Bit),
    ("IsCopyOnly", SqlType::Bit),
    ("FirstRecoveryForkID", SqlType::UniqueIdentifier),
    ("ForkPointLSN", LSN),
    ("RecoveryModel", nvarchar(60)),
    ("DifferentialBaseLSN", LSN),
    ("DifferentialBaseGUID", SqlType::UniqueIdentifier),
    ("BackupTypeDescription", nvarchar(60)),
    ("BackupSetGUID", SqlType::UniqueIdentifier),
    ("CompressedBackupSize", SqlType::BigInt),
    ("containment", SqlType::TinyInt),
    ("KeyAlgorithm", nvarchar(32)),
    ("EncryptorThumbprint", SqlType::VarBinary { length: Some(20) }),
    ("EncryptorType", nvarchar(32)),
    ("LastValidRestoreTime", SqlType::DateTime),
    ("TimeZone", nvarchar(32)),
    ("CompressionAlgorithm", nvarchar(32)),
];

const FILES: [(&str, SqlType); 22] = [
    ("LogicalName", nvarchar(128)),
    ("PhysicalName", nvarchar(260)),
    ("Type", SqlType::Char { length: 1 }),
    ("FileGroupName", nvarchar(128)),
    ("Size", SIZE),
    ("MaxSize", SIZE),
    ("FileId", SqlType::BigInt),
    ("CreateLSN", LSN),
    ("DropLSN", LSN),
    ("UniqueId", SqlType::UniqueIdentifier),
    ("ReadOnlyLSN", LSN),
    ("ReadWriteLSN", LSN),
    ("BackupSizeInBytes", SqlType::BigInt),
    ("SourceBlockSize", SqlType::Int),
    ("FileGroupId", SqlType::Int),
    ("LogGroupGUID", SqlType::UniqueIdentifier),
    ("DifferentialBaseLSN", LSN),
    ("DifferentialBaseGUID", SqlType::UniqueIdentifier),
    ("IsReadOnly", SqlType::Bit),
    ("IsPresent", SqlType::Bit),
    ("TDEThumbprint", SqlType::VarBinary { length: Some(32) }),
    ("SnapshotUrl", nvarchar(360)),
];

/// The result set of LABELONLY.
pub(super) fn label(medium: &Medium, answers: &mut dyn Report) {
    begin(&LABEL, answers);
    let label = Label::of(medium);
    row(&LABEL, label_row(&label), answers);
}

/// The result set of HEADERONLY.
pub(super) fn headers(sets: &[BackupSet], device_type: DeviceType, answers: &mut dyn Report) {
    begin(&HEADER, answers);
    for set in sets {
        row(&HEADER, header_row(set, &Header::of(set), device_type), answers);
    }
}

/// The result set of FILELISTONLY.
pub(super) fn files(config: &Config, answers: &mut dyn Report) {
    begin(&FILES, answers);
    for file in file_list(config) {
        row(&FILES, file_row(&file), answers);
    }
}

fn begin(columns: &[(&str, SqlType)], answers: &mut dyn Report) {
    let column =
        |(name, sql_type): &(&str, SqlType)| Column { name: (*name).to_owned(), sql_type: *sql_type, nullable: true };
    answers.columns(&columns.iter().map(column).collect::<Vec<_>>());
}

/// A row. Texts that are longer than their columns, which no backup of SQL Server has, are cut.
fn row<const N: usize>(columns: &[(&str, SqlType); N], values: [Value; N], answers: &mut dyn Report) {
    let fit = |(value, (_, sql_type)): (Value, &(&str, SqlType))| match (value, sql_type) {
        (Value::Text(text), SqlType::NVarChar { length: Some(most) })
            if text.encode_utf16().count() > usize::from(*most) =>
        {
            let units: Vec<u16> = text.encode_utf16().take(usize::from(*most)).collect();
            Value::Text(String::from_utf16_lossy(&units))
        }
        (value, _) => value,
    };
    answers.row(values.into_iter().zip(columns).map(fit).collect());
}

/// SQL Server shows no name as NULL.
fn name(text: &str) -> Value {
    if text.is_empty() { Value::Null } else { Value::Text(text.to_owned()) }
}

fn text(text: &str) -> Value {
    Value::Text(text.to_owned())
}

fn guid(guid: Guid) -> Value {
    Value::UniqueIdentifier(guid.0)
}

fn lsn(lsn: Lsn) -> Value {
    Value::Numeric { unscaled: lsn.to_number() as i128, scale: 0 }
}

fn size(bytes: u64) -> Value {
    Value::Numeric { unscaled: bytes.into(), scale: 0 }
}

fn bigint(number: u64) -> Value {
    Value::BigInt(i64::try_from(number).unwrap_or(i64::MAX))
}

fn int(number: impl Into<i64>) -> Value {
    let number = number.into();
    Value::Int(i32::try_from(number).unwrap_or(if number < 0 { i32::MIN } else { i32::MAX }))
}

fn bit(flags: u32, bit: u32) -> Value {
    Value::Bit(flags & bit != 0)
}

/// A date, or NULL for none and for one that no calendar has.
fn date(date: DateTime) -> Value {
    let (year, month, day) = (i64::from(date.year()), i64::from(date.month()), i64::from(date.day()));
    let is_date =
        date.is_set() && (1753..=9999).contains(&year) && (1..=12).contains(&month) && (1..=31).contains(&day);
    if !is_date || date.hour() > 23 || date.minute() > 59 || date.second() > 59 {
        return Value::Null;
    }
    // As if the year began on the first of March: a leap day is its last day.
    let (year, month) = if month > 2 { (year, month - 3) } else { (year - 1, month + 9) };
    let days = 365 * year + year / 4 - year / 100 + year / 400 + (153 * month + 2) / 5 + day - 1;
    let seconds = u32::from(date.hour()) * 3600 + u32::from(date.minute()) * 60 + u32::from(date.second());
    // Days since 0000-03-01 to those since 1900-01-01.
    Value::DateTime(types::DateTime { days: (days - 693_901) as i32, ticks: seconds * 300 })
}

fn label_row(label: &Label) -> [Value; 13] {
    [
        name(&label.media_name),
        guid(label.media_set_id),
        int(label.family_count),
        int(label.family_number),
        guid(label.media_family_id),
        int(label.media_number),
        Value::TinyInt(0),
        name(&label.media_description),
        text(label.software_name.trim_end_matches('\0')),
        int(label.vendor_id),
        date(label.date),
        int(1),
        Value::Bit(false),
    ]
}

/// Bits of the column Flags, as documented.
mod flags {
    pub(super) const BULK_LOGGED: u32 = 1;
    pub(super) const SNAPSHOT: u32 = 2;
    pub(super) const READ_ONLY: u32 = 4;
    pub(super) const SINGLE_USER: u32 = 8;
    pub(super) const DAMAGED: u32 = 32;
    pub(super) const INCOMPLETE_METADATA: u32 = 128;
    pub(super) const NORECOVERY: u32 = 256;
    /// Not documented. Reported of SQL Server 2022.
    pub(super) const COPY_ONLY: u32 = 1024;
}

fn header_row(set: &BackupSet, header: &Header, device_type: DeviceType) -> [Value; 59] {
    let (major, minor, build) = header.software_version;
    let is_copy = set.start.attributes & vdi_mtf::set::attributes::COPY != 0;
    [
        name(&header.backup_name),
        name(&header.backup_description),
        Value::SmallInt(header.kind.number().into()),
        date(set.start.expiration),
        Value::Bit(false),
        Value::SmallInt(i16::try_from(header.position).unwrap_or(i16::MAX)),
        Value::TinyInt(device_type.number()),
        text(&header.user_name),
        text(&header.server_name),
        text(&header.database_name),
        int(header.database_version),
        date(header.database_created),
        size(header.backup_size),
        lsn(header.first_lsn),
        lsn(header.last_lsn),
        lsn(header.checkpoint_lsn),
        lsn(header.database_backup_lsn),
        date(header.start),
        date(header.finish),
        Value::SmallInt(header.sort_order.into()),
        Value::SmallInt(0),
        int(header.unicode_locale),
        int(header.unicode_comparison),
        Value::TinyInt(header.compatibility_level),
        int(header.vendor_id),
        int(major),
        int(minor),
        int(build),
        text(&header.machine_name),
        int(header.flags),
        guid(header.binding_id),
        guid(header.recovery_fork),
        collation(set),
        guid(header.family),
        bit(header.flags, flags::BULK_LOGGED),
        bit(header.flags, flags::SNAPSHOT),
        bit(header.flags, flags::READ_ONLY),
        bit(header.flags, flags::SINGLE_USER),
        Value::Bit(header.has_checksums),
        bit(header.flags, flags::DAMAGED),
        Value::Bit(header.begins_log_chain),
        bit(header.flags, flags::INCOMPLETE_METADATA),
        bit(header.flags, flags::NORECOVERY),
        Value::Bit(is_copy || header.flags & flags::COPY_ONLY != 0),
        guid(header.first_recovery_fork),
        header.fork_point_lsn.map_or(Value::Null, lsn),
        text(match header.recovery_model {
            RecoveryModel::Simple => "SIMPLE",
            RecoveryModel::BulkLogged => "BULK-LOGGED",
            RecoveryModel::Full => "FULL",
        }),
        header.differential_base_lsn.map_or(Value::Null, lsn),
        header.differential_base.map_or(Value::Null, guid),
        text(match header.kind {
            BackupKind::Full => "Database",
            BackupKind::Differential => "Database Differential",
            BackupKind::Log => "Transaction Log",
            BackupKind::Other(_) => "File or Filegroup",
        }),
        guid(header.set_id),
        bigint(if header.compressed_size == 0 { header.backup_size } else { header.compressed_size }),
        Value::TinyInt(0),
        Value::Null,
        Value::Null,
        Value::Null,
        Value::Null,
        Value::Null,
        Value::Null,
    ]
}

/// The name of the database's collation, where it is known: SQL Server's default in the United States.
fn collation(set: &BackupSet) -> Value {
    let database = &set.config().database;
    match (database.collation & 0xFFFFF, database.collation_sort_id) {
        (0x409, 52) => text("SQL_Latin1_General_CP1_CI_AS"),
        _ => Value::Null,
    }
}

fn file_row(file: &FileEntry) -> [Value; 22] {
    let none = || lsn(Lsn::default());
    [
        text(&file.logical_name),
        text(&file.physical_name),
        text(match file.file_type {
            FileType::Data => "D",
            FileType::Log => "L",
            FileType::Other(3) => "F",
            FileType::Other(_) => "S",
        }),
        name(&file.filegroup_name),
        size(file.size),
        size(file.max_size),
        bigint(file.file_id.0.into()),
        none(),
        none(),
        guid(file.unique_id),
        none(),
        none(),
        bigint(file.backup_bytes),
        int(file.source_block),
        int(file.filegroup_id),
        Value::Null,
        file.differential_base_lsn.map_or_else(none, lsn),
        guid(file.differential_base.unwrap_or_default()),
        Value::Bit(false),
        Value::Bit(file.is_present),
        Value::Null,
        Value::Null,
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_are_those_of_the_calendar() {
        for (year, month, day) in
            [(1753, 1, 1), (1900, 1, 1), (2000, 2, 29), (2024, 12, 31), (2026, 11, 30), (9999, 12, 31)]
        {
            let Value::DateTime(found) = date(DateTime::new(year, month, day, 23, 59, 58).unwrap()) else { panic!() };
            assert_eq!(found.date(), (year.into(), month.into(), day.into()));
            assert_eq!(found.to_string(), format!("{year:04}-{month:02}-{day:02} 23:59:58.000"));
        }
        assert_eq!(date(DateTime::default()), Value::Null);
        assert_eq!(date(DateTime::new(1601, 1, 1, 0, 0, 0).unwrap()), Value::Null);
        assert_eq!(date(DateTime([0xFF; 5])), Value::Null);
    }
}
