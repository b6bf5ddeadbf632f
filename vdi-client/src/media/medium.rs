//! One medium in a device: a run of bytes, or a tape.

use vdi_proto::command::CommandCode;
use vdi_proto::completion::CompletionCode;
use vdi_proto::features::DeviceKind;

use super::error::MediaError;
use super::tape::Tape;
use super::target::Direction;
use super::transfer::On;

#[derive(Debug)]
pub(super) enum Medium {
    /// Of a pipe-like device, which goes on where it is, or of a disk-like one, which goes by positions.
    Bytes {
        cursor: Cursor,
        random_access: bool,
    },
    Tape(Tape),
}

impl Medium {
    /// The medium that `on` holds, at its beginning.
    pub(super) fn open(kind: DeviceKind, on: On<'_>, block: u64, direction: Direction) -> Result<Medium, MediaError> {
        if kind == DeviceKind::TapeLike {
            let mut tape = Tape::scan(on)?;
            tape.set_block(block, on)?;
            return Ok(Medium::Tape(tape));
        }
        let random_access = kind == DeviceKind::DiskLike;
        // A backup begins with nothing, and what has no positions needs no end.
        let end = if random_access && direction == Direction::Restore { on.length()? } else { 0 };
        Ok(Medium::Bytes { cursor: Cursor::at_beginning(end), random_access })
    }

    /// How many bytes of data lie before the place that a Write with this position goes to.
    pub(super) fn start(&self, position: u64) -> u64 {
        match self {
            Medium::Bytes { random_access: true, .. } => position,
            Medium::Bytes { cursor, .. } => cursor.position,
            Medium::Tape(tape) => tape.data_before(),
        }
    }

    /// Stores all of `data`; whatever fails is final.
    pub(super) fn write(&mut self, on: On<'_>, position: u64, data: &[u8]) -> Result<(), MediaError> {
        match self {
            Medium::Bytes { cursor, random_access } => {
                let position = if *random_access { position } else { cursor.position };
                Cursor::check(position, data.len())?;
                on.store(position, data)?;
                cursor.written(position, data.len());
                Ok(())
            }
            Medium::Tape(tape) => tape.write(on, data),
        }
    }

    pub(super) fn read(&mut self, on: On<'_>, position: u64, buffer: &mut [u8]) -> Result<usize, MediaError> {
        match self {
            Medium::Bytes { cursor, random_access } => {
                let position = if *random_access { position } else { cursor.position };
                Cursor::check(position, buffer.len()).map_err(MediaError::recoverable)?;
                let done = on.fill(position, buffer)?;
                cursor.read(position, done);
                Ok(done)
            }
            Medium::Tape(tape) => tape.read(on, buffer).map(|()| buffer.len()),
        }
    }

    pub(super) fn other(&mut self, on: On<'_>, code: CommandCode, size: i32, position: u64) -> Result<u64, MediaError> {
        match (self, code) {
            (Medium::Bytes { cursor, random_access: true }, CommandCode::GET_POSITION) => Ok(cursor.position),
            (Medium::Bytes { cursor, random_access: true }, CommandCode::SET_POSITION) => cursor.seek(size, position),
            (Medium::Tape(tape), CommandCode::GET_POSITION) => Ok(tape.address()),
            (Medium::Tape(tape), CommandCode::SET_POSITION) => tape.set_address(on, position),
            (Medium::Tape(tape), CommandCode::REWIND) => tape.set_address(on, 0),
            (Medium::Tape(tape), CommandCode::WRITE_MARK) => tape.write_mark(on).map(|()| 0),
            (Medium::Tape(tape), CommandCode::SKIP_MARKS) => tape.skip_marks(on, size).map(|()| 0),
            (Medium::Tape(tape), CommandCode::SKIP_BLOCKS) => tape.skip_blocks(on, size).map(|()| 0),
            _ => Err(MediaError::not_supported(code)),
        }
    }

    /// Back to the beginning.
    pub(super) fn rewind(&mut self) {
        match self {
            Medium::Bytes { cursor, .. } => cursor.position = 0,
            Medium::Tape(tape) => tape.rewind(),
        }
    }
}

/// The highest position that a file can have; SetPosition's are signed.
const LAST: u64 = i64::MAX as u64;

/// Where a disk-like device is on its medium: the position after the last transfer, and the end, in bytes.
///
/// The end is the highest byte that was ever written, or the length of what is read. Flush has the file end there, too.
/// (**Decision**: the specification has it end "at the last position previously written". Taken literally, a header that is
/// written anew at byte 0 would cut off the whole backup.)
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Cursor {
    position: u64,
    end: u64,
}

impl Cursor {
    fn at_beginning(end: u64) -> Cursor {
        Cursor { position: 0, end }
    }

    /// Whether a transfer of `length` bytes at `position` stays within what a file can hold.
    fn check(position: u64, length: usize) -> Result<(), MediaError> {
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
    fn read(&mut self, position: u64, done: usize) {
        self.position = position.saturating_add(done as u64);
    }

    /// `done` bytes were written at `position`, which [`Cursor::check`] let pass.
    fn written(&mut self, position: u64, done: usize) {
        self.read(position, done);
        if done > 0 {
            self.end = self.end.max(self.position);
        }
    }

    /// SetPosition: `offset`, signed, counts from the beginning (`whence` 0), from here (1) or from the end (2).
    ///
    /// Where that is before the beginning or beyond the end, and where `whence` is something else, the position stays as
    /// it is.
    fn seek(&mut self, whence: i32, offset: u64) -> Result<u64, MediaError> {
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
