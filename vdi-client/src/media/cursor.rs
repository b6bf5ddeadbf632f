//! Where a disk-like device is on its medium.
//!
//! # Invariants
//!
//! 1. The end is the highest byte that was ever written, or the length of what is read. That is also where Flush has the file
//!    end. (**Decision**: the specification has it end "at the last position previously written". Taken by its letters, a
//!    header that is written anew at byte 0 would cut off the whole backup.)
//! 2. No position beyond [`LAST`] is ever passed to the system, and no sum overflows.

use vdi_proto::completion::CompletionCode;

use super::MediaError;

/// The highest position that a file can have; SetPosition's are signed.
const LAST: u64 = i64::MAX as u64;

/// The position after the last transfer, and the end, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Cursor {
    pub(super) position: u64,
    pub(super) end: u64,
}

impl Cursor {
    pub(super) fn at_beginning(end: u64) -> Cursor {
        Cursor { position: 0, end }
    }

    /// Whether a transfer of `length` bytes at `position` stays within what a file can hold.
    pub(super) fn check(position: u64, length: usize) -> Result<(), MediaError> {
        match position.checked_add(length as u64) {
            Some(end) if end <= LAST => Ok(()),
            _ => Err(MediaError::new(
                CompletionCode::IO_DEVICE,
                format!("{length} bytes at position {position} lie outside every file"),
            )
            .with_remedy("positions end at 2^63 - 1; report that with the server's version")),
        }
    }

    /// `done` bytes were read at `position`, which [`Cursor::check`] let pass.
    pub(super) fn read(&mut self, position: u64, done: usize) {
        self.position = position.saturating_add(done as u64);
    }

    /// `done` bytes were written at `position`, which [`Cursor::check`] let pass.
    pub(super) fn written(&mut self, position: u64, done: usize) {
        self.read(position, done);
        if done > 0 {
            self.end = self.end.max(self.position);
        }
    }

    /// SetPosition: `offset`, signed, counts from the beginning (`whence` 0), from here (1) or from the end (2).
    ///
    /// Where that is before the beginning or beyond the end, and where `whence` is something else, the position stays as
    /// it is.
    pub(super) fn seek(&mut self, whence: i32, offset: u64) -> Result<u64, MediaError> {
        let refused = |what: String| {
            MediaError::new(CompletionCode::IO_DEVICE, what)
                .with_remedy("report that with the server's version")
                .recoverable()
        };
        let base = match whence {
            0 => 0,
            1 => self.position,
            2 => self.end,
            _ => return Err(refused(format!("SetPosition has whence {whence}, which is none of 0, 1 and 2"))),
        };
        let offset = offset as i64;
        match base.checked_add_signed(offset).filter(|target| *target <= self.end) {
            Some(target) => {
                self.position = target;
                Ok(target)
            }
            None => Err(refused(format!(
                "SetPosition to {offset} from {base} lies outside the medium, which ends at byte {}",
                self.end
            ))),
        }
    }
}
