//! A buffer that was mapped by its handle, as programs hold it.

use core::ops::{Deref, DerefMut};
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

impl Deref for MappedBuffer {
    type Target = Lease;

    fn deref(&self) -> &Lease {
        &self.lease
    }
}

impl DerefMut for MappedBuffer {
    fn deref_mut(&mut self) -> &mut Lease {
        &mut self.lease
    }
}
