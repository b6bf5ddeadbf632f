//! The server's allocator: buffers with a prefix zone and an aligned data start, out of the set's buffer areas.
//!
//! # Invariants
//!
//! 1. What is allocated where is known only here, in the server's private memory; nothing is read back from shared memory.
//! 2. Allocated buffers, their prefix zones included, do not overlap; each lies within its area and keeps the set's
//!    [`BufferRules`].
//! 3. A buffer has a slot of its own for as long as it is allocated. A slot's generation only grows, whichever buffers it
//!    stands for, so that no handle becomes good again.
//! 4. A [`ServerBuffer`] is the only way to the bytes; lending keeps it, and whoever sends a command gives it away until the
//!    completion.
//!
//! Allocation is O(1): an area is cut from front to back, and buffers given back wait in a list of their size. When all
//! buffers of an area are back, it is whole again.
#![allow(unsafe_code)]

use core::ptr::NonNull;
use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use vdi_proto::command::Loan;
use vdi_proto::handle::MAX_SLOT_BITS;
use vdi_proto::layout::{self, BufferRules, Place, RawPlace};

use crate::area::{Areas, Book};
use crate::control::Control;
use crate::error::ShmError;
use crate::segment::Mapping;

/// Buffers of one size and alignment.
type Class = (u32, u32);

#[derive(Debug)]
struct AreaSpace {
    /// Its number among the set's areas.
    index: u32,
    len: u64,
    /// Everything before it was cut into buffers.
    cut: u64,
    /// Buffers that are allocated.
    live: u32,
}

#[derive(Debug, Default)]
struct Space {
    areas: Vec<AreaSpace>,
    /// Places given back, by class.
    free: HashMap<Class, Vec<Place>>,
    /// Slots given back.
    free_slots: Vec<u32>,
    /// Generation of each slot that was ever used.
    generations: Vec<u32>,
}

/// The allocator of a set's buffers.
#[derive(Debug)]
pub struct BufferPool {
    control: Arc<Control>,
    book: Book,
    rules: BufferRules,
    slots: u32,
    space: Mutex<Space>,
}

/// Bytes of area that `count` buffers of `len` bytes take, whatever was cut before them.
#[must_use]
pub fn area_len(len: u32, count: u32, rules: &BufferRules) -> Option<u64> {
    layout::stride(len, rules)?.checked_mul(u64::from(count))?.checked_add(u64::from(rules.alignment))
}

impl BufferPool {
    /// The pool of a set with room for `1 << slot_bits` buffers.
    ///
    /// # Panics
    /// When the areas are in use by another pool or a [`crate::area::ClientBuffers`].
    #[must_use]
    pub fn new(control: Arc<Control>, areas: Arc<Areas>, rules: BufferRules, slot_bits: u32) -> Arc<BufferPool> {
        let slots = 1 << slot_bits.min(MAX_SLOT_BITS);
        let book = Book::of(&areas);
        Arc::new(BufferPool { control, book, rules, slots, space: Mutex::default() })
    }

    fn space(&self) -> MutexGuard<'_, Space> {
        // Each change is complete before anything can panic, so a poisoned space is still whole.
        self.space.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes over an area, which is mapped in the set's areas already. One that is not, or that the pool has, adds nothing.
    pub fn add_area(&self, mapping: &Mapping) {
        let Some((index, 0)) = self.book.areas().find(mapping.address().as_ptr()) else { return };
        let mut space = self.space();
        if space.areas.iter().all(|area| area.index != index) {
            space.areas.push(AreaSpace { index, len: mapping.len() as u64, cut: 0, live: 0 });
        }
    }

    /// The set's rules, with an alignment of this request's own where it is greater: rounded up to a power of two, so that
    /// it is a multiple of the set's, which clients insist on.
    fn rules(&self, alignment: u32) -> BufferRules {
        let alignment = alignment.checked_next_power_of_two().unwrap_or(1 << 31);
        BufferRules { alignment: self.rules.alignment.max(alignment), ..self.rules }
    }

    /// How many buffers of this size could be allocated now.
    #[must_use]
    pub fn available(&self, len: u32, alignment: u32) -> u32 {
        if len == 0 {
            return 0;
        }
        let rules = self.rules(alignment);
        let Some(stride) = layout::stride(len, &rules) else { return 0 };
        let space = self.space();
        let given_back = space.free.get(&(len, rules.alignment)).map_or(0, |places| places.len() as u64);
        let uncut: u64 = space
            .areas
            .iter()
            .map(|area| match data_start(area.cut, &rules) {
                Some(first) if first + u64::from(len) <= area.len => 1 + (area.len - first - u64::from(len)) / stride,
                _ => 0,
            })
            .sum();
        (given_back + uncut).min(u64::from(self.free_slots(&space))) as u32
    }

    fn free_slots(&self, space: &Space) -> u32 {
        self.slots - space.generations.len() as u32 + space.free_slots.len() as u32
    }

    /// Allocates a buffer of `len` bytes, not counting the prefix zone. `alignment` 0 is the set's.
    ///
    /// # Errors
    /// [`ShmError::Exhausted`] (VD_E_MEMORY).
    pub fn allocate(self: &Arc<Self>, len: u32, alignment: u32) -> Result<ServerBuffer, ShmError> {
        let rules = self.rules(alignment);
        let class = (len, rules.alignment);
        let mut guard = self.space();
        let space = &mut *guard;
        // Looked at first, so that a refusal leaves the areas as they were.
        if self.free_slots(space) == 0 {
            return Err(ShmError::Exhausted { what: "buffers", limit: u64::from(self.slots) });
        }
        let place = match space.free.get_mut(&class).and_then(Vec::pop) {
            Some(place) => place,
            None => space
                .areas
                .iter_mut()
                .find_map(|area| area.cut_off(len, &rules))
                .ok_or(ShmError::Exhausted { what: "bytes in the set's areas", limit: space.total() })?,
        };
        let Some(mapping) = self.book.areas().get(place.area()).map(Arc::clone) else {
            // Areas are never taken away, so one that was cut from is there.
            return Err(ShmError::Exhausted { what: "buffer areas", limit: space.areas.len() as u64 });
        };
        let slot = space.free_slots.pop().unwrap_or_else(|| {
            space.generations.push(0);
            space.generations.len() as u32 - 1
        });
        if let Some(area) = space.area(place.area()) {
            area.live += 1;
        }
        let generation = space.generations[slot as usize];
        drop(guard);
        self.control.set_place(slot, place.to_raw());
        // SAFETY: the place was cut from this area within its length, so the sum stays within the mapping.
        let start = unsafe { mapping.address().add(place.offset() as usize) };
        Ok(ServerBuffer { start, place, class, slot, generation, pool: Arc::clone(self), _mapping: mapping })
    }

    /// Whether an address lies in one of the set's areas.
    #[must_use]
    pub fn is_shared(&self, address: *const u8) -> bool {
        self.book.areas().find(address).is_some()
    }

    fn take_back(&self, buffer: &ServerBuffer) {
        let mut guard = self.space();
        let space = &mut *guard;
        space.generations[buffer.slot as usize] = buffer.generation;
        space.free_slots.push(buffer.slot);
        let index = buffer.place.area();
        let Some(area) = space.area(index) else { return };
        area.live -= 1;
        if area.live == 0 {
            area.cut = 0;
            for places in space.free.values_mut() {
                places.retain(|place| place.area() != index);
            }
        } else {
            space.free.entry(buffer.class).or_default().push(buffer.place);
        }
    }
}

/// The first aligned data start that leaves room for the prefix zone after `cut`.
const fn data_start(cut: u64, rules: &BufferRules) -> Option<u64> {
    match cut.checked_add(rules.prefix as u64) {
        Some(earliest) => earliest.checked_next_multiple_of(rules.alignment as u64),
        None => None,
    }
}

impl AreaSpace {
    fn cut_off(&mut self, len: u32, rules: &BufferRules) -> Option<Place> {
        let offset = data_start(self.cut, rules)?;
        let place = RawPlace { area: self.index, len, offset }.check(Some(self.len), rules).ok()?;
        self.cut = offset + u64::from(len);
        Some(place)
    }
}

impl Space {
    /// An area by its number among the set's areas.
    fn area(&mut self, index: u32) -> Option<&mut AreaSpace> {
        self.areas.iter_mut().find(|area| area.index == index)
    }

    fn total(&self) -> u64 {
        self.areas.iter().map(|area| area.len).sum()
    }
}

/// A buffer in the server's hands. Dropping it frees it.
#[derive(Debug)]
pub struct ServerBuffer {
    start: NonNull<u8>,
    place: Place,
    class: Class,
    slot: u32,
    generation: u32,
    pool: Arc<BufferPool>,
    /// Keeps `start` valid.
    _mapping: Arc<Mapping>,
}

// SAFETY: the bytes belong to whoever holds this value (invariants 2 and 4).
unsafe impl Send for ServerBuffer {}
// SAFETY: `&ServerBuffer` gives out `&[u8]` only.
unsafe impl Sync for ServerBuffer {}

impl ServerBuffer {
    /// The length in bytes, without the prefix zone.
    #[must_use]
    pub fn len(&self) -> usize {
        self.place.len() as usize
    }

    /// Never: a buffer has at least a byte.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        false
    }

    /// The bytes. A client could still change those of a buffer that came back: see the bet in [`crate::area`].
    #[must_use]
    pub fn data(&self) -> &[u8] {
        // SAFETY: the range lies within the mapping, which is kept alive; buffers do not overlap, and `&self` keeps
        // `data_mut` away; clients keep to the ownership (the bet).
        unsafe { core::slice::from_raw_parts(self.start.as_ptr(), self.len()) }
    }

    /// The bytes, to be filled.
    #[must_use]
    pub fn data_mut(&mut self) -> &mut [u8] {
        // SAFETY: as in `data`, and `&mut self` makes this the only slice.
        unsafe { core::slice::from_raw_parts_mut(self.start.as_ptr(), self.len()) }
    }

    /// The address of the data start in this process.
    #[must_use]
    pub fn address(&self) -> NonNull<u8> {
        self.start
    }

    /// Whether the buffer belongs to this pool.
    #[must_use]
    pub fn is_of(&self, pool: &Arc<BufferPool>) -> bool {
        Arc::ptr_eq(&self.pool, pool)
    }

    /// Lends the buffer to the client: the loan for the command's record.
    pub fn lend(&mut self) -> Loan {
        self.generation = self.generation.wrapping_add(1);
        if let Some(slot) = self.pool.control.slot(self.slot) {
            slot.lend(self.generation);
        }
        Loan { slot: self.slot, generation: self.generation }
    }
}

impl Drop for ServerBuffer {
    fn drop(&mut self) {
        self.pool.take_back(self);
    }
}

#[cfg(test)]
mod tests;
