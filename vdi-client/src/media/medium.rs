//! One medium in a device: a run of bytes, or a tape.

use std::fmt;
use std::fs::File;
use std::io::{self, ErrorKind, Read, Write};
use std::os::unix::fs::FileExt;

use rustix::fs::SeekFrom;
use vdi_proto::command::CommandCode;
use vdi_proto::features::DeviceKind;

use super::cursor::Cursor;
use super::partial::{Step, checkpoint};
use super::progress::Direction;
use super::tape::Tape;
use super::{MediaError, fill, store};

/// The file that a medium is kept in, and its name in errors.
#[derive(Clone, Copy)]
pub(super) struct On<'a> {
    pub(super) file: &'a File,
    pub(super) name: &'a dyn fmt::Display,
    /// It goes on where it is, whatever the offset.
    pub(super) stream: bool,
}

impl On<'_> {
    pub(super) fn cannot(&self, verb: &str, offset: u64, error: io::Error) -> MediaError {
        MediaError::io(format!("cannot {verb} {} at byte {offset}", self.name), error)
    }

    /// Stores all of `data` at `offset`; a failure says how many bytes were stored.
    pub(super) fn store(&self, offset: u64, data: &[u8]) -> Result<(), MediaError> {
        checkpoint(Step::Write)
            .map_err(|error| (0, error))
            .and_then(|()| {
                store(data, |done, rest| match (self.stream, self.file) {
                    (true, mut file) => file.write(rest),
                    (false, file) => file.write_at(rest, offset.saturating_add(done as u64)),
                })
            })
            .map_err(|(done, error)| {
                self.cannot("write to", offset.saturating_add(done as u64), error).with_bytes(done)
            })
    }

    /// Fills `buffer` from `offset` up to the end of the file; a failure says how many bytes are good.
    pub(super) fn fill(&self, offset: u64, buffer: &mut [u8]) -> Result<usize, MediaError> {
        fill(buffer, |done, rest| match (self.stream, self.file) {
            (true, mut file) => file.read(rest),
            (false, file) => file.read_at(rest, offset.saturating_add(done as u64)),
        })
        .map_err(|(done, error)| self.cannot("read", offset.saturating_add(done as u64), error).with_bytes(done))
    }

    /// As [`On::fill`], of a file that must not end before.
    pub(super) fn fill_all(&self, offset: u64, buffer: &mut [u8]) -> Result<(), MediaError> {
        let done = self.fill(offset, buffer)?;
        if done == buffer.len() {
            return Ok(());
        }
        let ended = io::Error::from(ErrorKind::UnexpectedEof);
        Err(self.cannot("read", offset.saturating_add(done as u64), ended).with_bytes(done))
    }

    /// The length of the file; also that of a block device, which its metadata does not tell.
    pub(super) fn length(&self) -> Result<u64, MediaError> {
        rustix::fs::seek(self.file, SeekFrom::End(0))
            .map_err(|error| MediaError::io(format!("cannot find the end of {}", self.name), error.into()))
            .map_err(|error| error.with_remedy("a disk-like set needs a file or a block device"))
    }
}

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
