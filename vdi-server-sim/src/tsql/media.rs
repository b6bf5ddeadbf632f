//! The grammar of BACKUP and RESTORE: what they begin with, their parts and their devices.

use super::cursor::Cursor;
use super::error::{DEVICE, FILE, Mark, TsqlError};
use super::options::{self, Kind};
use super::{
    Backup, BackupPart, DeviceType, Devices, Inspect, Inspection, MAX_DEVICES, MAX_NAME, Restore, Statement,
    database_name, end,
};
use crate::messages::Verb;

/// What stands behind BACKUP.
pub(super) fn backup(cursor: &mut Cursor) -> Result<Backup, TsqlError> {
    database_statement(cursor, Verb::Backup)?;
    let database = database_name(cursor)?;
    let parts = parts(cursor)?;
    cursor.expect_keyword("TO", "TO")?;
    let devices = devices(cursor)?;
    if cursor.peek_keyword("MIRROR") {
        return Err(cursor.not_supported_yet("MIRROR TO".to_owned(), "let the client write the second copy"));
    }
    let options = with_clause(cursor, Kind::Backup, &devices)?.into_backup();
    end(cursor)?;
    Ok(Backup { database, parts, devices, options })
}

/// What stands behind RESTORE.
pub(super) fn restore(cursor: &mut Cursor) -> Result<Statement, TsqlError> {
    for what in [Inspection::Label, Inspection::Header, Inspection::FileList, Inspection::Verify] {
        if cursor.take_keyword(what.keyword()) {
            cursor.expect_keyword("FROM", "FROM")?;
            let devices = devices(cursor)?;
            let options = with_clause(cursor, Kind::Inspect(what), &devices)?.into_restore();
            end(cursor)?;
            return Ok(Statement::Inspect(Inspect { what, devices, options }));
        }
    }
    database_statement(cursor, Verb::Restore)?;
    let database = database_name(cursor)?;
    for part in ["FILE", "FILEGROUP", "READ_WRITE_FILEGROUPS", "PAGE"] {
        if cursor.peek_keyword(part) {
            let what = format!("a part of a database ({part})");
            return Err(cursor.not_supported_yet(what, "restore the whole database"));
        }
    }
    if cursor.at_end() || cursor.peek_keyword("WITH") {
        let remedy = "restore from the devices of a backup: FROM VIRTUAL_DEVICE = '...'";
        return Err(cursor.not_supported_yet("RESTORE DATABASE without a FROM clause".to_owned(), remedy));
    }
    cursor.expect_keyword("FROM", "FROM")?;
    let devices = devices(cursor)?;
    let options = with_clause(cursor, Kind::Restore, &devices)?.into_restore();
    end(cursor)?;
    Ok(Statement::Restore(Restore { database, devices, options }))
}

impl Inspection {
    /// The word behind RESTORE.
    #[must_use]
    pub fn keyword(self) -> &'static str {
        match self {
            Inspection::Label => "LABELONLY",
            Inspection::Header => "HEADERONLY",
            Inspection::FileList => "FILELISTONLY",
            Inspection::Verify => "VERIFYONLY",
        }
    }

    /// What SQL Server calls the statement in message 3013.
    #[must_use]
    pub fn title(self) -> &'static str {
        match self {
            Inspection::Label => "RESTORE LABELONLY",
            Inspection::Header => "RESTORE HEADERONLY",
            Inspection::FileList => "RESTORE FILELIST",
            Inspection::Verify => "VERIFY DATABASE",
        }
    }
}

/// What else BACKUP and RESTORE can be followed by in SQL Server.
const OTHER_OBJECTS: [&str; 9] =
    ["LOG", "TRANSACTION", "CERTIFICATE", "MASTER", "SERVICE", "SYMMETRIC", "GROUP", "SERVER", "REWINDONLY"];

fn database_statement(cursor: &mut Cursor, verb: Verb) -> Result<(), TsqlError> {
    if cursor.take_keyword("DATABASE") {
        return Ok(());
    }
    for object in OTHER_OBJECTS {
        if cursor.peek_keyword(object) {
            let remedy = match verb {
                Verb::Backup => "back up the whole database with BACKUP DATABASE",
                Verb::Restore => "restore the whole database with RESTORE DATABASE",
            };
            return Err(cursor.not_supported_yet(format!("{verb} {object}"), remedy));
        }
    }
    Err(cursor.syntax("DATABASE"))
}

/// `{(FILE | FILEGROUP) = 'name'}` with commas between them.
fn parts(cursor: &mut Cursor) -> Result<Vec<BackupPart>, TsqlError> {
    let mut parts = Vec::new();
    loop {
        for part in ["READ_WRITE_FILEGROUPS", "PAGE"] {
            if cursor.peek_keyword(part) {
                let what = format!("a part of a database ({part})");
                return Err(cursor.not_supported_yet(what, "name its files or filegroups by FILE or FILEGROUP"));
            }
        }
        let part: fn(String) -> BackupPart = if cursor.take_keyword("FILE") {
            BackupPart::File
        } else if cursor.take_keyword("FILEGROUP") {
            BackupPart::Filegroup
        } else if parts.is_empty() {
            return Ok(parts);
        } else {
            return Err(cursor.syntax("FILE = '...' or FILEGROUP = '...'"));
        };
        cursor.expect_equals()?;
        parts.push(part(cursor.string("the name of a file or filegroup in quotes")?));
        if !cursor.take_comma() {
            return Ok(parts);
        }
    }
}

/// What to use in the place of another device.
const OTHER_DEVICE: &str = "use VIRTUAL_DEVICE = '...' and a client that stores the backup, or DISK = '...'";

fn devices(cursor: &mut Cursor) -> Result<Devices, TsqlError> {
    let mut devices = Devices { device_type: peek_device_type(cursor)?, names: Vec::new() };
    let Devices { device_type, ref mut names } = devices;
    loop {
        let at = cursor.mark();
        if peek_device_type(cursor)? != device_type {
            let what = "a statement with devices of several types".to_owned();
            return Err(at.not_supported_yet(what, "name devices of one type, VIRTUAL_DEVICE or DISK"));
        }
        // The keyword of the type.
        cursor.option_word();
        cursor.expect_equals()?;
        let name_at = cursor.mark();
        let name = check_name(name_at, device_type, cursor.string("the device's name in quotes")?)?;
        if names.contains(&name) {
            return Err(name_at.duplicate_device(name));
        }
        if names.len() == MAX_DEVICES {
            return Err(at.too_many_devices());
        }
        names.push(name);
        if !cursor.take_comma() {
            return Ok(devices);
        }
    }
}

/// The type that the next word names. It is not taken.
fn peek_device_type(cursor: &Cursor) -> Result<DeviceType, TsqlError> {
    for (keyword, device_type) in [("VIRTUAL_DEVICE", DeviceType::Virtual), ("DISK", DeviceType::Disk)] {
        if cursor.peek_keyword(keyword) {
            return Ok(device_type);
        }
    }
    for other in ["TAPE", "URL", "DATABASE_SNAPSHOT"] {
        if cursor.peek_keyword(other) {
            return Err(cursor.not_supported_yet(format!("the device type {other}"), OTHER_DEVICE));
        }
    }
    // A bare name is a logical device, made by sp_addumpdevice: correct, but not known here.
    if cursor.at_logical_device() {
        return Err(cursor.not_supported_yet("a logical backup device".to_owned(), OTHER_DEVICE));
    }
    Err(cursor.syntax("VIRTUAL_DEVICE = '...' or DISK = '...'"))
}

/// The name of a virtual device or the path of a file, if it can be one.
fn check_name(at: Mark, device_type: DeviceType, name: String) -> Result<String, TsqlError> {
    if device_type == DeviceType::Disk {
        return options::check_path(at, FILE, name);
    }
    let reason = if name.is_empty() {
        "it is empty; give 1 to 128 characters"
    } else if name.chars().count() > MAX_NAME {
        "it is longer than 128 characters; shorten it"
    } else if name.contains(['\\', '\0']) {
        "it contains a backslash or a NUL character; take that out"
    } else {
        return Ok(name);
    };
    Err(at.invalid_name(DEVICE, name, reason))
}

/// The options, and the rules that they make for the devices before them.
fn with_clause(cursor: &mut Cursor, kind: Kind, devices: &Devices) -> Result<options::Values, TsqlError> {
    let at = cursor.mark();
    let values = options::with_clause(cursor, kind)?;
    if values.snapshot() && (devices.names.len() > 1 || devices.device_type == DeviceType::Disk) {
        return Err(at.snapshot_devices(devices.names.len(), devices.device_type));
    }
    Ok(values)
}
