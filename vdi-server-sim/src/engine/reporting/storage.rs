//! What errors of the storage are reported as by BACKUP and RESTORE.
//!
//! | error | BACKUP | RESTORE |
//! |---|---|---|
//! | no such database | 911 | 911 |
//! | no name of a database | 911 | 3123 |
//! | another statement works on it, or writers do not let go | 927, 3023 | 3101 |
//! | offline, restoring, files missing | 942, 927, 945 | 942, 927, 945 |
//! | the backup is of another database; the log's tail is not saved | | 3154; 3159 |
//! | MOVE names a file that is not there | | 3234 |
//! | a file cannot be where it is to be | | 1834, 5170, 5133 or 5105; 3156, 3119 |
//! | the backup's list of files cannot be | | 3189 |
//! | a file cannot be read or written | 3203, 3202, 3634 | 3203, 3202, 3634 |

use std::path::Path;

use crate::catalog::DatabaseState;
use crate::messages::{Message, OsError, Verb};
use crate::storage::StorageError;

/// SQL Server's messages; none where it has none for the case.
pub(super) fn messages(error: &StorageError, verb: Verb) -> Vec<Message> {
    let restores = verb == Verb::Restore;
    let text = |path: &Path| path.display().to_string();
    vec![match error {
        StorageError::InvalidName { name, .. } if restores => Message::invalid_database_name(name),
        StorageError::NotFound { name } | StorageError::InvalidName { name, .. } => Message::no_such_database(name),
        StorageError::SystemDatabase { .. } if restores => Message::master_needs_single_user(),
        StorageError::InUse { .. } | StorageError::NotFrozen { .. } if restores => Message::database_in_use(),
        StorageError::InUse { name, holder: Verb::Restore } => Message::database_in_restore(name),
        StorageError::InUse { .. } | StorageError::NotFrozen { .. } => Message::backup_must_be_serialized(),
        StorageError::NotOnline { name, state } => match state {
            DatabaseState::Online | DatabaseState::RecoveryPending => Message::database_inaccessible(name),
            DatabaseState::Offline => Message::database_offline(name),
            DatabaseState::Restoring => Message::database_in_restore(name),
        },
        StorageError::FileMissing { name, path, .. } => {
            let missing = Message::cannot_open_file(&text(path), OsError(2));
            return vec![missing, Message::database_inaccessible(name)];
        }
        StorageError::FileSize { name, path, .. } => {
            let wrong = Message::invalid_file_header(&text(path), "FILE SIZE");
            return vec![wrong, Message::database_inaccessible(name)];
        }
        StorageError::OtherDatabase { name, .. } => Message::backup_of_other_database(name),
        StorageError::TailNotSaved { name } => Message::log_tail_not_backed_up(name),
        StorageError::UnknownLogicalName { logical_name, database } => {
            Message::unknown_logical_file(logical_name, database)
        }
        StorageError::NoSuchFile { .. }
        | StorageError::BeyondEnd { .. }
        | StorageError::ListsDiffer { .. }
        | StorageError::InvalidFile { .. } => Message::backup_set_damaged(),
        StorageError::Io { action, path, source, .. } => {
            let (path, code) = (text(path), OsError::from(source));
            match *action {
                _ if error.is_disk_full() => Message::write_failed(&path, code),
                "read" | "read from" => Message::read_failed(&path, code),
                "write to" => Message::write_failed(&path, code),
                action => Message::operating_system_error(code, action, &path),
            }
        }
        _ => return Vec::new(),
    }]
}

/// RESTORE cannot put the file `logical_name` where it is to be.
pub(super) fn placement(error: &StorageError, logical_name: &str) -> Vec<Message> {
    let text = |path: &Path| path.display().to_string();
    let (reason, path) = match error {
        StorageError::FileInUse { path, database } => (Some(Message::file_in_use(&text(path), database)), text(path)),
        StorageError::FileExists { path } => (Some(Message::file_exists(&text(path))), text(path)),
        StorageError::NoSuchFolder { path } => (Some(Message::no_such_directory(&text(path), OsError(3))), text(path)),
        StorageError::InvalidPath { path, .. } => (Some(Message::file_activation(path)), path.clone()),
        StorageError::SamePath { path } => (None, text(path)),
        _ => return messages(error, Verb::Restore),
    };
    let further = [Message::cannot_be_restored_to(logical_name, &path), Message::problems_in_plan()];
    reason.into_iter().chain(further).collect()
}
