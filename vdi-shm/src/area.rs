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
//! 1. *One owner.* No two [`LentBuffer`]s or [`MappedBuffer`]s overlap, prefix zones included, and no two stand for one
//!    slot: the slot is claimed before the buffer exists (`holding.rs`), and is free when it is dropped; the places of
//!    slots that are held do not overlap. So no two slices alias, whatever a peer puts into the rings or the slot table: a
//!    loan of a slot that is held, or of bytes that are, is refused.
//! 2. A buffer's place is loaded once, judged by its seal and against the area as mapped here, and kept; it cannot leave
//!    the area.
//! 3. A buffer keeps its area mapped, also after the set was aborted or closed.
//! 4. Areas are used by one [`ClientBuffers`] or by one [`crate::allocator::BufferPool`]: each of them keeps its own book of
//!    who has which bytes.
//! 5. A process stays a member for as long as it has a lease, even when its [`crate::member::Member`] is dropped before:
//!    a lease without a member would be void, and its bit another's. Each lease keeps what makes the process a member
//!    ([`Keep`]); whoever holds on to that to map often has to let go of it to leave.
//! 6. A lease is two words, what it keeps and which slot it is of; all else is where that slot is held. So it is moved in
//!    registers, or by words as they were written: a load that covers several stores waits until they have left the processor.
#![allow(unsafe_code)]

mod areas;
mod held;

use core::ptr::NonNull;
use std::sync::{Arc, OnceLock, Weak};

use thiserror::Error;
use vdi_proto::command::Loan;
use vdi_proto::handle::{BufferHandle, HandleCodec};
use vdi_proto::layout::{BufferRules, LayoutError, MAX_AREAS, Place, RawPlace};
use vdi_proto::set::View;
use vdi_proto::status::VdError;

pub use self::areas::Areas;
pub(crate) use self::areas::Book;
use self::held::Held;
use crate::control::Control;
use crate::holding::{Holder, Holding};
use crate::slots::TakeBackError;
use crate::wait;

/// How long a buffer in an area that is being announced is waited for: the announcement is on its way already.
const AREA_PATIENCE: core::time::Duration = core::time::Duration::from_secs(2);

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
    /// The server lent bytes that this process holds already by another slot: VD_E_ABORT.
    #[error("the server lent slot {slot} with bytes of slot {held}, which was held")]
    Overlap {
        /// The slot.
        slot: u32,
        /// The slot that has the bytes.
        held: u32,
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
            BufferError::LentTwice { .. }
            | BufferError::Overlap { .. }
            | BufferError::TooShort { .. }
            | BufferError::Place(_) => VdError::Abort,
        }
    }
}

/// What makes a process a member: dropping it leaves.
pub(crate) trait Stay: core::fmt::Debug + Send + Sync {}

/// What a lease keeps: the process a member, and the buffers mapped. Whoever maps often holds on to it too, for
/// [`ClientBuffers::map_kept`]; [`crate::host::Host::keep`] and [`crate::member::Member::keep`] give it.
#[derive(Debug)]
pub struct Keep {
    /// Nothing where the process cannot leave. Dropped before the buffers.
    _stay: Option<Box<dyn Stay>>,
    /// From when there are any, before anybody gets them.
    buffers: OnceLock<Arc<ClientBuffers>>,
}

impl Keep {
    pub(crate) fn new(stay: Option<Box<dyn Stay>>) -> Keep {
        Keep { _stay: stay, buffers: OnceLock::new() }
    }

    /// The buffers; `None` before there are any.
    #[inline]
    fn buffers(&self) -> Option<&ClientBuffers> {
        self.buffers.get().map(Arc::as_ref)
    }
}

/// Buffers as a client process sees them.
pub struct ClientBuffers {
    control: Arc<Control>,
    book: Book,
    rules: BufferRules,
    codec: HandleCodec,
    member: u32,
    /// What leases keep (invariant 5), where there is one for all of them.
    keep: Option<Weak<Keep>>,
    held: Held,
}

impl core::fmt::Debug for ClientBuffers {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("ClientBuffers").field("rules", &self.rules).field("codec", &self.codec).finish_non_exhaustive()
    }
}

impl ClientBuffers {
    /// The buffers of a configured set, for the process that is `member`.
    ///
    /// # Panics
    /// When the areas are in use by another `ClientBuffers` or a [`crate::allocator::BufferPool`].
    #[must_use]
    pub fn new(
        control: Arc<Control>,
        areas: Arc<Areas>,
        rules: BufferRules,
        codec: HandleCodec,
        member: u32,
    ) -> Arc<ClientBuffers> {
        Self::kept(control, &areas, rules, codec, member, None)
    }

    /// The same, with what leases keep; each keeps these buffers where that is nothing.
    pub(crate) fn kept(
        control: Arc<Control>,
        areas: &Arc<Areas>,
        rules: BufferRules,
        codec: HandleCodec,
        member: u32,
        keep: Option<Weak<Keep>>,
    ) -> Arc<ClientBuffers> {
        let held = Held::new(1 << codec.slot_bits(), rules.prefix);
        let book = Book::of(areas);
        let strong = keep.as_ref().and_then(Weak::upgrade);
        let buffers = Arc::new(ClientBuffers { control, book, rules, codec, member, keep, held });
        if let Some(keep) = strong {
            // Once: whoever makes them for a set makes them once.
            let _ = keep.buffers.set(Arc::clone(&buffers));
        }
        buffers
    }

    /// Where a place that was judged starts in this process; `None` only for one of another set.
    #[inline]
    fn start(&self, place: Place) -> Option<NonNull<u8>> {
        let mapping = self.book.areas().get(place.area())?;
        // SAFETY: `place` was judged against this mapping's length: its offset lies within.
        Some(unsafe { mapping.address().add(place.offset() as usize) })
    }

    /// Loads and judges a slot's place; waits for an area that is being announced.
    #[inline]
    fn locate(&self, slot: u32) -> Result<Place, LayoutError> {
        let raw = self.control.place(slot)?;
        let area_len = self.area_len(raw.area).or_else(|| self.wait_for_area(raw.area));
        match area_len {
            Some(area_len) => raw.check(Some(area_len), &self.rules),
            None => Err(self.no_such_area(raw)),
        }
    }

    #[inline]
    fn area_len(&self, area: u32) -> Option<u64> {
        self.book.areas().get(area).map(|mapping| mapping.len() as u64)
    }

    #[cold]
    fn wait_for_area(&self, area: u32) -> Option<u64> {
        if area >= MAX_AREAS {
            return None;
        }
        // An abort ends the wait: no announcement comes after it.
        let look = || self.area_len(area).map(Some).or_else(|| self.control.abort_reason().map(|_| None));
        wait::wait_until(self.control.set_doorbell(), wait::deadline(AREA_PATIENCE), look).flatten()
    }

    #[cold]
    fn no_such_area(&self, raw: RawPlace) -> LayoutError {
        let (RawPlace { area, len, offset }, BufferRules { alignment, prefix }) = (raw, self.rules);
        LayoutError::Place { area, area_len: 0, offset, len, alignment, prefix }
    }

    /// Takes the buffer of a command that transfers `size` bytes.
    ///
    /// # Errors
    /// [`BufferError`] when the server lent something that it cannot have: a protocol violation.
    pub fn take(self: &Arc<Self>, loan: Loan, size: u32) -> Result<LentBuffer, BufferError> {
        let slot = loan.slot;
        let twice = BufferError::LentTwice { slot };
        let raw = self.control.slot(slot).ok_or(twice)?.place();
        let mut claim = self.held.claim(slot).ok_or(twice)?;
        let (start, len) = match claim.start_of(raw) {
            // Judged before, and still there.
            Some(start) => (start, raw.len),
            None => {
                drop(claim);
                let place = self.locate(slot)?;
                let start = self.start(place).ok_or(twice)?;
                let mut extents = self.held.extents();
                claim = self.held.claim(slot).ok_or(twice)?;
                let learned = self.held.learn(&mut extents, slot, place, start);
                learned.map_err(|held| BufferError::Overlap { slot, held })?;
                (start, place.len())
            }
        };
        if size > len {
            return Err(BufferError::TooShort { size, len });
        }
        let handle = self.codec.encode(loan);
        claim.hold(Holder::Command(handle));
        let bytes = Bytes { start, len: len as usize };
        Ok(LentBuffer { bytes, size, handle, loan, buffers: Arc::clone(self) })
    }

    /// GetBufferHandle: the handle of the buffer that starts at `address`.
    ///
    /// # Errors
    /// VD_E_PROTOCOL unless the set is open; VD_E_INVALID unless an outstanding command of this process holds a buffer whose
    /// data start is exactly `address`.
    #[inline]
    pub fn get_handle(&self, view: View, address: *const u8) -> Result<BufferHandle, BufferError> {
        HandleCodec::get(view, self.held_at(address)).map_err(|status| match status {
            VdError::Protocol => BufferError::NotOpen,
            _ => BufferError::NotABuffer { address: address as usize },
        })
    }

    /// The handle of a command's buffer that starts at this address.
    #[inline]
    fn held_at(&self, address: *const u8) -> Option<BufferHandle> {
        self.held.guess(address).or_else(|| {
            let (area, offset) = self.book.areas().find(address)?;
            self.held.command_at(address, area, offset)
        })
    }

    /// MapBufferHandle: maps the buffer of another process's command, and takes a lease on it. The plain form of
    /// [`ClientBuffers::map_kept`], for whoever has these buffers and nothing else of the set.
    ///
    /// # Errors
    /// VD_E_PROTOCOL unless the set is open; VD_E_INVALID for a handle that is stale, forged or another set's; VD_E_BUSY when
    /// this process has the buffer already; VD_E_ABORT when the buffer cannot be where the server says, a protocol violation.
    #[inline]
    pub fn map(self: &Arc<Self>, view: View, handle: BufferHandle) -> Result<MappedBuffer, BufferError> {
        self.map_kept(&self.keep().ok_or(BufferError::NotOpen)?, view, handle, |error| error)
    }

    /// [`ClientBuffers::map`] for callers who hold on to what leases keep, and who have errors of their own, which are made in place
    /// of these.
    ///
    /// # Errors
    /// What `refuse` makes of the errors of [`ClientBuffers::map`], and of VD_E_PROTOCOL for what the leases of other buffers keep.
    #[inline]
    pub fn map_kept<E>(
        &self,
        keep: &Arc<Keep>,
        view: View,
        handle: BufferHandle,
        refuse: impl Fn(BufferError) -> E,
    ) -> Result<MappedBuffer, E> {
        if !keep.buffers().is_some_and(|kept| core::ptr::eq(kept, self)) {
            return Err(refuse(BufferError::NotOpen));
        }
        let lease = self.lease(view, handle).map_err(refuse)?;
        Ok(MappedBuffer { keep: Arc::clone(keep), lease })
    }

    /// Takes a lease on the buffer of a handle, which the caller keeps together with what it keeps.
    #[inline]
    fn lease(&self, view: View, handle: BufferHandle) -> Result<Lease, BufferError> {
        let loan = self.look_up(view, handle)?;
        let slot = loan.slot;
        let invalid = BufferError::InvalidHandle { handle };
        let shared = self.control.slot(slot).ok_or(invalid)?;
        let Some(claim) = self.held.claim(slot) else {
            // Unless the loan has ended meanwhile, and this process holds the next one.
            return Err(self.look_up(view, handle).err().unwrap_or(BufferError::AlreadyHere { handle }));
        };
        if shared.lease(loan, self.member).is_err() {
            drop(claim);
            return Err(invalid);
        }
        // From here on the loan cannot end, so its place stands.
        let raw = shared.place();
        let len = if claim.start_of(raw).is_some() {
            claim.hold(Holder::Lease(handle));
            raw.len
        } else {
            claim.hold(Holder::Finding(handle));
            self.learn_leased(slot, handle)?
        };
        Ok(Lease::new(slot, len))
    }

    /// What a lease keeps; nothing where this process has left.
    #[inline]
    fn keep(self: &Arc<Self>) -> Option<Arc<Keep>> {
        match &self.keep {
            Some(keep) => keep.upgrade(),
            None => Some(self.keep_alone()),
        }
    }

    #[cold]
    fn keep_alone(self: &Arc<Self>) -> Arc<Keep> {
        Arc::new(Keep { _stay: None, buffers: OnceLock::from(Arc::clone(self)) })
    }

    /// Finds out where the buffer of a lease is that was not known to be there, and how long; on errors gives the lease up.
    #[cold]
    fn learn_leased(&self, slot: u32, handle: BufferHandle) -> Result<u32, BufferError> {
        // It is somewhere else now, and where it was may be another's meanwhile.
        if let Some(holding) = self.held.slot(slot) {
            self.held.forget(&mut self.held.extents(), holding);
        }
        let learned = self.locate(slot).map_err(BufferError::from).and_then(|place| {
            let start = self.start(place).ok_or(BufferError::InvalidHandle { handle })?;
            let learned = self.held.learn(&mut self.held.extents(), slot, place, start);
            learned.map_err(|held| BufferError::Overlap { slot, held })?;
            Ok(place.len())
        });
        learned.inspect_err(|_| self.give_up(slot))
    }

    /// Ends a lease, in the slot table and here.
    #[inline]
    fn give_up(&self, slot: u32) {
        if let (Some(shared), Some(holding)) = (self.control.slot(slot), self.held.slot(slot)) {
            holding.free_lease(|| shared.release(self.member));
        }
    }

    /// MapBufferHandle for foreign callers, which know no leases: the address of the buffer in this process. Nothing keeps
    /// the command from being completed meanwhile.
    ///
    /// # Errors
    /// As [`ClientBuffers::map`], without VD_E_BUSY.
    #[inline]
    pub fn map_address(&self, view: View, handle: BufferHandle) -> Result<NonNull<u8>, BufferError> {
        let loan = self.look_up(view, handle)?;
        let place = self.locate(loan.slot)?;
        self.start(place).ok_or(BufferError::InvalidHandle { handle })
    }

    #[inline]
    fn look_up(&self, view: View, handle: BufferHandle) -> Result<Loan, BufferError> {
        let look = |slot| self.control.slot(slot).and_then(crate::slots::Slot::look);
        self.codec.map(view, handle, look).map_err(|status| match status {
            VdError::Protocol => BufferError::NotOpen,
            _ => BufferError::InvalidHandle { handle },
        })
    }
}

/// The bytes of a buffer in this process, `start..start + len`, and the prefix zone before. Its place was judged by the rules to lie
/// in an area with both; whoever has them has the [`ClientBuffers`] too, or what keeps those, and they keep the area mapped.
#[derive(Debug)]
struct Bytes {
    start: NonNull<u8>,
    len: usize,
}

// SAFETY: the bytes belong to whoever holds this value (invariant 1); where it is does not matter.
unsafe impl Send for Bytes {}
// SAFETY: `&Bytes` gives out `&[u8]` only.
unsafe impl Sync for Bytes {}

impl Bytes {
    #[inline]
    fn data(&self, len: usize) -> &[u8] {
        // SAFETY: `start..start + self.len` lies within the mapping, which the buffer's `ClientBuffers` keep alive; in this
        // process nobody else has the buffer (invariant 1), and `&self` keeps `data_mut` away; other processes keep to the
        // ownership (the bet).
        unsafe { core::slice::from_raw_parts(self.start.as_ptr(), len.min(self.len)) }
    }

    #[inline]
    fn data_mut(&mut self, len: usize) -> &mut [u8] {
        // SAFETY: as in `data`, and `&mut self` makes this the only slice.
        unsafe { core::slice::from_raw_parts_mut(self.start.as_ptr(), len.min(self.len)) }
    }

    /// The prefix zone, as long as the rules say by which the place was judged.
    fn prefix_mut(&mut self, rules: &BufferRules) -> &mut [u8] {
        let prefix = rules.prefix as usize;
        // SAFETY: the place was judged to have its prefix zone before the data start, within the mapping, so both the
        // subtraction and the range stay within.
        let start = unsafe { self.start.sub(prefix) };
        // SAFETY: as in `data_mut`; the zone does not overlap the data.
        unsafe { core::slice::from_raw_parts_mut(start.as_ptr(), prefix) }
    }
}

/// The buffer of an outstanding command, in the process that got it.
#[derive(Debug)]
pub struct LentBuffer {
    bytes: Bytes,
    size: u32,
    handle: BufferHandle,
    loan: Loan,
    buffers: Arc<ClientBuffers>,
}

impl LentBuffer {
    /// The command's bytes.
    #[must_use]
    #[inline]
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
        self.bytes.prefix_mut(&self.buffers.rules)
    }

    /// The address of the data start.
    #[must_use]
    #[inline]
    pub fn address(&self) -> NonNull<u8> {
        self.bytes.start
    }

    /// The handle by which other processes of the set can map the buffer.
    #[must_use]
    #[inline]
    pub fn handle(&self) -> BufferHandle {
        self.handle
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
    #[inline]
    fn drop(&mut self) {
        if let Some(holding) = self.buffers.held.slot(self.loan.slot) {
            holding.free();
        }
    }
}

/// A buffer that another process's command holds, mapped by its handle: a lease. Until it is dropped the command cannot be
/// completed (VD_E_BUSY).
#[derive(Debug)]
pub struct MappedBuffer {
    keep: Arc<Keep>,
    lease: Lease,
}

/// A slot, in the upper half, and how many bytes of its buffer are shown.
#[derive(Debug, Clone, Copy)]
struct Lease(u64);

impl Lease {
    #[inline]
    fn new(slot: u32, bytes: u32) -> Lease {
        Lease(u64::from(slot) << u32::BITS | u64::from(bytes))
    }

    #[inline]
    fn slot(self) -> u32 {
        (self.0 >> u32::BITS) as u32
    }

    #[inline]
    fn bytes(self) -> u32 {
        self.0 as u32
    }
}

impl MappedBuffer {
    /// How many bytes [`MappedBuffer::data`] has.
    #[must_use]
    #[inline]
    pub fn len(&self) -> usize {
        self.lease.bytes() as usize
    }

    /// Whether that is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Shows only so many bytes from now on, if there are more.
    pub fn truncate(&mut self, bytes: usize) {
        // Less than a number of 32 bits, so it is one.
        self.lease = Lease::new(self.lease.slot(), bytes.min(self.len()) as u32);
    }

    /// Where it is held, by this alone; nothing only before there are buffers.
    #[inline]
    fn held(&self) -> Option<(&ClientBuffers, &Holding)> {
        let buffers = self.keep.buffers()?;
        Some((buffers, buffers.held.slot(self.lease.slot())?))
    }

    #[inline]
    fn start(&self) -> Option<NonNull<u8>> {
        self.held()?.1.start()
    }

    /// All bytes of the buffer, or as many as [`MappedBuffer::truncate`] left; the command may have fewer, which its holder
    /// knows.
    #[must_use]
    #[inline]
    pub fn data(&self) -> &[u8] {
        // SAFETY: the place of a slot that is held stands (`holding.rs`), and this holds it. It was judged to be in an area, with
        // so many bytes, and what this keeps has the area mapped. In this process nobody else has the buffer (invariant 1), and
        // `&self` keeps `data_mut` away; other processes keep to the ownership (the bet).
        self.start().map_or(&[], |start| unsafe { core::slice::from_raw_parts(start.as_ptr(), self.len()) })
    }

    /// The same bytes, to be changed or filled.
    #[must_use]
    pub fn data_mut(&mut self) -> &mut [u8] {
        // SAFETY: as in `data`, and `&mut self` makes this the only slice.
        self.start().map_or(&mut [], |start| unsafe { core::slice::from_raw_parts_mut(start.as_ptr(), self.len()) })
    }

    /// The prefix zone right before the data.
    #[must_use]
    pub fn prefix_mut(&mut self) -> &mut [u8] {
        let Some((buffers, holding)) = self.held() else { return &mut [] };
        let Some(start) = holding.start() else { return &mut [] };
        let mut bytes = Bytes { start, len: 0 };
        // SAFETY: as in `data_mut`; the slice borrows this and not the words that say where it is.
        unsafe { &mut *core::ptr::from_mut(bytes.prefix_mut(&buffers.rules)) }
    }

    /// The address of the data start in this process.
    #[must_use]
    #[inline]
    pub fn address(&self) -> NonNull<u8> {
        self.start().unwrap_or(NonNull::dangling())
    }

    /// The handle that it was mapped by.
    #[must_use]
    #[inline]
    pub fn handle(&self) -> BufferHandle {
        self.held().map_or(BufferHandle::from_number(0), |(_, holding)| holding.handle())
    }
}

impl Drop for MappedBuffer {
    #[inline]
    fn drop(&mut self) {
        if let Some(buffers) = self.keep.buffers() {
            buffers.give_up(self.lease.slot());
        }
    }
}

#[cfg(test)]
mod tests;
