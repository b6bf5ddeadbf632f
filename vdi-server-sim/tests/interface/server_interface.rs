//! The server interface itself, against a client in this process: device errors, the queue, the time-out, and the ends of the
//! work.

use crate::common;

use std::sync::Arc;
use std::time::{Duration, Instant};

use common::TEST_TIMEOUT;
use common::bench::Bench;
use common::client::{config, device_name};
use common::server::{BUFFER, Server, pair};
use common::tasks::task;
use vdi_client::{
    ClientVirtualDeviceSet, CommandCode, Completion, CompletionCode, Features, INFINITE, VdConfig, VdError,
};
use vdi_proto::config::ServerTerms;
use vdi_proto::set::server::State;
use vdi_server_sim::vds::{Completed, ServerVirtualDeviceSet, VdsCommand};

/// A server that is connected to a set in this process and not configured.
pub(super) fn connected(
    bench: &Bench,
    config: &VdConfig,
) -> (Arc<ClientVirtualDeviceSet>, Arc<ServerVirtualDeviceSet>) {
    let set = bench.create("nightly", config);
    let server = Arc::new(ServerVirtualDeviceSet::with_options(bench.options()));
    server.open("", "nightly").unwrap();
    (set, server)
}

pub(super) fn terms() -> ServerTerms {
    ServerTerms { features: Features::READ_MEDIA, ..ServerTerms::default() }
}

#[test]
fn an_error_stops_the_device_until_clear_error() {
    let bench = Bench::new();
    let (_set, server, mut device) = pair(&bench);
    server.read(0);
    server.read(0);
    server.read(0);
    let (first, second) = (device.get_command(TEST_TIMEOUT).unwrap(), device.get_command(TEST_TIMEOUT).unwrap());
    // The third is queued and not delivered when the first fails: the client never sees it.
    first.complete(Completion::failed(CompletionCode::IO_DEVICE)).unwrap();
    assert_eq!(server.completed(), (CompletionCode::IO_DEVICE, 0));
    assert_eq!(device.get_command(Duration::ZERO).unwrap_err().code(), VdError::Timeout);
    assert_eq!(server.completed(), (CompletionCode::IO_DEVICE, 0));
    assert!(server.devices[0].in_io_error());

    // Everything but ClearError is refused at once, with its routine.
    let refused = server.devices[0].send_command(VdsCommand::plain(CommandCode::FLUSH, Arc::clone(&server.routine)));
    assert_eq!(refused.unwrap_err().code, VdError::IoError);
    assert_eq!(server.completed(), (CompletionCode::IO_DEVICE, 0));

    // ClearError is held back while the client holds the second command.
    server.plain(0, CommandCode::CLEAR_ERROR);
    assert_eq!(device.get_command(Duration::ZERO).unwrap_err().code(), VdError::Timeout);
    let waiting = task("GetCommand", move || (device.get_command(INFINITE).unwrap(), device));
    waiting.wait_until_asleep();
    second.complete(Completion::transferred(BUFFER as usize)).unwrap();
    assert_eq!(server.completed(), (CompletionCode::SUCCESS, BUFFER));
    let (clear, mut device) = waiting.result();
    assert_eq!(clear.code(), CommandCode::CLEAR_ERROR);
    assert!(server.devices[0].in_io_error());
    clear.complete(Completion::done()).unwrap();
    assert_eq!(server.completed(), (CompletionCode::SUCCESS, 0));
    assert!(!server.devices[0].in_io_error());

    // Active again.
    server.read(0);
    device.get_command(TEST_TIMEOUT).unwrap().complete(Completion::transferred(BUFFER as usize)).unwrap();
    assert_eq!(server.completed(), (CompletionCode::SUCCESS, BUFFER));
}

#[test]
fn a_clear_error_that_fails_leaves_the_device_in_error() {
    let bench = Bench::new();
    let (_set, server, mut device) = pair(&bench);
    server.read(0);
    device.get_command(TEST_TIMEOUT).unwrap().complete(Completion::failed(CompletionCode::IO_DEVICE)).unwrap();
    server.completed();
    server.plain(0, CommandCode::CLEAR_ERROR);
    device.get_command(TEST_TIMEOUT).unwrap().complete(Completion::failed(CompletionCode::IO_DEVICE)).unwrap();
    assert_eq!(server.completed(), (CompletionCode::IO_DEVICE, 0));
    assert!(server.devices[0].in_io_error());
    // The server may try again, or close the device instead.
    server.devices[0].close_device().unwrap();
    assert!(device.get_command(TEST_TIMEOUT).unwrap_err().is_close());
}

#[test]
fn the_queue_is_full_at_64() {
    let bench = Bench::new();
    let (_set, server, mut device) = pair(&bench);
    for _ in 0..64 {
        server.plain(0, CommandCode::FLUSH);
    }
    let refused = server.devices[0].send_command(VdsCommand::plain(CommandCode::FLUSH, Arc::clone(&server.routine)));
    assert_eq!(refused.unwrap_err().code, VdError::QueueFull);
    assert_eq!(server.completed(), (CompletionCode::NO_SYSTEM_RESOURCES, 0));
    // One completion makes room for one.
    device.get_command(TEST_TIMEOUT).unwrap().complete(Completion::done()).unwrap();
    assert_eq!(server.completed(), (CompletionCode::SUCCESS, 0));
    server.plain(0, CommandCode::FLUSH);
    for _ in 0..64 {
        device.get_command(TEST_TIMEOUT).unwrap().complete(Completion::done()).unwrap();
        assert_eq!(server.completed(), (CompletionCode::SUCCESS, 0));
    }
    assert_eq!(server.devices[0].outstanding(), 0);
}

#[test]
fn commands_that_cannot_be_are_refused_with_their_routine() {
    let bench = Bench::new();
    let (_set, server, mut device) = pair(&bench);
    let send = |command| server.devices[0].send_command(command).unwrap_err().code;
    let routine = || Arc::clone(&server.routine);
    assert_eq!(send(VdsCommand::plain(CommandCode::REWIND, routine())), VdError::NotSupported);
    assert_eq!(send(VdsCommand::plain(CommandCode::READ, routine())), VdError::Invalid);
    for bytes in [0, 511, BUFFER + 512] {
        let buffer = server.set.allocate_buffer(BUFFER, 0).unwrap();
        assert_eq!(send(VdsCommand::transfer(CommandCode::READ, buffer, bytes, routine())), VdError::Invalid);
    }
    for transfer in [false, false, true, true, true] {
        let ended = server.ended();
        assert_eq!((ended.code, ended.bytes), (CompletionCode::NOT_SUPPORTED, 0));
        assert_eq!(ended.buffer.is_some(), transfer, "a buffer that was not lent comes back");
    }
    assert_eq!(device.get_command(Duration::ZERO).unwrap_err().code(), VdError::Timeout);
}

#[test]
fn closing_a_device_aborts_what_is_outstanding() {
    let bench = Bench::new();
    let (_set, server, mut device) = pair(&bench);
    for _ in 0..3 {
        server.read(0);
    }
    let held = device.get_command(TEST_TIMEOUT).unwrap();
    server.devices[0].close_device().unwrap();
    for _ in 0..3 {
        assert_eq!(server.completed(), (CompletionCode::OPERATION_ABORTED, 0));
    }
    assert_eq!(server.devices[0].close_device().unwrap_err().code, VdError::Close);
    let refused = server.devices[0].send_command(VdsCommand::plain(CommandCode::FLUSH, Arc::clone(&server.routine)));
    assert_eq!(refused.unwrap_err().code, VdError::Protocol);
    assert_eq!(server.completed(), (CompletionCode::INVALID_HANDLE, 0));
    // The client still gets what was sent before, and answers in vain.
    held.complete(Completion::transferred(BUFFER as usize)).unwrap();
    for _ in 1..3 {
        device.get_command(TEST_TIMEOUT).unwrap().complete(Completion::transferred(BUFFER as usize)).unwrap();
    }
    assert!(device.get_command(TEST_TIMEOUT).unwrap_err().is_close());
    assert!(server.completions.try_recv().is_err());
}

#[test]
fn closing_the_set_with_open_devices_aborts_it() {
    let bench = Bench::new();
    let (set, mut server, mut device) = pair(&bench);
    server.read(0);
    let waiting = task("GetCommand", move || {
        let held = device.get_command(TEST_TIMEOUT).unwrap();
        (device.get_command(INFINITE).unwrap_err(), held)
    });
    waiting.wait_until_asleep();
    let error = server.set.close().unwrap_err();
    assert_eq!(error.code, VdError::Protocol);
    assert!(error.to_string().contains("devices were open"), "{error}");
    assert!(!server.agent_ended());
    assert_eq!(server.completed(), (CompletionCode::OPERATION_ABORTED, 0));
    let (error, _held) = waiting.result();
    assert_eq!(error.code(), VdError::Abort);
    assert!(error.to_string().contains("the server closed the set before the work had ended"), "{error}");
    set.close().unwrap();
}

#[test]
fn devices_closed_at_once_end_the_work_in_good_order() {
    let bench = Bench::new();
    for _ in 0..20 {
        let set = bench.create("nightly", &config(4));
        let mut server = Server::open(&bench, "nightly", 4);
        set.get_configuration(TEST_TIMEOUT).unwrap();
        let mut opened: Vec<_> = (0..4).map(|index| set.open_device(&device_name("nightly", index)).unwrap()).collect();
        let start = std::sync::Barrier::new(4);
        std::thread::scope(|scope| {
            for device in &server.devices {
                scope.spawn(|| {
                    start.wait();
                    device.close_device().unwrap();
                });
            }
        });
        assert_eq!(server.set.state(), State::NormallyTerminated);
        server.set.close().unwrap();
        assert!(server.agent_ended());
        assert!(opened.iter_mut().all(|device| device.get_command(TEST_TIMEOUT).unwrap_err().is_close()));
        set.close().unwrap();
    }
}

#[test]
fn terms_that_cannot_be_leave_the_set_as_it_was() {
    let bench = Bench::new();
    let (_set, server) = connected(&bench, &config(1));
    for bad in [
        ServerTerms { block_size: 513, ..terms() },
        ServerTerms { block_size: 131_072, ..terms() },
        ServerTerms { max_transfer_size: 65537, ..terms() },
        ServerTerms { max_transfer_size: 8 << 20, ..terms() },
        ServerTerms { alignment: 3, ..terms() },
    ] {
        let error = server.begin_configuration(&bad, TEST_TIMEOUT).unwrap_err();
        assert_eq!(error.code, VdError::Invalid, "{error}");
        assert_eq!(server.state(), State::Connected);
    }
    server.begin_configuration(&terms(), TEST_TIMEOUT).unwrap();
    assert_eq!(server.begin_configuration(&terms(), TEST_TIMEOUT).unwrap_err().code, VdError::Protocol);
}

#[test]
fn a_client_that_answers_nothing_for_two_intervals_is_aborted() {
    let bench = Bench::new();
    let (set, server) = connected(&bench, &VdConfig { server_time_out: 20, ..config(1) });
    server.begin_configuration(&terms(), TEST_TIMEOUT).unwrap();
    server.request_buffers(BUFFER, 0, 4).unwrap();
    server.end_configuration().unwrap();
    let devices = vec![server.open_device("nightly").unwrap()];
    let mut server = Server::run(server, devices);
    set.get_configuration(TEST_TIMEOUT).unwrap();
    let mut device = set.open_device("nightly").unwrap();
    // Nothing is pending, so nothing expires, however long it takes.
    assert_eq!(device.get_command(Duration::from_millis(120)).unwrap_err().code(), VdError::Timeout);
    let sent = Instant::now();
    server.read(0);
    let held = device.get_command(TEST_TIMEOUT).unwrap();
    let end = device.get_command(INFINITE).unwrap_err();
    assert_eq!(end.code(), VdError::Abort);
    assert!(end.to_string().contains("the server waited longer than serverTimeOut allows"), "{end}");
    assert!(sent.elapsed() > Duration::from_millis(40), "not before two intervals have passed");
    assert!(sent.elapsed() < Duration::from_secs(10), "{:?}", sent.elapsed());
    assert!(!server.agent_ended());
    assert_eq!(server.completed(), (CompletionCode::OPERATION_ABORTED, 0));
    drop(held);
}

#[test]
fn completions_keep_the_time_out_away() {
    let bench = Bench::new();
    let (set, server) = connected(&bench, &VdConfig { server_time_out: 1000, ..config(1) });
    server.begin_configuration(&terms(), TEST_TIMEOUT).unwrap();
    server.request_buffers(BUFFER, 0, 4).unwrap();
    server.end_configuration().unwrap();
    let devices = vec![server.open_device("nightly").unwrap()];
    let server = Server::run(server, devices);
    set.get_configuration(TEST_TIMEOUT).unwrap();
    let mut device = set.open_device("nightly").unwrap();
    // One command is held all the time; the others come and go.
    server.read(0);
    let held = device.get_command(TEST_TIMEOUT).unwrap();
    let until = Instant::now() + Duration::from_millis(2400);
    while Instant::now() < until {
        server.read(0);
        device.get_command(TEST_TIMEOUT).unwrap().complete(Completion::transferred(BUFFER as usize)).unwrap();
        drop(server.ended());
    }
    held.complete(Completion::transferred(BUFFER as usize)).unwrap();
    assert_eq!(server.completed(), (CompletionCode::SUCCESS, BUFFER));
}

/// The agent reads the clock when no more completions are there. All that were processed before count from that moment.
#[test]
fn a_burst_of_completions_counts_until_its_end_and_no_longer() {
    const INTERVAL: Duration = Duration::from_millis(500);
    let aborted_after_a_burst = |commands: u32, at_once: bool, routine_takes: Duration| {
        let bench = Bench::new();
        let (set, server) = connected(&bench, &VdConfig { server_time_out: INTERVAL.as_millis() as u32, ..config(1) });
        server.begin_configuration(&terms(), TEST_TIMEOUT).unwrap();
        server.request_buffers(BUFFER, 0, 1).unwrap();
        server.end_configuration().unwrap();
        let devices = vec![server.open_device("nightly").unwrap()];
        let mut server = Server::run(server, devices);
        let routine = Arc::clone(&server.routine);
        server.routine = Arc::new(move |completed: Completed| {
            std::thread::sleep(routine_takes);
            routine.completed(completed);
        });
        set.get_configuration(TEST_TIMEOUT).unwrap();
        let mut device = set.open_device("nightly").unwrap();
        // One command is held all the time, and the agent knows it: it has looked at the clock before it sleeps.
        server.read(0);
        let held = device.get_command(TEST_TIMEOUT).unwrap();
        server.plain(0, CommandCode::FLUSH);
        device.get_command(TEST_TIMEOUT).unwrap().complete(Completion::done()).unwrap();
        assert_eq!(server.completed(), (CompletionCode::SUCCESS, 0));
        server.agent_sleeps();
        let mut last = Instant::now();
        if at_once {
            (0..commands).for_each(|_| server.plain(0, CommandCode::FLUSH));
        }
        for _ in 0..commands {
            if !at_once {
                server.plain(0, CommandCode::FLUSH);
            }
            last = Instant::now();
            device.get_command(TEST_TIMEOUT).unwrap().complete(Completion::done()).unwrap();
            if !at_once {
                assert_eq!(server.completed(), (CompletionCode::SUCCESS, 0));
            }
        }
        if at_once {
            for _ in 0..commands {
                last = Instant::now();
                assert_eq!(server.completed(), (CompletionCode::SUCCESS, 0), "after {:?}", last.elapsed());
            }
        }
        let end = device.get_command(TEST_TIMEOUT).unwrap_err();
        let quiet = last.elapsed();
        assert_eq!(end.code(), VdError::Abort, "{end}");
        assert!(end.to_string().contains("the server waited longer than serverTimeOut allows"), "{end}");
        assert!(quiet > 2 * INTERVAL, "{commands} commands: aborted after {quiet:?}");
        assert!(quiet < 25 * INTERVAL, "{commands} commands: aborted only after {quiet:?}");
        assert!(!server.agent_ended());
        drop(held);
    };
    aborted_after_a_burst(40, false, Duration::ZERO);
    aborted_after_a_burst(150, false, Duration::ZERO);
    // Longer than two intervals altogether.
    aborted_after_a_burst(20, true, INTERVAL / 8);
}

#[test]
fn the_completion_agent_runs_once_and_ends_with_the_set() {
    let bench = Bench::new();
    let (_set, mut server, mut device) = pair(&bench);
    server.read(0);
    device.get_command(TEST_TIMEOUT).unwrap().complete(Completion::transferred(BUFFER as usize)).unwrap();
    // By now it runs for sure.
    server.completed();
    assert_eq!(server.set.execute_completion_agent().unwrap_err().code, VdError::Protocol);
    server.devices[0].close_device().unwrap();
    server.set.close().unwrap();
    assert!(server.agent_ended());
    assert_eq!(server.set.close().unwrap_err().code, VdError::Protocol);
    assert_eq!(server.set.state(), State::DoesNotExist);
}

#[test]
fn device_names_are_unique_and_not_more_than_devices() {
    let bench = Bench::new();
    let (set, server) = connected(&bench, &config(2));
    server.begin_configuration(&terms(), TEST_TIMEOUT).unwrap();
    assert_eq!(server.open_device("nightly").unwrap_err().code, VdError::Protocol);
    server.end_configuration().unwrap();
    let first = server.open_device("nightly").unwrap();
    for name in ["nightly", "", "a\\b"] {
        assert!(matches!(server.open_device(name).unwrap_err().code, VdError::Invalid | VdError::Protocol), "{name:?}");
    }
    let second = server.open_device("dev1").unwrap();
    assert_eq!(server.open_device("dev2").unwrap_err().code, VdError::Open);
    assert_eq!((first.index(), second.index()), (0, 1));
    drop(set);
}

#[test]
fn an_abort_of_the_server_ends_everything_that_is_outstanding() {
    let bench = Bench::new();
    let (_set, mut server, mut device) = pair(&bench);
    for _ in 0..3 {
        server.read(0);
    }
    let held = device.get_command(TEST_TIMEOUT).unwrap();
    server.set.signal_abort().unwrap();
    assert!(!server.agent_ended());
    for _ in 0..3 {
        assert_eq!(server.completed(), (CompletionCode::OPERATION_ABORTED, 0));
    }
    assert_eq!(held.complete(Completion::transferred(1)).unwrap_err().error.code(), VdError::Abort);
    assert_eq!(device.get_command(INFINITE).unwrap_err().code(), VdError::Abort, "nothing more is delivered");
    let refused = server.devices[0].send_command(VdsCommand::plain(CommandCode::FLUSH, Arc::clone(&server.routine)));
    assert_eq!(refused.unwrap_err().code, VdError::Abort);
    assert_eq!(server.completed(), (CompletionCode::OPERATION_ABORTED, 0));
    assert_eq!(server.set.allocate_buffer(512, 0).unwrap_err().code, VdError::Abort);
    server.set.close().unwrap();
}

#[test]
fn an_abort_before_the_completion_agent_runs_ends_everything_that_is_outstanding() {
    let bench = Bench::new();
    let (set, server) = connected(&bench, &config(1));
    server.begin_configuration(&terms(), TEST_TIMEOUT).unwrap();
    server.end_configuration().unwrap();
    let device = server.open_device("nightly").unwrap();
    let (tell, ended) = std::sync::mpsc::sync_channel(1);
    let routine = Arc::new(move |completed: Completed| {
        let _ = tell.send(completed.code);
    });
    device.send_command(VdsCommand::plain(CommandCode::FLUSH, routine)).unwrap();
    set.signal_abort().unwrap();
    let error = server.execute_completion_agent().unwrap_err();
    assert_eq!(error.code, VdError::Protocol);
    assert!(error.to_string().contains("the primary client called SignalAbort"), "{error}");
    assert_eq!(ended.recv_timeout(TEST_TIMEOUT).unwrap(), CompletionCode::OPERATION_ABORTED);
}
