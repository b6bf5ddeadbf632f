//! The areas that one process has mapped, and who keeps the book of their bytes.

use core::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};

use vdi_proto::layout::MAX_AREAS;

use crate::segment::Mapping;

/// Buffer areas, in the order in which they were added.
#[derive(Debug)]
pub struct Areas {
    list: [OnceLock<Arc<Mapping>>; MAX_AREAS as usize],
    /// Whether somebody keeps the book of their bytes.
    in_use: AtomicBool,
}

impl Default for Areas {
    fn default() -> Self {
        Areas { list: core::array::from_fn(|_| OnceLock::new()), in_use: AtomicBool::new(false) }
    }
}

/// The right to hand out the bytes of areas, which one user has at a time.
#[derive(Debug)]
pub(crate) struct Book(pub(super) Arc<Areas>);

impl Book {
    /// # Panics
    /// When somebody has it already.
    pub(crate) fn of(areas: &Arc<Areas>) -> Book {
        let taken = areas.in_use.swap(true, Ordering::Acquire);
        assert!(
            !taken,
            "these areas are used by another BufferPool or ClientBuffers, which could hand out the same bytes"
        );
        Book(Arc::clone(areas))
    }

    pub(crate) fn areas(&self) -> &Areas {
        &self.0
    }
}

impl Drop for Book {
    fn drop(&mut self) {
        self.0.in_use.store(false, Ordering::Release);
    }
}

impl Areas {
    /// An area, once it is mapped.
    #[must_use]
    #[inline]
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
