//! The Writes of one device: kept in flight, stored in order, sent again where a device stored only a part of them.
//!
//! # Invariants
//!
//! 1. Every byte given to [`Writes::write`] is stored exactly once, and on devices without random access in the order of the
//!    calls. A Write counts as stored as far as the client reports bytes; what is left is sent again.
//! 2. A buffer goes back to its list when all its bytes are stored, and not earlier.
//! 3. On removable devices with a warning zone no more bytes are outstanding than it has (but at least one Write), so that all of
//!    them find room behind the warning.
//! 4. A medium is flushed before the next one is loaded.
//!
//! Source: VDI specification, "End Of Media and Unexpected Filemarks".

use std::collections::VecDeque;

use crossbeam::channel::{Receiver, select};
use vdi_proto::command::CommandCode;
use vdi_proto::completion::CompletionCode;
use vdi_proto::device::QUEUE_DEPTH;
use vdi_proto::features::{DeviceKind, Features};

use super::Failure;
use super::driver::{Driver, Ended, Outgoing, RETRIES, is_recoverable};
use super::free_list::{BufferOrigin, FreeLists};
use super::operation::Stopped;
use crate::vds::ServerBuffer;

/// Commands that a device holds at most: one less than it could, so that Discard always finds room.
const MOST_IN_FLIGHT: u32 = QUEUE_DEPTH - 1;

/// A Write that is not known to be stored yet, or that waits for those before it.
struct Sent {
    number: u64,
    bytes: u32,
    /// Bytes of files in it.
    payload: u32,
    origin: BufferOrigin,
    /// Where it goes on a disk-like medium.
    position: u64,
    state: State,
}

enum State {
    Outstanding,
    Stored,
    /// Ended with an error after so many bytes.
    Failed {
        code: CompletionCode,
        stored: u32,
        buffer: Option<ServerBuffer>,
    },
}

/// The Writes of one device.
pub(super) struct Writes<'a> {
    pub(super) driver: Driver<'a>,
    lists: FreeLists,
    /// In the order of their numbers, which have no gaps.
    sent: VecDeque<Sent>,
    /// A Write failed: nothing may be sent before [`Writes::recover`].
    troubled: bool,
    bytes_in_flight: u64,
    /// Bytes stored so far.
    stored: u64,
    most_bytes_in_flight: u64,
    /// The medium is full: the next bytes or marks go to another one.
    full: bool,
    /// Disk-like: where the next byte goes on this medium.
    position: u64,
    /// Writes given so far.
    count: u64,
}

impl<'a> Writes<'a> {
    pub(super) fn new(driver: Driver<'a>, lists: FreeLists) -> Writes<'a> {
        let zone = driver.config.eom_warning_size;
        let limited = driver.has(Features::REMOVABLE) && zone > 0;
        Writes {
            driver,
            lists,
            sent: VecDeque::new(),
            troubled: false,
            bytes_in_flight: 0,
            stored: 0,
            most_bytes_in_flight: if limited { u64::from(zone) } else { u64::MAX },
            full: false,
            position: 0,
            count: 0,
        }
    }

    /// Whether a Write of so many bytes may be sent at once: nothing has to be waited for, nothing put right before, and no fault makes
    /// it wait.
    pub(super) fn takes_at_once(&mut self, bytes: u32) -> bool {
        self.note_successes();
        !self.troubled
            && self.driver.failed.is_empty()
            && !self.full
            && self.driver.in_flight() < MOST_IN_FLIGHT
            && self.has_room(bytes)
            && !self.driver.operation.faults.follow_write(self.driver.index(), self.count + 1)
            && !self.driver.delays_next()
    }

    fn has_room(&self, bytes: u32) -> bool {
        self.bytes_in_flight == 0 || self.bytes_in_flight.saturating_add(u64::from(bytes)) <= self.most_bytes_in_flight
    }

    /// Sends the first `bytes` bytes of a buffer, `payload` of which are bytes of files.
    pub(super) fn write(
        &mut self,
        buffer: ServerBuffer,
        bytes: u32,
        payload: u32,
        origin: BufferOrigin,
    ) -> Result<(), Stopped> {
        while self.driver.in_flight() >= MOST_IN_FLIGHT || !self.has_room(bytes) {
            self.wait_ended()?;
        }
        self.make_room()?;
        let position = match self.driver.kind {
            DeviceKind::DiskLike => self.position,
            DeviceKind::PipeLike | DeviceKind::TapeLike => 0,
        };
        self.position += u64::from(bytes);
        self.send(buffer, Sent { number: 0, bytes, payload, origin, position, state: State::Outstanding })?;
        self.count += 1;
        self.inject()
    }

    /// What the faults that are switched on do after a Write.
    fn inject(&mut self) -> Result<(), Stopped> {
        let faults = &self.driver.operation.faults;
        if faults.flush_after(self.count) {
            self.flush()?;
        }
        if faults.queue_full_burst(self.driver.index(), self.count) {
            self.settle()?;
            self.driver.fill_queue()?;
        }
        Ok(())
    }

    fn send(&mut self, buffer: ServerBuffer, sent: Sent) -> Result<(), Stopped> {
        let number = self.driver.send(Outgoing {
            code: CommandCode::WRITE,
            size: sent.bytes as i32,
            position: sent.position,
            buffer: Some(buffer),
            origin: sent.origin,
        })?;
        self.bytes_in_flight += u64::from(sent.bytes);
        self.sent.push_back(Sent { number, ..sent });
        Ok(())
    }

    /// Waits until one Write has ended, and for all that follows if it failed.
    fn wait_ended(&mut self) -> Result<(), Stopped> {
        let ended = self.driver.wait_ended()?;
        self.note(ended);
        if self.troubled { self.recover() } else { Ok(()) }
    }

    /// Receives from a channel, and sees to what fails meanwhile.
    pub(super) fn wait_for<T>(&mut self, channel: &Receiver<T>) -> Result<Option<T>, Stopped> {
        loop {
            self.repair()?;
            select! {
                recv(self.driver.failed) -> ended => self.note_failed(ended.map_err(|_| Stopped)?)?,
                recv(channel) -> received => return Ok(received.ok()),
                recv(self.driver.operation.over()) -> _ => return Err(Stopped),
            }
        }
    }

    /// Takes note of a Write that failed, and sees to it.
    pub(super) fn note_failed(&mut self, ended: Ended) -> Result<(), Stopped> {
        let ended = self.driver.took(ended)?;
        self.note(ended);
        self.repair()
    }

    /// Counts the Writes that have succeeded by now, and stores once more what those stored too little of.
    pub(super) fn repair(&mut self) -> Result<(), Stopped> {
        self.note_successes();
        if self.troubled { self.recover() } else { Ok(()) }
    }

    fn note_successes(&mut self) {
        while let Some(ended) = self.driver.next_success() {
            self.note(ended);
        }
    }

    /// Takes note of a Write that has ended.
    fn note(&mut self, ended: Ended) {
        let Ended { number, code, bytes, buffer, .. } = ended;
        let first = self.sent.front().map_or(0, |sent| sent.number);
        let Some(sent) = number.checked_sub(first).and_then(|index| self.sent.get_mut(index as usize)) else { return };
        self.bytes_in_flight -= u64::from(sent.bytes);
        self.stored += u64::from(bytes);
        if code.is_success() && bytes == sent.bytes {
            sent.state = State::Stored;
        } else {
            sent.state = State::Failed { code, stored: bytes, buffer };
            self.troubled = true;
        }
        while let Some(Sent { state: State::Stored, .. }) = self.sent.front() {
            if let Some(sent) = self.sent.pop_front() {
                self.driver.succeeded(u64::from(sent.payload));
            }
        }
    }

    /// Waits until everything written is stored.
    pub(super) fn settle(&mut self) -> Result<(), Stopped> {
        // A Write that has ended already sends no further notification.
        self.repair()?;
        while !self.sent.is_empty() {
            self.wait_ended()?;
        }
        Ok(())
    }

    /// After an error: waits for what is outstanding, clears it, and sends what is not stored again, until all is.
    fn recover(&mut self) -> Result<(), Stopped> {
        let mut fruitless = 0;
        // What the failed Write that led here stored is progress.
        let partly = self.sent.iter().map(|sent| match sent.state {
            State::Failed { stored, .. } => u64::from(stored),
            State::Stored | State::Outstanding => 0,
        });
        let mut before = self.stored - partly.sum::<u64>();
        while self.troubled {
            while self.driver.in_flight() > 0 {
                let ended = self.driver.wait_ended()?;
                self.note(ended);
            }
            self.troubled = false;
            let warned = self.classify()?;
            self.full |= warned;
            fruitless = if self.stored > before { 0 } else { fruitless + 1 };
            before = self.stored;
            // What was pending at the warning gets one more chance; a device that cannot store it then never will.
            if fruitless > if warned { 1 } else { RETRIES } {
                return Err(self.driver.operation.stop(self.first_failure()));
            }
            let failure = self.first_failure();
            self.driver.clear_error(failure)?;
            self.send_rest()?;
            while self.driver.in_flight() > 0 {
                let ended = self.driver.wait_ended()?;
                self.note(ended);
            }
        }
        Ok(())
    }

    /// Classifies what failed; true where the end of the medium was reached.
    fn classify(&self) -> Result<bool, Stopped> {
        let (block, removable) = (self.driver.config.block_size, self.driver.has(Features::REMOVABLE));
        let (mut full, mut missing) = (false, false);
        for sent in &self.sent {
            let (code, stored) = match &sent.state {
                State::Failed { code, stored, .. } => (*code, *stored),
                State::Stored | State::Outstanding => (CompletionCode::SUCCESS, sent.bytes),
            };
            if missing && stored > 0 && self.driver.kind != DeviceKind::DiskLike {
                let what = format!("{stored} bytes of a later Write were stored after an earlier one was not");
                return Err(self.driver.protocol_error(CommandCode::WRITE, what));
            }
            missing |= stored < sent.bytes;
            match code {
                // A short write under the code of success: the device had no room for the rest.
                code if code.is_success() && stored < sent.bytes => {
                    let full = CompletionCode::DISK_FULL;
                    return Err(self.driver.failed(CommandCode::WRITE, full, stored, sent.bytes));
                }
                code if code.is_success() => {}
                CompletionCode::END_OF_MEDIA if removable => full = true,
                code if is_recoverable(code) => {}
                code => return Err(self.driver.failed(CommandCode::WRITE, code, stored, sent.bytes)),
            }
            if !stored.is_multiple_of(block) {
                let what = format!("{stored} bytes were stored, which is no multiple of BLOCKSIZE {block}");
                return Err(self.driver.protocol_error(CommandCode::WRITE, what));
            }
        }
        Ok(full)
    }

    fn first_failure(&self) -> Failure {
        let failed = self.sent.iter().find_map(|sent| match &sent.state {
            State::Failed { code, stored, .. } => Some((*code, *stored, sent.bytes)),
            State::Stored | State::Outstanding => None,
        });
        let (code, stored, bytes) = failed.unwrap_or((CompletionCode::IO_DEVICE, 0, 0));
        self.driver.failure(CommandCode::WRITE, code, stored, bytes)
    }

    /// Sends again what is not stored.
    fn send_rest(&mut self) -> Result<(), Stopped> {
        for mut sent in std::mem::take(&mut self.sent) {
            let (stored, mut buffer) = match sent.state {
                State::Failed { stored, buffer: Some(buffer), .. } => (stored, buffer),
                State::Failed { code, stored, buffer: None } => {
                    return Err(self.driver.failed(CommandCode::WRITE, code, stored, sent.bytes));
                }
                State::Stored | State::Outstanding => {
                    self.driver.succeeded(u64::from(sent.payload));
                    continue;
                }
            };
            if stored == sent.bytes {
                self.lists.free(sent.origin, buffer);
                self.driver.succeeded(u64::from(sent.payload));
                continue;
            }
            buffer.data_mut().copy_within(stored as usize..sent.bytes as usize, 0);
            sent.bytes -= stored;
            sent.position += u64::from(if self.driver.kind == DeviceKind::DiskLike { stored } else { 0 });
            sent.state = State::Outstanding;
            self.send(buffer, sent)?;
        }
        Ok(())
    }

    /// Changes the medium if it is full; everything written is stored on it then. **Decision**: not before there is more to
    /// be written.
    fn make_room(&mut self) -> Result<(), Stopped> {
        if std::mem::take(&mut self.full) {
            self.driver.command(CommandCode::FLUSH, 0, 0)?;
            self.driver.load_next()?;
            self.position = 0;
        }
        Ok(())
    }

    /// Sends a command without data after everything written is stored; it has to succeed.
    pub(super) fn command(&mut self, code: CommandCode) -> Result<(), Stopped> {
        self.settle()?;
        self.driver.command(code, 0, 0).map(drop)
    }

    /// Flush: everything written is durable then.
    pub(super) fn flush(&mut self) -> Result<(), Stopped> {
        self.command(CommandCode::FLUSH)
    }

    /// Tape-like: a filemark behind everything written.
    pub(super) fn mark(&mut self) -> Result<(), Stopped> {
        if self.driver.kind != DeviceKind::TapeLike {
            return Ok(());
        }
        self.settle()?;
        self.make_room()?;
        let answer = self.driver.attempt(CommandCode::WRITE_MARK, 0, 0)?;
        match answer.code {
            code if code.is_success() => {}
            // The mark is written.
            CompletionCode::END_OF_MEDIA => self.full = true,
            code => return Err(self.driver.failed(CommandCode::WRITE_MARK, code, 0, 0)),
        }
        Ok(())
    }
}
