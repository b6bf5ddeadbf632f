//! The Reads of one device: one at a time, from one medium after the other.
//!
//! # Invariants
//!
//! 1. Bytes come in the order of the device's stream, however the client divides them, and whichever medium they are on.
//! 2. An error is cleared before the next command, and only then: a client whose last Read ended the data sees no ClearError.
//! 3. The next medium is asked for only where the stream is not at its end, the medium is, and the device is removable. A medium
//!    without a single byte ends the restore, and so do more than [`MARKS_IN_A_ROW`] filemarks without a byte between them, so
//!    that no client can keep it going for ever.
//!
//! **Decision**: bytes that come with an error count as read: a client that reports them vouches for them.

use vdi_proto::command::CommandCode;
use vdi_proto::completion::CompletionCode;
use vdi_proto::features::{DeviceKind, Features};

use super::Failure;
use super::driver::{Driver, Outgoing, RETRIES, is_recoverable};
use super::free_list::BufferOrigin;
use super::operation::Stopped;
use crate::vds::ServerBuffer;

/// How many Reads in a row may meet a filemark and bring nothing. The tape of an empty database has two marks in a row, and
/// WriteMark is repeated after errors, so that each may be there several times.
const MARKS_IN_A_ROW: u32 = 4 * (1 + RETRIES);

/// What a Read brought.
pub(super) struct Arrived {
    pub(super) buffer: ServerBuffer,
    pub(super) bytes: usize,
    /// How the Read ended.
    pub(super) end: ReadEnd,
}

/// How a Read ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum ReadEnd {
    /// There may be more.
    More,
    /// At a filemark; reading goes on behind it.
    Mark,
    /// At the end of the medium's data.
    Data,
}

/// The Reads of one device.
pub(super) struct Reads<'a> {
    pub(super) driver: Driver<'a>,
    /// Disk-like: where the next byte comes from on this medium.
    position: u64,
    /// Bytes that came from this medium.
    from_medium: u64,
    /// Filemarks since the last byte.
    marks: u32,
    /// The size of the outstanding Read.
    asked: u32,
    transfer: u32,
    /// The error that the last Read ended with, until it is cleared.
    error: Option<Failure>,
}

impl<'a> Reads<'a> {
    pub(super) fn new(driver: Driver<'a>, transfer: u32) -> Reads<'a> {
        Reads { driver, position: 0, from_medium: 0, marks: 0, asked: 0, transfer, error: None }
    }

    /// Asks for the next bytes.
    pub(super) fn ask(&mut self, buffer: ServerBuffer) -> Result<(), Stopped> {
        let block = self.driver.config.block_size;
        let faults = &self.driver.operation.faults;
        let bytes = faults.read_size(self.driver.index(), self.transfer, block);
        self.ask_for(buffer, bytes)
    }

    /// Asks for the next `bytes` bytes.
    pub(super) fn ask_for(&mut self, buffer: ServerBuffer, bytes: u32) -> Result<(), Stopped> {
        self.resume()?;
        let position = match self.driver.kind {
            DeviceKind::DiskLike => self.position,
            DeviceKind::PipeLike | DeviceKind::TapeLike => 0,
        };
        self.asked = bytes;
        let buffer = Some(buffer);
        let read =
            Outgoing { code: CommandCode::READ, size: bytes as i32, position, buffer, origin: BufferOrigin::SMALL };
        self.driver.send(read).map(drop)
    }

    /// Waits for the Read that was asked for.
    pub(super) fn arrived(&mut self) -> Result<Arrived, Stopped> {
        let mut fruitless = 0;
        loop {
            let ended = self.driver.wait_ended()?;
            let (code, bytes) = (ended.code, ended.bytes);
            let Some(buffer) = ended.buffer else { return Err(self.failed(code, bytes)) };
            let end = match code {
                // Some clients say so without an error: success without a byte.
                code if code.is_success() && bytes == 0 => ReadEnd::Data,
                code if code.is_success() => ReadEnd::More,
                code if code.is_end_of_data() => ReadEnd::Data,
                CompletionCode::FILEMARK_DETECTED if self.driver.kind == DeviceKind::TapeLike => ReadEnd::Mark,
                code if is_recoverable(code) && bytes > 0 => ReadEnd::More,
                code if is_recoverable(code) && fruitless < RETRIES => {
                    fruitless += 1;
                    self.error = Some(self.failure(code, bytes));
                    self.ask_for(buffer, self.asked)?;
                    continue;
                }
                code => return Err(self.failed(code, bytes)),
            };
            self.marks = match end {
                ReadEnd::Mark if bytes == 0 => self.marks + 1,
                _ => 0,
            };
            if self.marks > MARKS_IN_A_ROW {
                return Err(self.failed(code, bytes));
            }
            if !code.is_success() {
                self.error = Some(self.failure(code, bytes));
            }
            self.position += u64::from(bytes);
            self.from_medium += u64::from(bytes);
            return Ok(Arrived { buffer, bytes: bytes as usize, end });
        }
    }

    /// Clears the error that the last Read ended with: to be called before any other command.
    pub(super) fn resume(&mut self) -> Result<(), Stopped> {
        self.error.take().map_or(Ok(()), |failure| self.driver.clear_error(failure))
    }

    fn failure(&self, code: CompletionCode, bytes: u32) -> Failure {
        self.driver.failure(CommandCode::READ, code, bytes, self.asked)
    }

    fn failed(&self, code: CompletionCode, bytes: u32) -> Stopped {
        self.driver.operation.stop(self.failure(code, bytes))
    }

    /// The medium's data has ended and the stream has not: goes on with the next medium; false where there can be none.
    pub(super) fn next_medium(&mut self) -> Result<bool, Stopped> {
        if !self.driver.has(Features::REMOVABLE) || self.from_medium == 0 {
            return Ok(false);
        }
        self.resume()?;
        self.driver.load_next()?;
        self.restarted();
        Ok(true)
    }

    /// The next Read begins at the beginning of a medium.
    pub(super) fn restarted(&mut self) {
        self.position = 0;
        self.from_medium = 0;
    }
}
