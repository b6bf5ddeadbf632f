//! What one process holds of its set's buffers, and where it knows them to be.
//!
//! # Invariants
//!
//! 1. Known places do not overlap, prefix zones included. A place becomes known, or is forgotten, under the lock of `extents`
//!    and under the slot's claim, or while a lease is still looking for its buffer ([`Holder::Finding`]); so whoever has the lock
//!    sees all of them, and whoever holds a slot sees its own. A lease that looks is in none of them: the place that was known
//!    before may be another's by now, and whoever finds it there forgets it.
//! 2. Whoever has the lock may claim slots, and whoever has a claim takes no lock.
//! 3. A guess says which slot an address may belong to. It is only ever a guess: the slot has the last word.

use core::ptr::NonNull;
use core::sync::atomic::{AtomicU16, Ordering};
use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use vdi_proto::handle::BufferHandle;
use vdi_proto::layout::{Place, RawPlace};

#[cfg(doc)]
use crate::holding::Holder;
use crate::holding::{Claim, Holding};

/// The known places, prefix zones included, by area and first byte: the end, and the slot.
pub(super) type Extents = BTreeMap<(u32, u64), (u64, u32)>;

/// Guesses for each slot: with more, fewer addresses share one.
const GUESSES: usize = 4;

/// What this process holds and knows.
pub(super) struct Held {
    slots: Box<[Holding]>,
    /// A slot each, by the hash of its buffer's address.
    guesses: Box<[AtomicU16]>,
    extents: Mutex<Extents>,
    prefix: u64,
}

impl Held {
    pub(super) fn new(slots: usize, prefix: u32) -> Held {
        Held {
            slots: (0..slots).map(|_| Holding::new()).collect(),
            guesses: (0..(slots.max(1) * GUESSES).next_power_of_two()).map(|_| AtomicU16::new(0)).collect(),
            extents: Mutex::default(),
            prefix: u64::from(prefix),
        }
    }

    /// The slot; `None` for one that the set does not have.
    #[inline]
    pub(super) fn slot(&self, slot: u32) -> Option<&Holding> {
        self.slots.get(slot as usize)
    }

    /// Claims a slot; `None` where somebody holds it, or it is none.
    #[inline]
    pub(super) fn claim(&self, slot: u32) -> Option<Claim<'_>> {
        self.slot(slot)?.claim()
    }

    pub(super) fn extents(&self) -> MutexGuard<'_, Extents> {
        // Nothing panics between two changes that belong together.
        self.extents.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The handle of the command's buffer that starts at this address, if the guess is right.
    #[inline]
    pub(super) fn guess(&self, address: *const u8) -> Option<BufferHandle> {
        let slot = u32::from(self.guess_of(address)?.load(Ordering::Relaxed));
        self.slot(slot)?.command_at(address)
    }

    /// The handle of the command's buffer that starts at this address, which is this place's.
    #[cold]
    pub(super) fn command_at(&self, address: *const u8, area: u32, offset: u64) -> Option<BufferHandle> {
        let begin = offset.checked_sub(self.prefix)?;
        let extents = self.extents();
        let (_, slot) = *extents.get(&(area, begin))?;
        let handle = self.slot(slot)?.command_at(address)?;
        // Another buffer's start has the same hash, and was the last one.
        self.remember(address, slot);
        Some(handle)
    }

    #[inline]
    fn guess_of(&self, address: *const u8) -> Option<&AtomicU16> {
        // By the golden ratio, which spreads addresses at equal distances evenly, in the upper bits: as many as there are guesses.
        let spread = (address as usize as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        self.guesses.get((spread >> (u64::BITS - self.guesses.len().trailing_zeros())) as usize)
    }

    fn remember(&self, address: *const u8, slot: u32) {
        if let Some(guess) = self.guess_of(address) {
            // A set has at most 4096 slots.
            guess.store(slot as u16, Ordering::Relaxed);
        }
    }

    /// Area, first byte, and the one after the last.
    fn extent(&self, place: RawPlace) -> (u32, u64, u64) {
        // The place was judged to have its prefix zone before the data start.
        (place.area, place.offset - self.prefix, place.offset + u64::from(place.len))
    }

    /// The place of a slot is known no more. The caller has its claim, or its lease.
    pub(super) fn forget(&self, extents: &mut Extents, holding: &Holding) {
        if let Some(place) = holding.place() {
            let (area, begin, _) = self.extent(place);
            extents.remove(&(area, begin));
            holding.forget();
        }
    }

    /// Takes note of a slot's place, where it starts here. Places that overlap it are forgotten; the slot that is held in one of
    /// them is an error. The caller has the slot's claim, or its lease.
    pub(super) fn learn(&self, extents: &mut Extents, slot: u32, place: Place, start: NonNull<u8>) -> Result<(), u32> {
        let Some(holding) = self.slot(slot) else { return Ok(()) };
        self.forget(extents, holding);
        let (area, begin, end) = self.extent(place.to_raw());
        // Known places do not overlap, so the last one that begins before this one ends reaches furthest.
        while let Some((_, (taken, by))) = extents.range((area, 0)..(area, end)).next_back() {
            let (taken, by) = (*taken, *by);
            if taken <= begin {
                break;
            }
            match self.claim(by) {
                Some(claim) => self.forget(extents, &claim),
                None => match self.slot(by).filter(|other| other.is_finding()) {
                    Some(other) => self.forget(extents, other),
                    None => return Err(by),
                },
            }
        }
        extents.insert((area, begin), (end, slot));
        holding.learn(place.to_raw(), start);
        if holding.is_finding() {
            holding.found();
        }
        self.remember(start.as_ptr(), slot);
        Ok(())
    }
}
