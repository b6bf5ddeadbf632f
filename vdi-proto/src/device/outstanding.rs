//! The outstanding commands of a device: a table of 64 entries and a bitmap of the used entries.

use core::hash::{Hash, Hasher};

use super::QUEUE_DEPTH;
use crate::command::{CommandCode, CommandId};

const INDEX_BITS: u32 = QUEUE_DEPTH.trailing_zeros();

/// An outstanding command, as a machine keeps it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct Entry {
    pub(super) id: CommandId,
    pub(super) code: CommandCode,
    /// Bytes to transfer; 0 for commands that transfer none.
    pub(super) bytes: u32,
}

/// The outstanding commands. Unused entries are `UNUSED`, so that equal tables compare equal.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Outstanding {
    entries: [Entry; QUEUE_DEPTH as usize],
    /// Bit n is set while entry n is in use.
    used: u64,
}

impl Hash for Outstanding {
    /// Hashes the used entries only; the others are equal in all tables.
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.used.hash(state);
        let mut rest = self.used;
        while rest != 0 {
            self.entries[rest.trailing_zeros() as usize].hash(state);
            rest &= rest - 1;
        }
    }
}

const UNUSED: Entry = Entry { id: CommandId(0), code: CommandCode::READ, bytes: 0 };

/// The index of a command in the table: the low bits of its id, below [`QUEUE_DEPTH`].
pub(super) const fn index(id: CommandId) -> usize {
    (id.0 % QUEUE_DEPTH) as usize
}

impl Outstanding {
    pub(super) const fn new() -> Self {
        Outstanding { entries: [UNUSED; QUEUE_DEPTH as usize], used: 0 }
    }

    pub(super) const fn len(&self) -> u32 {
        self.used.count_ones()
    }

    pub(super) const fn is_empty(&self) -> bool {
        self.used == 0
    }

    /// The id for the next command, or `None` if the table is full. Ids with the same index differ in `sequence`.
    #[inline]
    pub(super) const fn next_id(&self, sequence: u32) -> Option<CommandId> {
        let index = self.used.trailing_ones();
        if index == QUEUE_DEPTH { None } else { Some(CommandId(sequence << INDEX_BITS | index)) }
    }

    /// The outstanding command with the same index as `id`.
    #[inline]
    pub(super) const fn at_index_of(&self, id: CommandId) -> Option<Entry> {
        let index = index(id);
        if self.used & (1 << index) == 0 { None } else { Some(self.entries[index]) }
    }

    #[inline]
    pub(super) fn get(&self, id: CommandId) -> Option<Entry> {
        self.at_index_of(id).filter(|entry| entry.id == id)
    }

    /// Adds a command; its index must be unused.
    #[inline]
    pub(super) const fn insert(&mut self, entry: Entry) {
        let index = index(entry.id);
        self.entries[index] = entry;
        self.used |= 1 << index;
    }

    #[inline]
    pub(super) const fn remove(&mut self, id: CommandId) {
        let index = index(id);
        self.entries[index] = UNUSED;
        self.used &= !(1 << index);
    }

    /// Removes any command.
    pub(super) fn pop(&mut self) -> Option<Entry> {
        if self.used == 0 {
            return None;
        }
        let entry = self.entries[self.used.trailing_zeros() as usize];
        self.remove(entry.id);
        Some(entry)
    }
}
