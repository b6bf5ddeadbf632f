//! The buffer classes of a set, as one process has them mapped.
//!
//! RequestBuffers makes a *class*: `count` equal buffers at equal strides in one area of memory. A *slot* is the index of
//! one buffer. Its address is arithmetic ([`vdi_proto::wire::class`]) and never changes while the set lives.
//!
//! # Invariants
//!
//! 1. A class is validated once, when it arrives. It is kept in private memory and never changes.
//! 2. Classes are added in the order of their indices. Their slots follow each other without gaps.
//! 3. The buffers of different slots do not overlap, prefix zones included. Within a class this is arithmetic. Two classes
//!    have different memory: a segment that is the control segment, or another class's, is refused. So is one of another
//!    set of this process.

use core::ptr::NonNull;
use std::sync::{Arc, OnceLock};

use thiserror::Error;
use vdi_proto::index::{ClassIndex, MAX_CLASSES, SlotIndex};
use vdi_proto::status::VdError;
use vdi_proto::wire::class::{Class, ClassError, ClassSpec, MAX_ALIGNMENT};

use super::claim::Claim;
use crate::ipc::segment::{MAP_ALIGNMENT, Mapping, Segment, SegmentError};

// A data start is aligned in the area, and so in memory.
static_assertions::const_assert!(MAX_ALIGNMENT as usize <= MAP_ALIGNMENT);

/// Why a class was refused.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum AddClassError {
    /// The numbers describe no class.
    #[error(transparent)]
    Class(#[from] ClassError),
    /// It is not the next class.
    #[error("class {found} arrived where class {expected} is the next")]
    Order {
        /// The index that arrived.
        found: ClassIndex,
        /// The next index.
        expected: u32,
    },
    /// The memory is in use by another part of the set, or by another set of this process.
    #[error("the memory of class {index} is {other} already")]
    SameMemory {
        /// The class that arrived.
        index: ClassIndex,
        /// What has the memory.
        other: String,
    },
    /// The buffers are aligned less than the set's configuration says.
    #[error("the buffers of class {index} are aligned to {found} bytes, the set's alignment is {expected}")]
    Alignment {
        /// The class.
        index: ClassIndex,
        /// Its alignment.
        found: u32,
        /// The set's alignment.
        expected: u32,
    },
    /// The descriptor is no segment of the right length, or the system refused to map it.
    #[error(transparent)]
    Segment(#[from] SegmentError),
}

impl AddClassError {
    /// Whether the system refused memory. Otherwise the sender broke the protocol.
    #[must_use]
    pub fn is_system(&self) -> bool {
        matches!(self, AddClassError::Segment(SegmentError::System { .. }))
    }

    /// The status that the sender of the class gets: VD_E_MEMORY or VD_E_INVALID.
    #[must_use]
    pub fn code(&self) -> VdError {
        if self.is_system() { VdError::Memory } else { VdError::Invalid }
    }
}

/// A class and its memory in this process.
#[derive(Debug)]
pub struct MappedClass {
    index: ClassIndex,
    class: Class,
    mapping: Arc<Mapping>,
    /// Dropped after the mapping.
    memory: Claim,
}

impl MappedClass {
    pub(crate) fn index(&self) -> ClassIndex {
        self.index
    }

    /// The class.
    #[must_use]
    pub fn class(&self) -> &Class {
        &self.class
    }

    /// Checks that the class keeps the set's alignment.
    ///
    /// # Errors
    /// [`AddClassError::Alignment`].
    pub(crate) fn check_alignment(&self, expected: u32) -> Result<(), AddClassError> {
        let (index, found) = (self.index, self.class.spec().alignment);
        if found.is_multiple_of(expected.max(1)) {
            Ok(())
        } else {
            Err(AddClassError::Alignment { index, found, expected })
        }
    }

    /// The address of a slot's data start; `None` for a slot of another class.
    #[must_use]
    #[inline]
    pub fn address(&self, slot: SlotIndex) -> Option<NonNull<u8>> {
        let offset = self.class.data_start(slot)?;
        NonNull::new(self.mapping.address().as_ptr().wrapping_add(offset as usize))
    }

    /// The offset of an address in the class's memory; `None` outside.
    #[inline]
    fn offset(&self, address: *const u8) -> Option<u64> {
        let offset = address.addr().checked_sub(self.mapping.address().addr().get())?;
        (offset < self.mapping.len()).then_some(offset as u64)
    }
}

/// The classes of a set. They are only ever added.
#[derive(Debug)]
pub struct ClassTable {
    rows: [OnceLock<MappedClass>; MAX_CLASSES as usize],
    prefix: u32,
    control: Claim,
}

impl ClassTable {
    /// An empty table for a set with this prefix zone and control segment.
    pub(crate) fn new(prefix: u32, control: Claim) -> ClassTable {
        ClassTable { rows: [const { OnceLock::new() }; MAX_CLASSES as usize], prefix, control }
    }

    /// The client's prefix zone in bytes.
    pub(crate) fn prefix(&self) -> u32 {
        self.prefix
    }

    /// All classes, in the order of their indices.
    #[inline]
    pub fn iter(&self) -> impl Iterator<Item = &MappedClass> {
        self.rows.iter().map_while(OnceLock::get)
    }

    /// How many slots the classes have.
    pub(crate) fn slot_count(&self) -> u32 {
        self.iter().last().map_or(0, |last| last.class.slots().end)
    }

    /// The class and its memory that `spec` describes, without adding it.
    pub(crate) fn lay_out(&self, index: ClassIndex, spec: ClassSpec) -> Result<Class, AddClassError> {
        let expected = self.iter().count() as u32;
        if index.get() != expected {
            return Err(AddClassError::Order { found: index, expected });
        }
        Ok(spec.lay_out(self.prefix, self.slot_count())?)
    }

    /// Validates a class and maps its memory, without adding it.
    ///
    /// # Errors
    /// [`AddClassError`].
    pub(crate) fn map(
        &self,
        index: ClassIndex,
        spec: ClassSpec,
        segment: &Segment,
    ) -> Result<MappedClass, AddClassError> {
        let class = self.lay_out(index, spec)?;
        let identity = segment.identity();
        let same = |other: String| AddClassError::SameMemory { index, other };
        if identity == self.control.segment() {
            return Err(same("the control segment".to_owned()));
        }
        if let Some(other) = self.iter().position(|row| row.memory.segment() == identity) {
            return Err(same(format!("class {other}'s")));
        }
        if segment.len() != class.area_len() {
            return Err(SegmentError::NotSealed { expected: class.area_len(), found: Some(segment.len()) }.into());
        }
        let memory = Claim::area(identity, &self.control).ok_or_else(|| same("another set's".to_owned()))?;
        let mapping = Arc::new(segment.map()?);
        Ok(MappedClass { index, class, mapping, memory })
    }

    /// Adds a class that [`ClassTable::map`] has mapped.
    ///
    /// # Errors
    /// [`AddClassError::Order`] when another class was added meanwhile.
    pub(crate) fn push(&self, row: MappedClass) -> Result<(), AddClassError> {
        let found = row.index;
        let order = |expected| AddClassError::Order { found, expected };
        let expected = self.iter().count() as u32;
        if found.get() != expected {
            return Err(order(expected));
        }
        self.rows[found.as_usize()].set(row).map_err(|_| order(expected + 1))
    }

    /// Checks that all classes keep the set's alignment.
    ///
    /// # Errors
    /// [`AddClassError::Alignment`].
    pub(crate) fn check_alignment(&self, expected: u32) -> Result<(), AddClassError> {
        self.iter().try_for_each(|row| row.check_alignment(expected))
    }

    /// The class of a slot.
    #[must_use]
    #[inline]
    pub fn of_slot(&self, slot: SlotIndex) -> Option<&MappedClass> {
        self.iter().find(|row| row.class.slots().contains(&slot.get()))
    }

    /// The slot whose data starts at exactly this address.
    #[must_use]
    #[inline]
    pub fn slot_at(&self, address: *const u8) -> Option<SlotIndex> {
        self.iter().find_map(|row| row.class.slot_at(row.offset(address)?))
    }

    /// Whether an address lies in the memory of a class.
    #[must_use]
    pub fn contains(&self, address: *const u8) -> bool {
        self.iter().any(|row| row.offset(address).is_some())
    }
}

#[cfg(all(test, not(loom)))]
mod tests;
