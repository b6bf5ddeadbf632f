//! A buffer that was mapped by its handle, as programs hold it.

use core::ops::Deref;
use std::sync::Arc;

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
    /// Shortens the data to `bytes` bytes, if it has more.
    pub fn truncate(&mut self, bytes: usize) {
        self.lease.truncate(bytes);
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
}

/// Shared access only: `&mut Lease` would let a program swap the leases of two sets, and so part a lease from the membership
/// that makes it count.
impl Deref for MappedBuffer {
    type Target = Lease;

    fn deref(&self) -> &Lease {
        &self.lease
    }
}
