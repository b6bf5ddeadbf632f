//! The log: virtual log files (block `MSTL`) and their log blocks (stream `MQTL`).
//!
//! Each virtual log file of the log file has one block, also those that are not in the backup. The stream is two zero bytes, the
//! bytes of the log file from [`Vlf::start`] to [`Vlf::end`], and zeros up to a multiple of 64 KiB.
//! (Observed in backups of SQL Server 2005 to 2022.)

use crate::block::{Block, BlockHeader, BlockId};
use crate::checksum::{SECTOR_LEN, SectorSum};
use crate::error::Error;
use crate::layout::{fields, get, record};
use crate::media::finish;
use crate::value::{FileId, Lsn};

record! {
    /// A virtual log file (block `MSTL`).
    pub struct Vlf(least 128) {
        /// 1.
        unknown_58: u16 = 58,
        /// The first byte of the log file that is in the backup. 0 if none.
        start: u64 = 60,
        /// The byte of the log file after the last that is in the backup. Equal to `start` if none.
        end: u64 = 68,
        /// The log file.
        file_id: FileId = 76,
        /// Bytes of the row from 92 on: 36, 500 or 504 by version.
        row_len: u16 = 80,
        /// Where the row begins: 92.
        row_offset: u16 = 82,
        /// The sequence number of the virtual log file. 0 if it is not in the backup.
        sequence: u32 = 92,
        /// Bytes of the virtual log file.
        size: u64 = 96,
        /// Where it begins in the log file. The first begins at 8192.
        offset: u64 = 104,
        /// 2.
        unknown_112: u16 = 112,
        /// The parity of its sectors: 0x40 or 0x80; 0 if it was never used.
        parity: u8 = 114,
        /// The log sequence number at which it was created. 0 for the initial ones.
        created_lsn: Lsn = 116,
        /// The version of the row: 2 (2005), 4 (2008), 5 (2012 on).
        version: u16 = 126,
    }
    texts(Zero) {}
}

impl Vlf {
    /// A block as server version `major` writes it.
    pub fn new(major: u8, file_id: FileId, offset: u64, size: u64) -> Self {
        let (row_len, version) = match major {
            0..=9 => (36, 2),
            10 => (500, 4),
            _ => (504, 5),
        };
        Vlf {
            unknown_58: 1,
            file_id,
            row_len,
            row_offset: 92,
            size,
            offset,
            unknown_112: 2,
            version,
            raw: vec![0; 92 + usize::from(row_len)],
            ..Vlf::default()
        }
    }

    /// Reads the block.
    ///
    /// # Errors
    /// [`Error::UnexpectedBlock`]; [`Error::Range`] for a range that ends before it begins, or a row outside of the block.
    pub fn decode(block: &Block<'_>) -> Result<Self, Error> {
        let vlf = Self::read(&block.body(BlockId::Log)?, block.offset)?;
        let offset = block.offset;
        let range = |field, least: u64, most: u64, found: u64| {
            if (least..=most).contains(&found) {
                Ok(())
            } else {
                Err(Error::Range { offset, field, least, most, found })
            }
        };
        super::config::check_file_id(get(block.bytes, 76).unwrap_or(0), offset)?;
        range("end of the log range", vlf.start, vlf.start.saturating_add(MAX_RANGE), vlf.end)?;
        range("offset of the log file's row", 92, 92, u64::from(vlf.row_offset))?;
        range("length of the log file's row", 36, block.bytes.len() as u64 - 92, u64::from(vlf.row_len))?;
        Ok(vlf)
    }

    /// The block up to its first stream, without its address in a set: [`Vlf::decode`] reads it.
    ///
    /// # Errors
    /// [`Error::Range`] for more bytes than a block can have.
    pub fn encode(&self) -> Result<Vec<u8>, Error> {
        finish(BlockHeader::new(BlockId::Log), self.write()?)
    }

    /// Bytes of the log file that are in the backup.
    pub fn range_len(&self) -> u64 {
        self.end.saturating_sub(self.start)
    }

    /// Bytes of the stream's data: two, the range, and zeros up to a multiple of 64 KiB. 0 if there is no range.
    pub fn stream_len(&self) -> u64 {
        match self.range_len() {
            0 => 0,
            len => len.next_multiple_of(crate::sqlserver::data::EXTENT_LEN) + 2,
        }
    }
}

/// The longest range of a virtual log file: more than a log file can have.
pub const MAX_RANGE: u64 = 1 << 42;

fields! {
    /// The header of a log block.
    pub struct LogBlockHeader {
        /// The parity of the block's sectors, 0x10, and 0x08 if the block is one sector.
        parity: u8 = 0,
        /// Log records in the block.
        records: u16 = 2,
        /// Bytes in use.
        used: u16 = 4,
        /// Bytes of the block, a multiple of the sector size.
        len: u16 = 6,
        /// 3 if the block has a checksum, else 1.
        flags: u8 = 8,
        /// Bytes of the block before.
        previous_len: u16 = 10,
        /// The log sequence number of its first record.
        lsn: Lsn = 12,
        /// The checksum, if `flags` has bit 1. Else 0.
        checksum: u32 = 24,
    }
}

/// Bytes of a log block's header that this crate reads.
const BLOCK_HEADER_LEN: usize = 28;

impl LogBlockHeader {
    /// Reads the header. `None` if there are fewer than 28 bytes.
    pub fn decode(bytes: &[u8]) -> Option<Self> {
        Some(Self::get_fields(bytes.get(..BLOCK_HEADER_LEN)?))
    }

    /// Writes the header to the start of a log block. The bytes that the header has no field for stay.
    pub fn encode_into(&self, block: &mut [u8]) {
        self.put_fields(block);
    }
}

/// Validates the data of an `MQTL` stream, piece by piece: parity of each sector, checksum of each log block, padding.
///
/// It keeps one block header. It stops at the first block whose length is impossible, since the next block's place is then unknown.
#[derive(Clone, Debug)]
pub struct LogVerifier {
    /// Where the next byte is on the medium, in the stream, and in the current block.
    offset: u64,
    position: u64,
    in_block: usize,
    range_len: u64,
    parity: u8,
    header: [u8; BLOCK_HEADER_LEN],
    block_len: usize,
    sum: SectorSum,
    blocks: u64,
    stopped: bool,
}

impl LogVerifier {
    /// A verifier of the stream of `vlf`, whose data begins at `offset` on the medium.
    pub fn new(vlf: &Vlf, offset: u64) -> Self {
        LogVerifier {
            offset,
            position: 0,
            in_block: 0,
            range_len: vlf.range_len(),
            parity: vlf.parity,
            header: [0; BLOCK_HEADER_LEN],
            block_len: 0,
            sum: SectorSum::new(),
            blocks: 0,
            stopped: false,
        }
    }

    /// Log blocks that were complete.
    pub fn blocks(&self) -> u64 {
        self.blocks
    }

    /// Adds the next bytes of the stream. Each damage is given to `report`.
    pub fn update(&mut self, mut bytes: &[u8], mut report: impl FnMut(Error)) {
        while !bytes.is_empty() {
            let len = match self.position.checked_sub(2) {
                None => self.padding(&bytes[..1], &mut report),
                Some(done) if done < self.range_len => {
                    let left = usize::try_from(self.range_len - done).unwrap_or(usize::MAX).min(bytes.len());
                    self.block(&bytes[..left], done, &mut report)
                }
                Some(_) => self.padding(bytes, &mut report),
            };
            self.position += len as u64;
            self.offset += len as u64;
            bytes = &bytes[len..];
        }
    }

    fn padding(&self, bytes: &[u8], report: &mut impl FnMut(Error)) -> usize {
        if let Some(at) = bytes.iter().position(|&byte| byte != 0) {
            report(Error::Padding { offset: self.offset + at as u64, found: bytes[at] });
        }
        bytes.len()
    }

    /// Takes bytes of the current block, up to its header's or a sector's end.
    fn block(&mut self, bytes: &[u8], done: u64, report: &mut impl FnMut(Error)) -> usize {
        if self.stopped {
            return bytes.len();
        }
        if self.in_block < BLOCK_HEADER_LEN {
            let len = bytes.len().min(BLOCK_HEADER_LEN - self.in_block);
            self.header[self.in_block..self.in_block + len].copy_from_slice(&bytes[..len]);
            self.sum.update(&bytes[..len]);
            self.in_block += len;
            if self.in_block == BLOCK_HEADER_LEN {
                self.begin(done + len as u64 - BLOCK_HEADER_LEN as u64, len, report);
            }
            return len;
        }
        let in_sector = self.in_block % SECTOR_LEN;
        if in_sector == 0 {
            self.check_parity(bytes[0], self.offset, report);
        }
        let len = bytes.len().min(SECTOR_LEN - in_sector).min(self.block_len - self.in_block);
        self.sum.update(&bytes[..len]);
        self.in_block += len;
        if self.in_block == self.block_len {
            self.end(self.offset + len as u64 - self.block_len as u64, report);
        }
        len
    }

    /// The header is complete: `taken` bytes of it came last. `start`: where the block begins in the range.
    fn begin(&mut self, start: u64, taken: usize, report: &mut impl FnMut(Error)) {
        let header = LogBlockHeader::get_fields(&self.header);
        let offset = self.offset + taken as u64 - BLOCK_HEADER_LEN as u64;
        self.block_len = usize::from(header.len);
        let (found, most) = (u64::from(header.len), self.range_len - start);
        if found == 0 || found > most || !self.block_len.is_multiple_of(SECTOR_LEN) {
            report(Error::Range { offset, field: "length of the log block", least: SECTOR_LEN as u64, most, found });
            self.stopped = true;
            return;
        }
        self.in_block = 0;
        self.check_parity(self.header[0], offset, report);
        self.in_block = BLOCK_HEADER_LEN;
    }

    fn check_parity(&self, found: u8, offset: u64, report: &mut impl FnMut(Error)) {
        let first = if self.in_block == 0 { 0x10 } else { 0 };
        let last = if self.in_block + SECTOR_LEN == self.block_len { 0x08 } else { 0 };
        let expected = self.parity | first | last;
        if found != expected {
            report(Error::LogParity { offset, expected, found });
        }
    }

    fn end(&mut self, offset: u64, report: &mut impl FnMut(Error)) {
        let header = LogBlockHeader::get_fields(&self.header);
        let sectors_after = (self.block_len / SECTOR_LEN - 1) as u32;
        let expected = match header.flags & 2 {
            0 => 0,
            _ => self.sum.without(header.checksum, sectors_after),
        };
        if header.checksum != expected {
            report(Error::LogChecksum { offset, lsn: header.lsn, expected, found: header.checksum });
        }
        self.blocks += 1;
        self.in_block = 0;
        self.sum = SectorSum::new();
    }
}

/// Completes a log block in place: the stamps of its sectors and its checksum.
///
/// `block` has its true bytes, a header with [`LogBlockHeader::used`] bytes in use, and a length that is a multiple of 512. The
/// true first byte of sector k moves to the byte k before the end, which has to be unused.
///
/// # Errors
/// [`Error::Range`] if the length is wrong, or the bytes at the end are in use.
pub fn seal_log_block(block: &mut [u8], parity: u8) -> Result<(), Error> {
    let (len, sectors) = (block.len(), block.len() / SECTOR_LEN);
    let found = len as u64;
    if len == 0 || len % SECTOR_LEN != 0 || len > usize::from(u16::MAX) {
        let (least, most) = (SECTOR_LEN as u64, 65024);
        return Err(Error::Range { offset: 0, field: "length of the log block", least, most, found });
    }
    let used = get::<u16>(block, 4).unwrap_or(0);
    if usize::from(used) + sectors > len {
        let (field, most) = ("used bytes of the log block", (len - sectors) as u64);
        return Err(Error::Range { offset: 0, field, least: 0, most, found: u64::from(used) });
    }
    for sector in 0..sectors {
        block[len - 1 - sector] = block[sector * SECTOR_LEN];
    }
    for sector in 0..sectors {
        let first = if sector == 0 { 0x10 } else { 0 };
        let last = if sector + 1 == sectors { 0x08 } else { 0 };
        block[sector * SECTOR_LEN] = parity | first | last;
    }
    block[24..28].fill(0);
    if block[8] & 2 != 0 {
        let sum = SectorSum::of(block);
        block[24..28].copy_from_slice(&sum.to_le_bytes());
    }
    Ok(())
}
