//! Buffer areas as one process has them mapped, and the buffers in them as a client sees them.
//!
//! # The bet
//!
//! The interface documents a buffer as owned by whoever holds its command: the server does not touch it from SendCommand
//! until the completion, and the client does not before or after. [`LentBuffer`] and [`MappedBuffer`] hand out ordinary
//! slices of that memory, so that programs can pass them to `write` and `read` without a copy. That is sound as long as
//! the *other processes of the set* keep to the ownership, which nothing can enforce in shared memory. Who may join a set
//! is checked ([`crate::host`]); whoever cannot live with the bet copies through the raw address instead.
//!
//! # Invariants, within this process
//!
//! 1. *One owner.* For each slot there is at most one [`LentBuffer`] or [`MappedBuffer`] at a time: `mine[slot]` goes from
//!    0 to a holder by compare-and-swap and back when that is dropped. So no two slices of one buffer alias, whatever a
//!    peer puts into the rings: a loan of a slot that is held is refused.
//! 2. A buffer's place is loaded once, judged against the area as mapped here, and kept; it cannot leave the area.
//! 3. A buffer keeps its area mapped, also after the set was aborted or closed.
//! 4. `starts` of an area maps a data start to the slot that was last lent there; it is advice that is checked against
//!    `mine` before it is believed.
#![allow(unsafe_code)]

use core::ptr::NonNull;
use core::sync::atomic::{AtomicU16, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};

use thiserror::Error;
use vdi_proto::command::Loan;
use vdi_proto::handle::{BufferHandle, HandleCodec};
use vdi_proto::layout::{BufferRules, LayoutError, MAX_AREAS, Place, RawPlace};
use vdi_proto::set::View;
use vdi_proto::status::VdError;

use crate::control::Control;
use crate::segment::Mapping;
use crate::slots::TakeBackError;
use crate::wait;

/// How long a buffer in an area that is being announced is waited for: the announcement is on its way already.
const AREA_PATIENCE: core::time::Duration = core::time::Duration::from_secs(2);

/// Buffer areas, in the order in which they were added.
#[derive(Debug)]
pub struct Areas {
    list: [OnceLock<Arc<Mapping>>; MAX_AREAS as usize],
}

impl Default for Areas {
    fn default() -> Self {
        Areas { list: core::array::from_fn(|_| OnceLock::new()) }
    }
}

impl Areas {
    /// An area, once it is mapped.
    #[must_use]
    pub fn get(&self, index: u32) -> Option<&Arc<Mapping>> {
        self.list.get(index as usize)?.get()
    }

    /// Adds area number `index`; false when it is there already or beyond [`MAX_AREAS`].
    pub(crate) fn add(&self, index: u32, mapping: Arc<Mapping>) -> bool {
        self.list.get(index as usize).is_some_and(|place| place.set(mapping).is_ok())
    }

    /// The area that an address lies in, and the address's offset there.
    #[must_use]
    pub fn find(&self, address: *const u8) -> Option<(u32, u64)> {
        self.list.iter().map_while(OnceLock::get).enumerate().find_map(|(index, mapping)| {
            let offset = (address as usize).checked_sub(mapping.address().as_ptr() as usize)?;
            (offset < mapping.len()).then_some((index as u32, offset as u64))
        })
    }
}

/// Why a buffer cannot be had.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum BufferError {
    /// MapBufferHandle: VD_E_PROTOCOL, the set is not open.
    #[error("the set is not open")]
    NotOpen,
    /// GetBufferHandle: VD_E_INVALID.
    #[error("{address:#x} is not the data start of a buffer that an outstanding command of this process holds")]
    NotABuffer {
        /// The address.
        address: usize,
    },
    /// MapBufferHandle: VD_E_INVALID.
    #[error("{handle} is not a valid handle: it is stale, forged, or another set's")]
    InvalidHandle {
        /// The handle.
        handle: BufferHandle,
    },
    /// MapBufferHandle: VD_E_BUSY.
    #[error("this process has buffer {handle} already, by its command or by an earlier mapping; use that, or drop it")]
    AlreadyHere {
        /// The handle.
        handle: BufferHandle,
    },
    /// The server lent a slot that this process holds already: VD_E_ABORT.
    #[error("the server lent slot {slot} again while it was held")]
    LentTwice {
        /// The slot.
        slot: u32,
    },
    /// The server sent more bytes than the buffer has: VD_E_ABORT.
    #[error("the server sent a transfer of {size} bytes in a buffer of {len}")]
    TooShort {
        /// Bytes to transfer.
        size: u32,
        /// The buffer's length.
        len: u32,
    },
    /// The slot's place is none: VD_E_ABORT.
    #[error(transparent)]
    Place(#[from] LayoutError),
}

impl BufferError {
    /// The status that a call returns.
    #[must_use]
    pub const fn code(&self) -> VdError {
        match self {
            BufferError::NotOpen => VdError::Protocol,
            BufferError::NotABuffer { .. } | BufferError::InvalidHandle { .. } => VdError::Invalid,
            BufferError::AlreadyHere { .. } => VdError::Busy,
            BufferError::LentTwice { .. } | BufferError::TooShort { .. } | BufferError::Place(_) => VdError::Abort,
        }
    }
}

/// What `mine` says of a slot.
const FREE: u64 = 0;
const HELD: u64 = 1;
const LEASED: u64 = 2;

const fn mine_word(generation: u32, holder: u64) -> u64 {
    (generation as u64) << 2 | holder
}

/// Buffers as a client process sees them.
pub struct ClientBuffers {
    control: Arc<Control>,
    areas: Arc<Areas>,
    rules: BufferRules,
    codec: HandleCodec,
    member: u32,
    /// A word a slot: what this process holds of it.
    mine: Box<[AtomicU64]>,
    /// For each area, by data start in units of the alignment: the slot last lent there plus 1.
    starts: [OnceLock<Box<[AtomicU16]>>; MAX_AREAS as usize],
}

impl core::fmt::Debug for ClientBuffers {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("ClientBuffers").field("rules", &self.rules).field("codec", &self.codec).finish_non_exhaustive()
    }
}

/// Zeroed memory that the system hands out page by page as it is touched: the table is long and sparsely used.
fn zeroed_table(len: usize) -> Box<[AtomicU16]> {
    // SAFETY: all zeros is a valid `AtomicU16`.
    unsafe { Box::<[AtomicU16]>::new_zeroed_slice(len).assume_init() }
}

impl ClientBuffers {
    /// The buffers of a configured set, for the process that is `member`.
    #[must_use]
    pub fn new(
        control: Arc<Control>,
        areas: Arc<Areas>,
        rules: BufferRules,
        codec: HandleCodec,
        member: u32,
    ) -> Arc<ClientBuffers> {
        let mine = (0..1usize << codec.slot_bits()).map(|_| AtomicU64::new(FREE)).collect();
        let starts = core::array::from_fn(|_| OnceLock::new());
        Arc::new(ClientBuffers { control, areas, rules, codec, member, mine, starts })
    }

    /// Loads and judges a slot's place; waits for an area that is being announced.
    fn locate(&self, slot: u32) -> Result<(Place, Arc<Mapping>), LayoutError> {
        let raw = match self.control.slot(slot) {
            Some(slot) => slot.place(),
            // Slots were checked against the width of their field, which is at most the table's.
            None => RawPlace { area: u32::MAX, len: 0, offset: 0 },
        };
        let known = || self.areas.get(raw.area).map(Arc::clone);
        let mapping = known().or_else(|| {
            if raw.area >= MAX_AREAS {
                return None;
            }
            wait::wait_until(self.control.set_doorbell(), wait::deadline(AREA_PATIENCE), known)
        });
        match mapping {
            Some(mapping) => Ok((raw.check(Some(mapping.len() as u64), &self.rules)?, mapping)),
            None => {
                let (RawPlace { area, len, offset }, BufferRules { alignment, prefix }) = (raw, self.rules);
                Err(LayoutError::Place { area, area_len: 0, offset, len, alignment, prefix })
            }
        }
    }

    fn own(&self, slot: u32, generation: u32, holder: u64) -> bool {
        self.mine.get(slot as usize).is_some_and(|mine| {
            mine.compare_exchange(FREE, mine_word(generation, holder), Ordering::Acquire, Ordering::Relaxed).is_ok()
        })
    }

    fn disown(&self, slot: u32) {
        if let Some(mine) = self.mine.get(slot as usize) {
            mine.store(FREE, Ordering::Release);
        }
    }

    /// Takes the buffer of a command that transfers `size` bytes.
    ///
    /// # Errors
    /// [`BufferError`] when the server lent something that it cannot have: a protocol violation.
    pub fn take(self: &Arc<Self>, loan: Loan, size: u32) -> Result<LentBuffer, BufferError> {
        let Loan { slot, generation } = loan;
        let (place, mapping) = self.locate(slot)?;
        if size > place.len() {
            return Err(BufferError::TooShort { size, len: place.len() });
        }
        if !self.own(slot, generation, HELD) {
            return Err(BufferError::LentTwice { slot });
        }
        if let Some(starts) = self.starts.get(place.area() as usize) {
            let starts = starts.get_or_init(|| zeroed_table(mapping.len() / self.rules.alignment as usize + 1));
            if let Some(start) = starts.get((place.offset() / u64::from(self.rules.alignment)) as usize) {
                start.store(slot as u16 + 1, Ordering::Relaxed);
            }
        }
        let bytes = Bytes::new(&mapping, place, self.rules.prefix);
        Ok(LentBuffer { bytes, size, loan, buffers: Arc::clone(self) })
    }

    /// GetBufferHandle: the handle of the buffer that starts at `address`.
    ///
    /// # Errors
    /// VD_E_PROTOCOL unless the set is open; VD_E_INVALID unless an outstanding command of this process holds a buffer whose
    /// data start is exactly `address`.
    pub fn get_handle(&self, view: View, address: *const u8) -> Result<BufferHandle, BufferError> {
        self.codec.get(view, self.held_at(address)).map_err(|status| match status {
            VdError::Protocol => BufferError::NotOpen,
            _ => BufferError::NotABuffer { address: address as usize },
        })
    }

    /// The loan of a held buffer that starts at this address.
    fn held_at(&self, address: *const u8) -> Option<Loan> {
        let (area, offset) = self.areas.find(address)?;
        let alignment = u64::from(self.rules.alignment);
        if !offset.is_multiple_of(alignment) {
            return None;
        }
        let starts = self.starts.get(area as usize)?.get()?;
        let slot = u32::from(starts.get((offset / alignment) as usize)?.load(Ordering::Relaxed)).checked_sub(1)?;
        let mine = self.mine.get(slot as usize)?.load(Ordering::Relaxed);
        (mine & 3 == HELD).then_some(Loan { slot, generation: (mine >> 2) as u32 })
    }

    /// MapBufferHandle: maps the buffer of another process's command, and takes a lease on it.
    ///
    /// # Errors
    /// VD_E_PROTOCOL unless the set is open; VD_E_INVALID for a handle that is stale, forged or another set's; VD_E_BUSY when
    /// this process has the buffer already.
    pub fn map(self: &Arc<Self>, view: View, handle: BufferHandle) -> Result<MappedBuffer, BufferError> {
        let loan = self.look_up(view, handle)?;
        let Loan { slot, generation } = loan;
        if !self.own(slot, generation, LEASED) {
            return Err(BufferError::AlreadyHere { handle });
        }
        let Some(shared) = self.control.slot(slot) else { return Err(BufferError::InvalidHandle { handle }) };
        if shared.lease(loan, self.member).is_err() {
            self.disown(slot);
            return Err(BufferError::InvalidHandle { handle });
        }
        // From here on the loan cannot end, so its place stands.
        match self.locate(slot) {
            Ok((place, mapping)) => {
                let bytes = Bytes::new(&mapping, place, self.rules.prefix);
                Ok(MappedBuffer { bytes, slot, handle, buffers: Arc::clone(self) })
            }
            Err(error) => {
                shared.release(self.member);
                self.disown(slot);
                Err(error.into())
            }
        }
    }

    /// MapBufferHandle for foreign callers, which know no leases: the address of the buffer in this process. Nothing keeps
    /// the command from being completed meanwhile.
    ///
    /// # Errors
    /// As [`ClientBuffers::map`], without VD_E_BUSY.
    pub fn map_address(&self, view: View, handle: BufferHandle) -> Result<NonNull<u8>, BufferError> {
        let loan = self.look_up(view, handle)?;
        let (place, mapping) = self.locate(loan.slot)?;
        Ok(Bytes::new(&mapping, place, self.rules.prefix).start)
    }

    fn look_up(&self, view: View, handle: BufferHandle) -> Result<Loan, BufferError> {
        let look = |slot| self.control.slot(slot).and_then(crate::slots::Slot::look);
        self.codec.map(view, handle, look).map_err(|status| match status {
            VdError::Protocol => BufferError::NotOpen,
            _ => BufferError::InvalidHandle { handle },
        })
    }
}

/// The bytes of a buffer in this process.
#[derive(Debug)]
struct Bytes {
    start: NonNull<u8>,
    len: usize,
    prefix: usize,
    /// Keeps `start` valid.
    _mapping: Arc<Mapping>,
}

// SAFETY: the bytes belong to whoever holds this value (invariant 1); where it is does not matter.
unsafe impl Send for Bytes {}
// SAFETY: `&Bytes` gives out `&[u8]` only.
unsafe impl Sync for Bytes {}

impl Bytes {
    fn new(mapping: &Arc<Mapping>, place: Place, prefix: u32) -> Bytes {
        // SAFETY: `place` was judged against this mapping's length: its offset lies within.
        let start = unsafe { mapping.address().add(place.offset() as usize) };
        Bytes { start, len: place.len() as usize, prefix: prefix as usize, _mapping: Arc::clone(mapping) }
    }

    fn data(&self, len: usize) -> &[u8] {
        // SAFETY: `start..start + self.len` lies within the mapping, which is kept alive; in this process nobody else has the
        // buffer (invariant 1), and `&self` keeps `data_mut` away; other processes keep to the ownership (the bet).
        unsafe { core::slice::from_raw_parts(self.start.as_ptr(), len.min(self.len)) }
    }

    fn data_mut(&mut self, len: usize) -> &mut [u8] {
        // SAFETY: as in `data`, and `&mut self` makes this the only slice.
        unsafe { core::slice::from_raw_parts_mut(self.start.as_ptr(), len.min(self.len)) }
    }

    fn prefix_mut(&mut self) -> &mut [u8] {
        // SAFETY: the place was judged to have its prefix zone before the data start, within the mapping, so both the
        // subtraction and the range stay within.
        let start = unsafe { self.start.sub(self.prefix) };
        // SAFETY: as in `data_mut`; the zone does not overlap the data.
        unsafe { core::slice::from_raw_parts_mut(start.as_ptr(), self.prefix) }
    }
}

/// The buffer of an outstanding command, in the process that got it.
#[derive(Debug)]
pub struct LentBuffer {
    bytes: Bytes,
    size: u32,
    loan: Loan,
    buffers: Arc<ClientBuffers>,
}

impl LentBuffer {
    /// The command's bytes.
    #[must_use]
    pub fn data(&self) -> &[u8] {
        self.bytes.data(self.size as usize)
    }

    /// The command's bytes, to be filled.
    #[must_use]
    pub fn data_mut(&mut self) -> &mut [u8] {
        self.bytes.data_mut(self.size as usize)
    }

    /// The prefix zone right before the data.
    #[must_use]
    pub fn prefix_mut(&mut self) -> &mut [u8] {
        self.bytes.prefix_mut()
    }

    /// The address of the data start.
    #[must_use]
    pub fn address(&self) -> NonNull<u8> {
        self.bytes.start
    }

    /// The handle by which other processes of the set can map the buffer.
    #[must_use]
    pub fn handle(&self) -> BufferHandle {
        self.buffers.codec.encode(self.loan)
    }

    /// Gives the buffer back, so that its command can be completed.
    ///
    /// # Errors
    /// Together with the buffer: [`TakeBackError::Leased`] (VD_E_BUSY) while another process has it mapped.
    pub fn give_back(self) -> Result<(), (TakeBackError, LentBuffer)> {
        let Some(slot) = self.buffers.control.slot(self.loan.slot) else { return Ok(()) };
        // A process that tries a stale handle shows a lease for a moment; look a few times before believing in one.
        let mut tries = 100;
        loop {
            match slot.take_back(self.loan.generation) {
                Ok(()) => return Ok(()),
                Err(TakeBackError::Leased { .. }) if tries > 0 => {
                    tries -= 1;
                    core::hint::spin_loop();
                }
                Err(error) => return Err((error, self)),
            }
        }
    }
}

impl Drop for LentBuffer {
    fn drop(&mut self) {
        self.buffers.disown(self.loan.slot);
    }
}

/// A buffer that another process's command holds, mapped by its handle: a lease. Until it is dropped the command cannot be
/// completed (VD_E_BUSY).
#[derive(Debug)]
pub struct MappedBuffer {
    bytes: Bytes,
    slot: u32,
    handle: BufferHandle,
    buffers: Arc<ClientBuffers>,
}

impl MappedBuffer {
    /// All bytes of the buffer; the command may have fewer, which its holder knows.
    #[must_use]
    pub fn data(&self) -> &[u8] {
        self.bytes.data(self.bytes.len)
    }

    /// All bytes of the buffer, to be changed or filled.
    #[must_use]
    pub fn data_mut(&mut self) -> &mut [u8] {
        self.bytes.data_mut(self.bytes.len)
    }

    /// The prefix zone right before the data.
    #[must_use]
    pub fn prefix_mut(&mut self) -> &mut [u8] {
        self.bytes.prefix_mut()
    }

    /// The address of the data start in this process.
    #[must_use]
    pub fn address(&self) -> NonNull<u8> {
        self.bytes.start
    }

    /// The handle that it was mapped by.
    #[must_use]
    pub fn handle(&self) -> BufferHandle {
        self.handle
    }
}

impl Drop for MappedBuffer {
    fn drop(&mut self) {
        if let Some(slot) = self.buffers.control.slot(self.slot) {
            slot.release(self.buffers.member);
        }
        self.buffers.disown(self.slot);
    }
}
