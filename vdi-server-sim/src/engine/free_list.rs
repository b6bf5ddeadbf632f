//! Free lists of buffers.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use crossbeam::channel::{Receiver, Sender, bounded};

use super::Failure;
use super::operation::Operation;
use crate::vds::{ReaderWaker, ServerBuffer};

/// A free list: buffers of one length. A thread takes one to fill it; it is freed when its bytes are stored.
pub(super) struct FreeList {
    pub(super) returns: Return,
    pub(super) take: Receiver<ServerBuffer>,
}

/// Frees buffers: puts them back into their list.
#[derive(Debug, Clone)]
pub(super) struct Return {
    list: Sender<ServerBuffer>,
    /// For a list whose buffers readers wait for while they process completions.
    waker: Option<ReaderWaker>,
}

impl Return {
    /// Puts a buffer back. The list has room for all that it ever had. If its receiver is gone, the buffer is dropped.
    pub(super) fn free(&self, buffer: ServerBuffer) {
        let _ = self.list.send(buffer);
        if let Some(waker) = &self.waker {
            waker.wake();
        }
    }
}

impl FreeList {
    /// A list of `count` buffers of `size` bytes.
    pub(super) fn fill(operation: &Operation, size: u32, count: u32) -> Result<FreeList, Failure> {
        let list = FreeList::with_room(count);
        list.add(operation, size, count)?;
        Ok(list)
    }

    /// So many lists with `count` buffers of `size` bytes in all, each with room for all of them.
    pub(super) fn fill_several(
        operation: &Operation,
        size: u32,
        count: u32,
        lists: usize,
    ) -> Result<Vec<FreeList>, Failure> {
        let lists: Vec<FreeList> = (0..lists).map(|_| FreeList::with_room(count)).collect();
        for at in 0..count as usize {
            lists[at % lists.len()].add(operation, size, 1)?;
        }
        Ok(lists)
    }

    fn with_room(count: u32) -> FreeList {
        let (list, take) = bounded(count as usize);
        FreeList { returns: Return { list, waker: None }, take }
    }

    /// Allocates buffers that there is room for.
    fn add(&self, operation: &Operation, size: u32, count: u32) -> Result<(), Failure> {
        for _ in 0..count {
            let buffer = operation.set.allocate_buffer(size, 0).map_err(|error| operation.explain(error.into()))?;
            let _ = self.returns.list.send(buffer);
        }
        Ok(())
    }

    /// The same list, for whose buffers readers wait while they process completions.
    pub(super) fn for_readers(mut self, operation: &Operation) -> FreeList {
        self.returns.waker = operation.set.reader_waker();
        self
    }
}

/// The free lists of a device: where the buffers of Writes that succeeded go.
#[derive(Debug, Clone)]
pub(super) struct FreeLists {
    lists: Arc<[Return]>,
    /// Counts the large buffers that are not free.
    in_flight: Option<Arc<AtomicU32>>,
}

/// Which of [`FreeLists`] a buffer came from.
#[derive(Debug, Clone, Copy)]
pub(super) struct BufferOrigin(u8);

impl BufferOrigin {
    /// The list of small buffers. Also for a command without a buffer, and for a Read, whose buffer goes to the thread that sent it.
    pub(super) const SMALL: BufferOrigin = BufferOrigin(0);

    /// A list of large ones, of which there are a few.
    pub(super) const fn large(list: usize) -> BufferOrigin {
        BufferOrigin(list as u8 + 1)
    }

    /// As a number of 8 bits.
    pub(super) fn bits(self) -> u64 {
        self.0.into()
    }

    /// From the lowest 8 of these.
    pub(super) const fn from_bits(bits: u64) -> BufferOrigin {
        BufferOrigin(bits as u8)
    }
}

impl FreeLists {
    pub(super) fn new(small: &FreeList, large: &[FreeList]) -> FreeLists {
        FreeLists {
            lists: [small].into_iter().chain(large).map(|list| list.returns.clone()).collect(),
            in_flight: None,
        }
    }

    /// The same; `in_flight` counts down with each large buffer that is freed.
    pub(super) fn counting(mut self, in_flight: Arc<AtomicU32>) -> FreeLists {
        self.in_flight = Some(in_flight);
        self
    }

    /// Frees a buffer.
    pub(super) fn free(&self, origin: BufferOrigin, buffer: ServerBuffer) {
        if let Some(in_flight) = self.in_flight.as_ref().filter(|_| origin.0 != BufferOrigin::SMALL.0) {
            in_flight.fetch_sub(1, Ordering::Relaxed);
        }
        let returns = self.lists.get(usize::from(origin.0));
        debug_assert!(
            returns.is_some(),
            "{origin:?} of {} lists: a thread that waits for the buffer waits for ever",
            self.lists.len()
        );
        if let Some(returns) = returns {
            returns.free(buffer);
        }
    }
}
