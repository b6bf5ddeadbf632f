//! The header of a segment, as bytes and as values.

use super::{BLOCK_SIZES, HeaderError, Identity, MAX_CATALOG_BYTES, MAX_FAMILIES, MAX_PAYLOAD, padded};

/// Bytes of a header block that carry the header; the rest of a larger block is zero.
pub const HEADER_BYTES: usize = 512;

const MAGIC: [u8; 8] = *b"VDISIMS\0";
const VERSION: u16 = 1;
const CHECKSUM_AT: usize = HEADER_BYTES - 4;

/// What a segment is, with the numbers that only this kind has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SegmentKind {
    /// A part of the encoded list of files.
    Catalog {
        /// Where in the list this part begins, in bytes.
        offset: u64,
        /// Length of the whole list in bytes, 1 to [`MAX_CATALOG_BYTES`].
        total: u64,
    },
    /// A piece of a file.
    Data {
        /// The file's place in the catalog, from 0.
        file_index: u32,
        /// Where in the file the piece begins, in bytes.
        file_offset: u64,
    },
    /// A part of the list of the frozen files' paths.
    FileInfo {
        /// Where in the list this part begins, in bytes.
        offset: u64,
        /// Length of the whole list in bytes, 1 to [`MAX_CATALOG_BYTES`].
        total: u64,
    },
    /// A part of the checksums of the frozen files.
    Snapshot {
        /// Where in the checksums this part begins, in bytes.
        offset: u64,
        /// Length of all of them in bytes, 1 to [`MAX_CATALOG_BYTES`].
        total: u64,
    },
    /// The end of the device's stream.
    End {
        /// Segments of all kinds on this device, this one included.
        segments: u64,
        /// Payload bytes of all Data segments on this device.
        data_bytes: u64,
    },
}

impl SegmentKind {
    pub(super) fn code(self) -> u16 {
        match self {
            Self::Catalog { .. } => 1,
            Self::Data { .. } => 2,
            Self::End { .. } => 3,
            Self::FileInfo { .. } => 4,
            Self::Snapshot { .. } => 5,
        }
    }
}

/// The header of one segment. The table in the [module's documentation](super) has the layout.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SegmentHeader {
    /// Whose segment it is.
    pub identity: Identity,
    /// BLOCKSIZE of the backup: a power of two in [`BLOCK_SIZES`].
    pub block_size: u32,
    /// Number of the segment on its device, from 0.
    pub sequence: u64,
    /// What it is.
    pub kind: SegmentKind,
    /// Bytes of the payload without padding: 1 to [`MAX_PAYLOAD`], 0 for an End.
    pub payload_len: u32,
    /// CRC-32 of the payload. Data may have one, an End never has, all others always have.
    pub checksum: Option<u32>,
}

impl SegmentHeader {
    /// Bytes of the payload with its padding.
    #[must_use]
    pub fn padded_len(&self) -> u32 {
        padded(self.payload_len, self.block_size.max(1)).unwrap_or(u32::MAX)
    }

    /// Writes the header block: the first BLOCKSIZE bytes of `block`, all of them.
    ///
    /// # Errors
    /// [`HeaderError::Field`] if a value is out of its range, [`HeaderError::TooShort`] if `block` has fewer than BLOCKSIZE
    /// bytes. Then `block` is unchanged.
    pub fn encode_into(&self, block: &mut [u8]) -> Result<(), HeaderError> {
        self.check()?;
        let (needed, found) = (self.block_size as usize, block.len());
        let block = block.get_mut(..needed).ok_or(HeaderError::TooShort { found, needed })?;
        block.fill(0);
        let (first, second) = match self.kind {
            SegmentKind::Catalog { offset, total }
            | SegmentKind::FileInfo { offset, total }
            | SegmentKind::Snapshot { offset, total } => (offset, total),
            SegmentKind::Data { file_index, file_offset } => (u64::from(file_index), file_offset),
            SegmentKind::End { segments, data_bytes } => (segments, data_bytes),
        };
        let mut at = 0;
        let mut put = |bytes: &[u8]| {
            block[at..at + bytes.len()].copy_from_slice(bytes);
            at += bytes.len();
        };
        put(&MAGIC);
        put(&VERSION.to_le_bytes());
        put(&self.kind.code().to_le_bytes());
        put(&self.block_size.to_le_bytes());
        put(&self.identity.set_id);
        put(&self.identity.family_index.to_le_bytes());
        put(&self.identity.family_count.to_le_bytes());
        put(&self.sequence.to_le_bytes());
        put(&self.payload_len.to_le_bytes());
        put(&self.padded_len().to_le_bytes());
        put(&u32::from(self.checksum.is_some()).to_le_bytes());
        put(&self.checksum.unwrap_or(0).to_le_bytes());
        put(&first.to_le_bytes());
        put(&second.to_le_bytes());
        let checksum = crc32fast::hash(&block[..CHECKSUM_AT]);
        block[CHECKSUM_AT..HEADER_BYTES].copy_from_slice(&checksum.to_le_bytes());
        Ok(())
    }

    /// Reads a header from the first [`HEADER_BYTES`] bytes of `block`. Total on every input; what it gives would be written as
    /// exactly these bytes.
    ///
    /// # Errors
    /// [`HeaderError`] for the first thing that is wrong.
    pub fn decode(block: &[u8]) -> Result<Self, HeaderError> {
        let Some(bytes) = block.first_chunk::<HEADER_BYTES>() else {
            return Err(HeaderError::TooShort { found: block.len(), needed: HEADER_BYTES });
        };
        let mut fields = Fields { rest: bytes };
        let magic = fields.take::<8>();
        if magic != MAGIC {
            return Err(HeaderError::Magic { found: magic });
        }
        let expected = crc32fast::hash(&bytes[..CHECKSUM_AT]);
        let found = Fields { rest: &bytes[CHECKSUM_AT..] }.u32();
        if expected != found {
            return Err(HeaderError::Checksum { expected, found });
        }
        let version = fields.u16();
        if version != VERSION {
            return Err(HeaderError::Version { found: version, supported: VERSION });
        }
        let code = fields.u16();
        let block_size = fields.u32();
        let set_id = fields.take::<16>();
        let identity = Identity { set_id, family_index: fields.u32(), family_count: fields.u32() };
        let sequence = fields.u64();
        let payload_len = fields.u32();
        let padded_len = fields.u32();
        let (flag, checksum) = (fields.u32(), fields.u32());
        let (first, second) = (fields.u64(), fields.u64());
        let kind = match code {
            1 => SegmentKind::Catalog { offset: first, total: second },
            2 => SegmentKind::Data {
                file_index: u32::try_from(first).map_err(|_| field("file number", first, "less than 2^32"))?,
                file_offset: second,
            },
            3 => SegmentKind::End { segments: first, data_bytes: second },
            4 => SegmentKind::FileInfo { offset: first, total: second },
            5 => SegmentKind::Snapshot { offset: first, total: second },
            _ => {
                return Err(field(
                    "kind",
                    u64::from(code),
                    "1 (Catalog), 2 (Data), 3 (End), 4 (FileInfo) or 5 (Snapshot)",
                ));
            }
        };
        let checksum = match (flag, checksum) {
            (0, 0) => None,
            (1, checksum) => Some(checksum),
            (0, checksum) => return Err(field("payload checksum", u64::from(checksum), "0 where there is none")),
            _ => return Err(field("checksum flag", u64::from(flag), "0 or 1")),
        };
        let header = Self { identity, block_size, sequence, kind, payload_len, checksum };
        header.check()?;
        if header.padded_len() != padded_len {
            return Err(field("padded length", u64::from(padded_len), "the payload's length rounded up to blocks"));
        }
        match bytes[HEADER_BYTES - 4 - fields.unused()..CHECKSUM_AT].iter().find(|byte| **byte != 0) {
            Some(byte) => Err(field("unused part", u64::from(*byte), "all zero")),
            None => Ok(header),
        }
    }

    /// The rules that hold within one header.
    fn check(&self) -> Result<(), HeaderError> {
        let Identity { family_index, family_count, .. } = self.identity;
        let length = u64::from(self.payload_len);
        check_block_size(self.block_size)?;
        if !(1..=MAX_FAMILIES).contains(&family_count) {
            return Err(field("number of families", u64::from(family_count), "1 to 64"));
        }
        if family_index >= family_count {
            return Err(field("family", u64::from(family_index), "less than the number of families"));
        }
        if self.payload_len > MAX_PAYLOAD {
            return Err(field("payload length", length, "at most 4194304"));
        }
        match self.kind {
            SegmentKind::Catalog { offset, total }
            | SegmentKind::FileInfo { offset, total }
            | SegmentKind::Snapshot { offset, total } => {
                if !(1..=MAX_CATALOG_BYTES).contains(&total) {
                    return Err(field("length of the whole", total, "1 to 67108864"));
                }
                if length == 0 || offset.checked_add(length).is_none_or(|end| end > total) {
                    return Err(field("payload length", length, "a part of the whole"));
                }
                if self.checksum.is_none() {
                    return Err(field("checksum flag", 0, "1 for a Catalog, FileInfo or Snapshot"));
                }
                if family_count != 1 && !matches!(self.kind, SegmentKind::Catalog { .. }) {
                    return Err(field("number of families", u64::from(family_count), "1 for a snapshot"));
                }
            }
            SegmentKind::Data { file_offset, .. } => {
                if length == 0 {
                    return Err(field("payload length", 0, "1 or more for Data"));
                }
                if file_offset.checked_add(length).is_none() {
                    return Err(field("file offset", file_offset, "such that the piece ends below 2^64"));
                }
            }
            SegmentKind::End { .. } => {
                if length != 0 || self.checksum.is_some() {
                    return Err(field("payload length", length, "0, and no checksum, for an End"));
                }
            }
        }
        Ok(())
    }
}

/// The rule of BLOCKSIZE.
pub(super) fn check_block_size(block_size: u32) -> Result<(), HeaderError> {
    if BLOCK_SIZES.contains(&block_size) && block_size.is_power_of_two() {
        Ok(())
    } else {
        Err(field("block size", u64::from(block_size), "a power of two from 512 to 65536"))
    }
}

fn field(field: &'static str, found: u64, expected: &'static str) -> HeaderError {
    HeaderError::Field { field, found, expected }
}

/// Takes little-endian numbers from the front of bytes; zeros where the bytes have run out.
pub(super) struct Fields<'a> {
    pub(super) rest: &'a [u8],
}

impl Fields<'_> {
    pub(super) fn take<const N: usize>(&mut self) -> [u8; N] {
        match self.rest.split_first_chunk::<N>() {
            Some((bytes, rest)) => {
                self.rest = rest;
                *bytes
            }
            None => {
                self.rest = &[];
                [0; N]
            }
        }
    }

    pub(super) fn u16(&mut self) -> u16 {
        u16::from_le_bytes(self.take())
    }

    pub(super) fn u32(&mut self) -> u32 {
        u32::from_le_bytes(self.take())
    }

    pub(super) fn u64(&mut self) -> u64 {
        u64::from_le_bytes(self.take())
    }

    /// Bytes between here and the header's checksum.
    fn unused(&self) -> usize {
        self.rest.len().saturating_sub(HEADER_BYTES - CHECKSUM_AT)
    }
}
