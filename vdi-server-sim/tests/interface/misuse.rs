//! Calls out of turn, and calls that wait: codes of the interface's table as a program meets them, and what wakes a wait.
#![allow(clippy::unwrap_used)]

use crate::common;

use std::sync::Arc;
use std::time::Duration;

use common::TEST_TIMEOUT;
use common::bench::Bench;
use common::client::{config, device_name};
use common::processes::{RoleContext, run_role};
use common::server::{Server, pair};
use common::tasks::{Task, task};
use vdi_client::raw::RawDevice;
use vdi_client::{ClientVirtualDeviceSet, Completion, CompletionCode, Error, ErrorKind, INFINITE, VdError};
use vdi_proto::config::ServerTerms;
use vdi_proto::features::Features;
use vdi_proto::set::client::State;
use vdi_server_sim::vds::ServerVirtualDeviceSet;

#[test]
fn child_entry() {
    run_role(&[("join", join)]);
}

fn join(stage: &RoleContext) {
    let set = ClientVirtualDeviceSet::new();
    let joined = set.open_in_secondary(stage.argument(0));
    stage.say(&joined.map_or_else(|error| format!("{:?} {error}", error.code()), |()| "joined".to_owned()));
}

#[track_caller]
fn assert_code<T>(outcome: Result<T, Error>, code: VdError) -> String {
    let error = outcome.err().expect("a refusal");
    assert_eq!(error.code(), code, "{error}");
    error.to_string()
}

#[test]
fn calls_without_a_set_are_out_of_turn() {
    let bench = Bench::new();
    let set = ClientVirtualDeviceSet::with_options(bench.options());
    assert_eq!(set.state(), State::DoesNotExist);
    for _ in 0..2 {
        assert_code(set.get_configuration(INFINITE), VdError::Protocol);
        assert_code(set.open_device("nightly"), VdError::Protocol);
        assert_code(set.signal_abort(), VdError::Protocol);
        assert_code(set.close(), VdError::Protocol);
        assert_code(set.get_buffer_handle(core::ptr::null()), VdError::Protocol);
        assert_code(set.map_buffer_handle(vdi_client::BufferHandle::from_number(1)), VdError::Protocol);
        assert_code(set.canceller(), VdError::Protocol);
        // And the same after one that came and went: closing and aborting again are harmless.
        if set.create("nightly", &config(1)).is_ok() {
            set.close().unwrap();
        }
    }
}

#[test]
fn an_object_is_good_for_another_set_after_closing_or_aborting() {
    let bench = Bench::new();
    let set = ClientVirtualDeviceSet::with_options(bench.options());
    for round in 0..6 {
        set.create(["nightly", "other"][round % 2], &config(2)).unwrap();
        if round % 3 == 2 {
            set.signal_abort().unwrap();
            set.signal_abort().unwrap();
        }
        set.close().unwrap();
        assert_code(set.close(), VdError::Protocol);
        assert_code(set.signal_abort(), VdError::Protocol);
    }
}

#[test]
fn devices_open_once_by_names_that_the_statement_has() {
    let bench = Bench::new();
    let set = bench.create("nightly", &config(2));
    assert_code(set.open_device("nightly"), VdError::Protocol);
    let server = Server::open(&bench, "nightly", 2);
    set.get_configuration(TEST_TIMEOUT).unwrap();
    let unknown = assert_code(set.open_device("Nightly"), VdError::Invalid);
    assert!(unknown.contains("\"Nightly\"") && unknown.contains("case-sensitive"), "{unknown}");
    let first = set.open_device("nightly").unwrap();
    let again = assert_code(set.open_device("nightly"), VdError::Protocol);
    assert!(again.contains("OpenDevice on device \"nightly\" of set \"nightly\""), "{again}");
    let second = set.open_device(&device_name("nightly", 1)).unwrap();
    // Once all are open, whatever is asked for.
    for name in ["nightly", "unknown"] {
        assert_code(set.open_device(name), VdError::Open);
    }
    server.devices.iter().for_each(|device| device.close_device().unwrap());
    for mut device in [first, second] {
        assert_code(device.get_command(TEST_TIMEOUT), VdError::Close);
    }
    assert_code(set.open_device("nightly"), VdError::Protocol);
}

#[test]
fn the_configuration_can_be_asked_for_again_and_again() {
    let bench = Bench::new();
    let set = bench.create("nightly", &config(1));
    let waiting = assert_code(set.get_configuration(Duration::ZERO), VdError::Timeout);
    assert!(waiting.contains("no server configured the set within 0 s"), "{waiting}");
    assert_code(set.get_configuration(Duration::from_millis(5)), VdError::Timeout);
    let server = Server::open(&bench, "nightly", 1);
    let negotiated = set.get_configuration(TEST_TIMEOUT).unwrap();
    let mut device = set.open_device("nightly").unwrap();
    assert_eq!(set.get_configuration(Duration::ZERO).unwrap(), negotiated);
    server.devices[0].close_device().unwrap();
    assert_code(device.get_command(TEST_TIMEOUT), VdError::Close);
    assert_eq!(set.state(), State::NormallyTerminated);
    assert_eq!(set.get_configuration(Duration::ZERO).unwrap(), negotiated);
    // The work has ended, so nobody may join any more.
    let part = bench.part("join", &["nightly"]);
    let answer = part.report();
    assert!(answer.starts_with("Protocol "), "{answer}");
    set.close().unwrap();
}

/// A look that finds nothing is no error; the end, a cancelled wait and an abort are, also to who only looks.
#[test]
fn try_get_command_tells_nothing_from_the_end() {
    let bench = Bench::new();
    let (set, server, mut device) = pair(&bench);
    assert!(device.try_get_command().unwrap().is_none());
    server.read(0);
    let command = device.try_get_command().unwrap().unwrap();
    assert!(device.try_get_command().unwrap().is_none(), "while one is held");
    command.complete(Completion::transferred(1)).unwrap();
    assert_eq!(server.completed(), (CompletionCode::HANDLE_EOF, 1));
    let canceller = set.canceller().unwrap();
    canceller.cancel();
    assert_code(device.try_get_command(), VdError::Timeout);
    canceller.resume();
    assert!(device.try_get_command().unwrap().is_none());
    server.devices[0].close_device().unwrap();
    assert!(device.try_get_command().unwrap_err().is_close());
}

#[test]
fn try_get_command_tells_of_an_abort_and_a_close() {
    let bench = Bench::new();
    let (set, _server, mut device) = pair(&bench);
    set.signal_abort().unwrap();
    assert_code(device.try_get_command(), VdError::Abort);
    set.close().unwrap();
    assert_code(device.try_get_command(), VdError::Protocol);
}

#[test]
fn get_command_polls_times_out_and_delivers_in_order() {
    let bench = Bench::new();
    let (_set, server, mut device) = pair(&bench);
    assert_code(device.get_command(Duration::ZERO), VdError::Timeout);
    let late = assert_code(device.get_command(Duration::from_millis(5)), VdError::Timeout);
    assert!(late.contains("no command within 0.005 s"), "{late}");
    for _ in 0..3 {
        server.read(0);
    }
    let held: Vec<_> = (0..3).map(|_| device.get_command(Duration::ZERO).unwrap()).collect();
    assert_code(device.get_command(Duration::ZERO), VdError::Timeout);
    for (bytes, command) in (1..4).zip(held).rev() {
        command.complete(Completion::transferred(bytes)).unwrap();
        assert_eq!(server.completed(), (CompletionCode::HANDLE_EOF, bytes as u32));
    }
}

#[test]
fn a_command_is_completed_once_and_with_what_fits_it() {
    let bench = Bench::new();
    let (set, server, device) = pair(&bench);
    let raw = RawDevice::new(device);
    server.read(0);
    let command = raw.get_command(TEST_TIMEOUT).unwrap();
    let success = CompletionCode::SUCCESS;
    // Too many bytes, by one and by a wrap-around; somebody else's number. Nothing of it reaches the server.
    for bytes in [65537, u64::from(u32::MAX) + 1, u64::MAX] {
        let refused = assert_code(raw.complete_command(command.id, success, bytes, 0), VdError::Invalid);
        assert!(refused.contains("more bytes than the command has"), "{refused}");
    }
    let other = vdi_proto::command::CommandId(command.id.0.wrapping_add(64));
    assert_code(raw.complete_command(other, success, 1, 0), VdError::Invalid);
    assert!(server.completions.try_recv().is_err());
    raw.complete_command(command.id, success, 65536, 0).unwrap();
    assert_eq!(server.completed(), (success, 65536));
    // Twice, and after the same memory came again with another command.
    assert_code(raw.complete_command(command.id, success, 65536, 0), VdError::Invalid);
    server.read(0);
    let next = raw.get_command(TEST_TIMEOUT).unwrap();
    assert_eq!(next.buffer, command.buffer, "the same memory again");
    let stale = assert_code(raw.complete_command(command.id, success, 65536, 0), VdError::Invalid);
    assert!(stale.contains("not an active command"), "{stale}");
    assert!(server.completions.try_recv().is_err());
    raw.complete_command(next.id, success, 0, 0).unwrap();
    assert_eq!(server.completed(), (success, 0));
    assert_eq!(set.state(), State::Active, "nothing of this ends the work");
}

#[test]
fn a_completion_that_does_not_fit_gives_the_command_back() {
    let bench = Bench::new();
    let (_set, server, mut device) = pair(&bench);
    server.read(0);
    let mut command = device.get_command(TEST_TIMEOUT).unwrap();
    for completion in [
        Completion::transferred(65537),
        Completion::done(),
        Completion::at(0),
        Completion::failed(CompletionCode::SUCCESS),
        Completion::failed_after(CompletionCode::IO_DEVICE, 65537),
    ] {
        let refused = device.complete_command(command, completion).unwrap_err();
        assert_eq!(refused.error.code(), VdError::Invalid, "{refused}");
        command = refused.command.expect("the command is still there to be completed");
    }
    device.complete_command(command, Completion::transferred(65536)).unwrap();
    assert_eq!(server.completed(), (CompletionCode::SUCCESS, 65536));
}

#[test]
fn another_device_s_command_is_refused() {
    let bench = Bench::new();
    let set = bench.create("nightly", &config(2));
    let server = Server::open(&bench, "nightly", 2);
    set.get_configuration(TEST_TIMEOUT).unwrap();
    let mut first = set.open_device("nightly").unwrap();
    let second = set.open_device(&device_name("nightly", 1)).unwrap();
    server.read(0);
    let command = first.get_command(TEST_TIMEOUT).unwrap();
    let refused = second.complete_command(command, Completion::transferred(65536)).unwrap_err();
    assert_eq!(refused.error.code(), VdError::Invalid);
    assert!(refused.to_string().contains("the command came to device \"nightly\"; complete it there"), "{refused}");
    first.complete_command(refused.command.unwrap(), Completion::transferred(65536)).unwrap();
    assert_eq!(server.completed(), (CompletionCode::SUCCESS, 65536));
}

#[test]
fn completing_after_an_abort_or_a_close_says_so() {
    let bench = Bench::new();
    for (close, code) in [(false, VdError::Abort), (true, VdError::Protocol)] {
        let (set, server, mut device) = pair(&bench);
        server.read(0);
        let mut command = device.get_command(TEST_TIMEOUT).unwrap();
        if close {
            assert_code(set.close(), VdError::Open);
        } else {
            set.signal_abort().unwrap();
        }
        // The buffer stays mapped for as long as it is held.
        command.data_mut().fill(1);
        let refused = device.complete_command(command, Completion::transferred(65536)).unwrap_err();
        assert_eq!(refused.error.code(), code, "{refused}");
        assert!(refused.command.is_none());
        assert_eq!(server.completed(), (CompletionCode::OPERATION_ABORTED, 0));
        assert_code(device.get_command(INFINITE), code);
    }
}

#[test]
fn a_dropped_command_is_completed_as_aborted() {
    let bench = Bench::new();
    let (set, server, mut device) = pair(&bench);
    server.read(0);
    drop(device.get_command(TEST_TIMEOUT).unwrap());
    assert_eq!(server.completed(), (CompletionCode::OPERATION_ABORTED, 0));
    assert_eq!(set.state(), State::Active);
}

#[test]
fn a_device_that_is_dropped_while_open_aborts_the_set() {
    let bench = Bench::new();
    let (set, server, device) = pair(&bench);
    drop(device);
    let told = assert_code(set.get_configuration(INFINITE), VdError::Abort);
    assert!(told.contains("the primary client dropped a device that was still open"), "{told}");
    assert_eq!(server.set.get_configuration().unwrap_err().code, VdError::Abort);
}

#[test]
fn close_with_open_devices_is_open_and_closes_all_the_same() {
    let bench = Bench::new();
    let (set, server, device) = pair(&bench);
    let told = assert_code(set.close(), VdError::Open);
    assert!(told.contains("the set was aborted"), "{told}");
    assert_eq!(set.state(), State::DoesNotExist);
    let error = server.set.get_configuration().unwrap_err();
    assert!(error.to_string().contains("the primary client closed the set before"), "{error}");
    drop((server, device));
    // Not reserved any more, for this object and everybody else.
    set.create("nightly", &config(1)).unwrap();
}

/// Every call that waits, each in a thread of its own that sleeps in it.
fn waits(bench: &Bench) -> (Vec<Arc<ClientVirtualDeviceSet>>, Server, Vec<Task<Error>>) {
    let (set, server, mut device) = pair(bench);
    let unconfigured = bench.create("unconfigured", &config(1));
    let tasks = vec![
        task("GetCommand", move || device.get_command(INFINITE).unwrap_err()),
        task("GetConfiguration", {
            let set = Arc::clone(&unconfigured);
            move || set.get_configuration(INFINITE).unwrap_err()
        }),
    ];
    tasks.iter().for_each(Task::wait_until_asleep);
    (vec![set, unconfigured], server, tasks)
}

#[test]
fn cancelling_wakes_every_wait_and_ends_nothing() {
    let bench = Bench::new();
    let (sets, server, tasks) = waits(&bench);
    sets.iter().for_each(|set| set.canceller().unwrap().cancel());
    for task in tasks {
        let error = task.result();
        assert_eq!((error.code(), error.kind()), (VdError::Timeout, ErrorKind::Cancelled), "{error}");
        assert!(error.to_string().contains("cancelled"), "{error}");
    }
    // Cancelled until resumed; then the wait goes on as if nothing had been.
    assert_code(sets[1].get_configuration(INFINITE), VdError::Timeout);
    sets.iter().for_each(|set| set.canceller().unwrap().resume());
    let server_of_the_other = Server::open(&bench, "unconfigured", 1);
    sets[1].get_configuration(TEST_TIMEOUT).unwrap();
    drop((server, server_of_the_other));
}

#[test]
fn aborting_from_another_thread_wakes_every_wait() {
    let bench = Bench::new();
    let (sets, _server, tasks) = waits(&bench);
    sets.iter().for_each(|set| set.signal_abort().unwrap());
    for task in tasks {
        let error = task.result();
        assert_eq!((error.code(), error.kind()), (VdError::Abort, ErrorKind::Ended), "{error}");
        assert!(error.to_string().contains("the primary client called SignalAbort"), "{error}");
    }
}

#[test]
fn closing_from_another_thread_wakes_every_wait() {
    let bench = Bench::new();
    let (sets, _server, tasks) = waits(&bench);
    assert_code(sets[0].close(), VdError::Open);
    sets[1].close().unwrap();
    for task in tasks {
        let error = task.result();
        assert!(matches!(error.code(), VdError::Abort | VdError::Protocol), "{error}");
    }
}

#[test]
fn open_device_waits_for_the_server_and_can_be_cancelled_and_aborted() {
    let bench = Bench::new();
    for cancel in [true, false] {
        let set = bench.create("nightly", &config(1));
        let server = ServerVirtualDeviceSet::with_options(bench.options());
        server.open("", "nightly").unwrap();
        server
            .begin_configuration(
                &ServerTerms { features: Features::READ_MEDIA, ..ServerTerms::default() },
                TEST_TIMEOUT,
            )
            .unwrap();
        server.end_configuration().unwrap();
        set.get_configuration(TEST_TIMEOUT).unwrap();
        let opening = task("OpenDevice", {
            let set = Arc::clone(&set);
            move || set.open_device("nightly").unwrap_err()
        });
        opening.wait_until_asleep();
        if cancel {
            set.canceller().unwrap().cancel();
            assert_code::<()>(Err(opening.result()), VdError::Timeout);
        } else {
            server.signal_abort().unwrap();
            let told = assert_code::<()>(Err(opening.result()), VdError::Abort);
            assert!(told.contains("the server called SignalAbort"), "{told}");
        }
    }
}

#[test]
fn a_set_ends_in_good_order_when_every_device_returned_close() {
    let bench = Bench::new();
    let (set, server, mut device) = pair(&bench);
    server.read(0);
    device.get_command(TEST_TIMEOUT).unwrap().complete(Completion::transferred(65536)).unwrap();
    server.completed();
    server.devices[0].close_device().unwrap();
    let end = device.get_command(INFINITE).unwrap_err();
    assert!(end.is_close() && end.kind() == ErrorKind::Ended, "{end}");
    assert_eq!(set.state(), State::NormallyTerminated);
    server.set.close().unwrap();
    // A server that closes in good order is no reason for an abort.
    assert_eq!(set.state(), State::NormallyTerminated);
    set.close().unwrap();
}

#[test]
fn a_set_that_was_aborted_while_configurable_can_only_be_closed() {
    let bench = Bench::new();
    let set = bench.create("nightly", &config(1));
    set.signal_abort().unwrap();
    assert_eq!(set.state(), State::Abort);
    assert_code(set.get_configuration(INFINITE), VdError::Abort);
    assert_code(set.open_device("nightly"), VdError::Abort);
    assert_code(set.create("nightly", &config(1)), VdError::Protocol);
    set.close().unwrap();
    set.create("nightly", &config(1)).unwrap();
}
