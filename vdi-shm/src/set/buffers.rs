//! The buffers of a set as a client process sees them: the handle pair.
//!
//! # Ownership of the bytes
//!
//! The interface gives a buffer to the holder of its command: the server does not touch it from SendCommand until the
//! completion, and the client touches it only then. [`CommandBuffer`] and [`Lease`] hand out ordinary slices of that memory,
//! so that programs pass them to `write` and `read` without a copy. Shared memory cannot enforce this between processes.
//! [`crate::set::primary`] checks who may join a set. A program that cannot rely on the other processes copies the bytes
//! through the raw address.
//!
//! # Invariants, within this process
//!
//! 1. Each slot is free, held by a command, or held by a lease. One holder at a time has the slot, and a slot's buffer
//!    overlaps no other ([`crate::set::class_table`], invariant 3). So no two slices alias, whatever a peer writes.
//! 2. A slot's address is arithmetic over a validated class. It is never read from shared memory.
//! 3. A lease in the slot table and a lease here begin and end under one lock. So a thread that gets the buffer with the next
//!    command never meets the trace of another thread's lease.
//! 4. A buffer keeps its memory mapped, also after the set was aborted or closed.
//!
//! Each membership has one [`ClientBuffers`]: its session makes it. A process that joins one set twice, as tests do, gets two
//! views of the same bytes, and keeps them apart itself.
#![allow(unsafe_code)]

use core::ptr::NonNull;
use core::time::Duration;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use thiserror::Error;
use vdi_proto::command::Loan;
use vdi_proto::handle::{self, BufferHandle, HandleCodec};
use vdi_proto::index::{Generation, MAX_SLOTS, MemberIndex, SlotIndex};
use vdi_proto::set::SetPhase;
use vdi_proto::status::VdError;

use super::class_table::{ClassTable, MappedClass};
use super::control::Control;
use super::slots::{LeaseError, ReclaimError};

/// How long a map waits for the outcome of a completion. A holder takes a few instructions unless the system stops it.
const RECLAIM_TIMEOUT: Duration = Duration::from_secs(1);

/// How often a completion that meets a lease tries again before it reports VD_E_BUSY: a map of a stale handle sets its bit
/// and clears it again. After the first tries the thread yields, so that the mapping thread runs.
const RECLAIM_TRIES: u32 = 100;
const RECLAIM_SPINS: u32 = 32;

/// Why a buffer is not available.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum BufferError {
    /// VD_E_PROTOCOL.
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
    /// MapBufferHandle: VD_E_BUSY.
    #[error("the command of buffer {handle} is being completed by a process that does not go on; try again")]
    Reclaiming {
        /// The handle.
        handle: BufferHandle,
    },
    /// The server lent a slot that this process holds: VD_E_ABORT.
    #[error("the server lent slot {slot} again while it was held")]
    LentTwice {
        /// The slot.
        slot: SlotIndex,
    },
    /// The server sent a slot that is in no class, or is not lent: VD_E_ABORT.
    #[error("the server sent slot {slot} in generation {generation}, which is not lent")]
    NotLent {
        /// The slot.
        slot: SlotIndex,
        /// The generation that was sent.
        generation: Generation,
    },
    /// The server sent more bytes than the buffer has: VD_E_ABORT.
    #[error("the server sent a transfer of {size} bytes in a buffer of {len}")]
    TooShort {
        /// Bytes to transfer.
        size: u32,
        /// The buffer's length.
        len: u32,
    },
}

impl BufferError {
    /// The status that a call returns.
    #[must_use]
    pub const fn code(&self) -> VdError {
        match self {
            BufferError::NotOpen => VdError::Protocol,
            BufferError::NotABuffer { .. } | BufferError::InvalidHandle { .. } => VdError::Invalid,
            BufferError::AlreadyHere { .. } | BufferError::Reclaiming { .. } => VdError::Busy,
            BufferError::LentTwice { .. } | BufferError::NotLent { .. } | BufferError::TooShort { .. } => {
                VdError::Abort
            }
        }
    }
}

/// Who in this process has a slot.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Holder {
    Free,
    Command(Generation),
    /// A thread waits for the outcome of a completion. The bit of this process is set.
    Leasing(Generation),
    Lease(Generation),
}

/// The buffers of a set as a client process sees them.
pub struct ClientBuffers {
    control: Arc<Control>,
    classes: Arc<ClassTable>,
    codec: HandleCodec,
    member: MemberIndex,
    slots: Box<[Mutex<Holder>]>,
}

impl core::fmt::Debug for ClientBuffers {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("ClientBuffers").field("member", &self.member).finish_non_exhaustive()
    }
}

impl ClientBuffers {
    pub(crate) fn new(
        control: Arc<Control>,
        classes: Arc<ClassTable>,
        codec: HandleCodec,
        member: MemberIndex,
    ) -> Arc<ClientBuffers> {
        let slots = (0..MAX_SLOTS).map(|_| Mutex::new(Holder::Free)).collect();
        Arc::new(ClientBuffers { control, classes, codec, member, slots })
    }

    /// Locks a slot: a few instructions, and no system call.
    #[inline]
    fn holder(&self, slot: SlotIndex) -> MutexGuard<'_, Holder> {
        // The value is one word, so no panic leaves it half written.
        self.slots[slot.as_usize()].lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The address and the length of a slot's buffer.
    #[inline]
    fn locate(&self, slot: SlotIndex) -> Option<(NonNull<u8>, u32)> {
        let row: &MappedClass = self.classes.of_slot(slot)?;
        Some((row.address(slot)?, row.class().spec().buffer_len))
    }

    fn bytes(&self, start: NonNull<u8>, len: usize) -> Bytes {
        Bytes { start, len, prefix: self.classes.prefix() as usize }
    }

    /// Takes the buffer of a command that transfers `size` bytes. Never waits for another process.
    ///
    /// # Errors
    /// [`BufferError`] with VD_E_ABORT: the server sent what it must not.
    pub fn take(self: &Arc<Self>, loan: Loan, size: u32) -> Result<CommandBuffer, BufferError> {
        let Loan { slot, generation } = loan;
        let not_lent = BufferError::NotLent { slot, generation };
        let (start, len) = self.locate(slot).ok_or(not_lent)?;
        if size > len {
            return Err(BufferError::TooShort { size, len });
        }
        self.control.slot(slot).check_lent(loan).map_err(|_| not_lent)?;
        let mut holder = self.holder(slot);
        match *holder {
            Holder::Free => {}
            // The last loan's completion won, and the thread that waits for it does not run yet.
            Holder::Leasing(last) if last != generation => self.control.slot(slot).release(self.member),
            _ => return Err(BufferError::LentTwice { slot }),
        }
        *holder = Holder::Command(generation);
        drop(holder);
        Ok(CommandBuffer { bytes: self.bytes(start, size as usize), loan, buffers: Arc::clone(self) })
    }

    /// GetBufferHandle: the handle of the buffer whose data starts at `address`.
    ///
    /// # Errors
    /// VD_E_PROTOCOL unless the set is open; VD_E_INVALID unless an outstanding command of this process holds a buffer whose
    /// data start is exactly `address`.
    #[inline]
    pub fn get_handle(&self, phase: SetPhase, address: *const u8) -> Result<BufferHandle, BufferError> {
        let held = self.classes.slot_at(address).and_then(|slot| match *self.holder(slot) {
            Holder::Command(generation) => Some(self.codec.encode(Loan { slot, generation })),
            Holder::Free | Holder::Leasing(_) | Holder::Lease(_) => None,
        });
        handle::get(phase, held).map_err(|status| match status {
            VdError::Protocol => BufferError::NotOpen,
            _ => BufferError::NotABuffer { address: address.addr() },
        })
    }

    /// MapBufferHandle: takes a lease on the buffer of another process's command. The command cannot be completed until the
    /// lease is dropped (VD_E_BUSY).
    ///
    /// # Errors
    /// VD_E_PROTOCOL unless the set is open; VD_E_INVALID for a handle that is stale, forged or another set's; VD_E_BUSY when
    /// this process has the buffer already, or when the holder was stopped in the middle of a completion.
    #[inline]
    pub fn map(self: &Arc<Self>, phase: SetPhase, handle: BufferHandle) -> Result<Lease, BufferError> {
        let (loan, start, len) = self.decode(phase, handle)?;
        let mut leasing = false;
        let leased = self.retry_while_reclaiming(handle, || self.try_lease(loan, handle, &mut leasing));
        if leasing && leased.is_err() {
            self.give_up_lease(loan);
        }
        leased?;
        Ok(Lease { bytes: self.bytes(start, len as usize), loan, buffers: Arc::clone(self) })
    }

    /// One attempt to lease a slot. `leasing` is set while this thread waits for the outcome of a completion.
    #[inline]
    fn try_lease(&self, loan: Loan, handle: BufferHandle, leasing: &mut bool) -> Result<(), Refusal> {
        let Loan { slot, generation } = loan;
        let shared = self.control.slot(slot);
        let mut holder = self.holder(slot);
        let leased = match *holder {
            Holder::Free => shared.lease(loan, self.member),
            Holder::Leasing(held) if *leasing && held == generation => shared.confirm_lease(loan, self.member),
            // Another thread waits for the outcome.
            Holder::Leasing(_) if !*leasing => return Err(Refusal::Reclaiming),
            Holder::Command(held) | Holder::Lease(held) if held == generation => {
                return Err(Refusal::Final(BufferError::AlreadyHere { handle }));
            }
            // The slot is lent in the generation that this process holds, so another generation is stale.
            Holder::Command(_) | Holder::Leasing(_) | Holder::Lease(_) => {
                return Err(Refusal::Final(BufferError::InvalidHandle { handle }));
            }
        };
        *leasing = leased == Err(LeaseError::Reclaiming);
        *holder = match leased {
            Ok(()) => Holder::Lease(generation),
            Err(LeaseError::Reclaiming) => Holder::Leasing(generation),
            Err(LeaseError::NotLent { .. }) => Holder::Free,
        };
        leased.map_err(|error| refusal(error, handle))
    }

    /// Ends the wait of this thread for a lease.
    #[cold]
    fn give_up_lease(&self, loan: Loan) {
        let mut holder = self.holder(loan.slot);
        if *holder == Holder::Leasing(loan.generation) {
            self.control.slot(loan.slot).release(self.member);
            *holder = Holder::Free;
        }
    }

    /// MapBufferHandle for C and C++, which know no leases: the address of the buffer in this process. Nothing keeps the
    /// command from being completed meanwhile.
    ///
    /// # Errors
    /// As [`ClientBuffers::map`], except that this process may have the buffer already.
    #[inline]
    pub fn map_address(&self, phase: SetPhase, handle: BufferHandle) -> Result<NonNull<u8>, BufferError> {
        let (loan, start, _) = self.decode(phase, handle)?;
        self.retry_while_reclaiming(handle, || {
            self.control.slot(loan.slot).check_lent(loan).map_err(|error| refusal(error, handle))
        })?;
        Ok(start)
    }

    /// The loan that a handle names, and where its buffer is.
    #[inline]
    fn decode(&self, phase: SetPhase, handle: BufferHandle) -> Result<(Loan, NonNull<u8>, u32), BufferError> {
        if phase.handles_allowed().is_err() {
            return Err(BufferError::NotOpen);
        }
        let loan = self.codec.decode(handle);
        let (start, len) = self.locate(loan.slot).ok_or(BufferError::InvalidHandle { handle })?;
        Ok((loan, start, len))
    }

    /// Repeats `attempt` until the completion that it meets has an outcome.
    #[inline]
    fn retry_while_reclaiming<T>(
        &self,
        handle: BufferHandle,
        mut attempt: impl FnMut() -> Result<T, Refusal>,
    ) -> Result<T, BufferError> {
        match attempt() {
            Ok(done) => Ok(done),
            Err(Refusal::Final(error)) => Err(error),
            Err(Refusal::Reclaiming) => self.wait_for_outcome(handle, attempt),
        }
    }

    #[cold]
    fn wait_for_outcome<T>(
        &self,
        handle: BufferHandle,
        mut attempt: impl FnMut() -> Result<T, Refusal>,
    ) -> Result<T, BufferError> {
        let deadline = Instant::now() + RECLAIM_TIMEOUT;
        for tries in 0u32.. {
            match attempt() {
                Ok(done) => return Ok(done),
                Err(Refusal::Final(error)) => return Err(error),
                Err(Refusal::Reclaiming) => {}
            }
            // The holder's death aborts the set, unless the server had closed every device.
            if self.control.abort_reason().is_some() || self.control.server_closed_all() {
                return Err(BufferError::NotOpen);
            }
            if Instant::now() >= deadline {
                break;
            }
            match tries {
                0..64 => core::hint::spin_loop(),
                64..128 => std::thread::yield_now(),
                _ => std::thread::sleep(Duration::from_micros(50)),
            }
        }
        Err(BufferError::Reclaiming { handle })
    }
}

/// Why one attempt to map failed.
enum Refusal {
    /// The outcome is not known yet.
    Reclaiming,
    Final(BufferError),
}

fn refusal(error: LeaseError, handle: BufferHandle) -> Refusal {
    match error {
        LeaseError::Reclaiming => Refusal::Reclaiming,
        LeaseError::NotLent { .. } => Refusal::Final(BufferError::InvalidHandle { handle }),
    }
}

/// The bytes of a buffer in this process, with the prefix zone before them.
#[derive(Debug)]
struct Bytes {
    start: NonNull<u8>,
    len: usize,
    prefix: usize,
}

// SAFETY: the bytes belong to the holder of this value (invariant 1), whichever thread that is.
unsafe impl Send for Bytes {}
// SAFETY: `&Bytes` gives out `&[u8]` only.
unsafe impl Sync for Bytes {}

impl Bytes {
    #[inline]
    fn data(&self) -> &[u8] {
        // SAFETY: `start..start + len` lies within the mapping of its class, which the owner of this value keeps alive. In
        // this process no other holder has the slot (invariant 1), and `&self` excludes `data_mut`. Other processes keep to
        // the ownership of the bytes (module docs).
        unsafe { core::slice::from_raw_parts(self.start.as_ptr(), self.len) }
    }

    #[inline]
    fn data_mut(&mut self) -> &mut [u8] {
        // SAFETY: as in `data`; `&mut self` makes this the only slice.
        unsafe { core::slice::from_raw_parts_mut(self.start.as_ptr(), self.len) }
    }

    fn prefix_mut(&mut self) -> &mut [u8] {
        // SAFETY: a class lays out each data start with the prefix zone before it, within the mapping.
        let start = unsafe { self.start.sub(self.prefix) };
        // SAFETY: as in `data_mut`; the zone ends where the data starts, so it overlaps neither the data nor another buffer.
        unsafe { core::slice::from_raw_parts_mut(start.as_ptr(), self.prefix) }
    }
}

/// The buffer of an outstanding command, in the process that got the command.
#[derive(Debug)]
pub struct CommandBuffer {
    bytes: Bytes,
    loan: Loan,
    buffers: Arc<ClientBuffers>,
}

impl CommandBuffer {
    /// The command's bytes.
    #[must_use]
    #[inline]
    pub fn data(&self) -> &[u8] {
        self.bytes.data()
    }

    /// The command's bytes, to be filled.
    #[must_use]
    #[inline]
    pub fn data_mut(&mut self) -> &mut [u8] {
        self.bytes.data_mut()
    }

    /// The prefix zone right before the data.
    #[must_use]
    pub fn prefix_mut(&mut self) -> &mut [u8] {
        self.bytes.prefix_mut()
    }

    /// The address of the data start in this process.
    #[must_use]
    #[inline]
    pub fn address(&self) -> NonNull<u8> {
        self.bytes.start
    }

    /// The handle by which other processes of the set map the buffer.
    #[must_use]
    #[inline]
    pub fn handle(&self) -> BufferHandle {
        self.buffers.codec.encode(self.loan)
    }

    /// Reclaims the buffer for the server, so that its command can be completed.
    ///
    /// # Errors
    /// Together with the buffer: [`ReclaimError::Leased`] (VD_E_BUSY) while another process has it mapped,
    /// [`ReclaimError::NotLent`] (VD_E_ABORT) for a slot that was overwritten.
    pub fn reclaim(self) -> Result<(), (ReclaimError, CommandBuffer)> {
        let slot = self.buffers.control.slot(self.loan.slot);
        let mut tries = RECLAIM_TRIES;
        loop {
            match slot.reclaim(self.loan.generation) {
                Ok(()) => return Ok(()),
                Err(ReclaimError::Leased { .. }) if tries > 0 => {
                    tries -= 1;
                    if tries > RECLAIM_TRIES - RECLAIM_SPINS {
                        core::hint::spin_loop();
                    } else {
                        std::thread::yield_now();
                    }
                }
                Err(error) => return Err((error, self)),
            }
        }
    }
}

impl Drop for CommandBuffer {
    #[inline]
    fn drop(&mut self) {
        *self.buffers.holder(self.loan.slot) = Holder::Free;
    }
}

/// A buffer that another process's command holds, mapped by its handle. Until it is dropped the command cannot be completed.
#[derive(Debug)]
pub struct Lease {
    bytes: Bytes,
    loan: Loan,
    buffers: Arc<ClientBuffers>,
}

impl Lease {
    /// How many bytes [`Lease::data`] has.
    #[must_use]
    #[inline]
    #[allow(clippy::len_without_is_empty)] // a number beside `truncate`, not a collection
    pub fn len(&self) -> usize {
        self.bytes.len
    }

    /// Shortens the data to `bytes` bytes, if it has more.
    pub fn truncate(&mut self, bytes: usize) {
        self.bytes.len = self.bytes.len.min(bytes);
    }

    /// The bytes of the buffer. The command may transfer fewer, which its holder knows.
    #[must_use]
    #[inline]
    pub fn data(&self) -> &[u8] {
        self.bytes.data()
    }

    /// The bytes of the buffer, to be changed or filled.
    #[must_use]
    #[inline]
    pub fn data_mut(&mut self) -> &mut [u8] {
        self.bytes.data_mut()
    }

    /// The prefix zone right before the data.
    #[must_use]
    pub fn prefix_mut(&mut self) -> &mut [u8] {
        self.bytes.prefix_mut()
    }

    /// The address of the data start in this process.
    #[must_use]
    #[inline]
    pub fn address(&self) -> NonNull<u8> {
        self.bytes.start
    }

    /// The handle that it was mapped by.
    #[must_use]
    pub fn handle(&self) -> BufferHandle {
        self.buffers.codec.encode(self.loan)
    }
}

impl Drop for Lease {
    #[inline]
    fn drop(&mut self) {
        let mut holder = self.buffers.holder(self.loan.slot);
        self.buffers.control.slot(self.loan.slot).release(self.buffers.member);
        *holder = Holder::Free;
    }
}

#[cfg(all(test, not(loom)))]
mod tests;
