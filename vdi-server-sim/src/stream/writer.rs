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

/// How many payload bytes fit into `room` bytes behind a header block: whole blocks of `block_size`, at most
/// [`MAX_PAYLOAD`]; 0 where not even one fits.
#[must_use]
pub fn payload_capacity(room: usize, block_size: u32) -> u32 {
    let room = u32::try_from(room).unwrap_or(u32::MAX).min(MAX_PAYLOAD);
    if check_block_size(block_size).is_ok() { room - room % block_size } else { 0 }
}

/// Makes the segments of one device, in their order: all of the catalog, data, the end. It numbers and counts them; the bytes are
/// in the caller's buffers. Header block and payload are given separately: they may lie in one buffer, or, where a transfer holds
/// just one block, in two.
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

    /// Writes the next part of the catalog, as much as fits into `payload`. Gives the payload's padded length in bytes, a
    /// multiple of BLOCKSIZE, or `None` when the catalog is complete.
    ///
    /// # Errors
    /// [`WriteError::NoRoom`] if `header` or `payload` is smaller than a block.
    pub fn next_catalog(&mut self, header: &mut [u8], payload: &mut [u8]) -> Result<Option<usize>, WriteError> {
        let rest = self.catalog.get(self.catalog_done..).unwrap_or_default();
        if rest.is_empty() {
            return Ok(None);
        }
        let capacity = payload_capacity(payload.len(), self.block_size);
        if capacity == 0 {
            return Err(WriteError::NoRoom { found: payload.len(), needed: self.block_size as usize });
        }
        let part = &rest[..rest.len().min(capacity as usize)];
        payload[..part.len()].copy_from_slice(part);
        let length = part.len();
        let kind = SegmentKind::Catalog { offset: self.catalog_done as u64, total: self.catalog.len() as u64 };
        let checksum = Checksum::Crc32.of(part);
        let written = self.seal(header, payload, kind, length as u32, checksum)?;
        self.catalog_done += length;
        Ok(Some(written))
    }

    /// Makes a segment of the piece whose bytes are at the front of `payload`: writes the header, and zeros behind the piece. Gives
    /// the payload's padded length in bytes, a multiple of BLOCKSIZE. `checksum` is [`Checksum::of`] the piece.
    ///
    /// # Errors
    /// [`WriteError::Order`]: the catalog is not complete, or the end is written. [`WriteError::Piece`]: no segment can have
    /// this length. [`WriteError::NoRoom`]: `header` is smaller than a block, or `payload` than the padded piece. [`WriteError::Header`]:
    /// the piece would end beyond 2^64 bytes. Nothing was counted then.
    pub fn data(
        &mut self,
        header: &mut [u8],
        payload: &mut [u8],
        piece: DataPiece,
        checksum: Option<u32>,
    ) -> Result<usize, WriteError> {
        self.expect_catalog_done("data")?;
        let DataPiece { file_index, file_offset, length } = piece;
        if !(1..=MAX_PAYLOAD).contains(&length) {
            return Err(WriteError::Piece { length });
        }
        let written = self.seal(header, payload, SegmentKind::Data { file_index, file_offset }, length, checksum)?;
        self.totals.data_bytes = self.totals.data_bytes.saturating_add(u64::from(length));
        Ok(written)
    }

    /// Writes the End segment, which has no payload.
    ///
    /// # Errors
    /// [`WriteError::Order`]: the catalog is not complete, or the end is written. [`WriteError::NoRoom`]: `header` is smaller
    /// than a block.
    pub fn end(&mut self, header: &mut [u8]) -> Result<(), WriteError> {
        self.expect_catalog_done("the end")?;
        let Totals { segments, data_bytes } = self.totals;
        let kind = SegmentKind::End { segments: segments.saturating_add(1), data_bytes };
        self.seal(header, &mut [], kind, 0, None)?;
        self.ended = true;
        Ok(())
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

    /// Writes the header, pads the payload, and counts one segment more.
    fn seal(
        &mut self,
        header: &mut [u8],
        payload: &mut [u8],
        kind: SegmentKind,
        payload_len: u32,
        checksum: Option<u32>,
    ) -> Result<usize, WriteError> {
        let block = self.block_size as usize;
        let needed = padded(payload_len, self.block_size).ok_or(WriteError::Piece { length: payload_len })? as usize;
        let found = payload.len();
        let padding = payload.get_mut(payload_len as usize..needed).ok_or(WriteError::NoRoom { found, needed })?;
        let found = header.len();
        let header = header.get_mut(..block).ok_or(WriteError::NoRoom { found, needed: block })?;
        self.header(kind, payload_len, checksum).encode_into(header)?;
        padding.fill(0);
        self.totals.segments = self.totals.segments.saturating_add(1);
        Ok(needed)
    }
}
