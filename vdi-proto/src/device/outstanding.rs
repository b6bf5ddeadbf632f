//! The outstanding commands of a device: a table of 64 places and a map of those in use.

use super::QUEUE_DEPTH;
use crate::command::{CommandCode, CommandId};

const PLACE_BITS: u32 = QUEUE_DEPTH.trailing_zeros();

#[derive(Debug, Clone, Copy)]
pub(super) struct Entry {
    pub(super) id: CommandId,
    pub(super) code: CommandCode,
    /// Bytes to transfer; 0 for commands that transfer none.
    pub(super) bytes: u32,
}

#[derive(Debug, Clone)]
pub(super) struct Outstanding {
    entries: [Entry; QUEUE_DEPTH as usize],
    /// Bit n is set while place n is in use.
    used: u64,
}

/// The place of a command in the table: below [`QUEUE_DEPTH`].
pub(super) const fn place(id: CommandId) -> usize {
    (id.0 & (QUEUE_DEPTH - 1)) as usize
}

impl Outstanding {
    pub(super) const fn new() -> Self {
        let nothing = Entry { id: CommandId(0), code: CommandCode::READ, bytes: 0 };
        Outstanding { entries: [nothing; QUEUE_DEPTH as usize], used: 0 }
    }

    pub(super) const fn len(&self) -> u32 {
        self.used.count_ones()
    }

    pub(super) const fn is_empty(&self) -> bool {
        self.used == 0
    }

    /// The id for the next command, or `None` when all places are in use. Ids of one place differ in `sequence`.
    #[inline]
    pub(super) const fn next_id(&self, sequence: u32) -> Option<CommandId> {
        let place = self.used.trailing_ones();
        if place == QUEUE_DEPTH { None } else { Some(CommandId(sequence << PLACE_BITS | place)) }
    }

    /// Whatever is outstanding in the place of `id`.
    #[inline]
    pub(super) const fn in_place_of(&self, id: CommandId) -> Option<Entry> {
        let place = place(id);
        if self.used & (1 << place) == 0 { None } else { Some(self.entries[place]) }
    }

    #[inline]
    pub(super) fn get(&self, id: CommandId) -> Option<Entry> {
        self.in_place_of(id).filter(|entry| entry.id == id)
    }

    /// Enters a command; its place must be free.
    #[inline]
    pub(super) const fn insert(&mut self, entry: Entry) {
        let place = place(entry.id);
        self.entries[place] = entry;
        self.used |= 1 << place;
    }

    #[inline]
    pub(super) const fn remove(&mut self, id: CommandId) {
        self.used &= !(1 << place(id));
    }

    pub(super) const fn pop(&mut self) -> Option<Entry> {
        if self.used == 0 {
            return None;
        }
        let place = self.used.trailing_zeros() as usize;
        self.used &= self.used - 1;
        Some(self.entries[place])
    }
}
