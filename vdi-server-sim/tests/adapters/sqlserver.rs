//! SQL Server's library as a back end of the client, shown on a library of our own that plays a script and records its calls.
//! No SQL Server is needed, and none was there. Programs and whole libraries are in `sqlserver_libraries.rs`.
#![allow(clippy::unwrap_used, missing_docs)]

use crate::common;

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use common::eventually;
use common::recorder::{Played, assert_violation, backup, negotiated, recorder};
use vdi_client::raw::RawDevice;
use vdi_client::{
    BackEnd, BufferHandle, ClientVirtualDeviceSet, CommandCode, Completion, CompletionCode, Error, ErrorKind, INFINITE,
    SqlServer, TimeOutUnit, VdConfig, VdError,
};
use vdi_proto::set::client::State;

// ---- waits

#[test]
fn waits_are_made_of_short_ones() {
    let played = backup("quiet 100000\n");
    let (_set, mut device) = played.open();
    let begun = Instant::now();
    let error = device.get_command(Duration::from_secs(1)).unwrap_err();
    assert_eq!((error.code(), error.kind()), (VdError::Timeout, ErrorKind::NotYet));
    assert!(begun.elapsed() >= Duration::from_secs(1));
    assert!(played.count("GetCommand(100) -> VD_E_TIMEOUT") >= 2 && played.calls().len() < 20, "{:?}", played.calls());
    let error = device.get_command(Duration::ZERO).unwrap_err();
    assert_eq!(error.code(), VdError::Timeout);
    assert_eq!(played.calls().last().unwrap(), "GetCommand(0) -> VD_E_TIMEOUT");
    assert!(device.try_get_command().unwrap().is_none());
    assert_eq!(played.calls().last().unwrap(), "GetCommand(0) -> VD_E_TIMEOUT");
}

#[test]
fn a_library_that_wants_seconds_gets_seconds() {
    let played = backup("quiet 100000\n");
    let vendor = SqlServer { library: Some(recorder().into()), get_command_unit: TimeOutUnit::Seconds };
    let set = ClientVirtualDeviceSet::with_back_end(BackEnd::SqlServer(vendor)).unwrap();
    set.create(played.name(), &VdConfig::default()).unwrap();
    set.get_configuration(INFINITE).unwrap();
    let mut device = set.open_device(played.name()).unwrap();
    let begun = Instant::now();
    assert_eq!(device.get_command(Duration::from_millis(1500)).unwrap_err().code(), VdError::Timeout);
    assert!(begun.elapsed() >= Duration::from_millis(1500));
    assert!(played.count("GetCommand(1) -> VD_E_TIMEOUT") >= 1, "{:?}", played.calls());
    assert_eq!(played.count("GetCommand(100)"), 0);
}

#[test]
fn waits_end_when_this_program_wants() {
    let played = backup("answer GetConfiguration 0x80770003\nquiet 100000\n");
    let set = Played::object();
    set.create(played.name(), &VdConfig::default()).unwrap();
    let canceller = set.canceller().unwrap();
    canceller.cancel();
    let error = set.get_configuration(INFINITE).unwrap_err();
    assert_eq!((error.code(), error.kind()), (VdError::Timeout, ErrorKind::Cancelled), "{error}");
    canceller.resume();
    // The library timed out once, and that was not the end.
    set.get_configuration(INFINITE).unwrap();
    assert_eq!(played.count("GetConfiguration"), 2);
    let mut device = set.open_device(played.name()).unwrap();
    std::thread::scope(|scope| {
        let wait = scope.spawn(|| device.get_command(INFINITE));
        eventually("the wait begins", || if played.count("GetCommand(") > 0 { Ok(()) } else { Err("not yet".into()) });
        canceller.cancel();
        let error = wait.join().unwrap().unwrap_err();
        assert_eq!(error.code(), VdError::Timeout);
        assert!(error.to_string().contains("cancelled"), "{error}");
    });
    canceller.resume();
    std::thread::scope(|scope| {
        let begun = played.count("GetCommand(");
        let wait = scope.spawn(|| device.get_command(INFINITE));
        let more = || if played.count("GetCommand(") > begun { Ok(()) } else { Err("not yet".into()) };
        eventually("the wait begins", more);
        set.signal_abort().unwrap();
        assert_eq!(wait.join().unwrap().unwrap_err().code(), VdError::Abort);
    });
    assert_eq!(set.state(), State::Abort);
}

#[test]
fn a_close_ends_the_waits_of_other_threads() {
    let played = backup("quiet 100000\n");
    let (set, mut device) = played.open();
    std::thread::scope(|scope| {
        let wait = scope.spawn(|| device.get_command(INFINITE));
        eventually("the wait begins", || if played.count("GetCommand(") > 0 { Ok(()) } else { Err("not yet".into()) });
        assert_eq!(set.close().unwrap_err().code(), VdError::Open);
        let code = wait.join().unwrap().unwrap_err().code();
        assert!(matches!(code, VdError::Abort | VdError::Protocol), "{code:?}");
    });
    assert_eq!(device.get_command(INFINITE).unwrap_err().code(), VdError::Protocol);
    assert_eq!(played.count("SignalAbort"), 1);
    assert_eq!(played.count("Close"), 1);
}

/// OpenDevice has no time-out in the interface: a close that only waited for it would wait for ever.
#[test]
fn a_close_ends_an_open_device_that_waits_whenever_it_comes() {
    for round in 0..200u32 {
        let played = backup("wait OpenDevice\n");
        let set = Played::object();
        set.create(played.name(), &VdConfig::default()).unwrap();
        set.get_configuration(INFINITE).unwrap();
        let begun = AtomicBool::new(false);
        std::thread::scope(|scope| {
            let open = scope.spawn(|| {
                begun.store(true, Ordering::Release);
                set.open_device(played.name()).map(drop).unwrap_err().code()
            });
            while !begun.load(Ordering::Acquire) {
                std::hint::spin_loop();
            }
            for _ in 0..round * 4 {
                std::hint::spin_loop();
            }
            set.close().unwrap();
            let code = open.join().unwrap();
            assert!(matches!(code, VdError::Abort | VdError::Protocol), "{code:?}");
        });
    }
}

#[test]
fn commands_are_completed_while_another_thread_waits_for_more() {
    let played = backup("write 512 1\nquiet 100000\n");
    let (set, mut device) = played.open();
    let command = device.get_command(INFINITE).unwrap();
    let canceller = set.canceller().unwrap();
    std::thread::scope(|scope| {
        let wait = scope.spawn(|| device.get_command(INFINITE));
        eventually(
            "the wait begins",
            || if played.count("GetCommand(1)") > 1 { Ok(()) } else { Err("not yet".into()) },
        );
        command.complete(Completion::transferred(512)).unwrap();
        eventually(
            "nothing is held",
            || if played.count("GetCommand(100)") > 0 { Ok(()) } else { Err("not yet".into()) },
        );
        canceller.cancel();
        assert_eq!(wait.join().unwrap().unwrap_err().code(), VdError::Timeout);
    });
    assert_eq!(device.outstanding(), 0);
}

// ---- answers

#[test]
fn every_code_is_told_with_its_name() {
    for code in VdError::ALL {
        let played = Played::new(&format!("answer Create {:#x}\n", code.hresult()));
        let error = Played::object().create(played.name(), &VdConfig::default()).unwrap_err();
        assert_eq!((error.code(), error.call(), error.set()), (code, "Create", played.name()));
        // What was not created is not closed.
        assert_eq!(played.calls()[1..], ["destroyed"]);
    }
}

#[test]
fn codes_without_a_name_are_kept() {
    for (code, told) in
        [("0x80070005", "E_ACCESSDENIED"), ("1", "0x00000001"), ("-1", "0xffffffff"), ("0x80770008", "0x80770008")]
    {
        let played = backup(&format!("code {code}\n"));
        let (_set, mut device) = played.open();
        let error = device.get_command(INFINITE).unwrap_err();
        assert_eq!(
            (error.code(), error.kind(), error.device()),
            (VdError::Unexpected, ErrorKind::System, Some(played.name()))
        );
        assert!(error.to_string().contains(told), "{error}");
    }
}

#[test]
fn nulls_and_wrong_sizes_are_violations() {
    for (script, evidence) in [
        ("block 0\n", "GetCommand gave no command"),
        ("buffer 0 512\n", "a buffer of 512 bytes at 0x0"),
        ("buffer -1 512\n", "a buffer of 512 bytes at 0x"),
        ("write 65537 1\n", "65537 bytes of at most 65536"),
        ("buffer 0x1000 -1\n", "-1 bytes of at most 65536"),
    ] {
        let played = backup(script);
        let (set, mut device) = played.open();
        assert_violation(&device.get_command(INFINITE).unwrap_err(), evidence);
        assert_eq!(played.count("SignalAbort"), 1, "{script}");
        assert_eq!(set.state(), State::Abort);
        assert_eq!(device.get_command(INFINITE).unwrap_err().code(), VdError::Abort);
        drop(device);
        set.close().unwrap();
        assert_eq!(played.calls().last().unwrap(), "destroyed");
    }
}

#[test]
fn a_buffer_that_is_held_cannot_come_again() {
    let played = backup("write 512 1\nagain 512\n");
    let (_set, mut device) = played.open();
    let first = device.get_command(INFINITE).unwrap();
    assert_violation(&device.get_command(INFINITE).unwrap_err(), "already");
    assert_eq!(first.data(), [1; 512]);
    drop(first);
    // After its completion it may.
    let played = backup("write 512 1\nagain 512\n");
    let (_set, mut device) = played.open();
    for _ in 0..2 {
        let command = device.get_command(INFINITE).unwrap();
        assert_eq!(command.data(), [1; 512]);
        command.complete(Completion::transferred(512)).unwrap();
    }
    assert!(device.get_command(INFINITE).unwrap_err().is_close());
}

/// A library that maps the memory of a set once gives two set objects of a process the same bytes: they are one command's.
#[test]
fn a_buffer_that_another_set_of_this_process_holds_cannot_come() {
    let bytes = Box::leak(Box::new([7u8; 512]));
    let script = format!("buffer {:#x} 512\n", bytes.as_ptr().addr());
    let (one, another) = (backup(&script), backup(&script));
    let (_set, mut device) = one.open();
    let (_other_set, mut other_device) = another.open();
    let command = device.get_command(INFINITE).unwrap();
    assert_violation(&other_device.get_command(INFINITE).unwrap_err(), "already");
    assert_eq!(command.data(), [7; 512]);
    command.complete(Completion::transferred(512)).unwrap();
    // Once it is free, it is anybody's.
    let again = backup(&script);
    let (_set, mut device) = again.open();
    device.get_command(INFINITE).unwrap().complete(Completion::transferred(512)).unwrap();
}

#[test]
fn a_command_that_is_refused_as_a_violation_is_not_outstanding() {
    let played = backup("answer CompleteCommand 0x80770006\nbuffer 0 512\n");
    let (_set, mut device) = played.open();
    assert_violation(&device.get_command(INFINITE).unwrap_err(), "a buffer of 512 bytes at 0x0");
    assert_eq!((played.count("CompleteCommand"), device.outstanding()), (1, 0));
}

#[test]
fn configurations_that_cannot_be_are_violations() {
    for (fields, field) in [
        ("1 65536 99999999 512 0 0 0 512 4 65536 262144", "prefixZoneSize"),
        ("1 65536 0 512 0 0 0 512 4 0 0", "maxTransferSize"),
    ] {
        let played = Played::new(&format!("config {fields}\n"));
        let set = Played::object();
        set.create(played.name(), &VdConfig::default()).unwrap();
        assert_violation(&set.get_configuration(INFINITE).unwrap_err(), field);
    }
}

// ---- commands

#[test]
fn prefix_zones_lie_right_before_the_data() {
    let played = Played::new(&(negotiated(0x2_0000, 32) + "read 512\n"));
    let (set, mut device) = played.open();
    let mut command = device.get_command(INFINITE).unwrap();
    assert_eq!(command.prefix_mut(), [0xee; 32]);
    command.prefix_mut().fill(2);
    command.data_mut().fill(3);
    assert_eq!(command.data(), [3; 512]);
    command.complete(Completion::transferred(512)).unwrap();
    assert_eq!(
        played.calls().last().unwrap(),
        "CompleteCommand of 1: code 0, 512 bytes, position 0, sum 1536, prefix 64"
    );
    assert!(device.get_command(INFINITE).unwrap_err().is_close());
    assert!(device.get_command(INFINITE).unwrap_err().is_close());
    assert_eq!(set.state(), State::NormallyTerminated);
    set.close().unwrap();
    assert_eq!(set.state(), State::DoesNotExist);
    assert_eq!(played.count("SignalAbort"), 0);
}

#[test]
fn sizes_and_positions_come_as_they_are() {
    let played = backup("command 6 -3 0\ncommand 10 2 -4096\ncommand 9 0 0\ncommand 77 1 2\n");
    let (_set, mut device) = played.open();
    let command = device.get_command(INFINITE).unwrap();
    assert_eq!((command.code(), command.size(), command.data().len()), (CommandCode::SKIP_MARKS, -3, 0));
    command.complete(Completion::failed(CompletionCode::FILEMARK_DETECTED)).unwrap();
    let command = device.get_command(INFINITE).unwrap();
    assert_eq!((command.code(), command.position().cast_signed()), (CommandCode::SET_POSITION, -4096));
    command.complete(Completion::at(1 << 40)).unwrap();
    assert!(played.calls().last().unwrap().contains("position 1099511627776"));
    assert!(played.count("CompleteCommand of 6: code 1101, 0 bytes") == 1);
    let command = device.get_command(INFINITE).unwrap();
    assert!(command.buffer_address().is_none() && command.buffer_handle().unwrap_err().code() == VdError::Invalid);
    // More bytes than it has: refused before the library hears of it.
    let refused = command.complete(Completion::transferred(1)).unwrap_err();
    assert_eq!(refused.error.code(), VdError::Invalid);
    refused.command.unwrap().complete(Completion::at(0)).unwrap();
    let command = device.get_command(INFINITE).unwrap();
    assert_eq!((command.code().number(), command.size(), command.position()), (77, 1, 2));
    command.complete(Completion::failed(CompletionCode::NOT_SUPPORTED)).unwrap();
    assert_eq!(played.count("CompleteCommand"), 4);
}

#[test]
fn what_is_dropped_ends_as_on_the_own_back_end() {
    let played = backup("write 512 1\nwrite 512 2\n");
    let (set, mut device) = played.open();
    drop(device.get_command(INFINITE).unwrap());
    assert!(played.calls().last().unwrap().starts_with("CompleteCommand of 2: code 995, 0 bytes"));
    assert_eq!(played.count("SignalAbort"), 0);
    drop(device);
    assert_eq!(played.count("SignalAbort"), 1);
    drop(set);
    assert_eq!(played.calls()[played.calls().len() - 2..], ["Close, 1 outstanding", "destroyed"]);
    // A device that the server had closed, although nobody asked any more, is no reason to abort.
    let played = backup("");
    let (set, device) = played.open();
    drop(device);
    assert_eq!(played.count("SignalAbort"), 0);
    set.close().unwrap();
}

#[test]
fn a_refused_completion_gives_the_command_back_where_it_is_outstanding() {
    let played = backup("answer CompleteCommand 0x8077000f\nwrite 512 1\n");
    let (_set, mut device) = played.open();
    let refused = device.get_command(INFINITE).unwrap().complete(Completion::transferred(512)).unwrap_err();
    assert_eq!((refused.error.code(), device.outstanding()), (VdError::Busy, 1));
    let command = refused.command.unwrap();
    assert_eq!(command.data(), [1; 512]);
    command.complete(Completion::transferred(512)).unwrap();
    assert_eq!(device.outstanding(), 0);
    // No command stays unanswered: where even its failure is refused, the set is aborted.
    let played = backup("answer CompleteCommand 0x80770006\nanswer CompleteCommand 0x80770006\nwrite 512 1\n");
    let (_set, mut device) = played.open();
    drop(device.get_command(INFINITE).unwrap().complete(Completion::transferred(512)).unwrap_err());
    assert_eq!((played.count("CompleteCommand"), played.count("SignalAbort")), (2, 1));
}

#[test]
fn buffers_outlive_the_close_and_the_library_is_told_after_them() {
    let played = backup("write 512 1\nread 512\ncommand 12 0 0\n");
    let (set, mut device) = played.open();
    let first = device.get_command(INFINITE).unwrap();
    let mut second = device.get_command(INFINITE).unwrap();
    let flush = device.get_command(INFINITE).unwrap();
    assert_eq!(set.close().unwrap_err().code(), VdError::Open);
    assert_eq!((played.count("SignalAbort"), played.count("Close")), (1, 0));
    second.data_mut().fill(7);
    assert_eq!((first.data(), second.data()), (&[1; 512][..], &[7; 512][..]));
    assert_eq!(first.complete(Completion::transferred(512)).unwrap_err().error.code(), VdError::Protocol);
    assert_eq!(played.count("Close"), 0);
    drop(second);
    assert_eq!(played.count("Close"), 1);
    drop((flush, device));
    assert_eq!(played.count("CompleteCommand"), 0);
    assert_eq!(played.count("destroyed"), 1);
    // The object is good for another set.
    let again = backup("");
    set.create(again.name(), &VdConfig::default()).unwrap();
    set.close().unwrap();
    assert_eq!(again.calls().len(), 3);
}

#[test]
fn blocks_of_numbers_work_too() {
    let played = backup("write 512 1\n");
    let (_set, device) = played.open();
    let device = RawDevice::new(device);
    let command = device.get_command(INFINITE).unwrap();
    assert_eq!((device.name(), command.size), (played.name(), 512));
    device.complete_command(command.id, CompletionCode::SUCCESS, 512, 0).unwrap();
    let twice = device.complete_command(command.id, CompletionCode::SUCCESS, 512, 0);
    assert_eq!(twice.unwrap_err().code(), VdError::Invalid);
    assert!(device.get_command(INFINITE).unwrap_err().is_close());
}

// ---- handles, secondaries, names

#[test]
fn buffers_pass_by_their_handles() {
    let played = backup("write 512 1\n");
    let (set, mut device) = played.open();
    let command = device.get_command(INFINITE).unwrap();
    let handle = set.get_buffer_handle(command.buffer_address().unwrap()).unwrap();
    assert_eq!((handle.number(), command.buffer_handle().unwrap()), (4711, handle));
    assert_eq!(set.get_buffer_handle(&raw const handle as *const u8).unwrap_err().code(), VdError::Invalid);
    assert_eq!(played.count("GetBufferHandle of the last buffer"), 2);
    assert_eq!(played.count("GetBufferHandle of something else"), 0);

    let map = |number, bytes| set.map_buffer_handle_sized(BufferHandle::from_number(number), bytes);
    assert_eq!(map(4711, 512).unwrap_err().code(), VdError::Busy);
    let mut mapped = map(7000, 1000).unwrap();
    assert_eq!(mapped.data(), [0x5a; 1000]);
    mapped.data_mut().fill(1);
    assert_eq!(mapped.address().as_ptr().cast_const(), mapped.data().as_ptr());
    assert_eq!(map(1, 512).unwrap_err().code(), VdError::Invalid);
    assert_eq!(map(7000, 65537).unwrap_err().code(), VdError::Invalid);
    // The library does not tell how long a buffer is, and nobody guesses.
    let error = set.map_buffer_handle(BufferHandle::from_number(7000)).unwrap_err();
    assert_eq!(error.code(), VdError::NotSupported);
    assert!(error.to_string().contains("map_buffer_handle_sized"), "{error}");
    command.complete(Completion::transferred(512)).unwrap();
    assert!(device.get_command(INFINITE).unwrap_err().is_close());
    set.close().unwrap();
    assert_eq!(played.count("Close"), 0, "a buffer is still mapped");
    assert_eq!(mapped.data(), [1; 1000]);
    drop(mapped);
    assert_eq!(played.count("Close"), 1);

    let played = backup("");
    let (set, _device) = played.open();
    let error = set.map_buffer_handle_sized(BufferHandle::from_number(7001), 512).unwrap_err();
    assert_violation(&error, "MapBufferHandle gave no address");
}

#[test]
fn secondaries_join_by_the_library() {
    let played = backup("write 512 1\n");
    let set = Played::object();
    set.open_in_secondary(played.name()).unwrap();
    assert_eq!(set.state(), State::Initializing);
    // A secondary need not ask for the configuration first.
    let mut device = set.open_device("dev1").unwrap();
    assert_eq!(device.config().max_transfer_size, 65536);
    device.get_command(INFINITE).unwrap().complete(Completion::transferred(512)).unwrap();
    assert!(device.get_command(INFINITE).unwrap_err().is_close());
    set.close().unwrap();
    assert_eq!(played.calls()[..3], ["OpenInSecondary", "GetConfiguration", "OpenDevice dev1"]);
}

#[test]
fn names_and_order_are_checked_before_the_library_hears_of_them() {
    let set = Played::object();
    let played = backup("");
    let config = VdConfig::default();
    let code = |result: Result<(), Error>| result.unwrap_err().code();
    assert_eq!(set.state(), State::DoesNotExist);
    assert_eq!(code(set.create_ex(Some("SQL2"), played.name(), &config)), VdError::InstanceName);
    assert_eq!(code(set.open_in_secondary_ex(Some("SQL2"), played.name())), VdError::InstanceName);
    assert_eq!(code(set.create("", &config)), VdError::Invalid);
    assert_eq!(code(set.create("a\\b", &config)), VdError::Invalid);
    assert_eq!(code(set.create("a\0b", &config)), VdError::Invalid);
    assert_eq!(code(set.close()), VdError::Protocol);
    assert_eq!(code(set.signal_abort()), VdError::Protocol);
    assert_eq!(code(set.open_device("x").map(drop)), VdError::Protocol);
    assert_eq!(played.calls(), [""; 0]);
    set.create_ex(Some(""), played.name(), &config).unwrap();
    assert_eq!(set.state(), State::Configurable);
    assert_eq!(code(set.create("another", &config)), VdError::Protocol);
    assert_eq!(code(set.open_device("x").map(drop)), VdError::Protocol);
    set.get_configuration(INFINITE).unwrap();
    assert_eq!(code(set.open_device("a\\b").map(drop)), VdError::Invalid);
    let device = set.open_device("x").unwrap();
    let elsewhere = Played::open(&backup("write 512 1\n"));
    let mut other = elsewhere.1;
    let refused =
        device.complete_command(other.get_command(INFINITE).unwrap(), Completion::transferred(512)).unwrap_err();
    assert_eq!(refused.error.code(), VdError::Invalid);
    refused.command.unwrap().complete(Completion::transferred(512)).unwrap();
}
