//! CREATE, ALTER and DROP DATABASE, and USE: what a session does with the databases of its engine.
//!
//! | situation | messages |
//! |---|---|
//! | CREATE of a database that exists | 1801 |
//! | a file that cannot be made: of another database; there already; no folder; no path; by the system | 1834; 5170; 5133; 5105; 5123; then 1802 |
//! | ALTER of a database that does not exist; in use; ONLINE with a file missing, or of another length | 5011; 5061; 5120; 5172; then 5069 |
//! | ALTER of a system database | 5058, then 5069 |
//! | DROP of a database that does not exist; in use; of a system database | 3701; 3702; 3708 |
//! | USE of a database that does not exist; OFFLINE; being restored; with damaged files | 911; 942; 927; 945 |

use std::path::Path;

use vdi_mtf::sqlserver::config::RecoveryModel;

use crate::catalog::DatabaseState;
use crate::messages::{Message, OsError, Verb};
use crate::storage::{self, DataFolder, NewFile, StorageError, is_system_database};
use crate::tsql::{AlterDatabase, CreateDatabase, DatabaseOption, DropDatabase, FileSpec, Growth, MaxSize};

/// The name of a database that can be used now, as it was written when the database was made.
pub(super) fn usable(folder: &DataFolder, name: &str) -> Result<String, Message> {
    if is_system_database(name) {
        return Ok(name.to_owned());
    }
    // What is wrong with the catalog is not the name's fault.
    let found = folder.catalog().find(name).map_err(|error| Message::own(error.to_string()))?;
    let Some(row) = found else { return Err(Message::no_such_database(name)) };
    match row.state {
        DatabaseState::Online => Ok(row.name),
        state => Err(unusable(&row.name, state)),
    }
}

/// Why a database that is not online cannot be used.
fn unusable(name: &str, state: DatabaseState) -> Message {
    match state {
        DatabaseState::Offline => Message::database_offline(name),
        DatabaseState::Online | DatabaseState::Restoring => Message::database_in_restore(name),
        DatabaseState::RecoveryPending => Message::database_inaccessible(name),
    }
}

/// Makes a database. The errors are those of the client, in their order.
pub(super) fn create(folder: &DataFolder, statement: &CreateDatabase) -> Result<Vec<Message>, Vec<Message>> {
    if is_system_database(&statement.database) {
        return Err(vec![Message::database_exists(&statement.database)]);
    }
    let request = storage::CreateDatabase {
        name: statement.database.clone(),
        data_files: statement.data_files.iter().map(new_file).collect(),
        log_file: statement.log_file.as_ref().map(new_file),
        recovery_model: RecoveryModel::Full,
    };
    match folder.create_database(&request) {
        Ok(()) => Ok(Vec::new()),
        Err(error) => {
            let cause = match &error {
                StorageError::Io { path, source, .. } => {
                    let message = Message::cannot_create_file(OsError::from(source), &path.display().to_string());
                    vec![message, Message::own_information(error.to_string())]
                }
                _ => storage_error(&error, &statement.database),
            };
            let is_of_file = matches!(
                error,
                StorageError::Io { .. }
                    | StorageError::FileInUse { .. }
                    | StorageError::FileExists { .. }
                    | StorageError::SamePath { .. }
                    | StorageError::NoSuchFolder { .. }
                    | StorageError::InvalidPath { .. }
            );
            Err(cause.into_iter().chain(is_of_file.then(Message::create_database_failed)).collect())
        }
    }
}

fn new_file(file: &FileSpec) -> NewFile {
    let mut new = NewFile::new(&*file.logical_name, &*file.path);
    new.filegroup.clone_from(&file.filegroup);
    new.size = file.size.unwrap_or(new.size);
    (new.growth, new.is_percent_growth) = match file.growth {
        None => (new.growth, false),
        Some(Growth::Bytes(bytes)) => (bytes, false),
        Some(Growth::Percent(percent)) => (percent.into(), true),
    };
    new.max_size = match file.max_size {
        None | Some(MaxSize::Unlimited) => None,
        Some(MaxSize::Bytes(bytes)) => Some(bytes),
    };
    new
}

/// Changes a database; `current` is the session's. Options that were set before one fails stay.
pub(super) fn alter(
    folder: &DataFolder,
    statement: &AlterDatabase,
    current: &str,
) -> Result<Vec<Message>, Vec<Message>> {
    let name = statement.database.as_deref().unwrap_or(current);
    let mut remarks = Vec::new();
    for option in &statement.options {
        let done = match option {
            _ if is_system_database(name) => Err(vec![Message::option_cannot_be_set(word(*option), name)]),
            DatabaseOption::Online | DatabaseOption::Offline => {
                folder.set_online(name, *option == DatabaseOption::Online).map_err(|error| alter_error(&error, name))
            }
            DatabaseOption::Recovery(model) => {
                folder.set_recovery_model(name, *model).map_err(|error| alter_error(&error, name))
            }
            DatabaseOption::Access(access) => match folder.catalog().find(name) {
                Ok(None) => Err(vec![Message::cannot_alter(name)]),
                Ok(Some(_)) => {
                    let text = format!("{access} changes nothing: there are no users who could be kept out");
                    remarks.push(Message::own_information(text));
                    Ok(())
                }
                Err(error) => Err(vec![Message::own(error.to_string())]),
            },
        };
        done.map_err(|cause| cause.into_iter().chain([Message::alter_database_failed()]).collect::<Vec<_>>())?;
    }
    Ok(remarks)
}

fn word(option: DatabaseOption) -> &'static str {
    match option {
        DatabaseOption::Online => "ONLINE",
        DatabaseOption::Offline => "OFFLINE",
        DatabaseOption::Recovery(_) => "RECOVERY",
        DatabaseOption::Access(word) => word,
    }
}

fn alter_error(error: &StorageError, name: &str) -> Vec<Message> {
    match error {
        StorageError::NotFound { .. } => vec![Message::cannot_alter(name)],
        StorageError::InUse { .. } | StorageError::NotFrozen { .. } => {
            vec![Message::no_database_lock(name), Message::own_information(error.to_string())]
        }
        _ => storage_error(error, name),
    }
}

/// Removes databases; `current` is the session's. Each of them is tried. The errors are those of all.
pub(super) fn remove(
    folder: &DataFolder,
    statement: &DropDatabase,
    current: &str,
) -> Result<Vec<Message>, Vec<Message>> {
    let errors: Vec<_> =
        statement.databases.iter().flat_map(|name| remove_one(folder, statement, name, current)).collect();
    if errors.is_empty() { Ok(errors) } else { Err(errors) }
}

/// The errors of one database; none: it is gone.
fn remove_one(folder: &DataFolder, statement: &DropDatabase, name: &str, current: &str) -> Vec<Message> {
    if is_system_database(name) {
        return vec![Message::cannot_drop_system_database(name)];
    }
    if name.eq_ignore_ascii_case(current) {
        let remedy = format!("{name} is the database of this session: USE another one first");
        return vec![Message::cannot_drop_in_use(name), Message::own_information(remedy)];
    }
    match folder.drop_database(name) {
        Ok(()) => Vec::new(),
        Err(StorageError::NotFound { .. }) if statement.if_exists => Vec::new(),
        Err(StorageError::NotFound { .. }) => vec![Message::cannot_drop(name)],
        Err(error @ (StorageError::InUse { .. } | StorageError::NotFrozen { .. })) => {
            vec![Message::cannot_drop_in_use(name), Message::own_information(error.to_string())]
        }
        Err(error) => storage_error(&error, name),
    }
}

/// What these statements say of an error of the storage, whichever of them it is: SQL Server's message, and what was found behind it.
/// `database` is the one of the statement.
fn storage_error(error: &StorageError, database: &str) -> Vec<Message> {
    let text = |path: &Path| path.display().to_string();
    let message = match error {
        StorageError::NotFound { name } => Message::no_such_database(name),
        StorageError::Exists { name } | StorageError::SystemDatabase { name } => Message::database_exists(name),
        StorageError::InUse { name, holder: Verb::Restore } => Message::database_in_restore(name),
        StorageError::NotOnline { name, state } => unusable(name, *state),
        StorageError::FileInUse { path, database } => Message::file_in_use(&text(path), database),
        StorageError::SamePath { path } => Message::file_in_use(&text(path), database),
        StorageError::FileExists { path } => Message::file_exists(&text(path)),
        StorageError::NoSuchFolder { path } => Message::no_such_directory(&text(path), OsError(3)),
        StorageError::InvalidPath { path, .. } => Message::file_activation(path),
        StorageError::FileMissing { path, .. } => Message::cannot_open_file(&text(path), OsError(2)),
        StorageError::FileSize { path, .. } => Message::invalid_file_header(&text(path), "FILE SIZE"),
        StorageError::Io { action, path, source, .. } => {
            Message::operating_system_error(OsError::from(source), action, &text(path))
        }
        _ => return vec![Message::own(error.to_string())],
    };
    vec![message, Message::own_information(error.to_string())]
}
