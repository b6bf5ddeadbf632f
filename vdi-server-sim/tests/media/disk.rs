//! Disks that are full, and files that cannot be read: a clear error, the partial target removed, the old one intact.

use crate::common;

use std::fs;
use std::path::{Path, PathBuf};

use common::TEST_TIMEOUT;
use common::bench::{Bench, names, tree};
use common::client::{backup_statement, config, copy_statement, stripe};
use common::databases::set_len;
use common::processes::{Outcome, RoleContext, after, run_role};
use rustix::mount::{MountFlags, MountPropagationFlags, UnmountFlags, mount, mount_change, unmount};
use rustix::thread::{UnshareFlags, unshare_unsafe};
use vdi_client::media::FileMedia;
use vdi_client::{ClientVirtualDeviceSet, Completion, pump};

#[test]
fn child_entry() {
    run_role(&[("agent", agent)]);
}

/// A small file system of its own, where this process may mount one. Nobody but this test's thread and its children sees it, so
/// it vanishes with them, however they end.
struct SmallDisk(PathBuf);

impl SmallDisk {
    fn mount(at: &Path, bytes: u64) -> Option<SmallDisk> {
        fs::create_dir_all(at).unwrap();
        let options = std::ffi::CString::new(format!("size={bytes}")).unwrap();
        // SAFETY: this thread, and what it starts, get a view of the mounts of their own; no descriptor or memory is affected.
        let mounted = unsafe { unshare_unsafe(UnshareFlags::NEWNS) }
            .and_then(|()| mount_change("/", MountPropagationFlags::PRIVATE | MountPropagationFlags::REC))
            .and_then(|()| mount("none", at, "tmpfs", MountFlags::empty(), Some(options.as_c_str())));
        match mounted {
            Ok(()) => Some(SmallDisk(at.to_owned())),
            Err(error) => {
                eprintln!("SKIPPED: this needs the right to mount a small file system, which failed: {error}");
                None
            }
        }
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = unmount(&self.0, UnmountFlags::DETACH);
    }
}

/// A backup into a folder where there is no room for it, but an old backup.
fn full_target(bench: &Bench, folder: &Path, devices: u32) {
    for index in 0..devices {
        fs::write(stripe(folder, index), b"old").unwrap();
    }
    let before = tree(folder);
    let target = folder.to_owned();
    let agent = bench.agent("nightly", &config(devices), move |index| FileMedia::create(stripe(&target, index)));
    let outcome = bench.sql(&backup_statement("sales", "nightly", devices, "")).outcome();
    outcome.assert_failure(&["Msg 3202,", "112(There is not enough space on the disk.)"]);
    agent.result().unwrap_err();
    assert_eq!(tree(folder), before, "the old backup is there, and nothing else");
    bench.assert_nothing_left();
}

#[test]
fn a_full_disk_under_the_media_fails_the_backup_with_112() {
    let bench = Bench::new();
    bench.database("sales", 5_000_000);
    let folder = bench.out().join("small");
    let Some(_disk) = SmallDisk::mount(&folder, 1 << 20) else { return };
    full_target(&bench, &folder, 1);
    full_target(&bench, &folder, 2);
    // With room the same folder takes the backup of a smaller database.
    bench.database("little", 100_000);
    let target = folder.clone();
    let agent = bench.agent("nightly", &config(1), move |index| FileMedia::create(stripe(&target, index)));
    bench.sql(&backup_statement("little", "nightly", 1, "")).outcome().assert_success();
    agent.result().unwrap();
    assert_ne!(fs::read(stripe(&folder, 0)).unwrap(), b"old");
}

/// An agent in a process of its own, whose files may not grow beyond a limit. Says how its device ended.
fn agent(stage: &RoleContext) {
    let set = ClientVirtualDeviceSet::new();
    set.create("nightly", &config(1)).unwrap();
    stage.say("created");
    set.get_configuration(TEST_TIMEOUT).unwrap();
    let mut device = set.open_device("nightly").unwrap();
    let mut media = FileMedia::create(stripe(Path::new(stage.argument(0)), 0)).unwrap();
    match pump(&mut device, &mut media) {
        Ok(_) => stage.say("done"),
        Err(error) => stage.say(&format!("failed {error}")),
    }
}

#[test]
fn a_limit_on_file_sizes_fails_the_backup_with_112() {
    let bench = Bench::new();
    bench.database("sales", 5_000_000);
    fs::write(stripe(&bench.out(), 0), b"old").unwrap();
    let folder = bench.out();
    // In blocks of 512 or 1024 bytes. With the signal ignored the system says EFBIG.
    let limited = |command: &mut std::process::Command| after(command, "trap '' XFSZ; ulimit -f 2048");
    let part = bench.part_with("agent", &[folder.to_str().unwrap()], limited);
    part.expect("created");
    let outcome = bench.sql(&backup_statement("sales", "nightly", 1, "")).outcome();
    outcome.assert_failure(&["Msg 3202,", "112(There is not enough space on the disk.)"]);
    let failed = part.expect("failed");
    assert!(failed.contains("ulimit -f"), "the error says what to do: {failed}");
    part.end();
    bench.assert_output(&["stripe-00"]);
    assert_eq!(fs::read(stripe(&bench.out(), 0)).unwrap(), b"old");
}

#[test]
fn a_full_device_as_the_target_fails_the_backup_with_112() {
    let full = Path::new("/dev/full");
    if !full.exists() {
        eprintln!("SKIPPED: there is no /dev/full here");
        return;
    }
    let bench = Bench::new();
    bench.database("sales", 1_000_000);
    let agent = bench.agent("nightly", &config(1), |_| FileMedia::create("/dev/full"));
    let outcome = bench.sql(&backup_statement("sales", "nightly", 1, "")).outcome();
    outcome.assert_failure(&["Msg 3202,", "112(There is not enough space on the disk.)"]);
    agent.result().unwrap_err();
}

#[test]
fn a_full_data_folder_fails_the_restore_and_leaves_the_old_database() {
    let bench = Bench::new();
    let Some(_disk) = SmallDisk::mount(&bench.data(), 7 << 20) else { return };
    bench.database("sales", 4_000_000);
    bench.back_up("sales", 2, "");
    bench.old_database("copy");
    let old = bench.images();
    for (target, databases) in [("copy", &["copy", "sales"]), ("new", &["copy", "sales"])] {
        let agent = bench.reading_agent("nightly", &config(2));
        let outcome = bench.sql(&copy_statement("sales", target, "nightly", 2, "REPLACE")).outcome();
        outcome.assert_failure(&[
            "Msg 3202,",
            "112(There is not enough space on the disk.)",
            "No space left on device",
            "free some space and run the statement again",
        ]);
        agent.result().unwrap_err();
        bench.assert_databases(databases);
        bench.assert_nothing_left();
    }
    assert!(bench.images() == old);
    // With room again it works.
    let sales = bench.pages("sales");
    bench.drop_database("sales");
    bench.restore("copy", 2, "REPLACE");
    bench.databases().check("copy");
    assert!(bench.pages("copy") == sales);
}

/// A client of a BACKUP WITH BUFFERCOUNT = 1 that does something when it gets the N-th Write, from 1, and stores nothing.
fn acting_at(bench: &Bench, at: u32, act: impl Fn() + Send + Sync + 'static) -> Outcome {
    let script = bench.scripted("nightly", &config(1), move |mut device, _| {
        let mut seen = 0;
        while let Ok(command) = device.get_command(TEST_TIMEOUT) {
            seen += 1;
            if seen == at {
                act();
            }
            let completion = match command.data().len() {
                0 => Completion::done(),
                bytes => Completion::transferred(bytes),
            };
            let _ = command.complete(completion);
        }
    });
    let outcome = bench.sql(&backup_statement("sales", "nightly", 1, "BUFFERCOUNT = 1")).outcome();
    script.result();
    outcome
}

#[test]
fn a_file_that_shrinks_during_the_backup_fails_it() {
    let bench = Bench::new();
    bench.database("sales", 5_000_000);
    let file = bench.databases().data_file("sales", 0);
    let shrinking = file.clone();
    // Some data has come by then, and not all of it, which would take 50 Writes: with one buffer the server has read no further.
    let outcome = acting_at(&bench, 6, move || set_len(&shrinking, 1_000_000));
    outcome.assert_failure(&["Msg 3203,", "failed: 38(", file.to_str().unwrap(), "1000000 bytes"]);
}

#[test]
fn a_file_that_vanished_or_is_no_file_fails_the_backup() {
    let bench = Bench::new();
    bench.database("sales", 5_000_000);
    let second = bench.databases().data_file("sales", 1);
    let vanishing = second.clone();
    let outcome = acting_at(&bench, 2, move || fs::remove_file(&vanishing).unwrap());
    outcome.assert_failure(&[second.to_str().unwrap()]);

    // Something that would block a process that opens it is refused, and the client learns why.
    for gone in [true, false] {
        if !gone {
            let kind = rustix::fs::FileType::Fifo;
            rustix::fs::mknodat(rustix::fs::CWD, &second, kind, 0o600.into(), 0).unwrap();
        }
        let agent = bench.writing_agent("nightly", &config(1));
        let outcome = bench.sql(&backup_statement("sales", "nightly", 1, "")).outcome();
        outcome.assert_failure(&[second.to_str().unwrap()]);
        let told = agent.result().unwrap_err().to_string();
        assert!(told.contains(second.to_str().unwrap()), "{told}");
    }
}

#[test]
fn a_target_that_cannot_be_created_fails_the_agent_at_once() {
    let bench = Bench::new();
    let missing = stripe(&bench.out().join("missing"), 0);
    let error = FileMedia::create(&missing).unwrap_err();
    assert!(error.to_string().contains("directories have to exist already"), "{error}");
    assert!(FileMedia::create(bench.out()).is_err());
    assert!(names(&bench.out()).is_empty());
}

#[test]
fn a_data_folder_that_is_none_says_so() {
    let bench = Bench::new();
    fs::remove_dir(bench.data()).unwrap();
    let outcome = bench.sql(&backup_statement("sales", "nightly", 1, "")).outcome();
    assert_eq!(outcome.status.code(), Some(1));
    assert!(outcome.text.contains("vdi-sim: ") && outcome.text.contains("No such file"), "{outcome:#?}");
    fs::create_dir(bench.data()).unwrap();
}
