//! Locks of statements, within one process; `tests/media/locks.rs` has the same between processes.

use super::*;
use crate::messages::Verb;

#[test]
fn a_name_is_locked_once_and_other_names_are_free() {
    let (dir, folder) = data_folder();
    let other_handle = DataFolder::new(dir.path()).unwrap();
    for holder in [Verb::Backup, Verb::Restore] {
        let lock = folder.lock("db", holder).unwrap();
        for folder in [&folder, &other_handle] {
            for asking in [Verb::Backup, Verb::Restore] {
                let refused = folder.lock("db", asking).unwrap_err();
                assert!(
                    matches!(&refused, DatabaseError::InUse { name, holder: by } if name == "db" && *by == holder),
                    "{refused}"
                );
            }
            folder.lock("Db", holder).unwrap();
        }
        // A copy of the descriptor, as a process that is being started has one, does not keep the lock.
        let copy = lock.folder.try_clone().unwrap();
        drop(lock);
        other_handle.lock("db", Verb::Backup).unwrap();
        drop(copy);
    }
    assert!(matches!(folder.lock(".db", Verb::Backup), Err(DatabaseError::InvalidName { .. })));
    assert!(names(dir.path()).is_empty());
}

#[test]
fn a_lock_stays_when_the_database_is_exchanged() {
    let (dir, folder) = data_folder();
    old_database(dir.path());
    let lock = folder.lock("db", Verb::Restore).unwrap();
    target(&folder, true, PLACEMENTS[0]).unwrap().commit().unwrap();
    assert!(matches!(folder.lock("db", Verb::Restore), Err(DatabaseError::InUse { .. })));
    drop(lock);
    folder.lock("db", Verb::Restore).unwrap();
}

#[test]
fn of_many_at_once_one_gets_the_lock() {
    let (_dir, folder) = data_folder();
    let barrier = std::sync::Barrier::new(4);
    for _ in 0..50 {
        let locks: Vec<_> = std::thread::scope(|scope| {
            let ask = |verb| {
                barrier.wait();
                folder.lock("db", verb)
            };
            let asking = [Verb::Backup, Verb::Restore, Verb::Backup, Verb::Restore];
            let asking = asking.map(|verb| scope.spawn(move || ask(verb)));
            asking.into_iter().filter_map(|asking| asking.join().unwrap().ok()).collect()
        });
        assert_eq!(locks.len(), 1);
    }
}
