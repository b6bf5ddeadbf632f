//! The error of this crate.

use crate::block::BlockId;
use crate::value::{Guid, Lsn, PageAddress, Tag};

/// Why a backup is refused, or what is damaged in it.
///
/// Offsets are bytes from the start of the medium (the start of a file) unless the variant says otherwise.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The input does not begin with a TAPE block.
    #[error("this is no Microsoft Tape Format: it begins with {found}, not with TAPE")]
    NotMtf {
        /// The first four bytes.
        found: Tag,
    },
    /// A compressed backup: SQL Server's own container (`MSSQLBAK`), which has the tape format inside.
    #[error(
        "this is a compressed backup (container MSSQLBAK, version {version}, algorithm {algorithm}{}): only uncompressed \
         backups can be read; make the backup WITH NO_COMPRESSION",
        algorithm_name(*algorithm)
    )]
    CompressedContainer {
        /// The container's version.
        version: u32,
        /// The number of the algorithm: 3 XPRESS, 131 ZSTD.
        algorithm: u32,
    },
    /// The set or a stream is encrypted.
    #[error("{what} at {offset:#x} is encrypted: only backups without encryption can be read")]
    Encrypted {
        /// Where it begins.
        offset: u64,
        /// The block or stream.
        what: Tag,
    },
    /// The set or a stream is compressed.
    #[error("{what} at {offset:#x} is compressed: only uncompressed backups can be read")]
    Compressed {
        /// Where it begins.
        offset: u64,
        /// The block or stream.
        what: Tag,
    },
    /// The backup begins or goes on on another medium of the family (tapes only).
    #[error("the backup continues on another medium ({what} at {offset:#x}): media that continue are not supported")]
    Continued {
        /// Where the block or stream begins.
        offset: u64,
        /// The block or stream.
        what: Tag,
    },
    /// A block with an unknown name.
    #[error("unknown block {found} at {offset:#x}")]
    UnknownBlock {
        /// Where it begins.
        offset: u64,
        /// Its name.
        found: Tag,
    },
    /// A known block in the wrong place.
    #[error("block {found} at {offset:#x}, expected {expected}")]
    UnexpectedBlock {
        /// Where it begins.
        offset: u64,
        /// The blocks that may stand here.
        expected: &'static str,
        /// The block.
        found: BlockId,
    },
    /// The checksum of a block's header is wrong.
    #[error("header of the block at {offset:#x}: checksum {found:#06x}, expected {expected:#06x}")]
    BlockChecksum {
        /// Where the block begins.
        offset: u64,
        /// The checksum of the bytes.
        expected: u16,
        /// The checksum in the header.
        found: u16,
    },
    /// The checksum of a stream's header is wrong.
    #[error("header of the stream at {offset:#x}: checksum {found:#06x}, expected {expected:#06x}")]
    StreamChecksum {
        /// Where the stream begins.
        offset: u64,
        /// The checksum of the bytes.
        expected: u16,
        /// The checksum in the header.
        found: u16,
    },
    /// A stream's name is not four printable letters.
    #[error("the stream at {offset:#x} has no name: {found}")]
    UnknownStream {
        /// Where it begins.
        offset: u64,
        /// What stands in the name's place.
        found: Tag,
    },
    /// A field has another value than the format or the rest of the medium requires.
    #[error("{field} at {offset:#x} is {found}, expected {expected}")]
    Field {
        /// Where the block, stream or record of the field begins.
        offset: u64,
        /// The field.
        field: &'static str,
        /// The value that it has to have.
        expected: u64,
        /// The value that it has.
        found: u64,
    },
    /// A field has a value outside its range.
    #[error("{field} at {offset:#x} is {found}, allowed are {least} to {most}")]
    Range {
        /// Where the block, stream or record of the field begins.
        offset: u64,
        /// The field.
        field: &'static str,
        /// The smallest allowed value.
        least: u64,
        /// The largest allowed value.
        most: u64,
        /// The value that it has.
        found: u64,
    },
    /// The bytes between two streams are not zero.
    #[error("padding byte at {offset:#x} is {found:#04x}, expected 0x00")]
    Padding {
        /// Where the byte is.
        offset: u64,
        /// Its value.
        found: u8,
    },
    /// The input has no bytes.
    #[error("it is empty: no backup was written to it")]
    Empty,
    /// The input ends too early.
    #[error("the backup is truncated: it ends at {offset:#x}, inside of {inside}")]
    Truncated {
        /// Where the input ends.
        offset: u64,
        /// What is incomplete.
        inside: &'static str,
    },
    /// A record of the configuration has an unknown name.
    #[error("unknown configuration record {found} at {offset:#x}")]
    UnknownRecord {
        /// Where the record begins.
        offset: u64,
        /// Its name.
        found: Tag,
    },
    /// Two copies of a value differ.
    #[error("{what} at {offset:#x} differs from the earlier copy")]
    Mismatch {
        /// Where the later copy is.
        offset: u64,
        /// The value.
        what: &'static str,
    },
    /// A page's checksum is wrong.
    #[error("page {page} at {offset:#x}: checksum {found:#010x}, expected {expected:#010x}")]
    PageChecksum {
        /// Where the page begins.
        offset: u64,
        /// The page.
        page: PageAddress,
        /// The checksum of the bytes.
        expected: u32,
        /// The checksum in the page header.
        found: u32,
    },
    /// A page was written in part: a sector has another torn-page mark.
    #[error("page {page} at {offset:#x} is torn: sector {sector} has mark {found}, expected {expected}")]
    TornPage {
        /// Where the page begins.
        offset: u64,
        /// The page.
        page: PageAddress,
        /// The sector, 1 to 15.
        sector: u8,
        /// The mark in the page header.
        expected: u8,
        /// The mark in the sector.
        found: u8,
    },
    /// The header of an allocated page names another page.
    #[error("the page at {offset:#x} has the header of page {found}, expected page {expected}")]
    MisplacedPage {
        /// Where the page begins.
        offset: u64,
        /// The page that belongs here.
        expected: PageAddress,
        /// The page that the header names.
        found: PageAddress,
    },
    /// The first page of an extent has no address that begins an extent.
    #[error("the extent at {offset:#x} begins with page {found}, expected a page whose number is a multiple of 8")]
    ExtentAddress {
        /// Where the extent begins.
        offset: u64,
        /// The page that the header names.
        found: PageAddress,
    },
    /// The checksum of all bytes of a stream (BACKUP WITH CHECKSUM) is wrong.
    #[error("backup checksum of the {stream} stream at {offset:#x} is {found:#010x}, expected {expected:#010x}")]
    BackupChecksum {
        /// Where the stream begins.
        offset: u64,
        /// The stream.
        stream: Tag,
        /// The checksum of the bytes.
        expected: u32,
        /// The checksum in the CSUM stream.
        found: u32,
    },
    /// A log block's checksum is wrong.
    #[error("log block {lsn} at {offset:#x}: checksum {found:#010x}, expected {expected:#010x}")]
    LogChecksum {
        /// Where the log block begins.
        offset: u64,
        /// The block's log sequence number.
        lsn: Lsn,
        /// The checksum of the bytes.
        expected: u32,
        /// The checksum in the block.
        found: u32,
    },
    /// A sector of a log block has another parity than its virtual log file.
    #[error("log sector at {offset:#x}: first byte {found:#04x}, expected {expected:#04x}")]
    LogParity {
        /// Where the sector begins.
        offset: u64,
        /// The byte that belongs here.
        expected: u8,
        /// The byte.
        found: u8,
    },
    /// A medium belongs to another media set than the first.
    #[error("family {number} is of media set {found}, the first of media set {expected}")]
    ForeignFamily {
        /// The family's number in its media set.
        number: u16,
        /// The media set of the first medium.
        expected: Guid,
        /// The media set of this one.
        found: Guid,
    },
    /// A family came twice.
    #[error("family {number} of the media set came twice")]
    RepeatedFamily {
        /// The family's number.
        number: u16,
    },
    /// A family of the media set did not come.
    #[error("family {number} of the {count} families of the media set is missing")]
    MissingFamily {
        /// The family's number.
        number: u16,
        /// The families of the media set.
        count: u16,
    },
    /// A writer was told to write something that does not belong there.
    #[error("the writer at {offset:#x} expected {expected}, not {found}")]
    Order {
        /// Where the writer stands.
        offset: u64,
        /// What has to come next.
        expected: &'static str,
        /// What came.
        found: &'static str,
    },
}

fn algorithm_name(algorithm: u32) -> &'static str {
    match algorithm {
        3 => " XPRESS",
        131 => " ZSTD",
        _ => "",
    }
}
