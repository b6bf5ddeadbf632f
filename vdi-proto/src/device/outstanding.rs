//! The outstanding commands of a device: a table of 64 places and a map of those in use.

use super::QUEUE_DEPTH;
use crate::command::{CommandCode, CommandId};

const PLACE_BITS: u32 = QUEUE_DEPTH.trailing_zeros();

/// What a machine keeps of an outstanding command. Only the machines make one and look into it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Entry {
    pub(super) id: CommandId,
    pub(super) code: CommandCode,
    /// Bytes to transfer; 0 for commands that transfer none.
    pub(super) bytes: u32,
}

impl Entry {
    const NOTHING: Entry = Entry { id: CommandId(0), code: CommandCode::READ, bytes: 0 };
}

/// Where a machine keeps its outstanding commands: a place each, below [`QUEUE_DEPTH`].
///
/// An honest server takes the lowest free place, so a table that grows ([`Table`] is implemented for all that do as a `Vec` does)
/// has as many entries as a device ever had commands outstanding at a time. But the peer chooses the places, so every table has to
/// take all of them: one that grows only up to a smaller capacity would panic, or lose commands, as the peer likes.
///
/// ```
/// use vdi_proto::command::CommandCode;
/// use vdi_proto::device::{Entry, QUEUE_DEPTH, ServerDevice, Table};
///
/// // With an allocator: as many as are needed.
/// let mut device = ServerDevice::with_table(Vec::<Entry>::new());
/// assert!(device.send(CommandCode::FLUSH, 0).is_ok());
///
/// // A table of one's own, without one.
/// struct Elsewhere<'a>(&'a mut [Option<Entry>; QUEUE_DEPTH as usize]);
///
/// impl Table for Elsewhere<'_> {
///     fn get(&self, place: usize) -> Option<Entry> {
///         self.0[place]
///     }
///     fn put(&mut self, place: usize, entry: Entry) {
///         self.0[place] = Some(entry);
///     }
/// }
///
/// let mut entries = [None; QUEUE_DEPTH as usize];
/// let mut device = ServerDevice::with_table(Elsewhere(&mut entries));
/// assert!(device.send(CommandCode::FLUSH, 0).is_ok());
/// ```
pub trait Table {
    /// What was last put into a place: exactly that, or commands would never end. Anything, also nothing, where nothing was.
    fn get(&self, place: usize) -> Option<Entry>;
    /// Puts an entry into a place.
    fn put(&mut self, place: usize, entry: Entry);
}

/// A table that has all of its places from the start, and needs no allocation.
#[derive(Debug, Clone)]
pub struct Whole([Entry; QUEUE_DEPTH as usize]);

impl Whole {
    /// A table without commands.
    #[must_use]
    pub const fn new() -> Self {
        Whole([Entry::NOTHING; QUEUE_DEPTH as usize])
    }
}

impl Default for Whole {
    fn default() -> Self {
        Self::new()
    }
}

impl Table for Whole {
    #[inline]
    fn get(&self, place: usize) -> Option<Entry> {
        self.0.get(place).copied()
    }

    #[inline]
    fn put(&mut self, place: usize, entry: Entry) {
        if let Some(old) = self.0.get_mut(place) {
            *old = entry;
        }
    }
}

impl<T: AsRef<[Entry]> + AsMut<[Entry]> + Extend<Entry>> Table for T {
    #[inline]
    fn get(&self, place: usize) -> Option<Entry> {
        self.as_ref().get(place).copied()
    }

    #[inline]
    fn put(&mut self, place: usize, entry: Entry) {
        // Field by field: a processor that reads two words at once which it has just written singly waits until they have left it.
        let Entry { id, code, bytes } = entry;
        match self.as_mut().get_mut(place) {
            Some(old) => (old.id, old.code, old.bytes) = (id, code, bytes),
            None => grow(self, place, id, code, bytes),
        }
    }
}

/// More commands are outstanding than ever before, or a peer has taken a place that is not the lowest.
#[cold]
fn grow<T: AsRef<[Entry]> + Extend<Entry>>(table: &mut T, place: usize, id: CommandId, code: CommandCode, bytes: u32) {
    let between = place - table.as_ref().len();
    table.extend(core::iter::repeat_n(Entry::NOTHING, between).chain([Entry { id, code, bytes }]));
}

#[derive(Debug, Clone)]
pub(super) struct Outstanding<T> {
    entries: T,
    /// Bit n is set while place n is in use.
    used: u64,
}

/// The place of a command in the table: below [`QUEUE_DEPTH`].
pub(super) const fn place(id: CommandId) -> usize {
    (id.0 & (QUEUE_DEPTH - 1)) as usize
}

impl<T> Outstanding<T> {
    pub(super) const fn new(entries: T) -> Self {
        Outstanding { entries, used: 0 }
    }

    #[cfg(test)]
    pub(super) const fn table(&self) -> &T {
        &self.entries
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

    #[inline]
    pub(super) const fn remove(&mut self, id: CommandId) {
        self.used &= !(1 << place(id));
    }
}

impl<T: Table> Outstanding<T> {
    /// Whatever is outstanding in the place of `id`.
    #[inline]
    pub(super) fn in_place_of(&self, id: CommandId) -> Option<Entry> {
        let place = place(id);
        if self.used & (1 << place) == 0 { None } else { self.entries.get(place) }
    }

    #[inline]
    pub(super) fn get(&self, id: CommandId) -> Option<Entry> {
        self.in_place_of(id).filter(|entry| entry.id == id)
    }

    /// Enters a command; its place must be free.
    #[inline]
    pub(super) fn insert(&mut self, entry: Entry) {
        let place = place(entry.id);
        self.entries.put(place, entry);
        self.used |= 1 << place;
    }

    pub(super) fn pop(&mut self) -> Option<Entry> {
        if self.used == 0 {
            return None;
        }
        let place = self.used.trailing_zeros() as usize;
        self.used &= self.used - 1;
        self.entries.get(place)
    }
}
