//! Streams: the header of 22 bytes, and the names.
//!
//! A block's first stream begins where the block's header says. The next stream's header begins at the end of the data, rounded
//! up to 4; the bytes between are zero. The stream `SPAD` is the last of a block; the next block begins where its data ends.
//! (Microsoft Tape Format 1.00a, "Stream Header".)

use core::fmt;

use crate::checksum::xor16;
use crate::error::Error;
use crate::layout::fields;
use crate::value::Tag;

/// The length of a stream header.
pub const HEADER_LEN: usize = 22;

/// Bits of [`StreamHeader::media_attributes`].
pub mod attributes {
    /// The stream continues on another medium.
    pub const CONTINUED: u16 = 1;
    /// One of several pieces of a stream whose length was not known when it began.
    pub const VARIABLE: u16 = 2;
    /// The last, empty piece of such a stream.
    pub const VARIABLE_END: u16 = 4;
    /// The data is encrypted.
    pub const ENCRYPTED: u16 = 8;
    /// The data is compressed.
    pub const COMPRESSED: u16 = 0x10;
    /// The data is padding before the next stream's data.
    pub const ALIGNMENT: u16 = 0x80;
    /// A `CSUM` stream with the checksum of the data follows (BACKUP WITH CHECKSUM).
    pub const SUMMED: u16 = 0x100;
}

/// The name of a stream.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct StreamId(pub Tag);

impl StreamId {
    /// The media set: GUID and families. In TAPE.
    pub const MEDIA_SET: StreamId = StreamId(Tag(*b"RAID"));
    /// Padding up to the next block. The last stream of each block.
    pub const PAD: StreamId = StreamId(Tag(*b"SPAD"));
    /// Padding that aligns the data of the next stream.
    pub const ALIGN: StreamId = StreamId(Tag(*b"APAD"));
    /// Configuration: database, filegroups, files. In MSCI and MSLS.
    pub const CONFIGURATION: StreamId = StreamId(Tag(*b"MQCI"));
    /// Pages of data files. In MSDA.
    pub const DATA: StreamId = StreamId(Tag(*b"MQDA"));
    /// Bytes of a virtual log file. In MSTL.
    pub const LOG: StreamId = StreamId(Tag(*b"MQTL"));
    /// The checksum of the stream before it.
    pub const SUM: StreamId = StreamId(Tag(*b"CSUM"));
    /// Padding before the set map. In ESET.
    pub const MAP_PAD: StreamId = StreamId(Tag(*b"OTCP"));
    /// The set map: all sets of the medium. In ESET.
    pub const SET_MAP: StreamId = StreamId(Tag(*b"TSMP"));

    /// Whether the stream's data is padding: zeros.
    pub fn is_padding(self) -> bool {
        matches!(self, Self::PAD | Self::ALIGN | Self::MAP_PAD)
    }
}

impl fmt::Display for StreamId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl fmt::Debug for StreamId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

fields! {
    /// The header of a stream: all its 22 bytes.
    pub struct StreamHeader {
        /// The name.
        tag: Tag = 0,
        /// File system attributes: 0.
        file_system_attributes: u16 = 4,
        /// Bits of [`attributes`].
        media_attributes: u16 = 6,
        /// Bytes of data, without this header.
        len: u64 = 8,
        /// The encryption algorithm: 0.
        encryption: u16 = 16,
        /// The compression algorithm: 0.
        compression: u16 = 18,
        /// Exclusive or of the 10 words before it. The data is not covered.
        checksum: u16 = 20,
    }
}

impl StreamHeader {
    /// A header with this name, these attributes and this length.
    pub fn new(id: StreamId, media_attributes: u16, len: u64) -> Self {
        StreamHeader { tag: id.0, media_attributes, len, ..StreamHeader::default() }
    }

    /// The name.
    pub fn id(&self) -> StreamId {
        StreamId(self.tag)
    }

    /// Reads and validates a header.
    ///
    /// # Errors
    /// [`Error::Truncated`]; [`Error::StreamChecksum`]; [`Error::UnknownStream`] if the name is not printable;
    /// [`Error::Encrypted`], [`Error::Compressed`] and [`Error::Continued`] for streams that cannot be read.
    pub fn decode(bytes: &[u8], offset: u64) -> Result<Self, Error> {
        let Some(bytes) = bytes.get(..HEADER_LEN) else {
            return Err(Error::Truncated { offset: offset + bytes.len() as u64, inside: "a stream header" });
        };
        let header = Self::get_fields(bytes);
        let expected = xor16(&bytes[..HEADER_LEN - 2]);
        if header.checksum != expected {
            return Err(Error::StreamChecksum { offset, expected, found: header.checksum });
        }
        let what = header.tag;
        if !what.is_printable() {
            return Err(Error::UnknownStream { offset, found: what });
        }
        if header.media_attributes & attributes::ENCRYPTED != 0 || header.encryption != 0 {
            return Err(Error::Encrypted { offset, what });
        }
        if header.media_attributes & attributes::COMPRESSED != 0 || header.compression != 0 {
            return Err(Error::Compressed { offset, what });
        }
        if header.media_attributes & attributes::CONTINUED != 0 {
            return Err(Error::Continued { offset, what });
        }
        Ok(header)
    }

    /// The 22 bytes, with their checksum.
    pub fn encode(&self) -> [u8; HEADER_LEN] {
        let mut bytes = [0; HEADER_LEN];
        self.put_fields(&mut bytes);
        let sum = xor16(&bytes[..HEADER_LEN - 2]);
        bytes[HEADER_LEN - 2..].copy_from_slice(&sum.to_le_bytes());
        bytes
    }
}

/// A stream's header, and where it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stream {
    /// Where the header begins on the medium. The data follows it.
    pub offset: u64,
    /// The header.
    pub header: StreamHeader,
}
