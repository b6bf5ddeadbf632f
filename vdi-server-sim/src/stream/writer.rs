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

/// How far a stream is: what was written last, and of a list how much.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    Catalog {
        done: usize,
    },
    /// The catalog is complete, and nothing stands behind it.
    Open,
    Data,
    FileInfo {
        done: usize,
        total: usize,
    },
    Snapshot {
        done: usize,
        total: usize,
    },
    Ended,
}

impl Stage {
    fn refuse(self, what: &'static str) -> WriteError {
        let when = match self {
            Self::Catalog { .. } => "before the catalog was complete",
            Self::Open => "right behind the catalog",
            Self::Data => "after data",
            Self::FileInfo { done, total } if done < total => "before the file info was complete",
            Self::FileInfo { .. } => "after the file info",
            Self::Snapshot { done, total } if done < total => "before the snapshot was complete",
            Self::Snapshot { .. } => "after the snapshot",
            Self::Ended => "after the end",
        };
        WriteError::Order { what, when }
    }
}

/// Makes the segments of one device, in their order: all of the catalog, data, the end; or, for a snapshot, all of the catalog,
/// perhaps the file info, the snapshot, the end. It numbers and counts them; the bytes are in the caller's buffers. Header
/// block and payload are given separately: they may lie in one buffer, or, where a transfer holds just one block, in two.
#[derive(Debug)]
pub struct StreamWriter {
    identity: Identity,
    block_size: u32,
    catalog: Arc<[u8]>,
    stage: Stage,
    totals: Totals,
}

impl StreamWriter {
    /// A writer for the device of `identity`. `catalog` is [encoded](super::Catalog::encode), and the same for all devices.
    ///
    /// # Errors
    /// [`WriteError::Header`] if `block_size` or `identity` is out of range.
    pub fn new(identity: Identity, block_size: u32, catalog: Arc<[u8]>) -> Result<Self, WriteError> {
        let stage = if catalog.is_empty() { Stage::Open } else { Stage::Catalog { done: 0 } };
        let writer = Self { identity, block_size, catalog, stage, totals: Totals::default() };
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
        let Stage::Catalog { done } = self.stage else { return Ok(None) };
        let catalog = Arc::clone(&self.catalog);
        let kind = |offset, total| SegmentKind::Catalog { offset, total };
        let (done, written) = self.part(header, payload, &catalog, done, kind)?;
        self.stage = if done < catalog.len() { Stage::Catalog { done } } else { Stage::Open };
        Ok(Some(written))
    }

    /// Makes a segment of the piece whose bytes are at the front of `payload`: writes the header, and zeros behind the piece. Gives
    /// the payload's padded length in bytes, a multiple of BLOCKSIZE. `checksum` is [`Checksum::of`] the piece.
    ///
    /// # Errors
    /// [`WriteError::Order`]: the catalog is not complete, the end is written, or the stream is a snapshot's.
    /// [`WriteError::Piece`]: no segment can have this length. [`WriteError::NoRoom`]: `header` is smaller than a block, or
    /// `payload` than the padded piece. [`WriteError::Header`]: the piece would end beyond 2^64 bytes. Nothing was counted then.
    pub fn data(
        &mut self,
        header: &mut [u8],
        payload: &mut [u8],
        piece: DataPiece,
        checksum: Option<u32>,
    ) -> Result<usize, WriteError> {
        let (Stage::Open | Stage::Data) = self.stage else { return Err(self.stage.refuse("data")) };
        let DataPiece { file_index, file_offset, length } = piece;
        if !(1..=MAX_PAYLOAD).contains(&length) {
            return Err(WriteError::Piece { length });
        }
        let written = self.seal(header, payload, SegmentKind::Data { file_index, file_offset }, length, checksum)?;
        self.stage = Stage::Data;
        self.totals.data_bytes = self.totals.data_bytes.saturating_add(u64::from(length));
        Ok(written)
    }

    /// Writes the next part of the list of the frozen files, as much as fits into `payload`. `text` is
    /// [`file_info`](super::file_info)'s, all of it and the same each time. Gives the payload's padded length in bytes, a
    /// multiple of BLOCKSIZE, or `None` when the list is complete.
    ///
    /// # Errors
    /// [`WriteError::Order`]: it comes behind the catalog and before the snapshot, and not together with data.
    /// [`WriteError::NoRoom`] if `header` or `payload` is smaller than a block. [`WriteError::Header`]: the text is too long,
    /// or the backup has several devices.
    pub fn next_file_info(
        &mut self,
        header: &mut [u8],
        payload: &mut [u8],
        text: &str,
    ) -> Result<Option<usize>, WriteError> {
        let done = match self.stage {
            Stage::Open => 0,
            Stage::FileInfo { done, .. } => done,
            stage => return Err(stage.refuse("file info")),
        };
        if done >= text.len() {
            return Ok(None);
        }
        let kind = |offset, total| SegmentKind::FileInfo { offset, total };
        let (done, written) = self.part(header, payload, text.as_bytes(), done, kind)?;
        self.stage = Stage::FileInfo { done, total: text.len() };
        Ok(Some(written))
    }

    /// Writes the next part of the snapshot, as much as fits into `payload`. `checksums` is
    /// [encoded](super::Snapshot::encode), all of it and the same each time. Gives the payload's padded length in bytes, a
    /// multiple of BLOCKSIZE, or `None` when the snapshot is complete.
    ///
    /// # Errors
    /// [`WriteError::Order`]: it comes behind the catalog and the whole file info, and not together with data.
    /// [`WriteError::NoRoom`] if `header` or `payload` is smaller than a block. [`WriteError::Header`]: it is too long, or the
    /// backup has several devices.
    pub fn next_snapshot(
        &mut self,
        header: &mut [u8],
        payload: &mut [u8],
        checksums: &[u8],
    ) -> Result<Option<usize>, WriteError> {
        let done = match self.stage {
            Stage::Open => 0,
            Stage::FileInfo { done, total } if done == total => 0,
            Stage::Snapshot { done, .. } => done,
            stage => return Err(stage.refuse("a snapshot")),
        };
        if done >= checksums.len() {
            return Ok(None);
        }
        let kind = |offset, total| SegmentKind::Snapshot { offset, total };
        let (done, written) = self.part(header, payload, checksums, done, kind)?;
        self.stage = Stage::Snapshot { done, total: checksums.len() };
        Ok(Some(written))
    }

    /// Writes the End segment, which has no payload.
    ///
    /// # Errors
    /// [`WriteError::Order`]: the catalog, file info or snapshot is not complete, file info has no snapshot behind it, or the end
    /// is written. [`WriteError::NoRoom`]: `header` is smaller than a block.
    pub fn end(&mut self, header: &mut [u8]) -> Result<(), WriteError> {
        match self.stage {
            Stage::Open | Stage::Data => {}
            Stage::Snapshot { done, total } if done == total => {}
            stage => return Err(stage.refuse("the end")),
        }
        let Totals { segments, data_bytes } = self.totals;
        let kind = SegmentKind::End { segments: segments.saturating_add(1), data_bytes };
        self.seal(header, &mut [], kind, 0, None)?;
        self.stage = Stage::Ended;
        Ok(())
    }

    /// Writes a part of `whole`, of which `done` bytes are written. Gives how many are written now, and the payload's padded
    /// length.
    fn part(
        &mut self,
        header: &mut [u8],
        payload: &mut [u8],
        whole: &[u8],
        done: usize,
        kind: fn(u64, u64) -> SegmentKind,
    ) -> Result<(usize, usize), WriteError> {
        let rest = whole.get(done..).unwrap_or_default();
        let capacity = payload_capacity(payload.len(), self.block_size);
        if capacity == 0 {
            return Err(WriteError::NoRoom { found: payload.len(), needed: self.block_size as usize });
        }
        let part = &rest[..rest.len().min(capacity as usize)];
        payload[..part.len()].copy_from_slice(part);
        let checksum = Checksum::Crc32.of(part);
        let kind = kind(done as u64, whole.len() as u64);
        let written = self.seal(header, payload, kind, part.len() as u32, checksum)?;
        Ok((done + part.len(), written))
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
