//! Which buffers the commands of a process hold, by the address of their data: looked up without a lock.
//!
//! # Invariants
//!
//! 1. A slot's loan is 0 whenever its address is written. So whoever reads the same loan before and after the address has the
//!    address of that loan.
//! 2. What is found is so. What is not found may be there all the same: hints lead to nearly all slots, and whoever finds
//!    nothing asks the book that is behind the lock (`area/held.rs`).
//! 3. One thread writes at a time: the one that has that lock.

use vdi_proto::command::Loan;

use crate::atomics::{AtomicU32, AtomicU64, Ordering, ordering};

/// In how many places, one after the other, the number of a slot may be.
const WAYS: usize = 4;

/// Places for each slot: so many that few are ever without one.
#[cfg(not(loom))]
const PLACES: usize = 8;
#[cfg(loom)]
const PLACES: usize = WAYS;

/// A hint to no slot.
const NOWHERE: u32 = u32::MAX;

/// A slot, as a command of this process holds it.
#[derive(Debug)]
struct Start {
    /// 0 while no command holds it, else [`HELD`] and the generation.
    loan: AtomicU64,
    /// Of the data, where they were when a command last held it.
    address: AtomicU64,
}

const HELD: u64 = 1 << 32;

/// The slots that commands hold, and the hints that lead to them.
#[derive(Debug)]
pub(crate) struct Starts {
    slots: Box<[Start]>,
    hints: Box<[AtomicU32]>,
}

impl Starts {
    /// For so many slots, which is a power of two.
    pub(crate) fn new(slots: usize) -> Starts {
        let nothing = |_| Start { loan: AtomicU64::new(0), address: AtomicU64::new(0) };
        Starts {
            slots: (0..slots).map(nothing).collect(),
            hints: (0..slots * PLACES).map(|_| AtomicU32::new(NOWHERE)).collect(),
        }
    }

    /// The first place of an address's hints: the halves of a product laid over each other, since the low bits of addresses are
    /// zeros and many of the high ones are the same.
    #[inline]
    fn first(&self, address: u64) -> usize {
        let product = u128::from(address) * 0x9e37_79b9_7f4a_7c15;
        (product as u64 ^ (product >> 64) as u64) as usize & (self.hints.len() - 1)
    }

    /// The places of an address's hints.
    #[inline]
    fn ways(&self, address: u64) -> impl Iterator<Item = (usize, &AtomicU32)> {
        let first = self.first(address);
        (first..first + WAYS).filter_map(|at| {
            let at = at & (self.hints.len() - 1);
            self.hints.get(at).map(|hint| (at, hint))
        })
    }

    /// A command has this loan from now on, with the data at this address. None has the slot yet.
    #[inline]
    pub(crate) fn begin(&self, loan: Loan, address: u64) {
        let Some(start) = self.slots.get(loan.slot as usize) else { return };
        if start.address.load(Ordering::Relaxed) != address {
            // SYNC start.address: pairs with start.find.address, for the end of the loan before.
            start.address.store(address, ordering("start.address", Ordering::Release));
            self.hint(loan.slot, address);
        }
        // SYNC start.loan: pairs with start.find.loan, for the address.
        start.loan.store(HELD | u64::from(loan.generation), ordering("start.loan", Ordering::Release));
    }

    /// No command has the slot any more.
    #[inline]
    pub(crate) fn end(&self, slot: u32) {
        if let Some(start) = self.slots.get(slot as usize) {
            start.loan.store(0, Ordering::Relaxed);
        }
    }

    /// Has a hint lead from the address to the slot: its own, or one that leads nowhere, or another slot's.
    #[cold]
    fn hint(&self, slot: u32, address: u64) {
        let leads = |(at, hint): &(usize, &AtomicU32)| {
            let to = hint.load(Ordering::Relaxed);
            let start = self.slots.get(to as usize).filter(|_| to != slot);
            start.is_some_and(|start| {
                let first = self.first(start.address.load(Ordering::Relaxed));
                at.wrapping_sub(first) & (self.hints.len() - 1) < WAYS
            })
        };
        let way = self.ways(address).find(|way| !leads(way)).or_else(|| self.ways(address).nth(slot as usize % WAYS));
        if let Some((_, hint)) = way {
            hint.store(slot, Ordering::Relaxed);
        }
    }

    /// The loan that a command has whose data start at this address, if a hint leads there.
    #[inline]
    pub(crate) fn find(&self, address: u64) -> Option<Loan> {
        self.ways(address).find_map(|(_, hint)| {
            let slot = hint.load(Ordering::Relaxed);
            let start = self.slots.get(slot as usize)?;
            // SYNC start.find.loan: pairs with start.loan.
            let loan = start.loan.load(ordering("start.find.loan", Ordering::Acquire));
            // SYNC start.find.address: pairs with start.address.
            let found = start.address.load(ordering("start.find.address", Ordering::Acquire));
            let same = start.loan.load(Ordering::Relaxed) == loan;
            (found == address && same && loan & HELD != 0).then_some(Loan { slot, generation: loan as u32 })
        })
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    const SLOTS: u32 = 64;

    /// Buffers of one size in a row, as a server lends them.
    #[test]
    fn nearly_all_buffers_of_a_full_table_are_found() {
        for len in [512, 4096, 65_536 + 512, 1 << 20, 4 << 20] {
            let starts = Starts::new(SLOTS as usize);
            let address = |slot: u32| 0x7f12_3456_7000 + u64::from(slot) * len;
            for slot in 0..SLOTS {
                starts.begin(Loan { slot, generation: slot + 1 }, address(slot));
            }
            let missed = (0..SLOTS).filter(|slot| starts.find(address(*slot)).is_none()).count();
            assert!(missed <= 2, "{missed} of {SLOTS} buffers of {len} bytes are not found");
            for slot in 0..SLOTS {
                let found = starts.find(address(slot));
                assert!(
                    found.is_none_or(|found| found == Loan { slot, generation: slot + 1 }),
                    "buffers of {len} bytes"
                );
                assert_eq!(starts.find(address(slot) + 1), None);
                starts.end(slot);
                assert_eq!(starts.find(address(slot)), None);
            }
        }
    }

    proptest! {
        /// What is found is so, however slots and addresses change, and most of what is so is found.
        #[test]
        fn what_is_found_is_so(
            steps in prop::collection::vec((0..SLOTS, 0u64..40, any::<u32>(), any::<bool>()), 1..300),
        ) {
            let starts = Starts::new(SLOTS as usize);
            let mut held: BTreeMap<u32, (u64, u32)> = BTreeMap::new();
            for (slot, place, generation, begins) in steps {
                let address = (1 + place) << 16;
                let free = !held.contains_key(&slot) && held.values().all(|(taken, _)| *taken != address);
                if begins && free {
                    starts.begin(Loan { slot, generation }, address);
                    held.insert(slot, (address, generation));
                } else {
                    starts.end(slot);
                    held.remove(&slot);
                }
                let mut missed = 0;
                for address in (1..=40).map(|place| place << 16) {
                    let so = held.iter().find(|(_, (taken, _))| *taken == address);
                    let so = so.map(|(slot, (_, generation))| Loan { slot: *slot, generation: *generation });
                    let found = starts.find(address);
                    prop_assert!(found == so || found.is_none(), "{address:#x}: {found:?}, and not {so:?}");
                    missed += usize::from(found != so);
                }
                prop_assert!(missed * 8 <= held.len() + 8, "{missed} of {} are not found", held.len());
            }
        }
    }
}
