//! The statements that a session carries out by itself: databases are made, changed and removed.
#![allow(clippy::unwrap_used, reason = "tests")]

use super::*;
use crate::catalog::DatabaseState;
use crate::messages::Verb;
use crate::vds::Options;
use vdi_mtf::sqlserver::config::{RecoveryModel, file_flags};

struct Place {
    folder: tempfile::TempDir,
    engine: Engine,
}

impl Place {
    fn new() -> Place {
        let folder = tempfile::tempdir().unwrap();
        let engine = Engine::new(folder.path(), Options::default()).unwrap();
        Place { folder, engine }
    }

    fn names(&self) -> Vec<String> {
        self.engine.folder().catalog().databases().unwrap().into_iter().map(|row| row.name).collect()
    }

    /// The files in the data folder but for those of the catalog.
    fn files(&self) -> Vec<String> {
        let entries = std::fs::read_dir(self.folder.path()).unwrap();
        let names = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap());
        let mut names: Vec<_> = names.filter(|name| !name.starts_with("catalog.")).collect();
        names.sort();
        names
    }
}

fn run(session: &mut Session<'_>, sql: &str) -> (Result<(), BatchError>, Answer) {
    let mut answer = Answer::default();
    let outcome = session.batch(sql, &[], &mut answer, &Cancel::new());
    (outcome, answer)
}

/// The numbers of the errors of a batch in a new session.
fn errors(place: &Place, sql: &str) -> Vec<u32> {
    let (outcome, answer) = run(&mut place.engine.session(), sql);
    let errors: Vec<_> = answer.messages.iter().filter(|m| m.is_error()).map(|m| m.number).collect();
    assert_eq!(outcome.is_err(), !errors.is_empty(), "{sql}: {outcome:?} {answer:?}");
    assert_eq!(answer.done.iter().any(|done| done.failed), !errors.is_empty(), "{sql}: {answer:?}");
    errors
}

#[test]
fn a_database_is_made_and_dropped() {
    let place = Place::new();
    assert_eq!(errors(&place, "CREATE DATABASE Sales"), []);
    assert_eq!(
        (place.names(), place.files()),
        (vec!["Sales".to_owned()], vec!["Sales.mdf".into(), "Sales_log.ldf".into()])
    );
    // Names are compared without regard to case, and the name is the one that the database was made with.
    let mut session = place.engine.session();
    let (outcome, answer) = run(&mut session, "CREATE DATABASE sALES\nUSE SALES");
    let Err(BatchError::State { message }) = outcome else { panic!("{outcome:?}") };
    assert_eq!((message.number, message.line), (1801, 1));
    assert_eq!(session.database(), "Sales");
    assert_eq!(answer.messages.last().unwrap().text, "Changed database context to 'Sales'.");
    assert_eq!(run(&mut session, "DROP DATABASE sales").1.messages[0].number, 3702, "it is the session's");
    assert_eq!(errors(&place, "DROP DATABASE gone, sales"), [3701]);
    assert_eq!(errors(&place, "DROP DATABASE IF EXISTS sales"), []);
    assert_eq!(errors(&place, "DROP DATABASE master"), [3708]);
    assert_eq!(errors(&place, "CREATE DATABASE TempDB"), [1801]);
    assert_eq!((place.names(), place.files()), (Vec::new(), Vec::new()));
}

#[test]
fn a_database_has_the_files_that_it_is_given() {
    let place = Place::new();
    let sql = "CREATE DATABASE d ON (NAME = a, FILENAME = 'one.mdf', SIZE = 3MB, MAXSIZE = 30 MB, FILEGROWTH = 10%),
               FILEGROUP Old (NAME = b, FILENAME = 'two.ndf', SIZE = 2048 KB, FILEGROWTH = 1) LOG ON (NAME = l, FILENAME = 'log.ldf')";
    assert_eq!(errors(&place, sql), []);
    assert_eq!(place.files(), ["log.ldf", "one.mdf", "two.ndf"]);
    let row = place.engine.folder().catalog().find("d").unwrap().unwrap();
    let config = &row.configuration;
    let files: Vec<_> = config
        .files
        .iter()
        .map(|file| {
            let is_percent = file.flags & file_flags::PERCENT != 0;
            (file.logical_name.to_string(), config.filegroup_of(file), file.size >> 20, file.growth, is_percent)
        })
        .collect();
    let of = |name: &str, filegroup: &str, size, growth, is_percent| {
        (name.to_owned(), filegroup.to_owned(), size, growth, is_percent)
    };
    assert!(files.contains(&of("a", "PRIMARY", 3, 10, true)), "{files:?}");
    assert!(files.contains(&of("b", "Old", 2, 1 << 20, false)), "{files:?}");
    assert!(files.iter().any(|(name, _, size, ..)| name == "l" && *size == 8), "{files:?}");
    assert_eq!(config.files[0].max_size, 30 << 20);
    assert_eq!(row.recovery_model, RecoveryModel::Full);
    std::fs::write(place.folder.path().join("mine"), b"mine").unwrap();
    for (file, expected) in [
        ("one.mdf", &[1834, 1802][..]),
        ("mine", &[5170, 1802]),
        ("nowhere/x", &[5133, 1802]),
        ("catalog.lock", &[5105, 1802]),
    ] {
        let sql = format!("CREATE DATABASE e ON (NAME = e, FILENAME = '{file}') LOG ON (NAME = f, FILENAME = 'f.ldf')");
        assert_eq!(errors(&place, &sql), expected, "{file}");
    }
    assert_eq!(
        (place.names(), place.files()),
        (vec!["d".into()], ["log.ldf", "mine", "one.mdf", "two.ndf"].map(String::from).to_vec())
    );
}

#[test]
fn a_database_goes_offline_and_comes_back() {
    let place = Place::new();
    let state = || place.engine.folder().catalog().find("d").unwrap().unwrap().state;
    assert_eq!(errors(&place, "CREATE DATABASE d ALTER DATABASE d SET OFFLINE WITH ROLLBACK IMMEDIATE"), []);
    assert_eq!((state(), errors(&place, "USE d")), (DatabaseState::Offline, vec![942]));
    assert_eq!(errors(&place, "ALTER DATABASE D SET ONLINE USE d"), []);
    let path = place.folder.path().join("d.mdf");
    let aside = place.folder.path().join("aside");
    std::fs::rename(&path, &aside).unwrap();
    assert_eq!(errors(&place, "ALTER DATABASE d SET OFFLINE; ALTER DATABASE d SET ONLINE"), [5120, 5069]);
    assert_eq!((state(), errors(&place, "USE d")), (DatabaseState::RecoveryPending, vec![945]));
    std::fs::write(&path, b"short").unwrap();
    assert_eq!(errors(&place, "ALTER DATABASE d SET ONLINE"), [5172, 5069]);
    std::fs::rename(&aside, &path).unwrap();
    assert_eq!(errors(&place, "ALTER DATABASE d SET ONLINE USE d"), []);
}

#[test]
fn options_of_a_database_are_set() {
    let place = Place::new();
    let sql = "CREATE DATABASE d; USE d; ALTER DATABASE CURRENT SET RECOVERY SIMPLE, RESTRICTED_USER WITH NO_WAIT";
    let (outcome, answer) = run(&mut place.engine.session(), sql);
    outcome.unwrap();
    let remark = &answer.messages.last().unwrap().text;
    assert_eq!(remark, "RESTRICTED_USER changes nothing: there are no users who could be kept out");
    assert_eq!(place.engine.folder().catalog().find("d").unwrap().unwrap().recovery_model, RecoveryModel::Simple);
    for (sql, expected) in [
        ("ALTER DATABASE gone SET RECOVERY FULL", &[5011, 5069][..]),
        ("ALTER DATABASE gone SET OFFLINE", &[5011, 5069]),
        ("ALTER DATABASE gone SET MULTI_USER", &[5011, 5069]),
        ("ALTER DATABASE master SET OFFLINE", &[5058, 5069]),
        // The session is in master.
        ("ALTER DATABASE CURRENT SET RECOVERY FULL", &[5058, 5069]),
    ] {
        assert_eq!(errors(&place, sql), expected, "{sql}");
    }
}

#[test]
fn a_transaction_refuses_what_it_could_not_undo() {
    let place = Place::new();
    assert_eq!(errors(&place, "CREATE DATABASE d"), []);
    let sql = "BEGIN TRAN CREATE DATABASE e\nALTER DATABASE d SET OFFLINE DROP DATABASE d";
    let (_, answer) = run(&mut place.engine.session(), sql);
    let found: Vec<_> = answer.messages.iter().map(|message| (message.number, message.line)).collect();
    assert_eq!(found, [(226, 1), (226, 2), (574, 2)]);
    assert_eq!(place.names(), ["d"]);
}

/// A statement on a database keeps the others off.
#[test]
fn a_database_in_use_is_not_changed() {
    let place = Place::new();
    assert_eq!(errors(&place, "CREATE DATABASE d"), []);
    let lock = place.engine.folder().lock("d", Verb::Backup).unwrap();
    assert_eq!(errors(&place, "DROP DATABASE d"), [3702]);
    assert_eq!(errors(&place, "ALTER DATABASE d SET OFFLINE"), [5061, 5069]);
    assert_eq!(errors(&place, "ALTER DATABASE d SET RECOVERY SIMPLE"), [5061, 5069]);
    drop(lock);
    assert_eq!(errors(&place, "DROP DATABASE d"), []);
}

/// What is done takes its place between the messages only where the output wants it.
#[test]
fn percents_are_progress_where_the_statement_does_not_ask() {
    let statement = |options: &str| {
        let sql = format!("BACKUP DATABASE d TO DISK = 'x'{options}");
        tsql::parse(&sql).unwrap()
    };
    let Some(Statement::Backup(backup)) = with_stats(&statement("")) else { panic!() };
    assert_eq!(backup.options.stats, Some(1));
    assert_eq!(with_stats(&statement(" WITH STATS = 20")), None);
    let inspect = |word: &str| tsql::parse(&format!("RESTORE {word} FROM DISK = 'x'")).unwrap();
    assert!(with_stats(&inspect("VERIFYONLY")).is_some() && with_stats(&inspect("HEADERONLY")).is_none());

    #[derive(Default)]
    struct Watch(Vec<String>);

    impl Output for Watch {
        fn message(&mut self, message: Message) {
            self.0.push(message.text);
        }
        fn columns(&mut self, _: &[Column]) {}
        fn row(&mut self, _: Vec<Value>) {}
        fn done(&mut self, _: Done) {}
        fn progress(&mut self, percent: u8) {
            self.0.push(format!("at {percent}"));
        }
    }

    let cancel = Cancel::new();
    for (percent, expected) in
        [(Some(0), ["at 1", "other", "at 2"]), (None, ["1 percent processed.", "other", "2 percent processed."])]
    {
        let mut watch = Watch::default();
        let mut relay = Relay { out: &mut watch, line: 1, cancel: &cancel, rows: None, percent, panic: None };
        for message in [Message::percent_processed(1), Message::own_information("other"), Message::percent_processed(2)]
        {
            relay.message(message);
        }
        assert_eq!(watch.0, expected);
    }
}
