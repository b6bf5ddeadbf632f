//! Tests of the catalog.

use std::fs;
use std::path::PathBuf;

use rusqlite::Connection;
use vdi_mtf::media::{MediaSet, Tape};
use vdi_mtf::set::{SetStart, Volume};
use vdi_mtf::sqlserver::config::{Database, FileRecord, Filegroup};
use vdi_mtf::value::{DateTime, Guid, Lsn, Text};

use super::*;

const FIRST: Lsn = Lsn { vlf: 45, block: 168, slot: 1 };

fn configuration(name: &str, family: u8) -> Config {
    let mut database = Database { family: Guid([family; 16]), status: 8, ..Database::new(16) };
    database.name = Text::from(name);
    (database.kind_letter, database.first_lsn, database.backup_size) = (b'D', FIRST, 4096);
    database.finish = DateTime::new(2024, 5, 31, 23, 59, 59).unwrap();
    let mut data = FileRecord::new(16, FileId(1), FileType::Data);
    (data.size, data.max_size, data.growth, data.logical_name) = (65536, 1 << 30, 1 << 20, Text::from("data"));
    let log =
        FileRecord { size: 65536, logical_name: Text::from("log"), ..FileRecord::new(16, FileId(2), FileType::Log) };
    Config { database, filegroups: vec![Filegroup::new(16, 1, "PRIMARY")], files: vec![data, log] }
}

/// A database with two files of no length.
fn put(catalog: &Catalog, folder: &std::path::Path, name: &str, configuration: &Config) -> Result<(), CatalogError> {
    let files = ["mdf", "ldf"].map(|extension| PlacedFile {
        path: folder.join(format!("{name}.{extension}")),
        built: folder.join(format!("{name}.{extension}.new")),
        replaces: false,
    });
    let id = catalog.find(name)?.map(|row| row.id);
    let id = catalog.begin_files(name, id, &files.each_ref().map(|file| file.built.clone()))?;
    let new = NewDatabase { id, name, is_foreign: false, generation: 7, configuration, files: &files };
    catalog.put_database(&new, None)
}

fn catalog() -> (tempfile::TempDir, Catalog) {
    let folder = tempfile::tempdir().unwrap();
    let catalog = Catalog::open(folder.path()).unwrap();
    (folder, catalog)
}

#[test]
fn rows_come_back_as_they_were_put() {
    let (folder, catalog) = catalog();
    let config = configuration("Sales", 1);
    put(&catalog, folder.path(), "Sales", &config).unwrap();
    let other = Catalog::open(folder.path()).unwrap();
    let row = other.find("sALES").unwrap().unwrap();
    assert_eq!((row.id, row.generation, row.recovery_model), (5, 7, RecoveryModel::Simple));
    let encoded = Config::decode(&config.encode().unwrap(), 0).unwrap();
    assert_eq!(row.configuration, encoded);
    assert_eq!(row.files[0].path, folder.path().join("Sales.mdf"));
    assert_eq!(other.databases().unwrap(), [row]);
    assert!(other.find("Sales2").unwrap().is_none());
}

#[test]
fn a_file_belongs_to_one_database() {
    let (folder, catalog) = catalog();
    put(&catalog, folder.path(), "Sales", &configuration("Sales", 1)).unwrap();
    let files = ["Sales.mdf", "b.ldf"].map(|name| PlacedFile {
        path: folder.path().join(name),
        built: folder.path().join(format!("{name}.b")),
        replaces: false,
    });
    let config = configuration("b", 2);
    let id = catalog.begin_files("b", None, &files.each_ref().map(|file| file.built.clone())).unwrap();
    let new = NewDatabase { id, name: "b", is_foreign: false, generation: 1, configuration: &config, files: &files };
    match catalog.put_database(&new, None).unwrap_err() {
        CatalogError::FileInUse { database, .. } => assert_eq!(database, "Sales"),
        other => panic!("{other}"),
    }
    // Nothing of it stays.
    assert_eq!(catalog.databases().unwrap().len(), 1);

    // Nor can a file be one that another database is about to remove.
    catalog.end_renames("Sales").unwrap();
    catalog.remove_database(5, "Sales").unwrap();
    assert!(matches!(catalog.put_database(&new, None), Err(CatalogError::FileInUse { .. })));
    catalog.end_pending(&[files[0].path.clone()]).unwrap();
    catalog.put_database(&new, None).unwrap();
}

#[test]
fn a_catalog_of_version_1_is_brought_to_version_2() {
    let folder = tempfile::tempdir().unwrap();
    let old = Catalog::create_version_1(&folder.path().join(FILE_NAME)).unwrap();
    let config = configuration("Old", 1);
    let bytes = config.encode().unwrap();
    old.execute("INSERT INTO databases VALUES (9, 'Old', NULL, 0, 3, 160, '', '', 0, 1, ?1)", [&bytes]).unwrap();
    old.execute_batch(
        "INSERT INTO files VALUES (9, 0, 1, 0, 1, 'data', 'Old.mdf', 65536, NULL, 0);
         INSERT INTO files VALUES (9, 1, 2, 1, 0, 'log', 'Old.ldf', 65536, NULL, 0);",
    )
    .unwrap();
    drop(old);

    let catalog = Catalog::open(folder.path()).unwrap();
    assert_eq!(catalog.databases().unwrap()[0].name, "Old");
    assert!(catalog.backups(None).unwrap().is_empty());
    let read = Connection::open(folder.path().join(FILE_NAME)).unwrap();
    let columns = read
        .query_row("SELECT max_size, growth, is_percent_growth FROM files WHERE file_id = 1", [], |row| {
            Ok((row.get::<_, i64>(0)?, row.get::<_, i64>(1)?, row.get::<_, bool>(2)?))
        })
        .unwrap();
    assert_eq!(columns, (1 << 30, 1 << 20, false));
    assert_eq!(read.pragma_query_value(None, "user_version", |row| row.get::<_, i64>(0)).unwrap(), 2);
    put(&catalog, folder.path(), "New", &configuration("New", 1)).unwrap();
    assert_eq!(catalog.find("New").unwrap().unwrap().id, 10);
}

#[test]
fn a_newer_catalog_and_files_that_are_none_are_refused_and_kept() {
    let (folder, catalog) = catalog();
    drop(catalog);
    let path = folder.path().join(FILE_NAME);
    Connection::open(&path).unwrap().pragma_update(None, "user_version", 3).unwrap();
    assert!(matches!(Catalog::open(folder.path()), Err(CatalogError::Version { found: 3, known: 2, .. })));

    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join(FILE_NAME);
    for content in ["not a database", &"x".repeat(100_000)] {
        fs::write(&path, content).unwrap();
        assert!(matches!(Catalog::open(folder.path()), Err(CatalogError::Damaged { .. })));
        assert_eq!(fs::read(&path).unwrap(), content.as_bytes());
    }
    fs::remove_file(&path).unwrap();
    Connection::open(&path).unwrap().execute_batch("CREATE TABLE theirs (x)").unwrap();
    assert!(matches!(Catalog::open(folder.path()), Err(CatalogError::Damaged { .. })));
    let theirs = Connection::open(&path).unwrap();
    theirs.execute("INSERT INTO theirs VALUES (1)", []).unwrap();
}

#[test]
fn a_catalog_changed_by_hand_is_an_error() {
    let changes = [
        "UPDATE databases SET state = 2",
        "UPDATE databases SET recovery_model = 1",
        "UPDATE databases SET configuration = x'00'",
        "UPDATE databases SET configuration = x''",
        "UPDATE databases SET generation = -1",
        "UPDATE databases SET name = '../x'",
        "UPDATE databases SET database_id = -1",
        "UPDATE databases SET database_id = 1 << 40",
        "DELETE FROM files WHERE file_id = 2",
        "DELETE FROM files",
        "UPDATE files SET size = 1 WHERE file_id = 2",
        "UPDATE files SET type = 1",
        "UPDATE files SET position = -position",
        "INSERT INTO files SELECT database_id, 9, 9, 0, 1, 'x', 'x', 1, NULL, 0, 1, 1, 0 FROM databases",
    ];
    for change in changes {
        let (folder, catalog) = catalog();
        put(&catalog, folder.path(), "Sales", &configuration("Sales", 1)).unwrap();
        let hand = Connection::open(folder.path().join(FILE_NAME)).unwrap();
        hand.pragma_update(None, "foreign_keys", false).unwrap();
        assert!(hand.execute(change, []).unwrap() > 0, "{change}");
        match catalog.databases() {
            Err(CatalogError::Damaged { what, .. }) => assert!(!what.is_empty()),
            other => panic!("{change}: {other:?}"),
        }
    }
}

#[test]
fn a_damaged_file_never_panics() {
    let (folder, catalog) = catalog();
    put(&catalog, folder.path(), "Sales", &configuration("Sales", 1)).unwrap();
    drop(catalog);
    let path = folder.path().join(FILE_NAME);
    let good = fs::read(&path).unwrap();
    for at in (0..good.len()).step_by(good.len() / 60) {
        let mut bad = good.clone();
        bad[at] ^= 0x55;
        fs::write(&path, &bad).unwrap();
        let result = Catalog::open(folder.path()).and_then(|catalog| catalog.databases());
        if let Ok(rows) = result {
            assert!(rows.len() <= 1, "byte {at}");
        }
    }
    fs::write(&path, &good[..good.len() / 2]).unwrap();
    let error = Catalog::open(folder.path()).and_then(|catalog| catalog.databases()).unwrap_err();
    assert!(matches!(error, CatalogError::Damaged { .. }), "{error}");
}

#[test]
fn a_catalog_is_opened_by_many_at_once() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path();
    std::thread::scope(|scope| {
        let threads: Vec<_> = (0..16)
            .map(|number| {
                scope.spawn(move || {
                    let catalog = Catalog::open(path)?;
                    let name = format!("d{number}");
                    put(&catalog, path, &name, &configuration(&name, 1))
                })
            })
            .collect();
        threads.into_iter().for_each(|thread| thread.join().unwrap().unwrap());
    });
    let ids: Vec<u32> = Catalog::open(path).unwrap().databases().unwrap().iter().map(|row| row.id).collect();
    assert_eq!(ids, (5..21).collect::<Vec<_>>());
}

fn record(catalog: &Catalog, config: &Config, set: u8, media: u8, copy_only: bool) -> Result<(), CatalogError> {
    let date = DateTime::new(2024, 5, 31, 12, 0, 0).unwrap();
    let mut start = SetStart::new(1, Guid([set; 16]), date, 16);
    start.name = Text::from("nightly");
    let devices = ["a", "b"].map(|name| BackupDevice { device_type: 7, name: name.into() });
    catalog.record_backup(&BackupRecord {
        label: &Tape::new(4711, 4096, date),
        media_set: &MediaSet::new(Guid([media; 16]), 1, 2),
        start: &start,
        volume: &Volume { machine: Text::from("HOST"), ..Volume::default() },
        configuration: config,
        devices: &devices,
        is_copy_only: copy_only,
        is_snapshot: false,
        block_size: 65536,
    })
}

#[test]
fn backups_are_recorded_with_the_columns_of_msdb() {
    let (folder, catalog) = catalog();
    let mut config = configuration("Sales", 1);
    put(&catalog, folder.path(), "Sales", &config).unwrap();
    config.files[0].differential_base = Guid([9; 16]);
    record(&catalog, &config, 9, 1, false).unwrap();
    // A set of the same media.
    record(&catalog, &config, 10, 1, true).unwrap();
    let backups = catalog.backups(Some("sales")).unwrap();
    assert_eq!(backups.len(), 2);
    assert_eq!((backups[0].is_copy_only, backups[1].is_copy_only), (true, false));
    assert_eq!((backups[1].kind, backups[1].bytes, backups[1].name.as_str()), ('D', 4096, "nightly"));
    assert_eq!(backups[1].finished, "2024-05-31 23:59:59");
    let names: Vec<_> = backups[1].devices.iter().map(|device| (device.device_type, device.name.as_str())).collect();
    assert_eq!(names, [(7, "a"), (7, "b")]);
    let last = catalog.last_backup("SALES").unwrap();
    assert_eq!((last.full.as_deref(), last.log), (Some("2024-05-31 23:59:59"), None));
    assert!(catalog.backups(Some("other")).unwrap().is_empty());

    // The first is the differential base, the copy is not.
    let row = catalog.find("Sales").unwrap().unwrap();
    assert_eq!(row.configuration.database.full_backup_lsn, FIRST);
    assert_eq!(row.configuration.database.full_backup_set, Guid([9; 16]));
    assert_eq!(row.configuration.files[0].differential_base, Guid([9; 16]));

    let read = Connection::open(folder.path().join(FILE_NAME)).unwrap();
    let (lsn, uuid, machine): (String, String, String) = read
        .query_row(
            "SELECT first_lsn, backup_set_uuid, machine_name FROM backupset JOIN backupmediaset USING (media_set_id) \
             WHERE first_lsn > ?1 AND first_lsn < ?2 AND is_copy_only = 0",
            ["0000000000045000000016800000", "0000000045000000016800002"],
            |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)),
        )
        .unwrap();
    assert_eq!((lsn.as_str(), machine.as_str()), ("0000000045000000016800001", "HOST"));
    assert_eq!(uuid, "09090909-0909-0909-0909-090909090909");
    let counts = ["backupmediaset", "backupmediafamily", "backupset", "backupfile", "backupfilegroup"]
        .map(|table| read.query_row(&format!("SELECT count(*) FROM {table}"), [], |row| row.get::<_, i64>(0)).unwrap());
    assert_eq!(counts, [1, 2, 2, 4, 2]);

    // A set is recorded once.
    assert!(record(&catalog, &config, 9, 2, false).is_err());
    assert_eq!(catalog.backups(None).unwrap().len(), 2);
}

#[test]
fn a_backup_of_another_database_of_the_name_is_no_base() {
    let (folder, catalog) = catalog();
    put(&catalog, folder.path(), "Sales", &configuration("Sales", 1)).unwrap();
    record(&catalog, &configuration("Sales", 2), 9, 1, false).unwrap();
    record(&catalog, &configuration("Gone", 3), 10, 2, false).unwrap();
    assert_eq!(catalog.find("Sales").unwrap().unwrap().configuration.database.full_backup_set, Guid([0; 16]));
    assert_eq!(catalog.last_backup("Sales").unwrap(), LastBackup::default());
    assert_eq!(catalog.backups(None).unwrap().len(), 2);
}

#[test]
fn a_recovery_model_is_changed_in_the_header_values_too() {
    let (folder, catalog) = catalog();
    put(&catalog, folder.path(), "Sales", &configuration("Sales", 1)).unwrap();
    for model in [RecoveryModel::BulkLogged, RecoveryModel::Full, RecoveryModel::Simple] {
        assert!(catalog.set_recovery_model("sales", model).unwrap());
        let row = catalog.find("Sales").unwrap().unwrap();
        assert_eq!((row.recovery_model, row.configuration.database.recovery_model()), (model, model));
    }
    assert!(!catalog.set_recovery_model("none", RecoveryModel::Full).unwrap());
}

#[test]
fn the_clock_gives_a_date_and_a_time_zone() {
    let (_folder, catalog) = catalog();
    let (date, quarters) = catalog.now().unwrap();
    assert!(date.year() >= 2024 && (-48..=56).contains(&quarters), "{date} {quarters}");
}

#[test]
fn pending_files_are_listed_until_they_are_gone() {
    let (folder, catalog) = catalog();
    let paths: Vec<PathBuf> = ["a", "b"].iter().map(|name| folder.path().join(name)).collect();
    assert_eq!(catalog.begin_files("Sales", Some(5), &paths).unwrap(), 5);
    assert_eq!(catalog.unsettled().unwrap(), ["Sales"]);
    assert!(catalog.take_pending("other").unwrap().is_empty());
    assert_eq!(catalog.take_pending("sALES").unwrap(), paths);
    catalog.end_pending(&paths[..1]).unwrap();
    assert_eq!(catalog.pending(), paths[1..]);
}

#[test]
fn a_catalog_that_was_cut_to_nothing_keeps_its_write_ahead_log() {
    let folder = tempfile::tempdir().unwrap();
    let log = folder.path().join(format!("{FILE_NAME}-wal"));
    fs::write(&log, "changes").unwrap();
    for exists in [false, true] {
        if exists {
            fs::write(folder.path().join(FILE_NAME), "").unwrap();
        }
        let error = Catalog::open(folder.path()).unwrap_err();
        assert!(matches!(error, CatalogError::Damaged { .. }), "{error}");
        assert_eq!(fs::read(&log).unwrap(), b"changes");
    }
}
