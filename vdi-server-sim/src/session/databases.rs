//! CREATE, ALTER and DROP DATABASE, and USE: what a session does with the databases of its engine.
//!
//! | situation | messages |
//! |---|---|
//! | CREATE of a database that exists | 1801 |
//! | a file that cannot be made | 1834, 5170 or 5123, then 1802 |
//! | ALTER of a database that does not exist; in use | 5011; 5061; then 5069 |
//! | ALTER of a system database | 5058, then 5069 |
//! | DROP of a database that does not exist; in use; of a system database | 3701; 3702; 3708 |
//! | USE of a database that does not exist; OFFLINE; being restored; with damaged files | 911; 942; 927; 945 |

use std::path::PathBuf;

use vdi_mtf::sqlserver::config::RecoveryModel;

use crate::catalog::DatabaseState;
use crate::messages::{Message, OsError, Verb};
use crate::storage::{self, DataFolder, NewFile, StorageError};
use crate::tsql::{AlterDatabase, CreateDatabase, DatabaseOption, DropDatabase, FileSpec, Growth, MaxSize};

/// What every SQL Server has; a data folder need not.
const SYSTEM_DATABASES: [&str; 4] = ["master", "model", "msdb", "tempdb"];

/// SIZE of a file that names none.
const DEFAULT_SIZE: u64 = 8 << 20;
/// FILEGROWTH of a file that names none.
const DEFAULT_GROWTH: u64 = 64 << 20;

/// The name of a database that can be used now, as it was written when the database was made.
pub(super) fn usable(folder: &DataFolder, name: &str) -> Result<String, Message> {
    if is_system(name) {
        return Ok(name.to_owned());
    }
    // What is wrong with the catalog is not the name's fault.
    let found = folder.catalog().find(name).map_err(|error| Message::own(error.to_string()))?;
    let Some(row) = found else { return Err(Message::no_such_database(name)) };
    match row.state {
        DatabaseState::Online => Ok(row.name),
        DatabaseState::Offline => Err(Message::database_offline(&row.name)),
        DatabaseState::Restoring => Err(Message::database_in_restore(&row.name)),
        DatabaseState::RecoveryPending => Err(Message::database_inaccessible(&row.name)),
    }
}

fn is_system(name: &str) -> bool {
    SYSTEM_DATABASES.iter().any(|system| system.eq_ignore_ascii_case(name))
}

/// Makes a database. The errors are those of the client, in their order.
pub(super) fn create(folder: &DataFolder, statement: &CreateDatabase) -> Result<Vec<Message>, Vec<Message>> {
    if is_system(&statement.database) {
        return Err(vec![Message::database_exists(&statement.database)]);
    }
    let files = statement.data_files.iter().chain(&statement.log_file);
    let remarks = files.filter(|file| matches!(file.growth, Some(Growth::Percent(_)))).map(|file| {
        let name = &file.logical_name;
        Message::own_information(format!(
            "FILEGROWTH of {name} is kept in bytes: its percentage of SIZE; files do not grow here"
        ))
    });
    let request = storage::CreateDatabase {
        name: statement.database.clone(),
        data_files: statement.data_files.iter().map(new_file).collect(),
        log_file: statement.log_file.as_ref().map(new_file),
        recovery_model: RecoveryModel::Full,
    };
    match folder.create_database(&request) {
        Ok(()) => Ok(remarks.collect()),
        Err(error) => {
            let cause = storage_error(&error);
            let of_file = [1834, 5170, 5123].contains(&cause[0].number);
            Err(cause.into_iter().chain(of_file.then(Message::create_database_failed)).collect())
        }
    }
}

fn new_file(file: &FileSpec) -> NewFile {
    let size = file.size.unwrap_or(DEFAULT_SIZE);
    NewFile {
        logical_name: file.logical_name.clone(),
        path: PathBuf::from(&file.path),
        size,
        filegroup: file.filegroup.clone(),
        growth: match file.growth {
            None => DEFAULT_GROWTH,
            Some(Growth::Bytes(bytes)) => bytes,
            Some(Growth::Percent(percent)) => (size / 100).saturating_mul(percent.into()),
        },
        max_size: match file.max_size {
            None | Some(MaxSize::Unlimited) => None,
            Some(MaxSize::Bytes(bytes)) => Some(bytes),
        },
    }
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
            _ if is_system(name) => Err(vec![Message::option_cannot_be_set(word(*option), name)]),
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
        StorageError::InUse { .. } => {
            vec![Message::no_database_lock(name), Message::own_information(error.to_string())]
        }
        _ => storage_error(error),
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
    if is_system(name) {
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
        Err(error @ StorageError::InUse { .. }) => {
            vec![Message::cannot_drop_in_use(name), Message::own_information(error.to_string())]
        }
        Err(error) => storage_error(&error),
    }
}

/// What these statements say of an error of the storage, whichever of them it is: SQL Server's message, and what was found behind it.
fn storage_error(error: &StorageError) -> Vec<Message> {
    let message = match error {
        StorageError::NotFound { name } => Message::no_such_database(name),
        StorageError::InUse { name, holder: Verb::Restore } => Message::database_in_restore(name),
        StorageError::Io { path, source, .. } if source.kind() == std::io::ErrorKind::AlreadyExists => {
            Message::file_exists(&path.display().to_string())
        }
        StorageError::Io { path, source, .. } => {
            Message::cannot_create_file(OsError::from(source), &path.display().to_string())
        }
        _ => return vec![Message::own(error.to_string())],
    };
    vec![message, Message::own_information(error.to_string())]
}
