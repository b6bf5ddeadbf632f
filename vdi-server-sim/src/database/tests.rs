//! Listing, building, and above all: that the old database outlives every failure of its replacement.
#![allow(clippy::unwrap_used, reason = "tests")]

mod freeze;
mod lock;
mod owner;
mod stamp;

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};

use proptest::prelude::*;
use tempfile::TempDir;

use super::staging::{Staging, is_staging_name};
use super::target::{Placement, Step, Stop};
use super::*;

const PLACEMENTS: [Placement; 2] = [Placement::Unnamed, Placement::Named];

fn data_folder() -> (TempDir, DataFolder) {
    let dir = tempfile::tempdir().unwrap();
    let folder = DataFolder::new(dir.path()).unwrap();
    (dir, folder)
}

fn file(path: &str, size: u64, mode: u32) -> DatabaseFile {
    DatabaseFile { path: path.to_owned(), size, mode }
}

/// Everything below `dir`: path, contents, mode.
fn snapshot(dir: &Path) -> Vec<(PathBuf, Vec<u8>, u32)> {
    let mut found = Vec::new();
    let mut folders = vec![dir.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).unwrap() {
            let path = entry.unwrap().path();
            let mode = path.symlink_metadata().unwrap().permissions().mode();
            if path.is_dir() {
                found.push((path.clone(), Vec::new(), mode));
                folders.push(path);
            } else {
                found.push((path.clone(), fs::read(&path).unwrap(), mode));
            }
        }
    }
    found.sort();
    found
}

fn old_database(dir: &Path) {
    fs::create_dir_all(dir.join("db/sub")).unwrap();
    fs::write(dir.join("db/old.mdf"), b"old data").unwrap();
    fs::write(dir.join("db/sub/old.ldf"), b"old log").unwrap();
    fs::set_permissions(dir.join("db"), fs::Permissions::from_mode(0o710)).unwrap();
}

fn new_files() -> Vec<DatabaseFile> {
    vec![file("new.mdf", 10, 0o640), file("a/b/new.ndf", 3, 0o600), file("a/empty", 0, 0o4444)]
}

fn target(folder: &DataFolder, replace: bool, placement: Placement) -> Result<RestoreTarget, DatabaseError> {
    let target = RestoreTarget::create_at(folder, "db", &new_files(), replace, placement)?;
    target.write_at(0, 4, b"456789").unwrap();
    target.write_at(1, 0, b"xyz").unwrap();
    target.write_at(0, 0, b"0123").unwrap();
    Ok(target)
}

fn assert_new_database(folder: &DataFolder) {
    let database = folder.open("db").unwrap();
    let expected = vec![file("a/b/new.ndf", 3, 0o600), file("a/empty", 0, 0o444), file("new.mdf", 10, 0o640)];
    assert_eq!(database.files(), expected);
    assert_eq!(database.size(), 13);
    assert_eq!(fs::read(database.path().join("new.mdf")).unwrap(), b"0123456789");
    assert_eq!(fs::read(database.path().join("a/b/new.ndf")).unwrap(), b"xyz");
    assert_eq!(std::io::read_to_string(database.open_file(0).unwrap()).unwrap(), "xyz");
}

fn names(dir: &Path) -> Vec<String> {
    let mut names: Vec<String> =
        fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

#[test]
fn a_database_is_listed_by_path() {
    let (dir, folder) = data_folder();
    old_database(dir.path());
    fs::write(dir.path().join("db/.hidden"), b"").unwrap();
    fs::create_dir(dir.path().join("db/empty folder")).unwrap();
    let database = folder.open("db").unwrap();
    let paths: Vec<&str> = database.files().iter().map(|file| file.path.as_str()).collect();
    assert_eq!(paths, [".hidden", "old.mdf", "sub/old.ldf"]);
    assert_eq!((database.name(), database.size()), ("db", 15));

    fs::write(dir.path().join("db/old.mdf"), b"grown data").unwrap();
    assert!(matches!(database.open_file(1), Err(DatabaseError::Changed { expected: 8, found: 10, .. })));
    assert!(matches!(database.open_file(3), Err(DatabaseError::NoSuchFile { index: 3, count: 3 })));
}

#[test]
fn what_is_no_database_is_refused() {
    let (dir, folder) = data_folder();
    fs::write(dir.path().join("file"), b"").unwrap();
    fs::create_dir_all(dir.path().join("empty/sub")).unwrap();
    fs::create_dir(dir.path().join("linked")).unwrap();
    symlink("/etc/passwd", dir.path().join("linked/x.mdf")).unwrap();
    symlink("linked", dir.path().join("link")).unwrap();

    assert!(matches!(folder.open("none"), Err(DatabaseError::NotFound { .. })));
    assert!(matches!(folder.open("FILE"), Err(DatabaseError::NotFound { .. })));
    assert!(matches!(folder.open("file"), Err(DatabaseError::NotADatabase { .. })));
    assert!(matches!(folder.open("link"), Err(DatabaseError::NotADatabase { kind: "a symbolic link", .. })));
    assert!(matches!(folder.open("empty"), Err(DatabaseError::Empty { .. })));
    assert!(matches!(folder.open("linked"), Err(DatabaseError::UnsupportedFile { kind: "a symbolic link", .. })));
    for name in ["", ".", "..", ".x", "a/b", "../db", "a\0", &"x".repeat(129), &"\u{10000}".repeat(64)] {
        assert!(matches!(folder.open(name), Err(DatabaseError::InvalidName { .. })), "{name:?}");
    }
    assert!(check_name(&"é".repeat(127)).is_ok());
    assert!(DataFolder::new(dir.path().join("none")).is_err());
    assert!(DataFolder::new(dir.path().join("file")).is_err());
}

#[test]
fn a_new_database_appears_whole() {
    for placement in PLACEMENTS {
        for replace in [false, true] {
            let (dir, folder) = data_folder();
            let target = target(&folder, replace, placement).unwrap();
            assert_eq!(names(dir.path()).len(), usize::from(placement == Placement::Named));
            let committed = target.commit().unwrap();
            assert!(!committed.replaced && committed.leftover.is_none());
            assert_new_database(&folder);
            assert_eq!(names(dir.path()), ["db"]);
        }
    }
}

#[test]
fn an_existing_database_is_replaced_only_on_demand() {
    for placement in PLACEMENTS {
        let (dir, folder) = data_folder();
        old_database(dir.path());
        let error = target(&folder, false, placement).unwrap_err();
        assert!(matches!(error, DatabaseError::Exists { .. }));
        assert!(error.to_string().contains("WITH REPLACE"));

        let committed = target(&folder, true, placement).unwrap().commit().unwrap();
        assert!(committed.replaced && committed.leftover.is_none());
        assert_new_database(&folder);
        assert_eq!(names(dir.path()), ["db"]);
        assert_eq!(dir.path().join("db").metadata().unwrap().permissions().mode() & 0o7777, 0o710);
    }
}

#[test]
fn a_database_that_appears_in_the_meantime_is_kept() {
    for placement in PLACEMENTS {
        let (dir, folder) = data_folder();
        let target = target(&folder, false, placement).unwrap();
        old_database(dir.path());
        let before = snapshot(&dir.path().join("db"));
        assert!(matches!(target.commit(), Err(DatabaseError::Exists { .. })));
        assert_eq!(snapshot(&dir.path().join("db")), before);
        assert_eq!(names(dir.path()), ["db"]);
    }
}

#[test]
fn dropping_the_target_leaves_everything_as_it_was() {
    for placement in PLACEMENTS {
        let (dir, folder) = data_folder();
        old_database(dir.path());
        let before = snapshot(dir.path());
        drop(target(&folder, true, placement).unwrap());
        assert_eq!(snapshot(dir.path()), before);
    }
}

#[test]
fn no_failure_of_a_commit_harms_the_old_database() {
    use Step::{Exchange, MakeStaging, NameFiles, RemoveOld, SyncFiles, SyncStaging};
    for placement in PLACEMENTS {
        for exists in [false, true] {
            for step in [SyncFiles, MakeStaging, NameFiles, SyncStaging, Exchange, RemoveOld] {
                for stop in [Stop::Fail, Stop::Die] {
                    let (dir, folder) = data_folder();
                    if exists {
                        old_database(dir.path());
                    }
                    let before = snapshot(dir.path());
                    let mut first = target(&folder, true, placement).unwrap();
                    first.stop = Some((step, stop));
                    assert!(first.commit().is_err());
                    let case = format!("{placement:?} {exists} {step:?} {stop:?}");

                    if step == RemoveOld {
                        assert_new_database(&folder);
                    } else {
                        let mut after = snapshot(dir.path());
                        if stop == Stop::Die {
                            after.retain(|(path, ..)| {
                                !path.components().any(|part| is_staging_name(&part.as_os_str().to_string_lossy()))
                            });
                        }
                        assert_eq!(after, before, "{case}");
                    }

                    // Whatever was left behind is gone after the next restore.
                    target(&folder, true, placement).unwrap().commit().unwrap();
                    assert_new_database(&folder);
                    assert_eq!(names(dir.path()), ["db"], "{case}");
                }
            }
        }
    }
}

#[test]
fn only_folders_left_behind_are_removed() {
    let (dir, folder) = data_folder();
    fs::create_dir_all(dir.path().join(".db.restoring-0123456789abcdef/sub")).unwrap();
    fs::create_dir(dir.path().join(".db.restoring-not-of-ours")).unwrap();
    fs::create_dir(dir.path().join("db.restoring-0123456789abcdef")).unwrap();
    let alive = Staging::create(&folder, "other").unwrap();
    let alive_name = alive.name.clone();
    assert!(is_staging_name(&alive_name));
    drop(target(&folder, false, Placement::Unnamed).unwrap());
    assert_eq!(
        names(dir.path()),
        [".db.restoring-not-of-ours".to_owned(), alive_name, "db.restoring-0123456789abcdef".to_owned()]
    );
    drop(alive);
    assert_eq!(names(dir.path()).len(), 2);

    let long = Staging::create(&folder, &"é".repeat(127)).unwrap();
    assert!(is_staging_name(&long.name));
}

#[test]
fn two_restores_of_one_database_do_not_disturb_each_other() {
    for placement in PLACEMENTS {
        let (dir, folder) = data_folder();
        let first = target(&folder, false, placement).unwrap();
        let second = target(&folder, false, placement).unwrap();
        first.commit().unwrap();
        assert!(matches!(second.commit(), Err(DatabaseError::Exists { .. })));
        assert_new_database(&folder);
        assert_eq!(names(dir.path()), ["db"]);
    }
}

#[test]
fn paths_of_a_backup_stay_inside_the_database() {
    let (dir, folder) = data_folder();
    for paths in [
        &["/etc/passwd"][..],
        &["../x"],
        &["a/../../x"],
        &["a/./b"],
        &["a//b"],
        &["a/"],
        &[""],
        &["."],
        &["a\0b"],
        &["a", "a"],
        &["a/b", "a"],
        &["a", "a/b/c"],
        &["a", "a-b", "a/b"],
    ] {
        let files: Vec<DatabaseFile> = paths.iter().map(|path| file(path, 1, 0o600)).collect();
        let error = RestoreTarget::create(&folder, "db", &files, false).unwrap_err();
        assert!(matches!(error, DatabaseError::InvalidPath { .. }), "{paths:?}: {error}");
    }
    for path in ["/a", "../x", "a/..", "", "new.mdf", "new.mdf/x", "a", "a/b/", "c\0"] {
        let target = RestoreTarget::create(&folder, "db", &new_files(), false).unwrap();
        let error = target.with_empty_folders(&[path.to_owned()]).unwrap_err();
        assert!(matches!(error, DatabaseError::InvalidPath { .. }), "{path:?}: {error}");
    }
    let long = [file(&"x".repeat(256), 1, 0o600)];
    assert!(matches!(RestoreTarget::create(&folder, "db", &long, false), Err(DatabaseError::InvalidPath { .. })));
    let deep = [file(&"x/".repeat(3000), 1, 0o600)];
    assert!(matches!(RestoreTarget::create(&folder, "db", &deep, false), Err(DatabaseError::InvalidPath { .. })));
    let huge = [file("x", u64::MAX, 0o600)];
    assert!(matches!(RestoreTarget::create(&folder, "db", &huge, false), Err(DatabaseError::InvalidSize { .. })));
    assert!(matches!(RestoreTarget::create(&folder, "db", &[], false), Err(DatabaseError::Empty { .. })));
    assert!(matches!(
        RestoreTarget::create(&folder, ".db", &new_files(), false),
        Err(DatabaseError::InvalidName { .. })
    ));
    // More than the file system can do is the system's answer, with the file's name.
    let error = RestoreTarget::create(&folder, "db", &[file("x", i64::MAX as u64, 0o600)], false).unwrap_err();
    assert!(error.to_string().contains("db/x"), "{error}");
    assert!(names(dir.path()).is_empty());
}

#[test]
fn empty_folders_come_back() {
    for placement in PLACEMENTS {
        let (dir, folder) = data_folder();
        let folders = ["a/none", "deep/er/est", "z"].map(str::to_owned);
        target(&folder, false, placement).unwrap().with_empty_folders(&folders).unwrap().commit().unwrap();
        assert_new_database(&folder);
        assert_eq!(folder.open("db").unwrap().empty_folders(), folders);
        assert_eq!(names(dir.path()), ["db"]);
    }
}

#[test]
fn writes_stay_inside_their_file() {
    let (_dir, folder) = data_folder();
    let target = target(&folder, false, Placement::Unnamed).unwrap();
    assert!(matches!(target.write_at(0, 10, b"x"), Err(DatabaseError::BeyondEnd { offset: 10, size: 10, .. })));
    assert!(matches!(target.write_at(0, u64::MAX, b"x"), Err(DatabaseError::BeyondEnd { .. })));
    assert!(matches!(target.write_at(3, 0, b"x"), Err(DatabaseError::NoSuchFile { index: 3, count: 3 })));
    assert!(target.write_at(0, 10, b"").is_ok());
    assert_eq!((target.name(), target.files()), ("db", &new_files()[..]));
}

#[test]
fn errors_name_file_offset_and_remedy() {
    let full = DatabaseError::Io {
        action: "write to",
        path: "/data/db/x.mdf".into(),
        offset: Some(4096),
        source: rustix::io::Errno::NOSPC.into(),
    };
    assert!(full.is_disk_full());
    let text = full.to_string();
    assert!(text.starts_with("cannot write to /data/db/x.mdf at offset 4096: "), "{text}");
    assert!(text.ends_with("free some space and run the statement again"), "{text}");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// However a database is cut into writes, and whichever files it has, it comes out as it went in.
    #[test]
    fn a_restored_database_is_the_same(
        contents in prop::collection::btree_map("[a-c]{1,2}(/[d-f]{1,2}){0,2}\\.x", prop::collection::vec(any::<u8>(), 0..300), 1..6),
        piece in 1..100usize,
        named in any::<bool>(),
    ) {
        let (dir, folder) = data_folder();
        let files: Vec<DatabaseFile> =
            contents.iter().map(|(path, data)| file(path, data.len() as u64, 0o600)).collect();
        let placement = if named { Placement::Named } else { Placement::Unnamed };
        let target = RestoreTarget::create_at(&folder, "db", &files, false, placement).unwrap();
        for (index, data) in contents.values().enumerate() {
            for (i, chunk) in data.chunks(piece).enumerate().collect::<Vec<_>>().into_iter().rev() {
                target.write_at(index, (i * piece) as u64, chunk).unwrap();
            }
        }
        target.commit().unwrap();
        let database = folder.open("db").unwrap();
        prop_assert_eq!(database.files(), &files[..]);
        for (path, data) in &contents {
            prop_assert_eq!(&fs::read(database.path().join(path)).unwrap(), data);
        }
        prop_assert_eq!(names(dir.path()), ["db"]);
    }
}
