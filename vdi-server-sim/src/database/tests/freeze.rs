//! Freezing, writing, and comparing, within one process; `tests/media/freeze.rs` has the same between processes.

use std::cell::Cell;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::channel;
use std::time::Duration;

use super::page::Stamp;
use super::*;

const PATIENCE: Duration = Duration::from_secs(30);

fn never() -> bool {
    false
}

#[test]
fn a_frozen_database_is_not_frozen_twice_and_says_so() {
    let (dir, folder) = data_folder();
    old_database(dir.path());
    let database = folder.open("db").unwrap();
    let frozen = database.freeze(PATIENCE, never).unwrap();
    let again = folder.open("db").unwrap();
    let error = again.freeze(Duration::ZERO, never).unwrap_err();
    assert!(matches!(error, DatabaseError::NotFrozen { lock: "turnstile", .. }), "{error:?}");
    assert!(error.to_string().contains("fuser -v"), "{error}");
    let asked = Cell::new(0);
    let error = again.freeze(PATIENCE, || asked.replace(asked.get() + 1) == 3).unwrap_err();
    assert!(matches!(error, DatabaseError::Stopped { doing: "freezing", .. }), "{error:?}");
    assert_eq!(frozen.database().name(), "db");
    drop(frozen);
    again.freeze(Duration::ZERO, never).unwrap();
    database.freeze(Duration::ZERO, never).unwrap();
}

#[test]
fn a_turn_keeps_the_freezer_out_and_the_freezer_keeps_new_turns_out() {
    let (dir, folder) = data_folder();
    old_database(dir.path());
    let database = folder.open("db").unwrap();
    let (mut slow, mut other) =
        (DatabaseWriter::open(&folder, "db").unwrap(), DatabaseWriter::open(&folder, "db").unwrap());
    let turn = slow.begin().unwrap();
    // Writers do not wait for one another.
    other.write_at(0, 0, b"o").unwrap();
    let error = database.freeze(Duration::ZERO, never).unwrap_err();
    assert!(matches!(error, DatabaseError::NotFrozen { lock: "first file", .. }), "{error:?}");
    assert!(error.to_string().contains("old.mdf"), "{error}");
    // A freezer that gave up left nothing behind.
    other.write_at(0, 0, b"O").unwrap();

    std::thread::scope(|scope| {
        let (tell, began) = channel::<()>();
        let (database, mut tell) = (&database, Some(tell));
        let freezer = scope.spawn(move || {
            let tell = Cell::new(tell.take());
            // The second lock is asked for once more after the first was had and the second was not.
            let asked = Cell::new(0);
            let frozen = database.freeze(PATIENCE, || {
                asked.set(asked.get() + 1);
                if asked.get() == 100 {
                    drop(tell.take());
                }
                false
            });
            frozen.map(|frozen| frozen.checksums(never).unwrap())
        });
        assert!(began.recv().is_err());
        // The freezer waits with the turnstile in its hand; what has begun goes on.
        turn.write_at(0, 1, b"LD").unwrap();
        let blocked = scope.spawn(move || other.write_at(0, 3, b"!"));
        turn.write_at(0, 4, b"D").unwrap();
        drop(turn);
        let checksums = freezer.join().unwrap().unwrap();
        blocked.join().unwrap().unwrap();
        assert_eq!(checksums, [crc32fast::hash(b"OLD Data"), crc32fast::hash(b"old log")]);
    });
    assert_eq!(fs::read(dir.path().join("db/old.mdf")).unwrap(), b"OLD!Data");
}

#[test]
fn many_writers_do_not_starve_the_freezer() {
    let (dir, folder) = data_folder();
    fs::create_dir(dir.path().join("db")).unwrap();
    for name in ["a", "b"] {
        fs::write(dir.path().join("db").join(name), vec![0; 8192]).unwrap();
    }
    let database = folder.open("db").unwrap();
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        for thread in 0..6 {
            let (folder, stop) = (&folder, &stop);
            scope.spawn(move || {
                let mut writer = DatabaseWriter::open(folder, "db").unwrap();
                let mut page = [0; 4096];
                for sequence in 0.. {
                    if stop.load(Ordering::Relaxed) {
                        break;
                    }
                    let stamp = Stamp { file: thread % 2, page: sequence % 2, sequence };
                    stamp.fill(&mut page);
                    writer.write_at(stamp.file as usize, stamp.page * 4096, &page).unwrap();
                }
            });
        }
        for _ in 0..20 {
            let frozen = database.freeze(PATIENCE, never).unwrap();
            let one = frozen.checksums(never).unwrap();
            let before = snapshot(dir.path());
            assert_eq!((frozen.checksums(never).unwrap(), snapshot(dir.path())), (one, before));
        }
        stop.store(true, Ordering::Relaxed);
    });
}

#[test]
fn a_writer_keeps_within_the_files() {
    let (dir, folder) = data_folder();
    old_database(dir.path());
    let mut writer = DatabaseWriter::open(&folder, "db").unwrap();
    assert_eq!(writer.database().files().len(), 2);
    writer.write_at(1, 4, b"LOG").unwrap();
    assert!(matches!(writer.write_at(1, 5, b"LOG"), Err(DatabaseError::PastEnd { size: 7, .. })));
    assert!(matches!(writer.write_at(1, u64::MAX, b"LOG"), Err(DatabaseError::PastEnd { .. })));
    assert!(matches!(writer.write_at(2, 0, b""), Err(DatabaseError::NoSuchFile { index: 2, count: 2 })));
    assert_eq!(fs::read(dir.path().join("db/sub/old.ldf")).unwrap(), b"old LOG");
    assert!(matches!(DatabaseWriter::open(&folder, "none"), Err(DatabaseError::NotFound { .. })));
    assert!(matches!(DatabaseWriter::open(&folder, "../db"), Err(DatabaseError::InvalidName { .. })));
}

#[test]
fn what_was_replaced_is_neither_written_nor_frozen() {
    let (dir, folder) = data_folder();
    old_database(dir.path());
    let database = folder.open("db").unwrap();
    let mut writer = DatabaseWriter::open(&folder, "db").unwrap();
    target(&folder, true, PLACEMENTS[1]).unwrap().commit().unwrap();
    assert!(matches!(writer.write_at(0, 0, b"x"), Err(DatabaseError::Replaced { .. })));
    // Its first file is gone with it.
    assert!(database.freeze(PATIENCE, never).is_err());

    // A first file of the same name is another one.
    let database = folder.open("db").unwrap();
    let mut writer = DatabaseWriter::open(&folder, "db").unwrap();
    let first = database.path().join(&database.files()[0].path);
    fs::copy(&first, dir.path().join("copy")).unwrap();
    fs::rename(dir.path().join("copy"), &first).unwrap();
    assert!(matches!(writer.write_at(0, 0, b"x"), Err(DatabaseError::Replaced { path }) if path == first));
    database.freeze(Duration::ZERO, never).unwrap();
    DatabaseWriter::open(&folder, "db").unwrap().write_at(0, 0, b"x").unwrap();

    // A freeze gets what was listed.
    fs::write(&first, b"longer than before").unwrap();
    assert!(matches!(database.freeze(PATIENCE, never), Err(DatabaseError::Changed { found: 18, .. })));
}

#[test]
fn a_database_is_compared_file_by_file() {
    let (dir, folder) = data_folder();
    old_database(dir.path());
    // The order of the list does not matter, nor do permissions.
    let files = [file("sub/old.ldf", 7, 0), file("old.mdf", 8, 0)];
    let right = [Some(crc32fast::hash(b"old log")), Some(crc32fast::hash(b"old data"))];
    let verify = |files: &[DatabaseFile], checksums: &[Option<u32>]| folder.verify("db", files, checksums, never);
    verify(&files, &right).unwrap();
    verify(&files, &[None, right[1]]).unwrap();
    verify(&files, &[]).unwrap();
    assert!(matches!(
        verify(&files, &[Some(1), right[1]]),
        Err(DatabaseError::WrongChecksum { path, expected: 1, found })
            if path.ends_with("sub/old.ldf") && Some(found) == right[0]
    ));
    let longer = [files[0].clone(), file("old.mdf", 9, 0)];
    assert!(matches!(
        verify(&longer, &right),
        Err(DatabaseError::WrongLength { path, expected: 9, found: 8 }) if path.ends_with("old.mdf")
    ));
    for more in ["a", "old.ndf", "z"] {
        let more = [files[0].clone(), files[1].clone(), file(more, 0, 0)];
        assert!(
            matches!(verify(&more, &right), Err(DatabaseError::FileMissing { path }) if path.ends_with(&more[2].path))
        );
    }
    for (one, other) in [(0, "old.mdf"), (1, "sub/old.ldf")] {
        let less = &files[one..=one];
        assert!(matches!(verify(less, &[]), Err(DatabaseError::FileUnexpected { path }) if path.ends_with(other)));
    }
    assert!(matches!(
        folder.verify("db", &files, &right, || true),
        Err(DatabaseError::Stopped { doing: "reading", .. })
    ));
}
