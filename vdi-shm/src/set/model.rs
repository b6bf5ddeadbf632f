//! Property test: the buffers of three roles against a model, over many classes.
//!
//! The model is a list of slots with their state, and knows nothing of words, bits or addresses.

use proptest::prelude::*;
use vdi_proto::handle::BufferHandle;
use vdi_proto::index::SlotIndex;
use vdi_proto::set::SetPhase;
use vdi_proto::wire::class::ClassSpec;

use super::buffers::{BufferError, CommandBuffer, Lease};
use super::fixture::{Fixture, PREFIX};
use super::pool::{LentBuffer, ServerBuffer};
use super::slots::ReclaimError;

#[derive(Debug, Clone)]
enum Step {
    AddClass(u32, u32, u32),
    Allocate(u32),
    Free(usize),
    Lend(usize),
    Map(usize),
    MapStale(usize),
    Unmap(usize),
    Reclaim(usize),
    Complete(usize),
    Retire(usize),
}

fn step() -> impl Strategy<Value = Step> {
    let index = 0usize..64;
    prop_oneof![
        1 => (1u32..20_000, 0u32..4, 1u32..4).prop_map(|(len, shift, count)| Step::AddClass(len, 512 << shift, count)),
        4 => (1u32..20_000).prop_map(Step::Allocate),
        2 => index.clone().prop_map(Step::Free),
        4 => index.clone().prop_map(Step::Lend),
        4 => index.clone().prop_map(Step::Map),
        1 => index.clone().prop_map(Step::MapStale),
        2 => index.clone().prop_map(Step::Unmap),
        4 => index.clone().prop_map(Step::Reclaim),
        4 => index.clone().prop_map(Step::Complete),
        1 => index.prop_map(Step::Retire),
    ]
}

/// A buffer on its way, with the byte that it was filled with.
struct Loan {
    lent: LentBuffer,
    /// `None` once the client has reclaimed it.
    command: Option<CommandBuffer>,
    handle: BufferHandle,
    byte: u8,
}

#[derive(Default)]
struct Model {
    /// How many there are.
    slots: usize,
    owned: Vec<ServerBuffer>,
    loans: Vec<Loan>,
    leases: Vec<Lease>,
    retired: Vec<(SlotIndex, Option<CommandBuffer>)>,
    stale: Vec<BufferHandle>,
    next_byte: u8,
}

fn pick<T>(list: &mut Vec<T>, index: usize) -> Option<T> {
    if list.is_empty() { None } else { Some(list.swap_remove(index % list.len())) }
}

fn run(steps: &[Step]) {
    let fixture = Fixture::new();
    let mut model = Model::default();
    for step in steps {
        apply(&fixture, &mut model, step);
        let free = model.slots - model.owned.len() - model.loans.len() - model.retired.len();
        assert_eq!(fixture.server.available(1, 0) as usize, free, "free buffers after {step:?}");
    }
}

fn apply(fixture: &Fixture, model: &mut Model, step: &Step) {
    match *step {
        Step::AddClass(buffer_len, alignment, count) => {
            if fixture.table().iter().count() < 8 {
                fixture.add_class(ClassSpec { buffer_len, alignment, count }).expect("a class");
                model.slots += count as usize;
            }
        }
        Step::Allocate(len) => match fixture.server.allocate(len, 0) {
            Ok(buffer) => {
                assert_eq!(buffer.len(), len as usize);
                model.owned.push(buffer);
            }
            Err(_) => assert_eq!(fixture.server.available(len, 0), 0, "a free buffer fits"),
        },
        Step::Free(index) => drop(pick(&mut model.owned, index)),
        Step::Lend(index) => lend(fixture, model, index),
        Step::Map(index) => map(fixture, model, index),
        Step::MapStale(index) => {
            if let Some(handle) = model.stale.get(index % model.stale.len().max(1)) {
                let error = fixture.secondary.map(SetPhase::Open, *handle).expect_err("a stale handle");
                assert_eq!(error, BufferError::InvalidHandle { handle: *handle });
            }
        }
        Step::Unmap(index) => drop(pick(&mut model.leases, index)),
        Step::Reclaim(index) => reclaim(model, index),
        Step::Complete(index) => {
            if let Some(Loan { lent, command, handle, byte }) = pick(&mut model.loans, index) {
                match command {
                    // The client's completion comes after its reclaim.
                    Some(command) => model.loans.push(Loan { lent, command: Some(command), handle, byte }),
                    None => {
                        let buffer = lent.reclaim().expect("a free slot");
                        assert!(buffer.data().iter().all(|found| *found == byte), "another buffer's bytes");
                        model.owned.push(buffer);
                    }
                }
            }
        }
        Step::Retire(index) => {
            if let Some(Loan { lent, command, handle, .. }) = pick(&mut model.loans, index) {
                model.retired.push((lent.loan().slot, command));
                model.stale.retain(|stale| *stale != handle);
            }
        }
    }
}

fn lend(fixture: &Fixture, model: &mut Model, index: usize) {
    let Some(mut buffer) = pick(&mut model.owned, index) else { return };
    model.next_byte = model.next_byte.wrapping_add(1);
    let (byte, len) = (model.next_byte, buffer.len() as u32);
    buffer.data_mut().fill(byte);
    let lent = buffer.lend();
    let mut command = fixture.primary.take(lent.loan(), len).expect("a loan");
    assert_eq!(command.prefix_mut().len(), PREFIX as usize);
    command.prefix_mut().fill(!byte);
    let handle = fixture.primary.get_handle(SetPhase::Open, command.address().as_ptr()).expect("a command's buffer");
    assert_eq!(handle, command.handle());
    assert!(!model.retired.iter().any(|(slot, _)| *slot == lent.loan().slot), "a retired slot is lent");
    // All buffers that are lent keep their bytes and their prefix zones: none overlaps another.
    for Loan { command, byte, .. } in &mut model.loans {
        if let Some(command) = command {
            assert!(command.data().iter().all(|found| found == byte), "a buffer overlaps another");
            assert!(command.prefix_mut().iter().all(|found| *found == !*byte), "a prefix zone overlaps a buffer");
        }
    }
    model.loans.push(Loan { lent, command: Some(command), handle, byte });
}

fn map(fixture: &Fixture, model: &mut Model, index: usize) {
    let Some(loan) = model.loans.get(index % model.loans.len().max(1)) else { return };
    let handle = loan.handle;
    let leased = model.leases.iter().any(|lease| lease.handle() == handle);
    match fixture.secondary.map(SetPhase::Open, handle) {
        Ok(lease) => {
            assert!(loan.command.is_some() && !leased);
            assert!(lease.data()[..loan_len(loan)].iter().all(|found| *found == loan.byte), "another buffer's bytes");
            model.leases.push(lease);
        }
        Err(BufferError::AlreadyHere { .. }) => assert!(leased),
        Err(error) => {
            assert_eq!(error, BufferError::InvalidHandle { handle });
            assert!(loan.command.is_none(), "VD_E_INVALID for the handle of an outstanding command");
        }
    }
}

fn loan_len(loan: &Loan) -> usize {
    loan.command.as_ref().map_or(0, |command| command.data().len())
}

fn reclaim(model: &mut Model, index: usize) {
    let count = model.loans.len().max(1);
    let Some(loan) = model.loans.get_mut(index % count) else { return };
    let Some(command) = loan.command.take() else { return };
    let leased = model.leases.iter().any(|lease| lease.handle() == loan.handle);
    match command.reclaim() {
        Ok(()) => {
            assert!(!leased, "the command is completed, and its buffer is mapped");
            model.stale.push(loan.handle);
        }
        Err((error, command)) => {
            assert!(leased && matches!(error, ReclaimError::Leased { .. }), "{error}");
            loan.command = Some(command);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn buffers_of_many_classes_keep_to_the_model(steps in prop::collection::vec(step(), 1..120)) {
        run(&steps);
    }
}
