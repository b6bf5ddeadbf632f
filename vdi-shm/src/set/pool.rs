//! The server's buffers: AllocateBuffer, lending with a command, and reclaiming after the completion.
//!
//! ```text
//! BufferPool --allocate--> ServerBuffer --lend--> LentBuffer --reclaim--> ServerBuffer --drop--> BufferPool
//!                                                     \--drop--> retired: never lent again in this set
//! ```
//!
//! # Invariants
//!
//! 1. A slot is in a free list, in one [`ServerBuffer`], in one [`LentBuffer`], or retired.
//! 2. Only a [`ServerBuffer`] gives access to the bytes. [`ServerBuffer::lend`] consumes it.
//! 3. A [`LentBuffer`] is reclaimed only when its slot is free: the client has given up the buffer, and no member has a lease.
//! 4. A [`LentBuffer`] that is dropped retires its slot. This happens to the buffers of a set that was aborted, and of a
//!    device that was closed with outstanding commands: the client may still hold them.
//! 5. The generation of a slot changes with every loan, so that the handles of earlier loans are stale.
//!
//! Nothing of this is read from shared memory but the slot's state, in [`LentBuffer::reclaim`].
#![allow(unsafe_code)]

use core::ptr::NonNull;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use thiserror::Error;
use vdi_proto::command::Loan;
use vdi_proto::handle::SlotState;
use vdi_proto::index::{Generation, SlotIndex};
use vdi_proto::status::VdError;

use super::class_table::{ClassTable, MappedClass};
use super::control::Control;

/// No class has a free buffer that fits: VD_E_MEMORY.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error(
    "no free buffer of {len} bytes aligned to {alignment}: {fitting} of the {requested} buffers that were requested are as \
     large, and all of them are in use; free one, or request more"
)]
pub struct AllocateError {
    /// The length in bytes.
    pub len: u32,
    /// The alignment, 0 for the set's.
    pub alignment: u32,
    /// Buffers of classes that fit.
    pub fitting: u32,
    /// Buffers of all classes.
    pub requested: u32,
}

impl AllocateError {
    /// VD_E_MEMORY.
    #[must_use]
    pub const fn code(&self) -> VdError {
        VdError::Memory
    }
}

/// A client completed a command and still has its buffer: VD_E_ABORT.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("the command of slot {} was completed, but its buffer is not free ({})", loan.slot, show_state(*found))]
pub struct NotFree {
    /// The loan.
    pub loan: Loan,
    /// The slot's state; `None` for a word that no process of a set writes.
    pub found: Option<SlotState>,
}

/// A state that is not the expected one, for messages.
const fn show_state(found: Option<SlotState>) -> &'static str {
    match found {
        Some(SlotState::Free(_)) => "free of another loan",
        Some(SlotState::Lent(_)) => "still lent",
        Some(SlotState::Reclaiming(_)) => "still being reclaimed",
        None => "a word that no process of a set writes",
    }
}

/// A free slot, and the generation of its last loan.
type FreeSlot = (SlotIndex, Generation);

/// The buffers of a set as the server sees them.
#[derive(Debug)]
pub struct BufferPool {
    control: Arc<Control>,
    classes: Arc<ClassTable>,
    /// The free slots of each class.
    free: Mutex<Vec<Vec<FreeSlot>>>,
}

impl BufferPool {
    pub(crate) fn new(control: Arc<Control>, classes: Arc<ClassTable>) -> Arc<BufferPool> {
        Arc::new(BufferPool { control, classes, free: Mutex::default() })
    }

    fn free(&self) -> MutexGuard<'_, Vec<Vec<FreeSlot>>> {
        // A panic between a pop and its use loses a buffer, and breaks nothing.
        self.free.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Makes the buffers of all classes available that are new in the class table. Every member has mapped them by now.
    pub(crate) fn add_new_classes(&self) {
        let mut free = self.free();
        for row in self.classes.iter().skip(free.len()) {
            let slots = row.class().slots().rev().filter_map(SlotIndex::new);
            free.push(slots.map(|slot| (slot, Generation::default())).collect());
        }
    }

    /// The classes whose buffers fit, with their free lists.
    fn fitting<'a>(
        &'a self,
        free: &'a mut [Vec<FreeSlot>],
        len: u32,
        alignment: u32,
    ) -> impl Iterator<Item = (&'a MappedClass, &'a mut Vec<FreeSlot>)> {
        self.classes.iter().zip(free).filter(move |(row, _)| row.class().fits(len, alignment))
    }

    /// QueryAvailableBuffers: how many buffers of this length could be allocated now. `alignment` 0 is the set's.
    #[must_use]
    pub fn available(&self, len: u32, alignment: u32) -> u32 {
        self.fitting(&mut self.free(), len, alignment).map(|(_, slots)| slots.len() as u32).sum()
    }

    /// AllocateBuffer: a buffer of `len` bytes, not counting the prefix zone. It comes from the smallest class that fits and
    /// has a free buffer. `alignment` 0 is the set's.
    ///
    /// # Errors
    /// [`AllocateError`] (VD_E_MEMORY).
    pub fn allocate(self: &Arc<Self>, len: u32, alignment: u32) -> Result<ServerBuffer, AllocateError> {
        let mut free = self.free();
        let smallest = self
            .fitting(&mut free, len, alignment)
            .filter(|(_, slots)| !slots.is_empty())
            .min_by_key(|(row, _)| row.class().spec().buffer_len);
        let found = smallest.and_then(|(row, slots)| {
            let (slot, generation) = slots.pop()?;
            Some((row.address(slot)?, slot, generation))
        });
        drop(free);
        let Some((start, slot, generation)) = found else { return Err(self.exhausted(len, alignment)) };
        let origin = Origin { pool: Arc::clone(self), slot, generation, lent: false };
        Ok(ServerBuffer { start, len: len as usize, origin })
    }

    #[cold]
    fn exhausted(&self, len: u32, alignment: u32) -> AllocateError {
        let count = |row: &MappedClass| row.class().spec().count;
        let fits = |row: &&MappedClass| row.class().fits(len, alignment);
        let fitting = self.classes.iter().filter(fits).map(count).sum();
        AllocateError { len, alignment, fitting, requested: self.classes.iter().map(count).sum() }
    }

    /// IsSharedBuffer: whether an address lies in the set's buffer space.
    #[must_use]
    pub fn is_shared(&self, address: *const u8) -> bool {
        self.classes.contains(address)
    }

    fn put_back(&self, slot: SlotIndex, generation: Generation) {
        let class = self.classes.iter().position(|row| row.class().slots().contains(&slot.get()));
        let mut free = self.free();
        if let Some(slots) = class.and_then(|class| free.get_mut(class)) {
            slots.push((slot, generation));
        }
    }
}

/// Where a buffer belongs. Dropping it puts the slot back into its free list, unless the slot is lent.
#[derive(Debug)]
struct Origin {
    pool: Arc<BufferPool>,
    slot: SlotIndex,
    generation: Generation,
    lent: bool,
}

impl Drop for Origin {
    fn drop(&mut self) {
        if !self.lent {
            self.pool.put_back(self.slot, self.generation);
        }
    }
}

/// A buffer that the server owns. Dropping it frees it.
#[derive(Debug)]
pub struct ServerBuffer {
    start: NonNull<u8>,
    len: usize,
    origin: Origin,
}

// SAFETY: the bytes belong to the holder of this value (invariants 1 and 2), whichever thread that is.
unsafe impl Send for ServerBuffer {}
// SAFETY: `&ServerBuffer` gives out `&[u8]` only.
unsafe impl Sync for ServerBuffer {}

impl ServerBuffer {
    /// The length in bytes that was allocated, without the prefix zone.
    #[must_use]
    #[allow(clippy::len_without_is_empty)] // a buffer has at least a byte
    pub fn len(&self) -> usize {
        self.len
    }

    /// The bytes.
    #[must_use]
    pub fn data(&self) -> &[u8] {
        // SAFETY: the range lies within the class's mapping, which the pool keeps alive; it belongs to this value alone
        // (invariants 1 and 2), and `&self` excludes `data_mut`. Clients keep to the ownership of the bytes
        // ([`crate::set::buffers`]).
        unsafe { core::slice::from_raw_parts(self.start.as_ptr(), self.len) }
    }

    /// The bytes, to be filled.
    #[must_use]
    pub fn data_mut(&mut self) -> &mut [u8] {
        // SAFETY: as in `data`; `&mut self` makes this the only slice.
        unsafe { core::slice::from_raw_parts_mut(self.start.as_ptr(), self.len) }
    }

    /// The address of the data start in this process.
    #[must_use]
    pub fn address(&self) -> NonNull<u8> {
        self.start
    }

    /// Whether the buffer belongs to this pool.
    #[must_use]
    pub fn is_of(&self, pool: &Arc<BufferPool>) -> bool {
        Arc::ptr_eq(&self.origin.pool, pool)
    }

    /// Lends the buffer to the client, with the command that carries [`LentBuffer::loan`].
    #[must_use]
    pub fn lend(self) -> LentBuffer {
        let ServerBuffer { start, len, mut origin } = self;
        origin.generation = origin.generation.next();
        origin.lent = true;
        origin.pool.control.slot(origin.slot).lend(origin.generation);
        LentBuffer { start, len, origin }
    }
}

/// A buffer that is lent to the client. It gives no access to the bytes. Dropping it retires the slot.
#[derive(Debug)]
pub struct LentBuffer {
    start: NonNull<u8>,
    len: usize,
    origin: Origin,
}

// SAFETY: the address is not dereferenced before `reclaim`, which gives the bytes to one owner.
unsafe impl Send for LentBuffer {}
// SAFETY: `&LentBuffer` gives out numbers only.
unsafe impl Sync for LentBuffer {}

impl LentBuffer {
    /// What the command's record carries.
    #[must_use]
    pub fn loan(&self) -> Loan {
        Loan { slot: self.origin.slot, generation: self.origin.generation }
    }

    /// Takes the buffer back after the client completed its command.
    ///
    /// # Errors
    /// [`NotFree`] (VD_E_ABORT) when the client still has the buffer. The slot is retired.
    pub fn reclaim(self) -> Result<ServerBuffer, NotFree> {
        let loan = self.loan();
        let found = self.origin.pool.control.slot(loan.slot).state();
        if found != Some(SlotState::Free(loan.generation)) {
            return Err(NotFree { loan, found });
        }
        let LentBuffer { start, len, mut origin } = self;
        origin.lent = false;
        Ok(ServerBuffer { start, len, origin })
    }
}

#[cfg(all(test, not(loom)))]
mod tests;
