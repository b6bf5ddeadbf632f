//! Buffer handles: process-independent names of the buffers that commands lend to the client.
//!
//! Source: VDI specification, GetBufferHandle and MapBufferHandle. A handle is a 32-bit number, local to one set.
//! **Decision**: it dies when its command is completed or aborted; from then on it is VD_E_INVALID, also when the same
//! memory is lent again.
//!
//! # How a handle is made
//!
//! A handle is the pair (slot, generation) of its buffer's [`Loan`]: the slot takes as many low bits as the set needs
//! ([`HandleCodec::slot_bits`]), the generation the rest, at least 20. The 32 bits then pass through a permutation
//! keyed by a random secret of the set. So a stale handle decodes to a generation that has passed, and a forged or
//! foreign one to a pair that is almost surely not lent at the moment: with `n` buffers lent, one number in `2^32 / n`.
//!
//! The permutation spreads mistakes; it is no cryptography. Whoever may map the set's memory can read it anyway. A
//! generation comes round again after `2^generation_bits` loans of the same slot, and a handle kept that long would be
//! good again.

use core::fmt;

use crate::command::Loan;
use crate::set::View;
use crate::spread::spread;
use crate::status::VdError;

/// The least bits of a slot field: 64 slots.
pub const MIN_SLOT_BITS: u32 = 6;
/// The most bits of a slot field: 4096 slots.
pub const MAX_SLOT_BITS: u32 = 12;

/// A process-independent name of a buffer, good from GetBufferHandle until the command is completed.
///
/// Handles travel between processes as plain numbers: [`BufferHandle::number`], [`BufferHandle::from_number`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct BufferHandle(u32);

impl BufferHandle {
    /// The number to pass to another process.
    #[must_use]
    pub const fn number(self) -> u32 {
        self.0
    }

    /// A handle from its number; whether it is good is for MapBufferHandle to say.
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

/// Turns loans into handles and back, for one set.
///
/// ```
/// use vdi_proto::command::Loan;
/// use vdi_proto::handle::HandleCodec;
///
/// let codec = HandleCodec::new(0x0123_4567_89ab_cdef, 8);
/// let handle = codec.encode(Loan { slot: 7, generation: 41 });
/// assert_eq!(codec.decode(handle), Loan { slot: 7, generation: 41 });
/// let other_set = HandleCodec::new(0xfedc_ba98_7654_3210, 8);
/// assert_ne!(other_set.decode(handle), Loan { slot: 7, generation: 41 });
/// ```
#[derive(Clone, Copy)]
pub struct HandleCodec {
    slot_bits: u32,
    mask: [u32; 2],
    factors: [u32; 2],
    inverses: [u32; 2],
}

impl fmt::Debug for HandleCodec {
    /// Leaves the key out.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HandleCodec").field("slot_bits", &self.slot_bits).finish_non_exhaustive()
    }
}

/// The inverse of an odd number modulo 2^32, by Newton's iteration: each step doubles the good bits.
const fn inverse(odd: u32) -> u32 {
    let mut x = odd;
    let mut good_bits = 3;
    while good_bits < 32 {
        x = x.wrapping_mul(2u32.wrapping_sub(odd.wrapping_mul(x)));
        good_bits *= 2;
    }
    x
}

impl HandleCodec {
    /// The codec of the set with this secret; `slot_bits` is brought into [`MIN_SLOT_BITS`]`..=`[`MAX_SLOT_BITS`].
    #[must_use]
    pub const fn new(secret: u64, slot_bits: u32) -> Self {
        let slot_bits = if slot_bits < MIN_SLOT_BITS {
            MIN_SLOT_BITS
        } else if slot_bits > MAX_SLOT_BITS {
            MAX_SLOT_BITS
        } else {
            slot_bits
        };
        let (a, b) = (spread(secret, 1), spread(secret, 2));
        let factors = [a as u32 | 1, (a >> 32) as u32 | 1];
        HandleCodec {
            slot_bits,
            mask: [b as u32, (b >> 32) as u32],
            factors,
            inverses: [inverse(factors[0]), inverse(factors[1])],
        }
    }

    /// The slot bits that `buffers` buffers need.
    #[must_use]
    pub const fn slot_bits_for(buffers: u32) -> u32 {
        let bits = u32::BITS - buffers.saturating_sub(1).leading_zeros();
        if bits < MIN_SLOT_BITS {
            MIN_SLOT_BITS
        } else if bits > MAX_SLOT_BITS {
            MAX_SLOT_BITS
        } else {
            bits
        }
    }

    /// How many of a handle's bits are the slot.
    #[must_use]
    pub const fn slot_bits(&self) -> u32 {
        self.slot_bits
    }

    /// The bits of a generation that a handle can hold.
    #[must_use]
    #[inline]
    pub const fn generation_mask(&self) -> u32 {
        u32::MAX >> self.slot_bits
    }

    /// The handle of a loan. Slot and generation are cut to their fields.
    #[must_use]
    #[inline]
    pub const fn encode(&self, loan: Loan) -> BufferHandle {
        let slot_mask = (1 << self.slot_bits) - 1;
        let mut x = (loan.slot & slot_mask) | loan.generation << self.slot_bits;
        x = (x ^ self.mask[0]).wrapping_mul(self.factors[0]);
        x = (x ^ (x >> 16)).wrapping_mul(self.factors[1]);
        BufferHandle((x ^ (x >> 16)) ^ self.mask[1])
    }

    /// The loan that a handle names, its generation cut to [`HandleCodec::generation_mask`]. Any number decodes.
    #[must_use]
    #[inline]
    pub const fn decode(&self, handle: BufferHandle) -> Loan {
        let mut x = handle.0 ^ self.mask[1];
        x = (x ^ (x >> 16)).wrapping_mul(self.inverses[1]);
        x = (x ^ (x >> 16)).wrapping_mul(self.inverses[0]) ^ self.mask[0];
        Loan { slot: x & ((1 << self.slot_bits) - 1), generation: x >> self.slot_bits }
    }

    /// The rule of GetBufferHandle: the handle of the buffer at an address, given the one that an outstanding command of
    /// this process holds there. Made by [`HandleCodec::encode`] when the command came, it costs nothing here.
    ///
    /// # Errors
    /// VD_E_PROTOCOL unless the set is open; VD_E_INVALID where no outstanding command holds a buffer that starts at the
    /// address (**Decision**: exactly at the data start).
    #[inline]
    pub const fn get(view: View, held: Option<BufferHandle>) -> Result<BufferHandle, VdError> {
        match (view.handles_allowed(), held) {
            (Err(status), _) => Err(status),
            (Ok(()), None) => Err(VdError::Invalid),
            (Ok(()), Some(handle)) => Ok(handle),
        }
    }

    /// The rule of MapBufferHandle: the loan that a handle stands for, given a look at the slot that it names
    /// (`None` beyond the table).
    ///
    /// # Errors
    /// VD_E_PROTOCOL unless the set is open; VD_E_INVALID for a handle that is stale, forged or another set's.
    #[inline]
    pub fn map(
        &self,
        view: View,
        handle: BufferHandle,
        look: impl FnOnce(u32) -> Option<SlotWord>,
    ) -> Result<Loan, VdError> {
        view.handles_allowed()?;
        let named = self.decode(handle);
        match look(named.slot) {
            Some(SlotWord { generation, state: SlotState::Lent })
                if generation & self.generation_mask() == named.generation =>
            {
                Ok(Loan { slot: named.slot, generation })
            }
            _ => Err(VdError::Invalid),
        }
    }
}

/// Whose a slot is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum SlotState {
    /// The server's: free, or being filled or emptied.
    Home,
    /// The client's: an outstanding command holds it, and its handle is good.
    Lent,
    /// Being given back: the holder of the command looks whether another process still has a lease.
    Returning,
}

/// The word of a slot: who has it, and in which generation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct SlotWord {
    /// Counts the loans of the slot.
    pub generation: u32,
    /// Whose it is.
    pub state: SlotState,
}

impl SlotWord {
    /// The word in the slot table.
    #[must_use]
    #[inline]
    pub const fn to_word(self) -> u64 {
        let state = match self.state {
            SlotState::Home => 0,
            SlotState::Lent => 1,
            SlotState::Returning => 2,
        };
        (self.generation as u64) << 32 | state
    }

    /// From the word in the slot table; words with a state that does not exist are nobody's.
    #[must_use]
    #[inline]
    pub const fn from_word(word: u64) -> Option<Self> {
        let state = match word as u32 {
            0 => SlotState::Home,
            1 => SlotState::Lent,
            2 => SlotState::Returning,
            _ => return None,
        };
        Some(SlotWord { generation: (word >> 32) as u32, state })
    }
}
