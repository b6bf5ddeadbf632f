//! The tape in a tape image: records and marks in a file, and where the device is on it.
//!
//! # Invariants
//!
//! 1. The index in memory and the file agree, up to the first failure, which is final.
//! 2. Every record is a whole number of blocks, so that an address (blocks and marks before the position) names one place.
//!    Without an agreed block size a block is one byte.
//! 3. Equal neighbours share one entry of the index: its size goes with the marks and the changes of the record size, not with
//!    the bytes.
//!
//! The format is that of the SIMH simulators. All numbers are unsigned, of 32 bits, little-endian. A record is its length, its
//! bytes, a byte of padding if the length is odd, and the length again. A filemark is the number 0. The medium ends with the
//! file, or where the number is 0xFFFFFFFF. The upper half byte of a length is the class of the record; only good data, class
//! 0, is read or written here.

use core::fmt::Arguments;

use rustix::fs::Advice;
use vdi_proto::completion::CompletionCode;

use super::MediaError;
use super::medium::On;

/// The longest record of the format, in bytes.
const LONGEST: u32 = 0x00FF_FFFF;
/// The longest record that is written: the largest multiple of every block size. Transfers are shorter.
const LONGEST_WRITTEN: usize = 0x00FF_0000;
const MARK: u32 = 0;
const END: u32 = 0xFFFF_FFFF;
/// More filemarks in a row have no meaning. A file that was made long and never filled has nothing else.
const MOST_MARKS: u32 = 1 << 16;
/// Bytes of a number in the image.
const NUMBER: u64 = 4;

/// Neighbours of one length.
#[derive(Debug, Clone, Copy)]
struct Run {
    /// Where in the file the first begins.
    offset: u64,
    /// The address of the first.
    address: u64,
    /// How many.
    count: u64,
    /// Bytes of each record; 0 for marks.
    length: u32,
}

impl Run {
    fn is_marks(&self) -> bool {
        self.length == MARK
    }

    /// Bytes of the file that each takes.
    fn stride(&self) -> u64 {
        if self.is_marks() { NUMBER } else { padded(self.length) + 2 * NUMBER }
    }

    /// Addresses that each takes.
    fn units(&self, block: u64) -> u64 {
        if self.is_marks() { 1 } else { u64::from(self.length) / block }
    }

    fn end(&self, block: u64) -> u64 {
        self.address + self.count * self.units(block)
    }
}

fn padded(length: u32) -> u64 {
    u64::from(length) + u64::from(length & 1)
}

/// A place in the index.
struct Spot {
    run: usize,
    item: u64,
    /// Bytes of the record before the place.
    within: u64,
}

#[derive(Debug)]
pub(super) struct Tape {
    runs: Vec<Run>,
    /// Where in the file the last ends.
    end: u64,
    /// Bytes of data in all records.
    data: u64,
    block: u64,
    address: u64,
}

impl Tape {
    /// Reads the index of an image and checks it.
    pub(super) fn scan(on: On<'_>) -> Result<Tape, MediaError> {
        let length = on.length()?;
        // Only advice: reading ahead through the data of every record would be in vain.
        let _ = rustix::fs::fadvise(on.file, 0, None, Advice::Random);
        let mut tape = Tape { runs: Vec::new(), end: 0, data: 0, block: 1, address: 0 };
        let mut marks = 0;
        while tape.end < length {
            match number(on, tape.end, length, format_args!("a record's length or a filemark"))? {
                END => break,
                MARK if marks == MOST_MARKS => {
                    let expected = format_args!("anything else after {MOST_MARKS} filemarks");
                    return Err(damaged(on, tape.end, expected, format_args!("another one")));
                }
                MARK => {
                    tape.push(MARK);
                    marks += 1;
                }
                record if record <= LONGEST => {
                    let (begin, trailer) = (tape.end, tape.end + NUMBER + padded(record));
                    let expected = format_args!("the length {record} again, of the record that begins at byte {begin}");
                    let found = number(on, trailer, length, expected)?;
                    if found != record {
                        return Err(damaged(on, trailer, expected, format_args!("{found}")));
                    }
                    tape.push(record);
                    marks = 0;
                }
                other => {
                    let expected =
                        format_args!("a filemark (0), a record's length up to {LONGEST}, or the end ({END:#x})");
                    return Err(damaged(on, tape.end, expected, format_args!("{other:#x}")));
                }
            }
        }
        let _ = rustix::fs::fadvise(on.file, 0, None, Advice::Sequential);
        Ok(tape)
    }

    /// Counts addresses in blocks of this size from now on, and goes to the beginning.
    pub(super) fn set_block(&mut self, block: u64, on: On<'_>) -> Result<(), MediaError> {
        let block = block.max(1);
        if let Some(run) = self.runs.iter().find(|run| u64::from(run.length) % block != 0) {
            let what = format!(
                "{} has a record of {} bytes at byte {}, which is no multiple of the block size {block}",
                on.name, run.length, run.offset
            );
            return Err(MediaError::new(CompletionCode::IO_DEVICE, what)
                .with_remedy("restore with the BLOCKSIZE that the backup was made with"));
        }
        self.block = block;
        self.address = 0;
        let mut address = 0;
        for run in &mut self.runs {
            run.address = address;
            address = run.end(block);
        }
        Ok(())
    }

    /// Blocks and marks before the position.
    pub(super) fn address(&self) -> u64 {
        self.address
    }

    pub(super) fn rewind(&mut self) {
        self.address = 0;
    }

    /// Bytes of data before the position.
    pub(super) fn data_before(&self) -> u64 {
        if self.address == self.last_address() {
            return self.data;
        }
        let before = self.runs.iter().take_while(|run| run.address < self.address).filter(|run| !run.is_marks());
        before.map(|run| (self.address.min(run.end(self.block)) - run.address) * self.block).sum()
    }

    /// SetPosition and Rewind.
    pub(super) fn set_address(&mut self, on: On<'_>, address: u64) -> Result<u64, MediaError> {
        let last = self.last_address();
        if address > last {
            let what = format!("SetPosition to block {address} of {}, whose data ends at block {last}", on.name);
            return Err(MediaError::new(CompletionCode::IO_DEVICE, what)
                .with_remedy("only positions that GetPosition returned exist; report that with the server's version")
                .recoverable());
        }
        self.address = address;
        Ok(address)
    }

    /// Stores `data` as the next record and forgets what followed.
    pub(super) fn write(&mut self, on: On<'_>, data: &[u8]) -> Result<(), MediaError> {
        self.check("a Write", data.len())?;
        if data.is_empty() {
            // A record of no bytes would be a mark.
            return Ok(());
        }
        self.cut(on)?;
        for record in data.chunks(LONGEST_WRITTEN) {
            let length = record.len() as u32;
            on.store(self.end, &length.to_le_bytes())
                .and_then(|()| on.store(self.end + NUMBER, record))
                .and_then(|()| {
                    // The padding, where there is one, and the length.
                    let [a, b, c, d] = length.to_le_bytes();
                    let trailer: &[u8] = if length & 1 == 1 { &[0, a, b, c, d] } else { &[a, b, c, d] };
                    on.store(self.end + NUMBER + u64::from(length), trailer)
                })
                // A record is stored whole or not at all.
                .map_err(|error| error.with_bytes(0))?;
            self.push(length);
        }
        self.address = self.last_address();
        Ok(())
    }

    /// Writes a mark and forgets what followed.
    pub(super) fn write_mark(&mut self, on: On<'_>) -> Result<(), MediaError> {
        self.cut(on)?;
        on.store(self.end, &MARK.to_le_bytes()).map_err(|error| error.with_bytes(0))?;
        self.push(MARK);
        self.address = self.last_address();
        Ok(())
    }

    /// Fills `buffer`, unless a mark or the end of the data comes first: a condition, with the bytes before it.
    pub(super) fn read(&mut self, on: On<'_>, buffer: &mut [u8]) -> Result<(), MediaError> {
        self.check("a Read", buffer.len())?;
        let mut done = 0;
        while let Some(rest) = buffer.get_mut(done..).filter(|rest| !rest.is_empty()) {
            let Some(Spot { run, item, within }) = self.locate() else {
                return Err(self.no_data(on).with_bytes(done));
            };
            let Some(run) = self.runs.get(run) else { return Err(self.no_data(on).with_bytes(done)) };
            if run.is_marks() {
                self.address += 1;
                return Err(self.mark(on, "behind").with_bytes(done));
            }
            let count = rest.len().min((u64::from(run.length) - within) as usize);
            let (rest, _) = rest.split_at_mut(count);
            on.fill_all(run.offset + item * run.stride() + NUMBER + within, rest).map_err(|error| {
                let good = done + error.bytes as usize;
                error.with_bytes(good)
            })?;
            self.address += count as u64 / self.block;
            done += count;
        }
        Ok(())
    }

    /// Goes behind the `count`-th next mark; backwards, before the `-count`-th mark.
    pub(super) fn skip_marks(&mut self, on: On<'_>, count: i32) -> Result<(), MediaError> {
        let mut left = u64::from(count.unsigned_abs());
        let marks = self.runs.iter().filter(|run| run.is_marks());
        if count >= 0 {
            for run in marks.filter(|run| run.end(self.block) > self.address) {
                let from = run.address.max(self.address);
                let there = run.end(self.block) - from;
                if there >= left {
                    // No mark to skip is no way to go.
                    self.address = if left == 0 { self.address } else { from + left };
                    return Ok(());
                }
                left -= there;
            }
            if left > 0 {
                self.address = self.last_address();
                return Err(self.no_data(on));
            }
        } else {
            for run in marks.rev().filter(|run| run.address < self.address) {
                let to = run.end(self.block).min(self.address);
                let there = to - run.address;
                if there >= left {
                    self.address = to - left;
                    return Ok(());
                }
                left -= there;
            }
            self.address = 0;
            return Err(self.beginning(on));
        }
        Ok(())
    }

    /// Goes over `count` blocks; a mark on the way ends it behind that mark; backwards, before it.
    pub(super) fn skip_blocks(&mut self, on: On<'_>, count: i32) -> Result<(), MediaError> {
        let mut left = u64::from(count.unsigned_abs());
        while left > 0 {
            let back = u64::from(count < 0);
            if back > self.address {
                return Err(self.beginning(on));
            }
            // The run of the next block, or of the one before.
            let at = self.runs.partition_point(|run| run.address <= self.address - back);
            let run = at.checked_sub(1).and_then(|at| self.runs.get(at)).copied();
            let Some(run) = run.filter(|run| run.end(self.block) > self.address - back) else {
                return Err(self.no_data(on));
            };
            if run.is_marks() {
                self.address = self.address + 1 - 2 * back;
                return Err(self.mark(on, if count < 0 { "before" } else { "behind" }));
            }
            if count < 0 {
                let step = left.min(self.address - run.address);
                self.address -= step;
                left -= step;
            } else {
                let step = left.min(run.end(self.block) - self.address);
                self.address += step;
                left -= step;
            }
        }
        Ok(())
    }

    fn last_address(&self) -> u64 {
        self.runs.last().map_or(0, |run| run.end(self.block))
    }

    /// What is at the position; `None` at the end of the data.
    fn locate(&self) -> Option<Spot> {
        let run = self.runs.partition_point(|run| run.address <= self.address).checked_sub(1)?;
        let found = self.runs.get(run).filter(|found| found.end(self.block) > self.address)?;
        let (from, units) = (self.address - found.address, found.units(self.block));
        Some(Spot { run, item: from / units, within: from % units * self.block })
    }

    /// Adds a record of this length, or a mark, that was written or found at the end.
    fn push(&mut self, length: u32) {
        let run = Run { offset: self.end, address: self.last_address(), count: 1, length };
        match self.runs.last_mut() {
            Some(last) if last.length == length => last.count += 1,
            _ => self.runs.push(run),
        }
        self.end += run.stride();
        self.data += u64::from(length);
    }

    /// Has the tape end at the position, in the file as well.
    fn cut(&mut self, on: On<'_>) -> Result<(), MediaError> {
        let Some(Spot { run, item, within }) = self.locate() else { return Ok(()) };
        let data = self.data_before();
        self.runs.truncate(run + 1);
        let Some(last) = self.runs.last_mut() else { return Ok(()) };
        self.end = last.offset + item * last.stride();
        last.count = item;
        if item == 0 {
            self.runs.pop();
        }
        self.data = data - within;
        if within > 0 {
            // The position is within a record: what comes before it remains, as a shorter record.
            let length = within as u32;
            let trailer = self.end + NUMBER + padded(length);
            on.store(self.end, &length.to_le_bytes())
                .and_then(|()| on.store(trailer, &length.to_le_bytes()))
                .map_err(|error| error.with_bytes(0))?;
            self.push(length);
        }
        on.file.set_len(self.end).map_err(|error| on.cannot("cut", self.end, error))
    }

    fn check(&self, what: &str, length: usize) -> Result<(), MediaError> {
        if (length as u64).is_multiple_of(self.block) {
            return Ok(());
        }
        let what = format!("{what} of {length} bytes is no multiple of the block size {}", self.block);
        Err(MediaError::new(CompletionCode::IO_DEVICE, what).with_remedy("report that with the server's version"))
    }

    fn mark(&self, on: On<'_>, side: &str) -> MediaError {
        let what = format!("{} has a filemark; the position is {side} it, at block {}", on.name, self.address);
        MediaError::condition(CompletionCode::FILEMARK_DETECTED, what)
    }

    fn no_data(&self, on: On<'_>) -> MediaError {
        let what = format!("the data on {} ends at block {}", on.name, self.address);
        MediaError::condition(CompletionCode::NO_DATA_DETECTED, what)
    }

    fn beginning(&self, on: On<'_>) -> MediaError {
        let what = format!("{} is at its beginning and goes back no further", on.name);
        MediaError::condition(CompletionCode::BEGINNING_OF_MEDIA, what)
    }
}

/// The number at `offset` of an image of `length` bytes, where `expected` ought to be.
fn number(on: On<'_>, offset: u64, length: u64, expected: Arguments<'_>) -> Result<u32, MediaError> {
    let mut bytes = [0; NUMBER as usize];
    if offset.saturating_add(NUMBER) > length {
        return Err(damaged(on, offset, expected, format_args!("the end of the file at byte {length}")));
    }
    on.fill_all(offset, &mut bytes)?;
    Ok(u32::from_le_bytes(bytes))
}

fn damaged(on: On<'_>, offset: u64, expected: Arguments<'_>, found: Arguments<'_>) -> MediaError {
    let what = format!(
        "{} is no whole tape image: at byte {offset} there has to be {expected}, but there is {found}",
        on.name
    );
    MediaError::new(CompletionCode::IO_DEVICE, what)
        .with_remedy("check that it is a tape image and was copied in full; get it from another copy")
}
