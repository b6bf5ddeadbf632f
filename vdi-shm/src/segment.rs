//! Segments: pieces of memory that processes share, sealed so that no one can take them away.
//!
//! # Invariants
//!
//! 1. A [`Segment`] is a memfd that can neither shrink nor grow: sealed by whoever made it, checked by whoever received
//!    it. So every byte of a [`Mapping`] can be accessed for as long as it exists, and no peer can make an access fault.
//! 2. A mapping's address and length are private to the process and never change.
//! 3. The only way from a mapping to typed memory is [`Mapping::place`], which checks bounds and alignment, and only for
//!    types that hold under any bytes ([`SharedLayout`]): they consist of atomics.
#![allow(unsafe_code)]

use core::num::NonZeroUsize;
use core::ops::Deref;
use core::ptr::NonNull;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;

use thiserror::Error;

use crate::error::remedy;
use crate::sys;

/// Why memory could not be made, taken or mapped.
#[derive(Debug, Error)]
pub enum SegmentError {
    /// The system refused.
    #[error("could not {action} a shared segment of {len} bytes: {source}{}", remedy(source))]
    System {
        /// What was tried.
        action: &'static str,
        /// The length wanted.
        len: u64,
        /// What the system said.
        source: io::Error,
    },
    /// A descriptor that came from a peer is not a sealed memfd of the announced length.
    #[error("the peer passed a descriptor that is not a sealed memfd of {expected} bytes (found: {found:?} bytes)")]
    NotSealed {
        /// The announced length.
        expected: u64,
        /// The length of the memfd, `None` where it is none or its length can change.
        found: Option<u64>,
    },
    /// A typed view does not fit.
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

/// Memory that can be shared: a sealed memfd.
#[derive(Debug)]
pub struct Segment {
    fd: OwnedFd,
    len: u64,
}

impl Segment {
    /// A new segment of `len` bytes, all zeros. With `reserve` its memory is taken from the system now, so that a lack
    /// of it is an error here, in huge pages as far as they fit and the system has them for shared memory that asks for
    /// them; without, pages come as they are touched.
    ///
    /// # Errors
    /// [`SegmentError::System`] when the system has no memory, no descriptors, or no memfd.
    pub fn create(name: &str, len: u64, reserve: bool) -> Result<Segment, SegmentError> {
        let fd = sys::create_sealed(name, len, reserve).map_err(|errno| SegmentError::System {
            action: "create",
            len,
            source: errno.into(),
        })?;
        Ok(Segment { fd, len })
    }

    /// Takes a descriptor that a peer passed, which must be a sealed memfd of exactly `len` bytes.
    ///
    /// # Errors
    /// [`SegmentError::NotSealed`] for everything else.
    pub fn from_peer(fd: OwnedFd, len: u64) -> Result<Segment, SegmentError> {
        let found = sys::sealed_len(fd.as_fd()).map_err(|errno| SegmentError::System {
            action: "inspect",
            len,
            source: errno.into(),
        })?;
        if found != Some(len) || len == 0 {
            return Err(SegmentError::NotSealed { expected: len, found });
        }
        Ok(Segment { fd, len })
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

    /// Whether it has no bytes; such a segment cannot be mapped.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Maps all of it.
    ///
    /// # Errors
    /// [`SegmentError::System`].
    pub fn map(&self) -> Result<Mapping, SegmentError> {
        let failed = |source| SegmentError::System { action: "map", len: self.len, source };
        let len = usize::try_from(self.len)
            .ok()
            .and_then(NonZeroUsize::new)
            .ok_or_else(|| failed(io::ErrorKind::InvalidInput.into()))?;
        let address = sys::map_shared(&self.fd, len).map_err(|errno| failed(errno.into()))?;
        Ok(Mapping { address, len })
    }
}

/// A segment in this process's memory.
#[derive(Debug)]
pub struct Mapping {
    address: NonNull<u8>,
    len: NonZeroUsize,
}

// SAFETY: a mapping is an address range that stays valid until drop, whichever thread uses or drops it; all access goes
// through atomics or through buffers whose exclusive use others see to.
unsafe impl Send for Mapping {}
// SAFETY: as for Send; `&Mapping` gives nothing but the address and atomics.
unsafe impl Sync for Mapping {}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: the range is one whole mapping by `map_shared`; `Shared` and buffers keep the mapping alive by an Arc, so
        // that nothing refers to it any more.
        unsafe { sys::unmap(self.address, self.len) }
    }
}

/// Types that may lie in memory that any member can write.
///
/// # Safety
/// The type is `repr(C)` and consists of atomics (or arrays and structs of such), so that any bytes are a valid value and
/// concurrent writes by other processes are no data race. It has no drop glue that matters.
pub unsafe trait SharedLayout: Send + Sync {}

// SAFETY: an atomic; any bytes are valid.
unsafe impl SharedLayout for core::sync::atomic::AtomicU32 {}
// SAFETY: an atomic; any bytes are valid.
unsafe impl SharedLayout for core::sync::atomic::AtomicU64 {}
// SAFETY: an array adds nothing to the layout of its elements, which are such types.
unsafe impl<T: SharedLayout, const N: usize> SharedLayout for [T; N] {}

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

    /// Never: a mapping has at least a byte.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        false
    }

    /// A `T` at `offset`, which keeps the mapping alive.
    ///
    /// # Errors
    /// [`SegmentError::OutOfBounds`] when it does not fit or is not aligned.
    pub fn place<T: SharedLayout>(self: &Arc<Self>, offset: u64) -> Result<Shared<T>, SegmentError> {
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
        // SAFETY: `place` checked that a whole, aligned `T` lies within the mapping, which `self.mapping` keeps alive and
        // which cannot shrink (invariant 1); any bytes are a valid `T`, and it consists of atomics, so writes by others are
        // no data race.
        unsafe { self.pointer.as_ref() }
    }
}
