//! The handle pair, without processes: three roles in one.

use core::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Instant;

use proptest::prelude::*;
use vdi_proto::abort::{AbortReason, Cause, Process};
use vdi_proto::handle::SlotState;
use vdi_proto::wire::layout::{self, slot_word};

use super::*;
use crate::set::fixture::{Fixture, SECRET};
use crate::set::pool::LentBuffer;

/// A buffer that is lent, and the command buffer of it in the primary.
fn lent(fixture: &Fixture, len: u32) -> (LentBuffer, CommandBuffer) {
    let lent = fixture.server.allocate(len, 0).expect("a free buffer").lend();
    let command = fixture.primary.take(lent.loan(), len).expect("a loan");
    (lent, command)
}

fn busy(result: Result<(), (ReclaimError, CommandBuffer)>) -> CommandBuffer {
    match result {
        Err((ReclaimError::Leased { .. }, command)) => command,
        other => panic!("{other:?}"),
    }
}

/// Writes the word of slot 0 as another process could.
fn overwrite(fixture: &Fixture, word: u64) {
    let offset = layout::slots_offset(1) + layout::SLOT_WORD_OFFSET;
    assert_eq!(rustix::io::pwrite(fixture.segment.fd(), &word.to_ne_bytes(), offset), Ok(8));
}

#[test]
fn two_roles_work_on_the_same_bytes() {
    let fixture = Fixture::with_class(4096, 2);
    let mut buffer = fixture.server.allocate(4096, 0).expect("a free buffer");
    buffer.data_mut().fill(1);
    let lent = buffer.lend();
    let mut command = fixture.primary.take(lent.loan(), 4096).expect("a loan");
    assert!(command.data().iter().all(|byte| *byte == 1));
    command.data_mut()[7] = 2;
    command.prefix_mut().fill(9);
    let handle = fixture.primary.get_handle(SetPhase::Open, command.address().as_ptr()).expect("a buffer");
    let mut mapped = fixture.secondary.map(SetPhase::Open, handle).expect("a good handle");
    assert_ne!(mapped.address(), command.address(), "each role has an address of its own");
    assert_eq!((mapped.data()[7], mapped.prefix_mut()[0]), (2, 9));
    mapped.data_mut()[8] = 3;
    let command = busy(command.reclaim());
    drop(mapped);
    assert_eq!(command.data()[8], 3);
    assert!(command.reclaim().is_ok());
    assert_eq!(lent.reclaim().expect("a free slot").data()[8], 3);
}

#[test]
fn a_handle_dies_with_its_command() {
    let fixture = Fixture::with_class(4096, 1);
    let (lent_first, command) = lent(&fixture, 4096);
    let (handle, address) = (command.handle(), command.address());
    assert!(command.reclaim().is_ok());
    let stale = || {
        let error = fixture.secondary.map(SetPhase::Open, handle).expect_err("a stale handle");
        assert_eq!((error, error.code()), (BufferError::InvalidHandle { handle }, VdError::Invalid));
        assert_eq!(fixture.secondary.map_address(SetPhase::Open, handle), Err(error));
    };
    stale();
    let not_a_buffer = BufferError::NotABuffer { address: address.addr().get() };
    assert_eq!(fixture.primary.get_handle(SetPhase::Open, address.as_ptr()), Err(not_a_buffer));
    // Also when the same memory is lent again.
    drop(lent_first.reclaim().expect("a free slot"));
    let (_lent, command) = lent(&fixture, 4096);
    assert_eq!(command.address(), address);
    assert_ne!(command.handle(), handle);
    stale();
    assert!(fixture.secondary.map(SetPhase::Open, command.handle()).is_ok());
    assert!(command.reclaim().is_ok());
}

#[test]
fn addresses_are_exact_and_the_phase_counts() {
    let fixture = Fixture::with_class(4096, 2);
    let (_lent, command) = lent(&fixture, 4096);
    let start = command.address().as_ptr();
    for wrong in [1isize, 512, -32, 4096].map(|by| start.wrapping_offset(by)).into_iter().chain([core::ptr::null_mut()])
    {
        let expected = BufferError::NotABuffer { address: wrong.addr() };
        assert_eq!(fixture.primary.get_handle(SetPhase::Open, wrong), Err(expected));
        assert_eq!(expected.code(), VdError::Invalid);
    }
    for phase in [SetPhase::Closed, SetPhase::Aborted] {
        assert_eq!(fixture.primary.get_handle(phase, start), Err(BufferError::NotOpen));
        assert_eq!(fixture.secondary.map(phase, command.handle()).expect_err("not open"), BufferError::NotOpen);
        assert_eq!(fixture.secondary.map_address(phase, command.handle()), Err(BufferError::NotOpen));
    }
    assert_eq!(BufferError::NotOpen.code(), VdError::Protocol);
    // A mapped buffer is another process's to name.
    let mapped = fixture.secondary.map(SetPhase::Open, command.handle()).expect("a good handle");
    assert!(fixture.secondary.get_handle(SetPhase::Open, mapped.address().as_ptr()).is_err());
    assert_eq!(fixture.secondary.map_address(SetPhase::Open, command.handle()), Ok(mapped.address()));
}

#[test]
fn a_buffer_has_one_holder_in_a_process() {
    let fixture = Fixture::with_class(4096, 1);
    let (lent, command) = lent(&fixture, 4096);
    let handle = command.handle();
    let twice = fixture.primary.take(lent.loan(), 4096).expect_err("held");
    assert_eq!((twice, twice.code()), (BufferError::LentTwice { slot: lent.loan().slot }, VdError::Abort));
    let own = fixture.primary.map(SetPhase::Open, handle).expect_err("the holder itself");
    assert_eq!((own, own.code()), (BufferError::AlreadyHere { handle }, VdError::Busy));
    let mapped = fixture.secondary.map(SetPhase::Open, handle).expect("a good handle");
    let again = fixture.secondary.map(SetPhase::Open, handle).expect_err("mapped");
    assert_eq!(again, BufferError::AlreadyHere { handle });
    // The refusals changed nothing.
    let command = busy(command.reclaim());
    drop(mapped);
    drop(fixture.secondary.map(SetPhase::Open, handle).expect("free again"));
    assert!(command.reclaim().is_ok());
}

#[test]
fn a_server_that_sends_what_it_did_not_lend_is_found() {
    let fixture = Fixture::with_class(4096, 2);
    let take = |slot: u32, generation: u32, size| {
        let loan = Loan { slot: SlotIndex::new(slot).expect("a slot"), generation: Generation::from_bits(generation) };
        fixture.primary.take(loan, size).expect_err("no loan")
    };
    let loan = fixture.server.allocate(4096, 0).expect("a free buffer").lend().loan();
    assert_eq!(take(loan.slot.get(), 1, 4097), BufferError::TooShort { size: 4097, len: 4096 });
    for (slot, generation) in [(loan.slot.get(), 2), (1, 1), (1, 0), (2, 1), (4095, 1)] {
        let error = take(slot, generation, 4096);
        assert!(matches!(error, BufferError::NotLent { .. }), "slot {slot}: {error}");
        assert_eq!(error.code(), VdError::Abort);
    }
    // GetCommand never waits for a class that has not arrived.
    let begun = Instant::now();
    take(2, 1, 1);
    assert!(begun.elapsed() < RECLAIM_TIMEOUT, "an unknown class was waited for");
}

/// Two serial orders exist for a map and a completion of one command. A completion that is refused every time leaves one: the
/// map succeeds.
#[test]
fn a_valid_handle_maps_beside_refused_completions() {
    let fixture = Fixture::with_class(4096, 1);
    let (_lent, command) = lent(&fixture, 4096);
    let handle = command.handle();
    // A third member has a lease all the time.
    let slot = fixture.control.slot(command.loan.slot);
    let third = MemberIndex::new(3).expect("a member");
    slot.lease(command.loan, third).expect("it is lent");
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let mapper = scope.spawn(|| {
            for map in 0..100_000 {
                drop(
                    fixture.secondary.map(SetPhase::Open, handle).unwrap_or_else(|error| panic!("map {map}: {error}")),
                );
                let address = fixture.secondary.map_address(SetPhase::Open, handle);
                address.unwrap_or_else(|error| panic!("address {map}: {error}"));
            }
            stop.store(true, Ordering::Release);
        });
        let mut command = command;
        while !stop.load(Ordering::Acquire) && !mapper.is_finished() {
            command = busy(command.reclaim());
        }
        mapper.join().expect("every map succeeds");
        slot.release(third);
        assert!(command.reclaim().is_ok());
    });
}

/// The address of a handle is arithmetic: whatever is lent meanwhile, it is that of the handle's slot or none.
#[test]
fn the_address_of_a_handle_is_its_slots_for_ever() {
    let fixture = Fixture::new();
    for (buffer_len, count) in [(512, 3), (65536, 2), (2048, 3)] {
        let spec = vdi_proto::wire::class::ClassSpec { buffer_len, alignment: 512, count };
        fixture.add_class(spec).expect("a class");
    }
    let last = AtomicU64::new(0);
    std::thread::scope(|scope| {
        let mapper = scope.spawn(|| {
            let codec = HandleCodec::new(SECRET);
            loop {
                let word = last.load(Ordering::Acquire);
                if word == u64::MAX {
                    return;
                }
                let handle = BufferHandle::from_number(word as u32);
                let expected = fixture.table().of_slot(codec.decode(handle).slot);
                let expected = expected.and_then(|class| class.address(codec.decode(handle).slot));
                match fixture.secondary.map_address(SetPhase::Open, handle) {
                    Ok(address) => assert_eq!(Some(address), expected, "another buffer's address"),
                    Err(error) => assert_eq!(error, BufferError::InvalidHandle { handle }),
                }
            }
        });
        for round in 0..50_000u32 {
            let len = [512, 1024, 2048, 60_000][round as usize % 4];
            let (lent, command) = lent(&fixture, len);
            last.store(u64::from(command.handle().number()), Ordering::Release);
            assert!(command.reclaim().is_ok());
            drop(lent.reclaim().expect("a free slot"));
        }
        last.store(u64::MAX, Ordering::Release);
        mapper.join().expect("no panic");
    });
}

/// A map may meet a slot that is being reclaimed. It waits for the outcome, but not for ever, and an abort ends the wait.
#[test]
fn a_map_waits_for_the_outcome_of_a_completion() {
    let fixture = Fixture::with_class(512, 1);
    let (_lent, command) = lent(&fixture, 512);
    let handle = command.handle();
    let word = |state| slot_word::encode(state);
    let generation = command.loan.generation;
    overwrite(&fixture, word(SlotState::Reclaiming(generation)));
    // The holder restores the loan.
    std::thread::scope(|scope| {
        let mapping = scope.spawn(|| fixture.secondary.map(SetPhase::Open, handle).map(drop));
        overwrite(&fixture, word(SlotState::Lent(generation)));
        assert_eq!(mapping.join().expect("no panic"), Ok(()));
    });
    // The holder does not go on.
    overwrite(&fixture, word(SlotState::Reclaiming(generation)));
    let stuck = fixture.secondary.map(SetPhase::Open, handle).expect_err("no outcome");
    assert_eq!((stuck, stuck.code()), (BufferError::Reclaiming { handle }, VdError::Busy));
    assert!(!fixture.control.slot(command.loan.slot).is_leased_by(crate::set::fixture::secondary()));
    // Its death aborts the set.
    fixture.control.abort(&AbortReason { process: Process::Primary, cause: Cause::Died }.into());
    let begun = Instant::now();
    assert_eq!(fixture.secondary.map(SetPhase::Open, handle).expect_err("aborted"), BufferError::NotOpen);
    assert!(begun.elapsed() < RECLAIM_TIMEOUT, "an aborted set was waited for");
}

#[test]
fn a_slot_that_was_overwritten_is_a_violation() {
    let fixture = Fixture::with_class(512, 1);
    let (lent, command) = lent(&fixture, 512);
    let generation = command.loan.generation;
    for word in [u64::MAX, 0, slot_word::encode(SlotState::Lent(generation.next()))] {
        overwrite(&fixture, word);
        assert!(fixture.secondary.map(SetPhase::Open, command.handle()).is_err());
    }
    let (error, command) = command.reclaim().expect_err("overwritten");
    let word = slot_word::encode(SlotState::Lent(generation.next()));
    assert_eq!(error, ReclaimError::NotLent { generation, word });
    overwrite(&fixture, slot_word::encode(SlotState::Lent(generation)));
    assert!(command.reclaim().is_ok());
    assert!(lent.reclaim().is_ok());
}

/// One thread maps, and another gets the buffer with the next command: neither meets the trace of the other.
#[test]
fn a_lease_ends_at_once_for_its_own_process() {
    let fixture = Fixture::with_class(512, 1);
    for _ in 0..500 {
        let (lent_first, command) = lent(&fixture, 512);
        let mapped = fixture.secondary.map(SetPhase::Open, command.handle()).expect("a good handle");
        std::thread::scope(|scope| {
            scope.spawn(move || drop(mapped));
            let mut command = command;
            while let Err((error, again)) = command.reclaim() {
                assert!(matches!(error, ReclaimError::Leased { .. }));
                command = again;
            }
            // The server lends it to a device of the process that had it mapped.
            let lent = lent_first.reclaim().expect("a free slot").lend();
            let command = fixture.secondary.take(lent.loan(), 512).expect("no holder is left");
            assert!(command.reclaim().is_ok());
            drop(lent.reclaim().expect("a free slot"));
        });
    }
}

proptest! {
    /// A number that is no handle of a lent buffer maps nothing, and leaves no lease.
    #[test]
    fn forged_handles(numbers in prop::collection::vec(any::<u32>(), 1..50), secret in any::<u64>()) {
        let fixture = Fixture::with_class(512, 1);
        let (_lent, command) = lent(&fixture, 512);
        let foreign = HandleCodec::new(secret).encode(command.loan);
        for handle in numbers.into_iter().map(BufferHandle::from_number).chain([foreign]) {
            if handle != command.handle() {
                let error = fixture.secondary.map(SetPhase::Open, handle).expect_err("a forged handle");
                prop_assert_eq!(error, BufferError::InvalidHandle { handle });
            }
        }
        prop_assert!(command.reclaim().is_ok());
    }
}
