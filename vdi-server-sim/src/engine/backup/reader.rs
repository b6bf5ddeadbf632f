//! Readers: they fill free buffers from the files, and send them.

use super::dealer::{Dealer, Transfer};
use super::ordered::Ordered;
use super::output::{Filled, Output};
use crate::engine::free_list::{BufferOrigin, FreeList};
use crate::engine::operation::{Operation, Stopped};
use crate::engine::pages::Pages;
use crate::vds::{CompletionReader, ServerBuffer};

/// One of the readers.
pub(super) struct Reader<'a, 'b> {
    pub(super) operation: &'a Operation,
    pub(super) pages: &'a Pages<'a>,
    pub(super) dealer: &'a Dealer,
    /// A list for each reader. What a reader has filled is likely still in its processor's cache, and another one's has to fetch it
    /// before it overwrites it; so a reader prefers its own list, and takes from those of others when that is empty.
    pub(super) free: &'a [FreeList],
    pub(super) own: usize,
    pub(super) outputs: &'a [Ordered<Filled, Output<'b>>],
    /// Bytes of a transfer.
    pub(super) transfer: u32,
    /// What the length of a transfer is a multiple of.
    pub(super) unit: u32,
}

impl Reader<'_, '_> {
    pub(super) fn run(&self) {
        // The thread that met the failure has recorded it.
        let _ = self.read();
    }

    fn read(&self) -> Result<(), Stopped> {
        let completions = self.operation.completion_reader()?;
        loop {
            // The buffer comes first. So what is dealt is being read, or was read: nothing that is next in order waits for a buffer.
            let mut buffer = self.buffer(&completions)?;
            let length = || self.operation.faults.payload_capacity(self.transfer, self.unit);
            let Some(Transfer { family, bytes }) = self.dealer.next(length) else {
                self.free[self.own].returns.free(buffer);
                return Ok(());
            };
            let len = (bytes.end - bytes.start) as u32;
            let contents = self.pages.fill(family, bytes.clone(), &mut buffer.data_mut()[..len as usize]);
            let contents = contents.map_err(|failure| self.operation.stop(failure))?;
            let filled = Filled { buffer, len, contents, origin: BufferOrigin::large(self.own) };
            self.outputs[family as usize].deliver(bytes.start, bytes.end, filled)?;
        }
    }

    /// The next free buffer.
    fn buffer(&self, completions: &CompletionReader) -> Result<ServerBuffer, Stopped> {
        // Also where there are free buffers: a writer may wait for a failure.
        completions.process();
        let (earlier, from_own) = self.free.split_at(self.own);
        let ready = || match from_own.iter().chain(earlier).find_map(|list| list.take.try_recv().ok()) {
            Some(buffer) => Some(Ok(buffer)),
            // The abort that comes with it wakes readers.
            None => self.operation.is_over().then_some(Err(Stopped)),
        };
        // The agent reports an abort.
        completions.wait(ready).unwrap_or(Err(Stopped))
    }
}
