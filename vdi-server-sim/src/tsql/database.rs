//! The statements that make, change and remove databases.
//!
//! ```text
//! statement := CREATE DATABASE name [ON [PRIMARY] file {, file} {, FILEGROUP name file {, file}}] [LOG ON file]
//!            | ALTER DATABASE (name | CURRENT) SET setting {, setting} [WITH termination]
//!            | DROP DATABASE [IF EXISTS] name {, name}
//! file      := (property {, property})
//! property  := NAME = name | FILENAME = string | SIZE = size | MAXSIZE = (size | UNLIMITED) | FILEGROWTH = (size | number %)
//! size      := number [KB | MB | GB | TB]
//! setting   := ONLINE | OFFLINE | RECOVERY (FULL | SIMPLE | BULK_LOGGED) | MULTI_USER | SINGLE_USER | RESTRICTED_USER
//! termination := ROLLBACK IMMEDIATE | ROLLBACK AFTER number [SECONDS] | NO_WAIT
//! ```

use vdi_mtf::sqlserver::config::RecoveryModel;

use super::cursor::Cursor;
use super::error::{ABOVE_MAXIMUM, DATABASE, LOGICAL, Mark, PHYSICAL, TOO_LARGE, TOO_SMALL, TsqlError};
use super::options::check_path;
use super::{checked_name, end};

/// The filegroup of the files that name none.
const PRIMARY: &str = "PRIMARY";

/// `CREATE DATABASE`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CreateDatabase {
    /// The name, 1 to [`MAX_NAME`](super::MAX_NAME) characters.
    pub database: String,
    /// The data files; the first one is the primary file. Empty: the statement names none.
    pub data_files: Vec<FileSpec>,
    /// The log file; `None`: the statement names none.
    pub log_file: Option<FileSpec>,
}

/// A file of [`CreateDatabase`]. Sizes are in bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FileSpec {
    /// NAME, 1 to [`MAX_NAME`](super::MAX_NAME) characters, all different without regard to case.
    pub logical_name: String,
    /// FILENAME, 1 to [`MAX_PATH`](super::MAX_PATH) characters.
    pub path: String,
    /// SIZE, at least 512 KB.
    pub size: Option<u64>,
    /// MAXSIZE, at least the size.
    pub max_size: Option<MaxSize>,
    /// FILEGROWTH.
    pub growth: Option<Growth>,
    /// The filegroup; PRIMARY where the statement names none.
    pub filegroup: String,
}

/// MAXSIZE.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MaxSize {
    /// So many bytes.
    Bytes(u64),
    /// UNLIMITED.
    Unlimited,
}

/// FILEGROWTH.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Growth {
    /// So many bytes.
    Bytes(u64),
    /// So many percent of the file's size.
    Percent(u32),
}

/// `ALTER DATABASE ... SET`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AlterDatabase {
    /// The name; `None` is CURRENT.
    pub database: Option<String>,
    /// What is set, in the statement's order; at least one.
    pub options: Vec<DatabaseOption>,
}

/// An option of a database.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum DatabaseOption {
    /// ONLINE.
    Online,
    /// OFFLINE.
    Offline,
    /// RECOVERY.
    Recovery(RecoveryModel),
    /// MULTI_USER, SINGLE_USER or RESTRICTED_USER, as the word is. It changes nothing here.
    Access(&'static str),
}

/// `DROP DATABASE`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DropDatabase {
    /// The names, at least one.
    pub databases: Vec<String>,
    /// IF EXISTS: a database that does not exist is no error.
    pub if_exists: bool,
}

/// What stands behind CREATE, ALTER and DROP has to begin with DATABASE.
fn expect_database(cursor: &mut Cursor, verb: &str) -> Result<(), TsqlError> {
    if cursor.take_keyword("DATABASE") {
        return Ok(());
    }
    let (at, unexpected) = (cursor.mark(), cursor.syntax("DATABASE"));
    let Some(object) = cursor.option_word() else { return Err(unexpected) };
    Err(at.not_supported_yet(format!("{verb} {}", object.to_ascii_uppercase()), "it can be used for a DATABASE"))
}

/// What stands behind CREATE.
pub(super) fn create(cursor: &mut Cursor) -> Result<CreateDatabase, TsqlError> {
    expect_database(cursor, "CREATE")?;
    let database = database(cursor)?;
    let mut files = Files::default();
    if cursor.take_keyword("ON") {
        cursor.take_keyword(PRIMARY);
        data_files(cursor, &mut files)?;
    }
    let mut log_file = None;
    if cursor.take_keyword("LOG") {
        cursor.expect_keyword("ON", "ON")?;
        log_file = Some(files.read(cursor, "")?);
        if cursor.take_comma() {
            return Err(cursor.not_supported_yet("a second log file".to_owned(), "name one log file"));
        }
    }
    for clause in ["COLLATE", "CONTAINMENT", "FOR", "AS", "WITH"] {
        if cursor.peek_keyword(clause) {
            let remedy = "leave the clause out, or restore the database from a backup that has it";
            return Err(cursor.not_supported_yet(format!("the clause {clause} of CREATE DATABASE"), remedy));
        }
    }
    end(cursor)?;
    Ok(CreateDatabase { database, data_files: files.data, log_file })
}

/// The data files, with commas between them; FILEGROUP begins another filegroup.
fn data_files(cursor: &mut Cursor, files: &mut Files) -> Result<(), TsqlError> {
    let mut filegroup = PRIMARY.to_owned();
    loop {
        // The primary file comes first.
        if !files.data.is_empty() && cursor.take_keyword("FILEGROUP") {
            filegroup = cursor.identifier("the name of a filegroup")?;
            for clause in ["CONTAINS", "DEFAULT"] {
                if cursor.peek_keyword(clause) {
                    let what = format!("a filegroup that {clause}");
                    return Err(cursor.not_supported_yet(what, "use filegroups of rows, the default one being PRIMARY"));
                }
            }
        }
        let file = files.read(cursor, &filegroup)?;
        files.data.push(file);
        if !cursor.take_comma() {
            return Ok(());
        }
    }
}

/// The files that were read, and the names of all.
#[derive(Default)]
struct Files {
    data: Vec<FileSpec>,
    names: Vec<String>,
}

impl Files {
    /// `(property {, property})`.
    fn read(&mut self, cursor: &mut Cursor, filegroup: &str) -> Result<FileSpec, TsqlError> {
        let at = cursor.mark();
        cursor.expect_opening()?;
        let (mut logical_name, mut path, mut size, mut max_size, mut growth) = (None, None, None, None, None);
        let mut size_at = at;
        loop {
            let unexpected = cursor.syntax("NAME, FILENAME, SIZE, MAXSIZE or FILEGROWTH, each once");
            let is_next = |cursor: &mut Cursor, property: &str, is_new: bool| is_new && cursor.take_keyword(property);
            if is_next(cursor, "NAME", logical_name.is_none()) {
                cursor.expect_equals()?;
                logical_name = Some(logical(cursor)?);
            } else if is_next(cursor, "FILENAME", path.is_none()) {
                cursor.expect_equals()?;
                let path_at = cursor.mark();
                path = Some(check_path(path_at, PHYSICAL, cursor.literal("the path of the file in quotes")?)?);
            } else if is_next(cursor, "SIZE", size.is_none()) {
                cursor.expect_equals()?;
                size_at = cursor.mark();
                size = Some(bytes(cursor, "SIZE", 512 << 10)?);
            } else if is_next(cursor, "MAXSIZE", max_size.is_none()) {
                cursor.expect_equals()?;
                max_size = Some(if cursor.take_keyword("UNLIMITED") {
                    MaxSize::Unlimited
                } else {
                    MaxSize::Bytes(bytes(cursor, "MAXSIZE", 512 << 10)?)
                });
            } else if is_next(cursor, "FILEGROWTH", growth.is_none()) {
                cursor.expect_equals()?;
                growth = Some(file_growth(cursor)?);
            } else {
                return Err(unexpected);
            }
            if !cursor.take_comma() {
                break;
            }
        }
        cursor.expect_closing()?;
        let logical_name = logical_name.ok_or_else(|| at.file_option_missing("NAME"))?;
        let path = path.ok_or_else(|| at.file_option_missing("FILENAME"))?;
        if self.names.iter().any(|name| name.eq_ignore_ascii_case(&logical_name)) {
            return Err(at.duplicate_file(logical_name));
        }
        if let (Some(size), Some(MaxSize::Bytes(most))) = (size, max_size)
            && size > most
        {
            return Err(size_at.file_size("SIZE", size.into(), ABOVE_MAXIMUM));
        }
        self.names.push(logical_name.clone());
        Ok(FileSpec { logical_name, path, size, max_size, growth, filegroup: filegroup.to_owned() })
    }
}

/// The logical name of a file.
fn logical(cursor: &mut Cursor) -> Result<String, TsqlError> {
    let at = cursor.mark();
    let name = cursor.name("the logical name of a file")?;
    checked_name(at, LOGICAL, name)
}

/// The name of a database. It cannot be a variable.
fn database(cursor: &mut Cursor) -> Result<String, TsqlError> {
    let at = cursor.mark();
    let name = cursor.identifier("the name of a database")?;
    checked_name(at, DATABASE, name)
}

/// `number [unit]` in bytes; megabytes without a unit.
fn bytes(cursor: &mut Cursor, option: &'static str, least: u64) -> Result<u64, TsqlError> {
    let at = cursor.mark();
    let digits = cursor.number("a whole number with KB, MB, GB or TB behind it")?;
    in_unit(cursor, at, option, digits, least)
}

/// `size` or `number %`.
fn file_growth(cursor: &mut Cursor) -> Result<Growth, TsqlError> {
    let at = cursor.mark();
    let digits = cursor.number("a whole number with KB, MB, GB, TB or % behind it")?;
    if cursor.take_percent() {
        let percent = digits.parse().ok().filter(|percent| *percent <= 0x7FFF_FFFF);
        return percent.map(Growth::Percent).ok_or_else(|| at.file_size("FILEGROWTH", u128::MAX, TOO_LARGE));
    }
    // 0 switches it off.
    in_unit(cursor, at, "FILEGROWTH", digits, 0).map(Growth::Bytes)
}

fn in_unit(cursor: &mut Cursor, at: Mark, option: &'static str, digits: String, least: u64) -> Result<u64, TsqlError> {
    if !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(at.syntax(digits, "a whole number"));
    }
    let units = [("KB", 10), ("MB", 20), ("GB", 30), ("TB", 40)];
    let shift = units.into_iter().find(|(unit, _)| cursor.take_keyword(unit)).map_or(20, |(_, shift)| shift);
    // More digits than that are too large all the same.
    let number = digits.parse::<u64>().unwrap_or(u64::MAX);
    let bytes = u128::from(number) << shift;
    match u64::try_from(bytes) {
        Ok(bytes) if bytes < least => Err(at.file_size(option, bytes.into(), TOO_SMALL)),
        Ok(bytes) if bytes <= 0x7FFF_FFFF * 8192 => Ok(bytes),
        _ => Err(at.file_size(option, bytes, TOO_LARGE)),
    }
}

/// What stands behind ALTER.
pub(super) fn alter(cursor: &mut Cursor) -> Result<AlterDatabase, TsqlError> {
    expect_database(cursor, "ALTER")?;
    let database = if cursor.take_keyword("CURRENT") { None } else { Some(database(cursor)?) };
    for clause in ["MODIFY", "ADD", "REMOVE", "COLLATE"] {
        if cursor.peek_keyword(clause) {
            let remedy = "use ALTER DATABASE ... SET, or make the database anew";
            return Err(cursor.not_supported_yet(format!("ALTER DATABASE ... {clause}"), remedy));
        }
    }
    cursor.expect_keyword("SET", "SET")?;
    let mut options = vec![database_option(cursor)?];
    while cursor.take_comma() {
        options.push(database_option(cursor)?);
    }
    if cursor.take_keyword("WITH") {
        termination(cursor)?;
    }
    end(cursor)?;
    Ok(AlterDatabase { database, options })
}

fn database_option(cursor: &mut Cursor) -> Result<DatabaseOption, TsqlError> {
    let at = cursor.mark();
    let unexpected = cursor.syntax("OFFLINE, ONLINE or RECOVERY");
    let Some(word) = cursor.option_word() else { return Err(unexpected) };
    let word = word.to_ascii_uppercase();
    Ok(match &*word {
        "ONLINE" => DatabaseOption::Online,
        "OFFLINE" => DatabaseOption::Offline,
        "RECOVERY" => {
            let models = [
                ("FULL", RecoveryModel::Full),
                ("SIMPLE", RecoveryModel::Simple),
                ("BULK_LOGGED", RecoveryModel::BulkLogged),
            ];
            let found = models.into_iter().find(|(model, _)| cursor.take_keyword(model));
            DatabaseOption::Recovery(found.ok_or_else(|| cursor.syntax("FULL, SIMPLE or BULK_LOGGED"))?.1)
        }
        "MULTI_USER" => DatabaseOption::Access("MULTI_USER"),
        "SINGLE_USER" => DatabaseOption::Access("SINGLE_USER"),
        "RESTRICTED_USER" => DatabaseOption::Access("RESTRICTED_USER"),
        // A reserved word is a slip of syntax.
        _ if matches!(unexpected, TsqlError::Keyword { .. }) => return Err(unexpected),
        other => {
            let remedy = "OFFLINE, ONLINE and RECOVERY can be set";
            return Err(at.not_supported_yet(format!("the database option {other}"), remedy));
        }
    })
}

/// What happens to those who use the database. Nobody has to be waited for here, so it is not kept.
fn termination(cursor: &mut Cursor) -> Result<(), TsqlError> {
    if cursor.take_keyword("NO_WAIT") {
        return Ok(());
    }
    cursor.expect_keyword("ROLLBACK", "ROLLBACK or NO_WAIT")?;
    if cursor.take_keyword("IMMEDIATE") {
        return Ok(());
    }
    cursor.expect_keyword("AFTER", "IMMEDIATE or AFTER")?;
    let at = cursor.mark();
    let digits = cursor.number("a number of seconds")?;
    if digits.parse::<u32>().is_err() {
        return Err(at.syntax(digits, "a whole number of seconds"));
    }
    cursor.take_keyword("SECONDS");
    Ok(())
}

/// What stands behind DROP.
pub(super) fn remove(cursor: &mut Cursor) -> Result<DropDatabase, TsqlError> {
    expect_database(cursor, "DROP")?;
    let if_exists = cursor.take_keyword("IF");
    if if_exists {
        cursor.expect_keyword("EXISTS", "EXISTS")?;
    }
    let mut databases = vec![database(cursor)?];
    while cursor.take_comma() {
        databases.push(database(cursor)?);
    }
    end(cursor)?;
    Ok(DropDatabase { databases, if_exists })
}

#[cfg(test)]
mod tests {
    use super::super::{Action, parse_batch};
    use super::*;

    fn action(sql: &str) -> Action {
        let mut steps = parse_batch(sql, &[]).expect(sql);
        assert_eq!(steps.len(), 1, "{sql}: {steps:?}");
        steps.remove(0).action
    }

    fn created(sql: &str) -> CreateDatabase {
        match action(sql) {
            Action::Create(create) => create,
            other => panic!("{sql}: {other:?}"),
        }
    }

    /// Number and text of the first message, and all numbers behind it.
    fn refused(sql: &str) -> (u32, String, usize) {
        let messages = parse_batch(sql, &[]).expect_err(sql).messages();
        (messages[0].number, messages.iter().map(|message| format!("{}\n", message.text)).collect(), messages.len())
    }

    #[test]
    fn a_database_has_its_files() {
        let all = created(
            "create database [my db] on primary (name = a, filename = 'a.mdf', SIZE = 10MB, MAXSIZE = UNLIMITED, FILEGROWTH = 10%),
             (NAME = N'b', FILENAME = N'b.ndf', size = 512 KB), FILEGROUP [g h] (NAME = [c d], FILENAME='c', MAXSIZE = 2 GB, SIZE=3)
             , (NAME = e, FILENAME = 'e', FILEGROWTH = 0) LOG ON (NAME = \"l\", FILENAME = 'l.ldf', FILEGROWTH = 64 MB);",
        );
        assert_eq!(all.database, "my db");
        let file = |name: &str, path: &str, filegroup: &str| FileSpec {
            logical_name: name.to_owned(),
            path: path.to_owned(),
            size: None,
            max_size: None,
            growth: None,
            filegroup: filegroup.to_owned(),
        };
        let expected = [
            FileSpec {
                size: Some(10 << 20),
                max_size: Some(MaxSize::Unlimited),
                growth: Some(Growth::Percent(10)),
                ..file("a", "a.mdf", "PRIMARY")
            },
            FileSpec { size: Some(512 << 10), ..file("b", "b.ndf", "PRIMARY") },
            FileSpec { size: Some(3 << 20), max_size: Some(MaxSize::Bytes(2 << 30)), ..file("c d", "c", "g h") },
            FileSpec { growth: Some(Growth::Bytes(0)), ..file("e", "e", "g h") },
        ];
        assert_eq!(all.data_files, expected);
        assert_eq!(all.log_file, Some(FileSpec { growth: Some(Growth::Bytes(64 << 20)), ..file("l", "l.ldf", "") }));
        let bare = CreateDatabase { database: "d".to_owned(), data_files: Vec::new(), log_file: None };
        assert_eq!(created("CREATE DATABASE d"), bare);
        let log_only = created("CREATE DATABASE d LOG ON (NAME = l, FILENAME = 'l')");
        assert!(log_only.data_files.is_empty() && log_only.log_file.is_some());
    }

    #[test]
    fn files_that_cannot_be_are_refused() {
        for (files, number, text) in [
            ("(NAME = a)", 1036, "FILENAME"),
            ("(FILENAME = 'a')", 1036, "NAME"),
            ("(NAME = a, FILENAME = 'a'), (NAME = A, FILENAME = 'b')", 1828, "\"A\""),
            ("(NAME = a, FILENAME = 'a', SIZE = 511 KB)", 5174, "512 KB"),
            ("(NAME = a, FILENAME = 'a', SIZE = 0)", 5174, "512 KB"),
            ("(NAME = a, FILENAME = 'a', SIZE = 17TB)", 1842, "2147483647"),
            ("(NAME = a, FILENAME = 'a', SIZE = 99999999999999999999)", 1842, "2147483647"),
            ("(NAME = a, FILENAME = 'a', FILEGROWTH = 2147483648%)", 1842, "2147483647"),
            ("(NAME = a, FILENAME = 'a', SIZE = 2, MAXSIZE = 1)", 50000, "more than MAXSIZE"),
            ("(NAME = a, FILENAME = 'a', SIZE = 1.5)", 102, "near '1.5'"),
            ("(NAME = a, FILENAME = 'a', SIZE = 1 PB)", 102, "near 'PB'"),
            ("(NAME = a, FILENAME = 'a', SIZE = UNLIMITED)", 102, "near 'UNLIMITED'"),
            ("(NAME = a, NAME = a, FILENAME = 'a')", 102, "near 'NAME'"),
            ("(NAME = a, FILENAME = @f)", 102, "near '@f'"),
            ("(NAME = a, FILENAME = '')", 5105, "path"),
            ("(NAME = [], FILENAME = 'a')", 50000, "logical file"),
            ("NAME = a", 102, "near 'NAME'"),
            ("()", 102, "near ')'"),
            ("(NAME = a, FILENAME = 'a'", 102, "expected )"),
            (
                "(NAME = a, FILENAME = 'a'), FILEGROUP g CONTAINS FILESTREAM (NAME = b, FILENAME = 'b')",
                50000,
                "CONTAINS",
            ),
            ("FILEGROUP g (NAME = b, FILENAME = 'b')", 102, "near 'FILEGROUP'"),
            (
                "(NAME = a, FILENAME = 'a') LOG ON (NAME = b, FILENAME = 'b'), (NAME = c, FILENAME = 'c')",
                50000,
                "second log",
            ),
            ("(NAME = a, FILENAME = 'a') FOR ATTACH", 50000, "FOR"),
        ] {
            let (found, texts, _) = refused(&format!("CREATE DATABASE d ON {files}"));
            assert!(found == number && texts.contains(text), "{files}: {found} {texts}");
        }
        for (sql, number) in [
            ("CREATE TABLE t", 50000),
            ("CREATE", 102),
            ("CREATE DATABASE", 102),
            ("CREATE DATABASE d COLLATE Latin1_General_CI_AS", 50000),
            ("CREATE DATABASE []", 1038),
            ("DROP VIEW v", 50000),
            ("DROP DATABASE d e", 102),
            ("DROP DATABASE IF d", 102),
        ] {
            assert_eq!(refused(sql).0, number, "{sql}");
        }
    }

    #[test]
    fn a_database_is_changed() {
        let changed = |sql: &str| match action(sql) {
            Action::Alter(AlterDatabase { database, options }) => (database, options),
            other => panic!("{sql}: {other:?}"),
        };
        let d = || Some("d".to_owned());
        use DatabaseOption::{Access, Offline, Online, Recovery};
        for (sql, database, options) in [
            ("ALTER DATABASE d SET OFFLINE WITH ROLLBACK IMMEDIATE", d(), vec![Offline]),
            ("alter database [d] set online with no_wait;", d(), vec![Online]),
            ("ALTER DATABASE d SET OFFLINE WITH ROLLBACK AFTER 10 SECONDS", d(), vec![Offline]),
            ("ALTER DATABASE d SET OFFLINE WITH ROLLBACK AFTER 10", d(), vec![Offline]),
            ("ALTER DATABASE CURRENT SET RECOVERY FULL", None, vec![Recovery(RecoveryModel::Full)]),
            ("ALTER DATABASE d SET RECOVERY bulk_logged", d(), vec![Recovery(RecoveryModel::BulkLogged)]),
            (
                "ALTER DATABASE d SET RECOVERY SIMPLE, MULTI_USER WITH NO_WAIT",
                d(),
                vec![Recovery(RecoveryModel::Simple), Access("MULTI_USER")],
            ),
        ] {
            assert_eq!(changed(sql), (database, options), "{sql}");
        }
        for (sql, number, text) in [
            ("ALTER DATABASE d SET", 102, "OFFLINE, ONLINE or RECOVERY"),
            ("ALTER DATABASE d SET OFFLINE WITH ROLLBACK", 102, "IMMEDIATE or AFTER"),
            ("ALTER DATABASE d SET OFFLINE WITH ROLLBACK AFTER 1.5", 102, "seconds"),
            ("ALTER DATABASE d SET RECOVERY SOME", 156, "'SOME'"),
            ("ALTER DATABASE d SET READ_ONLY", 50000, "READ_ONLY"),
            ("ALTER DATABASE d MODIFY NAME = e", 50000, "MODIFY"),
            ("ALTER DATABASE d OFFLINE", 102, "near 'OFFLINE'"),
            ("ALTER TABLE t ADD c int", 50000, "ALTER TABLE"),
        ] {
            let (found, texts, _) = refused(sql);
            assert!(found == number && texts.contains(text), "{sql}: {found} {texts}");
        }
    }

    #[test]
    fn databases_are_dropped() {
        let dropped = |sql: &str| match action(sql) {
            Action::Drop(DropDatabase { databases, if_exists }) => (databases.join("|"), if_exists),
            other => panic!("{sql}: {other:?}"),
        };
        assert_eq!(dropped("DROP DATABASE d"), ("d".to_owned(), false));
        assert_eq!(dropped("drop database if exists a,[b c] , \"e\";"), ("a|b c|e".to_owned(), true));
    }

    /// The words that begin a statement do not end one of these where they belong to it.
    #[test]
    fn a_batch_may_change_databases() {
        let batch = "CREATE DATABASE d ALTER DATABASE d SET OFFLINE WITH ROLLBACK IMMEDIATE SET NOCOUNT ON\nROLLBACK DROP DATABASE d
                     ALTER DATABASE d SET ONLINE ROLLBACK BACKUP DATABASE d TO DISK='x' DROP DATABASE e";
        let steps = parse_batch(batch, &[]).expect(batch);
        let kinds: Vec<_> = steps
            .iter()
            .map(|step| match step.action {
                Action::Create(_) => "create",
                Action::Alter(_) => "alter",
                Action::Drop(_) => "drop",
                Action::CountRows(_) => "set",
                Action::Rollback => "rollback",
                Action::Statement(_) => "backup",
                _ => "other",
            })
            .collect();
        assert_eq!(kinds, ["create", "alter", "set", "rollback", "drop", "alter", "rollback", "backup", "drop"]);
        assert_eq!(steps[3].line, 2);
        // 3013 is for BACKUP and RESTORE.
        assert_eq!(refused("CREATE DATABASE d ON (NAME = a, FILENAME = '')").2, 2);
    }
}
