//! Memory that two processes share, for the ways that are made of nothing else: words first, then buffers.

use std::fs::OpenOptions;
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};
use std::ptr::NonNull;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64};

use vdi_beside::processes::Fallible;
use vdi_shm::ring::RingMemory;
use vdi_shm::segment::{Mapping, Segment, Shared};

/// Bytes for words, before the buffers.
const WORDS: u64 = 64 << 10;
/// Words of 64 bits in a cache line.
pub(crate) const LINE: usize = 8;

/// A mapping of memory that two processes share.
pub(crate) struct Memory {
    mapping: Arc<Mapping>,
    size: usize,
    _segment: Segment,
}

impl Memory {
    /// New memory with `count` buffers of `size` bytes, and where the peer finds it.
    pub(crate) fn create(count: usize, size: usize) -> Fallible<(Memory, PathBuf)> {
        let segment = Segment::create("beside", WORDS + (count * size) as u64, true)?;
        let path = format!("/proc/{}/fd/{}", std::process::id(), segment.fd().as_raw_fd());
        Ok((Memory { mapping: Arc::new(segment.map()?), size, _segment: segment }, path.into()))
    }

    /// The memory that another process has made.
    pub(crate) fn attach(path: &Path, size: usize) -> Fallible<Memory> {
        let file = OpenOptions::new().read(true).write(true).open(path)?;
        let len = file.metadata()?.len();
        let segment = Segment::from_peer(file.into(), len)?;
        Ok(Memory { mapping: Arc::new(segment.map()?), size, _segment: segment })
    }

    /// The words of 64 bits.
    pub(crate) fn words(&self) -> Fallible<Shared<[AtomicU64; WORDS as usize / 16]>> {
        Ok(self.mapping.place(0)?)
    }

    /// A set's ring, one of two, where else the words are.
    pub(crate) fn ring(&self, which: u64) -> Fallible<Shared<RingMemory>> {
        Ok(self.mapping.place(which * (WORDS / 4))?)
    }

    /// Words of 32 bits, in memory that the others do not use.
    pub(crate) fn small_words(&self) -> Fallible<Shared<[AtomicU32; 32]>> {
        Ok(self.mapping.place(WORDS / 2)?)
    }

    /// The address of memory that neither kind of words uses, in a page of its own.
    pub(crate) fn free_page(&self) -> NonNull<u8> {
        // SAFETY: the mapping has WORDS bytes at least.
        unsafe { self.mapping.address().add(WORDS as usize / 2 + 4096) }
    }

    fn buffer_address(&self, index: usize) -> NonNull<u8> {
        let offset = WORDS as usize + index * self.size;
        assert!(offset + self.size <= self.mapping.len(), "there is no buffer {index}");
        // SAFETY: the sum lies within the mapping, as was just asserted.
        unsafe { self.mapping.address().add(offset) }
    }

    /// A buffer's bytes, to be read.
    ///
    /// # Safety
    /// No other process writes into it for as long as the slice is used.
    pub(crate) unsafe fn buffer(&self, index: usize) -> &[u8] {
        // SAFETY: the range lies within the mapping, which lives as long as `self`; the caller vouches for the rest.
        unsafe { core::slice::from_raw_parts(self.buffer_address(index).as_ptr(), self.size) }
    }

    /// A buffer's bytes, to be written.
    ///
    /// # Safety
    /// No other process touches it for as long as the slice is used.
    pub(crate) unsafe fn buffer_mut(&mut self, index: usize) -> &mut [u8] {
        // SAFETY: the range lies within the mapping, which lives as long as `self`, and `&mut self` makes this the only slice
        // of this process; the caller vouches for the other one.
        unsafe { core::slice::from_raw_parts_mut(self.buffer_address(index).as_ptr(), self.size) }
    }
}
