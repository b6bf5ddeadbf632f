//! Segments: memory that processes share, sealed so that its length can never change.
//!
//! # Invariants
//!
//! 1. A [`Segment`] is a memfd whose length and seals are sealed: by its creator, or checked when it comes from a peer. So
//!    no process can truncate it under a [`Mapping`].
//! 2. A mapping's address and length are private to the process and never change.
//! 3. The only way from a mapping to typed memory is [`Mapping::shared`]. It checks bounds and alignment, and accepts only
//!    types for which any bytes are valid ([`SharedLayout`]).
//!
//! [`Segment::create`] takes all of the memory from the system, so a lack of memory is an error there. A peer can still give
//! memory back by punching a hole, or pass memory that it never touched. An access to such a page takes a new page, and
//! fails with SIGBUS where the system has none.
#![allow(unsafe_code)]

use core::num::NonZeroUsize;
use core::ops::Deref;
use core::ptr::NonNull;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;

use thiserror::Error;

use crate::ipc::remedy::{Operation, remedy};
pub use crate::ipc::shared_layout::SharedLayout;
use crate::ipc::sys;
pub use crate::ipc::sys::{MAP_ALIGNMENT, SegmentIdentity};

/// Why memory could not be created, received or mapped.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum SegmentError {
    /// The system refused.
    #[error("could not {action} a shared segment of {len} bytes: {source}{}", remedy(Operation::Memory, source))]
    System {
        /// What was tried.
        action: &'static str,
        /// The length of the segment.
        len: u64,
        /// The system's reason.
        source: io::Error,
    },
    /// A descriptor from a peer is not a sealed memfd of the announced length.
    #[error("the peer passed a descriptor that is not a sealed memfd of {expected} bytes, but {}", show_found(*found))]
    NotSealed {
        /// The announced length.
        expected: u64,
        /// The length of the memfd; `None` where it is no memfd, its length can change, or it cannot be written to.
        found: Option<u64>,
    },
    /// A packet had to bring one descriptor.
    #[error("the peer sent no or several descriptors where a segment of {expected} bytes was due")]
    NoDescriptor {
        /// The announced length.
        expected: u64,
    },
    /// A typed reference does not fit.
    #[error("{len} bytes at offset {offset} do not fit a segment of {mapped} bytes, or are not aligned")]
    OutOfBounds {
        /// The offset wanted.
        offset: u64,
        /// The length wanted.
        len: u64,
        /// The segment's length.
        mapped: u64,
    },
}

fn show_found(found: Option<u64>) -> String {
    found.map_or_else(|| "something else".to_owned(), |found| format!("one of {found} bytes"))
}

impl SegmentError {
    fn system(action: &'static str, len: u64, source: impl Into<io::Error>) -> Self {
        SegmentError::System { action, len, source: source.into() }
    }

    /// A segment was sent, and this process has no descriptor left for it.
    pub(crate) fn no_descriptor_left(len: u64) -> Self {
        Self::system("take", len, rustix::io::Errno::MFILE)
    }
}

/// Memory that can be shared: a sealed memfd.
#[derive(Debug)]
pub struct Segment {
    fd: OwnedFd,
    len: u64,
    identity: SegmentIdentity,
}

#[allow(clippy::len_without_is_empty)] // never empty
impl Segment {
    /// Creates a segment of `len` bytes, all zeros. Its memory is taken from the system now, so a lack of memory is an error
    /// here. Huge pages are used as far as they fit, where the system has them for shared memory that asks for them.
    ///
    /// # Errors
    /// [`SegmentError::System`] when `len` is 0, or the system has no memory, no descriptors, or no memfd.
    pub fn create(name: &str, len: u64) -> Result<Segment, SegmentError> {
        let (fd, identity) =
            sys::create_sealed(name, len).map_err(|errno| SegmentError::system("create", len, errno))?;
        Ok(Segment { fd, len, identity })
    }

    /// Accepts a descriptor that a peer passed. It must be a sealed memfd of exactly `len` bytes.
    ///
    /// # Errors
    /// [`SegmentError::NotSealed`] for everything else.
    pub fn from_peer(fd: OwnedFd, len: u64) -> Result<Segment, SegmentError> {
        let sealed = sys::inspect_sealed(fd.as_fd()).map_err(|errno| SegmentError::system("inspect", len, errno))?;
        match sealed {
            Some((found, identity)) if found == len && len > 0 => Ok(Segment { fd, len, identity }),
            _ => Err(SegmentError::NotSealed { expected: len, found: sealed.map(|(found, _)| found) }),
        }
    }

    /// The descriptor, to be passed to another process.
    #[must_use]
    pub fn fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }

    /// The length in bytes.
    #[must_use]
    pub fn len(&self) -> u64 {
        self.len
    }

    /// Which memory it is. Two segments with one identity are the same bytes.
    #[must_use]
    pub fn identity(&self) -> SegmentIdentity {
        self.identity
    }

    /// Maps all of it, at a multiple of [`MAP_ALIGNMENT`].
    ///
    /// # Errors
    /// [`SegmentError::System`].
    pub fn map(&self) -> Result<Mapping, SegmentError> {
        let len = usize::try_from(self.len)
            .ok()
            .and_then(NonZeroUsize::new)
            .ok_or_else(|| SegmentError::system("map", self.len, io::ErrorKind::InvalidInput))?;
        let address = sys::map_shared(&self.fd, len).map_err(|errno| SegmentError::system("map", self.len, errno))?;
        Ok(Mapping { address, len })
    }
}

/// A segment in this process's memory.
#[derive(Debug)]
pub struct Mapping {
    address: NonNull<u8>,
    len: NonZeroUsize,
}

// SAFETY: a mapping is an address range that stays valid until drop, whichever thread uses or drops it. All access goes
// through atomics, or through buffers whose exclusive use the caller ensures.
unsafe impl Send for Mapping {}
// SAFETY: as for Send; `&Mapping` gives only the address and atomics.
unsafe impl Sync for Mapping {}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: the range is one whole mapping by `map_shared`. `Shared` and buffers keep the mapping alive by an Arc, so
        // nothing refers to it any more.
        unsafe { sys::unmap(self.address, self.len) }
    }
}

#[allow(clippy::len_without_is_empty)] // never empty
impl Mapping {
    /// The address of the first byte.
    #[must_use]
    pub fn address(&self) -> NonNull<u8> {
        self.address
    }

    /// The length in bytes.
    #[must_use]
    pub fn len(&self) -> usize {
        self.len.get()
    }

    /// The `T` at `offset`. It keeps the mapping alive.
    ///
    /// # Errors
    /// [`SegmentError::OutOfBounds`] when it does not fit or is not aligned.
    pub fn shared<T: SharedLayout>(self: &Arc<Self>, offset: u64) -> Result<Shared<T>, SegmentError> {
        let len = size_of::<T>() as u64;
        let refused = SegmentError::OutOfBounds { offset, len, mapped: self.len() as u64 };
        let fits = offset.checked_add(len).is_some_and(|end| end <= self.len() as u64);
        if !fits {
            return Err(refused);
        }
        // SAFETY: `offset` is at most the mapping's length, checked above, so the sum stays within the mapping.
        let pointer = unsafe { self.address.add(offset as usize) }.cast::<T>();
        if !pointer.is_aligned() {
            return Err(refused);
        }
        Ok(Shared { pointer, mapping: Arc::clone(self) })
    }
}

/// A reference into a mapping that keeps it alive.
#[derive(Debug)]
pub struct Shared<T> {
    pointer: NonNull<T>,
    mapping: Arc<Mapping>,
}

// SAFETY: `Shared` gives `&T` only; `T: SharedLayout` consists of atomics, which any thread may use at any time.
unsafe impl<T: SharedLayout> Send for Shared<T> {}
// SAFETY: as for Send.
unsafe impl<T: SharedLayout> Sync for Shared<T> {}

impl<T> Clone for Shared<T> {
    fn clone(&self) -> Self {
        Shared { pointer: self.pointer, mapping: Arc::clone(&self.mapping) }
    }
}

impl<T> Deref for Shared<T> {
    type Target = T;
    fn deref(&self) -> &T {
        // SAFETY: `Mapping::shared` checked that a whole, aligned `T` lies within the mapping. `self.mapping` keeps that alive,
        // and it cannot be truncated (invariant 1). Any bytes are a valid `T`, and it consists of atomics, so writes by others
        // are no data race.
        unsafe { self.pointer.as_ref() }
    }
}
