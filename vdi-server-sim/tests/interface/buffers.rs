//! The buffers of a set: requested, allocated, lent, and what an end does to them.

use crate::common;

use super::server_interface::{connected, terms};

use common::TEST_TIMEOUT;
use common::bench::Bench;
use common::client::config;
use common::processes::{RoleContext, run_role};
use common::server::{BUFFER, Server, pair};
use vdi_client::{BufferHandle, ClientVirtualDeviceSet, CommandCode, Completion, CompletionCode, VdConfig, VdError};
use vdi_proto::set::server::State;

#[test]
fn child_entry() {
    run_role(&[("peeker", mapper)]);
}

/// A secondary that maps the handles that it is told, says their first byte, and lets go.
fn mapper(stage: &RoleContext) {
    let set = ClientVirtualDeviceSet::new();
    set.open_in_secondary("nightly").unwrap();
    stage.say("joined");
    while let Some(number) = stage.next_order() {
        let handle = BufferHandle::from_number(number.parse().unwrap());
        let byte = set.map_buffer_handle(handle).map(|buffer| buffer.data()[0]);
        stage.say(&byte.map_or_else(|error| error.to_string(), |byte| byte.to_string()));
    }
}

#[test]
fn buffers_are_had_returned_and_told_apart() {
    let bench = Bench::new();
    let (set, server) = connected(&bench, &config(1));
    server.begin_configuration(&terms(), TEST_TIMEOUT).unwrap();
    server.request_buffers(65536, 0, 3).unwrap();
    server.request_buffers(512, 0, 2).unwrap();
    assert_eq!(server.query_available_buffers(65536, 0).unwrap(), 0, "nothing before EndConfiguration");
    assert_eq!(server.allocate_buffer(512, 0).unwrap_err().code, VdError::Protocol);
    server.end_configuration().unwrap();
    assert!(server.query_available_buffers(65536, 0).unwrap() >= 3);
    let mut buffers: Vec<_> = (0..3).map(|_| server.allocate_buffer(65536, 0).unwrap()).collect();
    let small = server.allocate_buffer(512, 0).unwrap();
    for buffer in &buffers {
        assert!(server.is_shared_buffer(buffer.address().as_ptr()).unwrap());
    }
    let private = 0u8;
    assert!(!server.is_shared_buffer(&raw const private).unwrap());
    // All the rest of the area.
    while let Ok(buffer) = server.allocate_buffer(65536, 0) {
        buffers.push(buffer);
    }
    assert_eq!(server.allocate_buffer(65536, 0).unwrap_err().code, VdError::Memory);
    assert_eq!(server.query_available_buffers(65536, 0).unwrap(), 0);
    server.free_buffer(buffers.pop().unwrap()).unwrap();
    assert_eq!(server.query_available_buffers(65536, 0).unwrap(), 1);
    let again = server.allocate_buffer(65536, 0).unwrap();
    for (size, alignment) in [(0, 0), (512, 3), (512, 1 << 17), (512, 1 << 31)] {
        assert_eq!(server.allocate_buffer(size, alignment).unwrap_err().code, VdError::Invalid);
        assert_eq!(server.request_buffers(size, alignment, 1).unwrap_err().code, VdError::Invalid);
    }
    // A buffer of another set is not this one's to free.
    let other_set = bench.create("other", &config(1));
    let other = Server::open(&bench, "other", 1);
    assert_eq!(server.free_buffer(other.set.allocate_buffer(512, 0).unwrap()).unwrap_err().code, VdError::Invalid);
    drop((small, again, buffers, other, other_set));
    server.close().unwrap();
    drop(set);
}

/// After an abort the engine got buffers back that the client could still use.
#[test]
fn a_buffer_of_an_aborted_command_does_not_come_back() {
    let bench = Bench::new();
    let (_set, mut server, mut device) = pair(&bench);
    server.read(0);
    server.read(0);
    let held = device.get_command(TEST_TIMEOUT).unwrap();
    server.set.signal_abort().unwrap();
    assert!(!server.agent_ended());
    for _ in 0..2 {
        let ended = server.ended();
        assert_eq!(ended.code, CompletionCode::OPERATION_ABORTED);
        assert!(ended.buffer.is_none(), "the client may still use it");
    }
    drop(held);
}

#[test]
fn buffers_of_a_closed_device_are_not_lent_again() {
    let bench = Bench::new();
    let set = bench.create("nightly", &config(2));
    let server = Server::open(&bench, "nightly", 2);
    set.get_configuration(TEST_TIMEOUT).unwrap();
    let mut device = set.open_device("nightly").unwrap();
    server.read(0);
    server.read(0);
    let held = device.get_command(TEST_TIMEOUT).unwrap();
    server.devices[0].close_device().unwrap();
    for _ in 0..2 {
        let ended = server.ended();
        assert_eq!(ended.code, CompletionCode::OPERATION_ABORTED);
        assert!(ended.buffer.is_none(), "the client may still use it");
    }
    assert_eq!(server.set.query_available_buffers(BUFFER, 0).unwrap(), 2, "of four");
    let _others = [(); 2].map(|()| server.set.allocate_buffer(BUFFER, 0).unwrap());
    assert_eq!(server.set.allocate_buffer(BUFFER, 0).unwrap_err().code, VdError::Memory);
    drop(held);
}

#[test]
fn data_starts_are_aligned_behind_the_client_s_prefix() {
    let bench = Bench::new();
    let asked = VdConfig { prefix_zone_size: 100, alignment: 8192, ..config(1) };
    let (set, server) = connected(&bench, &asked);
    server.begin_configuration(&terms(), TEST_TIMEOUT).unwrap();
    server.request_buffers(BUFFER, 0, 3).unwrap();
    let negotiated = server.end_configuration().unwrap();
    assert_eq!((negotiated.prefix_zone_size, negotiated.alignment), (100, 8192));
    let devices = vec![server.open_device("nightly").unwrap()];
    let server = Server::run(server, devices);
    set.get_configuration(TEST_TIMEOUT).unwrap();
    let mut device = set.open_device("nightly").unwrap();
    let first = server.set.allocate_buffer(BUFFER, 0).unwrap();
    let start = first.address().as_ptr() as usize;
    server.transfer(0, CommandCode::READ, first);
    for _ in 1..3 {
        server.read(0);
    }
    let mut held: Vec<_> = (0..3).map(|_| device.get_command(TEST_TIMEOUT).unwrap()).collect();
    let starts: Vec<_> = held.iter().map(|command| command.buffer_address().unwrap() as usize).collect();
    // Offsets within the area are aligned for every process; the area itself begins where the system maps it.
    assert!(starts.iter().all(|at| (at - starts[0]) % 8192 == 0), "{starts:x?}");
    assert!(starts.iter().all(|at| at % 4096 == start % 4096), "{starts:x?}");
    for (byte, command) in (1..).zip(&mut held) {
        assert_eq!(command.prefix_mut().len(), 100);
        command.prefix_mut().fill(byte);
        command.data_mut().fill(!byte);
    }
    // Neither zone reaches into another's.
    for (byte, command) in (1u8..).zip(&mut held) {
        assert!(command.prefix_mut().iter().all(|found| *found == byte));
        assert!(command.data().iter().all(|found| *found == !byte));
        assert_eq!(command.data().len(), BUFFER as usize, "the prefix does not count");
    }
}

#[test]
fn too_much_memory_is_refused_and_less_may_be_asked_for() {
    let bench = Bench::new();
    let (set, server) = connected(&bench, &config(1));
    server.begin_configuration(&terms(), TEST_TIMEOUT).unwrap();
    for (size, count) in [(u32::MAX, 2), (65536, 1 << 17), (512, 1 << 14)] {
        server.request_buffers(size, 0, count).unwrap();
        let error = server.end_configuration().unwrap_err();
        assert_eq!(error.code, VdError::Memory, "{error}");
        assert_eq!(server.state(), State::Configurable);
    }
    server.request_buffers(65536, 0, 2).unwrap();
    server.end_configuration().unwrap();
    assert_eq!(set.get_configuration(TEST_TIMEOUT).unwrap().max_transfer_size, 65536);
    assert_eq!(server.query_available_buffers(65536, 0).unwrap(), 2);
}

/// Once, a request of many gigabytes that came after the configuration was granted, and took all of the system's memory.
#[test]
fn a_late_request_beyond_what_a_set_can_have_is_refused() {
    let bench = Bench::new();
    let (_set, server, _device) = pair(&bench);
    for (size, count) in [(u32::MAX, 1), (u32::MAX, 4), (1 << 20, 4096)] {
        let before = server.set.query_available_buffers(BUFFER, 0).unwrap();
        let error = server.set.request_buffers(size, 0, count).unwrap_err();
        assert_eq!(error.code, VdError::Memory, "{error}");
        assert!(error.to_string().contains("buffer space"), "{error}");
        assert_eq!(server.set.query_available_buffers(BUFFER, 0).unwrap(), before, "a refusal takes nothing");
    }
    server.set.request_buffers(BUFFER, 0, 2).unwrap();
}

#[test]
fn an_area_added_later_reaches_secondaries_that_are_there_already() {
    let bench = Bench::new();
    let (_set, server, mut device) = pair(&bench);
    let mut part = bench.part("peeker", &[]);
    part.expect("joined");
    let first: Vec<_> = (0..4).map(|_| server.set.allocate_buffer(BUFFER, 0).unwrap()).collect();
    assert_eq!(server.set.allocate_buffer(BUFFER, 0).unwrap_err().code, VdError::Memory);
    server.set.request_buffers(BUFFER, 0, 2).unwrap();
    assert_eq!(server.set.query_available_buffers(BUFFER, 0).unwrap(), 2);
    for byte in [61, 62] {
        let mut buffer = server.set.allocate_buffer(BUFFER, 0).unwrap();
        assert!(server.set.is_shared_buffer(buffer.address().as_ptr()).unwrap());
        buffer.data_mut().fill(byte);
        server.transfer(0, CommandCode::READ, buffer);
        let command = device.get_command(TEST_TIMEOUT).unwrap();
        assert!(command.data().iter().all(|found| *found == byte));
        assert_eq!(part.ask(&command.buffer_handle().unwrap().number().to_string()), byte.to_string());
        command.complete(Completion::transferred(BUFFER as usize)).unwrap();
        drop(server.ended());
    }
    // One that joins now has it from the beginning.
    let late = bench.part("peeker", &[]);
    late.expect("joined");
    late.end();
    part.end();
    drop(first);
}
