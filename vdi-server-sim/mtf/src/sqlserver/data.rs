//! Pages of data files (block `MSDA`, stream `MQDA`).
//!
//! The stream is two zero bytes, then extents: 64 KiB, 8 pages. An extent's place is in the header of its first page, and
//! nowhere else. Whole extents are backed up, also their free pages. A second, empty `MQDA` stream ends the first.
//!
//! A set may have a second `MSDA` (SQL Server 2019 on) with some extents again: **the last image of a page wins**.
//! A striped backup deals the extents out to its families. Extents of filler pages make the streams of the families equally long.
//! (Observed in backups of SQL Server 2005 to 2022.)

use crate::block::{Block, BlockHeader, BlockId};
use crate::error::Error;
use crate::layout::record;
use crate::media::finish;
use crate::page::{EXTENT_PAGES, PAGE_LEN, PageHeader};
use crate::value::PageAddress;

/// The length of an extent.
pub const EXTENT_LEN: u64 = PAGE_LEN as u64 * EXTENT_PAGES as u64;
/// Bytes before the first extent of a stream, and before the bytes of a log.
pub const PREFIX_LEN: u64 = 2;

record! {
    /// The block of pages (block `MSDA`).
    pub struct DataBlock(least 60) {
        /// 1.
        unknown_58: u16 = 58,
    }
    texts(Zero) {}
}

impl DataBlock {
    /// Reads the block.
    ///
    /// # Errors
    /// [`Error::UnexpectedBlock`] and [`Error::Range`].
    pub fn decode(block: &Block<'_>) -> Result<Self, Error> {
        Self::read(&block.body(BlockId::Data)?, block.offset)
    }

    pub(crate) fn encode() -> Result<Vec<u8>, Error> {
        finish(BlockHeader::new(BlockId::Data), DataBlock { unknown_58: 1, ..DataBlock::default() }.write()?)
    }
}

/// Checks the length of an `MQDA` or `MQTL` stream: 0, or whole units of 64 KiB after the prefix.
pub(crate) fn check_len(len: u64, offset: u64, field: &'static str) -> Result<(), Error> {
    match len.checked_sub(PREFIX_LEN) {
        _ if len == 0 => Ok(()),
        Some(units) if units.is_multiple_of(EXTENT_LEN) => Ok(()),
        units => {
            let expected = units.unwrap_or(0).next_multiple_of(EXTENT_LEN) + PREFIX_LEN;
            Err(Error::Field { offset, field, expected, found: len })
        }
    }
}

/// What [`ExtentReader::next`] found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ExtentEvent<'a> {
    /// An extent begins: its first page, or `None` for an extent of filler pages, which is to be skipped.
    Extent(Option<PageAddress>),
    /// The next bytes of the extent, where the caller has them (or the first bytes of its first header, which came in pieces).
    Bytes(&'a [u8]),
}

/// Finds the places of extents in the data of an `MQDA` stream, in pieces of any size. It verifies no page; see
/// [`PageVerifier`](crate::page::PageVerifier).
///
/// ```
/// use vdi_mtf::sqlserver::data::{ExtentEvent, ExtentReader};
///
/// # fn place(mut data: &[u8]) -> Result<(), vdi_mtf::Error> {
/// let (mut extents, mut at) = (ExtentReader::new(0), None);
/// while let Some(event) = extents.next(&mut data)? {
///     match event {
///         ExtentEvent::Extent(first) => at = first.map(|page| (page.file, page.file_offset())),
///         ExtentEvent::Bytes(bytes) => {
///             if let Some((_file, offset)) = &mut at {
///                 // Write the bytes to the file, at the offset.
///                 *offset += bytes.len() as u64;
///             }
///         }
///     }
/// }
/// # Ok(()) }
/// # place(&[0; 2]).unwrap();
/// ```
#[derive(Clone, Debug)]
pub struct ExtentReader {
    /// Where the next byte is on the medium, and in the stream.
    offset: u64,
    position: u64,
    carry: Vec<u8>,
    given: bool,
    begun: bool,
}

/// Bytes of a page that its address needs.
const ADDRESS_LEN: usize = 38;

impl ExtentReader {
    /// A reader of a stream whose data begins at `offset` on the medium.
    pub fn new(offset: u64) -> Self {
        ExtentReader { offset, position: 0, carry: Vec::new(), given: false, begun: false }
    }

    /// The next event. Takes bytes from the front of `input`. `Ok(None)`: `input` is empty.
    ///
    /// # Errors
    /// [`Error::ExtentAddress`]: the extent's first page names no place. [`Error::Padding`]: the two bytes before the first extent are
    /// not zero. The reader cannot be used further.
    pub fn next<'s, 'i: 's>(&'s mut self, input: &mut &'i [u8]) -> Result<Option<ExtentEvent<'s>>, Error> {
        while self.position < PREFIX_LEN {
            let Some(&found) = input.first() else { return Ok(None) };
            if found != 0 {
                return Err(Error::Padding { offset: self.offset, found });
            }
            self.take(input, 1);
        }
        if self.given {
            self.carry.clear();
            self.given = false;
        }
        let in_extent = (self.position - PREFIX_LEN) % EXTENT_LEN;
        if !self.begun {
            // The address is looked at where it is; the bytes stay in the input, or in the carry.
            let address = match self.carry.is_empty() && input.len() >= ADDRESS_LEN {
                true => self.address(&input[..ADDRESS_LEN])?,
                false => {
                    let missing = (ADDRESS_LEN - self.carry.len()).min(input.len());
                    let (taken, rest) = input.split_at(missing);
                    self.carry.extend_from_slice(taken);
                    *input = rest;
                    if self.carry.len() < ADDRESS_LEN {
                        return Ok(None);
                    }
                    self.address(&self.carry)?
                }
            };
            self.begun = true;
            return Ok(Some(ExtentEvent::Extent(address)));
        }
        if !self.carry.is_empty() {
            self.given = true;
            self.position += self.carry.len() as u64;
            self.offset += self.carry.len() as u64;
            return Ok(Some(ExtentEvent::Bytes(&self.carry)));
        }
        if input.is_empty() {
            return Ok(None);
        }
        let left = (EXTENT_LEN - in_extent) as usize;
        let len = left.min(input.len());
        self.begun = len < left;
        Ok(Some(ExtentEvent::Bytes(self.take(input, len))))
    }

    fn take<'i>(&mut self, input: &mut &'i [u8], len: usize) -> &'i [u8] {
        let (taken, rest) = input.split_at(len);
        *input = rest;
        self.position += len as u64;
        self.offset += len as u64;
        taken
    }

    fn address(&self, bytes: &[u8]) -> Result<Option<PageAddress>, Error> {
        let header = PageHeader::get_fields(bytes);
        if header.is_filler() {
            return Ok(None);
        }
        let found = header.address();
        if found.file.0 == 0 || !found.page.0.is_multiple_of(EXTENT_PAGES) {
            return Err(Error::ExtentAddress { offset: self.offset, found });
        }
        Ok(Some(found))
    }
}
