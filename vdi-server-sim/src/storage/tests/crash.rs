//! Processes that die, and disks that are full: the old database or the new one, no litter.

use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};

use super::*;
use crate::storage::build::Stop;

#[test]
fn a_restore_that_dies_at_any_step_leaves_the_old_database_or_the_new_one() {
    let stops = [
        (Stop::BeforeSync, 1),
        (Stop::BeforeTransaction, 1),
        (Stop::BeforeRename, 2),
        (Stop::Renamed(1), 2),
        (Stop::Renamed(2), 2),
        (Stop::Renamed(3), 2),
        (Stop::BeforeEndRenames, 2),
        (Stop::BeforeRemove, 2),
    ];
    // What comes next: opening the folder anew, or a statement on the database.
    for (stop, expected) in stops {
        for reopen in [true, false] {
            for existing in [true, false] {
                let (_directory, folder) = folder();
                if existing {
                    Restore::of("Sales", 1).run(&folder).unwrap();
                }
                // One file keeps its name, one is new, and one of the old is left.
                let mut restore = Restore::of("sales", 2);
                restore.moves = vec![("TWO".into(), "other.ndf".into())];
                restore.replace = true;
                let mut target = restore.create(&folder).unwrap();
                target.new.stop = Some(stop);
                let ended = restore.finish(target);
                assert_eq!(ended.is_ok(), expected == 2, "{stop:?}");
                let folder = if reopen {
                    DataFolder::open(folder.path()).unwrap()
                } else {
                    drop(folder.lock("SALES", Verb::Backup).unwrap());
                    folder
                };
                if !existing && expected == 1 {
                    assert!(folder.catalog().find("Sales").unwrap().is_none());
                    assert_no_litter(&folder);
                } else {
                    assert_is(&folder, "Sales", expected);
                }
                // And it can be replaced again.
                restore.byte = 3;
                restore.run(&folder).unwrap();
                assert_is(&folder, "Sales", 3);
            }
        }
    }
}

#[test]
fn a_file_that_appears_before_the_renames_is_kept() {
    let (_directory, folder) = folder();
    let restore = Restore::of("Sales", 1);
    let mut target = restore.create(&folder).unwrap();
    target.new.stop = Some(Stop::BeforeRename);
    restore.finish(target).unwrap();
    let path = folder.path().join("two.ndf");
    fs::write(&path, "mine").unwrap();
    let folder = DataFolder::open(folder.path()).unwrap();
    assert!(
        matches!(folder.lock("Sales", Verb::Backup), Err(StorageError::FileExists { path: found }) if found == path)
    );
    assert_eq!(fs::read(&path).unwrap(), b"mine");
    fs::remove_file(&path).unwrap();
    folder.lock("Sales", Verb::Backup).unwrap();
    assert_is(&folder, "Sales", 1);
}

#[test]
fn a_database_whose_files_cannot_get_their_names_can_be_dropped_and_a_strangers_file_stays() {
    for stranger in [true, false] {
        for drops in [true, false] {
            let (_directory, folder) = folder();
            let mut restore = Restore::of("Sales", 1);
            let mut target = restore.create(&folder).unwrap();
            target.new.stop = Some(Stop::BeforeRename);
            let built = target.new.placed()[1].built.clone();
            restore.finish(target).unwrap();
            let path = folder.path().join("two.ndf");
            if stranger {
                fs::write(&path, "mine").unwrap();
            } else {
                fs::remove_file(&built).unwrap();
            }
            folder.lock("Sales", Verb::Backup).unwrap_err();
            if drops {
                folder.drop_database("Sales").unwrap();
                assert!(folder.catalog().find("Sales").unwrap().is_none());
            } else {
                restore.replace = true;
                restore.byte = 2;
                if stranger {
                    let error = restore.run(&folder).unwrap_err();
                    assert!(matches!(&error, StorageError::FileExists { path: found } if *found == path), "{error}");
                    restore.moves = vec![("two".into(), "other.ndf".into())];
                }
                restore.run(&folder).unwrap();
            }
            assert!(!built.exists());
            if stranger {
                assert_eq!(fs::read(&path).unwrap(), b"mine");
                fs::remove_file(&path).unwrap();
            }
            match drops {
                true => assert_no_litter(&folder),
                false => assert_is(&folder, "Sales", 2),
            }
        }
    }
}

/// The environment variable that gives the child its data folder.
const CHILD_FOLDER: &str = "VDI_TEST_RESTORE_FOLDER";

/// Not a test of its own: restores one database again and again, until it is killed.
#[test]
fn child_that_restores() {
    let Ok(path) = std::env::var(CHILD_FOLDER) else { return };
    let folder = DataFolder::open(path).unwrap();
    let first = fs::read(folder.path().join("one.mdf")).map_or(0, |content| content[0]);
    for byte in first + 1..=250 {
        let mut restore = Restore::of("Sales", byte);
        // Every other time a file has another name, so that an old one is left.
        restore.moves = vec![("two".into(), format!("two{}.ndf", byte % 2).into())];
        restore.run(&folder).unwrap();
        println!("\nrestored {byte}");
    }
}

#[test]
fn a_killed_restore_leaves_the_old_database_or_the_new_one() {
    let (_directory, folder) = folder();
    Restore::of("Sales", 1).run(&folder).unwrap();
    for round in 0..12 {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "storage::tests::crash::child_that_restores", "--nocapture"])
            .env(CHILD_FOLDER, folder.path())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines().map(Result::unwrap);
        let restored = lines.filter_map(|line| line.strip_prefix("restored ").map(|byte| byte.parse::<u8>().unwrap()));
        // The child goes on while the line is read, so the kill meets any step of the next restore.
        let last = restored.take(1 + round % 3).last().unwrap();
        child.kill().unwrap();
        child.wait().unwrap();
        let folder = DataFolder::open(folder.path()).unwrap();
        let found = fs::read(folder.path().join("one.mdf")).unwrap()[0];
        assert!(found >= last, "what was restored stays");
        assert_is(&folder, "Sales", found);
        assert_eq!(folder.catalog().restores(None).unwrap().len(), usize::from(found));
    }
}

#[test]
fn a_full_disk_under_the_catalog_keeps_the_old_database() {
    let (_directory, folder) = folder();
    Restore::of("Sales", 1).run(&folder).unwrap();
    let mut restore = Restore::of("Sales", 2);
    // The catalog needs more room for this configuration.
    let group = |id| Filegroup::new(16, id, &format!("group {id}"));
    restore.configuration.filegroups.extend((2..500).map(group));
    let target = restore.create(&folder).unwrap();
    folder.catalog().limit_size(true);
    let error = restore.finish(target).unwrap_err();
    assert!(error.is_disk_full(), "{error}");
    assert_is(&folder, "Sales", 1);
    folder.catalog().limit_size(false);
    restore.run(&folder).unwrap();
    assert_is(&folder, "Sales", 2);
}

#[test]
fn a_full_disk_is_an_error_that_leaves_nothing() {
    // The limit of a file's size stands for it: the same path, another code of the system.
    let (_directory, folder) = folder();
    let mut restore = Restore::of("d", 1);
    // ext4 has files up to 16 TiB; other file systems have room for more, and refuse nothing here.
    restore.configuration.files[0].size = u64::from(u32::MAX) * 8192;
    match restore.create(&folder) {
        Err(StorageError::Io { action: "set the length of", .. }) => {}
        Ok(_) => eprintln!("skipped: this file system has files of any length"),
        Err(other) => panic!("{other}"),
    }
    assert_no_litter(&folder);
}
