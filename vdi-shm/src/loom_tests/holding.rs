//! Holdings: who in a process has a slot, and where its buffer is.

use core::ptr::NonNull;

use vdi_proto::command::Loan;
use vdi_proto::handle::BufferHandle;
use vdi_proto::layout::RawPlace;

use super::*;
use crate::holding::{Holder, Holding};
use crate::slots::Slot;

fn handle(number: u32) -> BufferHandle {
    BufferHandle::from_number(number)
}

#[test]
fn loom_holding_has_one_holder_at_a_time() {
    check("holding", None, 20, || {
        let shared = Arc::new((Holding::new(), Byte::default()));
        let other = Arc::clone(&shared);
        let work = |(holding, byte): &(Holding, Byte), number| {
            let Some(claim) = holding.claim() else { return false };
            claim.hold(Holder::Command(handle(number)));
            byte.write(1);
            holding.free();
            true
        };
        let other = thread::spawn(move || work(&other, 1));
        let here = work(&shared, 2);
        assert!(other.join().expect("the other") || here, "each was refused for the other");
        assert!(shared.0.claim().is_some(), "it is free again");
    });
}

#[test]
fn loom_holding_of_a_lease_ends_with_it() {
    check("holding, the lease gone", None, 10, || {
        let slot = Arc::new(Slot::new());
        slot.lend(1);
        slot.lease(Loan { slot: 0, generation: 1 }, 2).expect("it is lent");
        let holding = Arc::new(Holding::new());
        holding.claim().expect("nobody has it").hold(Holder::Finding(handle(1)));
        assert!(holding.is_finding());
        holding.found();
        assert_eq!(holding.handle(), handle(1), "what was found is of the same loan");
        let (lessee, leased) = (Arc::clone(&holding), Arc::clone(&slot));
        let lessee = thread::spawn(move || lessee.free_lease(|| leased.release(2)));
        // Whoever sees the lease gone may lend the slot to this process again.
        if slot.take_back(1).is_ok() {
            assert!(holding.claim().is_some(), "the lease is gone, and holds the slot still");
        }
        lessee.join().expect("the lessee");
    });
}

#[test]
fn loom_holding_of_a_lease_is_followed_by_another() {
    check("holding, mapped again", None, 5, || {
        let loan = Loan { slot: 0, generation: 1 };
        let slot = Arc::new(Slot::new());
        slot.lend(loan.generation);
        slot.lease(loan, 2).expect("it is lent");
        let holding = Arc::new(Holding::new());
        holding.claim().expect("nobody has it").hold(Holder::Lease(handle(1)));
        let (lessee, leased) = (Arc::clone(&holding), Arc::clone(&slot));
        let lessee = thread::spawn(move || lessee.free_lease(|| leased.release(2)));
        let again = holding.claim().map(|claim| {
            slot.lease(loan, 2).expect("it is lent");
            claim.hold(Holder::Lease(handle(1)));
        });
        lessee.join().expect("the lessee");
        assert_eq!(slot.is_leased_by(2), again.is_some(), "the end of a lease took the next one away");
    });
}

#[test]
fn loom_holding_found_by_its_address_is_the_commands() {
    check("holding, by address", None, 1500, || {
        let mut bytes = [0u8; 2];
        let [first, second] = bytes.each_mut().map(|byte| NonNull::from(byte).as_ptr() as usize);
        let place = |offset| RawPlace { area: 0, len: 1, offset };
        let start = |address: usize| NonNull::new(address as *mut u8).expect("an address");
        let holding = Arc::new(Holding::new());
        let claim = holding.claim().expect("nobody has it");
        claim.learn(place(0), start(first));
        claim.hold(Holder::Command(handle(1)));
        let holder = Arc::clone(&holding);
        let holder = thread::spawn(move || {
            holder.free();
            let claim = holder.claim().expect("nobody else claims it");
            claim.learn(place(1), start(second));
            claim.hold(Holder::Command(handle(2)));
        });
        let at_second = holding.command_at(second as *const u8);
        let at_first = holding.command_at(first as *const u8);
        assert!([None, Some(handle(1))].contains(&at_first), "{at_first:?} was never there");
        assert!([None, Some(handle(2))].contains(&at_second), "{at_second:?} was never there");
        holder.join().expect("the holder");
        assert_eq!(holding.command_at(second as *const u8), Some(handle(2)));
        assert_eq!((holding.place(), holding.start_of(place(1))), (Some(place(1)), Some(start(second))));
        holding.forget();
        assert_eq!((holding.place(), holding.start_of(place(1))), (None, None));
    });
}
