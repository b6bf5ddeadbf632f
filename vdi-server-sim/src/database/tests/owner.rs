//! Owners of restored files. Only root can give files away.

use std::os::unix::fs::{MetadataExt, chown};

use super::*;

/// Of the database's folder and everything in it.
fn owners(dir: &Path) -> Vec<(PathBuf, u32, u32)> {
    let paths = snapshot(dir).into_iter().map(|(path, ..)| path);
    let owner = |path: PathBuf| {
        let stat = fs::metadata(&path).unwrap();
        (path.strip_prefix(dir).unwrap().to_owned(), stat.uid(), stat.gid())
    };
    paths.map(owner).collect()
}

#[test]
fn restored_files_keep_their_owner_or_get_that_of_the_folder() {
    if !rustix::process::geteuid().is_root() {
        eprintln!("SKIPPED: only root can give files away");
        return;
    }
    for placement in PLACEMENTS {
        let (dir, folder) = data_folder();
        chown(dir.path(), Some(4001), Some(4002)).unwrap();
        target(&folder, false, placement).unwrap().commit().unwrap();
        let made = owners(dir.path());
        assert_eq!(made.len(), 6, "{made:?}");
        assert!(made.iter().all(|(_, user, group)| (*user, *group) == (4001, 4002)), "{made:?}");

        let database = dir.path().join("db");
        chown(&database, Some(4003), Some(4004)).unwrap();
        chown(database.join("a/b"), Some(4005), Some(4006)).unwrap();
        chown(database.join("new.mdf"), Some(4007), Some(4008)).unwrap();
        // A file that was not there.
        fs::remove_file(database.join("a/empty")).unwrap();
        target(&folder, true, placement).unwrap().commit().unwrap();
        let expected = [
            ("db", 4003, 4004),
            ("db/a", 4001, 4002),
            ("db/a/b", 4005, 4006),
            ("db/a/b/new.ndf", 4001, 4002),
            ("db/a/empty", 4003, 4004),
            ("db/new.mdf", 4007, 4008),
        ];
        assert_eq!(owners(dir.path()), expected.map(|(path, user, group)| (PathBuf::from(path), user, group)));
    }
}
