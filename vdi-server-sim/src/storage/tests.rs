//! Tests of folder, restore and clean-up.

mod crash;
mod whole;

use std::fs;
use std::path::PathBuf;

use vdi_mtf::set::SetStart;
use vdi_mtf::sqlserver::config::{Config, Database, FileRecord, FileType, Filegroup, RecoveryModel};
use vdi_mtf::value::{DateTime, FileId, Guid, Text};

use super::*;
use crate::catalog::{DatabaseState, RestoreRecord};
use crate::messages::Verb;

const EXTENT: u64 = 65536;

/// A configuration as a backup has it: two data files and a log.
fn configuration(family: Guid, paths: [&str; 3], status: u32) -> Config {
    let mut database = Database { family, recovery_fork: family, status, ..Database::new(16) };
    (database.data_files, database.log_files, database.kind_letter) = (2, 1, b'D');
    database.name = Text::from("Source");
    let files = [(1, "one", FileType::Data), (3, "two", FileType::Data), (2, "log", FileType::Log)];
    let files = files.into_iter().zip(paths).map(|((id, name, file_type), path)| FileRecord {
        size: EXTENT,
        logical_name: Text::from(name),
        physical_name: Text::from(path),
        ..FileRecord::new(16, FileId(id), file_type)
    });
    Config { database, filegroups: vec![Filegroup::new(16, 1, "PRIMARY")], files: files.collect() }
}

const PATHS: [&str; 3] = ["C:\\Data\\one.mdf", "C:\\Data\\two.ndf", "D:\\Log\\log.ldf"];

fn start(number: u8) -> SetStart {
    SetStart::new(1, Guid([number; 16]), DateTime::new(2024, 5, 31, 12, 0, 0).unwrap(), 16)
}

struct Restore<'a> {
    name: &'a str,
    configuration: Config,
    replace: bool,
    moves: Vec<(String, PathBuf)>,
    /// What is in the files.
    byte: u8,
}

impl Restore<'_> {
    fn of(name: &str, byte: u8) -> Restore<'_> {
        let configuration = configuration(Guid([7; 16]), PATHS, 8);
        Restore { name, configuration, replace: false, moves: Vec::new(), byte }
    }

    fn create(&self, folder: &DataFolder) -> Result<RestoreTarget, StorageError> {
        let lock = folder.lock(self.name, Verb::Restore)?;
        let request = RestoreRequest {
            name: self.name,
            configuration: &self.configuration,
            replace: self.replace,
            moves: &self.moves,
        };
        let target = RestoreTarget::create(folder, lock, &request)?;
        for file in &self.configuration.files {
            target.write_at(file.file_id, 0, &vec![self.byte; EXTENT as usize])?;
        }
        Ok(target)
    }

    fn finish(&self, target: RestoreTarget) -> Result<Committed, StorageError> {
        let start = start(self.byte);
        let (configuration, replace) = (&self.configuration, self.replace);
        target.finish(&RestoreRecord { database: self.name, start: &start, configuration, replace })
    }

    fn run(&self, folder: &DataFolder) -> Result<Committed, StorageError> {
        let target = self.create(folder)?;
        self.finish(target)
    }
}

fn folder() -> (tempfile::TempDir, DataFolder) {
    let directory = tempfile::tempdir().unwrap();
    let folder = DataFolder::open(directory.path()).unwrap();
    (directory, folder)
}

/// The names in the data folder, without the catalog's.
fn names(folder: &DataFolder) -> Vec<String> {
    let entries = fs::read_dir(folder.path()).unwrap();
    let names = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let mut names: Vec<_> = names.filter(|name| !name.starts_with("catalog.")).collect();
    names.sort();
    names
}

/// The database has its files, all with this byte; there are no pending files, and no others in the folder than those of databases.
fn assert_is(folder: &DataFolder, name: &str, byte: u8) {
    let row = folder.catalog().find(name).unwrap().unwrap();
    for file in &row.files {
        let content = fs::read(&file.path).unwrap();
        assert_eq!((content.len() as u64, content[0], content[content.len() - 1]), (file.size, byte, byte));
    }
    assert_no_litter(folder);
}

fn assert_no_litter(folder: &DataFolder) {
    assert_eq!(folder.catalog().pending(), [] as [PathBuf; 0]);
    assert_eq!(folder.catalog().unsettled().unwrap(), [] as [String; 0]);
    let databases = folder.catalog().databases().unwrap();
    let mut expected: Vec<String> = databases
        .iter()
        .flat_map(|row| &row.files)
        .filter_map(|file| file.path.strip_prefix(folder.path()).ok()?.to_str().map(str::to_owned))
        .collect();
    expected.sort();
    assert_eq!(names(folder), expected);
}

#[test]
fn a_restore_makes_the_database_and_its_history() {
    let (_directory, folder) = folder();
    let restore = Restore::of("Sales", 1);
    let committed = restore.run(&folder).unwrap();
    assert!(!committed.replaced && committed.leftover.is_none());
    assert_is(&folder, "sales", 1);
    assert_eq!(names(&folder), ["log.ldf", "one.mdf", "two.ndf"]);

    let row = folder.catalog().find("SALES").unwrap().unwrap();
    assert_eq!((row.id, row.name.as_str(), row.state), (5, "Sales", DatabaseState::Online));
    assert!(row.is_foreign);
    assert_eq!(row.configuration.database.name.to_string(), "Sales");
    assert_eq!(row.configuration.files[0].physical_name.to_string(), folder.path().join("one.mdf").to_str().unwrap());
    assert_eq!(row.files.iter().map(|file| file.file_id.0).collect::<Vec<_>>(), [1, 3, 2]);
    let restores = folder.catalog().restores(None).unwrap();
    assert_eq!((restores[0].database.as_str(), restores[0].source.as_str(), restores.len()), ("Sales", "Source", 1));
    assert!(folder.catalog().backups(None).unwrap().is_empty());
}

#[test]
fn a_restore_that_is_given_up_leaves_nothing() {
    let (_directory, folder) = folder();
    let target = Restore::of("Sales", 1).create(&folder).unwrap();
    assert_eq!(names(&folder).len(), 3);
    drop(target);
    assert!(folder.catalog().databases().unwrap().is_empty());
    assert_no_litter(&folder);
}

#[test]
fn a_statement_that_runs_keeps_its_files_while_others_open_the_folder() {
    let (_directory, folder) = folder();
    let restore = Restore::of("Sales", 1);
    let target = restore.create(&folder).unwrap();
    let other = DataFolder::open(folder.path()).unwrap();
    assert_eq!(names(&other).len(), 3);
    assert!(matches!(other.lock("sALES", Verb::Backup), Err(StorageError::InUse { holder: Verb::Restore, .. })));
    restore.finish(target).unwrap();
    assert_is(&other, "Sales", 1);
}

#[test]
fn a_restore_over_a_database_is_refused_as_sql_server_does() {
    let (_directory, folder) = folder();
    Restore::of("Simple", 1).run(&folder).unwrap();
    // The same database in SIMPLE recovery needs no REPLACE.
    assert!(Restore::of("Simple", 2).run(&folder).unwrap().replaced);
    let mut other = Restore::of("Simple", 3);
    other.configuration.database.family = Guid([8; 16]);
    assert!(matches!(other.run(&folder).unwrap_err(), StorageError::OtherDatabase { .. }));
    other.replace = true;
    assert!(other.run(&folder).unwrap().replaced);
    assert_is(&folder, "Simple", 3);

    for model in [RecoveryModel::Full, RecoveryModel::BulkLogged] {
        folder.set_recovery_model("Simple", model).unwrap();
        other.replace = false;
        assert!(matches!(other.run(&folder).unwrap_err(), StorageError::TailNotSaved { .. }));
    }
    other.replace = true;
    other.run(&folder).unwrap();
    assert_is(&folder, "Simple", 3);
    assert_eq!(folder.catalog().find("simple").unwrap().unwrap().id, 5);
}

#[test]
fn files_of_others_are_never_overwritten() {
    let (_directory, folder) = folder();
    Restore::of("One", 1).run(&folder).unwrap();
    let mut two = Restore::of("Two", 2);
    two.replace = true;
    match two.run(&folder).unwrap_err() {
        StorageError::FileInUse { database, .. } => assert_eq!(database, "One"),
        other => panic!("{other}"),
    }
    two.moves = ["one", "two", "log"].map(|name| (name.to_owned(), PathBuf::from(format!("{name}2")))).into();
    fs::write(folder.path().join("two2"), "mine").unwrap();
    assert!(matches!(two.run(&folder).unwrap_err(), StorageError::FileExists { .. }));
    assert_eq!(fs::read(folder.path().join("two2")).unwrap(), b"mine");
    fs::remove_file(folder.path().join("two2")).unwrap();
    two.moves.push(("three".into(), "x".into()));
    assert!(matches!(two.run(&folder).unwrap_err(), StorageError::UnknownLogicalName { .. }));
    two.moves.pop();
    two.moves[2].1 = "two2".into();
    assert!(matches!(two.run(&folder).unwrap_err(), StorageError::SamePath { .. }));
    two.moves[2].1 = "no/folder".into();
    assert!(matches!(two.run(&folder).unwrap_err(), StorageError::NoSuchFolder { .. }));
    for path in ["catalog.sqlite", "catalog.sqlite-wal", "catalog.lock", ".", "..", "", "x/", "a\0b"] {
        two.moves[2].1 = path.into();
        assert!(matches!(two.run(&folder).unwrap_err(), StorageError::InvalidPath { .. }), "{path:?}");
    }
    two.moves[2].1 = "log2".into();
    two.run(&folder).unwrap();
    assert_is(&folder, "Two", 2);
    assert_is(&folder, "One", 1);
}

#[test]
fn a_backup_does_not_decide_where_a_file_is_written() {
    let (_directory, folder) = folder();
    let elsewhere = tempfile::tempdir().unwrap();
    let outside = elsewhere.path().join("two.ndf");
    let mut restore = Restore::of("d", 1);
    restore.configuration.files[1].physical_name = Text::from(outside.to_str().unwrap());
    restore.configuration.files[2].physical_name = Text::from("../../x/log.ldf");
    restore.run(&folder).unwrap();
    assert!(!outside.exists());
    assert_is(&folder, "d", 1);

    // A statement does; and the database keeps its file there when it is restored again.
    restore.moves = vec![("two".into(), outside.clone())];
    restore.run(&folder).unwrap();
    assert_eq!(fs::read(&outside).unwrap()[0], 1);
    restore.moves.clear();
    restore.byte = 2;
    restore.run(&folder).unwrap();
    assert_eq!(fs::read(&outside).unwrap()[0], 2);
    assert_is(&folder, "d", 2);
    folder.drop_database("D").unwrap();
    assert!(!outside.exists());
    assert_no_litter(&folder);
}

#[test]
fn hostile_lists_of_files_are_refused() {
    let (_directory, folder) = folder();
    let refused = |change: &dyn Fn(&mut Config)| {
        let mut restore = Restore::of("d", 1);
        change(&mut restore.configuration);
        let error = restore.run(&folder).unwrap_err();
        assert!(matches!(error, StorageError::InvalidFile { .. }), "{error}");
    };
    refused(&|config| config.files[0].size = u64::MAX);
    refused(&|config| config.files[0].size = 1 << 62);
    refused(&|config| config.files[0].size = 0);
    refused(&|config| config.files[2].size = 1 << 63);
    refused(&|config| config.files[1].file_id = FileId(1));
    refused(&|config| config.files[1].type_number = 4);
    refused(&|config| config.files.clear());
    refused(&|config| drop(config.files.pop()));
    refused(&|config| config.files[1].type_number = 2);
    assert_no_litter(&folder);

    let restore = Restore::of("d", 1);
    let target = restore.create(&folder).unwrap();
    assert!(matches!(target.write_at(FileId(9), 0, &[1]), Err(StorageError::NoSuchFile { file: FileId(9) })));
    for offset in [EXTENT, EXTENT - 1, u64::MAX - 1, u64::MAX] {
        let error = target.write_at(FileId(3), offset, &[1; 2]).unwrap_err();
        assert!(matches!(error, StorageError::BeyondEnd { length: 2, size: EXTENT, .. }), "{error}");
    }
    let mut other = Restore::of("d", 1);
    other.configuration.files[0].size += EXTENT;
    let (start, configuration) = (start(1), &other.configuration);
    let record = RestoreRecord { database: "d", start: &start, configuration, replace: false };
    assert!(matches!(target.commit(&record, &[]).unwrap_err(), StorageError::ListsDiffer { .. }));
    assert_no_litter(&folder);
}

/// Fills the files with a byte.
fn format(byte: u8) -> impl FnOnce(&crate::catalog::DatabaseRow, &[fs::File]) -> Result<(), StorageError> {
    move |row, files| {
        use std::os::unix::fs::FileExt;
        for (file, row) in files.iter().zip(&row.files) {
            file.write_all_at(&vec![byte; row.size as usize], 0).unwrap();
        }
        Ok(())
    }
}

fn create(name: &str) -> CreateDatabase {
    let mut data = NewFile::new(name, format!("{name}.mdf"));
    data.size = (1 << 20) + 1;
    let second = NewFile {
        filegroup: "Second".into(),
        ..NewFile { size: 1 << 20, ..NewFile::new("more", format!("{name}.ndf")) }
    };
    let log = NewFile { size: 1 << 20, ..NewFile::new("log", format!("{name}.ldf")) };
    CreateDatabase {
        name: name.into(),
        data_files: vec![data, second],
        log_file: Some(log),
        recovery_model: RecoveryModel::Full,
    }
}

#[test]
fn create_database_makes_what_was_asked_for() {
    let (_directory, folder) = folder();
    folder.create_formatted(&create("New"), format(5)).unwrap();
    assert_is(&folder, "New", 5);
    let row = folder.catalog().find("new").unwrap().unwrap();
    assert!(!row.is_foreign);
    assert_eq!((row.id, row.recovery_model, row.configuration.database.database_id), (5, RecoveryModel::Full, 5));
    let files: Vec<_> = row.files.iter().map(|file| (file.file_id.0, file.filegroup, file.size)).collect();
    assert_eq!(files, [(1, 1, (1 << 20) + EXTENT), (3, 2, 1 << 20), (2, 0, 1 << 20)]);
    let groups: Vec<_> = row.configuration.filegroups.iter().map(|group| group.name.to_string()).collect();
    assert_eq!(groups, ["PRIMARY", "Second"]);

    assert!(matches!(folder.create_formatted(&create("nEW"), format(6)), Err(StorageError::Exists { .. })));
    let mut other = create("Other");
    other.data_files[0].path = "New.mdf".into();
    assert!(matches!(folder.create_formatted(&other, format(6)), Err(StorageError::FileInUse { .. })));
    fs::write(folder.path().join("mine"), "mine").unwrap();
    other.data_files[0].path = "mine".into();
    assert!(matches!(folder.create_formatted(&other, format(6)), Err(StorageError::FileExists { .. })));
    assert_eq!(fs::read(folder.path().join("mine")).unwrap(), b"mine");
    fs::remove_file(folder.path().join("mine")).unwrap();
    assert_is(&folder, "New", 5);

    let refused = |change: &dyn Fn(&mut CreateDatabase)| {
        let mut request = create("Bad");
        change(&mut request);
        let error = folder.create_formatted(&request, format(6)).unwrap_err();
        assert!(matches!(error, StorageError::InvalidFile { .. }), "{error}");
    };
    refused(&|request| request.data_files[0].size = 1);
    refused(&|request| request.data_files[0].size = u64::MAX);
    refused(&|request| request.data_files[0].filegroup = "Second".into());
    refused(&|request| request.data_files[1].logical_name = "BAD".into());
    refused(&|request| request.data_files[1].logical_name = "x".repeat(129));
    refused(&|request| request.data_files[1].max_size = Some(5));
    for name in ["master", "TempDB"] {
        assert!(matches!(folder.create_formatted(&create(name), format(6)), Err(StorageError::SystemDatabase { .. })));
    }
    for name in ["", ".x", "a/b", "a\0", &"x".repeat(129), &"ü".repeat(128)] {
        assert!(matches!(folder.lock(name, Verb::Backup), Err(StorageError::InvalidName { .. })), "{name}");
    }
    assert_is(&folder, "New", 5);
}

#[test]
fn a_dropped_database_is_gone_and_its_number_is_not_used_again() {
    let (_directory, folder) = folder();
    folder.create_formatted(&create("New"), format(5)).unwrap();
    let backup = folder.lock("New", Verb::Backup).unwrap();
    assert!(matches!(folder.drop_database("New"), Err(StorageError::InUse { holder: Verb::Backup, .. })));
    drop(backup);
    folder.drop_database("nEW").unwrap();
    assert_no_litter(&folder);
    assert!(names(&folder).is_empty());
    assert!(matches!(folder.drop_database("New"), Err(StorageError::NotFound { .. })));
    folder.create_formatted(&create("New"), format(6)).unwrap();
    assert_eq!(folder.catalog().find("New").unwrap().unwrap().id, 6);
    assert_is(&folder, "New", 6);
}

#[test]
fn a_database_comes_online_with_all_its_files_only() {
    let (_directory, folder) = folder();
    folder.create_formatted(&create("New"), format(5)).unwrap();
    let state = || folder.catalog().find("New").unwrap().unwrap().state;
    folder.set_online("New", false).unwrap();
    assert_eq!(state(), DatabaseState::Offline);
    assert!(matches!(
        folder.database("New").unwrap_err(),
        StorageError::NotOnline { state: DatabaseState::Offline, .. }
    ));
    let (path, aside) = (folder.path().join("New.ndf"), folder.path().join("aside"));
    fs::rename(&path, &aside).unwrap();
    assert!(matches!(folder.set_online("New", true), Err(StorageError::FileMissing { found: "missing", .. })));
    assert_eq!(state(), DatabaseState::RecoveryPending);
    fs::write(&path, "short").unwrap();
    assert!(matches!(folder.set_online("New", true), Err(StorageError::FileSize { found: 5, .. })));
    fs::rename(&aside, &path).unwrap();
    folder.set_online("New", true).unwrap();
    assert_eq!(state(), DatabaseState::Online);
    assert_is(&folder, "New", 5);
}

#[test]
fn a_restored_file_keeps_permissions_of_the_one_it_replaces() {
    use std::os::unix::fs::PermissionsExt;
    let (_directory, folder) = folder();
    Restore::of("d", 1).run(&folder).unwrap();
    let path = folder.path().join("one.mdf");
    fs::set_permissions(&path, fs::Permissions::from_mode(0o2640)).unwrap();
    Restore::of("d", 2).run(&folder).unwrap();
    assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o7777, 0o640);
}

#[test]
fn what_root_makes_belongs_to_the_owner_of_the_data_folder() {
    use std::os::unix::fs::{MetadataExt, chown};
    let directory = tempfile::tempdir().unwrap();
    let owner = (12_345, 23_456);
    if chown(directory.path(), Some(owner.0), Some(owner.1)).is_err() {
        eprintln!("SKIPPED: this needs the right to give files away");
        return;
    }
    let folder = DataFolder::open(directory.path()).unwrap();
    Restore::of("d", 1).run(&folder).unwrap();
    // A file that is replaced keeps its own owner.
    let other = (54_321, 43_210);
    chown(folder.path().join("two.ndf"), Some(other.0), Some(other.1)).unwrap();
    Restore::of("d", 2).run(&folder).unwrap();
    for entry in fs::read_dir(folder.path()).unwrap() {
        let entry = entry.unwrap();
        let metadata = entry.metadata().unwrap();
        let expected = if entry.file_name() == "two.ndf" { other } else { owner };
        assert_eq!((metadata.uid(), metadata.gid()), expected, "{}", entry.path().display());
    }
}

#[test]
fn a_data_folder_can_be_moved() {
    let (directory, folder) = folder();
    folder.create_formatted(&create("New"), format(5)).unwrap();
    drop(folder);
    let moved = directory.path().with_extension("moved");
    fs::rename(directory.path(), &moved).unwrap();
    let folder = DataFolder::open(&moved).unwrap();
    assert_is(&folder, "New", 5);
    drop(folder);
    fs::rename(&moved, directory.path()).unwrap();
}
