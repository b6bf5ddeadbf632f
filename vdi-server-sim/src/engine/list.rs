//! Free lists of buffers.

use crossbeam::channel::{Receiver, Sender, bounded};

use super::Failure;
use super::work::Work;
use crate::vds::ServerBuffer;

/// The least length of a buffer for headers and lists, in bytes.
pub(super) const LEAST_SMALL: u32 = 8192;

/// A free list: buffers of one length, taken by who has something to send and given back when it is stored.
pub(super) struct List {
    pub(super) give: Sender<ServerBuffer>,
    pub(super) take: Receiver<ServerBuffer>,
}

impl List {
    /// A list of `count` buffers of `size` bytes.
    pub(super) fn fill(work: &Work, size: u32, count: u32) -> Result<List, Failure> {
        let (give, take) = bounded(count as usize);
        for _ in 0..count {
            // There is room for all of them.
            let buffer = work.set.allocate_buffer(size, 0).map_err(|error| work.explain(error.into()))?;
            let _ = give.send(buffer);
        }
        Ok(List { give, take })
    }
}
