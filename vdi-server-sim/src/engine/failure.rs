//! Why a statement failed.
//!
//! The module `reporting` says what a failure is told as.

use thiserror::Error;
use vdi_mtf::sqlserver::config::BackupKind;
use vdi_mtf::value::{Guid, PageAddress};
use vdi_proto::abort::Cause;
use vdi_proto::completion::CompletionCode;
use vdi_proto::status::VdError;

use crate::storage::StorageError;
use crate::vds::{Abort, VdsError};

/// Why a statement failed.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum Failure {
    /// SQL Server backs up or restores no database of this name in this way.
    #[error("the system database {name} {what}")]
    SystemDatabase {
        /// The database.
        name: String,
        /// What cannot be done, and what to do.
        what: &'static str,
    },
    /// The set could not be opened or configured.
    #[error(transparent)]
    Set(#[from] VdsError),
    /// The client's set has another number of devices than the statement names.
    #[error(
        "the statement names {named} devices, the client created the set with {created}; name each device once, or \
         create the set with as many"
    )]
    DeviceCount {
        /// Devices in the statement.
        named: usize,
        /// Devices of the set.
        created: u32,
        /// The device that the statement names first.
        device: String,
    },
    /// A command failed on a device.
    #[error(
        "{operation} on device {device:?} failed: {code}{}{}",
        show_bytes(*bytes, *size),
        clear_error.map(|code| format!("; ClearError failed too: {code}")).unwrap_or_default()
    )]
    Device {
        /// The device.
        device: String,
        /// Which command.
        operation: &'static str,
        /// The client's completion code.
        code: CompletionCode,
        /// Bytes that it reported.
        bytes: u32,
        /// Bytes that it was asked for.
        size: u32,
        /// How the client answered ClearError, where it failed that too.
        clear_error: Option<CompletionCode>,
    },
    /// A client's answer to a command cannot be right.
    #[error("the answer to {operation} on device {device:?} makes no sense: {what}; the client is at fault")]
    Answer {
        /// The device.
        device: String,
        /// Which command.
        operation: &'static str,
        /// What is wrong with it.
        what: String,
    },
    /// The set was aborted.
    #[error("the set was aborted: {}", show_abort(abort.as_ref()))]
    Aborted {
        /// The device that the statement names first.
        device: String,
        /// Why.
        abort: Option<Abort>,
    },
    /// [`Cancel::cancel`](super::Cancel::cancel) was called before the statement had taken its last step.
    #[error("the statement was cancelled by its user")]
    Cancelled,
    /// The fault [`FailAfterClose`](crate::faults::Fault::FailAfterClose).
    #[error("every device was closed in order, then the statement failed: the fault fail-after-close")]
    AfterClose {
        /// The database.
        database: String,
    },
    /// What comes from a device is no backup, or is damaged.
    #[error("device {device:?}: {source}{}", media_remedy(source))]
    Medium {
        /// The device.
        device: String,
        /// The database; empty before the header of the backup set was read where the statement names none.
        database: String,
        /// What is wrong.
        source: vdi_mtf::Error,
    },
    /// What comes from a device is sound, but cannot belong to the backup.
    #[error("device {device:?}: {what}; make a new backup, or restore another one")]
    Content {
        /// The device.
        device: String,
        /// What is wrong.
        what: String,
    },
    /// The devices are not the families of one media set.
    #[error("device {device:?}: {source}")]
    Families {
        /// The device that does not fit.
        device: String,
        /// The device that has brought the same family before.
        earlier: Option<String>,
        /// What is wrong.
        source: FamilyError,
    },
    /// All devices came to their end, and something of the database is missing.
    #[error("the backup of database '{database}' is incomplete: {what}; make a new backup, or restore another one")]
    Incomplete {
        /// The database that is being restored.
        database: String,
        /// What is missing.
        what: String,
    },
    /// The media have no backup set at this position.
    #[error(
        "device {device:?}: there is no backup set {file}, only {sets}; restore WITH FILE = {sets}, or look with RESTORE HEADERONLY"
    )]
    NoSuchSet {
        /// The device.
        device: String,
        /// FILE of the statement.
        file: u32,
        /// Sets that there are.
        sets: usize,
    },
    /// RESTORE DATABASE takes full backups only.
    #[error("device {device:?} has {}", show_kind(*kind))]
    Kind {
        /// The device.
        device: String,
        /// The kind of its backup.
        kind: BackupKind,
    },
    /// RESTORE WITH CHECKSUM of a backup that has none.
    #[error(
        "device {device:?}: the backup has no backup checksums; restore without CHECKSUM, its pages are verified all the same"
    )]
    NoChecksums {
        /// The device.
        device: String,
    },
    /// BLOCKSIZE is not that of the backup.
    #[error(
        "device {device:?}: the backup has blocks of {found} bytes; restore WITH BLOCKSIZE = {found}, not {requested}"
    )]
    BlockSize {
        /// The device.
        device: String,
        /// The backup's.
        found: u32,
        /// The statement's.
        requested: u32,
    },
    /// WITH SNAPSHOT of a backup that has data, or the reverse.
    #[error("device {device:?}: {}", match is_snapshot {
        true => "the backup has no data, since it was made WITH SNAPSHOT; restore WITH SNAPSHOT",
        false => "the backup was not made WITH SNAPSHOT, and has the data itself; restore without SNAPSHOT",
    })]
    SnapshotMismatch {
        /// The device.
        device: String,
        /// Whether the backup is a snapshot.
        is_snapshot: bool,
    },
    /// A file of the database cannot be restored to where it is to be.
    #[error("{source}")]
    Placement {
        /// The file's logical name.
        logical_name: String,
        /// Why not.
        source: Box<StorageError>,
    },
    /// The backup was made of damaged pages.
    #[error(
        "device {device:?}: pages of the database were damaged when it was backed up; restore WITH CONTINUE_AFTER_ERROR to get the rest"
    )]
    DamagedBackup {
        /// The device.
        device: String,
    },
    /// A file that the client has put into place is not that of the snapshot.
    #[error("the file {} is not that of the snapshot: its CRC-32 is {found:#010x}, expected {expected:#010x}; have the client put the file \
             of the snapshot there", path.display())]
    SnapshotSum {
        /// The database.
        database: String,
        /// The file.
        path: std::path::PathBuf,
        /// The sum in the backup.
        expected: u32,
        /// That of the file.
        found: u32,
    },
    /// The file of a DISK device.
    #[error(
        "could not {action} the file {path:?}: {source}; {}", source_remedy(source.kind())
    )]
    DiskFile {
        /// What was tried: `open` or `read`.
        action: &'static str,
        /// The file.
        path: String,
        /// What the system said.
        source: std::io::Error,
    },
    /// The system refused something.
    #[error("could not {action}: {source}")]
    System {
        /// What was tried.
        action: &'static str,
        /// What the system said.
        source: std::io::Error,
    },
    /// The database's files, or the catalog.
    #[error(transparent)]
    Storage(#[from] StorageError),
    /// The backup cannot be laid out: a text is too long, or the log has impossible ranges.
    #[error("the backup cannot be written: {0}")]
    Layout(#[from] vdi_mtf::Error),
    /// The file of a DISK device that a BACKUP writes.
    #[error(
        "could not {action} the file {path:?}: {source}; {}", target_remedy(source.kind())
    )]
    DiskTarget {
        /// What was tried: `open`, `read`, `write to` or `rename`.
        action: &'static str,
        /// The file.
        path: String,
        /// What the system said.
        source: std::io::Error,
    },
    /// NOINIT: no backup set can follow what is on the medium.
    #[error("device {device:?}: no backup set can be appended: {what}; use INIT or FORMAT, or another file")]
    NotAppendable {
        /// The device.
        device: String,
        /// Why not.
        what: String,
    },
    /// INIT: a backup set on the medium has not expired.
    #[error("device {device:?}: a backup set on it expires on {expires}; use SKIP or FORMAT, or another file")]
    NotExpired {
        /// The device.
        device: String,
        /// When it does: local time.
        expires: String,
    },
    /// FILE names no data file of the database.
    #[error(
        "database '{database}' has no data file with the logical name '{name}'; RESTORE FILELISTONLY lists the names"
    )]
    UnknownFile {
        /// The logical name.
        name: String,
        /// The database.
        database: String,
    },
    /// FILEGROUP names no filegroup of the database.
    #[error("database '{database}' has no filegroup '{name}' with data files")]
    UnknownFilegroup {
        /// The filegroup.
        name: String,
        /// The database.
        database: String,
    },
    /// A page of the database is damaged (BACKUP WITH CHECKSUM).
    #[error("{}: {source}; restore the database from an older backup, or use CONTINUE_AFTER_ERROR", path.display())]
    DamagedPage {
        /// The database.
        database: String,
        /// The file.
        path: std::path::PathBuf,
        /// The page.
        page: PageAddress,
        /// What is wrong.
        source: Box<vdi_mtf::Error>,
    },
}

/// What to do where the file of a DISK device cannot be read.
fn source_remedy(kind: std::io::ErrorKind) -> &'static str {
    match kind {
        std::io::ErrorKind::NotFound => "make sure that the path is right; a relative path begins at the data folder",
        _ => "make sure that it is a backup, and that this program may read it",
    }
}

/// What to do where the file of a DISK device cannot be written.
fn target_remedy(kind: std::io::ErrorKind) -> &'static str {
    use std::io::ErrorKind;
    match kind {
        ErrorKind::ResourceBusy => "choose another file",
        ErrorKind::NotFound => "make its folder, or choose another path; a relative path begins at the data folder",
        _ => "make sure that this program may write it, and that the disk has room",
    }
}

/// Why devices are not the families of one media set.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum FamilyError {
    /// The statement names another number of devices than the media set has families.
    #[error("the backup was written to {families} devices, the statement names {provided}; name as many")]
    Count {
        /// Families of the media set.
        families: usize,
        /// Devices of the statement.
        provided: usize,
    },
    /// Another device has brought the same family.
    #[error(
        "it has family {family} of the backup again; name each device once, and connect each to another part of the backup"
    )]
    Repeated {
        /// The family, from 1.
        family: u16,
    },
    /// It belongs to another backup than the devices before.
    #[error("it has {what} {found}, device {other:?} has {expected}; connect all devices to parts of one backup")]
    Foreign {
        /// `media set` or `backup set`.
        what: &'static str,
        /// The device that it was compared with, which the statement names earlier.
        other: String,
        /// That of the other device.
        expected: Guid,
        /// That of this one.
        found: Guid,
    },
}

/// What to do about a medium that cannot be read, where the error does not say so.
fn media_remedy(error: &vdi_mtf::Error) -> &'static str {
    use vdi_mtf::Error;
    match error {
        Error::CompressedContainer { .. }
        | Error::Compressed { .. }
        | Error::Encrypted { .. }
        | Error::Continued { .. } => "",
        Error::Empty => "; make sure that it is the right one, and that the backup has ended",
        Error::NotMtf { .. } => "; make sure that the device reads a backup from its beginning",
        Error::Truncated { .. } => "; the backup is incomplete: make sure that the device reads all of it",
        _ => "; the backup is damaged: make a new one, or restore another one",
    }
}

fn show_kind(kind: BackupKind) -> String {
    let (what, remedy) = match kind {
        BackupKind::Differential => ("a differential backup", "restore the full backup that it is based on"),
        BackupKind::Log => ("a log backup", "restore a full backup"),
        _ => ("a backup of a part of a database", "restore a full backup"),
    };
    format!("{what}, and this simulator restores full backups only: {remedy}")
}

/// How much of a transfer was done; nothing for a command without data.
fn show_bytes(bytes: u32, size: u32) -> String {
    if size == 0 { String::new() } else { format!(", {bytes} of {size} bytes") }
}

fn show_abort(abort: Option<&Abort>) -> String {
    let Some(abort) = abort else { return "its reason was overwritten".to_owned() };
    let remedy = match abort.reason.cause {
        Cause::Died => {
            "; look for the end of that process in its log and the system's, then run the statement again with a new set"
        }
        Cause::ClosedEarly | Cause::AbandonedCommand | Cause::AbandonedDevice => {
            "; look at the messages of that process, then run the statement again with a new set"
        }
        // The text of the abort says what to do, or its cause says it all.
        _ => "",
    };
    format!("{abort}{remedy}")
}

impl Failure {
    /// Whether the server failed by itself, and neither a device nor the set did.
    pub(super) fn is_the_servers_own(&self) -> bool {
        match self {
            Failure::System { .. } => true,
            Failure::Storage(_) | Failure::Layout(_) | Failure::DamagedPage { .. } => true,
            Failure::UnknownFile { .. } | Failure::UnknownFilegroup { .. } => true,
            Failure::SystemDatabase { .. }
            | Failure::Set(_)
            | Failure::DeviceCount { .. }
            | Failure::Device { .. }
            | Failure::Answer { .. }
            | Failure::Aborted { .. }
            | Failure::Cancelled
            | Failure::AfterClose { .. }
            | Failure::Medium { .. }
            | Failure::Content { .. }
            | Failure::Families { .. }
            | Failure::Incomplete { .. }
            | Failure::NoSuchSet { .. }
            | Failure::Kind { .. }
            | Failure::NoChecksums { .. }
            | Failure::BlockSize { .. }
            | Failure::SnapshotMismatch { .. }
            | Failure::Placement { .. }
            | Failure::SnapshotSum { .. }
            | Failure::DamagedBackup { .. }
            | Failure::DiskFile { .. }
            | Failure::DiskTarget { .. }
            | Failure::NotAppendable { .. }
            | Failure::NotExpired { .. } => false,
        }
    }

    /// The code behind it, for the client: a status (HRESULT), a completion code, or 0.
    pub(super) fn code(&self) -> u32 {
        match self {
            Failure::Set(error) => error.code.hresult(),
            Failure::DeviceCount { .. } => VdError::NotSupported.hresult(),
            Failure::Device { code, .. } => code.number(),
            Failure::Cancelled => CompletionCode::OPERATION_ABORTED.number(),
            _ => 0,
        }
    }

    /// The status of the interface behind it, where there is one.
    #[must_use]
    pub fn status(&self) -> Option<VdError> {
        match self {
            Failure::Set(error) => Some(error.code),
            Failure::Aborted { .. } => Some(VdError::Abort),
            _ => None,
        }
    }
}
