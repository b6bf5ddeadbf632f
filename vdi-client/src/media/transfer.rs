//! Transfers that go on until all is stored or read.

use std::fmt;
use std::fs::File;
use std::io::{self, ErrorKind, Read, Write};
use std::os::unix::fs::FileExt;

use rustix::fs::SeekFrom;

use super::error::MediaError;
use super::steps::{Step, checkpoint};

/// Hands `data` to `write` (told how much is done) until all is stored; a failure says how many bytes were.
pub(super) fn store(
    data: &[u8],
    mut write: impl FnMut(usize, &[u8]) -> io::Result<usize>,
) -> Result<(), (usize, io::Error)> {
    let mut done = 0;
    while let Some(rest) = data.get(done..).filter(|rest| !rest.is_empty()) {
        match write(done, rest) {
            Ok(0) => return Err((done, io::ErrorKind::WriteZero.into())),
            Ok(count) => done += count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err((done, error)),
        }
    }
    Ok(())
}

/// Has `read` (told how much is done) fill `buffer` up to the end of the data; a failure says how many bytes are good.
pub(super) fn fill(
    buffer: &mut [u8],
    mut read: impl FnMut(usize, &mut [u8]) -> io::Result<usize>,
) -> Result<usize, (usize, io::Error)> {
    let mut done = 0;
    while let Some(rest) = buffer.get_mut(done..).filter(|rest| !rest.is_empty()) {
        match read(done, rest) {
            Ok(0) => break,
            Ok(count) => done += count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err((done, error)),
        }
    }
    Ok(done)
}

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

    /// The length of the file; also that of a block device, which is not in its metadata.
    pub(super) fn length(&self) -> Result<u64, MediaError> {
        rustix::fs::seek(self.file, SeekFrom::End(0))
            .map_err(|error| MediaError::io(format!("cannot find the end of {}", self.name), error.into()))
            .map_err(|error| error.with_remedy("a disk-like set needs a file or a block device"))
    }
}
