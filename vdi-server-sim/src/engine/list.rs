//! Free lists of buffers.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use crossbeam::channel::{Receiver, Sender, bounded};

use super::Failure;
use super::work::Work;
use crate::vds::{ReaderWaker, ServerBuffer};

/// A free list: buffers of one length, taken by who has something to send and given back when it is stored.
pub(super) struct List {
    pub(super) give: Give,
    pub(super) take: Receiver<ServerBuffer>,
}

/// Where buffers are given back to a list.
#[derive(Debug, Clone)]
pub(super) struct Give {
    list: Sender<ServerBuffer>,
    /// For a list whose buffers readers wait for while they process completions.
    waker: Option<ReaderWaker>,
}

impl Give {
    /// Gives a buffer back. The list has room for all that it ever had; if nobody takes from it any more, the buffer is freed.
    pub(super) fn back(&self, buffer: ServerBuffer) {
        let _ = self.list.send(buffer);
        if let Some(waker) = &self.waker {
            waker.wake();
        }
    }
}

impl List {
    /// A list of `count` buffers of `size` bytes.
    pub(super) fn fill(work: &Work, size: u32, count: u32) -> Result<List, Failure> {
        let list = List::with_room(count);
        list.add(work, size, count)?;
        Ok(list)
    }

    /// So many lists with `count` buffers of `size` bytes in all, each with room for all of them.
    pub(super) fn fill_several(work: &Work, size: u32, count: u32, lists: usize) -> Result<Vec<List>, Failure> {
        let lists: Vec<List> = (0..lists).map(|_| List::with_room(count)).collect();
        for at in 0..count as usize {
            lists[at % lists.len()].add(work, size, 1)?;
        }
        Ok(lists)
    }

    fn with_room(count: u32) -> List {
        let (list, take) = bounded(count as usize);
        List { give: Give { list, waker: None }, take }
    }

    /// Allocates buffers that there is room for.
    fn add(&self, work: &Work, size: u32, count: u32) -> Result<(), Failure> {
        for _ in 0..count {
            let buffer = work.set.allocate_buffer(size, 0).map_err(|error| work.explain(error.into()))?;
            let _ = self.give.list.send(buffer);
        }
        Ok(())
    }

    /// The same list, for whose buffers readers wait while they process completions.
    pub(super) fn for_readers(mut self, work: &Work) -> List {
        self.give.waker = work.set.reader_waker();
        self
    }
}

/// Where buffers of Writes that succeeded go back to.
#[derive(Debug, Clone)]
pub(super) struct Homes {
    lists: Arc<[Give]>,
    /// Counts the large buffers that have not come back.
    in_flight: Option<Arc<AtomicU32>>,
}

/// One of [`Homes`].
#[derive(Debug, Clone, Copy)]
pub(super) struct Home(u8);

impl Home {
    /// The list of small buffers. Also for what goes nowhere: a command without a buffer, and a Read, whose buffer comes back to who
    /// sent it.
    pub(super) const SMALL: Home = Home(0);

    /// A list of large ones, of which there are a few.
    pub(super) const fn large(list: usize) -> Home {
        Home(list as u8 + 1)
    }

    /// As a number of 8 bits.
    pub(super) fn bits(self) -> u64 {
        self.0.into()
    }

    /// From the lowest 8 of these.
    pub(super) const fn from_bits(bits: u64) -> Home {
        Home(bits as u8)
    }
}

impl Homes {
    pub(super) fn new(small: &List, large: &[List]) -> Homes {
        Homes { lists: [small].into_iter().chain(large).map(|list| list.give.clone()).collect(), in_flight: None }
    }

    /// The same; each large buffer that comes back is taken off `in_flight`.
    pub(super) fn counting(mut self, in_flight: Arc<AtomicU32>) -> Homes {
        self.in_flight = Some(in_flight);
        self
    }

    /// Gives a buffer back.
    pub(super) fn back(&self, home: Home, buffer: ServerBuffer) {
        if let Some(in_flight) = self.in_flight.as_ref().filter(|_| home.0 != Home::SMALL.0) {
            in_flight.fetch_sub(1, Ordering::Relaxed);
        }
        let give = self.lists.get(usize::from(home.0));
        debug_assert!(
            give.is_some(),
            "{home:?} of {} lists: a thread that waits for the buffer waits for ever",
            self.lists.len()
        );
        if let Some(give) = give {
            give.back(buffer);
        }
    }
}
