//! What a failure is reported as: SQL Server's messages to the client, and those that go to the server's error log.
//!
//! | failure | to the client | to the error log |
//! |---|---|---|
//! | the set is not there, or may not be joined | 3201, state 7 | 18210 Initialize |
//! | the set cannot be configured, or its device opened | 3201, state 6; 3261; 701 | 18210 |
//! | the statement and the set have another number of devices | 3261 | |
//! | Read or Write fails, or its answer is impossible | 3203 or 3202 | 18210 of the device |
//! | another command fails | 3271 | 18210 of the device |
//! | the set was aborted, or a client died | 3203 or 3202 with 995, of the first device | 18210 with 995, of every device |
//! | the user cancelled the statement | 3204 | |
//! | the fault fail-after-close | 9002, 3167 | |
//! | what comes is no backup, damaged, or ends too early | 3241, 3183, 3189, 3254, 3203 with 38 | |
//! | the devices do not belong together, something is missing | 3132, 3231, 3227, 3258, 3189 | |
//! | the backup is not what the options say | 3272, 3276, 3187, 3182, 4038 | |
//! | another call of the interface is refused | 3271 | 18210 of the device |
//! | a file of a DISK device cannot be opened or read | 3201, 3203 | |
//! | a database, its files or the catalog | the module `storage` has them | |
//!
//! Behind SQL Server's message an information tells the evidence and the remedy. 3013 ends what the client sees. 3041 ends what
//! the log gets of a BACKUP.

mod storage;

use std::fmt;
use std::path::Path;

use vdi_mtf::value::PageAddress;
use vdi_proto::completion::CompletionCode;
use vdi_proto::status::VdError;

use super::{Failure, FamilyError};
use crate::messages::{Message, OsError, Verb};
use crate::storage::StorageError;
use crate::tsql::Statement;
use crate::vds::VdsError;

/// What [`Failure::System`] calls the start of a thread.
pub(super) const START_A_THREAD: &str = "start a thread";

/// The calls that make a set ready, in their order.
const OPENING: [&str; 6] =
    ["Open", "GetConfiguration", "BeginConfiguration", "RequestBuffers", "EndConfiguration", "OpenDevice"];

/// SQL Server's name of the pool that backups take their memory from.
const POOL: &str = "default";

/// Where the messages of the error log go: nowhere, unless a program gives a place.
#[derive(Default)]
pub(super) struct ErrorLog(Option<Box<Sink>>);

type Sink = dyn Fn(&Message) + Send + Sync;

impl ErrorLog {
    pub(super) fn to(write: impl Fn(&Message) + Send + Sync + 'static) -> ErrorLog {
        ErrorLog(Some(Box::new(write)))
    }

    pub(super) fn write(&self, messages: &[Message]) {
        if let Some(write) = &self.0 {
            messages.iter().for_each(write);
        }
    }
}

impl fmt::Debug for ErrorLog {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.0.is_some() { "ErrorLog(on)" } else { "ErrorLog(off)" })
    }
}

impl Failure {
    /// The messages that a server sends to the client for this failure of a statement, ending with 3013.
    #[must_use]
    pub fn messages(&self, statement: &Statement) -> Vec<Message> {
        let verb = statement.verb();
        let mut messages = match self {
            Failure::Storage(error) => storage::messages(error, verb),
            Failure::Placement { logical_name, source } => storage::placement(source, logical_name),
            _ => self.number(verb).into_iter().collect(),
        };
        messages.push(match messages.is_empty() {
            true => Message::own(self.to_string()),
            false => Message::own_information(self.evidence()),
        });
        messages.push(Message::terminating(statement.title()));
        messages
    }

    /// The messages that a server writes into its error log for this failure of a statement. They do not go to the client.
    #[must_use]
    pub fn log(&self, statement: &Statement) -> Vec<Message> {
        let (verb, database, devices) = match statement {
            Statement::Backup(backup) => (Verb::Backup, &*backup.database, &backup.devices.names),
            Statement::Restore(restore) => (Verb::Restore, &*restore.database, &restore.devices.names),
            Statement::Inspect(inspect) => (Verb::Restore, "", &inspect.devices.names),
        };
        let mut messages = match self {
            Failure::Set(error) => {
                let device = error.device.as_deref().unwrap_or(&error.set);
                let (function, operation) = match (error.call, error.code) {
                    ("Open", _) => ("BackupVirtualDeviceSet::Initialize", "Open"),
                    (_, VdError::Memory) => ("BackupVirtualDeviceSet::SetBufferParms", "Request large buffers"),
                    (call, _) if OPENING.contains(&call) => ("BackupVirtualDeviceSet::Initialize", call),
                    (call, _) => ("BackupIoRequest::ReportIoError", call),
                };
                vec![Message::device_failure(function, operation, device, status(error))]
            }
            Failure::Device { device, operation, code, clear_error, .. } => {
                let failed = io_failure(operation, device, (*code).into());
                let uncleared = clear_error.map(|code| {
                    // The operation is not told again.
                    Message::device_failure("BackupVirtualDeviceFile::ClearError", "", device, code.into())
                });
                [failed].into_iter().chain(uncleared).collect()
            }
            Failure::Answer { device, operation, .. } => {
                vec![io_failure(operation, device, CompletionCode::IO_DEVICE.into())]
            }
            Failure::Aborted { .. } => {
                devices.iter().map(|device| io_failure(transfer(verb), device, OsError::ABORTED)).collect()
            }
            _ => Vec::new(),
        };
        if verb == Verb::Backup {
            messages.push(Message::backup_failed(&format!("BACKUP DATABASE {database}")));
        }
        messages
    }

    /// What was found, where, and what to do: for the statement's client, and for the client of the set.
    pub(super) fn evidence(&self) -> String {
        match self {
            // The set knows nothing of the statement's options.
            Failure::Set(error) if error.code == VdError::Memory => {
                format!("{self}; lower BUFFERCOUNT or MAXTRANSFERSIZE")
            }
            Failure::Storage(error @ StorageError::Catalog(_)) if error.is_disk_full() => {
                format!("{self}; free some space and run the statement again")
            }
            // Only the client knows why.
            Failure::Device { .. } => format!("{self}; look at the messages of the client"),
            _ => self.to_string(),
        }
    }

    /// SQL Server's message, where it has one for the case.
    fn number(&self, verb: Verb) -> Option<Message> {
        Some(match self {
            Failure::SystemDatabase { name, .. } if name.eq_ignore_ascii_case("tempdb") => {
                Message::tempdb_not_allowed()
            }
            Failure::SystemDatabase { name, .. } if verb == Verb::Restore && name.eq_ignore_ascii_case("master") => {
                Message::master_needs_single_user()
            }
            Failure::SystemDatabase { .. } => return None,
            Failure::Set(error) if error.code == VdError::Memory => Message::out_of_memory(POOL),
            Failure::Set(error) if error.call == "BeginConfiguration" && error.code == VdError::NotSupported => {
                Message::unusable_configuration()
            }
            Failure::Set(error) if !OPENING.contains(&error.call) => {
                device_error(error.call, error.device.as_deref().unwrap_or(&error.set), error.code.into())
            }
            Failure::Set(error) => {
                let device = error.device.as_deref().unwrap_or(&error.set);
                let state = if error.call == "Open" { 7 } else { 6 };
                Message::cannot_open_device(device, status(error)).in_state(state)
            }
            Failure::DeviceCount { .. } => Message::unusable_configuration(),
            Failure::Device { device, operation, code, .. } => device_error(operation, device, (*code).into()),
            Failure::Answer { device, operation, .. } => {
                device_error(operation, device, CompletionCode::IO_DEVICE.into())
            }
            Failure::Aborted { device, .. } => device_error(transfer(verb), device, OsError::ABORTED),
            Failure::Cancelled => Message::aborted(),
            Failure::AfterClose { database } => match verb {
                Verb::Backup => Message::log_full(database),
                Verb::Restore => Message::cannot_start_database(database),
            },
            // They have messages of their own.
            Failure::Storage(_) | Failure::Placement { .. } => return None,
            Failure::SnapshotSum { database, .. } => Message::cannot_start_database(database),
            Failure::DamagedBackup { .. } => Message::backup_of_damaged_pages(),
            Failure::Medium { device, database, source } => medium_error(device, database, source),
            Failure::Content { device, .. } => Message::media_family_malformed(device),
            Failure::Families { device, earlier, source } => match source {
                FamilyError::Count { families, provided } if families > provided => {
                    Message::media_families_missing(*families as u32, *provided as u32)
                }
                FamilyError::Count { families, provided } => {
                    Message::too_many_families_expected(device, *families as u32, *provided as u32)
                }
                FamilyError::Repeated { family } => {
                    Message::family_already_processed(device, u32::from(*family), earlier.as_deref().unwrap_or(device))
                }
                FamilyError::Foreign { .. } => Message::other_media_set(device),
            },
            Failure::Incomplete { .. } => Message::backup_set_damaged(),
            Failure::NoSuchSet { device, file, .. } => Message::no_such_backup_set(*file, device),
            Failure::Kind { .. } => return None,
            Failure::NoChecksums { .. } => Message::no_backup_checksums(),
            Failure::BlockSize { device, found, requested } => Message::block_size_mismatch(device, *found, *requested),
            Failure::SnapshotMismatch { is_snapshot, .. } => {
                Message::snapshot_mismatch().in_state(if *is_snapshot { 2 } else { 1 })
            }
            Failure::DiskFile { action: "open", path, source } => {
                Message::cannot_open_device(path, source.into()).in_state(2)
            }
            Failure::DiskFile { path, source, .. } => Message::read_failed(path, source.into()),
            Failure::DiskTarget { action: "open", path, source } => {
                Message::cannot_open_device(path, source.into()).in_state(1)
            }
            Failure::DiskTarget { action: "read", path, source } => Message::read_failed(path, source.into()),
            Failure::DiskTarget { path, source, .. } => Message::write_failed(path, source.into()),
            Failure::NotAppendable { device, .. } => Message::not_appendable(device),
            Failure::NotExpired { device, expires } => Message::not_expired(device, expires),
            Failure::System { action: START_A_THREAD, .. } => Message::no_worker_thread(),
            Failure::System { source, .. } if source.kind() == std::io::ErrorKind::OutOfMemory => {
                Message::out_of_memory(POOL)
            }
            Failure::UnknownFile { name, database } => Message::unknown_file(name, database),
            Failure::UnknownFilegroup { name, database } => Message::unknown_filegroup(name, database),
            Failure::DamagedPage { database, path, page, .. } => damaged_page(database, path, *page),
            Failure::Layout(_) | Failure::System { .. } => return None,
        })
    }
}

/// The status of a call as the operating system's error that SQL Server shows for it.
fn status(error: &VdsError) -> OsError {
    match error.code {
        VdError::Invalid if error.is_no_such_set() => OsError::NO_SUCH_SET,
        VdError::Security => OsError::ACCESS_DENIED,
        VdError::Memory => OsError::OUT_OF_MEMORY,
        code => code.into(),
    }
}

/// The command that moves the data of a statement.
fn transfer(verb: Verb) -> &'static str {
    match verb {
        Verb::Backup => "write",
        Verb::Restore => "read",
    }
}

/// 18210 for a command that failed.
fn io_failure(operation: &str, device: &str, error: OsError) -> Message {
    let (function, operation) = match operation {
        "flush" => ("BackupMedium::RequestDurableMedia", "Flush"),
        "clear error" => ("BackupVirtualDeviceFile::ClearError", ""),
        other => ("BackupIoRequest::ReportIoError", other),
    };
    Message::device_failure(function, operation, device, error)
}

/// What the client sees of a command that failed.
fn device_error(operation: &str, device: &str, error: OsError) -> Message {
    match operation {
        "write" => Message::write_failed(device, error),
        "read" => Message::read_failed(device, error),
        _ => Message::nonrecoverable_io_error(device, error),
    }
}

/// What comes from a device cannot be read, or is damaged.
fn medium_error(device: &str, database: &str, error: &vdi_mtf::Error) -> Message {
    use vdi_mtf::Error;
    match error {
        Error::Empty => Message::volume_empty(device),
        Error::Truncated { .. } => Message::read_failed(device, OsError::END_OF_FILE),
        Error::PageChecksum { page, .. }
        | Error::TornPage { page, .. }
        | Error::MisplacedPage { expected: page, .. } => {
            Message::page_damaged_in_backup(page.file.0, page.page.0, database)
        }
        Error::LogChecksum { .. } | Error::LogParity { .. } | Error::BackupChecksum { .. } => {
            Message::backup_set_damaged()
        }
        _ => Message::media_family_malformed(device),
    }
}

/// 3043.
pub(super) fn damaged_page(database: &str, path: &Path, page: PageAddress) -> Message {
    Message::damaged_page(database, page.file.0, page.page.0, &path.display().to_string())
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;
    use std::time::Duration;

    use super::*;
    use crate::catalog::DatabaseState;
    use crate::tsql::parse;

    /// The situations that no test makes: they take half a minute, or a broken disk.
    #[test]
    fn rare_failures_have_sql_server_s_numbers() {
        let path = PathBuf::from("/data/d");
        let system = |kind: std::io::ErrorKind, action| Failure::System { action, source: kind.into() };
        let name = || "d".to_owned();
        let not_frozen =
            StorageError::NotFrozen { name: name(), lock: "the turnstile", waited: Duration::from_millis(30_500) };
        let not_frozen = Failure::Storage(not_frozen);
        let io = |action, kind: std::io::ErrorKind| {
            Failure::Storage(StorageError::Io { action, path: path.clone(), offset: None, source: kind.into() })
        };
        let missing =
            Failure::Storage(StorageError::FileMissing { name: name(), path: path.clone(), found: "missing" });
        let offline = Failure::Storage(StorageError::NotOnline { name: name(), state: DatabaseState::Offline });
        for (failure, verb, expected) in [
            (&not_frozen, Verb::Backup, 3023),
            (&not_frozen, Verb::Restore, 3101),
            (&io("make durable", std::io::ErrorKind::Other), Verb::Restore, 3634),
            (&io("make durable", std::io::ErrorKind::StorageFull), Verb::Restore, 3202),
            (&io("read from", std::io::ErrorKind::Other), Verb::Backup, 3203),
            (&io("write to", std::io::ErrorKind::Other), Verb::Restore, 3202),
            (&missing, Verb::Backup, 5120),
            (&offline, Verb::Backup, 942),
            (&system(std::io::ErrorKind::WouldBlock, START_A_THREAD), Verb::Backup, 3224),
            (&system(std::io::ErrorKind::OutOfMemory, "make a list"), Verb::Backup, 701),
            (&system(std::io::ErrorKind::Other, "get random numbers"), Verb::Backup, 50000),
        ] {
            let statement = parse(match verb {
                Verb::Backup => "BACKUP DATABASE d TO VIRTUAL_DEVICE = 's'",
                Verb::Restore => "RESTORE DATABASE d FROM VIRTUAL_DEVICE = 's'",
            });
            let messages = failure.messages(&statement.unwrap());
            let errors: Vec<_> = messages.iter().filter(|message| message.is_error()).map(|m| m.number).collect();
            assert!(errors[0] == expected && errors.ends_with(&[3013]), "{failure}: {messages:?}");
            assert!(messages.iter().any(|message| message.text == failure.evidence()), "{messages:?}");
        }
    }
}
