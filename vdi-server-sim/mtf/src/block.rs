//! Blocks: the common header of 52 bytes.
//!
//! A medium is a sequence of blocks. A block is its header, a body, and streams ([`crate::stream`]). The block ends with its
//! `SPAD` stream; a filemark (`SFMB`) has no streams.
//! (Microsoft Tape Format 1.00a, "Common Block Header"; values observed in backups of SQL Server 2005 to 2022.)

use core::fmt;

use crate::checksum::xor16;
use crate::error::Error;
use crate::layout::fields;
use crate::value::Tag;

/// The length of the common header.
pub const HEADER_LEN: usize = 52;

/// Bits of [`BlockHeader::attributes`] that mean that the format's reader needs another medium, or a decoder.
pub mod attributes {
    /// Any block: it continues one of the medium before.
    pub const CONTINUATION: u32 = 1;
    /// Any block: its streams are compressed.
    pub const COMPRESSION: u32 = 4;
    /// Any block: the set ended at the end of the medium.
    pub const END_AT_END_OF_MEDIUM: u32 = 8;
    /// TAPE: a set map exists.
    pub const SET_MAP_EXISTS: u32 = 0x1_0000;
    /// TAPE: a file catalogue is allowed.
    pub const CATALOGUE_ALLOWED: u32 = 0x2_0000;
    /// SSET: the streams of the set are encrypted.
    pub const ENCRYPTION: u32 = 0x2_0000;
    /// SFMB: the block has a field with the offset of its first slot (SQL Server 2008 on).
    pub const FIRST_SLOT_GIVEN: u32 = 0x8000_0000;
}

/// The kind of a block.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum BlockId {
    /// `TAPE`: the label of the medium.
    Tape,
    /// `SFMB`: a soft filemark.
    Filemark,
    /// `SSET`: the start of a backup set.
    SetStart,
    /// `VOLB`: the volume of the database's primary file.
    Volume,
    /// `MSCI`: the configuration of the database when the backup began.
    Configuration,
    /// `MSDA`: pages of data files.
    Data,
    /// `MSTL`: a virtual log file.
    Log,
    /// `MSLS`: the configuration again, when the backup ended.
    Summary,
    /// `ESET`: the end of a backup set.
    SetEnd,
}

impl BlockId {
    /// All kinds.
    pub const ALL: [BlockId; 9] = [
        BlockId::Tape,
        BlockId::Filemark,
        BlockId::SetStart,
        BlockId::Volume,
        BlockId::Configuration,
        BlockId::Data,
        BlockId::Log,
        BlockId::Summary,
        BlockId::SetEnd,
    ];

    /// The name in the block's first four bytes.
    pub const fn tag(self) -> Tag {
        Tag(*match self {
            BlockId::Tape => b"TAPE",
            BlockId::Filemark => b"SFMB",
            BlockId::SetStart => b"SSET",
            BlockId::Volume => b"VOLB",
            BlockId::Configuration => b"MSCI",
            BlockId::Data => b"MSDA",
            BlockId::Log => b"MSTL",
            BlockId::Summary => b"MSLS",
            BlockId::SetEnd => b"ESET",
        })
    }

    /// The kind with this name.
    pub fn from_tag(tag: Tag) -> Option<Self> {
        Self::ALL.into_iter().find(|id| id.tag() == tag)
    }

    /// Whether the block is one of a set's addressed blocks (SSET to MSLS), which count their control block ids.
    pub const fn is_addressed(self) -> bool {
        !matches!(self, BlockId::Tape | BlockId::Filemark | BlockId::SetEnd)
    }
}

impl fmt::Display for BlockId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.tag().fmt(f)
    }
}

fields! {
    /// The common header of a block: all its 52 bytes.
    pub struct BlockHeader {
        /// The kind, as a name.
        tag: Tag = 0,
        /// Bits of [`attributes`].
        attributes: u32 = 4,
        /// Bytes from the block's start to its first stream, a multiple of 4. In a filemark: the length of the block.
        first_stream: u16 = 8,
        /// The operating system: 14 for Windows NT.
        os_id: u8 = 10,
        /// The version of the operating system's data: 1.
        os_version: u8 = 11,
        /// 0.
        displayable_size: u64 = 12,
        /// The block's distance from its SSET in logical blocks. 0 in TAPE, SFMB and ESET.
        logical_address: u64 = 20,
        /// Reserved: 0.
        reserved_28: [u8; 8] = 28,
        /// The number of the block in its set, from 0 for SSET. 0 in TAPE, SFMB and ESET.
        control_block_id: u32 = 36,
        /// Reserved: 0.
        reserved_40: [u8; 4] = 40,
        /// Bytes of operating system data: 21 in SSET, else 0.
        os_data_len: u16 = 44,
        /// Where they are, from the block's start: 100 in SSET, else 0.
        os_data_offset: u16 = 46,
        /// 2 where the block may have texts (UTF-16), else 0. 1 would be ANSI.
        string_type: u8 = 48,
        /// Reserved: 0.
        reserved_49: u8 = 49,
        /// Exclusive or of the 25 words before it. The block's body is not covered.
        checksum: u16 = 50,
    }
}

impl BlockHeader {
    /// The header of a block of SQL Server. Length, addresses and checksum are set when the block is written.
    pub(crate) fn new(id: BlockId) -> Self {
        let (os_data_len, os_data_offset) = if id == BlockId::SetStart { (21, 100) } else { (0, 0) };
        use BlockId::{Configuration, SetStart, Summary, Tape, Volume};
        let string_type = if matches!(id, Tape | SetStart | Volume | Configuration | Summary) { 2 } else { 0 };
        let attributes = match id {
            Tape => attributes::SET_MAP_EXISTS | attributes::CATALOGUE_ALLOWED,
            _ => 0,
        };
        BlockHeader {
            tag: id.tag(),
            attributes,
            os_id: 14,
            os_version: 1,
            os_data_len,
            os_data_offset,
            string_type,
            ..BlockHeader::default()
        }
    }

    /// Reads and validates a header.
    ///
    /// # Errors
    /// [`Error::Truncated`], [`Error::BlockChecksum`], [`Error::Range`] for a first stream inside of the header.
    pub fn decode(bytes: &[u8], offset: u64) -> Result<Self, Error> {
        let Some(bytes) = bytes.get(..HEADER_LEN) else {
            return Err(Error::Truncated { offset: offset + bytes.len() as u64, inside: "a block header" });
        };
        let header = Self::get_fields(bytes);
        let expected = xor16(&bytes[..HEADER_LEN - 2]);
        if header.checksum != expected {
            return Err(Error::BlockChecksum { offset, expected, found: header.checksum });
        }
        Ok(header)
    }

    /// Writes the header, with its checksum, over the first bytes of `block`.
    pub(crate) fn encode_into(&self, block: &mut [u8]) {
        self.put_fields(block);
        reseal(block);
    }
}

/// Computes the checksum of the header at the start of `block` anew.
pub(crate) fn reseal(block: &mut [u8]) {
    let sum = xor16(&block[..HEADER_LEN - 2]);
    block[HEADER_LEN - 2..HEADER_LEN].copy_from_slice(&sum.to_le_bytes());
}

/// A block up to its first stream: header, body and texts. The header's checksum is right.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Block<'a> {
    /// Where it begins on the medium.
    pub offset: u64,
    /// Its kind.
    pub id: BlockId,
    /// All its bytes before the first stream; at least [`HEADER_LEN`].
    pub bytes: &'a [u8],
}

impl Block<'_> {
    /// The common header.
    pub fn header(&self) -> BlockHeader {
        BlockHeader::get_fields(self.bytes)
    }

    /// The bytes for a record: the common header is blanked, since it is written anew.
    pub(crate) fn body(&self, id: BlockId) -> Result<Vec<u8>, Error> {
        if self.id != id {
            return Err(Error::UnexpectedBlock { offset: self.offset, expected: id.name(), found: self.id });
        }
        let mut bytes = self.bytes.to_vec();
        let header = bytes.len().min(HEADER_LEN);
        bytes[..header].fill(0);
        Ok(bytes)
    }
}

impl BlockId {
    /// The name as a text.
    pub const fn name(self) -> &'static str {
        match self {
            BlockId::Tape => "TAPE",
            BlockId::Filemark => "SFMB",
            BlockId::SetStart => "SSET",
            BlockId::Volume => "VOLB",
            BlockId::Configuration => "MSCI",
            BlockId::Data => "MSDA",
            BlockId::Log => "MSTL",
            BlockId::Summary => "MSLS",
            BlockId::SetEnd => "ESET",
        }
    }
}
