//! The seam between the code that reads devices and the code that reads what is on them.

use crossbeam::channel::Receiver;

use super::Failure;

/// How far [`Feed::feed`] has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fed {
    /// It has taken all bytes, and needs more.
    More,
    /// The rest of the bytes may be fed once [`Feed::second_pass`] is disconnected.
    SecondPass,
    /// The content ends here. No more bytes are needed, and the rest of these is nothing of it.
    End,
}

/// Takes the bytes of one device in pieces of any size.
pub(super) trait Feed: Send {
    /// Whether the content goes on behind these bytes, which are the next and will be [fed](Self::feed) next. To be called once for all
    /// bytes: so the next ones can be asked for before these are worked on.
    fn needs_more(&mut self, bytes: &[u8]) -> bool;

    /// Whether the content may end behind the bytes that [`needs_more`](Self::needs_more) saw last, if the medium does.
    fn may_end(&self) -> bool {
        false
    }

    /// Takes the next bytes, and carries out what they say.
    ///
    /// # Errors
    /// The statement has failed; nothing may be fed any more.
    fn feed(&mut self, bytes: &mut &[u8]) -> Result<Fed, Failure>;

    /// No more bytes come.
    ///
    /// # Errors
    /// What is missing.
    fn end_of_data(&mut self) -> Result<(), Failure>;

    /// Bytes of files that were moved since the last call.
    fn take_moved(&mut self) -> u64 {
        0
    }

    /// Disconnected once all devices have ended their first pass.
    fn second_pass(&self) -> Option<&Receiver<()>> {
        None
    }
}
