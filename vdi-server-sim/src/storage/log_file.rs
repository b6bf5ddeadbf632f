//! Log files: virtual log files, checkpoints.
//!
//! ```text
//! 0          header page
//! 8192       virtual log file: its header (8192 bytes), then log blocks
//! ...        more of them, up to the file's end
//! ```
//!
//! The header of a virtual log file keeps the block that a backup has of it ([`Vlf`]), with a checksum. So a log file describes itself.
//!
//! A checkpoint appends one log block. When a virtual log file is full, the next one is used, in a circle: it gets the next sequence
//! number, and the other parity. So blocks of its earlier use do not count any more.
//!
//! # Invariants
//! 1. The log ends before the first block that is not right: address, parity of all sectors, checksum. A block that was torn by a loss
//!    of power was never reported as written.
//! 2. All bytes of a header that change are in its first sector, so the system writes them all or none.

#[cfg(test)]
mod tests;

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;

use vdi_mtf::block::{Block, BlockHeader, BlockId};
use vdi_mtf::checksum::{SECTOR_LEN, SectorSum};
use vdi_mtf::page::{PAGE_LEN, PageHeader, page_type, verify};
use vdi_mtf::sqlserver::config::FileRecord;
use vdi_mtf::sqlserver::log::{LogBlockHeader, Vlf, seal_log_block};
use vdi_mtf::value::{FileId, Guid, Lsn, PageAddress, PageId};

use super::StorageError;
use super::fixed_page::file_header_page;
use crate::catalog::FileRow;

/// The log sequence number of the first block of a new database.
pub(super) const INITIAL_LSN: Lsn = Lsn { vlf: 33, block: FIRST_BLOCK, slot: 1 };

/// Where the first virtual log file begins.
const FIRST_VLF: u64 = 8192;
/// Bytes of the header of a virtual log file.
const HEADER_LEN: usize = 8192;
/// The first log block of a virtual log file, in sectors.
const FIRST_BLOCK: u32 = (HEADER_LEN / SECTOR_LEN) as u32;
/// The smallest virtual log file of a new log file.
const LEAST_VLF: u64 = 65536;
/// The largest log file: 2 TiB, SQL Server's limit.
pub(super) const MAX_SIZE: u64 = 2 << 40;

/// The header of a virtual log file: these 8 bytes, the length of the block (u32), the checksum of the header (u32), the block, zeros.
const MAGIC: [u8; 8] = *b"VDISIMVL";
const CHECKSUM_AT: usize = 12;
const BLOCK_AT: usize = 16;

/// Bytes that are read at a time when the end of the log is looked for.
const WINDOW: usize = 256 << 10;

/// The lengths of the virtual log files of a new log file, as SQL Server divides it: 4, 8 from 64 MiB on, 16 from 1 GiB on. All are
/// multiples of 64 KiB (8 KiB in a file of 1 MiB); the last one has the rest.
fn vlf_sizes(size: u64) -> Vec<u64> {
    let count = match size {
        0..=0x400_0000 => 4,
        0x400_0001..=0x4000_0000 => 8,
        _ => 16,
    };
    let unit = if size > 1 << 20 { 65536 } else { 8192 };
    let all = size - FIRST_VLF;
    let each = all / count / unit * unit;
    let mut sizes = vec![each; count as usize - 1];
    sizes.push(all - each * (count - 1));
    sizes
}

/// Formats the log file of a new database. The log has one block.
///
/// # Errors
/// [`StorageError::InvalidSize`] or [`StorageError::Io`].
pub(super) fn format(file: &File, row: &FileRow, major: u8) -> Result<(), StorageError> {
    let least = FIRST_VLF + 4 * LEAST_VLF;
    if !(least..=MAX_SIZE).contains(&row.size) || !row.size.is_multiple_of(PAGE_LEN as u64) {
        return Err(StorageError::InvalidSize { path: row.path.clone(), size: row.size, least, most: MAX_SIZE });
    }
    file.set_len(row.size).map_err(|source| StorageError::io("set the length of", &row.path, source))?;
    let mut offset = FIRST_VLF;
    let mut vlfs = Vec::new();
    for size in vlf_sizes(row.size) {
        vlfs.push(Vlf::new(major, row.file_id, offset, size));
        offset += size;
    }
    (vlfs[0].sequence, vlfs[0].parity) = (INITIAL_LSN.vlf, 0x40);
    write_headers(file, &row.path, &vlfs)?;
    let block = checkpoint_block(&vlfs[0], FIRST_BLOCK, 0, major, &row.path)?;
    write(file, &row.path, FIRST_VLF + HEADER_LEN as u64, &block)
}

/// Writes the headers of the virtual log files of a restored log file; their ranges are in it already.
///
/// # Errors
/// [`StorageError::Log`]: the virtual log files do not fill the file, or a range is not in one. [`StorageError::Io`].
pub(super) fn write_headers(file: &File, path: &Path, log: &[Vlf]) -> Result<(), StorageError> {
    let len = file.metadata().map_err(|source| StorageError::io("examine", path, source))?.len();
    let mut vlfs: Vec<&Vlf> = log.iter().collect();
    vlfs.sort_by_key(|vlf| vlf.offset);
    let mut offset = FIRST_VLF;
    let file_id = vlfs.first().map_or(FileId(0), |vlf| vlf.file_id);
    for vlf in &vlfs {
        check(vlf, offset, file_id, len, path)?;
        write_header(file, path, vlf)?;
        offset += vlf.size;
    }
    if offset != len {
        return Err(damaged(path, offset, format!("the virtual log files end here, but the file has {len} bytes")));
    }
    let address = PageAddress { file: file_id, page: PageId(0) };
    let record = FileRecord { file_id, size: len, ..FileRecord::default() };
    write(file, path, 0, &file_header_page(address, &record, Guid::default(), Lsn::default()))
}

/// Reads the headers of all virtual log files, in the order of a backup: those with a sequence number by it, then the others by their
/// places.
///
/// # Errors
/// [`StorageError::Log`] for one that is damaged or in another's place. [`StorageError::Io`].
pub(super) fn read_headers(file: &File, row: &FileRow) -> Result<Vec<Vlf>, StorageError> {
    let mut vlfs = by_place(file, row)?;
    backup_order(&mut vlfs);
    Ok(vlfs)
}

/// Reads bytes of the log.
///
/// # Errors
/// [`StorageError::Io`].
pub(super) fn read_bytes(file: &File, row: &FileRow, offset: u64, bytes: &mut [u8]) -> Result<(), StorageError> {
    read(file, &row.path, offset, bytes)
}

/// Whether backups have the same blocks for two lists of virtual log files.
pub(super) fn same(one: &[Vlf], other: &[Vlf]) -> bool {
    one.len() == other.len() && one.iter().zip(other).all(|(one, other)| one.encode() == other.encode())
}

fn backup_order(vlfs: &mut [Vlf]) {
    vlfs.sort_by_key(|vlf| (vlf.sequence == 0, vlf.sequence, vlf.offset));
}

/// The log of a database of this program: where it ends.
#[derive(Debug, Clone)]
pub(super) struct LogFile {
    row: FileRow,
    major: u8,
    /// By their places.
    vlfs: Vec<Vlf>,
    /// The one that is written to.
    current: usize,
    /// Where its next log block begins, in sectors.
    end: u32,
    /// The last block: where it begins, in sectors, and its length in bytes. None if there is none in the current virtual log file.
    last: Option<(u32, u16)>,
}

impl LogFile {
    /// Reads the headers, and finds the end of the log. `major`: the version of the server that the database is of.
    ///
    /// # Errors
    /// As [`read_headers`].
    pub(super) fn open(file: &File, row: &FileRow, major: u8) -> Result<LogFile, StorageError> {
        let vlfs = by_place(file, row)?;
        let Some(current) =
            (0..vlfs.len()).max_by_key(|&index| vlfs[index].sequence).filter(|&index| vlfs[index].sequence > 0)
        else {
            return Err(damaged(&row.path, FIRST_VLF, "no virtual log file is in use".to_owned()));
        };
        let end = match vlfs[current].start {
            0 => FIRST_BLOCK,
            start => ((start - vlfs[current].offset) / SECTOR_LEN as u64) as u32,
        };
        let mut log = LogFile { row: row.clone(), major, vlfs, current, end, last: None };
        log.scan(file)?;
        Ok(log)
    }

    /// Reads what other processes have appended since.
    ///
    /// # Errors
    /// As [`LogFile::open`].
    pub(super) fn refresh(&mut self, file: &File) -> Result<(), StorageError> {
        let is_same = |vlf: &Vlf| read_header(file, &self.row, vlf.offset).map(|found| found.sequence == vlf.sequence);
        if is_same(&self.vlfs[self.current])? && is_same(&self.vlfs[(self.current + 1) % self.vlfs.len()])? {
            return self.scan(file);
        }
        *self = LogFile::open(file, &self.row, self.major)?;
        Ok(())
    }

    /// The log sequence number of the last block.
    pub(super) fn last_lsn(&self) -> Lsn {
        let vlf = self.vlfs[self.current].sequence;
        match self.last {
            Some((block, _)) => Lsn { vlf, block, slot: 1 },
            None => Lsn { vlf, block: FIRST_BLOCK, slot: 0 },
        }
    }

    /// The virtual log files as a backup at the last checkpoint has them: the range is its block.
    pub(super) fn active(&self) -> Vec<Vlf> {
        let mut vlfs = self.vlfs.clone();
        for (index, vlf) in vlfs.iter_mut().enumerate() {
            (vlf.start, vlf.end) = (0, 0);
            if index != self.current {
                vlf.sequence = 0;
            } else if let Some((block, len)) = self.last {
                vlf.start = place(vlf, block);
                vlf.end = vlf.start + u64::from(len);
            }
        }
        backup_order(&mut vlfs);
        vlfs
    }

    /// Appends a checkpoint, and makes it durable. Returns its log sequence number, and that of the next block.
    ///
    /// # Errors
    /// [`StorageError::Io`].
    pub(super) fn checkpoint(&mut self, file: &File) -> Result<(Lsn, Lsn), StorageError> {
        let mut previous_len = self.last.map_or(0, |(_, len)| len);
        if place(&self.vlfs[self.current], self.end + 1) > self.vlfs[self.current].offset + self.vlfs[self.current].size
        {
            self.advance(file)?;
        }
        let vlf = &self.vlfs[self.current];
        let block = checkpoint_block(vlf, self.end, previous_len, self.major, &self.row.path)?;
        write(file, &self.row.path, place(vlf, self.end), &block)?;
        self.sync(file)?;
        previous_len = block.len() as u16;
        let first = Lsn { vlf: vlf.sequence, block: self.end, slot: 1 };
        self.last = Some((self.end, previous_len));
        self.end += (block.len() / SECTOR_LEN) as u32;
        Ok((first, Lsn { block: self.end, ..first }))
    }

    /// Goes on in the next virtual log file.
    fn advance(&mut self, file: &File) -> Result<(), StorageError> {
        let sequence = self.vlfs[self.current].sequence;
        let next = (self.current + 1) % self.vlfs.len();
        let mut vlf = self.vlfs[next].clone();
        vlf.sequence = sequence.checked_add(1).ok_or_else(|| {
            damaged(&self.row.path, vlf.offset, "the log has no sequence numbers left for virtual log files".to_owned())
        })?;
        vlf.parity = if vlf.parity == 0x40 { 0x80 } else { 0x40 };
        (vlf.start, vlf.end) = (0, 0);
        write_header(file, &self.row.path, &vlf)?;
        self.sync(file)?;
        (self.vlfs[next], self.current, self.end, self.last) = (vlf, next, FIRST_BLOCK, None);
        Ok(())
    }

    fn sync(&self, file: &File) -> Result<(), StorageError> {
        file.sync_data().map_err(|source| StorageError::io("make durable", &self.row.path, source))
    }

    /// Takes the blocks from `end` on that are right.
    fn scan(&mut self, file: &File) -> Result<(), StorageError> {
        let vlf = &self.vlfs[self.current];
        let stop = vlf.offset + vlf.size;
        let mut window = Vec::new();
        loop {
            let at = place(vlf, self.end);
            let left = stop.saturating_sub(at);
            // Most often no block follows, and its first sector tells.
            let mut sector = [0; SECTOR_LEN];
            if left < SECTOR_LEN as u64 {
                return Ok(());
            }
            read(file, &self.row.path, at, &mut sector)?;
            let expected = Lsn { vlf: vlf.sequence, block: self.end, slot: 1 };
            if LogBlockHeader::decode(&sector).is_none_or(|header| header.lsn != expected) {
                return Ok(());
            }
            let len = WINDOW.min(usize::try_from(left).unwrap_or(WINDOW));
            let no_memory = |_| StorageError::io("read", &self.row.path, std::io::ErrorKind::OutOfMemory);
            window.try_reserve_exact(len.saturating_sub(window.len())).map_err(no_memory)?;
            window.resize(len, 0);
            read(file, &self.row.path, at, &mut window)?;
            let mut done = 0;
            while let Some(len) = sound_block(&window[done..], vlf, self.end) {
                self.last = Some((self.end, len));
                self.end += u32::from(len) / SECTOR_LEN as u32;
                done += usize::from(len);
            }
            // A block at the window's end may be cut.
            if done == 0 || window.len() as u64 == left {
                return Ok(());
            }
        }
    }
}

/// Where a log block begins in the file.
fn place(vlf: &Vlf, block: u32) -> u64 {
    vlf.offset + u64::from(block) * SECTOR_LEN as u64
}

/// The length of the log block at the start of `bytes`, if it is right.
fn sound_block(bytes: &[u8], vlf: &Vlf, block: u32) -> Option<u16> {
    let header = LogBlockHeader::decode(bytes)?;
    let len = usize::from(header.len);
    let sectors = len / SECTOR_LEN;
    if len == 0
        || len % SECTOR_LEN != 0
        || header.lsn != (Lsn { vlf: vlf.sequence, block, slot: 1 })
        || header.flags & 2 == 0
    {
        return None;
    }
    let bytes = bytes.get(..len)?;
    let stamp = |sector| vlf.parity | if sector == 0 { 0x10 } else { 0 } | if sector + 1 == sectors { 0x08 } else { 0 };
    if (0..sectors).any(|sector| bytes[sector * SECTOR_LEN] != stamp(sector)) {
        return None;
    }
    let mut sum = SectorSum::new();
    sum.update(bytes);
    (sum.without(header.checksum, sectors as u32 - 1) == header.checksum).then_some(header.len)
}

/// A log block with the two records of a checkpoint: begin and end.
fn checkpoint_block(
    vlf: &Vlf,
    block: u32,
    previous_len: u16,
    major: u8,
    path: &Path,
) -> Result<[u8; SECTOR_LEN], StorageError> {
    /// Bytes of a record, and the numbers of its kind.
    const RECORD_LEN: u16 = 32;
    const KINDS: [u8; 2] = [0x96, 0x99];
    // The length of the block's header depends on the version of the log. (Observed in backups of SQL Server 2005 to 2022.)
    let header_len: u16 = match (vlf.version, major) {
        (..=3, _) => 28,
        (4, _) => 40,
        (_, ..=14) => 48,
        _ => 72,
    };
    let mut bytes = [0; SECTOR_LEN];
    let used = header_len + (RECORD_LEN + 2) * KINDS.len() as u16;
    for (index, kind) in KINDS.into_iter().enumerate() {
        let offset = header_len + RECORD_LEN * index as u16;
        let record = &mut bytes[usize::from(offset)..usize::from(offset + RECORD_LEN)];
        record[..2].copy_from_slice(&RECORD_LEN.to_le_bytes());
        record[2] = kind;
        record[4..8].copy_from_slice(&vlf.sequence.to_le_bytes());
        record[8..12].copy_from_slice(&block.to_le_bytes());
        record[12] = index as u8 + 1;
        let at = usize::from(used) - 2 * (index + 1);
        bytes[at..at + 2].copy_from_slice(&offset.to_le_bytes());
    }
    let header = LogBlockHeader {
        records: KINDS.len() as u16,
        used,
        len: SECTOR_LEN as u16,
        flags: 3,
        previous_len,
        lsn: Lsn { vlf: vlf.sequence, block, slot: 1 },
        ..LogBlockHeader::default()
    };
    header.encode_into(&mut bytes);
    seal_log_block(&mut bytes, vlf.parity).map_err(|source| damaged(path, place(vlf, block), source.to_string()))?;
    Ok(bytes)
}

fn by_place(file: &File, row: &FileRow) -> Result<Vec<Vlf>, StorageError> {
    let mut page = [0; PAGE_LEN];
    read(file, &row.path, 0, &mut page)?;
    let header = PageHeader::decode(&page).unwrap_or_default();
    let address = PageAddress { file: row.file_id, page: PageId(0) };
    if header.page_type != page_type::FILE_HEADER || header.address() != address {
        let found = format!("page {} of type {}", header.address(), header.page_type);
        return Err(damaged(
            &row.path,
            0,
            format!("the header page of file {} is expected, found {found}", row.file_id),
        ));
    }
    verify(&page, 0).map_err(|source| damaged(&row.path, 0, source.to_string()))?;
    let (mut offset, mut vlfs) = (FIRST_VLF, Vec::new());
    while offset < row.size {
        let vlf = read_header(file, row, offset)?;
        check(&vlf, offset, row.file_id, row.size, &row.path)?;
        offset += vlf.size;
        vlfs.push(vlf);
    }
    Ok(vlfs)
}

/// Whether a virtual log file is where it belongs, and its range in it.
fn check(vlf: &Vlf, offset: u64, file_id: FileId, file_len: u64, path: &Path) -> Result<(), StorageError> {
    let wrong = |what| Err(damaged(path, offset, what));
    // Within MAX_SIZE the number of a sector fits into the block of a log sequence number.
    let (least, most) = ((HEADER_LEN + SECTOR_LEN) as u64, file_len.saturating_sub(offset).min(MAX_SIZE));
    if vlf.offset != offset {
        return wrong(format!("a virtual log file is expected here, found one for offset {}", vlf.offset));
    }
    if vlf.file_id != file_id {
        return wrong(format!("the virtual log file is of file {}, expected {file_id}", vlf.file_id));
    }
    if !(least..=most).contains(&vlf.size) || !vlf.size.is_multiple_of(SECTOR_LEN as u64) {
        return wrong(format!("the virtual log file has {} bytes, expected {least} to {most}", vlf.size));
    }
    let (least, most) = (offset + HEADER_LEN as u64, offset + vlf.size);
    let is_in = |at: u64| (least..=most).contains(&at) && at.is_multiple_of(SECTOR_LEN as u64);
    let is_none = vlf.start == 0 && vlf.end == 0;
    let is_sound = is_none || is_in(vlf.start) && is_in(vlf.end) && vlf.start <= vlf.end;
    if !is_sound {
        return wrong(format!("the range {} to {} is not in {least} to {most}", vlf.start, vlf.end));
    }
    Ok(())
}

fn write_header(file: &File, path: &Path, vlf: &Vlf) -> Result<(), StorageError> {
    let block = vlf.encode().map_err(|source| damaged(path, vlf.offset, source.to_string()))?;
    let mut bytes = [0; HEADER_LEN];
    if BLOCK_AT + block.len() > HEADER_LEN {
        let most = HEADER_LEN - BLOCK_AT;
        return Err(damaged(
            path,
            vlf.offset,
            format!("the row of the virtual log file has {} bytes, at most {most} fit", block.len()),
        ));
    }
    bytes[..8].copy_from_slice(&MAGIC);
    bytes[8..CHECKSUM_AT].copy_from_slice(&(block.len() as u32).to_le_bytes());
    bytes[BLOCK_AT..BLOCK_AT + block.len()].copy_from_slice(&block);
    let sum = SectorSum::of(&bytes);
    bytes[CHECKSUM_AT..BLOCK_AT].copy_from_slice(&sum.to_le_bytes());
    write(file, path, vlf.offset, &bytes)
}

fn read_header(file: &File, row: &FileRow, offset: u64) -> Result<Vlf, StorageError> {
    let wrong = |what| Err(damaged(&row.path, offset, what));
    let mut bytes = [0; HEADER_LEN];
    read(file, &row.path, offset, &mut bytes)?;
    let word = |at: usize| u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]]);
    let (len, found) = (word(8) as usize, word(CHECKSUM_AT));
    if bytes[..8] != MAGIC {
        return wrong("the header of a virtual log file is expected here".to_owned());
    }
    let mut sum = SectorSum::new();
    sum.update(&bytes);
    let expected = sum.without(found, (HEADER_LEN / SECTOR_LEN) as u32 - 1);
    if found != expected {
        return wrong(format!(
            "checksum of the virtual log file's header: expected {expected:#010x}, found {found:#010x}"
        ));
    }
    let Some(block) = bytes.get(BLOCK_AT..BLOCK_AT.saturating_add(len)) else {
        return wrong(format!("the row of the virtual log file has {len} bytes"));
    };
    let decoded =
        BlockHeader::decode(block, offset).and_then(|_| Vlf::decode(&Block { offset, id: BlockId::Log, bytes: block }));
    decoded.or_else(|source| wrong(source.to_string()))
}

fn damaged(path: &Path, offset: u64, what: String) -> StorageError {
    StorageError::Log { path: path.to_owned(), offset, what }
}

fn write(file: &File, path: &Path, offset: u64, bytes: &[u8]) -> Result<(), StorageError> {
    file.write_all_at(bytes, offset).map_err(|source| StorageError::io_at("write to", path, offset, source))
}

fn read(file: &File, path: &Path, offset: u64, bytes: &mut [u8]) -> Result<(), StorageError> {
    file.read_exact_at(bytes, offset).map_err(|source| StorageError::io_at("read from", path, offset, source))
}
