//! What one process holds of its set's buffers, and where it knows them to be.

use core::any::Any;
use std::collections::BTreeMap;
use std::sync::Arc;

use vdi_proto::layout::Place;

/// How this process holds a slot.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Holder {
    Nobody,
    /// A command of this process has it, in this generation.
    Command(u32),
    /// By a handle.
    Lease,
}

/// A slot, as this process knows it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Entry {
    pub(super) holder: Holder,
    /// Where its buffer was when it was last held: judged, and apart from all other known places. A buffer that comes again
    /// is in the same place, which costs one comparison then.
    pub(super) known: Option<Place>,
}

/// What keeps this process a member.
pub(super) type Membership = Arc<dyn Any + Send + Sync>;

/// What this process holds and knows.
pub(super) struct Held {
    pub(super) slots: Box<[Entry]>,
    /// The known places, prefix zones included, by area and first byte: the end, and the slot. They do not overlap.
    pub(super) extents: BTreeMap<(u32, u64), (u64, u32)>,
    prefix: u64,
    /// How many slots are held by a lease.
    leases: usize,
    /// There while there are leases, once for all of them; never in the primary.
    membership: Option<Membership>,
}

impl Held {
    pub(super) fn new(slots: usize, prefix: u32) -> Held {
        let nothing = Entry { holder: Holder::Nobody, known: None };
        Held {
            slots: vec![nothing; slots].into_boxed_slice(),
            extents: BTreeMap::new(),
            prefix: u64::from(prefix),
            leases: 0,
            membership: None,
        }
    }

    /// The slot, if nobody holds it.
    pub(super) fn free(&mut self, slot: u32) -> Option<&mut Entry> {
        self.slots.get_mut(slot as usize).filter(|entry| entry.holder == Holder::Nobody)
    }

    /// Whether there is no lease, so that the next one has to bring the membership.
    pub(super) fn is_leaseless(&self) -> bool {
        self.leases == 0
    }

    /// A slot that nobody held is held by a lease now; the first one brings the membership.
    pub(super) fn lease_begun(&mut self, membership: Option<Membership>) {
        self.leases += 1;
        if membership.is_some() {
            self.membership = membership;
        }
    }

    /// A slot that was held by a lease is free. After the last one the membership is returned: it must not be dropped under
    /// the lock.
    pub(super) fn lease_ended(&mut self, slot: u32) -> Option<Membership> {
        if let Some(entry) = self.slots.get_mut(slot as usize) {
            entry.holder = Holder::Nobody;
        }
        self.leases -= 1;
        if self.leases == 0 { self.membership.take() } else { None }
    }

    /// Area, first byte, and the one after the last.
    fn extent(&self, place: Place) -> (u32, u64, u64) {
        // The place was judged to have its prefix zone before the data start.
        (place.area(), place.offset() - self.prefix, place.offset() + u64::from(place.len()))
    }

    pub(super) fn forget(&mut self, slot: u32) {
        if let Some(place) = self.slots.get_mut(slot as usize).and_then(|entry| entry.known.take()) {
            let (area, begin, _) = self.extent(place);
            self.extents.remove(&(area, begin));
        }
    }

    /// Takes note of a slot's place. Places that overlap it are forgotten; the slot that is held in one of them is an error.
    pub(super) fn learn(&mut self, slot: u32, place: Place) -> Result<(), u32> {
        self.forget(slot);
        let (area, begin, end) = self.extent(place);
        // Known places do not overlap, so the last one that begins before this one ends reaches furthest.
        while let Some((_, (taken, by))) = self.extents.range((area, 0)..(area, end)).next_back() {
            let (taken, by) = (*taken, *by);
            if taken <= begin {
                break;
            }
            if self.free(by).is_none() {
                return Err(by);
            }
            self.forget(by);
        }
        self.extents.insert((area, begin), (end, slot));
        if let Some(entry) = self.slots.get_mut(slot as usize) {
            entry.known = Some(place);
        }
        Ok(())
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    /// The first of several leases brings the membership, the last one takes it away, whichever that is; and so again.
    #[test]
    fn the_membership_stays_for_the_last_lease() {
        let mut held = Held::new(4, 0);
        for order in [[0, 1, 2], [2, 0, 1]] {
            assert!(held.is_leaseless());
            let membership: Membership = Arc::new(());
            let member = Arc::downgrade(&membership);
            held.lease_begun(Some(membership));
            held.lease_begun(None);
            held.lease_begun(None);
            for (ended, slot) in order.into_iter().enumerate() {
                assert!(!held.is_leaseless() && member.upgrade().is_some(), "after {ended} of 3");
                let left = held.lease_ended(slot);
                assert_eq!(left.is_some(), ended == 2, "after {} of 3", ended + 1);
            }
            assert!(member.upgrade().is_none(), "nothing else holds it");
        }
    }
}
