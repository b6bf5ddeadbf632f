//! Buffer classes: where each buffer of an area lies.
//!
//! RequestBuffers(size, alignment, count) makes a *class*: `count` equal buffers in one area of shared memory.
//!
//! ```text
//! 0            data_offset        data_offset + stride
//! | padding | prefix | data | padding | prefix | data | ... | page padding |
//! ```
//!
//! Only the [`ClassSpec`] travels between processes. Every process computes the [`Class`] from it, from the set's prefix
//! zone and from the classes before it. So a buffer's address never comes from shared memory.
//!
//! # Invariants
//! 1. Every data start is a multiple of the alignment, counted from the area's start.
//! 2. Buffers of a class, prefix zones included, do not overlap, and lie within the area.
//! 3. [`Class::data_start`] and [`Class::slot_at`] are inverse to each other.

use core::ops::Range;

use thiserror::Error;

use crate::config::MAX_BLOCK_SIZE;
use crate::index::{MAX_SLOTS, SlotIndex};
use crate::status::VdError;

/// The greatest alignment of a buffer in bytes.
pub const MAX_ALIGNMENT: u32 = MAX_BLOCK_SIZE;

/// An area is a multiple of this many bytes.
const PAGE: u64 = 4096;

/// What defines a class: the arguments of RequestBuffers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct ClassSpec {
    /// Length of each buffer's data in bytes.
    pub buffer_len: u32,
    /// Alignment of each data start in bytes.
    pub alignment: u32,
    /// How many buffers.
    pub count: u32,
}

/// A class that cannot be laid out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum ClassError {
    /// The buffers are empty.
    #[error("a buffer has 0 bytes; it needs at least 1")]
    BufferLen,
    /// There are no buffers.
    #[error("a buffer class has 0 buffers; it needs at least 1")]
    Count,
    /// The alignment is not supported.
    #[error("buffers cannot be aligned to {found} bytes; use a power of two up to {MAX_ALIGNMENT}")]
    Alignment {
        /// The alignment.
        found: u32,
    },
    /// The set would have too many buffers.
    #[error("{count} more buffers after {first_slot} are too many; a set has up to {MAX_SLOTS}")]
    Slots {
        /// Buffers of earlier classes.
        first_slot: u32,
        /// Buffers of this class.
        count: u32,
    },
    /// The area would be too large.
    #[error("the buffers need an area of {area_len} bytes; an area has up to {} bytes", u32::MAX)]
    Area {
        /// Its length in bytes.
        area_len: u64,
    },
}

impl ClassError {
    /// The status of RequestBuffers: VD_E_INVALID for a bad argument, VD_E_MEMORY for too many buffers or bytes.
    #[must_use]
    pub const fn code(&self) -> VdError {
        match self {
            ClassError::BufferLen | ClassError::Count | ClassError::Alignment { .. } => VdError::Invalid,
            ClassError::Slots { .. } | ClassError::Area { .. } => VdError::Memory,
        }
    }
}

impl ClassSpec {
    /// Validates the class and computes its layout. `prefix` is the set's prefixZoneSize; `first_slot` is the number of
    /// buffers in the classes before.
    ///
    /// # Errors
    /// [`ClassError`] for the first rule that the class breaks.
    pub const fn lay_out(&self, prefix: u32, first_slot: u32) -> Result<Class, ClassError> {
        let ClassSpec { buffer_len, alignment, count } = *self;
        if buffer_len == 0 {
            return Err(ClassError::BufferLen);
        }
        if count == 0 {
            return Err(ClassError::Count);
        }
        if !alignment.is_power_of_two() || alignment > MAX_ALIGNMENT {
            return Err(ClassError::Alignment { found: alignment });
        }
        match first_slot.checked_add(count) {
            Some(end) if end <= MAX_SLOTS => {}
            _ => return Err(ClassError::Slots { first_slot, count }),
        }
        // 32-bit lengths and at most 4096 buffers: no step overflows 64 bits.
        let (prefix, data_len, align) = (prefix as u64, buffer_len as u64, alignment as u64);
        let data_offset = prefix.next_multiple_of(align);
        let stride = (prefix + data_len).next_multiple_of(align);
        let area_len = (data_offset + (count as u64 - 1) * stride + data_len).next_multiple_of(PAGE);
        if area_len > u32::MAX as u64 {
            return Err(ClassError::Area { area_len });
        }
        Ok(Class { spec: *self, first_slot, stride, data_offset, area_len })
    }
}

/// A class whose layout is known. Slot `first_slot + n` is buffer `n` of the area.
///
/// ```
/// use vdi_proto::index::SlotIndex;
/// use vdi_proto::wire::class::ClassSpec;
///
/// let spec = ClassSpec { buffer_len: 65536, alignment: 4096, count: 10 };
/// let class = spec.lay_out(16, 5)?;
/// // Each buffer has its prefix zone right before an aligned data start.
/// assert_eq!((class.data_offset(), class.stride()), (4096, 69632));
/// let slot = SlotIndex::new(6).unwrap();
/// assert_eq!(class.data_start(slot), Some(4096 + 69632));
/// assert_eq!(class.slot_at(4096 + 69632), Some(slot));
/// # Ok::<(), vdi_proto::wire::class::ClassError>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Class {
    spec: ClassSpec,
    first_slot: u32,
    stride: u64,
    data_offset: u64,
    area_len: u64,
}

impl Class {
    /// What defines the class.
    #[must_use]
    pub const fn spec(&self) -> ClassSpec {
        self.spec
    }

    /// The first slot; also the number of buffers in the classes before.
    #[must_use]
    pub const fn first_slot(&self) -> u32 {
        self.first_slot
    }

    /// The class's slots.
    #[must_use]
    pub const fn slots(&self) -> Range<u32> {
        self.first_slot..self.first_slot + self.spec.count
    }

    /// The distance in bytes between data starts.
    #[must_use]
    pub const fn stride(&self) -> u64 {
        self.stride
    }

    /// The first data start, in bytes from the area's start.
    #[must_use]
    pub const fn data_offset(&self) -> u64 {
        self.data_offset
    }

    /// The length of the area in bytes; a multiple of 4096 below 2^32.
    #[must_use]
    pub const fn area_len(&self) -> u64 {
        self.area_len
    }

    /// The data start of a slot, in bytes from the area's start; `None` for a slot of another class.
    #[must_use]
    #[inline]
    pub const fn data_start(&self, slot: SlotIndex) -> Option<u64> {
        match slot.get().checked_sub(self.first_slot) {
            Some(index) if index < self.spec.count => Some(self.data_offset + index as u64 * self.stride),
            _ => None,
        }
    }

    /// The slot whose data starts exactly at this offset from the area's start.
    #[must_use]
    #[inline]
    pub const fn slot_at(&self, offset: u64) -> Option<SlotIndex> {
        match offset.checked_sub(self.data_offset) {
            Some(from_first) if from_first.is_multiple_of(self.stride) => {
                let index = from_first / self.stride;
                if index < self.spec.count as u64 { SlotIndex::new(self.first_slot + index as u32) } else { None }
            }
            _ => None,
        }
    }

    /// Whether the class's buffers serve a request for `len` bytes with this alignment. Alignment 0 means any.
    #[must_use]
    #[inline]
    pub const fn fits(&self, len: u32, alignment: u32) -> bool {
        let alignment_fits = alignment == 0 || (alignment.is_power_of_two() && alignment <= self.spec.alignment);
        len > 0 && len <= self.spec.buffer_len && alignment_fits
    }
}
