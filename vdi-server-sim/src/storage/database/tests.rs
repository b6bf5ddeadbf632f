#![allow(clippy::unwrap_used, clippy::single_range_in_vec_init, reason = "tests; lists of ranges")]

use std::os::unix::fs::FileExt;
use std::sync::mpsc;
use std::time::Duration;

use vdi_mtf::value::PageId;

use super::*;
use crate::storage::fixture;

const MB: u64 = 1 << 20;
const LONG: Duration = Duration::from_secs(60);

fn lock_file(folder: &Path) -> LockFile {
    let locks = LockFile::of(folder);
    std::fs::OpenOptions::new().append(true).create(true).open(&locks.path).unwrap();
    locks
}

fn open(folder: &Path, row: &DatabaseRow) -> Database {
    Database::open(row.clone(), lock_file(folder)).unwrap()
}

/// A writer; the catalog does not know the database.
fn writer(folder: &Path, database: Database) -> Result<DatabaseWriter, StorageError> {
    DatabaseWriter::of(database, Arc::new(Catalog::open(folder)?))
}

/// A database with four extents of stamps in each data file.
fn made(folder: &Path) -> DatabaseRow {
    let row = fixture::row(folder, &[MB, MB]);
    fixture::make(&row);
    let database = open(folder, &row);
    let lsn = database.log().unwrap().last_lsn();
    for (_, file) in database.data_files() {
        file.allocate(4, lsn, |page, bytes| {
            Stamp { page, sequence: 1 }.fill(lsn, bytes);
            Ok(())
        })
        .unwrap();
    }
    row
}

fn read(database: &Database, page: PageAddress) -> [u8; PAGE_LEN] {
    let mut bytes = [0; PAGE_LEN];
    database.file(page.file).unwrap().read_exact_at(&mut bytes, page.file_offset()).unwrap();
    bytes
}

#[test]
fn a_checkpoint_says_what_a_backup_holds() {
    let dir = tempfile::tempdir().unwrap();
    let row = made(dir.path());
    let database = open(dir.path(), &row);
    let before = database.log().unwrap().last_lsn();
    let frozen = database.freeze(LONG, || false).unwrap();
    let source = frozen.checkpoint().unwrap();
    frozen.check_unchanged().unwrap();

    let record = &source.configuration.database;
    assert_eq!(record.first_lsn, record.checkpoint_lsn);
    assert!(before < record.first_lsn && record.first_lsn < record.last_lsn);
    assert_eq!(record.log_end_lsn, record.last_lsn);
    assert!(source.configuration.files.iter().all(|file| file.first_lsn == record.first_lsn));
    let expected = [(FileId(1), vec![0..6]), (FileId(3), vec![0..5])];
    assert_eq!(source.data, expected.map(|(file, extents)| FileExtents { file, extents }));
    let vlf = &source.log[0];
    assert_eq!((vlf.sequence, vlf.start), (record.first_lsn.vlf, vlf.offset + 512 * u64::from(record.first_lsn.block)));
    assert_eq!(vlf.end, vlf.offset + 512 * u64::from(record.last_lsn.block));

    // All pages but the boot page are older than the checkpoint; the boot page names it.
    for (file, pages) in database.data_files() {
        pages
            .each_piece(|first, bytes| {
                for (number, page) in (first..).zip(bytes.as_chunks::<PAGE_LEN>().0) {
                    let header = vdi_mtf::page::PageHeader::decode(page).unwrap();
                    assert!(header.lsn < record.first_lsn || (file, number) == (PRIMARY, layout::BOOT_PAGE));
                }
                Ok(())
            })
            .unwrap();
    }
    assert_eq!(database.boot().unwrap().checkpoint_lsn().unwrap(), record.first_lsn);
    drop(frozen);
    assert_eq!(open(dir.path(), &row).log().unwrap().last_lsn(), record.first_lsn);
}

#[test]
fn a_foreign_database_stays_as_it_is() {
    let dir = tempfile::tempdir().unwrap();
    let mut row = made(dir.path());
    row.is_foreign = true;
    let bytes = || row.files.iter().map(|file| std::fs::read(&file.path).unwrap()).collect::<Vec<_>>();
    let before = bytes();
    let database = open(dir.path(), &row);
    let source = database.freeze(LONG, || false).unwrap().checkpoint().unwrap();
    assert_eq!(source.configuration, row.configuration);
    assert_eq!(source.log.len(), 4);
    assert!(bytes() == before);
    let error = writer(dir.path(), database).unwrap_err();
    assert!(matches!(error, StorageError::Foreign { .. }), "{error}");
}

#[test]
fn writers_write_stamps_with_the_logs_last_lsn() {
    let dir = tempfile::tempdir().unwrap();
    let row = made(dir.path());
    let mut writer = writer(dir.path(), open(dir.path(), &row)).unwrap();
    let pages = writer.pages().unwrap();
    assert_eq!(pages.len(), 64);
    // Another process makes backups.
    let other = open(dir.path(), &row);
    for sequence in 2..5 {
        let source = other.freeze(LONG, || false).unwrap().checkpoint().unwrap();
        let page = pages[sequence as usize * 9];
        writer.begin().unwrap().write(page, sequence).unwrap();
        let bytes = read(writer.database(), page);
        assert_eq!(Stamp::read(&bytes), Some(Stamp { page, sequence }));
        let lsn = vdi_mtf::page::PageHeader::decode(&bytes).unwrap().lsn;
        assert_eq!(lsn, source.configuration.database.first_lsn);
    }
}

#[test]
fn writers_write_only_pages_of_content() {
    let dir = tempfile::tempdir().unwrap();
    let mut writer = writer(dir.path(), open(dir.path(), &made(dir.path()))).unwrap();
    let guard = writer.begin().unwrap();
    for (file, page) in [(1, 0), (1, 9), (1, 15), (1, 48), (1, u32::MAX), (3, 7), (3, 40), (2, 16), (9, 16)] {
        let page = PageAddress { file: FileId(file), page: PageId(page) };
        let error = guard.write(page, 1).unwrap_err();
        assert!(matches!(error, StorageError::NoSuchPage { page: found, .. } if found == page), "{error}");
    }
}

#[test]
fn a_frozen_database_has_no_writers() {
    let dir = tempfile::tempdir().unwrap();
    let row = made(dir.path());
    let database = open(dir.path(), &row);
    let mut writer = writer(dir.path(), open(dir.path(), &row)).unwrap();
    let page = writer.pages().unwrap()[0];

    let guard = writer.begin().unwrap();
    let error = database.freeze(Duration::from_millis(5), || false).unwrap_err();
    assert!(matches!(error, StorageError::NotFrozen { lock: "the lock of the pages", .. }), "{error}");
    let error = database.freeze(LONG, || true).unwrap_err();
    assert!(matches!(error, StorageError::Stopped { .. }), "{error}");
    drop(guard);

    let frozen = database.freeze(LONG, || false).unwrap();
    let error = database.freeze(Duration::from_millis(5), || false).unwrap_err();
    assert!(matches!(error, StorageError::NotFrozen { lock: "the turnstile", .. }), "{error}");
    let (begun, begins) = mpsc::channel();
    std::thread::scope(|scope| {
        let writing = scope.spawn(move || {
            writer.begin().unwrap().write(page, 77).unwrap();
            begun.send(()).unwrap();
        });
        assert!(begins.recv_timeout(Duration::from_millis(30)).is_err());
        frozen.check_unchanged().unwrap();
        drop(frozen);
        begins.recv_timeout(LONG).unwrap();
        writing.join().unwrap();
    });
    assert_eq!(Stamp::read(&read(&database, page)).unwrap().sequence, 77);
}

#[test]
fn what_other_programs_change_in_a_frozen_database_is_found() {
    let dir = tempfile::tempdir().unwrap();
    let row = made(dir.path());
    let database = open(dir.path(), &row);
    let path = &row.files[1].path;

    let frozen = database.freeze(LONG, || false).unwrap();
    frozen.check_unchanged().unwrap();
    let file = std::fs::OpenOptions::new().write(true).open(path).unwrap();
    file.set_len(MB + 8192).unwrap();
    assert!(matches!(frozen.check_unchanged(), Err(StorageError::FileSize { found, .. }) if found == MB + 8192));
    file.set_len(MB).unwrap();
    assert!(matches!(frozen.check_unchanged(), Err(StorageError::Modified { .. })));
    let copy = dir.path().join("copy");
    std::fs::copy(path, &copy).unwrap();
    std::fs::rename(&copy, path).unwrap();
    assert!(matches!(frozen.check_unchanged(), Err(StorageError::Replaced { .. })));
    drop(frozen);

    // A writer of the old files does not begin.
    let error = writer(dir.path(), database).unwrap().begin().unwrap_err();
    assert!(matches!(error, StorageError::Replaced { path: ref found } if found == path), "{error}");
    std::fs::remove_file(path).unwrap();
    let error = Database::open(row.clone(), lock_file(dir.path())).unwrap_err();
    assert!(matches!(error, StorageError::FileMissing { found: "missing", .. }), "{error}");
}

#[test]
fn files_that_are_not_the_databases_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    let row = made(dir.path());
    let refused = || Database::open(row.clone(), lock_file(dir.path())).unwrap_err();
    let (first, second, log) = (&row.files[0].path, &row.files[1].path, &row.files[2].path);

    let whole = std::fs::read(second).unwrap();
    std::fs::write(second, &whole[..whole.len() - 1]).unwrap();
    assert!(matches!(refused(), StorageError::FileSize { found: 1_048_575, .. }));
    std::fs::copy(first, second).unwrap();
    assert!(matches!(refused(), StorageError::Page { field: "file", expected: 3, found: 1, .. }));
    std::fs::remove_file(second).unwrap();
    std::fs::create_dir(second).unwrap();
    assert!(matches!(refused(), StorageError::FileMissing { found: "no regular file", .. }));
    std::fs::remove_dir(second).unwrap();
    std::os::unix::fs::symlink(first, second).unwrap();
    assert!(matches!(refused(), StorageError::FileMissing { found: "no regular file", .. }));
    std::fs::remove_file(second).unwrap();
    std::fs::write(second, &whole).unwrap();
    open(dir.path(), &row);

    // The log has lost the checkpoint that the boot page names.
    let database = open(dir.path(), &row);
    let (_, file) = database.log_file().unwrap();
    let mut lost = database.log().unwrap();
    let old = std::fs::read(log).unwrap();
    let (first, _) = lost.checkpoint(file).unwrap();
    database.boot().unwrap().set_checkpoint_lsn(first, first).unwrap();
    open(dir.path(), &row);
    std::fs::write(log, &old).unwrap();
    let error = refused();
    assert!(matches!(error, StorageError::Log { .. }) && error.to_string().contains("checkpoint"), "{error}");
}

#[test]
fn a_writer_stops_when_its_database_is_set_offline_or_dropped() {
    let dir = tempfile::tempdir().unwrap();
    let folder = DataFolder::open(dir.path()).unwrap();
    crate::storage::content::create_sample(&folder, "Sales", MB, 0).unwrap();
    let mut writer = DatabaseWriter::open(&folder, "Sales").unwrap();
    drop(writer.begin().unwrap());
    folder.set_online("Sales", false).unwrap();
    let error = writer.begin().unwrap_err();
    assert!(matches!(error, StorageError::NotOnline { state: DatabaseState::Offline, .. }), "{error}");
    folder.set_online("Sales", true).unwrap();

    // One that has begun is waited for.
    let guard = writer.begin().unwrap();
    std::thread::scope(|scope| {
        let dropping = scope.spawn(|| folder.drop_database("Sales"));
        // The turnstile is taken as soon as the statement waits.
        let locks = folder.lock_file().locks("Sales").unwrap();
        while locks.try_exclusive(LockKind::Turnstile).unwrap() {
            locks.unlock(LockKind::Turnstile);
            std::thread::yield_now();
        }
        assert!(folder.catalog().find("Sales").unwrap().is_some());
        drop(guard);
        dropping.join().unwrap().unwrap();
    });
    let error = writer.begin().unwrap_err();
    assert!(matches!(error, StorageError::Replaced { .. }), "{error}");
}
