//! The statements of Transact-SQL by which a backup application asks for its backup or restore.
//!
//! [`parse`] takes one statement and gives a typed [`Statement`]. The words are cut by the tokenizer of the `sqlparser`
//! crate in its dialect for SQL Server (comments, `[bracketed]` and `"quoted"` names, `'x'` and `N'x'` strings with their
//! doubled quotes); the grammar upon the words is this module's own, because BACKUP and RESTORE are not part of standard SQL:
//!
//! ```text
//! statement := BACKUP DATABASE name [part {, part}] TO device {, device} [WITH option {, option}] {;}
//!            | RESTORE DATABASE name FROM device {, device} [WITH option {, option}] {;}
//!            | RESTORE (LABELONLY | HEADERONLY | FILELISTONLY | VERIFYONLY) FROM device {, device} [WITH option {, option}] {;}
//! part      := (FILE | FILEGROUP) = string
//! device    := VIRTUAL_DEVICE = string
//!            | DISK = string
//! option    := keyword [= number | = string]
//!            | MOVE string TO string
//!            | COMPRESSION [(ALGORITHM = word {, LEVEL = word})]
//! ```
//!
//! [`parse_batch`] takes several statements, among them those that make and change databases, and those that clients send around
//! BACKUP and RESTORE. There a name, a string and a number may be a variable.
//!
//! Keywords are accepted in any case. What SQL Server has and this simulator does not do yet is answered with
//! [`TsqlError::NotSupportedYet`], never with a syntax error and never by silently ignoring it: an option that is accepted is
//! either honoured or asks for nothing that the simulator could do (a hint about tapes). The options are listed in
//! `docs/statements.md`. The devices of a statement are of one type. SNAPSHOT goes with exactly one virtual device (VDI
//! specification, snapshots: one virtual device only). Every error knows its line and column, and which of SQL Server's messages a
//! client sees for it ([`TsqlError::messages`]).
//!
//! ```
//! use vdi_server_sim::tsql::{Statement, parse};
//!
//! let sql = "backup database [Sales] to virtual_device = N'set', virtual_device='set1' with STATS = 5, COPY_ONLY;";
//! let Statement::Backup(backup) = parse(sql)? else { unreachable!() };
//! assert_eq!(backup.database, "Sales");
//! assert_eq!(backup.devices.names, ["set", "set1"]);
//! assert_eq!(backup.options.stats, Some(5));
//!
//! let error = parse("BACKUP DATABASE Sales\nFORM VIRTUAL_DEVICE = 'set'").unwrap_err();
//! assert_eq!(error.message().text, "Incorrect syntax near 'FORM'.");
//! assert_eq!(error.line(), 2);
//! # Ok::<(), vdi_server_sim::tsql::TsqlError>(())
//! ```

mod batch;
mod cursor;
mod database;
mod date;
mod error;
mod media;
mod options;
mod reserved;
#[cfg(test)]
mod tests;

pub use batch::{Action, Refusal, Selected, Step, parse_batch};
pub use database::{AlterDatabase, CreateDatabase, DatabaseOption, DropDatabase, FileSpec, Growth, MaxSize};
pub use error::TsqlError;
pub use options::{BackupOptions, Expiry, RestoreOptions};

use crate::messages::Verb;
use cursor::Cursor;
use error::{DATABASE, Mark};

/// The most devices that one statement may name, and one virtual device set may have.
pub const MAX_DEVICES: usize = 64;

/// The longest name of a database, of a file of it, or of a virtual device, in characters.
pub const MAX_NAME: usize = 128;

/// The longest path of a file, in characters.
pub const MAX_PATH: usize = 259;

/// One statement, understood.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Statement {
    /// `BACKUP DATABASE`.
    Backup(Backup),
    /// `RESTORE DATABASE`.
    Restore(Restore),
    /// `RESTORE LABELONLY` and its like.
    Inspect(Inspect),
}

/// `BACKUP DATABASE name [FILE = '...', ...] TO {VIRTUAL_DEVICE | DISK} = '...' [, ...] [WITH ...]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Backup {
    /// The database's name with its quoting taken off, 1 to [`MAX_NAME`] characters.
    pub database: String,
    /// FILE and FILEGROUP: the parts to back up. Empty: the whole database.
    pub parts: Vec<BackupPart>,
    /// Where the backup goes.
    pub devices: Devices,
    /// What stands behind WITH.
    pub options: BackupOptions,
}

/// `RESTORE DATABASE name FROM {VIRTUAL_DEVICE | DISK} = '...' [, ...] [WITH ...]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Restore {
    /// The database's name with its quoting taken off, 1 to [`MAX_NAME`] characters.
    pub database: String,
    /// Where the backup comes from.
    pub devices: Devices,
    /// What stands behind WITH.
    pub options: RestoreOptions,
}

/// `RESTORE {LABELONLY | HEADERONLY | FILELISTONLY | VERIFYONLY} FROM ...`: looks at a backup and restores nothing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Inspect {
    /// What is asked for.
    pub what: Inspection,
    /// Where the backup comes from.
    pub devices: Devices,
    /// What stands behind WITH.
    pub options: RestoreOptions,
}

/// What [`Inspect`] asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Inspection {
    /// LABELONLY: the medium.
    Label,
    /// HEADERONLY: the backup sets.
    Header,
    /// FILELISTONLY: the files of a set.
    FileList,
    /// VERIFYONLY: whether a set is sound.
    Verify,
}

/// The devices of a statement, all of one type.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Devices {
    /// Their type.
    pub device_type: DeviceType,
    /// Names of virtual devices, or paths of files, in the statement's order, 1 to [`MAX_DEVICES`], all different. The first virtual device
    /// is also the name of the virtual device set.
    pub names: Vec<String>,
}

/// The type of a device.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum DeviceType {
    /// `VIRTUAL_DEVICE`.
    Virtual,
    /// `DISK`: a file of the server.
    Disk,
}

impl DeviceType {
    /// `device_type` of msdb's `backupmediafamily`.
    #[must_use]
    pub fn number(self) -> u8 {
        match self {
            DeviceType::Disk => 2,
            DeviceType::Virtual => 7,
        }
    }
}

/// A part of a database that a BACKUP names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum BackupPart {
    /// `FILE = '...'`: a file by its logical name.
    File(String),
    /// `FILEGROUP = '...'`.
    Filegroup(String),
}

impl Statement {
    /// What SQL Server calls the statement in message 3013.
    #[must_use]
    pub fn title(&self) -> &'static str {
        match self {
            Self::Backup(_) => "BACKUP DATABASE",
            Self::Restore(_) => "RESTORE DATABASE",
            Self::Inspect(inspect) => inspect.what.title(),
        }
    }

    /// Which of the two verbs the statement begins with, as messages 3013 and 3014 name it.
    #[must_use]
    pub fn verb(&self) -> Verb {
        match self {
            Self::Backup(_) => Verb::Backup,
            Self::Restore(_) | Self::Inspect(_) => Verb::Restore,
        }
    }
}

/// Understands one statement, without variables.
///
/// # Errors
/// [`TsqlError`]: the text is not a statement, is one of SQL Server's that the simulator does not do yet, or its
/// names, devices or options break a rule. Total: no text makes it panic.
pub fn parse(sql: &str) -> Result<Statement, TsqlError> {
    statement(&mut Cursor::new(&cursor::words(sql)?, &[]))
}

fn statement(cursor: &mut Cursor) -> Result<Statement, TsqlError> {
    if cursor.take_keyword("BACKUP") {
        media::backup(cursor).map(Statement::Backup)
    } else if cursor.take_keyword("RESTORE") {
        media::restore(cursor)
    } else if let Some(word) = cursor.peek_reserved() {
        Err(cursor.not_supported_yet(format!("the {word} statement"), "use BACKUP DATABASE or RESTORE DATABASE"))
    } else {
        Err(cursor.syntax("BACKUP or RESTORE"))
    }
}

/// The name of a database, or a variable that holds it.
fn database_name(cursor: &mut Cursor) -> Result<String, TsqlError> {
    let at = cursor.mark();
    let name = match cursor.string_variable()? {
        Some(name) => name,
        None => cursor.identifier("the name of a database")?,
    };
    checked_name(at, DATABASE, name)
}

/// The name of a database or of a file of it, if it can be one.
fn checked_name(at: Mark, what: &'static str, name: String) -> Result<String, TsqlError> {
    let reason = if name.is_empty() {
        "it is empty; give 1 to 128 characters"
    } else if name.chars().count() > MAX_NAME {
        "it is longer than 128 characters; shorten it"
    } else if name.contains('\0') {
        "it contains a NUL character; take that out"
    } else {
        return Ok(name);
    };
    Err(at.invalid_name(what, name, reason))
}

/// The statement ends here: semicolons, and nothing behind them.
fn end(cursor: &mut Cursor) -> Result<(), TsqlError> {
    while cursor.take_semicolon() {}
    if cursor.at_end() { Ok(()) } else { Err(cursor.syntax("the end of the statement")) }
}
