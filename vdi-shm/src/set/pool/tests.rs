//! Allocating, lending and reclaiming.

use vdi_proto::wire::class::{ClassError, ClassSpec};

use super::*;
use crate::set::class_table::AddClassError;
use crate::set::fixture::Fixture;

fn spec(buffer_len: u32, alignment: u32, count: u32) -> ClassSpec {
    ClassSpec { buffer_len, alignment, count }
}

#[test]
fn the_smallest_class_that_fits_is_used() {
    let fixture = Fixture::new();
    for class in [spec(65536, 512, 2), spec(512, 512, 1), spec(4096, 4096, 1)] {
        fixture.add_class(class).expect("a class");
    }
    let pool = &fixture.server;
    assert_eq!([1, 512, 513, 4097, 65537].map(|len| pool.available(len, 0)), [4, 4, 3, 2, 0]);
    assert_eq!(pool.available(1, 4096), 1, "an alignment counts");
    let slots = [100, 100, 100, 100].map(|len| pool.allocate(len, 0).expect("a free buffer"));
    assert_eq!(slots.each_ref().map(|buffer| buffer.origin.slot.get()), [2, 3, 0, 1]);
    assert!(slots.iter().all(|buffer| buffer.len() == 100));
    let error = pool.allocate(600, 0).expect_err("all in use");
    assert_eq!((error.fitting, error.requested, error.code()), (3, 4, VdError::Memory));
    drop(slots);
    assert_eq!(pool.available(1, 0), 4);
}

/// One small buffer alive, and buffers of many sizes around it: a class never fragments.
#[test]
fn buffers_of_growing_size_never_run_out() {
    let fixture = Fixture::new();
    fixture.add_class(spec(512, 512, 1)).expect("a class");
    fixture.add_class(spec(1 << 20, 512, 1)).expect("a class");
    let _small = fixture.server.allocate(512, 0).expect("a free buffer");
    for len in (1..=1 << 20).step_by(4096) {
        let buffer = fixture.server.allocate(len, 0).unwrap_or_else(|error| panic!("{len} bytes: {error}"));
        assert_eq!(buffer.len(), len as usize);
    }
}

/// Alignments above 64 KiB are refused.
#[test]
fn alignments_above_64_kib_are_refused_and_others_are_kept() {
    let fixture = Fixture::new();
    for alignment in [0, 3, 65537, 1 << 17, 1 << 31] {
        let refused = fixture.add_class(spec(512, alignment, 1)).expect_err("no alignment");
        let expected = ClassError::Alignment { found: alignment };
        assert!(matches!(&refused, AddClassError::Class(error) if *error == expected), "{refused}");
    }
    for alignment in [1, 512, 4096, 65536] {
        fixture.add_class(spec(1000, alignment, 3)).expect("a class");
        let buffers: Vec<_> =
            (0..3).map(|_| fixture.server.allocate(1000, alignment).expect("a free buffer")).collect();
        for buffer in buffers {
            assert_eq!(buffer.address().addr().get() % alignment as usize, 0);
        }
    }
}

#[test]
fn a_lent_buffer_comes_back_only_when_its_slot_is_free() {
    let fixture = Fixture::with_class(512, 1);
    let pool = &fixture.server;
    let lent = pool.allocate(512, 0).expect("a free buffer").lend();
    assert_eq!(pool.available(512, 0), 0);
    let loan = lent.loan();
    let command = fixture.primary.take(loan, 512).expect("a loan");
    assert!(command.reclaim().is_ok());
    let buffer = lent.reclaim().expect("a free slot");
    let next = buffer.lend();
    assert_eq!(next.loan().generation, loan.generation.next(), "a loan has a generation of its own");
    // A client that completes without having given the buffer up.
    let _held = fixture.primary.take(next.loan(), 512).expect("a loan");
    let error = next.reclaim().expect_err("the client has it");
    assert_eq!(error.found, Some(SlotState::Lent(loan.generation.next())));
    assert_eq!(pool.available(512, 0), 0, "the slot is retired");
}

/// After an abort, and after CloseDevice with outstanding commands, the client may still hold the buffer, so the server
/// neither gets it back nor lends it again.
#[test]
fn a_buffer_that_is_not_reclaimed_is_never_lent_again() {
    let fixture = Fixture::with_class(512, 2);
    let pool = &fixture.server;
    let lent = pool.allocate(512, 0).expect("a free buffer").lend();
    let (slot, command) = (lent.loan().slot, fixture.primary.take(lent.loan(), 512).expect("a loan"));
    drop(lent);
    for _ in 0..10 {
        let buffer = pool.allocate(512, 0).expect("the other buffer");
        assert_ne!(buffer.origin.slot, slot);
        assert!(pool.allocate(512, 0).is_err(), "a retired buffer was allocated");
    }
    // Also when the client gives it up afterwards.
    assert!(command.reclaim().is_ok());
    assert_eq!(pool.available(512, 0), 1);
}

#[test]
fn shared_addresses() {
    let fixture = Fixture::with_class(512, 1);
    let buffer = fixture.server.allocate(512, 0).expect("a free buffer");
    let private = 0u8;
    assert!(fixture.server.is_shared(buffer.address().as_ptr()));
    assert!(!fixture.server.is_shared(&raw const private));
    assert!(buffer.is_of(&fixture.server));
    assert!(!buffer.is_of(&Fixture::with_class(512, 1).server));
}
