//! Buffer handles across real processes: the set's primary and its server are this process, secondaries are others.

use crate::common;

use common::TEST_TIMEOUT;
use common::bench::Bench;
use common::client::config;
use common::processes::{Part, RoleContext, run_role};
use common::server::{BUFFER, Server, pair};
use vdi_client::{BufferHandle, ClientVirtualDeviceSet, Command, Completion, CompletionCode, VdError};

#[test]
fn child_entry() {
    run_role(&[("mapper", mapper)]);
}

/// A secondary that does with handles what it is told: `map H`, `check B`, `fill B`, `drop`, `close`.
fn mapper(stage: &RoleContext) {
    let set = ClientVirtualDeviceSet::new();
    set.open_in_secondary("nightly").unwrap();
    stage.say("joined");
    let mut mapped = None;
    while let Some(order) = stage.next_order() {
        let (order, argument) = order.split_once(' ').unwrap_or((&order, ""));
        let answer = match order {
            "map" => match set.map_buffer_handle(BufferHandle::from_number(argument.parse().unwrap())) {
                Ok(buffer) => {
                    let answer = format!("mapped {} {}", buffer.data().len(), buffer.address().as_ptr() as usize);
                    mapped = Some(buffer);
                    answer
                }
                Err(error) => format!("{:?} {error}", error.code()),
            },
            "check" => {
                let byte: u8 = argument.parse().unwrap();
                format!("{}", mapped.as_ref().unwrap().data().iter().all(|found| *found == byte))
            }
            "fill" => {
                mapped.as_mut().unwrap().data_mut().fill(argument.parse().unwrap());
                "filled".to_owned()
            }
            "drop" => {
                mapped = None;
                "dropped".to_owned()
            }
            "close" => format!("{:?}", set.close().map_err(|error| error.code())),
            _ => panic!("{order}"),
        };
        stage.say(&answer);
    }
}

fn mapping(bench: &Bench) -> Part {
    let part = bench.part("mapper", &[]);
    part.expect("joined");
    part
}

#[track_caller]
fn map(part: &mut Part, handle: BufferHandle) -> usize {
    let answer = part.ask(&format!("map {}", handle.number()));
    let words: Vec<_> = answer.split(' ').collect();
    assert_eq!((words[0], words[1]), ("mapped", &*BUFFER.to_string()), "{answer}");
    words[2].parse().unwrap()
}

#[track_caller]
fn assert_unmappable(part: &mut Part, handle: BufferHandle, code: VdError) {
    let answer = part.ask(&format!("map {}", handle.number()));
    assert!(answer.starts_with(&format!("{code:?} ")), "{answer}");
}

#[test]
fn a_secondary_sees_and_fills_the_very_buffer_of_a_command() {
    let bench = Bench::new();
    let (set, server, mut device) = pair(&bench);
    let mut part = mapping(&bench);
    server.read(0);
    let mut command = device.get_command(TEST_TIMEOUT).unwrap();
    let handle = command.buffer_handle().unwrap();
    assert_eq!(set.get_buffer_handle(command.buffer_address().unwrap()).unwrap(), handle);
    command.data_mut().fill(17);
    map(&mut part, handle);
    assert_eq!(part.ask("check 17"), "true");
    assert_eq!(part.ask("fill 34"), "filled");
    assert!(command.data().iter().all(|byte| *byte == 34), "the secondary's bytes are the primary's");
    assert_eq!(part.ask("drop"), "dropped");
    command.complete(Completion::transferred(BUFFER as usize)).unwrap();
    let ended = server.ended();
    assert_eq!(ended.code, CompletionCode::SUCCESS);
    assert!(ended.buffer.unwrap().data().iter().all(|byte| *byte == 34), "and the server's");
    part.end();
}

#[test]
fn the_primary_maps_at_its_address_and_the_secondary_at_its_own() {
    let bench = Bench::new();
    let (_set, server, mut device) = pair(&bench);
    let mut parts = [mapping(&bench), mapping(&bench)];
    server.read(0);
    let command = device.get_command(TEST_TIMEOUT).unwrap();
    let handle = command.buffer_handle().unwrap();
    for part in &mut parts {
        // Whether the addresses are the same is chance; the handle is, always.
        assert_ne!(map(part, handle), 0);
    }
    assert_eq!(parts[0].ask("fill 99"), "filled");
    assert_eq!(parts[1].ask("check 99"), "true");
    drop(parts);
}

#[test]
fn only_data_starts_of_commands_that_are_held_have_handles() {
    let bench = Bench::new();
    let (set, server, mut device) = pair(&bench);
    server.read(0);
    let command = device.get_command(TEST_TIMEOUT).unwrap();
    let address = command.buffer_address().unwrap();
    let on_the_stack = 0u8;
    for wrong in [core::ptr::null(), address.wrapping_add(1), address.wrapping_sub(1), &raw const on_the_stack] {
        assert_eq!(set.get_buffer_handle(wrong).unwrap_err().code(), VdError::Invalid);
    }
    server.plain(0, vdi_client::CommandCode::FLUSH);
    let flush = device.get_command(TEST_TIMEOUT).unwrap();
    assert_eq!(flush.buffer_handle().unwrap_err().code(), VdError::Invalid);
    flush.complete(Completion::done()).unwrap();
    command.complete(Completion::transferred(0)).unwrap();
    assert_eq!(set.get_buffer_handle(address).unwrap_err().code(), VdError::Invalid, "the command is completed");
}

#[test]
fn a_handle_dies_with_its_command_also_when_the_memory_is_lent_again() {
    let bench = Bench::new();
    let (_set, server, mut device) = pair(&bench);
    let mut part = mapping(&bench);
    let mut last: Option<(*const u8, BufferHandle)> = None;
    for _ in 0..3 {
        server.read(0);
        let command = device.get_command(TEST_TIMEOUT).unwrap();
        let (address, handle) = (command.buffer_address().unwrap(), command.buffer_handle().unwrap());
        if let Some((earlier, stale)) = last.replace((address, handle)) {
            assert_eq!(earlier, address, "the memory is the same again");
            assert_unmappable(&mut part, stale, VdError::Invalid);
        }
        map(&mut part, handle);
        assert_eq!(part.ask("drop"), "dropped");
        command.complete(Completion::transferred(BUFFER as usize)).unwrap();
        drop(server.ended());
        assert_unmappable(&mut part, handle, VdError::Invalid);
    }
    part.end();
}

#[test]
fn forged_handles_and_those_of_another_set_are_invalid() {
    let bench = Bench::new();
    let (_set, server, mut device) = pair(&bench);
    let other = bench.create("other", &config(1));
    let other_server = Server::open(&bench, "other", 1);
    other.get_configuration(TEST_TIMEOUT).unwrap();
    let mut other_device = other.open_device("other").unwrap();
    let mut part = mapping(&bench);
    server.read(0);
    other_server.read(0);
    let command = device.get_command(TEST_TIMEOUT).unwrap();
    let foreign = other_device.get_command(TEST_TIMEOUT).unwrap();
    let good = command.buffer_handle().unwrap();
    assert_unmappable(&mut part, foreign.buffer_handle().unwrap(), VdError::Invalid);
    for bit in 0..32 {
        assert_unmappable(&mut part, BufferHandle::from_number(good.number() ^ 1 << bit), VdError::Invalid);
    }
    for number in [0, 1, u32::MAX] {
        assert_unmappable(&mut part, BufferHandle::from_number(number), VdError::Invalid);
    }
    map(&mut part, good);
    drop(part);
}

#[test]
fn the_holder_s_own_process_has_the_buffer_already() {
    let bench = Bench::new();
    let (set, server, mut device) = pair(&bench);
    server.read(0);
    let command = device.get_command(TEST_TIMEOUT).unwrap();
    let error = set.map_buffer_handle(command.buffer_handle().unwrap()).unwrap_err();
    assert_eq!(error.code(), VdError::Busy, "{error}");
    // So has a secondary that mapped it.
    let mut part = mapping(&bench);
    map(&mut part, command.buffer_handle().unwrap());
    assert_unmappable(&mut part, command.buffer_handle().unwrap(), VdError::Busy);
    assert_eq!(part.ask("drop"), "dropped");
    map(&mut part, command.buffer_handle().unwrap());
    drop(part);
}

/// A completion that is refused because a secondary has the buffer mapped; the command comes back.
#[track_caller]
fn refused_as_busy(command: Command) -> Command {
    let refused = command.complete(Completion::transferred(BUFFER as usize)).unwrap_err();
    assert_eq!(refused.error.code(), VdError::Busy, "{refused}");
    assert!(refused.to_string().contains("let them drop it, then complete the command again"), "{refused}");
    refused.command.expect("the command comes back")
}

#[test]
fn a_command_is_not_completed_while_its_buffer_is_mapped_elsewhere() {
    let bench = Bench::new();
    let (_set, server, mut device) = pair(&bench);
    let mut parts = [mapping(&bench), mapping(&bench)];
    server.read(0);
    let mut command = device.get_command(TEST_TIMEOUT).unwrap();
    for part in &mut parts {
        map(part, command.buffer_handle().unwrap());
    }
    for part in &mut parts {
        command = refused_as_busy(command);
        assert!(server.completions.try_recv().is_err());
        assert_eq!(part.ask("drop"), "dropped");
    }
    command.complete(Completion::transferred(BUFFER as usize)).unwrap();
    assert_eq!(server.completed(), (CompletionCode::SUCCESS, BUFFER));
    parts.into_iter().for_each(Part::end);
}

#[test]
fn a_secondary_that_leaves_gives_its_leases_up() {
    let bench = Bench::new();
    let (_set, server, mut device) = pair(&bench);
    let mut part = mapping(&bench);
    server.read(0);
    let command = device.get_command(TEST_TIMEOUT).unwrap();
    map(&mut part, command.buffer_handle().unwrap());
    // Closing does not take the buffer away from who still has it.
    assert_eq!(part.ask("close"), "Ok(())");
    let command = refused_as_busy(command);
    assert_eq!(part.ask("fill 5"), "filled");
    assert_eq!(part.ask("drop"), "dropped");
    assert!(command.data().iter().all(|byte| *byte == 5));
    command.complete(Completion::transferred(BUFFER as usize)).unwrap();
    assert_eq!(server.completed(), (CompletionCode::SUCCESS, BUFFER));
    part.end();
}

#[test]
fn a_secondary_that_is_killed_holds_no_lease_and_aborts_the_set() {
    let bench = Bench::new();
    let (set, server, mut device) = pair(&bench);
    let mut part = mapping(&bench);
    server.read(0);
    let command = device.get_command(TEST_TIMEOUT).unwrap();
    map(&mut part, command.buffer_handle().unwrap());
    let command = refused_as_busy(command);
    part.process.kill();
    let end = device.get_command(TEST_TIMEOUT).unwrap_err();
    assert_eq!(end.code(), VdError::Abort, "{end}");
    assert!(end.to_string().contains("secondary client") && end.to_string().contains(" died"), "{end}");
    let refused = command.complete(Completion::transferred(BUFFER as usize)).unwrap_err();
    assert_eq!(refused.error.code(), VdError::Abort, "{refused}");
    assert_eq!(server.completed(), (CompletionCode::OPERATION_ABORTED, 0));
    set.close().unwrap();
}

#[test]
fn handles_of_a_set_that_is_not_open_any_more_are_out_of_turn() {
    let bench = Bench::new();
    let (set, server, mut device) = pair(&bench);
    let mut part = mapping(&bench);
    server.read(0);
    let command = device.get_command(TEST_TIMEOUT).unwrap();
    let handle = command.buffer_handle().unwrap();
    set.signal_abort().unwrap();
    assert_unmappable(&mut part, handle, VdError::Protocol);
    assert_eq!(command.buffer_handle().unwrap_err().code(), VdError::Protocol);
    assert_eq!(set.get_buffer_handle(command.buffer_address().unwrap()).unwrap_err().code(), VdError::Protocol);
    assert_eq!(set.map_buffer_handle(handle).unwrap_err().code(), VdError::Protocol);
    part.ask("close");
    assert_unmappable(&mut part, handle, VdError::Protocol);
    part.end();
}

#[test]
fn a_mapped_buffer_outlives_an_abort() {
    let bench = Bench::new();
    let (set, server, mut device) = pair(&bench);
    let mut part = mapping(&bench);
    server.read(0);
    let command = device.get_command(TEST_TIMEOUT).unwrap();
    map(&mut part, command.buffer_handle().unwrap());
    set.signal_abort().unwrap();
    drop((command, device, server));
    set.close().unwrap();
    assert_eq!(part.ask("fill 8"), "filled");
    assert_eq!(part.ask("check 8"), "true");
    part.end();
}

/// CloseDevice ends the commands that the client still has, and their handles with them, while the set lives on.
#[test]
fn the_handle_of_a_command_of_a_closed_device_is_invalid() {
    let bench = Bench::new();
    let set = bench.create("nightly", &config(2));
    let server = Server::open(&bench, "nightly", 2);
    set.get_configuration(TEST_TIMEOUT).unwrap();
    let [mut first, _second] = ["nightly", "nightly/1"].map(|name| set.open_device(name).unwrap());
    let mut mapper = mapping(&bench);
    server.write(0, 7);
    let command = first.get_command(TEST_TIMEOUT).unwrap();
    let handle = command.buffer_handle().unwrap();
    map(&mut mapper, handle);
    assert_eq!(mapper.ask("drop"), "dropped");
    server.devices[0].close_device().unwrap();
    assert_eq!(server.completed().0, CompletionCode::OPERATION_ABORTED);
    assert_eq!(first.get_command(TEST_TIMEOUT).unwrap_err().code(), VdError::Close);
    let refused: vdi_client::Error = command.complete(Completion::transferred(BUFFER as usize)).unwrap_err().into();
    assert_eq!(refused.code(), VdError::Protocol);
    assert_unmappable(&mut mapper, handle, VdError::Invalid);
}
