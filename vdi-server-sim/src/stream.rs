//! The simulator's own stream format: what the bytes on the virtual devices mean.
//!
//! A backup goes to one or more devices. What one device gets is a *family*: a sequence of *segments*, each a header block of
//! BLOCKSIZE bytes and a payload, padded with zeros to a multiple of BLOCKSIZE:
//!
//! ```text
//! family 0:   Catalog Catalog ...  Data Data Data ...  End
//! family 1:   Catalog Catalog ...  Data Data ...       End
//!             \__ the same on  __/ \_ the files' bytes,_/
//!                 every device        spread in any way
//! ```
//!
//! A snapshot backup goes to one device, and has no Data: the client copies the files itself, while they are frozen.
//!
//! ```text
//! family 0:   Catalog Catalog ...  [FileInfo ...]  Snapshot ...  End
//! ```
//!
//! - *Catalog*: the list of the database's files, in as many segments as it takes. Every device gets all of it, so that each says
//!   by itself what it belongs to.
//! - *Data*: a piece of one file. Any piece may be on any device.
//! - *FileInfo*: where the frozen files are, for the client: UTF-8 text, one absolute path a line ([`file_info`]). It may be left out.
//! - *Snapshot*: the checksums of the frozen files ([`Snapshot`]), by which a restore verifies what the client put back.
//! - *End*: the totals of the device. It says where the stream ends, so that a restore never has to read further.
//!
//! # Header
//! Little-endian; the first [`HEADER_BYTES`] bytes of the header block, all bytes not named are zero.
//!
//! | offset | size | field |
//! |---|---|---|
//! | 0 | 8 | `VDISIMS` and a zero |
//! | 8 | 2 | version, 1 |
//! | 10 | 2 | kind: 1 Catalog, 2 Data, 3 End, 4 FileInfo, 5 Snapshot |
//! | 12 | 4 | BLOCKSIZE |
//! | 16 | 16 | backup set id |
//! | 32 | 4 | index of the family, from 0 |
//! | 36 | 4 | number of families |
//! | 40 | 8 | sequence number of the segment on its device, from 0 |
//! | 48 | 4 | length of the payload |
//! | 52 | 4 | length of the payload with its padding |
//! | 56 | 4 | 1 if the payload has a checksum, else 0 |
//! | 60 | 4 | CRC-32 of the payload without its padding, or 0 |
//! | 64 | 8 | Catalog, FileInfo, Snapshot: offset of this part; Data: number of the file; End: segments of this device |
//! | 72 | 8 | Catalog, FileInfo, Snapshot: length of the whole; Data: offset in the file; End: Data bytes of this device |
//! | 508 | 4 | CRC-32 of the bytes before |
//!
//! # The law
//! [`StreamParser`] takes the bytes of one device in pieces of any length, and [`SetVerifier`] what the parsers of all devices
//! found. Together they guarantee, provided that the backup was made with [`Checksum::Crc32`]:
//!
//! > If all parsers are finished and [`SetVerifier::finish`] succeeds, the bytes handed out are those of the backup, and every byte
//! > of every file was handed out exactly once. One flipped bit anywhere, a truncated, repeated, lost or moved segment, a
//! > missing device, a device given twice, and a device of another backup are all found.
//!
//! Of a snapshot no bytes are handed out; there the law says that catalog and [`Snapshot`] are those of the backup. The two kinds of
//! stream cannot be confused: a parser is made for one of them ([`StreamParser::new`], [`StreamParser::for_snapshot`]) and refuses
//! the other, and no stream is both.
//!
//! The order in which a RESTORE names the devices does not matter. Without payload checksums, flipped bits inside Data payloads are
//! not found; everything else still is. A CRC is no signature: it finds accidents, not forgery.
//!
//! # One copy only
//! On backup, a file is read straight into the transfer buffer behind the room for the header block, and
//! [`StreamWriter::data`] then puts the header in front. On restore, [`Action::Data`] says which bytes of the buffer belong
//! where in the files, and they are written from there.
//!
//! ```
//! use vdi_server_sim::database::DatabaseFile;
//! use vdi_server_sim::stream::*;
//!
//! let file = DatabaseFile { path: "a.mdf".into(), size: 5, mode: 0o640 };
//! let catalog = Catalog::new(vec![file])?;
//! let identity = Identity { set_id: [7; 16], family_index: 0, family_count: 1 };
//! let mut writer = StreamWriter::new(identity, 512, catalog.encode().into())?;
//! let mut stream = Vec::new();
//! let mut buffer = vec![0; 65_536];
//! let (header, payload) = buffer.split_at_mut(512);
//!
//! while let Some(length) = writer.next_catalog(header, payload)? {
//!     stream.extend_from_slice(header);
//!     stream.extend_from_slice(&payload[..length]);
//! }
//! payload[..5].copy_from_slice(b"hello");
//! let checksum = Checksum::Crc32.of(&payload[..5]);
//! let length = writer.data(header, payload, DataPiece { file_index: 0, file_offset: 0, length: 5 }, checksum)?;
//! stream.extend_from_slice(header);
//! stream.extend_from_slice(&payload[..length]);
//! writer.end(header)?;
//! stream.extend_from_slice(header);
//!
//! let mut parser = StreamParser::new(Expectations { block_size: 512, family_count: Some(1) });
//! let mut verifier = SetVerifier::new(1);
//! let mut restored = vec![0; 5];
//! let mut actions = Vec::new();
//! for slice in stream.chunks(100) {
//!     actions.clear();
//!     parser.push(slice, &mut actions)?;
//!     for action in &actions {
//!         verifier.record(&identity, action)?;
//!         if let Action::Data { file_offset, range, .. } = action {
//!             let at = *file_offset as usize;
//!             restored[at..at + range.len()].copy_from_slice(&slice[range.clone()]);
//!         }
//!     }
//! }
//! parser.finish()?;
//! verifier.finish()?;
//! assert_eq!(restored, b"hello");
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod catalog;
mod error;
mod header;
mod parser;
mod snapshot;
#[cfg(test)]
mod tests;
mod verifier;
mod writer;

pub use catalog::{Catalog, MAX_CATALOG_BYTES};
pub use error::{CatalogError, HeaderError, SetError, SnapshotError, StreamError, WriteError};
pub use header::{HEADER_BYTES, SegmentHeader, SegmentKind};
pub use parser::{Action, Expectations, StreamParser};
pub use snapshot::{Snapshot, file_info};
pub use verifier::{SetTotals, SetVerifier};
pub use writer::{DataPiece, StreamWriter, payload_capacity};

/// Smallest and largest BLOCKSIZE, which is a power of two.
pub const BLOCK_SIZES: std::ops::RangeInclusive<u32> = 512..=65_536;

/// Longest payload of one segment, in bytes: MAXTRANSFERSIZE at its largest.
pub const MAX_PAYLOAD: u32 = 4 << 20;

/// The most families of one backup: as many as a virtual device set has devices.
pub const MAX_FAMILIES: u32 = 64;

/// Whose stream it is: which backup, and which part of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Identity {
    /// Tells this backup from every other; random, the same on all its devices.
    pub set_id: [u8; 16],
    /// Which of the families, from 0.
    pub family_index: u32,
    /// How many families the backup has, 1 to [`MAX_FAMILIES`].
    pub family_count: u32,
}

/// What protects the payloads of the Data segments.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Checksum {
    /// Nothing.
    None,
    /// CRC-32 (the polynomial of IEEE 802.3), which processors compute at several gigabytes a second.
    #[default]
    Crc32,
}

impl Checksum {
    /// The checksum of a payload without its padding, as [`StreamWriter::data`] wants it.
    #[must_use]
    pub fn of(self, payload: &[u8]) -> Option<u32> {
        match self {
            Self::None => None,
            Self::Crc32 => Some(crc32fast::hash(payload)),
        }
    }
}

/// The totals of one device's stream, as its End segment tells them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Totals {
    /// Segments of all kinds, the End included.
    pub segments: u64,
    /// Payload bytes of the Data segments, without padding.
    pub data_bytes: u64,
}

/// Length of a payload with its padding. `None` if it does not fit into 32 bits.
fn padded(payload: u32, block_size: u32) -> Option<u32> {
    payload.checked_next_multiple_of(block_size)
}
