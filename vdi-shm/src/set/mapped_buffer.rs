//! A buffer that was mapped by its handle, as programs hold it.

use core::ptr::NonNull;
use std::sync::Arc;

use vdi_proto::handle::BufferHandle;

use super::buffers::Lease;
use super::membership::Membership;

/// A lease, and the membership that makes it count: the leases of a process that left the set are void. So the process
/// stays a member until its last mapped buffer is dropped.
#[derive(Debug)]
pub struct MappedBuffer {
    /// Dropped before the membership.
    lease: Lease,
    /// `None` in the primary, which cannot leave its set.
    _membership: Option<Arc<Membership>>,
}

impl MappedBuffer {
    pub(crate) fn new(lease: Lease, membership: Option<Arc<Membership>>) -> Self {
        MappedBuffer { lease, _membership: membership }
    }
}

impl MappedBuffer {
    /// How many bytes [`MappedBuffer::data`] has.
    #[must_use]
    #[inline]
    #[allow(clippy::len_without_is_empty)] // a number beside `truncate`, not a collection
    pub fn len(&self) -> usize {
        self.lease.len()
    }

    /// Shortens the data to `bytes` bytes, if it has more.
    pub fn truncate(&mut self, bytes: usize) {
        self.lease.truncate(bytes);
    }

    /// The bytes of the buffer. The command may transfer fewer, which its holder knows.
    #[must_use]
    #[inline]
    pub fn data(&self) -> &[u8] {
        self.lease.data()
    }

    /// The bytes of the buffer, to be changed or filled.
    #[must_use]
    #[inline]
    pub fn data_mut(&mut self) -> &mut [u8] {
        self.lease.data_mut()
    }

    /// The prefix zone right before the data.
    #[must_use]
    pub fn prefix_mut(&mut self) -> &mut [u8] {
        self.lease.prefix_mut()
    }

    /// The address of the data start in this process.
    #[must_use]
    #[inline]
    pub fn address(&self) -> NonNull<u8> {
        self.lease.address()
    }

    /// The handle.
    #[must_use]
    #[inline]
    pub fn handle(&self) -> BufferHandle {
        self.lease.handle()
    }
}
