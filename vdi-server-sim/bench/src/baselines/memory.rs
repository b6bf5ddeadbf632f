//! Memory that two processes share: a page of counters, then buffers.

use std::fs::OpenOptions;
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};
use std::ptr::NonNull;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use vdi_shm::ipc::segment::{Mapping, Segment, Shared};

use crate::processes::Fallible;

/// Bytes of the counters.
const COUNTERS: usize = 4096;
/// Counters in a cache line.
pub(super) const LINE: usize = 8;

/// A mapping of memory that two processes share.
pub(super) struct Memory {
    mapping: Arc<Mapping>,
    size: usize,
    _segment: Segment,
}

impl Memory {
    /// New memory with `count` buffers of `size` bytes, and the path by which the peer opens it.
    pub(super) fn create(count: usize, size: usize) -> Fallible<(Memory, PathBuf)> {
        let segment = Segment::create("bench", (COUNTERS + count * size) as u64)?;
        let path = format!("/proc/{}/fd/{}", std::process::id(), segment.fd().as_raw_fd());
        Ok((Memory { mapping: Arc::new(segment.map()?), size, _segment: segment }, path.into()))
    }

    /// The memory that another process has made.
    pub(super) fn attach(path: &Path, size: usize) -> Fallible<Memory> {
        let file = OpenOptions::new().read(true).write(true).open(path)?;
        let len = file.metadata()?.len();
        let segment = Segment::from_peer(file.into(), len)?;
        Ok(Memory { mapping: Arc::new(segment.map()?), size, _segment: segment })
    }

    /// The first two cache lines of counters.
    pub(super) fn counters(&self) -> Fallible<Shared<[AtomicU64; 2 * LINE]>> {
        Ok(self.mapping.shared(0)?)
    }

    fn buffer_address(&self, index: usize) -> NonNull<u8> {
        let offset = COUNTERS + index * self.size;
        assert!(offset + self.size <= self.mapping.len(), "there is no buffer {index}");
        // SAFETY: the sum lies within the mapping, as was just asserted.
        unsafe { self.mapping.address().add(offset) }
    }

    /// A buffer's bytes, to be read.
    ///
    /// # Safety
    /// No other process writes into the buffer while the slice is used.
    pub(super) unsafe fn buffer(&self, index: usize) -> &[u8] {
        // SAFETY: the range lies within the mapping, which lives as long as `self`; the caller ensures the rest.
        unsafe { core::slice::from_raw_parts(self.buffer_address(index).as_ptr(), self.size) }
    }

    /// A buffer's bytes, to be written.
    ///
    /// # Safety
    /// No other process accesses the buffer while the slice is used.
    pub(super) unsafe fn buffer_mut(&mut self, index: usize) -> &mut [u8] {
        // SAFETY: the range lies within the mapping, which lives as long as `self`, and `&mut self` makes this the only slice
        // of this process; the caller ensures the rest.
        unsafe { core::slice::from_raw_parts_mut(self.buffer_address(index).as_ptr(), self.size) }
    }
}
