//! The client's examples, run as a reader of the README would: real processes, against `vdi-sim sql`.

use crate::common;

use common::examples::{Client, Folders, example};

#[test]
fn the_agent_backs_up_and_restores() {
    let (folders, agent) = (Folders::new(), example("agent"));
    let file = folders.path("backup").join("db.bak");
    for (statement, said) in [
        ("BACKUP DATABASE db TO VIRTUAL_DEVICE='agent'", "bytes written"),
        ("RESTORE DATABASE copy FROM VIRTUAL_DEVICE='agent'", "bytes read"),
    ] {
        let client = Client::start(&agent, &["agent", file.to_str().unwrap()], &folders.path("runtime"));
        folders.sql(statement);
        assert!(client.finish().contains(said));
    }
    assert_eq!(folders.files("db"), folders.files("copy"));
    folders.assert_clean(1);
}

#[test]
fn every_kind_of_device_backs_up_and_restores() {
    let kinds = example("kinds");
    for kind in ["pipe", "disk", "tape", "volumes"] {
        let folders = Folders::new();
        let path = folders.path("backup").join("db");
        for (statement, said) in [
            ("BACKUP DATABASE db TO VIRTUAL_DEVICE='kinds' WITH MAXTRANSFERSIZE = 1048576", "bytes written"),
            ("RESTORE DATABASE copy FROM VIRTUAL_DEVICE='kinds'", "bytes read"),
        ] {
            let client = Client::start(&kinds, &["kinds", kind, path.to_str().unwrap()], &folders.path("runtime"));
            folders.sql(statement);
            assert!(client.finish().contains(said));
        }
        assert_eq!(folders.files("db"), folders.files("copy"));
        folders.assert_clean(1);
    }
}

#[test]
fn a_snapshot_is_taken_and_mounted() {
    let (folders, snapshot) = (Folders::new(), example("snapshot"));
    let (database, backup) = (folders.path("data/db"), folders.path("backup"));
    let before = folders.files("db");
    let run = |statement: &str, said: &str| {
        let arguments = ["snapshot", database.to_str().unwrap(), backup.to_str().unwrap()];
        let client = Client::start(&snapshot, &arguments, &folders.path("runtime"));
        folders.sql(statement);
        assert!(client.finish().contains(said));
    };
    run("BACKUP DATABASE db TO VIRTUAL_DEVICE='snapshot' WITH SNAPSHOT", "taken");
    std::fs::write(database.join(&before[0].0), b"a later state").unwrap();
    assert_ne!(folders.files("db"), before);
    run("RESTORE DATABASE db FROM VIRTUAL_DEVICE='snapshot' WITH SNAPSHOT, REPLACE", "mounted");
    assert_eq!(folders.files("db"), before);
    folders.assert_clean(2);
}

#[test]
fn workers_get_buffers_by_their_handles() {
    let (folders, handles) = (Folders::new(), example("handles"));
    let client = Client::start(&handles, &["handles", "3"], &folders.path("runtime"));
    folders.sql("BACKUP DATABASE db TO VIRTUAL_DEVICE='handles' WITH MAXTRANSFERSIZE=131072, NO_CHECKSUM");
    let text = client.finish();
    let (buffers, sum) = text.trim().split_once(" buffers summed by workers: ").unwrap();
    assert!(buffers.parse::<u64>().unwrap() > 24, "{text}");
    // The database's own bytes are a part of what went over; headers make up the rest.
    let database: u64 = folders.files("db").iter().flat_map(|(_, bytes)| bytes).map(|byte| u64::from(*byte)).sum();
    let headers = sum.parse::<u64>().unwrap() - database;
    assert!(headers < 100_000 * buffers.parse::<u64>().unwrap(), "{text}");
    folders.assert_clean(0);
}

#[test]
fn secondaries_serve_a_device_each() {
    let (folders, secondaries) = (Folders::new(), example("secondaries"));
    let backup = folders.path("backup");
    for statement in [
        "BACKUP DATABASE db TO VIRTUAL_DEVICE='many', VIRTUAL_DEVICE='many-1', VIRTUAL_DEVICE='many-2'",
        "RESTORE DATABASE copy FROM VIRTUAL_DEVICE='many', VIRTUAL_DEVICE='many-1', VIRTUAL_DEVICE='many-2'",
    ] {
        let arguments = ["many", "3", backup.to_str().unwrap()];
        let client = Client::start(&secondaries, &arguments, &folders.path("runtime"));
        folders.sql(statement);
        assert!(client.finish().contains("all 3 devices are done"));
    }
    assert_eq!(folders.files("db"), folders.files("copy"));
    folders.assert_clean(3);
}
