//! Buffer handles: process-independent names of lent buffers.
//!
//! Source: VDI specification, GetBufferHandle and MapBufferHandle. A handle is a 32-bit number, local to one set.
//! **Decision**: it ends with its command. From then on it is VD_E_INVALID, also when the same buffer is lent again.
//!
//! # Encoding
//!
//! A handle is the [`Loan`] of its buffer: 12 bits of slot, 20 bits of generation. The 32 bits pass through a permutation
//! keyed by a secret of the set. So a stale handle decodes to a generation that has passed. A forged handle, or one of
//! another set, decodes to a loan that is rarely outstanding: with `n` buffers lent, `n` numbers of 2^32 are.
//!
//! The permutation finds mistakes. It is no cryptography: every member can read the memory anyway. A generation returns
//! after 2^20 loans of the same slot; a handle kept that long is valid again.

use core::fmt;

use static_assertions::const_assert;

use crate::command::Loan;
use crate::index::{Generation, MAX_SLOTS, SlotIndex};
use crate::set::SetPhase;
use crate::spread::spread;
use crate::status::VdError;

const SLOT_BITS: u32 = MAX_SLOTS.trailing_zeros();
const_assert!(SLOT_BITS + Generation::BITS == u32::BITS);

/// A process-independent name of a buffer, valid from GetBufferHandle until the command completes.
///
/// Handles travel between processes as plain numbers: [`BufferHandle::number`], [`BufferHandle::from_number`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct BufferHandle(u32);

impl BufferHandle {
    /// The number, to pass to another process.
    #[must_use]
    pub const fn number(self) -> u32 {
        self.0
    }

    /// The handle with this number. MapBufferHandle checks it.
    #[must_use]
    pub const fn from_number(number: u32) -> Self {
        BufferHandle(number)
    }
}

impl fmt::Display for BufferHandle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:#010x}", self.0)
    }
}

/// Turns loans into handles and back, for one set. Both directions are bijections of 32-bit numbers.
///
/// ```
/// use vdi_proto::command::Loan;
/// use vdi_proto::handle::HandleCodec;
/// use vdi_proto::index::{Generation, SlotIndex};
///
/// let loan = Loan { slot: SlotIndex::new(7).unwrap(), generation: Generation::from_bits(41) };
/// let codec = HandleCodec::new(0x0123_4567_89ab_cdef);
/// let handle = codec.encode(loan);
/// assert_eq!(codec.decode(handle), loan);
/// let other_set = HandleCodec::new(0xfedc_ba98_7654_3210);
/// assert_ne!(other_set.decode(handle), loan);
/// ```
#[derive(Clone, Copy)]
pub struct HandleCodec {
    mask: [u32; 2],
    factors: [u32; 2],
    inverses: [u32; 2],
}

impl fmt::Debug for HandleCodec {
    /// Omits the key.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HandleCodec").finish_non_exhaustive()
    }
}

/// The inverse of an odd number modulo 2^32. Newton's iteration: each step doubles the number of correct bits.
const fn inverse(odd: u32) -> u32 {
    let mut x = odd;
    let mut correct_bits = 3;
    while correct_bits < 32 {
        x = x.wrapping_mul(2u32.wrapping_sub(odd.wrapping_mul(x)));
        correct_bits *= 2;
    }
    x
}

impl HandleCodec {
    /// The codec of the set with this secret.
    #[must_use]
    pub const fn new(secret: u64) -> Self {
        let (a, b) = (spread(secret, 1), spread(secret, 2));
        let factors = [a as u32 | 1, (a >> 32) as u32 | 1];
        HandleCodec {
            mask: [b as u32, (b >> 32) as u32],
            factors,
            inverses: [inverse(factors[0]), inverse(factors[1])],
        }
    }

    /// The handle of a loan.
    #[must_use]
    #[inline]
    pub const fn encode(&self, loan: Loan) -> BufferHandle {
        let mut x = loan.slot.get() | loan.generation.get() << SLOT_BITS;
        x = (x ^ self.mask[0]).wrapping_mul(self.factors[0]);
        x = (x ^ (x >> 16)).wrapping_mul(self.factors[1]);
        BufferHandle((x ^ (x >> 16)) ^ self.mask[1])
    }

    /// The loan of a handle. Every number decodes.
    #[must_use]
    #[inline]
    pub const fn decode(&self, handle: BufferHandle) -> Loan {
        let mut x = handle.0 ^ self.mask[1];
        x = (x ^ (x >> 16)).wrapping_mul(self.inverses[1]);
        x = (x ^ (x >> 16)).wrapping_mul(self.inverses[0]) ^ self.mask[0];
        Loan { slot: SlotIndex::from_low_bits(x), generation: Generation::from_bits(x >> SLOT_BITS) }
    }
}

/// The state of a slot: who owns its buffer.
///
/// | state | owner of the buffer |
/// |---|---|
/// | `Free(g)` | the server; `g` is the last loan |
/// | `Lent(g)` | the holder of the command |
/// | `Reclaiming(g)` | the holder of the command, who checks for leases before the command completes |
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum SlotState {
    /// The server owns the buffer.
    Free(Generation),
    /// A command has lent the buffer to the client.
    Lent(Generation),
    /// The command is being completed. It returns to `Lent` if another process has the buffer mapped.
    Reclaiming(Generation),
}

/// The rule of GetBufferHandle: `held` is the handle of the outstanding command of this process whose buffer starts at
/// the address.
///
/// # Errors
/// VD_E_PROTOCOL unless the set is open. VD_E_INVALID for `None` (**Decision**: exactly the data start is meant).
#[inline]
pub const fn get(phase: SetPhase, held: Option<BufferHandle>) -> Result<BufferHandle, VdError> {
    match (phase.handles_allowed(), held) {
        (Err(status), _) => Err(status),
        (Ok(()), None) => Err(VdError::Invalid),
        (Ok(()), Some(handle)) => Ok(handle),
    }
}

/// The rule of MapBufferHandle: `loan` is what the handle decodes to, `slot` the state of that slot (`None` for a slot
/// that the set does not have).
///
/// A slot that is being reclaimed is still lent: the completion may yet fail with VD_E_BUSY.
///
/// # Errors
/// VD_E_PROTOCOL unless the set is open. VD_E_INVALID for a handle that is stale, forged or of another set.
#[inline]
pub fn map(phase: SetPhase, loan: Loan, slot: Option<SlotState>) -> Result<(), VdError> {
    phase.handles_allowed()?;
    match slot {
        Some(SlotState::Lent(generation) | SlotState::Reclaiming(generation)) if generation == loan.generation => {
            Ok(())
        }
        _ => Err(VdError::Invalid),
    }
}
