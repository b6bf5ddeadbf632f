//! The two ways to share the work of a set among processes: workers that get buffers by their handles, and secondaries that
//! open devices of their own. Server, primary and all others are processes of their own.
#![allow(clippy::unwrap_used)]

use crate::common;

use std::process::Command as Program;

use common::bench::Bench;
use common::client::{backup_statement, config, copy_statement, device_name, stripe};
use common::processes::{Part, RoleContext, Statement, ignoring_sigchld, run_role};
use common::{TEST_TIMEOUT, eventually};
use rustix::process::{Pid, Signal, kill_process};
use vdi_client::media::FileMedia;
use vdi_client::workers::WorkerPool;
use vdi_client::{ClientVirtualDeviceSet, pump};
use vdi_proto::set::client::State;

const SET: &str = "nightly";

#[test]
fn child_entry() {
    run_role(&[("pool", pool), ("own device", own_device)]);
}

/// A primary that passes its commands to worker processes. Arguments: devices, workers, direction, folder. The workers are the
/// demo's: their standard output is the pipe to the primary, which a test program's own output would garble.
fn pool(stage: &RoleContext) {
    let (devices, workers) = (stage.number(0), stage.number(1));
    let set = ClientVirtualDeviceSet::new();
    set.create(SET, &config(devices)).unwrap();
    stage.say("created");
    set.get_configuration(TEST_TIMEOUT).unwrap();
    let programs = (0..workers).map(|_| {
        let mut worker = Program::new(env!("CARGO_BIN_EXE_vdi-sim"));
        worker.args(["demo-worker", "--set", SET, "--folder", stage.argument(3)]);
        if stage.argument(2) == "restore" {
            worker.arg("--restore");
        }
        worker
    });
    let pool = WorkerPool::start(programs).unwrap();
    let ids: Vec<_> = pool.process_ids().iter().map(u32::to_string).collect();
    stage.say(&format!("workers {}", ids.join(" ")));
    assert_eq!(stage.next_order().as_deref(), Some("go on"));
    let opened = (0..devices).map(|index| set.open_device(&device_name(SET, index))).collect::<Result<Vec<_>, _>>();
    let opened = match opened {
        Ok(opened) => opened,
        // A worker's death may be known before all are open.
        Err(error) => return stage.say(&format!("failed {error}")),
    };
    let outcomes: Vec<_> = std::thread::scope(|scope| {
        let driving: Vec<_> = (0..)
            .zip(opened)
            .map(|(stripe, mut device)| {
                let (pool, set) = (&pool, &set);
                scope.spawn(move || {
                    let outcome = pool.drive(&mut device, stripe, |_| {});
                    if outcome.is_err() {
                        // Any failure ends the whole set at once.
                        let _ = set.signal_abort();
                    }
                    outcome
                })
            })
            .collect();
        driving.into_iter().map(|driving| driving.join().unwrap()).collect()
    });
    let handles = pool.handles_passed();
    match outcomes.into_iter().collect::<Result<Vec<_>, _>>() {
        Ok(reports) => {
            set.close().unwrap();
            let ends = pool.finish().unwrap();
            assert!(ends.iter().flatten().all(|status| status.success()));
            let known = ends.iter().flatten().count();
            let bytes: u64 = reports.iter().map(|report| report.bytes_written + report.bytes_read).sum();
            stage.say(&format!("done {handles} {bytes} {known}"));
        }
        Err(error) => stage.say(&format!("failed {error}")),
    }
}

/// A primary with its workers, and the statement; the workers' process ids.
fn start(bench: &Bench, statement: &str, devices: u32, workers: u32, direction: &str) -> (Part, Statement, Vec<Pid>) {
    start_with(bench, statement, devices, workers, direction, |_| {})
}

fn start_with(
    bench: &Bench,
    statement: &str,
    devices: u32,
    workers: u32,
    direction: &str,
    change: impl FnOnce(&mut Program),
) -> (Part, Statement, Vec<Pid>) {
    let folder = bench.out();
    let arguments = [&*devices.to_string(), &workers.to_string(), direction, folder.to_str().unwrap()];
    let primary = bench.part_with("pool", &arguments, change);
    primary.expect("created");
    let statement = bench.sql(statement);
    let ids = primary.expect("workers");
    let ids = ids.split(' ').map(|id| Pid::from_raw(id.parse().unwrap()).unwrap()).collect();
    (primary, statement, ids)
}

fn numbers<const N: usize>(text: &str) -> [u64; N] {
    text.split(' ').map(|number| number.parse().unwrap()).collect::<Vec<_>>().try_into().unwrap()
}

/// Runs a statement through workers; handles passed, and bytes.
#[track_caller]
fn through_workers(bench: &Bench, statement: &str, devices: u32, workers: u32, direction: &str) -> (u64, u64) {
    let (mut primary, statement, _) = start(bench, statement, devices, workers, direction);
    primary.order("go on");
    statement.outcome().assert_success();
    let done = primary.expect("done");
    primary.end();
    let [handles, bytes, known] = numbers(&done);
    assert_eq!(known, u64::from(workers), "how each worker ended");
    (handles, bytes)
}

#[test]
fn workers_write_and_read_what_they_get_by_handles() {
    let bench = Bench::new();
    bench.database("sales", 3_000_000);
    for (devices, workers) in [(1, 1), (3, 2), (2, 3)] {
        let out = backup_statement("sales", SET, devices, "MAXTRANSFERSIZE = 131072");
        let (handles, bytes) = through_workers(&bench, &out, devices, workers, "backup");
        // Every byte of the files went by a handle.
        assert!(bytes > 3_000_000 && handles >= bytes / 131_072, "{handles} handles, {bytes} bytes");
        let back = copy_statement("sales", "copy", SET, devices, "REPLACE");
        let (handles, bytes) = through_workers(&bench, &back, devices, workers, "restore");
        assert!(bytes > 3_000_000 && handles >= bytes / 65_536, "{handles} handles, {bytes} bytes");
        bench.assert_identical("sales", "copy");
    }
}

/// A pool in a host that ignores SIGCHLD, so that the system waits for the workers: `finish` failed after good work.
#[test]
fn a_pool_works_in_a_process_that_ignores_sigchld() {
    let bench = Bench::new();
    bench.database("sales", 3_000_000);
    for (direction, statement) in [
        ("backup", backup_statement("sales", SET, 2, "")),
        ("restore", copy_statement("sales", "copy", SET, 2, "REPLACE")),
    ] {
        let (mut primary, statement, _) = start_with(&bench, &statement, 2, 2, direction, ignoring_sigchld);
        primary.order("go on");
        statement.outcome().assert_success();
        let [_, bytes, known] = numbers(&primary.expect("done"));
        assert!(bytes > 3_000_000 && known == 0, "{bytes} bytes, {known} known ends");
        primary.end();
    }
    bench.assert_identical("sales", "copy");
}

/// Where it drops its pool, the workers end as well.
#[test]
fn a_pool_that_is_dropped_in_a_process_that_ignores_sigchld_leaves_nothing() {
    let bench = Bench::new();
    bench.database("sales", 3_000_000);
    let (mut primary, statement, workers) =
        start_with(&bench, &backup_statement("sales", SET, 1, ""), 1, 2, "backup", ignoring_sigchld);
    kill_process(workers[0], Signal::KILL).unwrap();
    primary.try_order("go on");
    statement.outcome().assert_failure(&[]);
    primary.expect("failed");
    primary.end();
    bench.assert_output(&[]);
}

/// A worker that is killed, as a member of the set or before it became one: the statement fails, and the targets are as they
/// were.
///
/// The primary's pipe breaks before the set has missed its member. All the same the server, and the primary, are told that the
/// member died, and not what followed from it.
fn a_worker_dies(joined: bool) {
    let bench = Bench::new();
    bench.database("sales", 3_000_000);
    let (mut primary, statement, ids) = start(&bench, &backup_statement("sales", SET, 2, ""), 2, 2, "backup");
    if joined {
        eventually("the worker has joined", || {
            let tasks = std::fs::read_dir(format!("/proc/{}/task", ids[0].as_raw_nonzero())).unwrap();
            let names = tasks.filter_map(|task| std::fs::read_to_string(task.ok()?.path().join("comm")).ok());
            match names.into_iter().any(|name| name.trim_end() == "vdi-monitor") {
                true => Ok(()),
                false => Err("it has no monitor thread".to_owned()),
            }
        });
        // So that it is sure to die with work to do.
        kill_process(ids[0], Signal::STOP).unwrap();
        primary.order("go on");
    }
    kill_process(ids[0], Signal::KILL).unwrap();
    if !joined {
        primary.order("go on");
    }
    let outcome = statement.outcome();
    outcome.assert_failure(&["Msg 320", "995("]);
    let failed = primary.expect("failed");
    if joined {
        outcome.assert_failure(&["the set was aborted: secondary client ", " died"]);
        assert!(failed.contains("VD_E_ABORT") && failed.contains(" died"), "{failed}");
    } else {
        assert!(failed.contains("VD_E_ABORT") || failed.contains("the worker process is gone"), "{failed}");
    }
    primary.end();
    bench.assert_output(&[]);
    bench.assert_nothing_left();
    bench.assert_name_is_free(SET);
}

#[test]
fn a_worker_that_is_killed_at_work_fails_the_backup() {
    a_worker_dies(true);
}

#[test]
fn a_worker_that_is_killed_before_it_works_fails_the_backup() {
    a_worker_dies(false);
}

/// A secondary with a device of its own. Arguments: the device's index, direction, folder.
fn own_device(stage: &RoleContext) {
    let index = stage.number(0);
    let set = ClientVirtualDeviceSet::new();
    set.open_in_secondary(SET).unwrap();
    let mut device = set.open_device(&device_name(SET, index)).unwrap();
    let path = stripe(std::path::Path::new(stage.argument(2)), index);
    let mut media =
        if stage.argument(1) == "restore" { FileMedia::open(path).unwrap() } else { FileMedia::create(path).unwrap() };
    stage.say("opened");
    match pump(&mut device, &mut media) {
        Ok(report) => {
            set.close().unwrap();
            stage.say(&format!("done {}", report.bytes_read + report.bytes_written));
        }
        Err(error) => stage.say(&format!("failed {error}")),
    }
}

/// Runs a statement whose devices all belong to secondaries; the primary, this process, opens none.
#[track_caller]
fn through_secondaries(bench: &Bench, statement: &str, devices: u32, direction: &str) {
    let set = bench.create(SET, &config(devices));
    let statement = bench.sql(statement);
    set.get_configuration(TEST_TIMEOUT).unwrap();
    let folder = bench.out();
    let parts: Vec<_> = (0..devices)
        .map(|index| bench.part("own device", &[&index.to_string(), direction, folder.to_str().unwrap()]))
        .collect();
    for part in parts {
        part.expect("opened");
        assert!(part.expect("done").parse::<u64>().unwrap() > 0);
        part.end();
    }
    statement.outcome().assert_success();
    assert_eq!(set.state(), State::NormallyTerminated);
    set.close().unwrap();
}

#[test]
fn secondaries_that_open_devices_of_their_own_carry_a_backup_and_a_restore() {
    let bench = Bench::new();
    bench.database("sales", 3_000_000);
    through_secondaries(&bench, &backup_statement("sales", SET, 3, ""), 3, "backup");
    bench.assert_output(&["stripe-00", "stripe-01", "stripe-02"]);
    through_secondaries(&bench, &copy_statement("sales", "copy", SET, 3, ""), 3, "restore");
    bench.assert_identical("sales", "copy");
}

#[test]
fn a_secondary_that_fails_takes_all_others_with_it() {
    let bench = Bench::new();
    bench.database("sales", 3_000_000);
    bench.back_up("sales", 3, "");
    let cut = std::fs::OpenOptions::new().write(true).open(stripe(&bench.out(), 1)).unwrap();
    cut.set_len(cut.metadata().unwrap().len() / 2).unwrap();
    drop(cut);
    let set = bench.create(SET, &config(3));
    let statement = bench.sql(&copy_statement("sales", "copy", SET, 3, ""));
    set.get_configuration(TEST_TIMEOUT).unwrap();
    let folder = bench.out();
    // The one that will fail comes when the others are there.
    let parts = [0, 2, 1].map(|index: u32| {
        let part = bench.part("own device", &[&index.to_string(), "restore", folder.to_str().unwrap()]);
        part.expect("opened");
        part
    });
    statement.outcome().assert_failure(&["Msg 3203,", "Read on \"nightly/1\" failed: 38("]);
    for part in parts {
        let failed = part.expect("failed");
        assert!(
            failed.contains("VD_E_ABORT")
                && failed.contains("the server gave up: device \"nightly/1\": the backup is truncated"),
            "{failed}"
        );
        part.end();
    }
    assert_eq!(set.state(), State::Abort);
    set.close().unwrap();
    bench.assert_databases(&["sales"]);
}
