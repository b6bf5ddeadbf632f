//! Writing one device's stream into transfer buffers.

use std::sync::Arc;

use super::header::check_block_size;
use super::{Checksum, Identity, MAX_PAYLOAD, SegmentHeader, SegmentKind, Totals, WriteError, padded};

/// A piece of a file that waits in a buffer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DataPiece {
    /// The file's place in the catalog, from 0.
    pub file_index: u32,
    /// Where in the file the piece begins, in bytes.
    pub file_offset: u64,
    /// Its length in bytes, 1 to [`MAX_PAYLOAD`].
    pub length: u32,
}

/// How many payload bytes a segment can have so that all of it, header block and padding included, fits into one transfer of
/// `transfer_size` bytes. `None` if not even one block fits besides the header, as for the largest BLOCKSIZE with the
/// smallest MAXTRANSFERSIZE, both 65536.
#[must_use]
pub fn payload_capacity(transfer_size: u32, block_size: u32) -> Option<u32> {
    check_block_size(block_size).ok()?;
    let room = transfer_size.checked_sub(block_size)?.min(MAX_PAYLOAD);
    let capacity = room - room % block_size;
    (capacity > 0).then_some(capacity)
}

/// Makes the segments of one device, in their order: all of the catalog, data, the end. It numbers and counts them; the bytes are
/// in the caller's buffers, with the header block at the front and the payload behind.
#[derive(Debug)]
pub struct StreamWriter {
    identity: Identity,
    block_size: u32,
    catalog: Arc<[u8]>,
    catalog_done: usize,
    totals: Totals,
    ended: bool,
}

impl StreamWriter {
    /// A writer for the device of `identity`. `catalog` is [encoded](super::Catalog::encode), and the same for all devices.
    ///
    /// # Errors
    /// [`WriteError::Header`] if `block_size` or `identity` is out of range.
    pub fn new(identity: Identity, block_size: u32, catalog: Arc<[u8]>) -> Result<Self, WriteError> {
        let writer = Self { identity, block_size, catalog, catalog_done: 0, totals: Totals::default(), ended: false };
        check_block_size(block_size)?;
        // Every other field of a header is checked for this one's sake.
        let probe = writer.header(SegmentKind::End { segments: 1, data_bytes: 0 }, 0, None);
        probe.encode_into(&mut vec![0; block_size as usize])?;
        Ok(writer)
    }

    /// What has been written so far.
    #[must_use]
    pub fn totals(&self) -> Totals {
        self.totals
    }

    /// Writes the next part of the catalog, as much as fits into `buffer`. Gives the segment's length in bytes, a multiple of
    /// BLOCKSIZE, or `None` when the catalog is complete.
    ///
    /// # Errors
    /// [`WriteError::NoRoom`] if `buffer` is smaller than two blocks.
    pub fn next_catalog(&mut self, buffer: &mut [u8]) -> Result<Option<usize>, WriteError> {
        let rest = self.catalog.get(self.catalog_done..).unwrap_or_default();
        if rest.is_empty() {
            return Ok(None);
        }
        let found = buffer.len();
        let room = u32::try_from(found).unwrap_or(u32::MAX);
        let Some(capacity) = payload_capacity(room, self.block_size) else {
            return Err(WriteError::NoRoom { found, needed: self.block_size as usize * 2 });
        };
        let part = &rest[..rest.len().min(capacity as usize)];
        let block = self.block_size as usize;
        buffer[block..block + part.len()].copy_from_slice(part);
        let length = part.len();
        let kind = SegmentKind::Catalog { offset: self.catalog_done as u64, total: self.catalog.len() as u64 };
        let checksum = Checksum::Crc32.of(part);
        let written = self.seal(buffer, kind, length as u32, checksum)?;
        self.catalog_done += length;
        Ok(Some(written))
    }

    /// Makes a segment of the piece whose bytes are in `buffer` from offset BLOCKSIZE on: puts the header in front and zeros
    /// behind. Gives the segment's length in bytes, a multiple of BLOCKSIZE. `checksum` is [`Checksum::of`] the piece.
    ///
    /// # Errors
    /// [`WriteError::Order`]: the catalog is not complete, or the end is written. [`WriteError::Piece`]: no segment can have
    /// this length. [`WriteError::NoRoom`]: the segment with its padding is longer than `buffer`. [`WriteError::Header`]:
    /// the piece would end beyond 2^64 bytes. Nothing was counted then.
    pub fn data(&mut self, buffer: &mut [u8], piece: DataPiece, checksum: Option<u32>) -> Result<usize, WriteError> {
        self.expect_catalog_done("data")?;
        let DataPiece { file_index, file_offset, length } = piece;
        if !(1..=MAX_PAYLOAD).contains(&length) {
            return Err(WriteError::Piece { length });
        }
        let written = self.seal(buffer, SegmentKind::Data { file_index, file_offset }, length, checksum)?;
        self.totals.data_bytes = self.totals.data_bytes.saturating_add(u64::from(length));
        Ok(written)
    }

    /// Writes the End segment. Gives its length, which is BLOCKSIZE.
    ///
    /// # Errors
    /// [`WriteError::Order`]: the catalog is not complete, or the end is written. [`WriteError::NoRoom`]: `buffer` is smaller
    /// than a block.
    pub fn end(&mut self, buffer: &mut [u8]) -> Result<usize, WriteError> {
        self.expect_catalog_done("the end")?;
        let Totals { segments, data_bytes } = self.totals;
        let kind = SegmentKind::End { segments: segments.saturating_add(1), data_bytes };
        let written = self.seal(buffer, kind, 0, None)?;
        self.ended = true;
        Ok(written)
    }

    fn expect_catalog_done(&self, what: &'static str) -> Result<(), WriteError> {
        if self.ended {
            Err(WriteError::Order { what, when: "after the end" })
        } else if self.catalog_done < self.catalog.len() {
            Err(WriteError::Order { what, when: "before the catalog was complete" })
        } else {
            Ok(())
        }
    }

    fn header(&self, kind: SegmentKind, payload_len: u32, checksum: Option<u32>) -> SegmentHeader {
        let Self { identity, block_size, totals, .. } = *self;
        SegmentHeader { identity, block_size, sequence: totals.segments, kind, payload_len, checksum }
    }

    /// Header in front, zeros behind, one segment more.
    fn seal(
        &mut self,
        buffer: &mut [u8],
        kind: SegmentKind,
        payload_len: u32,
        checksum: Option<u32>,
    ) -> Result<usize, WriteError> {
        let block = self.block_size as usize;
        let padded = padded(payload_len, self.block_size).ok_or(WriteError::Piece { length: payload_len })?;
        let (found, needed) = (buffer.len(), block + padded as usize);
        let segment = buffer.get_mut(..needed).ok_or(WriteError::NoRoom { found, needed })?;
        self.header(kind, payload_len, checksum).encode_into(segment)?;
        segment[block + payload_len as usize..].fill(0);
        self.totals.segments = self.totals.segments.saturating_add(1);
        Ok(needed)
    }
}
