//! Defects that were found and mended, each by its name.
#![allow(clippy::unwrap_used, missing_docs)]

mod common;

use std::process::Command as Program;
use std::sync::{Arc, Barrier};

use common::bench::Bench;
use common::client::{backup_statement, config};
use common::processes::take_part;
use common::server::{BUFFER, Server, pair};
use common::tasks::task;
use common::{PATIENCE, eventually};
use vdi_client::raw::RawDevice;
use vdi_client::workers::WorkerPool;
use vdi_client::{CommandCode, Completion, CompletionCode, Features, INFINITE, VdConfig, VdError};
use vdi_proto::abort::{AbortReason, Cause, Party};
use vdi_proto::config::ServerTerms;
use vdi_proto::join::Role;
use vdi_proto::set::client::State;
use vdi_server_sim::vds::ServerVirtualDeviceSet;
use vdi_shm::member::Member;

#[test]
fn child_entry() {
    take_part(&[]);
}

/// A disk-like set was served as if it were pipe-like: every Write went to position 0, and the backup was reported as good.
#[test]
fn writes_of_disk_like_sets_carry_their_positions() {
    let bench = Bench::new();
    bench.database("sales", 1_000_000);
    let disk = VdConfig { features: Features::RANDOM_ACCESS, ..config(1) };
    let script = bench.scripted("nightly", &disk, |mut device, _| {
        let mut end = 0;
        while let Ok(command) = device.get_command(INFINITE) {
            let completion = match command.code() {
                CommandCode::SET_POSITION => Completion::at(command.position()),
                CommandCode::WRITE => {
                    assert_eq!(command.position(), end);
                    end += command.data().len() as u64;
                    Completion::transferred(command.data().len())
                }
                _ => Completion::done(),
            };
            command.complete(completion).unwrap();
        }
        end
    });
    bench.sql(&backup_statement("sales", "nightly", 1, "")).outcome().assert_success();
    assert!(script.result()[0] > 1_000_000);
}

/// A statement that failed before the configuration told the client nothing, who waited for ever.
#[test]
fn a_client_hears_of_a_failure_before_the_configuration() {
    let bench = Bench::new();
    bench.database("sales", 1_000_000);
    let set = bench.create("nightly", &config(1));
    let waiting = task("a client that waits", move || set.get_configuration(INFINITE).map(drop));
    bench.sql(&backup_statement("sales", "nightly", 2, "")).outcome().assert_failure(&["Msg 18210,"]);
    let error = waiting.result().unwrap_err();
    assert_eq!(error.code(), VdError::Abort);
    assert!(error.to_string().contains("the server called SignalAbort"), "{error}");
    bench.assert_nothing_left();
}

/// A device whose opener had left in order had nobody to answer it, and the server waited for ever.
#[test]
fn a_secondary_that_leaves_with_a_device_open_ends_the_set() {
    let bench = Bench::new();
    let set = bench.create("nightly", &config(2));
    let server = Server::open(&bench, "nightly", 2);
    set.get_configuration(PATIENCE).unwrap();
    let member = Member::join(&bench.options(), Role::Secondary, "", "nightly").unwrap();
    let number = member.session().member();
    assert!(member.session().control().open_device(1, number));
    drop(member);
    let session = server.set.session().unwrap();
    let expected = AbortReason { party: Party::Secondary(number as u16), cause: Cause::AbandonedDevice };
    eventually("the set is aborted", || match session.abort_reason() {
        Some(reason) if reason == expected => Ok(()),
        other => Err(format!("{other:?}")),
    });
}

/// The buffer of a command that CloseDevice had ended was lent again while the client still held it, and the server was accused
/// of breaking the protocol.
#[test]
fn a_buffer_of_a_closed_device_is_not_lent_again() {
    let bench = Bench::new();
    let set = bench.create("nightly", &config(2));
    let server = Server::with_features(&bench, "nightly", 2, Features::WRITE_MEDIA);
    set.get_configuration(PATIENCE).unwrap();
    let mut first = set.open_device("nightly").unwrap();
    let mut second = set.open_device(server.devices[1].name()).unwrap();
    server.write(0, 1);
    let held = first.get_command(PATIENCE).unwrap();
    server.devices[0].close_device().unwrap();
    let ended = server.ended();
    assert_eq!((ended.code, ended.buffer.is_none()), (CompletionCode::OPERATION_ABORTED, true));
    // All buffers that there are go round more than once on the other device.
    for byte in 2..20 {
        server.write(1, byte);
        let command = second.get_command(PATIENCE).unwrap();
        assert_eq!(command.data()[0], byte);
        command.complete(Completion::transferred(BUFFER as usize)).unwrap();
        assert!(server.ended().code.is_success());
    }
    assert_eq!(held.data()[0], 1, "nobody wrote into it");
    held.complete(Completion::transferred(BUFFER as usize)).unwrap();
    assert!(first.get_command(PATIENCE).unwrap_err().is_close());
    assert_eq!(server.set.session().unwrap().abort_reason(), None);
    server.devices[1].close_device().unwrap();
    assert!(second.get_command(PATIENCE).unwrap_err().is_close());
    server.set.close().unwrap();
}

/// A client that aborted after the end made the server's agent report a failure of what had ended well.
#[test]
fn an_abort_after_every_device_was_closed_is_no_failure() {
    let bench = Bench::new();
    let (set, mut server, mut device) = pair(&bench);
    server.devices[0].close_device().unwrap();
    assert!(device.get_command(PATIENCE).unwrap_err().is_close());
    set.signal_abort().unwrap();
    server.set.close().unwrap();
    assert!(server.agent_ended());
}

/// Two threads that ended the configuration at once made one of them panic.
#[test]
fn of_two_threads_that_end_the_configuration_one_is_refused() {
    let bench = Bench::new();
    for round in 0..20 {
        let name = format!("nightly {round}");
        let _client = bench.create(&name, &config(1));
        let server = Arc::new(ServerVirtualDeviceSet::with_options(bench.options()));
        server.open("", &name).unwrap();
        server.begin_configuration(&ServerTerms::default(), PATIENCE).unwrap();
        server.request_buffers(BUFFER, 0, 1).unwrap();
        let start = Arc::new(Barrier::new(2));
        let ending = [0, 1].map(|_| {
            let (server, start) = (Arc::clone(&server), Arc::clone(&start));
            task("one that ends the configuration", move || {
                start.wait();
                server.end_configuration().map_err(|error| error.code)
            })
        });
        let mut results = ending.map(|task| task.result().map(drop));
        results.sort_by_key(Result::is_err);
        assert_eq!(results, [Ok(()), Err(VdError::Protocol)]);
    }
}

/// A block that was completed, or never was a command, answered VD_E_INVALID also when the set was aborted or closed.
#[test]
fn a_stale_block_answers_by_the_sets_state() {
    let bench = Bench::new();
    let (set, server, device) = pair(&bench);
    let device = RawDevice::new(device);
    server.plain(0, CommandCode::FLUSH);
    let block = device.get_command(PATIENCE).unwrap();
    let complete = || device.complete_command(block.id, CompletionCode::SUCCESS, 0, 0).map_err(|error| error.code());
    assert_eq!(complete(), Ok(()));
    assert_eq!(complete(), Err(VdError::Invalid));
    set.signal_abort().unwrap();
    assert_eq!(complete(), Err(VdError::Abort));
    set.close().unwrap();
    assert_eq!(complete(), Err(VdError::Protocol));
}

/// A worker that is no worker: what a shell makes of its pipes.
fn pool(script: &str) -> WorkerPool {
    let mut worker = Program::new("sh");
    worker.args(["-c", script]);
    WorkerPool::start([worker]).unwrap()
}

/// A worker that answered what nobody had asked was left running, and waited for without end.
#[test]
fn a_worker_that_answers_nonsense_is_killed_and_its_commands_are_aborted() {
    let bench = Bench::new();
    let (_set, server, mut device) = pair(&bench);
    // Reads the request, answers another one, and would not end by itself.
    let pool = pool("head -c 32 > /dev/null; printf 0123456789abcdef01234567; exec sleep 1000");
    let driving = task("a device's driver", move || {
        let outcome = pool.drive(&mut device, 0, |_| {}).map(drop).map_err(|error| error.to_string());
        (outcome, pool.finish().unwrap())
    });
    server.read(0);
    assert_eq!(server.completed(), (CompletionCode::OPERATION_ABORTED, 0));
    server.devices[0].close_device().unwrap();
    let (outcome, ended) = driving.result();
    assert!(outcome.unwrap_err().contains("the worker process is gone"));
    assert!(ended.iter().all(|status| !status.success()), "{ended:?}");
}

/// A worker that never answered the last request of its device held the primary for ever, whatever became of the set.
#[test]
fn a_worker_that_is_silent_at_the_end_does_not_outlast_an_abort() {
    let bench = Bench::new();
    let (set, server, mut device) = pair(&bench);
    let pool = pool("cat > /dev/null");
    let driving = task("a device's driver", move || pool.drive(&mut device, 0, |_| {}).map(drop));
    server.devices[0].close_device().unwrap();
    eventually("the device has returned VD_E_CLOSE", || match set.state() {
        State::NormallyTerminated => Ok(()),
        other => Err(format!("{other:?}")),
    });
    set.signal_abort().unwrap();
    assert_eq!(driving.result().unwrap_err().code(), VdError::Abort);
}
